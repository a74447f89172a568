from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gateway.settings import Settings, load_settings, read_pepper
from gateway.yaml_files import BadFile

FILE = """\
accounts:
  fal: {kind: fal, key_env: FAL_KEY, concurrency: 2}
  own: {kind: selfhosted, base_url: "http://gpu:8000"}
database: {durability: process}
port: 9000
"""


def settings(tmp_path: Path, text: str = FILE, flags: dict[str, object] | None = None, /, **environ: str) -> Settings:
    (tmp_path / "gateway.yaml").write_text(text)
    return load_settings(tmp_path, environ=environ, flags=flags)


def fault_of(tmp_path: Path, text: str = FILE, /, **environ: str) -> str:
    with pytest.raises(BadFile) as caught:
        settings(tmp_path, text, None, **environ)
    (fault,) = caught.value.faults
    return str(fault)


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    assert settings(tmp_path, "").port == 8080
    assert settings(tmp_path).port == 9000
    assert settings(tmp_path, PIXELGATE_PORT="9001").port == 9001
    assert settings(tmp_path, FILE, {"port": 9002}, PIXELGATE_PORT="9001").port == 9002
    assert settings(tmp_path, FILE, {"port": None}, PIXELGATE_PORT="9001").port == 9001


def test_variables_reach_into_sections_and_keep_the_rest(tmp_path: Path) -> None:
    fal = settings(tmp_path, PIXELGATE_ACCOUNTS__FAL__CONCURRENCY="40").accounts["fal"]
    assert (fal.kind, fal.concurrency) == ("fal", 40)


def test_a_whole_account_can_come_from_variables(tmp_path: Path) -> None:
    found = settings(
        tmp_path, PIXELGATE_ACCOUNTS__EU__KIND="fal", PIXELGATE_ACCOUNTS__EU__MODELS='["flux-dev"]'
    ).accounts["eu"]
    assert (found.kind, found.models) == ("fal", ("flux-dev",))


def test_an_unknown_variable_is_named_with_the_nearest_right_one(tmp_path: Path) -> None:
    assert fault_of(tmp_path, PIXELGATE_PROT="1") == (
        "PIXELGATE_PROT: no setting has this name\n    fix: did you mean 'PIXELGATE_PORT'?"
    )
    assert "PIXELGATE_ACCOUNTS__FAL__CONCURRENCY" in fault_of(tmp_path, PIXELGATE_ACCOUNTS__FAL__CONCURENCY="1")
    assert "PIXELGATE_DATABASE__DURABILITY" in fault_of(tmp_path, PIXELGATE_DATABASE_DURABILITY="power")


def test_a_wrong_value_in_a_variable_is_blamed_on_the_variable(tmp_path: Path) -> None:
    assert fault_of(tmp_path, PIXELGATE_PORT="many").startswith("PIXELGATE_PORT: port: input should be a valid integer")
    assert "did you mean 'process'" in fault_of(tmp_path, PIXELGATE_DATABASE__DURABILITY="proces")
    assert fault_of(tmp_path, PIXELGATE_ACCOUNTS__NEW__RATE="1").startswith("PIXELGATE_ACCOUNTS__NEW__RATE: 'kind'")


def test_a_wrong_value_on_the_command_line_is_blamed_on_its_option(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="--port: port: input should be less than or equal to 65535"):
        load_settings(tmp_path, environ={"PIXELGATE_PORT": "9000"}, flags={"port": 70_000})


def test_a_wrong_value_in_the_file_is_blamed_on_its_line(tmp_path: Path) -> None:
    fault = fault_of(tmp_path, "accounts:\n  fal: {kind: fal, concurency: 2}\n")
    assert "gateway.yaml:2:20: unknown key 'concurency'" in fault
    assert "did you mean 'concurrency'?" in fault


def test_a_key_in_the_file_is_refused_with_the_way_to_do_it(tmp_path: Path) -> None:
    fault = fault_of(tmp_path, "accounts:\n  fal-eu: {kind: fal, key: secret-1}\n")
    assert "gateway.yaml:2:23: a key may not stand in a file" in fault
    assert "key_env: FAL_EU_KEY" in fault


def test_an_account_is_on_when_its_key_is_there_and_says_why_when_off(tmp_path: Path) -> None:
    off = settings(tmp_path)
    assert (set(off.accounts_on()), off.accounts_off()) == ({"own"}, {"fal": "FAL_KEY is not set"})
    on = settings(tmp_path, FAL_KEY=" k1 ")
    assert set(on.accounts_on()) == {"fal", "own"}
    assert on.accounts["fal"].key is not None
    assert on.accounts["fal"].key.get_secret_value() == "k1"


def test_a_key_can_lie_in_the_secrets_folder(tmp_path: Path) -> None:
    (tmp_path / "FAL_KEY").write_text("k2\n")
    assert "fal" in settings(tmp_path, PIXELGATE_SECRETS=str(tmp_path)).accounts_on()


def test_no_representation_shows_a_key(tmp_path: Path) -> None:
    assert "k-secret" not in repr(settings(tmp_path, FAL_KEY="k-secret", PIXELGATE_PEPPER="k-secret"))


def test_webhooks_need_a_public_address(tmp_path: Path) -> None:
    assert "`callbacks` needs `public_url`" in fault_of(tmp_path, "callbacks: true\n")


def test_a_folder_that_is_not_there_and_a_list_for_a_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="no such folder"):
        load_settings(tmp_path / "none", environ={})
    assert "must be a mapping" in fault_of(tmp_path, "- port: 1\n")


def test_callers_reach_us_where_we_listen_unless_told_otherwise(tmp_path: Path) -> None:
    assert settings(tmp_path, "host: 0.0.0.0\n").public_base == "http://127.0.0.1:8080"
    assert settings(tmp_path, "public_url: https://img.example\n").public_base == "https://img.example"


def test_the_pepper_is_made_once_and_is_ours_alone(tmp_path: Path) -> None:
    here = settings(tmp_path, PIXELGATE_STATE=str(tmp_path / "state"))
    pepper = read_pepper(here)
    assert len(pepper) >= 32
    assert read_pepper(here) == pepper
    assert stat.S_IMODE((tmp_path / "state" / "pepper").stat().st_mode) == 0o600
    assert read_pepper(settings(tmp_path, PIXELGATE_PEPPER="given")) == b"given"


def test_an_alert_of_an_account_that_is_not_there_cannot_be_silenced(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(
        "accounts: {fal: {kind: fal, key_env: FAL_KEY}}\nalerts: {silenced: [{kind: strange_bill, account: fall}]}\n"
    )
    with pytest.raises(BadFile, match=r"no account 'fall'; did you mean 'fal'"):
        load_settings(tmp_path, environ={})
