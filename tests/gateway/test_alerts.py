"""Alerts: each thing once, to every hook, signed; and nothing lost when a hook is down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from aiohttp import web
from msgspec.structs import replace

from gateway.cli import run
from gateway.errors import BudgetSpent
from gateway.features.alerts import KINDS, Alerts, Hook, signature
from gateway.features.pressure_watch import PressureWatch
from gateway.features.spend_watch import SpendWatch
from gateway.money.ledger import Ledger
from gateway.money.reconcile import Resolution
from gateway.settings import AlertKind, Silenced
from gateway.storage.database.sqlite import SqliteDatabase
from gateway.storage.rows import BudgetRow
from policies.billing import Billing, VolumeTier
from policies.money import USD
from providers.contract import UsageRecord
from providers.transport import Http
from tests.support.books import NOON, HandClock, new_hold
from tests.support.months import order


class Desk:
    """A hook that keeps what it gets, and refuses when told to."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.down = False
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        if self.down:
            return web.Response(status=503)
        self.got.append((dict(request.headers), await request.read()))
        return web.Response()

    @property
    def levels(self) -> list[int]:
        facts = [json.loads(body)["facts"] for _, body in self.got]
        return [each["level"] for each in facts if "level" in each]

    @property
    def texts(self) -> list[str]:
        return [json.loads(body)["text"] for _, body in self.got]


@asynccontextmanager
async def a_desk() -> AsyncIterator[Desk]:
    desk, app = Desk(), web.Application()
    app.router.add_post("/", desk.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    desk.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        yield desk
    finally:
        await runner.cleanup()


class House:
    """A ledger with alerts, on a clock that tests move."""

    def __init__(self, folder: Path, *desks: Desk) -> None:
        self.clock = HandClock()
        self.db = SqliteDatabase(str(folder / "books.db"), "process")
        self.ledger = Ledger(self.db, "own_1", self.clock)
        self.http = Http()
        hooks = [Hook(name=f"HOOK_{n}", url=desk.url, form="json", secret="s3") for n, desk in enumerate(desks)]
        self.alerts = Alerts(self.db, self.ledger, self.clock, self.http, hooks, (50, 80, 100))

    async def spend(self, amount: int) -> None:
        await self.ledger.hold([new_hold(amount)])

    async def aclose(self) -> None:
        await self.http.aclose()
        await self.db.aclose()


@asynccontextmanager
async def a_house(folder: Path, *desks: Desk) -> AsyncIterator[House]:
    house = House(folder, *desks)
    try:
        yield house
    finally:
        await house.aclose()


def monthly(limit: int = 1000) -> BudgetRow:
    return BudgetRow(id="bud_1", of="team", name="acme", limit=limit, window="month", zone="UTC", created=NOON)


async def test_each_level_of_a_budget_is_told_once_a_window(tmp_path: Path) -> None:
    async with a_desk() as desk, a_house(tmp_path, desk) as house:
        await house.db.set_budget(monthly())
        for amount in (400, 100, 200, 200):
            await house.spend(amount)
            await house.alerts.work()
            await house.alerts.work()
        assert desk.levels == [50, 80]
        house.clock.forward(10 * 86_400)
        await house.spend(600)
        await house.alerts.work()
        assert desk.levels == [50, 80, 50]


async def test_a_soft_limit_is_told_once_a_window_with_what_is_done(tmp_path: Path) -> None:
    async with a_desk() as desk, a_house(tmp_path, desk) as house:
        await house.db.set_budget(replace(monthly(), soft=30, then="preview"))
        await house.spend(299)
        await house.alerts.work()
        assert desk.texts == []
        await house.spend(1)
        await house.alerts.work()
        await house.alerts.work()
        (text,) = desk.texts
        assert "past its soft limit of 30 %" in text
        assert "drawn at the lowest" in text


async def test_a_rolling_budget_is_told_of_once_in_its_length_and_not_at_each_of_its_steps(tmp_path: Path) -> None:
    async with a_desk() as desk, a_house(tmp_path, desk) as house:
        await house.db.set_budget(replace(monthly(), window="24h", soft=30))
        house.clock.at = datetime(2026, 11, 11, tzinfo=UTC)
        for _ in range(48):
            await house.spend(25)
            await house.alerts.work()
            house.clock.forward(3600)
        told = ["is past its soft limit" in text for text in desk.texts]
        assert (told.count(True), desk.levels) == (2, [50, 50])


async def test_a_budget_that_refuses_an_order_is_told_to_be_spent_before_its_last_nano_dollar(tmp_path: Path) -> None:
    async with a_desk() as desk, a_house(tmp_path, desk) as house:
        await house.db.set_budget(monthly())
        await house.spend(900)
        with pytest.raises(BudgetSpent):
            await house.spend(200)
        await house.alerts.work()
        assert desk.texts[-1].endswith("0.0000009 of 0.000001 USD are, and an order no longer fitted.")


async def test_a_pace_that_does_not_last_is_told_with_its_hour(tmp_path: Path) -> None:
    async with a_desk() as desk, a_house(tmp_path, desk) as house:
        house.clock.at = datetime(2026, 11, 11, tzinfo=UTC)
        await house.db.set_budget(monthly())
        await house.spend(499)
        await house.alerts.work()
        await house.alerts.work()
        (text,) = desk.texts
        assert "will be spent around 2026-11-21 00:00 UTC at this pace" in text


async def test_a_hook_that_is_down_gets_everything_later_and_the_others_at_once(tmp_path: Path) -> None:
    async with a_desk() as first, a_desk() as second, a_house(tmp_path, first, second) as house:
        first.down = True
        await house.alerts.reconciled("fal", Resolution(corrections=2, corrected_by=1_500_000, endpoints=("flux/dev",)))
        await house.alerts.work()
        assert (len(first.got), len(second.got)) == (0, 1)
        first.down = False
        await house.alerts.work()
        await house.alerts.work()
        assert (len(first.got), len(second.got)) == (1, 1)
        assert (
            "fal bills other than our prices say: 2 of our entries were corrected, by 0.0015 USD in all (flux/dev)"
            in first.texts[0]
        )


async def test_orders_that_changed_places_at_a_discount_are_no_news_and_other_bills_there_are(tmp_path: Path) -> None:
    async with a_desk() as desk, a_house(tmp_path, desk) as house:
        await house.ledger.set_billing({"fal": Billing(tiers=(VolumeTier(2, 5_000),))})
        await order(house.db, house.clock.at, cost=1_000)
        await house.alerts.reconciled("fal", Resolution(corrections=2, corrected_by=0))
        await house.alerts.work()
        assert desk.texts == []
        await house.alerts.reconciled("fal", Resolution(corrections=2, corrected_by=1))
        await house.alerts.work()
        assert len(desk.texts) == 1


async def test_what_was_told_is_not_told_again_after_a_restart(tmp_path: Path) -> None:
    async with a_desk() as desk:
        for _ in range(2):
            async with a_house(tmp_path, desk) as house:
                await house.alerts.reconciled("fal", Resolution(corrections=1, corrected_by=5))
                await house.alerts.work()
        assert len(desk.got) == 1


async def test_what_is_posted_is_signed_and_carries_its_id(tmp_path: Path) -> None:
    async with a_desk() as desk, a_house(tmp_path, desk) as house:
        await house.alerts.reconciled("fal", Resolution(corrections=1, corrected_by=5))
        await house.alerts.work()
        headers, body = desk.got[0]
        at = int((NOON - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1))
        assert headers["X-Pixelgate-Signature"] == signature("s3", at, body)
        assert headers["X-Pixelgate-Alert"] == json.loads(body)["id"]


async def test_what_is_silenced_is_kept_and_posted_nowhere_and_the_same_of_another_account_is(tmp_path: Path) -> None:
    async with a_desk() as desk, a_house(tmp_path) as house:
        hook, quiet = Hook(name="DESK", url=desk.url, form="json"), Silenced(kind="strange_bill", account="fal")
        alerts = Alerts(house.db, house.ledger, house.clock, house.http, [hook], (50,), silenced=[quiet])
        stranger = UsageRecord(endpoint="flux/dev", nano_usd=5, at=NOON, request_id="theirs")
        for account in ("fal", "fal-eu"):
            await alerts.reconciled(account, Resolution(strangers=(stranger,), corrections=1, corrected_by=5))
        await alerts.work()
        told = [(json.loads(body)["kind"], json.loads(body)["facts"]["account"]) for _, body in desk.got]
        assert told == [("bill_drift", "fal"), ("strange_bill", "fal-eu"), ("bill_drift", "fal-eu")]
        assert len(await house.db.alerts(10)) == 4


def test_every_kind_can_be_silenced_and_no_other() -> None:
    assert {*get_args(AlertKind), "test"} == {*KINDS}


async def test_slack_gets_a_text_and_nothing_else(tmp_path: Path) -> None:
    async with a_desk() as desk, a_house(tmp_path) as house:
        hook = Hook(name="SLACK", url=desk.url, form="slack")
        alerts = Alerts(house.db, house.ledger, house.clock, house.http, [hook], (50,))
        await alerts.reconciled("fal", Resolution(corrections=1, corrected_by=5))
        await alerts.work()
        assert list(json.loads(desk.got[0][1])) == ["text"]


async def test_an_hour_that_costs_far_more_than_usual_is_told_once_a_day(tmp_path: Path) -> None:
    async with a_desk() as desk, a_house(tmp_path, desk) as house:
        watch = SpendWatch(house.db, house.clock, house.alerts)
        for _ in range(9):
            for cost in (USD // 2, USD // 2, USD // 2):
                await order(house.db, house.clock.at, cost=cost)
                house.clock.forward(3600)
            await watch.work()
            house.clock.forward(21 * 3600)
        assert desk.texts == []
        await order(house.db, house.clock.at, cost=2 * USD)
        await watch.work()
        await watch.work()
        again = SpendWatch(house.db, house.clock, house.alerts)  # as after a restart
        await again.work()
        await house.alerts.work()
        assert sorted(desk.texts) == [
            f"The spending of {name} is unusual: 2 USD in this hour; "
            "at this time of the day up to 1.5 USD would not be."
            for name in ("account fal", "gateway", "team acme")
        ]


async def test_an_account_whose_limits_stand_in_the_way_is_told_once_a_day(tmp_path: Path) -> None:
    async with a_desk() as desk, a_house(tmp_path, desk) as house:
        full = {"fal": True, "together": False}
        watch = PressureWatch(house.db, house.clock, house.alerts, lambda: full)
        for _ in range(100):
            await watch.work()
            house.clock.forward(5)
        await house.alerts.work()
        (text,) = desk.texts
        assert text.startswith("fal is at its limits: it had no room left at 60 of 60 looks within an hour.")
        house.clock.forward(3600)
        full["fal"] = False
        for _ in range(100):
            await watch.work()
            house.clock.forward(5)
        await house.alerts.work()
        assert len(desk.texts) == 1


async def test_orders_that_are_none_of_ours_are_told(tmp_path: Path) -> None:
    async with a_desk() as desk, a_house(tmp_path, desk) as house:
        line = UsageRecord(endpoint="flux", nano_usd=3_000_000, at=NOON, request_id="r1")
        await house.alerts.reconciled("fal", Resolution(strangers=(line, line)))
        await house.alerts.work()
        (text,) = desk.texts
        assert text.startswith("fal bills 2 orders that are none of ours, 0.006 USD in all.")


async def test_every_kind_can_be_tried_and_says_that_it_is_a_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_desk() as desk:
        (tmp_path / "gateway.yaml").write_text("alerts: {hooks: [{url_env: DESK}]}\n")
        monkeypatch.setenv("DESK", desk.url)
        where = ["--config", str(tmp_path)]
        assert await asyncio.to_thread(run, ["alerts", "test", "--kind", "all", *where]) == 0
        assert [json.loads(body)["kind"] for _, body in desk.got] == list(KINDS)
        assert all(text.startswith("This is a test of pixelgate's alerts") for text in desk.texts)
        assert await asyncio.to_thread(run, ["alerts", "test", "--kind", "budgets", *where]) == 2
        assert "did you mean 'budget'" in capsys.readouterr().err


def test_the_page_tells_of_every_kind() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "alerts.md").read_text()
    assert [kind for kind in KINDS if f"| `{kind}` |" not in page] == []


def test_hooks_that_are_not_set_or_not_there_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = "alerts: {hooks: [{url_env: NOT_SET}, {url_env: NOBODY, form: slack}]}\n"
    (tmp_path / "gateway.yaml").write_text(hooks)
    monkeypatch.setenv("NOBODY", "http://127.0.0.1:9/")
    assert run(["alerts", "test", "--config", str(tmp_path), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)["hooks"]
    assert said == [
        {"hook": "NOT_SET", "error": "the variable is not set"},
        {"hook": "NOBODY", "error": "no answer (NotSent)"},
    ]
