"""Plays a trace through a catalogue's world under one policy or baseline, and sums up what became of every call.

    world = CatalogWorld(catalog, trace, per_order=policy.images_per_order)
    outcome = play(world, EnginePolicy(world, policy, catalog.capacities))
    figures = outcome.figures()

Money is nano-dollars. J is what was spent plus what the policy says late and missing pictures are worth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from policies.engine import CostEngine
from policies.offline.catalog_world import CatalogWorld, Site
from policies.offline.contract import Account, Policy
from policies.offline.driver import Driver
from policies.offline.simulator import FAILED, Sim
from policies.offline.trace import Floats, Ints, Kind, Trace
from policies.policy import Policy as RoutingPolicy
from policies.types import Ask, Capacity, CapacityId, Live, Tried

Bools = npt.NDArray[np.bool_]


class EnginePolicy(Driver):
    """The engine that serves, under one policy file, in a catalogue's world."""

    def __init__(
        self, world: CatalogWorld, policy: RoutingPolicy, capacities: Mapping[CapacityId, Capacity], name: str = ""
    ) -> None:
        self.name = name or policy.label
        self.about = "the engine that serves, under this policy"
        self._world, self._policy = world, policy
        self._capacities = {
            name: replace(each, slots=world.limits[name]) if name in world.limits else each
            for name, each in capacities.items()
        }

    def start(self, endpoints: Sequence[Site], accounts: Sequence[Account], seed: int) -> None:  # noqa: ARG002 - no draws
        """Make the engine."""
        world = self._world
        engine = CostEngine(self._policy, self._capacities, {each.id: each for each in world.offers}, thorough=False)
        self.begin(engine, self._policy, world.offers, world.index, nano=1.0)

    def ask_of(self, request: Any, tried: tuple[Tried, ...], live: tuple[Live, ...]) -> Ask:
        """What a request of the trace asks for."""
        kind = self._world.kinds[self._world.kind_of(request.id)]
        return Ask(
            call_id=str(request.id),
            part=0,
            request=kind.request,
            constraints=kind.constraints,
            worth=kind.worth,
            intent=kind.intent,
            team=kind.team,
            arrived=request.arrival,
            tried=tried,
            live=live,
        )


class Figures(Struct, frozen=True, kw_only=True):
    """What some calls came to."""

    calls: int
    images: int
    """Pictures delivered."""
    cost: int
    """Nano-dollars that sellers bill, lost second orders among them."""
    penalty: int
    """Nano-dollars that late and missing pictures are worth, by the policy."""
    on_time: int
    """Calls whose last picture came within the objective."""
    late: int
    failed: int
    """Calls of which a picture did not come."""
    p50: float
    p95: float
    """Seconds to the last picture of a call that was delivered; 0 where none was."""

    @property
    def total(self) -> int:
        """J: cost and penalty together."""
        return self.cost + self.penalty

    @property
    def on_time_pct(self) -> float:
        """Percent of calls."""
        return 100.0 * self.on_time / max(self.calls, 1)

    @property
    def failed_pct(self) -> float:
        """Percent of calls."""
        return 100.0 * self.failed / max(self.calls, 1)

    @property
    def per_thousand(self) -> float:
        """Nano-dollars for a thousand pictures."""
        return 1000.0 * self.cost / max(self.images, 1)


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of each of N calls under one policy or baseline."""

    name: str
    about: str
    cost: Ints
    """[N] nano-dollars."""
    penalty: Ints
    """[N] nano-dollars."""
    images: Ints
    """[N] pictures delivered."""
    seconds: Floats
    """[N] from arrival to the last picture, or to giving up."""
    late: Bools
    failed: Bools
    offer: Ints
    """[N] index of the offer that drew the first picture; -1: nobody."""
    offers: tuple[str, ...]
    orders: int = 0
    second_orders: int = 0
    refused: int = 0
    """Orders answered with 429."""
    wasted: int = 0
    """Nano-dollars billed for second orders that lost."""

    @property
    def size(self) -> int:
        """Calls."""
        return len(self.cost)

    def figures(self, where: Bools | None = None) -> Figures:
        """The sum over all calls, or over some."""
        chosen: Any = slice(None) if where is None else where
        late, failed, seconds = self.late[chosen], self.failed[chosen], self.seconds[chosen]
        came = seconds[~failed]
        return Figures(
            calls=len(late),
            images=int(self.images[chosen].sum()),
            cost=int(self.cost[chosen].sum()),
            penalty=int(self.penalty[chosen].sum()),
            on_time=int((~late & ~failed).sum()),
            late=int((late & ~failed).sum()),
            failed=int(failed.sum()),
            p50=float(np.percentile(came, 50)) if len(came) else 0.0,
            p95=float(np.percentile(came, 95)) if len(came) else 0.0,
        )

    def after(self, first: int) -> Outcome:
        """Without the calls before `first`, whose orders were only played to warm up; the counts of orders stay."""
        part = slice(first, None)
        return replace(
            self,
            cost=self.cost[part],
            penalty=self.penalty[part],
            images=self.images[part],
            seconds=self.seconds[part],
            late=self.late[part],
            failed=self.failed[part],
            offer=self.offer[part],
        )

    def shares(self, where: Bools | None = None) -> dict[str, int]:
        """Offer -> calls it served first; those that serve most come first."""
        chosen = self.offer if where is None else self.offer[where]
        counts = np.bincount(chosen[chosen >= 0], minlength=len(self.offers))
        order = np.argsort(-counts, kind="stable")
        return {self.offers[i]: int(counts[i]) for i in order if counts[i]}


def play(
    world: CatalogWorld,
    policy: Policy[Site],
    *,
    judge: Trace | None = None,
    progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Run a policy or a baseline through the world.

    `judge`: the same calls on the terms that say what is late and what that is worth; the world's own when left out.
    """
    sim = Sim(world, policy, progress=progress).run()
    return _outcome(world, sim, policy.name, getattr(policy, "about", ""), judge or world.trace)


def _outcome(world: CatalogWorld, sim: Sim, name: str, about: str, judge: Trace) -> Outcome:
    calls, call = world.trace.size, world.call
    terms = np.array([_terms(kind) for kind in judge.kinds] or [(0.0,) * 4], np.float64)
    slo, late_flat, late_second, failure = terms[judge.kind][call].T
    count = np.array([kind.request.count for kind in world.kinds] or [0])[world.kind]
    failed = sim.done == FAILED
    over = np.where(failed, 0.0, np.maximum(np.nan_to_num(sim.latency) - slo - 1e-9, 0.0))
    late = over > 0.0
    penalty = np.where(failed, failure, np.where(late, late_flat + late_second * over, 0.0))
    first = np.full(calls, -1, np.int64)
    first[call[::-1]] = sim.server[::-1]  # the first part of each call is written last

    def summed(values: Any) -> Ints:
        return np.rint(np.bincount(call, weights=values, minlength=calls)).astype(np.int64)

    slowest = np.zeros(calls)
    np.maximum.at(slowest, call, np.nan_to_num(sim.latency))
    return Outcome(
        name=name,
        about=about,
        cost=summed(sim.billed),
        penalty=summed(penalty),
        images=summed(np.where(failed, 0, count)),
        seconds=slowest,
        late=summed(late) > 0,
        failed=summed(failed) > 0,
        offer=first,
        offers=tuple(site.name for site in world.endpoints),
        orders=sim.attempts,
        second_orders=sim.hedges,
        refused=sim.throttled,
        wasted=round(sim.waste),
    )


def _terms(kind: Kind) -> tuple[float, float, float, float]:
    worth = kind.worth
    return kind.constraints.slo, float(worth.late), float(worth.late_second), float(worth.failure)


def joined(parts: Sequence[Outcome]) -> Outcome:
    """Outcomes of consecutive stretches of a trace as one."""
    first = parts[0]
    if len(parts) == 1:
        return first

    def both(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])

    return Outcome(
        name=first.name,
        about=first.about,
        cost=both("cost"),
        penalty=both("penalty"),
        images=both("images"),
        seconds=both("seconds"),
        late=both("late"),
        failed=both("failed"),
        offer=both("offer"),
        offers=first.offers,
        orders=sum(part.orders for part in parts),
        second_orders=sum(part.second_orders for part in parts),
        refused=sum(part.refused for part in parts),
        wasted=sum(part.wasted for part in parts),
    )
