"""What one run of load against one server costs it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from msgspec import Struct

from bench.processes import CHECKOUT
from bench.speed.load import Plan, Result
from bench.speed.servers import BODY, LOAD_CORE, Server


class Cost(Struct, frozen=True):
    """A run and the CPU time the server spent on it."""

    result: Result
    cpu_ms: float
    """Milliseconds of CPU (user and system, all threads and children of the server) for each request."""


class Peak:
    """The most memory a server was seen to hold."""

    def __init__(self, kb: int) -> None:
        self.kb = kb


def run(plan: Plan) -> Result:
    """Carry out a plan in a process of its own, beside the upstream."""
    command = [sys.executable, "-m", "bench.speed.load", msgspec.json.encode(plan).decode()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=CHECKOUT) as load:
        os.sched_setaffinity(load.pid, {LOAD_CORE})
        out, _ = load.communicate(timeout=plan.timeout + 30)
    if load.returncode != 0:
        raise RuntimeError(f"the load generator ended with status {load.returncode}")
    return msgspec.json.decode(out, type=Result)


def closed(server: Server, *, connections: int, seconds: float, body: bytes = BODY) -> Cost:
    """A closed loop: each client sends again as soon as it has its answer."""
    return _cost(server, plan_for(server, body=body, shape="closed", connections=connections, seconds=seconds))


def open_loop(server: Server, *, rate: float, seconds: float) -> Cost:
    """A fixed rate, whatever became of earlier requests."""
    return _cost(server, plan_for(server, shape="open", rate=rate, seconds=seconds))


def in_flight(server: Server, *, count: int, seconds: float) -> tuple[Cost, float]:
    """`count` requests at once on an upstream that takes `seconds`; also answers kB of memory for each."""
    before = server.child.resident_kb()
    with watched_memory(server) as peak:
        cost = _cost(server, plan_for(server, shape="inflight", connections=count, seconds=seconds))
    return cost, (peak.kb - before) / count


def plan_for(server: Server, *, body: bytes = BODY, **how: object) -> Plan:
    """A plan that asks `server` for the picture in `body`, by default the one of this bench."""
    return msgspec.convert({"port": server.port, "key": server.key, **how, "body": body}, Plan)


@contextmanager
def watched_memory(server: Server) -> Iterator[Peak]:
    """Look at a server's memory twenty times a second while a block runs."""
    peak, over = Peak(server.child.resident_kb()), threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            peak.kb = max(peak.kb, server.child.resident_kb())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()


def _cost(server: Server, plan: Plan) -> Cost:
    before = server.child.cpu_s()
    result = run(plan)
    time.sleep(0.1)  # what is written behind the answers belongs to them
    spent = server.child.cpu_s() - before
    return Cost(result, 1000 * spent / max(result.ok, 1))
