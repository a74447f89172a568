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

from policies.breaker import Breaker, ErrorRate
from policies.concurrency import Limit, RateLimit, SlotLimit
from policies.eligibility import exhausted, objection, price_objection, tried_objection
from policies.latency_forecast import LatencyForecast, work
from policies.policy import Policy
from policies.scorers import SCORERS
from policies.scorers.facts import Facts
from policies.tariffs import MachineSecond, Quote, Unpriced, quote
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

LOOK_AGAIN_S = 1.0
"""A part in line looks again after this long, room or not: another account may have become the better choice."""


class Seller:
    """What the engine has learned about one offer and its account, and the limits it shares."""

    __slots__ = ("account", "breaker", "errors", "forecast", "limits", "offer")

    def __init__(
        self, offer: Offer, policy: Policy, account: Breaker, limits: tuple[tuple[CapacityId, Limit], ...]
    ) -> None:
        self.offer = offer
        self.forecast = LatencyForecast(offer.typical_s, policy.forecast)
        self.errors = ErrorRate()
        self.breaker = Breaker(policy.breaker, policy.breaker.failures)
        self.account = account
        self.limits = limits

    def __repr__(self) -> str:
        return f"<Seller {self.offer.id}: {self.forecast!r} {self.breaker!r} {[limit for _, limit in self.limits]}>"

    def work_of(self, pixels: int, count: int, steps: int | None) -> float:
        """How much larger than the typical picture an order is."""
        return work(pixels, count, steps, self.offer.abilities.default_steps)


class Weighed:
    """One offer that may serve now, or (`wait_s` > 0) once there is room."""

    __slots__ = ("candidate", "capacity", "rejection", "wait_s")

    def __init__(
        self, candidate: Candidate, wait_s: float, capacity: CapacityId | None, rejection: Rejection | None
    ) -> None:
        self.candidate = candidate
        self.wait_s = wait_s
        self.capacity = capacity
        self.rejection = rejection


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
            return self._decision(Shed((over,)), [], [over], view, reason)
        ready: list[Weighed] = []
        blocked: list[Weighed] = []
        rejected: list[Rejection] = []
        for offer in view.offers(ask.constraints.models):
            weighed = self._weigh(self._sellers[offer.id], ask, view, now, reason)
            if isinstance(weighed, Rejection):
                rejected.append(weighed)
            elif weighed.rejection is None:
                ready.append(weighed)
            else:
                blocked.append(weighed)
                rejected.append(weighed.rejection)
        if not ready and blocked:
            ready, blocked, rejected = self._panic(blocked, rejected)
        ready.sort(key=lambda each: _rank(each.candidate, ask))
        if ready and not self._worth_waiting(ask, ready[0], blocked, now):
            return self._decision(Submit(ready[0].candidate), ready, rejected, view, reason)
        return self._decision(self._line_up(ask, blocked, rejected, now), ready, rejected, view, reason)

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
            case "misconfigured":
                seller.account.refused_account(now)
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

    def _weigh(self, seller: Seller, ask: Ask, view: View, now: float, reason: Reason) -> Weighed | Rejection:
        offer = seller.offer
        objected = objection(offer, ask) or tried_objection(offer, ask, self.policy.fallback)
        if objected is not None:
            return objected
        amount = seller.work_of(ask.request.width * ask.request.height, ask.request.count, ask.request.steps)
        expected = seller.forecast.expected(amount)
        price = _price(offer, ask, view.prices, expected)
        if isinstance(price, Rejection):
            return price
        objected = price_objection(offer, ask, price)
        if objected is not None:
            return objected
        wait_s, capacity, blocking = self._until_free(seller, ask, view, now, reason, expected)
        candidate = self._candidate(seller, ask, view, now, price, expected, wait_s)
        return Weighed(candidate, wait_s, capacity, blocking)

    def _until_free(
        self, seller: Seller, ask: Ask, view: View, now: float, reason: Reason, expected: float
    ) -> tuple[float, CapacityId | None, Rejection | None]:
        """Seconds until an order may go out, for want of which capacity, and the objection until then."""
        offer = seller.offer
        for breaker in (seller.account, seller.breaker):
            pause = breaker.room(now)
            if pause > 0:
                why = f"{offer.id} is left alone for {pause:.1f} s: {breaker.why}"
                return pause, None, Rejection(offer=offer.id, code="breaker", reason=why, lasting=False)
        if reason == "failed" and any(tried.offer == offer.id for tried in ask.tried):
            pause = self.policy.fallback.pause
            why = f"{offer.id} failed just now and is asked again in {pause:g} s"
            return pause, None, Rejection(offer=offer.id, code="tried", reason=why, lasting=False)
        longest, tightest = 0.0, None
        for name, limit in seller.limits:
            if limit.room(view.in_flight(name), now) > 0:
                # Whoever was woken because there is room stands at the head of the line.
                ahead = 0 if reason == "room" else view.waiting(name)
                wait = limit.wait(view.in_flight(name), ahead, expected, now)
                if wait >= longest:
                    longest, tightest = wait, name
        if tightest is None:
            return 0.0, None, None
        why = f"{tightest} is full; room is expected in {longest:.1f} s"
        return longest, tightest, Rejection(offer=offer.id, code="headroom", reason=why, lasting=False)

    def _candidate(  # noqa: PLR0917
        self, seller: Seller, ask: Ask, view: View, now: float, price: Quote, expected: float, wait_s: float
    ) -> Candidate:
        headroom, share = 1_000_000, 1.0
        for name, limit in seller.limits:
            busy = view.in_flight(name)
            headroom = min(headroom, limit.left(busy, now))
            share = min(share, limit.share_left(busy, now))
        forecast = seller.forecast
        facts = Facts(
            offer=seller.offer,
            quote=price,
            forecast=forecast,
            expected_s=expected,
            error_rate=seller.errors.at(now),
            share_left=share,
            crowding=self.policy.crowding,
            now=now,
            wait_s=wait_s,
        )
        return Candidate(
            offer=seller.offer,
            quote=price,
            latency_p50=expected * forecast.ratio_p50,
            latency_p95=expected * forecast.ratio_p95,
            headroom=headroom,
            costs={name: score(facts, ask, ask.worth) for name, score in SCORERS.items()},
        )

    def _panic(
        self, blocked: list[Weighed], rejected: list[Rejection]
    ) -> tuple[list[Weighed], list[Weighed], list[Rejection]]:
        """When breakers are all that stands in the way, they are ignored: a bad chance is better than none.

        Not where the account itself was refused or a seller named the moment to come back.
        """
        ignorable = [each for each in blocked if self._ignorable(each)]
        if len(ignorable) < len(blocked):
            return [], blocked, rejected
        ids = {each.candidate.offer.id for each in ignorable}
        return ignorable, [], [rejection for rejection in rejected if rejection.offer not in ids]

    def _ignorable(self, weighed: Weighed) -> bool:
        if weighed.rejection is None or weighed.rejection.code != "breaker":
            return False
        seller = self._sellers[weighed.candidate.offer.id]
        open_ones = [breaker for breaker in (seller.account, seller.breaker) if not breaker.closed]
        return all(breaker.failing for breaker in open_ones)

    def _worth_waiting(self, ask: Ask, ready: Weighed, blocked: list[Weighed], now: float) -> bool:
        """Whether the best move is to stand in line: an offer without room that, waiting included, costs less.

        Not where an order runs already, and not for a seller that fails: nobody knows when it will be back.
        """
        in_line = [each for each in blocked if each.capacity is not None]
        if ask.live or not in_line or now >= self._latest(ask):
            return False
        best = min(in_line, key=lambda each: _rank(each.candidate, ask))
        return _rank(best.candidate, ask) < _rank(ready.candidate, ask)

    def _latest(self, ask: Ask) -> float:
        """Until when a part may stand in line."""
        return ask.arrived + min(ask.constraints.deadline, self.policy.max_wait)

    def _line_up(self, ask: Ask, blocked: list[Weighed], rejected: list[Rejection], now: float) -> Wait | Shed:
        """Wait for the best of those without room, as long as the policy and the deadline allow."""
        latest = self._latest(ask)
        soonest = min((each.wait_s for each in blocked), default=None)
        if soonest is None or now + soonest > latest or now >= latest:
            return Shed(tuple(rejected), soonest)
        best = min(blocked, key=lambda each: _rank(each.candidate, ask))
        until = min(now + min(soonest, LOOK_AGAIN_S), latest)
        return Wait(until, best.capacity, best.candidate)

    def _decision(
        self, move: Submit | Wait | Shed, ready: list[Weighed], rejected: list[Rejection], view: View, reason: Reason
    ) -> Decision:
        return Decision(
            move=move,
            ranked=tuple([each.candidate for each in ready]),
            rejected=tuple(rejected),
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
            slot.refused(event.in_flight, sent_at, now)
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
            seller.breaker.hold_off(until)


def _limit(capacity: Capacity) -> Limit:
    if capacity.slots is not None:
        return SlotLimit(capacity.slots)
    assert capacity.rate is not None, f"{capacity.id} limits nothing"
    return RateLimit(capacity.rate, capacity.burst)


def _price(offer: Offer, ask: Ask, revision: int, expected_s: float) -> Quote | Rejection:
    machine_ns = round(expected_s * 1e9) if isinstance(offer.tariff, MachineSecond) else 0
    try:
        return quote(
            offer.tariff,
            ask.request,
            default_steps=offer.abilities.default_steps,
            revision=revision,
            expected_machine_ns=machine_ns,
            longest_machine_ns=8 * machine_ns,
        )
    except Unpriced as error:
        return Rejection(offer=offer.id, code="price", reason=f"{offer.id}: {error}")


def _rank(candidate: Candidate, ask: Ask) -> tuple[int, float, int, str]:
    """Order of preference: the caller's own order, then cheapest or fastest if asked, then the least total."""
    order = ask.constraints.order
    place = next((i for i, name in enumerate(order) if name in (candidate.offer.account, candidate.offer.kind)), None)
    first = 0.0
    if ask.constraints.prefer == "cheapest":
        first = float(candidate.quote.amount)
    elif ask.constraints.prefer == "fastest":
        first = candidate.latency_p50
    return len(order) if place is None else place, first, candidate.total, candidate.offer.id
