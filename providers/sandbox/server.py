"""The sandbox as one server on loopback: every twin, its control, and the start and end of it all."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from providers.sandbox.control import Control, Script, apply, stats
from providers.sandbox.fal import FalTwin
from providers.sandbox.fal_platform import FalPlatform
from providers.sandbox.fal_webhooks import Webhooks
from providers.sandbox.invoice import Invoice
from providers.sandbox.machine_twin import MachineTwin
from providers.sandbox.openai import OpenAITwin
from providers.sandbox.pulse import Pulse
from providers.sandbox.replicate import ReplicateTwin
from providers.sandbox.replicate_webhooks import ReplicateWebhooks
from providers.sandbox.selfhosted import SelfhostedTwin
from providers.sandbox.together import TogetherTwin
from providers.sandbox.wire import Gone, read_object
from providers.sandbox.world import World

_LARGEST_BODY = 64 * 1024 * 1024


class Sandbox:
    """A running sandbox."""

    def __init__(self, world: World, runner: web.AppRunner) -> None:
        self._world = world
        self._runner = runner
        self._pulse = Pulse()
        world.behind = self._pulse.behind

    @property
    def url(self) -> str:
        """Where it listens; each seller is a path below, as in `/fal`; the control is `/_sandbox`."""
        return self._world.url

    def invoice(self, provider: str | None = None) -> Invoice:
        """The sellers' own book, as `GET /_sandbox/invoice` tells it."""
        return self._world.book.invoice(provider)

    def stats(self) -> Mapping[str, object]:
        """How each account behaved, as `GET /_sandbox/stats` tells it."""
        return stats(self._world)

    def requests(self) -> Sequence[Mapping[str, object]]:
        """The latest requests that reached the sellers, oldest first."""
        return tuple(self._world.requests)

    def script(self, rules: Sequence[Mapping[str, object]] | Mapping[str, object]) -> None:
        """Replace the fault rules, or apply a whole script (`{"rules": ..., "limits": ..., "prices": ...}`).

        Raises `msgspec.ValidationError` naming the field that is wrong.
        """
        whole = rules if isinstance(rules, Mapping) else {"rules": rules}
        apply(self._world, msgspec.convert(whole, Script, strict=False))

    def reset(self) -> None:
        """Forget everything that happened and every script."""
        self._world.clear()

    async def close(self) -> None:
        """Stop listening and working."""
        self._world.closing.set()
        self._pulse.stop()
        await self._runner.cleanup()
        await self._world.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def start(
    *, host: str = "127.0.0.1", port: int = 0, time_scale: float = 1.0, seed: int = 0, pictures: str = "rich"
) -> Sandbox:
    """Start a sandbox; port 0 takes a free one.

    `time_scale` multiplies every work time, cold start and webhook wait (0.01 for tests); rates and fault windows
    stay in real seconds. The same `seed` gives the same latencies, ids and faults for the same orders.
    `pictures`: `rich` landscapes, or `plain` tiles for load.
    """
    world = World(time_scale=time_scale, seed=seed, pictures=pictures)
    runner = web.AppRunner(_application(world), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    listener = socket.create_server((host, port), backlog=2048)
    listener.setblocking(False)  # noqa: FBT003 - the socket's own signature
    world.url = f"http://{host}:{listener.getsockname()[1]}"
    await web.SockSite(runner, listener).start()
    return Sandbox(world, runner)


def _application(world: World) -> web.Application:
    app = web.Application(middlewares=[_recorder(world)], client_max_size=_LARGEST_BODY)
    webhooks = Webhooks(world)
    for part in (Control(world), FalPlatform(world), webhooks, FalTwin(world, webhooks), TogetherTwin(world)):
        part.add_routes(app.router)
    ReplicateTwin(world, ReplicateWebhooks(world)).add_routes(app.router)
    for twin in (OpenAITwin(world), SelfhostedTwin(world), MachineTwin(world)):
        twin.add_routes(app.router)
    return app


def _recorder(world: World) -> Middleware:
    """Remembers what the SDKs sent, without their keys, and lets broken connections end quietly.

    An answer to a connection that is gone is dropped by aiohttp, while an exception would be logged as a fault.
    """

    @web.middleware
    async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
        seller = request.path.split("/")[1]
        if seller in {"fal", "together", "replicate", "openai", "selfhosted"}:
            forms = request.content_type.startswith("multipart/")  # can be read once only, by the twin
            body = await request.read() if request.can_read_body and not forms else b""
            world.requests.append(_recorded(request, seller, body))
        try:
            return await handler(request)
        except Gone:
            return web.Response()

    return record


def _recorded(request: web.Request, seller: str, body: bytes) -> dict[str, object]:
    return {
        "provider": seller,
        "method": request.method,
        "path": request.path,
        "query": dict(request.query),
        "headers": {name.lower(): value for name, value in request.headers.items() if name != "Authorization"},
        "body": read_object(body),
    }
