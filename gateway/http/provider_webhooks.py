"""Where providers report the end of an order: `POST /hooks/{account}/{attempt}`.

The adapter verifies the signature and wakes whoever waits. What a callback says is never taken on trust alone, and an
order whose callback is lost or refused is still found by polling.
"""

from __future__ import annotations

import structlog
from litestar import Response, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from gateway.errors import InvalidApiKey, NoCapacity, NotFound, TooLarge
from gateway.http.bodies import read_body
from gateway.http.errors import TooSlow
from gateway.http.operations import USUAL_HEADERS, Content, Operation, text_part
from gateway.http.resources import HttpRequest
from gateway.http.services import Services
from providers.contract import CallsBack

log = structlog.get_logger("gateway.http")

MAX_CALLBACK = 32 * 1024 * 1024
"""Bytes: a callback may carry pictures as data URIs."""


OPERATIONS = (
    Operation(
        method="post",
        path="/hooks/{account}/{attempt}",
        id="takeCallback",
        tag="Service",
        summary="Where providers report the end of an order",
        about="Signed by the provider in its own way; nobody else can use it.",
        parameters=(text_part("account", "A provider account."), text_part("attempt", "Our id of the order.")),
        answers={200: Content(about="Taken.", schema={"type": "object"}, headers=USUAL_HEADERS)},
        errors=(InvalidApiKey, NotFound, TooSlow, TooLarge, NoCapacity),
        key=False,
    ),
)


def provider_webhooks(services: Services) -> HTTPRouteHandler:
    """The door for provider accounts that call back; any other account is not found.

    Nobody proves who they are before the body is read, so only orders that exist have theirs read.
    """

    @post("/hooks/{account:str}/{attempt:str}", status_code=200)
    async def take(request: HttpRequest, account: FromPath[str], attempt: FromPath[str]) -> Response[bytes]:
        provider = services.providers.get(account)
        if provider is None or not isinstance(provider, CallsBack):
            raise NotFound
        order = await services.db.attempt(attempt[:80])
        if order is None or order.account != account:
            raise NotFound
        body = await read_body(dict(request.scope["headers"]), request.receive, MAX_CALLBACK)
        if not await provider.read_callback(dict(request.headers), body):
            log.warning("callback_refused", account=account, attempt=attempt[:40])
            raise InvalidApiKey("This callback's signature or time stamp is not to be trusted.")
        return Response(content=b"{}", media_type="application/json")

    return take
