"""`python -m bench.routing`: the gateway's engine beside its peers and the bound, scenario by scenario.

The engine is the one that serves, driven through `bench/routing_policy.py`. Regret is J over the clairvoyant bound; gap
closed is the share of the way from the best peer's J to the bound.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from bench.report import Figure, conclude
from bench.routing.bound import lower_bound
from bench.routing.gap import Witness, causes
from bench.routing.harness import Harness, elsewhere, ours
from bench.routing.scaling import cost_by_offers
from bench.routing_policy import PixelgatePolicy

PROTOTYPE: Mapping[str, tuple[float, float]] = {
    "calm_day": (35.3, 59.0),
    "busy_day": (16.7, 58.0),
    "flash_crowd": (21.4, 59.0),
    "brownout_cheap": (22.8, 68.0),
    "hard_outages": (20.4, 66.0),
    "limit_squeeze": (17.9, 68.0),
    "price_shock": (18.3, 73.0),
    "studio_batch": (48.7, 59.0),
    "small_account": (19.5, 57.0),
    "volume_tiers": (14.6, 49.0),
    "api_only": (7.6, 42.0),
    "night_trickle": (55.0, 0.0),
}
"""Regret and gap closed, in percent, of the study's prototype: what the engine must at least do."""
AIMS: Mapping[str, float] = {"api_only": 6.0, "studio_batch": 35.0, "night_trickle": 35.0}
TELLING = 300
"""Answers of one offer and size from which their share within the forecast says something: 1.3 points either way."""
SIMPLEST = "weighted-shuffle"
"""The peer that decides least: what it takes is the simulator's own time."""
MUST_100K_S, AIM_100K_S = 20.0, 12.0
TURNS = 5
"""Runs of both, one after the other; a single pair strays by five percent."""
CALM = ("night_trickle",)
OVERLOADED = ("overload",)


class Options(Struct, frozen=True, kw_only=True):
    """What the command line asked for."""

    scenarios: Sequence[str]
    seeds: Sequence[int]
    harness: Path | None
    penalties: Sequence[float]
    baselines: bool
    litellm: bool
    gap: bool
    json: Path | None


class Forecasts(PixelgatePolicy):
    """The policy, noting how many answers came within the p95 that was predicted for them."""

    def start(self, endpoints: Sequence[Any], accounts: Sequence[Any], seed: int) -> None:
        """Begin."""
        super().start(endpoints, accounts, seed)
        self.within: defaultdict[tuple[str, float], list[int]] = defaultdict(lambda: [0, 0])
        self._pool = {index for index, each in enumerate(endpoints) if accounts[each.account].kind == "pool"}

    def note_latency(self, event: Any, p95: float) -> None:
        """Compare an answer with its forecast; on our own GPUs the length of a step is our own doing."""
        if p95 > 0.0 and event.endpoint not in self._pool:
            tally = self.within[self._offers[event.endpoint].id, event.mp]
            tally[0] += event.latency - max(event.queue_s, 0.0) <= p95
            tally[1] += 1

    @property
    def within_p95_pct(self) -> float:
        """Percent of all answers."""
        good, every = (sum(tally[i] for tally in self.within.values()) for i in (0, 1))
        return 100.0 * good / max(every, 1)

    def forecasts(self) -> str:
        """The same by offer and size, where there were enough of them to tell."""
        told = [
            f"{offer} {mp:g} MP {100 * good / every:.1f} %"
            for (offer, mp), (good, every) in sorted(self.within.items())
            if every >= TELLING
        ]
        return "  within p95: " + ", ".join(told)

    @property
    def worst_within_pct(self) -> float | None:
        """Percent for the offer and size whose forecast is furthest from 95 %; None where none had enough answers."""
        shares = [100.0 * good / every for good, every in self.within.values() if every >= TELLING]
        return max(shares, key=lambda share: abs(share - 95.0), default=None)


def peers(harness: Harness, options: Options) -> list[Callable[[], Any]]:
    """Whom the engine is shown beside."""
    found = list(harness.baselines) if options.baselines else []
    if options.litellm:
        from bench.routing.litellm_peer import routers

        found += routers()
    return found


def play(harness: Harness, name: str, options: Options, seed: int | None, penalties: float) -> list[Figure]:
    """One scenario: print every row, answer our figures."""
    world = harness.worlds[name]() if seed is None else harness.worlds[name](seed)
    harness.penalise(world, penalties)
    label = name if seed is None else f"{name}_{seed}"
    label += "" if penalties == 1.0 else f"_penalties_x{penalties:g}"
    least = harness.bound(world)
    print(f"\n{label}: {world.size:,} requests, nobody can be below ${least:.2f}", flush=True)
    best = None
    for make in peers(harness, options) if penalties == 1.0 else ():
        policy_of_peer = make()
        peer = harness.play(world, policy_of_peer)
        if hasattr(policy_of_peer, "close"):
            policy_of_peer.close()
        print(line(peer, least), flush=True)
        best = peer if best is None or peer["J"] < best["J"] else best
    policy = Forecasts()
    mine = harness.play(world, policy)
    print(line(mine, least), policy.forecasts(), sep="\n", flush=True)
    if options.gap:
        print(f"  of the bound's dollars, percent: {shares(world, least)}", flush=True)
    row = figures(label, name, mine, least, best, policy)
    if penalties == 1.0:
        return [*row, *durations(harness, world, label)]
    return [replace(figure, must=None, aim=None) for figure in row]


def durations(harness: Harness, world: Any, label: str) -> list[Figure]:
    """How long the engine takes in a world, and how much longer than the simplest peer: both in turns, and medians."""
    simplest = next(make for make in harness.baselines if make().name == SIMPLEST)
    turns = [[seconds(harness, world, make()) for make in (PixelgatePolicy, simplest)] for _ in range(TURNS)]
    middle = median([engine for engine, _ in turns])
    return [
        Figure(name=f"{label}.harness_100k_cpu_s", value=middle / world.size * 1e5, unit="s"),
        Figure(
            name=f"{label}.harness_100k_of_shuffle",
            value=median([engine / peer for engine, peer in turns]),
            unit="x",
            must=MUST_100K_S / harness.shuffle_100k_s,
            aim=AIM_100K_S / harness.shuffle_100k_s,
        ),
    ]


def seconds(harness: Harness, world: Any, policy: Any) -> float:
    """CPU time of a run."""
    began = time.process_time()
    harness.play(world, policy)
    return time.process_time() - began


def shares(world: Any, least: float) -> str:
    """What the gap to the bound is made of."""
    bound = lower_bound(world)
    again: Any = PixelgatePolicy()
    run = Witness(world, again)
    run.run()
    found = sorted(causes(world, run, bound).items(), key=lambda cause: -cause[1])
    return ", ".join(f"{name} {100 * dollars / least:.1f}" for name, dollars in found)


def line(row: Mapping[str, Any], least: float) -> str:
    """One policy in one scenario."""
    regret = 100 * (row["J"] / least - 1)
    return (
        f"  {row['policy']:24s} spend {row['spend']:8.2f}  J {row['J']:8.2f}  regret {regret:7.1f} %"
        f"  on time {row['attain']:6.2f} %  failed {row['failed_pct']:5.2f} %  429/1k {row['r429']:5.1f}"
        f"  hedges {row['hedge_pct']:4.1f} %  gpu {row['gpu_util']:3.0f} %  us {row['us_p50']:.0f}/{row['us_p99']:.0f}"
    )


def figures(
    label: str,
    name: str,
    row: Mapping[str, Any],
    least: float,
    best: Mapping[str, Any] | None,
    policy: Forecasts,
) -> list[Figure]:
    """What one scenario must and should show."""
    prototype, calm = PROTOTYPE.get(name), name in CALM

    def figure(what: str, value: float, must: float | None, aim: float, *, at_least: bool = False) -> Figure:
        held = must if name not in OVERLOADED else None
        unit = "%" if what.endswith("pct") else ""
        return Figure(name=f"{label}.{what}", value=value, unit=unit, must=held, aim=aim, at_least=at_least)

    regret = 100 * (row["J"] / least - 1)
    out = [
        figure("regret_pct", regret, prototype[0] if prototype else None, AIMS.get(name, 14.0)),
        figure("on_time_pct", row["attain"], 99.0 if calm else 99.5, 99.7, at_least=True),
        figure("failed_pct", row["failed_pct"], 0.04, 0.02),
        figure("r429_per_1k", row["r429"], 5.0, 2.0),
        figure("within_p95_pct", policy.within_p95_pct, 93.0, 94.0, at_least=True),
        Figure(name=f"{label}.furthest_from_p95_pct", value=policy.worst_within_pct, unit="%"),
        Figure(name=f"{label}.decision_p50_us", value=row["us_p50"], unit="us"),
        Figure(name=f"{label}.decision_p99_us", value=row["us_p99"], unit="us"),
    ]
    if best is not None:
        closed = 100 * (best["J"] - row["J"]) / max(best["J"] - least, 1e-9)
        out.append(figure("gap_closed_pct", closed, prototype[1] if prototype else None, 65.0, at_least=True))
        against = 100 * (row["J"] / best["J"] - 1)
        out.append(Figure(name=f"{label}.j_against_best_peer_pct", value=against, unit="%", must=0.0, aim=-15.0))
    return out


def options_from(words: Sequence[str], harness: Harness) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="./run bench routing", description=__doc__)
    parser.add_argument("--scenario", action="append", default=[], metavar="NAME", help=", ".join(harness.worlds))
    parser.add_argument("--seed", action="append", type=int, default=[], help="instead of each scenario's own")
    parser.add_argument("--harness", type=Path, metavar="DIR", help="drive a harness that lies elsewhere")
    parser.add_argument(
        "--penalties", action="append", type=float, default=[],
        help="times the harness's for late and missing answers; 1, 0.2 and 5 when every scenario is played",
    )  # fmt: skip
    parser.add_argument("--gap", action="store_true", help="say what the gap to the bound is made of")
    parser.add_argument("--litellm", action="store_true", help="LiteLLM's real Router too; installs it on first use")
    parser.add_argument("--no-baselines", action="store_true", help="without the peers")
    parser.add_argument("--json", type=Path, metavar="FILE")
    said = parser.parse_args(words)
    unknown = [name for name in said.scenario if name not in harness.worlds]
    if unknown:
        parser.error(f"there is no scenario {', '.join(unknown)}; there are: {', '.join(harness.worlds)}")
    return Options(
        scenarios=said.scenario or list(harness.worlds),
        seeds=said.seed,
        harness=said.harness,
        penalties=said.penalties or ((1.0,) if said.scenario else (1.0, 0.2, 5.0)),
        baselines=not said.no_baselines,
        litellm=said.litellm,
        gap=said.gap,
        json=said.json,
    )


def main(words: Sequence[str]) -> int:
    """Play what was asked for."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--harness", type=Path)
    folder = first.parse_known_args(words)[0].harness
    harness = ours() if folder is None else elsewhere(folder)
    options = options_from(words, harness)
    found: list[Figure] = []
    for name in options.scenarios:
        for seed in options.seeds or (None,):
            for penalties in options.penalties:
                found += play(harness, name, options, seed, penalties)
    found += cost_by_offers()
    print()
    context = {"penalties": options.penalties, "harness": str(options.harness or "bench/routing")}
    return conclude(found, context=context, json_file=options.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
