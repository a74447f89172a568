"""A discrete-event simulator: drives one policy through one world on a virtual clock.

    Sim(world, policy).run()

`World` is the truth: who asks when, how long each order really takes, what it really costs, when a seller is down. The
routing bench makes up such worlds (`bench/routing/world.py`); `policies/offline/catalog_world.py` builds one from the
catalogue and the policy in force. The policy sees none of it but through `policies/offline/contract.py`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from policies.offline.contract import Account, Event, Policy, Reason, Request

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

SLOT = 10.0
"""Seconds for which conditions stay as they are."""
OK, FAST_ERROR, HANG = 0, 1, 2
"""What happens to orders at an account: served, refused at once, or never answered."""
ALPHA = 0.12
"""Fixed share of a GPU step; the rest grows with the images in it."""
SWAP_S = 3.0
"""A GPU changes its model."""
ARRIVE, FINISH, WAKE, EXPIRE, CHANGE, GPU = range(6)
RTT = 0.05
HANG_S = 60.0
STEP_S = 7.0
"""A GPU step is not filled beyond this many seconds: it cannot be interrupted."""
MAX_ATTEMPTS = 8
MAX_LIVE = 3
IN_TIME, LATE, FAILED, CACHED = 1, 2, 3, 4
IDLE_S = 60.0
"""A silence longer than this is skipped with one tick, for engines learn nothing from it second by second."""
EVERY = 1024
"""Arrivals between two reports of progress."""


class Endpoint(Protocol):
    """Something that can be ordered from."""

    @property
    def name(self) -> str:
        """As people call it."""

    @property
    def account(self) -> int:
        """Index of the account whose limits it shares."""

    @property
    def model(self) -> str:
        """What it draws with."""


EndpointT = TypeVar("EndpointT", bound=Endpoint)


class World(Protocol[EndpointT]):
    """The truth. E endpoints, A accounts, K slots of SLOT seconds, the last of which goes on for ever."""

    name: str
    seed: int
    horizon: float
    """Seconds until the last arrival, or more."""
    endpoints: list[EndpointT]
    accounts: list[Account]
    pool: int
    """The account that is a pool of own GPUs; -1: there is none."""
    gpus: int
    mult: Floats
    """[E, K] duration multiplier."""
    perr: Floats
    """[A, K] error probability."""
    outage: Ints
    """[A, K] OK, FAST_ERROR or HANG."""
    limit: Floats
    """[A, K] effective concurrency; for the pool, GPUs that are up."""
    pricemul: Floats
    """[E, K] of what is billed over what is listed."""
    cold_idle: Floats
    """[E] idle seconds after which a call is cold."""
    cold_s: Floats
    """[E] seconds that a cold call takes longer."""
    warm: bool
    """Whether every endpoint was used just before the beginning."""

    @property
    def size(self) -> int:
        """Requests."""

    def arrivals(self) -> Sequence[float]:
        """When each request comes, in order."""

    def request(self, r: int) -> Request:
        """One of them, fresh."""

    def keys(self) -> Sequence[int] | None:
        """Of each request in a cache of answers, -1 where it has none; None: nothing is cached."""

    def seconds(self, r: int, e: int) -> float:
        """How long request `r` takes at `e` at multiplier 1; in the pool, a GPU step for it alone."""

    def serves(self, r: int, e: int) -> bool:
        """Whether `e` can serve request `r` at all."""

    def bill(self, r: int, e: int, seconds: float) -> float:
        """List price of request `r` at `e`, which took so long there."""

    def chance(self, r: int, attempt: int) -> float:
        """Uniform in 0..1: whether this attempt, counted from 0, fails."""

    def unit_s(self, e: int, mp: float) -> float:
        """GPU-seconds of a whole picture of this size, for endpoints of the pool."""


class Attempt:
    """One order at one endpoint."""

    __slots__ = ("dead", "e", "queue_s", "req", "started", "state", "submitted")

    def __init__(self, req: Request, e: int, now: float) -> None:
        self.req, self.e, self.submitted = req, e, now
        self.started = -1.0
        self.queue_s = 0.0
        self.dead = False
        self.state = "new"


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


class View:
    """The snapshot handed to the policy; read-only by convention."""

    def __init__(self, accounts: int, gpus: int) -> None:
        self.inflight = [0] * accounts
        self.gpus_up = gpus
        self.gpu_free = gpus
        self.pool_backlog = 0.0
        self.pool_batch_backlog = 0.0
        self.pool_ends: list[float] = []
        self.pool_queue: dict[tuple[str, bool], float] = {}
        self.gpu_state: list[tuple[str | None, float]] = []
        self.now = 0.0

    @property
    def pool_residual(self) -> float:
        """Seconds until the next GPU frees; 0 when one is idle."""
        return 0.0 if self.gpu_free > 0 or not self.pool_ends else max(0.0, min(self.pool_ends) - self.now)


class Sim:
    """One run."""

    def __init__(
        self,
        world: World[EndpointT],
        policy: Policy[EndpointT],
        *,
        clock_ns: Callable[[], int] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """`clock_ns` times decisions; `progress` hears how many requests have come."""
        self.w, self.p = world, policy
        self.pool = world.pool
        self.heap: list[tuple[float, int, int, Any]] = []
        self.seq = 0
        self.now = 0.0
        accounts = len(world.accounts)
        self.view = View(accounts, world.gpus)
        self.running = [0] * accounts
        self.queue: list[deque[Attempt]] = [deque() for _ in range(accounts)]
        self.tokens = [a.burst for a in world.accounts]
        self.token_t = [0.0] * accounts
        self.free_left = [a.free_images for a in world.accounts]
        self.images = [0] * accounts
        self.spent = [0.0] * accounts
        self.last_use = [0.0 if world.warm else -1e9] * len(world.endpoints)
        self.cold_idle, self.cold_s = world.cold_idle.tolist(), world.cold_s.tolist()
        self.mult = world.mult.tolist()
        self.perr = world.perr.tolist()
        self.out = world.outage.tolist()
        self.limit = world.limit.tolist()
        self.pm = world.pricemul.tolist()
        self.key = world.keys()
        self.kmax: int = world.mult.shape[1] - 1
        self.gpus = [Gpu(i) for i in range(int(world.limit[self.pool].max()) if self.pool >= 0 else 0)]
        self.pool_q: dict[str, Queue] = {}
        self.view.gpu_state = [(None, 0.0) for _ in self.gpus]
        self.latency = np.full(world.size, np.nan)
        self.done = np.zeros(world.size, np.int8)
        """IN_TIME, LATE, FAILED or CACHED."""
        self.billed = np.zeros(world.size)
        self.server = np.full(world.size, -1, np.int32)
        """The endpoint whose answer the caller got; -1: none."""
        self.throttled = self.hedges = self.attempts = self.errors = 0
        self.gpu_busy = 0.0
        self.recheck = -1.0
        self.waste = 0.0
        """What was billed for hedges that lost."""
        self.swaps = self.steps = self.step_images = 0
        self.wakes: dict[int, float] = {}
        """Request -> when it asked to be asked again, last; whatever it asked for before counts no longer."""
        self.decide_ns: list[int] = []
        self.clock_ns, self.progress = clock_ns, progress
        self.leaders: dict[int, int | bool] = {}
        """Cache key -> the request in flight, or True when the answer is there."""
        self.followers: dict[int, list[tuple[Request, int]]] = {}
        self.by_endpoint = [0] * len(world.endpoints)
        self.model_of = [e.model for e in world.endpoints]
        self.acct_of = [e.account for e in world.endpoints]

    # -- plumbing ---------------------------------------------------------------------------------

    def push(self, t: float, kind: int, payload: Any) -> None:
        """Something will happen at `t`."""
        self.seq += 1
        heapq.heappush(self.heap, (t, self.seq, kind, payload))

    def k(self, t: float) -> int:
        """The slot of conditions at `t`."""
        return min(int(t // SLOT), self.kmax)

    def run(self) -> Sim:
        """Play the whole scenario."""
        w, p = self.w, self.p
        p.start(w.endpoints, w.accounts, (w.seed * 2654435761 + 97) & 0x7FFFFFFF)  # never the world's own seed
        moved = np.any(np.diff(w.limit, axis=1) != 0, axis=0) | np.any(np.diff(w.outage, axis=1) != 0, axis=0)
        for k in np.nonzero(moved)[0].tolist():
            self.push((k + 1) * SLOT, CHANGE, None)
        arrival, size, keys = w.arrivals(), w.size, self.key
        heap, view = self.heap, self.view
        i, next_tick, last = 0, 0.0, w.horizon + 700
        while i < size or heap:
            t = arrival[i] if i < size else float("inf")
            if heap and heap[0][0] <= t:
                t, _, kind, payload = heapq.heappop(heap)
            else:
                kind, payload = ARRIVE, None
            while next_tick <= t and next_tick < last:
                view.now = next_tick
                p.tick(view, next_tick)
                next_tick += 1.0
                if not heap and t - next_tick > IDLE_S:
                    next_tick = t  # nothing is under way, and nobody asks
            view.now = self.now = t
            if kind == ARRIVE:
                self.arrive(w.request(i), -1 if keys is None else keys[i], t)
                i += 1
                if self.progress is not None and not i % EVERY:
                    self.progress(i)
            else:
                self.happen(kind, payload, t)
            while (due := p.due(view, t)) is not None:
                if not self.done[due.id]:
                    self.ask(due, t, "room")
        return self

    def happen(self, kind: int, payload: Any, t: float) -> None:
        """Deal with one event."""
        if kind == FINISH:
            if isinstance(payload, Step):
                self.end_step(payload, t)
            else:
                self.finish(payload, t)
        elif kind == WAKE:
            if not self.done[payload.id] and self.wakes.get(payload.id) == t:
                self.ask(payload, t, "wake")
        elif kind == EXPIRE:
            if not self.done[payload.id]:
                self.conclude(payload, t, FAILED)
        elif kind == CHANGE:
            self.conditions_changed(t)
        elif kind == GPU:
            self.pool_dispatch(t)

    def arrive(self, req: Request, key: int, t: float) -> None:
        """A request comes: answered from the cache, behind a leader, or asked about."""
        if key >= 0 and not req.batch:
            lead = self.leaders.get(key)
            if lead is True:
                self.resolve_free(req, t)
                return
            if lead is not None:
                self.followers.setdefault(lead, []).append((req, key))
                return
            self.leaders[key] = req.id
        self.push(req.expires, EXPIRE, req)
        self.ask(req, t, "new")

    # -- policy side ------------------------------------------------------------------------------

    def ask(self, req: Request, t: float, reason: Reason) -> None:
        """Let the policy decide, and do it."""
        if req.attempts >= MAX_ATTEMPTS:
            if not req.live:
                self.conclude(req, t, FAILED)
            return
        if self.clock_ns is not None:
            began = self.clock_ns()
            d = self.p.decide(req, self.view, t, reason)
            self.decide_ns.append(self.clock_ns() - began)
        else:
            d = self.p.decide(req, self.view, t, reason)
        if d.wake_at > t:
            self.wakes[req.id] = d.wake_at
            self.push(d.wake_at, WAKE, req)
        else:
            self.wakes.pop(req.id, None)
        if d.endpoint >= 0 and len(req.live) < MAX_LIVE:
            if not self.w.serves(req.id, d.endpoint):
                raise ValueError(f"{self.p.name} chose an endpoint that cannot serve the request")
            self.submit(req, d.endpoint, t)
        elif not req.live and d.wake_at <= t:
            self.conclude(req, t, FAILED)

    def tell(self, kind: str, att: Attempt, t: float, billed: float = 0.0, retry: float = 0.0) -> None:
        """Feedback about one attempt."""
        r = att.req
        event = Event(
            kind, att.e, r.id, att.submitted, t - att.submitted, billed, retry, r.mp, r.n, att.queue_s
        )  # fmt: skip
        self.p.feedback(event, t)

    # -- provider side ----------------------------------------------------------------------------

    def submit(self, req: Request, e: int, t: float) -> None:
        """An order reaches its provider."""
        a = self.acct_of[e]
        att = Attempt(req, e, t)
        req.attempts += 1
        self.attempts += 1
        self.hedges += bool(req.live)
        req.live.append((e, t))
        self.view.inflight[a] += 1
        if a == self.pool:
            att.state = "queued"
            self.unback(att, -1.0)
            self.seq += 1
            heapq.heappush(self.pool_q.setdefault(self.model_of[e], []), (req.deadline, self.seq, att))
            self.pool_dispatch(t)
            return
        k = self.k(t)
        if self.out[a][k] == FAST_ERROR:
            att.state = "error"
            self.push(t + 0.2, FINISH, att)
        elif self.too_fast(att, a, t):
            self.push(t + RTT, FINISH, att)
        elif self.spent[a] >= self.w.accounts[a].credit:
            att.state = "no_credit"
            self.push(t + RTT, FINISH, att)
        elif self.running[a] >= self.limit[a][k]:
            self.full(att, a, t)
        else:
            self.tokens[a] -= 1.0
            self.begin(att, a, t)

    def too_fast(self, att: Attempt, a: int, t: float) -> bool:
        """Refill the bucket of an account; whether it is empty."""
        acct = self.w.accounts[a]
        if not acct.rpm:
            return False
        self.tokens[a] = min(acct.burst, self.tokens[a] + (t - self.token_t[a]) * acct.rpm / 60.0)
        self.token_t[a] = t
        if self.tokens[a] >= 1.0:
            return False
        att.state = "throttled"
        att.queue_s = (1.0 - self.tokens[a]) * 60.0 / acct.rpm
        return True

    def full(self, att: Attempt, a: int, t: float) -> None:
        """All slots are taken: some accounts refuse, others queue."""
        if self.w.accounts[a].kind == "reject" or len(self.queue[a]) >= 500:
            att.state = "throttled"
            self.push(t + RTT, FINISH, att)
        else:
            att.state = "queued"
            self.queue[a].append(att)

    def begin(self, att: Attempt, a: int, t: float) -> None:
        """An attempt takes its slot."""
        k, e, r = self.k(t), att.e, att.req
        self.running[a] += 1
        att.started = t
        att.queue_s = t - att.submitted
        att.state = "running"
        mode = self.out[a][k]
        if mode == FAST_ERROR:
            att.state = "error_running"
            self.push(t + 0.2, FINISH, att)
            return
        if mode == HANG:
            att.state = "hung"
            self.push(t + HANG_S, FINISH, att)
            return
        dur = self.w.seconds(r.id, e) * self.mult[e][k]
        if t - self.last_use[e] > self.cold_idle[e]:
            dur += self.cold_s[e]
        self.last_use[e] = t + dur
        if self.w.chance(r.id, r.attempts - 1) < self.perr[a][k]:
            att.state = "error_running"
            dur *= 0.6
        self.push(t + dur, FINISH, att)

    def drain(self, a: int, t: float) -> None:
        """Start what an account has queued."""
        q = self.queue[a]
        while q and self.running[a] < self.limit[a][self.k(t)]:
            att = q.popleft()
            if not att.dead:
                self.begin(att, a, t)

    def finish(self, att: Attempt, t: float) -> None:
        """An attempt at an account ends."""
        a, st = self.acct_of[att.e], att.state
        if st in {"running", "error_running", "hung"}:
            self.running[a] -= 1
            self.drain(a, t)
        self.ended(att, a, t, st)

    def ended(self, att: Attempt, a: int, t: float, st: str) -> None:
        """Bill it, tell of it, and ask again where it failed."""
        r = att.req
        self.view.inflight[a] -= 1
        if (att.e, att.submitted) in r.live:
            r.live.remove((att.e, att.submitted))
        if st == "running":
            cost = self.invoice(att, a, t)
            self.billed[r.id] += cost
            self.waste += cost if self.done[r.id] else 0.0
            self.by_endpoint[att.e] += 1
            self.tell("ok", att, t, cost)
            if not self.done[r.id]:
                self.server[r.id] = att.e
                self.conclude(r, t, IN_TIME if t <= r.deadline + 1e-9 else LATE)
            return
        if st == "throttled":
            self.throttled += 1
            retry = att.queue_s
            att.queue_s = -1.0
            self.tell("throttled", att, t, 0.0, retry)
        elif st == "no_credit":
            self.tell("no_credit", att, t)
        else:
            self.errors += 1
            self.tell("timeout" if st == "hung" else "error", att, t)
        if not self.done[r.id]:
            r.tried.append(att.e)
            self.ask(r, t, "failed")

    def invoice(self, att: Attempt, a: int, t: float) -> float:
        """What the provider bills."""
        acct, r = self.w.accounts[a], att.req
        cost: float = self.w.bill(r.id, att.e, t - att.started) * self.pm[att.e][self.k(att.started)]
        if acct.free_images and cost:
            take = min(self.free_left[a], r.n)
            self.free_left[a] -= take
            cost *= 1 - take / r.n
        off = 0.0
        for start, d in acct.tiers:
            if self.images[a] >= start:
                off = d
        cost *= 1 - off
        self.images[a] += r.n
        self.spent[a] += cost
        return cost

    def conclude(self, r: Request, t: float, how: int) -> None:
        """The caller gets its answer; attempts not yet started are cancelled at no cost."""
        self.done[r.id] = how
        self.latency[r.id] = t - r.arrival
        key = -1 if self.key is None else self.key[r.id]
        group = self.followers.pop(r.id, ())
        if key >= 0 and self.leaders.get(key) == r.id:
            if how < FAILED:
                self.leaders[key] = True
            else:
                del self.leaders[key]
        if r.live:
            self.cancel(r, t)
        for follower, its_key in group:
            self.follow(follower, its_key, t, how)

    def cancel(self, r: Request, t: float) -> None:
        """Take back what has not started."""
        for a, q in enumerate(self.queue):
            for att in q:
                if att.req is r and not att.dead:
                    self.kill(att, a, t)
        if any(self.acct_of[e] == self.pool for e, _ in r.live):
            for _, _, att in chain.from_iterable(self.pool_q.values()):
                if att.req is r and not att.dead:
                    self.unback(att)
                    self.kill(att, self.pool, t)

    def kill(self, att: Attempt, a: int, t: float) -> None:
        """One attempt is called off before it began."""
        att.dead = True
        self.view.inflight[a] -= 1
        att.req.live.remove((att.e, att.submitted))
        self.tell("cancelled", att, t)

    def follow(self, r: Request, key: int, t: float, how: int) -> None:
        """One who waited for the same answer gets it, or takes over."""
        if how < FAILED:
            self.resolve_free(r, t)
            return
        lead = self.leaders.get(key)
        if lead is None:
            self.leaders[key] = r.id
            self.push(max(t, r.deadline) + 60.0, EXPIRE, r)
            self.ask(r, t, "new")
        elif lead is True:
            self.resolve_free(r, t)
        else:
            self.followers.setdefault(lead, []).append((r, key))

    def resolve_free(self, r: Request, t: float) -> None:
        """Answer without an order."""
        self.done[r.id] = CACHED if t <= r.deadline + 1e-9 else LATE
        self.latency[r.id] = t - r.arrival

    # -- own GPU pool -----------------------------------------------------------------------------

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
                    self.push(self.recheck, GPU, None)
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
        while q and images < 4 and len(skipped) < 8:
            item = heapq.heappop(q)
            att = item[2]
            if att.dead:
                continue
            more = images + att.req.n
            if att.req.mp == head.req.mp and more <= 4 and unit * (ALPHA + (1 - ALPHA) * more) <= STEP_S:
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
        self.view.gpu_state[g.i] = (model, t + dur)
        self.view.pool_ends.append(t + dur)
        self.gpu_busy += dur
        for a in job:
            a.state, a.started, a.queue_s = "running", t, t - a.submitted
            self.unback(a)
            self.tell("started", a, t)
        self.push(t + dur, FINISH, Step(g, job, t + dur))

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

    def conditions_changed(self, t: float) -> None:
        """Limits move; GPUs come and go."""
        for a in range(len(self.w.accounts)):
            if a != self.pool:
                self.drain(a, t)
        if self.pool < 0:
            return
        want = int(self.limit[self.pool][self.k(t)])
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
