"""Peers' strategies, each with the same feasibility filter, retries and cooldown.

`exact` prices a call by the provider's real billing rule; otherwise by the flat list price of a 1 MP picture, which is
how gateways with a per-image cost field do it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from bench.routing.api import Account, Decision, Endpoint, Event, Reason, Request, Snapshot, list_price


class Base:
    """Feasibility, cooldown, back-off; `pick` is the strategy."""

    name = "base"
    allowed_fails, window, cooldown = 3, 60.0, 30.0
    headroom = False
    """Skip accounts at their configured limit, and look over every model that satisfies the tier."""

    def start(self, endpoints: Sequence[Endpoint], accounts: Sequence[Account], seed: int) -> None:
        """Begin."""
        self.eps, self.accts = endpoints, accounts
        self.rng = random.Random(seed)
        self.fails: list[list[float]] = [[] for _ in endpoints]
        self.until = [0.0] * len(endpoints)
        self.lat: list[float | None] = [None] * len(endpoints)
        self.count = 0
        self.cand: dict[tuple[int, float], list[int]] = {}
        self.held: set[tuple[int, int]] = set()

    def candidates(self, r: Request, now: float) -> list[int]:
        """Endpoints that may serve, those of the cheapest tier first."""
        key = (r.tier, r.mp)
        c = self.cand.get(key)
        if c is None:
            c = self.cand[key] = [
                e.index
                for e in self.eps
                if e.quality >= r.tier and r.mp <= e.max_mp + 1e-9 and not (e.quality >= 3 and r.tier < 2)
            ]
            c.sort(key=lambda i: self.eps[i].quality)
        live = {e for e, _ in r.live}
        ok = [e for e in c if self.until[e] <= now and e not in r.tried and e not in live]
        return ok or [e for e in c if e not in live]

    def group(self, ok: list[int], s: Snapshot) -> list[int]:
        """Peers route inside one group: the lowest quality that satisfies the tier, then upwards."""
        if self.headroom:
            free = [e for e in ok if s.inflight[self.eps[e].account] < self.accts[self.eps[e].account].concurrency]
            return free or ok
        q = min(self.eps[e].quality for e in ok)
        return [e for e in ok if self.eps[e].quality == q]

    def decide(self, r: Request, s: Snapshot, now: float, reason: Reason) -> Decision:
        """Pick among what may serve; back off between later retries."""
        if reason == "wake" and r.live:
            return Decision()
        ok = self.candidates(r, now)
        if not ok:
            return Decision(drop=True)
        waits = reason == "failed" and 3 <= r.attempts < 7 and r.attempts % 2 == 1 and not r.live
        if waits and now < r.deadline + 20 and r.tried and (r.id, r.attempts) not in self.held:
            self.held.add((r.id, r.attempts))
            return Decision(wake_at=now + min(8.0, 0.5 * 2 ** (r.attempts - 3)))
        return Decision(self.pick(r, self.group(ok, s), s, now))

    def pick(self, r: Request, ok: list[int], s: Snapshot, now: float) -> int:  # noqa: ARG002 - others read them
        """One of `ok`."""
        return ok[0]

    def feedback(self, event: Event, now: float) -> None:
        """Mean latency, and a cooldown after failures."""
        e = event.endpoint
        if event.kind in {"started", "cancelled"}:
            return
        if event.kind == "ok":
            seen = self.lat[e]
            self.lat[e] = event.latency if seen is None else 0.9 * seen + 0.1 * event.latency
            return
        recent = self.fails[e] = [t for t in self.fails[e] if t > now - self.window] + [now]
        if len(recent) > self.allowed_fails:
            self.until[e] = now + self.cooldown
            self.fails[e] = []

    def tick(self, snapshot: Snapshot, now: float) -> None:
        """Nothing to plan."""

    def due(self, snapshot: Snapshot, now: float) -> None:
        """Nobody: they keep no lines."""

    def price(self, e: int, r: Request, *, exact: bool = True) -> float:
        """What a call costs there, or seems to."""
        return list_price(self.eps[e], r.mp, r.n) if exact else list_price(self.eps[e], 1.0, 1)


class Static(Base):
    """One provider for everything, no fallback except retries on itself."""

    name = "static-fal"

    def group(self, ok: list[int], s: Snapshot) -> list[int]:  # noqa: ARG002 - knows no load
        """Its own endpoints."""
        return [e for e in ok if self.eps[e].account == 0] or ok

    def candidates(self, r: Request, now: float) -> list[int]:  # noqa: ARG002 - knows no cooldown
        """Its own endpoints that can draw this."""
        c = [
            e.index
            for e in self.eps
            if e.account == 0
            and e.quality >= r.tier
            and r.mp <= e.max_mp + 1e-9
            and not (e.quality >= 3 and r.tier < 2)
        ]
        return sorted(c, key=lambda i: self.eps[i].quality)


class RoundRobin(Base):
    """In turn."""

    name = "round-robin"

    def pick(self, r: Request, ok: list[int], s: Snapshot, now: float) -> int:  # noqa: ARG002
        """The next."""
        self.count += 1
        return ok[self.count % len(ok)]


class Shuffle(Base):
    """LiteLLM's simple shuffle, weighted by configured capacity."""

    name = "weighted-shuffle"

    def pick(self, r: Request, ok: list[int], s: Snapshot, now: float) -> int:  # noqa: ARG002
        """A draw by capacity."""
        return self.rng.choices(ok, [self.accts[self.eps[e].account].concurrency for e in ok])[0]


class Cheapest(Base):
    """Cheapest first by the exact billing rule, falling back on failure."""

    name = "cheapest-exact"

    def pick(self, r: Request, ok: list[int], s: Snapshot, now: float) -> int:  # noqa: ARG002
        """The cheapest."""
        return min(ok, key=lambda e: (self.price(e, r), e))


class CheapestFree(Cheapest):
    """As above with headroom: the strongest simple rule we know."""

    name = "cheapest-exact+headroom"
    headroom = True


class LowestCostLite(Base):
    """LiteLLM's cost-based routing: a flat list price per picture, with a parallel cap per deployment."""

    name = "litellm-cost"
    headroom = True

    def pick(self, r: Request, ok: list[int], s: Snapshot, now: float) -> int:  # noqa: ARG002
        """The cheapest on paper."""
        return min(ok, key=lambda e: (self.price(e, r, exact=False), e))


class LowestLatency(Base):
    """LiteLLM's latency-based routing: lowest mean latency, random among those within 10 % of it."""

    name = "lowest-latency"

    def pick(self, r: Request, ok: list[int], s: Snapshot, now: float) -> int:  # noqa: ARG002
        """One of the quickest."""
        known = {e: seconds for e in ok if (seconds := self.lat[e]) is not None}
        new = [e for e in ok if e not in known]
        if new:
            return self.rng.choice(new)
        best = min(known.values())
        return self.rng.choice([e for e in ok if known[e] <= best * 1.1])


class LeastBusy(Base):
    """Fewest in flight."""

    name = "least-busy"

    def pick(self, r: Request, ok: list[int], s: Snapshot, now: float) -> int:  # noqa: ARG002
        """The idlest account."""
        return min(ok, key=lambda e: (s.inflight[self.eps[e].account], self.rng.random()))


class InverseSquare(Base):
    """OpenRouter: skip providers with recent outages, draw the rest with weight 1/price^2."""

    name = "openrouter-inverse-sq"
    headroom = True
    allowed_fails, window, cooldown = 2, 30.0, 30.0

    def pick(self, r: Request, ok: list[int], s: Snapshot, now: float) -> int:  # noqa: ARG002
        """A draw by price; a free backend counts as a tenth of the cheapest paid one, or it would take everything."""
        prices = [self.price(e, r) for e in ok]
        floor = min([p for p in prices if p > 0], default=1.0) / 10
        return self.rng.choices(ok, [max(p, floor) ** -2 for p in prices])[0]


class PeakEwma(Base):
    """Finagle's and Envoy's peak EWMA with two choices: latency x (in flight + 1)."""

    name = "p2c-peak-ewma"

    def start(self, endpoints: Sequence[Endpoint], accounts: Sequence[Account], seed: int) -> None:
        """Begin."""
        super().start(endpoints, accounts, seed)
        self.peak = [(1.0, 0.0)] * len(self.eps)

    def feedback(self, event: Event, now: float) -> None:
        """Up at once, down slowly."""
        super().feedback(event, now)
        if event.kind in {"ok", "timeout"}:
            v, t = self.peak[event.endpoint]
            x = event.latency
            if x < v:
                keep = 2.718281828 ** (-(now - t) / 10.0)
                x = v * keep + x * (1 - keep)
            self.peak[event.endpoint] = (x, now)

    def pick(self, r: Request, ok: list[int], s: Snapshot, now: float) -> int:  # noqa: ARG002
        """The better of two."""
        two = ok if len(ok) < 3 else self.rng.sample(ok, 2)
        return min(two, key=lambda e: self.peak[e][0] * (s.inflight[self.eps[e].account] + 1))


class BifrostLike(Base):
    """Weights made anew every 5 s from error rate (50 %), latency (20 %) and utilisation (5 %), with momentum."""

    name = "bifrost-adaptive"

    def start(self, endpoints: Sequence[Endpoint], accounts: Sequence[Account], seed: int) -> None:
        """Begin."""
        super().start(endpoints, accounts, seed)
        n = len(self.eps)
        self.good, self.bad, self.weight = [0.0] * n, [0.0] * n, [1.0] * n
        self.next = 0.0

    def feedback(self, event: Event, now: float) -> None:
        """Count successes and failures."""
        super().feedback(event, now)
        if event.kind == "ok":
            self.good[event.endpoint] += 1
        elif event.kind not in {"started", "cancelled"}:
            self.bad[event.endpoint] += 1

    def tick(self, snapshot: Snapshot, now: float) -> None:
        """Make the weights."""
        if now < self.next:
            return
        self.next = now + 5.0
        for e in self.eps:
            i = e.index
            ended = self.good[i] + self.bad[i]
            err = self.bad[i] / ended if ended else 0.0
            seen = self.lat[i]
            norm = seen / e.typical_s if seen else 1.0
            account = self.accts[e.account]
            util = snapshot.inflight[e.account] / max(1, account.concurrency)
            penalty = 0.5 * min(1, 4 * err) + 0.2 * min(1, max(0, norm - 1) / 2) + 0.05 * min(1, util)
            self.weight[i] = 0.5 * self.weight[i] + 0.5 * max(0.02, 1 - penalty / 0.75)
            self.good[i] *= 0.7
            self.bad[i] *= 0.7

    def pick(self, r: Request, ok: list[int], s: Snapshot, now: float) -> int:  # noqa: ARG002
        """Mostly one of the best."""
        weights = [self.weight[e] for e in ok]
        best = max(weights)
        if self.rng.random() < 0.25:
            return self.rng.choices(ok, weights)[0]
        return self.rng.choice([e for e, w in zip(ok, weights, strict=True) if w >= 0.95 * best])


BASELINES: tuple[type[Base], ...] = (
    Static,
    RoundRobin,
    Shuffle,
    Cheapest,
    CheapestFree,
    LowestCostLite,
    LowestLatency,
    LeastBusy,
    InverseSquare,
    PeakEwma,
    BifrostLike,
)
