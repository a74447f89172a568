"""Chooses where each picture is drawn: gates first, then the least total cost, all in nano-dollars.

The engine is a state machine fed from outside. It keeps what it learned (latency, error rates, breakers, limits) and
nothing about calls: an ask carries all of its own history, so a stored ask can be decided again.

    decide(ask, view, now, reason)
      gates      policies/eligibility.py, then price, then breaker and room      -> rejections
      scorers    policies/scorers/                                               -> candidates
      move       Submit the best; Wait while only time stands in the way; Shed otherwise
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from msgspec import Struct

from policies.breaker import Breaker, ErrorRate
from policies.concurrency import Limit, RateLimit, SlotLimit
from policies.eligibility import exhausted, objection, price_objection, tried_objection
from policies.latency_forecast import LatencyForecast, work
from policies.offer_prices import quote_at
from policies.policy import Policy
from policies.scorers import SCORERS
from policies.scorers.facts import Facts
from policies.tariffs import Quote, Unpriced, by_time, by_tokens
from policies.types import (
    Ask,
    Candidate,
    Capacity,
    CapacityId,
    Decision,
    Event,
    Offer,
    OfferId,
    Reason,
    Rejection,
    Shed,
    Submit,
    View,
    Wait,
)
from providers.contract import ImageRequest

LOOK_AGAIN_S = 1.0
"""A part in line looks again after this long, room or not: another account may have become the better choice."""
_UNLIMITED = 1_000_000
_QUOTES_KEPT = 512
"""Quotes an offer remembers; apps ask for few sizes."""
_Shape: TypeAlias = tuple[tuple[int, int], int, int | None, tuple[tuple[int, int], ...], int]
"""All that a price depends on: size, count, steps, sizes of the inputs, and the revision it comes from."""


class Seller:
    """What the engine has learned about one offer and its account, and the limits it shares."""

    __slots__ = ("_quotes", "account", "breaker", "errors", "forecast", "limits", "offer")

    def __init__(
        self, offer: Offer, policy: Policy, account: Breaker, limits: tuple[tuple[CapacityId, Limit], ...]
    ) -> None:
        self.offer = offer
        self.forecast = LatencyForecast(offer.typical_s, policy.forecast)
        self.errors = ErrorRate()
        self.breaker = Breaker(policy.breaker, policy.breaker.failures)
        self.account = account
        self.limits = limits
        self._quotes: dict[_Shape, Quote] = {}

    def __repr__(self) -> str:
        return f"<Seller {self.offer.id}: {self.forecast!r} {self.breaker!r} {[limit for _, limit in self.limits]}>"

    def work_of(self, pixels: int, count: int, steps: int | None) -> float:
        """How much larger than the typical picture an order is."""
        return work(pixels, count, steps, self.offer.abilities.default_steps)

    def price(self, request: ImageRequest, revision: int, expected_s: float) -> Quote:
        """Quote an order that will probably take `expected_s`; raises `Unpriced`."""
        if by_time(self.offer.tariff) or by_tokens(self.offer.tariff):
            return quote_at(self.offer, request, revision=revision, expected_s=expected_s)
        shape = (request.size, request.count, request.steps, request.references, revision)
        known = self._quotes.get(shape)
        if known is None:
            if len(self._quotes) >= _QUOTES_KEPT:
                self._quotes.clear()
            known = self._quotes[shape] = quote_at(self.offer, request, revision=revision, expected_s=expected_s)
        return known


class Room(Struct, frozen=True):
    """What an offer has room for."""

    left: int
    """Orders that could start at once on its tightest capacity."""
    share: float
    """Unused share of that capacity, 0 to 1, once this order is placed."""
    wait_s: float = 0.0
    """Seconds until an order may go out."""
    capacity: CapacityId | None = None
    """For want of which capacity it may not yet."""
    rejection: Rejection | None = None
    """The objection until then; None when it may go out now."""


class Weighed(Struct, frozen=True):
    """One offer that may serve now, or once there is room."""

    candidate: Candidate
    room: Room


class Weighing(Struct, frozen=True):
    """Every offer of an ask."""

    ready: list[Weighed]
    """May serve now, the best first."""
    blocked: list[Weighed]
    """May serve later; each has its rejection too."""
    rejected: list[Rejection]


class CostEngine:
    """The engine in force: least expected cost among what may serve."""

    def __init__(
        self, policy: Policy, capacities: Mapping[CapacityId, Capacity], offers: Mapping[OfferId, Offer]
    ) -> None:
        self.policy = policy
        self._limits: dict[CapacityId, Limit] = {name: _limit(capacity) for name, capacity in capacities.items()}
        self._accounts: dict[str, Breaker] = {}
        self._sellers: dict[OfferId, Seller] = {}
        for offer in offers.values():
            account = self._accounts.setdefault(offer.account, Breaker(policy.breaker, 2 * policy.breaker.failures))
            limits = tuple((name, self._limits[name]) for name in offer.capacities)
            self._sellers[offer.id] = Seller(offer, policy, account, limits)
        self._ticked: float | None = None

    def __repr__(self) -> str:
        return f"<CostEngine {self.policy.label} over {len(self._sellers)} offers>"

    def decide(self, ask: Ask, view: View, now: float, reason: Reason) -> Decision:
        """Weigh every offer and say what to do next for one part of a call."""
        over = self._over(ask, now)
        if over is not None:
            return self._decision(Shed((over,)), Weighing([], [], [over]), view, reason)
        weighing = self._weigh_all(ask, view, now, reason)
        if not weighing.ready and weighing.blocked and all(map(_open_breaker, weighing.blocked)):
            # Panic: failing breakers are all that stands in the way, and a bad chance is better than none.
            weighing = self._weigh_all(ask, view, now, reason, despite_failures=True)
        if weighing.ready and not self._worth_waiting(ask, weighing, now):
            return self._decision(Submit(weighing.ready[0].candidate), weighing, view, reason)
        return self._decision(self._line_up(ask, weighing, now), weighing, view, reason)

    def observe(self, event: Event, now: float) -> None:
        """Learn from what happened to an order; an offer that has left the catalogue teaches nothing."""
        seller = self._sellers.get(event.offer)
        if seller is None:
            return
        match event.kind:
            case "submitted":
                for _, limit in seller.limits:
                    if isinstance(limit, RateLimit):
                        limit.submitted(now)
                seller.breaker.submitted(now)
                seller.account.submitted(now)
            case "ok" | "refused":
                self._served(seller, event, now)
            case "error" | "timeout":
                self._failed(seller, event, now)
            case "throttled":
                self._throttled(seller, event, now)
            case "misconfigured" | "retired":
                _given_up(seller, event, now)
            case "cancelled":
                seller.breaker.undecided()
                seller.account.undecided()

    def tick(self, view: View, now: float) -> None:  # noqa: ARG002 - planning will look at the market
        """Once a second: let what was learned fade where nothing is seen, and try lowered rates upwards."""
        elapsed = 0.0 if self._ticked is None else now - self._ticked
        self._ticked = now
        for limit in self._limits.values():
            if isinstance(limit, RateLimit):
                limit.recover(now)
        for seller in self._sellers.values():
            seller.forecast.forget(elapsed, now)

    def room(self, capacity: CapacityId, in_flight: int, now: float) -> float:
        """Seconds until one more order may start against a capacity: 0 now, inf when one must end first."""
        return self._limits[capacity].room(in_flight, now)

    def _over(self, ask: Ask, now: float) -> Rejection | None:
        """Why nothing more can be ordered for this part at all."""
        if now >= ask.arrived + ask.constraints.deadline:
            return Rejection(offer="", code="deadline", reason=f"{ask.constraints.deadline:g} s have passed")
        why = exhausted(ask.tried, self.policy.fallback)
        return None if why is None else Rejection(offer=ask.tried[-1].offer, code="tried", reason=why)

    def _weigh_all(
        self, ask: Ask, view: View, now: float, reason: Reason, *, despite_failures: bool = False
    ) -> Weighing:
        weighing = Weighing([], [], [])
        for offer in view.offers(ask.constraints.models):
            weighed = self._weigh(self._sellers[offer.id], ask, view, now, reason, despite_failures=despite_failures)
            if isinstance(weighed, Rejection):
                weighing.rejected.append(weighed)
            elif weighed.room.rejection is None:
                weighing.ready.append(weighed)
            else:
                weighing.blocked.append(weighed)
                weighing.rejected.append(weighed.room.rejection)
        weighing.ready.sort(key=lambda each: _rank(each, ask))
        return weighing

    def _weigh(
        self, seller: Seller, ask: Ask, view: View, now: float, reason: Reason, *, despite_failures: bool
    ) -> Weighed | Rejection:
        offer, request = seller.offer, ask.request
        objected = (
            objection(offer, ask) or self._above_first(offer, ask) or tried_objection(offer, ask, self.policy.fallback)
        )
        if objected is not None:
            return objected
        expected = seller.forecast.expected(
            seller.work_of(request.width * request.height, request.count, request.steps)
        )
        try:
            price = seller.price(request, view.prices, expected)
        except Unpriced as error:
            return Rejection(offer=offer.id, code="price", reason=f"{offer.id}: {error}")
        objected = price_objection(offer, ask, price)
        if objected is not None:
            return objected
        room = self._room(seller, view, now, reason, expected)
        pause = self._pause(seller, ask, now, reason, despite_failures=despite_failures)
        if pause is not None and (pause[1].code == "breaker" or pause[0] > room.wait_s):
            room = Room(room.left, room.share, pause[0], None, pause[1])
        return Weighed(self._candidate(seller, ask, now, price, expected, room), room)

    def _above_first(self, offer: Offer, ask: Ask) -> Rejection | None:
        """Fallback keeps the tier: a preview that fails does not come back as an export at fifteen times the price."""
        if not ask.tried or ask.constraints.models is not None:
            return None
        first = self._sellers.get(ask.tried[0].offer)
        if first is None or offer.tier <= first.offer.tier:
            return None
        why = f"{offer.model} is of tier {offer.tier.word}; another order keeps {first.offer.tier.word}"
        return Rejection(offer=offer.id, code="tier", reason=why)

    def _pause(
        self, seller: Seller, ask: Ask, now: float, reason: Reason, *, despite_failures: bool
    ) -> tuple[float, Rejection] | None:
        """Seconds for which an offer is left alone, room or not, and why."""
        offer = seller.offer
        for breaker in (seller.account, seller.breaker):
            left = breaker.room(now, despite_failures=despite_failures)
            if left > 0:
                why = f"{offer.id} is left alone for {left:.1f} s: {breaker.why}"
                return left, Rejection(offer=offer.id, code="breaker", reason=why, lasting=False)
        held = seller.account.held(now)
        if held > 0:
            why = f"{offer.account} asked us to come back in {held:.1f} s"
            return held, Rejection(offer=offer.id, code="headroom", reason=why, lasting=False)
        if reason == "failed" and any(tried.offer == offer.id for tried in ask.tried):
            left = self.policy.fallback.pause
            why = f"{offer.id} failed just now and is asked again in {left:g} s"
            return left, Rejection(offer=offer.id, code="tried", reason=why, lasting=False)
        return None

    def _room(self, seller: Seller, view: View, now: float, reason: Reason, expected: float) -> Room:
        """What the limits of an account leave an offer, and for how long it must wait when that is nothing."""
        left, share, wait_s, tightest = _UNLIMITED, 1.0, 0.0, None
        for name, limit in seller.limits:
            busy = view.in_flight(name)
            places = limit.left(busy, now)
            left = min(left, places)
            share = min(share, limit.share_left(busy, now))
            if places <= 0:
                # Whoever was woken because there is room stands at the head of the line.
                wait = limit.wait(busy, 0 if reason == "room" else view.waiting(name), expected, now)
                if wait >= wait_s:
                    wait_s, tightest = wait, name
        if tightest is None:
            return Room(left, share)
        why = f"{tightest} is full; room is expected in {wait_s:.1f} s"
        return Room(
            left, share, wait_s, tightest, Rejection(offer=seller.offer.id, code="headroom", reason=why, lasting=False)
        )

    def _candidate(self, seller: Seller, ask: Ask, now: float, price: Quote, expected: float, room: Room) -> Candidate:
        forecast = seller.forecast
        facts = Facts(
            offer=seller.offer,
            quote=price,
            forecast=forecast,
            expected_s=expected,
            error_rate=seller.errors.at(now),
            share_left=room.share,
            crowding=self.policy.crowding,
            now=now,
            wait_s=room.wait_s,
        )
        return Candidate(
            offer=seller.offer,
            quote=price,
            latency_p50=expected * forecast.ratio_p50,
            latency_p95=expected * forecast.ratio_p95,
            headroom=room.left,
            costs={name: score(facts, ask, ask.worth) for name, score in SCORERS.items()},
        )

    def _worth_waiting(self, ask: Ask, weighing: Weighing, now: float) -> bool:
        """Whether the best move is to stand in line: an offer without room that, waiting included, costs less.

        Only for room that comes while a part may still wait, and for pictures that will then come before the
        deadline; nor where an order runs already. Not for a seller that fails: nobody knows when it will be back.
        """
        if ask.live:
            return False
        ready, arrived, latest = weighing.ready[0], ask.arrived, self._latest(ask)
        return any(
            each.room.capacity is not None
            and now + each.room.wait_s < latest
            and now + each.room.wait_s + each.candidate.latency_p95 <= arrived + ask.constraints.deadline
            and _place(each, ask) <= _place(ready, ask)
            and _worth(each, ask) < _worth(ready, ask)
            for each in weighing.blocked
        )

    def _latest(self, ask: Ask) -> float:
        """Until when a part may stand in line."""
        return ask.arrived + min(ask.constraints.deadline, self.policy.max_wait)

    def _line_up(self, ask: Ask, weighing: Weighing, now: float) -> Wait | Shed:
        """Wait for the best of those without room, as long as the policy and the deadline allow."""
        blocked, latest = weighing.blocked, self._latest(ask)
        soonest = min((each.room.wait_s for each in blocked), default=None)
        if soonest is None or now + soonest > latest or now >= latest:
            return Shed(tuple(weighing.rejected), soonest)
        best = min(blocked, key=lambda each: _rank(each, ask))
        until = min(now + min(soonest, LOOK_AGAIN_S), latest)
        return Wait(until, best.room.capacity, best.candidate)

    def _decision(self, move: Submit | Wait | Shed, weighing: Weighing, view: View, reason: Reason) -> Decision:
        return Decision(
            move=move,
            ranked=tuple([each.candidate for each in weighing.ready]),
            rejected=tuple(weighing.rejected),
            policy=self.policy.label,
            prices=view.prices,
            reason=reason,
        )

    def _served(self, seller: Seller, event: Event, now: float) -> None:
        seller.breaker.ok()
        seller.account.ok()
        seller.errors.observe(now, failed=False)
        if event.kind == "refused":
            return
        drawing = event.latency - (event.queue_s or 0.0)
        seller.forecast.observe(seller.work_of(event.pixels, event.count, event.steps), drawing, now)
        for _, limit in seller.limits:
            if isinstance(limit, SlotLimit):
                limit.ok(event.in_flight, now - event.latency, event.queue_s, now)

    def _failed(self, seller: Seller, event: Event, now: float) -> None:
        weight = self.policy.breaker.timeout_counts if event.kind == "timeout" else 1
        seller.breaker.failed(now, weight)
        seller.account.failed(now, weight)
        seller.errors.observe(now, failed=True)
        amount = seller.work_of(event.pixels, event.count, event.steps)
        if event.kind == "timeout" and event.latency > seller.forecast.expected(amount):
            seller.forecast.observe(amount, event.latency, now)

    def _throttled(self, seller: Seller, event: Event, now: float) -> None:
        """Too many orders, or too fast: the limit the account has learns it, and Retry-After blocks exactly so long."""
        seller.breaker.undecided()
        seller.account.undecided()
        sent_at = now - event.latency
        rates = [limit for _, limit in seller.limits if isinstance(limit, RateLimit)]
        slots = [limit for _, limit in seller.limits if isinstance(limit, SlotLimit)]
        for rate in rates:
            rate.refused(sent_at, now)
        for slot in slots if not rates else []:
            slot.refused(event.in_flight, sent_at, now, told=event.retry_after is not None)
        if event.retry_after is None:
            if not seller.limits:
                seller.breaker.failed(now)
            return
        until = now + event.retry_after
        for rate in rates:
            rate.block(until, now)
        for slot in slots if not rates else []:
            slot.block(until)
        if not seller.limits:
            seller.account.hold_off(until)


def _limit(capacity: Capacity) -> Limit:
    if capacity.slots is not None:
        return SlotLimit(capacity.slots)
    assert capacity.rate is not None, f"{capacity.id} limits nothing"
    return RateLimit(capacity.rate, capacity.burst)


def _given_up(seller: Seller, event: Event, now: float) -> None:
    """Leave the account alone, or only the offer whose model is gone."""
    if event.kind == "misconfigured":
        seller.account.refused_account(now)
        return
    seller.breaker.retired(now)
    seller.account.undecided()


def _open_breaker(weighed: Weighed) -> bool:
    return weighed.room.rejection is not None and weighed.room.rejection.code == "breaker"


def _rank(weighed: Weighed, ask: Ask) -> tuple[int, float, int, str]:
    """Order of preference: the caller's own order, then what it is worth to the caller."""
    return _place(weighed, ask), *_worth(weighed, ask)


def _place(weighed: Weighed, ask: Ask) -> int:
    """Where an account or its kind stands in the caller's own order; those not named come last."""
    offer, order = weighed.candidate.offer, ask.constraints.order
    if not order:
        return 0
    return next((i for i, name in enumerate(order) if name in (offer.account, offer.kind)), len(order))


def _worth(weighed: Weighed, ask: Ask) -> tuple[float, int, str]:
    """Cheapest or fastest first if asked, then the least total."""
    candidate, first = weighed.candidate, 0.0
    if ask.constraints.prefer == "cheapest":
        first = float(candidate.quote.amount)
    elif ask.constraints.prefer == "fastest":
        first = weighed.room.wait_s + candidate.latency_p50
    return first, candidate.total, candidate.offer.id
