"""`python -m bench.shadow`: thousands of simulated comparisons, each looked at after every pair; and live calls.

The naive test beside ours is the usual one (1.96 standard errors), looked at as often.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from math import exp, log, sqrt
from pathlib import Path

from msgspec import Struct
from rich.progress import Progress

from bench.processes import raise_file_limit, scratch
from bench.report import Figure, conclude
from bench.shadow.live import figures as live_figures
from policies.experiments.definition import MARGINS, Allowance, Challenger, Decide, Experiment
from policies.experiments.pairs import Pair, Side
from policies.experiments.significance import (
    FEWEST,
    Failures,
    Means,
    Planned,
    Verdict,
    fixed_pairs,
    fixed_pairs_for_failures,
    pairs_to_equate,
    pairs_to_tell,
    pairs_to_tell_failures,
    single_failures,
    undecidable,
)
from policies.experiments.verdicts import Judgement, judge

ALPHA = 0.05
SLOWER = log(1.1)
LATENCY_SPREAD = 0.25
"""Standard deviation of one seller's log latency."""
CHEAPER = log(0.95)
COST_SPREAD = 0.1
SCORE, SCORE_SPREAD = 0.02, 0.1
"""A quality score between 0 and 1: a difference worth knowing, and the spread of paired differences."""
SLOW_SHARE = 0.015
"""Of pictures that take one and a half to eight times as long."""
CLIP = 1.5
"""Differences of log latency beyond this count as this."""
FAILS = (0.01, 0.03)
LOOK, LOOKS = 50, 60
"""A whole experiment is judged after so many pairs, so many times."""
WHOLE = Experiment(
    name="e",
    challengers=(Challenger(name="b", account="b"),),
    budget=Allowance(day=10**15, total=10**16),
    decide=Decide(margins={**MARGINS, "failures": 0.02}),
)

Draw = Callable[[random.Random], float]


class Comparison(Struct, frozen=True, kw_only=True):
    """A measure, what is drawn for it, and how large its plan is beside a test that is looked at once."""

    name: str
    draw: Draw
    planned: Planned
    wanted: Verdict
    fixed: int


def latency(rng: random.Random, slower: float = 0.0) -> float:
    """The difference of two log latencies, slow tails included."""

    def one() -> float:
        tail = log(rng.uniform(1.5, 8.0)) if rng.random() < SLOW_SHARE else 0.0
        return rng.gauss(0.0, LATENCY_SPREAD) + tail

    return max(-CLIP, min(CLIP, one() - one() + slower))


def tailed_spread(rng: random.Random) -> float:
    """Standard deviation of `latency`, as a plan would take it from the champion's own history."""
    seen = [latency(rng) for _ in range(20_000)]
    return sqrt(sum(each**2 for each in seen) / len(seen))


def comparisons(rng: random.Random) -> tuple[Comparison, ...]:
    """Everything with a mean that must be found or equated."""
    spread = tailed_spread(rng)
    cost = COST_SPREAD * sqrt(2)
    return (
        Comparison(
            name="latency",
            draw=lambda r: latency(r, SLOWER),
            planned=Planned(pairs=pairs_to_tell(SLOWER, spread, ALPHA), alpha=ALPHA),
            wanted="higher",
            fixed=fixed_pairs(SLOWER, spread, ALPHA),
        ),
        Comparison(
            name="cost",
            draw=lambda r: r.gauss(CHEAPER, cost),
            planned=Planned(pairs=pairs_to_tell(CHEAPER, cost, ALPHA), alpha=ALPHA),
            wanted="lower",
            fixed=fixed_pairs(abs(CHEAPER), cost, ALPHA),
        ),
        Comparison(
            name="score",
            draw=lambda r: r.gauss(SCORE, SCORE_SPREAD),
            planned=Planned(pairs=pairs_to_tell(SCORE, SCORE_SPREAD, ALPHA), alpha=ALPHA),
            wanted="higher",
            fixed=fixed_pairs(SCORE, SCORE_SPREAD, ALPHA),
        ),
    )


def run_means(planned: Planned, draw: Draw, pairs: int, rng: random.Random) -> Verdict:
    """One comparison, looked at after every pair until it says something."""
    means = Means(planned)
    for _ in range(pairs):
        means.add(draw(rng))
        said = means.verdict()
        if said != "undecided":
            return said
    return "undecided"


def run_naive(draw: Draw, pairs: int, rng: random.Random) -> Verdict:
    """The same by 1.96 standard errors."""
    means = Means(Planned(pairs=pairs, alpha=ALPHA))
    for _ in range(pairs):
        means.add(draw(rng))
        if means.pairs >= FEWEST and abs(means.mean) > 1.96 * means.spread / sqrt(means.pairs):
            return "higher" if means.mean > 0 else "lower"
    return "undecided"


def run_failures(rates: tuple[float, float], planned: Planned, share: float, rng: random.Random) -> Verdict:
    """One comparison of who fails more often."""
    failures = Failures(planned, share)
    for _ in range(planned.pairs):
        champion, challenger = rng.random() < rates[0], rng.random() < rates[1]
        failures.add(champion=champion, challenger=challenger)
        if champion != challenger and (said := failures.verdict()) != "undecided":
            return said
    return "undecided"


def pair_of(at: int, rng: random.Random, *, cheaper: float = 1.0) -> Pair:
    """One call at two sellers that differ in price alone."""

    def side(account: str, times: float) -> Side:
        came = rng.random() >= FAILS[0]
        return Side(
            offer=f"{account}:m",
            account=account,
            quoted=0,
            billed=round(1e7 * times * exp(rng.gauss(0.0, COST_SPREAD))) if came else 0,
            latency_s=exp(rng.gauss(1.0, LATENCY_SPREAD)) * (rng.uniform(1.5, 8.0) if rng.random() < SLOW_SHARE else 1),
            outcome="delivered" if came else "failed",
        )

    return Pair(
        id=f"{at:06}", experiment="e", challenger="b", call_id=f"c{at}", at=at * 60.0, champion=side("a", 1.0),
        challenger_side=side("b", cheaper), expires=0.0,
    )  # fmt: skip


def run_verdict(cheaper: float, rng: random.Random) -> Judgement | None:
    """One experiment, judged whole after every `LOOK` pairs; what it says first.

    None: it was about to say that equal things differ in something, which no verdict has to follow from.
    """
    pairs: list[Pair] = []
    for look in range(LOOKS):
        pairs += [pair_of(at, rng, cheaper=cheaper) for at in range(look * LOOK, (look + 1) * LOOK)]
        (found,) = judge(WHOLE, pairs)
        if cheaper == 1.0 and any(each.said in {"better", "worse"} for each in found.readings):
            return None
        if found.verdict != "open":
            return found.verdict
    return "open"


def share_of(verdict: Callable[[], bool], runs: int) -> float:
    """Per cent of runs in which something was said."""
    return 100 * sum(verdict() for _ in range(runs)) / runs


def figures_of(runs: int, power_runs: int, verdict_runs: int, seed: int, advance: Callable[[], None]) -> list[Figure]:
    """Everything the bench prints."""
    rng = random.Random(seed)
    measures = comparisons(rng)
    plan = measures[0].planned
    failing = pairs_to_tell_failures(*FAILS, ALPHA)
    share = single_failures(*FAILS)
    equal = pairs_to_equate(SLOWER, tailed_spread(rng), ALPHA)
    twice = 2 * plan.pairs
    figures = []

    def note(name: str, value: float, unit: str = "%", *, must: float | None = None, at_least: bool = False) -> None:
        figures.append(Figure(name=name, value=value, unit=unit, must=must, at_least=at_least))
        advance()

    told = share_of(lambda: run_means(plan, latency, twice, rng) != "undecided", runs)
    note("aa_false_alarm_pct", told, must=5.0)
    note("naive_false_alarm_pct", share_of(lambda: run_naive(latency, twice, rng) != "undecided", runs))
    rare = Planned(pairs=failing, alpha=ALPHA)
    told = share_of(lambda: run_failures((0.02, 0.02), rare, share, rng) != "undecided", power_runs)
    note("aa_failure_false_alarm_pct", told, must=5.0)
    told = share_of(lambda: run_failures(FAILS, rare, share, rng) == "higher", power_runs)
    note("power_failure_pct", told, must=80.0, at_least=True)
    for measure in measures:
        found = share_of(
            lambda m=measure: run_means(m.planned, m.draw, m.planned.pairs, rng) == m.wanted,  # type: ignore[misc]
            power_runs,
        )
        note(f"power_{measure.name}_pct", found, must=80.0, at_least=True)
    same = Planned(pairs=equal, alpha=ALPHA, margin=SLOWER)
    told = share_of(lambda: run_means(same, latency, equal, rng) == "equivalent", power_runs)
    note("equivalence_pct", told, must=80.0, at_least=True)
    largest = max([each.planned.pairs / each.fixed for each in measures])
    note("plan_ratio", largest, "x fixed", must=1.7)
    note("plan_ratio_failures", failing / fixed_pairs_for_failures(*FAILS, ALPHA), "x fixed", must=1.7)
    hopeless = pairs_to_tell_failures(0.010, 0.012, ALPHA)
    note("undecidable_at_once", float(undecidable(hopeless, 100.0)), "", must=1.0, at_least=True)
    told = share_of(lambda: run_verdict(1.0, rng) in {None, "switch"}, verdict_runs)
    note("verdict_aa_false_alarm_pct", told, must=5.0)
    told = share_of(lambda: run_verdict(0.9, rng) == "switch", verdict_runs)
    note("verdict_switch_pct", told, must=80.0, at_least=True)
    return figures


STEPS = 13


def main(arguments: Sequence[str]) -> int:
    """Run the bench; answers the exit status."""
    parser = argparse.ArgumentParser(prog="bench shadow", description="Whether comparisons of sellers can be believed.")
    parser.add_argument("--runs", type=int, default=2000, help="comparisons of equal things (default 2000)")
    parser.add_argument("--power-runs", type=int, default=500, help="comparisons of unequal things (default 500)")
    parser.add_argument("--verdict-runs", type=int, default=200, help="whole experiments of each kind (default 200)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed draws the same pairs (default 1)")
    parser.add_argument("--live-rounds", type=int, default=6, help="rounds on live gateways (default 6; 0: none)")
    parser.add_argument("--live-seconds", type=float, default=3.0, help="seconds of load in each (default 3)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    with Progress(transient=True) as progress:
        task = progress.add_task("comparing", total=STEPS)
        figures = figures_of(
            options.runs, options.power_runs, options.verdict_runs, options.seed, lambda: progress.advance(task)
        )
    if options.live_rounds:
        raise_file_limit()
        with scratch() as folder:
            figures += live_figures(folder, rounds=options.live_rounds, seconds=options.live_seconds)
    context = {name: getattr(options, name) for name in ("runs", "power_runs", "verdict_runs", "seed")}
    return conclude(figures, context=context, json_file=options.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
