"""A stolen key: paused within an hour's worth, told once, released by command; and nobody else is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.cli import run
from gateway.errors import KeyPaused
from gateway.features.alerts import Alerts
from gateway.features.key_brake import KeyBrake, Terms
from gateway.http.auth import KeyRing
from gateway.keys import make_key
from gateway.money.ledger import Ledger
from gateway.storage.changes import key_change
from gateway.storage.database import Closing
from gateway.storage.database.sqlite import SqliteDatabase
from gateway.storage.rows import AlertRow, KeyRow
from policies.velocity import Brake
from providers.transport import Http
from tests.support.books import NOON, HandClock, new_hold

PEPPER = b"pepper for tests"
RULE = Brake(factor=10, floor=1_000, hours=3)
PAUSE = 3600.0


class House:
    """Books, keys and the brake over one file, on a clock that tests move."""

    def __init__(self, folder: Path, at: datetime) -> None:
        self.clock = HandClock()
        self.clock.at = at
        self.db = SqliteDatabase(str(folder / "pixelgate.db"), "process")
        self.ledger = Ledger(self.db, "own_1", self.clock)
        self.ring = KeyRing(self.db, PEPPER, self.clock)
        self.http = Http()
        alerts = Alerts(self.db, self.ledger, self.clock, self.http, (), (100,))
        terms = Terms(rule=RULE, pause=PAUSE)
        self.brake = KeyBrake(self.db, self.ledger.charged_keys, self.ring.follow, self.clock, alerts, terms)

    async def spend(self, key: KeyRow, amount: int) -> None:
        hold = replace(new_hold(amount), key_id=key.id, team=key.team)
        await self.db.hold("own_1", [hold], (), self.clock.utc())
        closing = Closing(attempt_id=hold.attempt_id, state="settled", at=self.clock.utc(), cost=amount, charge=amount)
        await self.db.close(closing)
        await self.look()

    async def look(self) -> None:
        await self.ledger.beat()
        await self.brake.work()

    async def days(self, key: KeyRow, *amounts: int) -> None:
        """What a key spends, hour by hour."""
        for amount in amounts:
            await self.spend(key, amount)
            self.clock.forward(3600)

    async def paused(self, key: KeyRow) -> bool:
        row = await self.db.key(key.id)
        return row is not None and row.paused_until is not None and row.paused_until > self.clock.utc()

    async def told(self) -> list[AlertRow]:
        return [alert for alert in await self.db.alerts(100) if alert.kind == "key_paused"]

    async def aclose(self) -> None:
        await self.http.aclose()
        await self.db.aclose()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    built = House(tmp_path, NOON)
    await built.look()
    yield built
    await built.aclose()


async def a_key(house: House) -> tuple[KeyRow, dict[bytes, bytes]]:
    row, shown = make_key(PEPPER, team="acme", name="web", created=NOON)
    await house.db.add_key(row)
    await house.ring.refresh()
    return row, {b"authorization": f"Bearer {shown}".encode()}


async def test_a_key_that_spends_far_more_than_usual_is_paused_told_once_and_goes_on_later(house: House) -> None:
    key, headers = await a_key(house)
    await house.days(key, 200, 300, 250)
    await house.spend(key, 2_499)
    assert not await house.paused(key)
    await house.ring.find(headers)
    await house.spend(key, 1)
    assert await house.paused(key)
    with pytest.raises(KeyPaused, match="keys release"):
        await house.ring.find(headers)
    await house.spend(key, 500)  # what was under way
    (alert,) = await house.told()
    assert (alert.facts["spent_nano_usd"], alert.facts["usual_nano_usd"]) == (2_500, 250)
    house.clock.forward(PAUSE + 1)
    await house.ring.find(headers)


async def test_a_key_below_the_floor_or_without_a_past_is_never_paused(house: House) -> None:
    small, _ = await a_key(house)
    await house.days(small, 1, 1, 1, 999)
    fresh, _ = await a_key(house)
    await house.days(fresh, 10, 10, 10**9)
    assert not await house.told()


async def test_many_keys_are_each_held_against_themselves(house: House) -> None:
    (low, _), (high, _) = await a_key(house), await a_key(house)
    for _ in range(3):
        await house.spend(low, 100)
        await house.days(high, 5_000)
    await house.spend(high, 20_000)
    await house.spend(low, 1_000)
    assert (await house.paused(low), await house.paused(high)) == (True, False)


async def test_a_restart_forgets_neither_the_past_nor_what_this_hour_has_cost(house: House, tmp_path: Path) -> None:
    key, _ = await a_key(house)
    await house.days(key, 200, 300, 250)
    await house.spend(key, 2_400)
    again = House(tmp_path, house.clock.at)
    await again.look()
    await again.spend(key, 100)
    assert await again.paused(key)
    await again.aclose()


async def test_a_released_key_goes_on_at_once_and_is_not_paused_again_before_it_was_said(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    house.clock.at = datetime.now(UTC) - timedelta(hours=3)
    key, headers = await a_key(house)
    await house.days(key, 200, 300, 250)
    await house.spend(key, 9_000)
    assert await house.paused(key)
    command = ["keys", "release", key.id, "--for", "90m", "--author", "ada", "--state", str(tmp_path)]
    assert await asyncio.to_thread(run, command) == 0
    assert "whatever it spends" in capsys.readouterr().out
    await house.ring.follow()
    await house.ring.find(headers)
    await house.days(key, 9_000)
    assert not await house.paused(key)
    house.clock.forward(3600)
    await house.days(key, 90_000)
    assert len(await house.told()) == 2
    did = [(change.actor, change.action) for change in await house.db.changes("key", key.id, 10)]
    assert did == [("gateway", "paused"), ("ada", "released"), ("gateway", "paused"), ("gateway", "created")]


async def test_an_ended_key_is_left_alone(house: House) -> None:
    key, _ = await a_key(house)
    await house.days(key, 200, 300, 250)
    ended = replace(key, revoked=house.clock.at)
    assert await house.db.change_key(key, ended, key_change(key, ended, "revoked", "ops", house.clock.at))
    await house.spend(key, 9_000)
    assert await house.db.key(key.id) == ended
    assert not await house.told()
