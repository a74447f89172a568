"""From an authorised ask for pictures to the whole HTTP answer, the same for every endpoint that draws."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import structlog
from litestar.enums import ScopeType
from litestar.types import HTTPScope, Receive, Scope, Send
from msgspec import Struct
from msgspec.structs import replace

from gateway.errors import (
    BudgetSpent,
    ContentPolicy,
    DeadlinePassed,
    GatewayError,
    IdempotencyKeyReused,
    InvalidRequest,
    NoCapacity,
    NoOffer,
    NotFound,
    NotReady,
    RateLimited,
    Undeliverable,
)
from gateway.http.answers import Answer, Shape, images_body, images_headers, usual_headers, warning_header
from gateway.http.auth import Flight, Key, require
from gateway.http.bodies import ClientGone
from gateway.http.errors import Headers, MethodNotAllowed, error_body, error_headers, translate
from gateway.http.leaving import unless_left
from gateway.http.operations import Parameter
from gateway.http.services import Services
from gateway.http.soft_limits import put_back
from gateway.http.streaming import Stream, preview_of, stream_headers
from gateway.ids import new_id, sibling
from gateway.requests.call import Call, Delivery
from gateway.requests.coalescing import Cache, Repeat, fingerprint

log = structlog.get_logger("gateway.http")

DRAWING_ERRORS: tuple[type[GatewayError], ...] = (
    NoOffer,
    ContentPolicy,
    IdempotencyKeyReused,
    NotFound,
    RateLimited,
    BudgetSpent,
    Undeliverable,
    NoCapacity,
    NotReady,
    DeadlinePassed,
)
"""What any endpoint that draws may answer, beside a bad key and a bad body."""

IDEMPOTENCY = Parameter(
    name="Idempotency-Key",
    about="What is first asked for under a key is its answer for a day, drawn and charged once.",
    schema={"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    place="header",
)
"""Every endpoint that draws takes it."""

_KEY = re.compile(rb"[\x21-\x7e]{1,255}")
_COUNT = re.compile(rb"[0-9]{1,4}")

Read = Callable[["Ask"], Awaitable[tuple[Call, Shape]]]


class Ask(Struct, frozen=True, kw_only=True):
    """A request for pictures whose key is good and whose body nobody has read yet."""

    call_id: str
    key: Key
    headers: Mapping[bytes, bytes]
    scope: HTTPScope
    receive: Receive
    path: str
    arrived: float
    deployment: str | None = None
    """The model, where the path names it (Azure's)."""
    repeat: Repeat | None = None
    """Set when this request may be sent again, or has been."""

    def fingerprint(self, fields: Mapping[str, object], *inputs: bytes) -> bytes | None:
        """What it asks for, in its fields and the bytes of pictures beside them; None when it never comes again."""
        return None if self.repeat is None else fingerprint(self.path, fields, *inputs)


async def draw(
    services: Services, read: Read, scope: HTTPScope, receive: Receive, *, joins: bool = False
) -> Answer | None:
    """Answer a request for pictures; `read` makes the call of it. None when the client left before it was answered.

    With `joins`, equal requests at once are one call.
    """
    drawing = Drawing(services, scope, receive, joins=joins)
    try:
        return await drawing.answer(read)
    except ClientGone:
        drawing.note_left()
        return None
    except Exception as error:  # noqa: BLE001  (whatever it is, the caller gets an envelope, and we a log line)
        return drawing.refusal(error)
    finally:
        drawing.land()


async def respond(services: Services, read: Read, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request for pictures as a raw ASGI application does."""
    if scope["type"] == ScopeType.WEBSOCKET:
        await send({"type": "websocket.close", "code": 1008, "reason": "Send a POST request."})
        return
    answer = await draw(services, read, scope, receive)
    if answer is not None:
        await answer.send(scope, send)


class Drawing:
    """One request for pictures, from the first byte to the last."""

    def __init__(self, services: Services, scope: HTTPScope, receive: Receive, *, joins: bool = False) -> None:
        self._services = services
        self._joins = joins
        self._scope = scope
        self._receive = receive
        self._arrived = services.clock.now()
        self._call_id = new_id("call")
        self._request_id = sibling(self._call_id, "req")
        self._key: Key | None = None
        self._flight: Flight | None = None
        self._counted = 0
        """Pictures counted against the key's rate."""
        self._called = False

    async def answer(self, read: Read) -> Answer:
        """Authorise it, read it, have it served."""
        services, scope = self._services, self._scope
        if scope["method"] != "POST":
            raise MethodNotAllowed(scope["method"], "POST")
        headers = dict(scope["headers"])
        self._key = key = await services.keys.find(headers)
        require(key.caller, "images:write")
        key.spend_request(self._arrived)
        ask = Ask(
            call_id=self._call_id,
            key=key,
            headers=headers,
            scope=scope,
            receive=self._receive,
            path=scope["path"],
            arrived=self._arrived,
            deployment=scope.get("path_params", {}).get("deployment"),
            repeat=self._repeat(headers),
        )
        call, shape = await read(ask)
        if services.soft_limits.past:
            call = put_back(services, call)
        if key.counts and not self._is_under_way(call, ask.repeat):
            self._flight = key.take_off()
            key.spend_images(call.request.count, self._arrived)
            self._counted = call.request.count
        if shape.stream:
            return await self._streamed(call, shape, ask.repeat)
        delivery, cache = await self._served(call, ask.repeat)
        pieces = images_body(services, call, delivery, shape, cache)
        self._note_answered(call, delivery)
        told = self._headers(sum(map(len, pieces))) + images_headers(delivery, cache)
        if shape.warnings:
            told.append(warning_header(shape.warnings))
        return Answer(200, told, pieces)

    def _is_under_way(self, call: Call, repeat: Repeat | None) -> bool:
        """Whether the request is for a call that was counted when another asked for it."""
        return repeat is not None and self._services.coalescing.under_way(call, repeat)

    def land(self) -> None:
        """Its call is no longer in flight."""
        if self._flight is not None:
            self._flight.end()

    def _repeat(self, headers: Mapping[bytes, bytes]) -> Repeat | None:
        repeat = repeat_of(headers)
        return replace(repeat or Repeat(), joins=True) if self._joins else repeat

    async def _streamed(self, call: Call, shape: Shape, repeat: Repeat | None) -> Answer:
        """An answer that has begun: its first event is there, or it has taken long enough for a sign of life."""
        first = repeat is None or (repeat.key is None and not repeat.count)
        preview = preview_of(self._services, call) if shape.partial_images and first else None
        stream = Stream(self._services, call, shape, preview=preview, explain=self._explained)
        events = stream.events(self._serve_noted(call, repeat))
        beginning = await anext(events)
        headers = [*stream_headers(self._request_id, self._seconds()), *(self._key.headers() if self._key else ())]
        if self._called:
            headers.append(self._decision())
        if shape.warnings:
            headers.append(warning_header(shape.warnings))
        flight, self._flight = self._flight, None
        return Answer(200, headers, (beginning,), events if flight is None else _in_flight(events, flight))

    async def _serve_noted(self, call: Call, repeat: Repeat | None) -> tuple[Delivery, Cache]:
        served = await self._served(call, repeat)
        self._note_answered(call, served[0])
        return served

    def _explained(self, exception: Exception) -> bytes:
        """The body of an error that comes after the answer has begun."""
        error = translate(exception, self._request_id, self._scope["method"], self._scope["path"])
        self._note_refused(error)
        self._uncount()
        return error_body(error)

    def _decision(self) -> tuple[bytes, bytes]:
        return b"x-pixelgate-decision", sibling(self._call_id, "dec").encode()

    async def _served(self, call: Call, repeat: Repeat | None) -> tuple[Delivery, Cache]:
        coalescing = self._services.coalescing
        # A repeat may join a call of another name.
        self._called = repeat is None or not (repeat.count or coalescing.joins(call, repeat))
        if repeat is None:
            return await unless_left(self._services.serve(call), self._scope, self._receive), "miss"
        served = await unless_left(coalescing.serve(call, repeat), self._scope, self._receive, coalescing.hang_up)
        return served.delivery, served.cache

    def refusal(self, exception: Exception) -> Answer:
        """The error it ends in."""
        error: GatewayError = translate(exception, self._request_id, self._scope["method"], self._scope["path"])
        body = error_body(error)
        self._uncount()
        headers = self._headers(len(body)) + error_headers(error)
        if self._called:
            headers.append(self._decision())
        self._note_refused(error)
        return Answer(error.status, headers, (body,))

    def _uncount(self) -> None:
        """Nothing came of it, so it used none of the key's pictures: whoever repeats it has them."""
        if self._key is not None and self._counted:
            self._key.give_images_back(self._counted)
            self._counted = 0

    def _note_answered(self, call: Call, delivery: Delivery) -> None:
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

    def _note_refused(self, error: GatewayError) -> None:
        log.info(
            "call_refused",
            call=self._call_id,
            team=self._key.caller.team if self._key else None,
            key_id=self._key.row.id if self._key else None,
            status=error.status,
            code=error.code,
            seconds=round(self._seconds(), 4),
        )

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


async def _in_flight(events: AsyncIterator[bytes], flight: Flight) -> AsyncIterator[bytes]:
    """The events of a stream, whose call is in flight until the last."""
    try:
        async for event in events:
            yield event
    finally:
        flight.end()


def repeat_of(headers: Mapping[bytes, bytes]) -> Repeat | None:
    """Whether a request says that it may be sent again, or has been; None: it says nothing."""
    key, count = headers.get(b"idempotency-key"), headers.get(b"x-stainless-retry-count")
    if key is None and count is None:
        return None
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidRequest(
            "Invalid 'Idempotency-Key': expected 1 to 255 visible ASCII characters.", param="Idempotency-Key"
        )
    repeats = int(count) if count is not None and _COUNT.fullmatch(count) else 0
    return Repeat(key=None if key is None else key.decode("ascii"), count=repeats)
