"""Lateness: how likely, and by how much, the answer comes after its objective, at the caller's prices of both."""

from __future__ import annotations

from collections.abc import Callable
from math import floor

from policies.picture import Seen
from policies.policy import Policy
from policies.types import Worth


def terms(worth: Worth, policy: Policy) -> tuple[float, float]:
    """Nano-dollars for a late answer, and for each second that it is late or waits in line."""
    return policy.punctuality * worth.late, float(worth.late_second)


def scorer(worth: Worth, policy: Policy) -> Callable[[Seen], int]:
    """Price the probability of a late answer, and its mean seconds late, given what has already passed.

    A second in line counts as a late one even within the objective: waiting has to be paid for by a better price.
    """
    late, second = terms(worth, policy)

    def score(seen: Seen) -> int:
        return floor(late * seen.late + second * (seen.late_s + seen.wait_s))

    return score
