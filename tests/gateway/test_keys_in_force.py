"""Keys of a whole running gateway: what another process changes counts by itself, and nothing is held for a refusal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from gateway.keys import make_key
from gateway.settings import read_pepper
from gateway.storage.changes import key_change
from gateway.storage.database import open_database
from gateway.storage.rows import KeyHour, KeyRow
from tests.support.town import Town, town

PICTURE: dict[str, object] = {"prompt": "a", "size": "256x256", "model": "flux-schnell"}


class Holder:
    """Whoever holds a key, at the door of a running gateway."""

    def __init__(self, t: Town, row: KeyRow, http: httpx.AsyncClient) -> None:
        self.t = t
        self.row = row
        self.http = http

    async def draw(self, **body: object) -> httpx.Response:
        return await self.http.post("/v1/images/generations", json=PICTURE | body)

    async def change(self, **terms: object) -> None:
        """As a command in another process does."""
        settings = self.t.app.settings
        beside = open_database(settings.database_url, settings.database.durability, create=False)
        try:
            before = await beside.key(self.row.id)
            assert before is not None
            after = replace(before, **terms)
            assert await beside.change_key(before, after, key_change(before, after, "limited", "ops", before.created))
        finally:
            await beside.aclose()

    async def until(self, true: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(20):
            while not await true():  # noqa: ASYNC110 - another process tells no event
                await asyncio.sleep(0.05)


@asynccontextmanager
async def holding(folder: Path, **terms: Any) -> AsyncIterator[Holder]:
    brake = {"floor": "$0.001", "hours": 3, "factor": 2}
    async with town(folder, brake=brake) as t:
        pepper, at = read_pepper(t.app.settings), t.app.clock.utc()
        row, shown = make_key(pepper, team="acme", name="t", created=at, **terms)
        await t.app.db.add_key(row)
        await t.app.keys.refresh()
        door = httpx.ASGITransport(t.app.asgi)  # type: ignore[arg-type]  # httpx knows ASGI by other names
        headers = {"authorization": f"Bearer {shown}"}
        async with httpx.AsyncClient(transport=door, base_url="http://t", headers=headers, timeout=30) as http:
            yield Holder(t, row, http)


async def test_what_another_process_changes_counts_without_a_restart(tmp_path: Path) -> None:
    async with holding(tmp_path) as holder:
        assert (await holder.draw()).status_code == 200
        await holder.change(max_pixels=64 * 64)

        async def is_refused() -> bool:
            return (await holder.draw()).status_code == 403

        await holder.until(is_refused)
        await holder.change(revoked=holder.row.created)

        async def is_gone() -> bool:
            return (await holder.draw()).status_code == 401

        await holder.until(is_gone)


@pytest.mark.parametrize(
    ("terms", "body", "status"),
    [
        ({"tiers": ("preview",)}, {"model": "flux-2-pro"}, 403),
        ({"models": ("flux-dev",)}, {}, 403),
        ({"max_pixels": 4096}, {}, 403),
        ({"max_price": 1}, {}, 403),
        ({"max_call_price": 400_000}, {"n": 4}, 403),
        ({"ipm": 1}, {"n": 2}, 400),
        ({"budget": 1}, {}, 429),
        ({"scopes": ("images:read",)}, {}, 403),
    ],
)
async def test_no_money_is_held_for_what_a_key_may_not_do(
    tmp_path: Path, terms: dict[str, object], body: dict[str, object], status: int
) -> None:
    async with holding(tmp_path, **terms) as holder:
        answer = await holder.draw(**body)
        assert answer.status_code == status, answer.text
        assert "keys limit" in answer.json()["error"]["message"]
        assert await holder.t.app.db.entries() == []


async def test_of_many_calls_at_once_as_many_as_the_key_may_have_are_drawn_and_paid(tmp_path: Path) -> None:
    async with holding(tmp_path, concurrency=4) as holder:
        holder.t.sandbox.script([{"provider": "*", "do": "slow", "args": {"seconds": 0.5}}])
        answers = await asyncio.gather(*(holder.draw() for _ in range(40)))
        drawn = [answer for answer in answers if answer.status_code == 200]
        assert {answer.status_code for answer in answers} == {200, 429}
        assert 4 <= len(drawn) < 40
        assert {answer.headers["retry-after"] for answer in answers if answer.status_code == 429} == {"1"}
        await holder.t.assert_books_agree()
        assert await holder.t.charged() == sum(answer.json()["pixelgate"]["nano_usd"] for answer in drawn)


async def test_a_key_that_spends_far_more_than_usual_is_paused_in_a_running_gateway(tmp_path: Path) -> None:
    async with holding(tmp_path) as holder:
        app = holder.t.app
        hour = int(app.clock.utc().timestamp()) // 3600
        past = [KeyHour(key_id=holder.row.id, hour=hour - ago, opened=-100 * ago) for ago in (1, 2, 3)]
        await app.db.open_key_hours(past, forget_before=0)
        assert (await holder.draw()).status_code == 200

        async def is_paused() -> bool:
            answer = await holder.draw()
            return answer.status_code == 429 and answer.json()["error"]["code"] == "key_paused"

        await holder.until(is_paused)
        answer = await holder.draw()
        assert answer.headers["x-should-retry"] == "false"
        assert [alert.kind for alert in await app.db.alerts(10)] == ["key_paused"]
