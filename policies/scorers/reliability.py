"""Failure: the probability that no usable answer comes from here, at the caller's price of a failure."""

from __future__ import annotations

from policies.scorers.facts import Facts
from policies.types import Ask, Worth


def score(facts: Facts, ask: Ask, worth: Worth) -> int:
    """Multiply the probability of an error, or of an answer after the deadline, by the worth of a failure."""
    left = ask.arrived + ask.constraints.deadline - facts.now - facts.wait_s
    too_late = facts.forecast.above(facts.expected_s, left)
    return round((facts.error_rate + (1.0 - facts.error_rate) * too_late) * worth.failure)
