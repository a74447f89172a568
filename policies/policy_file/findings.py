"""What the checks of a policy have to say."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from policies.policy_file.values import Loc

Level = Literal["error", "warning"]


class Finding(Struct, frozen=True, kw_only=True):
    """One suspicious thing in a policy."""

    loc: Loc
    code: str
    message: str
    hint: str | None = None
    level: Level = "error"
    at_key: bool = False
