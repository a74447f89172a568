"""Every failure as OpenAI's clients read it: `{"error": {"message", "type", "param", "code", ...}}`, and its headers.

Errors that only the door knows (a method, a content type) are here; the others are in `gateway.errors`.
The table of statuses and codes is `docs/reference/errors.md`.
"""

from __future__ import annotations

from http import HTTPStatus
from math import ceil

import msgspec
import structlog
from litestar import Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.types import ExceptionHandlersMap, Send

from gateway.errors import GatewayError, InvalidRequest, NotFound, TooLarge
from gateway.ids import new_id

log = structlog.get_logger("gateway.http")

JSON = b"application/json"
"""openai-python hands out a bare string when a 200's content type does not end in `json`."""
OPENAI_VERSION = (b"openai-version", b"2020-10-01")

Headers = list[tuple[bytes, bytes]]

INVALID_CODES = (
    "invalid_value",
    "invalid_type",
    "missing_required_parameter",
    "unknown_parameter",
    "unsupported_value",
    "unsupported_parameter",
    "integer_below_min_value",
    "integer_above_max_value",
    "string_above_max_length",
    "invalid_json",
    "invalid_http",
    "invalid_form",
)
"""Every `code` that `InvalidRequest` is raised with."""


class MethodNotAllowed(GatewayError):
    """This path does not take this method."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"

    def __init__(self, method: str, allow: str) -> None:
        """`allow` lists the methods it takes, as in the header of that name."""
        super().__init__(f"This path does not take {method}. It takes: {allow}.")
        self.allow = allow


class HeadTooLarge(GatewayError):
    """The head of this request, or what frames its body, is too large."""

    status = 431
    type = "invalid_request_error"
    code = "head_too_large"


class TooSlow(GatewayError):
    """The request did not arrive in time."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"
    should_retry = False
    """Clients repeat 408 by themselves; whoever was this slow once should think first."""


class StillSending(TooLarge):
    """The request body is larger than we are willing to read and forget."""


class UnsupportedMediaType(GatewayError):
    """The body is not JSON."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class Unexpected(GatewayError):
    """Something went wrong in the gateway. Its log has the details under this request's id."""

    code = "internal_error"
    should_retry = False
    """A repeat could order, and pay for, the same picture twice."""


def error_body(error: GatewayError) -> bytes:
    """The envelope of an error, as JSON."""
    content = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    # What every client looks for comes first: LiteLLM keeps only the beginning of an error.
    return msgspec.json.encode({"error": {**content, **error.extra, **content}})


def error_headers(error: GatewayError) -> Headers:
    """What clients must know beside the body: when, and whether, to try again; which methods exist."""
    headers: Headers = [*error.headers]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % ceil(error.retry_after)))
        headers.append((b"retry-after-ms", b"%d" % ceil(error.retry_after * 1000)))
    if error.should_retry is not None:
        headers.append((b"x-should-retry", b"true" if error.should_retry else b"false"))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allow.encode("latin-1")))
    if isinstance(error, StillSending | TooSlow):
        headers.append((b"connection", b"close"))
    return headers


async def answer_error(error: GatewayError, send: Send) -> None:
    """Answer with an error outside Litestar's handlers."""
    body = error_body(error)
    headers = [
        (b"content-type", JSON),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", new_id("req").encode()),
        OPENAI_VERSION,
        *error_headers(error),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def translate(exception: Exception, request_id: str, method: str, path: str) -> GatewayError:
    """Any exception as the error its caller may see; an unexpected one is logged and says nothing of our insides."""
    if isinstance(exception, GatewayError):
        return exception
    if isinstance(exception, HTTPException) and exception.status_code < 500:
        return _from_framework(exception, method, path)
    log.error("request_failed", request_id=request_id, error=type(exception).__name__, exc_info=exception)
    return Unexpected()


def _from_framework(exception: HTTPException, method: str, path: str) -> GatewayError:
    match exception.status_code:
        case HTTPStatus.NOT_FOUND:
            return NotFound(f"Unknown URL: {method} {path[:200]}")
        case HTTPStatus.METHOD_NOT_ALLOWED:
            return MethodNotAllowed(method, (exception.headers or {}).get("allow", ""))
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return TooLarge()
        case _:
            return InvalidRequest(exception.detail)


def exception_handlers() -> ExceptionHandlersMap:
    """For `Litestar(exception_handlers=...)`: every exception of every route, the framework's own included."""
    return {HTTPException: _respond, Exception: _respond}


def _respond(request: Request[object, object, State], exception: Exception) -> Response[bytes]:
    request_id = new_id("req")
    error = translate(exception, request_id, request.method, request.url.path)
    headers = [*error_headers(error), OPENAI_VERSION, (b"x-request-id", request_id.encode())]
    return Response(
        content=error_body(error),
        status_code=error.status,
        media_type=JSON.decode(),
        headers={name.decode(): value.decode("latin-1") for name, value in headers},
    )
