"""`POST /v1/images/generations`: the one endpoint every client of OpenAI's images knows.

A raw ASGI application: Litestar's handler machinery costs 50 us a request, half of all that we do here. Requests to
exactly `PATH` do not even pass its router (`gateway.http.front`); other spellings, such as a slash at the end, do.
"""

from __future__ import annotations

import re

import msgspec
from litestar import asgi
from litestar.handlers import ASGIRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

from gateway.errors import NotFound
from gateway.http.answers import IMAGES_HEADERS, ImagesResponse, Shape
from gateway.http.arms import likeness
from gateway.http.azure import under_deployment
from gateway.http.bodies import read_json
from gateway.http.drawing import DRAWING_ERRORS, IDEMPOTENCY, Ask, respond
from gateway.http.generation_fields import extension_headers, generation_schema
from gateway.http.operations import Content, Operation
from gateway.http.request_parsing import Wish, with_headers
from gateway.http.services import Services
from gateway.http.soft_limits import lower
from gateway.requests.call import Call, Caller, Purpose
from gateway.requests.regime import Regime

PATH = "/v1/images/generations"
OPERATIONS = (
    Operation(
        method="post",
        path=PATH,
        id="createImage",
        tag="Images",
        summary="Draw pictures",
        about="OpenAI's endpoint, with extensions that may also be sent as headers; the header wins.",
        parameters=(IDEMPOTENCY, *extension_headers()),
        body=generation_schema(),
        answers={200: Content(about="The pictures.", schema=ImagesResponse, streamed=True, headers=IMAGES_HEADERS)},
        errors=DRAWING_ERRORS,
        scope="images:write",
    ),
)
_SECONDS = re.compile(rb"[0-9]{1,6}(\.[0-9]{1,6})?")


def generations(services: Services) -> ASGIApp:
    """The endpoint."""

    async def read(ask: Ask) -> tuple[Call, Shape]:
        fields = with_headers(await read_json(ask.headers, ask.receive, scope=ask.scope), ask.headers)
        terms = services.terms_for(ask.key.caller, fields)
        names = terms.names
        if ask.deployment is not None:
            fields = under_deployment(fields, ask.deployment, names)
        wish = terms.wish(fields, ask.key.caller)
        if services.soft_limits.past:
            wish = lower(services, terms, ask.key.caller, wish, lambda lowest: lowest.wish(fields, ask.key.caller))
        if wish.parent is not None and await services.db.asset(wish.parent, ask.key.caller.team) is None:
            raise NotFound(f"There is no image '{wish.parent[:80]}'.", param="parent")
        call = call_of(wish, ask.call_id, ask.key.caller, ask.arrived, regime=names.regime)
        if services.arms is not None:
            call = msgspec.structs.replace(call, like=likeness(names.regime, PATH, fields, ask.key.caller.team))
        if ask.repeat is not None:
            call = msgspec.structs.replace(call, fingerprint=ask.fingerprint(fields))
        return within_patience(call, ask), Shape(
            response_format=wish.response_format,
            safety_identifier=wish.safety_identifier,
            stream=wish.stream,
            partial_images=wish.partial_images,
            warnings=wish.warnings,
        )

    async def generate(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(services, read, scope, receive, send)

    return generate


def route(endpoint: ASGIApp) -> ASGIRouteHandler:
    """The endpoint as one of Litestar's routes."""

    @asgi(PATH, copy_scope=False)
    async def generate(scope: Scope, receive: Receive, send: Send) -> None:
        await endpoint(scope, receive, send)

    return generate


def call_of(
    wish: Wish, call_id: str, caller: Caller, arrived: float, purpose: Purpose = "live", regime: Regime | None = None
) -> Call:
    """The call that a wish makes, served under the regime it was read by."""
    return Call(
        id=call_id,
        caller=caller,
        request=wish.request,
        constraints=wish.constraints,
        worth=wish.worth,
        intent=wish.intent,
        model=wish.model,
        compression=wish.compression,
        user=wish.user,
        tags=wish.tags,
        shadow=wish.shadow,
        parent=wish.parent,
        soft_limit=wish.soft_limit,
        purpose=purpose,
        arrived=arrived,
        regime=regime,
    )


def within_patience(call: Call, ask: Ask) -> Call:
    """The call, as soon as the client says it will stop listening (OpenAI's clients tell).

    One that repeats by itself leaves and comes back, so its patience is no deadline: its call goes on until it has
    stayed away for long enough (`gateway.requests.coalescing`).
    """
    told = ask.headers.get(b"x-stainless-read-timeout") or ask.headers.get(b"x-stainless-timeout") or b""
    patience = float(told) if _SECONDS.fullmatch(told) else 0.0
    if not 0 < patience < call.constraints.deadline:
        return call
    constraints = msgspec.structs.replace(
        call.constraints,
        deadline=patience if ask.repeat is None else call.constraints.deadline,
        slo=min(call.constraints.slo, patience),
    )
    return msgspec.structs.replace(call, constraints=constraints)
