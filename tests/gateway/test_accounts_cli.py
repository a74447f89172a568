from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import run
from gateway.sealing import fresh_master, seal
from gateway.settings import CHECKOUT, MASTER, load_settings
from tests.support.homes import small_home

CANARY = "fal-canary-4f81c2"
BARE = {name: value for name, value in os.environ.items() if not name.startswith(("PIXELGATE_", "FAL_"))}


class Place:
    """A configuration and records of its own, and `pixelgate accounts` over them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = small_home(folder)
        self.master = fresh_master()
        self._where = ["--config", str(self.home), "--state", str(folder / "state")]
        self._capsys = capsys

    def says(self, *words: str, code: int = 0) -> str:
        """What a command prints, to either place."""
        assert run(["accounts", *words, *self._where]) == code
        said = self._capsys.readouterr()
        return said.out + said.err

    def tells(self, *words: str) -> Any:
        """What a command prints for scripts."""
        return json.loads(self.says(*words, "--json"))

    def typed(self, *words: str, key: str, master: str | None = None, code: int = 0) -> str:
        """The same in a process of its own, with a key on standard input and the master key in its environment."""
        ended = subprocess.run(
            [sys.executable, "-m", "gateway", "accounts", *words, *self._where],
            env={**BARE, "PYTHONPATH": str(CHECKOUT), MASTER: master or self.master},
            input=key + "\n", capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.returncode == code, ended.stderr
        return ended.stdout + ended.stderr

    def key(self, name: str, master: str) -> str | None:
        """The key that a gateway would use."""
        account = load_settings(self.home, environ={MASTER: master}).accounts[name]
        return None if account.key is None else account.key.get_secret_value()


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Place:
    return Place(tmp_path, capsys)


def test_an_account_gets_a_file_of_its_own_that_names_where_its_key_is(place: Place) -> None:
    terms = ("--team", "acme", "--team-calls", "all", "--key-env", "ACME_FAL_KEY", "--models", "flux-dev")
    added = place.tells("add", "acme-fal", "--kind", "fal", *terms, "--concurrency", "10", "--author", "ada")
    assert (added["key"], added["on"], added["team_calls"], added["models"]) == (
        "ACME_FAL_KEY",
        False,
        "all",
        ["flux-dev"],
    )
    path = place.home / "accounts" / "acme-fal.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    on = load_settings(place.home, environ={"ACME_FAL_KEY": "k"}).accounts_on()
    assert (on["acme-fal"].team, on["acme-fal"].concurrency) == ("acme", 10)
    assert "off: ACME_FAL_KEY is not set" in place.says("list")
    place.says("remove", "acme-fal", "--author", "bob")
    assert not path.exists()
    assert place.tells("list") == {"accounts": []}
    changes = place.tells("history", "acme-fal")["changes"]
    assert [(change["by"], change["did"]) for change in changes] == [("bob", "removed"), ("ada", "added")]


def test_a_sealed_key_is_read_from_standard_input_and_is_nowhere_to_be_read(place: Place) -> None:
    said = place.typed("add", "acme-fal", "--kind", "fal", "--team", "acme", "--sealed", key=CANARY)
    said += place.typed("list", "--json", key="") + place.says("list") + place.says("history", "--json")
    assert place.key("acme-fal", place.master) == CANARY
    assert CANARY not in said
    for path in place.home.parent.rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path
    assert "its sealed key does not open" in place.says("list")
    assert CANARY not in repr(load_settings(place.home, environ={MASTER: place.master}))


def test_a_master_key_is_changed_by_sealing_anew(place: Place) -> None:
    place.typed("add", "acme-fal", "--kind", "fal", "--sealed", key=CANARY)
    fresh = fresh_master()
    assert place.key("acme-fal", fresh) is None
    assert "resealed acme-fal" in place.typed("reseal", key="", master=f"{fresh},{place.master}")
    assert place.key("acme-fal", fresh) == CANARY


def test_a_sealed_key_does_not_open_for_another_account(place: Place) -> None:
    (place.home / "accounts").mkdir()
    sealed = seal(place.master, "acme-fal", CANARY)
    (place.home / "accounts" / "zeta-fal.yaml").write_text(f"kind: fal\nkey_sealed: {sealed}\n")
    assert place.key("zeta-fal", place.master) is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("add", "acme", "--kind", "fall"), "fal"),
        (("add", "Acme", "--kind", "fal"), "no name of an account"),
        (("add", "acme", "--kind", "fal", "--key-env", "acme-key"), "--key-env"),
        (("add", "acme", "--kind", "fal", "--concurrency", "0"), "--concurrency"),
        (("add", "acme", "--kind", "fal"), "acme needs a key; say where it is with --key-env"),
        (("add", "acme", "--kind", "fal", "--key-env", "K", "--models", "flux-dve"), "did you mean 'flux-dev'"),
        (("add", "acme", "--kind", "fal", "--team-calls", "all"), "name the team, too"),
        (("seal", "acme"), "PIXELGATE_MASTER_KEY is not set"),
    ],
)
def test_an_account_that_makes_no_sense_is_not_added_and_is_named(
    place: Place, words: tuple[str, ...], says: str
) -> None:
    assert says in place.says(*words, code=2)
    assert not list(place.home.glob("accounts/*"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"kind: fal\nkey: {CANARY}\n", "acme.yaml:2:1: a key may not stand in a file"),
        (f"kind: fal\nkey_sealed: {CANARY}\n", "acme.yaml:2:13: key_sealed"),
        (f"kind: fal\nkey_env: {CANARY}\n", "acme.yaml:2:10: key_env"),
        ("kind: fal\nconcurency: 2\n", "did you mean 'concurrency'"),
        ("kind: fall\n", "acme.yaml:1:7"),
    ],
)
def test_a_fault_in_the_file_of_an_account_is_named_without_the_key(place: Place, text: str, says: str) -> None:
    (place.home / "accounts").mkdir()
    (place.home / "accounts" / "acme.yaml").write_text(text)
    code = run(["quote", "--config", str(place.home)])
    said = place._capsys.readouterr()
    assert code == 2
    assert says in said.err
    assert CANARY not in said.err + said.out


def test_an_account_that_stands_in_both_places_is_a_fault_and_one_in_the_settings_is_not_removed(place: Place) -> None:
    (place.home / "gateway.yaml").write_text("accounts: {acme: {kind: fal, key_env: K}}\n")
    assert "stands in gateway.yaml" in place.says("remove", "acme", code=1)
    assert "there is no account zeta" in place.says("remove", "zeta", code=1)
    (place.home / "accounts").mkdir()
    (place.home / "accounts" / "acme.yaml").write_text("kind: fal\n")
    assert "gateway.yaml has an account acme, too" in place.says("list", code=2)


def test_a_master_key_that_is_none_is_a_fault_and_is_not_shown(place: Place) -> None:
    said = place.typed("list", key="", master="hunter2hunter2", code=2)
    assert "PIXELGATE_MASTER_KEY: must be 32 bytes in URL-safe base64" in said
    assert "hunter2" not in said
