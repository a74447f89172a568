"""From an authorised ask for pictures to the whole HTTP answer, the same for every endpoint that draws."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import structlog
from litestar.types import HTTPScope, Receive
from msgspec import Struct

from gateway.errors import (
    BudgetSpent,
    ContentPolicy,
    DeadlinePassed,
    Forbidden,
    GatewayError,
    NoCapacity,
    NoOffer,
    NotFound,
    NotReady,
    RateLimited,
    Undeliverable,
)
from gateway.http.answers import Answer, Shape, images_body, images_headers, usual_headers
from gateway.http.auth import Key, require
from gateway.http.bodies import ClientGone
from gateway.http.errors import Headers, MethodNotAllowed, error_body, error_headers, translate
from gateway.http.services import Services
from gateway.ids import new_id, sibling
from gateway.requests.call import Call

log = structlog.get_logger("gateway.http")

DRAWING_ERRORS: tuple[type[GatewayError], ...] = (
    NoOffer,
    ContentPolicy,
    Forbidden,
    NotFound,
    RateLimited,
    BudgetSpent,
    Undeliverable,
    NoCapacity,
    NotReady,
    DeadlinePassed,
)
"""What any endpoint that draws may answer, beside a bad key and a bad body."""

T = TypeVar("T")

LISTEN_AFTER_S = 0.05
"""A call answered sooner than this is not called off when its client leaves."""

Read = Callable[["Ask"], Awaitable[tuple[Call, Shape]]]


class Ask(Struct, frozen=True, kw_only=True):
    """A request for pictures whose key is good and whose body nobody has read yet."""

    call_id: str
    key: Key
    headers: Mapping[bytes, bytes]
    receive: Receive
    path: str
    arrived: float


async def draw(services: Services, read: Read, scope: HTTPScope, receive: Receive) -> Answer | None:
    """Answer a request for pictures; `read` makes the call of it. None when the client left before it was answered."""
    drawing = Drawing(services, scope, receive)
    try:
        return await drawing.answer(read)
    except ClientGone:
        drawing.note_left()
        return None
    except Exception as error:  # noqa: BLE001  (whatever it is, the caller gets an envelope, and we a log line)
        return drawing.refusal(error)


class Drawing:
    """One request for pictures, from the first byte to the last."""

    def __init__(self, services: Services, scope: HTTPScope, receive: Receive) -> None:
        self._services = services
        self._scope = scope
        self._receive = receive
        self._arrived = services.clock.now()
        self._call_id = new_id("call")
        self._request_id = sibling(self._call_id, "req")
        self._key: Key | None = None
        self._called = False

    async def answer(self, read: Read) -> Answer:
        """Authorise it, read it, have it served."""
        services, scope = self._services, self._scope
        if scope["method"] != "POST":
            raise MethodNotAllowed(scope["method"], "POST")
        headers = dict(scope["headers"])
        self._key = key = await services.keys.find(headers)
        require(key.caller, "images")
        key.spend_request(self._arrived)
        ask = Ask(
            call_id=self._call_id,
            key=key,
            headers=headers,
            receive=self._receive,
            path=scope["path"],
            arrived=self._arrived,
        )
        call, shape = await read(ask)
        self._called = True
        delivery = await unless_left(services.serve(call), self._receive)
        pieces = images_body(services, call, delivery, shape)
        log.info(
            "call_answered",
            call=call.id,
            team=call.caller.team,
            key_id=call.caller.key_id,
            offers=delivery.offers,
            nano_usd=delivery.charge,
            pictures=len(delivery.images),
            attempts=delivery.attempts,
            seconds=round(self._seconds(), 4),
        )
        return Answer(200, self._headers(sum(map(len, pieces))) + images_headers(delivery), pieces)

    def refusal(self, exception: Exception) -> Answer:
        """The error it ends in."""
        error: GatewayError = translate(exception, self._request_id, self._scope["method"], self._scope["path"])
        body = error_body(error)
        headers = self._headers(len(body)) + error_headers(error)
        if self._called:
            headers.append((b"x-pixelgate-decision", sibling(self._call_id, "dec").encode()))
        log.info(
            "call_refused",
            call=self._call_id,
            team=self._key.caller.team if self._key else None,
            key_id=self._key.row.id if self._key else None,
            status=error.status,
            code=error.code,
            seconds=round(self._seconds(), 4),
        )
        return Answer(error.status, headers, (body,))

    def note_left(self) -> None:
        """Log that nobody waits for the answer any more."""
        log.info(
            "caller_left",
            call=self._call_id,
            team=self._key.caller.team if self._key else None,
            key_id=self._key.row.id if self._key else None,
            seconds=round(self._seconds(), 4),
        )

    def _headers(self, length: int) -> Headers:
        headers = usual_headers(self._request_id, length, self._seconds())
        return headers + self._key.headers() if self._key else headers

    def _seconds(self) -> float:
        return self._services.clock.now() - self._arrived


async def unless_left(work: Awaitable[T], receive: Receive) -> T:
    """What `work` brings; when the client hangs up before, `work` is cancelled and `ClientGone` raised.

    To be called once the body is read: whatever the server still hands out then is the end of the connection. We
    listen for it only where the work takes longer than `LISTEN_AFTER_S`: a task for each call costs 10 us.
    """
    serving = asyncio.current_task()
    assert serving is not None
    left = False

    async def watch() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        left = True
        serving.cancel()

    watching: asyncio.Task[None] | None = None

    def listen() -> None:
        nonlocal watching
        watching = asyncio.get_running_loop().create_task(watch())

    due = asyncio.get_running_loop().call_later(LISTEN_AFTER_S, listen)
    try:
        return await work
    except asyncio.CancelledError:
        if not left:
            raise
        serving.uncancel()
        raise ClientGone from None
    finally:
        due.cancel()
        if watching is not None:
            watching.cancel()
