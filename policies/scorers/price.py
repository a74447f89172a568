"""The price: what the seller will bill for exactly this order; of our own machines, what it adds to their cost."""

from __future__ import annotations

from policies.scorers.facts import Facts
from policies.types import Ask, Worth


def score(facts: Facts, ask: Ask, worth: Worth) -> int:  # noqa: ARG001 - every scorer is asked alike
    """Return the quote, or the share of it that counts (`Offer.counted`)."""
    return round(facts.quote.amount * facts.offer.counted)
