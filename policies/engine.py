"""Chooses where each picture is drawn: gates first, then the least total cost, all in nano-dollars.

The engine is a state machine fed from outside. It keeps what it learned (latency, error rates, breakers, limits, bid
prices) and nothing about calls: an ask carries all of its own history.

    decide(ask, view, now, reason)
      slate      policies/slates.py: gates and prices    -> rejections, and the offers that may serve
      survey     policies/survey.py: when, at what risk  -> the picture (policies/picture.py), and what blocks
      scorers    policies/scorers/                       -> what each would cost
      judgement  policies/judgement.py                   -> Submit, Wait or Shed
    observe(event, now)    policies/sellers.py learns
    tick(view, now)        policies/planning.py moves bid prices

Everything a judgement depends on is in the picture, so a stored picture gives the same decision again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from itertools import count
from math import exp, inf

from policies import hedging, pool
from policies.breaker import Breaker
from policies.concurrency import Limit, RateLimit, SlotLimit
from policies.eligibility import exhausted
from policies.judgement import Weighed, judge, least
from policies.picture import Picture, Running
from policies.planning import Planner
from policies.policy import Policy
from policies.prepaid import Purse
from policies.scarcity import Bid
from policies.scorers import Scales, scales
from policies.sellers import Seller, Shared
from policies.slates import Slate, Slates
from policies.survey import Survey
from policies.types import (
    Ask,
    Capacity,
    CapacityId,
    Decision,
    Event,
    InLine,
    Live,
    Machines,
    Offer,
    OfferId,
    Reason,
    Rejection,
    Submit,
    View,
    Worth,
)

_SILENCES = 3
_WEIGHTS_KEPT = 1024
_FADE_S = 5.0
"""What is learned fades in minutes; it is told so often."""
_HEDGES_KEPT_S = 600.0
_HEDGES_FREE = 20.0


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
        """`thorough`: decisions list every candidate; else those too dear or too late to be chosen are left out.

        That is for drivers that keep no decisions.
        """
        self.policy = policy
        self._offers = offers
        self._thorough = thorough
        self._planner = Planner()
        self._accounts: dict[str, Breaker] = {}
        self._learned: dict[OfferId, Seller] = {}
        """Every offer there ever was: events may be about one that has left the catalogue, and may come back."""
        self._began: float | None = None
        self._faded = self._planned = -inf
        self._stamps = count(1)
        self._weights: dict[Worth, Scales] = {}
        self._placed = Placed()
        self._shared: dict[tuple[CapacityId, ...], Shared] = {}
        self._sell(capacities)
        self._slates = Slates(policy, offers, self._sellers)

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
        twin._offers = offers  # noqa: SLF001 - of our own kind
        twin._sell(capacities)  # noqa: SLF001
        twin._slates = Slates(policy, offers, twin._sellers, demands=self._slates.demands())  # noqa: SLF001
        return twin

    def beside(self, policy: Policy) -> CostEngine:
        """An engine that decides by another policy over the same offers; everything learned is shared.

        How limits, breakers, forecasts and plans work stays as this one's policy says.
        """
        twin = copy(self)
        twin.policy = policy
        twin._weights = {}  # noqa: SLF001 - of our own kind
        twin._slates = self._slates.beside(policy)  # noqa: SLF001 - of our own kind
        return twin

    def _sell(self, capacities: Mapping[CapacityId, Capacity]) -> None:
        """Sell the offers within these capacities."""
        policy, planner = self.policy, self._planner
        self._limit(capacities)
        before, self._shared = self._shared, {}
        self._sellers: dict[OfferId, Seller] = {}
        for breaker in self._accounts.values():
            breaker.retune(policy.breaker, 2 * policy.breaker.failures)
        for offer in self._offers.values():
            account = self._accounts.setdefault(offer.account, Breaker(policy.breaker, 2 * policy.breaker.failures))
            shared = self._shared.get(offer.capacities)
            if shared is None:
                known = [capacities[name] for name in offer.capacities if name in capacities]
                shared = Shared(known, planner.limits, planner.purses)
                if offer.capacities in before:
                    shared = shared.succeeds(before[offer.capacities])
                self._shared[offer.capacities] = shared
            learned = self._learned.get(offer.id)
            seller = Seller(offer, policy, account, shared) if learned is None else learned.under(offer, policy, shared)
            self._sellers[offer.id] = self._learned[offer.id] = seller

    def _limit(self, capacities: Mapping[CapacityId, Capacity]) -> None:
        """Follow what accounts allow: a limit there was goes on, with what it has learned."""
        limits, purses, bids = self._planner.limits, self._planner.purses, self._planner.bids
        for name, capacity in capacities.items():
            limit = limits.get(name)
            if isinstance(limit, SlotLimit) and capacity.slots is not None:
                limit.reconfigure(capacity.slots)
            elif isinstance(limit, RateLimit) and capacity.rate is not None:
                limit.reconfigure(capacity.rate, capacity.burst)
            elif (fresh := _limit(capacity)) is not None:
                limits[name] = fresh
            purse = purses.get(name)
            if (capacity.credit is not None or capacity.free is not None) and (
                purse is None or purse.capacity != capacity
            ):
                purses[name] = Purse(capacity)
        for name in limits.keys() - capacities.keys():  # no longer limited, or no longer sold through
            del limits[name]
        for name in limits:
            bids.setdefault(name, Bid())

    def decide(self, ask: Ask, view: View, now: float, reason: Reason) -> Decision:
        """Weigh every offer and say what to do next for one part of a call."""
        slate = self._slates.of(ask, view)
        if reason == "new":
            slate.count(ask, now)
            self._planner.calls += 1
        picture, weighed = self._draw(slate, ask, view, now, reason)
        decision = judge(picture, self.policy, self._offers, weighed=weighed)
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
        brief, weights = not self._thorough, self._weigh_by(ask.worth)
        placed = self._placed
        budget = placed.hedges < self.policy.hedging.budget * placed.orders + _HEDGES_FREE
        running: tuple[Running, ...] = ()
        if ask.live:
            running = tuple([self._running(each, ask, now) for each in ask.live if each.offer in self._sellers])
        stake = self._stake(running, ask, now) if brief and running else inf
        survey = Survey(self.policy, self._planner, ask, view, now, reason, stamp=next(self._stamps))
        weighed, rejected = survey.over(slate, self._sellers, weights, brief=brief, stake=stake)
        first = weighed[0].seen.blocked if weighed and not survey.left_out else None
        panic = isinstance(first, Rejection) and first.code == "breaker" and self._hopeless(weighed, ask, now)
        if panic:
            # Failing breakers are all that stands in the way, and a bad chance is better than none.
            weighed, rejected = survey.over(slate, self._sellers, weights, brief=brief, despite_failures=True)
        if ask.constraints.bars:
            rejected = (*self._slates.barred(ask).rejections, *rejected)
        seen = tuple([each.seen for each in weighed])
        return (
            Picture(ask, now, reason, view.prices, seen, rejected, running, None, panic, slate.fastest(now), budget),
            weighed,
        )

    def _stake(self, running: Sequence[Running], ask: Ask, now: float) -> float:
        """Nano-dollars that an order beside those under way may cost at most."""
        slack = ask.arrived + ask.constraints.slo - now
        stake = hedging.at_stake(running, ask.worth, slack, self.policy.punctuality)
        return stake + hedging.already_lost(ask.worth, slack)

    def _weigh_by(self, worth: Worth) -> Scales:
        """The scorers, made for what an ask is worth."""
        found = self._weights.get(worth)
        if found is None:
            if len(self._weights) >= _WEIGHTS_KEPT:
                self._weights.clear()
            found = self._weights[worth] = scales(worth, self.policy)
        return found

    def _hopeless(self, weighed: Sequence[Weighed], ask: Ask, now: float) -> bool:
        """Whether every offer is left alone for failing, and waiting for one of them is no use.

        It is of use, while there is time, where orders hang, and once an order of this part has failed already.
        """
        seen = [each.seen for each in weighed]
        if not all(isinstance(each.blocked, Rejection) and each.blocked.code == "breaker" for each in seen):
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
            self._planner.least_bias = least(self._planner.least_bias, seller.bias)
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
        """Once a second: notice silence, try lowered rates upwards; and forget and plan when it is time."""
        if self._began is None:
            self._began = self._faded = self._planned = now
        for limit in self._planner.limits.values():
            if isinstance(limit, RateLimit):
                limit.recover(now)
        self._notice_silence(now)
        if now - self._faded >= _FADE_S:
            self._fade(now - self._faded, now)
        every = self.policy.scarcity.every
        if every > 0.0 and now - self._planned >= self._planner.pause(every):
            slates, sellers = self._slates.kinds.values(), self._sellers.values()
            elapsed, age = now - self._planned, now - self._began
            self._planner.plan(slates, sellers, view, self.policy, elapsed=elapsed, age=age, now=now)
            self._planned = now

    def _fade(self, elapsed: float, now: float) -> None:
        """Forget a little of what was learned."""
        self._faded = now
        for seller in self._learned.values():
            seller.fade(elapsed, now)
        kept = exp(-elapsed / _HEDGES_KEPT_S)
        self._placed.orders *= kept
        self._placed.hedges *= kept

    def _notice_silence(self, now: float) -> None:
        """Expect offers to be slower whose orders do not end, and leave an account alone that answers nobody any more.

        That is one at which several orders should long have ended since it answered last.
        """
        lost: dict[str, list[float]] = {}
        for seller in self._learned.values():
            if not seller.out or seller.shared.machines is not None:
                continue
            seller.notice_overdue(now)
            if sent := seller.lost(now):
                lost.setdefault(seller.offer.account, []).extend(sent)
        for name, sent in lost.items():
            if len(sent) >= _SILENCES:
                ok_at = max([seller.ok_at for seller in self._learned.values() if seller.offer.account == name])
                if sorted(sent)[_SILENCES - 1] > ok_at:
                    self._accounts[name].silent(now)

    def room(self, capacity: CapacityId, in_flight: int, now: float, spare: float = 0.0) -> float:
        """Seconds until one more order may start against a capacity: 0 now, inf when one must end first.

        `spare`: share of its slots that has to be left beside that order.
        """
        limit = self._planner.limits.get(capacity)
        if limit is None:
            return 0.0
        if spare and limit.share_left(in_flight, now) < spare:
            return inf
        return limit.room(in_flight, now)

    def outlook(self, capacity: CapacityId, part: InLine, machines: Machines, now: float) -> pool.Outlook | None:
        """When a part in line for machines of a capacity would begin, and whether to place it now."""
        bid, lanes = self._planner.bids[capacity].value, self._planner.lanes.get(capacity, {})
        return pool.outlook(machines, part, now, bid, self.policy.pool, lanes)

    def bids(self) -> Mapping[CapacityId, Bid]:
        """The bid prices in force."""
        return self._planner.bids

    def _over(self, ask: Ask, now: float) -> Rejection | None:
        """Why nothing more can be ordered for this part at all."""
        if now >= ask.arrived + ask.constraints.deadline:
            return Rejection(offer="", code="deadline", reason=f"{ask.constraints.deadline:g} s have passed")
        if not ask.tried:
            return None
        why = exhausted(ask.tried, self.policy.fallback)
        return None if why is None else Rejection(offer=ask.tried[-1].offer, code="tried", reason=why)

    def _running(self, live: Live, ask: Ask, now: float) -> Running:
        seller, wishes = self._sellers[live.offer], ask.constraints
        request = wishes.asked(live.offer, ask.request)
        amount = seller.work_of(request.width * request.height, request.count, request.steps)
        slack, left = ask.arrived + wishes.slo - now, ask.arrived + wishes.deadline - now
        expected = seller.forecast.expected(amount) + seller.cold_s(live.since)
        silent = seller.account.open_until > now and seller.ok_at < live.since
        return hedging.running(
            seller.offer.account, seller.forecast, expected, now - live.since, slack, left, silent=silent
        )


def _limit(capacity: Capacity) -> Limit | None:
    if capacity.slots is not None:
        return SlotLimit(capacity.slots)
    if capacity.rate is not None:
        return RateLimit(capacity.rate, capacity.burst)
    return None
