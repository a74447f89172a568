"""Official clients that time out and ask again, before real processes, one of them killed: one job, one bill."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import AsyncOpenAI

from bench.gateway_config import copy_catalog, write_home
from bench.loopback import HOST, wait_for_200
from bench.money.stage import Sandbox, sandbox
from bench.processes import Child, free_port

CLIENTS = 50
DRAWS_S = 3.0


@pytest.fixture
def sellers(tmp_path: Path) -> Iterator[Sandbox]:
    with sandbox(tmp_path, time_scale=0.02, seed=1) as found:
        found.script({"rules": [{"provider": "fal", "do": "slow", "args": {"seconds": DRAWS_S}}]})
        yield found


class Gateway:
    """One configuration and state, and one process after another."""

    def __init__(self, folder: Path, sandbox_port: int) -> None:
        self.port = free_port()
        account = {"kind": "fal", "key_env": "FAL", "base_url": f"http://{HOST}:{sandbox_port}/fal", "concurrency": 10}
        settings = {"accounts": {"fal": account}, "database": {"durability": "process"}}
        self.home = write_home(folder / "gateway", settings=settings, env={"FAL": "sandbox-fal"})
        copy_catalog(self.home, pace=0.02)
        self.key = self.home.create_key("acme")
        self._log = folder / "gateway.log"
        self.start()

    def start(self) -> None:
        command = self.home.command("serve", "--host", HOST, "--port", str(self.port))
        self._child = Child(command, log=self._log, core=None, env=self.home.env)
        wait_for_200(self._child, self.port, "/health/ready")

    async def kill_and_restart(self) -> None:
        self._child.kill()
        await asyncio.to_thread(self.start)

    def stop(self) -> None:
        self._child.stop(within_s=20)


@pytest.fixture
def served(tmp_path: Path, sellers: Sandbox) -> Iterator[Gateway]:
    found = Gateway(tmp_path, sellers.port)
    yield found
    found.stop()


def client(served: Gateway, *, timeout: float, retries: int) -> AsyncOpenAI:
    return AsyncOpenAI(
        base_url=f"http://{HOST}:{served.port}/v1",
        api_key=served.key,
        timeout=timeout,
        max_retries=retries,
    )


async def ask(official: AsyncOpenAI, headers: dict[str, str]) -> tuple[str, int]:
    """The id of the picture that came, and what the answer says it cost."""
    answer = await official.images.generate(prompt="a lighthouse", size="512x512", extra_headers=headers)
    assert answer.data is not None
    assert answer.model_extra is not None
    (image,) = answer.data
    assert image.model_extra is not None
    return image.model_extra["id"], answer.model_extra["pixelgate"]["nano_usd"]


def charged(served: Gateway) -> int:
    """What all teams owe, in nano-dollars."""
    with sqlite3.connect(served.home.state / "pixelgate.db") as books:
        (total,) = books.execute("SELECT SUM(posted) FROM balances WHERE book = 'charge'").fetchone()
    return int(total or 0)


async def hung_up(served: Gateway) -> None:
    """One client whose patience ended while its picture was being drawn."""
    async with client(served, timeout=0.5, retries=0) as official:
        with pytest.raises(Exception, match="timed out"):
            await ask(official, {})


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True], ids=["", "killed"])
@pytest.mark.parametrize("key", [None, "order-66"])
async def test_clients_that_time_out_and_ask_again_are_drawn_and_billed_once(
    served: Gateway, sellers: Sandbox, key: str | None, killed: bool
) -> None:
    if key is None:
        await hung_up(served)
        headers = {"x-stainless-retry-count": "1"}
        if killed:
            await served.kill_and_restart()
        async with client(served, timeout=20, retries=0) as official:
            answers = await asyncio.gather(*(ask(official, headers) for _ in range(CLIENTS)))
    else:
        async with client(served, timeout=1, retries=12) as official:
            asking = asyncio.gather(*(ask(official, {"Idempotency-Key": key}) for _ in range(CLIENTS)))
            if killed:
                await asyncio.sleep(0.7)
                await served.kill_and_restart()
            answers = await asking
    assert len(answers) == CLIENTS
    ((_, told),) = set(answers)
    books = sellers.books()
    assert sum(books.submissions.values()) == 1
    assert books.invoice["fal"] == charged(served) == told > 0
