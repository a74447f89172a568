"""The price: what the seller will bill for exactly this order."""

from __future__ import annotations

from policies.scorers.facts import Facts
from policies.types import Ask, Worth


def score(facts: Facts, ask: Ask, worth: Worth) -> int:  # noqa: ARG001 - every scorer is asked alike
    """Return the quote."""
    return facts.quote.amount
