"""The one place that reads clocks, so that tests and replays can bring their own."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Two readings: durations come from `now`, dates from `utc`."""

    def now(self) -> float:
        """Monotonic seconds."""

    def utc(self) -> datetime:
        """The date and time, in UTC."""


class SystemClock:
    """The machine's own clocks."""

    now = staticmethod(time.monotonic)

    def utc(self) -> datetime:
        """The date and time, in UTC."""
        return datetime.now(UTC)
