"""Which application answers: the busiest endpoint by itself, everything else through Litestar.

Litestar's router and exception middleware take 20 us of the 300 a request costs in all.
"""

from __future__ import annotations

from collections.abc import Mapping

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send


def front(hot: Mapping[str, ASGIApp], others: ASGIApp) -> ASGIApp:
    """Answer HTTP requests to the paths of `hot` there, and leave the rest (lifespan, websockets) to `others`."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        app = hot.get(scope["path"]) if scope["type"] == ScopeType.HTTP else None
        await (app or others)(scope, receive, send)

    return answer
