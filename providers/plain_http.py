"""A lean HTTP/1.1 client for servers of our own: plain TCP, known peers, POSTs with whole bodies.

Beside aiohttp it takes a fifth of the CPU per request, which is half of all that a gateway in front of its own GPUs
does (`bench/speed`). It speaks to nobody else: sellers on the internet get TLS, redirect rules and the address guard
of `transport.Http`. Parsing is httptools' (the parser of Node.js and uvicorn).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from multidict import CIMultiDict

from providers.transport import CONNECT_S, MAX_BYTES, Answer, Cut, Lost, NotSent

if TYPE_CHECKING:
    from httptools import HttpResponseParser

IDLE_S: Final = 3.0
"""A connection unused for longer is not used again: servers close theirs after five seconds (uvicorn's default), and a
POST on a connection that is just being closed is an order whose fate nobody knows."""


class PlainClient:
    """Connections to one server, opened as needed and kept for the next request."""

    def __init__(self, host: str, port: int, *, limit: int = MAX_BYTES) -> None:
        """`limit` is the longest body to read, in bytes."""
        self._host = host
        self._port = port
        self._limit = limit
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()

    def __repr__(self) -> str:
        return f"<PlainClient {self._host}:{self._port}, {len(self._open)} open, {len(self._idle)} idle>"

    async def send(self, request: bytes, seconds: float) -> Answer:
        """Write one whole request, once, and read the whole answer.

        Raises `NotSent`, `Lost`, `Cut`, or `TimeoutError` after `seconds`.
        """
        connection = self._reusable() or await self._connect()
        try:
            answer = await connection.exchange(request, seconds)
        except BaseException:
            connection.close()  # an answer may still be on its way, and must not be taken for the next one
            raise
        if connection.usable:
            self._idle.append(connection)
        return answer

    async def aclose(self) -> None:
        """Give back every connection."""
        for connection in tuple(self._open):
            connection.close()

    def _reusable(self) -> _Connection | None:
        oldest = asyncio.get_running_loop().time() - IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.since >= oldest:
                return connection
            connection.close()
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self._open, self._limit), self._host, self._port
                )
        except (OSError, TimeoutError) as error:
            raise NotSent(f"{type(error).__name__}: {getattr(error, 'strerror', None) or 'no connection'}") from error
        return connection


class _Connection(asyncio.Protocol):
    """One connection, one exchange at a time; the callbacks named `on_...` are httptools'."""

    def __init__(self, register: set[_Connection], limit: int) -> None:
        from httptools import HttpParserError, HttpResponseParser

        self._new_parser, self._no_http = HttpResponseParser, HttpParserError
        self._register = register
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._parser: HttpResponseParser | None = None
        self._headers: CIMultiDict[str] = CIMultiDict()
        self._body: list[bytes] = []
        self._size = 0
        self._status = 0
        self._until = 0.0
        """When the exchange under way is given up."""
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        """When the timer goes off."""
        self.usable = True
        self.since = 0.0

    async def exchange(self, request: bytes, seconds: float) -> Answer:
        assert self._transport is not None
        self._parser = self._new_parser(self)
        self._headers, self._body, self._size, self._status = CIMultiDict(), [], 0, 0
        self._answer = self._loop.create_future()
        self._until = self._loop.time() + seconds
        # One timer for many exchanges: it finds out when it goes off whether it still has anything to end.
        if self._timer is None or self._due > self._until:
            self._watch()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._answer = self._parser = None

    def _watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = self._until
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._answer is None:
            return
        if self._loop.time() >= self._until:
            self._fail(TimeoutError())
        else:
            self._watch()

    def close(self) -> None:
        self.usable = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by birth
        self._register.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._register.discard(self)
        if exc is None and self._status and not self._headers.keys() & {"Content-Length", "Transfer-Encoding"}:
            self.on_message_complete()  # a body without a length ends with its connection
            return
        why = type(exc).__name__ if exc else "the server closed the connection"
        self._fail(Cut(f"the answer broke off ({why})", self._status) if self._status else Lost(why))

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            self.close()  # nothing was asked for
            return
        try:
            self._parser.feed_data(data)
        except self._no_http as error:
            self.usable = False
            self._fail(Cut(f"no HTTP ({type(error).__name__})", self._status))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.add(name.decode("latin-1"), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > self._limit:
            self.usable = False
            self._fail(Cut(f"an answer of more than {self._limit} bytes", self._status))
            return
        self._body.append(body)

    def on_message_complete(self) -> None:
        self.usable = self.usable and self._parser is not None and self._parser.should_keep_alive()
        self.since = self._loop.time()
        if self._answer is not None and not self._answer.done():
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._answer.set_result(Answer(self._status, self._headers, body))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


def post(path: str, host: str, headers: dict[str, str], body: bytes) -> bytes:
    """A whole POST request as bytes. Header values are ours; a line break in one is a programming error."""
    lines = [f"POST {path} HTTP/1.1", f"host: {host}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join(lines)
    assert head.count("\n") == len(lines) - 1, "a header with a line break"
    return head.encode("latin-1") + b"\r\n\r\n" + body
