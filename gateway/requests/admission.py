"""Who may place one more order: leases on the capacities that offers share.

The engine knows the limits (configured and learned); this counts what is in flight against them. Taking a lease is
one synchronous step, so nothing can come between the look and the taking.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Sequence

from policies.types import CapacityId

Room = Callable[[CapacityId, int], float]
"""(capacity, orders in flight) -> seconds until one more may start; 0 now, inf when one must end first."""


class Lease:
    """The right to one order in flight; given back once, whoever asks."""

    __slots__ = ("_admission", "capacities")

    def __init__(self, admission: Admission, capacities: Sequence[CapacityId]) -> None:
        self._admission: Admission | None = admission
        self.capacities = capacities

    def release(self) -> None:
        """Give the slot back; a second call does nothing."""
        if self._admission is not None:
            admission, self._admission = self._admission, None
            admission.give_back(self.capacities)

    def linger(self, seconds: float) -> None:
        """Give the slot back later: the provider may still be working on an order we lost sight of."""
        asyncio.get_running_loop().call_later(seconds, self.release)


class Admission:
    """Counts orders in flight by capacity and wakes those who wait for room."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._in_flight: defaultdict[CapacityId, int] = defaultdict(int)
        self._waiting: defaultdict[CapacityId, deque[Waiter]] = defaultdict(deque)
        self._line: defaultdict[CapacityId, int] = defaultdict(int)

    def __repr__(self) -> str:
        counts = ", ".join(f"{c}: {n}" for c, n in sorted(self._in_flight.items()) if n)
        return f"<Admission {counts or 'idle'}>"

    def in_flight(self, capacity: CapacityId) -> int:
        """Orders in flight against a capacity."""
        return self._in_flight[capacity]

    def lease(self, capacities: Sequence[CapacityId]) -> Lease | None:
        """One more order against all of `capacities`, or None when any of them is full."""
        for capacity in capacities:
            if self._room(capacity, self._in_flight[capacity]) > 0:
                return None
        return self.force(capacities)

    def force(self, capacities: Sequence[CapacityId]) -> Lease:
        """Count an order that is in flight already, full or not: one found again after a crash."""
        for capacity in capacities:
            self._in_flight[capacity] += 1
        return Lease(self, capacities)

    def wait(self, capacity: CapacityId, wake: Callable[[], None]) -> Waiter:
        """Call `wake` once when `capacity` has room; first come, first woken."""
        self._line[capacity] += 1
        waiter = Waiter(wake, lambda: self._leave(capacity))
        self._waiting[capacity].append(waiter)
        return waiter

    def waiting(self, capacity: CapacityId) -> int:
        """How many stand in line for a capacity."""
        return self._line[capacity]

    def give_back(self, capacities: Sequence[CapacityId]) -> None:
        """End of an order: its slots are free, and whoever can use them is woken."""
        for capacity in capacities:
            self._in_flight[capacity] -= 1
        for capacity in capacities:
            self.stir(capacity)

    def stir(self, capacity: CapacityId) -> None:
        """Wake as many waiters as could start now, as if each of them did."""
        line = self._waiting.get(capacity)
        taken = self._in_flight[capacity]
        while line and self._room(capacity, taken) <= 0:
            if line.popleft().fire():
                taken += 1

    def _leave(self, capacity: CapacityId) -> None:
        self._line[capacity] -= 1


class Waiter:
    """One who waits for room."""

    __slots__ = ("_leave", "_wake")

    def __init__(self, wake: Callable[[], None], leave: Callable[[], None]) -> None:
        self._wake: Callable[[], None] | None = wake
        self._leave = leave

    def cancel(self) -> None:
        """No longer interested."""
        if self._wake is not None:
            self._wake = None
            self._leave()

    def fire(self) -> bool:
        """Wake; False when nobody was interested any more."""
        if self._wake is None:
            return False
        wake, self._wake = self._wake, None
        self._leave()
        wake()
        return True
