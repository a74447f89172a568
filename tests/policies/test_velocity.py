from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policies.velocity import HISTORY_HOURS, Brake, braked_from, usual_hour

NOW = 500_000
"""An hour."""
TERMS = Brake()
costs = st.integers(min_value=1, max_value=10**12)
hours = st.integers(min_value=NOW - HISTORY_HOURS, max_value=NOW - 1)
known = st.dictionaries(hours, costs, min_size=TERMS.hours, max_size=HISTORY_HOURS)


@given(spent=st.dictionaries(hours, costs, max_size=TERMS.hours - 1))
def test_nothing_is_usual_while_too_few_hours_are_known(spent: dict[int, int]) -> None:
    assert usual_hour(spent, NOW, TERMS) is None


@given(spent=known)
def test_the_usual_hour_is_one_of_its_hours_with_as_many_at_or_above_as_below(spent: dict[int, int]) -> None:
    usual = usual_hour(spent, NOW, TERMS)
    assert usual is not None
    assert usual in spent.values()
    assert sum(cost <= usual for cost in spent.values()) * 2 >= len(spent)
    assert sum(cost >= usual for cost in spent.values()) * 2 >= len(spent)


@given(spent=known, old=st.integers(min_value=1, max_value=1000), cost=costs)
def test_what_is_older_than_a_week_or_is_not_over_or_cost_nothing_does_not_count(
    spent: dict[int, int], old: int, cost: int
) -> None:
    more = {**spent, NOW - HISTORY_HOURS - old: cost, NOW: cost, NOW + old: cost}
    assert usual_hour(more, NOW, TERMS) == usual_hour(spent, NOW, TERMS)
    idle = {hour: 0 for hour in range(NOW - HISTORY_HOURS, NOW) if hour not in spent}
    assert usual_hour({**spent, **idle}, NOW, TERMS) == usual_hour(spent, NOW, TERMS)


@given(spent=known, thefts=st.sets(hours, max_size=TERMS.hours // 2 - 1), stolen=st.integers(10**13, 10**15))
def test_fewer_than_half_of_its_hours_being_a_thiefs_never_makes_them_usual(
    spent: dict[int, int], thefts: set[int], stolen: int
) -> None:
    usual = usual_hour(spent | dict.fromkeys(thefts, stolen), NOW, TERMS)
    assert usual is not None
    assert usual < stolen


@given(spent=known, factor=st.integers(min_value=2, max_value=100))
def test_a_key_that_spends_as_ever_is_never_braked_and_nobody_is_below_the_floor(
    spent: dict[int, int], factor: int
) -> None:
    terms = Brake(factor=float(factor))
    usual = usual_hour(spent, NOW, terms)
    assert usual is not None
    assert braked_from(usual, terms) >= max(terms.floor, 2 * usual)


@given(low=costs, high=costs)
def test_who_usually_spends_more_may_spend_more(low: int, high: int) -> None:
    low, high = sorted((low, high))
    assert braked_from(low, TERMS) <= braked_from(high, TERMS)
