from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import run


class Keys:
    """`pixelgate keys` over records of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._where = ["--state", str(folder)]
        self._capsys = capsys

    def says(self, *words: str, code: int = 0) -> str:
        """What a command prints, to either place."""
        assert run(["keys", *words, *self._where]) == code
        said = self._capsys.readouterr()
        return said.out + said.err

    def tells(self, *words: str) -> Any:
        """What a command prints for scripts."""
        return json.loads(self.says(*words, "--json"))


@pytest.fixture
def keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Keys:
    return Keys(tmp_path, capsys)


def test_a_key_is_made_with_the_terms_that_are_said(keys: Keys) -> None:
    words = ("--tiers", "preview", "--max-price", "$0.01", "--max-call-price", "0.05", "--max-size", "1024x768")
    made = keys.tells("create", *words, "--concurrency", "4", "--scopes", "images:write", "--admin")
    assert made["scopes"] == ["images:write", "admin"]
    assert (made["tiers"], made["max_pixels"], made["concurrency"]) == (["preview"], 1024 * 768, 4)
    assert (made["max_price_nano_usd"], made["max_call_price_nano_usd"]) == (10_000_000, 50_000_000)


def test_limits_are_changed_one_by_one_and_lifted(keys: Keys) -> None:
    made = keys.tells("create", "--rpm", "60", "--max-size", "512x512", "--models", "flux-dev", "--expires", "30d")
    changed = keys.tells("limit", made["id"], "--rpm", "90", "--max-size", "none", "--models", "all")
    assert (changed["rpm"], changed["max_pixels"], changed["models"]) == (90, None, None)
    assert changed["expires"] == made["expires"]
    assert keys.tells("limit", made["id"], "--expires", "none")["expires"] is None


def test_a_rotation_shows_the_fresh_secret_once_and_keeps_the_id(keys: Keys) -> None:
    made = keys.tells("create")
    fresh = keys.tells("rotate", made["id"], "--overlap", "2h")
    assert fresh["id"] == made["id"]
    assert fresh["key"] != made["key"]
    assert fresh["state"] == "rotating"
    assert "has ended" in keys.says("rotate", made["id"], "--overlap", "none")
    shown = keys.says("show", made["id"]) + keys.says("list", "--json") + keys.says("history", "--json")
    assert fresh["key"].split("_", 2)[2] not in shown


def test_every_change_is_told_with_who_made_it(keys: Keys) -> None:
    made = keys.tells("create", "--author", "ada", "--rpm", "60")
    keys.says("limit", made["id"], "--rpm", "90", "--author", "bob")
    keys.says("rotate", made["id"], "--author", "cy")
    keys.says("revoke", made["id"], "--author", "dee")
    changes = keys.tells("history", made["key"])["changes"]
    assert [(change["by"], change["did"]) for change in changes] == [
        ("dee", "revoked"),
        ("cy", "rotated"),
        ("bob", "limited"),
        ("ada", "created"),
    ]
    assert changes[2]["changed"] == {"rpm": {"from": 60, "to": 90}}
    keys.says("limit", keys.tells("create")["id"], "--max-price", "$0.05")
    assert "max_price none -> $0.05" in keys.says("history")
    assert "rpm 60 -> 90" in keys.says("history")
    assert "rpm 60 -> 90" in keys.says("show", made["id"])


def test_a_revoked_key_is_not_changed_any_more(keys: Keys) -> None:
    made = keys.tells("create")
    keys.says("revoke", made["id"])
    for words in (("limit", made["id"], "--rpm", "1"), ("rotate", made["id"]), ("revoke", made["id"])):
        assert "was revoked" in keys.says(*words, code=1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--concurrency", "0"), "--concurrency 0: at least 1"),
        (("--rpm", "many"), "--rpm many: at least 1"),
        (("--max-price", "0"), "--max-price 0: must be above $0"),
        (("--budget", "$0"), "--budget $0: must be above $0"),
        (("--max-price", "-1"), "--max-price"),
        (("--max-size", "4"), "--max-size: '4' is not a size"),
        (("--tiers", "previw"), "did you mean 'preview'?"),
        (("--scopes", "images:wriet"), "did you mean 'images:write'?"),
        (("--models", "flux-scnell"), "did you mean 'flux-schnell'?"),
        (("--expires", "soon"), "--expires: 'soon' is not a duration"),
        ((), "say what to change"),
    ],
)
def test_terms_that_make_no_sense_change_nothing_and_are_named(keys: Keys, words: tuple[str, ...], says: str) -> None:
    made = keys.tells("create")
    assert says in keys.says("limit", made["id"], *words, code=2)
    assert [change["did"] for change in keys.tells("history")["changes"]] == ["created"]


def test_a_key_that_does_not_exist_is_named(keys: Keys) -> None:
    keys.says("create")
    for command in (("show",), ("limit", "--rpm", "1"), ("rotate",), ("revoke",)):
        assert "there is no key abc" in keys.says(command[0], "abc", *command[1:], code=1)
