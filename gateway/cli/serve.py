"""`pixelgate serve`: the gateway with the user's own configuration and keys."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from gateway import telemetry
from gateway.app import App, build
from gateway.cli.listening import bind, serve_granian, serve_uvicorn
from gateway.cli.shell import COMMAND, HERE, Stop, Where, run_async, say
from gateway.features.known_prices import remembered
from gateway.keys import USUAL_SCOPES, make_key
from gateway.revisions import Revision, Shelf, load_revision
from gateway.settings import Settings, read_pepper

_NO_PROVIDER = """\
no provider is on, so there is nothing to sell. Do one of these:
  export FAL_KEY=...                  a key from fal.ai/dashboard/keys
  export TOGETHER_API_KEY=...         a key from api.together.ai/settings/api-keys
  export REPLICATE_API_TOKEN=...      a token from replicate.com/account/api-tokens
  edit {config}/gateway.yaml  to connect your own GPUs (kind: selfhosted)
  {demo:<34}  to look around with sandbox providers, without any key"""


def serve(
    *,
    host: str | None = None,
    port: int | None = None,
    workers: int = 1,
    server: Literal["uvicorn", "granian"] = "uvicorn",
    log: telemetry.Level = "info",
    where: Where = HERE,
) -> None:
    """Serve until SIGTERM or Ctrl-C; orders under way are then given `orders.drain` to end.

    Changed files of the configuration come into force by themselves, and at once on SIGHUP; what is wrong with them is
    logged, and the last good ones go on.

    Log lines (JSON) go to standard error. The first start makes a key and prints it to standard output, once.

    Parameters
    ----------
    host
        Address to listen on.
    port
        Port to listen on; 0 takes a free one.
    workers
        One: what an account allows is counted inside a process. Several are not in this release.
    server
        The ASGI server: uvicorn costs less CPU per request, granian has more throughput.
    log
        The least level that is logged.
    """
    if workers != 1:
        raise Stop(
            f"--workers {workers}: only one process may sell through an account in this release, because its limits "
            "are counted inside the process"
        )

    def read() -> Settings:
        return where.settings(host=host, port=port)

    settings, shelf = read(), Shelf()
    revision = load_revision(settings, shelf=shelf, after=remembered(settings))
    _say_who_is_on(settings, revision)
    telemetry.configure(sys.stderr.buffer, log)
    run_async(_serve(settings, revision, read, shelf, server))


def _say_who_is_on(settings: Settings, revision: Revision) -> None:
    for name, why in settings.accounts_off().items():
        say(f"off  {name}: {why}")
    for name, account in revision.accounts.items():
        offers = sum(offer.account == name for offer in revision.catalog.offers.values())
        say(f"on   {name} ({account.kind}): {offers} offer{'s' * (offers != 1)}")
    if not revision.accounts:
        raise Stop(_NO_PROVIDER.format(config=settings.config, demo=f"{COMMAND} demo"))
    if not revision.catalog.offers:
        raise Stop(f"the catalogue in {settings.config} has no offer of any account that is on")


async def _serve(
    settings: Settings, revision: Revision, read: Callable[[], Settings], shelf: Shelf, server: str
) -> None:
    listener = bind(settings.host, settings.port)
    settings = settings.model_copy(update={"port": listener.getsockname()[1]})
    app = await build(settings, revision)
    reloading = app.follow_files(read, shelf)
    await make_first_key(app)

    async def ready() -> bool:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloading.at_once)
        say(f"listening on {settings.public_base}/v1   policy {revision.policy.label}   prices {revision.number}")
        return False

    if server == "granian":
        listener.close()
        await serve_granian(app.asgi, settings.host, settings.port, ready, app.leaving)
    else:
        await serve_uvicorn(app.asgi, listener, settings.orders.drain, ready, app.leaving)


async def make_first_key(app: App) -> None:
    """Make and print a key when there is none yet."""
    if await app.db.keys():
        return
    limits = app.settings.limits
    row, shown = make_key(
        read_pepper(app.settings),
        team="default",
        name="first key",
        created=datetime.now(UTC),
        scopes=(*USUAL_SCOPES, "admin"),
        budget=limits.budget,
        rpm=limits.requests_per_minute,
        ipm=limits.images_per_minute,
    )
    await app.db.add_key(row)
    await app.keys.refresh()
    say(f"the first API key, shown only now; more with `{COMMAND} keys create`:")
    print(shown, flush=True)
