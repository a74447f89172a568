"""Pictures of a seller that lies, or was broken into."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import pytest
from PIL import Image as Pillow

from gateway.assets import Unfit, convert, inspect, is_black
from gateway.cli.shadow_page import thumbnail
from gateway.features.judging import plain
from gateway.features.measuring import pixels_of
from providers.contract import Image, ImageRequest


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def head(width: int, height: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def png(*heads: tuple[int, int], pixels: bytes = bytes(1000), before: bytes = b"") -> bytes:
    told = b"".join(head(*size) for size in heads)
    return b"\x89PNG\r\n\x1a\n" + told + before + chunk(b"IDAT", zlib.compress(pixels, 9)) + chunk(b"IEND", b"")


PACKED = b"a\0\0" + zlib.compress(bytes(200_000_000))
BOMBS = {
    "a second head of 144 megapixels": png((64, 64), (12_000, 12_000)),
    "a second head of 900 megapixels": png((64, 64), (30_000, 30_000)),
    "a text that unpacks to 200 MB": png((64, 64), before=chunk(b"zTXt", PACKED)),
    "a profile that unpacks to 200 MB": png((64, 64), before=chunk(b"iCCP", PACKED)),
    "more pixels than its size": png((64, 64), pixels=bytes(200_000_000)),
    "fewer pixels than its size": png((64, 64), pixels=b""),
}


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_is_no_picture_and_is_not_unpacked(name: str) -> None:
    data = BOMBS[name]
    tracemalloc.start()
    try:
        for decode in (is_black, lambda data: convert(data, "jpeg", 80), pixels_of, plain, thumbnail):
            try:
                decode(data)
            except Unfit:
                continue
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 80_000_000


@pytest.mark.parametrize("name", ["a second head of 144 megapixels", "a second head of 900 megapixels"])
async def test_a_picture_with_two_heads_is_refused(name: str) -> None:
    with pytest.raises(Unfit):
        await inspect(Image(data=BOMBS[name]), ImageRequest(prompt="a kite", width=64, height=64))


async def test_a_picture_larger_than_any_that_was_asked_for_is_refused_unseen() -> None:
    with pytest.raises(Unfit, match="larger"):
        await inspect(Image(data=png((30_000, 30_000))), ImageRequest(prompt="a kite", width=30_000, height=30_000))


def test_a_black_picture_is_black_and_a_grey_one_is_not() -> None:
    for shade, black in ((0, True), (90, False)):
        out = io.BytesIO()
        Pillow.new("RGB", (64, 64), (shade,) * 3).save(out, "PNG")
        assert is_black(out.getvalue()) is black
