"""Is the process alive, and may it be given work? For load balancers and container platforms; no key needed."""

from __future__ import annotations

from collections.abc import Mapping

from litestar import Response, route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from gateway.http.operations import USUAL_HEADERS, Content, Operation
from gateway.http.services import Services

READ = [HttpMethod.GET, HttpMethod.HEAD]


_LIVE = ("/health/live", "/health/liveliness", "/health/liveness")
_READY = ("/health/ready", "/health/readiness")


class Health(Struct, frozen=True, kw_only=True):
    """How the process is."""

    status: str
    parts: Mapping[str, str] = {}
    configuration: str = ""
    """ok, or where a changed file is wrong; what was good before is in force then, so this makes nobody unwell."""


def _told(path: str, summary: str, answers: Mapping[int, Content]) -> Operation:
    words = "".join(word.title() for word in path.strip("/").split("/"))
    return Operation(
        method="get", path=path, id=f"get{words}", tag="Service", summary=summary, answers=answers, key=False, head=True
    )


_WELL = Content(about="It is.", schema=Health, headers=USUAL_HEADERS)
_ILL = Content(about="Not now; `parts` says why.", schema=Health, headers=USUAL_HEADERS)
OPERATIONS = (
    *(_told(path, "Is the process alive?", {200: _WELL}) for path in _LIVE),
    *(_told(path, "May it be given work?", {200: _WELL, 503: _ILL}) for path in _READY),
)


def health(services: Services) -> list[HTTPRouteHandler]:
    """The routes."""

    @route(list(_LIVE), http_method=READ)
    async def live() -> Mapping[str, str]:
        return {"status": "ok"}

    @route(list(_READY), http_method=READ)
    async def ready() -> Response[Mapping[str, object]]:
        parts = services.ready()
        well = all(word == "ok" for word in parts.values())
        body = {
            "status": "ok" if well else "not ready",
            "parts": parts,
            "configuration": services.configuration().word,
        }
        return Response(body, status_code=200 if well else 503)

    return [live, ready]
