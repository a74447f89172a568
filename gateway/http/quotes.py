"""`POST /v1/quotes`: what every offer would charge for a generation body, and which may serve it. Orders nothing."""

from __future__ import annotations

from collections.abc import Sequence

from litestar import post
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from gateway.errors import Forbidden, NotFound
from gateway.http.bodies import read_json
from gateway.http.generation_fields import extension_headers, generation_schema
from gateway.http.generations import call_of
from gateway.http.operations import USUAL_HEADERS, Content, Operation
from gateway.http.request_parsing import parse_generation, with_headers
from gateway.http.resources import HttpRequest, caller_of
from gateway.http.services import Services
from gateway.ids import new_id
from gateway.requests.quoting import QuotedOffer


class Quotes(Struct, frozen=True):
    """The shape of `pixelgate quote --json`."""

    offers: Sequence[QuotedOffer]


OPERATIONS = (
    Operation(
        method="post",
        path="/v1/quotes",
        id="createQuote",
        tag="Decisions",
        summary="What every offer would charge for a generation body; orders nothing",
        parameters=extension_headers(),
        # A price needs no prompt.
        body={name: value for name, value in generation_schema().items() if name != "required"},
        answers={200: Content(about="Every offer, cheapest feasible first.", schema=Quotes, headers=USUAL_HEADERS)},
        errors=(Forbidden, NotFound),
    ),
)


def quotes(services: Services) -> HTTPRouteHandler:
    """The route."""

    @post("/v1/quotes", status_code=200)
    async def quote(request: HttpRequest) -> Quotes:
        arrived = services.clock.now()
        caller = await caller_of(request, services)
        headers = dict(request.scope["headers"])
        fields = with_headers(await read_json(headers, request.receive), headers)
        # A price needs no prompt.
        names = services.names
        wish = parse_generation({**fields, "prompt": fields.get("prompt") or "-"}, names, caller)
        return Quotes(await services.quote(call_of(wish, new_id("call"), caller, arrived, "quote", names.regime)))

    return quote
