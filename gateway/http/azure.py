"""Azure's paths: `POST /openai/deployments/{name}/images/generations?api-version=...`, for clients made for it.

The deployment is the model. Where it is no name of ours, the body's `model` counts: in Azure people name deployments as
they like. Everything else is as under `/v1`; the key may come as `api-key`, and `api-version` does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from litestar import asgi
from litestar.handlers import ASGIRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

from gateway.errors import NotFound
from gateway.http.answers import IMAGES_HEADERS, ImagesResponse
from gateway.http.drawing import DRAWING_ERRORS, IDEMPOTENCY
from gateway.http.errors import answer_error
from gateway.http.fields import Fields
from gateway.http.generation_fields import extension_headers, generation_schema
from gateway.http.model_names import Names
from gateway.http.operations import Content, Operation, text_part

MOUNT = "/openai/deployments"
OPERATIONS = (
    Operation(
        method="post",
        path=f"{MOUNT}/{{deployment}}/images/generations",
        id="createImageAtDeployment",
        tag="Images",
        summary="Draw pictures, as Azure's clients ask for them",
        about="As `/v1/images/generations`; the deployment is the model. The key may come as the header `api-key`.",
        parameters=(text_part("deployment", "A model, as in the field `model`."), IDEMPOTENCY, *extension_headers()),
        body=generation_schema(),
        answers={200: Content(about="The pictures.", schema=ImagesResponse, streamed=True, headers=IMAGES_HEADERS)},
        errors=DRAWING_ERRORS,
        scope="images:write",
    ),
)
_PATH = re.compile(r"/?(?P<deployment>.+)/images/(?P<operation>[a-z]+)/?")


def azure(endpoints: Mapping[str, ASGIApp]) -> ASGIRouteHandler:
    """The routes: `endpoints` are the applications behind /v1/images/, by their last word."""

    @asgi(MOUNT, is_mount=True, copy_scope=True)
    async def deployments(scope: Scope, receive: Receive, send: Send) -> None:
        found = _PATH.fullmatch(scope["path"])
        endpoint = endpoints.get(found["operation"]) if found else None
        if found is None or endpoint is None:
            await answer_error(NotFound(f"Unknown URL: /openai/deployments{scope['path'][:200]}"), send)
            return
        named = {
            **scope,
            "path": f"/v1/images/{found['operation']}",
            "path_params": {"deployment": found["deployment"]},
        }
        await endpoint(cast("Scope", named), receive, send)

    return deployments


def under_deployment(fields: Fields, deployment: str, names: Names) -> dict[str, object]:
    """The fields with the deployment as their model, where it means something here or nothing else is named."""
    if fields.get("model") is not None and not names.knows(deployment):
        return dict(fields)
    return {**fields, "model": deployment}
