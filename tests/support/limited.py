"""Budgets and orders in plain numbers, with calendars of their own: what property tests hold the database against."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from gateway.storage.rows import BudgetOf, BudgetRow
from tests.support.books import NOON

BERLIN = ZoneInfo("Europe/Berlin")


def budget(of: BudgetOf, name: str, window: str, limit: int, zone: str = "UTC") -> BudgetRow:
    return BudgetRow(id=f"bud_{of}_{window}", of=of, name=name, limit=limit, window=window, zone=zone, created=NOON)


@dataclass
class Placed:
    """An order as the model sees it."""

    id: str
    at: datetime
    account: str
    user: str
    held: tuple[int, int]
    """Cost and charge."""
    posted: list[int]
    open: bool = True


@dataclass
class Limited:
    """A budget as the model sees it: a day of Berlin, a rolling 24h, a month of UTC, or all time."""

    row: BudgetRow

    @property
    def book(self) -> int:
        return 0 if self.row.of in ("account", "gateway") else 1

    def limit(self, now: datetime) -> int:
        until = self.row.extra_until
        return self.row.limit + (self.row.extra if until is not None and now < until else 0)

    def word(self, order: Placed) -> str | None:
        """Whose window an order counts in; None: it does not count."""
        if self.row.of == "user":
            return order.user
        return None if self.row.of == "account" and order.account != self.row.name else ""

    def counts(self, at: datetime, now: datetime) -> bool:
        """Whether what was set aside at a moment still counts now."""
        if self.row.window == "day":
            return at.astimezone(BERLIN).date() == now.astimezone(BERLIN).date()
        if self.row.window == "24h":
            return now.timestamp() // 3600 - at.timestamp() // 3600 <= 24
        return self.row.window == "total" or (at.year, at.month) == (now.year, now.month)

    def used(self, orders: Iterable[Placed], now: datetime) -> dict[str, tuple[int, int]]:
        """Whose -> what is set aside and spent in the windows that count now."""
        found: dict[str, tuple[int, int]] = {}
        for order in orders:
            word = self.word(order)
            if word is None or not self.counts(order.at, now):
                continue
            held, posted = found.get(word, (0, 0))
            aside = order.held[self.book] if order.open else 0
            found[word] = (held + aside, posted + order.posted[self.book])
        return found

    def fits(self, order: Placed, orders: Iterable[Placed], now: datetime) -> bool:
        """Whether the hard limit lets an order pass."""
        word, amount = self.word(order), order.held[self.book]
        if word is None or not amount:
            return True
        return sum(self.used(orders, now).get(word, (0, 0))) + amount <= self.limit(now)
