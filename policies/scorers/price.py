"""The price: what the seller will bill for exactly this order; of our own machines, what it adds to their cost."""

from __future__ import annotations

from collections.abc import Callable

from policies.picture import Seen
from policies.policy import Policy
from policies.types import Worth


def scorer(worth: Worth, policy: Policy) -> Callable[[Seen], int]:  # noqa: ARG001 - every scorer is made alike
    """Return the share of the quote that counts, corrected by what invoices show; nothing for a free picture."""

    def score(seen: Seen) -> int:
        if seen.free_price >= 0.0:
            return 0
        if seen.bias == 1.0 and seen.counted == 1.0:
            return seen.quote.amount
        return round(seen.quote.amount * seen.bias * seen.counted)

    return score
