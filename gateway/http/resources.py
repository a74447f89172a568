"""What the endpoints that only read have in common: who asks, and the headers every answer carries."""

from __future__ import annotations

from litestar import Request, Response
from litestar.datastructures import State

from gateway.http.auth import require
from gateway.http.errors import OPENAI_VERSION
from gateway.http.services import Services
from gateway.ids import new_id
from gateway.requests.call import Caller

HttpRequest = Request[None, None, State]


async def caller_of(request: HttpRequest, services: Services, scope: str) -> Caller:
    """The caller behind a request's key; raises `InvalidApiKey`, and `Forbidden` for a key without the scope."""
    key = await services.keys.find(dict(request.scope["headers"]))
    require(key.caller, scope)
    return key.caller


async def stamp(response: Response[object]) -> Response[object]:
    """Name the request and the version of OpenAI's API that we speak."""
    name, value = OPENAI_VERSION
    response.headers.setdefault("x-request-id", new_id("req"))
    response.headers.setdefault(name.decode(), value.decode())
    return response
