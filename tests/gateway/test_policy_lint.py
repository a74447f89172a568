from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import pytest

from gateway.cli import run
from gateway.cli.policy_lint import faults_of, without_policy
from gateway.revisions import Revision
from gateway.settings import Settings, default_config, load_settings
from gateway.yaml_files import Fault

CORPUS = Path(__file__).parent / "policy_corpus"
SHOP = (CORPUS / "shop.yaml").read_text(encoding="utf-8")
MARK = "§"


def rows(name: str) -> list[list[str]]:
    """What stands between bars in each line of a table, new lines as such."""
    lines = (CORPUS / name).read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line and not line.startswith("#")]
    return [[cell.replace("\\n", "\n").replace("\\t", "\t") for cell in line.split(" | ")] for line in kept]


FAULTS = [(code, old, new) for code, old, new in rows("faults.txt")]
GOOD = [(old, new) for old, new in rows("good.txt")]


@cache
def configured() -> tuple[Settings, Revision]:
    settings = load_settings(default_config(), environ={})
    return settings, without_policy(settings)


def findings(folder: Path, text: str) -> list[Fault]:
    path = folder / "shop.yaml"
    path.write_text(text, encoding="utf-8")
    return list(faults_of(path, *configured()))


def changed(old: str, new: str) -> str:
    assert SHOP.count(old) == 1, f"{old!r} stands {SHOP.count(old)} times in shop.yaml"
    return SHOP.replace(old, new)


def shown(found: list[Fault]) -> list[str]:
    return [f"{fault.line}:{fault.column} {fault.code}: {fault.message}" for fault in found]


def test_the_corpus_is_large_enough_to_mean_something() -> None:
    assert len(FAULTS) >= 100
    assert len(GOOD) >= 50
    assert len(set(map(tuple, rows("faults.txt")))) == len(FAULTS)


@pytest.mark.parametrize(("code", "old", "new"), FAULTS, ids=[f"{code}-{at}" for at, (code, *_) in enumerate(FAULTS)])
def test_a_planted_fault_is_found_where_it_stands(tmp_path: Path, code: str, old: str, new: str) -> None:
    marked = changed(old, new)
    found = findings(tmp_path, marked.replace(MARK, ""))
    assert len(found) == 1, shown(found)
    (fault,) = found
    assert fault.code == code, shown(found)
    if MARK in marked:
        before = marked[: marked.index(MARK)]
        place = (before.count("\n") + 1, len(before) - before.rfind("\n"))
        assert (fault.line, fault.column) == place, shown(found)


@pytest.mark.parametrize(("old", "new"), GOOD)
def test_a_good_policy_raises_no_alarm(tmp_path: Path, old: str, new: str) -> None:
    assert shown(findings(tmp_path, changed(old, new))) == []


def test_the_shipped_policy_and_the_policy_of_the_corpus_are_clean(tmp_path: Path) -> None:
    assert shown(findings(tmp_path, SHOP)) == []
    assert run(["policy", "lint"]) == 0


def test_findings_are_told_to_people_scripts_and_code_hosts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(changed("attempts: 3", "atempts: 3"), encoding="utf-8")
    assert run(["policy", "lint", str(path)]) == 1
    out = capsys.readouterr().out
    assert f"{path}:27:3: unknown key 'atempts' [shape]" in out
    assert "fix: did you mean 'attempts'?" in out
    assert run(["policy", "lint", str(path), "--format", "json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["line"], finding["column"], finding["level"], finding["code"]) == (27, 3, "error", "shape")
    assert finding["fix"] == "did you mean 'attempts'?"
    assert run(["policy", "lint", str(path), "--format", "sarif"]) == 1
    (sarif,) = json.loads(capsys.readouterr().out)["runs"]
    (result,) = sarif["results"]
    assert result["ruleId"] in {rule["id"] for rule in sarif["tool"]["driver"]["rules"]}
    assert result["locations"][0]["physicalLocation"]["region"] == {"startLine": 27, "startColumn": 3}


def test_a_policy_in_force_that_is_broken_does_not_keep_another_from_being_checked(tmp_path: Path) -> None:
    shutil.copytree(default_config(), tmp_path / "config")
    (tmp_path / "config/policies/default.yaml").write_text("policy: [")
    good = tmp_path / "shop.yaml"
    good.write_text(SHOP, encoding="utf-8")
    assert run(["policy", "lint", str(good), "--config", str(tmp_path / "config")]) == 0
    assert run(["policy", "lint", "--config", str(tmp_path / "config")]) == 1
    assert run(["policy", "lint", str(tmp_path / "none.yaml"), "--config", str(tmp_path / "config")]) == 1


def test_what_is_too_large_or_full_of_anchors_is_refused_at_once(tmp_path: Path) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + at)}: &{chr(98 + at)} [{', '.join(['*' + chr(97 + at)] * 8)}]\n" for at in range(20)
    )
    assert [fault.message for fault in findings(tmp_path, bomb)] == ["anchors (&name) are not accepted"]
    (fault,) = findings(tmp_path, bomb + "# " + "x" * 1_000_000)
    assert "larger than" in fault.message
