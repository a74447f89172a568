"""The Replicate adapter through the real SDK, against a small Replicate whose every answer a test can change.

What the sandbox twin can be scripted to do is tested in test_conformance; here is what it cannot.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import io
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import msgspec
import pybase64
import pytest
from aiohttp import web
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
    Lora,
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
from providers.replicate import Replicate, Settings, connect
from providers.sandbox import Sandbox, start
from providers.sandbox.endpoints import BACKGROUND_REMOVER
from providers.transport import Http

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
KEY = "r8_secretsecretsecret1234"
PROMPT = "a secret garden at night"
ENDPOINT = "black-forest-labs/flux-schnell"
VERSION = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"
ABLE = Abilities(
    sizes=SizeRule(named={"4:3 0.25": (64, 48)}),
    max_count=4,
    formats=("jpeg", "png", "webp"),
    steps=(1, 4),
    default_steps=4,
    size_dialect="aspect_ratio_megapixels",
    safety_dialect="disable_checker",
    fixed={"go_fast": False},
)
NOON = "2026-11-21T12:00:0"


def picture(width: int = 64, height: int = 48) -> bytes:
    out = io.BytesIO()
    Pillow.effect_noise((width, height), 80).save(out, "PNG")
    return out.getvalue()


class MiniReplicate:
    """Takes every order and answers as its fields say."""

    def __init__(self) -> None:
        self.url = ""
        self.created: list[tuple[str, dict[str, Any], Mapping[str, str]]] = []
        self.create: Callable[[], web.Response] | None = None
        self.looks: list[dict[str, Any] | web.Response] = []
        self.end: dict[str, Any] = {}
        self.cancel: Callable[[], web.Response] = lambda: web.json_response(self.prediction("canceled"))
        self.files: list[bytes] = [picture()]
        self.listed: list[dict[str, Any]] = []
        self.upload: Callable[[], web.Response] | None = None
        self.uploads: list[bytes] = []
        self.asked: list[str] = []
        self.secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"  # the published test vector's

    def prediction(self, status: str = "succeeded", **more: Any) -> dict[str, Any]:
        return {
            "id": "p1",
            "model": ENDPOINT,
            "version": "hidden",
            "status": status,
            "input": {},
            "output": [f"{self.url}/delivery/0.png"] if status == "succeeded" else None,
            "error": None,
            "logs": "",
            "metrics": {"predict_time": 0.75, "image_count": 1} if status == "succeeded" else {},
            "created_at": f"{NOON}0.000000Z",
            "started_at": f"{NOON}2.500000Z" if status != "starting" else None,
            "completed_at": None,
            "urls": {"get": "https://evil.example/p1", "cancel": "https://evil.example/p1/cancel"},
            **more,
        }

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.asked.append(f"{request.method} {path}")
        if path.startswith("/delivery/"):
            assert "Authorization" not in request.headers
            return web.Response(body=self.files[min(int(path[10:-4]), len(self.files) - 1)])
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.json_response({"title": "Unauthenticated", "detail": "no", "status": 401}, status=401)
        if request.method == "POST":
            return await self.post(request, path)
        if path == "/v1/predictions/p1":
            said = self.looks.pop(0) if self.looks else self.prediction(**self.end)
            return said if isinstance(said, web.Response) else web.json_response(said)
        return self.aside(request, path)

    async def post(self, request: web.Request, path: str) -> web.Response:
        if path.endswith("/cancel"):
            return self.cancel()
        if path == "/v1/files":
            form = await request.post()
            if self.upload is not None:
                return self.upload()
            content = form["content"]
            assert isinstance(content, web.FileField)
            self.uploads.append(content.file.read())
            url = f"https://api.replicate.com/v1/files/f{len(self.uploads)}"
            return web.json_response({"id": "f", "urls": {"get": url}}, status=201)
        self.created.append((path, await request.json(), request.headers))
        return self.create() if self.create else web.json_response(self.prediction("starting"), status=201)

    def aside(self, request: web.Request, path: str) -> web.Response:
        if path == "/v1/predictions":
            rest = self.listed[1:] if "cursor" not in request.query else []
            page = self.listed[:1] if "cursor" not in request.query else self.listed[1:]
            following = "https://evil.example/v1/predictions?cursor=2" if rest else None
            return web.json_response({"previous": None, "next": following, "results": page})
        if path == "/v1/webhooks/default/secret":
            return web.json_response({"key": self.secret})
        if path in {"/v1/account", f"/v1/models/{ENDPOINT}", f"/v1/models/{ENDPOINT}/versions/{VERSION}"}:
            return web.json_response({})
        return web.json_response({"detail": "The requested resource could not be found.", "status": 404}, status=404)


def refusal(status: int, **body: Any) -> Callable[[], web.Response]:
    return lambda: web.json_response({"status": status, **body}, status=status)


@pytest.fixture
async def twin(serve: Serve) -> MiniReplicate:
    made = MiniReplicate()
    made.url = await serve(made.answer)
    return made


@pytest.fixture
async def studio(http: Http, twin: MiniReplicate) -> AsyncIterator[Replicate]:
    made = connect("studio", settings(twin), http)
    yield made
    await made.aclose()


def settings(twin: MiniReplicate, **more: Any) -> Settings:
    quick = {"poll_first": 0.01, "poll_max": 0.02, "poll_called_back": 5.0}
    return Settings.model_validate({"key": KEY, "base_url": twin.url, **quick, **more})


def order(
    *,
    able: Abilities = ABLE,
    endpoint: str = ENDPOINT,
    limit_s: float = 5,
    callback_url: str | None = None,
    inputs: tuple[Input, ...] = (),
    mask: Input | None = None,
    **wish: Any,
) -> Order:
    request = ImageRequest(**{"prompt": PROMPT, "width": 64, "height": 48, "seed": 7, **wish})
    return Order(
        attempt_id="att-1",
        endpoint=endpoint,
        abilities=able,
        request=request,
        timeout=limit_s,
        callback_url=callback_url,
        inputs=inputs,
        mask=mask,
    )


async def draw(studio: Replicate, asked: Order | None = None) -> tuple[Generation, list[Ticket]]:
    tickets: list[Ticket] = []

    async def accept(ticket: Ticket) -> None:
        tickets.append(ticket)

    return await studio.generate(asked or order(), accept), tickets


async def outcome(studio: Replicate, asked: Order | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await draw(studio, asked)
    return caught.value


async def test_says_the_order_in_replicates_words_once(studio: Replicate, twin: MiniReplicate) -> None:
    generation, tickets = await draw(studio, order(format="jpeg"))
    path, body, headers = twin.created[0]
    assert len(twin.created) == 1
    assert path == f"/v1/models/{ENDPOINT}/predictions"
    assert body == {
        "input": {
            "prompt": PROMPT,
            "aspect_ratio": "4:3",
            "megapixels": "0.25",
            "num_outputs": 1,
            "seed": 7,
            "num_inference_steps": 4,
            "output_format": "jpg",
            "disable_safety_checker": False,
            "go_fast": False,
        }
    }
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["Cancel-After"] == "5s"
    assert headers["X-Pixelgate-Attempt"] == "att-1"
    assert "Prefer" not in headers
    assert tickets == [Ticket("p1", {"endpoint": ENDPOINT})]
    assert generation.ticket == tickets[0]
    assert (generation.images[0].seed, generation.run_s, generation.queue_s) == (7, 0.75, 2.5)
    assert generation.usage.machine_ns == 750_000_000


@pytest.mark.parametrize("endpoint", [f"someone/sdxl:{VERSION}", VERSION])
async def test_a_version_is_ordered_by_its_hash(studio: Replicate, twin: MiniReplicate, endpoint: str) -> None:
    await draw(studio, order(endpoint=endpoint))
    path, body, headers = twin.created[0]
    assert (path, body["version"], headers["Cancel-After"]) == ("/v1/predictions", VERSION, "5s")


PRO = Abilities(sizes=SizeRule(min_side=16, multiple=16), size_dialect="custom_ratio", safety_dialect="tolerance")


@pytest.mark.parametrize(
    ("able", "wish", "given"),
    [
        (PRO, {"safety": "relaxed"}, {"aspect_ratio": "custom", "width": 64, "height": 48, "safety_tolerance": 5}),
        (PRO, {"safety": "strict"}, {"aspect_ratio": "custom", "width": 64, "height": 48, "safety_tolerance": 1}),
        (
            Abilities(sizes=SizeRule(named={"4:3": (64, 48)}), size_dialect="aspect_ratio", formats=("png",)),
            {"steps": 9, "guidance": 2.0},
            {"aspect_ratio": "4:3"},
        ),
        (
            Abilities(size_dialect="width_height", sizes=SizeRule(min_side=16), seed=False, guidance=(0, 10), loras=1),
            {"guidance": 2.0, "loras": (Lora("someone/style", 0.5),)},
            {"width": 64, "height": 48, "guidance": 2.0, "lora_weights": "someone/style", "lora_scale": 0.5},
        ),
        (
            Abilities(size_dialect="size", sizes=SizeRule(named={"64x48": (64, 48)}), formats=("webp",)),
            {},
            {"size": "64x48"},
        ),
    ],
)
async def test_keeps_to_what_the_model_understands(
    studio: Replicate, twin: MiniReplicate, able: Abilities, wish: dict[str, Any], given: dict[str, Any]
) -> None:
    await draw(studio, order(able=able, **wish))
    seed = {"seed": 7} if able.seed else {}
    chosen = {"output_format": "png"} if len(able.formats) > 1 else {}
    assert twin.created[0][1]["input"] == {"prompt": PROMPT, **seed, **chosen, **given}


@pytest.mark.parametrize(
    "wish",
    [
        {"width": 72},
        {"count": 5},
        {"operation": "edit"},
        {"loras": (Lora("a"), Lora("b"))},
        {"able": Abilities(size_dialect="image_size", sizes=SizeRule(min_side=16))},
        {"able": Abilities(size_dialect="aspect_ratio", sizes=SizeRule(min_side=16))},
        {"able": Abilities(size_dialect="width_height", sizes=SizeRule(min_side=16), safety_dialect="checker")},
    ],
)
async def test_refuses_what_cannot_be_said_without_asking(
    studio: Replicate, twin: MiniReplicate, wish: dict[str, Any]
) -> None:
    assert isinstance(await outcome(studio, order(**wish)), Unsupported)
    assert twin.asked == []


@pytest.mark.parametrize(
    ("status", "body", "kind", "owed", "wait"),
    [
        (401, {"title": "Unauthenticated", "detail": "no"}, Misconfigured, "nothing", None),
        (402, {"title": "Insufficient credit", "detail": "buy some"}, Misconfigured, "nothing", None),
        (404, {"detail": "The requested resource could not be found."}, Retired, "nothing", None),
        (
            422,
            {"title": "Input validation failed", "detail": "- input.prompt: required\n"},
            Unsupported,
            "nothing",
            None,
        ),
        (422, {"title": "Invalid version or not permitted", "detail": "gone"}, Retired, "nothing", None),
        (429, {"detail": "Request was throttled.", "retry_after": 5}, Overloaded, "nothing", 5.0),
        (500, {"detail": "internal"}, Unavailable, "nothing", None),
        (503, {"detail": "busy"}, Unavailable, "nothing", None),
    ],
)
async def test_a_refused_creation_is_asked_once_and_has_its_meaning(
    studio: Replicate,
    twin: MiniReplicate,
    *,
    status: int,
    body: dict[str, Any],
    kind: type[ProviderError],
    owed: str,
    wait: float | None,
) -> None:
    twin.create = refusal(status, **body)
    error = await outcome(studio)
    assert type(error) is kind
    assert (error.owed, error.status, error.retry_after) == (owed, status, wait)
    assert len(twin.created) == 1


@pytest.mark.parametrize("status", [500, 502, 504, 524])
async def test_a_proxys_word_leaves_the_outcome_unknown(studio: Replicate, twin: MiniReplicate, status: int) -> None:
    twin.create = lambda: web.Response(status=status, text="<html>cloudflare</html>", content_type="text/html")
    assert isinstance(await outcome(studio), OutcomeUnknown)
    assert len(twin.created) == 1


@pytest.mark.parametrize("body", ["<html>", "[]", '{"status": "starting"}', '{"id": null, "status": "starting"}'])
async def test_a_receipt_that_cannot_be_read_leaves_the_outcome_unknown(
    studio: Replicate, twin: MiniReplicate, body: str
) -> None:
    twin.create = lambda: web.Response(status=201, text=body, content_type="application/json")
    assert isinstance(await outcome(studio), OutcomeUnknown)
    assert len(twin.created) == 1


async def test_looks_may_hiccup_and_are_repeated(studio: Replicate, twin: MiniReplicate) -> None:
    twin.looks = [
        twin.prediction("starting"),
        web.Response(status=503),
        web.Response(text="<html>"),
        web.json_response({"detail": "throttled", "retry_after": 0}, status=429),
        twin.prediction("processing", version=None),
        twin.prediction("a status nobody has heard of", version=None, metrics=None),
    ]
    generation, _ = await draw(studio)
    assert len(generation.images) == 1
    assert len(twin.created) == 1


@pytest.mark.parametrize("version", [None, "hidden", VERSION])
async def test_a_single_picture_may_come_as_a_string(studio: Replicate, twin: MiniReplicate, version: str) -> None:
    twin.end = {"output": f"{twin.url}/delivery/0.png", "version": version}
    generation, _ = await draw(studio)
    assert generation.usage == Usage(images=((64, 48),), steps=4, machine_ns=750_000_000)


async def test_pictures_may_come_inside_the_answer(studio: Replicate, twin: MiniReplicate) -> None:
    twin.end = {"output": ["data:image/png;base64," + pybase64.b64encode(picture()).decode()]}
    generation, _ = await draw(studio)
    assert generation.usage.images == ((64, 48),)
    assert not any("delivery" in path for path in twin.asked)


@pytest.mark.parametrize(
    ("end", "kind", "owed"),
    [
        ({"status": "aborted"}, TimedOut, "nothing"),
        ({"status": "canceled", "metrics": {"predict_time": 1.5}}, TimedOut, Usage(machine_ns=1_500_000_000)),
        ({"status": "canceled", "completed_at": f"{NOON}3.000000Z"}, TimedOut, Usage(machine_ns=500_000_000)),
        ({"status": "failed", "error": "CUDA out of memory (E1001)"}, Failed, Usage()),
        ({"status": "failed", "error": None}, Failed, Usage()),
        ({"status": "failed", "error": "NSFW content detected."}, ContentRefused, Usage()),
        (
            {"status": "failed", "error": "The input or output was flagged as sensitive. (E005)"},
            ContentRefused,
            Usage(),
        ),
        (
            {"output": None, "data_removed": True},
            BadDelivery,
            Usage(images=((64, 48),), steps=4, machine_ns=750_000_000),
        ),
        ({"output": {"x": 1}}, BadDelivery, Usage(images=((64, 48),), steps=4, machine_ns=750_000_000)),
    ],
)
async def test_an_end_without_pictures_has_its_meaning(
    studio: Replicate, twin: MiniReplicate, end: dict[str, Any], kind: type[ProviderError], owed: object
) -> None:
    twin.end = end
    error = await outcome(studio)
    assert type(error) is kind
    assert error.owed == owed
    assert error.ticket is not None


@pytest.mark.parametrize(("counted", "owed"), [({"image_count": 1}, 1), ({}, 2), ({"image_count": 2}, 2)])
async def test_dropped_pictures_count_as_replicate_counts_them_or_else_as_made(
    studio: Replicate, twin: MiniReplicate, counted: dict[str, int], owed: int
) -> None:
    twin.end = {"metrics": counted}
    error = await outcome(studio, order(count=2))
    assert isinstance(error, BadDelivery)
    assert error.owed == Usage(images=((64, 48),) * owed, steps=4)


async def test_a_file_on_a_strange_host_is_not_fetched_but_owed(studio: Replicate, twin: MiniReplicate) -> None:
    twin.end = {"output": ["http://169.254.169.254/latest"]}
    error = await outcome(studio)
    assert isinstance(error, BadDelivery)
    assert isinstance(error.owed, Usage)
    assert "169.254" not in str(error)


async def test_an_order_that_does_not_end_times_out_with_its_ticket(studio: Replicate, twin: MiniReplicate) -> None:
    twin.end = {"status": "processing"}
    error = await outcome(studio, order(limit_s=0.3))
    assert isinstance(error, TimedOut)
    assert (error.owed, error.ticket is not None) == ("unknown", True)


async def test_an_order_that_cannot_be_looked_at_any_more_is_lost_sight_of(
    studio: Replicate, twin: MiniReplicate
) -> None:
    twin.looks = [web.Response(status=404)]
    error = await outcome(studio)
    assert isinstance(error, OutcomeUnknown)
    assert error.ticket is not None


async def test_a_ticket_is_enough_to_bring_pictures_home(studio: Replicate, twin: MiniReplicate) -> None:
    _, tickets = await draw(studio)
    generation = await studio.resume(order(), tickets[0])
    assert len(generation.images) == 1
    assert len(twin.created) == 1


@pytest.mark.parametrize(
    ("status", "more", "said"),
    [
        ("canceled", {"started_at": None}, "unbilled"),
        ("aborted", {"started_at": None}, "unbilled"),
        ("canceled", {}, "running"),
        ("processing", {}, "running"),
        ("succeeded", {}, "finished"),
        ("failed", {}, "finished"),
    ],
)
async def test_cancelling_says_what_is_known_about_the_money(
    studio: Replicate, twin: MiniReplicate, status: str, more: dict[str, Any], said: str
) -> None:
    twin.cancel = lambda: web.json_response(twin.prediction(status, **more))
    assert await studio.cancel(Ticket("p1")) == said


async def test_a_refused_cancellation_is_made_up_for_by_a_look(studio: Replicate, twin: MiniReplicate) -> None:
    twin.cancel = lambda: web.json_response({"detail": "already over"}, status=409)
    assert await studio.cancel(Ticket("p1")) == "finished"
    assert await studio.cancel(Ticket("p9")) == "unknown"


async def test_orders_are_found_page_by_page_and_no_key_follows_a_strange_link(
    studio: Replicate, twin: MiniReplicate
) -> None:
    later = {"created_at": f"{NOON}5.000000Z"}
    twin.listed = [
        twin.prediction(id="p3", **later),
        twin.prediction("aborted", id="p2", version=None, **later),
        twin.prediction(id="p0", model="someone/else", **later),
        twin.prediction(id="p1"),
        twin.prediction(id="p9", **later),  # out of order, so never read
    ]
    found = await studio.find(ENDPOINT, datetime(2026, 11, 21, 12, 0, 1, tzinfo=UTC))
    assert [each.ticket.id for each in found] == ["p3", "p2"]
    assert found[0].at == datetime(2026, 11, 21, 12, 0, 5, tzinfo=UTC)


async def test_checks_token_and_models_without_drawing(http: Http, studio: Replicate, twin: MiniReplicate) -> None:
    assert list(await studio.check([ENDPOINT, f"{ENDPOINT}:{VERSION}", VERSION])) == []
    assert "some/model" in (await studio.check([ENDPOINT, "some/model"]))[0]
    stranger = connect("x", settings(twin, key="r8_wrongwrongwrong"), http)
    assert "refuses the token" in (await stranger.check([ENDPOINT]))[0]
    await stranger.aclose()


async def test_claims_the_abilities_it_has_and_no_other(studio: Replicate) -> None:
    claims = (Resumable, Cancels, FindsOrders, CallsBack, ChecksAccount)
    assert all(isinstance(studio, ability) for ability in claims)
    assert not isinstance(studio, ListsPrices | ReportsUsage)


async def test_keys_and_prompts_never_reach_the_error(studio: Replicate, twin: MiniReplicate) -> None:
    twin.end = {"status": "failed", "error": f"could not draw {PROMPT} with Bearer {KEY}"}
    text = str(await outcome(studio))
    assert PROMPT not in text
    assert "secretsecret" not in text
    assert "could not draw" in text


EDITS = Abilities(
    operations=("edit",),
    sizes=SizeRule(min_side=16),
    size_dialect="width_height",
    safety_dialect="tolerance",
    formats=("png",),
    references=(1, 2),
    input_dialect="input_images",
    mask=True,
    strength=(0, 1),
)


def given(data: bytes) -> Input:
    return Input(data, Head("png", 64, 48))


async def test_small_inputs_travel_inside_the_order_and_large_ones_are_uploaded_before_it(
    studio: Replicate, twin: MiniReplicate
) -> None:
    small, large = picture(), picture() + bytes(256 * 1024)
    asked = order(able=EDITS, operation="edit", inputs=(given(small), given(large)), strength=0.4, safety="relaxed")
    await draw(studio, asked)
    first, second = twin.created[0][1]["input"]["input_images"]
    assert base64.b64decode(first.removeprefix("data:image/png;base64,")) == small
    assert second == "https://api.replicate.com/v1/files/f1"
    assert twin.uploads == [large]
    assert twin.created[0][1]["input"]["prompt_strength"] == 0.4
    assert twin.created[0][1]["input"]["safety_tolerance"] == 2


async def test_masks_are_white_where_the_picture_is_drawn_anew(studio: Replicate, twin: MiniReplicate) -> None:
    out = io.BytesIO()
    Pillow.new("RGBA", (64, 48), (9, 9, 9, 0)).save(out, "PNG")
    await draw(studio, order(able=EDITS, operation="edit", inputs=(given(picture()),), mask=given(out.getvalue())))
    mask = base64.b64decode(twin.created[0][1]["input"]["mask"].partition(",")[2])
    assert Pillow.open(io.BytesIO(mask)).convert("L").getextrema() == (255, 255)


@pytest.mark.parametrize(
    ("wish", "inputs", "masked"), [("edit", 0, False), ("edit", 3, False), ("edit", 1, True), ("generate", 1, False)]
)
async def test_inputs_an_endpoint_does_not_take_are_refused_before_anything_is_uploaded(
    studio: Replicate, twin: MiniReplicate, wish: str, inputs: int, *, masked: bool
) -> None:
    large = given(picture() + bytes(256 * 1024))
    able = msgspec.structs.replace(EDITS, mask=False)
    asked = order(able=able, operation=wish, inputs=(large,) * inputs, mask=large if masked else None)
    assert isinstance(await outcome(studio, asked), Unsupported)
    assert twin.asked == []


async def test_an_upload_that_fails_orders_nothing(studio: Replicate, twin: MiniReplicate) -> None:
    twin.upload = lambda: web.json_response({"detail": "storage is down", "status": 503}, status=503)
    error = await outcome(studio, order(able=EDITS, operation="edit", inputs=(given(picture() + bytes(256 * 1024)),)))
    assert isinstance(error, Unavailable)
    assert "storage is down" in str(error)
    assert twin.created == []


async def test_replicate_itself_is_not_asked_to_call_back_by_plain_http(http: Http) -> None:
    own = connect("studio", Settings.model_validate({"key": KEY}), http)
    assert own._webhook(order(callback_url="http://gateway.example/hooks/replicate")) is None
    assert own._webhook(order(callback_url="https://gateway.example/hooks/replicate")) is not None
    await own.aclose()


VECTOR_STAMP = 1763683200
VECTOR_BODY = b'{"id":"p1","status":"succeeded"}'
VECTOR = {
    "webhook-id": "msg_1",
    "webhook-timestamp": str(VECTOR_STAMP),
    "webhook-signature": "v1,WIFwFg+Snr3WbM9N3VOCgpRAWErldsqlp+Am1jx4Bmc=",
}


@pytest.fixture
async def called(http: Http, twin: MiniReplicate) -> AsyncIterator[Replicate]:
    """An adapter whose wall clock stands at the stamp of the test vector."""
    made = Replicate("studio", settings(twin), http, wall_clock=lambda: VECTOR_STAMP + 299.0)
    yield made
    await made.aclose()


async def test_trusts_the_published_vector_and_keeps_its_secret(called: Replicate, twin: MiniReplicate) -> None:
    assert await called.read_callback(VECTOR, VECTOR_BODY)
    assert await called.read_callback({name.title(): value for name, value in VECTOR.items()}, VECTOR_BODY)
    among = VECTOR | {"webhook-signature": f"v1,AAAA {VECTOR['webhook-signature']}"}
    assert await called.read_callback(among, VECTOR_BODY)
    assert twin.asked.count("GET /v1/webhooks/default/secret") == 1


@pytest.mark.parametrize(
    ("change", "body"),
    [
        ({}, VECTOR_BODY + b" "),
        ({}, b""),
        ({}, b"\xff"),
        ({"webhook-signature": "v1,AAAA"}, VECTOR_BODY),
        ({"webhook-signature": "v1"}, VECTOR_BODY),
        ({"webhook-signature": "v1,%%%"}, VECTOR_BODY),
        ({"webhook-signature": ""}, VECTOR_BODY),
        ({"webhook-id": "msg_2"}, VECTOR_BODY),
        ({"webhook-timestamp": str(VECTOR_STAMP - 2)}, VECTOR_BODY),
        ({"webhook-timestamp": "²"}, VECTOR_BODY),
    ],
)
async def test_distrusts_everything_else(
    called: Replicate, twin: MiniReplicate, change: dict[str, str], body: bytes
) -> None:
    assert not await called.read_callback({**VECTOR, **change}, body)
    assert twin.asked.count("GET /v1/webhooks/default/secret") <= 1


def signed(prediction_id: str) -> tuple[dict[str, str], bytes]:
    body, stamp = json.dumps({"id": prediction_id, "status": "succeeded"}).encode(), str(int(time.time()))
    digest = hmac.new(bytes(range(24)), f"msg_9.{stamp}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {"webhook-id": "msg_9", "webhook-timestamp": stamp, "webhook-signature": signature}, body


@pytest.mark.parametrize("early", [True, False])
async def test_a_callback_wakes_its_order_even_when_it_comes_before_the_ticket(
    studio: Replicate, twin: MiniReplicate, *, early: bool
) -> None:
    started = time.monotonic()
    if early:
        assert await studio.read_callback(*signed("p1"))
    task = asyncio.create_task(draw(studio, order(callback_url="http://gateway.example/hooks/replicate")))
    if not early:
        await asyncio.sleep(0.2)
        assert await studio.read_callback(*signed("p1"))
    generation, _ = await task
    assert len(generation.images) == 1
    assert time.monotonic() - started < 3
    assert twin.created[0][1]["webhook"] == "http://gateway.example/hooks/replicate"
    assert twin.created[0][1]["webhook_events_filter"] == ["completed"]


@pytest.mark.parametrize("fault", [None, "dup_webhook", "lost_webhook"])
async def test_the_twins_own_callbacks_are_trusted_and_a_lost_one_is_made_up_for(
    http: Http, serve: Serve, fault: str | None
) -> None:
    heard: list[bool] = []

    async def hook(request: web.Request) -> web.Response:
        heard.append(await made.read_callback(request.headers, await request.read()))
        return web.Response(status=200 if heard[-1] else 401)

    async with await start(time_scale=0.01, pictures="plain") as sandbox:
        sandbox.script([{"provider": "replicate", "do": fault}] if fault else [])
        wait = 0.3 if fault == "lost_webhook" else 30.0
        base = {"key": "sandbox-hooked", "base_url": f"{sandbox.url}/replicate", "poll_called_back": wait}
        made = connect("studio", Settings.model_validate(base), http)
        able = Abilities(sizes=SizeRule(named={"1:1 0.25": (512, 512)}), size_dialect="aspect_ratio_megapixels")
        asked = order(able=able, width=512, height=512, callback_url=f"{await serve(hook)}/hooks/replicate")
        generation, _ = await draw(made, asked)
        await asyncio.sleep(0.2)
        await made.aclose()
    assert len(generation.images) == 1
    assert heard == {None: [True], "dup_webhook": [True, True], "lost_webhook": []}[fault]


REMOVER = f"851-labs/background-remover:{BACKGROUND_REMOVER}"
REMOVES = Abilities(
    operations=("remove_background",),
    sizes=SizeRule(min_side=64, max_side=4096, multiple=1),
    formats=("png",),
    seed=False,
    references=(1, 1),
    input_dialect="image",
    size_dialect="input",
)


def cut_out() -> Order:
    """An order at a model sold by the second, over a picture too large to travel inside it."""
    source = Input(picture(800, 600), Head("png", 800, 600))
    assert len(source.data) > 256 * 1024
    size: dict[str, Any] = {"width": 800, "height": 600, "references": ((800, 600),)}
    return order(able=REMOVES, endpoint=REMOVER, operation="remove_background", inputs=(source,), **size)


def at(sandbox: Sandbox, http: Http) -> Replicate:
    quick = {"poll_first": 0.01, "poll_max": 0.05}
    base = {"key": "sandbox-seconds", "base_url": f"{sandbox.url}/replicate", **quick}
    return connect("studio", Settings.model_validate(base), http)


def seconds_at_t4(machine_ns: int) -> int:
    return round(Fraction(machine_ns * 225_000, 10**9))


async def test_what_is_sold_by_the_second_is_billed_by_the_seconds_told(http: Http) -> None:
    async with await start(time_scale=0.01, pictures="plain") as sandbox:
        made = at(sandbox, http)
        generation, _ = await draw(made, cut_out())
        await made.aclose()
        (line,) = sandbox.invoice()["lines"]
    assert generation.usage.references == ((800, 600),)
    assert generation.usage.machine_ns > 0
    assert line["nano_usd"] == seconds_at_t4(generation.usage.machine_ns)


@pytest.mark.parametrize(("rule", "kind"), [({"do": "500", "args": {"at": "result"}}, Failed), (None, TimedOut)])
async def test_a_run_by_the_second_that_fails_or_is_stopped_costs_its_time(
    http: Http, rule: dict[str, Any] | None, kind: type[ProviderError]
) -> None:
    async with await start(time_scale=0.01, pictures="plain") as sandbox:
        sandbox.script([rule or {"do": "slow", "args": {"seconds": 30}}])
        made = at(sandbox, http)

        async def accept(ticket: Ticket) -> None:
            if rule is None:
                await asyncio.sleep(0.1)
                assert await made.cancel(ticket) == "running"

        with pytest.raises(ProviderError) as caught:
            await made.generate(cut_out(), accept)
        await made.aclose()
        (line,) = sandbox.invoice()["lines"]
    assert type(caught.value) is kind
    assert isinstance(caught.value.owed, Usage)
    assert line["nano_usd"] == seconds_at_t4(caught.value.owed.machine_ns) > 0
