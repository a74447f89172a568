from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.cli import run
from gateway.errors import InvalidRequest
from gateway.money.currency import Currency
from gateway.money.periods import month_of
from gateway.money.statements import against, close, differences, read_invoice, statement_of
from gateway.storage.database import Correction
from gateway.storage.database.sqlite import SqliteDatabase
from gateway.storage.rows import Outcome
from gateway.storage.statements import Statement
from tests.support.books import new_hold
from tests.support.months import order

SEPTEMBER = datetime(2026, 9, 15, tzinfo=UTC)
OCTOBER = datetime(2026, 10, 15, tzinfo=UTC)
NOW = datetime(2026, 11, 5, tzinfo=UTC)
DOLLARS = Currency()


@pytest_asyncio.fixture
async def db(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(str(tmp_path / "books.db"), "process")
    yield database
    await database.aclose()


def invoice(folder: Path, text: str) -> Path:
    path = folder / "invoice.csv"
    path.write_text(text)
    return path


async def closed(db: SqliteDatabase, month: str, folder: Path, amount: str, note: str = "") -> Statement:
    period = month_of(month, NOW)
    asked = read_invoice(invoice(folder, f"endpoint,amount\nflux/schnell,{amount}\n"), DOLLARS)
    return await close(db, against(await statement_of(db, "fal", period), asked), period, note)


async def test_a_statement_is_what_the_ledger_owes_one_account_for_one_month(db: SqliteDatabase) -> None:
    await order(db, OCTOBER, cost=3000, images=2)
    await order(db, OCTOBER, offer="together:flux-schnell", cost=500)
    await order(db, SEPTEMBER, cost=70)
    await db.correct(Correction(book="cost", party="fal", amount=9, note="total", at=OCTOBER, endpoint="flux/dev"))
    found = await statement_of(db, "fal", month_of("2026-10", NOW))
    assert [(line.endpoint, line.orders, line.images, line.cost) for line in found.lines] == [
        ("flux/dev", 0, 0, 9),
        ("flux/schnell", 1, 2, 3000),
    ]


async def test_the_invoice_is_held_against_it_endpoint_by_endpoint(db: SqliteDatabase, tmp_path: Path) -> None:
    await order(db, OCTOBER, cost=3_000_000)
    path = invoice(tmp_path, "endpoint,amount,quantity\nflux/schnell,0.001,1\nflux/schnell,0.002,2\nflux/pro,0.05,1\n")
    found = against(await statement_of(db, "fal", month_of("2026-10", NOW)), read_invoice(path, DOLLARS))
    assert [(line.endpoint, line.cost, line.invoiced) for line in differences(found)] == [("flux/pro", 0, 50_000_000)]


def test_an_invoice_in_another_currency_is_worth_what_the_rate_says(tmp_path: Path) -> None:
    path = invoice(tmp_path, "endpoint,amount,currency\nflux/dev,0.92,EUR\nflux/dev,1,USD\n")
    assert read_invoice(path, Currency("EUR", Decimal("0.92"))).amounts == {"flux/dev": 2_000_000_000}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("endpoint\nx\n", r"invoice.csv:1: no column 'amount'"),
        ("endpoint,amount,vat\n", r"invoice.csv:1: unknown column 'vat'"),
        ("endpoint,amount\nx,1\ny,much\n", r"invoice.csv:3: amount: expected a number such as 12.50, got 'much'"),
        ("endpoint,amount\n,1\n", r"invoice.csv:2: endpoint: empty"),
        ("endpoint,amount,currency\nx,1,EUX\n", r"invoice.csv:2: currency: 'EUX' is no currency"),
        ("endpoint,amount,currency\nx,1,EUR\n", r"invoice.csv:2: currency: EUR needs its rate"),
        ("endpoint,amount\nx,Infinity\n", r"invoice.csv:2: amount: Infinity cannot be"),
    ],
)
def test_a_bad_invoice_is_refused_with_line_and_field(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read_invoice(invoice(tmp_path, text), DOLLARS)


async def test_a_closed_month_is_locked_and_what_comes_late_is_on_the_next_one_once(
    db: SqliteDatabase, tmp_path: Path
) -> None:
    await order(db, SEPTEMBER, cost=1_000_000)
    await order(db, OCTOBER, cost=2_000_000)  # before September is closed, and yet October's
    await closed(db, "2026-09", tmp_path, "0.001")
    await db.correct(
        Correction(book="cost", party="fal", amount=500_000, note="late", at=SEPTEMBER, endpoint="flux/schnell")
    )
    september = await statement_of(db, "fal", month_of("2026-09", NOW))
    assert (september.cost, september.invoiced) == (1_000_000, 1_000_000)
    october = await closed(db, "2026-10", tmp_path, "0.0025")
    (line,) = october.lines
    assert (line.cost, line.late) == (2_500_000, 500_000)
    november = await statement_of(db, "fal", month_of("2026-11", NOW))
    assert november.lines == []
    posted = next(row.posted for row in await db.balances() if (row.book, row.party) == ("cost", "fal"))
    assert posted == september.cost + october.cost


POSTS = st.lists(
    st.tuples(st.integers(min_value=8, max_value=11), st.integers(min_value=-(10**9), max_value=10**9)), max_size=4
)


@settings(deadline=None, max_examples=20)
@given(st.tuples(POSTS, POSTS, POSTS, POSTS))
def test_whenever_things_are_posted_all_statements_together_are_what_was_posted(
    rounds: tuple[list[tuple[int, int]], ...],
) -> None:
    async def check(path: Path) -> None:
        db = SqliteDatabase(str(path), "process")
        number = total = 0
        for posts, month in zip(rounds, ("2026-08", "2026-09", "2026-10", "2026-11"), strict=True):
            for of_month, amount in posts:
                number, total = number + 1, total + amount
                at = datetime(2026, of_month, 15, tzinfo=UTC)
                mend = Correction(book="cost", party="fal", amount=amount, note=str(number), at=at, endpoint="flux/dev")
                assert await db.correct(mend)
            period = month_of(month, datetime(2026, 12, 2, tzinfo=UTC))
            await close(db, replace(await statement_of(db, "fal", period), invoice="none"), period, "not compared")
        assert sum(statement.cost for statement in await db.statements("fal")) == total
        await db.aclose()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(check(Path(folder) / "books.db"))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE statements SET note = 'x'",
        "DELETE FROM statements",
        "UPDATE statement_lines SET cost = 0",
        "DELETE FROM statement_lines",
        "INSERT INTO statement_lines VALUES ('fal', '2026-10', 'x', 0, 0, 1, 0, 1)",
    ],
)
async def test_the_database_itself_keeps_closed_lines(db: SqliteDatabase, tmp_path: Path, statement: str) -> None:
    await order(db, OCTOBER, cost=1_000_000)
    await closed(db, "2026-10", tmp_path, "0.001")
    connection = sqlite3.connect(tmp_path / "books.db")
    with pytest.raises(sqlite3.IntegrityError, match="locked"):
        connection.execute(statement)
    connection.close()


async def test_a_month_is_not_closed_twice_nor_early_nor_out_of_order_nor_against_a_different_invoice(
    db: SqliteDatabase, tmp_path: Path
) -> None:
    await order(db, OCTOBER, cost=1_000_000)
    with pytest.raises(InvalidRequest, match="not over yet"):
        await closed(db, "2026-11", tmp_path, "0")
    with pytest.raises(InvalidRequest, match="differ; say why"):
        await closed(db, "2026-10", tmp_path, "0.002")
    done = await closed(db, "2026-10", tmp_path, "0.002", note="a rebate comes next month")
    assert (done.cost, done.invoiced, done.note) == (1_000_000, 2_000_000, "a rebate comes next month")
    with pytest.raises(InvalidRequest, match="was closed on 2026-11-05; it is locked"):
        await closed(db, "2026-10", tmp_path, "0.001")
    with pytest.raises(InvalidRequest, match="the month to close is 2026-11"):
        await closed(db, "2026-09", tmp_path, "0")
    assert await db.close_statement(done) is False


async def test_a_month_whose_costs_are_not_all_known_is_not_closed(db: SqliteDatabase, tmp_path: Path) -> None:
    hold = new_hold(900)
    await db.hold("own_1", [hold], [], OCTOBER)
    await db.suspend("own_1", hold.attempt_id, Outcome(error="timed_out"), OCTOBER)
    with pytest.raises(InvalidRequest, match="cost of 1 orders of fal 2026-10 is not known yet"):
        await closed(db, "2026-10", tmp_path, "0")


async def filled(folder: Path) -> None:
    db = SqliteDatabase(str(folder / "pixelgate.db"), "process")
    await order(db, OCTOBER, cost=1_000_000)
    await db.aclose()


def test_a_month_is_shown_closed_and_listed_from_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(filled(tmp_path))
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text("endpoint,amount\nflux/schnell,0.001\n")
    bad.write_text("endpoint,amount\nflux/schnell,0.002\n")
    words = ["--account", "fal", "--month", "2026-10", "--state", str(tmp_path)]
    assert run(["statement", "show", *words]) == 0
    assert run(["statement", "show", *words, "--invoice", str(bad)]) == 1
    assert "$-0.001" in capsys.readouterr().out
    assert run(["statement", "close", *words, "--invoice", str(bad)]) == 2
    assert "--accept" in capsys.readouterr().err
    assert run(["statement", "close", *words, "--invoice", str(good), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["invoiced_nano_usd"] == 1_000_000
    assert run(["statement", "list", "--state", str(tmp_path), "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["statements"]
    assert (listed["month"], listed["cost_nano_usd"]) == ("2026-10", 1_000_000)


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["--account", "fla", "--month", "2026-10"], "'account'"),
        (["--account", "fal", "--month", "October"], "'month'"),
        (["--account", "fal", "--month", "2099-01"], "'month'"),
        (["--account", "fal", "--month", "2026-10", "--currency", "EUX"], "'currency'"),
    ],
)
def test_what_no_statement_can_be_about_is_refused_by_its_field(
    words: list[str], field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["statement", "show", "--state", str(tmp_path), *words]) == 2
    assert field in capsys.readouterr().err
