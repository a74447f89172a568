"""GPUs of our own in a simulated world: what queues for them, which model each has loaded, what fits into a step."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from policies.offline.state import Attempt, View
from policies.offline.world import ALPHA, EndpointT, World
from policies.types import Machine

SWAP_S = 3.0
"""A GPU changes its model."""
STEP_S = 7.0
"""A GPU step is not filled beyond this many seconds: it cannot be interrupted."""
MOST_IMAGES = 4
"""In one step."""


class Gpu:
    """One GPU of the pool."""

    __slots__ = ("end", "i", "job", "model", "up")

    def __init__(self, i: int) -> None:
        self.i = i
        self.model: str | None = None
        self.job: list[Attempt] | None = None
        self.up = True
        self.end = 0.0


class Step(NamedTuple):
    """A GPU step that ends."""

    gpu: Gpu
    job: list[Attempt]
    end: float


Queue: TypeAlias = list[tuple[float, int, Attempt]]


class OwnMachines(ABC):
    """The pool of a simulator, which has the clock and the events."""

    def __init__(self, world: World[EndpointT], view: View) -> None:
        self.w: World[Any] = world
        self.view = view
        self.pool = world.pool
        """Its account; -1: there is none."""
        self.model_of = [e.model for e in world.endpoints]
        self.gpus = [Gpu(i) for i in range(int(world.limit[self.pool].max()) if self.pool >= 0 else 0)]
        self.view.gpu_state = [Machine(None, 0.0) for _ in self.gpus]
        self.pool_q: dict[str, Queue] = {}
        self.seq = 0
        self.recheck = -1.0
        self.gpu_busy = 0.0
        self.swaps = self.steps = self.step_images = 0

    @abstractmethod
    def step_ends(self, step: Step) -> None:
        """A step will end at its moment."""

    @abstractmethod
    def look_again(self, t: float) -> None:
        """Look at the pool again at `t`: something may have to load another model by then."""

    @abstractmethod
    def tell(self, kind: str, att: Attempt, t: float, billed: float = 0.0, retry: float = 0.0) -> None:
        """Feedback about one attempt."""

    @abstractmethod
    def ended(self, att: Attempt, a: int, t: float, st: str) -> None:
        """An attempt is over."""

    def enqueue(self, att: Attempt, t: float) -> None:
        """An order reaches the pool."""
        att.state = "queued"
        self.unback(att, -1.0)
        self.seq += 1
        heapq.heappush(self.pool_q.setdefault(self.model_of[att.e], []), (att.req.deadline, self.seq, att))
        self.pool_dispatch(t)

    def base_work(self, att: Attempt) -> float:
        """Expected GPU-seconds of a request alone; the policy may know this, for it owns the pool."""
        return self.w.unit_s(att.e, att.req.mp) * (ALPHA + (1 - ALPHA) * att.req.n)

    def unback(self, att: Attempt, sign: float = 1.0) -> None:
        """Take an attempt out of the backlog, or put it in."""
        v, work, batch = self.view, self.base_work(att) * sign, att.req.batch
        key = (self.model_of[att.e], batch)
        v.pool_queue[key] = max(0.0, v.pool_queue.get(key, 0.0) - work)
        if batch:
            v.pool_batch_backlog = max(0.0, v.pool_batch_backlog - work)
        else:
            v.pool_backlog = max(0.0, v.pool_backlog - work)

    def pool_dispatch(self, t: float) -> None:
        """Start what can be started: earliest deadline first within a model."""
        while True:
            heads: dict[str, tuple[float, int, Attempt]] = {}
            for model, q in self.pool_q.items():
                while q and q[0][2].dead:
                    heapq.heappop(q)
                if q:
                    heads[model] = q[0]
            free = [g for g in self.gpus if g.up and g.job is None]
            self.view.gpu_free = len(free)
            if not heads or not free:
                return
            found = self.match(heads, free, t)
            if found is None:
                if self.recheck <= t:
                    self.recheck = t + 1.0
                    self.look_again(self.recheck)
                return
            self.step(*found, t)

    def match(
        self, heads: dict[str, tuple[float, int, Attempt]], free: Sequence[Gpu], t: float
    ) -> tuple[Gpu, str] | None:
        """Which free GPU runs which model next.

        GPUs that have a wanted model first, then empty ones, and only then a swap: for a model nobody has loaded, one
        whose queue has gathered the work of two swaps a GPU, or one whose head is about to be late.
        """
        order = sorted(heads, key=lambda m: heads[m][0])
        for wanted in (*order, None):
            for model in order if wanted is None else (wanted,):
                for g in free:
                    if g.model == wanted:
                        return g, model
        q = self.view.pool_queue
        for model in order:
            loaded = sum(1 for g in self.gpus if g.up and g.model == model)
            att = heads[model][2]
            slack = att.req.deadline - t - self.base_work(att)
            gathered = q.get((model, False), 0) + q.get((model, True), 0)
            if not loaded or gathered / loaded > 2 * SWAP_S or SWAP_S <= slack < SWAP_S + 1.0:
                return free[0], model
        return None

    def step(self, g: Gpu, model: str, t: float) -> None:
        """Start one step: the head and what of its size fits beside it."""
        q = self.pool_q[model]
        _, _, head = heapq.heappop(q)
        unit = self.w.unit_s(head.e, head.req.mp)
        job, images = [head], head.req.n
        skipped: Queue = []
        while q and images < MOST_IMAGES and len(skipped) < 8:
            item = heapq.heappop(q)
            att = item[2]
            if att.dead:
                continue
            more = images + att.req.n
            if att.req.mp == head.req.mp and more <= MOST_IMAGES and unit * (ALPHA + (1 - ALPHA) * more) <= STEP_S:
                job.append(att)
                images = more
            else:
                skipped.append(item)
        for item in skipped:
            heapq.heappush(q, item)
        z = (
            sum(a.req.n * self.w.seconds(a.req.id, a.e) / (unit * (ALPHA + (1 - ALPHA) * a.req.n)) for a in job)
            / images
        )
        swap = g.model not in {None, model}
        dur = unit * (ALPHA + (1 - ALPHA) * images) * z + (SWAP_S if swap else 0.0)
        self.swaps += swap
        self.steps += 1
        self.step_images += images
        g.model, g.job, g.end = model, job, t + dur
        self.view.gpu_state[g.i] = Machine(model, t + dur)
        self.view.pool_ends.append(t + dur)
        self.gpu_busy += dur
        for a in job:
            a.state, a.started, a.queue_s = "running", t, t - a.submitted
            self.unback(a)
            self.tell("started", a, t)
        self.step_ends(Step(g, job, t + dur))

    def end_step(self, step: Step, t: float) -> None:
        """A GPU step ends, unless its GPU went away meanwhile."""
        g = step.gpu
        if g.job is not step.job:
            return
        g.job = None
        self.view.pool_ends.remove(step.end)
        for att in step.job:
            self.ended(att, self.pool, t, "running")
        self.pool_dispatch(t)

    def machines_changed(self, want: int, t: float) -> None:
        """So many GPUs are up from now on: those that draw go last, and what they drew is lost."""
        up = [g for g in self.gpus if g.up]
        if len(up) > want:
            for g in sorted(up, key=lambda g: g.job is not None)[: len(up) - want]:
                g.up = False
                if g.job is not None:
                    job, g.job = g.job, None
                    self.view.pool_ends.remove(g.end)
                    for att in job:
                        att.state = "lost"
                        self.ended(att, self.pool, t, "lost")
        else:
            for g in self.gpus:
                if len(up) < want and not g.up:
                    g.up, g.model = True, None
                    up.append(g)
        self.view.gpus_up = want
        self.pool_dispatch(t)
