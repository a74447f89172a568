"""Calls as they were asked for and what became of them, for `policy replay`: from decisions and attempts, no words."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from gateway.storage.activity import RecordedCall, RecordedPart
from gateway.storage.database.sqlite.values import ids_of, micros, moment

_DECISIONS = """
    SELECT call_id, part, at, team, body FROM decisions
    WHERE call_id > ? AND at >= ? ORDER BY call_id, number LIMIT ?
"""
_ATTEMPTS = """
    SELECT call_id, part, state, offer_id, cost, ended, outcome FROM attempts
    WHERE id BETWEEN ? AND ? AND call_id > ? AND call_id <= ? AND reservation = 0 ORDER BY call_id, id
"""


class _Picture(Struct):
    ask: msgspec.Raw


class _Note(Struct):
    """What is read of a decision."""

    reason: str
    picture: _Picture | None = None


class _Outcome(Struct):
    delivered: int = 0


_note = msgspec.json.Decoder(_Note).decode
_outcome = msgspec.json.Decoder(_Outcome).decode


def recorded(
    connection: sqlite3.Connection, after: str, since: datetime, limit: int
) -> tuple[Sequence[RecordedCall], str | None]:
    """Calls after one of them, by id, of which something was decided since a moment; and where to go on, if anywhere.

    `limit` decisions are read at a time; a call whose decisions may go on beyond them is left to the next time.
    """
    connection.execute("BEGIN")
    try:
        rows = connection.execute(_DECISIONS, (after, micros(since), limit)).fetchall()
        more = len(rows) == limit
        if more and rows[0][0] != rows[-1][0]:
            rows = [row for row in rows if row[0] != rows[-1][0]]
        if not rows:
            return (), None
        calls = _calls(rows)
        last = rows[-1][0]
        ids = ids_of(after, "att")[0], ids_of(last, "att")[1]
        _add_attempts(calls, connection.execute(_ATTEMPTS, (*ids, after, last)))
        return tuple(calls.values()), rows[-1][0] if more else None
    finally:
        connection.execute("COMMIT")


def _calls(rows: Sequence[Sequence[Any]]) -> dict[str, RecordedCall]:
    calls: dict[str, RecordedCall] = {}
    for call_id, part, at, team, body in rows:
        note = _note(body)
        if note.reason != "new" or note.picture is None:
            continue
        call = calls.get(call_id)
        if call is None:
            call = calls[call_id] = RecordedCall(call_id=call_id, at=moment(at), team=team)
        if part not in call.parts:
            call.parts[part] = RecordedPart(ask=bytes(note.picture.ask))
    return calls


def _add_attempts(calls: dict[str, RecordedCall], rows: sqlite3.Cursor) -> None:
    for call_id, part, state, offer, cost, ended, outcome in rows:
        call = calls.get(call_id)
        if call is None or part not in call.parts:
            continue
        call.cost += cost
        call.open += state not in {"settled", "released"}
        found = call.parts[part]
        came = _outcome(outcome).delivered if outcome else 0
        if came and ended is not None and not found.delivered:
            found.delivered, found.offer, found.ended = came, offer, moment(ended)
