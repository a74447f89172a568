"""A gateway is killed while copies are under way: no bill is lost, and callers notice nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from bench.gateway_config import Home, add_to_policy, copy_catalog, write_home
from bench.loopback import HOST, wait_for_200
from bench.processes import Child, free_port
from gateway.storage.database import Database, open_database
from providers.sandbox import Sandbox, start
from tests.support.trials import eventually

EXPERIMENT = {
    "experiment": "kill",
    "champion": {"provider": "fal"},
    "challengers": [{"name": "again", "account": "fal"}, {"name": "together", "account": "together"}],
    "sample": {"share": "100%"},
    "budget": {"day": "$1", "total": "$1"},
}


def home_of(folder: Path, sandbox: Sandbox) -> Home:
    """A gateway that copies every call to both sellers."""
    accounts = {
        "fal": {"kind": "fal", "key_env": "FAL_KEY", "base_url": f"{sandbox.url}/fal", "concurrency": 10},
        "together": {
            "kind": "together",
            "key_env": "TOGETHER_API_KEY",
            "base_url": f"{sandbox.url}/together",
            "rate": 20,
            "burst": 20,
        },
    }
    settings = {
        "accounts": accounts,
        "database": {"durability": "process"},
        # Longer than the slowest order: what is on no bill by then counts as never taken.
        "recovery": {"every": "500ms", "stale_after": "2s", "unknown_after": "6s", "reconcile": "1s"},
    }
    keys = {"FAL_KEY": "sandbox-fal", "TOGETHER_API_KEY": "sandbox-together"}
    home = write_home(folder / "home", settings=settings, env=keys)
    copy_catalog(home, pace=0.1)
    add_to_policy(home, experiments=[EXPERIMENT], examples=[])
    return home


async def started(home: Home, port: int, log: Path) -> Child:
    """A gateway's process that is ready."""
    child = Child(home.command("serve", "--host", HOST, "--port", str(port)), log=log, core=None, env=home.env)
    await asyncio.to_thread(wait_for_200, child, port, "/health/ready")
    return child


async def asks(port: int, key: str) -> httpx.Response:
    """A call that fal draws."""
    body = {"prompt": "a lighthouse", "model": "flux-schnell", "size": "512x512", "providers": {"only": ["fal"]}}
    async with httpx.AsyncClient(timeout=60) as http:
        url = f"http://{HOST}:{port}/v1/images/generations"
        return await http.post(url, json=body, headers={"authorization": f"Bearer {key}"})


@pytest.mark.slow
async def test_copies_cut_short_by_a_kill_are_paid_and_forgotten(tmp_path: Path) -> None:
    async with await start(time_scale=0.1, pictures="plain") as sandbox:
        home, port = home_of(tmp_path, sandbox), free_port()
        key = await asyncio.to_thread(home.create_key, "acme")
        child = await started(home, port, tmp_path / "gateway.log")
        db = open_database(f"sqlite:///{home.state / 'pixelgate.db'}", "process", create=False)
        try:
            served = await until_both_copy(db, port, key)
            before = len(await db.shadow_pairs("kill"))
            sandbox.script(
                [
                    {"provider": "fal", "do": "slow", "when": {"every": 2}, "args": {"seconds": 3}},
                    {"provider": "together", "do": "slow", "when": {"share": 1}, "args": {"seconds": 3}},
                ]
            )
            orders = submitted(sandbox)
            cut_short = await asks(port, key)
            assert cut_short.status_code == 200
            await eventually(lambda: under_way(sandbox, orders + 3))
            child.kill()
            sandbox.script([])
            child = await started(home, port, tmp_path / "gateway.log")
            served += await until_both_copy(db, port, key, before + 2)
            await eventually(lambda: books_agree(db, sandbox))
            assert await db.audit() == []
            ids = {row.call_id for row in await db.shadow_pairs("kill")}
            assert call_of(cut_short) not in ids
            charges = {row.party: row.posted for row in await db.balances() if row.book == "charge"}
            assert charges.get("shadow:kill", 0) == 0
            assert charges["acme"] == (served + 1) * 3_000_000
        finally:
            child.kill()
            await db.aclose()


async def until_both_copy(db: Database, port: int, key: str, pairs: int = 2) -> int:
    """Ask until there are so many pairs, of both challengers; how often that took."""
    served = 0

    async def copied() -> bool:
        nonlocal served
        found = await db.shadow_pairs("kill")
        if len(found) >= pairs and {pair.challenger for pair in found[-2:]} == {"again", "together"}:
            return True
        assert (await asks(port, key)).status_code == 200
        served += 1
        await asyncio.sleep(0.5)
        return False

    await eventually(copied)
    return served


def call_of(answer: httpx.Response) -> str:
    """The call behind an answer."""
    return answer.headers["x-pixelgate-decision"].replace("dec_", "call_")


def submitted(sandbox: Sandbox) -> int:
    """Orders at all sellers so far."""
    stats = json.loads(json.dumps(sandbox.stats()))
    return sum(account["submissions"] for accounts in stats.values() for account in accounts.values())


async def under_way(sandbox: Sandbox, orders: int) -> bool:
    """Whether so many orders were submitted by now."""
    return submitted(sandbox) >= orders


async def books_agree(db: Database, sandbox: Sandbox) -> bool:
    """Whether nothing is set aside, and the ledger says what is invoiced."""
    balances = await db.balances()
    ours = {row.party: row.posted for row in balances if row.book == "cost" and row.posted}
    accounts = sandbox.invoice()["by_account"].values()
    theirs = {name: total for books in accounts for name, total in books.items() if total}
    return ours == theirs and not any(row.held for row in balances)
