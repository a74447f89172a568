from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from gateway.requests.admission import Admission, Lease, Waiter


def slots(limit: int) -> Admission:
    """An admission with one capacity of so many slots."""
    return Admission(lambda _, busy, spare: 0.0 if limit - busy - 1 >= spare * limit else float("inf"))


def test_a_lease_is_given_back_once_however_often_it_is_released() -> None:
    admission = slots(2)
    lease = admission.lease(("fal",))
    assert lease is not None
    lease.release()
    lease.release()
    assert admission.in_flight("fal") == 0


def test_all_capacities_are_taken_or_none() -> None:
    admission = Admission(lambda name, busy, _: 0.0 if name == "slots" or busy < 1 else 0.5)
    assert admission.lease(("slots", "rate")) is not None
    assert admission.lease(("slots", "rate")) is None
    assert admission.in_flight("slots") == 1


def test_whoever_came_first_is_woken_first_and_only_as_many_as_there_is_room_for() -> None:
    admission = slots(1)
    lease = admission.force(("fal",))
    woken: list[str] = []
    for name in ("first", "second"):
        admission.wait("fal", lambda name=name: woken.append(name))  # type: ignore[misc]
    lease.release()
    assert woken == ["first"]
    assert admission.waiting("fal") == 1


def test_the_least_rank_is_woken_first_so_nobody_waits_for_more_than_a_priority_of_later_calls() -> None:
    """A call that came at 0 goes before calls of priority 20 s that come after 20."""
    admission = slots(1)
    lease = admission.force(("fal",))
    woken: list[str] = []
    came = {"patient": 0.0, "hurried, came at 19": 19.0 - 20.0, "hurried, came at 21": 21.0 - 20.0}
    waiters = {
        name: admission.wait("fal", lambda name=name: woken.append(name), rank)  # type: ignore[misc]
        for name, rank in came.items()
    }
    lease.release()
    for _ in came:
        waiters[woken[-1]].cancel()
    assert woken == ["hurried, came at 19", "patient", "hurried, came at 21"]


def test_a_call_counts_those_ahead_of_it_alone() -> None:
    admission = slots(1)
    for rank in (5.0, 1.0, 3.0, 9.0):
        admission.wait("fal", lambda: None, rank)
    assert admission.waiting("fal") == admission.ahead("fal") == 4
    admission.asking = 4.0
    assert admission.ahead("fal") == 2
    assert admission.ahead("replicate") == 0


def test_who_has_to_leave_slots_for_others_is_passed_until_there_are_more_and_then_is_woken() -> None:
    admission = slots(4)
    leases = [admission.force(("fal",)) for _ in range(4)]
    woken: list[str] = []
    for name, rank, spare in (("patient", 0.0, 0.5), ("hurried", 1.0, 0.0)):
        admission.wait("fal", lambda name=name: woken.append(name), rank, spare)  # type: ignore[misc]
    leases.pop().release()
    leases.pop().release()
    assert woken == ["hurried"]
    leases.pop().release()
    assert woken == ["hurried"], "one slot is kept for who was woken, and one more would leave one"
    leases.pop().release()
    assert woken == ["hurried", "patient"]


def test_room_is_kept_for_whoever_was_woken_until_that_is_decided_about() -> None:
    admission = slots(1)
    lease = admission.force(("fal",))
    waiter = admission.wait("fal", lambda: None)
    lease.release()
    assert admission.lease(("fal",)) is None, "a newcomer does not slip in"
    waiter.claim()
    assert admission.lease(("fal",)) is not None


def test_room_kept_for_one_who_left_goes_to_the_next_in_line() -> None:
    admission = slots(1)
    lease = admission.force(("fal",))
    woken: list[str] = []
    first = admission.wait("fal", lambda: woken.append("first"))
    admission.wait("fal", lambda: woken.append("second"))
    lease.release()
    first.cancel()
    assert woken == ["first", "second"]


def test_against_a_rate_an_order_counts_until_it_is_sent_and_against_slots_until_it_ends() -> None:
    admission = Admission(lambda *_: 0.0, rates=("rate",))
    lease = admission.lease(("slots", "rate"))
    assert lease is not None
    assert (admission.in_flight("slots"), admission.in_flight("rate")) == (1, 1)
    lease.sent()
    lease.sent()
    assert (admission.in_flight("slots"), admission.in_flight("rate")) == (1, 0)
    lease.release()
    assert (admission.in_flight("slots"), admission.in_flight("rate")) == (0, 0)


async def test_whoever_waits_for_a_token_is_woken_when_it_is_there() -> None:
    loop = asyncio.get_running_loop()
    ready = loop.time() + 0.03
    admission = Admission(
        lambda _, busy, __: 0.0 if loop.time() >= ready and not busy else max(ready - loop.time(), 0.01)
    )
    woken: list[str] = []
    admission.wait("rate", lambda: woken.append("second"), rank=2.0)
    admission.wait("rate", lambda: woken.append("first"), rank=1.0)
    await asyncio.sleep(0.2)
    assert woken == ["first"]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=80), st.integers(1, 3))
def test_a_line_wakes_everybody_who_stays_in_it_once(moves: list[int], limit: int) -> None:
    """0: one comes; 1: one leaves; 2: one who was woken orders and ends; 3: one who was woken goes elsewhere."""
    admission = slots(limit)
    leases = [admission.force(("fal",)) for _ in range(limit)]
    woken: dict[int, int] = {}
    there: dict[int, Waiter] = {}

    def come(number: int) -> None:
        there[number] = admission.wait("fal", lambda: woken.update({number: woken.get(number, 0) + 1}))

    for number, move in enumerate(moves):
        ready = [each for each, waiter in there.items() if waiter.woken]
        if move == 0:
            come(number)
        elif move == 1 and there:
            there.pop(next(iter(there))).cancel()
        elif move == 2 and ready:
            there.pop(ready[0]).claim()
            lease = admission.lease(("fal",))
            assert lease is not None, "the room was kept"
            lease.release()
        elif move == 3 and ready:
            there.pop(ready[0]).cancel()
        if leases:
            leases.pop().release()
    for lease in leases:
        lease.release()
    admission.stir("fal")  # for those who came when there was room
    while ready := [each for each, waiter in there.items() if waiter.woken]:
        there.pop(ready[0]).cancel()
    assert not there
    assert set(woken.values()) <= {1}
    assert admission.in_flight("fal") == admission.waiting("fal") == 0


def test_one_who_left_the_line_is_not_woken() -> None:
    admission = slots(1)
    lease = admission.force(("fal",))
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
            lease = admission.lease(("fal",))
            assert (lease is None) == (len(taken) == limit)
            taken += [lease] if lease else []
        elif taken:
            taken.pop().release()
        assert admission.in_flight("fal") == len(taken) <= limit
