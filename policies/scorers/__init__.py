"""What serving a part of a call at one offer would cost in all, one aspect a file, each in nano-dollars.

To add a scorer: a module with `score(seen, worth, policy) -> int`, and its line below. The decision shows it by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from policies.picture import Seen
from policies.policy import Policy
from policies.scorers import latency, load, machine, prepaid, price, rate, reliability, slots
from policies.types import Worth

Scorer: TypeAlias = Callable[[Seen, Worth, Policy], int]

ALWAYS: Mapping[str, Scorer] = {
    "price": price.score,
    "latency": latency.score,
    "reliability": reliability.score,
    "load": load.score,
}
SCARCE: Mapping[str, Scorer] = {
    "slots": slots.score,
    "rate": rate.score,
    "prepaid": prepaid.score,
    "machine": machine.score,
}
"""They charge what is scarce, and nothing where nothing is: most offers, most of the time."""
SCORERS: Mapping[str, Scorer] = {**ALWAYS, **SCARCE}

_ALWAYS, _SCARCE = tuple(ALWAYS.values()), tuple(SCARCE.values())
_NONE = (0,) * len(_SCARCE)


def scores(seen: Seen, worth: Worth, policy: Policy) -> tuple[int, ...]:
    """What every scorer says, in the order of `SCORERS`."""
    found = [score(seen, worth, policy) for score in _ALWAYS]
    if seen.slot_price or seen.order_price or seen.premium or seen.machine_s or seen.free_price >= 0.0:
        return *found, *[score(seen, worth, policy) for score in _SCARCE]
    return *found, *_NONE
