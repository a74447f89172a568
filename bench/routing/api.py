"""The contract between the routing harness and a policy: that of the simulator, and what the bench sells.

The harness owns the clock; see `policies/offline/contract.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from policies.offline.contract import Account, Decision, Event, Reason, Request, Snapshot
from policies.offline.contract import Policy as DrivenPolicy

__all__ = ["MP", "Account", "Decision", "Endpoint", "Event", "Policy", "Reason", "Request", "Snapshot", "list_price"]

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


Policy: TypeAlias = DrivenPolicy[Endpoint]


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
