from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from gateway.errors import BudgetSpent
from gateway.money.ledger import Hold, Ledger, _alive
from gateway.storage.database import AlreadyClosed, Heartbeat, TakenOver
from gateway.storage.database.sqlite import SqliteDatabase
from gateway.storage.rows import KeyRow, Outcome
from providers.contract import Ticket
from tests.support.books import NOON, HandClock, asset, new_hold

DELIVERED = Outcome(delivered=1)
LOST = Outcome(error="outcome_unknown")


async def budget(db: SqliteDatabase, limit: int) -> None:
    key = KeyRow(
        id="key_1",
        hash=b"",
        team="acme",
        name="",
        scopes=(),
        models=None,
        budget=limit,
        rpm=None,
        created=NOON,
        expires=None,
        revoked=None,
    )
    await db.add_key(key)


async def state(db: SqliteDatabase, hold: Hold) -> str:
    row = await db.attempt(hold.attempt_id)
    assert row is not None
    return row.state


def disk_full(db: SqliteDatabase, full: bool) -> None:
    (pages,) = db._connection.execute("PRAGMA page_count").fetchone()
    db._connection.execute(f"PRAGMA max_page_count = {pages if full else 1_000_000}")


async def test_a_hold_is_accepted_settled_and_then_over(db: SqliteDatabase, ledger: Ledger) -> None:
    (hold,) = await ledger.hold([new_hold(1000)])
    await hold.accept(Ticket("fal-1"))
    assert await state(db, hold) == "accepted"
    assert await hold.settle(cost=700, charge=900, outcome=DELIVERED, assets=[asset(hold.attempt_id)])
    assert hold.closed
    with pytest.raises(AlreadyClosed):
        await hold.release()
    with pytest.raises(AlreadyClosed):
        await hold.accept(Ticket("fal-1"))


async def test_leaving_a_hold_open_suspends_an_order_and_gives_back_a_reservation(
    db: SqliteDatabase, ledger: Ledger
) -> None:
    order, reservation = await ledger.hold([new_hold(10), new_hold(10, reserve=True)])
    async with order, reservation:
        pass
    assert (await state(db, order), await state(db, reservation)) == ("suspended", "released")


async def test_a_refused_hold_leaves_nothing_behind(db: SqliteDatabase, ledger: Ledger) -> None:
    await budget(db, 100)
    with pytest.raises(BudgetSpent):
        await ledger.hold([new_hold(60), new_hold(60)])
    assert await db.entries() == []
    assert await ledger.orphans() == ()


async def test_the_budget_mirror_follows_holds_before_the_next_look(db: SqliteDatabase, ledger: Ledger) -> None:
    await budget(db, 1000)
    await db.set_team_budget("acme", 900)
    assert ledger.budget_left("key_1", "acme") is None
    await ledger.beat()
    assert ledger.budget_left("key_1", "acme") == 900
    assert ledger.budget_left("key_1", "others") == 1000
    (reserved,) = await ledger.hold([new_hold(300, reserve=True)])
    (hold,) = await ledger.hold([new_hold(400, replaces=reserved.attempt_id)])
    assert reserved.closed
    assert ledger.budget_left("key_1", "acme") == 500
    await hold.settle(cost=400, charge=100, outcome=DELIVERED)
    assert ledger.budget_left("key_1", "acme") == 800
    await ledger.beat()
    assert ledger.budget_left("key_1", "acme") == 800


async def test_a_caller_who_leaves_during_the_commit_leaves_no_money_aside(db: SqliteDatabase, ledger: Ledger) -> None:
    task = asyncio.create_task(ledger.hold([new_hold(1000)]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ledger.stop()
    assert [row.held for row in await db.balances()] == [0, 0]
    assert await db.open_attempts() == []


async def test_a_settlement_whose_caller_leaves_still_stands(db: SqliteDatabase, ledger: Ledger) -> None:
    (hold,) = await ledger.hold([new_hold(1000)])
    task = asyncio.create_task(hold.settle(cost=700, charge=700, outcome=DELIVERED))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ledger.beat()
    assert ledger.late == 0
    assert await state(db, hold) == "settled"


async def test_an_end_the_full_disk_refused_is_written_later(db: SqliteDatabase, ledger: Ledger) -> None:
    holds = await ledger.hold([new_hold(1000) for _ in range(60)])
    disk_full(db, full=True)
    answers = [
        await hold.settle(cost=1000, charge=1000, outcome=Outcome(detail="d" * 400), assets=[asset(hold.attempt_id)])
        for hold in holds
    ]
    assert not all(answers)
    assert await ledger.orphans() == ()
    disk_full(db, full=False)
    await ledger.beat()
    assert ledger.late == 0
    assert {await state(db, hold) for hold in holds} == {"settled"}
    assert [(row.held, row.posted) for row in await db.balances()] == [(0, 60_000), (0, 60_000)]


async def test_the_holds_of_a_dead_owner_are_taken_over_once_its_heartbeat_is_old(
    db: SqliteDatabase, ledger: Ledger, clock: HandClock
) -> None:
    (lost,) = await ledger.hold([new_hold(1000)])
    await lost.accept(Ticket("fal-1"))
    heir, rival = Ledger(db, "own_2", clock), Ledger(db, "own_3", clock)
    assert await heir.orphans() == ()
    clock.forward(60)
    won = await asyncio.gather(heir.orphans(), rival.orphans())
    ((row, hold),) = won[0] + won[1]
    assert (row.ticket, row.owner) == (Ticket("fal-1"), "own_1")
    assert await hold.settle(cost=1, charge=0, outcome=DELIVERED)
    with pytest.raises(TakenOver):
        await lost.settle(cost=2, charge=0, outcome=DELIVERED)


async def test_own_attempts_that_nobody_holds_are_found_again(
    db: SqliteDatabase, ledger: Ledger, clock: HandClock
) -> None:
    await ledger.hold([new_hold(1000)])
    assert await ledger.orphans() == ()
    reborn = Ledger(db, "own_1", clock)
    await reborn.beat()
    assert len(await reborn.orphans()) == 1
    assert await reborn.orphans() == ()


async def test_a_suspended_hold_may_be_ended_by_another_process(
    db: SqliteDatabase, ledger: Ledger, clock: HandClock
) -> None:
    (hold,) = await ledger.hold([new_hold(1000)])
    await hold.suspend(LOST)
    assert await ledger.orphans() == ()
    (row,) = await db.suspended()
    assert await Ledger(db, "own_2", clock).adopt(row).settle(cost=400, charge=0, outcome=LOST)
    assert await state(db, hold) == "settled"


async def test_an_error_in_the_hold_itself_reaches_the_caller(ledger: Ledger) -> None:
    twice = new_hold(1)
    with pytest.raises(sqlite3.IntegrityError):
        await ledger.hold([twice, twice])


def test_a_process_is_dead_only_when_this_machine_can_tell(clock: HandClock, tmp_path: Path) -> None:
    import os
    import socket

    here = socket.gethostname()
    ledger = Ledger(SqliteDatabase(str(tmp_path / "books.db"), "process"), "own_here", clock)
    assert _alive(Heartbeat(owner=ledger.owner, pid=os.getpid(), host=here, at=NOON))
    assert not _alive(Heartbeat(owner="own_gone", pid=os.getpid(), host=here, at=NOON))
    assert not _alive(Heartbeat(owner="own_gone", pid=2**22 + 1, host=here, at=NOON))
    assert _alive(Heartbeat(owner="own_init", pid=1, host=here, at=NOON))
    assert _alive(Heartbeat(owner="own_far", pid=2**22 + 1, host="elsewhere", at=NOON))
