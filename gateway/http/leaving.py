"""Clients that hang up while their request is served: the work for them is cancelled, or goes on for somebody else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias, TypeVar, cast

from litestar.types import HTTPScope, Receive

from gateway.http.bodies import ClientGone

T = TypeVar("T")

LISTEN_AFTER_S = 0.05
"""Where the server does not tell by itself, a call answered sooner than this is not called off."""
TellLeft: TypeAlias = Callable[[object, Callable[[], None] | None], bool]
"""Takes the request's scope and what to call when its client hangs up (None: nothing any more); False: it cannot."""
LEFT = "pixelgate.left"
"""The extension of ASGI by which our server tells that a client hung up (`gateway.http.connections`)."""


async def unless_left(
    work: Awaitable[T],
    scope: HTTPScope,
    receive: Receive,
    hang_up: Callable[[asyncio.Task[object]], object] = asyncio.Task.cancel,
) -> T:
    """What `work` brings; when the client hangs up before, `work` is cancelled and `ClientGone` raised.

    With another `hang_up` that decides what becomes of the work; `ClientGone` is raised when it is over.

    To be called once the body is read: whatever the server still hands out then is the end of the connection.
    """
    serving = asyncio.current_task()
    assert serving is not None
    left = False

    def leave() -> None:
        nonlocal left
        left = True
        hang_up(serving)

    tell = cast("Mapping[str, TellLeft]", scope.get("extensions") or {}).get(LEFT)
    told = tell is not None and tell(scope, leave)
    listener = None if told else _Listener(receive, leave)
    try:
        brought = await work
    except asyncio.CancelledError:
        if not left:
            raise
        serving.uncancel()
        raise ClientGone from None
    finally:
        if listener is not None:
            listener.stop()
        elif tell is not None:
            tell(scope, None)
    if left:
        raise ClientGone
    return brought


class _Listener:
    """Waits for the end of the connection as any server tells it: a task for each call, so only for longer ones."""

    def __init__(self, receive: Receive, leave: Callable[[], None]) -> None:
        self._receive = receive
        self._leave = leave
        self._task: asyncio.Task[None] | None = None
        self._due = asyncio.get_running_loop().call_later(LISTEN_AFTER_S, self._listen)

    def stop(self) -> None:
        self._due.cancel()
        if self._task is not None:
            self._task.cancel()

    def _listen(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()
