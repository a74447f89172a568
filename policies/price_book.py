"""Prices in time: which tariff of an offer is in force at a moment, and when that changes next.

Sellers announce changes (fal: 30 days ahead), and contracts keep a price for a while. A book is the rows of one offer
in their order, without overlap; where no row holds, the offer is not for sale, for unknown is not zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from policies.tariffs import Tariff

LONG_AGO = datetime.min.replace(tzinfo=UTC)
"""Before every announced change."""


class PriceRow(Struct, frozen=True, kw_only=True):
    """A tariff, and when it is in force."""

    tariff: Tariff
    since: datetime | None = None
    """Its first moment; None: as long as anyone remembers."""
    until: datetime | None = None
    """The first moment at which it is over; None: until further notice."""
    source: str = ""
    """Where it was read."""
    checked_on: str = ""
    confirmed: bool = False
    """Whether somebody looked at how far it is from the one before it."""

    def holds(self, at: datetime) -> bool:
        """Whether it is in force at a moment."""
        return (self.since is None or self.since <= at) and (self.until is None or at < self.until)


Book: TypeAlias = tuple[PriceRow, ...]


def in_force(book: Book, at: datetime) -> PriceRow | None:
    """The row that holds at a moment, if any does."""
    return next((row for row in book if row.holds(at)), None)


def next_change(book: Book, at: datetime) -> datetime | None:
    """When another row, or none, will hold; None: not as far as anyone said."""
    return min((edge for edge in _edges(book) if edge > at), default=None)


def under_contract(listed: Book, agreed: Book) -> Book:
    """The list's rows, with the agreed ones in their place for as long as these hold."""
    edges = sorted({*_edges(listed), *_edges(agreed)})
    rows: list[PriceRow] = []
    last: PriceRow | None = None
    for since, until in zip((None, *edges), (*edges, None), strict=True):
        moment = LONG_AGO if since is None else since
        row = in_force(agreed, moment) or in_force(listed, moment)
        if row is not None and row is last:
            rows[-1] = replace(rows[-1], until=until)
        elif row is not None:
            rows.append(replace(row, since=since, until=until))
        last = row
    return tuple(rows)


def misplaced(book: Book) -> Iterator[tuple[int, str]]:
    """Rows, by their place, that end before they begin or overlap the row before."""
    for at, row in enumerate(book):
        if row.since and row.until and row.until <= row.since:
            yield at, f"ends {_day(row.until)}, before it begins {_day(row.since)}"
    for at, (before, row) in enumerate(pairwise(book), start=1):
        if row.since is not None and before.since is not None and row.since <= before.since:
            yield at, f"begins {_day(row.since)}, which is not after the row before it"
        elif before.until is None or (row.since is not None and row.since < before.until):
            yield at, f"begins while the row before it is still in force (until {_day(before.until)})"


def _edges(book: Book) -> Iterator[datetime]:
    return (edge for row in book for edge in (row.since, row.until) if edge is not None)


def _day(at: datetime | None) -> str:
    return "further notice" if at is None else at.isoformat(timespec="minutes").replace("+00:00", "Z")
