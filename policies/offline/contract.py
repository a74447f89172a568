"""What passes between the simulator and a policy that it drives.

The simulator owns the clock. A policy is a pure state machine: it never sleeps, never reads a clock, never does I/O,
and draws randomness only from the seed it is given. Everything it learns arrives through `feedback`. Seconds are
virtual; money is in whatever unit the world prices in: dollars in the routing bench, nano-dollars in a catalogue's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from msgspec import Struct

from policies.types import Machine

Reason = Literal["new", "failed", "wake", "room"]


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
    """One thing asked for. `attempts`, `tried` and `live` are kept by the simulator."""

    id: int
    arrival: float
    deadline: float
    tier: int
    """Least acceptable tier: 1 draft or preview, 2 standard, 3 export."""
    mp: float
    n: int
    batch: bool
    miss_penalty: float
    """What a late answer costs."""
    fail_penalty: float
    """What it costs if there is none."""
    attempts: int = 0
    tried: list[int] = field(default_factory=list)
    """Endpoints whose attempt failed."""
    live: list[tuple[int, float]] = field(default_factory=list)
    """(endpoint, submitted) of what still runs."""
    expires: float = 0.0
    """When nobody wants the answer any more."""


class Decision(Struct, frozen=True, gc=False):
    """Submit at `endpoint` when it is >= 0; be asked again at `wake_at`; shed with `drop`."""

    endpoint: int = -1
    wake_at: float = 0.0
    drop: bool = False


class Event(Struct, frozen=True, gc=False):
    """What became of one attempt."""

    kind: str
    """started (own pool only), ok, error, throttled, no_credit, timeout or cancelled."""
    endpoint: int
    request: int
    submitted: float
    latency: float
    """Seconds from submission to this event."""
    billed: float
    """What is invoiced for this attempt."""
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
    gpu_state: list[Machine]
    """Per GPU: model loaded, busy until."""

    @property
    def pool_residual(self) -> float:
        """Seconds until the next GPU frees; 0 when one is idle."""


EndpointT_contra = TypeVar("EndpointT_contra", contravariant=True)


class Policy(Protocol[EndpointT_contra]):
    """What the simulator drives."""

    name: str

    def start(self, endpoints: Sequence[EndpointT_contra], accounts: Sequence[Account], seed: int) -> None:
        """Begin; randomness comes from `seed` alone."""

    def decide(self, r: Request, s: Snapshot, now: float, reason: Reason) -> Decision:
        """What to do about a request that is `new`, had an attempt that `failed`, asked to `wake`, or has `room`."""

    def feedback(self, event: Event, now: float) -> None:
        """Learn."""

    def tick(self, snapshot: Snapshot, now: float) -> None:
        """Once a virtual second; planning belongs here."""

    def due(self, snapshot: Snapshot, now: float) -> Request | None:
        """The next that waits and is to be asked at once, for there is `room` now; asked until it answers None."""
