"""OpenAI's other image endpoints, which are not served (yet): each answers 404 with a word on what to use instead."""

from __future__ import annotations

from typing import NoReturn

from litestar import route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler

from gateway.errors import NotFound
from gateway.http.operations import Operation

OPERATIONS = tuple(
    Operation(
        method="post",
        path=f"/v1/images/{name}",
        id=f"{name}NotServed",
        tag="Images",
        summary=f"OpenAI's {name}: not served, answers 404",
        answers={},
        errors=(NotFound,),
        key=False,
    )
    for name in ("edits", "variations")
)


def absent() -> list[HTTPRouteHandler]:
    """The routes; without them the path of an image record would answer 405."""

    @route("/v1/images/edits", http_method=[HttpMethod.POST])
    async def edits() -> NoReturn:
        raise NotFound("Pictures cannot be edited here yet; POST /v1/images/generations draws new ones.")

    @route("/v1/images/variations", http_method=[HttpMethod.POST])
    async def variations() -> NoReturn:
        raise NotFound("OpenAI has retired variations; POST /v1/images/generations with another 'seed' draws one.")

    return [edits, variations]
