from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.errors import BudgetSpent, NotReady
from gateway.storage.changes import key_change
from gateway.storage.database import AlreadyClosed, Closing, Correction, Held, TakenOver, UnknownAttempt, open_database
from gateway.storage.database.sqlite import SqliteDatabase
from gateway.storage.database.sqlite.file import APPLICATION_ID
from gateway.storage.rows import DecisionRow, KeyRow, NewHold, Outcome, RecipeRow
from providers.contract import Ticket
from tests.support.books import NOON, asset, new_hold


async def test_commits_are_gathered_while_many_orders_are_under_way(db: SqliteDatabase) -> None:
    commits: list[str] = []
    holds = [new_hold() for _ in range(20)]
    await db.hold("own_1", holds, (), NOON)
    db._connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    closing = []
    for hold in holds:
        closing.append(asyncio.ensure_future(db.close(released(hold))))
        await asyncio.sleep(0)  # each in a turn of its own
    await asyncio.gather(*closing)
    assert len(commits) < len(holds) / 2


def a_key(key_id: str = "key_1", budget: int | None = None) -> KeyRow:
    return KeyRow(
        id=key_id,
        hash=b"h",
        team="acme",
        name="test",
        scopes=("images:write",),
        models=None,
        budget=budget,
        rpm=None,
        created=NOON,
        expires=None,
        revoked=None,
    )


def settled(hold: NewHold, cost: int, charge: int | None = None, owner: str | None = None) -> Closing:
    return Closing(
        attempt_id=hold.attempt_id,
        state="settled",
        at=NOON,
        owner=owner,
        cost=cost,
        charge=cost if charge is None else charge,
    )


def released(hold: NewHold) -> Closing:
    return Closing(attempt_id=hold.attempt_id, state="released", at=NOON)


async def facts(db: SqliteDatabase, book: str = "cost") -> list[tuple[str, int, str]]:
    return [(entry.kind, entry.amount, entry.note) for entry in await db.entries() if entry.book == book]


async def balance(db: SqliteDatabase, book: str = "cost") -> tuple[int, int]:
    return next((row.held, row.posted) for row in await db.balances() if row.book == book)


async def test_settling_posts_what_is_owed_and_gives_back_the_rest(db: SqliteDatabase) -> None:
    hold = new_hold(1000)
    await db.hold("own_1", [hold], [], NOON)
    assert await balance(db) == (1000, 0)
    assert await db.close(settled(hold, 600, charge=0))
    assert await balance(db) == (0, 600)
    assert await balance(db, "charge") == (0, 0)
    assert await facts(db) == [("hold", 1000, ""), ("settle", 600, ""), ("release", 400, "")]


async def test_an_overrun_is_posted_and_marked(db: SqliteDatabase) -> None:
    hold = new_hold(1000)
    await db.hold("own_1", [hold], [], NOON)
    await db.close(settled(hold, 1300))
    assert await balance(db) == (0, 1300)
    assert await facts(db) == [("hold", 1000, ""), ("settle", 1000, ""), ("settle", 300, "overrun")]


async def test_a_second_close_is_refused_and_the_same_close_is_quiet(db: SqliteDatabase) -> None:
    hold = new_hold(1000)
    await db.hold("own_1", [hold], [], NOON)
    assert await db.close(settled(hold, 600))
    assert await db.close(settled(hold, 600)) is False
    for other in (settled(hold, 601), released(hold)):
        with pytest.raises(AlreadyClosed):
            await db.close(other)
    with pytest.raises(AlreadyClosed):
        await db.suspend(None, hold.attempt_id, Outcome(), NOON)
    with pytest.raises(AlreadyClosed):
        await db.accept("own_1", hold.attempt_id, Ticket("t"))
    assert await balance(db) == (0, 600)


async def test_suspended_money_stays_held_until_it_is_known(db: SqliteDatabase) -> None:
    hold = new_hold(1000)
    await db.hold("own_1", [hold], [], NOON)
    await db.accept("own_1", hold.attempt_id, Ticket("fal-1", {"url": "u"}))
    assert await db.suspend("own_1", hold.attempt_id, Outcome(error="timed_out"), NOON)
    assert await db.suspend("own_1", hold.attempt_id, Outcome(error="timed_out"), NOON) is False
    assert await balance(db) == (1000, 0)
    (row,) = await db.suspended("fal")
    assert (row.state, row.ticket, row.outcome) == (
        "suspended",
        Ticket("fal-1", {"url": "u"}),
        Outcome(error="timed_out"),
    )
    assert await db.close(released(hold))
    assert await balance(db) == (0, 0)
    assert await db.suspended() == []


async def test_holds_of_one_command_commit_all_or_none(db: SqliteDatabase) -> None:
    await db.add_key(a_key(budget=2500))
    with pytest.raises(BudgetSpent):
        await db.hold("own_1", [new_hold(1000), new_hold(1000), new_hold(1000)], [], NOON)
    twice = new_hold(10)
    with pytest.raises(sqlite3.IntegrityError):
        await db.hold("own_1", [new_hold(1000), twice, twice], [], NOON)
    assert await db.entries() == []
    assert await db.open_attempts() == []
    await db.hold("own_1", [new_hold(1000), new_hold(1000)], [], NOON)
    assert (await db.key_spent("key_1")).left == 500


async def test_a_refusal_names_the_key_and_every_figure(db: SqliteDatabase) -> None:
    await db.add_key(a_key(budget=2_000_000_000))
    await db.hold("own_1", [new_hold(1_500_000_000)], [], NOON)
    with pytest.raises(BudgetSpent, match=r"API key key_1 is 2 USD: 0 spent, 1\.5 set aside.* asks for 0\.6"):
        await db.hold("own_1", [new_hold(600_000_000)], [], NOON)


async def test_a_team_budget_binds_all_its_keys(db: SqliteDatabase) -> None:
    await db.set_team_budget("acme", 1000)
    await db.hold("own_1", [new_hold(600, key_id="key_1")], [], NOON)
    with pytest.raises(BudgetSpent, match="team acme"):
        await db.hold("own_1", [new_hold(600, key_id="key_2")], [], NOON)
    await db.set_team_budget("acme", None)
    await db.hold("own_1", [new_hold(600, key_id="key_2")], [], NOON)


async def test_a_budget_lasts_exactly_to_its_last_nano_dollar(db: SqliteDatabase) -> None:
    await db.add_key(a_key(budget=1000))
    await db.hold("own_1", [new_hold(999)], [], NOON)
    with pytest.raises(BudgetSpent):
        await db.hold("own_1", [new_hold(2)], [], NOON)
    await db.hold("own_1", [new_hold(1)], [], NOON)


async def test_a_reservation_makes_room_for_the_hold_that_replaces_it(db: SqliteDatabase) -> None:
    await db.add_key(a_key(budget=1000))
    reservation = new_hold(800, reserve=True)
    await db.hold("own_1", [reservation], [], NOON)
    with pytest.raises(AlreadyClosed):
        await db.close(settled(reservation, 800))
    await db.hold("own_1", [new_hold(900, replaces=reservation.attempt_id)], [], NOON)
    assert await balance(db) == (900, 0)
    row = await db.attempt(reservation.attempt_id)
    assert row is not None
    assert row.state == "released"
    assert [row.state for row in await db.account_attempts("fal", NOON)] == ["intent"]


async def test_a_refused_replacement_keeps_its_reservation(db: SqliteDatabase) -> None:
    await db.add_key(a_key(budget=1000))
    reservation = new_hold(800, reserve=True)
    await db.hold("own_1", [reservation], [], NOON)
    with pytest.raises(BudgetSpent):
        await db.hold("own_1", [new_hold(1001, replaces=reservation.attempt_id)], [], NOON)
    assert [row.state for row in await db.open_attempts()] == ["reserved"]
    assert await balance(db) == (800, 0)


async def test_parallel_holds_fill_a_budget_and_never_exceed_it(db: SqliteDatabase) -> None:
    await db.add_key(a_key(budget=10_000))
    amounts = [300 + 17 * (n % 40) for n in range(100)]
    answers = await asyncio.gather(
        *(db.hold("own_1", [new_hold(amount)], [], NOON) for amount in amounts), return_exceptions=True
    )
    admitted = sum(amount for amount, answer in zip(amounts, answers, strict=True) if answer is None)
    refused = [amount for amount, answer in zip(amounts, answers, strict=True) if isinstance(answer, BudgetSpent)]
    assert admitted <= 10_000
    assert refused
    assert all(amount > 10_000 - admitted for amount in refused)


async def test_two_processes_share_one_budget(db: SqliteDatabase, tmp_path: Path) -> None:
    other = SqliteDatabase(str(tmp_path / "books.db"), "process")
    await db.add_key(a_key(budget=1000))
    admitted = 0
    for turn in range(16):
        with contextlib.suppress(BudgetSpent):
            await (db, other)[turn % 2].hold("own", [new_hold(90)], [], NOON)
            admitted += 1
    assert admitted == 11
    await other.aclose()


async def test_corrections_count_once_and_reach_the_attempt(db: SqliteDatabase) -> None:
    hold = new_hold(1000)
    await db.hold("own_1", [hold], [], NOON)
    await db.close(settled(hold, 600))
    mend = Correction(book="cost", party="fal", amount=-100, note="billed 500", at=NOON, attempt_id=hold.attempt_id)
    assert await db.correct(mend)
    assert await db.correct(mend) is False
    row = await db.attempt(hold.attempt_id)
    assert row is not None
    assert (row.cost, row.charge) == (500, 600)
    await db.correct(Correction(book="cost", party="fal", amount=7, note="total", at=NOON, endpoint="flux/schnell"))
    assert await balance(db) == (0, 507)
    assert [mend.amount for mend in await db.corrections("fal", NOON)] == [7]


async def test_a_hold_given_up_in_the_very_commit_that_makes_it_is_closed_there(db: SqliteDatabase) -> None:
    hold = new_hold()
    taken = asyncio.ensure_future(db.hold("own_1", [hold], (), NOON))
    receipt = asyncio.ensure_future(db.accept("own_1", hold.attempt_id, Ticket("t")))
    closed = asyncio.ensure_future(db.close(replace(released(hold), owner="own_1")))
    await asyncio.gather(taken, receipt, closed)
    assert closed.result()
    assert [row.state for row in await db.attempts(hold.call_id)] == ["released"]


async def test_an_unknown_attempt_is_said_to_be_unknown(db: SqliteDatabase) -> None:
    with pytest.raises(UnknownAttempt, match="att_nobody"):
        await db.accept("own_1", "att_nobody", Ticket("t"))


async def test_of_two_owners_taking_over_one_wins_and_the_first_is_fenced_off(db: SqliteDatabase) -> None:
    hold = new_hold(1000)
    await db.hold("own_dead", [hold], [], NOON)
    orphans = await db.orphans(NOON, 15.0, lambda _: True)
    won = await asyncio.gather(db.take_over(orphans, "own_2"), db.take_over(orphans, "own_3"))
    assert sorted(map(len, won)) == [0, 1]
    with pytest.raises(TakenOver):
        await db.close(settled(hold, 600, owner="own_dead"))
    assert await db.close(settled(hold, 600, owner="own_2" if won[0] else "own_3"))


def known(hold: NewHold, cost: int, owner: str = "own_1") -> Closing:
    """The end of an order whose owner knows what it set aside."""
    held = Held(hold.account, hold.team, hold.key_id, hold.cost, hold.charge, hold.offer_id)
    return replace(settled(hold, cost, owner=owner), held=held)


async def test_what_an_owner_believes_of_a_hold_it_lost_changes_nothing_and_spoils_no_other_end(
    db: SqliteDatabase,
) -> None:
    lost, *others = (new_hold(1000) for _ in range(4))
    await db.hold("own_1", [lost, *others], [], NOON)
    db._connection.execute("UPDATE attempts SET owner = 'own_2' WHERE id = ?", (lost.attempt_id,))
    ends = [others[0], lost, *others[1:]]
    answers = await asyncio.gather(*(db.close(known(hold, 700)) for hold in ends), return_exceptions=True)
    assert [type(answer) for answer in answers] == [bool, TakenOver, bool, bool]
    assert await balance(db) == (1000, 2100)
    assert [row.state for row in await db.open_attempts()] == ["intent"]
    assert await db.audit() == []


async def test_an_end_told_twice_in_one_commit_is_written_once(db: SqliteDatabase) -> None:
    hold, other = new_hold(1000), new_hold(1000)
    await db.hold("own_1", [hold, other], [], NOON)
    ends = known(hold, 700), known(hold, 700), known(other, 0), known(hold, 600)
    answers = await asyncio.gather(*map(db.close, ends), return_exceptions=True)
    assert list(answers[:3]) == [True, False, True]
    assert isinstance(answers[3], AlreadyClosed)
    assert await balance(db) == (0, 700)
    assert await db.audit() == []


async def test_a_receipt_and_the_end_of_its_order_fit_into_one_commit(db: SqliteDatabase) -> None:
    hold, ended = new_hold(1000), new_hold(1000)
    await db.hold("own_1", [hold, ended], [], NOON)
    answers = await asyncio.gather(
        db.accept("own_1", hold.attempt_id, Ticket("t")),
        db.close(known(hold, 700)),
        db.close(known(ended, 700)),
        db.accept("own_1", ended.attempt_id, Ticket("t")),
        return_exceptions=True,
    )
    assert list(answers[:3]) == [None, True, True]
    assert isinstance(answers[3], AlreadyClosed)
    rows = [await db.attempt(each.attempt_id) for each in (hold, ended)]
    assert [row and (row.state, row.cost) for row in rows] == [("settled", 700), ("settled", 700)]


@pytest.mark.parametrize(
    "statement", ["UPDATE entries SET amount = 0", "DELETE FROM entries", "DELETE FROM entries WHERE seq = 1"]
)
async def test_entries_cannot_be_edited(db: SqliteDatabase, tmp_path: Path, statement: str) -> None:
    await db.hold("own_1", [new_hold(1000)], [], NOON)
    connection = sqlite3.connect(tmp_path / "books.db")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    connection.close()


async def test_the_audit_notices_every_kind_of_tampering(tmp_path: Path) -> None:
    database = SqliteDatabase(str(tmp_path / "books.db"), "process")
    first, second = new_hold(1000), new_hold(1000)
    await database.hold("own_1", [first, second], [], NOON)
    await database.close(settled(first, 600))
    connection = sqlite3.connect(tmp_path / "books.db", isolation_level=None)
    tampering = [
        ("UPDATE balances SET posted = posted + 1 WHERE book = 'key'", (), "balance of key"),
        ("UPDATE attempts SET cost = 601 WHERE id = ?", (first.attempt_id,), "something other than its entries"),
        ("UPDATE attempts SET state = 'released' WHERE id = ?", (second.attempt_id,), "not given back"),
        ("UPDATE attempts SET state = 'settled' WHERE id = ?", (second.attempt_id,), "not paid out"),
        ("UPDATE attempts SET hold_cost = 1 WHERE id = ?", (second.attempt_id,), "not held exactly once"),
        ("INSERT INTO entries VALUES (99, 0, 'cost', 'fal', 'hold', 5, 'att_ghost', '', '')", (), "does not exist"),
    ]
    for statement, columns, fault in tampering:
        connection.execute(statement, columns)
        assert any(fault in sentence for sentence in await database.audit()), statement
    connection.close()
    await database.aclose()


async def test_what_a_call_leaves_behind_is_kept_with_its_settlement(db: SqliteDatabase) -> None:
    hold = new_hold(1000)
    decision = DecisionRow(call_id=hold.call_id, part=0, number=0, at=NOON, team="acme", body=b"{}")
    await db.hold("own_1", [hold], [decision], NOON)
    preview, other = asset(hold.attempt_id, index=0), asset(hold.attempt_id, index=1)
    recipe = RecipeRow(call_id=hold.call_id, team="acme", user=None, request={"prompt": "a cat"}, created=NOON)
    await db.close(
        Closing(
            attempt_id=hold.attempt_id,
            state="settled",
            at=NOON,
            assets=(other, preview),
            recipe=recipe,
            cost=1,
            charge=1,
        )
    )
    export = asset("att_export", parent=preview.id)
    later = new_hold(5)
    await db.hold("own_1", [later], [], NOON)
    await db.close(Closing(attempt_id=later.attempt_id, state="settled", at=NOON, assets=(export,)))
    assert await db.decisions(hold.call_id) == [decision]
    assert await db.recipe(hold.call_id) == recipe
    assert await db.asset(preview.id, "acme") == preview
    assert await db.asset(preview.id, "rivals") is None
    assert await db.asset_by_path(preview.path) == preview
    assert await db.call_assets(preview.call_id) == [preview, other]
    assert await db.children(preview.id, "acme") == [export]
    assert [row.id for row in await db.attempts(hold.call_id)] == [hold.attempt_id]


async def test_keys_come_back_as_they_were_made_until_revoked(db: SqliteDatabase) -> None:
    await db.add_key(a_key("key_1"))
    await db.add_key(a_key("key_2", budget=5))
    assert await db.key("key_2") == a_key("key_2", budget=5)
    before, after = a_key("key_1"), replace(a_key("key_1"), revoked=NOON)
    revoked = key_change(before, after, "revoked", "ops", NOON)
    assert await db.change_key(before, after, revoked)
    assert await db.change_key(before, after, revoked) is False
    assert [(key.id, key.revoked) for key in await db.keys()] == [("key_1", NOON), ("key_2", None)]
    keys, teams = await db.spending()
    assert (keys["key_2"].left, teams) == (5, {})


async def test_every_field_of_a_key_comes_back_as_it_was_kept(db: SqliteDatabase) -> None:
    key = replace(
        a_key(budget=5),
        models=("flux-dev",),
        tiers=("preview", "standard"),
        rpm=1,
        ipm=2,
        max_price=3,
        max_call_price=4,
        max_pixels=5,
        concurrency=6,
        former=b"before",
        former_until=NOON,
        paused_until=NOON,
        unbraked_until=NOON,
        expires=NOON,
        revoked=NOON,
    )
    assert not [name for name in key.__struct_fields__ if getattr(key, name) is None]
    await db.add_key(key)
    assert await db.keys() == [key]


async def test_a_change_of_a_key_is_recorded_in_its_commit_without_its_secret(db: SqliteDatabase) -> None:
    before, after = a_key(), replace(a_key(), rpm=60, hash=b"fresh", former=b"h", former_until=NOON)
    await db.add_key(before, "ada")
    seen = await db.last_change()
    assert await db.change_key(before, after, key_change(before, after, "rotated", "bob", NOON))
    assert await db.last_change() > seen
    await db.add_key(a_key("key_0"))
    assert {key.id: key for key in await db.changed_keys(seen)} == {"key_0": a_key("key_0"), "key_1": after}
    assert await db.changed_keys(await db.last_change()) == []
    rotated, created = await db.changes("key", "key_1", 10)
    assert (created.actor, created.action, created.detail["team"]) == ("ada", "created", {"from": None, "to": "acme"})
    assert (rotated.actor, rotated.action, rotated.at) == ("bob", "rotated", NOON)
    assert rotated.detail == {
        "rpm": {"from": None, "to": 60},
        "former_until": {"from": None, "to": "2026-11-21T12:00:00Z"},
    }
    assert await db.changes("key", "key_2", 10) == []


async def test_the_record_of_changes_is_never_edited(db: SqliteDatabase, tmp_path: Path) -> None:
    await db.add_key(a_key())
    with sqlite3.connect(tmp_path / "books.db") as beside:
        for statement in ("UPDATE changes SET actor = 'nobody'", "DELETE FROM changes"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                beside.execute(statement)


async def test_a_cancelled_command_is_committed_all_the_same(db: SqliteDatabase) -> None:
    task = asyncio.create_task(db.hold("own_1", [new_hold(1000)], [], NOON))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await db.check()
    assert len(await db.open_attempts()) == 1


async def test_commands_asked_for_together_share_a_commit(db: SqliteDatabase) -> None:
    commits: list[str] = []
    await db.check()
    db._connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    await asyncio.gather(*(db.hold("own_1", [new_hold(10)], [], NOON) for _ in range(300)))
    assert len(commits) == 2


async def test_a_full_disk_refuses_and_recovers(db: SqliteDatabase) -> None:
    await db.check()
    (pages,) = db._connection.execute("PRAGMA page_count").fetchone()
    db._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    many = [new_hold(10) for _ in range(200)]
    answers = await asyncio.gather(*(db.hold("own_1", [each], [], NOON) for each in many), return_exceptions=True)
    assert {str(answer) for answer in answers if isinstance(answer, NotReady)} == {str(answers[0])}
    assert "disk is full" in str(answers[0])
    assert await db.open_attempts() == []
    db._connection.execute("PRAGMA max_page_count = 1000000")
    await db.hold("own_1", many, [], NOON)
    assert await balance(db) == (2000, 0)


async def test_a_locked_file_is_not_ready(tmp_path: Path) -> None:
    database = SqliteDatabase(str(tmp_path / "books.db"), "process")
    database._connection.execute("PRAGMA busy_timeout = 20")
    rival = sqlite3.connect(tmp_path / "books.db", isolation_level=None)
    rival.execute("BEGIN IMMEDIATE")
    with pytest.raises(NotReady, match="another process"):
        await database.check()
    rival.execute("ROLLBACK")
    await database.check()
    rival.close()
    await database.aclose()


async def test_a_deleted_file_is_noticed_and_not_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "books.db"
    database = SqliteDatabase(str(path), "process")
    path.unlink()
    with pytest.raises(NotReady, match="moved or replaced"):
        await database.hold("own_1", [new_hold(1)], [], NOON)
    with pytest.raises(NotReady, match="moved or replaced"):
        await database.balances()
    assert not path.exists()
    await database.aclose()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is empty"), (b"not a database at all" * 100, "restore a backup")],
)
def test_a_damaged_file_is_refused_and_left_alone(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "books.db"
    path.write_bytes(content)
    with pytest.raises(NotReady, match=reason):
        SqliteDatabase(str(path), "process")
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "books.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    with pytest.raises(NotReady, match="another program"):
        SqliteDatabase(str(path), "process")


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "books.db"
    await SqliteDatabase(str(path), "process").aclose()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(NotReady, match=r"schema 99.*newer release"):
        SqliteDatabase(str(path), "process")


def as_it_was_before(migration: str, path: Path, *rows: str) -> None:
    """A database of the schema before a migration, with `rows` inserted."""
    folder = resources.files(SqliteDatabase.__module__) / "migrations"
    scripts = sorted((script for script in folder.iterdir()), key=lambda script: script.name)
    before = next(number for number, script in enumerate(scripts) if script.name.endswith(f"_{migration}.sql"))
    connection = sqlite3.connect(path)
    for script in scripts[:before]:
        connection.executescript(script.read_text())
    for row in rows:
        connection.execute(f"INSERT INTO {row}")
    connection.commit()
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {before}")
    connection.close()


async def test_decisions_stored_under_an_older_schema_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "books.db"
    as_it_was_before("decisions", path, "decisions VALUES ('call_1', 0, 0, 1000000, 'acme', x'7b7d')")
    database = SqliteDatabase(str(path), "process")
    (kept,) = await database.decisions("call_1")
    assert (kept.team, kept.body, kept.at.timestamp()) == ("acme", b"{}", 1.0)
    await database.aclose()


async def test_books_kept_under_an_older_schema_are_the_same_under_this(tmp_path: Path) -> None:
    path = tmp_path / "books.db"
    as_it_was_before(
        "cheap_checks",
        path,
        """attempts VALUES ('att_1', 'call_1', 2, 'acme', 'key_1', 'fal', 'fal:flux', 'flux', 'settled', 9, 8, 7, 6,
            64, 32, 1, 4, 'own_1', 1000000, 2000000, x'7b226964223a2274227d', x'7b7d', 3, 'default-1', 0, x'0a', NULL,
            x'7b7d', 5)""",
        "entries VALUES (41, 1000000, 'cost', 'fal', 'hold', 9, 'att_1', '', '')",
        "entries VALUES (42, 2000000, 'cost', 'fal', 'settle', 7, 'att_1', '', '')",
        "entries VALUES (43, 2000000, 'cost', 'fal', 'release', 2, 'att_1', '', '')",
        "entries VALUES (44, 3000000, 'cost', 'fal', 'correction', 1, '', 'flux', 'once')",
        "balances VALUES ('cost', 'fal', 0, 8)",
    )
    database = SqliteDatabase(str(path), "process")
    (kept,) = await database.attempts("call_1")
    assert (kept.state, kept.hold_cost, kept.hold_charge, kept.cost, kept.charge) == ("settled", 9, 8, 7, 6)
    assert (kept.part, kept.width, kept.height, kept.steps, kept.prices) == (2, 64, 32, 4, 3)
    assert kept.ticket == Ticket("t")
    entries = await database.entries()
    assert [(entry.seq, entry.kind, entry.amount) for entry in entries] == [
        (41, "hold", 9), (42, "settle", 7), (43, "release", 2), (44, "correction", 1),
    ]  # fmt: skip
    (balance,) = await database.balances()
    assert (balance.party, balance.held, balance.posted) == ("fal", 0, 8)
    assert not await database.correct(Correction(book="cost", party="fal", amount=1, note="once", at=NOON))
    await database.hold("own_1", [new_hold(1000)], [], NOON)
    assert [entry.seq for entry in (await database.entries())[-2:]] == [45, 46]
    await database.aclose()


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("entries (at, book, party, kind, amount, attempt_id) VALUES (0, 'cost', 'fal', 'gift', 1, '')", "kind"),
        ("entries (at, book, party, kind, amount, attempt_id) VALUES (0, 'purse', 'fal', 'hold', 1, '')", "book"),
        ("balances VALUES ('purse', 'fal', 0, 0)", "book"),
    ],
)
async def test_the_books_refuse_words_they_do_not_know(db: SqliteDatabase, row: str, word: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match=f"CHECK constraint failed: {word}"):
        db._connection.execute(f"INSERT INTO {row}")


def test_a_missing_file_is_made_only_when_asked(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="no database"):
        open_database(f"sqlite:///{tmp_path / 'none.db'}", create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["postgresql://x/y", "sqlite://x.db", "sqlite:///", "books.db"])
def test_an_unknown_url_is_refused_with_the_right_form(url: str) -> None:
    with pytest.raises(ValueError, match=r"sqlite:///PATH"):
        open_database(url)


async def test_after_closing_every_verb_is_not_ready(tmp_path: Path) -> None:
    database = SqliteDatabase(str(tmp_path / "books.db"), "power")
    await database.aclose()
    await database.aclose()
    with pytest.raises(NotReady, match="closed"):
        await database.check()
    with pytest.raises(NotReady, match="closed"):
        await database.balances()


WRITER = """
import asyncio, sys
from gateway.storage.database import Closing, open_database
from tests.support.books import NOON, new_hold

async def main():
    db = open_database(f"sqlite:///{sys.argv[1]}", sys.argv[3])
    async def spend(n):
        while True:
            hold = new_hold(1000, attempt_id=f"att_{sys.argv[2]}_{next(numbers)}")
            await db.hold("own_1", [hold], [], NOON)
            print("h", hold.attempt_id, flush=True)
            await db.close(Closing(attempt_id=hold.attempt_id, state="settled", at=NOON, cost=700, charge=900))
            print("s", hold.attempt_id, flush=True)
    import itertools
    numbers = itertools.count()
    await asyncio.gather(*map(spend, range(8)))

asyncio.run(main())
"""


def write_until_killed(path: Path, durability: str, kill: int) -> list[list[str]]:
    """What a child acknowledged before it was killed in the middle of its work."""
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(kill), durability],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    said = [child.stdout.readline() for _ in range(40 + 77 * kill)]
    os.kill(child.pid, signal.SIGKILL)
    said += child.stdout.read().splitlines(keepends=True)
    child.stdout.close()
    child.wait()
    return [line.split() for line in said if line.endswith("\n")]


@pytest.mark.parametrize("durability", ["process", "power"])
async def test_a_killed_process_keeps_what_it_acknowledged(tmp_path: Path, durability: str) -> None:
    path = tmp_path / "books.db"
    said = [words for kill in range(3) for words in write_until_killed(path, durability, kill)]
    held = {name for kind, name in said if kind == "h"}
    paid = {name for kind, name in said if kind == "s"}
    database = SqliteDatabase(str(path), "process")
    rows = {row.id: row.state for row in await database.account_attempts("fal", NOON)}
    assert len(held) > 100
    assert held <= set(rows)
    assert {rows[name] for name in paid} == {"settled"}
    assert await database.audit() == []
    await database.aclose()


async def test_the_audit_notices_what_no_single_order_shows(tmp_path: Path) -> None:
    database = SqliteDatabase(str(tmp_path / "books.db"), "process")
    first, second, third = new_hold(1000, attempt_id="att_a"), new_hold(1000, attempt_id="att_b"), new_hold(1000)
    await database.hold("own_1", [first, second, third], [], NOON)
    for hold in (first, second):
        await database.accept("own_1", hold.attempt_id, Ticket("t-1"))
        await database.close(settled(hold, 600))
    twice = [fault for fault in await database.audit() if "receipt t-1 of fal was posted for 2 orders" in fault]
    assert twice
    await database.close(settled(third, 600))
    connection = sqlite3.connect(tmp_path / "books.db", isolation_level=None)
    tampering = [
        (
            "UPDATE attempts SET outcome = CAST('{\"error\":\"timed_out\"}' AS BLOB) WHERE id = 'att_a'",
            "its team was charged 600",
        ),
        (
            "UPDATE attempts SET outcome = CAST('{\"error\":\"overloaded\"}' AS BLOB) WHERE id = 'att_a'",
            "was never accepted (overloaded), but fal was paid 600",
        ),
        (
            "UPDATE attempts SET state = 'released', outcome = CAST('{\"delivered\":2}' AS BLOB) WHERE id = 'att_a'",
            "delivered 2 pictures, and its money was given back",
        ),
        ("UPDATE attempts SET account = 'together' WHERE id = 'att_b'", "is of together, but has entries of fal"),
        ("DROP TRIGGER entries_are_never_deleted", "the guard entries_are_never_deleted is gone"),
        ("DELETE FROM entries WHERE seq = 3", "entries are missing"),
    ]
    for statement, fault in tampering:
        connection.execute(statement)
        assert any(fault in sentence for sentence in await database.audit()), statement
    connection.close()
    await database.aclose()


@pytest.mark.parametrize("before", [1000, None])
async def test_a_budget_that_was_lowered_below_what_is_spent_breaks_no_promise(
    db: SqliteDatabase, before: int | None
) -> None:
    wide, narrow = a_key(budget=before), a_key(budget=500)
    await db.add_key(wide)
    held = new_hold(800, key_id="key_1")
    await db.hold("own_1", [held], [], NOON)
    await db.close(settled(held, 800))
    assert await db.change_key(wide, narrow, key_change(wide, narrow, "limited", "ann", NOON))
    assert await db.audit() == []


async def test_the_audit_says_how_much_it_looked_at_and_how_far_bills_went_beyond_their_holds(
    db: SqliteDatabase,
) -> None:
    small, large = new_hold(1000), new_hold(1000)
    await db.hold("own_1", [small, large], [], NOON)
    await db.close(settled(small, 1500))
    await db.close(settled(large, 4000))
    found = await db.examine()
    assert (found.faults, found.attempts, found.entries) == ([], 2, 12)
    assert (found.overruns, found.overrun_nano_usd, found.large_overruns) == (4, 3500, 2)


async def test_sizes_of_inputs_are_recorded_for_they_are_billed_after_a_restart_too(db: SqliteDatabase) -> None:
    edit, plain = replace(new_hold(), inputs=((640, 480), (32, 32))), new_hold()
    await db.hold("own_1", [edit, plain], (), NOON)
    found = [(await db.attempts(hold.call_id))[0].inputs for hold in (edit, plain)]
    assert found == [((640, 480), (32, 32)), ()]
