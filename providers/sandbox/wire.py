"""Answers, and the ways an answer goes wrong: broken connections, silence, web pages, drips."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from providers.sandbox.faults import At, Strike

_DRIPS = 20
_PAGE = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body><h1>nginx</h1></body></html>"


class Gone(Exception):
    """The connection was broken on purpose; nothing is left to answer."""


def answer(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(body=msgspec.json.encode(body), status=status, headers=headers, content_type="application/json")


def read_object(body: bytes) -> dict[str, object] | None:
    """The JSON object in a body; None when it is anything else."""
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except msgspec.MsgspecError:
        return None


def fingerprint(*parts: object) -> str:
    """A stable name for what an order asked; 32 hex digits."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine; callbacks go nowhere else."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def drop(request: web.Request) -> Gone:
    """Break the connection without an answer; raise what it returns."""
    if request.transport is not None:
        request.transport.abort()
    return Gone()


async def hold(request: web.Request, closing: asyncio.Event) -> Gone:
    """Say nothing until the client leaves or the sandbox closes; raise what it returns."""
    while request.transport is not None and not request.transport.is_closing():
        try:
            # aiohttp tells a handler of a lost connection only by its transport, so look now and then.
            await asyncio.wait_for(closing.wait(), timeout=0.05)
        except TimeoutError:
            continue
        break
    return drop(request)


def page(status: int) -> web.Response:
    """The web page that a proxy in between answers with."""
    return web.Response(body=_PAGE, status=status, content_type="text/html")


async def disturb(request: web.Request, strike: Strike, at: At, closing: asyncio.Event) -> web.Response | None:
    """What the fault on an order does to the answer now given at `at`; None: nothing."""
    if strike.do not in {"reset", "html", "timeout"} or not strike.hits(at):
        return None
    if strike.do == "html":
        return page(strike.args.status)
    raise drop(request) if strike.do == "reset" else await hold(request, closing)


async def drip(request: web.Request, response: web.Response, seconds: float) -> web.StreamResponse:
    """Send headers at once and the body in small pieces over `seconds`."""
    body = response.body
    assert isinstance(body, bytes)
    stream = web.StreamResponse(status=response.status, headers=response.headers)
    stream.content_length = len(body)
    await stream.prepare(request)
    size = max(1, -(-len(body) // _DRIPS))
    for start in range(0, len(body), size):
        await stream.write(body[start : start + size])
        await asyncio.sleep(seconds / _DRIPS)
    return stream


async def cut_short(request: web.Request, response: web.Response, keep: float) -> Gone:
    """Promise the whole body, send a part of it, and break the connection; raise what it returns."""
    body = response.body
    assert isinstance(body, bytes)
    stream = web.StreamResponse(status=response.status, headers=response.headers)
    stream.content_length = len(body)
    await stream.prepare(request)
    await stream.write(body[: int(len(body) * keep)])
    await asyncio.sleep(0)
    if request.transport is not None:
        request.transport.close()
    return Gone()


async def send(request: web.Request, whole: web.Response, strike: Strike) -> web.StreamResponse:
    """Send a complete answer as whole and as fast as the fault on its order lets it be."""
    if strike.do == "truncate" and strike.args.lie and strike.hits("asset"):
        raise await cut_short(request, whole, strike.args.keep)
    if strike.do == "truncate" and strike.args.json and strike.hits("asset"):
        assert isinstance(whole.body, bytes)
        whole.body = whole.body[: int(len(whole.body) * strike.args.keep)]
    if strike.do == "slow" and strike.args.body_s:
        return await drip(request, whole, strike.args.body_s)
    return whole
