"""The one picture the mock upstream serves: small, decodable, and too noisy to be taken for a black one."""

from __future__ import annotations

import base64
import random
import struct
import zlib

import msgspec

SIDE = 256
"""Pixels."""
TILE = 4
"""Pixels of one grey; makes the file about 5 kB, the weight of a small preview."""


def png() -> bytes:
    """A 256 x 256 greyscale PNG of random tiles, always the same bytes."""
    draw = random.Random(256)
    rows = bytearray()
    for _ in range(SIDE // TILE):
        greys = b"".join(bytes([8 * draw.randrange(32)]) * TILE for _ in range(SIDE // TILE))
        rows += (b"\0" + greys) * TILE
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def images_response() -> bytes:
    """The picture as an OpenAI-style images response."""
    return msgspec.json.encode({"created": 1_790_000_000, "data": [{"b64_json": base64.b64encode(png()).decode()}]})


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
