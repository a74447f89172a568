"""`GET /admin/configuration`: what is in force, and what is wrong with the files on disk; for keys of scope `admin`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from litestar import route
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from gateway.features.reloading import Condition
from gateway.http.health import READ
from gateway.http.operations import USUAL_HEADERS, Content, Operation
from gateway.http.resources import HttpRequest, caller_of
from gateway.http.services import Services

PATH = "/admin/configuration"


class FaultFacts(Struct, frozen=True, kw_only=True):
    """One thing wrong with a file; line and column count from 1, 0 is the file as a whole."""

    file: str
    line: int
    column: int
    message: str
    hint: str | None


class ConfigurationFacts(Struct, frozen=True, kw_only=True):
    """What is in force since when, and how the files on disk stand to it."""

    policy: str
    prices: int
    since: datetime | None
    canary: str
    """Name and number of the policy that is tried beside it; empty without one."""
    status: str
    """ok, or refused: the files have `faults`, and what was good before is in force."""
    faults: tuple[FaultFacts, ...]
    refused_at: datetime | None
    restart: tuple[str, ...]
    """Settings that changed on disk and are only read at start."""


OPERATIONS = (
    Operation(
        method="get",
        path=PATH,
        id="getConfiguration",
        tag="Service",
        summary="What is in force, and what is wrong with the files on disk",
        answers={200: Content(about="Both.", schema=ConfigurationFacts, headers=USUAL_HEADERS)},
        scope="admin",
        head=True,
    ),
)


def configuration(services: Services) -> HTTPRouteHandler:
    """The route."""

    @route(PATH, http_method=READ)
    async def get_configuration(request: HttpRequest) -> ConfigurationFacts:
        await caller_of(request, services, "admin")
        return facts_of(services.configuration())

    return get_configuration


def facts_of(condition: Condition) -> ConfigurationFacts:
    """A condition as it is shown: files by their names, not by where they lie on this machine."""
    return ConfigurationFacts(
        policy=condition.policy,
        prices=condition.prices,
        since=condition.since,
        canary=condition.canary,
        status="refused" if condition.faults else "ok",
        faults=tuple(
            FaultFacts(
                file=Path(fault.path).name,
                line=fault.line,
                column=fault.column,
                message=fault.message,
                hint=fault.hint,
            )
            for fault in condition.faults
        ),
        refused_at=condition.refused_at,
        restart=condition.restart,
    )
