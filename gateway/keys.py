"""API keys: how they look, how they are made, and the only form in which they are stored.

A key is `pg_<id>_<secret>`: the id (12 characters) finds its record, the secret (43 characters, 256 bits) proves it.
Stored is HMAC-SHA256(pepper, secret); the pepper lies outside the database, so a stolen database opens nothing.
"""

from __future__ import annotations

import hmac
import secrets
from datetime import datetime

from gateway.storage.rows import KeyRow

PREFIX = "pg"
ID_BYTES = 6
"""12 hexadecimal digits: enough to tell keys apart; it need not be secret."""
SECRET_BYTES = 32


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


def make_key(  # noqa: PLR0913  (the terms of a key, each named at the call)
    pepper: bytes,
    *,
    team: str,
    name: str,
    created: datetime,
    scopes: tuple[str, ...] = ("images",),
    models: tuple[str, ...] | None = None,
    budget: int | None = None,
    rpm: int | None = None,
    ipm: int | None = None,
    expires: datetime | None = None,
) -> tuple[KeyRow, str]:
    """A fresh key: its record for the database, and the key itself, which is shown once and never stored.

    `budget` is in nano-dollars over the key's life, `rpm` in requests and `ipm` in pictures per minute;
    None is unlimited.
    """
    key_id = secrets.token_hex(ID_BYTES)
    secret = secrets.token_urlsafe(SECRET_BYTES)
    row = KeyRow(
        id=key_id,
        hash=hash_secret(pepper, secret.encode()),
        team=team,
        name=name,
        scopes=scopes,
        models=models,
        budget=budget,
        rpm=rpm,
        ipm=ipm,
        created=created,
        expires=expires,
        revoked=None,
    )
    return row, f"{PREFIX}_{key_id}_{secret}"
