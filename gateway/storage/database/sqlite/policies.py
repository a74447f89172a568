"""The history of policies in SQLite."""

from __future__ import annotations

import sqlite3

import msgspec

from gateway.storage.database.sqlite.values import Columns, micros, moment
from gateway.storage.policies import CanaryRow, PolicyEvent, PolicyRevision

REVISION = "seq, at, policy, label, content, digest, meaning, author, source, message, parent"
EVENT = "at, actor, action, revision, detail"
_LAST = "SELECT MAX(seq) FROM policy_revisions WHERE policy = ? AND source <> 'canary'"
_ADD = """INSERT INTO policy_revisions (at, policy, label, content, digest, meaning, author, source, message, parent)
    VALUES (?,?,?,?,?,?,?,?,?,?)"""
CANARY = "id, revision, base, share, teams, started, author, state, ended, reason, report"
_RUNNING = "SELECT 1 FROM canaries WHERE state = 'running'"
_START = "INSERT INTO canaries (revision, base, share, teams, started, author, state) VALUES (?,?,?,?,?,?,?)"
END = "UPDATE canaries SET state = ?, ended = ?, reason = ? WHERE id = ? AND state = ?"
REPORT = "UPDATE canaries SET report = ? WHERE id = ?"
ADD_EVENT = "INSERT INTO policy_events VALUES (?,?,?,?,?)"


def revision(row: Columns) -> PolicyRevision:
    """From the columns of `REVISION`."""
    fields = dict(zip(PolicyRevision.__struct_fields__, row, strict=True))
    fields["at"] = moment(fields["at"])
    return PolicyRevision(**fields)


def event(row: Columns) -> PolicyEvent:
    """From the columns of `EVENT`."""
    at, *rest = row
    return PolicyEvent(**dict(zip(PolicyEvent.__struct_fields__, (moment(at), *rest), strict=True)))


def event_columns(event: PolicyEvent) -> tuple[object, ...]:
    """In the order of `EVENT`."""
    return micros(event.at), event.actor, event.action, event.revision, event.detail


def add(connection: sqlite3.Connection, row: PolicyRevision, expect: int | None) -> int | None:
    """Keep a revision, inside the writer's transaction; None when another than `expect` is the last of its policy."""
    (last,) = connection.execute(_LAST, (row.policy,)).fetchone()
    if expect is not None and expect != last:
        return None
    columns = (row.policy, row.label, row.content, row.digest, row.meaning, row.author, row.source, row.message, last)
    return connection.execute(_ADD, (micros(row.at), *columns)).lastrowid


def canary(row: Columns) -> CanaryRow:
    """From the columns of `CANARY`."""
    fields = dict(zip(CanaryRow.__struct_fields__, row, strict=True))
    fields["teams"] = msgspec.json.decode(fields["teams"], type=tuple[str, ...])
    fields["started"] = moment(fields["started"])
    fields["ended"] = None if fields["ended"] is None else moment(fields["ended"])
    return CanaryRow(**fields)


def start_canary(connection: sqlite3.Connection, row: CanaryRow) -> int | None:
    """Begin a canary, inside the writer's transaction; None while another one runs."""
    if connection.execute(_RUNNING).fetchone():
        return None
    teams = msgspec.json.encode(row.teams).decode()
    columns = (row.revision, row.base, row.share, teams, micros(row.started), row.author, row.state)
    return connection.execute(_START, columns).lastrowid
