"""The HTTP door: parses, calls, shapes. One module per resource; what they need comes in `services.Services`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litestar.types import ControllerRouterHandler

    from gateway.http.services import Services


def routes(services: Services) -> list[ControllerRouterHandler]:
    """Every route of the gateway; a new resource adds its line here."""
    from litestar import Router

    from gateway.http import (
        assets,
        azure,
        configuration,
        decisions,
        edits,
        generations,
        health,
        images,
        models,
        openapi,
        provider_webhooks,
        quotes,
        resources,
    )

    usual = [
        images.image_record(services),
        images.deletion(services),
        images.promotions(services),
        *models.models(services),
        decisions.decisions(services),
        quotes.quotes(services),
        assets.assets(services),
        *health.health(services),
        configuration.configuration(services),
        provider_webhooks.provider_webhooks(services),
        openapi.openapi(),
    ]
    generate, edit = generations.generations(services), edits.edits(services)
    return [
        generations.route(generate),
        *edits.routes(edit, edits.variations(services)),
        azure.azure({"generations": generate, "edits": edit}),
        Router(path="/", route_handlers=usual, after_request=resources.stamp),
    ]
