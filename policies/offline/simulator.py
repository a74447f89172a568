"""A discrete-event simulator: drives one policy through one world on a virtual clock.

    Sim(world, policy).run()

`World` (`policies/offline/world.py`) is the truth: who asks when, how long each order really takes, what it really
costs, when a seller is down. The routing bench makes up such worlds (`bench/routing/world.py`);
`policies/offline/catalog_world.py` builds one from the catalogue and the policy in force. The policy sees none of it
but through `policies/offline/contract.py`. How own GPUs draw is in `policies/offline/own_machines.py`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np

from policies.offline.contract import Event, Policy, Reason, Request
from policies.offline.own_machines import OwnMachines, Step
from policies.offline.state import Attempt, View
from policies.offline.world import FAST_ERROR, HANG, SLOT, EndpointT, World

ARRIVE, FINISH, WAKE, EXPIRE, CHANGE, GPU = range(6)
RTT = 0.05
HANG_S = 60.0
MAX_ATTEMPTS = 8
MAX_LIVE = 3
IN_TIME, LATE, FAILED, CACHED = 1, 2, 3, 4
IDLE_S = 60.0
"""A silence longer than this is skipped with one tick, for engines learn nothing from it second by second."""
EVERY = 1024
"""Arrivals between two reports of progress."""


class Sim(OwnMachines):
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
        accounts = len(world.accounts)
        super().__init__(world, View(accounts, world.gpus))
        self.p = policy
        self.heap: list[tuple[float, int, int, Any]] = []
        self.now = 0.0
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
        self.latency = np.full(world.size, np.nan)
        self.done = np.zeros(world.size, np.int8)
        """IN_TIME, LATE, FAILED or CACHED."""
        self.billed = np.zeros(world.size)
        self.server = np.full(world.size, -1, np.int32)
        """The endpoint whose answer the caller got; -1: none."""
        self.throttled = self.hedges = self.attempts = self.errors = 0
        self.waste = 0.0
        """What was billed for hedges that lost."""
        self.wakes: dict[int, float] = {}
        """Request -> when it asked to be asked again, last; whatever it asked for before counts no longer."""
        self.decide_ns: list[int] = []
        self.clock_ns, self.progress = clock_ns, progress
        self.leaders: dict[int, int | bool] = {}
        """Cache key -> the request in flight, or True when the answer is there."""
        self.followers: dict[int, list[tuple[Request, int]]] = {}
        self.by_endpoint = [0] * len(world.endpoints)
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
            moved = kind == ARRIVE
            while next_tick <= t and next_tick < last:
                view.now = next_tick
                p.tick(view, next_tick)
                moved = True
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
                moved |= self.happen(kind, payload, t)
            while moved and (due := p.due(view, t)) is not None:
                if not self.done[due.id]:
                    self.ask(due, t, "room")
        return self

    def happen(self, kind: int, payload: Any, t: float) -> bool:
        """Deal with one event; whether it has changed anything, for most wakes and ends of patience come too late."""
        if kind == FINISH:
            if isinstance(payload, Step):
                self.end_step(payload, t)
            else:
                self.finish(payload, t)
        elif kind == WAKE:
            if self.done[payload.id] or self.wakes.get(payload.id) != t:
                return False
            self.ask(payload, t, "wake")
        elif kind == EXPIRE:
            if self.done[payload.id]:
                return False
            self.conclude(payload, t, FAILED)
        elif kind == CHANGE:
            self.conditions_changed(t)
        elif kind == GPU:
            self.pool_dispatch(t)
        return True

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
            self.enqueue(att, t)
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

    def conditions_changed(self, t: float) -> None:
        """Limits move; GPUs come and go."""
        for a in range(len(self.w.accounts)):
            if a != self.pool:
                self.drain(a, t)
        if self.pool >= 0:
            self.machines_changed(int(self.limit[self.pool][self.k(t)]), t)

    def step_ends(self, step: Step) -> None:
        """A GPU step will end."""
        self.push(step.end, FINISH, step)

    def look_again(self, t: float) -> None:
        """Look at the pool again."""
        self.push(t, GPU, None)
