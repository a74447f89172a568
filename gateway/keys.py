"""API keys: how they look, how they are made, and the only form in which they are stored.

A key is `pg_<id>_<secret>`: the id (12 characters) finds its record, the secret (43 characters, 256 bits) proves it.
Stored is HMAC-SHA256(pepper, secret); the pepper lies outside the database, so a stolen database opens nothing.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TypedDict, Unpack

from msgspec.structs import replace

from gateway.storage.rows import KeyRow

PREFIX = "pg"
ID_BYTES = 6
"""12 hexadecimal digits: enough to tell keys apart; it need not be secret."""
SECRET_BYTES = 32

SCOPES: Mapping[str, str] = {
    "images:write": "draw, edit, promote and delete pictures",
    "images:read": "read the records of pictures",
    "decisions:read": "read why calls were served as they were",
    "models:read": "list the models",
    "quotes:read": "ask what a call would cost",
    "moderation": "ask for a laxer check than its team's",
    "admin": "everything under /admin",
}
"""Every scope, and what it lets a key's holder do; each endpoint asks for one."""
USUAL_SCOPES = ("images:write", "images:read", "decisions:read", "models:read", "quotes:read")
"""Those of a key of which nothing else was said."""


def hash_secret(pepper: bytes, secret: bytes) -> bytes:
    """What is stored of a secret."""
    return hmac.digest(pepper, secret, "sha256")


def split_key(shown: bytes) -> tuple[str, bytes] | None:
    """Id and secret of a key as its holder sends it; None when it is not one of ours. Never raises."""
    prefix, _, rest = shown.partition(b"_")
    key_id, _, secret = rest.partition(b"_")
    if prefix != PREFIX.encode() or not secret or not key_id.isalnum():
        return None
    return key_id.decode("ascii"), secret


def mask(shown: bytes) -> str:
    """A key as error messages show it: enough to recognise, not enough to use (`pg_4fa1****9Qxw`)."""
    text = "".join(chr(byte) if 0x20 < byte < 0x7F else "?" for byte in shown[:200])
    return f"{text[:7]}****{text[-4:]}" if len(text) > 20 else f"{text[:3]}****"


class KeyTerms(TypedDict, total=False):
    """What a new key may do; what is left out is not limited (see `KeyRow`), and `scopes` are the usual ones."""

    scopes: tuple[str, ...]
    models: tuple[str, ...] | None
    tiers: tuple[str, ...] | None
    budget: int | None
    rpm: int | None
    ipm: int | None
    max_price: int | None
    max_call_price: int | None
    max_pixels: int | None
    concurrency: int | None
    expires: datetime | None


def make_key(
    pepper: bytes, *, team: str, name: str, created: datetime, **terms: Unpack[KeyTerms]
) -> tuple[KeyRow, str]:
    """A fresh key: its record for the database, and the key itself, which is shown once and never stored."""
    key_id = secrets.token_hex(ID_BYTES)
    secret = secrets.token_urlsafe(SECRET_BYTES)
    given: KeyTerms = {"scopes": USUAL_SCOPES, **terms}
    row = KeyRow(id=key_id, hash=hash_secret(pepper, secret.encode()), team=team, name=name, created=created, **given)
    return row, f"{PREFIX}_{key_id}_{secret}"


def rotated(pepper: bytes, row: KeyRow, now: datetime, overlap: timedelta) -> tuple[KeyRow, str]:
    """The key with a fresh secret, and that secret as its holder sends it; the one it had is good for `overlap` more.

    The key's id, and with it its budget, rate and history, stay. A secret from before the one it had ends now.
    """
    secret = secrets.token_urlsafe(SECRET_BYTES)
    former = (row.hash, now + overlap) if overlap else (None, None)
    changed = replace(row, hash=hash_secret(pepper, secret.encode()), former=former[0], former_until=former[1])
    return changed, f"{PREFIX}_{row.id}_{secret}"
