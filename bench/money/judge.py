"""Reads both books after a run and says what does not agree. Shares no code with the gateway's ledger.

Ours is the database the gateway left behind, read as plain SQL; theirs is the sandbox's invoice and what it counted;
the callers' is what they were told. Money is nano-dollars.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from bench.money.driver import CALLERS, Answer

EXPECTED = frozenset(
    {
        (200, ""),
        (400, "content_policy_violation"),
        (502, "undeliverable"),
        (503, "no_capacity"),
        (504, "timed_out"),
    }
)
"""What a caller with a valid request may get while sellers fail."""
OPEN = ("reserved", "intent", "accepted")


class Books(Struct, frozen=True, kw_only=True):
    """What the gateway wrote down."""

    cost: Mapping[str, int]
    """Provider account -> what we say we owe it."""
    charge: Mapping[str, int]
    """Call -> what its team owes."""
    assets: Mapping[str, int]
    """Call -> what the pictures kept for it cost."""
    held: Mapping[str, int]
    """Party -> money still set aside."""
    states: Mapping[str, int]
    """State -> how many orders are in it."""
    orders: Mapping[str, int]
    """Provider account -> orders meant for it."""
    tickets: Sequence[str]
    """Every receipt kept, `account/id`, repeated when two orders claim the same."""

    @property
    def unfinished(self) -> int:
        """Orders whose end nobody knows yet."""
        return sum(self.states.get(state, 0) for state in (*OPEN, "suspended"))


class SandboxBooks(Struct, frozen=True, kw_only=True):
    """What the sandbox billed and counted."""

    invoice: Mapping[str, int]
    """Provider account -> what it bills."""
    submissions: Mapping[str, int]
    """Provider account -> orders sent to it, taken or refused."""
    repeats: int
    """Orders sent again under the same attempt, as far as a seller can see that."""
    limit_violations: Mapping[str, int]
    """Provider account -> orders sent beyond a limit the gateway had been told."""


_COST = """
    SELECT party, SUM(amount) FROM entries WHERE book = 'cost' AND kind IN ('settle', 'correction') GROUP BY 1
"""
_CHARGE = """
    SELECT call_id, SUM(amount) FROM entries JOIN attempts ON attempts.id = attempt_id
    WHERE book = 'charge' AND kind IN ('settle', 'correction') GROUP BY 1
"""
_HELD = """
    SELECT book || ' ' || party, SUM(CASE WHEN kind = 'hold' THEN amount ELSE -amount END) FROM entries
    WHERE kind IN ('hold', 'settle', 'release') AND note <> 'overrun' GROUP BY 1
"""
_ASSETS = "SELECT call_id, SUM(cost) FROM assets GROUP BY 1"
_STATES = "SELECT state, COUNT(*) FROM attempts WHERE NOT reservation OR state IN ('reserved', 'suspended') GROUP BY 1"
_ORDERS = "SELECT account, COUNT(*) FROM attempts WHERE NOT reservation GROUP BY 1"
_TICKETS = "SELECT account || '/' || json_extract(ticket, '$.id') FROM attempts WHERE ticket IS NOT NULL"


def read_books(database: Path) -> Books:
    """Add up the gateway's book."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as db:
        return Books(
            cost=dict(db.execute(_COST)),
            charge=dict(db.execute(_CHARGE)),
            assets=dict(db.execute(_ASSETS)),
            held=dict(db.execute(_HELD)),
            states=dict(db.execute(_STATES)),
            orders=dict(db.execute(_ORDERS)),
            tickets=[ticket for (ticket,) in db.execute(_TICKETS)],
        )


def drift(ours: Books, theirs: SandboxBooks) -> Mapping[str, int]:
    """Provider account -> what we say we owe beyond what it bills; zero is the only right answer."""
    accounts = sorted(ours.cost.keys() | theirs.invoice.keys())
    return {account: ours.cost.get(account, 0) - theirs.invoice.get(account, 0) for account in accounts}


def repeated(ours: Books, theirs: SandboxBooks) -> int:
    """Orders sent more than once: by the sandbox's count, by receipts claimed twice, by more orders than attempts."""
    twice = sum(times - 1 for times in Counter(ours.tickets).values())
    surplus = sum(max(0, sent - ours.orders.get(account, 0)) for account, sent in theirs.submissions.items())
    return max(theirs.repeats, twice, surplus)


def objections(ours: Books, answers: Sequence[Answer], kills: int) -> Iterator[str]:
    """What our book and the callers disagree about, and answers nobody should get; one sentence each."""
    for party, held in ours.held.items():
        if held and not ours.unfinished:
            yield f"{party} still has {held} n$ set aside although every order has ended"
    yield from _charges(ours, answers)
    cut = sum(answer.end == "cut" for answer in answers)
    if cut > kills * CALLERS:
        yield f"{cut} connections broke, {kills} kills explain at most {kills * CALLERS}"
    for answer in answers:
        yield from (f"call {answer.call.number}: {fault}" for fault in answer.faults)
        if answer.end == "answered" and (answer.status, answer.code) not in EXPECTED:
            yield f"call {answer.call.number}: status {answer.status} {answer.code}"
        if answer.call.unsafe and answer.status == 200:
            yield f"call {answer.call.number}: drawn although every provider must refuse it"


def _charges(ours: Books, answers: Sequence[Answer]) -> Iterator[str]:
    """A team owes what its callers were told, for pictures that were kept for them, and nothing else."""
    told = {"call" + answer.decision.removeprefix("dec"): answer.nano_usd for answer in answers if answer.status == 200}
    for call, amount in told.items():
        if ours.charge.get(call, 0) != amount:
            yield f"{call} was told {amount} n$, its team owes {ours.charge.get(call, 0)} n$"
    for call in ours.charge.keys() | ours.assets.keys():
        if ours.charge.get(call, 0) != ours.assets.get(call, 0):
            yield f"{call}: {ours.charge.get(call, 0)} n$ for pictures worth {ours.assets.get(call, 0)} n$"
    unasked = [call for call, amount in ours.charge.items() if amount and call not in told]
    unheard = sum(answer.end != "answered" for answer in answers)
    if len(unasked) > unheard:
        yield f"{len(unasked)} calls were charged without an answer, only {unheard} callers did not hear theirs"
