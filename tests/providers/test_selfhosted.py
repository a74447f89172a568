"""The adapter for our own OpenAI-style servers: what it sends, and what every answer means."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pybase64
import pytest
from aiohttp import web
from msgspec.structs import replace
from PIL import Image as Pillow

from providers.contract import Abilities, ChecksAccount, ImageRequest, Lora, Order, SizeRule, Ticket, Usage
from providers.errors import (
    BadDelivery,
    ContentRefused,
    Failed,
    Misconfigured,
    OutcomeUnknown,
    Overloaded,
    ProviderError,
    Retired,
    TimedOut,
    Unavailable,
    Unsupported,
)
from providers.picture import requested
from providers.selfhosted import Selfhosted, Settings, connect
from providers.transport import Http

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
RawServe = Callable[[bytes], Awaitable[str]]
KEY = "own-key-1234"
PROMPT = "a secret garden at night"


def picture(width: int = 64, height: int = 48) -> bytes:
    out = io.BytesIO()
    Pillow.effect_noise((width, height), 80).save(out, "PNG")
    return out.getvalue()


def answer(*pictures: bytes) -> web.Response:
    return web.json_response({"created": 1, "data": [{"b64_json": pybase64.b64encode(p).decode()} for p in pictures]})


def order(*, able: Abilities | None = None, limit_s: float = 5, **wish: Any) -> Order:
    request = ImageRequest(**{"prompt": PROMPT, "width": 64, "height": 48, "seed": 7, **wish})
    able = able or Abilities(sizes=SizeRule(min_side=16, multiple=16), max_count=4, steps=(1, 12), default_steps=4)
    return Order(attempt_id="att-1", endpoint="flux-schnell", abilities=able, request=request, timeout=limit_s)


async def untouched(ticket: Ticket) -> None:
    raise AssertionError(f"no receipt was expected: {ticket}")


def seller(http: Http, url: str) -> Selfhosted:
    made = connect("garage", Settings.model_validate({"base_url": url + "/v1/", "key": KEY}), http)
    assert isinstance(made, Selfhosted)
    return made


def owed(error: ProviderError) -> Usage:
    """What is owed, without the time it took and whose."""
    assert isinstance(error.owed, Usage)
    assert error.owed.machine_ns > 0
    assert error.owed.machine == "garage"
    return replace(error.owed, machine_ns=0, machine="")


async def outcome(http: Http, url: str, asked: Order) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await seller(http, url).generate(asked, untouched)
    return caught.value


async def test_says_everything_and_brings_pictures_home(http: Http, serve: Serve) -> None:
    seen: list[tuple[str, dict[str, Any], str]] = []

    async def draw(request: web.Request) -> web.Response:
        seen.append((request.path, await request.json(), request.headers["Authorization"]))
        return answer(picture(), picture())

    generation = await seller(http, await serve(draw)).generate(order(count=2), untouched)
    assert len(generation.images) == 2
    assert generation.usage.images == ((64, 48), (64, 48))
    assert generation.usage.steps == 4
    assert seen == [
        (
            "/v1/images/generations",
            {
                "model": "flux-schnell",
                "prompt": PROMPT,
                "n": 2,
                "size": "64x48",
                "response_format": "b64_json",
                "output_format": "png",
                "seed": 7,
                "num_inference_steps": 4,
            },
            f"Bearer {KEY}",
        )
    ]


async def test_says_what_the_endpoint_is_able_to_hear(http: Http, serve: Serve) -> None:
    seen: list[dict[str, Any]] = []

    async def draw(request: web.Request) -> web.Response:
        seen.append(await request.json())
        return answer(picture())

    able = Abilities(
        sizes=SizeRule(min_side=16, multiple=16),
        guidance=(0, 20),
        negative_prompt=True,
        loras=1,
        seed=False,
        size_dialect="width_height",
        fixed={"true_cfg_scale": 1},
    )
    wish = order(able=able, guidance=3.0, negative_prompt="rain", loras=(Lora("style.safetensors", 0.5),))
    await seller(http, await serve(draw)).generate(wish, untouched)
    assert seen[0] == {
        "model": "flux-schnell",
        "prompt": PROMPT,
        "n": 1,
        "width": 64,
        "height": 48,
        "response_format": "b64_json",
        "output_format": "png",
        "guidance_scale": 3.0,
        "negative_prompt": "rain",
        "loras": [{"path": "style.safetensors", "scale": 0.5}],
        "true_cfg_scale": 1,
    }


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": {"message": "no", "code": "content_policy_violation"}}, ContentRefused),
        (400, {"error": {"message": "bad size", "type": "invalid_request_error"}}, Unsupported),
        (422, {"detail": "steps"}, Unsupported),
        (401, {"error": "who?"}, Misconfigured),
        (404, {"message": "no model"}, Retired),
        (429, {"error": {"message": "busy"}}, Overloaded),
        (500, {"error": {"message": "out of memory", "code": 500}}, Failed),
        (503, {"error": {"message": "starting"}}, Unavailable),
        (504, None, OutcomeUnknown),
    ],
)
async def test_every_refusal_has_its_meaning(
    http: Http, serve: Serve, status: int, body: object, kind: type[ProviderError]
) -> None:
    asked: list[int] = []

    async def refuse(_: web.Request) -> web.Response:
        asked.append(1)
        text = json.dumps(body) if body else "<html>nginx</html>"
        return web.Response(status=status, text=text, headers={"Retry-After": "3"})

    error = await outcome(http, await serve(refuse), order())
    assert type(error) is kind
    assert (error.status, error.retry_after) == (status, 3)
    assert error.owed == ("unknown" if kind is OutcomeUnknown else "nothing")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("body", "made"),
    [
        ("<html>busy</html>", None),
        ('{"data": [{"b64_json": "%%%"}]}', None),
        ("{", None),
        ("[1]", None),
        ('{"data": []}', 0),
        ('{"data": [{"url": "/x"}]}', 1),
        ('{"data": [{}]}', 1),
    ],
)
async def test_a_200_without_pictures_is_a_bad_delivery(http: Http, serve: Serve, body: str, made: int | None) -> None:
    async def say(_: web.Request) -> web.Response:
        return web.Response(text=body, content_type="text/html")

    error = await outcome(http, await serve(say), order())
    assert isinstance(error, BadDelivery)
    assert error.owed == "unknown" if made is None else owed(error) == requested(order(), made)


async def test_a_truncated_picture_is_a_bad_delivery_of_its_measured_size(http: Http, serve: Serve) -> None:
    async def say(_: web.Request) -> web.Response:
        return answer(picture(80, 64)[:-30])

    error = await outcome(http, await serve(say), order())
    assert isinstance(error, BadDelivery)
    assert owed(error) == requested(order(width=80, height=64))


async def test_a_truncated_answer_leaves_open_how_long_the_machine_worked(http: Http, raw_serve: RawServe) -> None:
    error = await outcome(http, await raw_serve(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"), order())
    assert isinstance(error, BadDelivery)
    assert error.owed == "unknown"


async def test_a_broken_connection_leaves_the_outcome_unknown(http: Http, raw_serve: RawServe) -> None:
    error = await outcome(http, await raw_serve(b""), order())
    assert isinstance(error, OutcomeUnknown)
    assert error.owed == "unknown"


async def test_a_dead_server_is_unavailable(http: Http) -> None:
    error = await outcome(http, "http://127.0.0.1:9", order())
    assert isinstance(error, Unavailable)
    assert error.owed == "nothing"


async def test_a_slow_server_times_out_with_money_unknown(http: Http, serve: Serve) -> None:
    async def sleep(_: web.Request) -> web.Response:
        await asyncio.sleep(1)
        return web.Response()

    error = await outcome(http, await serve(sleep), order(limit_s=0.05))
    assert isinstance(error, TimedOut)
    assert error.owed == "unknown"


async def test_keys_and_prompts_never_reach_the_error(http: Http, serve: Serve) -> None:
    async def echo(request: web.Request) -> web.Response:
        text = f"{request.headers['Authorization']} may not draw {(await request.json())['prompt']}"
        return web.json_response({"error": {"message": text}}, status=400)

    error = await outcome(http, await serve(echo), order())
    assert KEY not in str(error)
    assert PROMPT not in str(error)
    assert "may not draw" in str(error)


@pytest.mark.parametrize("wish", [{"operation": "upscale"}, {"width": 72}])
async def test_refuses_what_it_cannot_say_without_asking(http: Http, wish: dict[str, Any]) -> None:
    error = await outcome(http, "http://127.0.0.1:9", order(**wish))
    assert isinstance(error, Unsupported)


async def test_checks_key_and_models_without_drawing(http: Http, serve: Serve) -> None:
    async def models(request: web.Request) -> web.Response:
        if request.headers["Authorization"] != f"Bearer {KEY}":
            return web.Response(status=401)
        return web.json_response({"data": [{"id": "flux-schnell"}]})

    url = await serve(models)
    assert isinstance(seller(http, url), ChecksAccount)
    assert list(await seller(http, url).check(["flux-schnell"])) == []
    assert "flux-pro" in " ".join(await seller(http, url).check(["flux-pro"]))
    stranger = connect("x", Settings(base_url=url), http)
    assert isinstance(stranger, Selfhosted)
    assert await stranger.check([]) != []


async def test_checking_a_dead_server_says_so(http: Http) -> None:
    assert "does not answer" in (await seller(http, "http://127.0.0.1:9").check([]))[0]
