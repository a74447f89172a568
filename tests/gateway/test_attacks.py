"""What hostile users and unlucky operators did to a whole gateway, each as small as it can be told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.keys import make_key
from gateway.settings import read_pepper
from tests.support.town import Town, town

if TYPE_CHECKING:
    from litestar.types import HTTPReceiveMessage, HTTPScope, Message

SLOW = {"provider": "*", "do": "slow", "args": {"seconds": 0.4}}


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Town]:
    async with town(tmp_path) as built:
        yield built


class Visitor:
    """A client at the door of the application, below any server: it may leave when it likes."""

    def __init__(self, place: Town, key: str, body: dict[str, object]) -> None:
        self._place = place
        self._key = key
        self._body: HTTPReceiveMessage = {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}
        self._bodies = [self._body]
        self.leave = asyncio.Event()
        self.heard: list[Message] = []

    async def ask(self) -> None:
        await self._place.app.asgi(self._scope(), self._receive, self._send)

    async def _receive(self) -> HTTPReceiveMessage:
        if self._bodies:
            return self._bodies.pop()
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.heard.append(message)

    def _scope(self) -> HTTPScope:
        headers = [(b"authorization", f"Bearer {self._key}".encode()), (b"content-type", b"application/json")]
        return {  # type: ignore[typeddict-item]  # what a server sends; litestar adds the rest
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/v1/images/generations",
            "raw_path": b"/v1/images/generations",
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }


async def make(place: Town, budget: int | None = None) -> str:
    row, shown = make_key(
        read_pepper(place.app.settings), team="acme", name="test", created=place.app.clock.utc(), budget=budget
    )
    await place.app.db.add_key(row)
    await place.app.keys.refresh()
    return shown


async def test_a_caller_who_hangs_up_is_not_charged_and_its_order_is_called_off(place: Town) -> None:
    place.sandbox.script([SLOW])
    visitor = Visitor(place, await make(place), {"prompt": "gone", "size": "256x256"})
    asking = asyncio.create_task(visitor.ask())
    for _ in range(500):
        if place.app.running:
            break
        await asyncio.sleep(0.01)
    visitor.leave.set()
    async with asyncio.timeout(0.3):  # long before the picture is drawn
        await asking
    assert not visitor.heard
    await place.assert_books_agree()
    assert await place.charged() == 0


async def test_a_caller_who_waits_is_answered_although_the_door_listens_for_its_leaving(place: Town) -> None:
    visitor = Visitor(place, await make(place), {"prompt": "here", "size": "256x256"})
    await visitor.ask()
    assert next(message.get("status") for message in visitor.heard) == 200
    await place.assert_books_agree()
    assert await place.charged() > 0


@pytest.fixture
async def patient(tmp_path: Path) -> AsyncIterator[Town]:
    """Where no order times out because two thousand callers and the sandbox share one processor."""
    orders = {"timeout": "100s", "least_patience": "1s", "linger": "200ms", "drain": "5s"}
    async with town(tmp_path, orders=orders) as built:
        yield built


async def test_two_thousand_at_once_spend_no_more_than_their_budget(patient: Town) -> None:
    place = patient
    body: dict[str, object] = {"prompt": "a crowd", "size": "256x256", "providers": {"only": ["fal"]}}
    await Visitor(place, await make(place), body).ask()
    first = await place.charged()
    budget = 7 * first + first // 2
    key = await make(place, budget=budget)
    crowd = [Visitor(place, key, body) for _ in range(2000)]
    await asyncio.gather(*(visitor.ask() for visitor in crowd))
    heard = [message for visitor in crowd for message in visitor.heard]
    statuses = [message["status"] for message in heard if message["type"] == "http.response.start"]
    assert len(statuses) == len(crowd)
    assert set(statuses) <= {200, 429, 503}  # 503: nothing was free in time, so nothing was ordered
    assert 1 <= statuses.count(200) <= 7
    await place.assert_books_agree()
    assert await place.charged() - first <= budget
