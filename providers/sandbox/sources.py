"""Pictures that come with an order: found, looked into, and measured, or refused as the sellers refuse them."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence

from msgspec import Struct
from PIL import Image, ImageOps

from providers.sandbox.fields import Invalid

_LARGEST_SIDE = 14142
_SMALLEST_SIDE = 16


class Source(Struct, frozen=True, kw_only=True):
    """One picture to work from."""

    data: bytes
    width: int
    height: int

    def inverted(self) -> Source:
        """This picture's transparency as a mask: white where nothing is."""
        out = io.BytesIO()
        with Image.open(io.BytesIO(self.data)) as picture:
            ImageOps.invert(picture.convert("RGBA").getchannel("A")).save(out, "PNG", compress_level=1)
        return Source(data=out.getvalue(), width=self.width, height=self.height)


def read_sources(
    body: Mapping[str, object], field: str, between: tuple[int, int], uploads: Mapping[str, bytes]
) -> tuple[Source, ...]:
    """The pictures in a field: one URL, or a list of them where the field's name is a plural.

    A URL holds its bytes (`data:`) or leads to one of `uploads`: the twins fetch nothing from anywhere else.
    """
    least, most = between
    value = body.get(field)
    if value is None and least == 0:
        return ()
    if value is None:
        raise Invalid(field, "missing", "Field required")
    urls: Sequence[object] = value if isinstance(value, list) else [value]
    if isinstance(value, list) is not field.endswith("s"):
        expected = "list" if field.endswith("s") else "string"
        raise Invalid(field, f"{expected}_type", f"Input should be a valid {expected}")
    if not least <= len(urls) <= most:
        raise Invalid(field, "too_long", f"Give {least} to {most} images, not {len(urls)}")
    return tuple(look_into(_bytes_of(url, field, uploads), field) for url in urls)


def read_mask(body: Mapping[str, object], field: str, first: Source, uploads: Mapping[str, bytes]) -> Source | None:
    """The mask in a field, as large as the picture it is laid over."""
    value = body.get(field)
    if value is None:
        return None
    mask = look_into(_bytes_of(value, field, uploads), field)
    if (mask.width, mask.height) != (first.width, first.height):
        raise Invalid(field, "image_size_mismatch", "The mask must have the size of the image")
    return mask


def look_into(data: bytes, field: str) -> Source:
    """Measure a picture; raises `Invalid` for bytes that are none, or one too small or too large."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
            width, height = picture.size
            picture.verify()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise Invalid(field, "image_load_error", "Failed to load the image") from error
    if max(width, height) > _LARGEST_SIDE:
        raise Invalid(field, "image_too_large", f"Images have at most {_LARGEST_SIDE} pixels a side")
    if min(width, height) < _SMALLEST_SIDE:
        raise Invalid(field, "image_too_small", f"Images have at least {_SMALLEST_SIDE} pixels a side")
    return Source(data=data, width=width, height=height)


def _bytes_of(url: object, field: str, uploads: Mapping[str, bytes]) -> bytes:
    if not isinstance(url, str):
        raise Invalid(field, "string_type", "Input should be a valid string")
    if url.startswith("data:"):
        try:
            return base64.b64decode(url.partition(",")[2], validate=True)
        except binascii.Error as error:
            raise Invalid(field, "image_load_error", "Failed to load the image") from error
    data = uploads.get(url)
    if data is None:
        raise Invalid(field, "file_download_error", "Failed to download the file")
    return data
