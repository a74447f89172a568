"""Slots: what the seconds in an account's slot are worth to the calls that will come meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from math import floor

from policies.picture import Seen
from policies.policy import Policy
from policies.types import Worth


def scorer(worth: Worth, policy: Policy) -> Callable[[Seen], int]:  # noqa: ARG001 - every scorer is made alike
    """Multiply the expected seconds by the bid price of a slot (`policies/scarcity.py`)."""

    def score(seen: Seen) -> int:
        return floor(seen.slot_price * seen.expected_s)

    return score
