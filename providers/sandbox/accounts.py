"""An account per key: its limits, its place in every random sequence, and what it did to us."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from providers.sandbox.endpoints import Seller
from providers.sandbox.limits import Bucket, Gate

KEY_PREFIX = "sandbox-"
_JITTER_S = 0.01
_TOLD_JITTER_S = 0.1
"""Seconds' worth of orders that may come too early, on their way through the network, before the caller is blamed. They
are turned away all the same."""
_LEARNED_JITTER_S = 0.5
"""The same for a rate that the caller was not told of and knows only from having been turned away."""
_GRACE_S = 2.0


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an account may do; a field left out keeps its value."""

    concurrency: int | None = None
    """Work at once; more waits (fal's queue, our GPU server) or is turned away (fal's direct runs)."""
    rate: float | None = None
    """Orders per second (Together, Replicate)."""
    burst: float | None = None
    capacity: int | None = None
    """Together's own room: above so many orders in flight it answers 503 although the rate is kept."""
    announced: bool = False
    """True when the caller was told of the change, so that breaking the new limit is its fault at once."""


DEFAULTS: Mapping[Seller, Limits] = {
    "fal": Limits(concurrency=10, rate=1e9, burst=1e9, capacity=1_000_000),
    "together": Limits(concurrency=1_000_000, rate=20, burst=20, capacity=1_000_000),
    "openai": Limits(concurrency=1_000_000, rate=1e9, burst=1e9, capacity=1_000_000),
    "replicate": Limits(concurrency=1_000_000, rate=10, burst=20, capacity=1_000_000),
    "selfhosted": Limits(concurrency=8, rate=1e9, burst=1e9, capacity=1_000_000),
}


_LOW = Limits(concurrency=1_000_000, rate=0.1, burst=1, capacity=1_000_000)
"""What Replicate allows below five dollars of credit: six orders a minute, one at a time."""
_READS_A_SECOND, _READS_AT_ONCE = 50.0, 300.0


class Stats(Struct, kw_only=True):
    """What one account did, as `GET /_sandbox/stats` tells it."""

    submissions: int = 0
    accepted: int = 0
    peak_running: int = 0
    peak_queue: int = 0
    peak_in_flight: int = 0
    rejections: dict[str, int] = {}
    limit_violations: int = 0
    """Submissions that broke a limit the caller had been told."""
    surprises: int = 0
    """Submissions that broke a limit changed without notice."""
    duplicates: int = 0
    attempts: dict[str, int] = {}
    """Submissions by the caller's own attempt id, where its protocol shows one."""
    webhooks: dict[str, int] = {}
    leaked_keys: int = 0
    """Requests for a result file that carried a key, where none is needed (Replicate)."""


class Account:
    """One key's account with one seller."""

    def __init__(self, seller: Seller, name: str) -> None:
        self.seller: Seller = seller
        self.name = name
        self.index = 0
        self.in_flight = 0
        self.stats = Stats()
        self._bodies: set[tuple[str, str]] = set()
        limits = _LOW if self.low else DEFAULTS[seller]
        assert limits.concurrency is not None
        assert limits.rate is not None
        assert limits.burst is not None
        assert limits.capacity is not None
        self.gate = Gate(limits.concurrency)
        self.capacity = limits.capacity
        self.reads = Bucket(_READS_A_SECOND, _READS_AT_ONCE)
        """What may be asked beside orders (Replicate: 3,000 a minute), in the sandbox's own seconds."""
        self.bucket = Bucket(limits.rate, limits.burst)
        self._pace = Bucket(limits.rate, limits.burst)
        self._told_concurrency = limits.concurrency
        # Since when the caller knows the rate in force; None until it was first turned away at it.
        self._rate_told_at: float | None = float("-inf")

    @property
    def broke(self) -> bool:
        """Whether its credit is used up."""
        return self.name.endswith("-broke")

    @property
    def low(self) -> bool:
        """Whether its credit is nearly used up (Replicate, which then lets few orders in)."""
        return self.seller == "replicate" and self.name.endswith("-low")

    @property
    def first_tier(self) -> bool:
        """Whether it has spent too little to be sold the better models (Together's build tiers)."""
        return self.name.endswith("-tier1")

    def limit(self, limits: Limits) -> None:
        """Change limits at run time; before the first submission they count as told from the start."""
        told = limits.announced or self.index == 0
        if limits.concurrency is not None:
            self.gate.limit = limits.concurrency
            self._told_concurrency = limits.concurrency if told else max(self._told_concurrency, limits.concurrency)
        if limits.capacity is not None:
            self.capacity = limits.capacity
        if limits.rate is not None or limits.burst is not None:
            rate = self.bucket.rate if limits.rate is None else limits.rate
            burst = self.bucket.burst if limits.burst is None else limits.burst
            self.bucket, self._pace = Bucket(rate, burst), Bucket(rate, burst)
            self._rate_told_at = float("-inf") if told else None

    def arrive(self, endpoint: str, body_hash: str, attempt: str | None) -> None:
        """Count one submission, accepted or not."""
        self.index += 1
        self.stats.submissions += 1
        if (endpoint, body_hash) in self._bodies:
            self.stats.duplicates += 1
        self._bodies.add((endpoint, body_hash))
        if attempt is not None:
            self.stats.attempts[attempt] = self.stats.attempts.get(attempt, 0) + 1

    def take_token(self, now: float, behind: float = 0.0) -> bool:
        """Whether the account's rate allows one more order now; judges the caller by what it was told.

        `behind`: seconds by which this order may have waited to be looked at, which the caller is not blamed for.
        A rate changed without notice is told by the first 429 under it; two seconds later it must be kept.
        """
        jitter = _TOLD_JITTER_S if self._rate_told_at == float("-inf") else _LEARNED_JITTER_S
        late = self._pace.spend(now) < -self._pace.rate * (jitter + behind)
        taken = self.bucket.take(now, slack=min(1.0, self.bucket.rate * _JITTER_S))
        if taken:
            return True
        if self._rate_told_at is None:
            self._rate_told_at = now
        if now - self._rate_told_at < _GRACE_S:
            self.stats.surprises += 1
            self._pace = Bucket(self.bucket.rate, self.bucket.burst)
        elif late:
            self.stats.limit_violations += 1
        return False

    def tell_concurrency(self) -> None:
        """The caller has now been turned away at the concurrency in force."""
        self._told_concurrency = self.gate.limit

    def accept(self) -> None:
        """Count one order taken in, and whether it broke the concurrency told."""
        self.in_flight += 1
        self.stats.accepted += 1
        self.stats.peak_in_flight = max(self.stats.peak_in_flight, self.in_flight)
        self.stats.peak_queue = max(self.stats.peak_queue, self.in_flight - self.gate.limit)
        if self.in_flight > self._told_concurrency:
            self.stats.limit_violations += 1
        elif self.in_flight > self.gate.limit:
            self.stats.surprises += 1

    def reject(self, kind: str) -> None:
        """Count one submission turned away."""
        self.stats.rejections[kind] = self.stats.rejections.get(kind, 0) + 1


def account_name(authorization: str, scheme: str) -> str | None:
    """The account behind `Authorization: <scheme> sandbox-<account>`; None when the key opens nothing."""
    given, _, key = authorization.partition(" ")
    if given != scheme or not key.startswith(KEY_PREFIX) or len(key) == len(KEY_PREFIX):
        return None
    return key.removeprefix(KEY_PREFIX)
