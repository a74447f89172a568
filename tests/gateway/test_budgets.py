"""Budgets by window: they hold for everybody at once, and none is refused while there is money."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.cli import run
from gateway.cli.show import explained
from gateway.errors import BudgetSpent, InvalidRequest
from gateway.http.decisions import explain
from gateway.requests.call import in_batch
from gateway.requests.journal import noted
from gateway.storage.budgets import by_word, checked_window, counted_windows, window_at
from gateway.storage.database import Closing, Correction
from gateway.storage.database.sqlite import SqliteDatabase, books
from gateway.storage.rows import BudgetOf, BudgetRow, NewHold
from tests.support.books import NOON, new_hold
from tests.support.town import CALLER, town

HOUR = timedelta(hours=1)
moments = st.integers(0, 12 * 366 * 86_400).map(lambda seconds: NOON - 6 * 366 * 24 * HOUR + timedelta(seconds=seconds))


def budget(
    limit: int = 3000, *, of: BudgetOf = "team", name: str = "acme", window: str = "month", **more: object
) -> BudgetRow:
    fields = {"id": f"bud_{of}_{name}_{window}", "of": of, "name": name, "limit": limit, "window": window}
    return BudgetRow(**{"zone": "UTC", "created": NOON, **fields, **more})  # type: ignore[arg-type]


async def hold(db: SqliteDatabase, at: datetime = NOON, **more: object) -> NewHold:
    asked = replace(new_hold(1000), **more)
    await db.hold("own_1", [asked], (), at)
    return asked


async def fits(db: SqliteDatabase, at: datetime = NOON, **more: object) -> bool:
    try:
        await hold(db, at, **more)
    except BudgetSpent:
        return False
    return True


def settled(held: NewHold, at: datetime = NOON, cost: int = 1000) -> Closing:
    return Closing(attempt_id=held.attempt_id, state="settled", at=at, cost=cost, charge=cost)


async def spent(db: SqliteDatabase, row: BudgetRow, at: datetime = NOON) -> tuple[int, int]:
    fullest = next(iter(by_word(await db.counters(row.id, counted_windows(row, at))).values()))
    return fullest.held, fullest.posted


async def test_a_budget_lasts_exactly_to_its_end_and_renews_with_its_window(db: SqliteDatabase) -> None:
    await db.set_budget(budget())
    assert [await fits(db) for _ in range(4)] == [True, True, True, False]
    last = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)
    assert not await fits(db, last)
    assert await fits(db, last + timedelta(seconds=1))


async def test_a_refusal_names_the_budget_what_is_left_and_when_it_renews(db: SqliteDatabase) -> None:
    await db.set_budget(budget(1500))
    await hold(db)
    with pytest.raises(BudgetSpent, match=r"team acme per month .* It renews at 2026-12-01 00:00 UTC") as caught:
        await hold(db)
    assert (caught.value.left, caught.value.of_offer) == (500, False)


async def test_parallel_orders_fill_a_window_and_never_overfill_it(db: SqliteDatabase) -> None:
    await db.set_budget(budget(7500, of="gateway", name=""))
    outcomes = await asyncio.gather(*(fits(db, team=f"team_{number % 7}") for number in range(50)))
    assert sum(outcomes) == 7


async def test_what_is_given_back_may_be_spent_again_and_bills_count_where_their_money_was_set_aside(
    db: SqliteDatabase,
) -> None:
    row = budget()
    await db.set_budget(row)
    first, second = await hold(db), await hold(db)
    december = datetime(2026, 12, 2, tzinfo=UTC)
    await db.close(Closing(attempt_id=first.attempt_id, state="released", at=NOON))
    await db.close(settled(second, december, 600))
    assert await spent(db, row) == (0, 600)
    assert await spent(db, row, december) == (0, 0)
    await db.correct(
        Correction(
            book="charge",
            party="acme",
            amount=-100,
            note="dearer by mistake",
            at=december,
            attempt_id=second.attempt_id,
        )
    )
    assert await spent(db, row) == (0, 500)


async def test_a_reservation_makes_room_for_the_hold_that_replaces_it(db: SqliteDatabase) -> None:
    await db.set_budget(budget(1000))
    kept = await hold(db, reserve=True)
    assert not await fits(db)
    assert await fits(db, replaces=kept.attempt_id)


@pytest.mark.parametrize(
    ("of", "name", "like", "unlike"),
    [
        ("team", "acme", {}, {"team": "other"}),
        ("key", "key_1", {}, {"key_id": "key_2"}),
        ("user", "ann", {"user": "ann"}, {"user": None}),
        ("tag", "campaign=autumn", {"tags": {"campaign": "autumn"}}, {"tags": {"campaign": "spring"}}),
        ("model", "flux-dev", {"model": "flux-dev"}, {"model": "flux-pro"}),
        ("account", "fal", {}, {"account": "together"}),
    ],
)
async def test_a_budget_counts_what_it_is_about_and_nothing_else(
    db: SqliteDatabase, of: BudgetOf, name: str, like: dict[str, Any], unlike: dict[str, Any]
) -> None:
    await db.set_budget(budget(1000, of=of, name=name))
    assert await fits(db, **like)
    assert not await fits(db, **like)
    assert await fits(db, **unlike)
    assert await fits(db, **unlike)


async def test_a_budget_for_each_user_is_one_for_each_and_does_not_keep_their_names(
    db: SqliteDatabase, tmp_path: Path
) -> None:
    await db.set_budget(budget(1000, of="user", name="*", window="day"))
    assert [await fits(db, user=user) for user in ("ann", "bob", "ann", None, None)] == [True, True, False, True, True]
    assert b"ann" not in (tmp_path / "books.db-wal").read_bytes()


async def test_an_accounts_budget_counts_costs_and_a_teams_counts_charges(db: SqliteDatabase) -> None:
    team, account = budget(), budget(of="account", name="fal")
    await db.set_budget(team)
    await db.set_budget(account)
    held = await hold(db)
    await db.close(Closing(attempt_id=held.attempt_id, state="settled", at=NOON, cost=900, charge=0))
    assert await spent(db, team) == (0, 0)
    assert await spent(db, account) == (0, 900)


async def test_a_rolling_window_never_lets_more_be_spent_within_its_length(db: SqliteDatabase) -> None:
    await db.set_budget(budget(1000, window="24h"))
    assert await fits(db, NOON)
    assert not await fits(db, NOON + 23 * HOUR)
    assert not await fits(db, NOON + 24 * HOUR - timedelta(seconds=1))
    assert await fits(db, NOON + 25 * HOUR)


async def test_an_addition_holds_until_its_end(db: SqliteDatabase) -> None:
    await db.set_budget(budget(1000, window="total", extra=1000, extra_until=NOON + HOUR))
    assert [await fits(db), await fits(db), await fits(db)] == [True, True, False]
    await db.set_budget(budget(2000, window="total", extra=1000, extra_until=NOON + HOUR))
    assert not await fits(db, NOON + HOUR)
    assert await fits(db, NOON + HOUR - timedelta(seconds=1))


async def test_another_process_sets_a_budget_and_it_holds_here_with_the_next_order(
    db: SqliteDatabase, tmp_path: Path
) -> None:
    assert await fits(db)
    other = SqliteDatabase(str(tmp_path / "books.db"), "process")
    await other.set_budget(budget(1500))
    assert [await fits(db), await fits(other), await fits(db)] == [True, False, False]
    await other.set_budget(budget(1500, removed=NOON))
    assert await fits(db)
    await other.aclose()


async def test_counters_are_exact_when_more_of_them_exist_than_are_remembered(
    db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "REMEMBERED", 3)
    await db.set_budget(budget(2000, of="user", name="*"))
    users = ["ann", "bob", "cid", "dan", "eve"]
    assert all([await fits(db, user=user) for user in users * 2])
    assert not any([await fits(db, user=user) for user in users])
    assert len(db._books._balances) <= 3 + 4


async def test_windows_that_are_over_are_not_read_again(db: SqliteDatabase) -> None:
    row = budget(1000, window="day")
    await db.set_budget(row)
    for day in range(3):
        await hold(db, NOON + day * 24 * HOUR)
    later = NOON + 2 * 24 * HOUR
    assert list(await db.counters(row.id, counted_windows(row, later))) == [f"{row.id}/{later.date()}/"]


async def test_the_audit_notices_a_counter_that_was_tampered_with(tmp_path: Path) -> None:
    db = SqliteDatabase(str(tmp_path / "books.db"), "process")
    await db.set_budget(budget())
    await hold(db)
    with sqlite3.connect(tmp_path / "books.db") as file:
        file.execute("UPDATE balances SET held = 0 WHERE book = 'budget charge'")
    assert any("budget charge" in fault for fault in await db.audit())
    await db.aclose()


@given(
    st.sampled_from(["total", "day", "week", "month", "year", "1h", "24h", "7d", "30d"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"]),
    moments,
)
def test_every_moment_lies_in_one_window_and_the_next_begins_where_it_ends(
    window: str, zone: str, at: datetime
) -> None:
    row = budget(window=window, zone=zone)
    found = window_at(row, at)
    assert next(iter(counted_windows(row, at))) == found.name
    if found.start is None or found.end is None:
        assert window == "total"
        return
    assert found.start <= at < found.end
    assert window_at(row, found.start) == found == window_at(row, found.end - timedelta(microseconds=1))
    after = window_at(row, found.end)
    assert (after.start, after.name != found.name) == (found.end, True)


@given(st.lists(st.tuples(st.integers(0, 4000), st.booleans()), max_size=60))
def test_within_any_length_of_a_rolling_window_no_more_is_admitted_than_its_limit(
    steps: list[tuple[int, bool]],
) -> None:
    row, at, admitted = budget(3, window="24h"), NOON, list[tuple[datetime, str]]()
    for minutes, _ in steps:
        at += timedelta(minutes=minutes / 10)
        counted = set(counted_windows(row, at))
        if sum(name in counted for _, name in admitted) < row.limit:
            admitted.append((at, window_at(row, at).name))
    for first, _ in admitted:
        assert sum(first <= moment < first + 24 * HOUR for moment, _ in admitted) <= row.limit


@pytest.mark.parametrize("text", ["fortnight", "0h", "24", "h", "monthly", "10000h", "²h"])
def test_a_window_that_nobody_means_is_refused_with_the_ones_there_are(text: str) -> None:
    with pytest.raises(InvalidRequest, match="expected one of total, day"):
        checked_window(text)


async def test_a_call_that_its_budget_cannot_pay_is_served_by_a_cheaper_offer_that_it_can(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        dear = max(offer.nano_usd or 0 for offer in await t.app.quote(t.call()) if offer.feasible)
        cheap = min(offer.nano_usd or dear for offer in await t.app.quote(t.call()) if offer.feasible)
        await t.app.db.set_budget(budget(cheap, window="total"))
        dearest_first = t.call(order=("fal", "together"))
        delivery = await t.app.serve(dearest_first)
        assert delivery.charge == cheap < dear
        with pytest.raises(BudgetSpent, match="team acme in all"):
            await t.app.serve(t.call())
        await t.assert_books_agree()


async def test_a_spent_account_budget_sends_calls_to_another_account(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        await t.app.db.set_budget(budget(1, of="account", name="together", window="day"))
        assert (await t.app.serve(t.call())).offers == ("fal:flux-schnell",)
        await t.app.db.set_budget(budget(1, of="account", name="fal", window="day"))
        with pytest.raises(BudgetSpent, match="account"):
            await t.app.serve(t.call())
        await t.assert_books_agree()


async def test_two_hundred_calls_at_once_spend_what_a_budget_allows_and_not_a_nano_dollar_more(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        price = min(offer.nano_usd or 10**12 for offer in await t.app.quote(t.call()) if offer.feasible)
        row = budget(20 * price + price // 2, of="user", name="*", window="day")
        await t.app.db.set_budget(row)
        calls = [replace(t.call(caller=CALLER), user="ann") for _ in range(200)]
        outcomes = await asyncio.gather(*(t.app.serve(call) for call in calls), return_exceptions=True)
        paid = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        assert all(isinstance(outcome, BudgetSpent) for outcome in outcomes if isinstance(outcome, BaseException))
        assert 1 <= len(paid) <= 20
        await t.settled()
        assert sum(delivery.charge for delivery in paid) <= row.limit
        assert (await spent(t.app.db, row, datetime.now(UTC)))[1] == await t.charged()  # type: ignore[arg-type]
        await t.assert_books_agree()


async def test_what_a_soft_limit_made_of_a_call_stands_in_its_decision_and_is_explained(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        call = replace(in_batch(t.call()), soft_limit="budget: the budget of team acme per month is past ...")
        await t.app.serve(call)
        rows = await t.app.db.decisions(call.id)
        notes = [noted(row.body) for row in rows]
        assert {note.soft_limit for note in notes} == {call.soft_limit}
        assert call.soft_limit in explained(explain(notes, await t.app.db.attempts(call.id))).splitlines()


def command(state: Path, *words: str) -> int:
    return run(["budgets", *words, "--state", str(state)])


def test_budgets_are_set_raised_listed_and_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "create", "--state", str(tmp_path)]) == 0
    assert command(tmp_path, "set", "$500", "--team", "acme", "--tz", "Europe/Berlin") == 0
    assert command(tmp_path, "set", "$600", "--team", "acme", "--tz", "Europe/Berlin") == 0
    assert command(tmp_path, "set", "$5", "--user", "*", "--per", "24h") == 0
    capsys.readouterr()
    assert command(tmp_path, "list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["budgets"]
    assert [(row["of"], row["per"], row["limit_nano_usd"]) for row in listed] == [
        ("team", "month", 600 * 10**9),
        ("user", "24h", 5 * 10**9),
    ]
    team = listed[0]["id"]
    assert command(tmp_path, "raise", team, "--by", "$50", "--until", "2099-01-01") == 0
    assert command(tmp_path, "list") == 0
    assert "$650" in capsys.readouterr().out
    assert command(tmp_path, "remove", team) == 0
    assert command(tmp_path, "remove", team) == 1


def test_a_soft_limit_stays_until_another_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "create", "--state", str(tmp_path)]) == 0

    def kept(*words: str) -> tuple[object, object]:
        capsys.readouterr()
        assert command(tmp_path, "set", "$500", "--team", "acme", "--json", *words) == 0
        row = json.loads(capsys.readouterr().out)
        return row["soft_percent"], row["then"]

    assert kept() == (None, None)
    assert kept("--soft", "80%", "--then", "preview") == (80, "preview")
    assert kept() == (80, "preview")
    assert kept("--soft", "90%") == (90, "notify")
    assert command(tmp_path, "list") == 0
    assert "90 % notify" in capsys.readouterr().out
    assert kept("--soft", "none") == (None, None)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["set", "$5"], "exactly one of"),
        (["set", "$5", "--team", "a", "--gateway"], "exactly one of"),
        (["set", "$0", "--team", "a"], "above $0"),
        (["set", "5 Euro", "--team", "a"], "LIMIT"),
        (["set", "$5", "--team", "a", "--per", "mont"], "month"),
        (["set", "$5", "--team", "a", "--tz", "Europe/Berlim"], "Europe/Berlin"),
        (["set", "$5", "--tag", "campaign"], "NAME=VALUE"),
        (["set", "$5", "--account", "fall"], "fal"),
        (["set", "$5", "--model", "flux-dve"], "flux-dev"),
        (["set", "$5", "--team", "a", "--soft", "80"], "--soft: '80' is not a share"),
        (["set", "$5", "--team", "a", "--soft", "100%"], "--soft 100%: a whole number from 1% to 99%"),
        (["set", "$5", "--team", "a", "--then", "queue"], "say from which share on"),
        (["set", "$5", "--account", "fal", "--soft", "80%", "--then", "preview"], "only notify"),
        (["raise", "bud_x", "--by", "$5", "--until", "2020-01-01"], "in the past"),
        (["raise", "bud_x", "--by", "$5", "--until", "soon"], "--until"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused_and_says_what_would(
    tmp_path: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["keys", "create", "--state", str(tmp_path)]) == 0
    assert command(tmp_path, *words) == 2
    assert says in capsys.readouterr().err
