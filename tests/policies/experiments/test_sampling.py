"""Which calls are copied, and for how much; no clock, no hidden chance."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policies.experiments.definition import Allowance, Arm, Calls, Challenger, Experiment, Facts, Sample
from policies.experiments.sampling import challengers_of, rolled, room, share_of, stratum_of, values_of
from policies.rules import About, Condition
from policies.types import Tier
from tests.support.sellers import offer

CALLS = 4_000


def facts(call: object = 0, tags: dict[str, str] | None = None, **changes: object) -> Facts:
    said: dict[str, object] = {
        "call_id": f"call_{call}",
        "about": About(team="acme", intent="preview", tags=tags or {}, pixels=1024 * 1024),
        "tier": Tier.PREVIEW,
        "width": 1024,
        "height": 1024,
        "champion": offer("fal:flux-dev"),
        "at": 1_000.0,
    }
    return Facts(**{**said, **changes})  # type: ignore[arg-type]  # one table of fields


def experiment(name: str = "one", **changes: object) -> Experiment:
    said: dict[str, object] = {
        "name": name,
        "champion": Arm(provider="fal"),
        "challengers": (Challenger(name="t", account="together"),),
        "sample": Sample(share=0.1),
        "budget": Allowance(day=1_000, total=10_000),
    }
    return Experiment(**{**said, **changes})  # type: ignore[arg-type]  # one table of fields


def taken(experiments: list[Experiment], name: str, tier: Tier = Tier.PREVIEW) -> set[int]:
    return {
        call
        for call in range(CALLS)
        if any(each.name == name for each, _ in challengers_of(experiments, facts(call, tier=tier)))
    }


def test_about_the_share_of_calls_is_copied_and_always_the_same_ones() -> None:
    ours = taken([experiment()], "one")
    assert ours == taken([experiment()], "one")
    assert abs(len(ours) / CALLS - 0.1) < 0.02


def test_experiments_choose_independently_and_in_any_order() -> None:
    one, two = experiment("one"), experiment("two")
    alone = taken([one], "one")
    assert alone == taken([two, one], "one") == taken([one, two], "one")
    both = alone & taken([two, one], "two")
    assert 0.3 * 0.01 < len(both) / CALLS < 2 * 0.01  # 10 % of 10 %


def test_a_larger_share_copies_what_a_smaller_one_did_and_more() -> None:
    assert taken([experiment()], "one") < taken([experiment(sample=Sample(share=0.3))], "one")


def test_every_challenger_gets_the_same_calls() -> None:
    pair = (Challenger(name="t", account="together"), Challenger(name="r", account="replicate"))
    for call in range(200):
        found = [each.name for _, each in challengers_of([experiment(challengers=pair)], facts(call))]
        assert found in ([], ["t", "r"])


def test_never_goes_before_always_and_that_before_a_share_by_kind() -> None:
    private = Calls(like=Condition(tags=(("privacy", frozenset({"strict"})),)))
    hero = Calls(like=Condition(tags=(("product", frozenset({"hero"})),)))
    exports = Calls(tiers=frozenset({Tier.EXPORT}))
    sample = Sample(share=0.01, by=((exports, 0.5),), always=(hero,), never=(private,))
    assert share_of(sample, facts()) == 0.01
    assert share_of(sample, facts(tier=Tier.EXPORT)) == 0.5
    assert share_of(sample, facts(tags={"product": "hero"}, tier=Tier.EXPORT)) == 1.0
    assert share_of(sample, facts(tags={"product": "hero", "privacy": "strict"})) == 0.0


def test_calls_served_elsewhere_or_before_the_start_or_after_the_stop_are_not_copied() -> None:
    all_of_them = Sample(share=1.0)
    running = experiment(sample=all_of_them, start=1_000.0, stop=2_000.0)
    assert challengers_of([running], facts(at=1_000.0))
    assert not challengers_of([running], facts(at=999.0))
    assert not challengers_of([running], facts(at=2_000.0))
    assert not challengers_of([running], facts(champion=offer("replicate:flux-dev")))


def test_a_copy_goes_back_to_its_seller_only_where_the_experiment_says_so() -> None:
    everything = Sample(share=1.0)
    any_seller = experiment(champion=Arm(model="flux-dev"), sample=everything)
    assert not challengers_of([any_seller], facts(champion=offer("together:flux-dev")))
    itself = (Challenger(name="again", account="fal"),)
    assert challengers_of([experiment(challengers=itself, sample=everything)], facts())


def test_results_are_told_apart_by_what_the_sample_says() -> None:
    sample = Sample(stratify=("tier", "size", "tag:product", "intent"))
    assert stratum_of(sample, facts(tags={"product": "hero"})) == "preview 1024x1024 hero preview"
    assert stratum_of(sample, facts()) == "preview 1024x1024 - preview"
    assert stratum_of(Sample(), facts()) == ""


def test_every_stratum_is_copied_at_its_share() -> None:
    exports = Calls(tiers=frozenset({Tier.EXPORT}))
    ours = [experiment(sample=Sample(share=0.05, by=((exports, 0.5),), stratify=("tier",)))]
    assert abs(len(taken(ours, "one")) / CALLS - 0.05) < 0.02
    assert abs(len(taken(ours, "one", tier=Tier.EXPORT)) / CALLS - 0.5) < 0.03


def test_the_commonest_stratum_leaves_the_others_their_part_of_the_day() -> None:
    ours = experiment(sample=Sample(stratify=("tier",)))
    assert room(ours, "preview", {"preview": 480, "export": 0}, 480) == 20
    assert room(ours, "export", {"preview": 500, "export": 0}, 500) == 500
    assert room(ours, "standard", {"preview": 500, "export": 0}, 500) == 333


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 1_500)),
    st.integers(0, 12_000),
    st.sampled_from("abcd"),
    st.booleans(),
)
def test_no_copy_passes_the_budget_of_the_day_or_of_the_whole(
    today: dict[str, int], before: int, stratum: str, stratified: bool
) -> None:
    ours = experiment(sample=Sample(stratify=("tier",) if stratified else ()))
    spent = before + sum(today.values())
    left = room(ours, stratum, today, spent)
    assert left >= 0
    if left:
        assert spent + left <= ours.budget.total
        assert sum(today.values()) + left <= ours.budget.day


@given(st.text(), st.text())
def test_dice_fall_in_the_unit_interval(call: str, name: str) -> None:
    assert 0.0 <= rolled(call, name) < 1.0


@given(st.dictionaries(st.sampled_from(["app", "lang"]), st.text(min_size=1, max_size=12)))
def test_a_stratum_says_of_each_thing_what_it_is_whatever_is_written_there(tags: dict[str, str]) -> None:
    sample = Sample(stratify=("tier", "tag:app", "size", "tag:lang"))
    found = values_of(sample, stratum_of(sample, facts(tags=tags)))
    assert found == {
        "tier": "preview",
        "tag:app": tags.get("app", "-"),
        "size": "1024x1024",
        "tag:lang": tags.get("lang", "-"),
    }


def test_a_stratum_of_another_sample_is_not_guessed_at() -> None:
    stratum = stratum_of(Sample(stratify=("tier", "size")), facts())
    assert values_of(Sample(stratify=("tier",)), stratum) is None
    assert values_of(Sample(), stratum) is None
