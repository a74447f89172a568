from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policies.waiting import Line, rank


def test_a_line_is_in_the_order_of_rank_and_of_equals_in_that_of_coming() -> None:
    line: Line[str] = Line()
    for who, when in (("second", 1.0), ("third", 1.0), ("first", 0.5)):
        line.join(when, who)
    assert all_of(line) == ["first", "second", "third"]


def test_whoever_leaves_a_line_is_not_in_it_and_the_others_are() -> None:
    line: Line[str] = Line()
    spots = [line.join(1.0, who) for who in "abc"]
    line.leave(spots[1])
    assert all_of(line) == ["a", "c"]
    assert line.next(always) is None


def test_whoever_has_to_leave_more_for_others_than_there_is_is_passed() -> None:
    line: Line[str] = Line()
    line.join(0.0, "patient", 0.2)
    line.join(1.0, "hurried")
    nexts = [line.next(lambda spare, left=left: spare <= left) for left in (0.1, 0.2)]  # type: ignore[misc]
    assert [found and found[1] for found in nexts] == ["hurried", "patient"]
    assert line.ahead(2.0) == len(line) == 2


def always(spare: float) -> bool:
    return spare <= 1.0


def all_of(line: Line[str]) -> list[str]:
    """Let everybody go, one by one."""
    gone = []
    while (found := line.next(always)) is not None:
        line.leave(found[0])
        gone.append(found[1])
    return gone


@given(st.lists(st.floats(0, 100), max_size=30), st.floats(0, 100))
def test_those_ahead_are_those_of_less_rank(ranks: list[float], mine: float) -> None:
    line: Line[float] = Line()
    for each in ranks:
        line.join(each, each)
    assert line.ahead(mine) == sum(each < mine for each in ranks)


def test_who_is_late_whatever_happens_stands_behind_all_who_may_be_in_time() -> None:
    assert rank(0.0, 600.0, lost=True) > rank(1e6, 0.0)
    assert rank(0.0, 0.0, lost=True) < rank(1.0, 0.0, lost=True)
