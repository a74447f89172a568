"""The contract between the routing harness and a policy.

The harness owns the clock. A policy is a pure state machine: it never sleeps, never reads a clock, never does I/O, and
draws randomness only from the seed it is given. Everything it learns arrives through `feedback`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

Reason = Literal["new", "failed", "wake"]
MP = float(1 << 20)


@dataclass(slots=True, frozen=True)
class Endpoint:
    """One model of one provider account, as a platform team configures it."""

    index: int
    name: str
    account: int
    model: str
    quality: int
    """1 draft, 2 standard, 3 export, 4 export XL."""
    max_mp: float
    """Largest output of a call."""
    price: float
    """List price per unit."""
    unit: str
    """image, mp, mp_ceil, mp_step, table, free or gpu."""
    default_steps: int
    typical_s: float
    """The vendor's median for 1 MP, n = 1: a prior, not the truth."""
    table: tuple[tuple[float, float], ...] = ()
    """For the unit table: (megapixels up to, price)."""


@dataclass(slots=True, frozen=True)
class Account:
    """Limits that all endpoints of one provider account share."""

    index: int
    name: str
    kind: str
    """queue, reject or pool."""
    concurrency: int
    """As configured; the real limit may differ over time."""
    rpm: float = 0.0
    """0 is none."""
    burst: float = 0.0
    free_images: int = 0
    """Drawn for nothing; the provider applies them first."""
    credit: float = float("inf")
    """Prepaid dollars; refused once spent."""
    tiers: tuple[tuple[int, float], ...] = ()
    """Marginal discounts: (from images, share off)."""
    batch: int = 1
    """Pool: images one GPU step can carry."""
    sunk_per_hour: float = 0.0
    """Pool: dollars of one GPU, used or not."""
    period_end: float = 0.0
    """When free images and credit are whole again; 0: never."""


@dataclass(slots=True)
class Request:
    """One call. The last three fields are kept by the harness."""

    id: int
    arrival: float
    deadline: float
    tier: int
    """Least acceptable `Endpoint.quality`."""
    mp: float
    n: int
    batch: bool
    miss_penalty: float
    """Dollars if the answer is late."""
    fail_penalty: float
    """Dollars if there is none."""
    attempts: int = 0
    tried: list[int] = field(default_factory=list)
    """Endpoints whose attempt failed."""
    live: list[tuple[int, float]] = field(default_factory=list)
    """(endpoint, submitted) of what still runs."""


class Decision(NamedTuple):
    """Submit at `endpoint` when it is >= 0; be asked again at `wake_at`; shed with `drop`."""

    endpoint: int = -1
    wake_at: float = 0.0
    drop: bool = False


class Event(NamedTuple):
    """What became of one attempt."""

    kind: str
    """started (own pool only), ok, error, throttled, no_credit, timeout or cancelled."""
    endpoint: int
    request: int
    submitted: float
    latency: float
    """Seconds from submission to this event."""
    billed: float
    """Dollars invoiced for this attempt."""
    retry_after: float
    mp: float
    n: int
    queue_s: float = -1.0
    """Seconds in the provider's queue, as it reports; -1 when unknown."""


class Snapshot(Protocol):
    """What a gateway knows without asking anyone: its own counters."""

    inflight: list[int]
    """Per account, attempts submitted and not ended."""
    gpus_up: int
    gpu_free: int
    pool_backlog: float
    """GPU-seconds queued for requests that are not batch."""
    pool_batch_backlog: float
    pool_queue: dict[tuple[str, bool], float]
    """(model, is batch) -> GPU-seconds queued."""
    gpu_state: list[tuple[str | None, float]]
    """Per GPU: model loaded, busy until."""

    @property
    def pool_residual(self) -> float:
        """Seconds until the next GPU frees; 0 when one is idle."""


class Policy(Protocol):
    """What the harness drives."""

    name: str

    def start(self, endpoints: Sequence[Endpoint], accounts: Sequence[Account], seed: int) -> None:
        """Begin; randomness comes from `seed` alone."""

    def decide(self, r: Request, s: Snapshot, now: float, reason: Reason) -> Decision:
        """What to do about a request that is `new`, of which an attempt `failed`, or that asked to `wake`."""

    def feedback(self, event: Event, now: float) -> None:
        """Learn."""

    def tick(self, snapshot: Snapshot, now: float) -> None:
        """Once a virtual second; planning belongs here."""


def list_price(e: Endpoint, mp: float, n: int, steps: int | None = None) -> float:
    """List price in dollars of one call, before discounts, free allowances and drift."""
    whole = max(1, -int(-(mp - 1e-9) // 1))
    match e.unit:
        case "gpu" | "free":
            return 0.0
        case "image":
            return e.price * n
        case "mp":
            return e.price * mp * n
        case "mp_ceil":
            return e.price * n * whole
        case "mp_step":
            return e.price * mp * (1.0 if steps is None else max(1.0, steps / e.default_steps)) * n
        case _:
            row = next((price for upper, price in e.table if mp <= upper + 1e-9), None)
            return e.table[-1][1] * whole * n if row is None else row * n
