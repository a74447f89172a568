from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING

import openai
import pytest
from msgspec.structs import replace

from gateway.errors import NoCapacity, NoOffer, Undeliverable
from policies.types import Tier
from tests.gateway.http.conftest import PIXEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.gateway.http.conftest import Door


def pays_for_previews(door: Door, ceiling: int | None = 4_000_000) -> None:
    services = door.services
    services.adopt(services.catalog, replace(services.policy, preview_ceiling=ceiling))


def blocks(text: str) -> list[tuple[str, Mapping[str, object]]]:
    """The events of a stream."""
    found = []
    for block in text.strip().split("\n\n"):
        if not block.startswith(":"):
            event, data = block.split("\n")
            found.append((event.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def test_the_official_async_client_reads_its_own_events(door: Door) -> None:
    async with door.openai as client:
        stream = await client.images.generate(prompt="a red lighthouse", model="gpt-image-1", stream=True)
        (event,) = [event async for event in stream]
    assert event.type == "image_generation.completed"
    assert base64.b64decode(event.b64_json) == PIXEL
    assert (event.size, event.quality, event.background, event.output_format) == ("1024x1024", "low", "opaque", "png")
    assert event.usage.total_tokens == event.usage.input_tokens + event.usage.output_tokens
    assert event.usage.input_tokens_details.text_tokens == 4
    assert abs(event.created_at - door.services.clock.utc().timestamp()) < 5


async def test_the_official_blocking_client_reads_its_own_events(door: Door) -> None:
    def read() -> list[str]:
        with openai.OpenAI(base_url=f"{door.base}/v1", api_key=door.key, max_retries=0) as client:
            return [event.type for event in client.images.generate(prompt="a", n=2, stream=True)]

    assert await asyncio.to_thread(read) == ["image_generation.completed"] * 2


async def test_a_stream_names_its_kind_its_request_and_what_it_cost(door: Door) -> None:
    answer = await door.generate(stream=True, safety_identifier="user-7")
    call = door.painter.calls[0]
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-request-id"] == call.id.replace("call_", "req_")
    assert answer.headers["x-pixelgate-decision"] == call.id.replace("call_", "dec_")
    ((name, data),) = blocks(answer.text)
    assert name == data["type"] == "image_generation.completed"
    assert data["safety_identifier"] == "user-7"
    assert str(data["url"]).startswith("http://pictures.test/assets/")
    account = data["pixelgate"]
    assert isinstance(account, dict)
    assert (account["nano_usd"], account["cache"]) == (2_700_000, "miss")


@pytest.mark.parametrize("error", [NoOffer("nobody draws it"), NoCapacity(retry_after=2)])
async def test_what_fails_before_the_first_event_is_an_ordinary_error(door: Door, error: Exception) -> None:
    door.painter.fails_with = error
    async with door.openai as client:
        with pytest.raises(openai.APIStatusError) as raised:
            await client.images.generate(prompt="a", stream=True)
    assert raised.value.status_code in {400, 503}
    assert raised.value.response.headers["content-type"] == "application/json"


async def test_a_slow_picture_is_waited_for_with_signs_of_life(door: Door) -> None:
    door.painter.waits_for = asyncio.Event()
    body = {"prompt": "a", "stream": True}
    async with door.http.stream("POST", "/v1/images/generations", json=body) as answer:
        chunks = answer.aiter_text()
        assert await anext(chunks) == ": keep-alive\n\n"
        door.painter.waits_for.set()
        rest = "".join([chunk async for chunk in chunks])
    assert [name for name, _ in blocks(rest)] == ["image_generation.completed"]


async def test_what_fails_after_the_answer_has_begun_is_an_event_the_official_client_raises(door: Door) -> None:
    door.painter.waits_for = asyncio.Event()
    door.painter.fails_later = Undeliverable("Every attempt failed.")
    async with door.openai as client:
        stream = await client.images.generate(prompt="a", stream=True)
        door.painter.waits_for.set()
        with pytest.raises(openai.APIError, match="Every attempt failed") as raised:
            [event async for event in stream]
    assert raised.value.code == "undeliverable"


async def test_a_preview_the_policy_pays_for_comes_first_and_says_what_it_cost(door: Door) -> None:
    pays_for_previews(door)
    door.painter.waits_for, door.painter.waits_at = asyncio.Event(), Tier.EXPORT
    asyncio.get_running_loop().call_later(0.3, door.painter.waits_for.set)
    async with door.openai as client:
        stream = await client.images.generate(
            prompt="a", quality="high", stream=True, partial_images=2, extra_headers={"x-stainless-retry-count": "0"}
        )
        partial, completed = [event async for event in stream]
    assert partial.type == "image_generation.partial_image"
    assert (partial.partial_image_index, partial.quality) == (0, "low")
    assert (completed.type, completed.quality) == ("image_generation.completed", "high")
    assert partial.model_extra is not None
    assert partial.model_extra["pixelgate"]["nano_usd"] == 2_700_000
    assert partial.model_extra["pixelgate"]["intent"] == "preview"
    previews = [call for call in door.painter.calls if call.constraints.tier == Tier.PREVIEW]
    assert [call.constraints.ceiling for call in previews] == [4_000_000]


@pytest.mark.parametrize(
    "body", [{"partial_images": 0}, {"quality": "low"}, {"n": 2}, {"max_cost": 1}], ids=lambda body: str(*body)
)
async def test_no_preview_is_drawn_where_none_is_wanted_or_would_be_paid_for(
    door: Door, body: dict[str, object]
) -> None:
    pays_for_previews(door)
    wanted = {"prompt": "a", "stream": True, "partial_images": 1, "quality": "high", **body}
    answer = await door.post("/v1/images/generations", wanted)
    assert {name for name, _ in blocks(answer.text)} == {"image_generation.completed"}
    assert len(door.painter.calls) == 1


async def test_without_the_policys_word_no_preview_is_drawn(door: Door) -> None:
    await door.generate(stream=True, partial_images=3, quality="high")
    assert len(door.painter.calls) == 1


async def test_a_preview_that_fails_is_no_failure_of_the_picture(door: Door) -> None:
    pays_for_previews(door, ceiling=4_000_000)
    door.painter.refuses_tier = Tier.PREVIEW
    answer = await door.generate(stream=True, partial_images=1, quality="high")
    assert [name for name, _ in blocks(answer.text)] == ["image_generation.completed"]


async def test_a_repeat_of_a_stream_joins_and_orders_no_second_preview(door: Door) -> None:
    pays_for_previews(door)
    body = {"stream": True, "partial_images": 1, "quality": "high"}
    first = await door.generate({"idempotency-key": "k"}, **body)
    again = await door.generate({"idempotency-key": "k"}, **body)
    assert [call.intent for call in door.painter.calls] == ["export"]
    one, two = blocks(first.text)[-1][1], blocks(again.text)[-1][1]
    assert (one["id"], one["b64_json"]) == (two["id"], two["b64_json"])


async def test_partial_images_without_a_stream_are_refused_by_name(door: Door) -> None:
    error = (await door.generate(partial_images=1)).json()["error"]
    assert error["param"] == "partial_images"
