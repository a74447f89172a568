"""What a call is served under, from its first moment to its last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct

from policies.catalog import Catalog
from policies.policy import Policy

if TYPE_CHECKING:
    from gateway.requests.pipeline import Pipeline

Arm: TypeAlias = Literal["", "control", "canary"]


class Regime(Struct, frozen=True, kw_only=True, eq=False):
    """One policy, one catalogue, and the path that decides by them.

    A changed file makes another regime for the calls to come. A call keeps the one it began under, however often it is
    decided about, so what it was promised holds, and what it orders is priced and settled by one set of tariffs.
    """

    policy: Policy
    catalog: Catalog
    pipeline: Pipeline
    arm: Arm = ""
    """Which side of a canary its calls are on; empty without one."""
    canary: int = 0
    """Of which canary."""
