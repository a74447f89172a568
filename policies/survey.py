"""One look over the offers of a slate: what each would cost now, when it has room, and why it may not serve."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from policies import pool
from policies.eligibility import latency_objection, price_objection, tried_objection
from policies.judgement import Weighed, weigh
from policies.latency_forecast import COLD_AFTER_S, SURELY
from policies.offer_prices import quote_at
from policies.picture import Seen
from policies.planning import Planner
from policies.policy import Policy
from policies.scorers import Scales
from policies.sellers import FEW, Room, Seller, Shared
from policies.slates import Row, Slate
from policies.types import Ask, InLine, Offer, OfferId, Reason, Rejection, View

_RISKY = 0.02
_FAILS_AFTER = 0.6
"""Of its forecast: after so long an order usually fails that fails."""

_SOON = 2.0
"""With so many times its forecast to spare an order is hardly ever late."""
_ROUNDED = 2.0
"""Nano-dollars that a total may lose where its parts are cut off."""

_NOW = Room(0.0)


class Survey:
    """What all offers of an ask share while they are looked at."""

    __slots__ = (
        "_ask",
        "_best",
        "_despite_failures",
        "_left",
        "_now",
        "_patient",
        "_planner",
        "_policy",
        "_pressed",
        "_reason",
        "_rejected",
        "_reserve",
        "_retried",
        "_slack",
        "_stamp",
        "_view",
        "left_out",
    )

    def __init__(
        self,
        policy: Policy,
        planner: Planner,
        ask: Ask,
        view: View,
        now: float,
        reason: Reason,
        *,
        stamp: int,
    ) -> None:
        """`stamp` is another for each decision: limits are read once for each."""
        self._policy, self._planner, self._ask, self._view = policy, planner, ask, view
        self._now, self._reason, self._stamp = now, reason, stamp
        self._reserve, self._patient = policy.scarcity.reserve, policy.scarcity.patient
        self._retried = bool(ask.tried)
        self._slack = ask.arrived + ask.constraints.slo - now
        self._left = ask.arrived + ask.constraints.deadline - now
        self._pressed = self._slack if self._slack < self._left else self._left  # noqa: FURB136 - see `judgement.least`
        """An order that surely ends within so many seconds is neither late nor too late."""
        self.left_out = False
        """Whether offers were left out that could not be chosen."""

    def over(
        self,
        slate: Slate,
        sellers: Mapping[OfferId, Seller],
        weights: Scales,
        *,
        brief: bool,
        stake: float = inf,
        despite_failures: bool = False,
    ) -> tuple[list[Weighed], tuple[Rejection, ...]]:
        """Every offer that may serve, now or later; and the objections to the others.

        `brief`: those may be left out whose price and lateness alone are more than another offer costs in all; or,
        beside an order that is under way, more than the `stake`: nano-dollars that a second one could save.
        """
        ask, wishes = self._ask, self._ask.constraints
        brief = brief and wishes.prefer == "value" and not wishes.order and not wishes.preferred
        # In time, a second order saves what is at stake; late, whatever it saves was lost before.
        slope = self._policy.punctuality * ask.worth.late if not ask.live else stake if self._slack > 0.0 else 0.0
        capped = wishes.ceiling is not None or ask.budget_left is not None or wishes.latency_ceiling is not None
        checked = capped or bool(ask.tried or ask.live)
        value = wishes.prefer == "value" and not wishes.order
        self._best = best = inf  # the least total of those that have room, so far
        most, least_bias = stake if ask.live else inf, self._planner.least_bias
        self._despite_failures = despite_failures
        weighed: list[Weighed] = []
        self._rejected: list[Rejection] = []
        rejected = self._rejected
        for rows in (slate.steady, slate.others):
            for row in rows:
                if brief and row.steady:
                    spare = most - row.price * row.seller.bias
                    if spare < 0.0 or (spare < slope and self._is_dear(row, spare, slope)):
                        self.left_out = True
                        if row.price * least_bias > most:
                            break  # as are all that follow
                        continue
                if checked and (objected := self._objection(row, sellers)) is not None:
                    rejected.append(objected)
                    continue
                seen = self._see(row)
                if seen is None:
                    continue
                if value:  # as `weigh` would, whose call is most of it
                    total, scores = weights(seen)
                    each = Weighed(0, 0.0, total, row.name, scores, seen, row.offer)
                else:
                    each = weigh(seen, wishes, weights, row.offer)
                    total = each.total
                weighed.append(each)
                if total < best and seen.blocked is None:
                    self._best = best = total
                    most = most if ask.live else total
        return weighed, (*slate.rejected, *rejected) if rejected else slate.rejected

    def _is_dear(self, row: Row, spare: float, slope: float) -> bool:
        """Whether an offer is so likely to be late, at nano-dollars of `slope`, that no more than `spare` is left."""
        slack = self._slack
        if slack >= _SOON * row.expected:  # as it was forecast last
            return False
        return slope * row.seller.forecast.above(row.forecast(), slack) > spare + _ROUNDED

    def _objection(self, row: Row, sellers: Mapping[OfferId, Seller]) -> Rejection | None:
        """Why an offer may not serve this ask, though it may others like it."""
        ask, wishes, offer = self._ask, self._ask.constraints, row.seller.offer
        objected = None
        if ask.tried or ask.live:
            objected = self._above_first(offer, sellers) or tried_objection(offer, ask, self._policy.fallback)
        if objected is None and (wishes.ceiling is not None or ask.budget_left is not None):
            objected = price_objection(offer, ask, row.quote)
        if objected is None and wishes.latency_ceiling is not None:
            objected = latency_objection(offer, wishes.latency_ceiling, row.forecast() * row.seller.forecast.ratio_p95)
        return objected

    def _above_first(self, offer: Offer, sellers: Mapping[OfferId, Seller]) -> Rejection | None:
        """Fallback keeps the tier: a preview that fails does not come back as an export at fifteen times the price."""
        ask = self._ask
        if not ask.tried or ask.constraints.models is not None or self._policy.fallback.better_tier:
            return None
        first = sellers.get(ask.tried[0].offer)
        if first is None or offer.tier <= first.offer.tier:
            return None
        why = f"{offer.model} is of tier {offer.tier.word}; another order keeps {first.offer.tier.word}"
        return Rejection(offer=offer.id, code="tier", reason=why)

    def _see(self, row: Row) -> Seen | None:
        """What an offer would cost now, and when it has room: most have, and then little has to be looked at.

        None where it may not serve after all, which stands among the rejected then.
        """
        seller, shared, now = row.seller, row.shared, self._now
        forecast = seller.forecast
        expected = row.expected if row.version == forecast.version else row.forecast()
        if now - seller.used_at > COLD_AFTER_S:
            expected += seller.cold.seconds(seller.idle(now))
        if shared.stamp != self._stamp:  # the limits of an account are read once, for all of its offers
            # There is room; or the last slots are kept for those in a hurry, who do not wait behind the others.
            head = self._reason == "room" or self._slack - expected <= self._patient
            shared.look(self._view, now, expected, self._reserve, head=head)
            shared.stamp = self._stamp
        if self._retried or not (row.plain and seller.account.passes and seller.breaker.passes):
            return self._see_closely(row, expected)
        room = _NOW
        if not shared.calm:
            if self._slack - expected > self._patient:
                room = shared.room or self._full(shared, expected)
            elif shared.blocking is not None:
                room = self._full(shared, expected)
        wait_s = room.wait_s
        late = late_s = again = too_late = 0.0
        if self._pressed - wait_s < SURELY * expected:
            late, late_s, again, too_late = self._lateness(seller, expected, wait_s)
        return Seen(
            row.name, row.account, row.quote, seller.bias, row.counted, expected, expected * forecast.ratio_p50,
            expected * forecast.ratio_p95, wait_s, late, late_s, too_late, again, seller.risk, shared.left,
            shared.share, shared.bid_slot, shared.order_price, 0.0, -1.0, 0.0, 0.0, expected * forecast.ratio_hedge,
            None, room.capacity, room.blocked, room.spare,
        )  # fmt: skip

    def _see_closely(self, row: Row, expected: float) -> Seen | None:
        """The same where anything stands in the way, or is not as it usually is."""
        seller, shared, quote, ask = row.seller, row.shared, row.quote, self._ask
        forecast = seller.forecast
        if row.timed:
            request = ask.constraints.asked(row.offer.id, ask.request)
            quote = quote_at(row.offer, request, revision=self._view.prices, expected_s=expected)
        room, line, machine_s, machine_price = _NOW, None, 0.0, 0.0
        if shared.machines is not None:
            line = self._in_line(seller, expected)
            found = self._machine_room(seller, line)
            if found is None:
                self._rejected.append(_no_machine(row.offer))
                return None
            (room, machine_price), machine_s = found, expected
        elif row.kept or not shared.calm:
            room = self._room(shared, expected, row.kept)
        if self._retried or not (seller.account.passes and seller.breaker.passes):
            room = self._paused(seller, room)
        wait_s = room.wait_s
        late = late_s = again = too_late = 0.0
        if self._pressed - wait_s < SURELY * expected:
            late, late_s, again, too_late = self._lateness(seller, expected, wait_s)
        premium, free_price = shared.prepaid(ask.request.count) if shared.purses else (0.0, -1.0)
        return Seen(
            row.name, row.account, quote, seller.bias, row.counted, expected, expected * forecast.ratio_p50,
            expected * forecast.ratio_p95, wait_s, late, late_s, too_late, again, seller.risk, shared.left,
            shared.share, 0.0 if machine_s else shared.bid_slot, shared.order_price, premium, free_price, machine_s,
            machine_price, expected * forecast.ratio_hedge, line, room.capacity, room.blocked, room.spare,
        )  # fmt: skip

    def _lateness(self, seller: Seller, expected: float, wait_s: float) -> tuple[float, float, float, float]:
        """Probability and mean seconds of being late, the probability after one failure, and that of being too late."""
        forecast, worth = seller.forecast, self._ask.worth
        spare, left, surely = self._slack - wait_s, self._left - wait_s, SURELY * expected
        late = late_s = again = 0.0
        if spare < surely:
            if worth.late_second:
                late, late_s = forecast.late(expected, spare)
            else:
                late = forecast.above(expected, spare)
            again = late
            if seller.risk > _RISKY and worth.late:
                again = forecast.above(expected, spare - _FAILS_AFTER * expected)
        return late, late_s, again, forecast.above(expected, left) if left < surely else 0.0

    def _room(self, shared: Shared, expected: float, kept: float) -> Room:
        """When an account has room for an order, some of its slots being kept for other calls."""
        if shared.blocking is None and shared.slots is not None and shared.spare_left < kept:
            # The policy keeps what is left for others; more comes free as orders end.
            return Room(_until_spare(shared, expected, kept), shared.slots[0], "reserved", kept)
        if shared.calm or (shared.blocking is None and self._slack - expected <= self._patient):
            return _NOW
        return self._full(shared, expected, kept)

    def _full(self, shared: Shared, expected: float, kept: float = 0.0) -> Room:
        """When an account that has no room for an order will have some."""
        if shared.blocking is None:
            # The last slots are for calls in a hurry; others wait for more of them to come free.
            assert shared.slots is not None
            room = Room(_until_spare(shared, expected, self._reserve), shared.slots[0], "hurried", self._reserve)
            if shared.serve_s:  # without it each offer goes by its own forecast
                shared.room = room
            return room
        patient = self._slack - expected > self._patient
        room = Room(shared.wait_s, shared.blocking, "full", self._to_leave(shared, kept, patient=patient))
        if patient and not kept:
            shared.room = room
        return room

    def _to_leave(self, shared: Shared, kept: float, *, patient: bool) -> float:
        """Share of the slots that an order has to leave for others, where it is slots that it lacks."""
        if shared.slots is None or shared.blocking != shared.slots[0]:
            return 0.0
        return max(self._reserve if patient and shared.slots[1].value > FEW else 0.0, kept)

    def _in_line(self, seller: Seller, expected: float) -> InLine:
        worth = min(self._best, self._ask.worth.failure) / expected
        return InLine(seller.offer.model, expected, self._now + self._slack, worth)

    def _machine_room(self, seller: Seller, line: InLine) -> tuple[Room, float] | None:
        """When a machine of our own has room, and what a second of it costs; None where none is up."""
        shared, planner, terms = seller.shared, self._planner, self._policy.pool
        capacity, machines = shared.machines, shared.known
        assert capacity is not None
        bid = planner.bids[capacity].value
        if machines is None:  # nobody knows more than how many orders are in flight
            if shared.blocking is None:
                return _NOW, bid
            return self._full(shared, line.seconds), bid
        look = pool.outlook(machines, line, self._now, bid, terms, planner.lanes.get(capacity, {}))
        if look is None:
            return None
        return Room(look.wait_s) if look.place else Room(look.wait_s, capacity, "machine"), look.price

    def _paused(self, seller: Seller, room: Room) -> Room:
        """The room there is, or the pause that an offer has until then, whichever is longer."""
        pause = self._pause(seller)
        if pause is not None and (pause[1].code == "breaker" or pause[0] > room.wait_s):
            return Room(pause[0], None, pause[1])
        return room

    def _pause(self, seller: Seller) -> tuple[float, Rejection] | None:
        """Seconds for which an offer is left alone, room or not, and why."""
        offer, ask, now = seller.offer, self._ask, self._now
        for breaker in (seller.account, seller.breaker):
            left = breaker.room(now, despite_failures=self._despite_failures)
            if left > 0:
                why = f"{offer.id} is left alone for {left:.1f} s: {breaker.why}"
                return left, Rejection(offer=offer.id, code="breaker", reason=why, lasting=False)
        held = seller.account.held(now)
        if held > 0:
            why = f"{offer.account} asked us to come back in {held:.1f} s"
            return held, Rejection(offer=offer.id, code="headroom", reason=why, lasting=False)
        before = sum([tried.offer == offer.id and tried.error != "overloaded" for tried in ask.tried])
        pause = self._policy.fallback.pause
        left = _rest(before, pause) + ask.arrived - now if before > 1 else 0.0
        if self._reason == "failed" and any(tried.offer == offer.id for tried in ask.tried):
            left = max(left, pause * _growth(max(before - 1, 0)))
        if left > 0:
            why = f"{offer.id} failed just now and is asked again in {left:.3g} s"
            return left, Rejection(offer=offer.id, code="tried", reason=why, lasting=False)
        return None


def _no_machine(offer: Offer) -> Rejection:
    return Rejection(offer=offer.id, code="headroom", reason=f"{offer.account} has no machine up", lasting=False)


def _until_spare(shared: Shared, expected: float, share: float) -> float:
    """Seconds until so large a share of the slots is unused."""
    assert shared.slots is not None
    limit = shared.slots[1]
    missing = (share - shared.spare_left) * limit.value
    if missing < 1.0:  # noqa: PLR1730 - see `least`
        missing = 1.0
    return missing * (shared.serve_s or expected) / limit.value


def _rest(before: int, pause: float) -> float:
    """Seconds from its arrival that a part keeps from an offer that failed it so often.

    A part has few orders, and an outage may be long: without it the last would be spent on the first minute.
    """
    return pause * sum([_growth(times) for times in range(before)])


def _growth(times: int) -> float:
    return float(min(4**times, 64))
