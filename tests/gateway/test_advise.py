from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.cli import run
from gateway.money.selfhosting import Question, advise
from gateway.revisions import load_revision
from gateway.settings import load_settings
from gateway.storage.activity import Activity, Drawn, Spent
from gateway.storage.database.sqlite import SqliteDatabase
from policies.money import from_usd
from policies.tariffs import MachineSecond
from policies.types import Offer
from tests.support.months import order

SHIPPED = load_revision(load_settings(None, flags={}), every_account=True).catalog
LISTED = SHIPPED.offers["fal:flux-dev"]
OWN: Offer = replace(
    LISTED, id="own:flux-dev", account="own", kind="selfhosted", tariff=MachineSecond(from_usd("0.34"))
)
CATALOG = replace(
    SHIPPED,
    offers={LISTED.id: LISTED, OWN.id: OWN},
    by_model={**SHIPPED.by_model, "flux-dev": (LISTED, OWN)},
)


def question(**terms: Any) -> Question:
    given = {"model": "flux-dev", "width": 1024, "height": 1024, "steps": None, "hour": from_usd("0.34")}
    return Question(**{**given, "peak": Fraction(165), **terms})


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert run(["advise", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_published_sum_is_reproduced_doubted_and_licensed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--images-per-hour", "600", "--images-per-month", "100000", "--price", "$0.025", "--engineering", "$0"]
    found = told(capsys, "selfhost", *words, "--state", str(tmp_path))
    assert found["full_load_nano_usd"] == 566_667
    assert found["break_even_per_hour"] == 13.6
    assert "at most 305 in bf16" in found["pace_doubt"]
    assert any("need a licence" in remark for remark in found["sure"])
    licence = ["--licence-fee", "$999", "--licence-included", "100000", "--licence-overage", "$0.01"]
    licensed = told(capsys, "selfhost", *words, *licence, "--state", str(tmp_path))
    assert licensed["licence_per_image_nano_usd"] == 9_990_000
    assert licensed["all_in_nano_usd"] == found["all_in_nano_usd"] + 9_990_000
    assert not any("need a licence" in remark for remark in licensed["sure"])


def test_the_pace_is_arithmetic_until_a_hundred_orders_were_measured() -> None:
    drawn = Drawn("own:flux-dev", 1024, 1024, 1, None, promoted=False)
    few = Activity(drawn={drawn: Spent(cost=99 * 1_700_000, orders=99, images=99)})
    many = Activity(drawn={drawn: Spent(cost=200 * 1_700_000, orders=200, images=200)})
    asked = question(images_per_month=1000)
    assert advise(asked, few, CATALOG, 720).pace.known == "arithmetic"
    pace = advise(asked, many, CATALOG, 720).pace
    assert (pace.known, pace.images_per_hour, pace.orders) == ("measured", Fraction(200), 200)  # $0.34 over $0.0017


def test_a_bought_picture_costs_what_was_paid_where_enough_were() -> None:
    drawn = Drawn("fal:flux-dev", 1024, 1024, 1, None, promoted=False)
    paid = Activity(drawn={drawn: Spent(cost=100 * 20_000_000, orders=100, images=100)})
    asked = question(images_per_month=1000)
    assert advise(asked, paid, CATALOG, 720).bought.price == 20_000_000
    assert advise(asked, Activity(), CATALOG, 720).bought.price == 25_000_000


def test_own_traffic_is_mixed_hour_by_hour() -> None:
    hours = {(hour, "fal:flux-dev"): 60 if hour % 24 < 12 else 0 for hour in range(240)}
    asked = question(images_per_hour=Fraction(100), utilisation=Fraction(1), price=from_usd("0.025"))
    found = advise(asked, Activity(hours=hours), CATALOG, 240)
    assert (found.split.machines, found.split.own_images) == (1, 7200)
    assert found.split.saved == 240 // 2 * 60 * 25_000_000 - 240 * from_usd("0.34")
    assert found.images_per_month == 21_915


def test_a_volume_is_spread_over_the_hours_of_each_day() -> None:
    asked = question(
        images_per_hour=Fraction(600), price=from_usd("0.025"), images_per_month=365_250, hours_a_day=10, starts=0,
        utilisation=Fraction(1), cold_start_s=Fraction(60),
    )  # fmt: skip
    found = advise(asked, Activity(), CATALOG, 720)
    assert found.split.own_images + found.split.bought_images == 84_000  # a week of 12,000 a day, 1,200 an hour
    assert (found.by_the_hour.machine_hours, found.by_the_hour.starts) == (2 * 70, 2 * 7)
    assert found.split.machine_hours == 2 * 168
    assert found.verdict.startswith("Own: 2 machines, switched on and off")


def test_advice_reads_the_records_of_a_gateway(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def fill() -> None:
        db = SqliteDatabase(str(tmp_path / "pixelgate.db"), "process")
        for hour in range(3):
            at = datetime.now(UTC) - timedelta(hours=hour)
            await order(db, at, offer="fal:flux-dev", cost=1_000_000_000, images=40)
        await db.aclose()

    asyncio.run(fill())
    found = told(capsys, "selfhost", "--days", "1", "--state", str(tmp_path))
    assert (found["images_per_month"], found["bought_nano_usd"]) == (3652, 25_000_000)
    assert run(["advise", "selfhost", "--model", "flux-schnell", "--state", str(tmp_path)]) == 1
    assert "--images-per-month" in capsys.readouterr().err


def test_capacity_says_slots_credit_and_gpus_for_a_peak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = {"own": {"kind": "selfhosted", "base_url": "http://127.0.0.1:1", "concurrency": 1}}
    (tmp_path / "gateway.yaml").write_text(
        json.dumps({"accounts": {"fal": {"kind": "fal", "key_env": "FAL_KEY", "concurrency": 2}, **own}})
    )
    words = ["--peak", "3600/h", "--model", "flux-schnell", "--hours", "2", "--images-per-hour", "1200"]
    assert run(["advise", "capacity", *words, "--config", str(tmp_path), "--json"]) == 0
    rows = {row["offer"]: row for row in json.loads(capsys.readouterr().out)["offers"]}
    assert (rows["fal:flux-schnell"]["slots"], rows["fal:flux-schnell"]["enough"]) == (2, True)
    assert rows["fal:flux-schnell"]["credit_nano_usd"] == 7_200 * 3_000_000
    assert rows["own:flux-schnell"]["gpus"] >= 4  # three are busy all the time
    assert rows["own:flux-schnell"]["enough"] is False


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["selfhost", "--gpu", "abacus"], "--gpu"),
        (["selfhost", "--gpu-hour", "cheap"], "--gpu-hour"),
        (["selfhost", "--utilisation", "1.5"], "--utilisation"),
        (["selfhost", "--images-per-month", "0"], "--images-per-month"),
        (["selfhost", "--model", "flux-9"], "--model"),
        (["selfhost", "--size", "big"], "--size"),
        (["selfhost", "--model", "recraft-v3", "--images-per-month", "9"], "images-per-hour"),
        (["capacity", "--peak", "600"], "--peak"),
        (["capacity", "--peak", "-1/h"], "--peak"),
        (["capacity", "--peak", "1/s", "--on-time", "1"], "--on-time"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_by_its_field(
    words: list[str], field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["advise", *words, "--state", str(tmp_path)]) == 2
    assert field in capsys.readouterr().err


def test_the_calculator_multiplies_to_the_nano_dollar(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["calculator", "--model", "flux-schnell:together", "--volumes", "100,100000", "--json"]) == 0
    (offer,) = json.loads(capsys.readouterr().out)["offers"]
    assert offer["volumes"] == [
        {"images_per_month": 100, "month_nano_usd": 283_115_500, "year_nano_usd": 3_397_386_000, "certain": True},
        {
            "images_per_month": 100_000,
            "month_nano_usd": 283_115_500_000,
            "year_nano_usd": 3_397_386_000_000,
            "certain": True,
        },
    ]
    assert run(["calculator", "--model", "flux-dev:fal"]) == 0
    assert "2,500.00" in capsys.readouterr().out
    assert run(["calculator", "--model", "flux-dev:fal", "--yearly"]) == 0
    assert "30,000.00" in capsys.readouterr().out
    assert run(["calculator", "--volumes", "many"]) == 2
