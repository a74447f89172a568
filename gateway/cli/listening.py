"""Runs an ASGI application on a socket until it is told to stop, and ends with exit code 0 when it was."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from litestar.types import ASGIApp

from gateway.cli.shell import Stop

Work: TypeAlias = Callable[[], Coroutine[Any, Any, bool]]
"""Begun once requests are answered; True: this was all, stop serving."""

_BACKLOG = 2048
_STOPPED_BY = (signal.SIGINT, signal.SIGTERM)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; stops with a sentence when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise Stop(f"cannot listen on {host} port {port}: {error.strerror}; --port 0 takes a free port") from None
    return listener


async def serve_uvicorn(
    asgi: ASGIApp, listener: socket.socket, drain: float, work: Work, leaving: Callable[[], None]
) -> None:
    """Serve until a signal, or until `work` says that this was all; raises what `work` raises.

    `leaving` is called when the end begins, before requests under way are waited for.
    """
    import uvicorn

    from gateway.http.connections import GuardedProtocol, sweep

    _tolerate_signals()
    logging.getLogger("uvicorn.error").addHandler(logging.StreamHandler())
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = uvicorn.Config(
        asgi,
        loop="none",
        http=GuardedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # we read neither the caller's address nor scheme: URLs come from `public_url`
        backlog=_BACKLOG,
        timeout_graceful_shutdown=int(drain) + 5,
    )
    working: list[asyncio.Task[bool]] = []
    sweeping: list[asyncio.Task[None]] = []

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                working.append(asyncio.create_task(work()))
                working[0].add_done_callback(self._ended)
                sweeping.append(asyncio.create_task(sweep(self.server_state.connections)))

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            leaving()
            await super().shutdown(sockets)

        def _ended(self, task: asyncio.Task[bool]) -> None:
            self.should_exit = self.should_exit or task.cancelled() or task.exception() is not None or task.result()

    server = Server(config)
    await server.serve(sockets=[listener])
    if not server.started:
        raise Stop("the gateway could not start; the log above says why", code=1)
    for task in (*working, *sweeping):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def serve_granian(asgi: ASGIApp, host: str, port: int, work: Work, leaving: Callable[[], None]) -> None:
    """Serve until a signal, with granian, which binds by itself; `leaving` is called when the end begins."""
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.server.embed import Server

    from gateway.http.connections import MAX_HEAD, PATIENCE_S

    server = Server(
        asgi,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        http1_settings=HTTP1Settings(header_read_timeout=int(PATIENCE_S * 1000), max_buffer_size=MAX_HEAD),
        log_enabled=False,
    )
    loop = asyncio.get_running_loop()

    def stop() -> None:
        leaving()
        server.stop()  # type: ignore[no-untyped-call]

    for number in _STOPPED_BY:
        loop.add_signal_handler(number, stop)
    announcing = loop.create_task(_when_listening(host, port, work))
    await server.serve()
    if not announcing.done():
        announcing.cancel()
        raise Stop("the gateway could not start", code=1)


async def _when_listening(host: str, port: int, work: Work) -> bool:
    """Granian tells nobody when it listens, so knock until somebody opens."""
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return await work()


def _tolerate_signals() -> None:
    """Let the server's own handlers decide: it raises the signal again when it is done, and we are then, too."""
    for number in _STOPPED_BY:
        signal.signal(number, lambda *_: None)
