"""`pixelgate demo`: sandbox providers and the gateway in one process, on loopback, without keys."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway import telemetry
from gateway.app import App, build
from gateway.cli import demo_compare
from gateway.cli.demo_compare import Team
from gateway.cli.demo_home import FAILING, MACHINES, RULES, SLOW, choose_state, clear, write_home
from gateway.cli.demo_once import Customer
from gateway.cli.listening import bind, serve_uvicorn
from gateway.cli.shell import COMMAND, Port, Stop, above_zero, run_async, say
from gateway.keys import USUAL_SCOPES, make_key
from gateway.revisions import Shelf, load_revision
from gateway.settings import Settings, load_settings, read_pepper

if TYPE_CHECKING:
    from providers.sandbox import Sandbox

_PORT = 8080
UNSAFE = "UNSAFE-SANDBOX: something no provider draws"
"""Every sandbox provider refuses a prompt with this word, each in its own way."""
_TIME_SCALE, _ONCE_TIME_SCALE = 0.25, 0.1
"""Of what the real ones take: quick to try, and still told apart."""

_HELLO = """
The gateway is up; its providers are sandboxes on this machine. Nothing here costs money.

  base_url   {base}/v1
  key        {key}
  sandbox    {sandbox}    (invoice: {sandbox}/_sandbox/invoice)
  records    {state}

curl {base}/v1/images/generations -H 'Authorization: Bearer {key}' \\
  -H 'Content-Type: application/json' -d '{{"prompt": "a lighthouse in a storm"}}'

from openai import OpenAI
client = OpenAI(base_url="{base}/v1", api_key="{key}")
print(client.images.generate(prompt="a lighthouse in a storm").data[0].url)

Ask why:  {command} explain DECISION --state {state}
Ctrl-C ends it."""


def demo(
    *,
    once: bool = False,
    compare: bool = False,
    port: Port | None = None,
    fixtures: Path | None = None,
    state: Path | None = None,
    keep: bool = False,
    time_scale: float | None = None,
) -> int:
    """Look around without keys: sandbox providers and the gateway, on this machine.

    Exit code of `--once`: 0 when both pictures came, from the right models, and the ledger equals the invoice. Of
    `--compare`: 0 when the sellers were told apart, and the adopted policy saves what was promised.

    Parameters
    ----------
    once
        Draw a preview and its export through the official openai client into demo-output/, show why and for how
        much, and exit.
    compare
        Let a team try another seller on copies of its own calls for 45 seconds, print the report and the policy it
        asks for, play that over the recorded calls, and exit.
    port
        Port to listen on; 8080 when left out, or a free one where that is taken.
    fixtures
        Write JSON for test suites to this file once ready: base_url, keys with limits, models that fail or are slow.
    state
        Folder for the demo's records; wiped first.
    keep
        Go on with the records of the demo before.
    time_scale
        1 is as slow as real providers; 0.25 when left out, 0.1 for `--once`.
    """
    if once and compare:
        raise Stop("--once and --compare are two demos: ask for one of them")
    usual = _ONCE_TIME_SCALE if once else demo_compare.TIME_SCALE if compare else _TIME_SCALE
    scale = usual if time_scale is None else above_zero(time_scale)
    customer = Customer.invite() if once else None
    visitor = Team() if compare else customer
    home = choose_state(state)
    try:
        if not keep:
            clear(home)
        home.mkdir(parents=True, exist_ok=True)
        status = run_async(_demo(visitor, port, fixtures, home, scale))
        return status if status or not compare else int(not demo_compare.conclude(home / "config"))
    finally:
        if customer:
            customer.dismiss()


async def _demo(
    visitor: Customer | Team | None, port: int | None, fixtures: Path | None, state: Path, time_scale: float
) -> int:
    from providers.sandbox import start

    listener = _listen(port, free=visitor is not None)
    verdicts: list[bool] = []
    async with await start(time_scale=time_scale) as sandbox:
        app = await _open(state, sandbox, listener.getsockname()[1], fixtures is not None, isinstance(visitor, Team))
        key = await _key(app, "demo")

        async def work() -> bool:
            if fixtures is not None:
                await _write_fixtures(fixtures, app, sandbox, key)
            if visitor is None:
                base = app.settings.public_base
                say(_HELLO.format(command=COMMAND, base=base, key=key, sandbox=sandbox.url, state=state))
                return False
            verdicts.append(await visitor.shop(app, sandbox, key))
            return True

        await serve_uvicorn(app.asgi, listener, app.settings.orders.drain, work, app.leaving)
    return 0 if all(verdicts) else 1


async def _open(state: Path, sandbox: Sandbox, port: int, with_fixtures: bool, compares: bool) -> App:
    """A gateway whose providers are the sandbox's."""
    rules = (*(RULES if with_fixtures else ()), *(demo_compare.TAIL if compares else ()))
    pictures = "plain" if compares else "rich"
    sandbox.script({"machines": MACHINES, "rules": rules, "pictures": pictures})
    config = write_home(state, sandbox.url, port, fixtures=with_fixtures)
    if compares:
        demo_compare.write_policy(config)

    def read() -> Settings:
        return load_settings(config, environ={})

    settings, shelf = read(), Shelf()
    telemetry.configure((state / "gateway.log").open("ab", buffering=0))
    app = await build(settings, load_revision(settings, shelf=shelf))
    app.follow_files(read, shelf)
    return app


def _listen(port: int | None, *, free: bool) -> socket.socket:
    """The port asked for; else the usual one, or a free one where that is taken or nobody needs to know it."""
    if port is not None or free:
        return bind("127.0.0.1", port or 0)
    try:
        return bind("127.0.0.1", _PORT)
    except Stop:
        return bind("127.0.0.1", 0)


async def _key(
    app: App, name: str, *, scopes: tuple[str, ...] = USUAL_SCOPES, rpm: int | None = None, budget: int | None = None
) -> str:
    """A fresh key of the demo's team."""
    now = datetime.now(UTC)
    pepper = read_pepper(app.settings)
    row, shown = make_key(pepper, team="demo", name=name, created=now, scopes=scopes, rpm=rpm, budget=budget)
    await app.db.add_key(row)
    await app.keys.refresh()
    return shown


async def _write_fixtures(path: Path, app: App, sandbox: Sandbox, key: str) -> None:
    """What a test suite needs to know of this demo; written whole, so that a file that is there can be read."""
    told = {
        "base_url": f"{app.settings.public_base}/v1",
        "key": key,
        "admin_key": await _key(app, "admin", scopes=(*USUAL_SCOPES, "admin")),
        "key_limited": await _key(app, "limited to one request a minute", rpm=1),
        "key_broke": await _key(app, "without budget", budget=0),
        "model_fail": FAILING,
        "model_slow": SLOW,
        "unsafe_prompt": UNSAFE,
        "sandbox_url": sandbox.url,
        "pid": os.getpid(),
    }
    draft = path.with_name(f"{path.name}.new")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(told), indent=2))
    draft.replace(path)
