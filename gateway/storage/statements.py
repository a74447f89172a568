"""What is agreed with a provider account about a month."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct


class StatementLine(Struct, frozen=True, kw_only=True):
    """One endpoint of a month. Money is nano-dollars."""

    endpoint: str
    orders: int
    images: int
    cost: int
    """What our ledger says we owe."""
    late: int = 0
    """The part of `cost` that belongs to an earlier month and was posted after that was closed."""
    invoiced: int = 0
    """What the invoice asks for."""


class Statement(Struct, frozen=True, kw_only=True):
    """A month of a provider account: a draft while `closed` is None, else locked."""

    account: str
    month: str
    """2026-11, in UTC."""
    lines: Sequence[StatementLine]
    last_seq: int
    """The last ledger entry it knows of."""
    suspended: int = 0
    """Orders begun by its end whose cost nobody knows yet; none once it is closed."""
    closed: datetime | None = None
    invoice: str = ""
    """SHA-256 of the invoice it was held against."""
    note: str = ""
    """Why a difference was accepted."""

    @property
    def cost(self) -> int:
        """What we owe, in nano-dollars."""
        return sum(line.cost for line in self.lines)

    @property
    def invoiced(self) -> int:
        """What the invoice asks for, in nano-dollars."""
        return sum(line.invoiced for line in self.lines)
