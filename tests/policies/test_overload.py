"""More comes than can be drawn: the simulator keeps the lines and the crowd that the live gateway keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from bench.routing.sim import summarise
from bench.routing.traffic import traffic
from bench.routing.world import World, accounts, build
from bench.routing_policy import POLICY, PixelgatePolicy
from policies.offline.simulator import FAILED, LATE, Sim


def crowded(seed: int = 5, gpus: int = 0, **over: Any) -> World:
    """Four times what few slots can draw, for a minute."""
    crowd = traffic(seed, 150.0, 4.0, flash=((30, 60, 6.0),), cacheable=0.0)
    accts = accounts(fal=4, together=3, replicate=3, gpus=gpus, **over)
    return build("crowded", seed, 150.0, crowd, accts, gpus).finish()


class Bounded(PixelgatePolicy):
    """The policy with so many places to wait."""

    def __init__(self, places: int) -> None:
        self.policy = replace(POLICY, max_waiting=places)
        self.most = 0

    def decide(self, r: Any, s: Any, now: float, reason: Any) -> Any:
        """Count who waits."""
        decision = super().decide(r, s, now, reason)
        self.most = max(self.most, len(self._crowd))
        return decision


def played(places: int) -> tuple[Sim, Bounded]:
    policy = Bounded(places)
    return Sim(crowded(), policy).run(), policy


def counted(run: Sim, policy: Bounded) -> Callable[[], int]:
    """How often the engine of a policy decides."""
    calls, start = 0, policy.start

    def started(endpoints: Any, accounts: Any, seed: int) -> None:
        start(endpoints, accounts, seed)
        decide = policy.engine.decide

        def decided(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            return decide(*args)

        policy.engine.decide = decided  # type: ignore[method-assign, assignment]

    run.p.start = started  # type: ignore[method-assign]
    return lambda: calls


def test_a_crowd_is_bounded_and_who_has_to_leave_is_worth_least() -> None:
    run, policy = played(40)
    assert policy.most == 40
    lost = run.done == FAILED
    tier, batch = run.w.traffic.tier, run.w.traffic.batch  # type: ignore[attr-defined]
    drafts, exports = (float(lost[(tier == each) & ~batch].mean()) for each in (1, 3))
    assert drafts > 0.2 > exports


def test_nobody_is_left_waiting_and_no_room_is_taken_when_all_is_over() -> None:
    run, policy = played(1000)
    assert run.done.all()
    assert not any(len(line) for line in policy._lines.values())
    assert not any(run.view.inflight)


def test_who_has_to_leave_may_be_the_first_in_line_for_a_machine() -> None:
    policy = Bounded(5)
    assert Sim(crowded(gpus=2), policy).run().done.all()
    assert not any(policy._machine_lines.values())


def test_a_crowd_that_is_late_does_not_make_late_who_comes_after() -> None:
    run, _ = played(1000)
    late = float((run.done == LATE).mean())
    in_time = summarise(run.w, run)["attain"]  # type: ignore[arg-type]
    assert late < 0.25  # half of all, were they served in the order in which they came
    assert in_time > 40.0


class Unwoken(Bounded):
    """In a simulator that wakes nobody who waits."""

    def due(self, snapshot: Any, now: float) -> None:
        """Nobody asks."""


def test_a_simulator_that_never_asks_who_is_due_ends_as_well() -> None:
    policy = Unwoken(40)
    run = Sim(crowded(), policy).run()
    assert run.done.all()
    assert policy.most == 40


def test_who_is_never_woken_sees_by_itself_when_there_is_room_and_hardly_asks_the_engine_oftener() -> None:
    decisions, in_time = Counter[type[Bounded]](), Counter[type[Bounded]]()
    for kind in (Bounded, Unwoken):
        for seed in (5, 6, 7):  # a single crowd of a minute is three points better or worse by chance
            policy = kind(1000)
            run = Sim(crowded(seed, gpus=2), policy)
            engine = counted(run, policy)
            in_time[kind] += summarise(run.run().w, run)["attain"]  # type: ignore[arg-type]
            decisions[kind] += engine()
    assert decisions[Unwoken] < 1.3 * decisions[Bounded]
    assert in_time[Unwoken] > 0.8 * in_time[Bounded]


@pytest.mark.parametrize(
    "over",
    [{}, {"fal__tiers": ((5, 0.8),), "replicate__tiers": ((5, 0.9),)}, {"together__credit": 0.5}],
    ids=["as quoted", "bills less than it quotes", "prepaid"],
)
def test_offers_that_are_not_looked_at_because_they_cost_too_much_would_not_have_been_chosen(
    over: dict[str, Any],
) -> None:
    class Thorough(Bounded):
        def start(self, endpoints: Any, accounts: Any, seed: int) -> None:
            super().start(endpoints, accounts, seed)
            self.engine._thorough = True

    brief, whole = (Sim(crowded(gpus=2, **over), kind(1000)).run() for kind in (Bounded, Thorough))
    assert (brief.server == whole.server).all()
    assert (brief.billed == whole.billed).all()
    assert brief.hedges == whole.hedges > 0


def test_the_same_world_is_played_the_same_again() -> None:
    first, again = (played(100)[0] for _ in range(2))
    assert (first.done == again.done).all()
    assert first.billed.sum() == again.billed.sum()
