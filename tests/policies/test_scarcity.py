"""Plans of bid prices: what is left out of them changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from policies import scarcity
from policies.scarcity import Bid, Kind
from policies.types import Capacity
from tests.support.sellers import Town, ask, offer

PLACES = 3
costs = st.floats(0.0, 200e6)
places = st.integers(-1, PLACES - 1)
uses = st.tuples(costs, places, st.floats(0.1, 30.0), places)
kinds = st.builds(
    Kind, rate=st.floats(0.01, 20.0), outside=st.floats(1e6, 500e6), uses=st.lists(uses, min_size=1, max_size=8)
)
bids = st.lists(st.tuples(st.floats(0.0, 50e6), st.floats(0.0, 10.0)), min_size=PLACES, max_size=PLACES)


def total(use: scarcity.Use, values: list[float]) -> float:
    """What a use costs where a unit of each scarce thing is worth so much; the last value, of nothing, is 0."""
    cost, resource, seconds, rate = use
    return cost + values[resource] * seconds + values[rate]


def bids_of(facts: list[tuple[float, float]]) -> list[Bid]:
    made = []
    for value, room in facts:
        bid = Bid()
        bid.value, bid.room = value, room
        made.append(bid)
    return made


@given(st.lists(kinds, max_size=6), bids)
def test_a_plan_moves_no_bid_above_the_highest_it_can_be(kinds: list[Kind], facts: list[tuple[float, float]]) -> None:
    moved = bids_of(facts)
    most = scarcity.highest(moved)
    scarcity.plan(kinds, moved)
    assert all(bid.value <= bound * (1.0 + 1e-9) for bid, bound in zip(moved, most, strict=False))


@given(st.lists(kinds, max_size=6), bids)
def test_offers_dearer_than_another_at_any_bid_do_not_change_the_plan(
    kinds: list[Kind], facts: list[tuple[float, float]]
) -> None:
    whole, part = bids_of(facts), bids_of(facts)
    most = scarcity.highest(part)
    kept = []
    for kind in kinds:
        bound = scarcity.beside(min(total(use, most) for use in kind.uses))
        kept.append(Kind(kind.rate, kind.outside, [use for use in kind.uses if use[0] < bound]))
    scarcity.plan(kinds, whole)
    scarcity.plan(kept, part)
    assert [(bid.value, bid.load) for bid in whole] == [(bid.value, bid.load) for bid in part]


def test_a_price_that_calls_leap_over_is_found_all_the_same() -> None:
    """Both sellers cost the same where an order is worth a cent; a tenth more or less sends all to one of them."""
    (bid,) = moved = bids_of([(2e6, 0.4)])
    for _ in range(6):
        scarcity.plan([Kind(1.0, 1e9, [(1e5, -1, 1.0, 0), (1e7, -1, 1.0, -1)])], moved)
    assert bid.value == pytest.approx(1e7, rel=0.05)
    assert bid.load == pytest.approx(bid.room, rel=0.2)


def test_kinds_that_stay_where_they_are_take_room_from_those_that_follow_the_bids() -> None:
    (bid,) = moved = bids_of([(0.0, 1.0)])
    settled = Kind(0.9, 1e9, [(3e6, 0, 1.0, -1)])
    scarcity.plan([settled], moved)
    assert (bid.value, bid.load) == (0.0, 0.9)
    scarcity.plan([Kind(0.9, 1e9, [(3e6, 0, 1.0, -1), (4e6, -1, 1.0, -1)])], moved, [settled])
    assert bid.value > 0.0
    assert bid.load > settled.rate


def plans(town: Town, calls: Callable[[int], int]) -> list[int]:
    """The seconds at which the bid of `a` moves, where so many calls come each second."""
    seen = []
    for second in range(40):
        for _ in range(calls(second) if second else 0):
            town.decide(replace(ask(), arrived=float(second)), float(second))
        town.engine.tick(town.market, float(second))
        seen.append(town.engine.bids()["a"].value)
    return [second for second in range(1, 40) if seen[second] != seen[second - 1]]


def test_while_bids_move_far_the_next_plan_does_not_wait_its_turn() -> None:
    town = Town(offer("a:m", capacities=("a",)), offer("b:m", 4.0), capacities=[Capacity(id="a", slots=1)])
    moved = plans(town, lambda _: 5)
    every = int(town.engine.policy.scarcity.every)
    assert moved[:2] == [every, every + 1]  # the first plan has not found the price
    assert moved[-1] <= every + 5
    assert town.engine._planner.pause(every) == every  # once it is found there is no hurry


def test_where_few_calls_come_the_next_plan_has_time_until_more_have_come() -> None:
    few = Town(offer("a:m", capacities=("a",)), offer("b:m", 4.0), capacities=[Capacity(id="a", slots=1)])
    every = int(few.engine.policy.scarcity.every)
    assert plans(few, lambda _: 1)[0] == 2 * every
    crowd = Town(offer("a:m", capacities=("a",)), offer("b:m", 4.0), capacities=[Capacity(id="a", slots=1)])
    assert plans(crowd, lambda second: 1 if second < every + 5 else 20)[0] == every + 5
