"""Rate: what one order out of an account's rate is worth to the calls that will come."""

from __future__ import annotations

from collections.abc import Callable
from math import floor

from policies.picture import Seen
from policies.policy import Policy
from policies.types import Worth


def scorer(worth: Worth, policy: Policy) -> Callable[[Seen], int]:  # noqa: ARG001 - every scorer is made alike
    """Return the bid price of an order (`policies/scarcity.py`), the higher the emptier the bucket."""

    def score(seen: Seen) -> int:
        return floor(seen.order_price)

    return score
