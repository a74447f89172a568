"""What holds callers back: a gate for work at once, a bucket for orders per second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """Lets `limit` jobs run at once while the rest wait in order of arrival; the limit may change at any time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self.running = 0

    @property
    def limit(self) -> int:
        """How many may run at once just now."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit
        self._admit()

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    def position(self, key: str) -> int:
        """How many wait before `key`; 0 when it is next or not waiting."""
        for ahead, waiting in enumerate(self._waiting):
            if waiting == key:
                return ahead
        return 0

    @asynccontextmanager
    async def slot(self, key: str) -> AsyncIterator[None]:
        """Wait for a turn and hold it for the block; given back on leaving it."""
        await self._enter(key)
        try:
            yield
        finally:
            self.running -= 1
            self._admit()

    async def _enter(self, key: str) -> None:
        if self.running < self._limit and not self._waiting:
            self.running += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting[key] = turn
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.running -= 1
                self._admit()
            raise
        finally:
            self._waiting.pop(key, None)

    def _admit(self) -> None:
        for turn in list(self._waiting.values()):
            if self.running >= self._limit:
                return
            if not turn.done():
                turn.set_result(None)
                self.running += 1


class Bucket:
    """A token bucket: `rate` tokens a second, at most `burst` saved up. Time (seconds) comes from outside."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._at: float | None = None

    def peek(self, now: float) -> float:
        """Tokens at hand at `now`; negative after overspending."""
        if self._at is not None:
            self._tokens = min(self.burst, self._tokens + max(0.0, now - self._at) * self.rate)
        self._at = now
        return self._tokens

    def take(self, now: float, slack: float = 0.0) -> bool:
        """Take one token if there is one; `slack` forgives a fraction of a token."""
        if self.peek(now) + slack < 1:
            return False
        self._tokens -= 1
        return True

    def spend(self, now: float) -> float:
        """Take one token whether there is one or not, never sinking below `-burst`; what is left."""
        self._tokens = max(self.peek(now) - 1, -self.burst)
        return self._tokens
