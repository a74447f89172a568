"""`python -m bench.speed`: the gateway beside the bare forwarder R, interleaved in one run, so that only ratios speak.

Numbers follow docs/benchmarks.md; P1, P3, P7 and P9 of the performance goals are measured so far.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct

from bench.processes import raise_file_limit, scratch
from bench.report import Figure, conclude
from bench.speed import measure, sellers, servers
from bench.speed.measure import Cost
from bench.speed.servers import Server

IN_FLIGHT = 2000
UPSTREAM_S = 10.0
RATE = 500.0

Start: TypeAlias = Callable[[], AbstractContextManager[Server]]
"""Starts a server for a block."""


class Options(Struct, frozen=True, kw_only=True):
    """What the command line asked for."""

    rounds: int
    seconds: float
    json: Path | None
    profile: Path | None
    against_itself: bool


class Rounds(Struct):
    """What every round measured, in order."""

    reference_cpu_ms: list[float] = []
    cpu_ms: list[float] = []
    direct_p50_ms: list[float] = []
    reference_p50_ms: list[float] = []
    p50_ms: list[float] = []
    faults: list[str] = []

    def median(self, name: str) -> float:
        """The middle of one measurement."""
        values: list[float] = getattr(self, name)
        return statistics.median(values)

    def take(self, name: str, server: Server, cost: Cost) -> None:
        """Note whatever was not answered; a failed request is never counted as a cheap one."""
        if cost.result.failed:
            self.faults.append(f"{server.name}, {name}: {_failures(cost)}")


def interleave(direct: Server, reference: Server, subject: Server, options: Options) -> Rounds:
    """Reference and subject in turn, after one run each that only warms them."""
    rounds = Rounds()
    for server in (reference, subject):
        measure.closed(server, connections=16, seconds=1.0)
    for _ in range(options.rounds):
        for server, cpu in ((reference, rounds.reference_cpu_ms), (subject, rounds.cpu_ms)):
            cost = measure.closed(server, connections=16, seconds=options.seconds)
            rounds.take("c:16", server, cost)
            cpu.append(cost.cpu_ms)
        latencies = (rounds.direct_p50_ms, rounds.reference_p50_ms, rounds.p50_ms)
        for server, p50 in zip((direct, reference, subject), latencies, strict=True):
            cost = measure.open_loop(server, rate=RATE, seconds=options.seconds)
            rounds.take(f"rate:{RATE:g}", server, cost)
            p50.append(cost.result.p50_ms)
    return rounds


def hold_many(mock: Server, server: Server, rounds: Rounds) -> tuple[float, int]:
    """Memory in kB for each of 2,000 requests in flight, and how many the upstream held at once."""
    servers.set_delay(mock, UPSTREAM_S)
    cost, kb_each = measure.in_flight(server, count=IN_FLIGHT, seconds=UPSTREAM_S)
    held = servers.held_at_once(mock)
    servers.set_delay(mock, 0.0)
    rounds.take(f"inflight:{IN_FLIGHT}", server, cost)
    return kb_each, held


def measure_all(options: Options, folder: Path) -> tuple[list[Figure], list[str]]:
    """Start everything, measure, end everything."""
    with servers.upstream(folder) as mock, servers.forwarder(folder, mock.port) as reference:
        start: Start = partial(servers.gateway, folder, mock.port)
        if options.against_itself:
            start = partial(servers.forwarder, folder, mock.port)
        starts = time_starts(start, partial(servers.forwarder, folder, mock.port))
        if options.profile is not None and not options.against_itself:
            start = partial(servers.gateway, folder, mock.port, profile=options.profile.resolve())
        with start() as subject:
            rounds = interleave(mock, reference, subject, options)
            reference_kb, _ = hold_many(mock, reference, rounds)
            kb, held = hold_many(mock, subject, rounds)
        through_sdks = [] if options.against_itself else measure_sellers(options, folder, reference, rounds)
    figures = [
        Figure(
            name="p1_cpu_ratio",
            value=rounds.median("cpu_ms") / rounds.median("reference_cpu_ms"),
            unit="x R",
            must=3.0,
            aim=1.6,
        ),
        Figure(name="p1_cpu_ms", value=rounds.median("cpu_ms"), unit="ms/request"),
        Figure(name="r_cpu_ms", value=rounds.median("reference_cpu_ms"), unit="ms/request"),
        Figure(
            name="p3_added_p50_ms", value=rounds.median("p50_ms") - rounds.median("direct_p50_ms"), unit="ms", aim=0.5
        ),
        Figure(
            name="r_added_p50_ms",
            value=rounds.median("reference_p50_ms") - rounds.median("direct_p50_ms"),
            unit="ms",
        ),
        Figure(name="p7_inflight_kb", value=kb, unit="kB each", must=60.0, aim=32.0),
        Figure(name="p7_held_upstream", value=float(held), unit="requests", must=float(IN_FLIGHT), at_least=True),
        Figure(name="r_inflight_kb", value=reference_kb, unit="kB each"),
        Figure(
            name="p9_first_200_ratio",
            value=statistics.median(starts.seconds) / statistics.median(starts.reference_s),
            unit="x R",
            must=4.0,
            aim=1.8,
        ),
        Figure(name="p9_first_200_s", value=statistics.median(starts.seconds), unit="s"),
        Figure(name="r_first_200_s", value=statistics.median(starts.reference_s), unit="s"),
        Figure(name="p9_idle_mb", value=starts.idle_mb, unit="MB", aim=80.0),
        *through_sdks,
    ]
    return figures, rounds.faults


def measure_sellers(options: Options, folder: Path, reference: Server, rounds: Rounds) -> list[Figure]:
    """CPU for a picture through each seller's SDK, as a multiple of what R costs in the seconds before it."""
    figures = []
    with sellers.sandbox(folder) as port:
        for way in sellers.WAYS:
            floor = measure.closed(reference, connections=16, seconds=options.seconds)
            cost = sellers.cost_of(folder, port, way, options.seconds)
            if cost.result.failed:
                rounds.faults.append(f"through {way.name}: {_failures(cost)}")
            figures.append(Figure(name=f"sdk_{way.name}_cpu_ratio", value=cost.cpu_ms / floor.cpu_ms, unit="x R"))
    return figures


class Starts(Struct):
    """Seconds from process start to the first image, of gateway and R in turns, and the gateway's memory after it.

    The goal is 2 s where R takes 0.5 s, so 4 R: how long either takes elsewhere says more about the machine.
    """

    seconds: list[float] = []
    reference_s: list[float] = []
    idle_mb: float = math.inf
    """The least there was."""


def time_starts(subject: Start, reference: Start, times: int = 3) -> Starts:
    """Start both in turns, after one start each that compiles their modules."""
    starts = Starts()
    for start in (reference, subject):
        with start():
            pass
    for _ in range(times):
        with reference() as server:
            starts.reference_s.append(server.first_200_s)
        with subject() as server:
            starts.seconds.append(server.first_200_s)
            starts.idle_mb = min(starts.idle_mb, server.child.resident_kb() / 1024)
    return starts


def _failures(cost: Cost) -> str:
    return f"{cost.result.failed} of {cost.result.sent} failed, first: {cost.result.first_failure}"


def main(arguments: Sequence[str]) -> int:
    """Run the bench; answers the exit status."""
    parser = argparse.ArgumentParser(prog="bench speed", description="What the gateway costs beside a bare forwarder.")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds; medians are reported (default 3)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each run of load (default 4)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--profile", type=Path, help="sample the gateway's stacks and write where its time goes")
    parser.add_argument(
        "--against-itself", action="store_true", help="R in the gateway's place: shows the bench's error"
    )
    options = Options(**vars(parser.parse_args(arguments)))
    raise_file_limit()
    with scratch() as folder:
        figures, faults = measure_all(options, folder)
    context = {"rounds": options.rounds, "seconds": options.seconds, "load_average": os.getloadavg()[0]}
    return conclude(figures, context=context, faults=faults, json_file=options.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
