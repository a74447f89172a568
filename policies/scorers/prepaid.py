"""Prepaid: what is already paid for, or given, and will not last, is worth more than its price to those who come."""

from __future__ import annotations

from collections.abc import Callable
from math import floor

from policies.picture import Seen
from policies.policy import Policy
from policies.types import Worth


def scorer(worth: Worth, policy: Policy) -> Callable[[Seen], int]:  # noqa: ARG001 - every scorer is made alike
    """Price the free pictures an order uses up, else the scarcity of the credit it is paid from."""

    def score(seen: Seen) -> int:
        if seen.free_price >= 0.0:
            return floor(seen.free_price)
        return floor(seen.quote.amount * seen.bias * seen.premium) if seen.premium else 0

    return score
