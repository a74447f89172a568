"""Watches what each hour costs beside what is usual at its time of the day: the gateway, accounts and teams."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from typing import TypeAlias

from gateway.clock import Clock
from gateway.features.alerts import Alerts
from gateway.storage.activity import SpentHour
from gateway.storage.database import Database
from policies.alarms import HISTORY_HOURS, LEAST_UNUSUAL, unusual_from

_HOUR_S = 3600

Party: TypeAlias = tuple[str, str]
"""What kind of thing spends, and its name."""


class SpendWatch:
    """Adds up the ledger's posted entries by the hour, each once."""

    def __init__(self, db: Database, clock: Clock, alerts: Alerts) -> None:
        self._db = db
        self._clock = clock
        self._alerts = alerts
        self._spent: defaultdict[Party, dict[int, int]] = defaultdict(dict)
        self._last = 0
        self._hour = 0

    async def work(self) -> None:
        """Look once, and tell of whoever spends far more in this hour than usual."""
        now = self._clock.utc()
        hour = int(now.timestamp()) // _HOUR_S
        while True:
            found = await self._db.spent_hours(self._last, now - timedelta(hours=HISTORY_HOURS + 1))
            for spent in found.hours:
                self._add(spent)
            if found.last_seq == self._last:
                break
            self._last = found.last_seq
        if hour != self._hour:
            self._hour = hour
            for hours in self._spent.values():
                self._forget(hours, hour)
        for party, hours in self._spent.items():
            spent_now = hours.get(hour, 0)
            if spent_now < LEAST_UNUSUAL:
                continue
            unusual = unusual_from(hours, hour)
            if unusual is not None and spent_now >= unusual:
                await self._alerts.unusual(party, spent_now, unusual)

    def _add(self, spent: SpentHour) -> None:
        for party in _parties(spent):
            hours = self._spent[party]
            hours[spent.hour] = hours.get(spent.hour, 0) + spent.amount

    @staticmethod
    def _forget(hours: dict[int, int], hour: int) -> None:
        """Keep four weeks, and the one hour before them that says that more is known."""
        old = sorted(each for each in hours if each < hour - HISTORY_HOURS)
        for each in old[:-1]:
            del hours[each]


def _parties(spent: SpentHour) -> Iterator[Party]:
    if spent.book == "cost":
        yield "gateway", ""
        yield "account", spent.party
    else:
        yield "team", spent.party
