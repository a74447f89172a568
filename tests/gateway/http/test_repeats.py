from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.gateway.http.conftest import Door

KEY = {"idempotency-key": "order-66"}


async def drawing(door: Door, calls: int = 1) -> None:
    """Wait until so many calls are being drawn."""
    async with asyncio.timeout(5):
        while len(door.painter.calls) < calls:  # noqa: ASYNC110 - the painter has no event for it
            await asyncio.sleep(0.01)


async def joins(door: Door, ready: asyncio.Event) -> None:
    """Have the pictures ready once a repeat has joined the call it left."""
    async with asyncio.timeout(10):
        courses = door.services.coalescing._running
        while not any(course._answer for each in courses.values() for course in each):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    ready.set()


async def test_an_idempotency_key_brings_the_same_answer_and_says_that_it_was_there(door: Door) -> None:
    first = await door.generate(KEY, response_format="b64_json")
    second = await door.generate(KEY, response_format="b64_json")
    assert second.json()["data"] == first.json()["data"]
    assert [each.headers["x-pixelgate-cache"] for each in (first, second)] == ["miss", "hit"]
    assert second.json()["pixelgate"] == first.json()["pixelgate"] | {"cache": "hit"}
    assert second.headers["x-pixelgate-decision"] == first.headers["x-pixelgate-decision"]
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert len(door.painter.calls) == 1


async def test_another_body_under_the_same_key_is_refused_by_name(door: Door) -> None:
    await door.generate(KEY)
    for other in ({"prompt": "a heron"}, {"n": 2}, {"response_format": "b64_json"}):
        error = (await door.generate(KEY, **other)).json()["error"]
        assert (error["code"], error["param"]) == ("idempotency_key_reused", "Idempotency-Key")
    assert len(door.painter.calls) == 1


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "schl\xfcssel"])
async def test_an_idempotency_key_must_be_short_and_visible(door: Door, key: str) -> None:
    head = (
        f"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {door.key}\r\n"
    )
    body = '{"prompt": "a"}'
    more = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nIdempotency-Key: {key}\r\n\r\n{body}"
    answer = await door.raw((head + more).encode("latin-1"))
    assert b" 400 " in answer.splitlines()[0]
    assert b'"Idempotency-Key"' in answer
    assert door.painter.calls == []


async def test_the_official_clients_repeat_after_its_timeout_joins_the_call_it_left(door: Door) -> None:
    door.painter.waits_for = ready = asyncio.Event()
    async with door.openai.with_options(timeout=0.3, max_retries=2) as client:
        joined = asyncio.create_task(joins(door, ready))
        answer = await client.images.with_raw_response.generate(prompt="a red lighthouse")
        await joined
    assert answer.headers["x-pixelgate-cache"] == "joined"
    assert answer.retries_taken >= 1
    assert len(door.painter.calls) == 1


async def test_a_client_that_does_not_repeat_is_not_drawn_for_once_it_has_left(door: Door) -> None:
    door.painter.waits_for = asyncio.Event()
    asking = asyncio.create_task(door.generate())
    await drawing(door)
    await asyncio.sleep(0.1)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    again = asyncio.create_task(door.generate({"x-stainless-retry-count": "1"}))
    await drawing(door, 2)
    door.painter.waits_for.set()
    assert (await again).headers["x-pixelgate-cache"] == "miss"


async def test_whoever_stays_away_too_long_is_drawn_for_anew(door: Door) -> None:
    door.painter.waits_for = asyncio.Event()
    door.services.coalescing._regain = 0.2
    asking = asyncio.create_task(door.generate({"x-stainless-retry-count": "0"}))
    await drawing(door)
    await asyncio.sleep(0.1)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await asyncio.sleep(0.8)
    again = asyncio.create_task(door.generate({"x-stainless-retry-count": "1"}))
    await drawing(door, 2)
    door.painter.waits_for.set()
    assert (await again).headers["x-pixelgate-cache"] == "miss"
