"""Chooses where each picture is drawn: gates first, then the least total cost, all in nano-dollars.

The engine is a state machine fed from outside. It keeps what it learned (latency, error rates, breakers, limits, bid
prices) and nothing about calls: an ask carries all of its own history.

    decide(ask, view, now, reason)
      picture    what is known at this moment            policies/picture.py, from the state below
      gates      policies/eligibility.py, then price     -> rejections
      scorers    policies/scorers/                       -> candidates
      judgement  policies/judgement.py                   -> Submit, Wait or Shed

Everything a judgement depends on is in the picture, so a stored picture gives the same decision again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from itertools import count
from math import exp, inf

from msgspec import Struct

from policies import hedging, pool, scarcity
from policies.breaker import Breaker
from policies.concurrency import Limit, RateLimit, SlotLimit
from policies.eligibility import (
    barred,
    exhausted,
    latency_objection,
    objection,
    price_objection,
    steps_objection,
    tried_objection,
)
from policies.judgement import Weighed, is_patient, judge, weigh
from policies.latency_forecast import COLD_AFTER_S, LatencyForecast
from policies.offer_prices import quote_at
from policies.picture import Picture, Running, Seen
from policies.policy import Policy
from policies.prepaid import Purse
from policies.scarcity import Bid, Demand, Kind, Use
from policies.sellers import Seller, Shared
from policies.tariffs import Quote, Unpriced, by_time, by_tokens
from policies.types import (
    Ask,
    Bar,
    Capacity,
    CapacityId,
    Decision,
    Event,
    InLine,
    Offer,
    OfferId,
    Reason,
    Rejection,
    Submit,
    View,
)

_SLATES_KEPT = 4096
_SILENCES = 3
_HEDGES_KEPT_S = 600.0
_HEDGES_FREE = 20.0
_NOBODY: frozenset[OfferId] = frozenset()
_FEW = 4
"""An account with no more slots keeps none for calls in a hurry."""
_PATIENT_S = 60.0
"""Calls with more seconds to spare are counted apart."""
_RISKY = 0.02
_BIG = 11.4
"""Forecasts say nothing of orders that take this many times their middle."""


class Row:
    """One offer of a slate, with what does not change between two decisions."""

    __slots__ = ("amount", "counted", "expected", "floor", "kept", "name", "quote", "seller", "timed", "version")

    def __init__(self, seller: Seller, amount: float, quote: Quote, kept: float = 0.0) -> None:
        self.seller = seller
        self.name, self.counted = seller.offer.id, seller.offer.counted
        self.amount = amount
        self.quote = quote
        self.floor = quote.amount
        self.timed = by_time(seller.offer.tariff) or by_tokens(seller.offer.tariff)
        """Priced by its time or its words, which differ from call to call."""
        self.kept = kept
        """Share of the account's slots that is reserved for other calls."""
        self.version = -1
        self.expected = 0.0

    def forecast(self) -> float:
        """Seconds the order will probably take."""
        forecast = self.seller.forecast
        if self.version != forecast.version:
            self.expected = forecast.expected(self.amount)
            self.version = forecast.version
        return self.expected


class Slate:
    """The offers for one kind of request: gates and prices are the same for all of its like."""

    __slots__ = ("_fastest", "_fastest_at", "hurried", "machines", "patient", "rejected", "rows")

    def __init__(self, rows: Sequence[Row], rejected: tuple[Rejection, ...]) -> None:
        self.rows = rows
        self.rejected = rejected
        self.machines = any(row.seller.shared.machines for row in rows)
        self.hurried = Demand()
        self.patient = Demand()
        self._fastest: tuple[tuple[str, float], ...] = ()
        self._fastest_at = -inf

    def count(self, ask: Ask, now: float) -> None:
        """Count a call that has just come; plans read it, decisions do not."""
        slack = ask.arrived + ask.constraints.slo - now
        demand = self.patient if slack > _PATIENT_S else self.hurried
        demand.came(slack, float(ask.worth.late), float(ask.worth.failure))

    def fastest(self, now: float) -> tuple[tuple[str, float], ...]:
        """The two accounts that would be quickest, and their seconds; looked up once a second."""
        if now - self._fastest_at >= 1.0:
            quickest: dict[str, float] = {}
            for row in self.rows:
                seller = row.seller
                if seller.shared.machines is None and seller.account.closed and seller.breaker.closed:
                    seconds = row.forecast()
                    name = seller.offer.account
                    quickest[name] = min(quickest.get(name, inf), seconds)
            self._fastest = tuple(sorted(quickest.items(), key=lambda each: each[1])[:2])
            self._fastest_at = now
        return self._fastest


class Barred(Struct, frozen=True, gc=False):
    """What rules of the policy leave out for some calls."""

    offers: frozenset[OfferId]
    rejections: tuple[Rejection, ...]


class Room(Struct, frozen=True, gc=False):
    """When an offer has room."""

    wait_s: float
    capacity: CapacityId | None = None
    rejection: Rejection | None = None


_NOW = Room(0.0)


class Placed:
    """Orders placed lately, and how many of them were second ones; both fade."""

    __slots__ = ("hedges", "orders")

    def __init__(self) -> None:
        self.orders = 0.0
        self.hedges = 0.0


class CostEngine:
    """The engine in force: least expected cost among what may serve."""

    def __init__(
        self,
        policy: Policy,
        capacities: Mapping[CapacityId, Capacity],
        offers: Mapping[OfferId, Offer],
        *,
        thorough: bool = True,
    ) -> None:
        """`thorough`: decisions list every candidate; else only the chosen one, for drivers that keep none of it."""
        self.policy = policy
        self._offers = offers
        self._thorough = thorough
        self._limits: dict[CapacityId, Limit] = {}
        self._purses: dict[CapacityId, Purse] = {}
        self._accounts: dict[str, Breaker] = {}
        self._learned: dict[OfferId, Seller] = {}
        """Every offer there ever was: events may be about one that has left the catalogue, and may come back."""
        self._champion: CostEngine | None = None
        """The engine this one decides beside, which plans for both."""
        self._demands: dict[object, tuple[Demand, Demand]] = {}
        """What was asked for under the revision before, until it is asked for again."""
        self._bids: dict[CapacityId, Bid] = {}
        self._lanes: dict[CapacityId, dict[str, int]] = {}
        self._ticked: float | None = None
        self._began: float | None = None
        self._planned = -inf
        self._stamps = count(1)
        self._stamp = 0
        self._placed = Placed()
        self._shared: dict[tuple[CapacityId, ...], Shared] = {}
        self._slates: dict[object, Slate] = {}
        self._barred: dict[object, Barred] = {}
        self._stopped: dict[Bar, tuple[Rejection, ...]] = {}
        self._slates_of = -1
        self._sell(capacities, offers)

    def __repr__(self) -> str:
        return f"<CostEngine {self.policy.label} over {len(self._sellers)} offers>"

    def under(
        self, policy: Policy, capacities: Mapping[CapacityId, Capacity], offers: Mapping[OfferId, Offer]
    ) -> CostEngine:
        """The engine of another revision, with all that this one has learned and will learn.

        This one goes on deciding for the calls that began under it. The new one plans (`tick`) from here on. Limits,
        breakers and forecasts follow the new terms at once: there is one of each, whatever decides.
        """
        twin = self.beside(policy)
        twin._offers, twin._champion = offers, None  # noqa: SLF001 - of our own kind
        older = self._demands if len(self._demands) < _SLATES_KEPT else {}
        twin._demands = older | {key: (s.hurried, s.patient) for key, s in self._slates.items()}  # noqa: SLF001
        twin._sell(capacities, offers)  # noqa: SLF001
        return twin

    def beside(self, policy: Policy) -> CostEngine:
        """An engine that decides by another policy over the same offers; everything learned is shared.

        How limits, breakers, forecasts and plans work stays as this one's policy says.
        """
        twin = copy(self)
        twin.policy = policy
        twin._slates, twin._barred, twin._slates_of = {}, {}, -1  # noqa: SLF001 - of our own kind
        twin._champion = self  # noqa: SLF001
        return twin

    def _sell(self, capacities: Mapping[CapacityId, Capacity], offers: Mapping[OfferId, Offer]) -> None:
        """Sell these offers, within these capacities."""
        policy = self.policy
        self._stopped = {}
        owners = {offer.team for offer in offers.values() if offer.team is not None}
        self._special = frozenset(owners.union(*(offer.kept_from for offer in offers.values())))
        """Teams with accounts of their own."""
        self._limit(capacities)
        before, self._shared = self._shared, {}
        self._sellers: dict[OfferId, Seller] = {}
        for breaker in self._accounts.values():
            breaker.retune(policy.breaker, 2 * policy.breaker.failures)
        for offer in offers.values():
            account = self._accounts.setdefault(offer.account, Breaker(policy.breaker, 2 * policy.breaker.failures))
            shared = self._shared.get(offer.capacities)
            if shared is None:
                known = [capacities[name] for name in offer.capacities if name in capacities]
                shared = Shared(known, self._limits, self._purses)
                if offer.capacities in before:
                    shared = shared.succeeds(before[offer.capacities])
                self._shared[offer.capacities] = shared
            learned = self._learned.get(offer.id)
            seller = Seller(offer, policy, account, shared) if learned is None else learned.under(offer, policy, shared)
            self._sellers[offer.id] = self._learned[offer.id] = seller

    def _limit(self, capacities: Mapping[CapacityId, Capacity]) -> None:
        """Follow what accounts allow: a limit there was goes on, with what it has learned."""
        for name, capacity in capacities.items():
            limit = self._limits.get(name)
            if isinstance(limit, SlotLimit) and capacity.slots is not None:
                limit.reconfigure(capacity.slots)
            elif isinstance(limit, RateLimit) and capacity.rate is not None:
                limit.reconfigure(capacity.rate, capacity.burst)
            elif (fresh := _limit(capacity)) is not None:
                self._limits[name] = fresh
            purse = self._purses.get(name)
            if (capacity.credit is not None or capacity.free is not None) and (
                purse is None or purse.capacity != capacity
            ):
                self._purses[name] = Purse(capacity)
        for name in self._limits.keys() - capacities.keys():  # no longer limited, or no longer sold through
            del self._limits[name]
        for name in self._limits:
            self._bids.setdefault(name, Bid())

    def decide(self, ask: Ask, view: View, now: float, reason: Reason) -> Decision:
        """Weigh every offer and say what to do next for one part of a call."""
        slate = self._slate(ask, view)
        if reason == "new":
            slate.count(ask, now)
        picture, weighed = self._draw(slate, ask, view, now, reason)
        decision = judge(picture, self.policy, self._offers, thorough=self._thorough, weighed=weighed)
        if ask.live and isinstance(decision.move, Submit):
            self._placed.hedges += 1.0
        return decision

    def _draw(
        self, slate: Slate, ask: Ask, view: View, now: float, reason: Reason
    ) -> tuple[Picture, Sequence[Weighed]]:
        """Everything the decision depends on, at this moment; and its offers, weighed."""
        over = self._over(ask, now)
        if over is not None:
            return Picture(ask, now, reason, view.prices, (), (), (), over), ()
        self._stamp = next(self._stamps)
        seen, rejected = self._look(slate, ask, view, now, reason, despite_failures=False)
        panic = bool(seen) and seen[0].seen.blocked is not None and self._hopeless(seen, ask, now)
        if panic:
            # Failing breakers are all that stands in the way, and a bad chance is better than none.
            seen, rejected = self._look(slate, ask, view, now, reason, despite_failures=True)
        if ask.constraints.bars:
            rejected = (*self._barred_of(ask).rejections, *rejected)
        running: tuple[Running, ...] = ()
        if ask.live:
            running = tuple(
                [self._running(live.offer, live.since, ask, now) for live in ask.live if live.offer in self._sellers]
            )
        placed = self._placed
        budget = placed.hedges < self.policy.hedging.budget * placed.orders + _HEDGES_FREE
        shown = tuple([each.seen for each in seen])
        return (
            Picture(ask, now, reason, view.prices, shown, rejected, running, None, panic, slate.fastest(now), budget),
            seen,
        )

    def _hopeless(self, weighed: Sequence[Weighed], ask: Ask, now: float) -> bool:
        """Whether every offer is left alone for failing, and waiting for one of them is no use.

        It is of use, while there is time, where orders hang, and once an order of this part has failed already.
        """
        seen = [each.seen for each in weighed]
        if not all(each.blocked is not None and each.blocked.code == "breaker" for each in seen):
            return False
        slack = ask.arrived + ask.constraints.slo - now
        patient = [each for each in seen if ask.tried or self._sellers[each.offer].account.is_silent]
        return not any(each.wait_s + each.p95 < slack for each in patient)

    def observe(self, event: Event, now: float) -> None:
        """Learn from what happened to an order, under whichever revision it was placed."""
        seller = self._learned.get(event.offer)
        if seller is None:
            return
        kind = event.kind
        if kind == "leased":
            seller.leased(now)
            return
        if kind == "beside":
            seller.sent_beside(now)
            return
        if kind == "submitted":
            seller.submitted(event, now)
            self._placed.orders += 1.0
            return
        idle = seller.ended(now - event.latency, now)
        if kind in ("ok", "refused"):
            seller.served(event, event.quoted or 0, now, idle)
        elif kind in ("error", "timeout"):
            seller.failed(event, self.policy.breaker.timeout_counts if kind == "timeout" else 1, now)
        elif kind == "throttled":
            seller.throttled(event, now)
        elif kind == "misconfigured":
            seller.account.refused_account(now)
        elif kind == "retired":
            seller.breaker.retired(now)
            seller.account.undecided()
        else:
            seller.breaker.undecided()
            seller.account.undecided()

    def tick(self, view: View, now: float) -> None:
        """Once a second: forget, notice silence, try lowered rates upwards; and plan when it is time."""
        elapsed = 0.0 if self._ticked is None else max(now - self._ticked, 0.0)
        self._ticked = now
        if self._began is None:
            self._began = self._planned = now
        for limit in self._limits.values():
            if isinstance(limit, RateLimit):
                limit.recover(now)
        for seller in self._learned.values():
            seller.tick(elapsed, now)
        self._notice_silence(now)
        kept = exp(-elapsed / _HEDGES_KEPT_S)
        self._placed.orders *= kept
        self._placed.hedges *= kept
        every = self.policy.scarcity.every
        if every > 0.0 and now - self._planned >= every:
            self._plan(view, now - self._planned, now)
            self._planned = now

    def _notice_silence(self, now: float) -> None:
        """Leave an account alone that has answered nobody since several orders should long have ended."""
        lost: dict[str, list[float]] = {}
        ok_at: dict[str, float] = {}
        for seller in self._learned.values():
            name = seller.offer.account
            ok_at[name] = max(ok_at.get(name, -inf), seller.ok_at)
            if seller.has_out and seller.shared.machines is None:
                lost.setdefault(name, []).extend(seller.lost(now))
        for name, sent in lost.items():
            if len(sent) >= _SILENCES and sorted(sent)[_SILENCES - 1] > ok_at[name]:
                self._accounts[name].silent(now)

    def room(self, capacity: CapacityId, in_flight: int, now: float) -> float:
        """Seconds until one more order may start against a capacity: 0 now, inf when one must end first."""
        limit = self._limits.get(capacity)
        return 0.0 if limit is None else limit.room(in_flight, now)

    def bids(self) -> Mapping[CapacityId, Bid]:
        """The bid prices in force."""
        return self._bids

    # -- what is known of an ask ----------------------------------------------------------------

    def _over(self, ask: Ask, now: float) -> Rejection | None:
        """Why nothing more can be ordered for this part at all."""
        if now >= ask.arrived + ask.constraints.deadline:
            return Rejection(offer="", code="deadline", reason=f"{ask.constraints.deadline:g} s have passed")
        if not ask.tried:
            return None
        why = exhausted(ask.tried, self.policy.fallback)
        return None if why is None else Rejection(offer=ask.tried[-1].offer, code="tried", reason=why)

    def _slate(self, ask: Ask, view: View) -> Slate:
        request, wishes = ask.request, ask.constraints
        if self._slates_of != view.prices:
            self._slates.clear()
            self._barred.clear()
            self._slates_of = view.prices
        left_out = self._barred_of(ask).offers if wishes.bars else _NOBODY
        # Teams that nothing is special about share what is known of their calls.
        team = ask.team if ask.team in self._special or self.policy.reservations else ""
        key = (
            request.width, request.height, request.count, request.steps, request.operation, request.seed is None,
            request.transparent, bool(request.negative_prompt), len(request.loras), request.guidance,
            request.strength, request.fidelity, request.references, request.mask, request.safety, wishes.tier,
            wishes.models, wishes.only, wishes.ignore, wishes.require, left_out, team,
        )  # fmt: skip
        slate = self._slates.get(key)
        if slate is None:
            if len(self._slates) >= _SLATES_KEPT:
                self._slates.clear()
            slate = self._slates[key] = self._new_slate(ask, view, left_out)
            self._go_on_counting(slate, key, ask, view)
        return slate

    def _go_on_counting(self, slate: Slate, key: object, ask: Ask, view: View) -> None:
        """Count arrivals where they were counted before, or where the engine that plans counts them."""
        if self._champion is not None:
            planned = self._champion._slate(ask, view)  # noqa: SLF001 - of our own kind
            slate.hurried, slate.patient = planned.hurried, planned.patient
        elif self._demands and (demands := self._demands.pop(key, None)) is not None:
            slate.hurried, slate.patient = demands

    def _barred_of(self, ask: Ask) -> Barred:
        """The offers that rules leave out for calls like this one."""
        wishes = ask.constraints
        key = (wishes.bars, wishes.models)
        found = self._barred.get(key)
        if found is None:
            if len(self._barred) >= _SLATES_KEPT:
                self._barred.clear()
            rejections: dict[OfferId, Rejection] = {}
            for bar in wishes.bars:
                for each in self._stopped_by(bar):
                    if wishes.models is None or self._offers[each.offer].model in wishes.models:
                        rejections.setdefault(each.offer, each)
            found = self._barred[key] = Barred(frozenset(rejections), tuple(rejections.values()))
        return found

    def _stopped_by(self, bar: Bar) -> tuple[Rejection, ...]:
        """Every offer that one rule leaves out."""
        found = self._stopped.get(bar)
        if found is None:
            reasons = [(offer.id, barred(offer, bar)) for offer in self._offers.values()]
            found = tuple([Rejection(offer=name, code="rule", reason=why) for name, why in reasons if why])
            self._stopped[bar] = found
        return found

    def _new_slate(self, ask: Ask, view: View, left_out: frozenset[OfferId]) -> Slate:
        rows, rejected, request = [], [], ask.request
        for offer in view.offers(ask.constraints.models):
            if offer.id in left_out:
                continue  # each call says by which rule
            seller = self._sellers[offer.id]
            objected = objection(offer, ask) or steps_objection(offer, request, self.policy.least_steps)
            if objected is not None:
                rejected.append(objected)
                continue
            amount = seller.work_of(request.width * request.height, request.count, request.steps)
            try:
                expected = seller.forecast.expected(amount)
                price = quote_at(offer, request, revision=view.prices, expected_s=expected)
            except Unpriced as error:
                rejected.append(Rejection(offer=offer.id, code="price", reason=f"{offer.id}: {error}"))
                continue
            rows.append(Row(seller, amount, price, self._kept(offer, ask)))
        rows.sort(key=lambda row: (row.seller.shared.machines is not None, row.quote.amount))
        return Slate(rows, tuple(rejected))

    def _kept(self, offer: Offer, ask: Ask) -> float:
        """The share of an account's slots that is reserved for calls of another tier or team."""
        return sum([each.share for each in self.policy.reservations if each.is_kept_from(offer, ask)])

    def _look(
        self, slate: Slate, ask: Ask, view: View, now: float, reason: Reason, *, despite_failures: bool
    ) -> tuple[list[Weighed], tuple[Rejection, ...]]:
        """Every offer that may serve, now or later; and the objections to the others."""
        seen: list[Weighed] = []
        rejected: list[Rejection] | None = None
        wishes = ask.constraints
        brief = not self._thorough and not ask.live and wishes.prefer == "value" and not wishes.order
        brief = brief and not wishes.preferred
        best = inf
        slack, left = ask.arrived + wishes.slo - now, ask.arrived + wishes.deadline - now
        for row in slate.rows:
            if brief and row.floor * row.seller.bias * row.counted > best and not row.seller.shared.purses:
                continue  # the price alone is more than another offer costs in all
            objected = self._objection(row, ask) if ask.tried or ask.live else None
            if objected is None and (wishes.ceiling is not None or ask.budget_left is not None):
                objected = price_objection(row.seller.offer, ask, row.quote)
            if objected is None and wishes.latency_ceiling is not None:
                p95 = row.forecast() * row.seller.forecast.ratio_p95
                objected = latency_objection(row.seller.offer, wishes.latency_ceiling, p95)
            if objected is not None:
                rejected = [] if rejected is None else rejected
                rejected.append(objected)
                continue
            found = self._see(row, ask, view, now, reason, slack, left, best, despite_failures)
            if isinstance(found, Rejection):
                rejected = [] if rejected is None else rejected
                rejected.append(found)
            else:
                weighed = weigh(found, ask, self.policy, row.seller.offer)
                seen.append(weighed)
                if found.blocked is None and weighed.total < best:
                    best = weighed.total
        return seen, (slate.rejected if rejected is None else (*slate.rejected, *rejected))

    def _objection(self, row: Row, ask: Ask) -> Rejection | None:
        offer, fallback = row.seller.offer, self.policy.fallback
        return self._above_first(offer, ask) or tried_objection(offer, ask, fallback)

    def _above_first(self, offer: Offer, ask: Ask) -> Rejection | None:
        """Fallback keeps the tier: a preview that fails does not come back as an export at fifteen times the price."""
        if not ask.tried or ask.constraints.models is not None or self.policy.fallback.better_tier:
            return None
        first = self._sellers.get(ask.tried[0].offer)
        if first is None or offer.tier <= first.offer.tier:
            return None
        why = f"{offer.model} is of tier {offer.tier.word}; another order keeps {first.offer.tier.word}"
        return Rejection(offer=offer.id, code="tier", reason=why)

    def _see(  # noqa: C901, PLR0913, PLR0917 - the hot path: what all offers of an ask share is passed, not looked up
        self,
        row: Row,
        ask: Ask,
        view: View,
        now: float,
        reason: Reason,
        slack: float,
        left: float,
        best: float,
        despite_failures: bool,
    ) -> Seen | Rejection:
        seller, quote = row.seller, row.quote
        offer, shared, forecast = seller.offer, seller.shared, seller.forecast
        expected = row.expected if row.version == forecast.version else row.forecast()
        if now - seller.used_at > COLD_AFTER_S:
            expected += seller.cold.seconds(seller.idle(now))
        if row.timed:
            quote = quote_at(offer, ask.request, revision=view.prices, expected_s=expected)
        if shared.stamp != self._stamp:
            # There is room; or the last slots are kept for those in a hurry, who do not wait behind the others.
            head = reason == "room" or not is_patient(slack, expected, self.policy)
            shared.look(view, now, expected, head=head)
            shared.stamp = self._stamp
        machine_s = machine_price = 0.0
        line = None
        if shared.machines is None:
            room = _NOW
            if shared.blocking is not None or shared.spare_left < self.policy.scarcity.reserve or row.kept:
                room = self._room(offer, shared, slack, expected, row.kept)
        else:
            line = InLine(ask.call_id, offer.model, expected, now + slack, min(best, ask.worth.failure) / expected)
            found = self._machine_room(seller, line, now)
            if found is None:
                why = f"{offer.account} has no machine up"
                return Rejection(offer=offer.id, code="headroom", reason=why, lasting=False)
            (room, machine_price), machine_s = found, expected
        account = seller.account
        if account.open_until != -inf or seller.breaker.open_until != -inf or ask.tried or account.held_until > now:
            pause = self._pause(seller, ask, now, reason, despite_failures=despite_failures)
            if pause is not None and (pause[1].code == "breaker" or pause[0] > room.wait_s):
                room = Room(pause[0], None, pause[1])
        wait_s, most = room.wait_s, _BIG * expected
        late = late_s = again = too_late = 0.0
        if slack - wait_s < most:
            late, late_s, again = _lateness(forecast, ask, expected, slack - wait_s, seller.risk)
        if left - wait_s < most:
            too_late = forecast.above(expected, left - wait_s)
        premium, free_price = self._prepaid(shared, ask.request.count) if shared.purses else (0.0, -1.0)
        return Seen(
            row.name, offer.account, quote, seller.bias, row.counted, expected, expected * forecast.ratio_p50,
            expected * forecast.ratio_p95, wait_s, late, late_s, too_late, again, seller.risk, shared.left,
            shared.share, 0.0 if machine_s else shared.bid_slot, shared.bid_order * (1.0 - 0.9 * shared.share), premium,
            free_price, machine_s, machine_price, expected * forecast.ratio_hedge, line, room.capacity, room.rejection,
        )  # fmt: skip

    def _room(self, offer: Offer, shared: Shared, slack: float, expected: float, kept: float) -> Room:
        """When an account has room for an order."""
        if shared.blocking is not None:
            return self._full(offer, shared)
        if shared.slots is None:
            return _NOW
        if shared.spare_left < kept:
            return self._spoken_for(offer, shared, expected, kept)
        terms = self.policy.scarcity
        scarce = shared.spare_left < terms.reserve and shared.slots[1].value > _FEW
        if scarce and is_patient(slack, expected, self.policy):
            return self._reserved(offer, shared, expected)
        return _NOW

    def _full(self, offer: Offer, shared: Shared) -> Room:
        why = f"{shared.blocking} is full; room is expected in {shared.wait_s:.1f} s"
        objection = Rejection(offer=offer.id, code="headroom", reason=why, lasting=False)
        return Room(shared.wait_s, shared.blocking, objection)

    def _spoken_for(self, offer: Offer, shared: Shared, expected: float, kept: float) -> Room:
        """The policy keeps what is left for others; more comes free as orders end."""
        assert shared.slots is not None
        name, limit = shared.slots
        missing = max((kept - shared.spare_left) * limit.value, 1.0)
        wait_s = missing * (shared.serve_s or expected) / limit.value
        why = f"{kept:.0%} of the slots of {name} are reserved for others; more are expected in {wait_s:.1f} s"
        return Room(wait_s, name, Rejection(offer=offer.id, code="headroom", reason=why, lasting=False))

    def _reserved(self, offer: Offer, shared: Shared, expected: float) -> Room:
        """The last slots are for calls in a hurry; others wait for more of them to come free."""
        assert shared.slots is not None
        name, limit = shared.slots
        missing = max((self.policy.scarcity.reserve - shared.spare_left) * limit.value, 1.0)
        wait_s = missing * (shared.serve_s or expected) / limit.value
        why = f"the last slots of {name} are kept for calls in a hurry; more are expected in {wait_s:.1f} s"
        return Room(wait_s, name, Rejection(offer=offer.id, code="headroom", reason=why, lasting=False))

    def _machine_room(self, seller: Seller, line: InLine, now: float) -> tuple[Room, float] | None:
        """When a machine of our own has room, and what a second of it costs; None where none is up."""
        capacity = seller.shared.machines
        assert capacity is not None
        bid = self._bids[capacity].value
        machines = seller.shared.known
        if machines is None:  # nobody knows more than how many orders are in flight
            shared = seller.shared
            return (_NOW if shared.blocking is None else self._full(seller.offer, shared)), bid
        terms = self.policy.pool
        lanes = self._lanes.get(capacity, {})
        look = pool.outlook(machines, line, now, bid, terms, lanes)
        if look is None:
            return None
        if look.place:
            return Room(look.wait_s), bid * pool.share_of_bid(look.idle, line.seconds, terms)
        bid *= terms.left_over  # standing in line takes nothing from anybody
        why = f"{capacity} is busy; a machine is expected in {look.wait_s:.1f} s"
        objection = Rejection(offer=seller.offer.id, code="headroom", reason=why, lasting=False)
        return Room(look.wait_s, capacity, objection), bid

    def _prepaid(self, shared: Shared, count: int) -> tuple[float, float]:
        premium, free_price = 0.0, -1.0
        for purse in shared.purses:
            if purse.is_credit:
                premium = purse.bid
            elif purse.left >= count:
                free_price = purse.bid * count
        return premium, free_price

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
        before = sum([tried.offer == offer.id and tried.error != "overloaded" for tried in ask.tried])
        left = self._rest(before) + ask.arrived - now if before > 1 else 0.0
        if reason == "failed" and any(tried.offer == offer.id for tried in ask.tried):
            left = max(left, self.policy.fallback.pause * _growth(max(before - 1, 0)))
        if left > 0:
            why = f"{offer.id} failed just now and is asked again in {left:.3g} s"
            return left, Rejection(offer=offer.id, code="tried", reason=why, lasting=False)
        return None

    def _rest(self, before: int) -> float:
        """Seconds from its arrival that a part keeps from an offer that failed it so often.

        A part has few orders, and an outage may be long: without it the last would be spent on the first minute.
        """
        return self.policy.fallback.pause * sum([_growth(times) for times in range(before)])

    def _running(self, name: OfferId, since: float, ask: Ask, now: float) -> Running:
        seller, request, wishes = self._sellers[name], ask.request, ask.constraints
        amount = seller.work_of(request.width * request.height, request.count, request.steps)
        slack, left = ask.arrived + wishes.slo - now, ask.arrived + wishes.deadline - now
        expected = seller.forecast.expected(amount) + seller.cold_s(since)
        silent = seller.account.open_until > now and seller.ok_at < since
        return hedging.running(seller.offer.account, seller.forecast, expected, now - since, slack, left, silent=silent)

    # -- planning -------------------------------------------------------------------------------

    def _plan(self, view: View, elapsed: float, now: float) -> None:
        """Fold in the arrivals since the last plan and move every bid (`policies/scarcity.py`)."""
        terms = self.policy.scarcity
        age = now - (self._began if self._began is not None else now)
        names = list(self._bids)
        places = {name: place for place, name in enumerate(names)}
        self._set_rooms(view)
        for purse in self._purses.values():
            purse.plan(elapsed, now)
        kinds, sources = [], []
        for slate in self._slates.values():
            for demand in (slate.hurried, slate.patient):
                demand.average(elapsed, terms.memory, age)
                if demand.rate > 1e-3:
                    kind = self._kind(slate, demand, places, now)
                    kinds.append(kind)
                    sources.append(slate)
        self._share_machines(kinds, sources, view, places)
        scarcity.plan(kinds, [self._bids[name] for name in names], terms)
        for shared in self._shared.values():
            if shared.machines is None:
                shared.bid_slot = self._bids[shared.slots[0]].value if shared.slots else 0.0
            shared.bid_order = sum([self._bids[name].value for name, _ in shared.rates])

    def _set_rooms(self, view: View) -> None:
        fullness = self.policy.scarcity.fullness
        machines = {shared.machines for shared in self._shared.values()}
        for name, limit in self._limits.items():
            known = view.machines(name) if name in machines else None
            if known is not None:
                self._bids[name].room = len(known.up) * self.policy.pool.fullness
            else:
                self._bids[name].room = limit.value * fullness

    def _kind(self, slate: Slate, demand: Demand, places: Mapping[CapacityId, int], now: float) -> Kind:
        uses = []
        slack, late = demand.slack, demand.worth_late
        for row in slate.rows:
            seller = row.seller
            shared, forecast = seller.shared, seller.forecast
            if seller.account.open_until > now or seller.breaker.open_until > now:
                continue
            if shared.machines is not None and self._bids[shared.machines].room <= 0.0:
                continue
            expected = row.expected if row.version == forecast.version else row.forecast()
            cost = row.floor * seller.bias * row.counted
            if shared.purses:
                premium, free_price = self._prepaid(shared, 1)
                cost = free_price if free_price >= 0.0 else cost * (1.0 + premium)
            if slack < _BIG * expected:
                cost += late * forecast.above(expected, slack)
            rate = places[shared.rates[0][0]] if shared.rates else -1
            name = shared.machines or (shared.slots[0] if shared.slots else None)
            uses.append(Use(cost, -1 if name is None else places[name], expected, rate))
        # Not to serve is the alternative only where every offer has become far dearer than it is by itself.
        least = min([use.cost for use in uses], default=0.0)
        return Kind(demand.rate, max(demand.worth_failure, 2.0 * least, 1.0), uses)

    def _share_machines(
        self, kinds: Sequence[Kind], sources: Sequence[Slate], view: View, places: Mapping[CapacityId, int]
    ) -> None:
        """How many machines of a pool each model should have, by what the bids in force would place there."""
        for capacity in {shared.machines for shared in self._shared.values() if shared.machines is not None}:
            known = view.machines(capacity)
            if known is None:
                continue
            loads: dict[str, float] = {}
            values = scarcity.worths(self._bids.values())
            for kind, slate in zip(kinds, sources, strict=True):
                if not kind.uses:
                    continue
                use = min(kind.uses, key=lambda use: use.total(values))
                if use.resource == places[capacity]:
                    model = next(row.seller.offer.model for row in slate.rows if row.forecast() == use.seconds)
                    loads[model] = loads.get(model, 0.0) + kind.rate * use.seconds
            loaded = Counter(machine.model for machine in known.up if machine.model is not None)
            self._lanes[capacity] = pool.lanes(loads, loaded, len(known.up))


def _lateness(
    forecast: LatencyForecast, ask: Ask, expected: float, spare: float, risk: float
) -> tuple[float, float, float]:
    """Probability and mean seconds of being late, and the probability after one failure."""
    late, late_s = forecast.late(expected, spare) if ask.worth.late_second else (forecast.above(expected, spare), 0.0)
    again = late
    if risk > _RISKY and ask.worth.late:
        again = forecast.above(expected, spare - 0.6 * expected)
    return late, late_s, again


def _growth(times: int) -> float:
    return float(min(4**times, 64))


def _limit(capacity: Capacity) -> Limit | None:
    if capacity.slots is not None:
        return SlotLimit(capacity.slots)
    if capacity.rate is not None:
        return RateLimit(capacity.rate, capacity.burst)
    return None
