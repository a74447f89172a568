"""What an audit of the books found."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct


class Audit(Struct, frozen=True, kw_only=True):
    """Every broken promise about money, and how much was looked at."""

    faults: Sequence[str]
    """One sentence each; empty when all promises hold."""
    attempts: int
    entries: int
    overruns: int
    """Bills beyond what was held, in either book; they are allowed, and marked."""
    overrun_nano_usd: int
    """How much that cost us, in nano-dollars."""
    large_overruns: int
    """Overruns beyond twice the hold: the forecast of a price is wrong by far."""
