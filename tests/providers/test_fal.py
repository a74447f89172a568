"""The fal adapter through the real fal-client, against a small fal whose every answer a test can change.

What the sandbox twin can be scripted to do is tested in test_conformance; here is what it cannot.
"""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pybase64
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
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
    ListsPrices,
    Order,
    ReportsUsage,
    Resumable,
    SizeRule,
    Ticket,
    Usage,
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
from providers.fal import Fal, Settings, connect
from providers.sandbox import start
from providers.transport import Http

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
KEY = "11112222-3333-4444-5555-666677778888:abcdefabcdef1234"
PROMPT = "a secret garden at night"
ENDPOINT = "fal-ai/flux/schnell"
ABLE = Abilities(
    sizes=SizeRule(min_side=16, multiple=16),
    max_count=4,
    steps=(1, 12),
    default_steps=4,
    guidance=(1, 20),
    safety_dialect="checker",
)


def picture(width: int = 64, height: int = 48) -> bytes:
    out = io.BytesIO()
    Pillow.effect_noise((width, height), 80).save(out, "PNG")
    return out.getvalue()


class MiniFal:
    """Accepts every order and answers as its fields say."""

    def __init__(self) -> None:
        self.url = ""
        self.submitted: list[tuple[str, dict[str, Any], Mapping[str, str]]] = []
        self.submit: Callable[[], web.Response] | None = None
        self.statuses: list[dict[str, Any] | web.Response] = []
        self.result: Callable[[], web.Response] = self.pictures
        self.files: list[bytes] = [picture()]
        self.asked: list[str] = []
        self.keys: list[dict[str, str]] = []
        self.uploads: list[tuple[bytes, Mapping[str, str]]] = []
        self.storage: list[web.Response] = []

    def pictures(self, count: int = 1, **more: Any) -> web.Response:
        files = [{"url": f"{self.url}/fal/cdn/{n}.png", "width": 64, "height": 48} for n in range(count)]
        return web.json_response({"images": files, "seed": 9, **more})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/fal")
        self.asked.append(f"{request.method} {path}")
        if path.startswith(("/rest/storage/", "/cdn/files/upload")):
            return await self.store(request)
        if request.method == "POST":
            self.submitted.append((request.path_qs, await request.json(), request.headers))
            return self.submit() if self.submit else self.receipt()
        if path.startswith("/cdn/"):
            assert "Authorization" not in request.headers
            return web.Response(body=self.files[min(int(path[5:-4]), len(self.files) - 1)])
        if path.endswith("/status"):
            said = self.statuses.pop(0) if self.statuses else completed()
            return said if isinstance(said, web.Response) else web.json_response(said)
        return self.aside(request, path)

    async def store(self, request: web.Request) -> web.StreamResponse:
        if self.storage:
            return self.storage.pop(0)
        if request.path.endswith("/token"):
            assert request.headers["Authorization"] == f"Key {KEY}"
            stamp = "2099-01-01T00:00:00+00:00"
            return web.json_response({"token": "t1", "token_type": "Bearer", "base_url": "-", "expires_at": stamp})
        self.uploads.append((await request.read(), request.headers))
        return web.json_response({"access_url": f"https://v3.fal.media/files/{len(self.uploads)}.png"})

    def aside(self, request: web.Request, path: str) -> web.Response:
        if path == "/rest/.well-known/jwks.json":
            return web.json_response({"keys": self.keys})
        if path.endswith("/cancel"):
            return web.json_response({"status": "CANCELLATION_REQUESTED"}, status=202)
        return platform(request) if path.startswith("/api/") else self.result()

    def receipt(self) -> web.Response:
        base = f"{self.url}/fal/queue/fal-ai/flux/requests/req-1"
        return web.json_response(
            {
                "status": "IN_QUEUE",
                "request_id": "req-1",
                "queue_position": 0,
                "response_url": base,
                "status_url": f"{base}/status",
                "cancel_url": f"{base}/cancel",
            }
        )


def platform(request: web.Request) -> web.Response:
    """Prices and billing events, one to a page."""
    if request.headers.get("Authorization") != f"Key {KEY}":
        return web.json_response({"detail": "No user found for Key ID and Secret"}, status=401)
    page = int(request.query.get("cursor", "0"))
    following = {"next_cursor": "1" if page == 0 else None, "has_more": page == 0}
    if request.path.endswith("pricing"):
        unit = "image" if page else "megapixels"
        price = {"endpoint_id": f"e{page}", "unit_price": 0.0031, "unit": unit, "currency": "USD"}
        return web.json_response({"prices": [price], **following})
    if request.path.endswith("models"):
        models = [{"endpoint_id": f"e{page}"}, {"endpoint_id": "e8", "metadata": {"status": "deprecated"}}]
        return web.json_response({"models": models, **following})
    event = {
        "request_id": f"r{page}",
        "endpoint_id": "e0",
        "timestamp": "2026-11-21T10:00:00Z",
        "output_units": 1.5,
        "unit_price": 0.001,
        "percent_discount": 10,
        "cost_estimate_nano_usd": 1_350_000,
    }
    return web.json_response({"billing_events": [event], **following})


def completed(**more: Any) -> dict[str, Any]:
    return {"status": "COMPLETED", "logs": None, "metrics": {"inference_time": 0.5}, **more}


def refusal(status: int, detail: object, **headers: str) -> Callable[[], web.Response]:
    return lambda: web.json_response({"detail": detail}, status=status, headers=headers)


@pytest.fixture
async def twin(serve: Serve) -> MiniFal:
    made = MiniFal()
    made.url = await serve(made.answer)
    return made


@pytest.fixture
async def fal(http: Http, twin: MiniFal) -> AsyncIterator[Fal]:
    made = connect("studio", settings(twin), http)
    yield made
    await made.aclose()


def settings(twin: MiniFal, **more: Any) -> Settings:
    quick = {"poll_first": 0.01, "poll_max": 0.02, "poll_called_back": 5.0}
    return Settings.model_validate({"key": KEY, "base_url": f"{twin.url}/fal", **quick, **more})


def order(*, able: Abilities = ABLE, limit_s: float = 5, callback_url: str | None = None, **wish: Any) -> Order:
    request = ImageRequest(**{"prompt": PROMPT, "width": 64, "height": 48, "seed": 7, **wish})
    return Order(
        attempt_id="att-1",
        endpoint=ENDPOINT,
        abilities=able,
        request=request,
        timeout=limit_s,
        callback_url=callback_url,
    )


async def draw(fal: Fal, asked: Order | None = None) -> tuple[Generation, list[Ticket]]:
    tickets: list[Ticket] = []

    async def accept(ticket: Ticket) -> None:
        tickets.append(ticket)

    return await fal.generate(asked or order(), accept), tickets


async def outcome(fal: Fal, asked: Order | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await draw(fal, asked)
    return caught.value


EDITS = Abilities(
    operations=("edit",),
    sizes=SizeRule(min_side=16, multiple=16),
    references=(1, 1),
    input_dialect="image_url",
    size_dialect="input",
    mask=True,
    strength=(0.0, 1.0),
)


def given(width: int = 64, height: int = 48, mode: str = "RGB") -> Input:
    out = io.BytesIO()
    Pillow.new(mode, (width, height)).save(out, "PNG")
    return Input(out.getvalue(), Head("png", width, height))


def edit(*inputs: Input, mask: Input | None = None, able: Abilities = EDITS, **wish: Any) -> Order:
    sizes = tuple((each.head.width, each.head.height) for each in inputs)
    asked = order(able=able, operation="edit", references=sizes, mask=mask is not None, **wish)
    return replace(asked, inputs=inputs, mask=mask)


async def test_a_small_input_travels_inside_the_order(fal: Fal, twin: MiniFal) -> None:
    generation, _ = await draw(fal, edit(given(), strength=0.4))
    _, body, _ = twin.submitted[0]
    assert pybase64.b64decode(body["image_url"].removeprefix("data:image/png;base64,")) == given().data
    assert (body["strength"], body["prompt"], twin.uploads) == (0.4, PROMPT, [])
    assert not body.keys() & {"image_size", "mask_url", "aspect_ratio"}
    assert generation.usage.references == ((64, 48),)


async def test_a_large_input_is_uploaded_before_the_order_with_one_token_for_many(http: Http, twin: MiniFal) -> None:
    fal = connect("studio", settings(twin, inline_inputs=0), http)
    able = replace(EDITS, references=(1, 4), input_dialect="image_urls")
    await draw(fal, edit(given(), given(32, 32), able=able))
    await draw(fal, edit(given(), able=able))
    await fal.aclose()
    assert twin.submitted[0][1]["image_urls"] == [f"https://v3.fal.media/files/{n}.png" for n in (1, 2)]
    assert twin.submitted[1][1]["image_urls"] == ["https://v3.fal.media/files/3.png"]
    assert sum(asked.endswith("/token") for asked in twin.asked) == 1
    data, headers = twin.uploads[0]
    assert (data, headers["Content-Type"], headers["Authorization"]) == (given().data, "image/png", "Bearer t1")
    assert headers["X-Fal-Object-Lifecycle"] == '{"expiration_duration_seconds":3600}'


async def test_what_a_mask_leaves_transparent_is_white_in_fals_mask(fal: Fal, twin: MiniFal) -> None:
    await draw(fal, edit(given(), mask=given(mode="RGBA")))
    sent = pybase64.b64decode(twin.submitted[0][1]["mask_url"].partition(",")[2])
    with Pillow.open(io.BytesIO(sent)) as seen:
        assert (seen.mode, seen.size, seen.getextrema()) == ("L", (64, 48), (255, 255))


async def test_a_removed_background_needs_no_prompt_and_is_one_image(fal: Fal, twin: MiniFal) -> None:
    twin.result = lambda: web.json_response({"image": {"url": f"{twin.url}/fal/cdn/0.png"}})
    able = replace(EDITS, operations=("remove_background",), seed=False, formats=("png",), strength=None, mask=False)
    asked = edit(given(), able=able)
    generation, _ = await draw(fal, replace(asked, request=replace(asked.request, operation="remove_background")))
    assert twin.submitted[0][1].keys() == {"image_url"}
    assert len(generation.images) == 1


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([web.Response(status=403)], Misconfigured),
        ([web.Response(status=413)], Unavailable),
        ([web.Response(status=503)] * 3, Unavailable),
        ([web.json_response({"token": 1})], Unavailable),
    ],
)
async def test_an_input_that_cannot_be_uploaded_orders_nothing(
    http: Http, twin: MiniFal, answers: list[web.Response], kind: type[ProviderError]
) -> None:
    twin.storage = answers
    fal = connect("studio", settings(twin, inline_inputs=0), http)
    error = await outcome(fal, edit(given()))
    await fal.aclose()
    assert (type(error), error.owed, twin.submitted) == (kind, "nothing", [])


async def test_an_upload_that_failed_for_a_moment_is_repeated(http: Http, twin: MiniFal) -> None:
    twin.storage = [web.Response(status=503)]
    fal = connect("studio", settings(twin, inline_inputs=0), http)
    await draw(fal, edit(given()))
    await fal.aclose()
    assert (len(twin.uploads), len(twin.submitted)) == (1, 1)


async def test_says_the_order_in_fals_words_once(fal: Fal, twin: MiniFal) -> None:
    generation, tickets = await draw(fal, order(guidance=3.0, format="png"))
    path, body, headers = twin.submitted[0]
    assert len(twin.submitted) == 1
    assert path == f"/fal/queue/{ENDPOINT}"
    assert body == {
        "prompt": PROMPT,
        "image_size": {"width": 64, "height": 48},
        "num_images": 1,
        "seed": 7,
        "num_inference_steps": 4,
        "guidance_scale": 3.0,
        "output_format": "png",
        "enable_safety_checker": True,
    }
    assert headers["Authorization"] == f"Key {KEY}"
    assert headers["X-Fal-No-Retry"] == "1"
    assert headers["X-Fal-Disable-Fallbacks"] == "true"
    assert tickets[0].id == "req-1"
    assert generation.ticket == tickets[0]
    assert (generation.images[0].seed, generation.run_s) == (9, 0.5)


@pytest.mark.parametrize(
    ("able", "wish", "body"),
    [
        (
            Abilities(sizes=SizeRule(named={"4:3": (64, 48)}), size_dialect="aspect_ratio", safety_dialect="tolerance"),
            {"safety": "relaxed"},
            {"prompt": PROMPT, "aspect_ratio": "4:3", "seed": 7, "output_format": "png", "safety_tolerance": "5"},
        ),
        (
            Abilities(sizes=SizeRule(named={"64x48": (64, 48)}), seed=False, formats=("webp",), fixed={"style": "any"}),
            {"steps": 9},
            {"prompt": PROMPT, "image_size": {"width": 64, "height": 48}, "style": "any"},
        ),
    ],
)
async def test_keeps_to_what_the_endpoint_understands(
    fal: Fal, twin: MiniFal, able: Abilities, wish: dict[str, Any], body: dict[str, Any]
) -> None:
    await draw(fal, order(able=able, **wish))
    assert twin.submitted[0][1] == body


@pytest.mark.parametrize(
    "wish", [{"width": 72}, {"count": 5}, {"operation": "edit"}, {"able": Abilities(size_dialect="aspect_ratio")}]
)
async def test_refuses_what_cannot_be_said_without_asking(fal: Fal, twin: MiniFal, wish: dict[str, Any]) -> None:
    assert isinstance(await outcome(fal, order(**wish)), Unsupported)
    assert twin.asked == []


@pytest.mark.parametrize(
    ("status", "detail", "headers", "kind", "owed"),
    [
        (401, "No user", {}, Misconfigured, "nothing"),
        (403, "User is locked. Reason: Exhausted balance.", {}, Misconfigured, "nothing"),
        (404, "Application not found", {}, Retired, "nothing"),
        (408, "slow", {}, Unavailable, "nothing"),
        (409, "conflict", {}, Unavailable, "nothing"),
        (422, [{"loc": ["body", "x"], "msg": "no", "type": "missing"}], {}, Unsupported, "nothing"),
        (422, [{"msg": "no", "type": "content_policy_violation"}], {}, ContentRefused, "nothing"),
        (429, "queue full", {"Retry-After": "2"}, Overloaded, "nothing"),
        (500, "internal", {}, Unavailable, "nothing"),
        (503, "nginx", {}, Unavailable, "nothing"),
        (502, "nginx", {}, OutcomeUnknown, "unknown"),
        (504, "nginx", {}, OutcomeUnknown, "unknown"),
        (504, "startup_timeout", {"x-fal-request-id": "r"}, Unavailable, "nothing"),
    ],
)
async def test_a_refused_submission_is_asked_once_and_has_its_meaning(
    fal: Fal,
    twin: MiniFal,
    *,
    status: int,
    detail: object,
    headers: dict[str, str],
    kind: type[ProviderError],
    owed: str,
) -> None:
    twin.submit = refusal(status, detail, **headers)
    error = await outcome(fal)
    assert type(error) is kind
    assert (error.owed, error.status) == (owed, status)
    assert error.retry_after == (2 if headers.get("Retry-After") else None)
    assert len(twin.submitted) == 1


async def test_a_receipt_that_cannot_be_read_leaves_the_outcome_unknown(fal: Fal, twin: MiniFal) -> None:
    twin.submit = lambda: web.Response(text="<html>", content_type="text/html")
    assert isinstance(await outcome(fal), OutcomeUnknown)
    assert len(twin.submitted) == 1


async def test_a_receipt_that_leads_to_another_host_gets_no_key(fal: Fal, twin: MiniFal) -> None:
    evil = {"request_id": "r", "status_url": "http://127.0.0.1:9/s", "response_url": "x:/", "cancel_url": "x:/"}
    twin.submit = lambda: web.json_response(evil)
    error = await outcome(fal)
    assert isinstance(error, OutcomeUnknown)
    assert error.ticket is not None


async def test_statuses_may_hiccup_and_are_asked_again(fal: Fal, twin: MiniFal) -> None:
    twin.statuses = [
        {"status": "IN_QUEUE", "queue_position": 3},
        web.Response(status=500),
        web.Response(text="<html>"),
        {"status": "IN_PROGRESS"},
        {"status": "IN_PROGRESS", "logs": None},
        completed(),
    ]
    generation, _ = await draw(fal)
    assert len(generation.images) == 1
    assert generation.queue_s is not None
    assert 0 < generation.queue_s < 1
    assert len(twin.submitted) == 1


@pytest.mark.parametrize(
    ("end", "status", "detail", "kind", "owed"),
    [
        ({"error": "x"}, 422, [{"msg": "unsafe", "type": "content_policy_violation"}], ContentRefused, "nothing"),
        ({"error": "x"}, 422, [{"loc": ["body"], "msg": "odd", "type": "value_error"}], Unsupported, "nothing"),
        ({"error_type": "runner_error"}, 500, "broken", Failed, "nothing"),
        ({"error": "x"}, 404, "gone", Failed, "unknown"),
        ({}, 503, "hiccup", Failed, "unknown"),
    ],
)
async def test_an_error_in_place_of_the_result_has_its_meaning(
    fal: Fal,
    twin: MiniFal,
    *,
    end: dict[str, str],
    status: int,
    detail: object,
    kind: type[ProviderError],
    owed: str,
) -> None:
    twin.statuses = [completed(**end)]
    twin.result = refusal(status, detail)
    error = await outcome(fal)
    assert type(error) is kind
    assert error.owed == owed
    assert error.ticket is not None


async def test_a_result_that_cannot_be_read_owes_what_was_ordered(fal: Fal, twin: MiniFal) -> None:
    twin.result = lambda: web.Response(text="<html>")
    error = await outcome(fal, order(count=2))
    assert isinstance(error, BadDelivery)
    assert error.owed == Usage(images=((64, 48), (64, 48)), steps=4)


@pytest.mark.parametrize(("made", "owed"), [(0, ()), (1, ((64, 48),)), (3, ((64, 48),) * 3)])
async def test_a_wrong_count_owes_what_was_made(
    fal: Fal, twin: MiniFal, made: int, owed: tuple[tuple[int, int], ...]
) -> None:
    twin.result = lambda: twin.pictures(made)
    error = await outcome(fal, order(count=2))
    assert isinstance(error, BadDelivery)
    assert error.owed == Usage(images=owed, steps=4)


async def test_a_truncated_file_is_fetched_again_then_owed(fal: Fal, twin: MiniFal) -> None:
    twin.files = [picture()[:-20]]
    error = await outcome(fal)
    assert isinstance(error, BadDelivery)
    assert error.owed == Usage(images=((64, 48),), steps=4)
    assert twin.asked.count("GET /cdn/0.png") == 4


async def test_a_file_on_a_strange_host_is_not_fetched_but_owed(fal: Fal, twin: MiniFal) -> None:
    files = [{"url": "http://169.254.169.254/latest", "width": 32, "height": 32}]
    twin.result = lambda: web.json_response({"images": files})
    error = await outcome(fal)
    assert isinstance(error, BadDelivery)
    assert error.owed == Usage(images=((32, 32),), steps=4)
    assert "169.254" not in str(error)


async def test_flags_travel_with_their_picture(fal: Fal, twin: MiniFal) -> None:
    twin.result = lambda: twin.pictures(2, has_nsfw_concepts=[False, True])
    generation, _ = await draw(fal, order(count=2))
    assert [image.flagged for image in generation.images] == [False, True]


async def test_pictures_may_come_inside_the_answer(http: Http, twin: MiniFal) -> None:
    uri = "data:image/png;base64," + pybase64.b64encode(picture()).decode()
    twin.result = lambda: web.json_response({"images": [{"url": uri}]})
    fal = connect("studio", settings(twin, sync_mode=True), http)
    generation, _ = await draw(fal)
    await fal.aclose()
    assert twin.submitted[0][1]["sync_mode"] is True
    assert generation.usage.images == ((64, 48),)
    assert not any("cdn" in path for path in twin.asked)


async def test_an_order_that_does_not_end_times_out_with_its_ticket(fal: Fal, twin: MiniFal) -> None:
    twin.statuses = [{"status": "IN_PROGRESS", "logs": None} for _ in range(99)]
    error = await outcome(fal, order(limit_s=0.2))
    assert isinstance(error, TimedOut)
    assert error.owed == "unknown"
    assert error.ticket is not None


async def test_a_ticket_is_enough_to_bring_pictures_home(fal: Fal, twin: MiniFal) -> None:
    _, tickets = await draw(fal)
    generation = await fal.resume(order(), tickets[0])
    assert len(generation.images) == 1
    assert len(twin.submitted) == 1


async def test_leaving_sends_nothing(fal: Fal, twin: MiniFal) -> None:
    twin.statuses = [{"status": "IN_PROGRESS", "logs": None} for _ in range(99)]
    task = asyncio.create_task(draw(fal))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(asked.startswith("PUT") for asked in twin.asked)


async def test_cancelling_says_what_is_known_about_the_money(fal: Fal, twin: MiniFal) -> None:
    _, tickets = await draw(fal)
    assert await fal.cancel(tickets[0]) == "running"
    nowhere = {"response_url": "http://127.0.0.1:9/", "status_url": "http://127.0.0.1:9/", "cancel_url": "http://x/"}
    assert await fal.cancel(Ticket("gone", nowhere)) == "unknown"


async def test_prices_and_usage_are_read_page_by_page_exactly(fal: Fal) -> None:
    prices = await fal.list_prices(["e0", "e1"])
    assert [(price.endpoint, price.unit, price.nano_usd) for price in prices] == [
        ("e0", "megapixels", 3_100_000),
        ("e1", "image", 3_100_000),
    ]
    records = await fal.usage(datetime(2026, 11, 1, tzinfo=UTC), ["e0"])
    assert [(record.request_id, record.nano_usd) for record in records] == [("r0", 1_350_000), ("r1", 1_350_000)]


async def test_checks_key_and_endpoints_without_drawing(http: Http, fal: Fal, twin: MiniFal) -> None:
    assert list(await fal.check(["e0", "e1"])) == []
    assert list(await fal.check(["e0", "e8", "e9"])) == [
        "fal has no endpoint e8 any more",
        "fal has no endpoint e9 any more",
    ]
    stranger = connect("x", settings(twin, key="11112222-3333-4444-5555-666677778888:wrong0wrong0"), http)
    assert "refuses the key" in (await stranger.check(["e0"]))[0]
    await stranger.aclose()


async def test_claims_the_abilities_it_has_and_no_other(fal: Fal) -> None:
    claims = (Resumable, Cancels, ListsPrices, ReportsUsage, CallsBack, ChecksAccount)
    assert all(isinstance(fal, ability) for ability in claims)
    assert not isinstance(fal, FindsOrders)


async def test_keys_and_prompts_never_reach_the_error(fal: Fal, twin: MiniFal) -> None:
    twin.submit = refusal(422, [{"loc": ["body"], "msg": f"{PROMPT} with Key {KEY}", "type": "x", "input": PROMPT}])
    text = str(await outcome(fal))
    assert PROMPT not in text
    assert "abcdefabcdef1234" not in text
    assert "body" in text


SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
VECTOR_STAMP = 1763683200
VECTOR_BODY = (
    b'{"request_id":"req-1","gateway_request_id":"req-1","status":"OK",'
    b'"payload":{"images":[{"url":"http://127.0.0.1/i.png"}]}}'
)
VECTOR = {
    "X-Fal-Webhook-Request-Id": "req-1",
    "X-Fal-Webhook-User-Id": "user-1",
    "X-Fal-Webhook-Timestamp": str(VECTOR_STAMP),
    "X-Fal-Webhook-Signature": "5e0ef2e073232e8821304979c6c1bf02287e1543ea96e02fced7721af1d15142"
    "a3901bdadf0b07c8cfb1cfb5323c61c31e1e1f5a3ac3031addc2059a35b0630b",
}
OTHER_KEY = {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}
RIGHT_KEY = {"kty": "OKP", "crv": "Ed25519", "x": "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"}


@pytest.fixture
async def called(http: Http, twin: MiniFal) -> AsyncIterator[Fal]:
    """An adapter whose wall clock stands at the stamp of the test vector."""
    twin.keys = [OTHER_KEY, RIGHT_KEY]
    made = Fal("studio", settings(twin), http, wall_clock=lambda: VECTOR_STAMP + 299.0)
    yield made
    await made.aclose()


async def test_trusts_the_published_vector_and_keeps_its_keys(called: Fal, twin: MiniFal) -> None:
    assert await called.read_callback(VECTOR, VECTOR_BODY)
    assert await called.read_callback({name.lower(): value for name, value in VECTOR.items()}, VECTOR_BODY)
    assert twin.asked.count("GET /rest/.well-known/jwks.json") == 1


@pytest.mark.parametrize(
    ("change", "body"),
    [
        ({}, VECTOR_BODY + b" "),
        ({"X-Fal-Webhook-Signature": "00" * 64}, VECTOR_BODY),
        ({"X-Fal-Webhook-Signature": "zz"}, VECTOR_BODY),
        ({"X-Fal-Webhook-Request-Id": "req-2"}, VECTOR_BODY),
        ({"X-Fal-Webhook-Timestamp": str(VECTOR_STAMP - 2)}, VECTOR_BODY),
        ({"X-Fal-Webhook-Timestamp": "²"}, VECTOR_BODY),
        ({"X-Fal-Webhook-Timestamp": ""}, VECTOR_BODY),
    ],
)
async def test_distrusts_everything_else(called: Fal, twin: MiniFal, change: dict[str, str], body: bytes) -> None:
    assert not await called.read_callback({**VECTOR, **change}, body)
    assert twin.asked.count("GET /rest/.well-known/jwks.json") <= 1


async def test_forged_callbacks_ask_for_keys_once_a_minute_at_most(called: Fal, twin: MiniFal) -> None:
    for _ in range(5):
        assert not await called.read_callback(VECTOR, b"{}")
    assert twin.asked.count("GET /rest/.well-known/jwks.json") == 1


def signed(request_id: str) -> tuple[dict[str, str], bytes]:
    import hashlib  # only here

    body, stamp = json.dumps({"request_id": request_id, "status": "OK"}).encode(), str(int(time.time()))
    message = f"{request_id}\nu\n{stamp}\n{hashlib.sha256(body).hexdigest()}".encode()
    headers = {"request-id": request_id, "user-id": "u", "timestamp": stamp, "signature": SIGNER.sign(message).hex()}
    return {f"x-fal-webhook-{name}": value for name, value in headers.items()}, body


@pytest.mark.parametrize("early", [True, False])
async def test_a_callback_wakes_its_order_even_when_it_comes_before_the_ticket(
    fal: Fal, twin: MiniFal, *, early: bool
) -> None:
    twin.keys = [RIGHT_KEY]
    started = time.monotonic()
    if early:
        assert await fal.read_callback(*signed("req-1"))
    task = asyncio.create_task(draw(fal, order(callback_url="http://gateway.example/hooks/fal")))
    if not early:
        await asyncio.sleep(0.2)
        assert await fal.read_callback(*signed("req-1"))
    generation, _ = await task
    assert await fal.read_callback(*signed("req-1"))
    assert len(generation.images) == 1
    assert time.monotonic() - started < 3
    assert twin.submitted[0][0].endswith("?fal_webhook=http%3A%2F%2Fgateway.example%2Fhooks%2Ffal")


@pytest.mark.parametrize("fault", [None, "dup_webhook", "lost_webhook"])
async def test_the_twins_own_callbacks_are_trusted_and_a_lost_one_is_made_up_for(
    http: Http, serve: Serve, fault: str | None
) -> None:
    heard: list[bool] = []

    async def hook(request: web.Request) -> web.Response:
        heard.append(await studio.read_callback(request.headers, await request.read()))
        return web.Response(status=200 if heard[-1] else 401)

    async with await start(time_scale=0.01, pictures="plain") as sandbox:
        sandbox.script([{"provider": "fal", "do": fault}] if fault else [])
        wait = 0.3 if fault == "lost_webhook" else 30.0
        base = {"key": "sandbox-hooked", "base_url": f"{sandbox.url}/fal", "poll_called_back": wait}
        studio = connect("studio", Settings.model_validate(base), http)
        generation, _ = await draw(studio, order(width=512, height=512, callback_url=f"{await serve(hook)}/hooks/fal"))
        await asyncio.sleep(0.2)
        await studio.aclose()
    assert len(generation.images) == 1
    assert heard == {None: [True], "dup_webhook": [True, True], "lost_webhook": []}[fault]


async def test_an_order_whose_receipt_is_late_is_still_one_order(http: Http) -> None:
    async with await start(time_scale=0.01, pictures="plain") as sandbox:
        sandbox.script([{"provider": "fal", "do": "late_accept"}])
        key = {"key": "sandbox-late", "base_url": f"{sandbox.url}/fal"}
        fal = connect("studio", Settings.model_validate(key), http)
        error = await outcome(fal, order(width=512, height=512))
        await asyncio.sleep(0.3)
        records = await fal.usage(datetime(2026, 1, 1, tzinfo=UTC), [ENDPOINT])
        await fal.aclose()
    assert isinstance(error, OutcomeUnknown)
    assert [record.nano_usd for record in records] == [3_000_000]


async def test_what_waits_in_the_queue_is_cancelled_unbilled_and_what_runs_is_not(http: Http) -> None:
    async with await start(time_scale=1.0, pictures="plain") as sandbox:
        sandbox.script({"limits": {"fal": {"concurrency": 1}}})
        key = {"key": "sandbox-queue", "base_url": f"{sandbox.url}/fal", "poll_first": 0.02, "poll_max": 0.02}
        fal = connect("studio", Settings.model_validate(key), http)
        tickets: asyncio.Queue[Ticket] = asyncio.Queue()
        orders = [asyncio.create_task(fal.generate(order(width=512, height=512), tickets.put)) for _ in range(2)]
        first, second = await tickets.get(), await tickets.get()
        outcomes = {await fal.cancel(first), await fal.cancel(second)}
        for task in orders:
            task.cancel()
        await asyncio.gather(*orders, return_exceptions=True)
        await fal.aclose()
    assert outcomes == {"running", "unbilled"}
