"""Who may place one more order: leases on the capacities that offers share.

The engine knows the limits (configured and learned); this counts what is in flight against them. Taking a lease is
one synchronous step, so nothing can come between the look and the taking.

Who finds no room stands in line, by rank (`policies/waiting.py`). Room that comes free is kept for whoever is woken for
it until that part has been decided about; newcomers do not slip in between.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Container
from functools import partial
from math import inf

from policies.types import CapacityId
from policies.waiting import Line, Spot

Room = Callable[[CapacityId, int, float], float]
"""(capacity, orders in flight, share of slots to leave for others) -> seconds until one more may start; 0 now, inf when
one must end first."""


class Lease:
    """The right to one order in flight; given back once, whoever asks.

    Against a rate an order counts until it is sent, when it has taken its token; against slots until it ends.
    """

    __slots__ = ("_admission", "_rates", "_slots")

    def __init__(self, admission: Admission, rates: tuple[CapacityId, ...], slots: tuple[CapacityId, ...]) -> None:
        self._admission: Admission | None = admission
        self._rates = rates
        self._slots = slots

    def sent(self) -> None:
        """The order goes out; a second call does nothing."""
        if self._rates and self._admission is not None:
            rates, self._rates = self._rates, ()
            self._admission.give_back(rates)

    def release(self) -> None:
        """Give the slot back; a second call does nothing."""
        if self._admission is not None:
            admission, self._admission = self._admission, None
            admission.give_back((*self._rates, *self._slots))

    def linger(self, seconds: float) -> None:
        """Give the slot back later: the provider may still be working on an order we lost sight of."""
        asyncio.get_running_loop().call_later(seconds, self.release)


class Admission:
    """Counts orders in flight by capacity and wakes those who wait for room."""

    def __init__(self, room: Room, rates: Container[CapacityId] = ()) -> None:
        """`rates`: capacities that limit how fast orders go out, not how many are under way."""
        self._room = room
        self._rates = rates
        self._split: dict[tuple[CapacityId, ...], tuple[tuple[CapacityId, ...], tuple[CapacityId, ...]]] = {}
        self._timers: dict[CapacityId, asyncio.TimerHandle] = {}
        self._in_flight: defaultdict[CapacityId, int] = defaultdict(int)
        self._lines: defaultdict[CapacityId, Line[Waiter]] = defaultdict(Line)
        self.asking = inf
        """The rank of the call that is decided about."""

    def adopt(self, rates: Container[CapacityId]) -> None:
        """Go by another catalogue."""
        self._rates = rates
        self._split.clear()

    def __repr__(self) -> str:
        counts = ", ".join(f"{c}: {n}" for c, n in sorted(self._in_flight.items()) if n)
        return f"<Admission {counts or 'idle'}>"

    def in_flight(self, capacity: CapacityId) -> int:
        """Orders in flight against a capacity (a rate: not sent yet), and room kept for parts woken for it."""
        return self._in_flight[capacity]

    def lease(self, capacities: tuple[CapacityId, ...]) -> Lease | None:
        """One more order against all of `capacities`, or None when any of them is full."""
        for capacity in capacities:
            if self._room(capacity, self._in_flight[capacity], 0.0) > 0:
                return None
        return self._take(capacities)

    def force(self, capacities: tuple[CapacityId, ...]) -> Lease:
        """Count an order that is in flight already, full or not: one found again after a crash."""
        lease = self._take(capacities)
        lease.sent()
        return lease

    def _take(self, capacities: tuple[CapacityId, ...]) -> Lease:
        split = self._split.get(capacities)
        if split is None:
            rates = tuple(each for each in capacities if each in self._rates)
            split = self._split[capacities] = rates, tuple(each for each in capacities if each not in self._rates)
        for capacity in capacities:
            self._in_flight[capacity] += 1
        return Lease(self, *split)

    def wait(self, capacity: CapacityId, wake: Callable[[], None], rank: float = 0.0, spare: float = 0.0) -> Waiter:
        """Call `wake` once when `capacity` has room; the least rank first, and of equals the first that came.

        `spare`: share of its slots that has to be left for others.
        """
        waiter = Waiter(self, capacity, wake)
        waiter.spot = self._lines[capacity].join(rank, waiter, spare)
        self._look_later(capacity)
        return waiter

    def waiting(self, capacity: CapacityId) -> int:
        """How many stand in line for a capacity."""
        return len(self._lines[capacity])

    def ahead(self, capacity: CapacityId) -> int:
        """How many of them go before the call that is decided about."""
        line = self._lines.get(capacity)
        return line.ahead(self.asking) if line else 0

    def give_back(self, capacities: tuple[CapacityId, ...]) -> None:
        """End of an order: its slots are free, and whoever can use them is woken."""
        for capacity in capacities:
            self._in_flight[capacity] -= 1
        for capacity in capacities:
            self.stir(capacity)

    def stir(self, capacity: CapacityId) -> None:
        """Wake as many waiters as could start now, and keep the room for them."""
        line = self._lines.get(capacity)
        if not line:
            return
        while (found := line.next(partial(self._has_room, capacity))) is not None:
            spot, waiter = found
            line.leave(spot)
            self._in_flight[capacity] += 1
            waiter.fire()
        if line:
            self._look_later(capacity)

    def _has_room(self, capacity: CapacityId, spare: float) -> bool:
        return self._room(capacity, self._in_flight[capacity], spare) <= 0

    def _look_later(self, capacity: CapacityId) -> None:
        """Look again when room comes by itself: with a token of a rate, or at the end of a pause."""
        seconds = self._room(capacity, self._in_flight[capacity], 0.0)
        if 0 < seconds < inf and capacity not in self._timers:
            self._timers[capacity] = asyncio.get_running_loop().call_later(seconds, self._stir_in_time, capacity)

    def _stir_in_time(self, capacity: CapacityId) -> None:
        del self._timers[capacity]
        self.stir(capacity)

    def leave(self, waiter: Waiter) -> None:
        """One who stood in line does so no longer."""
        assert waiter.spot is not None
        self._lines[waiter.capacity].leave(waiter.spot)

    def unkeep(self, capacity: CapacityId) -> None:
        """Room that was kept for one who was woken is kept no longer."""
        self._in_flight[capacity] -= 1


class Waiter:
    """One who waits for room, then holds it until it is decided what becomes of it."""

    __slots__ = ("_admission", "_wake", "capacity", "spot", "waits", "woken")

    def __init__(self, admission: Admission, capacity: CapacityId, wake: Callable[[], None]) -> None:
        self._admission = admission
        self._wake = wake
        self.spot: Spot | None = None
        """Its place in the line."""
        self.capacity = capacity
        self.waits = True
        self.woken = False
        """Whether room is kept for it."""

    def cancel(self) -> None:
        """No longer interested: the place in line is given up, or the room that was kept, to whoever comes next."""
        if self.waits:
            self.waits = False
            self._admission.leave(self)
        elif self.woken:
            self.claim()
            self._admission.stir(self.capacity)

    def claim(self) -> None:
        """It is decided now what becomes of the room that was kept."""
        self.woken = False
        self._admission.unkeep(self.capacity)

    def fire(self) -> None:
        """Wake; room is kept from now on."""
        self.waits, self.woken = False, True
        self._wake()
