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

SCORERS: Mapping[str, Scorer] = {
    "price": price.score,
    "latency": latency.score,
    "reliability": reliability.score,
    "load": load.score,
    "slots": slots.score,
    "rate": rate.score,
    "prepaid": prepaid.score,
    "machine": machine.score,
}
