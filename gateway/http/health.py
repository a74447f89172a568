"""Is the process alive, and may it be given work? For load balancers and container platforms; no key needed."""

from __future__ import annotations

from collections.abc import Mapping

from litestar import Response, route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler

from gateway.http.services import Services

READ = [HttpMethod.GET, HttpMethod.HEAD]


def health(services: Services) -> list[HTTPRouteHandler]:
    """The routes."""

    @route(["/health/live", "/health/liveliness", "/health/liveness"], http_method=READ)
    async def live() -> Mapping[str, str]:
        return {"status": "ok"}

    @route(["/health/ready", "/health/readiness"], http_method=READ)
    async def ready() -> Response[Mapping[str, object]]:
        parts = services.ready()
        well = all(word == "ok" for word in parts.values())
        return Response({"status": "ok" if well else "not ready", "parts": parts}, status_code=200 if well else 503)

    return [live, ready]
