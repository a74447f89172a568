"""Pictures that callers hand in: found whole, no larger than we accept, and fetched from nowhere they must not be.

But for masks, nothing here is decoded: what a picture is stands in its header, and whether it is whole in its chunks.
"""

from __future__ import annotations

import asyncio
import re
import weakref
from binascii import Error as NotBase64
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, NamedTuple

import pybase64

from gateway.errors import InvalidRequest, NoCapacity, NotFound
from gateway.http.fields import Fields, mapping, wrong_type
from gateway.http.forms import MAX_FILE, MAX_FORM
from gateway.http.services import Services
from providers.contract import Input
from providers.masks import readable
from providers.picture import NotAPicture, complete, has_alpha, probe
from providers.transport import WireError

MOST = 16
"""Pictures in one edit, as OpenAI has it."""
MAX_PIXELS = 32_000_000
"""Of one picture: what decodes into 128 MB."""
MAX_HELD = 256 * 1024 * 1024
"""Bytes of all pictures that calls under way were handed; what a seller is sent may take 2.7 times as many more."""
MAX_MASK = 4 * 1024 * 1024
"""Bytes, as OpenAI has it."""
MAX_URL = 20_971_520
"""Characters of a data URL, as OpenAI has it."""
_ELSEWHERE = 1024 * 1024
"""Bytes from which a picture is looked through in a thread."""

MAX_ID = 80
"""Characters of a picture's id; ours have 40."""
_SIZE = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", re.ASCII)

Fetch = Callable[[str], Awaitable[bytes]]
"""Bytes behind a URL that a caller names; raises `WireError` or `TimeoutError`."""


class _Held:
    """Bytes of every picture handed in that somebody still holds, whoever sent them."""

    def __init__(self) -> None:
        self.total = 0

    def hold(self, given: Input) -> Input:
        """Count a picture for as long as it lives; raises `NoCapacity` when there are too many."""
        size = len(given.data)
        if self.total + size > MAX_HELD:
            raise NoCapacity("Too many large pictures are being worked from at once.", retry_after=1.0)
        self.total += size
        weakref.finalize(given, self._give_back, size).atexit = False
        return given

    def _give_back(self, size: int) -> None:
        self.total -= size


held = _Held()


async def pictures(given: Sequence[tuple[str, bytes]]) -> tuple[Input, ...]:
    """The pictures in (field, bytes); raises `InvalidRequest` for none, for too many and for what is no picture."""
    if not given:
        raise _missing()
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
    return held.hold(Input(data, head))


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
    if not await readable(mask):  # whoever redraws it for a seller would find out with money set aside
        raise _invalid(param, "it is damaged, and cannot be decoded")
    return mask


def sizes(fields: Fields, name: str) -> tuple[tuple[int, int], ...]:
    """Sizes in place of pictures: `["1024x768"]`; raises for what no picture handed in could be."""
    listed = fields.get(name)
    if not isinstance(listed, list) or not 1 <= len(listed) <= MOST:
        raise wrong_type(name, f"a list of 1 to {MOST} sizes such as '1024x768'", listed)
    return tuple(_size(one, f"{name}[{at}]") for at, one in enumerate(listed))


def _size(value: object, param: str) -> tuple[int, int]:
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise wrong_type(param, "a size such as '1024x768'", value)
    width, height = int(match[1]), int(match[2])
    if width * height > MAX_PIXELS:
        raise _invalid(param, f"it has {width}x{height} pixels, and at most {MAX_PIXELS} are taken")
    return width, height


async def named(services: Services, team: str, fields: Fields, name: str) -> tuple[Input, ...]:
    """The pictures of a JSON body: `[{"image_url": ...}]`, fetched, unpacked or kept here; `name` is the list."""
    listed = fields.get(name)
    if listed is None or listed == []:
        raise _missing()
    if not isinstance(listed, list):
        raise wrong_type(name, f"a list of 1 to {MOST} objects such as {{'image_url': ...}}", listed)
    if len(listed) > MOST:
        raise InvalidRequest(f"Invalid '{name}': at most {MOST} images are taken, but got {len(listed)}.", param=name)
    named_so = [(f"{name}[{at}]", _source(one, f"{name}[{at}]")) for at, one in enumerate(listed)]
    inputs: list[Input] = []
    for param, source in named_so:
        inputs.append(await picture(await _bytes_of(services, team, source, param), param))
        if sum(len(one.data) for one in inputs) > MAX_FORM:
            raise InvalidRequest(f"Invalid '{name}': at most {MAX_FORM} bytes are taken in all.", param=name)
    return tuple(inputs)


async def named_one(services: Services, team: str, fields: Fields, name: str) -> bytes | None:
    """The picture of a JSON body's field that holds one: `{"image_url": ...}`."""
    one = mapping(fields, name)
    return None if one is None else await _bytes_of(services, team, _source(one, name), name)


class _Source(NamedTuple):
    """Where a picture lies: at an address, or here under an id."""

    field: Literal["image_url", "file_id"]
    value: str


def _source(one: object, param: str) -> _Source:
    if not isinstance(one, dict):
        raise wrong_type(param, "an object such as {'image_url': ...}", one)
    unknown = next((key for key in one if key not in {"image_url", "file_id"}), None)
    if unknown is not None:
        where = f"{param}.{unknown[:80]}"
        raise InvalidRequest(f"Unknown parameter: '{where}'.", param=where, code="unknown_parameter")
    url, file_id = one.get("image_url"), one.get("file_id")
    if file_id is None:
        if not isinstance(url, str):
            raise wrong_type(f"{param}.image_url", "a URL", url)
        if len(url) > MAX_URL:
            raise _invalid(f"{param}.image_url", f"at most {MAX_URL} characters")
        return _Source("image_url", url)
    if url is not None:
        raise _invalid(param, "'image_url' and 'file_id' each name a picture; send one of them")
    if not isinstance(file_id, str):
        raise wrong_type(f"{param}.file_id", "the id of a picture", file_id)
    if len(file_id) > MAX_ID or not file_id.startswith("img_"):
        raise _invalid(
            f"{param}.file_id",
            "no files are kept here, only pictures that were drawn here. Send the 'id' of one ('img_...'), or "
            "'image_url', a data URL too",
        )
    return _Source("file_id", file_id)


async def _bytes_of(services: Services, team: str, source: _Source, param: str) -> bytes:
    param, url = f"{param}.{source.field}", source.value
    if source.field == "file_id":
        return await _drawn_here(services, team, url, param)
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


async def _drawn_here(services: Services, team: str, image_id: str, param: str) -> bytes:
    """The bytes of a team's own picture; another team's is as if it did not exist."""
    asset = await services.db.asset(image_id, team)
    over = asset is not None and asset.expires is not None and asset.expires <= services.clock.utc()
    kept = None if asset is None or over else await services.blobs.read(asset.path)
    if kept is None:
        raise NotFound(f"There is no image '{image_id}', or no longer.", param=param)
    return kept


def _unpacked(url: str, param: str) -> bytes:
    head, _, body = url.partition(",")
    if not head.lower().endswith(";base64"):
        raise _invalid(param, "a data URL holds base64, as in data:image/png;base64,...")
    try:
        return pybase64.b64decode(body, validate=True)
    except (NotBase64, ValueError):
        raise _invalid(param, "its data is not valid base64") from None


def _missing() -> InvalidRequest:
    return InvalidRequest("Missing required parameter: 'image'.", param="image", code="missing_required_parameter")


def _invalid(param: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid '{param}': {why}.", param=param)
