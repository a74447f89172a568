"""While a canary runs: which policy reads and serves a request, and what its call is compared with.

The choice depends on nothing but the canary, the key and the end user, so whoever is on one side stays there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from gateway.http.repeated_terms import RepeatedTerms
from gateway.requests.call import Caller
from gateway.requests.regime import Regime

_ALL = 1 << 32
_PERSONAL = frozenset({"prompt", "user", "safety_identifier", "seed", "tags", "metadata", "negative_prompt", "parent"})
"""Fields that say who asks, or for which picture; not how it is to be drawn."""
_encode = msgspec.json.Encoder(order="deterministic", enc_hook=repr).encode


class Split(Struct, frozen=True, kw_only=True):
    """Whom a canary serves."""

    canary: int
    share: float
    teams: frozenset[str]

    def takes(self, caller: Caller, user: str | None) -> bool:
        """Whether the calls of a key, and of an end user of it, are the canary's."""
        if self.teams:
            return caller.team in self.teams
        who = f"{self.canary}\n{caller.key_id}\n{user or ''}".encode()
        return int.from_bytes(hashlib.blake2b(who, digest_size=4).digest()) < self.share * _ALL


class Arms:
    """Both sides of a canary, as requests are read by them."""

    def __init__(self, split: Split, control: RepeatedTerms, canary: RepeatedTerms) -> None:
        self._split = split
        self._control = control
        self._canary = canary

    def __repr__(self) -> str:
        return f"<Arms {self._split}>"

    def terms(self, caller: Caller, fields: Mapping[str, object]) -> RepeatedTerms:
        """What reads a request of these fields."""
        user = fields.get("safety_identifier") or fields.get("user")
        takes = self._split.takes(caller, user if isinstance(user, str) else None)
        return self._canary if takes else self._control


def likeness(regime: Regime | None, path: str, fields: Mapping[str, object], team: str) -> bytes:
    """What a request asks for in ways that any policy may answer differently; empty while no canary runs.

    Teams are compared with themselves: each has rules and accounts of its own.
    """
    if regime is None or not regime.arm:
        return b""
    asked = {name: value for name, value in fields.items() if name not in _PERSONAL}
    digest = hashlib.blake2b(f"{path}\n{team}\n".encode(), digest_size=16)
    digest.update(_encode(asked))
    return digest.digest()
