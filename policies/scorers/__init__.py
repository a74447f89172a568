"""What serving a part of a call at one offer would cost in all, one aspect a file, each in nano-dollars.

To add a scorer: a module with `score(facts, ask, worth) -> int`, and its line below. The decision shows it by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from policies.scorers import latency, load, price, reliability
from policies.scorers.facts import Facts
from policies.types import Ask, Worth

Scorer: TypeAlias = Callable[[Facts, Ask, Worth], int]

SCORERS: Mapping[str, Scorer] = {
    "price": price.score,
    "latency": latency.score,
    "reliability": reliability.score,
    "load": load.score,
}
