"""The promises about money, recomputed from the entries alone. Read-only; one sentence per broken promise."""

from __future__ import annotations

import sqlite3

_FACTS = """
    SELECT attempt_id, book,
        SUM(kind = 'hold') AS holds, SUM(CASE WHEN kind = 'hold' THEN amount ELSE 0 END) AS held,
        SUM(kind = 'settle' AND note <> 'overrun') AS settles,
        SUM(CASE WHEN kind = 'settle' AND note <> 'overrun' THEN amount ELSE 0 END) AS settled,
        SUM(kind = 'settle' AND note = 'overrun') AS overruns,
        SUM(CASE WHEN kind = 'settle' AND note = 'overrun' THEN amount ELSE 0 END) AS overrun,
        SUM(kind = 'release') AS releases, SUM(CASE WHEN kind = 'release' THEN amount ELSE 0 END) AS released,
        SUM(CASE WHEN kind = 'correction' THEN amount ELSE 0 END) AS corrected
    FROM entries WHERE attempt_id <> '' GROUP BY attempt_id, book
"""

_ATTEMPTS = f"""
    WITH facts AS ({_FACTS}),
    sides AS (
        SELECT id, state, 'cost' AS book, hold_cost AS hold, cost AS posted FROM attempts
        UNION ALL SELECT id, state, 'charge', hold_charge, charge FROM attempts
    ),
    judged AS (
        SELECT id, sides.book AS book, CASE
            WHEN holds IS NULL THEN 'has no entries'
            WHEN holds <> 1 OR held <> hold THEN 'was not held exactly once for what it says'
            WHEN settles > 1 OR releases > 1 OR overruns > 1 THEN 'was closed more than once'
            WHEN settled > held OR (overrun <> 0 AND settled <> held) THEN 'posted more than held without an overrun'
            WHEN posted <> settled + overrun + corrected THEN 'says it posted something other than its entries'
            WHEN state = 'settled' AND (settles <> 1 OR settled + released <> held) THEN 'is settled but not paid out'
            WHEN state = 'released' AND (settles <> 0 OR releases <> 1 OR released <> held)
                THEN 'is released but not given back'
            WHEN state NOT IN ('settled', 'released') AND settles + releases + overruns <> 0
                THEN 'is ' || state || ' but has closing entries'
        END AS fault
        FROM sides LEFT JOIN facts ON facts.attempt_id = sides.id AND facts.book = sides.book
    )
    SELECT 'attempt ' || id || ' (' || book || ') ' || fault FROM judged WHERE fault IS NOT NULL ORDER BY id LIMIT 100
"""  # noqa: S608 - constants only

_STRAYS = """
    SELECT 'entry ' || seq || ' names attempt ' || attempt_id || ', which does not exist' FROM entries
    WHERE attempt_id <> '' AND attempt_id NOT IN (SELECT id FROM attempts) LIMIT 100
"""

_BALANCES = """
    WITH moves AS (
        SELECT book, party, attempt_id,
            CASE WHEN kind = 'hold' THEN amount
                 WHEN kind = 'release' OR (kind = 'settle' AND note <> 'overrun') THEN -amount ELSE 0 END AS held,
            CASE WHEN kind IN ('settle', 'correction') THEN amount ELSE 0 END AS posted
        FROM entries
    ),
    sums AS (
        SELECT book, party, SUM(held) AS held, SUM(posted) AS posted FROM moves GROUP BY book, party
        UNION ALL
        SELECT 'key', key_id, SUM(held), SUM(posted) FROM moves JOIN attempts ON attempts.id = attempt_id
        WHERE book = 'charge' GROUP BY key_id
    ),
    both_ways AS (
        SELECT book, party, held, posted, 0 AS kept_held, 0 AS kept_posted FROM sums
        UNION ALL SELECT book, party, 0, 0, held, posted FROM balances
    )
    SELECT 'balance of ' || book || ' ' || party || ' is ' || SUM(kept_held) || ' held, ' || SUM(kept_posted)
        || ' posted, its entries say ' || SUM(held) || ' and ' || SUM(posted)
    FROM both_ways GROUP BY book, party
    HAVING SUM(held) <> SUM(kept_held) OR SUM(posted) <> SUM(kept_posted)
    UNION ALL
    SELECT 'balance of ' || book || ' ' || party || ' holds ' || held || ', less than nothing'
    FROM balances WHERE held < 0
"""


def audit(connection: sqlite3.Connection) -> list[str]:
    """Check conservation, at most one close, posted within held, and that states and balances agree with entries."""
    connection.execute("BEGIN")
    try:
        faults = [fault for query in (_ATTEMPTS, _STRAYS, _BALANCES) for (fault,) in connection.execute(query)]
    finally:
        connection.execute("COMMIT")
    return faults
