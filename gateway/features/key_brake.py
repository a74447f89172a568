"""Pauses a key that spends far more than it usually does: whoever stole it gets an hour's worth, and people are told.

What a key was charged in all is looked at every few seconds, as the ledger's heartbeat reads it; where an hour begins
is kept in the database, so a restart forgets nothing. The rule is `policies.velocity`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from itertools import pairwise

import structlog
from msgspec import Struct
from msgspec.structs import replace

from gateway.clock import Clock
from gateway.features.alerts import Alerts, PausedKey
from gateway.storage.changes import key_change
from gateway.storage.database import Database
from gateway.storage.rows import KeyHour, KeyRow
from policies.money import NanoUsd
from policies.velocity import HISTORY_HOURS, Brake, braked_from, usual_hour

log = structlog.get_logger("gateway.key_brake")

ACTOR = "gateway"
"""Who pauses keys, in the record of changes."""
_HOUR_S = 3600


class Terms(Struct, frozen=True, kw_only=True):
    """The rule, and for how many seconds a key that breaks it is paused."""

    rule: Brake
    pause: float


class KeyBrake:
    """Follows what each key spends by the hour."""

    def __init__(
        self,
        db: Database,
        charged: Callable[[], Mapping[str, NanoUsd]],
        changed: Callable[[], Awaitable[None]],
        clock: Clock,
        alerts: Alerts,
        terms: Terms,
    ) -> None:
        """`charged`: what every key was charged in all; `changed` puts the keys in force as the database has them."""
        self._db = db
        self._charged = charged
        self._changed = changed
        self._clock = clock
        self._alerts = alerts
        self._terms = terms
        self._seen: dict[str, NanoUsd] | None = None
        self._opened: dict[str, dict[int, NanoUsd]] = {}

    async def work(self) -> None:
        """Look once: open hours that have begun, and pause whoever spends too fast."""
        now = self._clock.utc()
        hour = int(now.timestamp()) // _HOUR_S
        charged = dict(self._charged())
        if self._seen is None:
            self._seen = charged
            for row in await self._db.key_hours(hour - HISTORY_HOURS):
                self._opened.setdefault(row.key_id, {})[row.hour] = row.opened
        moved = [key for key, total in charged.items() if total != self._seen.get(key, 0)]
        await self._open(moved, hour)
        self._seen = charged
        for key in moved:
            await self._look_at(key, charged[key], hour, now)

    async def _open(self, moved: list[str], hour: int) -> None:
        """Keep what was charged before this hour, of keys for which it has begun."""
        assert self._seen is not None
        fresh = [
            KeyHour(key_id=key, hour=hour, opened=self._seen.get(key, 0))
            for key in moved
            if hour not in self._opened.get(key, ())
        ]
        if not fresh:
            return
        await self._db.open_key_hours(fresh, forget_before=hour - HISTORY_HOURS)
        for row in fresh:
            hours = self._opened.setdefault(row.key_id, {})
            hours[hour] = row.opened
            for old in [each for each in hours if each < hour - HISTORY_HOURS]:
                del hours[old]

    async def _look_at(self, key_id: str, total: NanoUsd, hour: int, now: datetime) -> None:
        spent_now = total - self._opened[key_id][hour]
        if spent_now < self._terms.rule.floor:
            return
        usual = usual_hour(spent_by_hour(self._opened[key_id]), hour, self._terms.rule)
        if usual is None or spent_now < braked_from(usual, self._terms.rule):
            return
        row = await self._db.key(key_id)
        if row is not None and _may_be_paused(row, now):
            await self._pause(row, PausedKey(hour=hour, spent=spent_now, usual=usual), now)

    async def _pause(self, row: KeyRow, why: PausedKey, now: datetime) -> None:
        until = now + timedelta(seconds=self._terms.pause)
        paused = replace(row, paused_until=until)
        if await self._db.change_key(row, paused, key_change(row, paused, "paused", ACTOR, now)):
            log.warning("key_paused", key_id=row.id, team=row.team, until=until, nano_usd=why.spent)
            await self._changed()
            await self._alerts.paused(paused, why)


def spent_by_hour(opened: Mapping[int, NanoUsd]) -> dict[int, NanoUsd]:
    """What hours cost, from what was charged when each began; not the last, which is under way."""
    return {hour: opened[after] - opened[hour] for hour, after in pairwise(sorted(opened))}


def _may_be_paused(row: KeyRow, now: datetime) -> bool:
    """Not what has ended or is paused already, and not what somebody released."""
    gone = row.revoked is not None or (row.expires is not None and row.expires <= now)
    paused = row.paused_until is not None and row.paused_until > now
    released = row.unbraked_until is not None and row.unbraked_until > now
    return not (gone or paused or released)
