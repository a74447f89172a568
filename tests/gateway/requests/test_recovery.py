from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from gateway.app import App, build
from gateway.storage.rows import Outcome
from providers.contract import UsageRecord
from providers.sandbox import Sandbox, start
from tests.support.books import new_hold
from tests.support.town import TIME_SCALE, Town, settings


async def crash(app: App) -> None:
    """Let an application go as a killed process would: nothing is written, nothing is told to anybody."""
    for task in (*app._loops, *app._tasks):
        task.cancel()
    app.ledger.db = None  # type: ignore[assignment]  # whatever unwinds now can write nothing
    await asyncio.gather(*app._loops, *app._tasks, return_exceptions=True)
    await app.db.aclose()
    app.ledger.owner = "dead"


async def revived(folder: Path, sandbox: Sandbox, provider: str) -> Town:
    """A second gateway on the state of one that died with an order of `provider` under way."""
    terms = settings(folder, sandbox.url, (provider,))
    account = terms.accounts[provider].model_copy(update={"concurrency": 4})
    orders = terms.orders.model_copy(update={"linger": 60.0})  # longer than a slow machine takes to look
    terms = terms.model_copy(update={"accounts": {provider: account}, "orders": orders})
    first = await build(terms)
    await first.start()
    serving = asyncio.create_task(first.pipeline.serve(Town(first, sandbox).call(only=frozenset({provider}))))
    for _ in range(500):
        if provider in sandbox.stats():
            break
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.15)
    await crash(first)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    second = await build(terms)
    await second.start()
    return Town(second, sandbox)


@pytest.mark.parametrize(("seller", "work_s", "owed"), [("fal", 0.6, {"fal": 3_000_000}), ("replicate", 30.0, {})])
async def test_an_order_with_a_receipt_is_followed_to_its_end_after_a_crash(
    tmp_path: Path, seller: str, work_s: float, owed: dict[str, int]
) -> None:
    """fal draws on, though asked to stop; Replicate stops, and a picture that is not drawn costs nothing."""
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        sandbox.script([{"provider": seller, "do": "slow", "when": {"share": 1}, "args": {"seconds": work_s}}])
        town = await revived(tmp_path, sandbox, seller)
        await town.settled()
        await town.assert_books_agree()
        assert town.invoiced() == owed
        assert await town.charged() == 0
        await town.app.stop()


async def test_an_order_without_a_receipt_waits_for_the_sellers_own_report(tmp_path: Path) -> None:
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        sandbox.script([{"provider": "together", "do": "slow", "when": {"share": 1}, "args": {"seconds": 0.6}}])
        town = await revived(tmp_path, sandbox, "together")
        assert await town.held() > 0
        assert town.app.admission.in_flight("together") == 1, "it may still be drawn, so it keeps its slot for a while"
        assert await town.costs() == {}
        await asyncio.sleep(1.3)
        await town.app.recovery.sweep()
        await town.assert_books_agree()
        assert town.invoiced() == {"together": 707_789}
        await town.app.stop()


class Silent:
    """A seller that never says what it bills."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def usage(self, since: datetime, endpoints: Sequence[str]) -> Sequence[UsageRecord]:  # noqa: ARG002 - as asked
        self.asked.set()
        await asyncio.Event().wait()
        return ()

    async def aclose(self) -> None: ...


async def test_a_start_waits_for_no_seller(tmp_path: Path) -> None:
    app = await build(settings(tmp_path, "http://127.0.0.1:9", ("together",)))
    silent = Silent()
    await app.providers["together"].aclose()
    app.providers["together"] = silent  # type: ignore[assignment]
    lost, before = new_hold(account="together"), app.clock.utc() - timedelta(hours=1)
    await app.db.hold("own_gone", [lost], (), before)
    await app.db.suspend(None, lost.attempt_id, Outcome(error="outcome_unknown"), before)
    async with asyncio.timeout(20):
        await app.start()
        await silent.asked.wait()
    assert [row.id for row in await app.db.suspended("together")] == [lost.attempt_id]
    await app.stop()
