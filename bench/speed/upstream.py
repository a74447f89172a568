"""A mock GPU server as fast as Python allows, so that what is measured is the gateway and not the upstream.

`python -m bench.speed.upstream PORT` answers every POST with the same images response after the delay in force.
`GET /_mock/delay/SECONDS` sets the delay; `GET /_mock/refuse/1` has every POST answered with 429 from now on, and `/0`
no longer; `GET /_mock/stats` answers `{"served", "in_flight", "peak"}`, `peak` being the most requests held at once
since the delay was last set; any other GET lists one model.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec
import uvloop
from msgspec import Struct

from bench.processes import raise_file_limit
from bench.speed.picture import images_response

MODELS = b'{"object":"list","data":[{"id":"bench","object":"model","created":0,"owned_by":"bench"}]}'
TOO_MANY = b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class State(Struct):
    """What the mock is told and what it saw."""

    answer: bytes
    delay: float = 0.0
    refusing: bool = False
    served: int = 0
    in_flight: int = 0
    peak: int = 0


class Connection(asyncio.Protocol):
    """One kept-alive connection; requests on it come one after another."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.buffer = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where answers go."""
        self.transport = transport  # type: ignore[assignment]  # a TCP server's transport is always a Transport

    def data_received(self, data: bytes) -> None:
        """Answer each request once its body is complete."""
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            total = end + 4 + _content_length(self.buffer[:end])
            if len(self.buffer) < total:
                return
            method, path = self.buffer.split(b" ", 2)[:2]
            self.buffer = self.buffer[total:]
            if method == b"POST":
                self.draw()
            else:
                self.write(http_200(self.control(path.decode())))

    def draw(self) -> None:
        """Answer at once, or when the delay is over."""
        state = self.state
        state.in_flight += 1
        state.peak = max(state.peak, state.in_flight)
        if state.delay:
            asyncio.get_running_loop().call_later(state.delay, self.finish)
        else:
            self.finish()

    def finish(self) -> None:
        """Send the picture, if the client is still there."""
        self.state.in_flight -= 1
        if self.state.refusing:
            self.write(TOO_MANY)
            return
        self.state.served += 1
        self.write(self.state.answer)

    def write(self, data: bytes) -> None:
        """Send, unless the client left."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def control(self, path: str) -> bytes:
        """What the bench asks of the mock itself."""
        state = self.state
        if path.startswith("/_mock/delay/"):
            state.delay, state.peak = float(path.rpartition("/")[2]), state.in_flight
        elif path.startswith("/_mock/refuse/"):
            state.refusing = path.endswith("1")
        elif not path.startswith("/_mock/"):
            return MODELS
        return msgspec.json.encode({"served": state.served, "in_flight": state.in_flight, "peak": state.peak})


def http_200(body: bytes) -> bytes:
    """A whole HTTP/1.1 answer of JSON."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def _content_length(head: bytes) -> int:
    at = head.lower().find(b"\r\ncontent-length:")
    return int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


async def serve(port: int) -> None:
    """Listen on loopback until killed."""
    state = State(answer=http_200(images_response()))
    server = await asyncio.get_running_loop().create_server(lambda: Connection(state), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    raise_file_limit()
    uvloop.run(serve(int(sys.argv[1])))
