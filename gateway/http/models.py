"""`GET /v1/models[/{id}]`: every name a caller may send as `model`. Menus of chat programs are filled from it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime

from litestar import route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from msgspec import Struct

from gateway.errors import NotFound
from gateway.http.health import READ
from gateway.http.model_names import AUTO, Names, usable_models
from gateway.http.operations import USUAL_HEADERS, Content, Operation, text_part
from gateway.http.resources import HttpRequest, caller_of
from gateway.http.services import Services

FOREIGN = (
    "dall-e-2",
    "dall-e-3",
    "gpt-image-1",
    "gpt-image-1-mini",
    "gpt-image-1.5",
    "gpt-image-2",
    "chatgpt-image-latest",
)
"""Names apps are known to send. Any name with a prefix of the policy's works; these are the ones worth listing."""


class ModelFacts(Struct, frozen=True, kw_only=True):
    """What we say of a model beside OpenAI's fields."""

    model: str
    """The catalogue's name of it, or `auto`."""
    title: str
    tier: str | None
    licence: str | None
    offers: tuple[str, ...]


class ModelEntry(Struct, frozen=True, kw_only=True):
    """OpenAI's `Model`, and ours beside it."""

    id: str
    object: str = "model"
    created: int
    """When its price was last checked; 0 where that means nothing."""
    owned_by: str = "pixelgate"
    pixelgate: ModelFacts


class ModelList(Struct, frozen=True, kw_only=True):
    """OpenAI's list of models."""

    object: str = "list"
    data: list[ModelEntry]


OPERATIONS = (
    Operation(
        method="get",
        path="/v1/models",
        id="listModels",
        tag="Models",
        summary="Every name this key may send as `model`",
        answers={200: Content(about="The names.", schema=ModelList, headers=USUAL_HEADERS)},
        scope="models:read",
        head=True,
    ),
    Operation(
        method="get",
        path="/v1/models/{model_id}",
        id="getModel",
        tag="Models",
        summary="What a name stands for",
        about="The name may hold slashes, as they are or percent-encoded.",
        parameters=(text_part("model_id", "A name of the list."),),
        answers={200: Content(about="The model.", schema=ModelEntry, headers=USUAL_HEADERS)},
        errors=(NotFound,),
        scope="models:read",
        head=True,
    ),
)


def models(services: Services) -> list[HTTPRouteHandler]:
    """The routes."""

    @route("/v1/models", http_method=READ)
    async def list_models(request: HttpRequest) -> ModelList:
        caller = await caller_of(request, services, "models:read")
        names = services.names
        usable = usable_models(caller, names.catalog)
        entries = (entry(name, names, usable) for name in listed_names(names))
        return ModelList(data=[found for found in entries if found])

    @route("/v1/models/{model_id:path}", http_method=READ)
    async def get_model(request: HttpRequest, model_id: FromPath[str]) -> ModelEntry:
        caller = await caller_of(request, services, "models:read")
        name = model_id.strip("/")
        found = entry(name, services.names, usable_models(caller, services.catalog))
        if found is None:
            raise NotFound(
                f"The model '{name[:80]}' does not exist. GET /v1/models lists what this key may use.",
                param="model",
                code="model_not_found",
            )
        return found

    return [list_models, get_model]


def listed_names(names: Names) -> Iterator[str]:
    """Every name worth listing: ours, the catalogue's models and aliases, and foreign ones the policy knows."""
    yield AUTO
    yield from names.catalog.models
    yield from names.catalog.aliases
    yield from (name for name in FOREIGN if names.policy.model_behind(name) and not names.catalog.resolve(name))


def entry(name: str, names: Names, usable: frozenset[str] | None) -> ModelEntry | None:
    """What a name stands for; None when it stands for nothing that is `usable` (None: all are) and somebody sells."""
    model = names.catalog.resolve(name)
    if model is None:
        return _any(name) if name == AUTO or names.policy.model_behind(name) else None
    info = names.catalog.models[model]
    if not info.offers or (usable is not None and model not in usable):
        return None
    checked = max(names.catalog.offers[offer].checked_on for offer in info.offers)
    facts = ModelFacts(
        model=model, title=info.title, tier=info.tier.word, licence=info.licence.name, offers=info.offers
    )
    return ModelEntry(id=name, created=_seconds(checked), pixelgate=facts)


def _any(name: str) -> ModelEntry:
    facts = ModelFacts(model=AUTO, title="Whatever suits the request best", tier=None, licence=None, offers=())
    return ModelEntry(id=name, created=0, pixelgate=facts)


def _seconds(day: str) -> int:
    if not day:
        return 0
    return int(datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC).timestamp())
