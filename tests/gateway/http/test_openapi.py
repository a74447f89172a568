"""The document says what is served, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute

from gateway.errors import GatewayError, InvalidRequest
from gateway.http import routes
from gateway.http.errors import INVALID_CODES
from gateway.http.openapi import document, operations

if TYPE_CHECKING:
    from tests.gateway.http.conftest import Door

ROOT = Path(__file__).resolve().parents[3]
WORKS_BY_ITSELF = {"OPTIONS"}


MOUNTED = {"/openai/deployments": "/openai/deployments/{deployment}/images/generations"}
"""What is documented of an application that is mounted under a path."""


def everything_below(kind: type[GatewayError]) -> set[type[GatewayError]]:
    return {kind, *(found for below in kind.__subclasses__() for found in everything_below(below))}


@pytest.fixture
def told() -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(document())
    return found


async def test_the_document_is_served_to_anybody(door: Door) -> None:
    answer = await door.http.get("/openapi.json", headers={"authorization": ""})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.content == document()


async def test_every_route_is_documented_and_every_documented_route_exists(door: Door, told: dict[str, Any]) -> None:
    app = Litestar(routes(door.services), openapi_config=None)
    served = {
        (method, MOUNTED.get(route.path_format) or re.sub(r":\w+", "", route.path_format))
        for route in app.routes
        for method in (route.methods if isinstance(route, HTTPRoute) else {"POST"})
    }
    documented = {(method.upper(), path) for path, item in told["paths"].items() for method in item}
    assert {pair for pair in served if pair[0] not in WORKS_BY_ITSELF} == documented


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [operation.id for operation in operations()]
    assert len(set(names)) == len(names)


def test_every_error_a_caller_can_meet_is_documented(told: dict[str, Any]) -> None:
    said = " ".join(
        answer["description"]
        for item in told["paths"].values()
        for operation in item.values()
        for answer in operation["responses"].values()
    )
    framework = {"method_not_allowed", "head_too_large"}  # of any path, before it is known which
    codes = {kind.code for kind in everything_below(GatewayError) if kind.code} | set(INVALID_CODES)
    assert [code for code in sorted(codes - framework) if f"`{code}`" not in said] == []


def test_every_code_of_a_bad_request_is_listed() -> None:
    page = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
    cells = [line.split("|")[2] for line in page.splitlines() if line.startswith("| 400 ")]
    listed = {code for cell in cells for code in re.findall("`([a-z0-9_]+)`", cell)}
    own_classes = {kind.code for kind in everything_below(InvalidRequest)} - {InvalidRequest.code}
    assert listed - own_classes == set(INVALID_CODES)


def test_every_reference_in_the_document_leads_somewhere(told: dict[str, Any]) -> None:
    found = re.findall(r'"\$ref": ?"#/components/(\w+)/([^"]+)"', document().decode())
    assert len(found) > 20
    assert [name for kind, name in found if name not in told["components"][kind]] == []
