from __future__ import annotations

import asyncio
import io
import json
import signal
import sys

import pytest
from aiohttp import ClientSession
from msgspec import structs
from PIL import Image, ImageFilter, ImageStat

from providers.sandbox import start
from providers.sandbox.drawing import Painter, Scene, paint

LAKE = Scene(
    prompt="a lake at dawn", seed=1, model="fal-ai/flux/dev", tier="standard", width=384, height=256, format="png"
)


def opened(picture: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(picture))
    image.load()
    return image


def detail_of(picture: bytes) -> float:
    return ImageStat.Stat(opened(picture).convert("L").filter(ImageFilter.FIND_EDGES)).mean[0]


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("size", [(64, 64), (1365, 1024), (200, 1000)])
def test_pictures_have_exactly_the_size_and_format_asked_for(form: str, size: tuple[int, int]) -> None:
    picture = opened(paint(structs.replace(LAKE, width=size[0], height=size[1], format=form)))
    assert (picture.size, picture.format) == (size, form.upper())


def test_pictures_say_that_they_come_from_a_sandbox() -> None:
    assert opened(paint(LAKE)).info["Software"] == "sandbox"
    for form in ("jpeg", "webp"):
        assert opened(paint(structs.replace(LAKE, format=form))).getexif()[305] == "sandbox"


def test_pictures_depend_on_prompt_seed_and_model_alone() -> None:
    again = paint(structs.replace(LAKE))
    others = [structs.replace(LAKE, prompt="night"), structs.replace(LAKE, seed=2), structs.replace(LAKE, model="m")]
    assert paint(LAKE) == again
    assert len({again, *(paint(other) for other in others)}) == 4


def test_pictures_are_richer_with_tier() -> None:
    details = [detail_of(paint(structs.replace(LAKE, tier=tier))) for tier in ("preview", "standard", "export")]
    assert details[0] * 1.2 < details[1] < details[2]


def test_black_is_black() -> None:
    assert opened(paint(structs.replace(LAKE, black=True))).convert("L").getextrema() == (0, 0)


async def test_plain_pictures_are_painted_once_per_size_tier_and_format() -> None:
    painter = Painter(plain=True)
    first = await painter.paint(LAKE)
    assert await painter.paint(structs.replace(LAKE, prompt="other", seed=9, model="m")) is first
    assert await painter.paint(structs.replace(LAKE, steps=4)) is first
    tiers = ("preview", "standard", "export")
    assert len({await painter.paint(structs.replace(LAKE, tier=tier)) for tier in tiers}) == 3
    assert opened(await painter.paint(structs.replace(LAKE, width=64, height=64))).size == (64, 64)
    assert opened(await painter.paint(structs.replace(LAKE, format="webp"))).format == "WEBP"
    painter.close()


async def told(seed: int) -> tuple[object, ...]:
    headers = {"Authorization": "Key sandbox-a"}
    async with await start(time_scale=0.001, seed=seed, pictures="plain") as sandbox, ClientSession() as session:
        url = f"{sandbox.url}/fal/run/fal-ai/flux/schnell"
        async with session.post(url, json={"prompt": "x"}, headers=headers) as taken:
            body = await taken.json()
            return taken.headers["x-fal-request-id"], body["seed"], body["timings"]["inference"]


async def test_the_same_seed_tells_the_same_story() -> None:
    first, again, other = await told(1), await told(1), await told(2)
    assert first == again
    assert first != other


async def test_sandbox_as_a_process_says_where_it_is_and_ends_when_told() -> None:
    options = ("-m", "providers.sandbox", "--time-scale", "0.01", "--pictures", "plain")
    process = await asyncio.create_subprocess_exec(sys.executable, *options, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        url = json.loads(await process.stdout.readline())["url"]
        async with ClientSession() as session, session.get(f"{url}/_sandbox/invoice") as taken:
            assert await taken.json() == {"lines": [], "total_nano_usd": {}, "by_account": {}}
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
