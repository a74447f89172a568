from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.app import App, build
from providers.sandbox import start
from tests.support.town import TIME_SCALE, Town, settings


async def crash(app: App) -> None:
    """Let an application go as a killed process would: nothing is written, nothing is told to anybody."""
    for task in (*app._loops, *app._tasks):
        task.cancel()
    app.ledger.db = None  # type: ignore[assignment]  # whatever unwinds now can write nothing
    await asyncio.gather(*app._loops, *app._tasks, return_exceptions=True)
    await app.db.aclose()
    app.ledger.owner = "dead"


async def revived(folder: Path, url: str, provider: str) -> Town | None:
    """A second gateway on the state of one that died with an order of `provider` under way."""
    first = await build(settings(folder, url))
    await first.start()
    town = Town(first, None)  # type: ignore[arg-type]  # only used to make the call
    serving = asyncio.create_task(first.pipeline.serve(town.call(only=frozenset({provider}))))
    await asyncio.sleep(0.15)
    await crash(first)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    second = await build(settings(folder, url))
    await second.start()
    return Town(second, None)  # type: ignore[arg-type]


async def test_an_order_with_a_receipt_is_followed_to_its_end_after_a_crash(tmp_path: Path) -> None:
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        sandbox.script([{"provider": "fal", "do": "slow", "when": {"share": 1}, "args": {"seconds": 0.6}}])
        town = await revived(tmp_path, sandbox.url, "fal")
        assert town is not None
        town.sandbox = sandbox
        await town.settled()
        await town.assert_books_agree()
        assert town.invoiced() == {"fal": 3_000_000}
        assert await town.charged() == 0
        await town.app.stop()


async def test_an_order_without_a_receipt_waits_for_the_sellers_own_report(tmp_path: Path) -> None:
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        sandbox.script([{"provider": "together", "do": "slow", "when": {"share": 1}, "args": {"seconds": 0.6}}])
        town = await revived(tmp_path, sandbox.url, "together")
        assert town is not None
        town.sandbox = sandbox
        assert await town.held() > 0
        assert await town.costs() == {}
        await asyncio.sleep(1.3)
        await town.app.recovery.sweep()
        await town.assert_books_agree()
        assert town.invoiced() == {"together": 707_789}
        await town.app.stop()
