from __future__ import annotations

import random
from math import inf, log, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.experiments.significance import (
    FEWEST,
    FEWEST_FOR_FAILURES,
    Failures,
    Means,
    Planned,
    band,
    fixed_pairs,
    fixed_pairs_for_failures,
    pairs_to_equate,
    pairs_to_tell,
    pairs_to_tell_failures,
    undecidable,
)

PLAN = Planned(pairs=200, alpha=0.05)


def after(differences: list[float], planned: Planned = PLAN) -> Means:
    means = Means(planned)
    for difference in differences:
        means.add(difference)
    return means


@pytest.mark.parametrize(("risk", "height"), [(0.05, 2.2414), (0.10, 1.9600), (0.01, 2.8070)])
def test_the_band_is_the_one_in_the_tables(risk: float, height: float) -> None:
    # For small risks P(max |W| > a) = 4 (1 - Phi(a)) to four digits.
    assert band(risk) == pytest.approx(height, abs=2e-3)


def test_nothing_is_said_before_the_spread_is_known() -> None:
    means = after([1.0, 1.1] * (FEWEST // 2 - 1))
    assert means.interval().low == -inf
    assert means.verdict() == "undecided"


def test_a_clear_difference_is_called_by_its_direction() -> None:
    rng = random.Random(1)
    lower = [rng.gauss(-1.0, 0.5) for _ in range(60)]
    assert after(lower).verdict() == "lower"
    assert after([-each for each in lower]).verdict() == "higher"


def test_equal_things_are_equivalent_once_the_interval_lies_within_the_margin() -> None:
    rng = random.Random(2)
    planned = Planned(pairs=200, alpha=0.05, margin=0.1)
    means = after([rng.gauss(0.0, 0.1) for _ in range(200)], planned)
    assert means.verdict() == "equivalent"


def test_a_difference_too_small_to_matter_is_no_difference() -> None:
    rng = random.Random(3)
    planned = Planned(pairs=200, alpha=0.05, margin=0.1)
    means = after([rng.gauss(0.02, 0.02) for _ in range(200)], planned)
    assert means.interval().low > 0
    assert means.verdict() == "equivalent"


@given(st.lists(st.floats(-5, 5), min_size=FEWEST, max_size=400))
def test_an_interval_holds_the_mean_that_was_seen(differences: list[float]) -> None:
    means = after(differences)
    interval = means.interval()
    assert interval.low <= means.mean <= interval.high
    assert means.mean == pytest.approx(sum(differences) / len(differences), abs=1e-9)


def test_going_on_after_the_plan_still_narrows_the_interval() -> None:
    rng = random.Random(4)
    at_plan, later = (after([rng.gauss(0, 1) for _ in range(pairs)]) for pairs in (200, 2000))
    assert later.interval().high - later.interval().low < at_plan.interval().high - at_plan.interval().low


def failing(champion: int, challenger: int, both_well: int = 0) -> Failures:
    failures = Failures(Planned(pairs=2000, alpha=0.05, margin=0.01))
    for who, times in ((False, challenger), (True, champion)):
        for _ in range(times):
            failures.add(champion=who, challenger=not who)
    for _ in range(both_well):
        failures.add(champion=False, challenger=False)
    return failures


def test_who_fails_more_often_is_told_from_the_pairs_with_one_failure() -> None:
    assert failing(champion=4, challenger=25, both_well=700).verdict() == "higher"
    assert failing(champion=25, challenger=4, both_well=700).verdict() == "lower"
    assert failing(champion=9, challenger=12, both_well=700).verdict() == "undecided"


def test_pairs_in_which_both_fail_or_neither_does_are_no_evidence() -> None:
    few = failing(champion=3, challenger=9)
    before = few.evidence()
    for both in (True, False):
        for _ in range(100):
            few.add(champion=both, challenger=both)
    assert few.evidence() == before


def test_equal_failure_rates_are_equivalent_after_enough_pairs() -> None:
    assert failing(champion=8, challenger=8, both_well=4000).verdict() == "equivalent"
    assert failing(champion=0, challenger=0, both_well=FEWEST_FOR_FAILURES).verdict() == "undecided"


@given(st.integers(0, 40), st.integers(0, 40))
def test_evidence_does_not_care_which_side_is_called_champion(one: int, other: int) -> None:
    assert failing(one, other).evidence() == pytest.approx(failing(other, one).evidence())


def test_a_fair_coin_earns_no_evidence_on_average() -> None:
    # The expectation over all outcomes of ten single failures is exactly one: what Ville's inequality rests on.
    from math import comb

    mean = sum(comb(10, heads) / 2**10 * failing(heads, 10 - heads).evidence() for heads in range(11))
    assert mean == pytest.approx(1.0)


def test_plans_stay_near_the_size_of_a_test_that_is_looked_at_once() -> None:
    spread = 0.25 * sqrt(2)
    assert pairs_to_tell(log(1.1), spread, 0.05) <= 1.7 * fixed_pairs(log(1.1), spread, 0.05)
    assert pairs_to_tell_failures(0.01, 0.03, 0.05) <= 1.7 * fixed_pairs_for_failures(0.01, 0.03, 0.05)
    assert pairs_to_equate(log(1.1), spread, 0.05) > 0


def test_what_traffic_cannot_decide_in_three_months_is_known_at_once() -> None:
    pairs = pairs_to_tell_failures(0.010, 0.012, 0.05)
    assert undecidable(pairs, pairs_a_day=100)
    assert not undecidable(pairs, pairs_a_day=pairs)
