"""Monthly statements in SQLite: reckoned from the entries while open, read back once closed."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from gateway.storage.database.sqlite.values import micros, moment
from gateway.storage.statements import Statement, StatementLine

_LINES = """
    SELECT COALESCE(attempts.endpoint, entries.endpoint) AS place,
        SUM(kind = 'settle' AND note <> 'overrun'),
        SUM(CASE WHEN kind = 'settle' AND note <> 'overrun'
            THEN COALESCE(CAST(outcome AS TEXT) ->> 'delivered', 0) ELSE 0 END),
        SUM(amount), SUM(CASE WHEN at < :start THEN amount ELSE 0 END)
    FROM entries LEFT JOIN attempts ON attempts.id = attempt_id
    WHERE at < :end AND book = 'cost' AND party = :account AND kind IN ('settle', 'correction')
        AND (at >= :start OR seq > :after)
    GROUP BY place ORDER BY place
"""
_AFTER = "SELECT MAX(last_seq) FROM statements WHERE account = ?"
_SUSPENDED = "SELECT COUNT(*) FROM attempts WHERE state = 'suspended' AND account = ? AND started < ?"
_CLOSED = """SELECT account, month, last_seq, closed, invoice, note FROM statements
    WHERE ? IS NULL OR account = ? ORDER BY month, account"""
_CLOSED_LINES = """SELECT endpoint, orders, images, cost, late, invoiced FROM statement_lines
    WHERE account = ? AND month = ? ORDER BY endpoint"""


def draft(connection: sqlite3.Connection, account: str, month: str, start: datetime, end: datetime) -> Statement:
    """What the ledger says about an account from `start` to before `end`, with what was posted too late for a close."""
    connection.execute("BEGIN")
    try:
        (last_seq,) = connection.execute("SELECT COALESCE(MAX(seq), 0) FROM entries").fetchone()
        (after,) = connection.execute(_AFTER, (account,)).fetchone()
        (suspended,) = connection.execute(_SUSPENDED, (account, micros(end))).fetchone()
        terms = {"account": account, "start": micros(start), "end": micros(end), "after": last_seq}
        if after is not None:
            terms["after"] = after
        lines = [
            StatementLine(endpoint=endpoint, orders=orders, images=images, cost=cost, late=late)
            for endpoint, orders, images, cost, late in connection.execute(_LINES, terms)
        ]
    finally:
        connection.execute("COMMIT")
    return Statement(account=account, month=month, lines=lines, last_seq=last_seq, suspended=suspended)


def closed(connection: sqlite3.Connection, account: str | None) -> list[Statement]:
    """The closed statements, of one account or of all, oldest first."""
    return [
        Statement(
            account=name,
            month=month,
            last_seq=last_seq,
            closed=moment(at),
            invoice=invoice,
            note=note,
            lines=[
                StatementLine(endpoint=endpoint, orders=orders, images=images, cost=cost, late=late, invoiced=invoiced)
                for endpoint, orders, images, cost, late, invoiced in connection.execute(_CLOSED_LINES, (name, month))
            ],
        )
        for name, month, last_seq, at, invoice, note in connection.execute(_CLOSED, (account, account)).fetchall()
    ]


def close(connection: sqlite3.Connection, statement: Statement) -> bool:
    """Write a statement and its lines, inside the writer's transaction; False when its month is locked already."""
    key = (statement.account, statement.month)
    if connection.execute("SELECT 1 FROM statements WHERE account = ? AND month = ?", key).fetchone():
        return False
    assert statement.closed is not None, "a statement is closed at a time"
    connection.executemany(
        "INSERT INTO statement_lines VALUES (?,?,?,?,?,?,?,?)",
        [
            (*key, line.endpoint, line.orders, line.images, line.cost, line.late, line.invoiced)
            for line in statement.lines
        ],
    )
    row = (*key, micros(statement.closed), statement.last_seq, statement.invoice, statement.note)
    connection.execute("INSERT INTO statements VALUES (?,?,?,?,?,?)", row)
    return True
