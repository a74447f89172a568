"""Pictures that callers hand in: found whole, no larger than we accept, and fetched from nowhere they must not be.

Nothing here is decoded: what a picture is stands in its header, and whether it is whole in its chunks.
"""

from __future__ import annotations

import asyncio
from binascii import Error as NotBase64
from collections.abc import Awaitable, Callable, Sequence

import pybase64

from gateway.errors import InvalidRequest
from gateway.http.fields import Fields, mapping, wrong_type
from gateway.http.forms import MAX_FILE
from gateway.http.services import Services
from providers.contract import Input
from providers.picture import NotAPicture, complete, has_alpha, probe
from providers.transport import WireError

MOST = 16
"""Pictures in one edit, as OpenAI has it."""
MAX_PIXELS = 32_000_000
"""Of one picture: what decodes into 128 MB."""
MAX_MASK = 4 * 1024 * 1024
"""Bytes, as OpenAI has it."""
MAX_URL = 20_971_520
"""Characters of a data URL, as OpenAI has it."""
_ELSEWHERE = 1024 * 1024
"""Bytes from which a picture is looked through in a thread."""

Fetch = Callable[[str], Awaitable[bytes]]
"""Bytes behind a URL that a caller names; raises `WireError` or `TimeoutError`."""


async def pictures(given: Sequence[tuple[str, bytes]]) -> tuple[Input, ...]:
    """The pictures in (field, bytes); raises `InvalidRequest` for none, for too many and for what is no picture."""
    if not given:
        raise InvalidRequest("Missing required parameter: 'image'.", param="image", code="missing_required_parameter")
    if len(given) > MOST:
        raise InvalidRequest(f"Invalid 'image': at most {MOST} images are taken, but got {len(given)}.", param="image")
    return tuple([await picture(data, param) for param, data in given])


async def picture(data: bytes, param: str) -> Input:
    """One picture; its own bytes count, whatever it is called."""
    if not data:
        raise _invalid(param, "it is empty")
    if len(data) > MAX_FILE:
        raise _invalid(param, f"it has {len(data)} bytes, and at most {MAX_FILE} are taken")
    try:
        head = probe(data)
    except NotAPicture as error:
        raise _invalid(param, f"it is no PNG, JPEG or WebP picture ({error})") from None
    if head.width * head.height > MAX_PIXELS:
        raise _invalid(param, f"it has {head.width}x{head.height} pixels, and at most {MAX_PIXELS} in all are taken")
    whole = complete(data) if len(data) < _ELSEWHERE else await asyncio.to_thread(complete, data)
    if not whole:
        raise _invalid(param, "the picture breaks off or is damaged")
    return Input(data, head)


async def mask_over(data: bytes, first: Input, param: str = "mask") -> Input:
    """A mask as large as the first picture, transparent where that is to be drawn anew."""
    if len(data) > MAX_MASK:
        raise _invalid(param, f"it has {len(data)} bytes, and at most {MAX_MASK} are taken")
    mask = await picture(data, param)
    if mask.head.format != "png" or not has_alpha(data):
        raise _invalid(param, "a mask is a PNG with an alpha channel, transparent where the picture is drawn anew")
    if (mask.head.width, mask.head.height) != (first.head.width, first.head.height):
        sizes = f"{mask.head.width}x{mask.head.height}, the image {first.head.width}x{first.head.height}"
        raise _invalid(param, f"it must be as large as the first image; it has {sizes}")
    return mask


async def named(services: Services, fields: Fields, name: str) -> list[tuple[str, bytes]]:
    """The pictures of a JSON body: `[{"image_url": ...}]`, fetched or unpacked; `name` is the list."""
    listed = fields.get(name)
    if listed is None:
        return []
    if not isinstance(listed, list):
        raise wrong_type(name, f"a list of 1 to {MOST} objects such as {{'image_url': ...}}", listed)
    if len(listed) > MOST:
        raise InvalidRequest(f"Invalid '{name}': at most {MOST} images are taken, but got {len(listed)}.", param=name)
    urls = [(f"{name}[{at}]", _url({"it": one}, f"{name}[{at}]")) for at, one in enumerate(listed)]
    return [(param, await _bytes_of(services, url, param)) for param, url in urls]


async def named_one(services: Services, fields: Fields, name: str) -> bytes | None:
    """The picture of a JSON body's field that holds one: `{"image_url": ...}`."""
    one = mapping(fields, name)
    return None if one is None else await _bytes_of(services, _url({"it": one}, name), name)


def _url(holder: Fields, param: str) -> str:
    one = holder["it"]
    if not isinstance(one, dict):
        raise wrong_type(param, "an object such as {'image_url': ...}", one)
    unknown = next((key for key in one if key not in {"image_url", "file_id"}), None)
    if unknown is not None:
        where = f"{param}.{unknown[:80]}"
        raise InvalidRequest(f"Unknown parameter: '{where}'.", param=where, code="unknown_parameter")
    if one.get("file_id") is not None:
        raise InvalidRequest(
            f"Unsupported parameter: '{param}.file_id': no files are kept here. Send 'image_url', a data URL too.",
            param=f"{param}.file_id",
            code="unsupported_parameter",
        )
    url = one.get("image_url")
    if not isinstance(url, str):
        raise wrong_type(f"{param}.image_url", "a URL", url)
    if len(url) > MAX_URL:
        raise InvalidRequest(f"Invalid '{param}.image_url': at most {MAX_URL} characters.", param=f"{param}.image_url")
    return url


async def _bytes_of(services: Services, url: str, param: str) -> bytes:
    param = f"{param}.image_url"
    if url.startswith("data:"):
        return _unpacked(url, param)
    own = f"{services.public_base}/assets/"
    if url.startswith(own):
        kept = await services.blobs.read(url[len(own) :].partition("?")[0])
        if kept is None:
            raise _invalid(param, "there is no such picture here, or no longer")
        return kept
    try:
        return await services.fetch(url)
    except TimeoutError:
        raise _invalid(param, "the picture did not arrive in time") from None
    except WireError as error:
        limits = f"It must be a picture of at most {MAX_FILE} bytes at a public address, https or http"
        raise _invalid(param, f"it could not be fetched ({error}). {limits}") from None


def _unpacked(url: str, param: str) -> bytes:
    head, _, body = url.partition(",")
    if not head.lower().endswith(";base64"):
        raise _invalid(param, "a data URL holds base64, as in data:image/png;base64,...")
    try:
        return pybase64.b64decode(body, validate=True)
    except (NotBase64, ValueError):
        raise _invalid(param, "its data is not valid base64") from None


def _invalid(param: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid '{param}': {why}.", param=param)
