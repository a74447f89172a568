"""Forms no client library would send, byte by byte, to a real gateway: refused by name, nothing ordered or fetched."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from tests.support.demo import running_demo

DIVIDER = "x-x"
END = b"\r\n--x-x--\r\n"


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    with running_demo(tmp_path_factory.mktemp("hostile-forms")) as told:
        yield told


def png(mode: str = "RGB", side: int = 512) -> bytes:
    out = io.BytesIO()
    Image.new(mode, (side, side)).save(out, "PNG")
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def crafted(width: int, height: int, packed: bytes, *more: bytes, colours: int = 6) -> bytes:
    """A PNG whose every checksum is right, and whose pixels are whatever `packed` holds."""
    head = struct.pack(">IIBBBBB", width, height, 8, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(more) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def bomb(size: int) -> bytes:
    """`size` MB of nothing, packed."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1_000_000)) for _ in range(size)) + packer.flush()


PICTURE, MASK = png(), png("RGBA")


def part(name: str, data: bytes, *, file: str = "", more: str = "") -> bytes:
    named = f'; filename="{file}"' if file else ""
    head = f'--{DIVIDER}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n{more}\r\n'
    return head.encode("utf-8", "surrogateescape") + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{DIVIDER}--\r\n".encode()


def edit(picture: bytes = PICTURE, *more: bytes, file: str = "a.png") -> bytes:
    return form(part("prompt", b"in snow"), part("image", picture, file=file), *more)


async def send(
    told: Mapping[str, str], body: bytes, *, kind: str = f"multipart/form-data; boundary={DIVIDER}", more: str = ""
) -> bytes:
    """Everything that comes back for one request on a connection of its own."""
    address = urlsplit(told["base_url"])
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = (
        f"POST /v1/images/edits HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {told['key']}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n"
    )
    async with asyncio.timeout(60):
        with contextlib.suppress(ConnectionError):
            writer.write(head.encode("latin-1") + body)
            await writer.drain()
        answer = await reader.read()
    writer.close()
    return answer


def read(raw: bytes) -> tuple[int, dict[str, object]]:
    """Status and body of the one answer in what came back."""
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(body)


def traces(told: Mapping[str, str]) -> tuple[object, object]:
    """What sellers were asked for, and what they bill."""
    seen = httpx.get(f"{told['sandbox_url']}/_sandbox/requests").json()["requests"]
    return seen, httpx.get(f"{told['sandbox_url']}/_sandbox/invoice").json()["lines"]


MANY_HEADERS = "".join(f"X-{number}: a\r\n" for number in range(10_000))
NESTED = b"--y\r\nContent-Disposition: file; filename=a.png\r\n\r\nx\r\n--y--"
MALFORMED: Mapping[str, bytes] = {
    "nothing": b"",
    "no boundary": PICTURE * 20,
    "a boundary that never closes": form(part("prompt", b"x"), part("image", PICTURE))[:-8],
    "a boundary broken off": edit()[:-3],
    "another boundary": edit().replace(b"x-x", b"y-y"),
    "words before the first boundary": b"hello" + edit(),
    "bare line feeds": edit().replace(b"\r\n", b"\n"),
    "a header without a colon": form(part("prompt", b"x", more="Nonsense\r\n")),
    "a header that is no text": form(part("prompt", b"x", more="X-A: \udcff\udcfe\r\n")),
    "ten thousand headers in a part": form(part("prompt", b"x", more=MANY_HEADERS)),
    "a header of a megabyte": form(part("prompt", b"x", more=f"X-A: {'a' * 1_000_000}\r\n")),
    "a name of a megabyte": form(part("a" * 1_000_000, b"x")),
    "ten thousand parts": form(*(part(f"a{number}", b"x") for number in range(10_000))),
    "a hundred and fifty pictures": form(*(part("image[]", b"x", file="a.png") for _ in range(150))),
    "a part that is no form's": form(b"--x-x\r\nContent-Disposition: attachment; filename=a\r\n\r\nx\r\n"),
    "a part that says nothing of itself": form(b"--x-x\r\n\r\nx\r\n"),
    "a part longer than it says": form(part("prompt", b"in snow", more="Content-Length: 2\r\n")),
    "a part of a negative length": form(part("prompt", b"in snow", more="Content-Length: -2\r\n")),
    "a field twice": form(part("prompt", b"a"), part("prompt", b"b"), part("image", PICTURE)),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_form_that_is_none_is_refused_and_nothing_is_ordered(name: str, fixtures: Mapping[str, str]) -> None:
    before = traces(fixtures)
    status, told = read(await send(fixtures, MALFORMED[name]))
    error = told["error"]
    assert isinstance(error, dict)
    assert (status, error["code"]) == (400, "invalid_form"), error
    assert len(error["message"]) < 400
    assert traces(fixtures) == before


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "a" * 71,
        "multipart/form-data; boundary=" + "a" * 30_000,
        'multipart/form-data; boundary="' + "\\" * 5000,
        "multipart/form-data;" + " a=b;" * 5000 + " boundary",
        "multipart/mixed; boundary=x-x",
        "application/x-www-form-urlencoded",
        "image/png",
    ],
)
async def test_a_form_of_no_boundary_or_kind_is_refused(kind: str, fixtures: Mapping[str, str]) -> None:
    before = traces(fixtures)
    status, told = read(await send(fixtures, edit(), kind=kind))
    assert (status, told["error"]["code"]) == (415, "unsupported_media_type")  # type: ignore[index]  # JSON
    assert traces(fixtures) == before


async def test_a_packed_form_is_not_unpacked(fixtures: Mapping[str, str]) -> None:
    status, _ = read(await send(fixtures, bomb(200), more="Content-Encoding: gzip\r\n"))
    assert status == 415


ODD_PICTURES: Mapping[str, tuple[bytes, str]] = {
    "words": (b"Not a picture, whatever it is called.", "image"),
    "a page": (b"<html><img src=x onerror=alert(1)></html>", "image"),
    "a vector picture": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image"),
    "a form within the form": (NESTED, "image"),
    "a gzip of a picture": (zlib.compress(PICTURE), "image"),
    "30,000 x 30,000 pixels": (crafted(30_000, 30_000, bomb(1), colours=2), "image"),
    "4,294,967,295 pixels wide": (crafted(2**32 - 1, 1, b""), "image"),
    "no pixels": (crafted(0, 512, b""), "image"),
    "a picture cut off": (PICTURE[:-20], "image"),
    "a checksum that is wrong": (PICTURE.replace(b"IDAT", b"IDAT", 1)[:-5] + b"\x00" + PICTURE[-4:], "image"),
}


@pytest.mark.parametrize("name", ODD_PICTURES)
async def test_what_is_no_picture_is_refused_by_its_field(name: str, fixtures: Mapping[str, str]) -> None:
    before = traces(fixtures)
    data, param = ODD_PICTURES[name]
    status, told = read(await send(fixtures, edit(data, file="holiday.png")))
    assert (status, told["error"]["param"]) == (400, param), told  # type: ignore[index]  # JSON
    assert traces(fixtures) == before


ODD_MASKS: Mapping[str, bytes] = {
    "pixels that cannot be unpacked": crafted(512, 512, b"\x00\xff" * 400),
    "pixels of nobody knows what": crafted(512, 512, zlib.compress(b"\xff" * 512 * 512 * 4)),
    "too few pixels": crafted(512, 512, zlib.compress(bytes(1000))),
    "words that unpack to 200 MB": crafted(512, 512, b"", chunk(b"zTXt", b"a\x00\x00" + bomb(200))),
}


@pytest.mark.parametrize("name", ODD_MASKS)
async def test_a_mask_that_cannot_be_decoded_is_refused(name: str, fixtures: Mapping[str, str]) -> None:
    before = traces(fixtures)
    status, told = read(await send(fixtures, edit(PICTURE, part("mask", ODD_MASKS[name], file="mask.png"))))
    assert (status, told["error"]["param"]) == (400, "mask"), told  # type: ignore[index]  # JSON
    assert traces(fixtures) == before


async def test_pixels_that_unpack_to_more_than_they_are_cost_no_more_than_they_are(
    fixtures: Mapping[str, str],
) -> None:
    mask = crafted(512, 512, bomb(500))
    peak = memory_mb(fixtures, "VmHWM")
    status, _ = read(await send(fixtures, edit(PICTURE, part("mask", mask, file="mask.png"))))
    assert status == 200
    assert memory_mb(fixtures, "VmHWM") - peak < 60


def memory_mb(told: Mapping[str, str], line: str) -> int:
    found = re.search(rf"{line}:\s+(\d+) kB", Path(f"/proc/{told['pid']}/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


FILE_NAMES = [
    "../../../etc/passwd",
    "..\\..\\windows\\win.ini",
    "/etc/passwd",
    "a.png%00.exe",
    "%0d%0ax-injected: 1",
    "a\rx-injected: 1.png",
    'a.png\\"; name=\\"prompt',
    "\u202egnp.exe",
    "a" * 3000,
]


@pytest.mark.parametrize("file", FILE_NAMES)
async def test_a_files_name_leads_nowhere_and_is_told_to_nobody(file: str, fixtures: Mapping[str, str]) -> None:
    raw = await send(fixtures, edit(PICTURE, part("size", b"1024x1024"), file=file))
    assert b"x-injected" not in raw
    status, told = read(raw)
    assert status == 200, told
    asked = json.dumps(traces(fixtures))
    assert "etc/passwd" not in asked
    assert "x-injected" not in asked


async def test_edits_in_a_row_are_answered_in_order(fixtures: Mapping[str, str]) -> None:
    address = urlsplit(fixtures["base_url"])
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    bodies = [edit(), b"--x-x\r\n", edit()]
    for at, body in enumerate(bodies):
        last = "Connection: close\r\n" if at == len(bodies) - 1 else ""
        head = (
            f"POST /v1/images/edits HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {fixtures['key']}\r\n{last}"
            f"Content-Type: multipart/form-data; boundary=x-x\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
    async with asyncio.timeout(60):
        raw = await reader.read()
    writer.close()
    assert re.findall(rb"HTTP/1\.1 (\d+) ", raw) == [b"200", b"400", b"200"]
