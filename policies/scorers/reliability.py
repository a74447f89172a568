"""Failure: what an order that comes to nothing costs the caller."""

from __future__ import annotations

from collections.abc import Callable
from math import floor

from policies.picture import Seen
from policies.policy import Policy
from policies.types import Worth


def scorer(worth: Worth, policy: Policy) -> Callable[[Seen], int]:
    """Price an error, which another order may still make good, and an answer after the deadline, which nothing does."""
    late, second, failure = float(worth.late), float(worth.late_second), float(worth.failure)
    again = policy.fallback.retry + policy.fallback.recurs * failure
    """What an error costs whoever fails."""

    def score(seen: Seen) -> int:
        loss = seen.error_rate * (again + second * seen.expected_s)
        if seen.late_again > seen.late:
            loss = seen.error_rate * (again + (late * (seen.late_again - seen.late) + second * seen.expected_s))
        return floor(loss + seen.too_late * failure if seen.too_late else loss)

    return score
