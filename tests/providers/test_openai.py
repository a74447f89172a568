"""The OpenAI adapter through the real SDK: what it sends, what every answer means, and what it costs.

What the sandbox twin can be scripted to do is tested in test_conformance; here is what it cannot.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pybase64
import pytest
from aiohttp import web
from msgspec.structs import replace
from PIL import Image as Pillow

from policies.tariffs import PerToken, bill, quote
from providers.contract import (
    Abilities,
    ChecksAccount,
    FidelityDialect,
    Generation,
    Head,
    ImageRequest,
    Input,
    Order,
    SizeRule,
    Ticket,
    Tokens,
)
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
from providers.openai import OpenAI, Settings, connect
from providers.sandbox import start
from providers.sandbox.openai import picture_tokens
from providers.transport import Http
from tests.support.sellers import read_catalog

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
RawServe = Callable[[bytes], Awaitable[str]]
KEY = "sk-secret0123456789"
PROMPT = "a secret garden at night"
ABLE = Abilities(
    sizes=SizeRule(min_side=16, multiple=16),
    max_count=10,
    formats=("png", "jpeg", "webp"),
    seed=False,
    size_dialect="size",
    fixed={"quality": "low"},
)
EDITS = replace(ABLE, operations=("edit",), references=(1, 16), mask=True, input_dialect="images")
OFFERS = {model.model: model.offers[0] for model in read_catalog() if model.model.startswith("gpt-image-2-")}
TARIFFS = {name: offer.price.tariff() for name, offer in OFFERS.items()}


def picture(width: int = 64, height: int = 48, mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Pillow.effect_noise((width, height), 80).convert(mode).save(out, "PNG")
    return out.getvalue()


GIVEN = Input(picture(), Head("png", 64, 48))
USAGE = {
    "input_tokens": 30,
    "output_tokens": 272,
    "total_tokens": 302,
    "input_tokens_details": {"text_tokens": 12, "image_tokens": 18},
}


def answer(*pictures: bytes, usage: object = USAGE) -> web.Response:
    data = [{"b64_json": pybase64.b64encode_as_string(one)} for one in pictures]
    return web.json_response({"created": 1, "data": data, "usage": usage}, headers={"x-request-id": "req_1"})


def order(*, able: Abilities = ABLE, limit_s: float = 5, **wish: Any) -> Order:
    request = ImageRequest(**{"prompt": PROMPT, "width": 64, "height": 48, **wish})
    return Order(attempt_id="att-1", endpoint="gpt-image-2", abilities=able, request=request, timeout=limit_s)


Start = Callable[[str], OpenAI]


@pytest.fixture
async def seller(http: Http) -> AsyncIterator[Start]:
    made: list[OpenAI] = []

    def begin(url: str) -> OpenAI:
        made.append(connect("studio", Settings.model_validate({"key": KEY, "base_url": url}), http))
        return made[-1]

    yield begin
    for one in made:
        await one.aclose()


async def draw(openai: OpenAI, asked: Order | None = None) -> tuple[Generation, list[Ticket]]:
    tickets: list[Ticket] = []

    async def accept(ticket: Ticket) -> None:
        tickets.append(ticket)

    return await openai.generate(asked or order(), accept), tickets


async def outcome(openai: OpenAI, asked: Order | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await draw(openai, asked)
    return caught.value


async def test_says_the_order_in_openais_words_once_and_takes_its_count_of_tokens(
    seller: Start, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "somebody-elses")
    seen: list[tuple[str, dict[str, Any], Mapping[str, str]]] = []

    async def paint(request: web.Request) -> web.Response:
        seen.append((request.path, await request.json(), request.headers))
        return answer(picture(), picture())

    generation, tickets = await draw(seller(await serve(paint)), order(count=2, safety="relaxed"))
    path, body, headers = seen[0]
    assert (len(seen), path) == (1, "/v1/images/generations")
    assert body == {
        "model": "gpt-image-2",
        "prompt": PROMPT,
        "n": 2,
        "size": "64x48",
        "quality": "low",
        "output_format": "png",
        "background": "opaque",
        "moderation": "low",
    }
    assert (headers["Authorization"], headers["X-Pixelgate-Attempt"]) == (f"Bearer {KEY}", "att-1")
    assert "OpenAI-Organization" not in headers
    assert generation.usage.tokens == Tokens(text_in=12, image_in=18, image_out=272)
    assert tickets == [generation.ticket] == [Ticket("req_1", {"endpoint": "gpt-image-2"})]


@pytest.mark.parametrize(("fidelity", "told"), [("asked", ["high"]), ("always", []), (None, [])])
async def test_fidelity_is_told_to_models_that_can_be_told(
    seller: Start, serve: Serve, fidelity: FidelityDialect | None, told: list[str]
) -> None:
    seen: list[object] = []

    async def paint(request: web.Request) -> web.Response:
        seen.extend((await request.post()).getall("input_fidelity", []))
        return answer(picture())

    able = replace(EDITS, fidelity=fidelity)
    asked = order(able=able, operation="edit", references=((64, 48),), fidelity="high")
    await draw(seller(await serve(paint)), replace(asked, inputs=(GIVEN,)))
    assert seen == told


async def test_an_edit_is_a_form_with_its_pictures_and_its_mask_as_they_came(seller: Start, serve: Serve) -> None:
    seen: list[tuple[str, list[tuple[str, object]]]] = []

    async def paint(request: web.Request) -> web.Response:
        form = await request.post()
        parts: list[tuple[str, object]] = [
            (name, value.file.read() if isinstance(value, web.FileField) else value) for name, value in form.items()
        ]
        seen.append((request.path, parts))
        return answer(picture())

    mask = Input(picture(mode="RGBA"), Head("png", 64, 48))
    asked = order(able=EDITS, operation="edit", references=((64, 48),) * 2, mask=True)
    await draw(seller(await serve(paint)), replace(asked, inputs=(GIVEN, GIVEN), mask=mask))
    path, parts = seen[0]
    assert path == "/v1/images/edits"
    assert [value for name, value in parts if name == "image[]"] == [GIVEN.data, GIVEN.data]
    told = {name: value for name, value in parts if name != "image[]"}
    assert told == {
        "model": "gpt-image-2",
        "prompt": PROMPT,
        "n": "1",
        "size": "64x48",
        "quality": "low",
        "output_format": "png",
        "background": "opaque",
        "mask": mask.data,
    }


@pytest.mark.parametrize(
    "wish",
    [
        {"operation": "edit"},
        {"operation": "remove_background", "able": replace(ABLE, operations=("remove_background",))},
        {"count": 11},
        {"width": 72},
        {"operation": "edit", "able": EDITS},
    ],
)
async def test_refuses_what_cannot_be_said_without_asking(seller: Start, wish: dict[str, Any]) -> None:
    assert isinstance(await outcome(seller("http://127.0.0.1:9"), order(**wish)), Unsupported)


@pytest.mark.parametrize(
    ("status", "code", "kind", "owed"),
    [
        (400, "moderation_blocked", ContentRefused, "nothing"),
        (400, "content_policy_violation", ContentRefused, "nothing"),
        (400, "billing_hard_limit_reached", Misconfigured, "nothing"),
        (400, "invalid_value", Unsupported, "nothing"),
        (401, "invalid_api_key", Misconfigured, "nothing"),
        (403, None, Misconfigured, "nothing"),
        (404, "model_not_found", Retired, "nothing"),
        (413, None, Unsupported, "nothing"),
        (429, "rate_limit_exceeded", Overloaded, "nothing"),
        (429, "insufficient_quota", Misconfigured, "nothing"),
        (500, None, Failed, "nothing"),
        (502, None, OutcomeUnknown, "unknown"),
        (503, None, Unavailable, "nothing"),
        (504, None, OutcomeUnknown, "unknown"),
        (529, None, Unavailable, "nothing"),
    ],
)
async def test_every_refusal_has_its_meaning_and_is_asked_once(
    seller: Start, serve: Serve, status: int, code: str | None, kind: type[ProviderError], owed: object
) -> None:
    asked: list[str] = []

    async def refuse(request: web.Request) -> web.Response:
        asked.append(request.path)
        error = {"message": f"no {PROMPT} for {KEY}", "type": "t", "param": None, "code": code}
        return web.json_response({"error": error}, status=status, headers={"Retry-After": "7"})

    error = await outcome(seller(await serve(refuse)))
    assert (type(error), error.owed, error.status, error.retry_after) == (kind, owed, status, 7.0)
    assert len(asked) == 1
    assert PROMPT not in str(error)
    assert KEY not in str(error)


@pytest.mark.parametrize("body", [b"{}", b'{"data": []}', b'{"data": [{"b64_json": ""}], "usage": null}', b"<html>"])
async def test_an_answer_without_its_count_of_tokens_leaves_its_money_unknown(
    seller: Start, serve: Serve, body: bytes
) -> None:
    async def paint(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    error = await outcome(seller(await serve(paint)))
    assert (type(error), error.owed) == (BadDelivery, "unknown")


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (b"", OutcomeUnknown),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{", BadDelivery),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 900\r\n\r\n<", OutcomeUnknown),
    ],
)
async def test_a_conversation_that_breaks_off_owes_something_unknown(
    seller: Start, raw_serve: RawServe, reply: bytes, kind: type[ProviderError]
) -> None:
    error = await outcome(seller(await raw_serve(reply)))
    assert (type(error), error.owed) == (kind, "unknown")


async def test_a_dead_host_owes_nothing(seller: Start) -> None:
    error = await outcome(seller("http://127.0.0.1:9"))
    assert (type(error), error.owed) == (Unavailable, "nothing")


async def test_silence_times_out_with_money_unknown(seller: Start, serve: Serve) -> None:
    async def wait(_: web.Request) -> web.Response:
        await asyncio.sleep(1)
        return web.Response()

    error = await outcome(seller(await serve(wait)), order(limit_s=0.2))
    assert (type(error), error.owed) == (TimedOut, "unknown")


async def test_a_check_names_a_bad_key_and_models_that_are_gone(http: Http) -> None:
    async with await start(time_scale=0.01, pictures="plain") as sandbox:
        url = f"{sandbox.url}/openai"
        good = connect("studio", Settings.model_validate({"key": "sandbox-a", "base_url": url}), http)
        bad = connect("studio", Settings.model_validate({"key": KEY, "base_url": url}), http)
        assert isinstance(good, ChecksAccount)
        assert await good.check(["gpt-image-2", "dall-e-3"]) == ["OpenAI has no model dall-e-3"]
        assert "refuses the key of account `studio`" in (await bad.check(["gpt-image-2"]))[0]
        await good.aclose()
        await bad.aclose()


@pytest.mark.parametrize("model", sorted(OFFERS))
async def test_hold_covers_bill_and_bill_is_the_sandboxs_invoice(http: Http, model: str) -> None:
    """Of a drawing, and of an edit of two pictures under a mask."""
    able, tariff = OFFERS[model].abilities.abilities(), TARIFFS[model]
    given = Input(picture(600, 400, "RGBA"), Head("png", 600, 400))
    drawing = order(able=able, limit_s=60, width=1536, height=1024, count=2, prompt="ein Leuchtturm im Sturm")
    edit = order(
        able=able, limit_s=60, width=1024, height=1024, operation="edit", references=((600, 400),) * 2, mask=True
    )
    async with await start(time_scale=0.01, pictures="plain") as sandbox:
        openai = connect("a", Settings.model_validate({"key": "sandbox-a", "base_url": f"{sandbox.url}/openai"}), http)
        for asked in (drawing, replace(edit, inputs=(given, given), mask=given)):
            before = sandbox.invoice()["total_nano_usd"].get("openai", 0)
            generation, _ = await draw(openai, asked)
            cost = bill(tariff, generation.usage)
            assert cost == sandbox.invoice()["total_nano_usd"]["openai"] - before
            assert cost <= quote(tariff, asked.request).hold
        await openai.aclose()


def test_the_catalogues_tokens_are_those_of_the_calculator() -> None:
    """Published beside the formula: 1024x1024 high is 7,024 tokens, 1536x1024 is 5,488, 3584x2048 is 12,329."""
    assert [picture_tokens("high", size) for size in ((1024, 1024), (1536, 1024), (3584, 2048))] == [7024, 5488, 12329]
    for name, tariff in TARIFFS.items():
        assert isinstance(tariff, PerToken)
        quality = name.rpartition("-")[2]
        for width, height, tokens in tariff.made:
            assert tokens == picture_tokens(quality, (width, height)), (name, width, height)
