from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.cli import run
from gateway.errors import InvalidRequest
from gateway.money.currency import Currency, currency_of
from gateway.money.periods import Period, period_of, zone_of
from gateway.money.reports import Report, report
from gateway.revisions import load_revision
from gateway.settings import load_settings
from gateway.storage.database import Closing, Correction
from gateway.storage.database.sqlite import SqliteDatabase
from gateway.storage.rows import Outcome
from policies.billing import Billing, Lot
from policies.catalog import Catalog
from policies.money import USD
from tests.support.books import NOON, new_hold
from tests.support.months import order

BERLIN = zone_of("Europe/Berlin")
UTC_ZONE = zone_of("UTC")
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SHIPPED = load_revision(load_settings(None, flags={}), every_account=True).catalog
CATALOG = replace(
    SHIPPED,
    offers={name: offer for name, offer in SHIPPED.offers.items() if offer.account in ("fal", "together")},
)
"""Two sellers, so that another one changes no figure here."""


@pytest_asyncio.fixture
async def db(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(str(tmp_path / "books.db"), "process")
    yield database
    assert await database.audit() == []
    await database.aclose()


def november(catalog: Catalog = CATALOG) -> tuple[Catalog, Period]:
    return catalog, period_of("monthly", date(2026, 11, 1), UTC_ZONE, NOW)


async def read(db: SqliteDatabase) -> Report:
    return await report(db, *november())


def saved(found: Report) -> dict[str, tuple[int, int]]:
    return {each.name: (each.cost, each.actual) for each in found.baselines}


@pytest.mark.parametrize(
    ("kind", "day", "first", "last"),
    [
        ("daily", None, date(2026, 11, 24), date(2026, 11, 24)),
        ("weekly", None, date(2026, 11, 16), date(2026, 11, 22)),
        ("monthly", None, date(2026, 10, 1), date(2026, 10, 31)),
        ("monthly", date(2026, 12, 31), None, None),
        ("weekly", date(2026, 11, 29), date(2026, 11, 23), date(2026, 11, 29)),
        ("monthly", date(2024, 2, 29), date(2024, 2, 1), date(2024, 2, 29)),
    ],
)
def test_a_period_is_whole_days_and_the_last_one_over_unless_a_day_is_named(
    kind: str, day: date | None, first: date | None, last: date | None
) -> None:
    if first is None:
        with pytest.raises(InvalidRequest, match="'date': 2026-12-31 lies in the future") as refused:
            period_of("monthly", day, UTC_ZONE, NOW)
        assert refused.value.param == "date"
        return
    found = period_of(kind, day, UTC_ZONE, NOW)  # type: ignore[arg-type]
    assert (found.first, found.last) == (first, last)


def test_the_day_on_which_clocks_go_back_has_25_hours() -> None:
    found = period_of("daily", date(2026, 10, 25), BERLIN, NOW)
    assert found.end - found.start == timedelta(hours=25)
    assert found.start == datetime(2026, 10, 24, 22, tzinfo=UTC)


@pytest.mark.parametrize("name", ["Europe/Berln", "Mars", "", "../etc/passwd", "UTC+25"])
def test_a_time_zone_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="'tz'"):
        zone_of(name)


@pytest.mark.parametrize(
    ("code", "rate", "field"),
    [("EUX", "0.9", "currency"), ("EUR", None, "rate"), ("EUR", "0", "rate"), ("EUR", "-1", "rate"),
     ("EUR", "much", "rate"), ("EUR", "NaN", "rate"), ("USD", "0.9", "rate")],
)  # fmt: skip
def test_an_unknown_currency_and_an_impossible_rate_are_refused(code: str, rate: str | None, field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"'{field}'"):
        currency_of(code, rate)


def test_an_amount_in_another_currency_keeps_every_digit() -> None:
    assert currency_of("eur", "0.92").exact(2_831_155) == "0.00260466260"
    assert Currency().exact(2_831_155) == "0.002831155"


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "$0.0000"),
        (1_234_567_891_234, "$1,234.5679"),
        (-2_831_155, "-$0.002831"),
        (38_436, "$0.000038436"),
    ],
)
def test_a_small_amount_is_not_shown_as_nothing(nano: int, text: str) -> None:
    assert Currency().shown(nano) == text


AMOUNT = st.integers(min_value=0, max_value=10**12)
MOMENT = st.integers(min_value=-40 * 86_400, max_value=40 * 86_400).map(
    lambda seconds: NOON + timedelta(seconds=seconds)
)
ORDER = st.tuples(
    MOMENT,
    st.sampled_from(
        ["fal:flux-schnell", "together:flux-schnell", "fal:flux-2-pro", "fal:gone", "fal:flux-fill-pro/edit"]
    ),
    AMOUNT,
    AMOUNT,
    st.integers(min_value=0, max_value=4),
    st.sampled_from(["acme", "other"]),
    st.dictionaries(st.sampled_from(["campaign", "env"]), st.sampled_from(["a", "b"]), max_size=2),
)
MEND = st.tuples(MOMENT, st.sampled_from(["cost", "charge"]), st.integers(min_value=-(10**9), max_value=10**9))


@settings(max_examples=25, deadline=None)
@given(st.lists(ORDER, max_size=8), st.lists(MEND, max_size=4), st.sampled_from(["daily", "weekly", "monthly"]))
def test_every_view_of_a_report_adds_up_to_the_ledger(orders: list, mends: list, kind: str) -> None:  # type: ignore[type-arg]
    async def check(path: Path) -> None:
        db = SqliteDatabase(str(path), "process")
        for at, offer, cost, charge, images, team, tags in orders:
            await order(
                db, at, offer=offer, cost=cost, charge=charge if images else 0, images=images, team=team, tags=tags
            )
        for number, (at, book, amount) in enumerate(mends):
            party = "fal" if book == "cost" else "acme"
            await db.correct(
                Correction(book=book, party=party, amount=amount, note=str(number), at=at, endpoint="fal-ai/flux/dev")
            )
        period = period_of(kind, NOON.date(), BERLIN, NOON + timedelta(days=60))  # type: ignore[arg-type]
        found = await report(db, CATALOG, period)
        ledger = {"cost": 0, "charge": 0}
        for entry in await db.entries(limit=10_000):
            if entry.kind in ("settle", "correction") and period.start <= entry.at < period.end:
                ledger[entry.book] += entry.amount
        total = found.total
        assert (total.cost, total.charge) == (ledger["cost"], ledger["charge"])
        for lines in (*found.by.values(), *found.tags.values(), found.days):
            sums = [
                sum(column) for column in zip(*((x.cost, x.charge, x.orders, x.images) for x in lines), strict=True)
            ]
            assert sums in ([], [total.cost, total.charge, total.orders, total.images])
        await db.aclose()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(check(Path(folder) / "books.db"))


async def test_midnight_is_where_the_reader_lives(db: SqliteDatabase) -> None:
    await order(db, datetime(2026, 11, 20, 23, 30, tzinfo=UTC), cost=7)
    friday = period_of("daily", date(2026, 11, 20), UTC_ZONE, NOW)
    saturday = period_of("daily", date(2026, 11, 21), BERLIN, NOW)
    assert (await report(db, CATALOG, friday)).total.cost == 7
    assert (await report(db, CATALOG, saturday)).total.cost == 7


async def test_an_order_is_found_under_model_provider_tier_team_key_and_tags(db: SqliteDatabase) -> None:
    await order(db, NOON, offer="together:flux-schnell", cost=900, charge=1000, images=2, tags={"campaign": "spring"})
    await order(db, NOON, offer="fal:flux-2-pro", cost=5000, team="other", key_id="key_2")
    found = await read(db)
    names = {
        view: [(line.name, line.cost, line.charge, line.images) for line in lines] for view, lines in found.by.items()
    }
    assert names == {
        "model": [("flux-2-pro", 5000, 5000, 1), ("flux-schnell", 900, 1000, 2)],
        "provider": [("fal", 5000, 5000, 1), ("together", 900, 1000, 2)],
        "tier": [("export", 5000, 5000, 1), ("preview", 900, 1000, 2)],
        "team": [("other", 5000, 5000, 1), ("acme", 900, 1000, 2)],
        "key": [("key_2", 5000, 5000, 1), ("key_1", 900, 1000, 2)],
    }
    assert [(line.name, line.cost) for line in found.tags["campaign"]] == [("-", 5000), ("spring", 900)]


async def test_savings_are_reckoned_for_the_same_pictures_at_the_tariffs_in_force(db: SqliteDatabase) -> None:
    preview = await order(db, NOON, offer="together:flux-schnell", cost=2_831_155)
    await order(db, NOON, offer="together:flux-schnell", cost=2_831_155)
    await order(db, NOON, offer="fal:flux-2-pro", cost=30_000_000, parent=preview.id)
    actual = 2 * 2_831_155 + 30_000_000
    assert saved(await read(db)) == {
        "always-pro": (60_000_000, actual),  # two pictures at $0.03; the promotion is not drawn again
        "always-fal": (36_000_000, actual),  # $0.003 a preview, the same export
        "always-together": (actual, actual),
        "cheapest-single": (actual, actual),
    }


async def test_what_a_seller_cannot_draw_counts_at_what_it_did_cost(db: SqliteDatabase) -> None:
    await order(db, NOON, offer="fal:flux-schnell", cost=12_000_000, size=(2048, 2048))
    together = next(each for each in (await read(db)).baselines if each.name == "always-together")
    assert (together.cost, together.not_served) == (12_000_000, 1)


async def test_pro_pictures_that_no_preview_led_to_are_pointed_out_with_their_worth(db: SqliteDatabase) -> None:
    previews = [await order(db, NOON, offer="together:flux-schnell", cost=2_831_155) for _ in range(20)]
    await order(db, NOON, offer="fal:flux-2-pro", cost=30_000_000, parent=previews[0].id)
    for _ in range(10):
        await order(db, NOON, offer="fal:flux-2-pro", cost=30_000_000)
    (found,) = [each for each in (await read(db)).suggestions if each.name == "preview-first"]
    # Ten at $0.03, less ten previews at $0.002831155, less the twentieth that would still be promoted.
    assert found.nano_usd == 300_000_000 - 28_311_550 - 15_000_000
    assert "of 20 previews 1 were promoted (5%)" in found.evidence


async def test_the_same_request_twice_is_pointed_out_and_another_seed_is_not(db: SqliteDatabase) -> None:
    await order(db, NOON, cost=500, prompt="a lighthouse", tags={"job": "1"})
    await order(db, NOON, cost=700, prompt="a lighthouse", tags={"job": "2"})
    await order(db, NOON, cost=700, prompt="a lighthouse", team="other")
    (found,) = [each for each in (await read(db)).suggestions if each.name == "repeated-requests"]
    assert found.nano_usd == 500
    assert found.evidence.startswith("1 orders")


async def test_edits_are_neither_priced_elsewhere_nor_taken_for_repeats(db: SqliteDatabase) -> None:
    for _ in range(2):  # of two pictures, which the records tell apart only by their sizes
        await order(db, NOON, offer="fal:flux-2-pro", cost=45_000_000, prompt="remove the car", operation="edit")
    found = await read(db)
    assert {name: cost for name, (cost, _) in saved(found).items()} == dict.fromkeys(saved(found), 90_000_000)
    assert found.suggestions == []


async def test_a_size_just_above_a_whole_megapixel_is_pointed_out(db: SqliteDatabase) -> None:
    await order(db, NOON, offer="fal:flux-dev", cost=50_000_000, size=(1040, 1024))
    (found,) = [each for each in (await read(db)).suggestions if each.name == "size-just-above"]
    assert found.nano_usd == 25_000_000
    assert "1040x1024 at fal:flux-dev could be 1024x1024" in found.evidence


async def test_billed_failures_and_unknown_costs_are_pointed_out(db: SqliteDatabase) -> None:
    await order(db, NOON, cost=400, charge=0, images=0)
    hold = new_hold(900)
    await db.hold("own_1", [hold], [], NOON)
    await db.suspend("own_1", hold.attempt_id, Outcome(error="timed_out"), NOON)
    found = {each.name: each.nano_usd for each in (await read(db)).suggestions}
    assert found == {"billed-failures-fal": 400, "unknown-costs-fal": None}
    await db.close(Closing(attempt_id=hold.attempt_id, state="released", at=NOON))


async def test_above_50_000_pictures_a_month_negotiating_is_suggested(db: SqliteDatabase) -> None:
    for number in range(10):
        await order(db, NOON + timedelta(seconds=number), cost=30_000_000, images=200)
    period = period_of("daily", NOON.date(), UTC_ZONE, NOW)
    found = {each.name: each for each in (await report(db, CATALOG, period)).suggestions}
    assert found["negotiate-fal"].nano_usd == 15_000_000  # 5 % of $0.30
    assert "60,875 pictures a month" in found["negotiate-fal"].evidence


async def test_exports_that_nobody_fetched_are_pointed_out_where_their_team_fetches_most(db: SqliteDatabase) -> None:
    for number in range(40):
        team = "acme" if number < 30 else "inline"
        picture = await order(db, NOON, offer="fal:flux-2-pro", cost=30_000_000, team=team, tier="export")
        if number < 21:
            await db.count_fetches({picture.id: 1 + number})
    found = {each.name: each for each in (await read(db)).suggestions}
    told = found["never-fetched-export"]
    assert (told.nano_usd, told.evidence) == (
        9 * 30_000_000, "9 of 30 pictures of the export tier were never fetched",
    )  # fmt: skip
    assert "export the ones that are wanted" in told.do


async def test_credit_that_will_be_lost_and_credit_that_nobody_draws_from_are_pointed_out(db: SqliteDatabase) -> None:
    in_ten_days = NOW + timedelta(days=10)
    terms = {
        "fal": Billing(
            lots=(
                Lot(name="spring", amount=30 * USD, expires=in_ten_days),
                Lot(name="summer", amount=20 * USD, expires=in_ten_days + timedelta(days=10)),
            )
        ),
        "together": Billing(lots=(Lot(name="gift", amount=5 * USD),)),
    }
    await db.set_billing(terms)
    catalog, _ = november()
    period = period_of("daily", NOON.date(), UTC_ZONE, NOW)
    for second in range(2):
        await order(db, NOON + timedelta(seconds=second), cost=USD)
    found = {each.name: each for each in (await report(db, catalog, period, terms)).suggestions}
    # $2 are drawn already; at $2 a day $20 more go in ten days, and the next lot gets the ten days after.
    assert found["credit-fal-spring"].nano_usd == 8 * USD
    assert "credit-fal-summer" not in found
    assert found["credit-together-gift"].nano_usd == 5 * USD
    assert "nothing was ordered there" in found["credit-together-gift"].evidence


async def filled(folder: Path) -> None:
    db = SqliteDatabase(str(folder / "pixelgate.db"), "process")
    await order(db, NOON, offer="fal:flux-2-pro", cost=30_000_000, tags={"<b>": "x&y"})
    await db.aclose()


def test_a_report_comes_as_text_json_csv_and_one_html_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(filled(tmp_path))
    words = ["report", "weekly", "--date", "2026-11-21", "--state", str(tmp_path)]
    assert run(words) == 0
    assert "cost $0.03, charged $0.03" in capsys.readouterr().out
    assert run([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["total"]["cost_nano_usd"], told["period"]["first"]) == (30_000_000, "2026-11-16")
    assert run([*words, "--csv", "--currency", "EUR", "--rate", "0.92"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert (rows[0]["view"], rows[0]["cost_nano_usd"], rows[0]["currency"]) == ("total", "30000000", "EUR")
    assert float(rows[0]["cost"]) == pytest.approx(0.0276)
    assert run([*words, "--html", str(tmp_path / "week.html")]) == 0
    html = (tmp_path / "week.html").read_text()
    assert "<svg" in html
    assert "&lt;b&gt;" in html
    assert not re.search(r"https?:|<script|<link|@import|url\(", html)


HOSTILE = ("=HYPERLINK(1)", "\x1b[2J", "<script>", "Grüße 🎨", 'a,b\n"c"', "\u202egnp")


async def hostile(folder: Path) -> tuple[int, int]:
    """Books across the end of summer time, with refunds in another month; answers what October and November cost."""
    db = SqliteDatabase(str(folder / "pixelgate.db"), "process")
    begin = datetime(2026, 10, 24, 22, tzinfo=UTC)
    for number in range(30):  # the day has 25 hours in Berlin
        tags = {"from": HOSTILE[number % len(HOSTILE)], HOSTILE[number % len(HOSTILE)]: "x"}
        await order(
            db, begin + number * timedelta(hours=1), cost=1_000_003 + number, team=f"Zürich {number % 2}", tags=tags
        )
    for number, at in enumerate((datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))):
        await db.correct(Correction(book="cost", party="fal", amount=-7, note=f"{number}", at=at, endpoint="flux"))
    await db.aclose()
    spent = sum(1_000_003 + number for number in range(30))
    return spent - 7, -7


def test_every_format_says_the_same_to_the_nano_dollar_whatever_callers_call_things(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    october, november = asyncio.run(hostile(tmp_path))
    where = ["--state", str(tmp_path)]

    def said(*words: str) -> str:
        assert run([*words, *where]) == 0
        return capsys.readouterr().out

    for day, cost in (("2026-10-25", october), ("2026-11-01", november)):
        words = ("report", "monthly", "--date", day, "--tz", "UTC")
        told = json.loads(said(*words, "--json"))
        rows = list(csv.DictReader(io.StringIO(said(*words, "--csv"))))
        for view in {row["view"] for row in rows}:
            assert sum(int(row["cost_nano_usd"]) for row in rows if row["view"] == view) == cost, view
        said(*words, "--html", str(tmp_path / "report.html"))
        month = ("ledger", "export", "--month", day[:7])
        focus = csv.DictReader(io.StringIO(said(*month, "--format", "focus")))
        entries = csv.DictReader(io.StringIO(said(*month)))
        posted = [row for row in entries if row["book"] == "cost" and row["kind"] in ("settle", "correction")]
        assert told["total"]["cost_nano_usd"] == cost
        assert sum(Decimal(row["BilledCost"]) for row in focus) == Decimal(cost) / USD
        assert sum(int(row["amount"]) for row in posted) == cost
        assert f"{Decimal(cost) / USD:f}".lstrip("-") in (tmp_path / "report.html").read_text()
        assert not [row for row in rows if row["name"].startswith(("=", "+", "-", "@"))]
        assert "\x1b" not in said(*words)
    sunday = json.loads(said("report", "daily", "--date", "2026-10-25", "--tz", "Europe/Berlin", "--json"))
    assert sunday["total"]["orders"] == 25


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["--date", "2099-01-01"], "'date'"),
        (["--date", "tomorrow"], "'date'"),
        (["--tz", "Mars"], "'tz'"),
        (["--currency", "QQQ"], "'currency'"),
        (["--json", "--csv"], "choose one"),
    ],
)
def test_what_a_report_cannot_be_about_is_refused_by_its_field(
    words: list[str], field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", "daily", "--state", str(tmp_path), *words]) == 2
    assert field in capsys.readouterr().err
