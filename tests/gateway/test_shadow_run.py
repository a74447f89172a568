"""Experiments over stored prompts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from bench.gateway_config import Home, add_to_policy, copy_catalog, write_home
from gateway.cli import run
from providers.sandbox import start
from tests.support import models

EXPERIMENT: dict[str, Any] = {
    "experiment": "stored",
    "champion": {"provider": "fal", "model": "flux-schnell"},
    "challengers": [{"name": "together", "account": "together"}],
    "sample": {"share": "5%"},
    "budget": {"day": "$1", "total": "$1"},
    "compare": ["cost", "latency", "failures", "score"],
}


def home_of(folder: Path, url: str, **changes: object) -> Home:
    accounts = {
        "fal": {"kind": "fal", "key_env": "FAL_KEY", "base_url": f"{url}/fal", "concurrency": 10},
        "together": {
            "kind": "together",
            "key_env": "TOGETHER_KEY",
            "base_url": f"{url}/together",
            "rate": 20,
            "burst": 20,
        },
    }
    home = write_home(folder / "home", settings={"accounts": accounts, "database": {"durability": "process"}})
    copy_catalog(home, pace=0.02)
    add_to_policy(home, experiments=[{**EXPERIMENT, **changes}], examples=[])
    return home


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAL_KEY", "sandbox-fal")
    monkeypatch.setenv("TOGETHER_KEY", "sandbox-together")


async def ran(home: Home, prompts: Path, *words: str) -> int:
    command = ["shadow", "run", "stored", "--prompts", str(prompts), "--json", "--config", str(home.folder), *words]
    return await asyncio.to_thread(run, command)


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    out = capsys.readouterr().out  # log lines stand before it
    found: dict[str, Any] = json.loads(out[out.index("{\n") : out.rindex("\n}") + 2])
    return found


async def test_stored_prompts_are_drawn_by_both_for_the_experiments_money(
    tmp_path: Path, keys: None, capsys: pytest.CaptureFixture[str]
) -> None:
    async with await start(time_scale=0.02, pictures="plain") as sandbox:
        home = home_of(tmp_path, sandbox.url)
        prompts = tmp_path / "prompts.txt"
        prompts.write_text('a barn\n\n{"prompt": "a boat", "seed": 7, "size": "512x512"}\n')
        assert await ran(home, prompts) == 0
        said = told(capsys)
        assert (said["prompts"], said["pairs"], said["left_out"]) == (2, 2, {})
        assert said["spent_nano_usd"] == sum(
            total for books in sandbox.invoice()["by_account"].values() for total in books.values()
        )
        assert said["verdicts"][0]["challenger"] == "together"
        assert "ssim" in said["verdicts"][0]["pictures"]


async def test_stored_prompts_are_held_against_the_pictures_too(
    tmp_path: Path, keys: None, capsys: pytest.CaptureFixture[str]
) -> None:
    async with await start(time_scale=0.02, pictures="plain") as sandbox:
        home = home_of(tmp_path, sandbox.url, compare=["cost", "clip"])
        models.all_of_them(home.state / "models")
        prompts = tmp_path / "prompts.txt"
        prompts.write_text("a red barn\n")
        assert await ran(home, prompts) == 0
        (verdict,) = told(capsys)["verdicts"]
        assert {"clip", "clip_champion", "lpips", "aesthetic"} <= verdict["pictures"].keys()


async def test_a_seller_compared_with_itself_draws_the_same(
    tmp_path: Path, keys: None, capsys: pytest.CaptureFixture[str]
) -> None:
    async with await start(time_scale=0.02, pictures="plain") as sandbox:
        home = home_of(tmp_path, sandbox.url)
        prompts = tmp_path / "prompts.txt"
        prompts.write_text("a barn\n")
        assert await ran(home, prompts, "--aa") == 0
        said = told(capsys)
        assert said["pairs"] == 1
        (verdict,) = said["verdicts"]
        assert verdict["challenger"] == "a-a"
        assert verdict["pictures"]["score"] == 0
        assert {each["provider"] for each in sandbox.requests()} == {"fal"}


async def test_a_run_ends_at_the_experiments_budget(
    tmp_path: Path, keys: None, capsys: pytest.CaptureFixture[str]
) -> None:
    async with await start(time_scale=0.02, pictures="plain") as sandbox:
        home = home_of(tmp_path, sandbox.url, budget={"day": "$0.01", "total": "$0.01"})
        prompts = tmp_path / "prompts.txt"
        prompts.write_text("a barn\na boat\na bird\n")
        assert await ran(home, prompts) == 0
        said = told(capsys)
        assert said["pairs"] == 1
        assert said["spent_nano_usd"] <= 10_000_000
        assert any("budget" in reason for reason in said["left_out"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there is no prompt in it"),
        ('{"prompt": "a", "sede": 1}', "line 1: Object contains unknown field `sede`"),
        ('a\n{"prompt": "a", "size": "big"}', "line 2: 'big' is not a size"),
        ('{"prompt": " "}', "line 1: the prompt is blank"),
        ('{"prompt": "a", "seed": -1}', "line 1: seed -1"),
    ],
)
def test_a_file_that_is_no_list_of_prompts_is_named_by_its_line(
    tmp_path: Path, keys: None, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    home = home_of(tmp_path, "http://127.0.0.1:9")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(text)
    assert run(["shadow", "run", "stored", "--prompts", str(prompts), "--config", str(home.folder)]) == 2
    assert says in capsys.readouterr().err
