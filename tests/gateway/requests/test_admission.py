from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.requests.admission import Admission, Lease


def slots(limit: int) -> Admission:
    """An admission with one capacity of so many slots."""
    return Admission(lambda _, busy: 0.0 if busy < limit else float("inf"))


def test_a_lease_is_given_back_once_however_often_it_is_released() -> None:
    admission = slots(2)
    lease = admission.lease(["fal"])
    assert lease is not None
    lease.release()
    lease.release()
    assert admission.in_flight("fal") == 0


def test_all_capacities_are_taken_or_none() -> None:
    admission = Admission(lambda name, busy: 0.0 if name == "slots" or busy < 1 else 0.5)
    assert admission.lease(["slots", "rate"]) is not None
    assert admission.lease(["slots", "rate"]) is None
    assert admission.in_flight("slots") == 1


def test_whoever_came_first_is_woken_first_and_only_as_many_as_there_is_room_for() -> None:
    admission = slots(1)
    lease = admission.force(["fal"])
    woken: list[str] = []
    for name in ("first", "second"):
        admission.wait("fal", lambda name=name: woken.append(name))  # type: ignore[misc]
    lease.release()
    assert woken == ["first"]
    assert admission.waiting("fal") == 1


def test_one_who_left_the_line_is_not_woken() -> None:
    admission = slots(1)
    lease = admission.force(["fal"])
    woken: list[str] = []
    admission.wait("fal", lambda: woken.append("gone")).cancel()
    admission.wait("fal", lambda: woken.append("here"))
    assert admission.waiting("fal") == 1
    lease.release()
    assert woken == ["here"]


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 5))
def test_in_flight_never_passes_the_limit(moves: list[bool], limit: int) -> None:
    admission, taken = slots(limit), list[Lease]()
    for take in moves:
        if take:
            lease = admission.lease(["fal"])
            assert (lease is None) == (len(taken) == limit)
            taken += [lease] if lease else []
        elif taken:
            taken.pop().release()
        assert admission.in_flight("fal") == len(taken) <= limit
