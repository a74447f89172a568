"""Edits through the official client, a whole gateway and the sandbox; and every bad input that must not get through."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import openai
import pytest
import uvicorn
from aiohttp import web
from openai import AsyncOpenAI
from PIL import Image

from gateway.http import inputs
from gateway.http.edits import Given, parse_edit
from gateway.http.model_names import names_of
from gateway.keys import make_key
from gateway.requests.call import Caller
from gateway.settings import read_pepper
from providers.picture import complete, probe
from tests.support.town import Town, town

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
EDITS = "/v1/images/edits"


def picture(width: int = 96, height: int = 64, form: str = "PNG", mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.effect_noise((width, height), 60).convert(mode).save(out, form)
    return out.getvalue()


def uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def huge_header() -> bytes:
    """A PNG that says it is 30,000 x 30,000, in 60 bytes."""
    body = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + body
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


class Studio:
    """A gateway on a port, its sandbox, and an official client."""

    def __init__(self, place: Town, base: str, key: str) -> None:
        self.place = place
        self.key = key
        self.client = AsyncOpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0)
        self.http = httpx.AsyncClient(base_url=base, headers={"authorization": f"Bearer {key}"}, timeout=30)

    async def post(self, path: str = EDITS, **body: Any) -> httpx.Response:
        return await self.http.post(path, json={"prompt": "in the rain", **body})

    def sent(self, seller: str) -> list[dict[str, Any]]:
        """Bodies of the orders that reached a seller."""
        found = cast("list[dict[str, Any]]", list(self.place.sandbox.requests()))
        return [one["body"] for one in found if one["provider"] == seller and one["body"] and "prompt" in one["body"]]

    async def nothing_happened(self) -> bool:
        """Whether nothing was ordered, held or billed."""
        await self.place.settled()
        stats = cast("dict[str, dict[str, dict[str, int]]]", self.place.sandbox.stats())
        ordered = sum(account["submissions"] for seller in stats.values() for account in seller.values())
        return ordered == 0 and await self.place.held() == 0 and self.place.invoiced() == {}


@pytest.fixture
async def server() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    """A stranger's server of pictures, on loopback."""
    runners: list[web.AppRunner] = []

    async def begin(handler: Handler) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield begin
    for runner in runners:
        await runner.cleanup()


async def opened(folder: Path, **changes: Any) -> AsyncIterator[Studio]:
    async with town(folder, **changes) as place:
        config = uvicorn.Config(place.app.asgi, host="127.0.0.1", port=0, lifespan="off", ws="none", log_config=None)
        running = uvicorn.Server(config)
        config.load()
        running.lifespan = config.lifespan_class(config)
        await running.startup()
        base = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
        row, shown = make_key(read_pepper(place.app.settings), team="acme", name="t", created=place.app.clock.utc())
        await place.app.db.add_key(row)
        await place.app.keys.refresh()
        studio = Studio(place, base, shown)
        yield studio
        await studio.client.close()
        await studio.http.aclose()
        await running.shutdown()


@pytest.fixture
async def studio(tmp_path: Path) -> AsyncIterator[Studio]:
    async for made in opened(tmp_path):
        yield made


def drawn(answer: openai.types.ImagesResponse) -> bytes:
    assert answer.data is not None
    data = base64.b64decode(answer.data[0].b64_json or "", validate=True)
    assert complete(data)
    return data


async def test_the_official_client_edits_a_picture_with_the_policys_own_model(studio: Studio) -> None:
    answer = await studio.client.images.edit(image=picture(400, 300), prompt="in snow", response_format="b64_json")
    head = probe(drawn(answer))
    assert answer.model_extra is not None
    told = answer.model_extra["pixelgate"]
    assert (told["model"], told["provider"], told["nano_usd"]) == ("flux-kontext-pro", "fal", 40_000_000)
    assert (answer.size, (head.width, head.height)) == ("1184x880", (1184, 880))  # 4:3, as the input is
    assert answer.usage is not None
    assert answer.usage.input_tokens_details.image_tokens == 13 * 10
    await studio.place.assert_books_agree()


async def test_a_mask_goes_to_a_model_that_knows_masks_and_keeps_the_inputs_size(studio: Studio) -> None:
    answer = await studio.client.images.edit(
        image=picture(512, 256), mask=picture(512, 256, mode="RGBA"), prompt="a boat", model="gpt-image-1"
    )
    head = probe(drawn(answer))
    assert ((head.width, head.height), answer.size) == ((512, 256), "512x256")
    assert answer.model_extra is not None
    assert answer.model_extra["pixelgate"]["model"] == "flux-fill-pro"
    await studio.place.assert_books_agree()


@pytest.mark.parametrize("seller", ["fal", "together"])
async def test_edits_come_from_each_seller_that_can_and_cost_what_it_bills(studio: Studio, seller: str) -> None:
    answer = await studio.client.images.edit(
        image=("photo.txt", picture(320, 320, "JPEG"), "text/plain"),
        prompt="as a drawing",
        n=2,
        size="1024x1024",
        output_format="jpeg",
        response_format="b64_json",
        input_fidelity="high",
        extra_body={"providers": json.dumps({"only": [seller]})},
    )
    assert answer.data is not None
    assert len(answer.data) == 2
    assert probe(drawn(answer)).format == "jpeg"
    await studio.place.assert_books_agree()


async def test_json_and_forms_in_every_spelling_mean_the_same(studio: Studio) -> None:
    data = picture(64, 64)
    form = {"prompt": "in the rain", "size": "1024x1024"}
    for name in ("image", "image[]"):
        answer = await studio.http.post(EDITS, data=form, files={name: ("", data)})
        assert answer.status_code == 200, answer.text
    answer = await studio.post(size="1024x1024", images=[{"image_url": uri(data)}])
    assert answer.status_code == 200, answer.text
    bodies = studio.sent("fal")
    assert len(bodies) == 3
    assert {body["image_url"] for body in bodies} == {uri(data)}


async def test_a_picture_of_our_own_can_be_edited_by_its_address(studio: Studio) -> None:
    made = (await studio.post("/v1/images/generations", size="512x512", response_format="url")).json()
    edited = await studio.post(images=[{"image_url": made["data"][0]["url"]}], parent=made["data"][0]["id"])
    assert edited.status_code == 200, edited.text
    assert edited.json()["data"][0]["parent"] == made["data"][0]["id"]


async def test_an_edit_sent_twice_under_a_key_is_drawn_once_and_another_picture_is_another_edit(studio: Studio) -> None:
    headers = {"Idempotency-Key": "edit-1"}
    form = {"prompt": "in the rain", "response_format": "url"}
    files = {"image": ("a.png", picture(64, 64))}
    first = await studio.http.post(EDITS, data=form, files=files, headers=headers)
    again = await studio.http.post(EDITS, data=form, files=files, headers=headers)
    other = await studio.http.post(EDITS, data=form, files={"image": ("a.png", picture(64, 80))}, headers=headers)
    assert first.json()["data"] == again.json()["data"]
    assert (other.status_code, other.json()["error"]["code"]) == (400, "idempotency_key_reused")
    assert len(studio.sent("fal")) == 1


async def test_no_record_holds_a_picture_that_was_handed_in(studio: Studio) -> None:
    data = picture(80, 80)
    await studio.post(images=[{"image_url": uri(data)}])
    await studio.place.settled()
    state = studio.place.app.settings.state
    stored = b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file())
    assert data not in stored
    assert base64.b64encode(data)[:200] not in stored


async def test_an_edit_is_not_promoted_for_its_pictures_are_not_kept(studio: Studio) -> None:
    made = (await studio.post(images=[{"image_url": uri(picture())}])).json()
    refused = await studio.http.post(f"/v1/images/{made['data'][0]['id']}/promote", json={})
    assert refused.status_code == 400
    assert "cannot be promoted" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({}, "image", "Missing required parameter"),
        ({"images": []}, "image", "Missing required parameter"),
        ({"images": [{"image_url": uri(picture())}] * 17}, "images", "at most 16 images"),
        ({"images": "x"}, "images", "expected a list"),
        ({"images": ["x"]}, "images[0]", "expected an object"),
        ({"images": [{"image_url": 7}]}, "images[0].image_url", "expected a URL"),
        ({"images": [{"file_id": "file-1"}]}, "images[0].file_id", "no files are kept"),
        ({"images": [{"file_id": 7}]}, "images[0].file_id", "expected the id"),
        ({"images": [{"file_id": "img_1", "image_url": "https://a.example/b.png"}]}, "images[0]", "send one of them"),
        ({"images": [{"image_uri": "x"}]}, "images[0].image_uri", "Unknown parameter"),
        ({"images": [{"image_url": "data:image/png;base64,###"}]}, "images[0].image_url", "not valid base64"),
        ({"images": [{"image_url": "data:image/png,raw"}]}, "images[0].image_url", "base64"),
        ({"images": [{"image_url": uri(b"plain words")}]}, "images[0]", "no PNG, JPEG or WebP"),
        ({"images": [{"image_url": uri(huge_header())}]}, "images[0]", "30000x30000 pixels, and at most 32000000"),
        ({"images": [{"image_url": uri(picture()[:-9])}]}, "images[0]", "breaks off"),
        ({"images": [{"image_url": "file:///etc/passwd"}]}, "images[0].image_url", "could not be fetched"),
        ({"images": [{"image_url": "http://127.0.0.1/x.png"}]}, "images[0].image_url", "could not be fetched"),
        ({"images": [{"image_url": "http://10.0.0.7/x.png"}]}, "images[0].image_url", "could not be fetched"),
        ({"images": [{"image_url": "http://169.254.169.254/latest"}]}, "images[0].image_url", "could not be fetched"),
        ({"images": [{"image_url": "http://[::1]/x.png"}]}, "images[0].image_url", "could not be fetched"),
        ({"images": [{"image_url": "https://me:pw@example.com/"}]}, "images[0].image_url", "could not be fetched"),
        ({"images": [{"image_url": "https://example.com:8443/"}]}, "images[0].image_url", "a port of its own"),
        (
            {"images": [{"image_url": uri(picture())}], "mask": {"image_url": uri(picture(32, 32, mode="RGBA"))}},
            "mask",
            "as large as the first image",
        ),
        ({"images": [{"image_url": uri(picture())}], "mask": {"image_url": uri(picture())}}, "mask", "alpha channel"),
        ({"images": [{"image_url": uri(picture())}], "model": "flux-schnell"}, "model", "cannot do that to pictures"),
        ({"images": [{"image_url": uri(picture())}], "prompt": " "}, "prompt", "blank"),
        ({"images": [{"image_url": uri(picture())}], "input_fidelity": "odd"}, "input_fidelity", "'high', 'low'"),
        ({"images": [{"image_url": uri(picture())}], "markup": "x"}, "markup", "Unsupported parameter"),
        ({"images": [{"image_url": uri(picture())}], "sise": "auto"}, "sise", "Unknown parameter"),
        ({"images": [{"image_url": uri(picture())}], "size": "1000x1000"}, None, "does not draw exactly 1000x1000"),
    ],
)
async def test_bad_input_is_named_and_costs_nothing(
    studio: Studio, body: dict[str, Any], param: str | None, said: str
) -> None:
    answer = await studio.post(**body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), error
    assert said in error["message"]
    assert await studio.nothing_happened()


@pytest.mark.parametrize(
    ("files", "param"),
    [
        ([("image", ("notes.png", b"not a picture at all"))], "image"),
        ([("image[]", ("a.png", picture()))] * 17, "image"),
        ([("image", ("a.png", b""))], "image"),
        ([("mask", ("m.png", picture(mode="RGBA")))], "image"),
        ([("image", ("a.png", picture()))] + [("mask", ("m.png", picture(mode="RGBA")))] * 2, "mask"),
    ],
)
async def test_bad_files_are_named_and_cost_nothing(
    studio: Studio, files: list[tuple[str, tuple[str, bytes]]], param: str
) -> None:
    answer = await studio.http.post(EDITS, data={"prompt": "x"}, files=files)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert await studio.nothing_happened()


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("multipart/form-data", b"--x--", 415),
        ("multipart/form-data; boundary=x", b"", 400),
        ("multipart/form-data; boundary=x", b"--x\r\n", 400),
        ("multipart/form-data; boundary=x", b"--x\r\nno header", 400),
        (
            "multipart/form-data; boundary=x",
            b"".join(b'--x\r\nContent-Disposition: form-data; name="a%d"\r\n\r\n\r\n' % n for n in range(200)),
            400,
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\xff\r\n--x--\r\n',
            400,
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na\r\n' * 2 + b"--x--\r\n",
            400,
        ),
        ("application/x-www-form-urlencoded", b"prompt=x", 415),
        ("multipart/form-data; boundary=x", b"x" * (64 * 1024 * 1024 + 1), 413),
    ],
)
async def test_a_malformed_form_is_refused(studio: Studio, content_type: str, body: bytes, status: int) -> None:
    answer = await studio.http.post(EDITS, content=body, headers={"content-type": content_type})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]
    assert await studio.nothing_happened()


async def test_addresses_are_fetched_within_limits_only(
    tmp_path: Path, server: Callable[[Handler], Awaitable[str]]
) -> None:
    """A trusted origin's picture comes; its redirect to a private address, its slowness and its endlessness do not."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        assert "Authorization" not in request.headers
        if request.path == "/good.png":
            return web.Response(body=picture(64, 64))
        if request.path == "/away":
            raise web.HTTPFound("http://127.0.0.1:9/secret")
        stream = web.StreamResponse()
        await stream.prepare(request)
        while True:  # a byte now and then, or as many as fit
            await stream.write(b"x" * (1 if request.path == "/slow" else 1_000_000))
            await asyncio.sleep(0.05 if request.path == "/slow" else 0)

    url = await server(answer)
    async for studio in opened(tmp_path, inputs={"origins": [url], "fetch_timeout": "700ms"}):
        good = await studio.post(images=[{"image_url": f"{url}/good.png"}])
        assert good.status_code == 200, good.text
        studio.place.sandbox.reset()
        for path in ("/away", "/slow", "/endless"):
            bad = await studio.post(images=[{"image_url": f"{url}{path}"}])
            error = bad.json()["error"]
            assert (bad.status_code, error["param"]) == (400, "images[0].image_url"), error
        stats = studio.place.sandbox.stats()
        assert stats == {}
    assert set(asked) == {"/good.png", "/away", "/slow", "/endless"}


async def test_pictures_of_all_calls_under_way_together_are_bounded(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = picture(256, 256)
    monkeypatch.setattr(inputs, "MAX_HELD", inputs.held.total + len(data) * 3 // 2)
    studio.place.sandbox.script([{"do": "slow", "args": {"seconds": 0.5}}])
    first = asyncio.create_task(studio.post(images=[{"image_url": uri(data)}]))
    while not studio.sent("fal"):  # noqa: ASYNC110 - the sandbox has no event for a test to await
        await asyncio.sleep(0.01)
    second = await studio.post(images=[{"image_url": uri(data)}])
    assert (second.status_code, second.json()["error"]["code"]) == (503, "no_capacity")
    assert (second.headers["retry-after"], second.headers["x-should-retry"]) == ("1", "true")
    assert (await first).status_code == 200
    await studio.place.settled()
    assert (await studio.post(images=[{"image_url": uri(data)}])).status_code == 200


async def test_pictures_fetched_for_one_edit_are_bounded_together(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = picture(256, 256)
    monkeypatch.setattr(inputs, "MAX_FORM", len(data) * 2)
    refused = await studio.post(images=[{"image_url": uri(data)}] * 3)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "images")
    assert await studio.nothing_happened()


async def test_a_key_that_may_use_some_models_edits_with_those(studio: Studio) -> None:
    app = studio.place.app
    row, shown = make_key(
        read_pepper(app.settings), team="acme", name="t", created=app.clock.utc(), models=("flux-fill-pro",)
    )
    await app.db.add_key(row)
    await app.keys.refresh()
    headers = {"authorization": f"Bearer {shown}"}
    body = {"prompt": "x", "images": [{"image_url": uri(picture(512, 512))}]}
    refused = await studio.http.post(EDITS, json=body, headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "no_offer")
    assert "only under a mask" in refused.json()["error"]["message"]
    masked = {**body, "mask": {"image_url": uri(picture(512, 512, mode="RGBA"))}}
    assert (await studio.http.post(EDITS, json=masked, headers=headers)).status_code == 200


async def test_a_variation_is_a_picture_from_a_picture_where_a_seller_can(studio: Studio) -> None:
    with pytest.deprecated_call():
        varying = studio.client.images.create_variation(
            image=picture(512, 512), n=2, response_format="b64_json", model="dall-e-2"
        )
    answer = await varying
    assert answer.data is not None
    assert len(answer.data) == 2
    assert probe(drawn(answer)).width == 512
    assert {body["strength"] for body in studio.sent("fal")} == {0.6}
    odd = await studio.http.post(
        "/v1/images/variations", data={"prompt": "x"}, files={"image": ("a.png", picture(512, 512))}
    )
    assert (odd.status_code, odd.json()["error"]["param"]) == (400, "prompt")


async def test_where_nobody_varies_pictures_the_answer_names_edits(tmp_path: Path) -> None:
    accounts = {"together": {"kind": "together", "key": "sandbox-together", "base_url": "http://127.0.0.1:9"}}
    async for studio in opened(tmp_path, accounts=accounts):
        with pytest.deprecated_call():
            varying = studio.client.images.create_variation(image=picture(512, 512))
        with pytest.raises(openai.NotFoundError, match="/v1/images/edits"):
            await varying


async def test_an_edit_can_be_streamed_and_its_event_is_named_after_edits(studio: Studio) -> None:
    stream = await studio.client.images.edit(image=picture(512, 512), prompt="in snow", stream=True)
    events = [event async for event in stream]
    assert [event.type for event in events] == ["image_edit.completed"]
    assert complete(base64.b64decode(events[0].b64_json))


async def test_azures_clients_edit_under_their_deployment(studio: Studio) -> None:
    answer = await studio.http.post(
        "/openai/deployments/flux-kontext-pro/images/edits?api-version=2025-04-01-preview",
        data={"prompt": "in snow"},
        files={"image": ("a.png", picture(64, 64))},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["pixelgate"]["model"] == "flux-kontext-pro"


async def test_a_background_is_removed_without_a_word_and_what_comes_is_transparent(studio: Studio) -> None:
    body = {"operation": "remove_background", "output_format": "webp", "response_format": "b64_json"}
    files = {"image": ("a.jpg", picture(333, 222, "JPEG"))}
    answer = await studio.http.post(EDITS, data=body, files=files)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["background"], told["size"], told["pixelgate"]["nano_usd"]) == ("transparent", "333x222", 18_000_000)
    with Image.open(io.BytesIO(base64.b64decode(told["data"][0]["b64_json"]))) as seen:
        assert (seen.mode, seen.size, seen.getchannel("A").getextrema()[0]) == ("RGBA", (333, 222), 0)
    opaque = await studio.http.post(EDITS, data={**body, "output_format": "jpeg"}, files=files)
    assert (opaque.status_code, opaque.json()["error"]["param"]) == (400, "output_format")
    await studio.place.assert_books_agree()


async def test_a_picture_without_transparency_is_never_sold_as_transparent(studio: Studio) -> None:
    studio.place.sandbox.script([{"provider": "fal", "do": "black"}])  # black all over, and opaque
    answer = await studio.http.post(
        EDITS, data={"operation": "remove_background"}, files={"image": ("a.png", picture(96, 96))}
    )
    assert answer.status_code == 502, answer.text
    assert await studio.place.charged() == 0


async def test_a_transparent_background_is_drawn_by_two_orders_through_the_official_client(studio: Studio) -> None:
    answer = await studio.client.images.generate(
        prompt="a mug", size="512x512", background="transparent", output_format="webp", model="gpt-image-1"
    )
    with Image.open(io.BytesIO(drawn(answer))) as seen:
        assert (seen.format, seen.size, seen.getchannel("A").getextrema()[0]) == ("WEBP", (512, 512), 0)
    assert (answer.background, answer.output_format) == ("transparent", "webp")
    assert answer.model_extra is not None
    told = answer.model_extra["pixelgate"]
    assert (told["model"], told["nano_usd"]) == ("flux-schnell", 707_789 + 18_000_000)
    assert await studio.place.charged() == told["nano_usd"]
    await studio.place.assert_books_agree()


async def test_a_transparent_picture_comes_by_address_streamed_edited_again_under_its_key_and_promoted(
    studio: Studio,
) -> None:
    generations = "/v1/images/generations"
    body = {"background": "transparent", "size": "512x512", "response_format": "url"}
    headers = {"Idempotency-Key": "mug-1"}
    first, again = [
        await studio.http.post(generations, json={"prompt": "a mug", **body}, headers=headers) for _ in range(2)
    ]
    assert first.json()["data"] == again.json()["data"]
    assert first.headers["x-pixelgate-offer"] == again.headers["x-pixelgate-offer"]
    assert again.json()["pixelgate"]["nano_usd"] == first.json()["pixelgate"]["nano_usd"]
    stream = await studio.client.images.generate(
        prompt="a mug", size="512x512", background="transparent", model="gpt-image-1", stream=True
    )
    events = [event async for event in stream]
    assert [(event.type, event.background) for event in events] == [("image_generation.completed", "transparent")]
    edited = await studio.post(**body | {"size": "auto"}, images=[{"image_url": uri(picture(512, 512))}])
    assert (edited.status_code, edited.json()["background"]) == (200, "transparent"), edited.text
    promoted = await studio.http.post(f"/v1/images/{first.json()['data'][0]['id']}/promote", json={})
    assert (promoted.status_code, promoted.json()["background"]) == (200, "transparent"), promoted.text
    assert promoted.json()["quality"] == "high"
    await studio.place.assert_books_agree()


async def test_a_transparent_jpeg_and_a_background_nobody_can_remove_are_refused(
    studio: Studio, tmp_path: Path
) -> None:
    jpeg = await studio.post("/v1/images/generations", background="transparent", output_format="jpeg")
    assert (jpeg.status_code, jpeg.json()["error"]["param"]) == (400, "output_format")
    app = studio.place.app
    row, shown = make_key(
        read_pepper(app.settings), team="acme", name="t", created=app.clock.utc(), models=("flux-schnell",)
    )
    await app.db.add_key(row)
    await app.keys.refresh()
    body = {"prompt": "x", "background": "transparent"}
    barred = await studio.http.post("/v1/images/generations", json=body, headers={"authorization": f"Bearer {shown}"})
    assert (barred.status_code, barred.json()["error"]["param"]) == (403, "background")
    assert "bria-rmbg-2" in barred.json()["error"]["message"]
    assert await studio.nothing_happened()
    accounts = {"together": {"kind": "together", "key": "sandbox-together", "base_url": "http://127.0.0.1:9"}}
    async for poor in opened(tmp_path / "poor", accounts=accounts):
        refused = await poor.post("/v1/images/generations", background="transparent")
        error = refused.json()["error"]
        assert (refused.status_code, error["param"], error["code"]) == (400, "background", "unsupported_value")
        assert "remove_background" in error["message"]


QUOTED: list[dict[str, Any]] = [
    {"prompt": "in snow", "n": 2},
    {"prompt": "in snow", "size": "1024x1024", "model": "flux-kontext-pro"},
    {"prompt": "a boat", "masked": True},
    {"operation": "remove_background"},
    {"prompt": "a mug", "background": "transparent"},
    {"prompt": "as a drawing", "model": "flux-2-pro", "size": "1024x1024"},
]


@pytest.mark.parametrize("asked", QUOTED, ids=repr)
async def test_an_edit_is_quoted_by_its_pictures_or_their_sizes_at_what_it_then_costs(
    studio: Studio, asked: dict[str, Any]
) -> None:
    masked = asked.get("masked", False)
    body = {name: value for name, value in asked.items() if name != "masked"}
    shown: dict[str, Any] = {**body, "images": [{"image_url": uri(picture(512, 512))}]}
    files = {"image": ("a.png", picture(512, 512))}
    if masked:
        shown["mask"] = {"image_url": uri(picture(512, 512, mode="RGBA"))}
        files["mask"] = ("m.png", picture(512, 512, mode="RGBA"))
    form = {name: str(value) for name, value in body.items()}
    quotes = [
        await studio.http.post("/v1/quotes", json={**body, "input_sizes": ["512x512"], "masked": masked}),
        await studio.http.post("/v1/quotes", json=shown),
        await studio.http.post("/v1/quotes", data=form, files=files),
    ]
    assert [answer.status_code for answer in quotes] == [200] * 3, [answer.text for answer in quotes]
    assert quotes[0].json() == quotes[1].json() == quotes[2].json()
    assert await studio.nothing_happened()
    told = (await studio.http.post(EDITS, json=shown)).json()["pixelgate"]
    row = next(row for row in quotes[0].json()["offers"] if row["offer"] == told["offer"])
    assert (row["feasible"], row["nano_usd"]) == (True, told["nano_usd"])
    await studio.place.assert_books_agree()


async def test_a_picture_drawn_here_is_edited_by_its_id_by_its_own_team_while_it_is_kept(studio: Studio) -> None:
    made = (await studio.post("/v1/images/generations", size="512x512")).json()["data"][0]
    edited = await studio.post(images=[{"file_id": made["id"]}])
    assert edited.status_code == 200, edited.text
    assert edited.json()["usage"]["input_tokens_details"]["image_tokens"] == 16 * 16  # blocks of 32 x 32
    app = studio.place.app
    row, shown = make_key(read_pepper(app.settings), team="rivals", name="t", created=app.clock.utc())
    await app.db.add_key(row)
    await app.keys.refresh()
    body = {"prompt": "x", "images": [{"file_id": made["id"]}]}
    theirs = await studio.http.post(EDITS, json=body, headers={"authorization": f"Bearer {shown}"})
    assert (theirs.status_code, theirs.json()["error"]["param"]) == (404, "images[0].file_id")
    await studio.http.delete(f"/v1/images/{made['id']}")
    gone = await studio.http.post(EDITS, json=body)
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")


async def test_high_fidelity_goes_to_models_that_keep_to_their_pictures_or_becomes_a_low_strength(
    studio: Studio,
) -> None:
    shown: dict[str, Any] = {"images": [{"image_url": uri(picture(512, 512))}], "size": "512x512"}
    for model, fidelity, strength in (
        ("flux-dev", "high", 0.35),
        ("flux-dev", "low", None),
        ("flux-2-pro", "high", None),
    ):
        answer = await studio.post(**shown, model=f"{model}:fal", input_fidelity=fidelity)
        assert answer.status_code == 200, answer.text
        assert studio.sent("fal")[-1].get("strength") == strength
    own = await studio.post(**shown, model="flux-dev:fal", input_fidelity="high", strength=0.9)
    assert own.status_code == 200
    assert studio.sent("fal")[-1]["strength"] == 0.9
    assert "x-pixelgate-warning" not in own.headers
    error = (await studio.post(**shown, model="flux-subject", input_fidelity="high")).json()["error"]
    assert (error["param"], error["code"]) == ("input_fidelity", "unsupported_value")
    assert "flux-kontext-pro" in error["message"]
    odd = await studio.post(**shown, input_fidelity="medium")
    assert (odd.status_code, odd.json()["error"]["param"]) == (400, "input_fidelity")


async def test_a_policy_that_ignores_says_which_fidelity_is_not_kept(studio: Studio) -> None:
    app = studio.place.app
    policy = msgspec.structs.replace(app.revision.policy, ignore_unknown=True)
    names = names_of(policy, app.revision.catalog)
    given = Given({"prompt": "x", "model": "flux-subject", "input_fidelity": "high"}, ((512, 512),), masked=False)
    wish = parse_edit(given, names, Caller(key_id="key_test", team="acme"))
    assert (wish.warnings, wish.request.fidelity) == (("ignored: input_fidelity",), None)
