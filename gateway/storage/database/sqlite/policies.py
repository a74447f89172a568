"""The history of policies in SQLite."""

from __future__ import annotations

import sqlite3

from gateway.storage.database.sqlite.values import Columns, micros, moment
from gateway.storage.policies import PolicyEvent, PolicyRevision

REVISION = "seq, at, policy, label, content, digest, meaning, author, source, message, parent"
EVENT = "at, actor, action, revision, detail"
_LAST = "SELECT MAX(seq) FROM policy_revisions WHERE policy = ? AND source <> 'canary'"
_ADD = """INSERT INTO policy_revisions (at, policy, label, content, digest, meaning, author, source, message, parent)
    VALUES (?,?,?,?,?,?,?,?,?,?)"""
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
