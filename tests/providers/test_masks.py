from __future__ import annotations

import io

import pytest
from PIL import Image

from providers.contract import Head, Input
from providers.errors import Unsupported
from providers.masks import readable, white_on_black


async def test_what_is_transparent_in_a_mask_becomes_white_and_the_rest_black() -> None:
    drawn, out = Image.new("RGBA", (4, 2), (200, 10, 10, 255)), io.BytesIO()
    drawn.paste((0, 0, 0, 0), (0, 0, 2, 2))
    drawn.save(out, "PNG")
    seen = await white_on_black(Input(out.getvalue(), Head("png", 4, 2)))
    with Image.open(io.BytesIO(seen.data)) as picture:
        assert (picture.mode, picture.size, seen.head) == ("L", (4, 2), Head("png", 4, 2))
        assert [picture.getpixel((x, 1)) for x in range(4)] == [255, 255, 0, 0]


async def test_a_mask_of_one_transparent_colour_counts_as_transparent_there() -> None:
    drawn, out = Image.new("P", (2, 1), 0), io.BytesIO()
    drawn.putpalette([0, 0, 0, 255, 255, 255])
    drawn.putpixel((1, 0), 1)
    drawn.save(out, "PNG", transparency=1)
    seen = await white_on_black(Input(out.getvalue(), Head("png", 2, 1)))
    with Image.open(io.BytesIO(seen.data)) as picture:
        assert [picture.getpixel((x, 0)) for x in range(2)] == [0, 255]


async def test_a_mask_whose_pixels_are_damaged_is_found_out() -> None:
    out = io.BytesIO()
    Image.new("RGBA", (4, 2)).save(out, "PNG")
    data = out.getvalue()
    body = data.index(b"IDAT") + 4
    damaged = Input(data[:body] + b"\xff\xff" + data[body + 2 :], Head("png", 4, 2))
    assert await readable(Input(data, Head("png", 4, 2)))
    assert not await readable(damaged)
    with pytest.raises(Unsupported, match="mask"):
        await white_on_black(damaged)
