"""Money as integers: a nano-dollar is 1e-9 USD, so that $0.34 an hour over 600 images loses nothing that matters.

Decimal appears only where people type or read; floats never touch money.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import TypeAlias

NanoUsd: TypeAlias = int

USD: NanoUsd = 1_000_000_000


def from_usd(text: str | Decimal) -> NanoUsd:
    """Nano-dollars of a decimal amount of dollars (`"0.0027"` -> 2_700_000); refuses finer than a nano-dollar."""
    nano = Decimal(text) * USD
    if nano != nano.to_integral_value():
        raise ValueError(f"{text} USD is finer than a nano-dollar")
    return int(nano)


def to_usd(amount: NanoUsd) -> str:
    """Exact dollars without trailing zeros (2_831_156 -> `"0.002831156"`); feed it to people and headers."""
    sign, amount = ("-", -amount) if amount < 0 else ("", amount)
    whole, fraction = divmod(amount, USD)
    digits = f"{fraction:09d}".rstrip("0")
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"


def half_even(exact: Fraction) -> NanoUsd:
    """Round once, at posting, to the nearest nano-dollar, ties to even (`round` of a Fraction does just that)."""
    return round(exact)


def ceil(exact: Fraction) -> NanoUsd:
    """Round up: a hold must never be below what can be posted."""
    return -((-exact.numerator) // exact.denominator)
