"""Watches how often accounts' limits stand in the way: refused by the seller for their rate, or no room left."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from gateway.clock import Clock
from gateway.features.alerts import Alerts
from gateway.storage.database import Database
from policies.alarms import Pressure

HOUR = timedelta(hours=1)
COUNT_EVERY = timedelta(minutes=1)
"""Orders are counted more rarely than room is looked at."""


class PressureWatch:
    """Looks at accounts, and remembers an hour of looks."""

    def __init__(self, db: Database, clock: Clock, alerts: Alerts, full: Callable[[], Mapping[str, bool]]) -> None:
        """`full` says of each account whether it has no room for one more order just now."""
        self._db = db
        self._clock = clock
        self._alerts = alerts
        self._full = full
        self._looks: deque[tuple[datetime, Mapping[str, bool]]] = deque()
        self._placed: Mapping[str, tuple[int, int]] = {}
        self._counted = datetime.min.replace(tzinfo=UTC)

    async def work(self) -> None:
        """Look once, and tell of every account that is pressed."""
        now = self._clock.utc()
        self._looks.append((now, self._full()))
        while self._looks[0][0] <= now - HOUR:
            self._looks.popleft()
        if now >= self._counted + COUNT_EVERY:
            self._placed, self._counted = await self._db.placed_since(now - HOUR), now
        for account in {*self._placed, *self._looks[-1][1]}:
            orders, refused = self._placed.get(account, (0, 0))
            seen = [full[account] for _, full in self._looks if account in full]
            pressure = Pressure(orders=orders, refused=refused, looks=len(seen), full=sum(seen))
            if pressure.pressed:
                await self._alerts.pressed(account, pressure)
