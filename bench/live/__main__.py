"""`python -m bench.live`: the same calls through the live gateway, on the sandbox, and through the simulator."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from bench.live.gateway import Lived, live, settings_for
from bench.live.world import ASSUMED, SandboxWorld
from bench.loopback import wait_for_200
from bench.processes import free_port, python, raise_file_limit, running, scratch
from bench.report import Figure, conclude
from gateway.cli.trace_file import made_up
from gateway.revisions import Revision, load_revision
from policies.offline.simulation import EnginePolicy, play
from policies.offline.trace import Trace
from policies.offline.traffic import CROWDS, make_up

LUCKS = 10
"""A single draw strays by half a point of punctuality; live has one alone."""


class Options(Struct, frozen=True, kw_only=True):
    """What the command line asked for."""

    minutes: float
    rate: float
    traffic: str
    pace: float
    seed: int
    json: Path | None


class Predicted(Struct, frozen=True, kw_only=True):
    """What the simulator says, on average over `LUCKS` draws of what orders take."""

    cost: float
    """Nano-dollars."""
    on_time_pct: float
    p50: float
    hedges: float
    shares: Mapping[str, int]
    """Offer -> calls it served first, in one of the draws."""


def run(options: Options, folder: Path) -> tuple[Trace, Lived, Predicted]:
    """Both halves."""
    port = free_port()
    settings = settings_for(folder / "state", port)
    revision = load_revision(settings)
    pattern = make_up(options.traffic, hours=options.minutes / 60.0, rate=options.rate, seed=options.seed)
    trace = made_up(pattern, options.traffic, revision)
    lasts = options.minutes * options.pace
    print(f"{trace.size} calls in {options.minutes:g} min of traffic, which take {lasts:g} min", flush=True)
    predicted = predict(trace, revision)
    command = python("providers.sandbox", "--port", str(port), "--time-scale", str(options.pace), "--seed", "1")
    with running(command, log=folder / "sandbox.log") as child:
        wait_for_200(child, port, "/_sandbox/stats")
        return trace, live(trace, settings, revision, port, options.pace), predicted


def predict(trace: Trace, revision: Revision) -> Predicted:
    """Play the calls in virtual time; nobody knows beforehand how lucky the sandbox's orders will be."""
    outcomes = []
    for seed in range(LUCKS):
        per_order = revision.policy.images_per_order
        world = SandboxWorld(revision.catalog, trace, per_order=per_order, seed=seed, assumed=ASSUMED)
        outcomes.append(play(world, EnginePolicy(world, revision.policy, revision.catalog.capacities)))
    figures = [outcome.figures() for outcome in outcomes]
    return Predicted(
        cost=statistics.mean(each.cost for each in figures),
        on_time_pct=statistics.mean(each.on_time_pct for each in figures),
        p50=statistics.mean(each.p50 for each in figures),
        hedges=statistics.mean(each.second_orders for each in outcomes),
        shares=outcomes[0].shares(),
    )


def figures(trace: Trace, lived: Lived, predicted: Predicted) -> Sequence[Figure]:
    """Live beside predicted."""
    cost, foretold = sum(lived.cost.values()), predicted.cost
    on_time = 100.0 * sum(_in_time(trace, each.call, each.status, each.seconds) for each in lived.heard) / trace.size
    drift = sum(abs(lived.cost.get(name, 0) - billed) for name, billed in lived.invoice.items())
    return (
        Figure(name="calls", value=trace.size, unit=""),
        Figure(name="live_usd", value=cost / 1e9, unit="$"),
        Figure(name="predicted_usd", value=foretold / 1e9, unit="$"),
        Figure(name="cost_gap_pct", value=100.0 * abs(cost - foretold) / max(foretold, 1), unit="%", must=3.0),
        Figure(name="live_on_time_pct", value=on_time, unit="%"),
        Figure(name="predicted_on_time_pct", value=predicted.on_time_pct, unit="%"),
        Figure(name="on_time_gap_points", value=abs(on_time - predicted.on_time_pct), unit="points", must=0.5),
        Figure(name="live_p50_s", value=_median(lived), unit="s"),
        Figure(name="predicted_p50_s", value=predicted.p50, unit="s"),
        Figure(name="drift_nano_usd", value=drift, unit="n$", must=0),
        Figure(name="live_hedges", value=lived.hedges, unit="orders"),
        Figure(name="predicted_hedges", value=predicted.hedges, unit="orders"),
    )


def _median(lived: Lived) -> float:
    return statistics.median(each.seconds for each in lived.heard)


def _in_time(trace: Trace, call: int, status: int, seconds: float) -> bool:
    return status == 200 and seconds <= trace.kinds[int(trace.kind[call])].constraints.slo


def context(lived: Lived, predicted: Predicted) -> Mapping[str, object]:
    """Who drew, and what was answered."""
    return {
        "answers": dict(Counter(each.status for each in lived.heard).most_common()),
        "live_shares": dict(Counter(each.offer for each in lived.heard if each.offer).most_common(8)),
        "predicted_shares": dict(list(predicted.shares.items())[:8]),
    }


def main(arguments: Sequence[str]) -> int:
    """Run the bench; answers the exit status."""
    parser = argparse.ArgumentParser(prog="bench live", description="Does the live gateway do what the simulator says?")
    parser.add_argument("--minutes", type=float, default=10.0, help="minutes of traffic (default 10)")
    parser.add_argument("--rate", type=float, default=3.0, help="calls a second, on average (default 3)")
    parser.add_argument("--traffic", choices=sorted(CROWDS), default="steady", help="how they come (default steady)")
    parser.add_argument("--pace", type=float, default=1.0, help="real seconds for one of the traffic's (default 1)")
    parser.add_argument("--seed", type=int, default=1, help="draws the calls (default 1)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = Options(**vars(parser.parse_args(arguments)))
    raise_file_limit()
    with scratch() as folder:
        trace, lived, predicted = run(options, folder)
    more = context(lived, predicted)
    for name, value in more.items():
        print(f"{name}: {value}")
    return conclude(figures(trace, lived, predicted), context=more, json_file=options.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
