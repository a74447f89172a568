"""Who asks: finds the caller behind an API key, and keeps each key to its rate.

A key comes as `Authorization: Bearer pg_...` or, from Azure-style clients, as `api-key: pg_...`.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Protocol

from gateway.clock import Clock
from gateway.errors import Forbidden, InvalidApiKey, InvalidRequest, RateLimited
from gateway.keys import hash_secret, mask, split_key
from gateway.requests.call import Caller
from gateway.storage.rows import KeyRow

REFRESH_AT_MOST_EVERY = 1.0
"""Seconds between looks into the database for an id we do not know, so that guessing keys does not load it."""
REMEMBERED = 10_000
"""Header values whose key was verified; beyond that the memory starts anew."""


class Rate:
    """Requests, or pictures, per minute as a bucket of tokens that holds one minute's worth."""

    def __init__(self, rpm: int, now: float, of: bytes = b"requests") -> None:
        self.rpm = rpm
        self._tokens = float(rpm)
        self._at = now
        self._names = tuple(b"x-ratelimit-%b-%b" % (what, of) for what in (b"limit", b"remaining", b"reset"))

    def __repr__(self) -> str:
        return f"<Rate {self.rpm}/min, {self._tokens:.2f} left at {self._at:.1f}>"

    def take(self, now: float, amount: int = 1) -> float:
        """Take so many tokens; answers 0, or the seconds until there are enough."""
        self._tokens = min(self.rpm, self._tokens + (now - self._at) * self.rpm / 60)
        self._at = now
        if self._tokens >= amount:
            self._tokens -= amount
            return 0.0
        return (amount - self._tokens) * 60 / self.rpm

    def headers(self) -> list[tuple[bytes, bytes]]:
        """`x-ratelimit-*` in OpenAI's form; `reset` is when the bucket will be full again."""
        full_in = (self.rpm - self._tokens) * 60 / self.rpm
        limit, remaining, reset = self._names
        return [
            (limit, b"%d" % self.rpm),
            (remaining, b"%d" % int(self._tokens)),
            (reset, duration(full_in).encode()),
        ]


class Key:
    """A key in force: its record, the caller it stands for, and its rate."""

    def __init__(self, row: KeyRow, now: float) -> None:
        self.row = row
        self.caller = Caller(
            key_id=row.id,
            team=row.team,
            scopes=frozenset(row.scopes),
            models=None if row.models is None else frozenset(row.models),
        )
        self.rate = None if row.rpm is None else Rate(row.rpm, now)
        self.images = None if row.ipm is None else Rate(row.ipm, now, b"images")

    def __repr__(self) -> str:
        return f"<Key {self.row.id} of {self.row.team}>"

    def spend_request(self, now: float) -> None:
        """Count one request against the key's rate; raises `RateLimited`."""
        wait = self.rate.take(now) if self.rate else 0.0
        if wait:
            raise RateLimited(
                f"This API key may send {self.row.rpm} requests per minute. Try again in {duration(wait)}.",
                retry_after=wait,
            )

    def spend_images(self, count: int, now: float) -> None:
        """Count pictures to be drawn; raises `RateLimited`, or `InvalidRequest` where waiting cures nothing."""
        if self.images is None:
            return
        if count > self.images.rpm:
            raise InvalidRequest(
                f"This API key may draw {self.images.rpm} pictures per minute, so 'n' {count} is too many at once.",
                param="n",
            )
        wait = self.images.take(now, count)
        if wait:
            raise RateLimited(
                f"This API key may draw {self.images.rpm} pictures per minute. Try again in {duration(wait)}.",
                retry_after=wait,
            )

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What to tell the caller about the key's rates."""
        rates = (rate.headers() for rate in (self.rate, self.images) if rate is not None)
        return [header for headers in rates for header in headers]


class KeyRecords(Protocol):
    """Where key records lie; every `Database` is one."""

    async def keys(self) -> Sequence[KeyRow]:
        """Every key, revoked ones too."""


class KeyRing:
    """Every key in force, in memory; call `refresh` at start and every few seconds, so that revocations take hold."""

    def __init__(self, records: KeyRecords, pepper: bytes, clock: Clock) -> None:
        self._records = records
        self._pepper = pepper
        self._clock = clock
        self._keys: dict[str, Key] = {}
        self._verified: dict[bytes, Key] = {}
        self._refreshed = float("-inf")
        self._decoy = secrets.token_bytes(32)

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self._keys)} keys>"

    async def refresh(self) -> None:
        """Read all keys anew. A key whose record did not change keeps its rate's state."""
        self._refreshed = self._clock.now()
        self.replace(await self._records.keys())

    def replace(self, rows: Sequence[KeyRow]) -> None:
        """Put these keys, and no others, in force."""
        now, before = self._clock.now(), self._keys
        self._keys = {
            row.id: before[row.id] if row.id in before and before[row.id].row == row else Key(row, now) for row in rows
        }
        self._verified.clear()

    async def find(self, headers: Mapping[bytes, bytes]) -> Key:
        """The key that a request shows; raises `InvalidApiKey`."""
        shown = shown_key(headers)
        # Kept by digest, so that no table of usable keys lies in memory.
        digest = hashlib.sha256(shown).digest()
        key = self._verified.get(digest)
        if key is None:
            key = await self._verify(shown)
            if len(self._verified) >= REMEMBERED:
                self._verified.clear()
            self._verified[digest] = key
        self._check_in_force(key, shown)
        return key

    async def _verify(self, shown: bytes) -> Key:
        parts = split_key(shown)
        if parts is None:
            raise _incorrect(shown)
        key_id, secret = parts
        if key_id not in self._keys and self._clock.now() - self._refreshed >= REFRESH_AT_MOST_EVERY:
            await self.refresh()
        key = self._keys.get(key_id)
        # An unknown id costs as much time as a wrong secret.
        matches = hmac.compare_digest(hash_secret(self._pepper, secret), key.row.hash if key else self._decoy)
        if key is None or not matches:
            raise _incorrect(shown)
        return key

    def _check_in_force(self, key: Key, shown: bytes) -> None:
        if key.row.revoked is not None:
            raise InvalidApiKey(f"The API key {mask(shown)} was revoked. Ask your administrator for a new one.")
        if key.row.expires is not None and key.row.expires <= self._clock.utc():
            raise InvalidApiKey(f"The API key {mask(shown)} has expired. Ask your administrator for a new one.")


def shown_key(headers: Mapping[bytes, bytes]) -> bytes:
    """The key in a request's headers (lower-case names); raises `InvalidApiKey` when there is none."""
    scheme, _, bearer = headers.get(b"authorization", b"").strip().partition(b" ")
    key = bearer.strip() if scheme.lower() == b"bearer" else b""
    key = key or headers.get(b"api-key", b"").strip()
    if not key:
        raise InvalidApiKey("You did not provide an API key. Send it as 'Authorization: Bearer pg_...'.")
    return key


def require(caller: Caller, scope: str) -> None:
    """Raise `Forbidden` unless the caller's key has a scope."""
    if scope not in caller.scopes:
        has = ", ".join(sorted(caller.scopes)) or "none"
        raise Forbidden(f"This API key lacks the scope '{scope}'; its scopes are: {has}.")


def duration(seconds: float) -> str:
    """Seconds in OpenAI's form, rounded up: `850ms`, `1s`, `6m0s`."""
    if seconds < 1:
        return f"{ceil(seconds * 1000)}ms"
    minutes, rest = divmod(ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _incorrect(shown: bytes) -> InvalidApiKey:
    return InvalidApiKey(f"Incorrect API key provided: {mask(shown)}.")
