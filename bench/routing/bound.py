"""A clairvoyant lower bound on J = spend + penalties, by Lagrangian relaxation.

The bound knows every arrival, duration, outage and price change in advance.  For any
non-negative prices on scarce resources,

    L(lam) = sum_r min over options(cost + resource use at its cheapest moment) - sum lam * capacity

is at most the J of every feasible policy, online or offline.  Sub-gradient ascent only tightens
it: stopping early makes it looser, never wrong.

What is relaxed (each point can only lower the bound):
  * work is divisible and may be placed in the cheapest slot between arrival and deadline
  * no errors, cold starts, model swaps, round trips; GPU steps always run in full batches
  * a late answer uses no capacity; a duplicate of an earlier cacheable request is free and on time
  * after a limit falls or an outage begins, the old capacity lingers for LINGER seconds (work in flight)
  * volume discounts: best over final tiers of the chord of that tier
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bench.routing.traffic import Floats, Ints, api_factor, size_factor
from bench.routing.world import CATALOGUE, POOL, World
from policies.offline.world import ALPHA, OK, SLOT

L = 30.0  # seconds per capacity slot
LT = 600.0  # seconds per rate-limit slot
LINGER = 180.0


class RangeMin:
    """min and argmin of lam over [s0, s1] per request, by sparse table."""

    def __init__(self, s0: Ints, s1: Ints) -> None:
        self.s0, length = s0, s1 - s0 + 1
        self.lev = np.floor(np.log2(length)).astype(int)
        self.b = s1 - (1 << self.lev) + 1
        self.top = int(self.lev.max()) if len(s0) else 0

    def __call__(self, lam: Floats) -> tuple[Floats, Ints]:
        """The least of each range, and where it stands."""
        idx = np.arange(len(lam))
        mins, args = [lam], [idx]
        for j in range(1, self.top + 1):
            h = 1 << (j - 1)
            m, a = mins[-1], args[-1]
            m2 = np.concatenate([m[h:], np.full(h, np.inf)])
            a2 = np.concatenate([a[h:], a[-1:].repeat(h)])
            take = m2 < m
            mins.append(np.where(take, m2, m))
            args.append(np.where(take, a2, a))
        least, where = np.stack(mins), np.stack(args)
        va, vb = least[self.lev, self.s0], least[self.lev, self.b]
        ga, gb = where[self.lev, self.s0], where[self.lev, self.b]
        return np.where(vb < va, vb, va), np.where(vb < va, gb, ga)


def _window_min(x: Floats, lo: Ints, hi: Ints) -> Floats:
    """Min of per-slot array x over slots lo..hi for each request."""
    return RangeMin(lo, hi)(x)[0]


class Problem(NamedTuple):
    """What may be assigned where, and what it uses. N requests that count, E endpoints, A accounts."""

    rows: Ints
    use: Floats
    """[N, E] slot- or GPU-seconds."""
    cost: Floats
    """[N, E] dollars; inf where it could not be in time."""
    out: Floats
    """[N] dollars of being late, or of nothing, whichever is less."""
    caps: Floats
    """[A, slots of L] slot-seconds."""
    slots: int
    rate_slots: int
    window: RangeMin
    rate_window: RangeMin


def _counted(w: World) -> Ints:
    """Requests that are not a repetition of an earlier one."""
    seen: set[int] = set()
    keep = np.ones(w.size, bool)
    for i, k in enumerate(w.traffic.key.tolist()):
        if k >= 0 and not w.traffic.batch[i]:
            keep[i] = k not in seen
            seen.add(k)
    return np.nonzero(keep)[0]


def _capacity(w: World, slots: int) -> Floats:
    per, linger = int(L // SLOT), int(LINGER // SLOT)
    caps = np.zeros((len(w.accounts), slots))
    for acct in w.accounts:
        lim = np.where(w.outage[acct.index] != OK, 0, w.limit[acct.index]).astype(float)
        if acct.index != POOL:
            pad = np.concatenate([np.full(linger, lim[0]), lim])
            lim = np.max(np.stack([pad[j : j + len(lim)] for j in range(linger + 1)]), axis=0)
        lim = np.concatenate([lim, np.full(slots * per, lim[-1])])[: slots * per]
        caps[acct.index] = lim.reshape(slots, per).sum(axis=1) * SLOT
    return caps


def _durations(w: World, i: int, r: Ints, *, blind: bool) -> tuple[Floats, Floats]:
    """Seconds each request takes at an endpoint at multiplier 1: as expected, and at best."""
    base: Floats = w.base[r, i]
    if not blind:
        return base, base
    row, mp, n = CATALOGUE[i], w.traffic.mp[r], w.traffic.n[r]
    mean_z = np.exp(row.sigma**2 / 2) * (1 - row.slow + row.slow * (row.slow_low + row.slow_high) / 2)
    work = row.median_s * size_factor(mp)
    work = work * (ALPHA + (1 - ALPHA) * n) if row.account == POOL else work * api_factor(n) + 0.08
    return work * mean_z, work * np.exp(-3 * row.sigma)


def prepare(w: World, *, blind: bool = False) -> Problem:
    """Tabulate cost and use of every request at every endpoint that could be in time."""
    r = _counted(w)
    asked = w.traffic
    a, slo = asked.arrival[r], asked.slo[r]
    kmax = w.mult.shape[1] - 1
    lo, hi = (a // SLOT).astype(int), np.minimum(((a + slo) // SLOT).astype(int), kmax)
    use, cost = np.zeros((len(r), len(w.endpoints))), np.full((len(r), len(w.endpoints)), np.inf)
    for e in w.endpoints:
        i = e.index
        slow = _window_min(w.mult[i], lo, hi)
        base, quick = _durations(w, i, r, blind=blind)
        price = w.price[r, i] * _window_min(w.pricemul[i], lo, hi)
        ok = np.isfinite(price) & (quick * slow <= slo)
        if e.account == POOL:
            unit, n = CATALOGUE[i].median_s * size_factor(asked.mp[r]), asked.n[r]
            z = base / (unit * (ALPHA + (1 - ALPHA) * n))
            use[:, i] = n * unit * z * (ALPHA / 4 + (1 - ALPHA))
        else:
            use[:, i] = base * slow
            start_hi = np.minimum(np.maximum(((a + slo - quick * slow) // SLOT).astype(int), lo), kmax)
            down = (w.outage[e.account] != OK).astype(float)
            ok &= _window_min(down, lo, start_hi) < 0.5
        cost[ok, i] = price[ok]
    cheapest = np.where(np.isfinite(w.price[r]), w.price[r] * w.pricemul.min(axis=1)[None, :], np.inf).min(axis=1)
    slots = int(np.ceil((w.horizon + 1200) / L)) + 1
    rate_slots = int(np.ceil((w.horizon + 1200) / LT)) + 1
    return Problem(
        rows=r,
        use=use,
        cost=cost,
        out=np.minimum(cheapest + asked.miss[r], asked.fail[r]),
        caps=_capacity(w, slots),
        slots=slots,
        rate_slots=rate_slots,
        window=RangeMin((a // L).astype(int), np.minimum(((a + slo) // L).astype(int), slots - 1)),
        rate_window=RangeMin((a // LT).astype(int), np.minimum(((a + slo) // LT).astype(int), rate_slots - 1)),
    )


class Duals(NamedTuple):
    """Prices of what is scarce."""

    lam: Floats
    """[A, slots] dollars a slot-second."""
    tau: Floats
    """[A, rate slots] dollars an order."""
    mu: dict[int, float]
    """Account -> dollars a free image."""
    nu: dict[int, float]
    """Account -> premium on prepaid credit."""


class Assigned(NamedTuple):
    """What these prices lead to."""

    value: float
    pick: Ints
    served: npt.NDArray[np.bool_]
    slots: dict[int, Ints]
    rate_slots: dict[int, Ints]


class Relaxation:
    """L(prices) of one world, and its ascent."""

    def __init__(self, w: World, p: Problem, scale: Floats) -> None:
        """`scale` [A] multiplies what each account charges."""
        self.p = p
        self.acct = np.array([e.account for e in w.endpoints])
        self.base = p.cost * scale[self.acct][None, :]
        self.n = w.traffic.n[p.rows].astype(float)
        self.lines = np.arange(len(p.rows))
        self.accounts = len(w.accounts)
        self.rate = {a.index: a.burst + a.rpm / 60.0 * LT for a in w.accounts if a.rpm}
        self.free = {a.index: float(a.free_images) for a in w.accounts if a.free_images}
        self.credit = {a.index: a.credit + a.concurrency * 0.25 for a in w.accounts if np.isfinite(a.credit)}

    def start(self) -> Duals:
        """Prices to begin with."""
        lam, tau = np.zeros((self.accounts, self.p.slots)), np.zeros((self.accounts, self.p.rate_slots))
        return Duals(lam, tau, dict.fromkeys(self.free, 0.003), dict.fromkeys(self.credit, 0.0))

    def priced(self, d: Duals) -> tuple[Floats, dict[int, Ints], dict[int, Ints]]:
        """What every request would cost everywhere, prices included; and the slots where scarce things cost least."""
        c, p = self.base.copy(), self.p
        for i, m in d.mu.items():
            cols = self.acct == i
            c[:, cols] = np.where(np.isfinite(c[:, cols]), np.minimum(c[:, cols], (m * self.n)[:, None]), np.inf)
        for i, v in d.nu.items():
            c[:, self.acct == i] *= 1 + v
        slots, rate_slots = {}, {}
        for i in range(self.accounts):
            least, slots[i] = p.window(d.lam[i])
            cols = np.nonzero(self.acct == i)[0]
            c[:, cols] += p.use[:, cols] * least[:, None]
        for i in self.rate:
            least, rate_slots[i] = p.rate_window(d.tau[i])
            c[:, self.acct == i] += least[:, None]
        return c, slots, rate_slots

    def evaluate(self, d: Duals) -> Assigned:
        """Every request where it costs least, prices included; the value is a lower bound whatever the prices."""
        p = self.p
        c, slots, rate_slots = self.priced(d)
        pick = c.argmin(axis=1)
        cost = c[self.lines, pick]
        served = cost < p.out
        total = np.where(served, cost, p.out).sum() - (d.lam * p.caps).sum()
        total -= sum(d.tau[i].sum() * cap for i, cap in self.rate.items())
        total -= sum(d.mu[i] * self.free[i] for i in self.free) + sum(d.nu[i] * self.credit[i] for i in self.credit)
        return Assigned(float(total), pick, served, slots, rate_slots)

    def climb(self, d: Duals, found: Assigned, eta: float) -> None:
        """One sub-gradient step, in place."""
        p, pick = self.p, found.pick
        account = self.acct[pick]
        for i in range(self.accounts):
            sel = found.served & (account == i)
            used = np.bincount(found.slots[i][sel], weights=p.use[self.lines[sel], pick[sel]], minlength=p.slots)
            over = (used - p.caps[i]) / np.maximum(p.caps[i], 30.0)
            d.lam[i] = np.maximum(0.0, d.lam[i] + eta * np.clip(over, -1, 3))
        for i, cap in self.rate.items():
            sel = found.served & (account == i)
            used = np.bincount(found.rate_slots[i][sel], minlength=p.rate_slots)
            d.tau[i] = np.maximum(0.0, d.tau[i] + eta * np.clip((used - cap) / cap, -1, 3))
        for i, free in self.free.items():
            sel = found.served & (account == i)
            taken = self.n[sel][(d.mu[i] * self.n[sel]) < p.cost[self.lines[sel], pick[sel]]].sum()
            d.mu[i] = max(0.0, d.mu[i] + eta * float(np.clip((taken - free) / free, -1, 3)))
        for i, credit in self.credit.items():
            sel = found.served & (account == i)
            spent = p.cost[self.lines[sel], pick[sel]].sum()
            d.nu[i] = max(0.0, d.nu[i] + 100 * eta * float(np.clip((spent - credit) / credit, -1, 3)))


def _solve(w: World, p: Problem, iters: int, scale: Floats) -> tuple[float, Duals, Assigned]:
    relaxed = Relaxation(w, p, scale)
    d = relaxed.start()
    best, at, how = -np.inf, d, relaxed.evaluate(d)
    lam, tau, weight = np.zeros_like(d.lam), np.zeros_like(d.tau), 0
    for it in range(iters):
        found = relaxed.evaluate(d)
        if found.value > best:
            best, at, how = found.value, Duals(d.lam.copy(), d.tau.copy(), dict(d.mu), dict(d.nu)), found
        if it > iters * 0.4:
            lam += d.lam
            tau += d.tau
            weight += 1
        relaxed.climb(d, found, 0.002 / (1 + it / 25.0))
    if weight:
        mean = Duals(lam / weight, tau / weight, d.mu, d.nu)
        found = relaxed.evaluate(mean)
        if found.value > best:
            best, at, how = found.value, mean, found
    return best, at, how


class Bound(NamedTuple):
    """The least J any policy could have had, and the plan that says so."""

    value: float
    duals: Duals
    share: dict[str, int]
    """Endpoint -> requests the relaxed plan serves there."""
    missed_pct: float


def lower_bound(w: World, iters: int = 300, *, blind: bool = False) -> Bound:
    """The bound.

    Otherwise than `blind`, it knows each attempt's duration and holds for every run. Blind, it knows arrivals, outages,
    drift and prices but not the noise of single attempts, and holds in expectation for every policy that cannot see an
    attempt's duration before choosing it (the expected slot use of an assignment is then the mean, and lateness is
    still counted as free).
    """
    p = prepare(w, blind=blind)
    ones = np.ones(len(w.accounts))
    tiered = next((a for a in w.accounts if a.tiers), None)
    best, duals, how = _solve(w, p, iters, ones)
    if tiered is not None:  # try every final tier, keep the least
        edges = [0, *(start for start, _ in tiered.tiers)]
        offs = [0.0, *(off for _, off in tiered.tiers)]
        unit = min(e.price for e in w.endpoints if e.account == tiered.index and e.price > 0)
        for j in range(1, len(offs)):
            scale = ones.copy()
            scale[tiered.index] = 1 - offs[j]
            value, found, assigned = _solve(w, p, iters, scale)
            # Everything is priced at the rate of tier j; images below its threshold paid more, at the least unit price.
            extra = sum((offs[j] - offs[i]) * unit * (edges[i + 1] - edges[i]) for i in range(j))
            if value < best and value + extra < best:
                best, duals, how = value + extra, found, assigned
    counts = np.bincount(how.pick[how.served], minlength=len(w.endpoints))
    share = {w.endpoints[i].name: int(c) for i, c in enumerate(counts)}
    return Bound(float(best), duals, share, float(100 * (~how.served).sum() / w.size))
