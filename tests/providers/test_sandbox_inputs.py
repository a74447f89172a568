"""Pictures that go into the sandbox: validated as the sellers do, and seen again in what comes out."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession
from PIL import Image, ImageChops, ImageStat

from providers.sandbox import Sandbox, start

KONTEXT = "fal-ai/flux-pro/kontext"
FILL = "fal-ai/flux-pro/v1/fill"


def picture(width: int, height: int, colour: object = (230, 40, 40), mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, (width, height), colour).save(out, "PNG")  # type: ignore[arg-type]  # any colour of any mode
    return out.getvalue()


def uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


class Desk:
    """Asks the sandbox directly, without an adapter."""

    def __init__(self, sandbox: Sandbox, session: ClientSession) -> None:
        self.sandbox = sandbox
        self._session = session
        self._key = {"Authorization": "Key sandbox-a"}

    async def run(self, endpoint: str, **body: object) -> tuple[int, dict[str, Any]]:
        url = f"{self.sandbox.url}/fal/run/{endpoint}"
        async with self._session.post(url, json=body, headers=self._key) as answered:
            return answered.status, await answered.json()

    async def drawn(self, endpoint: str, **body: object) -> Image.Image:
        status, told = await self.run(endpoint, sync_mode=True, **body)
        assert status == 200, told
        file = told["image"] if "image" in told else told["images"][0]
        return Image.open(io.BytesIO(base64.b64decode(file["url"].partition(",")[2])))

    async def upload(self, data: bytes) -> str:
        url = f"{self.sandbox.url}/fal/rest/storage/auth/token?storage_type=fal-cdn-v3"
        async with self._session.post(url, json={}, headers=self._key) as answered:
            token = await answered.json()
        signed = {"Authorization": f"{token['token_type']} {token['token']}"}
        async with self._session.post(f"{token['base_url']}/files/upload", data=data, headers=signed) as answered:
            return str((await answered.json())["access_url"])


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with await start(time_scale=0.01) as sandbox, ClientSession() as session:
        yield Desk(sandbox, session)


def unlike(a: Image.Image, b: Image.Image) -> float:
    """Mean difference of two pictures, 0 to 255 a channel."""
    seen = ImageChops.difference(a.convert("RGB"), b.convert("RGB").resize(a.size))
    return sum(ImageStat.Stat(seen).mean) / 3


async def test_an_edited_picture_shows_what_it_was_made_from(desk: Desk) -> None:
    red, blue = picture(320, 240), picture(320, 240, (20, 60, 240))
    from_red = await desk.drawn(KONTEXT, prompt="dawn", seed=1, image_url=uri(red), aspect_ratio="4:3")
    from_blue = await desk.drawn(KONTEXT, prompt="dawn", seed=1, image_url=await desk.upload(blue))
    assert from_red.size == from_blue.size == (1184, 880)
    for made, own, other in ((from_red, red, blue), (from_blue, blue, red)):
        assert unlike(made, Image.open(io.BytesIO(own))) < unlike(made, Image.open(io.BytesIO(other)))


async def test_outside_the_mask_nothing_changes_and_inside_it_everything(desk: Desk) -> None:
    mask = Image.new("L", (512, 256))
    mask.paste(255, (0, 0, 256, 256))
    out = io.BytesIO()
    mask.save(out, "PNG")
    given = picture(512, 256)
    made = await desk.drawn(FILL, prompt="a boat", image_url=uri(given), mask_url=uri(out.getvalue()))
    source = Image.open(io.BytesIO(given))
    left, right = (0, 0, 250, 256), (262, 0, 512, 256)
    assert made.size == (512, 256)
    assert unlike(made.crop(right), source.crop(right)) < 3
    assert unlike(made.crop(left), source.crop(left)) > 30


async def test_a_removed_background_is_transparent_and_the_middle_stays(desk: Desk) -> None:
    made = await desk.drawn("fal-ai/bria/background/remove", image_url=uri(picture(333, 222)))
    assert (made.mode, made.size) == ("RGBA", (333, 222))
    assert made.getchannel("A").getpixel((0, 0)) == 0
    assert made.getpixel((166, 111)) == (230, 40, 40, 255)


@pytest.mark.parametrize(
    ("endpoint", "body", "field", "kind"),
    [
        (KONTEXT, {}, "image_url", "missing"),
        (KONTEXT, {"image_url": [uri(picture(64, 64))]}, "image_url", "string_type"),
        (KONTEXT, {"image_url": uri(b"plain text")}, "image_url", "image_load_error"),
        (KONTEXT, {"image_url": "https://example.com/a.png"}, "image_url", "file_download_error"),
        (KONTEXT, {"image_url": uri(picture(8, 64))}, "image_url", "image_too_small"),
        (KONTEXT, {"image_url": uri(picture(64, 64)), "aspect_ratio": "5:1"}, "aspect_ratio", "literal_error"),
        (
            FILL,
            {"image_url": uri(picture(256, 256)), "mask_url": uri(picture(64, 64, 0, "L"))},
            "mask_url",
            "image_size_mismatch",
        ),
    ],
)
async def test_a_wrong_input_is_refused_and_unbilled(
    desk: Desk, endpoint: str, body: dict[str, object], field: str, kind: str
) -> None:
    status, told = await desk.run(endpoint, prompt="dawn", **body)
    assert (status, told["detail"][0]["loc"][-1], told["detail"][0]["type"]) == (422, field, kind)
    assert desk.sandbox.invoice()["lines"] == []


async def test_nobody_uploads_without_a_token(desk: Desk) -> None:
    async with (
        ClientSession() as session,
        session.post(f"{desk.sandbox.url}/fal/cdn/files/upload", data=b"x") as answered,
    ):
        assert answered.status == 401


async def test_the_invoice_counts_edits_like_any_picture(desk: Desk) -> None:
    await asyncio.gather(
        desk.drawn(KONTEXT, prompt="dawn", image_url=uri(picture(64, 64))),
        desk.drawn(FILL, prompt="dawn", image_url=uri(picture(1040, 1024))),
        desk.drawn("fal-ai/bria/background/remove", image_url=uri(picture(64, 64))),
    )
    assert desk.sandbox.invoice()["total_nano_usd"] == {"fal": 40_000_000 + 100_000_000 + 18_000_000}
