"""What accounts' invoices have counted, inside the writer's transaction.

Terms and counters are kept in memory as long as nobody else writes the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import datetime

import msgspec

from gateway.storage.database import Closing
from gateway.storage.database.sqlite.values import encode, micros
from policies.billing import Billable, Billed, Billing, mend, settle

_COUNTER = """INSERT INTO billing_counters VALUES (?,?,?) ON CONFLICT DO UPDATE SET value = excluded.value"""
_MOVE = "INSERT INTO billing_moves (account, attempt_id, at, moves) VALUES (?,?,?,?)"
_decode = msgspec.json.Decoder(Billing).decode


class Invoices:
    """The accounts whose invoices are more than their list prices."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._executemany = connection.executemany
        self._terms: Mapping[str, Billing] | None = None
        self._counters: dict[tuple[str, str], int] = {}
        self._touched: set[tuple[str, str]] = set()
        self._moves: list[tuple[object, ...]] = []

    def forget(self) -> None:
        """Read everything anew, and let go of what waits to be written."""
        self._terms = None
        self._counters.clear()
        self._touched.clear()
        self._moves.clear()

    def flush(self) -> None:
        """Write what was counted."""
        if self._moves:
            self._executemany(_MOVE, self._moves)
            self._executemany(_COUNTER, [(*name, self._counters[name]) for name in self._touched])
            self._moves.clear()
            self._touched.clear()

    def set_terms(self, terms: Mapping[str, Billing]) -> None:
        """Put what all accounts' billing says in place of what it said; what was counted stays."""
        self._execute("DELETE FROM billing_terms")
        rows = [(account, encode(billing)) for account, billing in terms.items()]
        self._executemany("INSERT INTO billing_terms VALUES (?,?)", rows)
        self._terms = None

    def bill(self, account: str, offer_id: str, closing: Closing) -> Billed | None:
        """What an order costs that is about to be settled; None where its list price is what it costs."""
        billing = self._of(account)
        if billing is None or closing.state != "settled":
            return None
        order = Billable(
            listed=closing.cost if closing.listed is None else closing.listed,
            pictures=closing.pictures,
            at=closing.at,
            model=offer_id.partition(":")[2].partition("/")[0],
            told=None if closing.listed is None else closing.cost,
        )
        return settle(billing, lambda name: self._counter((account, name)), order)

    def mend(self, account: str, amount: int, at: datetime) -> Mapping[str, int]:
        """How a correction of an account's costs moves its counters."""
        billing = self._of(account)
        return {} if billing is None else mend(billing, lambda name: self._counter((account, name)), amount, at)

    def apply(self, account: str, attempt_id: str, at: datetime, moves: Mapping[str, int]) -> None:
        """Move counters; the last step of a command."""
        if not moves:
            return
        for name, amount in moves.items():
            key = account, name
            self._counters[key] = self._counter(key) + amount
            self._touched.add(key)
        self._moves.append((account, attempt_id, micros(at), encode(moves)))

    def _of(self, account: str) -> Billing | None:
        if self._terms is None:
            rows = self._execute("SELECT account, terms FROM billing_terms")
            self._terms = {name: _decode(terms) for name, terms in rows}
        return self._terms.get(account)

    def _counter(self, key: tuple[str, str]) -> int:
        if key not in self._counters:
            row = self._execute("SELECT value FROM billing_counters WHERE account = ? AND counter = ?", key).fetchone()
            self._counters[key] = row[0] if row else 0
        return self._counters[key]
