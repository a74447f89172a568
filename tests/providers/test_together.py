"""The Together adapter through the real SDK: what it sends, and what every answer means.

What the sandbox twin can be scripted to do is tested in test_conformance; here is what it cannot.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pybase64
import pytest
from aiohttp import web
from msgspec.structs import replace
from PIL import Image as Pillow

from providers.contract import (
    Abilities,
    CallsBack,
    Cancels,
    ChecksAccount,
    FindsOrders,
    Generation,
    Head,
    ImageRequest,
    Input,
    InputDialect,
    ListedPrice,
    Lora,
    Order,
    ReportsUsage,
    Resumable,
    SizeRule,
    Ticket,
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
from providers.picture import requested
from providers.together import Settings, Together, _months, connect
from providers.transport import Http

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
RawServe = Callable[[bytes], Awaitable[str]]
KEY = "tgp-v1-secret0123456789"
PROMPT = "a secret garden at night"
MODEL = "black-forest-labs/FLUX.1-schnell"
ABLE = Abilities(
    sizes=SizeRule(min_side=16, multiple=16),
    max_count=4,
    steps=(1, 12),
    default_steps=4,
    size_dialect="width_height",
    safety_dialect="disable_checker",
)


def picture(width: int = 64, height: int = 48) -> bytes:
    out = io.BytesIO()
    Pillow.effect_noise((width, height), 80).save(out, "PNG")
    return out.getvalue()


GIVEN = Input(picture(), Head("png", 64, 48))
INLINE = f"data:image/png;base64,{pybase64.b64encode_as_string(GIVEN.data)}"


def answer(*items: dict[str, Any]) -> web.Response:
    return web.json_response({"id": "oHp-1", "model": MODEL, "object": "list", "data": list(items)})


def inline(data: bytes) -> dict[str, Any]:
    return {"index": 0, "type": "b64_json", "b64_json": pybase64.b64encode(data).decode()}


def order(*, able: Abilities = ABLE, limit_s: float = 5, **wish: Any) -> Order:
    request = ImageRequest(**{"prompt": PROMPT, "width": 64, "height": 48, "seed": 7, **wish})
    return Order(attempt_id="att-1", endpoint=MODEL, abilities=able, request=request, timeout=limit_s)


@pytest.fixture
async def seller(http: Http) -> AsyncIterator[Callable[[str], Together]]:
    made: list[Together] = []

    def start(url: str) -> Together:
        made.append(connect("atelier", Settings.model_validate({"key": KEY, "base_url": url}), http))
        return made[-1]

    yield start
    for one in made:
        await one.aclose()


Start = Callable[[str], Together]


async def draw(together: Together, asked: Order | None = None) -> tuple[Generation, list[Ticket]]:
    tickets: list[Ticket] = []

    async def accept(ticket: Ticket) -> None:
        tickets.append(ticket)

    return await together.generate(asked or order(), accept), tickets


async def outcome(together: Together, asked: Order | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await draw(together, asked)
    return caught.value


async def test_says_the_order_in_togethers_words_once(seller: Start, serve: Serve) -> None:
    seen: list[tuple[str, dict[str, Any], str, str]] = []

    async def paint(request: web.Request) -> web.Response:
        headers = request.headers
        seen.append((request.path, await request.json(), headers["Authorization"], headers["X-Pixelgate-Attempt"]))
        return answer(inline(picture()), inline(picture()))

    able = Abilities(
        **{name: getattr(ABLE, name) for name in ABLE.__struct_fields__} | {"loras": 2, "guidance": (1, 9)}
    )
    asked = order(able=able, count=2, guidance=3.0, loras=(Lora("x.safetensors", 0.5),), negative_prompt="rain")
    generation, tickets = await draw(seller(await serve(paint)), asked)
    body = {
        "model": MODEL,
        "prompt": PROMPT,
        "n": 2,
        "width": 64,
        "height": 48,
        "seed": 7,
        "steps": 4,
        "guidance_scale": 3.0,
        "image_loras": [{"path": "x.safetensors", "scale": 0.5}],
        "response_format": "base64",
        "output_format": "png",
        "disable_safety_checker": False,
    }
    assert seen == [("/v1/images/generations", body, f"Bearer {KEY}", "att-1")]
    assert (generation.usage.images, generation.usage.steps) == (((64, 48), (64, 48)), 4)
    assert tickets == [generation.ticket] == [Ticket("oHp-1", {"endpoint": MODEL})]


async def test_fixed_fields_and_named_sizes_travel_beside_the_sdks_own(seller: Start, serve: Serve) -> None:
    seen: list[dict[str, Any]] = []

    async def paint(request: web.Request) -> web.Response:
        seen.append(await request.json())
        return answer(inline(picture()))

    able = Abilities(
        sizes=SizeRule(named={"4:3": (64, 48)}), size_dialect="aspect_ratio", fixed={"prompt_upsampling": False}
    )
    await draw(seller(await serve(paint)), order(able=able))
    assert (seen[0]["aspect_ratio"], seen[0]["prompt_upsampling"]) == ("4:3", False)
    assert "width" not in seen[0]


@pytest.mark.parametrize(
    ("field", "sent"), [("image_url", INLINE), ("reference_images", [INLINE])], ids=["one", "several"]
)
async def test_an_input_travels_inside_the_order_in_the_endpoints_field(
    seller: Start, serve: Serve, field: InputDialect, sent: object
) -> None:
    seen: list[dict[str, Any]] = []

    async def paint(request: web.Request) -> web.Response:
        seen.append(await request.json())
        return answer(inline(picture()))

    able = Abilities(
        operations=("edit",), sizes=ABLE.sizes, references=(1, 4), input_dialect=field, size_dialect="width_height"
    )
    asked = replace(order(able=able, operation="edit", references=((64, 48),)), inputs=(GIVEN,))
    generation, _ = await draw(seller(await serve(paint)), asked)
    assert (seen[0][field], seen[0]["prompt"]) == (sent, PROMPT)
    assert generation.usage.references == ((64, 48),)
    masked = replace(asked, request=replace(asked.request, mask=True), mask=GIVEN)
    assert isinstance(await outcome(seller("http://127.0.0.1:9"), masked), Unsupported)


@pytest.mark.parametrize("wish", [{"operation": "edit"}, {"count": 5}, {"width": 72}])
async def test_refuses_what_cannot_be_said_without_asking(seller: Start, wish: dict[str, Any]) -> None:
    assert isinstance(await outcome(seller("http://127.0.0.1:9"), order(**wish)), Unsupported)


@pytest.mark.parametrize(
    ("status", "own_words", "kind", "owed"),
    [
        (400, True, Unsupported, "nothing"),
        (401, True, Misconfigured, "nothing"),
        (402, True, Misconfigured, "nothing"),
        (403, True, Misconfigured, "nothing"),
        (404, True, Retired, "nothing"),
        (413, True, Unsupported, "nothing"),
        (422, True, ContentRefused, "nothing"),
        (429, True, Overloaded, "nothing"),
        (500, True, Failed, "nothing"),
        (500, False, OutcomeUnknown, "unknown"),
        (502, False, OutcomeUnknown, "unknown"),
        (503, True, Unavailable, "nothing"),
        (522, False, Unavailable, "nothing"),
        (524, False, OutcomeUnknown, "unknown"),
    ],
)
async def test_every_refusal_has_its_meaning_and_is_asked_once(
    seller: Start, serve: Serve, *, status: int, own_words: bool, kind: type[ProviderError], owed: str
) -> None:
    asked: list[int] = []

    async def refuse(_: web.Request) -> web.Response:
        asked.append(1)
        body = json.dumps({"error": {"message": "no", "type": "t", "param": None, "code": None}})
        return web.Response(status=status, text=body if own_words else "<html>", headers={"x-ratelimit-reset": "0.25"})

    error = await outcome(seller(await serve(refuse)))
    assert type(error) is kind
    assert (error.owed, error.status, error.retry_after) == (owed, status, 0.25)
    assert len(asked) == 1


@pytest.mark.parametrize("body", ["<html>", "{", '{"id": "x"}', '{"data": [{"b64_json": "%%"}]}', '{"data": [{}]}'])
async def test_a_200_without_pictures_owes_what_was_ordered(seller: Start, serve: Serve, body: str) -> None:
    async def say(_: web.Request) -> web.Response:
        return web.Response(text=body)

    error = await outcome(seller(await serve(say)))
    assert isinstance(error, BadDelivery)
    assert error.owed == requested(order())


async def test_too_few_pictures_owe_those_that_came(seller: Start, serve: Serve) -> None:
    async def say(_: web.Request) -> web.Response:
        return answer(inline(picture()))

    error = await outcome(seller(await serve(say)), order(count=3))
    assert isinstance(error, BadDelivery)
    assert error.owed == requested(order(), 1)
    assert error.ticket == Ticket("oHp-1", {"endpoint": MODEL})


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (b"", OutcomeUnknown),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{", BadDelivery),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 900\r\n\r\n{", Unavailable),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 900\r\n\r\n{", OutcomeUnknown),
        (b"what?\r\n\r\n", OutcomeUnknown),
    ],
)
async def test_a_conversation_that_breaks_off_is_told_apart_by_what_it_owes(
    seller: Start, raw_serve: RawServe, reply: bytes, kind: type[ProviderError]
) -> None:
    assert type(await outcome(seller(await raw_serve(reply)))) is kind


async def test_a_dead_host_owes_nothing(seller: Start) -> None:
    assert isinstance(await outcome(seller("http://127.0.0.1:9")), Unavailable)


async def test_silence_times_out_with_money_unknown(seller: Start, serve: Serve) -> None:
    async def sleep(_: web.Request) -> web.Response:
        await asyncio.sleep(1)
        return web.Response()

    together = seller(await serve(sleep))
    await together.check([])
    error = await outcome(together, order(limit_s=0.1))
    assert isinstance(error, TimedOut)
    assert (error.owed, error.ticket) == ("unknown", None)


async def test_links_are_fetched_without_the_key(seller: Start, serve: Serve) -> None:
    async def paint(request: web.Request) -> web.Response:
        if request.path == "/files/1.png":
            assert "Authorization" not in request.headers
            assert request.headers["User-Agent"]
            return web.Response(body=picture())
        return answer({"url": f"http://{request.host}/files/1.png"})

    generation, _ = await draw(seller(await serve(paint)))
    assert generation.images[0].data.startswith(b"\x89PNG")


async def test_a_link_to_a_strange_host_is_not_followed(seller: Start, serve: Serve) -> None:
    async def paint(_: web.Request) -> web.Response:
        return answer({"url": "https://127.0.0.1/latest"})

    error = await outcome(seller(await serve(paint)))
    assert isinstance(error, BadDelivery)
    assert error.owed == requested(order())


async def test_usage_is_read_page_by_page_exactly(seller: Start, serve: Serve) -> None:
    asked: list[dict[str, str]] = []

    async def usage(request: web.Request) -> web.Response:
        asked.append(dict(request.query))
        page = int(request.query.get("after", "0"))
        hours = [(page * 2 + hour, page * 2 + hour + 1) for hour in range(2)]
        windows = [
            {
                "date": "2026-11-20",
                "start_time": f"2026-11-20T{start:02}:00:00Z",
                "end_time": f"2026-11-20T{end:02}:00:00Z",
                "line_items": [
                    {"product_name": MODEL, "quantity": "2.097152", "unit_price": "0.0027", "cost": "0.00566231"},
                    {"product_name": "a language model", "cost": "3"},
                ],
            }
            for start, end in hours
        ]
        return web.json_response({"object": "list", "data": windows, "next_cursor": "1" if page == 0 else None})

    now = datetime.now(UTC)
    since = min(datetime(2026, 11, 20, 1, 30, tzinfo=UTC), now)
    records = await seller(await serve(usage)).usage(since, [MODEL])
    pages = 2 * len(_months(since, now))
    assert len(asked) == pages
    assert asked[0] == {"month": since.strftime("%Y-%m"), "granularity": "hour", "limit": "1000"}
    assert {record.nano_usd for record in records} == {5_662_310}
    assert {record.request_id for record in records} == {None}
    assert records[0].at == datetime(2026, 11, 20, 1, tzinfo=UTC)


async def test_a_price_is_what_was_billed_last_and_not_told_while_two_were(seller: Start, serve: Serve) -> None:
    hours: list[list[tuple[str, str]]] = [[(MODEL, "0.003"), ("other", "1")], [(MODEL, "0.0027")]]

    async def usage(_: web.Request) -> web.Response:
        windows = [
            {
                "start_time": f"2026-11-20T{hour:02}:00:00Z",
                "end_time": f"2026-11-20T{hour + 1:02}:00:00Z",
                "line_items": [{"product_name": name, "unit_price": price, "cost": "1"} for name, price in lines],
            }
            for hour, lines in reversed(list(enumerate(hours)))
        ]
        return web.json_response({"object": "list", "data": windows, "next_cursor": None})

    together = seller(await serve(usage))
    assert await together.list_prices([MODEL]) == [ListedPrice(endpoint=MODEL, unit="unit billed", nano_usd=2_700_000)]
    hours.append([(MODEL, "0.0027"), (MODEL, "0.004")])
    assert await together.list_prices([MODEL]) == []


def test_months_run_over_the_end_of_a_year() -> None:
    assert _months(datetime(2026, 11, 30, tzinfo=UTC), datetime(2027, 2, 1, tzinfo=UTC)) == [
        "2026-11",
        "2026-12",
        "2027-01",
        "2027-02",
    ]


async def test_checks_key_and_models_without_drawing(seller: Start, serve: Serve) -> None:
    async def models(request: web.Request) -> web.Response:
        assert request.path == "/v1/models"
        return web.json_response([{"id": MODEL, "object": "model", "type": "image"}])

    async def locked(_: web.Request) -> web.Response:
        return web.json_response({"error": {"message": f"Invalid API key {KEY}"}}, status=401)

    together = seller(await serve(models))
    assert list(await together.check([MODEL])) == []
    assert "FLUX.9" in (await together.check(["FLUX.9"]))[0]
    told = (await seller(await serve(locked)).check([MODEL]))[0]
    assert "refuses the key" in told
    assert KEY not in told


async def test_claims_the_abilities_it_has_and_no_other(seller: Start) -> None:
    together = seller("http://127.0.0.1:9")
    assert isinstance(together, ReportsUsage)
    assert isinstance(together, ChecksAccount)
    assert not any(isinstance(together, ability) for ability in (Resumable, Cancels, FindsOrders, CallsBack))
