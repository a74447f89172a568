"""The promises about money, recomputed from the entries alone. Read-only; one sentence per broken promise.

Entries are folded by order in SQL, and merged with the orders by id: each is read once, in the order of the ids, so a
million entries take a few seconds and little memory.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeAlias

from gateway.storage.audit import Audit

Row: TypeAlias = "tuple[Any, ...]"
BOOKS = ("cost", "charge")
Sums: TypeAlias = "defaultdict[tuple[str, str], list[int]]"
"""(book, party) -> held and posted, as the entries say."""

MOST = 100
"""Faults of one kind that are told; more would be the same story."""

_HELD, _RELEASED, _SETTLED, _OVERRUN = 1, 1 << 8, 1 << 16, 1 << 24
"""How often each kind of entry occurs, counted in one number: a sum less for each of a million rows."""

_FACTS = f"""
    SELECT attempt_id, book, party,
        SUM(CASE kind WHEN 'hold' THEN {_HELD} WHEN 'release' THEN {_RELEASED}
            WHEN 'settle' THEN CASE note WHEN 'overrun' THEN {_OVERRUN} ELSE {_SETTLED} END ELSE 0 END),
        SUM(CASE kind WHEN 'hold' THEN amount ELSE 0 END),
        SUM(CASE kind WHEN 'release' THEN amount ELSE 0 END),
        SUM(CASE kind WHEN 'settle' THEN amount ELSE 0 END),
        SUM(CASE note WHEN 'overrun' THEN amount ELSE 0 END),
        SUM(CASE kind WHEN 'correction' THEN amount ELSE 0 END)
    FROM entries WHERE attempt_id <> '' GROUP BY attempt_id, book, party
"""  # noqa: S608 - constants only
_ATTEMPTS = """
    SELECT id, state, account, team, key_id, hold_cost, hold_charge, cost, charge,
        CASE WHEN charge > 0 THEN CAST(outcome AS TEXT) ->> 'error' END
    FROM attempts ORDER BY id
"""
_WITHOUT = """
    SELECT book, party, SUM(amount) FROM entries WHERE attempt_id = '' AND kind = 'correction' GROUP BY book, party
"""
_COUNTED = """
    SELECT 'budget ' || book, value,
        SUM(CASE WHEN state IN ('settled', 'released') THEN 0 WHEN book = 'cost' THEN hold_cost ELSE hold_charge END),
        SUM(CASE book WHEN 'cost' THEN cost ELSE charge END)
    FROM (SELECT 'cost' AS book UNION ALL SELECT 'charge') CROSS JOIN attempts
        CROSS JOIN json_each(CAST(budgets AS TEXT), '$.' || book)
    WHERE budgets IS NOT NULL GROUP BY book, value
"""
_MISCOUNTED = """
    SELECT 'the invoice of ' || account || ' has counted ' || SUM(counted) || ' ' || counter
        || ', its orders say ' || SUM(moved)
    FROM (
        SELECT account, counter, value AS counted, 0 AS moved FROM billing_counters
        UNION ALL
        SELECT account, key, 0, value FROM billing_moves CROSS JOIN json_each(CAST(moves AS TEXT))
    )
    GROUP BY account, counter HAVING SUM(counted) <> SUM(moved)
"""
_BALANCES = "SELECT book, party, held, posted FROM balances ORDER BY book, party"
_GAPS = """
    SELECT 'entries are missing: the last is number ' || MAX(seq) || ', but there are ' || COUNT(*)
    FROM entries HAVING MAX(seq) <> COUNT(*)
"""
_UNGUARDED = """
    SELECT 'the guard ' || name || ' is gone: entries can be changed unseen'
    FROM (SELECT 'entries_are_never_edited' AS name UNION ALL SELECT 'entries_are_never_deleted')
    WHERE name NOT IN (SELECT name FROM sqlite_master WHERE type = 'trigger')
"""
_TWICE = """
    SELECT 'receipt ' || receipt || ' of ' || account || ' was posted for ' || COUNT(*) || ' orders, ' || MIN(id)
        || ' and ' || MAX(id) || ' among them'
    FROM (
        SELECT id, account, CAST(ticket AS TEXT) ->> 'id' AS receipt FROM attempts
        WHERE state = 'settled' AND cost > 0 AND ticket IS NOT NULL
    ) GROUP BY account, receipt HAVING COUNT(*) > 1
"""
_UNPAID = """
    SELECT 'picture ' || assets.id || ' is kept, but its order ' || attempt_id || ' is ' || state
    FROM assets JOIN attempts ON attempts.id = attempt_id WHERE state <> 'settled'
"""
_GIVEN_AWAY = """
    SELECT 'attempt ' || id || ' delivered ' || (CAST(outcome AS TEXT) ->> 'delivered')
        || ' pictures, and its money was given back'
    FROM attempts WHERE state = 'released' AND CAST(outcome AS TEXT) ->> 'delivered' > 0
"""
_NOT_FREE = """
    SELECT 'attempt ' || id || ' was never accepted (' || error || '), but ' || account || ' was paid ' || cost
    FROM (
        SELECT id, account, cost, CAST(outcome AS TEXT) ->> 'error' AS error FROM attempts
        WHERE state = 'settled' AND cost > 0 AND instr(CAST(outcome AS TEXT), '"error":"') > 0
    ) WHERE error IN ('overloaded', 'unavailable', 'unsupported', 'retired', 'misconfigured')
"""
_OVERSPENT = """
    WITH highest AS (
        SELECT name AS of_key, MAX(detail ->> '$.budget.from') AS amount,
            MAX(detail ->> '$.budget.from' IS NULL) AS unlimited
        FROM (SELECT name, CAST(detail AS TEXT) AS detail FROM changes WHERE action <> 'created')
        WHERE detail ->> '$.budget.to' IS NOT NULL GROUP BY name
    ), overruns AS (
        SELECT key_id, SUM(amount) AS beyond FROM entries JOIN attempts ON attempts.id = attempt_id
        WHERE book = 'charge' AND (kind = 'correction' OR note = 'overrun') AND amount > 0 GROUP BY key_id
    )
    SELECT 'key ' || id || ' has spent ' || (held + posted) || ' of a budget of ' || budget
        || ', and its overruns explain only ' || COALESCE(beyond, 0)
    FROM keys JOIN balances ON book = 'key' AND party = id LEFT JOIN overruns ON key_id = id
        LEFT JOIN highest ON of_key = id
    WHERE budget IS NOT NULL AND COALESCE(unlimited, 0) = 0
        AND held + posted > MAX(budget, COALESCE(amount, 0)) + COALESCE(beyond, 0)
"""


def audit(connection: sqlite3.Connection) -> Audit:
    """Check every promise in one snapshot."""
    connection.execute("BEGIN")
    try:
        return _Auditing(connection).audit()
    finally:
        connection.execute("COMMIT")


class _Auditing:
    """What is counted while the books are read."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._sums: Sums = defaultdict(lambda: [0, 0])
        self._attempts = 0
        self._overruns = [0, 0, 0]

    def audit(self) -> Audit:
        """Everything that is wrong, and what was looked at."""
        faults = list(islice(self._of_attempts(), MOST))
        faults += self._of_balances()
        queries = (_GAPS, _UNGUARDED, _TWICE, _UNPAID, _GIVEN_AWAY, _NOT_FREE, _OVERSPENT, _MISCOUNTED)
        for query in queries:
            faults += [fault for (fault,) in islice(self._connection.execute(query), MOST)]
        (entries,) = self._connection.execute("SELECT COUNT(*) FROM entries").fetchone()
        overruns, beyond, large = self._overruns
        return Audit(
            faults=faults,
            attempts=self._attempts,
            entries=entries,
            overruns=overruns,
            overrun_nano_usd=beyond,
            large_overruns=large,
        )

    def _of_attempts(self) -> Iterator[str]:
        """Hold orders against their entries; both come in the order of their ids."""
        facts = self._connection.execute(_FACTS)
        fact = next(facts, None)
        for attempt in self._connection.execute(_ATTEMPTS):
            name, state, account, team, key_id, hold_cost, hold_charge, cost, charge, error = attempt
            self._attempts += 1
            if error is not None:
                yield f"attempt {name} failed ({error}), but its team was charged {charge}"
            seen = 0
            while fact is not None and fact[0] <= name:
                if fact[0] < name:
                    yield self._stray(fact)
                else:
                    seen += 1
                    is_cost = fact[1] == "cost"
                    hold, posted, party = (hold_cost, cost, account) if is_cost else (hold_charge, charge, team)
                    self._move(fact, hold, None if is_cost else key_id)
                    if (fault := _fault(state, party, hold, posted, fact)) is not None:
                        yield f"attempt {name} ({fact[1]}) {fault}"
                fact = next(facts, None)
            if seen != len(BOOKS):
                yield f"attempt {name} has entries in {seen} books, not in {len(BOOKS)}"
        while fact is not None:
            yield self._stray(fact)
            fact = next(facts, None)

    def _stray(self, fact: Row) -> str:
        self._move(fact, fact[4], None)
        return f"entries name attempt {fact[0]}, which does not exist"

    def _move(self, fact: Row, hold: int, key_id: str | None) -> None:
        """Add what an order's entries did to the balances."""
        _, book, party, _, held, released, settled, overrun, corrected = fact
        change, posted = held - released - settled + overrun, settled + corrected
        balance = self._sums[book, party]
        balance[0] += change
        balance[1] += posted
        if key_id is not None:
            balance = self._sums["key", key_id]
            balance[0] += change
            balance[1] += posted
        if overrun:
            self._overruns[0] += 1
            self._overruns[1] += overrun if book == "cost" else 0
            self._overruns[2] += overrun > 2 * hold

    def _of_balances(self) -> Iterator[str]:
        for book, party, amount in self._connection.execute(_WITHOUT):
            self._sums[book, party][1] += amount
        for book, party, held, posted in self._connection.execute(_COUNTED):
            self._sums[book, party] = [held, posted]
        kept = {(book, party): (held, posted) for book, party, held, posted in self._connection.execute(_BALANCES)}
        for account in sorted(kept.keys() | self._sums.keys()):
            said, is_so = kept.get(account, (0, 0)), tuple(self._sums[account])
            if said != is_so:
                yield (
                    f"balance of {' '.join(account)} is {said[0]} held, {said[1]} posted, "
                    f"its entries say {is_so[0]} and {is_so[1]}"
                )
            if said[0] < 0:
                yield f"balance of {' '.join(account)} holds {said[0]}, less than nothing"


def _fault(state: str, party: str, hold: int, posted: int, fact: Row) -> str | None:  # noqa: PLR0911 - one return for each promise
    """The first promise that one book of an order breaks."""
    _, _, of, counts, held, released, settled, overrun, corrected = fact
    paid, closed = settled - overrun, counts - _HELD
    if of != party:
        return f"is of {party}, but has entries of {of}"
    if counts & 0xFF != 1 or held != hold:
        return "was not held exactly once for what it says"
    if closed & ~(_RELEASED | _SETTLED | _OVERRUN):
        return "was closed more than once"
    if paid > held or (overrun and paid != held):
        return "posted more than held without an overrun"
    if posted != settled + corrected:
        return "says it posted something other than its entries"
    if state == "settled":
        return None if counts & _SETTLED and paid + released == held else "is settled but not paid out"
    if state == "released":
        return None if closed == _RELEASED and released == held else "is released but not given back"
    return f"is {state} but has closing entries" if closed else None
