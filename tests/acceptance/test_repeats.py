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
        found.script({"rules": [{"do": "slow", "args": {"seconds": DRAWS_S}}]})
        yield found


@pytest.fixture(params=["fal", "together"])
def seller(request: pytest.FixtureRequest) -> str:
    """The one seller there is: fal finds its orders again, Together does not."""
    return str(request.param)


class Gateway:
    """One configuration and state, and one process after another."""

    def __init__(self, folder: Path, sandbox_port: int, seller: str = "fal") -> None:
        self.port = free_port()
        base_url = f"http://{HOST}:{sandbox_port}/{seller}"
        account = {"kind": seller, "key_env": "SELLER", "base_url": base_url, "concurrency": 10}
        settings = {
            "accounts": {seller: account},
            "database": {"durability": "process"},
            "orders": {"least_patience": "50s"},  # a machine that is busy with other tests is no seller that hangs
        }
        self.home = write_home(folder / "gateway", settings=settings, env={"SELLER": f"sandbox-{seller}"})
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
def served(tmp_path: Path, sellers: Sandbox, seller: str) -> Iterator[Gateway]:
    found = Gateway(tmp_path, sellers.port, seller)
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
    return balances(served, "charge")[1]


def balances(served: Gateway, book: str) -> tuple[int, int]:
    """What is kept aside and what is posted in a book, in nano-dollars."""
    with sqlite3.connect(served.home.state / "pixelgate.db") as books:
        (sums,) = books.execute("SELECT SUM(held), SUM(posted) FROM balances WHERE book = ?", (book,))
    return int(sums[0] or 0), int(sums[1] or 0)


async def ordered(sellers: Sandbox) -> None:
    """Wait until an order has reached its seller."""
    while not await asyncio.to_thread(lambda: sum(sellers.books().submissions.values())):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def hung_up(served: Gateway, sellers: Sandbox) -> None:
    """One client whose patience ended while its picture was being drawn."""
    async with client(served, timeout=20, retries=0) as official:
        asking = asyncio.create_task(ask(official, {}))
        await ordered(sellers)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True], ids=["", "killed"])
@pytest.mark.parametrize("key", [None, "order-66"])
async def test_clients_that_time_out_and_ask_again_are_drawn_and_billed_once(
    served: Gateway, sellers: Sandbox, seller: str, key: str | None, killed: bool
) -> None:
    """Where the order cannot be found after a kill, it is drawn again; the team still pays for one picture."""
    if key is None:
        await hung_up(served, sellers)
        headers = {"x-stainless-retry-count": "1"}
        if killed:
            await served.kill_and_restart()
        async with client(served, timeout=20, retries=0) as official:
            answers = await asyncio.gather(*(ask(official, headers) for _ in range(CLIENTS)))
    else:
        async with client(served, timeout=1, retries=12) as official:
            asking = asyncio.gather(*(ask(official, {"Idempotency-Key": key}) for _ in range(CLIENTS)))
            if killed:
                await ordered(sellers)
                await served.kill_and_restart()
            answers = await asking
    assert len(answers) == CLIENTS
    ((_, told),) = set(answers)
    books = sellers.books()
    lost = killed and seller == "together"
    assert sum(books.submissions.values()) == (2 if lost else 1)
    assert charged(served) == told > 0
    aside, paid = balances(served, "cost")
    assert books.invoice[seller] == aside + paid
    assert aside == (told if lost else 0)
