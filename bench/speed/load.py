"""The load generator: raw HTTP/1.1 over asyncio protocols, in a process of its own so that its work is not counted.

`python -m bench.speed.load PLAN` reads a `Plan` as JSON and prints a `Result` as JSON. Shapes of load:
closed (`connections` clients, each sending its next request when the last was answered, for `seconds`),
open (`rate` requests a second for `seconds`, timed from the moment each was due, so that a stall is not hidden),
inflight (`connections` clients at once, one request each).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from typing import Literal

import msgspec
import uvloop
from msgspec import Struct

from bench.processes import raise_file_limit

TIMER_GRAIN = 0.0015
"""Seconds a timer of libuv may fire late by itself (it counts whole milliseconds); no fault of the server's."""


class Plan(Struct, frozen=True, kw_only=True):
    """What to send, where, and how."""

    shape: Literal["closed", "open", "inflight"]
    port: int
    body: bytes
    key: str = ""
    connections: int = 16
    rate: float = 0.0
    seconds: float = 3.0
    timeout: float = 60.0
    """Seconds after which the whole run is given up."""


class Result(Struct, frozen=True, kw_only=True):
    """What came back."""

    sent: int
    ok: int
    elapsed: float
    p50_ms: float
    p99_ms: float
    first_failure: str = ""

    @property
    def failed(self) -> int:
        """Requests not answered with status 200."""
        return self.sent - self.ok


class Client(asyncio.Protocol):
    """One kept-alive connection that sends a request and waits for its whole answer."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.waiter: asyncio.Future[int] | None = None
        self.head = b""
        self.status = 0
        self.missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where requests go."""
        self.transport = transport  # type: ignore[assignment]  # a TCP client's transport is always a Transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail whoever still waits."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Count bytes until the announced length is there."""
        if self.missing:
            self.missing -= len(data)
        else:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            self.status = int(self.head[9:12])
            self.missing = _content_length(self.head[:end]) - (len(self.head) - end - 4)
            self.head = b"" if self.status == 200 else self.head
        if self.missing <= 0 and self.waiter is not None and not self.waiter.done():
            self.missing = 0
            self.waiter.set_result(self.status)

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """Send one request; the future gives its status."""
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError("the server closed the connection")
        self.waiter = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.waiter


class Run:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.request = (
            b"POST /v1/images/generations HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            b"authorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b" % (plan.key.encode(), len(plan.body), plan.body)
        )
        self.sent = 0
        self.latencies: list[float] = []
        self.first_failure = ""

    async def connect(self) -> Client:
        """A fresh connection."""
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Client, "127.0.0.1", self.plan.port))[1]

    async def once(self, client: Client, due: float) -> bool:
        """One request, its latency counted from `due`; False when the connection is of no more use."""
        self.sent += 1
        try:
            status = await client.ask(self.request)
        except OSError as broken:
            self.first_failure = self.first_failure or repr(broken)
            return False
        if status == 200:
            self.latencies.append(time.perf_counter() - due)
        else:
            self.first_failure = self.first_failure or client.head.decode(errors="replace")[:500]
            client.head = b""
        return True

    async def closed(self) -> None:
        """Each client sends its next request when the last was answered."""
        clients = [await self.connect() for _ in range(self.plan.connections)]
        end = time.perf_counter() + self.plan.seconds

        async def loop(client: Client) -> None:
            while (now := time.perf_counter()) < end and await self.once(client, now):
                pass

        await asyncio.gather(*map(loop, clients))

    async def open(self) -> None:
        """Requests at a fixed rate, whatever became of the ones before."""
        idle = deque([await self.connect() for _ in range(self.plan.connections)])
        start, running = time.perf_counter(), set[asyncio.Task[None]]()

        async def fire(due: float) -> None:
            client = idle.pop() if idle else await self.connect()
            if await self.once(client, due):
                idle.append(client)

        for number in range(int(self.plan.rate * self.plan.seconds)):
            due = start + number / self.plan.rate
            if (pause := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            now = time.perf_counter()
            task = asyncio.create_task(fire(now if now - due < TIMER_GRAIN else due))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)

    async def inflight(self) -> None:
        """Every client sends one request, all at about the same time."""

        async def one() -> None:
            await self.once(await self.connect(), time.perf_counter())

        await asyncio.gather(*(one() for _ in range(self.plan.connections)))

    async def result(self) -> Result:
        """Carry out the plan within its time."""
        start = time.perf_counter()
        try:
            async with asyncio.timeout(self.plan.timeout):
                await {"closed": self.closed, "open": self.open, "inflight": self.inflight}[self.plan.shape]()
        except TimeoutError:
            self.first_failure = self.first_failure or f"not done after {self.plan.timeout} s"
        return Result(
            sent=self.sent,
            ok=len(self.latencies),
            elapsed=time.perf_counter() - start,
            p50_ms=1000 * quantile(self.latencies, 0.50),
            p99_ms=1000 * quantile(self.latencies, 0.99),
            first_failure=self.first_failure,
        )


def quantile(values: list[float], q: float) -> float:
    """The value below which a share `q` of the sample lies; 0 for an empty one."""
    ordered = sorted(values)
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def _content_length(head: bytes) -> int:
    at = head.lower().find(b"\r\ncontent-length:")
    if at < 0:
        raise ValueError(f"an answer without content-length: {head[:200]!r}")
    return int(head[at + 17 :].split(b"\r\n", 1)[0])


if __name__ == "__main__":
    raise_file_limit()
    sys.stdout.buffer.write(
        msgspec.json.encode(uvloop.run(Run(msgspec.json.decode(sys.argv[1].encode(), type=Plan)).result())) + b"\n"
    )
