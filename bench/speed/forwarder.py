"""R, the reference: the least a Python gateway can do, with the stack ours stands on and none of its features.

A bare Litestar `@asgi` route under uvicorn (uvloop, httptools) that hands each body to the upstream through aiohttp and
the answer back. `python -m bench.speed.forwarder PORT UPSTREAM_URL`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import uvicorn
from litestar import Litestar, asgi
from litestar.types import Receive, Scope, Send

from bench.processes import raise_file_limit

PATH = "/v1/images/generations"


def create_app(upstream: str) -> Litestar:
    """The forwarder's app; `upstream` is a base URL without path."""
    url = upstream + PATH

    @asynccontextmanager
    async def connected(app: Litestar) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"content-type": "application/json"},
            timeout=aiohttp.ClientTimeout(total=120),
        ) as session:
            app.state.session = session
            yield

    @asgi(PATH, copy_scope=True)
    async def forward(scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        async with scope["litestar_app"].state.session.post(url, data=body) as answer:
            content = await answer.read()
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": content, "more_body": False})

    return Litestar(route_handlers=[forward], lifespan=[connected], openapi_config=None)


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise asyncio.CancelledError
        parts.append(message["body"])
        if not message["more_body"]:
            return b"".join(parts)


if __name__ == "__main__":
    raise_file_limit()
    uvicorn.run(
        create_app(sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_level="warning",
        backlog=4096,
    )
