"""Crowding: taking the last room of a capacity costs extra, so that it is left to calls that have no other choice."""

from __future__ import annotations

from policies.scorers.facts import Facts
from policies.types import Ask, Worth


def score(facts: Facts, ask: Ask, worth: Worth) -> int:  # noqa: ARG001 - every scorer is asked alike
    """Return nothing while there is room, then a straight line up to the price of the last slot."""
    scarce_below = 1.0 - facts.crowding.begins
    if facts.share_left >= scarce_below:
        return 0
    return round((1.0 - facts.share_left / scarce_below) * facts.crowding.last_slot)
