"""What live calls notice of copies: two gateways on one core, one of which copies a tenth of its calls.

Both serve the same load in turn, so that only ratios speak. The seller that copies go to is well, slow, refusing and
down; and last it is the very account that live calls fill, where not one may take room that they need.
"""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from msgspec import Struct

from bench.gateway_config import Home, add_to_policy, write_own_gpus
from bench.loopback import ask_json
from bench.processes import free_port, running
from bench.report import Figure
from bench.speed import measure, servers
from bench.speed.servers import SERVER_CORE, Server, first_200

SHARE = "10%"
CONNECTIONS = 16
SLOW_S = 3.0
MUST = 1.15
ONLY = b'{"model":"bench","prompt":"a lighthouse at dusk","size":"256x256","response_format":"b64_json",'
BODY = ONLY + b'"providers":{"only":["gpu"]}}'
SETTLES_S = 1.2
"""Seconds behind a run in which its last copies are drawn; what they cost belongs to it."""


class Twins(Struct, frozen=True, kw_only=True):
    """The gateway without experiments, and the one with."""

    plain: Server
    copying: Server
    home: Home


class Seen(Struct):
    """What the rounds of one state of the second seller measured: each round's plain and copying figures."""

    cpu: list[tuple[float, float]] = []
    p50: list[tuple[float, float]] = []
    p99: list[tuple[float, float]] = []
    failed: int = 0

    def ratio(self, name: str) -> float:
        """The middle of what the copying gateway took over what the plain one did, round by round."""
        pairs: list[tuple[float, float]] = getattr(self, name)
        return statistics.median([copying / plain for plain, copying in pairs])


def figures(folder: Path, *, rounds: int, seconds: float) -> Sequence[Figure]:
    """Start everything, measure, end everything."""
    found: list[Figure] = []
    with servers.upstream(folder) as champion, servers.upstream(folder) as other:
        with twins(folder, {"gpu": champion, "other": other}, "other", slots=10_000) as both:
            for name in ("well", "slow", "refusing", "down"):
                _bring_about(name, other)
                before = pairs_kept(both.home)
                seen = look(both, rounds, seconds)
                found += told(name, seen)
                if name == "well":
                    kept = pairs_kept(both.home) - before
                    found.append(Figure(name="live_pairs", value=float(kept), unit="pairs", must=1.0, at_least=True))
        # As many slots as callers: all are taken nearly all of the time.
        with twins(folder, {"gpu": champion}, "gpu", slots=CONNECTIONS) as both:
            servers.set_delay(champion, 0.05)
            seen = look(both, rounds, seconds)
            found += told("full", seen)
    return found


def look(both: Twins, rounds: int, seconds: float) -> Seen:
    """The same load on both in turn, after one run each that only warms them."""
    seen = Seen()
    for server in (both.plain, both.copying):
        measure.closed(server, connections=CONNECTIONS, seconds=1.0, body=BODY)
    for at in range(rounds):
        order = (both.plain, both.copying) if at % 2 == 0 else (both.copying, both.plain)
        costs = {server.name: _closed(server, seconds) for server in order}
        plain, copying = costs["plain"], costs["copying"]
        seen.cpu.append((plain[0], copying[0]))
        seen.p50.append((plain[1], copying[1]))
        seen.p99.append((plain[2], copying[2]))
        seen.failed += int(plain[3] + copying[3])
    return seen


def told(state: str, seen: Seen) -> Iterator[Figure]:
    """Figures of one state of the second seller."""
    yield Figure(name=f"live_cpu_ratio_{state}", value=seen.ratio("cpu"), unit="x plain", must=MUST)
    yield Figure(name=f"live_p50_ratio_{state}", value=seen.ratio("p50"), unit="x plain")
    yield Figure(name=f"live_p99_ratio_{state}", value=seen.ratio("p99"), unit="x plain")
    yield Figure(name=f"live_failed_{state}", value=float(seen.failed), unit="calls", must=0.0)


def _closed(server: Server, seconds: float) -> tuple[float, float, float, float]:
    before = server.child.cpu_s()
    cost = measure.closed(server, connections=CONNECTIONS, seconds=seconds, body=BODY)
    time.sleep(SETTLES_S)
    spent = server.child.cpu_s() - before
    result = cost.result
    return 1000 * spent / max(result.ok, 1), result.p50_ms, result.p99_ms, result.failed


def _bring_about(state: str, other: Server) -> None:
    if state == "down":
        other.child.kill()
        return
    servers.set_delay(other, SLOW_S if state == "slow" else 0.0)
    ask_json(other.port, f"/_mock/refuse/{int(state == 'refusing')}")


@contextmanager
def twins(folder: Path, sellers: dict[str, Server], challenger: str, *, slots: int) -> Iterator[Twins]:
    """Both gateways for the length of a block."""
    accounts = {name: (f"http://127.0.0.1:{server.port}", slots) for name, server in sellers.items()}
    experiment = {
        "experiment": "bench",
        "champion": {"provider": "gpu"},
        "challengers": [{"name": "other", "account": challenger}],
        "sample": {"share": SHARE},
        "budget": {"day": "$1000", "total": "$1000"},
    }
    with (
        _gateway(folder, accounts, "plain") as (plain, _),
        _gateway(folder, accounts, "copying", experiments=[experiment]) as (copying, home),
    ):
        yield Twins(plain=plain, copying=copying, home=home)


@contextmanager
def _gateway(
    folder: Path, accounts: dict[str, tuple[str, int]], name: str, **policy: object
) -> Iterator[tuple[Server, Home]]:
    port = free_port()
    home = write_own_gpus(folder / f"{name}-{port}", accounts)
    add_to_policy(home, **policy)
    key = home.create_key("bench")
    command = home.command("serve", "--port", str(port))
    with running(command, log=folder / f"{name}.log", core=SERVER_CORE, env=home.env) as child:
        yield Server(name, child, port, key, first_200(child, port, key, body=BODY)), home


def pairs_kept(home: Home) -> int:
    """Pairs in a gateway's database."""
    (file,) = home.state.glob("*.db")
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        (count,) = database.execute("SELECT COUNT(*) FROM shadow_pairs").fetchone()
    return int(count)
