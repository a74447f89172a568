"""`GET /openapi.json`: the whole surface in OpenAPI 3.1, made from the same tables and structs that serve it.

`docs/openapi.json` is a copy for people and generators; to write it anew: `.venv/bin/python -m gateway.http.openapi`.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from itertools import groupby
from typing import Any

import msgspec
from litestar import Response, route
from litestar.handlers import HTTPRouteHandler

from gateway.errors import GatewayError, InvalidRequest, NotFound
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
    provider_webhooks,
    quotes,
)
from gateway.http.errors import INVALID_CODES, MethodNotAllowed
from gateway.http.health import READ
from gateway.http.operations import Content, Operation, Parameter

VERSION = "1"
"""Of the surface: it changes when an app that worked would not any more."""
_REFERENCE = "#/components/schemas/{name}"

_HEADERS: Mapping[str, tuple[str, str]] = {
    "x-request-id": ("string", "Names this request, in our log too."),
    "openai-version": ("string", "The version of OpenAI's API that is spoken."),
    "openai-processing-ms": ("integer", "Milliseconds from the request's arrival to its answer."),
    "retry-after": ("integer", "Whole seconds to wait, at most 60."),
    "retry-after-ms": ("integer", "The same in milliseconds."),
    "x-should-retry": ("string", "`false` where a repeat cures nothing; OpenAI's clients obey it."),
    "allow": ("string", "The methods this path takes."),
    "x-ratelimit-limit-requests": ("integer", "Requests per minute of the key."),
    "x-ratelimit-remaining-requests": ("integer", "Requests left."),
    "x-ratelimit-reset-requests": ("string", "Until all are back: `850ms`, `6m0s`."),
    "x-ratelimit-limit-images": ("integer", "Pictures per minute of the key."),
    "x-ratelimit-remaining-images": ("integer", "Pictures left."),
    "x-ratelimit-reset-images": ("string", "Until all are back."),
    "x-pixelgate-warning": ("string", "What of the request was not done as asked."),
    "x-pixelgate-decision": ("string", "The decision; `GET /v1/decisions/{decision_id}` explains it."),
    "x-pixelgate-offer": ("string", "The offers that delivered."),
    "x-pixelgate-cost": ("string", "Dollars that the request cost."),
    "x-pixelgate-cache": ("string", "`hit`, `miss` or `joined`."),
    "x-pixelgate-policy": ("string", "The policy that chose, as `name@revision`."),
    "x-pixelgate-attempts": ("integer", "Orders it took."),
    "etag": ("string", "Digest of the picture."),
    "cache-control": ("string", "How long the picture stays."),
}

Json = dict[str, Any]


def operations() -> list[Operation]:
    """Everything that is served."""
    own = Operation(
        method="get",
        path="/openapi.json",
        id="getOpenapi",
        tag="Service",
        summary="This document",
        key=False,
        head=True,
        answers={200: Content(about="OpenAPI 3.1.", schema={"type": "object"})},
    )
    resources = (
        generations,
        edits,
        azure,
        images,
        models,
        decisions,
        quotes,
        assets,
        health,
        configuration,
        provider_webhooks,
    )
    return [*(operation for resource in resources for operation in resource.OPERATIONS), own]


def openapi() -> HTTPRouteHandler:
    """The route."""

    @route("/openapi.json", http_method=READ)
    async def get_openapi() -> Response[bytes]:
        return Response(content=document(), media_type="application/json")

    return get_openapi


@cache
def document() -> bytes:
    """The document, as it is served and as it is committed."""
    listed = operations()
    structs = [content.schema for one in listed for content in one.answers.values() if isinstance(content.schema, type)]
    _, schemas = msgspec.json.schema_components(structs, ref_template=_REFERENCE)
    paths = {path: _path(found) for path, found in groupby(listed, key=lambda one: one.path)}
    whole = {
        "openapi": "3.1.0",
        "info": {
            "title": "pixelgate",
            "version": VERSION,
            "description": "A gateway for image generation, spoken to as to OpenAI's image API.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Error": _error_schema()},
            "headers": {name: _header(*about) for name, about in _HEADERS.items()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer pg_...`"},
                "azure": {"type": "apiKey", "in": "header", "name": "api-key", "description": "As Azure's clients do."},
            },
        },
    }
    return msgspec.json.format(msgspec.json.encode(whole), indent=2) + b"\n"


def _path(found: Iterable[Operation]) -> Json:
    item: Json = {}
    for operation in found:
        item[operation.method] = _operation(operation)
        if operation.head:
            item["head"] = _operation(operation, head=True)
    return item


def _operation(operation: Operation, *, head: bool = False) -> Json:
    told: Json = {
        "operationId": operation.id + ("Head" if head else ""),
        "tags": [operation.tag],
        "summary": operation.summary,
    }
    if operation.about:
        told["description"] = operation.about
    told["security"] = [{"bearer": [operation.scope]}, {"azure": [operation.scope]}] if operation.key else []
    if operation.parameters:
        told["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
    bodies = {"multipart/form-data": operation.form, "application/json": operation.body}
    if content := {media: {"schema": schema} for media, schema in bodies.items() if schema is not None}:
        told["requestBody"] = {"required": operation.body_required, "content": content}
    answers = {str(status): _answer(content, head=head) for status, content in operation.answers.items()}
    told["responses"] = answers | _errors(operation.raised(), head=head)
    return told


def _parameter(parameter: Parameter) -> Json:
    told: Json = {"name": parameter.name, "in": parameter.place, "description": parameter.about}
    told["required"] = parameter.place == "path"
    if parameter.json:
        told["content"] = {"application/json": {"schema": parameter.schema}}
    else:
        told["schema"] = parameter.schema
    return told


def _answer(content: Content, *, head: bool) -> Json:
    told: Json = {"description": content.about, "headers": _header_references(content.headers)}
    if head:
        return told
    schema = {"$ref": _REFERENCE.format(name=content.schema.__name__)} if isinstance(content.schema, type) else None
    shape = schema or content.schema
    told["content"] = {media: {"schema": shape} if shape is not None else {} for media in content.media_types}
    if content.streamed:
        told["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return told


def _errors(raised: Collection[type[GatewayError]], *, head: bool) -> Json:
    """Status -> answer, for every status that the errors have."""
    by_status = groupby(sorted(dict.fromkeys(raised), key=lambda kind: kind.status), key=lambda kind: kind.status)
    return {str(status): _error(list(kinds), head=head) for status, kinds in by_status}


def _error(kinds: list[type[GatewayError]], *, head: bool) -> Json:
    sentences = [f"{_codes(kind)}: {(kind.__doc__ or '').splitlines()[0]}" for kind in kinds]
    headers = ["x-request-id"]
    headers += ["retry-after", "retry-after-ms"] if kinds[0].status in (429, 503) else []
    headers += ["x-should-retry"] if any(kind.should_retry is not None for kind in kinds) else []
    headers += ["allow"] if MethodNotAllowed in kinds else []
    told: Json = {"description": " ".join(sentences), "headers": _header_references(headers)}
    if head:
        return told
    return {**told, "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(name="Error")}}}}


def _codes(kind: type[GatewayError]) -> str:
    codes: Iterable[str | None] = (kind.code,)
    if kind is InvalidRequest:
        codes = INVALID_CODES
    if kind is NotFound:
        codes = ("not_found", "model_not_found")
    return ", ".join(f"`{code}`" for code in codes)


def _header(kind: str, about: str) -> Json:
    return {"description": about, "schema": {"type": kind}}


def _header_references(names: Iterable[str]) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _error_schema() -> Json:
    optional = {"type": ["string", "null"]}
    details = {"type": "array", "items": {"type": "object"}}
    return {
        "type": "object",
        "description": "What every answer that is not a success holds.",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "message": {"type": "string", "description": "For people; may change."},
                    "type": {"type": "string", "description": "OpenAI's kind of error."},
                    "param": {**optional, "description": "The field it is about."},
                    "code": {**optional, "description": "For programs; does not change."},
                    "reasons": {**details, "description": "Why each offer may not serve."},
                    "attempts": {**details, "description": "What was tried."},
                },
                "required": ["message", "type", "param", "code"],
            }
        },
        "required": ["error"],
    }


def main() -> None:
    """Write `docs/openapi.json` anew."""
    from gateway.settings import CHECKOUT

    path = CHECKOUT / "docs" / "openapi.json"
    path.write_bytes(document())
    sys.stderr.write(f"wrote {path.relative_to(CHECKOUT)}\n")


if __name__ == "__main__":
    main()
