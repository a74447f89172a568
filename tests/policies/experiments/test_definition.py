"""Experiments as a policy says them."""

from __future__ import annotations

from copy import deepcopy
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from policies.experiments.definition import Allowance, Arm, Challenger, Experiment, copied, fields_of
from policies.policy_file.schema import PolicyFile, compile_policy
from policies.types import Tier
from providers.contract import ImageRequest

Values = dict[str, object]
SMALL: Values = {
    "policy": "small",
    "revision": 1,
    "default_intent": "preview",
    "intents": {"preview": {"tier": "preview", "latency_slo": "3s", "deadline": "1m"}},
    "timezone": "Europe/Berlin",
}
ONE: Values = {
    "experiment": "cheaper-dev",
    "champion": {"provider": "fal", "model": "flux-dev"},
    "challengers": [{"name": "t", "account": "together", "params": {"steps": 20, "acceleration": "none"}}],
    "budget": {"day": "$5", "total": "$100"},
}


def experiments(*each: Values) -> tuple[Experiment, ...]:
    file = PolicyFile.model_validate({**deepcopy(SMALL), "experiments": [{**deepcopy(ONE), **said} for said in each]})
    return compile_policy(file).experiments


def faults(*each: Values) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        experiments(*each)
    return {".".join(map(str, fault["loc"][1:])): fault["msg"] for fault in caught.value.errors()}


def test_an_experiment_is_read_with_its_defaults() -> None:
    (found,) = experiments({})
    assert (found.name, str(found.champion)) == ("cheaper-dev", "fal:flux-dev")
    assert found.champion == Arm(provider="fal", model="flux-dev")
    assert found.budget == Allowance(day=5 * 10**9, total=100 * 10**9)
    assert (found.sample.share, found.compare) == (0.05, frozenset({"cost", "latency", "failures"}))
    assert (found.start, found.stop, found.keep, found.decide.error) == (None, None, 30 * 86_400.0, 0.05)
    assert found.decide.margins["queue"] == 0.5


def test_days_and_moments_are_those_of_the_policy_s_zone() -> None:
    (found,) = experiments({"start": "2026-12-01", "stop": "2026-12-31 08:30"})
    zone = ZoneInfo("Europe/Berlin")
    assert found.start == datetime(2026, 12, 1, tzinfo=zone).timestamp()
    assert found.stop == datetime(2026, 12, 31, 8, 30, tzinfo=zone).timestamp()


def test_shares_by_kind_and_lists_of_calls_are_read() -> None:
    sample = {
        "share": "2%",
        "by": [{"tier": "export", "share": "50%"}, {"size": {"over": "1024x1024"}, "share": "0%"}],
        "stratify": ["tier", "tag:product"],
        "never": [{"tags": {"privacy": "strict"}}],
    }
    (found,) = experiments({"sample": sample})
    (exports, half), (large, none) = found.sample.by
    assert (exports.tiers, half, large.like.over, none) == (frozenset({Tier.EXPORT}), 0.5, 1024 * 1024, 0.0)
    assert found.sample.never[0].like.tags == (("privacy", frozenset({"strict"})),)
    assert found.sample.stratify == ("tier", "tag:product")


def test_parameters_of_the_request_are_told_from_fields_of_the_seller() -> None:
    challenger = Challenger(name="t", account="together", params={"steps": 20, "acceleration": "none"})
    request = ImageRequest(prompt="a fox", width=512, seed=7, steps=28)
    changed = copied(request, challenger)
    assert (changed.steps, changed.seed, changed.width, changed.prompt) == (20, 7, 512, "a fox")
    assert fields_of(challenger) == {"acceleration": "none"}


@pytest.mark.parametrize(
    ("changes", "place", "said"),
    [
        ({"sample": {"share": "-5%"}}, "0.sample.share", "'-5%' is not a share: write 0% to 100%"),
        ({"sample": {"share": "120%"}}, "0.sample.share", "'120%' is not a share: write 0% to 100%"),
        ({"sample": {"share": "0%"}}, "0.sample", "takes no call: write a share above 0%"),
        ({"sample": {"by": [{"share": "5%"}]}}, "0.sample.by.0", "says not which calls"),
        ({"sample": {"stratify": "colour"}}, "0.sample.stratify.0", "results cannot be told apart by 'colour'"),
        ({"sample": {"never": [{"intent": "x"}]}}, "0.sample.never.0.intent", "no intent is called 'x'"),
        ({"sample": {"never": [{"tag": "x"}]}}, "0.sample.never.0.tag", "Extra inputs are not permitted"),
        ({"budget": {"day": "$0", "total": "$1"}}, "0.budget.day", "copies that may cost nothing are never drawn"),
        ({"budget": {"day": "$5", "total": "$1"}}, "0.budget.total", "all days together may cost less than one"),
        ({"champion": {}}, "0.champion", "names nobody"),
        ({"challengers": []}, "0.challengers", "0 of them: write 1 to 8"),
        ({"start": "2026-12-02", "stop": "2026-12-01"}, "0.stop", "stops before it starts (2026-12-02 00:00)"),
        ({"stop": "soon"}, "0.stop", "'soon' is no day: write one as in 2026-12-01"),
        ({"decide": {"margins": {"cost": "0%"}}}, "0.decide.margins.cost", "a margin of 0 can never be kept to"),
        ({"decide": {"margins": {"queue": "0s"}}}, "0.decide.margins.queue", "a margin of 0 can never be kept to"),
        (
            {"compare": ["beauty"]},
            "0.compare.0",
            "Input should be 'cost', 'latency', 'queue', 'failures', 'score', 'clip', 'aesthetic', 'judge' or 'votes'",
        ),
        ({"keep": "1s"}, "0.keep", "Input should be greater than or equal to 3600"),
    ],
)
def test_a_fault_is_named_where_it_stands(changes: Values, place: str, said: str) -> None:
    found = faults(changes)
    assert list(found) == [place], found
    assert found[place].startswith(said)


def test_names_are_given_once() -> None:
    assert faults({}, {}) == {"1.experiment": "experiment 1 is called 'cheaper-dev' already"}
    twice: Values = {"challengers": [{"name": "t", "account": "together"}, {"name": "t", "account": "fal"}]}
    assert faults(twice) == {"0.challengers.1.name": "challenger 1 is called 't' already"}
