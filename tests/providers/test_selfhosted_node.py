"""What we know of a node: its slots are neither lost nor counted twice, whatever happens to its orders."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.contract import Abilities, ImageRequest, Order
from providers.selfhosted.adapter import Selfhosted, Status
from providers.selfhosted.dialects import DIALECTS
from providers.selfhosted.node import Node, Work
from providers.transport import Http

LINGER = 10.0
ORDER = Order(
    attempt_id="att-1", endpoint="m", abilities=Abilities(), request=ImageRequest(width=1024, height=1024), timeout=9
)
WELL = Status()
STEPS = st.lists(st.sampled_from(["take", "done", "lose", "idle", "busy", "dead", "wait"]), max_size=40)


async def _node(slots: int) -> Node:
    http = Http()
    server = Selfhosted("own", "http://127.0.0.1:9", http, dialect=DIALECTS["openai"])
    await http.aclose()
    made = Node("a", server, slots=slots, steps=None, failures=3, linger=LINGER)
    made.probed(WELL, made.running())
    return made


def node(slots: int = 3) -> Node:
    return asyncio.run(_node(slots))


@given(STEPS)
def test_a_slot_is_taken_exactly_while_an_order_runs_or_may_still_run(steps: list[str]) -> None:
    made, now = node(), 0.0
    running: list[Work] = []
    lost: list[float] = []
    for step in steps:
        lost = [until for until in lost if until > now]
        match step:
            case "take" if made.free(now) > 0:
                running.append(made.take(ORDER, now))
            case "done" if running:
                made.done(running.pop(0))
            case "lose" if running:
                made.lose(running.pop(0), now)
                lost.append(now + LINGER)
            case "idle":
                made.probed(Status(busy=len(running)), made.running())
                lost = []
            case "busy":
                made.probed(Status(busy=len(running) + len(lost)), made.running())
            case "dead":
                made.gone("refused", dead=True)
                lost = []
            case "wait":
                now += 4.0
        lost = [until for until in lost if until > now]
        assert made.free(now) == 3 - len(running) - len(lost)
    for work in running:
        made.done(work)
    assert made.free(now + LINGER) == 3


def test_an_order_sent_while_the_node_was_asked_proves_nothing_about_one_we_lost() -> None:
    made = node()
    made.lose(made.take(ORDER, 0.0), 0.0)
    before = made.running()
    made.take(ORDER, 0.0)
    made.probed(Status(busy=1), before)
    assert made.free(0.0) == 1


def test_what_is_overdue_is_expected_to_take_ever_longer() -> None:
    made = node(slots=1)
    made.take(ORDER, 0.0)
    made_at = [made.finish(ORDER, now) for now in (0.5, 1.0, 3.0, 9.0)]
    assert made_at == [1.5, 1.0, 3.0, 9.0]


def test_a_node_too_busy_to_say_how_it_is_stays_fit_and_a_silent_idle_one_does_not() -> None:
    made, silent = node(), Status(trouble="does not answer", silent=True)
    work = made.take(ORDER, 0.0)
    made.probed(silent, made.running())
    assert made.unfit("m", 0.0) == ""
    made.done(work)
    made.probed(silent, made.running())
    assert made.unfit("m", 0.0) == "does not answer"


def test_pace_is_learned_by_the_work_an_order_is() -> None:
    made = node()
    made.served(ORDER, 2.0)
    double = Order(
        attempt_id="b", endpoint="m", abilities=Abilities(), request=ImageRequest(width=2048, height=1024), timeout=9
    )
    assert made.expected(double) == 2 * made.expected(ORDER) == 4.0
    made.served(ORDER, 4.0)
    assert made.expected(ORDER) == pytest.approx(2.4)
