from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError, NoCapacity, NotReady
from gateway.requests.waiting_room import Place, WaitingRoom
from policies.waiting import LOOKS_PER_S


class Crowd:
    """Calls in a waiting room, and what those who were sent away were told."""

    def __init__(self, places: int) -> None:
        self.room = WaitingRoom(places)
        self.told: dict[str, GatewayError] = {}

    def comes(self, name: str, worth: int = 1, *, team: str = "acme", at: float = 0.0, expects: float = 0.0) -> Place:
        place = Place(team, worth, at, lambda error: self.told.update({name: error}))
        place.expects = expects
        self.room.enter(place)
        return place


def test_as_many_wait_as_there_are_places() -> None:
    crowd = Crowd(2)
    crowd.comes("first")
    crowd.comes("second")
    assert len(crowd.room) == 2
    assert crowd.told == {}


def test_beyond_that_the_call_of_least_worth_leaves_newcomer_or_not() -> None:
    crowd = Crowd(2)
    crowd.comes("preview", worth=1)
    crowd.comes("export", worth=5)
    crowd.comes("another export", worth=5)
    assert list(crowd.told) == ["preview"]
    crowd.comes("another preview", worth=1)
    assert list(crowd.told) == ["preview", "another preview"]
    assert len(crowd.room) == 2


def test_of_equals_one_of_the_team_that_has_most_waiting_leaves_and_of_these_the_last() -> None:
    crowd = Crowd(3)
    crowd.comes("greedy 1", team="greedy", at=1)
    crowd.comes("greedy 2", team="greedy", at=2)
    crowd.comes("modest", team="modest", at=3)
    crowd.comes("another", team="modest2", at=4)
    assert list(crowd.told) == ["greedy 2"]


def test_who_is_sent_away_is_told_when_room_is_expected() -> None:
    crowd = Crowd(0)
    crowd.comes("a", expects=7.5)
    crowd.comes("b", expects=0.01)
    crowd.comes("c", expects=3600.0)
    assert all(isinstance(error, NoCapacity) for error in crowd.told.values())
    assert [error.retry_after for error in crowd.told.values()] == [7.5, 1.0, 60.0]


def test_a_place_that_was_left_is_free_and_leaving_twice_frees_one() -> None:
    crowd = Crowd(1)
    place = crowd.comes("first")
    crowd.room.leave(place)
    crowd.room.leave(place)
    crowd.comes("second")
    assert crowd.told == {}


def test_when_the_gateway_stops_all_who_wait_are_told_and_nobody_enters() -> None:
    crowd = Crowd(5)
    crowd.comes("waits")
    crowd.room.close()
    crowd.comes("comes too late")
    assert {name: type(error) for name, error in crowd.told.items()} == {"waits": NotReady, "comes too late": NotReady}
    assert len(crowd.room) == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc")), max_size=60), st.integers(0, 5))
def test_whoever_waits_is_worth_no_less_than_anybody_sent_away(calls: list[tuple[int, str]], places: int) -> None:
    crowd, worth = Crowd(places), dict[str, int]()
    for number, (value, team) in enumerate(calls):
        worth[str(number)] = value
        crowd.comes(str(number), value, team=team, at=float(number))
    kept = [value for name, value in worth.items() if name not in crowd.told]
    assert len(kept) == len(crowd.room) == min(len(calls), places)
    assert not kept or all(worth[name] <= min(kept) for name in crowd.told)


def test_a_crowd_looks_again_so_seldom_that_it_costs_no_more_than_a_few_calls_do() -> None:
    crowd = Crowd(2000)
    alone = crowd.comes("alone")
    assert crowd.room.pause(alone, 0.1) == 0.1
    places = [crowd.comes(str(number)) for number in range(1000)]
    for place in places:
        crowd.room.pause(place, 0.1)
    pauses = [crowd.room.pause(place, 0.1) for place in places]
    assert sum(1 / pause for pause in pauses) < 1.2 * LOOKS_PER_S
    assert len({round(pause) for pause in pauses}) > 3
    for place in places:
        crowd.room.leave(place)
    assert crowd.room.pause(alone, 0.1) == 0.1


def test_a_crowd_that_has_time_keeps_nobody_from_looking_who_has_little() -> None:
    crowd = Crowd(2000)
    for number in range(1000):
        crowd.room.pause(crowd.comes(str(number)), 15.0)
    assert crowd.room.pause(crowd.comes("hurried"), 0.1) == 0.1
