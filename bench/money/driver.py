"""The callers of a money run: many at once, some of whom hang up, all of whom write down what they got."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal

import aiohttp
import msgspec
from msgspec import Struct
from PIL import Image as Picture

from bench.loopback import HOST
from bench.money.traffic import PlannedCall

CALLERS = 32
"""Calls under way at once."""

End = Literal["answered", "left", "cut"]
"""answered: a status came. left: the caller hung up. cut: the connection broke, as when the gateway is killed."""


class Answer(Struct, frozen=True, kw_only=True):
    """What became of one call, as its caller saw it."""

    call: PlannedCall
    end: End
    status: int = 0
    code: str = ""
    decision: str = ""
    """Names the call in the gateway's books."""
    nano_usd: int = 0
    """What the caller was told it costs."""
    pictures: int = 0
    faults: tuple[str, ...] = ()
    """What was wrong with the answer."""


class ImageData(Struct):
    """One picture of an images response."""

    url: str | None = None
    b64_json: str | None = None


class Summary(Struct):
    """The gateway's own part of an images response."""

    decision: str
    nano_usd: int


class ImagesResponse(Struct):
    """As much of an images response as the books need."""

    data: list[ImageData]
    pixelgate: Summary


class ErrorDetail(Struct):
    """As much of an error as the bench reports."""

    message: str = ""
    code: str | None = None


class ErrorBody(Struct):
    """OpenAI's error envelope."""

    error: ErrorDetail


class Callers:
    """Sends the calls of a run and keeps their answers."""

    def __init__(self, port: int, keys: Mapping[str, str]) -> None:
        """`keys` holds each team's API key."""
        self._base = f"http://{HOST}:{port}"
        self._keys = keys
        self.up = asyncio.Event()
        """Set while the gateway runs; callers wait for it before they start a call."""
        self.up.set()
        self.started = 0
        self.answers: list[Answer] = []

    async def make(self, calls: Sequence[PlannedCall], on_start: Callable[[int], Awaitable[None]]) -> None:
        """Make all calls, `CALLERS` at a time; `on_start` is awaited with the number of calls started so far."""
        pending = iter(calls)
        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:

            async def caller() -> None:
                for call in pending:
                    self.started += 1
                    await on_start(self.started)
                    await self.up.wait()
                    self.answers.append(await self.one(session, call))

            await asyncio.gather(*(caller() for _ in range(CALLERS)))

    async def one(self, session: aiohttp.ClientSession, call: PlannedCall) -> Answer:
        """Make one call and look closely at what it brings."""
        try:
            async with asyncio.timeout(call.leaves_after):
                return await self._ask(session, call)
        except TimeoutError:
            return Answer(call=call, end="left")
        except (aiohttp.ClientError, OSError):
            return Answer(call=call, end="cut")

    async def _ask(self, session: aiohttp.ClientSession, call: PlannedCall) -> Answer:
        headers = {"authorization": f"Bearer {self._keys[call.team]}"}
        url = f"{self._base}/v1/images/generations"
        async with session.post(url, json=dict(call.body), headers=headers) as response:
            content = await response.read()
        if response.status != 200:
            error = msgspec.json.decode(content, type=ErrorBody).error
            return Answer(call=call, end="answered", status=response.status, code=error.code or "")
        images = msgspec.json.decode(content, type=ImagesResponse)
        faults = [fault for image in images.data for fault in await self._faults(session, call, image)]
        if not 1 <= len(images.data) <= call.count:
            faults.append(f"{len(images.data)} pictures for n={call.count}")
        return Answer(
            call=call,
            end="answered",
            status=200,
            decision=images.pixelgate.decision,
            nano_usd=images.pixelgate.nano_usd,
            pictures=len(images.data),
            faults=tuple(faults),
        )

    async def _faults(self, session: aiohttp.ClientSession, call: PlannedCall, image: ImageData) -> list[str]:
        """What is wrong with one picture of an answer: not there, not a picture, not of the size asked for."""
        if image.b64_json is not None:
            data = base64.b64decode(image.b64_json)
        else:
            async with session.get(image.url or "") as response:
                data = await response.read()
                if response.status != 200:
                    return [f"its picture answered {response.status}"]
        size, wanted = picture_size(data), call.body["size"]
        return [] if wanted in (size, "auto") else [f"a picture of {size} for size={wanted}"]


def picture_size(data: bytes) -> str:
    """Width x height as its header declares them, or why it has none."""
    try:
        with Picture.open(io.BytesIO(data)) as picture:
            return f"{picture.width}x{picture.height}"
    except OSError as unreadable:
        return f"no picture ({unreadable})"
