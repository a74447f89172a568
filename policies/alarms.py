"""When spending, or what a seller allows, is worth telling somebody about; what was spent and counted is given.

Both rules measure against what is usual or allowed here, and say nothing while too little is known. Money is
nano-dollars, hours are numbered from 1970 in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from msgspec import Struct

from policies.money import USD, NanoUsd

HISTORY_HOURS = 28 * 24
"""How far back spending is compared."""
KNOWN_DAYS = 7
"""Days of history below which nothing is called unusual."""
USUAL_SHARE = 0.95
"""Of the hours at this time of the day, the share that the usual one is not below. Past mishaps hardly move it."""
TIMES_USUAL = 3
"""How many times the usual is unusual."""
LEAST_UNUSUAL: NanoUsd = USD
"""Spent in an hour, less is never told: an hour of a new habit that costs cents is nobody's alarm."""

PRESSED_ORDERS = 20
"""Orders in an hour below which a share of refused ones says nothing."""
PRESSED_SHARE = 0.05
"""Share of orders refused for their rate (429) from which an account is pressed."""
FULL_LOOKS = 60
"""Looks below which a share of full ones says nothing."""
FULL_SHARE = 0.5
"""Share of looks at which an account had no room left, from which it is pressed."""


class Pressure(Struct, frozen=True, kw_only=True):
    """What an account's limits did to orders within an hour."""

    orders: int = 0
    refused: int = 0
    """Of these, how many their seller refused for their rate."""
    looks: int = 0
    full: int = 0
    """Of these, how many found no room for one more order."""

    @property
    def pressed(self) -> bool:
        """Whether its limits stand in the way often enough to tell."""
        return self.too_fast or (self.looks >= FULL_LOOKS and self.full >= FULL_SHARE * self.looks)

    @property
    def too_fast(self) -> bool:
        """Whether it is the seller that refuses."""
        return self.orders >= PRESSED_ORDERS and self.refused >= PRESSED_SHARE * self.orders


def unusual_from(spent: Mapping[int, NanoUsd], hour: int) -> NanoUsd | None:
    """What an hour may not reach without being unusual; None while too little is known to say.

    `spent` is what earlier hours cost, as far back as anything is known; an hour that it leaves out cost nothing. It
    is compared with the hours of the last four weeks at this time of the day, one earlier and one later among them.
    """
    known_from = max(min(spent, default=hour), hour - HISTORY_HOURS)
    days = (hour - known_from) // 24
    if days < KNOWN_DAYS:
        return None
    alike = sorted(spent.get(hour - 24 * day + off, 0) for day in range(1, days + 1) for off in (-1, 0, 1))
    usual = alike[ceil(USUAL_SHARE * len(alike)) - 1]
    return max(TIMES_USUAL * usual, LEAST_UNUSUAL)
