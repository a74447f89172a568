"""Lateness: the seconds the answer will probably come after its objective, at the caller's price of a late second."""

from __future__ import annotations

from policies.scorers.facts import Facts
from policies.types import Ask, Worth


def score(facts: Facts, ask: Ask, worth: Worth) -> int:
    """Multiply mean seconds late, given what has already passed, by their worth.

    A second in line counts as a late one even within the objective: waiting has to be paid for by a better price.
    """
    slack = ask.arrived + ask.constraints.slo - facts.now - facts.wait_s
    late_s = facts.forecast.lateness(facts.expected_s, slack)
    return round((late_s + facts.wait_s) * worth.late_second)
