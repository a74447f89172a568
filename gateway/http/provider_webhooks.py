"""Where providers report the end of an order: `POST /hooks/{account}/{attempt}`.

The adapter verifies the signature and wakes whoever waits. What a callback says is never taken on trust alone, and an
order whose callback is lost or refused is still found by polling.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from litestar import Request, Response, post
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from gateway.errors import InvalidApiKey, NotFound, TooLarge
from gateway.http.operations import USUAL_HEADERS, Content, Operation, text_part
from providers.contract import CallsBack, Provider

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
        errors=(InvalidApiKey, NotFound, TooLarge),
        key=False,
    ),
)


def provider_webhooks(providers: Mapping[str, Provider]) -> HTTPRouteHandler:
    """The door for provider accounts that call back; any other account is not found."""

    @post(
        "/hooks/{account:str}/{attempt:str}",
        status_code=200,
        request_max_body_size=MAX_CALLBACK,
        include_in_schema=False,
    )
    async def take(
        request: Request[None, None, State], account: FromPath[str], attempt: FromPath[str]
    ) -> Response[bytes]:
        provider = providers.get(account)
        if provider is None or not isinstance(provider, CallsBack):
            raise NotFound
        if not await provider.read_callback(dict(request.headers), await request.body()):
            log.warning("callback_refused", account=account, attempt=attempt[:40])
            raise InvalidApiKey("This callback's signature or time stamp is not to be trusted.")
        return Response(content=b"{}", media_type="application/json")

    return take
