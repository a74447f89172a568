"""What quotes and the calculator say of accounts whose invoices are more than list prices."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.cli import run
from gateway.money.ledger import Ledger
from gateway.revisions import load_revision
from gateway.settings import load_settings
from gateway.storage.database.sqlite import SqliteDatabase
from gateway.storage.rows import Outcome
from gateway.yaml_files import BadFile
from tests.support.books import HandClock, new_hold

FAL = """
accounts:
  fal:
    kind: fal
    key_env: FAL_KEY
    billing:
      volume:
        - {from_request: 3, discount: 5%}
        - {from_request: 1000, discount: 10%}
      applies: marginal
      certain_to: 1001
      free:
        - {name: one, images: 1, per: once}
"""
OWN = """
accounts:
  own:
    kind: selfhosted
    machine_hour: $0.36
    nodes: [{name: rack, base_url: "http://127.0.0.1:9", dialect: openai, models: [flux-dev]}]
    billing:
      licences: [{model: flux-dev, fee: $999, included: 1, overage: $0.01}]
"""


def home(folder: Path, accounts: str) -> Path:
    (folder / "gateway.yaml").write_text(f"state: {folder / 'state'}\n{accounts}")
    return folder


async def _spend(folder: Path, orders: int) -> None:
    settings = load_settings(folder, environ={})
    settings.state.mkdir(exist_ok=True)
    clock = HandClock()
    clock.at = datetime.now(UTC)
    db = SqliteDatabase(str(settings.state / "pixelgate.db"), "process")
    ledger = Ledger(db, "own_1", clock)
    await ledger.set_billing(load_revision(settings, every_account=True).catalog.billings)
    for _ in range(orders):
        (hold,) = await ledger.hold([new_hold(25_000_000)])
        await hold.settle(cost=25_000_000, charge=25_000_000, outcome=Outcome(delivered=1), pictures=1)
    await db.aclose()


def quoted(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, object]:
    assert run(["quote", "--model", "flux-dev", "--config", str(folder), "--json", *more]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)["offers"][0]
    return found


def test_a_quote_shows_the_list_price_what_is_set_aside_and_what_the_invoice_makes_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = home(tmp_path, FAL)
    first = quoted(folder, capsys)
    assert (first["nano_usd"], first["hold_nano_usd"], first["expected_nano_usd"]) == (25_000_000, 25_000_000, 0)
    assert first["why"] == ["$0.025 of it is free"]
    asyncio.run(_spend(folder, 2))
    third = quoted(folder, capsys)
    assert (third["nano_usd"], third["hold_nano_usd"], third["expected_nano_usd"]) == (
        25_000_000,
        25_000_000,
        23_750_000,
    )
    month = f"{datetime.now(UTC):%Y-%m}"
    assert third["why"] == [f"request 3 of {month}: 5 % off"]
    assert third["revision"] == load_revision(load_settings(folder, environ={}), every_account=True).number
    assert run(["quote", "--model", "flux-dev", "--config", str(folder)]) == 0
    assert f"$0.02375  request 3 of {month}: 5 % off" in capsys.readouterr().out


def test_orders_of_one_call_are_expected_one_after_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = home(tmp_path, FAL)
    asyncio.run(_spend(folder, 1))
    four = quoted(folder, capsys, "--n", "4")
    # Requests 2 to 5 of the month; the free picture is gone.
    assert (four["nano_usd"], four["expected_nano_usd"]) == (100_000_000, 25_000_000 + 3 * 23_750_000)


def test_a_quote_of_a_month_to_come_counts_from_its_beginning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = home(tmp_path, FAL)
    asyncio.run(_spend(folder, 4))
    assert quoted(folder, capsys)["expected_nano_usd"] == 23_750_000
    assert quoted(folder, capsys, "--at", "2999-01-15")["expected_nano_usd"] == 25_000_000


def test_a_picture_beyond_the_licence_of_its_weights_costs_its_overage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = home(tmp_path, OWN)
    two = quoted(folder, capsys, "--n", "2")
    assert isinstance(two["nano_usd"], int)
    assert two["expected_nano_usd"] == two["nano_usd"] + 10_000_000
    assert two["why"] == [
        "the month's licence of flux-dev is due with it: $999",
        "$0.01 for pictures of flux-dev beyond the month's licence",
    ]


def test_the_calculator_counts_discounts_and_what_is_free_month_by_month(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["calculator", "--model", "flux-dev:fal", "--config", str(home(tmp_path, FAL)), "--volumes", "2,3,1002"]
    assert run([*words, "--json"]) == 0
    (offer,) = json.loads(capsys.readouterr().out)["offers"]
    # Free is one picture, once; 5 % off is 23,750,000, 10 % off 22,500,000.
    big = 25_000_000 + 997 * 23_750_000 + 3 * 22_500_000
    assert offer["volumes"] == [
        {"images_per_month": 2, "month_nano_usd": 25_000_000, "year_nano_usd": 575_000_000, "certain": True},
        {
            "images_per_month": 3,
            "month_nano_usd": 48_750_000,
            "year_nano_usd": 48_750_000 + 11 * 73_750_000,
            "certain": True,
        },
        {
            "images_per_month": 1002,
            "month_nano_usd": big,
            "year_nano_usd": big + 11 * (big + 25_000_000),
            "certain": False,
        },
    ]
    assert run(words) == 0
    assert f"about {big / 1e9:.2f}" in capsys.readouterr().out


def test_the_command_shows_how_invoices_stand_and_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAL_KEY", "sandbox-fal")
    credit = "      credit: [{name: autumn, amount: $1, expires: 2999-01-01}]\n"
    folder = home(tmp_path, FAL.replace("    billing:\n", f"    billing:\n{credit}"))
    asyncio.run(_spend(folder, 2))
    assert run(["ledger", "invoices", "--config", str(folder), "--json"]) == 0
    (standing,) = json.loads(capsys.readouterr().out)["invoices"]
    assert standing == {
        "account": "fal",
        "month": f"{datetime.now(UTC):%Y-%m}",
        "requests": 2,
        "listed_nano_usd": 25_000_000,
        "due_nano_usd": 0,
        "discount": "5 %",
        "left": [
            {"name": "one", "what": "free images", "left": 0, "of": 1, "ends": None},
            {"name": "autumn", "what": "credit", "left": 975_000_000, "of": 10**9, "ends": "2999-01-01T00:00:00Z"},
        ],
    }
    assert run(["ledger", "invoices", "--config", str(folder)]) == 0
    assert "$0.975  credit autumn    $1  2999-01-01T00:00Z" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("before", "after", "place", "said"),
    [
        ("discount: 5%", "discount: -5%", "9:39", "a discount such as 5%"),
        ("from_request: 1000", "from_request: 3", "10:26", "request 3 overlaps the tier above it, from request 3"),
        ("discount: 10%", "discount: 4%", "10:42", "4 % is not above the 5 % before it"),
        (
            "      applies: marginal\n",
            "      zone: Mars\n      applies: marginal\n",
            "11:13",
            "no time zone is called 'Mars'",
        ),
        ("images: 1", "pictures: 1", "14:23", "unknown key 'pictures'"),
        ("images: 1", "amount: 5 EUR", "14:31", "write dollars"),
        (
            "      free:",
            "      credit: [{name: a, amount: $5, slots: 9}]\n      free:",
            "5:5",
            "also need `concurrency`",
        ),
        ("certain_to: 1001", "certain_to: 9", "12:19", "9 lies before the last tier, which begins at 1,000"),
    ],
)
def test_terms_that_make_no_sense_are_shown_with_line_and_column(
    tmp_path: Path, before: str, after: str, place: str, said: str
) -> None:
    folder = home(tmp_path, FAL.replace(before, after))
    with pytest.raises(BadFile) as error:
        load_revision(load_settings(folder, environ={}), every_account=True)
    assert f"gateway.yaml:{place}:" in str(error.value)
    assert said in str(error.value)


def test_a_licence_of_a_model_that_nobody_sells_is_shown_with_line_and_column(tmp_path: Path) -> None:
    folder = home(tmp_path, OWN.replace("model: flux-dev,", "model: flux-def,"))
    with pytest.raises(BadFile, match=r"gateway.yaml:9:26: no selfhosted offer of 'flux-def'.*flux-dev"):
        load_revision(load_settings(folder, environ={}))


def test_a_contract_a_hundred_times_off_the_list_is_refused_until_somebody_confirms_it(tmp_path: Path) -> None:
    agreed = "    prices:\n      flux-dev: {per_image: $2.50}\n"
    folder = home(tmp_path, FAL.replace("    billing:\n", f"{agreed}    billing:\n"))
    with pytest.raises(BadFile, match=r"gateway.yaml:8:17: more than 3 times higher or lower than the listed one"):
        load_revision(load_settings(folder, environ={}), every_account=True)
    home(tmp_path, FAL.replace("    billing:\n", f"{agreed.replace('50}', '50, confirm: true}')}    billing:\n"))
    load_revision(load_settings(folder, environ={}), every_account=True)
