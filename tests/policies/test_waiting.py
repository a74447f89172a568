from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policies.waiting import Line, rank


def test_a_line_is_in_the_order_of_rank_and_of_equals_in_that_of_coming() -> None:
    line: Line[str] = Line()
    for who, when in (("second", 1.0), ("third", 1.0), ("first", 0.5)):
        line.join(when, who)
    assert [line.pop() for _ in range(3)] == ["first", "second", "third"]


def test_whoever_leaves_a_line_is_not_in_it_and_the_others_are() -> None:
    line: Line[str] = Line()
    spots = [line.join(1.0, who) for who in "abc"]
    line.leave(spots[1])
    assert [line.pop() for _ in range(2)] == ["a", "c"]
    assert line.head() is None


@given(st.lists(st.floats(0, 100), max_size=30), st.floats(0, 100))
def test_those_ahead_are_those_of_less_rank(ranks: list[float], mine: float) -> None:
    line: Line[float] = Line()
    for each in ranks:
        line.join(each, each)
    assert line.ahead(mine) == sum(each < mine for each in ranks)


def test_who_is_late_whatever_happens_stands_behind_all_who_may_be_in_time() -> None:
    assert rank(0.0, 600.0, lost=True) > rank(1e6, 0.0)
    assert rank(0.0, 0.0, lost=True) < rank(1.0, 0.0, lost=True)
