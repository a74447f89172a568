"""Who asks for what: daily swing and bursts, tiers, sizes, deadlines, exports that follow previews."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Sizes = tuple[Sequence[float], Sequence[float]]

DRAFT_SIZES: Sizes = ([0.25, 0.5625, 0.9375, 1.0], [0.35, 0.25, 0.10, 0.30])
STANDARD_SIZES: Sizes = ([0.5625, 1.0, 1.5, 2.25, 4.0], [0.10, 0.50, 0.20, 0.10, 0.10])
EXPORT_SIZES: Sizes = ([1.0, 1.5, 2.25, 4.0], [0.30, 0.15, 0.25, 0.30])
MISS = {1: 0.02, 2: 0.10, 3: 0.25}
FAIL = {1: 0.06, 2: 0.30, 3: 0.75}
"""Dollars that a late answer, and none at all, cost by tier (draft, standard, export)."""


class Traffic(NamedTuple):
    """One row a request, by arrival."""

    arrival: Floats
    slo: Floats
    """Seconds from arrival after which the answer is late."""
    tier: Ints
    mp: Floats
    n: Ints
    batch: Bools
    key: Ints
    """Of the cache; -1 is not cacheable."""
    miss: Floats
    fail: Floats


def size_factor(mp: Floats) -> Floats:
    """Work of one picture, 1 at a megapixel."""
    return 0.3 + 0.7 * mp


def api_factor(n: Ints) -> Floats:
    """Work of n pictures drawn side by side."""
    return np.asarray(0.75 + 0.25 * n, np.float64)


def arrivals(
    rng: np.random.Generator,
    horizon: float,
    mean_rps: float,
    *,
    diurnal: float,
    burst: float,
    flash: Sequence[tuple[float, float, float]],
) -> Floats:
    """A thinned Poisson stream with a daily swing, log-normal bursts of a minute, and flash crowds.

    A flash crowd is (start, seconds, factor).
    """
    dt = 10.0
    slots = int(np.ceil(horizon / dt))
    t = (np.arange(slots) + 0.5) * dt
    rate = mean_rps * (1 + diurnal * np.sin(2 * np.pi * t / horizon - np.pi / 2))
    x, noise = 0.0, np.empty(slots)
    for k in range(slots):
        x += -0.08 * x + burst * 0.4 * rng.standard_normal()
        noise[k] = x
    rate *= np.exp(noise - noise.var() / 2)
    for start, seconds, factor in flash:
        rise = np.clip((t - start) / 20.0, 0, 1) * np.clip((start + seconds - t) / 60.0, 0, 1)
        rate *= 1 + (factor - 1) * rise
    counts = rng.poisson(rate * dt)
    return np.sort(np.repeat(np.arange(slots) * dt, counts) + rng.random(counts.sum()) * dt)


def traffic(  # noqa: PLR0913 - a crowd is one line of these
    seed: int,
    horizon: float,
    mean_rps: float,
    *,
    standard: float = 0.15,
    batch: float = 0.06,
    conversion: tuple[float, float] = (0.04, 0.08),
    zipf: float = 1.1,
    cacheable: float = 0.30,
    prompts: int = 20000,
    diurnal: float = 0.5,
    burst: float = 0.3,
    flash: Sequence[tuple[float, float, float]] = (),
    tight: float = 0.30,
    slo_scale: float = 1.0,
    batch_waves: Sequence[tuple[float, int]] = (),
) -> Traffic:
    """Mixed traffic. `batch_waves` are (start, how many) standard pictures with ten minutes of time."""
    rng = np.random.default_rng([seed, 11])
    t = arrivals(rng, horizon, mean_rps, diurnal=diurnal, burst=burst, flash=flash)
    first = len(t)
    tier = np.where(rng.random(first) < standard / (1 - 0.05), 2, 1)
    # Exports follow some previews after a think time.
    p = rng.uniform(*conversion)
    drafts = np.nonzero(tier == 1)[0]
    src = drafts[rng.random(len(drafts)) < p]
    te = t[src] + rng.uniform(15, 120, len(src))
    te = te[te < horizon]
    waves = [np.sort(start + rng.random(count) * 30) for start, count in batch_waves]
    tw = np.concatenate(waves) if waves else np.empty(0)
    t = np.concatenate([t, te, tw])
    tier = np.concatenate([tier, np.full(len(te), 3), np.full(len(tw), 2)])
    forced = np.concatenate([np.zeros(first + len(te), bool), np.ones(len(tw), bool)])
    order = np.argsort(t, kind="stable")
    t, tier, forced = t[order], tier[order], forced[order]
    size = len(t)
    mp = np.empty(size)
    for q, (sizes, probs) in ((1, DRAFT_SIZES), (2, STANDARD_SIZES), (3, EXPORT_SIZES)):
        sel = tier == q
        mp[sel] = rng.choice(sizes, sel.sum(), p=probs)
    n = np.where(tier == 1, rng.choice([1, 2, 4], size, p=[0.6, 0.2, 0.2]), 1)
    isbatch = forced | (rng.random(size) < batch)
    scale = np.maximum(0.6, size_factor(mp) * api_factor(n)) * slo_scale
    draft = np.where(rng.random(size) < tight, 2.5, np.where(rng.random(size) < 0.7, 4.0, 8.0))
    late = np.where(tier == 2, rng.choice([15.0, 25.0], size), rng.choice([30.0, 60.0], size))
    slo = np.where(isbatch, 600.0, np.where(tier == 1, draft, late) * scale)
    key = np.full(size, -1)
    can = (rng.random(size) < cacheable) & (tier == 1)
    ranks = np.arange(1, prompts + 1) ** -zipf
    key[can] = rng.choice(prompts, can.sum(), p=ranks / ranks.sum())
    key = np.where(key >= 0, key * 64 + (mp * 4).astype(int) * 8 + n, -1)
    miss, fail = (np.vectorize(table.__getitem__)(tier).astype(float) for table in (MISS, FAIL))
    return Traffic(t, slo, tier, mp, n, isbatch, key, miss, fail)
