"""Money and pictures an account has already, and that run out: prepaid credit and free allowances.

A purse counts what was spent against what renews at a known moment, and says what its next unit is worth. With time
left and too little money the price rises until spending fits; with plenty it is nothing.
"""

from __future__ import annotations

from math import inf

from policies.types import Capacity

_STEP = 0.1


class Purse:
    """One prepaid credit (nano-dollars) or free allowance (pictures) of an account."""

    __slots__ = ("_began", "_left", "_pace", "_seen_at", "bid", "capacity")

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._left = float(capacity.credit if capacity.credit is not None else capacity.free or 0)
        self._pace = 0.0
        self._seen_at: float | None = None
        self.bid = 0.0
        """For credit: nano-dollars a nano-dollar is worth beyond itself. For pictures: nano-dollars each."""

    def __repr__(self) -> str:
        return f"<Purse {self.capacity.id}: {self._left:.0f} left, bid {self.bid:.3g}>"

    @property
    def left(self) -> float:
        """What is left, in nano-dollars or pictures."""
        return self._left

    @property
    def is_credit(self) -> bool:
        """Whether it holds money, not pictures."""
        return self.capacity.credit is not None

    def spent(self, cost: int, pictures: int, now: float) -> None:  # noqa: ARG002 - a purse has no clock but its owner's
        """Take what an order used up."""
        self._left = max(self._left - (cost if self.is_credit else pictures), 0.0)
        self._pace += cost if self.is_credit else pictures

    def plan(self, elapsed: float, now: float) -> None:
        """Compare the pace of spending with what is left until it renews, and move the bid."""
        renews = self.capacity.renews
        if renews is None or elapsed <= 0.0:
            return
        if self._seen_at is None:
            self._seen_at = now
        remaining = max(renews - now, 1.0)
        keep = 2.718281828 ** (-elapsed / 300.0)
        rate = self._pace / 300.0
        self._pace *= keep
        wanted = rate * remaining
        pressure = min(wanted / max(self._left, 1e-9) - 1.0, 1.0) if self._left > 0 else 1.0
        self.bid = min(max(self.bid + _STEP * (elapsed / 5.0) * pressure * 0.2, 0.0), 3.0)

    @property
    def renews_in(self) -> float:
        """Moment at which it is whole again; inf when never."""
        return inf if self.capacity.renews is None else self.capacity.renews
