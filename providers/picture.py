"""Pictures as they arrive: what their headers say, whether they are whole, and whether they are what was ordered.

Header parsing follows the PNG specification (third edition), JPEG's ITU-T T.81 Annex B and the WebP container
specification. No decoder is involved: bytes from outside meet nothing but slicing and a checksum here.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from typing import Final

import pybase64
from msgspec import Struct

from providers.contract import Format, Generation, Head, Image, Input, Order, Ticket, Tokens, Usage
from providers.errors import BadDelivery, Unsupported

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNK: Final = struct.Struct(">I4s")
"""Length and kind, before what a chunk holds."""
_PNG_CHECKSUM: Final = struct.Struct(">I")
_JPEG: Final = b"\xff\xd8\xff"
_WEBP_CHUNK_HEAD: Final = 30
"""Bytes from the start of a WebP file that hold its size, whichever of the three kinds it is."""
_STANDALONE: Final = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})
"""JPEG markers without a length behind them (TEM, SOI, RSTn)."""
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG markers that open a frame and so hold its size (SOF0..SOF15 without DHT, JPG and DAC)."""
_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""The next marker inside entropy-coded data, where ff00 is a literal byte and RSTn belongs to the data."""


class NotAPicture(ValueError):
    """These bytes are no PNG, JPEG or WebP picture."""


class Piece(Struct, frozen=True, kw_only=True):
    """One picture as a provider handed it over, before anyone looked at its bytes."""

    data: bytes
    declared: tuple[int, int] | None = None
    """Width and height as the provider tells them, where it does."""
    seed: int | None = None
    flagged: bool = False
    trouble: str = ""
    """Why there are no bytes, where there are none."""


def probe(data: bytes) -> Head:
    """Format and size from the header alone; raises `NotAPicture` for anything else."""
    if data.startswith(_PNG):
        head = _png_head(data)
    elif data.startswith(_JPEG):
        head = _jpeg_head(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        head = _webp_head(data)
    else:
        raise NotAPicture("neither PNG, JPEG nor WebP")
    if head.width < 1 or head.height < 1:
        raise NotAPicture("a picture without pixels")
    return head


def complete(data: bytes) -> bool:
    """Whether a picture is there to its last byte; a checksum is compared where its format has one (PNG)."""
    if data.startswith(_PNG):
        return _png_complete(data)
    if data.startswith(_JPEG):
        return _jpeg_complete(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return len(data) >= int.from_bytes(data[4:8], "little") + 8
    return False


def has_alpha(data: bytes) -> bool:
    """Whether a picture can be transparent somewhere, from its header."""
    if data.startswith(_PNG):
        return len(data) > 25 and (data[25] in {4, 6} or b"tRNS" in data[: max(data.find(b"IDAT"), 0)])
    if data[:4] == b"RIFF" and data[12:16] == b"VP8X":
        return bool(data[20] & 0x10)
    return data[:4] == b"RIFF" and data[12:16] == b"VP8L" and len(data) > 24 and bool(data[24] & 0x10)


def steps_of(order: Order) -> int | None:
    """How many steps an order draws with: as asked, else the endpoint's default; None where it decides alone."""
    if order.abilities.steps is None:
        return None
    return order.request.steps if order.request.steps is not None else order.abilities.default_steps


def format_of(order: Order) -> Format:
    """Choose the file format: as asked where the endpoint sells it, else its best, for the gateway to re-encode."""
    sold = order.abilities.formats
    if order.request.format in sold or not sold:
        return order.request.format
    return "png" if "png" in sold else sold[0]


def input_fields(order: Order, urls: Sequence[str]) -> dict[str, object]:
    """Say where the input pictures are, in the field of the endpoint's dialect: one URL, or a list in a plural one.

    Raises `Unsupported` where the endpoint takes none, or fewer.
    """
    dialect, (fewest, most) = order.abilities.input_dialect, order.abilities.references
    if not urls and not fewest:
        return {}
    if dialect is None or not fewest <= len(urls) <= most:
        raise Unsupported(f"{order.endpoint} takes {fewest} to {most} input pictures, not {len(urls)}")
    return {dialect: list(urls) if dialect.endswith("s") else urls[0]}


def data_uri(picture: Input) -> str:
    """Write an input picture as a URL that holds its bytes, for fields that take them."""
    return f"data:image/{picture.head.format};base64,{pybase64.b64encode_as_string(picture.data)}"


def requested(order: Order, count: int | None = None) -> Usage:
    """Count up what `count` pictures (by default as many as ordered) of the ordered size amount to, seen or unseen."""
    asked = order.request
    made = asked.count if count is None else count
    return Usage(images=((asked.width, asked.height),) * made, steps=steps_of(order), references=asked.references)


def deliver(  # noqa: PLR0913  # each is something that some seller tells beside its pictures
    order: Order,
    pieces: Sequence[Piece],
    *,
    ticket: Ticket | None = None,
    queue_s: float | None = None,
    run_s: float | None = None,
    tokens: Tokens | None = None,
    made: int | None = None,
    machine_ns: int = 0,
    machine: str = "",
) -> Generation:
    """Make a generation of what came back, if that is what was ordered.

    `made` is how many pictures the provider counts, where that may differ from `pieces`; `machine_ns` the machine time
    it bills, in nanoseconds, `machine` whose. Raises `BadDelivery` for a wrong count or size and for bytes that are no
    whole picture; its `owed` holds every picture the provider made: measured from its bytes, else as declared, else as
    ordered.
    """
    heads = [_head(piece) for piece in pieces]
    sizes = tuple([_size(piece, head, order) for piece, head in zip(pieces, heads, strict=True)])
    usage = Usage(
        images=sizes if made is None else (sizes + requested(order, max(made - len(sizes), 0)).images)[:made],
        steps=steps_of(order),
        references=order.request.references,
        machine_ns=machine_ns,
        machine=machine,
        tokens=tokens,
    )
    fault = _fault(order, pieces, sizes)
    if fault:
        raise BadDelivery(fault, owed=usage, ticket=ticket)
    images = tuple(
        [
            Image(data=piece.data, seed=piece.seed, flagged=piece.flagged, measured=head)
            for piece, head in zip(pieces, heads, strict=True)
        ]
    )
    return Generation(images=images, usage=usage, ticket=ticket, queue_s=queue_s, run_s=run_s)


def _head(piece: Piece) -> Head | None:
    try:
        return probe(piece.data)
    except NotAPicture:
        return None


def _size(piece: Piece, head: Head | None, order: Order) -> tuple[int, int]:
    if head is None:
        return piece.declared or (order.request.width, order.request.height)
    return head.width, head.height


def _fault(order: Order, pieces: Sequence[Piece], sizes: Sequence[tuple[int, int]]) -> str | None:
    asked = order.request
    if len(pieces) != asked.count:
        return f"{len(pieces)} pictures instead of {asked.count}"
    for piece, size in zip(pieces, sizes, strict=True):
        if piece.trouble:
            return piece.trouble
        if not complete(piece.data):
            return "a picture that breaks off or is none at all"
        if size != (asked.width, asked.height):
            return f"{size[0]}x{size[1]} instead of {asked.width}x{asked.height}"
    return None


def _png_head(data: bytes) -> Head:
    if len(data) < 33 or data[8:16] != b"\x00\x00\x00\rIHDR":
        raise NotAPicture("a PNG without a header")
    return Head("png", int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"))


def _png_complete(data: bytes) -> bool:
    view, at = memoryview(data), len(_PNG)
    while at + 12 <= len(data):
        length, kind = _PNG_CHUNK.unpack_from(data, at)
        end = at + 12 + length
        if end > len(data) or zlib.crc32(view[at + 4 : end - 4]) != _PNG_CHECKSUM.unpack_from(data, end - 4)[0]:
            return False
        if kind == b"IEND":
            return True
        at = end
    return False


def _jpeg_head(data: bytes) -> Head:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _STANDALONE:
            at += 2
            continue
        if marker in _FRAMES and at + 9 <= len(data):
            height, width = int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
            return Head("jpeg", width, height)
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2:
            break
        at += 2 + length
    raise NotAPicture("a JPEG without a frame")


def _jpeg_complete(data: bytes) -> bool:
    at, drawn = 2, False
    while at + 2 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xD9:
            return drawn
        if marker == 0xFF:
            at += 1
            continue
        if marker in _STANDALONE:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2:
            return False
        at += 2 + length
        if marker == 0xDA:
            drawn = True
            following = _MARKER.search(data, at)
            if following is None:
                return False
            at = following.start()
    return False


def _webp_head(data: bytes) -> Head:
    if len(data) < _WEBP_CHUNK_HEAD:
        raise NotAPicture("a WebP without a header")
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    elif kind == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width = int.from_bytes(data[26:28], "little") & 0x3FFF
        height = int.from_bytes(data[28:30], "little") & 0x3FFF
    else:
        raise NotAPicture("a WebP of unknown kind")
    return Head("webp", width, height)
