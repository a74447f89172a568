"""Proposals and revisions of prices in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

import msgspec

from gateway.storage.database.sqlite.values import Columns, encode, micros, moment
from gateway.storage.prices import PriceChange, PriceRevision, Proposal, ProposalState

PROPOSAL = "id, at, account, offer, change, state, ended, actor, message"
REVISION = "seq, at, author, source, message, content, changes, prices_before, prices"
_END = "UPDATE price_proposals SET state = ?, ended = ?, actor = ?, message = ? WHERE id = ? AND state = 'open'"
_ADD = """INSERT INTO price_revisions (at, author, source, message, content, changes, prices_before, prices)
    VALUES (?,?,?,?,?,?,?,?)"""
_OPEN = "SELECT id, change FROM price_proposals WHERE account = ? AND state = 'open'"
_PROPOSE = """INSERT INTO price_proposals (at, account, offer, change, state, actor, message)
    VALUES (?,?,?,?,'open','','')"""
_change = msgspec.json.Decoder(PriceChange).decode
_changes = msgspec.json.Decoder(tuple[PriceChange, ...]).decode


def proposal(row: Columns) -> Proposal:
    """From the columns of `PROPOSAL`."""
    fields = dict(zip(Proposal.__struct_fields__, row, strict=True))
    fields |= {"at": moment(fields["at"]), "change": _change(fields["change"])}
    fields["ended"] = None if fields["ended"] is None else moment(fields["ended"])
    return Proposal(**fields)


def revision(row: Columns) -> PriceRevision:
    """From the columns of `REVISION`."""
    fields = dict(zip(PriceRevision.__struct_fields__, row, strict=True))
    return PriceRevision(**fields | {"at": moment(fields["at"]), "changes": _changes(fields["changes"])})


def propose(connection: sqlite3.Connection, account: str, changes: Sequence[PriceChange], at: datetime) -> int:
    """Have an account's open proposals be these changes, inside the writer's transaction; how many are new."""
    standing = {number: _change(change) for number, change in connection.execute(_OPEN, (account,))}
    gone = [number for number, change in standing.items() if change not in changes]
    connection.executemany(_END, [("superseded", micros(at), "", "", number) for number in gone])
    new = [change for change in changes if change not in standing.values()]
    connection.executemany(_PROPOSE, [(micros(at), account, change.offer, encode(change)) for change in new])
    return len(new)


def decide(
    connection: sqlite3.Connection, ids: Sequence[int], state: ProposalState, actor: str, message: str, at: datetime
) -> bool:
    """End open proposals, inside the writer's transaction; False, and nothing is changed, when one is not open."""
    marks = ",".join("?" * len(ids))
    sql = f"SELECT COUNT(*) FROM price_proposals WHERE state = 'open' AND id IN ({marks})"  # noqa: S608 - marks only
    (still_open,) = connection.execute(sql, tuple(ids)).fetchone()
    if still_open != len(ids):
        return False
    connection.executemany(_END, [(state, micros(at), actor, message, each) for each in ids])
    return True


def keep(connection: sqlite3.Connection, row: PriceRevision, applied: Sequence[int]) -> int | None:
    """Keep a revision with the proposals it applies, inside the writer's transaction; None when one is not open."""
    if applied and not decide(connection, applied, "applied", row.author, row.message, row.at):
        return None
    columns = (row.author, row.source, row.message, row.content, encode(row.changes), row.prices_before, row.prices)
    return connection.execute(_ADD, (micros(row.at), *columns)).lastrowid
