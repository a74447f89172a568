"""`GET /v1/images/{id}`: a picture's record and lineage. `POST /v1/images/{id}/promote`: draw it again, better."""

from __future__ import annotations

from datetime import datetime

from litestar import Response, delete, post, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from msgspec import Struct
from msgspec.structs import replace

from gateway.errors import InvalidRequest, NotFound
from gateway.features.privacy import Erasure
from gateway.features.promotions import Original, find_original, promotion
from gateway.http.answers import IMAGES_HEADERS, ImagesResponse, Shape, provider_of
from gateway.http.arms import likeness
from gateway.http.bodies import read_json
from gateway.http.drawing import DRAWING_ERRORS, IDEMPOTENCY, Ask, draw
from gateway.http.errors import JSON
from gateway.http.field_kinds import Choice, Field, object_schema
from gateway.http.fields import Fields, refuse_unknown
from gateway.http.generation_fields import DEADLINE_MS, INTENT, MAX_COST, RESPONSE_FORMAT, SIZE
from gateway.http.generations import within_patience
from gateway.http.health import READ
from gateway.http.model_names import Meaning, Names, allowed_models
from gateway.http.operations import USUAL_HEADERS, Content, Operation, text_part
from gateway.http.request_parsing import ceiling_of, deadline_of, optional_size, refuse_too_large, response_format_of
from gateway.http.resources import HttpRequest, caller_of
from gateway.http.services import Services
from gateway.ids import sibling
from gateway.requests.call import Call, Caller
from gateway.storage.rows import AssetRow, RecipeRow
from policies.money import to_usd
from policies.types import Constraints


class ImageRecord(Struct, frozen=True, kw_only=True):
    """Everything about one picture. Money is nano-dollars and dollars, times are UTC."""

    id: str
    object: str = "image"
    created: datetime
    expires: datetime | None
    url: str
    width: int
    height: int
    media_type: str
    bytes: int
    sha256: str
    seed: int | None
    prompt: str | None
    """None once erased."""
    model: str
    offer: str
    provider: str
    tier: str
    intent: str
    nano_usd: int
    usd: str
    decision: str
    parent: str | None
    children: tuple[str, ...]


STRATEGY = Choice(
    name="strategy",
    words=("auto", "regenerate", "refine", "upscale"),
    default="auto",
    about="How; `refine` and `upscale` are known and refused.",
)
PROMOTION: tuple[Field, ...] = (INTENT, STRATEGY, SIZE, MAX_COST, DEADLINE_MS, RESPONSE_FORMAT)


class Deleted(Struct, frozen=True, kw_only=True):
    """OpenAI's word on something deleted, and how much went."""

    id: str
    object: str = "image"
    deleted: bool = True
    pixelgate: Erasure


OPERATIONS = (
    Operation(
        method="get",
        path="/v1/images/{image_id}",
        id="getImage",
        tag="Images",
        summary="A picture's record and lineage",
        parameters=(text_part("image_id", "The `id` of a picture."),),
        answers={200: Content(about="The record.", schema=ImageRecord, headers=USUAL_HEADERS)},
        errors=(NotFound,),
        scope="images:read",
        head=True,
    ),
    Operation(
        method="delete",
        path="/v1/images/{image_id}",
        id="deleteImage",
        tag="Images",
        summary="Delete a picture",
        about="With the last picture of a call goes what it was drawn from, and its idempotency record.",
        parameters=(text_part("image_id", "The `id` of a picture."),),
        answers={200: Content(about="What went.", schema=Deleted, headers=USUAL_HEADERS)},
        errors=(NotFound,),
        scope="images:write",
    ),
    Operation(
        method="post",
        path="/v1/images/{image_id}/promote",
        id="promoteImage",
        tag="Images",
        summary="Draw a preview again at export tier",
        parameters=(text_part("image_id", "The `id` of a picture."), IDEMPOTENCY),
        body=object_schema(PROMOTION, {}),
        answers={200: Content(about="The pictures.", schema=ImagesResponse, headers=IMAGES_HEADERS)},
        errors=DRAWING_ERRORS,
        scope="images:write",
    ),
)
_FIELDS = frozenset(field.name for field in PROMOTION)


def image_record(services: Services) -> HTTPRouteHandler:
    """The route of the record."""

    @route("/v1/images/{image_id:str}", http_method=READ)
    async def get_image(request: HttpRequest, image_id: FromPath[str]) -> ImageRecord:
        caller = await caller_of(request, services, "images:read")
        asset = await services.db.asset(image_id[:80], caller.team)
        if asset is None:
            raise NotFound(f"There is no image '{image_id[:80]}'.", param="id")
        recipe = await services.db.recipe(asset.call_id)
        children = await services.db.children(asset.id, caller.team)
        return _record(services, asset, recipe, tuple(child.id for child in children))

    return get_image


def _record(services: Services, asset: AssetRow, recipe: RecipeRow | None, children: tuple[str, ...]) -> ImageRecord:
    return ImageRecord(
        id=asset.id,
        created=asset.created,
        expires=asset.expires,
        url=services.asset_url(asset.path),
        width=asset.width,
        height=asset.height,
        media_type=asset.media_type,
        bytes=asset.bytes,
        sha256=asset.sha256,
        seed=asset.seed,
        prompt=str(recipe.request.get("prompt", "")) if recipe else None,
        model=asset.model,
        offer=asset.offer_id,
        provider=provider_of(services, asset.offer_id),
        tier=asset.tier,
        intent=asset.intent,
        nano_usd=asset.cost,
        usd=to_usd(asset.cost),
        decision=sibling(asset.call_id, "dec"),
        parent=asset.parent_id,
        children=children,
    )


def deletion(services: Services) -> HTTPRouteHandler:
    """The route of deletion."""

    @delete("/v1/images/{image_id:str}", status_code=200)
    async def delete_image(request: HttpRequest, image_id: FromPath[str]) -> Deleted:
        caller = await caller_of(request, services, "images:write")
        asset = await services.db.asset(image_id[:80], caller.team)
        if asset is None:
            raise NotFound(f"There is no image '{image_id[:80]}'.", param="id")
        return Deleted(id=asset.id, pixelgate=await services.eraser.image(asset, f"key {caller.key_id}"))

    return delete_image


def promotions(services: Services) -> HTTPRouteHandler:
    """The route of promotion: the answer is that of a generation, with `data[0].parent`."""

    async def read(ask: Ask) -> tuple[Call, Shape]:
        image_id = ask.path.strip("/").split("/")[2]
        fields = await read_json(ask.headers, ask.receive)
        refuse_unknown(fields, _FIELDS)
        _check_strategy(fields)
        names = services.terms_for(ask.key.caller, fields).names
        intent = INTENT.read(fields, names.policy.intents.keys()) or "export"
        caller = ask.key.caller
        original = await find_original(services.db, names.policy, caller, image_id[:80], intent)
        call = promotion(
            original,
            names.policy,
            caller=caller,
            constraints=_constraints(names, fields, original, caller),
            size=optional_size(fields),
            call_id=ask.call_id,
            arrived=ask.arrived,
        )
        refuse_too_large(call.request, caller)
        like = likeness(names.regime, "promote", {**fields, "size": call.request.size}, caller.team)
        call = replace(call, regime=names.regime, like=like)
        if ask.repeat is not None:
            call = replace(call, fingerprint=ask.fingerprint(fields))
        return within_patience(call, ask), Shape(response_format=response_format_of(fields, names, original.model))

    @post("/v1/images/{image_id:str}/promote", status_code=200)
    async def promote(request: HttpRequest) -> Response[bytes]:
        answer = await draw(services, read, request.scope, request.receive, joins=True)
        if answer is None:
            return Response(content=b"", status_code=400)
        headers = {name.decode(): value.decode("latin-1") for name, value in answer.headers}
        body = b"".join(answer.pieces)
        return Response(content=body, status_code=answer.status, headers=headers, media_type=JSON.decode())

    return promote


def _check_strategy(fields: Fields) -> None:
    strategy = STRATEGY.read(fields)
    if strategy in ("refine", "upscale"):
        raise InvalidRequest(
            f"Unsupported value for 'strategy': '{strategy}'. Supported values are: 'auto', 'regenerate'.",
            param="strategy",
            code="unsupported_value",
        )


def _constraints(names: Names, fields: Fields, original: Original, caller: Caller) -> Constraints:
    intent = original.intent
    deadline = deadline_of(fields, intent)
    return replace(
        names.policy.constraints(intent),
        models=allowed_models(Meaning(models=None), caller, names.catalog, intent.tier),
        slo=min(intent.slo, deadline),
        deadline=deadline,
        ceiling=ceiling_of(fields, intent, caller),
    )
