"""Crowding: taking the last room of a capacity costs extra, so that it is left to calls that have no other choice."""

from __future__ import annotations

from collections.abc import Callable
from math import floor

from policies.picture import Seen
from policies.policy import Policy
from policies.types import Worth


def terms(policy: Policy) -> tuple[float, float]:
    """The unused share below which room is scarce, and nano-dollars for the last of it."""
    return 1.0 - policy.crowding.begins, float(policy.crowding.last_slot)


def scorer(worth: Worth, policy: Policy) -> Callable[[Seen], int]:  # noqa: ARG001 - every scorer is made alike
    """Return nothing while there is room, then a straight line up to the price of the last slot."""
    scarce_below, last_slot = terms(policy)

    def score(seen: Seen) -> int:
        if seen.share_left >= scarce_below:
            return 0
        return floor((1.0 - seen.share_left / scarce_below) * last_slot)

    return score
