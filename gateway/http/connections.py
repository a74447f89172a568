"""Connections that mean harm: what the server itself does not bound is bounded here.

uvicorn has no limit on the size of a request's head, none on how long a client may take to send it, and none on how
long it may take to read an answer. Each was worth our memory or all our connections to anybody, without a key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.errors import GatewayError, InvalidRequest
from gateway.http.answers import WHOLE
from gateway.http.bodies import AT_HAND, MAX_DRAIN
from gateway.http.errors import JSON, OPENAI_VERSION, Headers, HeadTooLarge, TooSlow, error_body, error_headers
from gateway.http.leaving import LEFT
from gateway.ids import new_id

MAX_HEAD = 64 * 1024
"""Bytes a client may send before they make a head, or a piece of a body; the longest we know of are below 16 KiB."""
MAX_PIECES = 32 * 1024
"""Pieces a body may come in; each costs a few microseconds, and 64 MiB in pieces of 2 KiB are so many."""
SWEEP_S = 5.0
PATIENCE_S = 30.0
"""Seconds for a head to arrive, and for a client that takes next to nothing of its answer to take something."""
LINGER_S = 2.0
"""Seconds for which a client that was refused may go on sending, unheard."""
PROGRESS = 1024
"""Bytes of an answer to be taken between two sweeps, or it counts as nothing."""


class GuardedProtocol(HttpToolsProtocol):
    """One connection, with bounds; whatever is refused before there is a request wears the envelope, too."""

    unread = 0
    """Bytes since the last head or piece of a body was complete."""
    idle_sweeps = 0
    """How often in a row a sweep found that we wait for the client's next head."""
    stuck_sweeps = 0
    """How often in a row a sweep found that the client took next to nothing of its answer."""
    pending = 0
    """Bytes of an answer that the client had not taken at the last sweep."""
    refused = False
    """Nothing more that comes is looked at."""
    pieces = 0
    """In how many pieces the body came so far."""
    unheard = 0
    """Bytes of a body that came after the answer to it was complete."""
    on_left: Callable[[], None] | None = None
    """Called when the client hangs up while its request is served."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the server has it
        """Somebody has come."""
        super().connection_made(transport)
        self.extensions: dict[str, Any] = {
            WHOLE: self.answer_whole,
            AT_HAND: self.body_at_hand,
            LEFT: self.tell_when_left,
        }

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over: break the circle that would keep it in memory until a collection."""
        super().connection_lost(exc)
        self.extensions.clear()
        on_left, self.on_left = self.on_left, None
        if on_left is not None:
            on_left()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; end a connection that sends on and on without completing anything."""
        if self.refused:
            return
        self.unread += len(data)
        super().data_received(data)
        if (self.unread > MAX_HEAD or self.pieces > MAX_PIECES) and not self.refused:
            self.refuse(HeadTooLarge())

    def on_headers_complete(self) -> None:
        """A head is complete; what follows a body in its place is no header, whoever let it pass."""
        self.unread = self.idle_sweeps = self.pieces = self.unheard = 0
        self.scope["extensions"] = self.extensions
        super().on_headers_complete()
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """A piece of a body is complete; one that was answered already is listened to for a while, out of courtesy."""
        self.unread = 0
        self.pieces += 1
        super().on_body(body)
        if self.cycle.response_complete:
            self.unheard += len(body)
            if self.unheard > MAX_DRAIN:
                self.transport.close()

    def body_at_hand(self, scope: object, most: int) -> bytes | None:
        """The body of the request under way, if all of it is here and it is at most `most` bytes.

        Most come in one piece with their head: waiting for what is there takes three times as long as all the rest.
        """
        cycle = self.cycle
        if (
            cycle.scope is not scope
            or cycle.more_body
            or cycle.disconnected
            or cycle.waiting_for_100_continue
            or len(cycle.body) > most
        ):
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        cycle.message_event.clear()
        cycle.flow.resume_reading()
        return body

    def tell_when_left(self, scope: object, call: Callable[[], None] | None) -> bool:
        """Have `call` called when the client hangs up (None: no longer); False where that cannot be told of a scope."""
        if self.cycle.scope is not scope or self.cycle.more_body or self.cycle.disconnected:
            return False
        self.on_left = call
        return True

    def answer_whole(self, scope: object, status: int, headers: Headers, body: bytes) -> bool:
        """Write a whole answer at once; False where the connection is not as usual, and it has to be sent in steps.

        The server checks a head name by name, and writes the body after it, which takes five times as long.
        """
        cycle = self.cycle
        if (
            cycle.scope is not scope
            or cycle.response_started
            or cycle.disconnected
            or cycle.waiting_for_100_continue
            or cycle.flow.write_paused
            or not cycle.keep_alive
            or cycle.scope["method"] == "HEAD"
        ):
            return False
        lines = [name + b": " + value for name, value in (*cycle.default_headers, *headers)]
        head = STATUS_LINE[status] + b"\r\n".join(lines) + b"\r\n\r\n"
        if not head.count(b"\n") == head.count(b"\r") == len(lines) + 2:
            return False  # a value that would be read as another header; the server refuses it
        if b"\r\nconnection:" in head or b"\r\ncontent-length: %d\r\n" % len(body) not in head:
            return False  # the server closes what says it is closed, and finds a length for what has none
        cycle.response_started = cycle.response_complete = True
        cycle.transport.write(head + body)
        cycle.message_event.set()
        cycle.on_response()
        return True

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self.refuse(InvalidRequest(f"{msg} Is it HTTP/1.1, with one honest length?", code="invalid_http"))

    def refuse(self, error: GatewayError) -> None:
        """Answer, unless that would be taken for the answer to an earlier request, and read no more."""
        self.refused = True
        answering = self.cycle is not None and not self.cycle.response_complete
        if self.pipeline:
            self.transport.close()
        elif answering and (self.cycle.response_started or not self.cycle.more_body):
            self.cycle.keep_alive = False
        else:
            if answering:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self._last_words(error)

    def _last_words(self, error: GatewayError) -> None:
        """Answer, and close a little later: a client that is still sending loses what a closed connection had said."""
        body = error_body(error)
        headers = [
            (b"content-type", JSON),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", new_id("req").encode()),
            OPENAI_VERSION,
            (b"connection", b"close"),
            *((name, value) for name, value in error_headers(error) if name != b"connection"),
        ]
        head = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[error.status] + head + b"\r\n" + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)

    def sweep(self) -> None:
        """Called every `SWEEP_S`: lose patience with a client that neither sends nor reads."""
        left = self.transport.get_write_buffer_size()
        self.stuck_sweeps = self.stuck_sweeps + 1 if left and left > self.pending - PROGRESS else 0
        self.pending = left
        waiting = not left and (self.cycle is None or self.cycle.response_complete)
        self.idle_sweeps = self.idle_sweeps + 1 if waiting else 0
        if self.stuck_sweeps * SWEEP_S >= PATIENCE_S:
            self.transport.abort()
        elif self.idle_sweeps * SWEEP_S >= PATIENCE_S:
            self._give_up()

    def _give_up(self) -> None:
        """Say so when a head has begun; a connection that was merely kept open would take it for its next answer."""
        if self.unread:
            self.refuse(TooSlow())
        else:
            self.transport.close()


async def sweep(connections: Iterable[object]) -> None:
    """Sweep the connections of a server for as long as it lives; hand in its own, living, set of them."""
    while True:
        await asyncio.sleep(SWEEP_S)
        for connection in list(connections):
            if isinstance(connection, GuardedProtocol):
                connection.sweep()
