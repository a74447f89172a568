"""Who changed what of an API key or a provider account, and when; of a key in the commit of the change."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, TypeAlias

from msgspec import Struct

from gateway.storage.rows import KeyRow

AccountAction: TypeAlias = Literal["added", "resealed", "removed"]
KeyAction: TypeAlias = Literal["created", "limited", "rotated", "paused", "released", "revoked"]

_SECRET = frozenset({"hash", "former"})
"""Fields of a key of which no record says more than that they changed."""


class ChangeRow(Struct, frozen=True, kw_only=True):
    """One change by one person, or by the gateway itself."""

    seq: int = 0
    """1, 2, 3 ... in the order written; 0 until it is kept."""
    at: datetime
    actor: str
    of: Literal["key", "account"] = "key"
    name: str
    """The key's id, or the account's name."""
    action: KeyAction | AccountAction
    detail: Mapping[str, object] = {}
    """Field -> what it was and what it is: `{"rpm": {"from": 60, "to": 120}}`; money in nano-dollars."""


def key_change(before: KeyRow | None, after: KeyRow, action: KeyAction, actor: str, at: datetime) -> ChangeRow:
    """The record of a change; `before` is None when the key is made."""
    detail = {
        field: {"from": None if before is None else getattr(before, field), "to": value}
        for field in KeyRow.__struct_fields__
        if field not in _SECRET and field not in ("id", "created")
        if (value := getattr(after, field)) != (None if before is None else getattr(before, field))
    }
    return ChangeRow(at=at, actor=actor, name=after.id, action=action, detail=detail)
