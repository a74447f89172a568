from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import openai
import pytest
from openai import omit

from gateway.errors import (
    BudgetSpent,
    ContentPolicy,
    DeadlinePassed,
    GatewayError,
    NoCapacity,
    NoOffer,
    NotKept,
    NotReady,
    RateLimited,
    Undeliverable,
)
from policies.types import Tier
from tests.gateway.http.conftest import PIXEL

if TYPE_CHECKING:
    from tests.gateway.http.conftest import Door


async def test_the_official_client_gets_a_url_that_serves_the_picture(door: Door) -> None:
    async with door.openai as client:
        answer = await client.images.generate(prompt="a red lighthouse", model="flux-schnell", size="512x768")
    assert answer.size == "512x768"
    assert (answer.quality, answer.background, answer.output_format) == ("low", "opaque", "png")
    assert answer.data is not None
    url = answer.data[0].url
    assert url is not None
    assert url.startswith("http://pictures.test/assets/t_")
    assert url.endswith(".png")
    picture = await door.http.get(url.removeprefix("http://pictures.test"))
    assert picture.content == PIXEL


async def test_the_official_client_gets_the_very_bytes_as_base64(door: Door) -> None:
    async with door.openai as client:
        answer = await client.images.generate(prompt="a red lighthouse", model="gpt-image-1", n=3)
    assert answer.data is not None
    assert [base64.b64decode(picture.b64_json or "") for picture in answer.data] == [PIXEL] * 3
    assert [picture.url for picture in answer.data] == [None] * 3


async def test_large_pictures_arrive_whole(door: Door) -> None:
    door.painter.draws = bytes(range(256)) * 5_000
    answer = await door.generate(response_format="b64_json", n=3)
    assert int(answer.headers["content-length"]) == len(answer.content)
    pictures = answer.json()["data"]
    assert [base64.b64decode(picture["b64_json"]) for picture in pictures] == [door.painter.draws] * 3
    assert [picture["seed"] for picture in pictures] == [1000, 1001, 1002]


async def test_the_answer_says_what_was_drawn_by_whom_and_for_how_much(door: Door) -> None:
    answer = await door.generate(n=2, quality="high", safety_identifier="user-7")
    body, call = answer.json(), door.painter.calls[0]
    decision = call.id.replace("call_", "dec_")
    assert body["pixelgate"] == {
        "decision": decision,
        "offer": "fal:flux-1.1-pro",
        "provider": "fal",
        "model": "flux-1.1-pro",
        "intent": "export",
        "nano_usd": 5_400_000,
        "cache": "miss",
        "policy": "default@7",
    }
    assert (body["quality"], body["safety_identifier"]) == ("high", "user-7")
    assert [picture["seed"] for picture in body["data"]] == [1000, 1001]
    assert all(picture["id"].startswith("img_") for picture in body["data"])
    assert abs(body["created"] - door.services.clock.utc().timestamp()) < 5
    headers = answer.headers
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"] == call.id.replace("call_", "req_")
    assert (headers["x-pixelgate-decision"], headers["x-pixelgate-offer"]) == (decision, "fal:flux-1.1-pro")
    assert (headers["x-pixelgate-cost"], headers["x-pixelgate-cache"]) == ("0.0054", "miss")
    assert (headers["x-pixelgate-policy"], headers["x-pixelgate-attempts"]) == ("default@7", "2")
    assert headers["openai-version"] == "2020-10-01"
    assert int(headers["openai-processing-ms"]) >= 0


async def test_usage_follows_its_published_rule(door: Door) -> None:
    usage = (await door.generate(prompt="nine char", n=2, size="1000x64")).json()["usage"]
    assert usage == {
        "input_tokens": 3,
        "output_tokens": 2 * 32 * 2,
        "total_tokens": 3 + 128,
        "input_tokens_details": {"text_tokens": 3, "image_tokens": 0},
    }


async def test_the_official_client_can_send_every_extension(door: Door) -> None:
    async with door.openai as client:
        await client.images.generate(
            prompt="a",
            extra_body={"seed": 7, "intent": "export", "max_cost": 0.05, "providers": {"only": ["fal"]}},
            extra_headers={"x-pixelgate-deadline-ms": "9000"},
        )
    call = door.painter.calls[0]
    assert (call.request.seed, call.intent, call.constraints.tier) == (7, "export", Tier.EXPORT)
    assert (call.constraints.ceiling, call.constraints.only) == (50_000_000, frozenset({"fal"}))
    assert call.constraints.deadline == 9.0


async def test_a_client_that_tells_its_patience_is_not_drawn_for_beyond_it(door: Door) -> None:
    async with door.openai.with_options(timeout=30.0) as client:
        await client.images.generate(prompt="a")
    assert (door.painter.calls[0].constraints.slo, door.painter.calls[0].constraints.deadline) == (3.0, 60.0)
    await door.generate({"x-stainless-read-timeout": "600"})
    assert door.painter.calls[1].constraints.deadline == 60.0
    await door.generate({"x-stainless-read-timeout": "2"})
    assert (door.painter.calls[2].constraints.slo, door.painter.calls[2].constraints.deadline) == (2.0, 2.0)


@pytest.mark.parametrize("path", ["/v1/images/generations/", "/v1/images/generations?api-version=2024-10-21"])
async def test_slashes_and_queries_do_not_matter(door: Door, path: str) -> None:
    assert (await door.post(path, {"prompt": "a"})).status_code == 200


async def test_a_parent_must_be_the_teams_own(door: Door) -> None:
    mine = (await door.generate()).json()["data"][0]["id"]
    assert (await door.generate(parent=mine)).json()["data"][0]["parent"] == mine
    theirs = await door.add_key(team="other")
    refused = await door.generate({"authorization": f"Bearer {theirs}"}, parent=mine)
    assert (refused.status_code, refused.json()["error"]["param"]) == (404, "parent")


FAILURES: list[tuple[GatewayError, int, str, type[openai.APIStatusError], str | None]] = [
    (NoOffer("nobody draws 1030x1030"), 400, "no_offer", openai.BadRequestError, None),
    (ContentPolicy(), 400, "content_policy_violation", openai.BadRequestError, None),
    (BudgetSpent(), 429, "insufficient_quota", openai.RateLimitError, "false"),
    (RateLimited(retry_after=2.5), 429, "rate_limit_exceeded", openai.RateLimitError, "true"),
    (
        Undeliverable(extra={"attempts": [{"offer": "fal:x"}]}),
        502,
        "undeliverable",
        openai.InternalServerError,
        "false",
    ),
    (NoCapacity(retry_after=99), 503, "no_capacity", openai.InternalServerError, "true"),
    (NotReady(), 503, "not_ready", openai.InternalServerError, "true"),
    (NotKept(), 503, "not_ready", openai.InternalServerError, "false"),
    (DeadlinePassed(), 504, "timed_out", openai.InternalServerError, "false"),
]


@pytest.mark.parametrize(("error", "status", "code", "seen", "retry"), FAILURES, ids=lambda value: str(value)[:30])
async def test_each_failure_is_the_class_the_official_client_knows(
    door: Door,
    error: GatewayError,
    status: int,
    code: str,
    seen: type[openai.APIStatusError],
    retry: str | None,
) -> None:
    door.painter.fails_with = error
    async with door.openai as client:
        with pytest.raises(seen) as raised:
            await client.images.generate(prompt="a", model=omit)
    assert (raised.value.status_code, raised.value.code) == (status, code)
    assert raised.value.request_id == door.painter.calls[0].id.replace("call_", "req_")
    headers = raised.value.response.headers
    assert headers.get("x-should-retry") == retry
    assert ("retry-after" in headers) == ("retry-after-ms" in headers) == (retry == "true")
    assert float(headers.get("retry-after", 0)) <= 60
    assert headers["x-pixelgate-decision"] == door.painter.calls[0].id.replace("call_", "dec_")


async def test_clients_are_told_when_to_come_back_in_whole_seconds_and_in_milliseconds(door: Door) -> None:
    door.painter.fails_with = NoCapacity(retry_after=2.5)
    answer = await door.generate()
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("3", "2500")
    door.painter.fails_with = NoCapacity(retry_after=500)
    assert (await door.generate()).headers["retry-after"] == "60"


async def test_a_failure_carries_its_reasons(door: Door) -> None:
    door.painter.fails_with = NoOffer("no", extra={"reasons": [{"offer": "fal:flux-dev", "reason": "too dear"}]})
    assert (await door.generate()).json()["error"]["reasons"] == [{"offer": "fal:flux-dev", "reason": "too dear"}]


async def test_a_fault_of_ours_says_nothing_of_our_insides_and_is_not_repeated(door: Door) -> None:
    door.painter.fails_with = RuntimeError("the password is hunter2")
    answer = await door.generate()
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert answer.json()["error"]["type"] == "server_error"
    assert "hunter2" not in answer.text
    assert answer.headers["x-should-retry"] == "false"
