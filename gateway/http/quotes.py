"""`POST /v1/quotes`: what every offer would charge for a body of a generation or an edit, and which may serve it.

Orders nothing. A body with pictures, or with their sizes (`input_sizes`), is an edit's; any other is a generation's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from litestar import Response, post
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from gateway.errors import GatewayError, InvalidRequest, NotFound, RateLimited
from gateway.http import edit_fields
from gateway.http.answers import warning_header
from gateway.http.auth import Key, require
from gateway.http.bodies import read_json
from gateway.http.edits import Given, given_in_json, given_of, parse_edit, without_pictures
from gateway.http.forms import MAX_FORM, is_form
from gateway.http.generation_fields import extension_headers
from gateway.http.generations import call_of
from gateway.http.inputs import sizes
from gateway.http.model_names import Names
from gateway.http.operations import USUAL_HEADERS, Content, Operation
from gateway.http.request_parsing import Wish, parse_generation, with_headers
from gateway.http.resources import HttpRequest
from gateway.http.services import Services
from gateway.http.soft_limits import lower
from gateway.ids import new_id
from gateway.requests.call import Caller
from gateway.requests.quoting import QuotedOffer

_RATE = tuple(f"x-ratelimit-{what}-requests" for what in ("limit", "remaining", "reset"))
_SIZES, _MASKED = edit_fields.INPUT_SIZES.name, edit_fields.MASKED.name
_OF_EDITS = (edit_fields.OPERATION.name, edit_fields.STRENGTH.name, edit_fields.INPUT_FIDELITY.name)
_NO_PROMPT = "-"
"""A price needs no prompt."""


class Quotes(Struct, frozen=True):
    """The shape of `pixelgate quote --json`."""

    offers: Sequence[QuotedOffer]


OPERATIONS = (
    Operation(
        method="post",
        path="/v1/quotes",
        id="createQuote",
        tag="Decisions",
        summary="What every offer would charge for a generation or an edit; orders nothing",
        about="Nothing must be there. With pictures, or `input_sizes` in their place, it is an edit that is priced.",
        parameters=extension_headers(),
        body=edit_fields.quote_schema(),
        form=edit_fields.form_schema(),
        answers={
            200: Content(
                about="Every offer, cheapest feasible first.",
                schema=Quotes,
                headers=(*USUAL_HEADERS, *_RATE, "x-pixelgate-warning"),
            )
        },
        errors=(NotFound, RateLimited),
        scope="quotes:read",
    ),
)


def quotes(services: Services) -> HTTPRouteHandler:
    """The route."""

    @post("/v1/quotes", status_code=200)
    async def quote(request: HttpRequest) -> Response[Quotes]:
        arrived = services.clock.now()
        headers = dict(request.scope["headers"])
        key = await services.keys.find(headers)
        try:
            require(key.caller, "quotes:read")
            key.spend_request(arrived)
            body = await _body(services, key.caller, headers, request)
            terms = services.terms_for(key.caller, _fields(body))
            wish = _wish(body, terms.names, key.caller)
            if services.soft_limits.past:
                wish = lower(services, terms, key.caller, wish, lambda low: _wish(body, low.names, key.caller))
            call = call_of(wish, new_id("call"), key.caller, arrived, "quote", terms.names.regime)
            offers = await services.quote(call)
        except GatewayError as error:
            error.headers = key.headers()
            raise
        return Response(Quotes(offers), headers=_told(key, wish))

    return quote


def _told(key: Key, wish: Wish) -> dict[str, str]:
    """What is said beside the offers: the key's rates, and what is not priced as asked."""
    headers = [*key.headers(), *([warning_header(wish.warnings)] if wish.warnings else ())]
    return {name.decode(): value.decode() for name, value in headers}


async def _body(
    services: Services, caller: Caller, headers: Mapping[bytes, bytes], request: HttpRequest
) -> Given | dict[str, object]:
    """What is to be priced: an edit, or the fields of a generation."""
    if is_form(headers):
        return await given_of(services, caller, headers, request.receive)
    fields = with_headers(await read_json(headers, request.receive, MAX_FORM), headers)
    masked, plain = _masked(fields), {name: fields[name] for name in fields if name not in (_SIZES, _MASKED)}
    shown = next((name for name in edit_fields.PICTURES if plain.get(name) is not None), None)
    if fields.get(_SIZES) is not None:
        if shown is not None:
            raise InvalidRequest(
                f"'{shown}' and '{_SIZES}' both say how large the pictures are. Send one of them.", param=shown
            )
        return Given(without_pictures(plain), sizes(fields, _SIZES), masked)
    if shown is not None:
        return await given_in_json(services, caller, plain)
    _refuse_without_pictures(plain)
    return {name: value for name, value in without_pictures(plain).items() if name not in _OF_EDITS}


def _fields(body: Given | dict[str, object]) -> dict[str, object]:
    return body.fields if isinstance(body, Given) else body


def _wish(body: Given | dict[str, object], names: Names, caller: Caller) -> Wish:
    """What it asks for."""
    fields = {**_fields(body), "prompt": _fields(body).get("prompt") or _NO_PROMPT}
    if isinstance(body, Given):
        return parse_edit(Given(fields, body.sizes, body.masked), names, caller)
    return parse_generation(fields, names, caller)


def _masked(fields: Mapping[str, object]) -> bool:
    """Whether a mask would come with the pictures; without their sizes, it speaks for itself."""
    masked = bool(edit_fields.MASKED.read(fields))
    if masked and fields.get(_SIZES) is None:
        raise InvalidRequest(f"'{_MASKED}' goes with '{_SIZES}'; with 'images', send the 'mask' itself.", param=_MASKED)
    return masked


def _refuse_without_pictures(fields: Mapping[str, object]) -> None:
    own = next((name for name in _OF_EDITS if fields.get(name) is not None), None)
    if own is not None:
        raise InvalidRequest(
            f"'{own}' is of edits. Send the pictures with it ('images'), or how large they are ('{_SIZES}').",
            param=_SIZES,
        )
