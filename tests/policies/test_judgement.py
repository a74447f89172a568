from __future__ import annotations

from math import inf

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from policies.judgement import judge
from policies.picture import Lack, Picture, Seen
from policies.policy import Hedging, Scarcity
from policies.scorers import SCORERS, scales
from policies.types import Ask, Capacity, Event, Live, Reason, Rejection, Shed, Submit, Wait, Worth
from tests.support.pasts import ASKS, EVENTS, MARKETS, OFFERS, REASONS, lived
from tests.support.sellers import CENT, POLICY, Town, ask, failed, offer

SLOTS = Capacity(id="a", slots=10)


@settings(max_examples=100, deadline=None)
@given(EVENTS, MARKETS, ASKS, REASONS, st.booleans())
def test_a_stored_picture_gives_the_same_decision(
    events: list[Event], busy: dict[str, int], wish: Ask, reason: Reason, hedged: bool
) -> None:
    if hedged:
        wish = replace(wish, live=(Live("a:m", "a", -2.0),), worth=Worth(late=10**9))
    town = lived(events, busy)
    decision = town.decide(wish, 0.0, reason)
    assert isinstance(decision.picture, Picture)
    stored = msgspec.json.encode(decision.picture.without_words())
    again = judge(msgspec.json.decode(stored, type=Picture), POLICY, {each.id: each for each in OFFERS})
    assert msgspec.json.encode(replace(again, picture=None)) == msgspec.json.encode(replace(decision, picture=None))


@given(EVENTS, MARKETS, ASKS, REASONS)
def test_a_picture_from_before_with_its_objections_in_words_gives_the_same_decision(
    events: list[Event], busy: dict[str, int], wish: Ask, reason: Reason
) -> None:
    decision = lived(events, busy).decide(wish, 0.0, reason)
    assert isinstance(decision.picture, Picture)
    older = replace(
        decision.picture, seen=tuple(replace(seen, blocked=seen.objection) for seen in decision.picture.seen)
    )
    stored = msgspec.json.encode(older.without_words())
    again = judge(msgspec.json.decode(stored, type=Picture), POLICY, {each.id: each for each in OFFERS})
    assert (again.rejected, again.ranked, again.waiting) == (decision.rejected, decision.ranked, decision.waiting)
    assert msgspec.json.encode(again.move) == msgspec.json.encode(decision.move)


@pytest.mark.parametrize(
    ("blocked", "words"),
    [
        ("full", "a is full; room is expected in 2.5 s"),
        ("hurried", "the last slots of a are kept for calls in a hurry; more are expected in 2.5 s"),
        ("reserved", "50% of the slots of a are reserved for others; more are expected in 2.5 s"),
        ("machine", "a is busy; a machine is expected in 2.5 s"),
    ],
)
def test_what_stands_in_the_way_of_an_offer_is_put_in_words_when_asked_for(blocked: Lack, words: str) -> None:
    (seen,) = [each.seen for each in Town(offer("a:m")).decide(ask()).ready]
    assert seen.objection is None
    waits = replace(seen, blocked=blocked, capacity="a", wait_s=2.5, spare=0.5)
    assert waits.objection == Rejection(offer="a:m", code="headroom", reason=words, lasting=False)


def test_a_picture_keeps_no_word_of_the_prompt() -> None:
    decision = Town(offer("a:m")).decide(ask())
    assert isinstance(decision.picture, Picture)
    assert b"lighthouse" not in msgspec.json.encode(decision.picture.without_words())


def test_a_picture_from_before_slots_were_left_for_others_is_read_as_one_that_leaves_none() -> None:
    decision = Town(offer("a:m")).decide(ask())
    assert isinstance(decision.picture, Picture)
    seen = decision.picture.seen[0]
    *before, spare = msgspec.to_builtins(seen)
    assert spare == 0.0
    assert msgspec.convert(before, Seen).spare == 0.0


def late(*, cents: float = 1.0, worth: int = 10 * CENT, hedging: Hedging | None = None) -> Submit | Wait | Shed:
    """What is done at 4 s about an order that should have taken 1 s, when 5 s are its objective."""
    policy = replace(POLICY, hedging=hedging or Hedging())
    town = Town(offer("a:m"), offer("b:m", cents), policy=policy)
    wish = replace(ask(slo=5.0), live=(Live("a:m", "a", 0.0),), worth=Worth(late=worth, late_second=0))
    return town.decide(wish, 4.0, "wake").move


def test_a_second_order_goes_elsewhere_where_it_saves_more_than_it_costs() -> None:
    move = late()
    assert isinstance(move, Submit)
    assert move.candidate.offer.id == "b:m"


@pytest.mark.parametrize(
    "facts", [{"cents": 20.0}, {"worth": CENT // 10}, {"hedging": Hedging(enabled=False)}], ids=["dear", "idle", "off"]
)
def test_no_second_order_where_it_saves_less(facts: dict[str, object]) -> None:
    assert isinstance(late(**facts), Wait)  # type: ignore[arg-type]


def test_a_second_order_does_not_go_to_whoever_failed_this_picture() -> None:
    town = Town(offer("a:m"), offer("b:m"))
    wish = replace(ask(failed("b:m", "unavailable"), slo=5.0), live=(Live("a:m", "a", 0.0),), worth=Worth(late=CENT))
    assert isinstance(town.decide(wish, 4.0, "wake").move, Wait)


def test_an_order_is_looked_at_again_while_a_second_could_still_be_in_time() -> None:
    move = Town(offer("a:m"), offer("b:m")).decide(ask(slo=3.0)).move
    assert isinstance(move, Submit)
    assert move.wake_at is not None
    assert 0.5 < move.wake_at < 2.0


def test_an_order_that_takes_long_is_looked_at_more_closely_towards_the_last_useful_moment() -> None:
    town = Town(offer("a:m"), offer("b:m", 30.0))
    wish = replace(ask(slo=10.0), live=(Live("a:m", "a", 0.0),))
    looks = []
    for now in (4.0, 8.0):
        move = town.decide(wish, now, "wake").move
        assert isinstance(move, Wait)
        looks.append(move.until - now)
    assert looks == pytest.approx([0.75 * 4.65, 0.75 * 0.65])  # the other account takes 1.35 s at most


def test_those_in_a_hurry_do_not_wait_behind_those_who_have_time() -> None:
    town = Town(offer("a:m", capacities=("a",)), capacities=[SLOTS])
    town.market.busy["a"], town.market.line["a"] = 10, 50
    hurried, patient = (town.decide(ask(slo=slo)).waiting[0].wait_s for slo in (3.0, 60.0))
    assert hurried == pytest.approx(0.1)
    assert patient == pytest.approx(5.1)


def test_the_last_slots_are_kept_for_calls_in_a_hurry() -> None:
    town = Town(offer("a:m", capacities=("a",)), capacities=[SLOTS])
    town.market.busy["a"] = 9
    assert isinstance(town.decide(ask(slo=3.0)).move, Submit)
    patient = town.decide(ask(slo=60.0))
    assert isinstance(patient.move, Wait)
    assert "kept for calls in a hurry" in patient.rejected[0].reason
    assert [each.offer.id for each in patient.waiting] == ["a:m"]


@pytest.mark.parametrize("busy", [9, 10])
def test_who_has_time_is_woken_once_more_slots_are_free_than_are_kept_for_others(busy: int) -> None:
    town = Town(offer("a:m", capacities=("a",)), capacities=[SLOTS])
    town.market.busy["a"] = busy
    move = town.decide(ask(slo=60.0)).move
    assert isinstance(move, Wait)
    rooms = [town.engine.room("a", taken, 0.0, move.spare) for taken in (9, 8, 7)]
    assert (move.capacity, rooms) == ("a", [inf, inf, 0.0])
    town.market.busy["a"] = 7
    assert isinstance(town.decide(ask(slo=60.0), reason="room").move, Submit)


@pytest.mark.parametrize(
    ("worth", "lost"),
    [(Worth(late=CENT, late_second=0), True), (Worth(late=0, late_second=CENT), False)],
    ids=["once", "with each second"],
)
def test_who_is_late_whatever_happens_lets_others_pass_unless_each_second_costs(worth: Worth, lost: bool) -> None:
    town = Town(offer("a:m", capacities=("a",)), capacities=[SLOTS])
    town.market.busy["a"] = 10
    moves = [town.decide(replace(ask(slo=3.0), worth=worth), now, "wake").move for now in (0.0, 4.0)]
    assert [isinstance(move, Wait) and move.lost for move in moves] == [False, lost]


@given(EVENTS, MARKETS, ASKS)
def test_scorers_that_are_not_asked_would_charge_nothing(events: list[Event], busy: dict[str, int], wish: Ask) -> None:
    picture = lived(events, busy).decide(wish).picture
    assert isinstance(picture, Picture)
    weights = scales(wish.worth, POLICY)
    for seen in picture.seen:
        every = tuple(make(wish.worth, POLICY)(seen) for make in SCORERS.values())
        assert weights(seen) == (sum(every), every)


def crowd(policy_every: float) -> Town:
    """Ten slots, and for a minute three calls a second of five seconds each; elsewhere it costs three times as much."""
    policy = replace(POLICY, scarcity=Scarcity(every=policy_every))
    town = Town(
        offer("a:m", capacities=("a",), typical_s=5.0),
        offer("b:m", 3.0, typical_s=5.0),
        capacities=[SLOTS],
        policy=policy,
    )
    for second in range(60):
        town.engine.tick(town.market, float(second))
        for _ in range(3):
            town.decide(ask(), float(second))
    return town


def test_what_a_crowd_will_miss_costs_extra_before_it_is_gone() -> None:
    best = crowd(5.0).decide(ask()).ranked
    assert {each.offer.id: each.costs["slots"] > 0 for each in best} == {"a:m": True, "b:m": False}


def test_without_plans_nothing_is_scarce() -> None:
    assert all(each.costs["slots"] == 0 for each in crowd(0.0).decide(ask()).ranked)


def test_when_others_would_pay_more_for_the_room_than_the_picture_is_worth_the_call_waits() -> None:
    town = crowd(5.0)
    humble = replace(ask(models=frozenset({"m"}), only=frozenset({"a"})), worth=Worth(late_second=0, failure=1))
    assert isinstance(town.decide(replace(humble, arrived=60.0), 60.0).move, Wait)


def test_an_invoice_that_differs_from_the_quote_corrects_the_price() -> None:
    town = Town(offer("a:m", 1.0), offer("b:m", 1.5))
    for n in range(20):
        town.tell("ok", "a:m", float(n), latency=1.0, cost=2 * CENT, quoted=CENT)
    ranked = town.decide(ask(), 20.0).ranked
    assert [each.offer.id for each in ranked] == ["b:m", "a:m"]
    assert ranked[1].costs["price"] == pytest.approx(2 * CENT, rel=0.05)
    assert ranked[1].quote.amount == CENT


@pytest.mark.parametrize(("price", "paid"), [(0.0, 0), (1.0, CENT)])
def test_a_price_of_nothing_is_a_price(price: float, paid: int) -> None:
    assert Town(offer("a:m", price)).decide(ask()).ranked[0].costs["price"] == paid


def test_a_clock_that_goes_back_changes_nothing_that_was_learned() -> None:
    town = Town(offer("a:m", capacities=("a",)), offer("b:m", 2.0), capacities=[SLOTS])
    for now in (100.0, 40.0, 70.0, 10.0):
        town.engine.tick(town.market, now)
        town.tell("ok", "a:m", now, latency=1.0)
        move = town.decide(replace(ask(), arrived=now), now).move
        assert isinstance(move, Submit)
        assert move.candidate.offer.id == "a:m"


def test_orders_that_hang_leave_their_account_alone_before_any_fails() -> None:
    town = Town(offer("a:m"), offer("b:m", 2.0))
    for n in range(4):
        town.tell("submitted", "a:m", float(n))
    for second in range(4, 16):
        town.engine.tick(town.market, float(second))
    move = town.decide(replace(ask(), arrived=16.0), 16.0).move
    assert isinstance(move, Submit)
    assert move.candidate.offer.id == "b:m"


def test_where_all_orders_hang_and_there_is_time_a_call_waits_instead_of_hanging_too() -> None:
    town = Town(offer("a:m"))
    for n in range(4):
        town.tell("submitted", "a:m", float(n))
    for second in range(4, 16):
        town.engine.tick(town.market, float(second))
    assert isinstance(town.decide(replace(ask(slo=30.0), arrived=16.0), 16.0).move, Wait)
    assert isinstance(town.decide(replace(ask(slo=1.0), arrived=16.0), 16.0).move, Submit)
