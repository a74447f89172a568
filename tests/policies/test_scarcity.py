"""Plans of bid prices: what is left out of them changes nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policies import scarcity
from policies.policy import Scarcity
from policies.scarcity import Bid, Kind, Use

PLACES = 3
costs = st.floats(0.0, 200e6)
uses = st.builds(
    Use,
    cost=costs,
    resource=st.integers(-1, PLACES - 1),
    seconds=st.floats(0.1, 30.0),
    rate=st.integers(-1, PLACES - 1),
)
kinds = st.builds(
    Kind, rate=st.floats(0.01, 20.0), outside=st.floats(1e6, 500e6), uses=st.lists(uses, min_size=1, max_size=8)
)
bids = st.lists(st.tuples(st.floats(0.0, 50e6), st.floats(0.0, 10.0)), min_size=PLACES, max_size=PLACES)


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
    scarcity.plan(kinds, moved, Scarcity())
    assert all(value <= bound for value, bound in zip(scarcity.worths(moved), most, strict=True))


@given(st.lists(kinds, max_size=6), bids)
def test_offers_dearer_than_another_at_any_bid_do_not_change_the_plan(
    kinds: list[Kind], facts: list[tuple[float, float]]
) -> None:
    whole, part = bids_of(facts), bids_of(facts)
    most = scarcity.highest(part)
    kept = []
    for kind in kinds:
        bound = scarcity.beside(min(use.total(most) for use in kind.uses))
        kept.append(Kind(kind.rate, kind.outside, [use for use in kind.uses if use.cost < bound]))
    scarcity.plan(kinds, whole, Scarcity())
    scarcity.plan(kept, part, Scarcity())
    assert [(bid.value, bid.load) for bid in whole] == [(bid.value, bid.load) for bid in part]
