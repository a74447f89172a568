from __future__ import annotations

from copy import deepcopy

import pytest
from pydantic import ValidationError

from gateway.yaml_files import read
from policies.policy import Policy
from policies.policy_file.schema import PolicyFile, compile_policy
from policies.types import Requirements, Tier, Worth
from tests.support.sellers import CONFIG

Values = dict[str, object]
SMALL: Values = {
    "policy": "small",
    "revision": 4,
    "default_intent": "preview",
    "intents": {"preview": {"tier": "preview", "latency_slo": "3s", "deadline": "1m"}},
}


def policy(**changes: object) -> Policy:
    return compile_policy(PolicyFile.model_validate({**deepcopy(SMALL), **changes}))


def faults(**changes: object) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        policy(**changes)
    return {".".join(map(str, fault["loc"])): fault["msg"] for fault in caught.value.errors()}


def shipped() -> Policy:
    return compile_policy(read(CONFIG / "policies/default.yaml").parse(PolicyFile))


def test_the_shipped_policy_knows_three_intents_of_rising_tier() -> None:
    intents = shipped().intents
    assert [(name, each.tier) for name, each in intents.items()] == [
        ("preview", Tier.PREVIEW),
        ("standard", Tier.STANDARD),
        ("export", Tier.EXPORT),
    ]
    assert (intents["export"].promotes, intents["export"].keeps) == ("preview", ("prompt", "seed", "aspect"))
    assert intents["preview"].worth == Worth(late_second=2_000_000, failure=10_000_000)


def test_the_shipped_policy_says_no_more_than_the_defaults_where_they_are_documented() -> None:
    ours, small = shipped(), policy()
    for name in ("fallback", "max_wait", "images_per_order", "auto_size", "keep_assets", "crowding", "breaker"):
        assert getattr(ours, name) == getattr(small, name), name
    assert (ours.forecast, ours.require) == (small.forecast, small.require)


@pytest.mark.parametrize(
    ("word", "intent"),
    [
        ("low", "preview"),
        ("medium", "preview"),
        ("auto", "preview"),
        ("high", "export"),
        ("hd", "export"),
        (None, "preview"),
    ],
)
def test_every_quality_word_has_an_intent(word: str | None, intent: str) -> None:
    assert shipped().intent_of_quality(word).name == intent  # type: ignore[arg-type]  # the table holds plain words


@pytest.mark.parametrize(
    ("name", "meaning", "travels"),
    [("dall-e-3", "auto", "url"), ("gpt-image-1", "auto", "b64_json"), ("flux-dev", None, "url"), ("", None, "url")],
)
def test_foreign_model_names_mean_what_the_policy_says(name: str, meaning: str | None, travels: str) -> None:
    assert shipped().model_behind(name) == meaning
    assert shipped().response_format_of(name) == travels


@pytest.mark.parametrize(
    ("name", "travels"), [("dall-e-2", "url"), ("gpt-image-1", "b64_json"), ("flux-dev", "b64_json"), ("", "b64_json")]
)
def test_an_edit_comes_as_base64_unless_its_model_name_had_urls(name: str, travels: str) -> None:
    assert shipped().response_format_of(name, edit=True) == travels


def test_the_longest_known_beginning_of_a_name_counts() -> None:
    ours = policy(models={"aliases": {"gpt-": "auto", "gpt-image-2": "flux-2-pro"}})
    assert (ours.model_behind("gpt-image-1"), ours.model_behind("gpt-image-2-mini")) == ("auto", "flux-2-pro")


def test_constraints_of_an_intent_carry_what_the_policy_requires() -> None:
    ours = policy(require={"region": "eu", "training": "never", "commercial": True})
    wanted = ours.constraints(ours.intents["preview"])
    assert wanted.require == Requirements(region="eu", training="never", commercial=True)
    assert (wanted.tier, wanted.slo, wanted.deadline) == (Tier.PREVIEW, 3.0, 60.0)


@pytest.mark.parametrize(
    ("typed", "seconds"),
    [("500ms", 0.5), ("3s", 3.0), ("1.5 s", 1.5), ("2m", 120.0), ("24h", 86_400.0), ("7d", 604_800.0)],
)
def test_durations_are_typed_with_a_unit(typed: str, seconds: float) -> None:
    assert policy(queue={"max_wait": typed}).max_wait == seconds


@pytest.mark.parametrize(
    ("typed", "nano"), [("$0.002", 2_000_000), ("0.002", 2_000_000), (0.00005, 50_000), ("$1", 10**9)]
)
def test_money_is_typed_in_dollars(typed: object, nano: int) -> None:
    assert policy(crowding={"last_slot": typed}).crowding.last_slot == nano


@pytest.mark.parametrize(
    ("changes", "place", "said"),
    [
        (
            {"queue": {"max_wait": 30}},
            "queue.max_wait",
            "30 is not a duration: write a number and its unit, as in 500ms or 3s",
        ),
        (
            {"queue": {"max_wait": "3 weeks"}},
            "queue.max_wait",
            "'3 weeks' is not a duration: write a number and its unit",
        ),
        ({"queue": {"max_wiat": "3s"}}, "queue.max_wiat", "Extra inputs are not permitted"),
        (
            {"crowding": {"last_slot": "-$1"}},
            "crowding.last_slot",
            "'-$1' is not an amount: write dollars, as in $0.002",
        ),
        (
            {"crowding": {"last_slot": "$0.0000000001"}},
            "crowding.last_slot",
            "'$0.0000000001': finer than a nano-dollar",
        ),
        ({"crowding": {"last_slot": True}}, "crowding.last_slot", "True is not an amount"),
        ({"crowding": {"begins": "85"}}, "crowding.begins", "'85' is not a share: write 0% to 100%, as in 85%"),
        ({"crowding": {"begins": "100%"}}, "crowding.begins", "Input should be less than 1"),
        ({"sizes": {"auto": "1024"}}, "sizes.auto", "'1024' is not a size: write width x height, as in 1024x1024"),
        ({"default_intent": "draft"}, "default_intent", "no intent is called 'draft': write one of preview"),
        (
            {"quality": {"high": "print"}},
            "quality.high",
            "no intent is called 'print': write one of preview, or default",
        ),
        ({"breaker": {"at_most": "1s"}}, "breaker.at_most", "the longest pause is shorter than the first (open_for)"),
        ({"fallback": {"attempts": 0}}, "fallback.attempts", "Input should be greater than or equal to 1"),
    ],
)
def test_a_fault_is_named_where_it_stands(changes: Values, place: str, said: str) -> None:
    found = faults(**changes)
    assert list(found) == [place]
    assert found[place].startswith(said)


def test_every_fault_of_sense_is_reported_at_once() -> None:
    intents = {
        "preview": {"tier": "preview", "latency_slo": "9s", "deadline": "3s"},
        "export": {"tier": "export", "latency_slo": "9s", "deadline": "30s", "promotes": "draft"},
    }
    assert faults(intents=intents, default_intent="x") == {
        "default_intent": "no intent is called 'x': write one of preview, export",
        "intents.preview.deadline": "the deadline (3 s) is before latency_slo (9 s)",
        "intents.export.promotes": "no intent is called 'draft': write one of preview, export",
    }


def test_a_tier_is_one_of_three_words() -> None:
    found = faults(intents={"preview": {"tier": "best", "latency_slo": "3s", "deadline": "9s"}})
    assert found == {"intents.preview.tier": "'best' is not a tier: write preview, standard or export"}


def test_every_key_says_what_it_is_for() -> None:
    schema = PolicyFile.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    keys = {f"{part['title']}.{name}": key for part in parts for name, key in part.get("properties", {}).items()}
    assert len(keys) > 30
    assert [name for name, key in keys.items() if not {"description", "$ref"} & key.keys()] == []
