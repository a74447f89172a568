from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from policies.policy import Pool
from policies.pool import Held, lanes, outlook, share_of_bid
from policies.types import Capacity, InLine, Machine, Machines, Submit, Wait
from tests.support.sellers import Town, ask, offer

NOW = 100.0
MILLION = 1e6


def machines(*up: tuple[str | None, float], line: tuple[InLine, ...] = ()) -> Machines:
    """GPUs by model and seconds until they are free."""
    by_model: dict[str, Held[None]] = {}
    for each in line:
        by_model.setdefault(each.model, Held()).join(each, None)
    return Machines([Machine(model, NOW + left) for model, left in up], {}, by_model)


def wish(model: str = "m", seconds: float = 2.0, due: float = 30.0, worth: float = 5.0) -> InLine:
    return InLine(model, seconds, NOW + due, worth)


def test_a_machine_that_has_the_model_and_is_idle_takes_an_order_at_once() -> None:
    found = outlook(machines(("m", 0.0), ("m", 4.0)), wish(), NOW, 1.0, Pool(), {})
    assert found is not None
    assert (found.wait_s, found.place) == (0.0, True)
    assert found.price == share_of_bid(1, 2.0, Pool())


def test_an_order_waits_at_the_gateway_until_a_machine_is_free() -> None:
    found = outlook(machines(("m", 3.0), ("m", 4.0)), wish(), NOW, 1.0, Pool(), {})
    assert found is not None
    assert (found.wait_s, found.place) == (3.0, False)


def test_who_cannot_pay_for_a_second_of_an_idle_machine_is_not_to_have_it_and_waits_at_the_price_of_what_is_left() -> (
    None
):
    found = outlook(machines(("m", 0.0), ("m", 4.0)), wish(worth=0.1), NOW, 1.0, Pool(), {})
    assert found is not None
    assert (found.wait_s, found.place, found.price) == (1.0, False, Pool().left_over)


def test_behind_many_each_waits_as_if_they_were_even() -> None:
    ahead = tuple(wish(due=1.0 + 0.01 * number, seconds=1.0 + number % 3) for number in range(30))
    few, many = (
        outlook(machines(*[("m", 1.0)] * 3, line=ahead[:most]), wish(), NOW, 1.0, Pool(), {}) for most in (12, 30)
    )
    assert few is not None
    assert many is not None
    assert few.wait_s == pytest.approx(1.0 + 24.0 / 3, abs=1.0)
    assert many.wait_s == pytest.approx(1.0 + 60.0 / 3, abs=1.0)


def test_whoever_a_bid_parts_from_the_others_changes_sides_and_comes_back() -> None:
    held: Held[str] = Held()
    for name, worth, due in (("dear", 9.0, 3.0), ("cheap", 2.0, 1.0), ("middling", 5.0, 2.0)):
        held.join(wish(worth=worth, due=due), name)
    assert [held.first(bid) for bid in (1.0, 3.0, 6.0, 10.0, 6.0, 1.0)] == [
        "cheap", "middling", "dear", "cheap", "dear", "cheap",
    ]  # fmt: skip


def test_those_due_sooner_go_first_and_those_who_take_what_is_left_over_go_last() -> None:
    ahead = (wish(due=10.0), wish(due=5.0, worth=0.1), wish(due=60.0))
    found = outlook(machines(("m", 3.0), line=ahead), wish(), NOW, 1.0, Pool(), {})
    assert found is not None
    assert found.wait_s == pytest.approx(3.0 + 2.0)


def test_behind_a_crowd_who_takes_what_is_left_over_waits_for_as_long_as_the_crowd_takes() -> None:
    crowd = tuple(wish(worth=0.1) for number in range(100))
    found = outlook(machines(("m", 3.0), ("m", 5.0), line=crowd), wish(worth=0.1, due=600.0), NOW, 1.0, Pool(), {})
    assert found is not None
    assert found.wait_s == pytest.approx(3.0 + 100 * 2.0 / 2)


def test_no_machine_up_is_no_offer() -> None:
    assert outlook(machines(), wish(), NOW, 1.0, Pool(), {}) is None


def test_a_model_nobody_has_loaded_pays_for_the_swap() -> None:
    found = outlook(machines(("other", 0.0)), wish(), NOW, 1.0, Pool(swap=3.0), {})
    assert found is not None
    assert (found.wait_s, found.place) == (3.0, True)


def test_a_line_for_machines_is_that_of_their_worth_and_then_of_their_objectives_whatever_the_bid() -> None:
    held: Held[str] = Held()
    for who, due, worth in (("a", 30.0, 5.0), ("b", 20.0, 1.0), ("c", 10.0, 3.0), ("d", 10.0, 3.0)):
        held.join(wish(due=due, worth=worth), who)
    assert held.first(0.0) == "c"
    assert held.first(4.0) == "a"
    assert held.first(2.0) == "c"
    held.leave(wish(due=10.0, worth=3.0), "c")
    assert held.first(2.0) == "d"
    assert held.first(9.0) == "d"
    assert len(held) == 3


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9)), max_size=20),
    st.lists(st.integers(0, 9), min_size=1, max_size=4),
)
def test_what_stands_ahead_in_a_line_for_machines_is_what_looking_through_all_of_it_says(
    parts: list[tuple[int, int, int]], bids: list[int]
) -> None:
    held: Held[int] = Held()
    standing = [wish(seconds=float(s), due=float(d), worth=float(w)) for n, (s, d, w) in enumerate(parts)]
    for n, part in enumerate(standing):
        held.join(part, n)
    gone = set(range(1, len(parts), 3))
    for n in gone:
        held.leave(standing[n], n)
    left = [part for n, part in enumerate(standing) if n not in gone]
    for bid in bids:
        for asked in (wish(due=4.0, worth=4.0), wish(due=4.0, worth=float(bid))):
            mine = (asked.worth < bid, asked.due)
            before = sorted(part.seconds for part in left if (part.worth < bid, part.due) < mine)
            assert sorted(held.ahead(asked, bid)) == before
        first = held.first(bid)
        ranks = [(part.worth < bid, part.due) for part in left]
        assert (None if first is None else (standing[first].worth < bid, standing[first].due)) == min(
            ranks, default=None
        )


def test_a_model_with_too_many_machines_leaves_the_next_one_to_a_model_that_has_too_few() -> None:
    up = machines(("m", 0.0), ("m", 5.0))
    found = outlook(up, wish(), NOW, 1.0, Pool(), {"m": 1, "n": 1})
    assert found is not None
    assert found.wait_s == 5.0


def test_a_long_step_pays_for_what_it_blocks_even_on_an_idle_machine() -> None:
    assert share_of_bid(0, 1.0, Pool()) == 1.0
    assert share_of_bid(2, 1.0, Pool()) < share_of_bid(1, 1.0, Pool()) < share_of_bid(1, 20.0, Pool()) < 1.0


def test_machines_follow_the_load_but_not_every_ripple() -> None:
    assert lanes({"m": 2.4, "n": 1.6}, {"m": 2, "n": 2}, 4) == {"m": 2, "n": 2}
    assert lanes({"m": 3.2, "n": 0.8}, {"m": 2, "n": 2}, 4) == {"m": 3, "n": 1}
    assert lanes({"m": 3.6, "n": 0.4}, {"m": 4}, 4) == {"m": 4, "n": 1}
    assert lanes({}, {"m": 4}, 4) == {"m": 4}


def test_an_own_machine_is_taken_while_idle_and_waited_for_while_that_is_cheaper() -> None:
    town = Town(
        offer("own:m", 0.0, capacities=("own",)), offer("b:m"), capacities=[Capacity(id="own", slots=1, machines=True)]
    )
    town.market.gpus["own"] = Machines([Machine("m", 0.0)], {}, {})
    move = town.decide(ask()).move
    assert isinstance(move, Submit)
    assert move.candidate.offer.id == "own:m"
    town.market.gpus["own"] = Machines([Machine("m", 4.0)], {}, {})
    decision = town.decide(ask())
    wait = decision.move
    assert isinstance(wait, Wait)
    assert wait.line is not None
    assert wait.line.model == "m"
    elsewhere = decision.ranked[0]
    assert wait.until == pytest.approx(0.75 * (ask().constraints.slo - 1.1 * elsewhere.latency_p95))
    hurried = town.decide(replace(ask(slo=2.0), arrived=0.0)).move
    assert isinstance(hurried, Submit)
    assert hurried.candidate.offer.id == "b:m"


def test_a_plan_gives_machines_to_models_of_ours_though_a_seller_takes_as_long() -> None:
    capacity = Capacity(id="own", slots=4, machines=True)
    town = Town(offer("b:x", 9.0), offer("own:m", 0.0, capacities=("own",)), capacities=[capacity])
    town.market.gpus["own"] = Machines([Machine("m", 0.0)] * 4, {}, {})
    for second in range(100):
        town.engine.tick(town.market, float(second))
        town.decide(replace(ask(), arrived=float(second)), float(second))
    assert town.engine._planner.lanes["own"].keys() == {"m"}


def test_an_idle_machine_is_left_to_those_who_miss_it_more_until_more_of_them_are() -> None:
    town = Town(
        offer("own:m", 0.0, capacities=("own",)), offer("b:m"), capacities=[Capacity(id="own", slots=2, machines=True)]
    )
    town.engine._planner.bids["own"].value = 30.0 * MILLION  # for a second, which is what the picture takes
    town.market.gpus["own"] = Machines([Machine("m", 0.0), Machine("m", 9.0)], {}, {})
    few = town.decide(ask()).move
    town.market.gpus["own"] = Machines([Machine("m", 0.0), Machine("m", 0.0)], {}, {})
    many = town.decide(ask()).move
    assert isinstance(few, Wait)
    assert (few.capacity, few.until >= 1.0) == ("own", True)
    assert isinstance(many, Submit)
    assert many.candidate.offer.id == "own:m"


def test_who_waits_for_a_machine_is_asked_only_where_one_would_be_placed() -> None:
    town = Town(offer("own:m", 0.0, capacities=("own",)), capacities=[Capacity(id="own", slots=2, machines=True)])

    def places(*up: Machine) -> bool:
        look = town.engine.outlook("own", wish(), Machines(up, {}, {}), NOW)
        return look is not None and look.place

    idle, busy, other = Machine("m", NOW), Machine("m", NOW + 1.0), Machine("n", NOW)
    assert places(busy, idle)
    assert not places(busy)
    assert not places()
    assert not places(busy, other)  # one of its own model is up, and nothing says that it should have two
    assert places(other)


def test_a_pool_with_no_machine_up_is_no_reason_to_wait_for_it() -> None:
    town = Town(
        offer("own:m", 0.0, capacities=("own",)), offer("b:m"), capacities=[Capacity(id="own", slots=1, machines=True)]
    )
    town.market.gpus["own"] = Machines([], {}, {})
    decision = town.decide(ask())
    assert isinstance(decision.move, Submit)
    assert [each.reason for each in decision.rejected] == ["own has no machine up"]


def test_machines_are_shared_by_what_the_plan_at_hand_places_on_them() -> None:
    one, other = (offer(f"own:{model}", 0.0, capacities=("own",), typical_s=2.0) for model in "mn")
    elsewhere = (offer("b:m", 4.0), offer("b:n", 4.0))
    town = Town(one, other, *elsewhere, capacities=[Capacity(id="own", slots=4, machines=True)])
    town.market.gpus["own"] = Machines([Machine("n", 0.0)] * 4, {}, {})
    for second in range(11):
        town.engine.tick(town.market, float(second))
        for model, calls in (("m", 3), ("n", 1)):
            for _ in range(calls if second else 0):
                town.decide(replace(ask(models=frozenset({model})), arrived=float(second)), float(second))
    assert town.engine._planner.lanes["own"] == {"m": 3, "n": 1}
