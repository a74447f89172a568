from __future__ import annotations

import asyncio
import csv
import io
import sys
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from pyarrow import parquet

from gateway.cli import run
from gateway.storage.database import Correction
from gateway.storage.database.sqlite import SqliteDatabase
from tests.support.books import NOON
from tests.support.months import order


@pytest.fixture
def state(tmp_path: Path) -> Path:
    async def fill() -> None:
        db = SqliteDatabase(str(tmp_path / "pixelgate.db"), "process")
        await order(db, NOON, offer="fal:flux-dev", cost=25_000_000, size=(1024, 768), tags={"campaign": "spring"})
        await order(db, NOON - timedelta(days=40), offer="together:flux-schnell", cost=2_831_155)
        await db.correct(
            Correction(book="cost", party="fal", amount=-1_000, note="usage report", at=NOON, endpoint="flux/dev")
        )
        await db.aclose()

    asyncio.run(fill())
    return tmp_path


def focus(state: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[Mapping[str, str]]:
    assert run(["ledger", "export", "--format", "focus", "--state", str(state), *words]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_focus_has_a_row_for_every_posted_cost_and_its_sum(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = focus(state, capsys)
    assert sum(Decimal(row["BilledCost"]) for row in rows) == Decimal("0.027830155")
    first = rows[0]
    assert {name: first[name] for name in ("ProviderName", "ChargeCategory", "BillingCurrency", "Tags", "x_Size")} == {
        "ProviderName": "fal.ai",
        "ChargeCategory": "Usage",
        "BillingCurrency": "USD",
        "Tags": '{"campaign":"spring"}',
        "x_Size": "1024x768",
    }
    assert (first["BillingPeriodStart"], first["BillingPeriodEnd"]) == ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")
    assert [row["ChargeCategory"] for row in rows] == ["Usage", "Usage", "Adjustment"]


def test_an_export_can_be_of_one_month(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [row["BilledCost"] for row in focus(state, capsys, "--month", "2026-10")] == ["0.002831155"]


def test_parquet_holds_every_entry_with_its_types(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = state / "entries.parquet"
    assert run(["ledger", "export", "--format", "parquet", "--output", str(path), "--state", str(state)]) == 0
    table = parquet.read_table(path)
    assert str(table.schema.field("amount").type) == "int64"
    assert str(table.schema.field("at").type) == "timestamp[us, tz=UTC]"
    assert run(["ledger", "export", "--state", str(state)]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [str(seq) for seq in table["seq"].to_pylist()] == [line["seq"] for line in lines]


def test_parquet_says_what_to_install_where_it_is_missing(
    state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    words = ["ledger", "export", "--format", "parquet", "--output", str(state / "x.parquet"), "--state", str(state)]
    assert run(words) == 1
    assert "pip install 'pixelgate[parquet]'" in capsys.readouterr().err
    assert run(["ledger", "export", "--format", "parquet", "--state", str(state)]) == 2
    assert "--output" in capsys.readouterr().err
