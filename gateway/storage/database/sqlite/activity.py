"""One pass over the entries of a period, each beside its order and what was asked for.

A scan, not an index: entries lie in the order of time and a million of them are read in a tenth of a second, while an
index would cost every order on the busiest path.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Hashable, Sequence
from datetime import date, datetime, tzinfo
from hashlib import blake2b
from typing import Any, TypeAlias, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from gateway.storage.activity import Activity, Drawn, Fetched, Open, PostedCost, Source, Spent, SpentHour, SpentHours
from gateway.storage.database.sqlite.values import micros, moment

_POSTED = """
    SELECT at, book, party, kind, note, amount, entries.endpoint, attempts.id, attempts.call_id, part,
        attempts.team, key_id, account, offer_id, attempts.endpoint, width, height, steps, charge, outcome, request
    FROM entries LEFT JOIN attempts ON attempts.id = attempt_id LEFT JOIN recipes USING (call_id)
    WHERE at >= ? AND at < ? AND kind IN ('settle', 'correction') AND (? IS NULL OR (book = 'cost' AND party = ?))
    ORDER BY seq
"""
_COSTS = """
    SELECT seq, at, kind, amount, note, party, COALESCE(attempts.endpoint, entries.endpoint), attempt_id, call_id,
        attempts.team, key_id, offer_id, width, height, started, listed, outcome, request
    FROM entries LEFT JOIN attempts ON attempts.id = attempt_id LEFT JOIN recipes USING (call_id)
    WHERE seq > ? AND book = 'cost' AND kind IN ('settle', 'correction') ORDER BY seq LIMIT ?
"""
_PROMOTED = """SELECT attempt_id, parent_id FROM assets WHERE parent_id IS NOT NULL AND created >= ? AND created < ?"""
_FETCHED = """SELECT team, tier, COUNT(*), COUNT(asset_id), SUM(CASE WHEN asset_id IS NULL THEN cost ELSE 0 END)
    FROM assets LEFT JOIN fetches ON asset_id = id WHERE created >= ? AND created < ? GROUP BY team, tier"""
# The first two conditions are those of the partial index.
_SUSPENDED = """SELECT account, COUNT(*), SUM(hold_cost) FROM attempts
    WHERE state <> 'settled' AND state <> 'released' AND state = 'suspended' GROUP BY account"""

_HOUR = 3_600_000_000
_SPENT_HOURS = f"""
    SELECT at / {_HOUR}, book, party, SUM(amount) FROM entries
    WHERE seq > ? AND seq <= ? AND at >= ? AND kind IN ('settle', 'correction') GROUP BY 1, 2, 3
"""  # noqa: S608 - constants only
_AT_ONCE = 50_000
"""Entries that one look adds up: a few hundredths of a second."""

K = TypeVar("K", bound=Hashable)
Row: TypeAlias = "tuple[Any, ...]"

_QUARTER = 900_000_000
"""Every time zone is a whole number of quarter hours away from UTC."""


class _Recipe(Struct):
    """What is read of a recipe: all that makes a picture another one."""

    model: str = ""
    prompt: str = ""
    width: int = 0
    height: int = 0
    count: int = 1
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    negative_prompt: str | None = None
    loras: list[Any] = []
    transparent: bool = False
    intent: str = ""
    operation: str = "generate"
    tags: dict[str, str] = {}


class _Outcome(Struct):
    delivered: int = 0
    passed_on: int = 0


_recipe = msgspec.json.Decoder(_Recipe).decode
_outcome = msgspec.json.Decoder(_Outcome).decode


def activity(
    connection: sqlite3.Connection, start: datetime, end: datetime, zone: tzinfo, account: str | None
) -> Activity:
    """Gather what was posted from `start` to before `end`, days as `zone` counts them; of one cost book, or of all."""
    connection.execute("BEGIN")
    try:
        return _Gathering(connection, zone).gather(micros(start), micros(end), account)
    finally:
        connection.execute("COMMIT")


def posted_costs(connection: sqlite3.Connection, after_seq: int, limit: int) -> list[PostedCost]:
    """Posted entries of the cost books after one of them, in the order they were written."""
    return [_posted_cost(row) for row in connection.execute(_COSTS, (after_seq, limit))]


def spent_hours(connection: sqlite3.Connection, after_seq: int, since: datetime) -> SpentHours:
    """What was posted in the next entries after one of them, and not before a moment, added up by the hour."""
    (end,) = connection.execute("SELECT COALESCE(MAX(seq), 0) FROM entries").fetchone()
    last = max(min(after_seq + _AT_ONCE, end), after_seq)
    rows = connection.execute(_SPENT_HOURS, (after_seq, last, micros(since)))
    return SpentHours([SpentHour(*row) for row in rows], last)


def _posted_cost(row: Row) -> PostedCost:
    seq, at, kind, amount, note, account, endpoint, attempt_id, call_id, team, key_id, offer_id, *rest = row
    if not attempt_id:
        return PostedCost(
            seq=seq,
            at=moment(at),
            kind=kind,
            amount=amount,
            note=note,
            account=account,
            endpoint=endpoint,
            attempt_id="",
        )
    width, height, started, listed, outcome, request = rest
    bill = kind == "settle" and note != "overrun"
    return PostedCost(
        seq=seq,
        at=moment(at),
        kind=kind,
        amount=amount,
        note=note,
        account=account,
        endpoint=endpoint,
        attempt_id=attempt_id,
        call_id=call_id,
        team=team,
        key_id=key_id,
        offer_id=offer_id,
        width=width,
        height=height,
        delivered=_outcome(outcome).delivered if bill and outcome else 0,
        listed=listed if bill else None,
        started=moment(started),
        tags=_recipe(request).tags if request else {},
    )


class _Gathering:
    """The sums while they grow."""

    def __init__(self, connection: sqlite3.Connection, zone: tzinfo) -> None:
        self._connection = connection
        self._zone = zone
        self._found = Activity()
        self._days: dict[int, date] = {}
        self._repeated: dict[bytes, list[int]] = {}
        self._examples: dict[bytes, str] = {}
        self._asked: _Recipe | None = None
        self._last: tuple[object, tuple[Spent, ...]] = None, ()

    def gather(self, start: int, end: int, account: str | None) -> Activity:
        """Read everything in one snapshot."""
        found, read = self._found, self._connection.execute
        promoted = dict(read(_PROMOTED, (start, end)).fetchall())
        found.promoted_from = len(set(promoted.values()))
        for row in read(_POSTED, (start, end, account, account)):
            self._take(row, promoted)
        if account is None:
            found.fetched = {(team, tier): Fetched(*counts) for team, tier, *counts in read(_FETCHED, (start, end))}
        found.suspended = {name: Open(orders, held) for name, orders, held in read(_SUSPENDED)}
        found.keys = dict(read("SELECT id, name FROM keys"))
        (found.last_seq,) = read("SELECT COALESCE(MAX(seq), 0) FROM entries").fetchone()
        self._count_repeats()
        return found

    def _take(self, row: Row, promoted: Container[str]) -> None:
        at, book, party, kind, note, amount, endpoint, attempt_id, *order = row
        if attempt_id is None:
            source = Source(self._day(at), party if book == "cost" else "", "", endpoint, "", "")
            if book == "charge":
                source = replace(source, team=party)
            views: tuple[Spent, ...] = (_sum(self._found.posted, source), _sum(self._found.tags, ()))
        else:
            views = self._views(self._day(at), attempt_id, order)
        if book == "charge":
            for view in views:
                view.charge += amount
            return
        delivered = 0
        closing = kind == "settle" and note != "overrun"
        if closing:
            delivered, drawn = self._delivered(order, amount, attempt_id in promoted)
            hour = at // _HOUR, order[5]
            self._found.hours[hour] = self._found.hours.get(hour, 0) + drawn
        for view in views:
            view.cost += amount
            view.orders += closing
            view.images += delivered

    def _views(self, day: date, attempt_id: str, order: Sequence[Any]) -> tuple[Spent, ...]:
        """The sums an order's entries belong to; its entries stand together, so the last answer is kept."""
        if self._last[0] == (attempt_id, day):
            return self._last[1]
        _, _, team, key_id, account, offer_id, endpoint, *_, request = order
        self._asked = _recipe(request) if request else None
        tags = tuple(sorted(self._asked.tags.items())) if self._asked and self._asked.tags else ()
        source = Source(day, account, offer_id, endpoint, team, key_id)
        views: tuple[Spent, ...] = (_sum(self._found.posted, source), _sum(self._found.tags, tags))
        self._last = (attempt_id, day), views
        return views

    def _delivered(self, order: Sequence[Any], cost: int, promoted: bool) -> tuple[int, int]:
        """How many pictures an order delivered, and how many it drew, noted among its like."""
        call_id, part, team, _, account, offer_id, _, width, height, steps, charge, outcome, _ = order
        ended = _outcome(outcome) if outcome else _Outcome()
        delivered, drawn = ended.delivered, ended.delivered + ended.passed_on
        posted = Spent(cost, 0, 1, drawn)
        if (delivered and charge) or (ended.passed_on and self._asked is not None):
            operation = self._asked.operation if self._asked else "generate"
            if offer_id.endswith("/remove_background"):  # the second order of a picture that took two
                operation = "remove_background"
            _sum(self._found.drawn, Drawn(offer_id, width, height, drawn, steps, promoted, operation)).add(posted)
            if self._asked is not None and operation == "generate":
                self._note(self._asked, team, part, call_id, cost)
        elif not drawn and cost:
            _sum(self._found.failed, account).add(posted)
        return delivered, drawn

    def _day(self, at: int) -> date:
        day = self._days.get(at // _QUARTER)
        if day is None:
            day = self._days[at // _QUARTER] = moment(at).astimezone(self._zone).date()
        return day

    def _note(self, recipe: _Recipe, team: str, part: int, call_id: str, cost: int) -> None:
        """Remember a drawn order by a digest of what was asked: a month of prompts need not fit into memory."""
        asked = replace(recipe, tags={})
        digest = blake2b(msgspec.json.encode((team, part, asked)), digest_size=16).digest()
        seen = self._repeated.get(digest)
        if seen is None:
            self._repeated[digest] = [1, cost, cost]
            return
        seen[0] += 1
        seen[1] += cost
        seen[2] = max(seen[2], cost)
        self._examples[digest] = call_id

    def _count_repeats(self) -> None:
        repeats = self._found.repeats
        for digest, call_id in self._examples.items():
            times, cost, dearest = self._repeated[digest]
            repeats.distinct += 1
            repeats.orders += times - 1
            repeats.cost += cost - dearest
            if times > repeats.most:
                repeats.most, repeats.example = times, call_id


def _sum(sums: dict[K, Spent], key: K) -> Spent:
    found = sums.get(key)
    if found is None:
        found = sums[key] = Spent()
    return found
