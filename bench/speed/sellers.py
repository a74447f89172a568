"""What one picture costs the gateway through each seller's own SDK, with the seller's twin on the other core.

A seller that can both be polled and call back is measured both ways. The twins draw plain tiles and work ten times as
fast as the sellers, so what is compared is the gateway's work for an order, not the seller's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from bench.gateway_config import Home, copy_catalog, write_home
from bench.loopback import HOST, ask_json, wait_for_200
from bench.processes import free_port, python, running
from bench.speed import measure
from bench.speed.measure import Cost
from bench.speed.servers import LOAD_CORE, SERVER_CORE, Server, first_200

TIME_SCALE = 0.1
CALLS_BACK = frozenset({"fal", "replicate"})
"""Sellers that can be polled and can also report by themselves."""
BODY = b'{"model":"flux-schnell","prompt":"a lighthouse at dusk, oil on canvas","size":"512x512"}'
_PLENTY = {"concurrency": 1000, "rate": 100000, "burst": 100000}


class Way(Struct, frozen=True):
    """One way to have a picture drawn."""

    seller: str
    callbacks: bool = False

    @property
    def name(self) -> str:
        """As figures are called: `fal_polling`."""
        if self.seller not in CALLS_BACK:
            return self.seller
        return f"{self.seller}_{'webhooks' if self.callbacks else 'polling'}"


WAYS = (
    Way("fal"),
    Way("fal", callbacks=True),
    Way("replicate"),
    Way("replicate", callbacks=True),
    Way("together"),
)


@contextmanager
def sandbox(folder: Path) -> Iterator[int]:
    """Every seller's twin, without limits that would be felt; answers its port."""
    port = free_port()
    command = python("providers.sandbox", "--port", str(port), "--time-scale", str(TIME_SCALE))
    with running(command, log=folder / "sandbox.log", core=LOAD_CORE) as child:
        wait_for_200(child, port, "/_sandbox/stats")
        limits = {way.seller: _PLENTY for way in WAYS}
        ask_json(port, "/_sandbox/script", {"pictures": "plain", "limits": limits})
        yield port


@contextmanager
def gateway(folder: Path, sandbox_port: int, way: Way) -> Iterator[Server]:
    """A gateway that sells through one account of one seller."""
    port = free_port()
    home = _home(folder / f"gateway-{way.name}", sandbox_port, port, way)
    key = home.create_key("bench")
    with running(
        home.command("serve", "--port", str(port)), log=folder / "gateway.log", core=SERVER_CORE, env=home.env
    ) as child:
        yield Server(way.name, child, port, key, first_200(child, port, key, body=BODY))


def cost_of(folder: Path, sandbox_port: int, way: Way, seconds: float) -> Cost:
    """CPU for each picture at 16 clients, after a run that only warms."""
    with gateway(folder, sandbox_port, way) as server:
        measure.closed(server, connections=16, seconds=1.0, body=BODY)
        return measure.closed(server, connections=16, seconds=seconds, body=BODY)


def _home(folder: Path, sandbox_port: int, port: int, way: Way) -> Home:
    variable = f"BENCH_{way.seller.upper()}_KEY"
    account: Mapping[str, object] = {
        "kind": way.seller,
        "key_env": variable,
        "base_url": f"http://{HOST}:{sandbox_port}/{way.seller}",
        "concurrency": 1000,
    }
    settings = {
        "accounts": {way.seller: account},
        "database": {"durability": "process"},
        "public_url": f"http://{HOST}:{port}",
        "callbacks": way.callbacks,
    }
    home = write_home(folder, settings=settings, env={variable: f"sandbox-{way.seller}"})
    copy_catalog(home, pace=TIME_SCALE)
    return home
