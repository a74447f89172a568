"""What is kept of prices: what sellers' lists would change in our book, and every change of it, with who made it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias

from msgspec import Struct

ChangeKind: TypeAlias = Literal["price", "unit", "gone"]
"""price: another price per unit. unit: the unit is called otherwise. gone: the seller no longer has the model."""
ProposalState: TypeAlias = Literal["open", "applied", "rejected", "superseded"]
"""superseded: the list said something else again before anybody decided."""


class PriceChange(Struct, frozen=True, kw_only=True):
    """What a seller's list would change of one offer. Money is nano-dollars per billing unit."""

    offer: str
    endpoint: str
    kind: ChangeKind
    unit: str = ""
    unit_before: str = ""
    ours: int | None = None
    """What the price book says; None where a list's one price cannot be held against it."""
    listed: int | None = None
    waits: str = ""
    """Why somebody must say that they looked at it; empty where a plain `apply` does."""
    says: str

    @property
    def seen(self) -> tuple[str, ChangeKind, str, int | None]:
        """What was seen on the list, to know it again."""
        return self.offer, self.kind, self.unit, self.listed


class Proposal(Struct, frozen=True, kw_only=True):
    """A change that a seller's list was found to ask for; at most one of an offer is open."""

    id: int = 0
    at: datetime
    account: str
    offer: str
    change: PriceChange
    state: ProposalState = "open"
    ended: datetime | None = None
    actor: str = ""
    """Who decided."""
    message: str = ""


class PriceRevision(Struct, frozen=True, kw_only=True):
    """The synced prices as they stood at a moment, and what that changed."""

    seq: int = 0
    at: datetime
    author: str
    source: Literal["saved", "applied", "rolled back"]
    """How it came here: found in the file, or by a command."""
    message: str = ""
    content: bytes
    changes: tuple[PriceChange, ...] = ()
    prices_before: int
    """Number of the catalogue without it."""
    prices: int
    """And with it, as every decision carries it."""
