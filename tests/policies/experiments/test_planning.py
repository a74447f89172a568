"""What an experiment will cost and when it can be decided, before a copy is drawn."""

from __future__ import annotations

from math import inf

import pytest
from msgspec.structs import replace

from policies.catalog import Catalog
from policies.experiments.definition import Allowance, Arm, Calls, Challenger, Experiment, Facts, Sample
from policies.experiments.planning import Past, Plan, Volume, plan
from policies.policy_file.lint_experiments import findings_in
from policies.rules import About
from policies.types import Offer, Tier
from providers.contract import Abilities, ImageRequest, SizeRule
from tests.support.sellers import CENT, POLICY, offer

DAY = 86_400.0
FAL = offer("fal:m", 2.0)
TOGETHER = offer("together:m", 1.0)
SMALL = Experiment(
    name="one",
    champion=Arm(provider="fal"),
    challengers=(Challenger(name="t", account="together"),),
    budget=Allowance(day=CENT, total=CENT),
)


def catalog(*offers: Offer) -> Catalog:
    return Catalog(
        revision=1,
        offers={each.id: each for each in offers},
        by_model={"m": tuple(offers)},
        models={},
        aliases={},
        capacities={},
    )


def volume(a_day: float, *, size: int = 1024, tier: Tier = Tier.PREVIEW, champion: Offer = FAL) -> Volume:
    facts = Facts(
        call_id="", about=About(pixels=size * size), tier=tier, width=size, height=size, champion=champion, at=0.0
    )
    return Volume(facts=facts, request=ImageRequest(prompt="-", width=size, height=size), a_day=a_day)


def planned(*volumes: Volume, offers: tuple[Offer, ...] = (FAL, TOGETHER), spent: int = 0, **changes: object) -> Plan:
    said: dict[str, object] = {
        "name": "one",
        "champion": Arm(provider="fal"),
        "challengers": (Challenger(name="t", account="together"),),
        "sample": Sample(share=0.5),
        "budget": Allowance(day=100 * CENT, total=1_000 * CENT),
    }
    experiment = Experiment(**{**said, **changes})  # type: ignore[arg-type]  # one table of fields
    return plan(experiment, volumes, catalog(*offers), past=Past(), at=0.0, spent=spent)


def test_copies_cost_what_the_challenger_quotes_for_the_share_of_calls_that_is_copied() -> None:
    found = planned(volume(100.0), volume(40.0, champion=TOGETHER))
    assert (found.calls_a_day, found.copied_a_day) == (100.0, 50.0)
    assert (found.wanted, found.a_day) == (50 * CENT, 50 * CENT)
    (challenger,) = found.challengers
    assert (challenger.each, challenger.champion_each) == (CENT, 2 * CENT)


def test_a_day_s_budget_thins_the_copies_out_and_the_whole_budget_ends_them() -> None:
    found = planned(volume(1_000.0))
    assert (found.wanted, found.a_day) == (500 * CENT, 100 * CENT)
    assert found.challengers[0].copies_a_day == 100.0
    assert found.ends == 10.0
    assert planned(volume(1_000.0), spent=500 * CENT).ends == 5.0


@pytest.mark.parametrize(("start", "lasts"), [(None, 3.0), (DAY, 2.0), (-DAY, 3.0)])
def test_an_experiment_ends_when_it_stops(start: float | None, lasts: float) -> None:
    assert planned(volume(100.0), start=start, stop=3 * DAY).ends == lasts


def test_what_is_not_decided_before_its_first_pairs_are_forgotten_is_hopeless() -> None:
    plenty = Allowance(day=10**6 * CENT, total=10**9 * CENT)
    slowly = planned(volume(2.0), budget=plenty, compare=frozenset({"cost"}))
    (needed,) = [each.days for each in slowly.challengers[0].measures]
    assert 30 < needed < 90
    assert slowly.hopeless
    assert not planned(volume(2.0), budget=plenty, compare=frozenset({"cost"}), keep=90 * DAY).hopeless


def test_what_is_planned_within_its_time_is_decided_and_the_rest_is_called_hopeless() -> None:
    plenty = Allowance(day=10**6 * CENT, total=10**9 * CENT)
    sure = planned(volume(4_000.0), budget=plenty, compare=frozenset({"cost"}))
    assert not sure.hopeless
    assert sure.decided_in == sure.challengers[0].measures[0].pairs / 2_000
    rare = planned(volume(4.0), budget=plenty)
    assert rare.hopeless
    assert rare.decided_in is None


def test_a_share_by_tier_counts_in_the_plan() -> None:
    sample = Sample(share=0.0, by=((Calls(tiers=frozenset({Tier.EXPORT})), 1.0),))
    assert planned(volume(100.0), volume(7.0, tier=Tier.EXPORT), sample=sample).copied_a_day == 7.0


def test_calls_that_the_challenger_cannot_draw_are_named_and_not_priced() -> None:
    small = offer("together:m", 1.0, abilities=Abilities(sizes=SizeRule(max_side=512)))
    (challenger,) = planned(volume(10.0), volume(6.0, size=512), offers=(FAL, small)).challengers
    assert challenger.copies_a_day == 3.0
    assert challenger.unable == {"together:m does not draw exactly 1024x1024": 5.0}


def test_without_traffic_nothing_will_ever_be_decided() -> None:
    found = planned()
    assert found.ends is None
    assert {each.days for each in found.challengers[0].measures} == {inf}
    assert found.hopeless


def test_a_challenger_at_a_team_s_own_account_is_found_by_lint_for_copies_are_nobody_s() -> None:
    ours = replace(POLICY, experiments=(SMALL,))
    assert list(findings_in(ours, catalog(FAL, TOGETHER))) == []
    (found,) = findings_in(ours, catalog(FAL, replace(TOGETHER, team="acme")))
    assert (found.code, found.loc) == ("challenger", ("experiments", 0, "challengers", 0, "account"))
    assert "belongs to another team" in found.message


def test_two_experiments_that_order_the_same_copies_are_a_warning() -> None:
    twice = replace(POLICY, experiments=(SMALL, replace(SMALL, name="two")))
    (found,) = findings_in(twice, catalog(FAL, TOGETHER))
    assert (found.level, found.loc) == ("warning", ("experiments", 1, "challengers", 0, "name"))


def test_a_retired_offer_is_no_champion() -> None:
    ours = replace(POLICY, experiments=(SMALL,))
    (found,) = findings_in(ours, catalog(replace(FAL, retired="its seller stopped selling it"), TOGETHER))
    assert found.code == "champion"
