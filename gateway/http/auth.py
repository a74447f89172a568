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
from gateway.errors import Forbidden, InvalidApiKey, InvalidRequest, KeyPaused, RateLimited
from gateway.keys import hash_secret, mask, split_key
from gateway.requests.call import Caller, Limits
from gateway.storage.rows import KeyRow
from policies.types import Tier

REFRESH_AT_MOST_EVERY = 1.0
"""Seconds between looks into the database for an id we do not know, so that guessing keys does not load it."""
REMEMBERED = 10_000
"""Header values whose key was verified; beyond that the memory starts anew."""


class Rate:
    """Requests, or pictures, per minute as a bucket of tokens that holds one minute's worth."""

    def __init__(self, rpm: int, now: float, of: bytes = b"requests", before: Rate | None = None) -> None:
        """`before` is the bucket in whose place it comes; what was taken from that is not given back."""
        self.rpm = rpm
        self._tokens = float(rpm) if before is None else min(rpm, before.left(now))
        self._at = now
        self._names = tuple(b"x-ratelimit-%b-%b" % (what, of) for what in (b"limit", b"remaining", b"reset"))

    def __repr__(self) -> str:
        return f"<Rate {self.rpm}/min, {self._tokens:.2f} left at {self._at:.1f}>"

    def left(self, now: float) -> float:
        """Tokens there are at a moment."""
        return min(self.rpm, self._tokens + (now - self._at) * self.rpm / 60)

    def take(self, now: float, amount: int = 1) -> float:
        """Take so many tokens; answers 0, or the seconds until there are enough."""
        self._tokens = self.left(now)
        self._at = now
        if self._tokens >= amount:
            self._tokens -= amount
            return 0.0
        return (amount - self._tokens) * 60 / self.rpm

    def give_back(self, amount: int) -> None:
        """What was taken was not used."""
        self._tokens = min(self.rpm, self._tokens + amount)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """`x-ratelimit-*` in OpenAI's form; `reset` is when the bucket will be full again."""
        full_in = (self.rpm - self._tokens) * 60 / self.rpm
        limit, remaining, reset = self._names
        return [
            (limit, b"%d" % self.rpm),
            (remaining, b"%d" % int(self._tokens)),
            (reset, duration(full_in).encode()),
        ]


class Flights:
    """How many calls of a key are in flight."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Flight:
    """One call in flight, counted until it ends; a second end does nothing."""

    __slots__ = ("_flights",)

    def __init__(self, flights: Flights) -> None:
        self._flights: Flights | None = flights
        flights.count += 1

    def end(self) -> None:
        """The call is answered, or given up."""
        flights, self._flights = self._flights, None
        if flights is not None:
            flights.count -= 1


class Key:
    """A key in force: its record, the caller it stands for, its rates, and how many of its calls are in flight."""

    def __init__(self, row: KeyRow, now: float, before: Key | None = None) -> None:
        """`before` is the same key until its record changed: what it has used of its rates stays used."""
        self.row = row
        self.caller = Caller(
            key_id=row.id,
            team=row.team,
            scopes=frozenset(row.scopes),
            models=None if row.models is None else frozenset(row.models),
            limits=limits_of(row),
        )
        rate, images, flights = (None, None, Flights()) if before is None else before.used()
        self.rate = None if row.rpm is None else Rate(row.rpm, now, before=rate)
        self.images = None if row.ipm is None else Rate(row.ipm, now, b"images", before=images)
        self.flights = flights
        self.counts = row.concurrency is not None or row.ipm is not None
        """Whether its calls are counted, one by one or by their pictures."""
        self.ends = not (row.revoked is None and row.expires is None and row.paused_until is None)
        """Whether it must be looked at what time it is."""

    def __repr__(self) -> str:
        return f"<Key {self.row.id} of {self.row.team}>"

    def used(self) -> tuple[Rate | None, Rate | None, Flights]:
        """What is used of it: its rates, and the calls in flight."""
        return self.rate, self.images, self.flights

    def spend_request(self, now: float) -> None:
        """Count one request against the key's rate; raises `RateLimited`."""
        wait = self.rate.take(now) if self.rate else 0.0
        if wait:
            raise RateLimited(
                f"This API key may send {self.row.rpm} requests per minute. Try again in {duration(wait)}, or have the "
                f"limit raised (pixelgate keys limit {self.row.id} --rpm N).",
                retry_after=wait,
            )

    def spend_images(self, count: int, now: float) -> None:
        """Count pictures to be drawn; raises `RateLimited`, or `InvalidRequest` where waiting cures nothing."""
        if self.images is None:
            return
        if count > self.images.rpm:
            raise InvalidRequest(
                f"This API key may draw {self.images.rpm} pictures per minute, so 'n' {count} is too many at once. Ask "
                f"for fewer, or have the limit raised (pixelgate keys limit {self.row.id} --ipm N).",
                param="n",
            )
        wait = self.images.take(now, count)
        if wait:
            raise RateLimited(
                f"This API key may draw {self.images.rpm} pictures per minute. Try again in {duration(wait)}, or have "
                f"the limit raised (pixelgate keys limit {self.row.id} --ipm N).",
                retry_after=wait,
            )

    def give_images_back(self, count: int) -> None:
        """Pictures that were counted did not come."""
        if self.images is not None:
            self.images.give_back(count)

    def take_off(self) -> Flight:
        """Count one more call in flight, which the caller is to end; raises `RateLimited` where that is too many.

        The look and the counting are one step, so no number of calls at once passes the limit.
        """
        most = self.row.concurrency
        if most is not None and self.flights.count >= most:
            raise RateLimited(
                f"This API key may have {most} call{'s' * (most != 1)} in flight at once, and has "
                f"{self.flights.count}. Wait for one to end, or have the limit raised (pixelgate keys limit "
                f"{self.row.id} --concurrency N)."
            )
        return Flight(self.flights)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What to tell the caller about the key's rates."""
        rates = (rate.headers() for rate in (self.rate, self.images) if rate is not None)
        return [header for headers in rates for header in headers]


def limits_of(row: KeyRow) -> Limits | None:
    """What no single call of a key may go beyond; None where nothing is said."""
    if row.tiers is None and row.max_price is None and row.max_call_price is None and row.max_pixels is None:
        return None
    return Limits(
        tiers=None if row.tiers is None else frozenset(tier for tier in Tier if tier.word in row.tiers),
        price=row.max_price,
        call_price=row.max_call_price,
        pixels=row.max_pixels,
    )


class KeyRecords(Protocol):
    """Where key records lie; every `Database` is one."""

    async def keys(self) -> Sequence[KeyRow]:
        """Every key, revoked ones too."""

    async def last_change(self) -> int:
        """The number of the last change of any."""

    async def changed_keys(self, since: int) -> Sequence[KeyRow]:
        """Those that were made or changed after a change."""


class KeyRing:
    """Every key in force, in memory; `refresh` at start, `follow` every second, so that changes take hold."""

    def __init__(self, records: KeyRecords, pepper: bytes, clock: Clock) -> None:
        self._records = records
        self._pepper = pepper
        self._clock = clock
        self._keys: dict[str, Key] = {}
        self._verified: dict[bytes, Key] = {}
        self._refreshed = float("-inf")
        self._change = -1
        self._decoy = secrets.token_bytes(32)

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self._keys)} keys>"

    async def follow(self) -> None:
        """Read the keys that were made or changed since, by whatever process; none is read while nothing was."""
        last = await self._records.last_change()
        if last == self._change:
            return
        if last < self._change:  # other records are in their place
            await self.refresh()
            return
        rows = await self._records.changed_keys(self._change)
        self._change = last
        now = self._clock.now()
        self._keys |= {row.id: _kept(self._keys.get(row.id), row, now) for row in rows}
        self._verified.clear()

    async def refresh(self) -> None:
        """Read all keys anew. What a key has used of its rates stays used."""
        self._refreshed = self._clock.now()
        self._change = await self._records.last_change()  # first: what changes meanwhile is seen the next time
        self.replace(await self._records.keys())

    def replace(self, rows: Sequence[KeyRow]) -> None:
        """Put these keys, and no others, in force."""
        now, before = self._clock.now(), self._keys
        self._keys = {row.id: _kept(before.get(row.id), row, now) for row in rows}
        self._verified.clear()

    async def find(self, headers: Mapping[bytes, bytes]) -> Key:
        """The key that a request shows; raises `InvalidApiKey`."""
        shown = shown_key(headers)
        # Kept by digest, so that no table of usable keys lies in memory.
        digest = hashlib.sha256(shown).digest()
        key = self._verified.get(digest)
        if key is None:
            key, former = await self._verify(shown)
            if len(self._verified) >= REMEMBERED:
                self._verified.clear()
            if not former:  # which ends at a moment of its own, so it is verified each time
                self._verified[digest] = key
        if key.ends:
            self._check_in_force(key, shown)
        return key

    async def _verify(self, shown: bytes) -> tuple[Key, bool]:
        """The key, and whether it was shown with the secret from before its rotation."""
        parts = split_key(shown)
        if parts is None:
            raise _incorrect(shown)
        key_id, secret = parts
        if key_id not in self._keys and self._clock.now() - self._refreshed >= REFRESH_AT_MOST_EVERY:
            await self.refresh()
        key = self._keys.get(key_id)
        # An unknown id costs as much time as a wrong secret.
        found = hash_secret(self._pepper, secret)
        matches = hmac.compare_digest(found, key.row.hash if key else self._decoy)
        was = hmac.compare_digest(found, key.row.former if key and key.row.former else self._decoy)
        if key is None or not (matches or was):
            raise _incorrect(shown)
        if was and (key.row.former_until is None or key.row.former_until <= self._clock.utc()):
            raise InvalidApiKey(f"The API key {mask(shown)} was rotated. Ask your administrator for its new secret.")
        return key, was

    def _check_in_force(self, key: Key, shown: bytes) -> None:
        if key.row.revoked is not None:
            raise InvalidApiKey(f"The API key {mask(shown)} was revoked. Ask your administrator for a new one.")
        if key.row.expires is not None and key.row.expires <= self._clock.utc():
            raise InvalidApiKey(f"The API key {mask(shown)} has expired. Ask your administrator for a new one.")
        if key.row.paused_until is not None and key.row.paused_until > self._clock.utc():
            raise KeyPaused(
                f"The API key {mask(shown)} is paused until {key.row.paused_until:%Y-%m-%d %H:%M} UTC: it spent far "
                "more in an hour than it usually does. If that was meant, have it released "
                f"(pixelgate keys release {key.row.id}); if not, have it rotated (pixelgate keys rotate {key.row.id} "
                "--overlap none)."
            )


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
        raise Forbidden(
            f"This API key lacks the scope '{scope}'; its scopes are: {has}. Use a key that has it, or have it added "
            f"(pixelgate keys limit {caller.key_id} --scopes ...)."
        )


def duration(seconds: float) -> str:
    """Seconds in OpenAI's form, rounded up: `850ms`, `1s`, `6m0s`."""
    if seconds < 1:
        return f"{ceil(seconds * 1000)}ms"
    minutes, rest = divmod(ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _kept(before: Key | None, row: KeyRow, now: float) -> Key:
    return before if before is not None and before.row == row else Key(row, now, before)


def _incorrect(shown: bytes) -> InvalidApiKey:
    return InvalidApiKey(f"Incorrect API key provided: {mask(shown)}.")
