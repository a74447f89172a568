"""Plays long traces in pieces, side by side on the machine's cores.

A piece is a stretch of time, played with the ten minutes before it so that the engine knows its sellers; what those
calls came to is thrown away. Pieces of the same stretch have the same luck, whoever is played.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from itertools import pairwise

import numpy as np
from msgspec import Struct

from gateway.revisions import Revision
from policies.catalog import Catalog
from policies.offline.catalog_world import Assumptions, CatalogWorld, Trouble
from policies.offline.simulation import EnginePolicy, Outcome, joined, play
from policies.offline.trace import Trace
from policies.policy import Policy

WARM_S = 600.0
SAMPLED_S = 1800.0
_WHOLE = 20_000
"""Calls up to which a trace is played in one piece."""
_PIECE = 12_000


class Piece(Struct, frozen=True):
    """Calls from `first` up to `last`, after those from `warm`."""

    warm: int
    first: int
    last: int


class Job(Struct, frozen=True, kw_only=True):
    """Everything that a piece is played with."""

    catalog: Catalog
    policy: Policy
    trace: Trace
    judge: Trace
    skip: int
    seed: int
    assumed: Assumptions
    troubles: tuple[Trouble, ...]
    limits: dict[str, int]


def pieces(trace: Trace, sample: float) -> list[Piece]:
    """How a trace is cut; a `sample` below 1 takes evenly spread stretches of half an hour."""
    size, at = trace.size, trace.at
    if sample < 1:
        every = max(round(1 / sample), 1)
        edges = np.arange(float(at[0]), float(at[-1]) + SAMPLED_S, SAMPLED_S)
        cuts = [*np.searchsorted(at, edges).tolist(), size]
        stretches = list(pairwise(cuts))[every // 2 :: every]
    elif size <= _WHOLE:
        stretches = [(0, size)]
    else:
        cuts = np.linspace(0, size, -(-size // _PIECE) + 1).astype(int).tolist()
        stretches = list(pairwise(cuts))
    found = []
    for first, last in stretches:
        if last > first:
            warm = int(np.searchsorted(at, at[first] - WARM_S)) if first else 0
            found.append(Piece(warm, first, last))
    return found


def play_all(
    revisions: Sequence[Revision],
    traces: Sequence[Trace],
    cut: Sequence[Piece],
    world: Callable[[Revision], tuple[Assumptions, tuple[Trouble, ...], dict[str, int]]],
    *,
    seed: int,
    told: Callable[[int], None],
) -> list[Outcome]:
    """What the calls of the pieces come to under each configuration, all judged by the first one's terms."""
    jobs = [
        _job(revision, trace.between(piece.warm, piece.last), traces[0].between(piece.warm, piece.last),
             piece.first - piece.warm, world(revision), seed)
        for revision, trace in zip(revisions, traces, strict=True)
        for piece in cut
    ]  # fmt: skip
    done = 0
    results: list[Outcome | None] = [None] * len(jobs)
    if len(jobs) <= len(revisions):  # one piece each: not worth another process
        for place, job in enumerate(jobs):
            results[place] = _play(job)
            done += job.trace.size - job.skip
            told(done)
    else:
        workers = max(min(os.cpu_count() or 1, len(jobs)), 1)
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            under_way: dict[Future[Outcome], int] = {pool.submit(_play, job): i for i, job in enumerate(jobs)}
            for future in as_completed(under_way):
                place = under_way[future]
                results[place] = future.result()
                done += jobs[place].trace.size - jobs[place].skip
                told(done)
    found = [result for result in results if result is not None]
    each = len(cut)
    return [joined(found[i * each : (i + 1) * each]) for i in range(len(revisions))]


def _job(
    revision: Revision,
    trace: Trace,
    judge: Trace,
    skip: int,
    world: tuple[Assumptions, tuple[Trouble, ...], dict[str, int]],
    seed: int,
) -> Job:
    assumed, troubles, limits = world
    return Job(
        catalog=revision.catalog,
        policy=revision.policy,
        trace=trace,
        judge=judge,
        skip=skip,
        seed=seed,
        assumed=assumed,
        troubles=troubles,
        limits=limits,
    )


def _play(job: Job) -> Outcome:
    stage = CatalogWorld(
        job.catalog,
        job.trace,
        per_order=job.policy.images_per_order,
        seed=job.seed,
        assumed=job.assumed,
        troubles=job.troubles,
        limits=job.limits,
    )
    policy = EnginePolicy(stage, job.policy, job.catalog.capacities)
    return play(stage, policy, judge=job.judge).after(job.skip)
