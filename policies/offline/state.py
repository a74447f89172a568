"""What a simulator keeps of its orders, and the snapshot it hands to the policy."""

from __future__ import annotations

from policies.offline.contract import Request
from policies.types import Machine


class Attempt:
    """One order at one endpoint."""

    __slots__ = ("dead", "e", "queue_s", "req", "started", "state", "submitted")

    def __init__(self, req: Request, e: int, now: float) -> None:
        self.req, self.e, self.submitted = req, e, now
        self.started = -1.0
        self.queue_s = 0.0
        self.dead = False
        self.state = "new"


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
        self.gpu_state: list[Machine] = []
        self.now = 0.0

    @property
    def pool_residual(self) -> float:
        """Seconds until the next GPU frees; 0 when one is idle."""
        return 0.0 if self.gpu_free > 0 or not self.pool_ends else max(0.0, min(self.pool_ends) - self.now)
