"""Machines: seconds of a GPU of our own, at what they would save if other calls had them."""

from __future__ import annotations

from collections.abc import Callable
from math import floor

from policies.picture import Seen
from policies.policy import Policy
from policies.types import Worth


def scorer(worth: Worth, policy: Policy) -> Callable[[Seen], int]:  # noqa: ARG001 - every scorer is made alike
    """Multiply the seconds by the bid price of a machine (`policies/pool.py`)."""

    def score(seen: Seen) -> int:
        return floor(seen.machine_price * seen.machine_s)

    return score
