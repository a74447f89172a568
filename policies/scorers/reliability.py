"""Failure: what an order that comes to nothing costs the caller."""

from __future__ import annotations

from collections.abc import Callable

from policies.picture import Seen
from policies.policy import Policy
from policies.types import Worth


def scorer(worth: Worth, policy: Policy) -> Callable[[Seen], int]:
    """Price an error, which another order may still make good, and an answer after the deadline, which nothing does."""
    late, second, failure = worth.late, worth.late_second, worth.failure
    again = policy.fallback.retry + policy.fallback.recurs * failure
    """What an error costs whoever fails."""

    def score(seen: Seen) -> int:
        later = late * (seen.late_again - seen.late) if seen.late_again > seen.late else 0.0
        return int(seen.error_rate * (again + (later + second * seen.expected_s)) + seen.too_late * failure)

    return score
