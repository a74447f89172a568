from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from jsonschema_rs import validator_for

from gateway.cli import run
from gateway.cli.policy_test import faults_of_example
from gateway.revisions import Revision, load_revision
from gateway.settings import default_config, load_settings
from gateway.yaml_files import read
from policies.policy_file.examples import ExampleFile
from policies.policy_file.schema import PolicyFile, compile_policy, json_schema
from tests.support.sellers import CONFIG

RULE = {
    "rule": "no-fal",
    "because": "closed",
    "when": {"team": "acme", "hours": "22:00-06:00"},
    "deny": {"providers": "fal"},
}


@pytest.fixture(scope="module")
def ruled() -> Revision:
    import msgspec

    shipped = load_revision(load_settings(default_config(), environ={}), every_account=True)
    ours = PolicyFile.model_validate(
        {
            "policy": "p",
            "revision": 1,
            "default_intent": "preview",
            "intents": {
                "preview": {"tier": "preview", "latency_slo": "3s", "deadline": "1m"},
                "export": {"tier": "export", "latency_slo": "1m", "deadline": "3m"},
            },
            "timezone": "Europe/Berlin",
            "rules": [RULE],
        }
    )
    return msgspec.structs.replace(shipped, policy=compile_policy(ours))


def faults(ruled: Revision, **example: object) -> list[str]:
    return faults_of_example(ExampleFile.model_validate({"example": "x", **example}), ruled)


NIGHT = {"team": "acme", "at": "2026-11-24 23:00"}


@pytest.mark.parametrize(
    "example",
    [
        {"expect": {"offer": "together:flux-schnell", "provider": "together", "model": "flux-schnell"}},
        {"market": {"down": "together"}, "expect": {"provider": "fal", "rejected": {"together": "breaker"}}},
        {
            "market": {"full": ["together", "replicate"]},
            "expect": {"provider": "fal", "rejected": {"together": "headroom"}},
        },
        {"given": {"intent": "export"}, "expect": {"rejected": {"flux-dev": "tier", "together:flux-schnell": "tier"}}},
        {"given": NIGHT, "shows": "no-fal", "expect": {"rejected": {"fal": "rule"}}},
        {"given": {**NIGHT, "model": "flux-schnell:fal"}, "expect": {"offer": "none"}},
        {"given": {**NIGHT, "at": "2026-11-24 12:00"}, "market": {"down": "together"}, "expect": {"provider": "fal"}},
        {"given": {"operation": "edit", "model": "flux-kontext-pro"}, "expect": {"model": "flux-kontext-pro"}},
    ],
)
def test_an_example_that_holds_has_no_fault(ruled: Revision, example: dict[str, object]) -> None:
    assert faults(ruled, **example) == []


@pytest.mark.parametrize(
    ("example", "said"),
    [
        ({"expect": {"offer": "fal:flux-schnell"}}, "expected offer fal:flux-schnell, but together:flux-schnell draws"),
        ({"expect": {"offer": "none"}}, "expected offer none, but together:flux-schnell draws"),
        ({"given": NIGHT, "expect": {"provider": "fal"}}, "ruled out by the policy's rule 'no-fal': closed"),
        ({"expect": {"rejected": {"fal": "rule"}}}, "expected fal to be rejected (rule), but fal:"),
        ({"given": NIGHT, "expect": {"rejected": {"fal": "data"}}}, "rejected by data, but rule:"),
        ({"expect": {"rejected": {"flux-3": "tier"}}}, "nothing is sold under that name"),
        (
            {"shows": "no-fal", "expect": {"model": "flux-schnell"}},
            "rule 'no-fal' is not about this call; rules that are: none",
        ),
    ],
)
def test_an_example_that_does_not_hold_says_what_is_so_instead(
    ruled: Revision, example: dict[str, object], said: str
) -> None:
    (fault,) = faults(ruled, **example)
    assert said in fault


def test_the_examples_of_the_shipped_policy_hold(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policy", "test", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] == 0
    assert len(told["examples"]) >= 5


def test_a_policy_whose_examples_fail_says_which_and_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "default.yaml"
    text = (CONFIG / "policies/default.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("offer: together:flux-schnell", "offer: fal:flux-schnell", 1), encoding="utf-8")
    assert run(["policy", "test", str(path)]) == 1
    line = next(
        at for at, each in enumerate(path.read_text().splitlines(), 1) if "says nothing" in each and "example" in each
    )
    assert f"BAD  {path}:{line}:" in capsys.readouterr().out


def test_a_request_that_is_refused_as_such_fails_its_example(tmp_path: Path) -> None:
    shutil.copy(CONFIG / "policies/default.yaml", tmp_path / "default.yaml")
    with (tmp_path / "default.yaml").open("a") as file:
        file.write("  - {example: nonsense, given: {model: flux-3}, expect: {offer: none}}\n")
    assert run(["policy", "test", str(tmp_path / "default.yaml")]) == 1


def test_the_committed_schema_is_that_of_the_language(capsys: pytest.CaptureFixture[str]) -> None:
    committed = (CONFIG / "policies/policy.schema.json").read_text(encoding="utf-8")
    assert committed == json_schema(), "write it anew: ./run policy schema > config/policies/policy.schema.json"
    assert run(["policy", "schema"]) == 0
    assert capsys.readouterr().out == committed
    assert (
        (CONFIG / "policies/default.yaml")
        .read_text()
        .startswith("# yaml-language-server: $schema=policy.schema.json\n")
    )


def test_the_schema_accepts_what_the_language_accepts() -> None:
    validator = validator_for(json.loads(json_schema()))
    for path in (CONFIG / "policies/default.yaml", Path(__file__).parent / "policy_corpus/shop.yaml"):
        data = json.loads(json.dumps(read(path).data, default=str))  # to editors a day is a string
        assert [error.message for error in validator.iter_errors(data)] == []
    wrong = read(CONFIG / "policies/default.yaml").data
    assert isinstance(wrong, dict)
    for key, value in (
        ("revison", 1),
        ("queue", {"max_wait": 30}),
        ("rules", [{"rule": "r", "when": {"days": "sunday"}}]),
    ):
        assert list(validator.iter_errors({**wrong, key: value})) != [], key


def test_the_rule_that_the_guide_shows_is_clean_and_its_example_holds(tmp_path: Path) -> None:
    guide = (CONFIG.parent / "docs/how-to/read-a-policy.md").read_text(encoding="utf-8")
    (shown,) = [
        block.partition("```")[0] for block in guide.split("```yaml\n") if "rules:" in block.partition("```")[0]
    ]
    shipped = (CONFIG / "policies/default.yaml").read_text(encoding="utf-8").partition("\nexamples:")[0]
    path = tmp_path / "default.yaml"
    path.write_text(f"{shipped}\n{shown}", encoding="utf-8")
    assert run(["policy", "lint", str(path)]) == 0
    assert run(["policy", "test", str(path)]) == 0
