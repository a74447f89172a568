"""The live half: the whole gateway, door included, sells through the sandbox while a trace comes in."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import numpy as np
from msgspec import Struct

from bench.live.paced import PacedClock, PacedLoop
from bench.live.world import RULES
from bench.loopback import HOST, ask_json
from gateway import telemetry
from gateway.app import App, build
from gateway.cli.listening import bind, serve_uvicorn
from gateway.keys import make_key
from gateway.revisions import Revision
from gateway.settings import Settings, read_pepper
from policies.offline.trace import Kind, Trace

ACCOUNTS: Mapping[str, Mapping[str, object]] = {
    "fal": {"concurrency": 10},
    "together": {"rate": 20.0, "burst": 20},
    "replicate": {"rate": 10.0, "burst": 20},
}
"""Seller, and the name of our account there -> the limits both are told."""
LEFT = 599
"""The status noted for a call that got no answer at all."""


class Heard(Struct, frozen=True):
    """What one caller heard."""

    call: int
    status: int
    seconds: float
    """From when the call was due to the answer."""
    offer: str


class Lived(Struct, frozen=True, kw_only=True):
    """What became of a trace at the live gateway."""

    heard: Sequence[Heard]
    cost: Mapping[str, int]
    """Account -> nano-dollars that our books say we owe it."""
    invoice: Mapping[str, int]
    """The same by the sandbox's book."""
    hedges: int
    """Orders placed beside others."""


def settings_for(state: Path, sandbox_port: int) -> Settings:
    """One account at each seller of the sandbox."""
    accounts = {
        name: {"kind": name, "key": f"sandbox-{name}", "base_url": f"http://{HOST}:{sandbox_port}/{name}", **limits}
        for name, limits in ACCOUNTS.items()
    }
    return Settings.model_validate({"accounts": accounts, "database": {"durability": "process"}, "state": state})


def live(trace: Trace, settings: Settings, revision: Revision, sandbox_port: int, pace: float) -> Lived:
    """Let the calls of a trace come in, one of whose seconds takes `pace` of the machine's."""
    rates = {
        name: {"rate": limits["rate"] / pace, "burst": limits["burst"]} if "rate" in limits else dict(limits)  # type: ignore[operator]
        for name, limits in ACCOUNTS.items()
    }
    ask_json(sandbox_port, "/_sandbox/script", {"pictures": "plain", "rules": RULES, "limits": rates})
    with asyncio.Runner(loop_factory=lambda: PacedLoop(pace)) as runner:
        return runner.run(_live(trace, settings, revision, sandbox_port))


async def _live(trace: Trace, settings: Settings, revision: Revision, sandbox_port: int) -> Lived:
    listener = bind(HOST, 0)
    settings = settings.model_copy(update={"port": listener.getsockname()[1]})
    settings.state.mkdir(parents=True, exist_ok=True)
    telemetry.configure((settings.state / "gateway.log").open("ab", buffering=0))
    app = await build(settings, revision, clock=PacedClock())
    key = await _key(app)
    found: list[Lived] = []

    async def work() -> bool:
        await _warm(app, key)
        before = await _costs(app)
        telemetry.counts.clear()
        heard = await _callers(trace, app, key)
        await app.idle()
        after = await _costs(app)
        invoice = ask_json(sandbox_port, "/_sandbox/invoice", within_s=60)["by_account"]
        assert isinstance(invoice, dict)
        found.append(
            Lived(
                heard=heard,
                cost={name: after[name] - before.get(name, 0) for name in after},
                invoice={name: invoice.get(name, {}).get(name, 0) - before.get(name, 0) for name in ACCOUNTS},
                hedges=telemetry.counts["order_hedged"],
            )
        )
        return True

    await serve_uvicorn(app.asgi, listener, 5.0, work, app.leaving)
    return found[0]


async def _key(app: App) -> str:
    row, shown = make_key(read_pepper(app.settings), team="bench", name="bench", created=datetime.now(UTC))
    await app.db.add_key(row)
    await app.keys.refresh()
    return shown


async def _costs(app: App) -> dict[str, int]:
    return {row.party: row.posted for row in await app.db.balances() if row.book == "cost"}


async def _warm(app: App, key: str) -> None:
    """One picture from each seller, uncounted: an SDK takes a second to load."""
    async with _session(app, key) as session:
        for seller in ACCOUNTS:
            body = {"prompt": "a lighthouse", "size": "1024x1024", "providers": {"only": [seller]}}
            async with session.post("/v1/images/generations", json=body) as answer:
                await answer.read()


async def _callers(trace: Trace, app: App, key: str) -> Sequence[Heard]:
    """Every call at its moment, however many are under way."""
    loop = asyncio.get_running_loop()
    async with _session(app, key) as session:
        began = loop.time() + 1.0 - float(trace.at[0])

        async def caller(number: int) -> Heard:
            due = began + float(trace.at[number])
            await asyncio.sleep(due - loop.time())
            return await _one(session, number, trace.kinds[int(trace.kind[number])], due)

        return await asyncio.gather(*(caller(number) for number in np.arange(trace.size).tolist()))


async def _one(session: aiohttp.ClientSession, number: int, kind: Kind, due: float) -> Heard:
    loop = asyncio.get_running_loop()
    wish = kind.request
    body = {
        "prompt": f"a lighthouse at dusk, number {number}",
        "size": f"{wish.width}x{wish.height}",
        "n": wish.count,
        "intent": kind.intent,
        "deadline_ms": round(kind.constraints.deadline * 1000),
    }
    try:
        async with session.post("/v1/images/generations", json=body) as answer:
            await answer.read()
            offer = answer.headers.get("x-pixelgate-offer", "")
            return Heard(number, answer.status, loop.time() - due, offer)
    except (aiohttp.ClientError, OSError):
        return Heard(number, LEFT, loop.time() - due, "")


def _session(app: App, key: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        f"http://{HOST}:{app.settings.port}",
        headers={"authorization": f"Bearer {key}"},
        connector=aiohttp.TCPConnector(limit=0, force_close=True),  # a kept connection may close as it is taken
        timeout=aiohttp.ClientTimeout(total=None),
    )
