"""The truth of a scenario: offers, conditions that vary with time, noise and traffic.

Conditions are arrays over slots of SLOT seconds, so that the simulator and the bound read the very same truth. Noise is
drawn once per (request, endpoint): how long an attempt takes does not depend on who asks or when, which makes every
comparison paired and lets the bound know each duration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bench.routing.api import Account, Endpoint, Request, list_price
from bench.routing.traffic import Traffic, api_factor, size_factor
from policies.offline.world import ALPHA, FAST_ERROR, SLOT

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FAL, TOGETHER, REPLICATE, POOL, FREE = range(5)


class Row(NamedTuple):
    """One endpoint of the made-up catalogue, and how it really behaves."""

    name: str
    account: int
    model: str
    quality: int
    max_mp: float
    price: float
    unit: str
    steps: int
    median_s: float
    """Seconds for 1 MP, n = 1."""
    sigma: float
    slow: float
    """Share of attempts in the slow tail, which takes `slow_low` to `slow_high` times as long."""
    slow_low: float
    slow_high: float


CATALOGUE = [
    Row("fal/schnell", FAL, "schnell", 1, 4.0, 0.0030, "mp_ceil", 4, 0.80, 0.16, 0.010, 2.5, 6.0),
    Row("fal/dev", FAL, "dev", 2, 4.0, 0.0250, "mp_ceil", 28, 4.0, 0.14, 0.008, 2.0, 5.0),
    Row("fal/pro", FAL, "pro", 3, 4.0, 0.0400, "table", 28, 7.0, 0.15, 0.008, 2.0, 4.0),
    Row("together/schnell", TOGETHER, "schnell", 1, 2.25, 0.0027, "mp_step", 4, 0.95, 0.20, 0.012, 2.5, 6.0),
    Row("together/dev", TOGETHER, "dev", 2, 2.25, 0.0154, "image", 28, 5.5, 0.18, 0.010, 2.0, 5.0),
    Row("together/pro", TOGETHER, "pro", 3, 2.25, 0.0400, "mp", 28, 9.0, 0.18, 0.010, 2.0, 4.0),
    Row("replicate/schnell", REPLICATE, "schnell", 1, 4.0, 0.0030, "image", 4, 1.20, 0.25, 0.020, 2.5, 8.0),
    Row("replicate/dev", REPLICATE, "dev", 2, 4.0, 0.0250, "image", 28, 6.0, 0.22, 0.015, 2.0, 6.0),
    Row("replicate/pro", REPLICATE, "pro", 3, 2.25, 0.0400, "image", 28, 9.0, 0.22, 0.015, 2.0, 5.0),
    Row("fal/ultra", FAL, "ultra", 4, 4.0, 0.0600, "image", 28, 8.0, 0.16, 0.008, 2.0, 4.0),
    Row("replicate/ultra", REPLICATE, "ultra", 4, 4.0, 0.0600, "image", 28, 9.0, 0.22, 0.015, 2.0, 5.0),
    Row("pool/schnell", POOL, "schnell", 1, 4.0, 0.0, "gpu", 4, 1.10, 0.06, 0.002, 1.5, 3.0),
    Row("pool/dev", POOL, "dev", 2, 4.0, 0.0, "gpu", 28, 6.0, 0.05, 0.002, 1.5, 2.5),
    Row("together/schnell-free", FREE, "schnell", 1, 1.0, 0.0, "free", 4, 1.60, 0.30, 0.030, 2.5, 8.0),
]
"""List prices as published; medians, tails and limits are plausible stand-ins and say nothing about real sellers."""
FAL_PRO_TABLE = ((0.25, 0.02), (0.5625, 0.03), (1.0, 0.04))


@dataclass
class World:
    """One scenario: a `policies.offline.world.World`. E endpoints, A accounts, K slots, R requests."""

    name: str
    seed: int
    horizon: float
    endpoints: list[Endpoint]
    accounts: list[Account]
    gpus: int
    traffic: Traffic
    mult: Floats
    """[E, K] duration multiplier."""
    perr: Floats
    """[A, K] error probability."""
    outage: Ints
    """[A, K] OK, FAST_ERROR or HANG."""
    limit: Floats
    """[A, K] effective concurrency; for the pool, GPUs that are up."""
    pricemul: Floats
    """[E, K]."""
    cold_idle: Floats
    """[E] idle seconds after which a call is cold."""
    cold_s: Floats
    """[E]."""
    base: Floats = field(default_factory=lambda: np.empty((0, 0)))
    """[R, E] seconds at multiplier 1; for the pool, a GPU step for this request alone."""
    uerr: Floats = field(default_factory=lambda: np.empty((0, 0)))
    """[R, 4] uniform, for error draws by attempt number."""
    price: Floats = field(default_factory=lambda: np.empty((0, 0)))
    """[R, E] list price; inf where the endpoint cannot serve the request."""

    pool: int = POOL
    warm: bool = False

    @property
    def size(self) -> int:
        """Requests."""
        return len(self.traffic.arrival)

    def arrivals(self) -> Sequence[float]:
        """When each request comes."""
        self._columns = columns(self.traffic)
        self._base, self._price, self._chance = self.base.tolist(), self.price.tolist(), self.uerr.tolist()
        asked = self._columns
        self._rows = list(zip(*(asked[name] for name in asked if name not in {"arrival", "key"}), strict=True))
        return asked["arrival"]

    def request(self, r: int) -> Request:
        """One of them, fresh."""
        slo, tier, mp, n, batch, miss, fail = self._rows[r]
        t = self._columns["arrival"][r]
        expires = t + slo + (120.0 if tier > 1 else 60.0)
        return Request(r, t, t + slo, tier, mp, n, batch, miss, fail, expires=expires)

    def keys(self) -> Sequence[int]:
        """Of each request in the cache of answers."""
        found: list[int] = self.traffic.key.tolist()
        return found

    def seconds(self, r: int, e: int) -> float:
        """How long a request takes at multiplier 1."""
        found: float = self._base[r][e]
        return found

    def serves(self, r: int, e: int) -> bool:
        """Whether an endpoint can serve it."""
        return bool(self._price[r][e] < np.inf)

    def bill(self, r: int, e: int, seconds: float) -> float:  # noqa: ARG002 - nothing here is charged by time
        """List price in dollars."""
        found: float = self._price[r][e]
        return found

    def chance(self, r: int, attempt: int) -> float:
        """The draw against the error rate."""
        found: float = self._chance[r][min(attempt, 3)]
        return found

    def unit_s(self, e: int, mp: float) -> float:
        """GPU-seconds of a whole picture."""
        return CATALOGUE[e].median_s * (0.3 + 0.7 * mp)

    def finish(self) -> World:
        """Draw the noise and tabulate prices."""
        rng = np.random.default_rng([self.seed, 77])
        asked, count = self.traffic, len(self.endpoints)
        self.base = np.empty((self.size, count))
        self.price = np.full((self.size, count), np.inf)
        size = size_factor(asked.mp)
        for e in self.endpoints:
            row = CATALOGUE[e.index]
            z = np.exp(row.sigma * rng.standard_normal(self.size))
            slow = rng.random(self.size) < row.slow
            z = np.where(slow, z * rng.uniform(row.slow_low, row.slow_high, self.size), z)
            if e.unit == "gpu":
                work = row.median_s * size * (ALPHA + (1 - ALPHA) * asked.n)
            else:
                work = row.median_s * size * api_factor(asked.n) + 0.08
            self.base[:, e.index] = work * z
            ok = (asked.tier <= e.quality) & (asked.mp <= e.max_mp + 1e-9)
            # An export asks for a pro-class model of any kind; drafts never need the XL ones.
            ok &= ~((e.quality >= 3) & (asked.tier < 2))
            self._tabulate(e, np.nonzero(ok)[0])
        self.uerr = rng.random((self.size, 4))
        return self

    def _tabulate(self, e: Endpoint, rows: Ints) -> None:
        keys = self.traffic.mp[rows] * 16 + self.traffic.n[rows]
        for key in np.unique(keys):
            like = rows[keys == key]
            self.price[like, e.index] = list_price(e, float(self.traffic.mp[like[0]]), int(self.traffic.n[like[0]]))


def catalogue() -> list[Endpoint]:
    """What is for sale."""
    return [
        Endpoint(
            i, row.name, row.account, row.model, row.quality, row.max_mp, row.price, row.unit, row.steps, row.median_s,
            FAL_PRO_TABLE if row.unit == "table" else (),
        )
        for i, row in enumerate(CATALOGUE)
    ]  # fmt: skip


def accounts(
    *, fal: int = 40, together: int = 24, replicate: int = 20, gpus: int = 4, free_rpm: float = 10.0, **over: object
) -> list[Account]:
    """The five accounts; `over` sets single fields, as in `replicate__rpm=60.0`."""
    base: list[dict[str, Any]] = [
        {"index": FAL, "name": "fal", "kind": "queue", "concurrency": fal},
        {
            "index": TOGETHER,
            "name": "together",
            "kind": "reject",
            "concurrency": together,
            "rpm": 600.0,
            "burst": 60.0,
        },
        {
            "index": REPLICATE,
            "name": "replicate",
            "kind": "queue",
            "concurrency": replicate,
            "rpm": 600.0,
            "burst": 60.0,
        },
        {"index": POOL, "name": "pool", "kind": "pool", "concurrency": gpus, "batch": 4, "sunk_per_hour": 0.34},
        {
            "index": FREE,
            "name": "together-free",
            "kind": "reject",
            "concurrency": 2,
            "rpm": free_rpm,
            "burst": 4.0,
        },
    ]
    for key, value in over.items():
        name, attribute = key.split("__")
        next(b for b in base if b["name"].replace("-", "_") == name)[attribute] = value
    return [Account(**b) for b in base]


def build(name: str, seed: int, horizon: float, traffic: Traffic, accts: Sequence[Account], gpus: int) -> World:
    """Assemble a world with calm conditions; scenarios then disturb it."""
    endpoints = catalogue()
    if not gpus:  # nothing to route to: no policy should have to find that out
        endpoints = [replace(e, max_mp=0.0) if e.account == POOL else e for e in endpoints]
    slots = int(np.ceil((horizon + 1800) / SLOT)) + 1
    limit = np.zeros((len(accts), slots))
    for account in accts:
        limit[account.index] = account.concurrency
    limit[POOL] = gpus
    perr = np.zeros((len(accts), slots))
    perr[[FAL, TOGETHER, REPLICATE, FREE]] = np.array([0.002, 0.003, 0.006, 0.02])[:, None]
    cold_idle, cold_s = np.full(len(endpoints), np.inf), np.zeros(len(endpoints))
    for i, e in enumerate(endpoints):
        if e.account == FAL:
            cold_idle[i], cold_s[i] = 300.0, 2.0
        if e.account == REPLICATE:
            cold_idle[i], cold_s[i] = 180.0, 8.0
    return World(
        name,
        seed,
        horizon,
        endpoints,
        list(accts),
        gpus,
        traffic,
        _drift(seed, horizon, endpoints, len(accts), slots),
        perr,
        np.zeros((len(accts), slots), np.int64),
        limit,
        np.ones((len(endpoints), slots)),
        cold_idle,
        cold_s,
    )


def _drift(seed: int, horizon: float, endpoints: Sequence[Endpoint], accts: int, slots: int) -> Floats:
    """Every provider's slow drift: a daily swing and a wander that reverts to its mean."""
    rng = np.random.default_rng([seed, 5])
    t = np.arange(slots) * SLOT
    mult = np.ones((len(endpoints), slots))
    for a in range(accts):
        if a == POOL:
            continue
        phase, amp = rng.uniform(0, 2 * np.pi), rng.uniform(0.03, 0.10)
        wander, x = np.zeros(slots), 0.0
        for k in range(slots):
            x += -0.02 * x + 0.012 * rng.standard_normal()
            wander[k] = x
        m = np.exp(amp * np.sin(2 * np.pi * t / max(horizon, 3600) + phase) + wander)
        for e in endpoints:
            if e.account == a:
                mult[e.index] = m
    return mult


def span(t0: float, t1: float) -> slice:
    """The slots of a stretch of time."""
    return slice(int(t0 // SLOT), int(np.ceil(t1 / SLOT)))


def brownout(w: World, account: int, t0: float, t1: float, factor: float) -> None:
    """Everything takes `factor` times as long."""
    for e in w.endpoints:
        if e.account == account:
            w.mult[e.index, span(t0, t1)] *= factor


def slow_drift(w: World, account: int, t0: float, t1: float, factor: float) -> None:
    """Durations creep up to `factor` between two moments, and stay."""
    for e in w.endpoints:
        if e.account == account:
            part = w.mult[e.index, span(t0, t1)]
            part *= np.exp(np.linspace(0.0, np.log(factor), len(part)))
            w.mult[e.index, int(np.ceil(t1 / SLOT)) :] *= factor


def outage(w: World, account: int, t0: float, t1: float, kind: int = FAST_ERROR) -> None:
    """Nothing works."""
    w.outage[account, span(t0, t1)] = kind


def errors(w: World, account: int, t0: float, t1: float, p: float) -> None:
    """A share of attempts fails."""
    w.perr[account, span(t0, t1)] = p


def squeeze(w: World, account: int, t0: float, t1: float, limit: int) -> None:
    """Fewer run at once than agreed."""
    w.limit[account, span(t0, t1)] = limit


def reprice(w: World, name: str, t0: float, factor: float) -> None:
    """Invoices change; nobody says so."""
    for e in w.endpoints:
        if e.name == name:
            w.pricemul[e.index, int(t0 // SLOT) :] *= factor


def columns(traffic: Traffic) -> Mapping[str, list[Any]]:
    """The traffic as plain lists, for loops in Python."""
    return {name: getattr(traffic, name).tolist() for name in Traffic._fields}
