"""Floods against a real gateway process: it keeps its memory, answers everybody else, and ends well."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.demo import running_demo

MAX_GROWTH_MB = 350
"""What a flood may cost in memory, of which 256 MiB are for bodies that arrive at the same time.

Those below send up to 1.2 GB.
"""


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    with running_demo(tmp_path_factory.mktemp("hostile")) as told:
        yield told


USUAL_MB = 150
"""What the gateway and its sandbox take together while they draw."""


def memory_mb(fixtures: Mapping[str, str], line: str) -> int:
    """A line of the process's status: `VmRSS` now, `VmHWM` at the most."""
    status = Path(f"/proc/{fixtures['pid']}/status").read_text()
    found = re.search(rf"{line}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) // 1024


def head(fixtures: Mapping[str, str], *extra: str, path: str = "generations", kind: str = "application/json") -> bytes:
    lines = [
        f"POST /v1/images/{path} HTTP/1.1",
        "Host: gateway",
        f"Authorization: Bearer {fixtures['key']}",
        f"Content-Type: {kind}",
        *extra,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


async def pour(fixtures: Mapping[str, str], start: bytes, piece: bytes, times: int) -> bytes:
    """Send a start and then a piece again and again, for as long as anybody takes it; what was answered."""
    address = urlsplit(fixtures["base_url"])
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    answering = asyncio.create_task(reader.read())
    with contextlib.suppress(ConnectionError):
        writer.write(start)
        for _ in range(times):
            if answering.done():
                break
            writer.write(piece)
            await writer.drain()
    if not answering.done():
        await asyncio.wait([answering], timeout=10)
    writer.close()
    with contextlib.suppress(ConnectionError):
        return await answering if answering.done() else b""
    return b""


def form(fixtures: Mapping[str, str], *extra: str) -> bytes:
    """The start of an edit whose picture has begun."""
    start = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    return head(fixtures, *extra, path="edits", kind="multipart/form-data; boundary=x") + start


LARGE_FORMS = "forms of 60 MB, twenty at once"
FORM_MB = 250 + 256
"""What taking one form apart costs beside, and what calls under way may hold of pictures they were handed. The last
flood, because a process's peak is never forgotten."""
Flood = Callable[[Mapping[str, str]], Awaitable[object]]
MEGABYTE = b"a" * 1_000_000


def many(times: int, flood: Flood) -> Flood:
    async def all_at_once(fixtures: Mapping[str, str]) -> object:
        return await asyncio.gather(*(flood(fixtures) for _ in range(times)))

    return all_at_once


async def silence(fixtures: Mapping[str, str]) -> object:
    """A connection that is opened and left alone while others are served."""
    address = urlsplit(fixtures["base_url"])
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    await asyncio.sleep(1)
    writer.close()
    return None


FLOODS: Mapping[str, Flood] = {
    "a header of 300 MB": lambda told: pour(told, b"GET / HTTP/1.1\r\nX-A: ", MEGABYTE, 300),
    "a path of 300 MB": lambda told: pour(told, b"GET /", MEGABYTE, 300),
    "an endless trailer": lambda told: pour(
        told, head(told, "Transfer-Encoding: chunked") + b"0\r\nX-A: ", MEGABYTE, 300
    ),
    "bodies of 40 MB, thirty at once": many(
        30, lambda told: pour(told, head(told, "Content-Length: 40000000"), MEGABYTE, 40)
    ),
    "bodies of 8 MB, forty at once": many(
        40, lambda told: pour(told, head(told, "Transfer-Encoding: chunked"), b"f4240\r\n" + MEGABYTE + b"\r\n", 8)
    ),
    "an endless body without a key": lambda told: pour(
        told, b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"f4240\r\n" + MEGABYTE + b"\r\n", 300,
    ),
    "an endless callback": lambda told: pour(
        told, b"POST /hooks/fal/att_1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"f4240\r\n" + MEGABYTE + b"\r\n", 300,
    ),
    "100,000 brackets, fifty at once": many(
        50, lambda told: pour(told, head(told, "Content-Length: 100000", "Connection: close"), b"[" * 100_000, 1)
    ),
    "a body in crumbs": lambda told: pour(
        told, head(told, "Transfer-Encoding: chunked"), b"1\r\na\r\n" * 10_000, 900
    ),
    "a form without end": lambda told: pour(
        told, form(told, "Content-Length: 100000000000"), MEGABYTE, 300
    ),
    "two thousand silent connections": many(2000, silence),
    LARGE_FORMS: many(
        20, lambda told: pour(told, form(told, "Content-Length: 60000000", "Connection: close"), MEGABYTE, 60)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_costs_no_memory_and_nobody_else_an_answer(name: str, fixtures: Mapping[str, str]) -> None:
    started = memory_mb(fixtures, "VmRSS")
    async with httpx.AsyncClient(base_url=fixtures["base_url"], timeout=60) as http:
        flooding = asyncio.ensure_future(FLOODS[name](fixtures))
        await asyncio.sleep(0.2)
        body = {"prompt": "a kite", "size": "256x256"}
        answer = await http.post(
            "/images/generations", json=body, headers={"Authorization": f"Bearer {fixtures['key']}"}
        )
        assert answer.status_code == 200
        await asyncio.wait_for(flooding, 90)
    most = MAX_GROWTH_MB + (FORM_MB if name == LARGE_FORMS else 0)
    assert memory_mb(fixtures, "VmHWM") - USUAL_MB < most, f"{started} MB before"


async def test_ten_pictures_of_the_longest_prompt_in_every_script_come(fixtures: Mapping[str, str]) -> None:
    prompt = ("\N{FOX FACE}\u202e\u0301\u2028\ufeff\u0000".replace("\0", "") + "狐ﷺ") * 4000
    body = {"prompt": prompt[:32_000], "n": 10, "size": "256x256"}
    async with httpx.AsyncClient(base_url=fixtures["base_url"], timeout=60) as http:
        answer = await http.post(
            "/images/generations",
            content=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {fixtures['key']}", "Content-Type": "application/json"},
        )
    assert answer.status_code == 200, answer.text[:500]
    assert len(answer.json()["data"]) == 10
