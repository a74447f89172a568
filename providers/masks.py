"""Masks in the words of sellers that paint where a mask is white, and keep what is black.

`Order.mask` is transparent where the picture is to be drawn anew, as OpenAI has it. The open inpainting models, and so
most who sell them, want the opposite kind: white for what is drawn, no transparency.
"""

from __future__ import annotations

import asyncio
import io

from providers.contract import Head, Input


async def white_on_black(mask: Input) -> Input:
    """Draw `mask` as a greyscale PNG of the same size: white where it is transparent. Decoded in a thread."""
    return await asyncio.to_thread(_redrawn, mask)


def _redrawn(mask: Input) -> Input:
    from PIL import Image, ImageOps  # only orders with a mask need it

    out = io.BytesIO()
    with Image.open(io.BytesIO(mask.data)) as picture:
        ImageOps.invert(picture.convert("RGBA").getchannel("A")).save(out, "PNG", compress_level=1)
    return Input(out.getvalue(), Head("png", mask.head.width, mask.head.height))
