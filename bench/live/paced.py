"""Time that runs faster: an event loop whose seconds are shorter, and a clock that agrees with it.

Everything that waits on the loop (orders, timers, deadlines, ticks of the engine) then waits in shortened seconds, so
minutes of traffic take less and nothing in the gateway is told. Work of the CPU is not shortened: at a pace of 0.5 a
millisecond of it counts as two.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from datetime import UTC, datetime, timedelta


class PacedSelector(selectors.DefaultSelector):
    """Waits for a share of the seconds it is told."""

    def __init__(self, pace: float) -> None:
        super().__init__()
        self._pace = pace

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As the system's own, with a shortened timeout."""
        return super().select(timeout * self._pace if timeout is not None and timeout > 0 else timeout)


class PacedLoop(asyncio.SelectorEventLoop):
    """An event loop one of whose seconds takes `pace` of the machine's."""

    def __init__(self, pace: float) -> None:
        self._pace = pace
        super().__init__(PacedSelector(pace))

    def time(self) -> float:
        """Seconds that have passed, as everything on this loop counts them."""
        return time.monotonic() / self._pace


class PacedClock:
    """A `gateway.clock.Clock` on the running paced loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began, self._date = self._loop.time(), datetime.now(UTC)

    def now(self) -> float:
        """Seconds of the loop."""
        return self._loop.time()

    def utc(self) -> datetime:
        """The date it would be, had the loop's seconds been real ones."""
        return self._date + timedelta(seconds=self._loop.time() - self._began)
