"""Slots: what the seconds in an account's slot are worth to the calls that will come meanwhile."""

from __future__ import annotations

from policies.picture import Seen
from policies.policy import Policy
from policies.types import Worth


def score(seen: Seen, worth: Worth, policy: Policy) -> int:  # noqa: ARG001 - every scorer is asked alike
    """Multiply the expected seconds by the bid price of a slot (`policies/scarcity.py`)."""
    return int(seen.slot_price * seen.expected_s)
