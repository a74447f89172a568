"""Failure: what an order that comes to nothing costs the caller."""

from __future__ import annotations

from policies.picture import Seen
from policies.policy import Policy
from policies.types import Worth


def score(seen: Seen, worth: Worth, policy: Policy) -> int:
    """Price an error, which another order may still make good, and an answer after the deadline, which nothing does."""
    if seen.error_rate == 0.0 and seen.too_late == 0.0:
        return 0
    terms = policy.fallback
    error = terms.retry + terms.recurs * worth.failure
    later = worth.late * (seen.late_again - seen.late) if seen.late_again > seen.late else 0.0
    error += later + worth.late_second * seen.expected_s
    return int(seen.error_rate * error + seen.too_late * worth.failure)
