"""Request bodies: read within limits, and decoded so that no input, however bent, is more than its sender's error."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import ClassVar, NoReturn, Self, TypeAlias, cast

from litestar.types import HTTPRequestEvent, HTTPScope, Receive

from gateway.errors import InvalidRequest, NoCapacity, TooLarge
from gateway.http.errors import StillSending, TooSlow, UnsupportedMediaType

MAX_BODY = 8 * 1024 * 1024
"""Bytes; a prompt of 32,000 characters takes at most 0.4 MB even when every character is escaped."""
MAX_VALUES = 100_000
"""Commas and opening brackets in a body. A second of everybody's time goes into decoding a million values."""
MAX_DRAIN = 128 * 1024 * 1024
"""Bytes of a too large body that we read and forget: a client that is still sending cannot read our 413."""
MAX_BUFFERED = 256 * 1024 * 1024
"""Bytes of all bodies that are arriving at the same time, beyond the first piece of each."""
PATIENCE = 60.0
"""Seconds for a body to arrive."""
AtHand: TypeAlias = Callable[[object, int], bytes | None]
"""Takes the request's scope and the most bytes that are wanted; the body, or None where it has to be waited for."""
AT_HAND = "pixelgate.body"
"""The extension of ASGI by which our server gives a body away that is there already (`gateway.http.connections`)."""


class ClientGone(InvalidRequest):
    """The client left before its request was complete, so nobody will read this."""


async def read_json(
    headers: Mapping[bytes, bytes], receive: Receive, limit: int = MAX_BODY, *, scope: HTTPScope | None = None
) -> dict[str, object]:
    """The JSON object in a body of at most `limit` bytes; with its `scope`, one that is there is not waited for.

    Raises `TooLarge`, `UnsupportedMediaType`, `InvalidRequest`, `ClientGone`.
    """
    refusal = _refusal(headers)
    body = None if scope is None else at_hand(scope, limit)
    if body is None:
        body = await read_body(headers, receive, limit)
    if refusal:
        raise refusal
    return decode_object(body)


def at_hand(scope: HTTPScope, most: int) -> bytes | None:
    """The whole body of at most `most` bytes, where it came with its head; None: `read_body` has to wait for it."""
    extensions = cast("Mapping[str, AtHand]", scope.get("extensions") or {})
    take = extensions.get(AT_HAND)
    return None if take is None else take(scope, most)


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, most: int = MAX_BODY) -> bytes:
    """The whole body of at most `most` bytes; a too large one is drained before `TooLarge` is raised."""
    announced = headers.get(b"content-length", b"0")
    size = int(announced) if announced.isdigit() else 0
    if size > MAX_DRAIN or (size > most and headers.get(b"expect", b"").lower() == b"100-continue"):
        raise _too_large(most, StillSending)
    reading, late = asyncio.current_task(), False
    assert reading is not None
    before = reading.cancelling()

    def give_up() -> None:
        nonlocal late
        late = True
        reading.cancel()

    # `asyncio.timeout` in small: that costs every request a hundredth of its time.
    due = asyncio.get_running_loop().call_later(PATIENCE, give_up)
    try:
        return await _read(receive, most, keep=size <= most)
    except asyncio.CancelledError:
        if not late or reading.uncancel() > before:
            raise
        raise TooSlow(f"The request body did not arrive within {PATIENCE:.0f} seconds.") from None
    finally:
        due.cancel()


async def _read(receive: Receive, most: int, *, keep: bool) -> bytes:
    """The body; `keep` says whether it can still be one that we want."""
    first = await _piece(receive)
    if not first.get("more_body", False) and len(first.get("body", b"")) <= most:
        return first.get("body", b"")
    # Not a list of pieces: a byte that travels alone costs 40 as an object.
    body, full = bytearray(), None
    with Arriving() as arriving:
        size, piece = 0, first
        while True:
            size += len(piece.get("body", b""))
            keep = keep and size <= most
            if keep and full is None:
                full = arriving.refusal(len(piece.get("body", b"")))
            if keep and full is None:
                body += piece.get("body", b"")
            else:
                body.clear()
                arriving.forget()
            if not piece.get("more_body", False) or size > MAX_DRAIN:
                break
            piece = await _piece(receive)
        if not keep:
            raise _too_large(most, StillSending if piece.get("more_body", False) else TooLarge)
        if full is not None:
            raise full
        return bytes(body)


class Arriving:
    """What arrives from outside and is kept; the sum of all of it is bounded, whoever sends it."""

    total: ClassVar[int] = 0

    def __init__(self) -> None:
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()

    def add(self, size: int) -> None:
        """Count so many more bytes; raises `NoCapacity` when there is no room for them."""
        refusal = self.refusal(size)
        if refusal is not None:
            raise refusal

    def refusal(self, size: int) -> NoCapacity | None:
        """Count so many more bytes, unless there is no room for them."""
        if Arriving.total + size > MAX_BUFFERED:
            return NoCapacity("Too many large requests are arriving at once.", retry_after=1.0)
        Arriving.total += size
        self._size += size
        return None

    def forget(self) -> None:
        """Count it no longer."""
        Arriving.total -= self._size
        self._size = 0


async def _piece(receive: Receive) -> HTTPRequestEvent:
    message = await receive()
    if message["type"] != "http.request":
        raise ClientGone
    return message


def decode_object(body: bytes) -> dict[str, object]:
    """The JSON object in `body`, strictly: UTF-8, no NaN, no key twice, no half of a surrogate pair.

    The standard decoder, because it alone of those at hand can see a key that comes twice; 1.3 us for a usual body.
    """
    if len(body) > MAX_VALUES and sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise _malformed(f"it holds more than {MAX_VALUES} values")
    try:
        value = _decoder.decode(body.decode("utf-8"))
        if b"\\ud" in body or b"\\uD" in body:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise _malformed(f"byte {error.start} is not valid UTF-8") from None
    except UnicodeEncodeError:
        raise _malformed("a string holds half of a surrogate pair") from None
    except RecursionError:
        raise _malformed("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise _malformed(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except _Refused as error:
        raise _malformed(str(error)) from None
    except ValueError:
        raise _malformed("a number has too many digits") from None
    if not isinstance(value, dict):
        raise _malformed('the body must be an object such as {"prompt": "a red lighthouse"}')
    return value


_JSON_TYPE = re.compile(rb"application/(json|[a-z0-9.+-]+\+json)")


class _Refused(Exception):
    """Legal for the decoder, not for us."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        times = Counter(name for name, _ in pairs)
        twice = next(name for name in times if times[name] > 1)
        raise _Refused(f"the key {twice[:80]!r} comes twice")
    return value


def _constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is not a JSON number")


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def _malformed(why: str) -> InvalidRequest:
    return InvalidRequest(f"We could not parse the JSON body of your request: {why}.", code="invalid_json")


def _too_large(most: int, kind: type[TooLarge] = TooLarge) -> TooLarge:
    return kind(f"The request body is larger than {most} bytes.")


def _refusal(headers: Mapping[bytes, bytes]) -> UnsupportedMediaType | None:
    declared = headers.get(b"content-type", b"")
    media_type, _, parameters = declared.lower().partition(b";")
    media_type = media_type.strip()
    charset = parameters.partition(b"charset=")[2].strip(b" \"'")
    if not _JSON_TYPE.fullmatch(media_type):
        shown = declared.decode("ascii", "replace")[:80] or "none"
        return UnsupportedMediaType(f"Send the body as 'Content-Type: application/json'; it came as: {shown}.")
    if charset not in {b"", b"utf-8", b"utf8"}:
        return UnsupportedMediaType("Send JSON in UTF-8; the Content-Type names another charset.")
    return compressed(headers)


def compressed(headers: Mapping[bytes, bytes]) -> UnsupportedMediaType | None:
    """The refusal of a compressed body."""
    if headers.get(b"content-encoding", b"identity").lower() == b"identity":
        return None
    return UnsupportedMediaType("Send the body without Content-Encoding; compressed bodies are not read.")
