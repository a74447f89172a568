"""Rate: what one order out of an account's rate is worth to the calls that will come."""

from __future__ import annotations

from policies.picture import Seen
from policies.policy import Policy
from policies.types import Worth


def score(seen: Seen, worth: Worth, policy: Policy) -> int:  # noqa: ARG001 - every scorer is asked alike
    """Return the bid price of an order (`policies/scarcity.py`), the higher the emptier the bucket."""
    return int(seen.order_price)
