"""The processes a speed run needs: the mock upstream, the reference, and the gateway with everything on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from bench import gateway_config
from bench.loopback import ask_json, wait_for_200
from bench.processes import Child, free_port, python, running

LOAD_CORE, SERVER_CORE = 0, 1
"""The load generator and the mock upstream share a core; whoever is measured has the other for itself."""

BODY = b'{"model":"bench","prompt":"a lighthouse at dusk, oil on canvas","size":"256x256","response_format":"b64_json"}'


class Server(Struct, frozen=True):
    """Something that answers the images endpoint: its process, where it listens, the key it wants."""

    name: str
    child: Child
    port: int
    key: str = ""
    first_200_s: float = 0.0
    """Seconds from the start of the process to its first answered image."""


def compiled(folder: Path) -> Mapping[str, str]:
    """Where a server finds its modules compiled from its second start on, whatever the environment says about that.

    Without this a start mostly measures the compiler, where `PYTHONDONTWRITEBYTECODE` is set.
    """
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


@contextmanager
def upstream(folder: Path) -> Iterator[Server]:
    """The mock GPU server."""
    port = free_port()
    command = python("bench.speed.upstream", str(port))
    with running(command, log=folder / "upstream.log", core=LOAD_CORE) as child:
        yield Server("upstream", child, port, first_200_s=first_200(child, port))


@contextmanager
def forwarder(folder: Path, upstream_port: int) -> Iterator[Server]:
    """R, the bare forwarder."""
    port = free_port()
    command = python("bench.speed.forwarder", str(port), f"http://127.0.0.1:{upstream_port}")
    with running(command, log=folder / "forwarder.log", core=SERVER_CORE, env=compiled(folder)) as child:
        yield Server("forwarder", child, port, first_200_s=first_200(child, port))


@contextmanager
def gateway(folder: Path, upstream_port: int, *, profile: Path | None = None) -> Iterator[Server]:
    """The gateway with its ledger, policy, keys and journal on, one account of our own GPU server behind it."""
    port = free_port()
    home = gateway_config.write_own_gpu(folder / f"gateway-{port}", f"http://127.0.0.1:{upstream_port}")
    key = home.create_key("bench")
    command = home.command("serve", "--port", str(port))
    if profile is not None:
        command = python("bench.speed.sampling", str(profile), *command[2:])
    env = {**home.env, **compiled(folder)}
    with running(command, log=folder / "gateway.log", core=SERVER_CORE, env=env) as child:
        yield Server("gateway", child, port, key, first_200(child, port, key))


def first_200(child: Child, port: int, key: str = "", body: bytes = BODY) -> float:
    """Ask for an image until one comes; answers the seconds since the process was started."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    return wait_for_200(child, port, "/v1/images/generations", body=body, headers=headers)


def set_delay(mock: Server, seconds: float) -> None:
    """From now on the upstream answers after `seconds`; its peak of requests held is counted anew."""
    ask_json(mock.port, f"/_mock/delay/{seconds}")


def held_at_once(mock: Server) -> int:
    """The most requests the upstream held at the same time since its delay was set."""
    return msgspec.convert(ask_json(mock.port, "/_mock/stats")["peak"], int)
