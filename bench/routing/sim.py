"""Plays one policy through one of the bench's worlds, and sums up."""

from __future__ import annotations

from time import thread_time_ns
from typing import Any

import numpy as np

from bench.routing.api import Policy
from bench.routing.world import POOL, World
from policies.offline.own_machines import SWAP_S
from policies.offline.simulator import CACHED, FAILED, IN_TIME, LATE, Sim
from policies.offline.world import SLOT


def play(world: World, policy: Policy) -> dict[str, Any]:
    """The figures of one run."""
    return summarise(world, Sim(world, policy, clock_ns=thread_time_ns).run())


def summarise(w: World, sim: Sim) -> dict[str, Any]:
    """The figures of a run that is over."""
    d = sim.done
    spend = float(sim.billed.sum())
    late, failed = d == LATE, d == FAILED
    penalty = float(w.traffic.miss[late].sum() + w.traffic.fail[failed].sum())
    inter = ~w.traffic.batch & (d != CACHED)
    lat = sim.latency[inter & (d < FAILED)]
    us = np.array(sim.decide_ns or [0]) / 1000.0
    ratio = sim.latency / w.traffic.slo
    gpu_s = float(w.limit[POOL][: int(w.horizon // SLOT)].sum() * SLOT)
    return {
        "policy": sim.p.name,
        "scenario": w.name,
        "requests": w.size,
        "spend": spend,
        "penalty": penalty,
        "J": spend + penalty,
        "attain": float(100 * np.isin(d, (IN_TIME, CACHED)).mean()),
        "failed_pct": float(100 * failed.mean()),
        "late_pct": float(100 * late.mean()),
        "r429": 1000.0 * sim.throttled / w.size,
        "hedge_pct": 100.0 * sim.hedges / w.size,
        "errors": sim.errors,
        "p50": float(np.percentile(lat, 50)) if len(lat) else 0.0,
        "p99": float(np.percentile(lat, 99)) if len(lat) else 0.0,
        "p99_slo": float(np.nanpercentile(ratio[inter], 99)),
        "gpu_util": 100.0 * sim.gpu_busy / max(1e-9, gpu_s),
        "waste": sim.waste,
        "swap_pct": 100.0 * sim.swaps * SWAP_S / max(1e-9, sim.gpu_busy),
        "step_images": sim.step_images / max(1, sim.steps),
        "us_p50": float(np.percentile(us, 50)),
        "us_p99": float(np.percentile(us, 99)),
        "cached": float(100 * (d == CACHED).mean()),
        "share": {w.endpoints[i].name: count for i, count in enumerate(sim.by_endpoint) if count},
    }
