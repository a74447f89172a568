"""Orders under way together, in every order of their steps that hypothesis draws, and left at any of them.

Commits are made on the event loop here, at the end of its turn, so the same schedule gives the same interleaving: what
fails once fails again.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Literal, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import BudgetSpent
from gateway.money.ledger import Hold, Ledger
from gateway.storage.database.sqlite import SqliteDatabase
from gateway.storage.rows import Outcome
from tests.support.books import HandClock, new_hold

BUDGET = 3000
WORKERS = 6
"""Fewer than those from which commits are gathered by time."""
End: TypeAlias = Literal["settle", "release", "suspend", "leave"]
WORK = st.tuples(st.integers(0, 2000), st.sampled_from(["settle", "release", "suspend", "leave"]), st.integers(0, 2500))
STEP = st.tuples(st.sampled_from(["go on", "cancel", "turn"]), st.integers(0, WORKERS - 1))


class Worker:
    """One order, which waits before each of its steps until the schedule lets it go on."""

    def __init__(self, ledger: Ledger, amount: int, end: End, charge: int) -> None:
        self.ledger, self.amount, self.end, self.charge = ledger, amount, end, charge
        self.asked = new_hold(amount)
        self.permits = asyncio.Semaphore(0)
        self.refused = self.settling = False

    async def live(self) -> None:
        await self.permits.acquire()
        try:
            (hold,) = await self.ledger.hold([self.asked])
        except BudgetSpent:
            self.refused = True
            return
        async with hold:
            await self.permits.acquire()
            await self.finish(hold)

    async def finish(self, hold: Hold) -> None:
        if self.end == "settle":
            self.settling = True
            await hold.settle(cost=self.charge, charge=self.charge, outcome=Outcome(delivered=1))
        elif self.end == "release":
            await hold.release()
        elif self.end == "suspend":
            await hold.suspend(Outcome(error="timed_out"))


async def played(path: Path, work: list[tuple[int, End, int]], schedule: list[tuple[str, int]]) -> None:
    clock, db = HandClock(), SqliteDatabase(str(path), "process")
    ledger = Ledger(db, "own_1", clock)
    await ledger.beat()
    await db.set_team_budget("acme", BUDGET)
    workers = [Worker(ledger, *each) for each in work]
    tasks = [asyncio.create_task(worker.live()) for worker in workers]
    for what, number in schedule:
        if what == "turn":
            await asyncio.sleep(0)
        elif what == "go on":
            workers[number % len(workers)].permits.release()
        else:
            tasks[number % len(tasks)].cancel()
        assert charged(path) <= beyond(workers)
    for worker in workers:
        worker.permits.release()
        worker.permits.release()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ends), ends
    async with asyncio.timeout(20):
        while await db.open_attempts():
            await asyncio.sleep(0.001)
            await ledger.beat()
    rows = {worker: await db.attempt(worker.asked.attempt_id) for worker in workers}
    for worker, row in rows.items():
        assert row is None or row.state in ("settled", "released", "suspended")
        if worker.settling:
            assert row is not None
            assert (row.state, row.charge) == ("settled", worker.charge)
        assert not (worker.refused and row is not None)
    found = [row for row in rows.values() if row is not None]
    balance = [(row.held, row.posted) for row in await db.balances() if row.book == "charge"]
    suspended = sum(row.hold_charge for row in found if row.state == "suspended")
    assert balance in ([(suspended, sum(row.charge for row in found))], [])
    assert await db.audit() == []
    await db.aclose()


def charged(path: Path) -> int:
    """What is set aside and posted in the charge book, read beside the loop so that no turn of it is spent."""
    with closing(sqlite3.connect(path)) as file:
        (total,) = file.execute("SELECT COALESCE(SUM(held + posted), 0) FROM balances WHERE book = 'charge'").fetchone()
    return int(total)


def beyond(workers: list[Worker]) -> int:
    """The budget, and what bills of orders that were let in went beyond their hold."""
    return BUDGET + sum(max(worker.charge - worker.amount, 0) for worker in workers if worker.settling)


@settings(max_examples=60, deadline=None)
@given(st.lists(WORK, min_size=2, max_size=WORKERS), st.lists(STEP, max_size=40))
def test_however_orders_interleave_and_wherever_they_are_left_nothing_is_lost_or_spent_twice(
    work: list[tuple[int, End, int]], schedule: list[tuple[str, int]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(played(Path(folder) / "books.db", work, schedule))
