"""Own GPUs behind the whole request path: nodes die, hang and lie; no order, slot or nano-dollar is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.app import build
from gateway.cli.doctor import _providers as ask_providers
from gateway.cli.machines import _machines as machine_costs
from gateway.errors import Undeliverable
from gateway.requests.call import Delivery
from providers.picture import probe
from providers.sandbox import start
from providers.selfhosted import Pool
from tests.gateway.requests.test_recovery import crash
from tests.support.town import TIME_SCALE, Town, settings

NODES = ("sglang-1", "sglang-2", "vllm-omni-1", "openai-1")


def pool_of(url: str, *nodes: str, name: str = "own", slots: int = 1, **options: Any) -> dict[str, object]:
    """A pool of the sandbox's machines whose logs are read."""
    return {
        "kind": "selfhosted",
        "key": f"sandbox-{name}",
        "machine_hour": "$0.34",
        "nodes": [
            {
                "name": node,
                "base_url": f"{url}/selfhosted/machines/{node}",
                "dialect": node.rpartition("-")[0],
                "models": ["flux-schnell"],
                "slots": slots,
            }
            for node in nodes
        ],
        "options": {"probe_every": 0.1, "quarantine": 0.2, "usage": True, **options},
    }


@asynccontextmanager
async def pool_town(
    folder: Path,
    *nodes: str,
    overflow: bool = False,
    timeout: str = "4s",  # noqa: ASYNC109 - a setting of the gateway's
    least_patience: str = "1s",
    **options: Any,
) -> AsyncIterator[Town]:
    """A gateway over a pool; with `overflow` there is a second one, whose only node is fine and takes all there is."""
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        accounts: dict[str, object] = {"own": pool_of(sandbox.url, *nodes, **options) | {"models": ["flux-schnell"]}}
        if overflow:
            accounts["spare"] = pool_of(sandbox.url, "sglang-9", name="spare", slots=40)
            sandbox.script({"machines": {"sglang-9": {"slots": 40}}})
        orders = {"timeout": timeout, "least_patience": least_patience, "linger": "200ms", "drain": "5s"}
        app = await build(settings(folder, sandbox.url, accounts=accounts, orders=orders))
        await app.start()
        try:
            yield Town(app, sandbox)
        finally:
            await app.stop()


def pool_in(town: Town) -> Pool:
    own = town.app.providers["own"]
    assert isinstance(own, Pool)
    return own


async def settle(town: Town) -> None:
    """Let every order end and every cost become known."""
    await town.settled()
    await asyncio.sleep(0.7)
    await town.app.recovery.sweep()
    await town.app.recovery.reconcile()


async def free_slots(town: Town) -> None:
    """Every slot of every node comes back."""
    async with asyncio.timeout(5):
        while sum(load.running for load in (await pool_in(town).load()).values()):  # noqa: ASYNC110 - it can only be asked
            await asyncio.sleep(0.05)


async def test_a_picture_costs_the_seconds_its_machine_was_busy_in_both_books(tmp_path: Path) -> None:
    async with pool_town(tmp_path, *NODES) as town:
        calls = [town.call(models=frozenset({"flux-schnell"})) for _ in range(8)]
        deliveries = await asyncio.gather(*(town.app.pipeline.serve(call) for call in calls))
        lines = [int(str(line["nano_usd"])) for line in town.sandbox.invoice()["lines"]]
        assert sorted(each.charge for each in deliveries) == sorted(lines)
        assert min(each.charge for each in deliveries) > 0
        rows = [row for call in calls for row in await town.attempts(call)]
        assert {row.outcome.machine for row in rows if row.outcome} == set(NODES)
        await town.assert_books_agree()
        quotes = await town.app.pipeline.quote(town.call(models=frozenset({"flux-schnell"})))
        assert [(offer.offer, offer.certain) for offer in quotes] == [("own:flux-schnell", False)]


async def test_the_report_of_machines_adds_up_to_the_ledger_and_leaves_what_idles_to_nobody(tmp_path: Path) -> None:
    async with pool_town(tmp_path, "sglang-1", "sglang-2") as town:
        for seed in range(3):
            await town.app.pipeline.serve(town.call(models=frozenset({"flux-schnell"}), seed=seed))
        found = await machine_costs(town.app.settings, days=0.5)
        assert [each.machine for each in found] == ["sglang-1", "sglang-2"]
        assert sum(each.orders for each in found) == 3
        assert sum(each.busy_nano_usd for each in found) == (await town.costs())["own"]
        assert {each.owned_nano_usd for each in found} == {12 * 340_000_000}
        assert all(each.idle_nano_usd == each.owned_nano_usd - each.busy_nano_usd > 0 for each in found)


async def test_doctor_names_the_node_that_has_another_model_loaded(tmp_path: Path) -> None:
    async with pool_town(tmp_path, "sglang-1", "sglang-2") as town:
        town.sandbox.script({"machines": {"sglang-2": {"lies": ["model"]}}})
        revision = town.app.revision
        findings = [each async for each in ask_providers(town.app.settings, revision)]
        said = [each.says for each in findings if each.verdict == "fail"]
        assert ["sglang-2" in each for each in said] == [True]
        assert "has no model flux-schnell, but flux-quite-another" in said[0]


async def test_nodes_that_die_hang_and_lie_under_load_lose_no_order_no_slot_and_no_money(tmp_path: Path) -> None:
    async with pool_town(tmp_path, *NODES, overflow=True, timeout="8s", least_patience="2s") as town:
        trouble: list[Mapping[str, object]] = [
            {"sglang-1": {"state": "killed"}},
            {"vllm-omni-1": {"state": "hanging"}},
            {"openai-1": {"lies": ["format"]}},
            {"sglang-1": {"state": "up"}, "openai-1": {"lies": ["url"]}},
            {"sglang-2": {"state": "killed"}},
            {"vllm-omni-1": {"state": "up"}, "openai-1": {"lies": []}, "sglang-2": {"state": "up"}},
        ]

        async def caller(number: int) -> Delivery:
            await asyncio.sleep(0.1 * number)
            if number % 6 == 3:
                town.sandbox.script({"machines": trouble[number // 6]})
            call = town.call(width=256, height=256, models=frozenset({"flux-schnell"}), order=("own",), seed=number)
            return await town.app.pipeline.serve(call)

        deliveries = await asyncio.gather(*(caller(number) for number in range(36)))
        pictures = [picture for each in deliveries for picture in each.images]
        assert len(pictures) == 36
        assert {probe(picture.data).format for picture in pictures} == {"png"}
        assert any("own:flux-schnell" in each.offers for each in deliveries)
        await settle(town)
        await free_slots(town)
        stats = town.sandbox.stats()["selfhosted"]
        assert isinstance(stats, dict)
        assert set(stats["own"]["attempts"].values()) == {1}
        await town.assert_books_agree()
        assert await town.app.db.suspended() == []


@pytest.mark.parametrize(("change", "error"), [({"lies": ["seed"]}, "bad delivery"), ({"state": "killed"}, "unknown")])
async def test_a_pool_without_overflow_says_what_went_wrong_and_charges_nothing(
    tmp_path: Path, change: Mapping[str, object], error: str
) -> None:
    async with pool_town(tmp_path, "openai-1") as town:
        await town.app.pipeline.serve(town.call(models=frozenset({"flux-schnell"})))
        before = await town.charged()
        town.sandbox.script({"machines": {"openai-1": change}})
        call = town.call(models=frozenset({"flux-schnell"}), deadline=2.0, seed=7)
        with pytest.raises(Undeliverable, match=error):
            await town.app.pipeline.serve(call)
        town.sandbox.script({"machines": {"openai-1": {"state": "up", "lies": []}}})
        await settle(town)
        assert await town.charged() == before
        await town.assert_books_agree()


async def test_an_order_at_our_own_machine_that_nobody_can_tell_about_is_released_in_the_end(tmp_path: Path) -> None:
    async with pool_town(tmp_path, "sglang-1", usage=False) as town:
        town.sandbox.script([{"provider": "selfhosted", "do": "reset"}])
        with pytest.raises(Undeliverable):
            await town.app.pipeline.serve(town.call(models=frozenset({"flux-schnell"}), deadline=2.0))
        assert len(await town.app.db.suspended()) == 1
        await settle(town)
        assert (await town.app.db.suspended(), await town.held(), await town.costs()) == ([], 0, {})
        assert town.invoiced()["own"] > 0  # its seconds are in what the machine costs idle


async def test_a_gateway_that_died_learns_from_the_log_what_its_orders_cost(tmp_path: Path) -> None:
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        accounts = {"own": pool_of(sandbox.url, "sglang-1", "sglang-2")}
        sandbox.script([{"provider": "selfhosted", "do": "slow", "args": {"seconds": 0.4}}])
        first = Town(await build(settings(tmp_path, sandbox.url, accounts=accounts)), sandbox)
        await first.app.start()
        serving = [asyncio.create_task(first.app.pipeline.serve(first.call())) for _ in range(2)]
        await asyncio.sleep(0.25)
        await crash(first.app)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        second = Town(await build(settings(tmp_path, sandbox.url, accounts=accounts)), sandbox)
        await second.app.start()
        await asyncio.sleep(0.5)
        await settle(second)
        await second.assert_books_agree()
        assert second.invoiced()["own"] > 0
        await second.app.stop()
