"""What the engine has learned about sellers: forecasts, error rates, breakers, limits, bills. Fed by events alone."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from copy import copy
from math import inf

from msgspec import Struct

from policies.breaker import Breaker, ErrorRate
from policies.concurrency import Limit, RateLimit, SlotLimit
from policies.latency_forecast import COLD_AFTER_S, ColdStart, LatencyForecast, work
from policies.picture import Lack
from policies.policy import Policy
from policies.prepaid import Purse
from policies.types import Capacity, CapacityId, Event, Machines, Offer, Rejection, View

_UNLIMITED = 1_000_000
FEW = 4
"""An account with no more slots keeps none for calls in a hurry."""
_BIAS_STEP = 0.2
_SERVICE_STEP = 0.05
_OVERDUE = 1.6
"""An order out for this many times its forecast is overdue."""
_LOST = 8.0
"""An order out for this many times its forecast is lost: nobody answers."""


class Room(Struct, frozen=True, gc=False):
    """When an offer has room."""

    wait_s: float
    capacity: CapacityId | None = None
    blocked: Rejection | Lack | None = None
    spare: float = 0.0
    """Share of the slots of `capacity` that has to be left for others."""


class Shared:
    """The limits that some offers of an account share, and what they leave at the moment of a decision."""

    __slots__ = (
        "_slot",
        "bid_order",
        "bid_slot",
        "blocking",
        "calm",
        "known",
        "left",
        "limits",
        "machines",
        "order_price",
        "purses",
        "rates",
        "room",
        "serve_s",
        "share",
        "slots",
        "spare_left",
        "stamp",
        "wait_s",
    )

    def __init__(
        self, capacities: Sequence[Capacity], limits: Mapping[CapacityId, Limit], purses: Mapping[CapacityId, Purse]
    ) -> None:
        self.limits = tuple((each.id, limits[each.id]) for each in capacities if each.id in limits)
        self.slots = next(((name, limit) for name, limit in self.limits if isinstance(limit, SlotLimit)), None)
        self._slot = self.slots[1] if self.slots else None
        self.rates = tuple((name, limit) for name, limit in self.limits if isinstance(limit, RateLimit))
        self.machines = next((each.id for each in capacities if each.machines), None)
        self.known: Machines | None = None
        """The machines behind them, at the moment of a decision."""
        self.purses = tuple(purses[each.id] for each in capacities if each.id in purses)
        self.serve_s = 0.0
        """Seconds an order keeps its slot, lately; 0 before the first."""
        self.bid_slot = 0.0
        self.bid_order = 0.0
        self.order_price = 0.0
        """Nano-dollars for one order of its rates, now: the whole bid once nothing is left."""
        self.stamp = -1
        self.left, self.share, self.wait_s = _UNLIMITED, 1.0, 0.0
        self.spare_left = 1.0
        """Unused share of the slots alone."""
        self.calm = False
        """Whether there is room for anybody: nothing blocks, and more is left than is kept for calls in a hurry."""
        self.blocking: CapacityId | None = None
        self.room: Room | None = None
        """When there is some for those who are in no hurry, found once at each decision for all of its offers."""

    def succeeds(self, before: Shared) -> Shared:
        """Of two that stand for the same capacities the one to go on with: the earlier where nothing changed."""
        same = before.limits == self.limits and before.purses == self.purses and before.machines == self.machines
        if same:
            return before
        self.serve_s, self.bid_slot, self.bid_order = before.serve_s, before.bid_slot, before.bid_order
        return self

    def prepaid(self, count: int) -> tuple[float, float]:
        """What its purses make of an order of so many pictures: `Seen.premium` and `Seen.free_price`."""
        premium, free_price = 0.0, -1.0
        for purse in self.purses:
            if purse.is_credit:
                premium = purse.bid
            elif purse.left >= count:
                free_price = purse.bid * count
        return premium, free_price

    def look(self, view: View, now: float, expected: float, reserve: float, *, head: bool) -> None:
        """Read the limits; `reserve`: share kept for those in a hurry; `head`: whoever asks stands first in line."""
        left, share, wait_s, blocking = _UNLIMITED, 1.0, 0.0, None
        if self.machines is not None:
            self.known = view.machines(self.machines)
        slot, calm = self._slot, True
        for name, limit in self.limits:
            busy = view.in_flight(name)
            places, unused = limit.glance(busy, now)
            if places < left:  # noqa: PLR1730 - min() takes longer than all the rest
                left = places
            if unused < share:  # noqa: PLR1730
                share = unused
            if limit is slot:
                self.spare_left = unused
                calm = unused >= reserve or slot.value <= FEW
            if places <= 0:
                wait = limit.wait(busy, 0 if head else view.waiting(name), self.serve_s or expected, now)
                if wait >= wait_s:
                    wait_s, blocking = wait, name
        self.left, self.share, self.wait_s, self.blocking = left, share, wait_s, blocking
        self.calm = calm and blocking is None
        self.room = None
        if self.rates:
            self.order_price = self.bid_order * (1.0 - 0.9 * share)


class Seller:
    """One offer."""

    __slots__ = (
        "_machine_share",
        "account",
        "bias",
        "breaker",
        "cold",
        "errors",
        "forecast",
        "offer",
        "ok_at",
        "out",
        "risk",
        "shared",
        "used_at",
    )

    def __init__(self, offer: Offer, policy: Policy, account: Breaker, shared: Shared) -> None:
        self.offer = offer
        self.forecast = LatencyForecast(offer.typical_s, policy.forecast, policy.hedging.quantile)
        self.cold = ColdStart()
        self.used_at = -inf
        """When it last had an order."""
        self.errors = ErrorRate()
        self.risk = self.errors.at(0.0)
        """Probability that an order fails, as of the last event, or a few seconds ago."""
        self.breaker = Breaker(policy.breaker, policy.breaker.failures)
        self.account = account
        self.shared = shared
        self.ok_at = -inf
        """When it last served."""
        self.bias = 1.0
        """What the seller bills over what it quotes."""
        self._machine_share = policy.pool.fixed_share if shared.machines else None
        self.out: list[tuple[float, float, float]] = []
        """When each order under way went out, the seconds it was to take, and for how long nobody had used the offer
        then; in the order of going out."""

    def __repr__(self) -> str:
        return (
            f"<Seller {self.offer.id}: {self.forecast!r} {self.breaker!r} {[limit for _, limit in self.shared.limits]}>"
        )

    def under(self, offer: Offer, policy: Policy, shared: Shared) -> Seller:
        """This seller as another revision offers it; what was learned is shared with it."""
        self.forecast.retune(offer.typical_s, policy.forecast, policy.hedging.quantile)
        self.breaker.retune(policy.breaker, policy.breaker.failures)
        share = policy.pool.fixed_share if shared.machines else None
        if offer == self.offer and shared is self.shared and share == self._machine_share:
            return self
        seller = copy(self)
        seller.offer, seller.shared, seller._machine_share = offer, shared, share  # noqa: SLF001 - of our own kind
        return seller

    def work_of(self, pixels: int, count: int, steps: int | None) -> float:
        """How much larger than the typical picture an order is."""
        default = self.offer.abilities.default_steps
        if self._machine_share is None:
            return work(pixels, count, steps, default)
        # A seller draws the pictures of an order side by side; a GPU of our own draws them all itself.
        return work(pixels, 1, steps, default) * (self._machine_share + (1.0 - self._machine_share) * count)

    def leased(self, now: float) -> None:
        """Note an order that is about to go out: through a half-open breaker no other follows it."""
        self.breaker.submitted(now)
        self.account.submitted(now)

    def sent_beside(self, now: float) -> None:
        """Spend what an order takes that nothing is to be learned from."""
        for _, rate in self.shared.rates:
            rate.submitted(now)

    def submitted(self, event: Event, now: float) -> None:
        """Count an order that goes out."""
        for _, rate in self.shared.rates:
            rate.submitted(now)
        self.leased(now)
        idle = self.idle(now)
        expected = self.forecast.expected(self.work_of(event.pixels, event.count, event.steps))
        self.out.append((now, expected + self.cold.seconds(idle), idle))
        self.used_at = now

    def ended(self, sent_at: float, now: float) -> float:
        """Forget an order that is over, however it ended; answer for how long nobody had used the offer before it."""
        self.used_at = now
        at = self._find(sent_at)
        return 0.0 if at is None else self.out.pop(at)[2]

    def idle(self, now: float) -> float:
        """Seconds for which nobody has used the offer."""
        return 0.0 if self.out else now - self.used_at

    def cold_s(self, sent_at: float) -> float:
        """Seconds an order under way takes longer because nobody had used the offer before it."""
        at = self._find(sent_at)
        return 0.0 if at is None else self.cold.seconds(self.out[at][2])

    def _find(self, sent_at: float) -> int | None:
        """The order under way that went out nearest to a moment."""
        out = self.out
        if not out:
            return None
        at = bisect_left(out, (sent_at,))
        if at == len(out) or (at and sent_at - out[at - 1][0] < out[at][0] - sent_at):
            at -= 1
        return at

    def served(self, event: Event, quoted: int, now: float, idle: float = 0.0) -> None:
        """Learn from pictures that came, after the offer had been idle for so many seconds."""
        self.ok_at = now
        self.breaker.ok(now - event.latency)
        self.account.ok(now - event.latency)
        self.errors.observe(now, failed=False)
        self.risk = self.errors.at(now)
        if event.kind == "refused":
            return
        drawing = event.latency - (event.queue_s or 0.0)
        amount = self.work_of(event.pixels, event.count, event.steps)
        shared = self.shared
        if shared.machines is None or drawing < 1.35 * self.forecast.expected(amount):
            # On our own GPUs a long step is a full one, or loads a model first; that is no surprise.
            extra = self.cold.seconds(idle)
            if idle > COLD_AFTER_S and shared.machines is None:
                self.cold.observe(idle, drawing - self.forecast.expected(amount))
            self.forecast.observe(amount, drawing, now, extra)
        shared.serve_s = drawing if not shared.serve_s else shared.serve_s + _SERVICE_STEP * (drawing - shared.serve_s)
        if quoted > 0:
            if event.cost > 0:
                self.bias += _BIAS_STEP * (event.cost / quoted - self.bias)
            for purse in shared.purses:
                purse.spent(event.cost, event.count, now)
        if shared.slots is not None and shared.machines is None:
            shared.slots[1].ok(event.in_flight, now - event.latency, event.queue_s, now)

    def failed(self, event: Event, weight: int, now: float) -> None:
        """Learn from an order that failed."""
        sent_at = now - event.latency
        self.breaker.failed(now, weight, sent_at)
        self.account.failed(now, weight, sent_at)
        self.errors.observe(now, failed=True)
        self.risk = self.errors.at(now)
        amount = self.work_of(event.pixels, event.count, event.steps)
        if event.kind == "timeout" and event.latency > self.forecast.expected(amount):
            self.forecast.observe(amount, event.latency, now)

    def throttled(self, event: Event, now: float) -> None:
        """Too many orders, or too fast: the limit the account has learns it, and Retry-After blocks exactly so long."""
        self.breaker.undecided()
        self.account.undecided()
        sent_at, told, shared = now - event.latency, event.retry_after is not None, self.shared
        # An account with both limits says when to come back if it was too fast, and nothing if it is full; but one
        # that refuses its only order cannot be full.
        by_rate = bool(shared.rates) and (told or shared.slots is None or event.in_flight <= 1)
        if by_rate:
            for _, rate in shared.rates:
                rate.refused(sent_at, now)
        elif shared.slots is not None:
            shared.slots[1].refused(event.in_flight, sent_at, now, told=told)
        if event.retry_after is None:
            if not shared.limits:
                self.breaker.failed(now)
            return
        self._hold_off(now + event.retry_after, now)

    def _hold_off(self, until: float, now: float) -> None:
        """Place nothing before the moment the seller named."""
        shared = self.shared
        for _, rate in shared.rates:
            rate.block(until, now)
        if not shared.rates and shared.slots is not None:
            shared.slots[1].block(until)
        if not shared.limits:
            self.account.hold_off(until)

    def fade(self, elapsed: float, now: float) -> None:
        """Let what was learned fade where nothing is seen."""
        self.forecast.forget(elapsed, now)
        self.risk = self.errors.at(now)

    def notice_overdue(self, now: float) -> None:
        """Expect more of the next order where many should have ended by now."""
        late = [expected for sent, expected, _ in self.out if now - sent > _OVERDUE * expected + 0.5]
        if len(late) >= 3 and len(late) > 0.4 * len(self.out):
            self.forecast.overdue()
        del self.out[: bisect_left(self.out, (now - 600.0,))]

    def lost(self, now: float) -> list[float]:
        """When the orders went out that should have ended long ago."""
        return [sent for sent, expected, _ in self.out if now - sent > _LOST * expected + 1.0]
