"""What a run cost beyond the bound, in dollars by cause.

The bound comes with prices of what is scarce (`bound.Duals`). At these prices the difference between a run's J and the
bound is a sum over calls and over capacity, so every dollar has a cause:

    J - bound = sum over calls of (paid + scarce things used - the least that was possible) + what stood unused

A cause may be negative: a late call used nothing scarce, so it gained what others lost by it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from time import thread_time_ns

import numpy as np

from bench.routing.api import Policy
from bench.routing.bound import LT, Bound, L, Problem, Relaxation, prepare
from bench.routing.traffic import Floats
from bench.routing.world import POOL, World
from policies.offline.own_machines import SWAP_S, Gpu
from policies.offline.simulator import FAILED, LATE, Sim
from policies.offline.state import Attempt


class Witness(Sim):
    """A run that remembers its orders and GPU steps."""

    def __init__(self, world: World, policy: Policy) -> None:
        super().__init__(world, policy, clock_ns=thread_time_ns)
        self.orders: list[tuple[int, int, float, float, float, bool]] = []
        """(request, endpoint, started, ended, dollars, whether its answer was the one) of every order that drew."""
        self.gpu_steps: list[tuple[float, float, float]] = []
        """(started, ended, seconds of it that loaded a model)."""

    def ended(self, att: Attempt, a: int, t: float, st: str) -> None:
        """Note an order that was served."""
        r = att.req.id
        before, open_still = float(self.billed[r]), not self.done[r]
        super().ended(att, a, t, st)
        if st == "running":
            self.orders.append((r, att.e, att.started, t, float(self.billed[r]) - before, open_still))

    def step(self, g: Gpu, model: str, t: float) -> None:
        """Note a GPU step."""
        swaps = self.swaps
        super().step(g, model, t)
        self.gpu_steps.append((t, g.end, SWAP_S * (self.swaps - swaps)))


class Prices:
    """The bound's price of a second, averaged over any stretch of time."""

    def __init__(self, lam: Floats) -> None:
        """`lam` [A, slots of L]."""
        self._sums = np.concatenate([np.zeros((len(lam), 1)), np.cumsum(lam, axis=1) * L], axis=1)
        self._edges = np.arange(lam.shape[1] + 1) * L

    def over(self, account: int, begins: float, ends: float) -> float:
        """Dollars of all seconds between two moments."""
        low, high = np.interp([begins, ends], self._edges, self._sums[account])
        return float(high - low)

    def mean(self, account: int, begins: float, ends: float) -> float:
        """Dollars a second between two moments."""
        return self.over(account, begins, max(ends, begins + 1e-3)) / max(ends - begins, 1e-3)


def causes(world: World, run: Witness, bound: Bound) -> Mapping[str, float]:
    """Dollars above the bound by cause; they add up to J - bound (`rest` is what volume discounts blur)."""
    problem = prepare(world)
    relaxed, duals = Relaxation(world, problem, np.ones(len(world.accounts))), bound.duals
    charged, _, _ = relaxed.priced(duals)
    least = np.zeros(world.size)
    least[problem.rows] = np.minimum(charged.min(axis=1), problem.out)
    out: defaultdict[str, float] = defaultdict(float)
    out |= dict.fromkeys(("late", "failed", "second orders"), 0.0)
    names = _classes(world)
    for name in np.unique(names):
        out[f"dearer {name}"] = -float(least[names == name].sum())
    out["late"] = float(world.traffic.miss[run.done == LATE].sum())
    out["failed"] = float(world.traffic.fail[run.done == FAILED].sum())
    prices = Prices(duals.lam)
    used = _spend(world, run, problem, prices, duals.tau, duals.nu, names, out)
    pool_s, swap_s = 0.0, 0.0
    for begins, ends, swap in run.gpu_steps:
        pool_s += prices.over(POOL, begins, ends)
        swap_s += swap * prices.mean(POOL, begins, ends)
    owned = (duals.lam * problem.caps).sum(axis=1)
    out["GPU idle"] = float(owned[POOL]) - pool_s
    out["GPU swaps"] = swap_s
    out["GPU thin steps"] = pool_s - swap_s - used[POOL]
    out["slots unused"] = float(owned.sum() - owned[POOL]) - sum(each for a, each in used.items() if a != POOL)
    out["rates unused"] += sum(float(duals.tau[i].sum()) * most for i, most in relaxed.rate.items())
    out["credit unused"] += sum(duals.nu[i] * credit for i, credit in relaxed.credit.items())
    spent = float(run.billed.sum()) + out["late"] + out["failed"]
    out["rest"] = spent - bound.value - sum(out.values())
    return {name: each for name, each in out.items() if abs(each) >= 0.005}


def _spend(  # noqa: PLR0913, PLR0917 - one pass over all orders
    world: World,
    run: Witness,
    problem: Problem,
    prices: Prices,
    tau: Floats,
    nu: Mapping[int, float],
    names: np.ndarray,
    out: defaultdict[str, float],
) -> Mapping[int, float]:
    """Add what orders paid and used to the causes; answer the dollars of scarce seconds used, by account."""
    row_of = {int(r): row for row, r in enumerate(problem.rows)}
    used: defaultdict[int, float] = defaultdict(float)
    for r, e, begins, ends, dollars, first in run.orders:
        account, row = world.endpoints[e].account, row_of.get(r)
        seconds = problem.use[row, e] if row is not None else ends - begins
        worth = float(seconds) * prices.mean(account, begins, ends)
        used[account] += worth
        rate = float(tau[account][min(int(begins // LT), tau.shape[1] - 1)])
        credit = nu.get(account, 0.0) * dollars
        out["rates unused"] -= rate
        out["credit unused"] -= credit
        out[f"dearer {names[r]}" if first else "second orders"] += dollars + worth + rate + credit
    return used


def _classes(world: World) -> np.ndarray:
    asked = world.traffic
    return np.where(asked.batch, "batch", np.array(["", "draft", "standard", "export"])[asked.tier])
