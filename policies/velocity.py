"""When a key spends so fast that it is probably not its holder who spends; what it spent is given.

The rule is one sentence, so that whoever is woken by it can check it: a key is braked in an hour that costs at least
`factor` times its usual hour, and at least `floor`. Its usual hour is the median of those hours of the last seven days
in which it spent anything; while there are fewer than `hours` of them, nothing is usual and nothing is braked. It is a
median, for half of those hours would have to be a thief's before it moved far. Money is nano-dollars, hours are
numbered from 1970 in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median_low

from msgspec import Struct

from policies.money import USD, NanoUsd

HISTORY_HOURS = 7 * 24
"""How far back an hour is compared."""


class Brake(Struct, frozen=True, kw_only=True):
    """The terms of the rule."""

    factor: float = 10.0
    """How many times its usual hour a key may spend in one."""
    floor: NanoUsd = 25 * USD
    """What it may spend in an hour in any case."""
    hours: int = 24
    """Hours in which it must have spent anything before one of them is usual."""


def usual_hour(spent: Mapping[int, NanoUsd], hour: int, terms: Brake) -> NanoUsd | None:
    """What an hour in which a key spends usually costs; None while too little is known.

    `spent` is what hours cost, as far back as is known; an hour that it leaves out cost nothing.
    """
    before = [cost for at, cost in spent.items() if hour - HISTORY_HOURS <= at < hour and cost > 0]
    return median_low(before) if len(before) >= terms.hours else None


def braked_from(usual: NanoUsd, terms: Brake) -> NanoUsd:
    """What an hour may not reach without the key being braked."""
    return max(round(terms.factor * usual), terms.floor)
