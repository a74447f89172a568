"""Masks in the words of sellers that paint where a mask is white, and keep what is black.

`Order.mask` is transparent where the picture is to be drawn anew, as OpenAI has it. The open inpainting models, and so
most who sell them, want the opposite kind: white for what is drawn, no transparency.

One mask at a time is decoded, in a thread: one of 32 megapixels takes 160 MB meanwhile.
"""

from __future__ import annotations

import asyncio
import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from providers.contract import Head, Input
from providers.errors import Unsupported

if TYPE_CHECKING:
    from PIL import Image

_decoding = ThreadPoolExecutor(1, thread_name_prefix="masks")
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error)
"""What Pillow raises for pictures whose header is sound and whose rest is not."""


async def readable(mask: Input) -> bool:
    """Whether a mask can be decoded; its header and checksums alone do not tell."""
    try:
        await asyncio.get_running_loop().run_in_executor(_decoding, _alpha, mask)
    except _DAMAGED:
        return False
    return True


async def white_on_black(mask: Input) -> Input:
    """Draw `mask` as a greyscale PNG of the same size: white where it is transparent; `Unsupported` if damaged."""
    try:
        return await asyncio.get_running_loop().run_in_executor(_decoding, _redrawn, mask)
    except _DAMAGED as error:
        raise Unsupported("the mask cannot be decoded") from error


def _redrawn(mask: Input) -> Input:
    from PIL import ImageOps  # only orders with a mask need it

    out = io.BytesIO()
    ImageOps.invert(_alpha(mask)).save(out, "PNG", compress_level=1)
    return Input(out.getvalue(), Head("png", mask.head.width, mask.head.height))


def _alpha(mask: Input) -> Image.Image:
    from PIL import Image  # as above

    with Image.open(io.BytesIO(mask.data), formats=["PNG"]) as picture:
        whole = picture if "A" in picture.getbands() else picture.convert("RGBA")
        return whole.getchannel("A")
