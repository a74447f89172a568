"""What the doctor finds wrong with an account, without spending and with."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from gateway.cli import run
from gateway.cli.doctor import Finding, examine
from gateway.cli.doctor_spend import Drawn, draw_one_each
from gateway.settings import Settings, default_config
from providers.sandbox import Sandbox, start
from tests.support.town import TIME_SCALE, settings

GONE = """
model: flux-gone
title: Gone
tier: standard
licence: {name: any, commercial: true}
offers:
  - provider: fal
    endpoint: fal-ai/flux/gone
    price: {per_image: $0.03}
    abilities: {sizes: {min: 256, max: 2048, multiple: 16}}
    typical_seconds: 3
    source: a page that is gone, too
    checked_on: 2026-11-25
"""


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with await start(time_scale=TIME_SCALE, pictures="plain") as made:
        yield made


def keyed(folder: Path, sandbox: Sandbox, fal: str) -> Settings:
    accounts = settings(folder, sandbox.url).model_dump(mode="python", exclude_unset=True)["accounts"]
    accounts["fal"]["key"] = fal
    return settings(folder, sandbox.url, accounts=accounts)


def about(findings: Sequence[Finding], name: str) -> list[str]:
    return [f"{found.verdict}: {found.says}" for found in findings if found.about == f"account {name}"]


async def test_an_account_in_order_is_told_with_its_limits_offers_and_a_quote(tmp_path: Path, sandbox: Sandbox) -> None:
    findings = await examine(settings(tmp_path, sandbox.url))
    told, good = about(findings, "fal")
    assert told.startswith("ok: on; at most 10 orders at once; ")
    assert told.endswith("the cheapest picture 256x256 at fal:flux-schnell for $0.003")
    assert good.startswith("ok: key and ")
    assert sandbox.invoice()["total_nano_usd"] == {}


async def test_a_key_that_is_refused_is_named(tmp_path: Path, sandbox: Sandbox) -> None:
    findings = await examine(keyed(tmp_path, sandbox, "unknown-key"))
    assert any("fal refuses the key of account `fal`" in said for said in about(findings, "fal"))


async def test_a_model_that_the_seller_has_retired_is_named_alone(tmp_path: Path, sandbox: Sandbox) -> None:
    config = tmp_path / "config"
    shutil.copytree(default_config() / "catalog", config / "catalog")
    (config / "catalog" / "flux-gone.yaml").write_text(GONE)
    findings = await examine(settings(tmp_path / "state", sandbox.url, config=config))
    assert about(findings, "fal")[1:] == ["fail: fal has no endpoint fal-ai/flux/gone any more"]


async def test_spending_draws_one_cheapest_picture_each_and_the_books_agree(tmp_path: Path, sandbox: Sandbox) -> None:
    drawn = [one async for one in draw_one_each(settings(tmp_path, sandbox.url))]
    assert drawn == [
        Drawn(account="fal", offer="fal:flux-schnell", nano_usd=3_000_000),
        Drawn(account="together", offer="together:flux-schnell", nano_usd=176_947),  # 256 x 256 / 10^6 x $0.0027
    ]
    assert sandbox.invoice()["total_nano_usd"] == {"fal": 3_000_000, "together": 176_947}


async def test_spending_names_an_account_without_credit(tmp_path: Path, sandbox: Sandbox) -> None:
    drawn = [one async for one in draw_one_each(keyed(tmp_path, sandbox, "sandbox-fal-broke"))]
    assert (drawn[0].account, drawn[0].offer, drawn[0].nano_usd) == ("fal", None, 0)
    assert "Exhausted balance" in str(drawn[0].fault)
    assert drawn[1].fault is None


def test_spending_offline_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--offline", "--spend", "--state", str(tmp_path)]) == 2
    assert "leave one of them out" in capsys.readouterr().err


def test_findings_are_also_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gateway.yaml").write_text("accounts: {fal: {kind: fal, key_env: NO_SUCH_KEY}}\n")
    assert run(["doctor", "--offline", "--json", "--config", str(tmp_path), "--state", str(tmp_path / "state")]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["spent"] == []
    assert {"verdict": "warn", "about": "account fal", "says": "off: NO_SUCH_KEY is not set"} in told["findings"]
