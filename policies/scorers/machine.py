"""Machines: seconds of a GPU of our own, at what they would save if other calls had them."""

from __future__ import annotations

from policies.picture import Seen
from policies.policy import Policy
from policies.types import Worth


def score(seen: Seen, worth: Worth, policy: Policy) -> int:  # noqa: ARG001 - every scorer is asked alike
    """Multiply the seconds by the bid price of a machine (`policies/pool.py`)."""
    return int(seen.machine_price * seen.machine_s)
