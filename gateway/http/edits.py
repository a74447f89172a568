"""`POST /v1/images/edits`: pictures drawn from pictures, as a form or as JSON; from there on like a generation.

`POST /v1/images/variations`, which OpenAI has retired and old apps still send, is an edit that follows no words: an
order at an endpoint that can be told how far to leave its input, and 404 where none is sold.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

from litestar import asgi
from litestar.handlers import ASGIRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send
from msgspec import Struct
from msgspec.structs import replace

from gateway.errors import InvalidRequest, NotFound
from gateway.http import edit_fields, operations
from gateway.http.answers import IMAGES_HEADERS, ImagesResponse, Shape
from gateway.http.arms import likeness
from gateway.http.azure import under_deployment
from gateway.http.bodies import read_json
from gateway.http.drawing import DRAWING_ERRORS, IDEMPOTENCY, Ask, respond
from gateway.http.field_kinds import Field
from gateway.http.fields import Fields, refuse_unknown
from gateway.http.forms import MAX_FORM, is_form, read_form, typed
from gateway.http.generation_fields import extension_headers
from gateway.http.generations import call_of, within_patience
from gateway.http.inputs import mask_over, named, named_one, pictures
from gateway.http.model_names import Meaning, Names, usable_models
from gateway.http.operations import Content
from gateway.http.repeated_terms import RepeatedTerms
from gateway.http.request_parsing import (
    Asked,
    Wish,
    canonical,
    constraints_of,
    image_request,
    intent_of,
    known_fields,
    model_name,
    refuse_unsupported,
    see_through,
    size_of,
    tags_of,
    wish_of,
    with_headers,
)
from gateway.http.services import Services
from gateway.http.soft_limits import lower
from gateway.requests.call import Call, Caller
from gateway.requests.terms import narrowed
from policies.chaining import is_chained, opaque
from policies.eligibility import nearest_drawn
from policies.rules import About
from policies.types import Ask as EngineAsk
from policies.types import Constraints
from providers.contract import ImageRequest, Input, Operation

PATH = "/v1/images/edits"
VARIATIONS = "/v1/images/variations"
CUT_OUT_PROMPT = "remove the background"
"""What the record of a picture says whose background was removed without a word."""
VARIED_PROMPT = "another version of this picture"
"""What an endpoint is told that wants words, where the caller has none."""
VARIED_STRENGTH = 0.6
"""Far enough to be another picture, near enough to be of the same thing."""
_AUTO = (0, 0)
"""No size of a picture: the caller leaves it to us."""
MARKUP = "markup"
FILES = frozenset({"image", "image[]", "mask", MARKUP})
OPERATIONS = (
    operations.Operation(
        method="post",
        path=PATH,
        id="createImageEdit",
        tag="Images",
        summary="Draw pictures from pictures",
        about="OpenAI's endpoint, as a form or as JSON, with extensions that may also be sent as headers.",
        parameters=(IDEMPOTENCY, *extension_headers()),
        body=edit_fields.json_schema(),
        form=edit_fields.form_schema(),
        answers={200: Content(about="The pictures.", schema=ImagesResponse, headers=IMAGES_HEADERS)},
        errors=DRAWING_ERRORS,
        scope="images:write",
    ),
    operations.Operation(
        method="post",
        path=VARIATIONS,
        id="createImageVariation",
        tag="Images",
        summary="Draw other versions of a picture",
        about="For old apps: OpenAI has retired it. 404 where nothing sold works from a picture alone.",
        parameters=(IDEMPOTENCY,),
        form=edit_fields.variation_schema(),
        answers={200: Content(about="The pictures.", schema=ImagesResponse, headers=IMAGES_HEADERS)},
        errors=DRAWING_ERRORS,
        scope="images:write",
    ),
)


class Given(Struct, frozen=True):
    """An edit as it came: its fields as JSON would hold them, and its pictures; for a quote, their sizes will do."""

    fields: dict[str, object]
    sizes: tuple[tuple[int, int], ...]
    masked: bool
    inputs: tuple[Input, ...] = ()
    mask: Input | None = None

    @property
    def bytes(self) -> Sequence[bytes]:
        """Of every picture, the mask last."""
        return [one.data for one in (*self.inputs, *([self.mask] if self.mask else ()))]


def edits(services: Services) -> ASGIApp:
    """The endpoint of edits."""

    async def read(ask: Ask) -> tuple[Call, Shape]:
        given = await given_of(services, ask.key.caller, ask.headers, ask.receive)
        terms = services.terms_for(ask.key.caller, given.fields)
        names = terms.names
        if ask.deployment is not None:
            given = replace(given, fields=under_deployment(given.fields, ask.deployment, names))
        wish = _read_by(parse_edit, given, services, terms, ask.key.caller)
        if wish.parent is not None and await services.db.asset(wish.parent, ask.key.caller.team) is None:
            raise NotFound(f"There is no image '{wish.parent[:80]}'.", param="parent")
        return _asked(ask, given, wish, names)

    async def edit(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(services, read, scope, receive, send)

    return edit


def variations(services: Services) -> ASGIApp:
    """The endpoint of variations."""

    async def read(ask: Ask) -> tuple[Call, Shape]:
        given = await given_of(services, ask.key.caller, ask.headers, ask.receive, edit_fields.VARIATION)
        terms = services.terms_for(ask.key.caller, given.fields)
        return _asked(ask, given, _read_by(parse_variation, given, services, terms, ask.key.caller), terms.names)

    async def vary(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(services, read, scope, receive, send)

    return vary


def routes(editing: ASGIApp, varying: ASGIApp) -> list[ASGIRouteHandler]:
    """The endpoints as Litestar's routes."""

    @asgi(PATH, copy_scope=False)
    async def edit(scope: Scope, receive: Receive, send: Send) -> None:
        await editing(scope, receive, send)

    @asgi(VARIATIONS, copy_scope=False)
    async def vary(scope: Scope, receive: Receive, send: Send) -> None:
        await varying(scope, receive, send)

    return [edit, vary]


def _read_by(
    parse: Callable[[Given, Names, Caller], Wish],
    given: Given,
    services: Services,
    terms: RepeatedTerms,
    caller: Caller,
) -> Wish:
    """What is asked for, at the lowest tier where a budget says so."""
    wish = parse(given, terms.names, caller)
    if not services.soft_limits.past:
        return wish
    return lower(services, terms, caller, wish, lambda lowest: parse(given, lowest.names, caller))


def _asked(ask: Ask, given: Given, wish: Wish, names: Names) -> tuple[Call, Shape]:
    """The call of an edit, its pictures beside it."""
    call = replace(
        call_of(wish, ask.call_id, ask.key.caller, ask.arrived, regime=names.regime),
        inputs=given.inputs,
        mask=given.mask,
        fingerprint=ask.fingerprint(given.fields, *given.bytes),
        like=likeness(names.regime, ask.path, given.fields, ask.key.caller.team),
    )
    shape = Shape(
        response_format=wish.response_format,
        safety_identifier=wish.safety_identifier,
        stream=wish.stream,
        partial_images=wish.partial_images,
        events="image_edit",
        warnings=wish.warnings,
    )
    return within_patience(call, ask), shape


async def given_of(
    services: Services,
    caller: Caller,
    headers: Mapping[bytes, bytes],
    receive: Receive,
    table: Mapping[str, Field] = edit_fields.FORM,
) -> Given:
    """Read the body, and bring in the pictures that it names; `table` holds the fields beside them."""
    if is_form(headers):
        return await _given_in_form(headers, receive, table)
    return await given_in_json(services, caller, with_headers(await read_json(headers, receive, MAX_FORM), headers))


async def _given_in_form(headers: Mapping[bytes, bytes], receive: Receive, table: Mapping[str, Field]) -> Given:
    form = await read_form(headers, receive, FILES)
    refuse_unsupported({name: True for name, _ in form.files if name == MARKUP}, edit_fields.UNSUPPORTED)
    masks = [data for name, data in form.files if name == "mask"]
    if len(masks) > 1:
        raise InvalidRequest(f"Invalid 'mask': one is taken, but got {len(masks)}.", param="mask")
    sent = [(name.removesuffix("[]"), data) for name, data in form.files if name != "mask"]
    fields = with_headers(typed(form.texts, table), headers)
    return await _with_pictures(fields, await pictures(sent), masks[0] if masks else None)


async def given_in_json(services: Services, caller: Caller, fields: Mapping[str, object]) -> Given:
    """An edit whose pictures are named by the fields `images` and `mask`."""
    inputs = await named(services, caller.team, fields, "images")
    mask = await named_one(services, caller.team, fields, "mask")
    return await _with_pictures(without_pictures(fields), inputs, mask)


def without_pictures(fields: Mapping[str, object]) -> dict[str, object]:
    """The fields of a JSON edit beside those that name pictures."""
    return {name: value for name, value in fields.items() if name not in edit_fields.PICTURES}


async def _with_pictures(fields: dict[str, object], inputs: tuple[Input, ...], mask_data: bytes | None) -> Given:
    mask = None if mask_data is None else await mask_over(mask_data, inputs[0])
    sizes = tuple((one.head.width, one.head.height) for one in inputs)
    return Given(fields, sizes, mask is not None, inputs, mask)


def parse_edit(given: Given, names: Names, caller: Caller) -> Wish:
    """What an edit asks for; raises `InvalidRequest`, `NotFound` (model), `Forbidden` (model)."""
    fields, warnings = known_fields(given.fields, names, edit_fields.KNOWN)
    fields = canonical(fields, edit_fields.KNOWN)
    refuse_unsupported(fields, edit_fields.UNSUPPORTED)
    cuts_out = edit_fields.OPERATION.read(fields) == "remove_background"
    operation: Operation = "remove_background" if cuts_out else "edit"
    whole = {**fields, "prompt": fields.get("prompt") or CUT_OUT_PROMPT} if cuts_out else dict(fields)
    able = {offer.model for offer in names.catalog.for_sale() if operation in offer.abilities.operations}
    return _wish(replace(given, fields=whole), able, names, caller, warnings, operation)


def parse_variation(given: Given, names: Names, caller: Caller) -> Wish:
    """What a variation asks for; raises `NotFound` where nobody draws any."""
    fields, warnings = known_fields(given.fields, names, edit_fields.VARIATION)
    refuse_unknown(fields, edit_fields.VARIATION)
    offers = names.catalog.for_sale()
    able = {offer.model for offer in offers if "edit" in offer.abilities.operations and offer.abilities.strength}
    if not able or len(given.sizes) != 1 or given.masked:
        raise NotFound(
            "Variations are not drawn here (OpenAI has retired them, too). POST /v1/images/edits draws pictures from "
            "pictures and words; POST /v1/images/generations with another 'seed' draws another version of its own."
        )
    form = fields.get("response_format") or "url"  # what OpenAI's endpoint answered with
    whole = {**fields, "prompt": VARIED_PROMPT, "strength": VARIED_STRENGTH, "response_format": form}
    return _wish(replace(given, fields=whole), able, names, caller, warnings)


def _wish(
    given: Given,
    able: Collection[str],
    names: Names,
    caller: Caller,
    warnings: tuple[str, ...],
    operation: Operation = "edit",
) -> Wish:
    """What is asked for with pictures, of the models that are `able`."""
    fields = given.fields
    model = model_name(fields)
    meaning = _editing(names.meaning(model), able, names, caller)
    fidelity = _fidelity(fields, names, meaning, operation)
    if fidelity is None and fields.get("input_fidelity") == "high" and operation == "edit":
        warnings = (*warnings, "ignored: input_fidelity")
    intent = intent_of(fields, names)
    constraints = constraints_of(fields, names, caller, meaning, intent)
    request = replace(
        image_request(fields, given.sizes[0]),
        operation=operation,
        references=given.sizes,
        mask=given.masked,
        strength=edit_fields.STRENGTH.read(fields),
        fidelity=fidelity,
        transparent=operation == "remove_background",
    )
    request = see_through(fields, request, names, caller)
    if size_of(fields, _AUTO) == _AUTO:
        about = About(
            team=caller.team,
            key=caller.key_id,
            tags=tags_of(fields),
            model="auto" if constraints.models is None else min(constraints.models),
            intent=intent.name,
            operation=operation,
            pixels=request.width * request.height,
        )
        request = _in_a_drawn_size(request, narrowed(constraints, about, names.policy), names, caller)
    return wish_of(fields, names, caller, Asked(model, intent, request, constraints, warnings))


def _fidelity(fields: Fields, names: Names, meaning: Meaning, operation: Operation) -> Literal["high", "low"] | None:
    """How closely to keep to the pictures handed in; None where nobody asked, or nobody can and that is ignored."""
    asked = edit_fields.INPUT_FIDELITY.read(fields)
    if asked != "high" or operation == "remove_background":  # what that leaves of a picture is the picture's own
        return "low" if asked == "low" else None
    offers = [offer for offer in names.catalog.for_sale() if operation in offer.abilities.operations]
    meant = [offer for offer in offers if meaning.models is None or offer.model in meaning.models]
    if any(offer.abilities.fidelity is not None or offer.abilities.strength is not None for offer in meant):
        return "high"
    if names.policy.ignore_unknown:
        return None
    able = sorted({offer.model for offer in offers if offer.abilities.fidelity is not None})
    raise InvalidRequest(
        "Unsupported value for 'input_fidelity': 'high'. The model asked for cannot be told to keep closely to its "
        f"input pictures. Leave it out, or name a model that does: {', '.join(able) or 'none is sold here'}.",
        param="input_fidelity",
        code="unsupported_value",
    )


def _editing(meaning: Meaning, able: Collection[str], names: Names, caller: Caller) -> Meaning:
    """What a model name means for an edit; raises for models that cannot edit, naming some that can."""
    if meaning.models is None:
        usable = usable_models(caller, names.catalog)
        left = frozenset(able) if usable is None else usable.intersection(able)
        usual = (names.policy.edit_models or frozenset()) & left
        return replace(meaning, models=usual or None)
    if not meaning.models.intersection(able):
        raise InvalidRequest(
            f"The model '{next(iter(meaning.models))}' cannot do that to pictures. "
            f"These can: {', '.join(sorted(able)) or 'none that is sold here'}.",
            param="model",
        )
    return meaning


def _in_a_drawn_size(request: ImageRequest, constraints: Constraints, names: Names, caller: Caller) -> ImageRequest:
    """The request at its first input's size, or at the size most like it that somebody draws."""
    asked = EngineAsk(call_id="", part=0, request=request, constraints=constraints, team=caller.team, arrived=0.0)
    offers = names.catalog.offers.values()
    if is_chained(asked, offers):
        asked = replace(asked, request=opaque(request))
    width, height = nearest_drawn(asked, offers) or request.size
    return replace(request, width=width, height=height)
