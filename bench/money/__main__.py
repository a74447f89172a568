"""`python -m bench.money`: mixed calls, scripted sellers, a gateway killed midway, then every book compared."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from bench.money import judge, stage
from bench.money.driver import Answer, Callers
from bench.money.judge import Books, SandboxBooks
from bench.money.options import add_options, work_folder
from bench.money.script import acts
from bench.money.traffic import plan_calls
from bench.processes import raise_file_limit
from bench.report import Figure, conclude

SETTLE_S = 60.0
"""Seconds the gateway has, after the last call, to learn what every order costs."""


class Options(Struct, frozen=True, kw_only=True):
    """What the command line asked for."""

    orders: int
    kills: int
    seed: int
    time_scale: float
    json: Path | None
    keep: Path | None


class Run(Struct, kw_only=True):
    """What happened."""

    answers: list[Answer]
    restarts_s: list[float]
    settled_s: float
    ours: Books
    theirs: SandboxBooks
    kills: int
    hedges: int
    faults: list[str]
    seconds: float


def run(options: Options, folder: Path) -> Run:
    """Play all acts, wait until the books are quiet, read them."""
    began = time.monotonic()
    calls = plan_calls(options.orders, options.seed)
    contracts = stage.CONTRACTS
    with stage.sandbox(folder, time_scale=options.time_scale, seed=options.seed, contracts=contracts) as sandbox:
        with stage.gateway(folder, sandbox.port, time_scale=options.time_scale) as gateway:
            callers = Callers(gateway.port, gateway.keys)
            restarts: list[float] = []
            asyncio.run(callers.make(calls, _director(options, sandbox, gateway, callers, restarts)))
            sandbox.script({"rules": [], "limits": stage.TOLD})
            settled = _settle(gateway, sandbox)
        faults = stage.audit(gateway.home)
        ours, theirs = judge.read_books(gateway.home.state / "pixelgate.db"), sandbox.books()
        sandbox.save_invoice(folder)
    return Run(
        answers=callers.answers,
        restarts_s=restarts,
        settled_s=settled,
        ours=ours,
        theirs=theirs,
        kills=gateway.kills,
        hedges=gateway.hedges(),
        faults=[*faults, *judge.objections(ours, callers.answers, gateway.kills)],
        seconds=time.monotonic() - began,
    )


def _director(
    options: Options, sandbox: stage.Sandbox, gateway: stage.Gateway, callers: Callers, restarts: list[float]
) -> Callable[[int], Awaitable[None]]:
    """Answers what is to be done when the nth call starts: the next act, or the next kill."""
    plays = acts(stage.TOLD, stage.LOWERED)
    scenes = {1 + options.orders * number // len(plays): act for number, act in enumerate(plays)}
    deaths = {options.orders * (number + 1) // (options.kills + 1) for number in range(options.kills)}

    async def on_start(started: int) -> None:
        if act := scenes.get(started):
            print(f"call {started}: {act.name}", flush=True)
            await asyncio.to_thread(sandbox.script, act.script)
        if started in deaths:
            callers.up.clear()
            restarts.append(await gateway.restart_killed())
            print(f"call {started}: killed, ready again after {restarts[-1]:.2f} s", flush=True)
            callers.up.set()

    return on_start


def _settle(gateway: stage.Gateway, sandbox: stage.Sandbox) -> float:
    """Wait until no order is open, no seller draws and both books agree, or time is up; answers the seconds it took."""
    began = time.monotonic()
    while time.monotonic() - began < SETTLE_S:
        gateway.must_live()
        ours = judge.read_books(gateway.home.state / "pixelgate.db")
        if not (ours.unfinished or sandbox.at_work() or any(judge.drift(ours, sandbox.books()).values())):
            break
        time.sleep(0.5)
    return time.monotonic() - began


def figures(done: Run, options: Options) -> Sequence[Figure]:
    """The figures of the surface, and some that explain them."""
    drift = judge.drift(done.ours, done.theirs)
    answered = [answer for answer in done.answers if answer.status == 200]
    return (
        Figure(name="orders", value=sum(done.ours.orders.values()), unit="", must=options.orders, at_least=True),
        Figure(name="calls", value=len(done.answers), unit="", must=options.orders, at_least=True),
        Figure(name="sigkills", value=done.kills, unit="", must=options.kills, at_least=True),
        Figure(name="hedges", value=done.hedges, unit="orders", must=1, at_least=True),
        Figure(name="drift_nano_usd", value=sum(map(abs, drift.values())), unit="n$", must=0),
        Figure(name="suspended", value=done.ours.unfinished, unit="orders", must=0),
        Figure(name="duplicate_submissions", value=judge.repeated(done.ours, done.theirs), unit="orders", must=0),
        Figure(name="limit_violations", value=sum(done.theirs.limit_violations.values()), unit="orders", must=0),
        Figure(name="invoice_usd", value=sum(done.theirs.invoice.values()) / 1e9, unit="$"),
        Figure(name="calls_delivered", value=len(answered), unit="calls"),
        Figure(name="restart_s", value=statistics.mean(done.restarts_s or [0.0]), unit="s", aim=3.0),
        Figure(name="settled_after_s", value=done.settled_s, unit="s"),
        Figure(name="duration_s", value=done.seconds, unit="s"),
    )


def context(done: Run, options: Options) -> Mapping[str, object]:
    """What else is worth knowing of a run."""
    ends = Counter(f"{answer.status} {answer.code}".strip() if answer.status else answer.end for answer in done.answers)
    return {
        "seed": options.seed,
        "answers": dict(ends.most_common()),
        "order_states": dict(done.ours.states),
        "drift_nano_usd": dict(judge.drift(done.ours, done.theirs)),
        "limit_violations": dict(done.theirs.limit_violations),
    }


def main(arguments: Sequence[str]) -> int:
    """Run the bench; answers the exit status."""
    parser = argparse.ArgumentParser(prog="bench money", description="Is every nano-dollar accounted for?")
    parser.add_argument("--orders", type=int, default=2000, help="calls to make, each one order or more (default 2000)")
    add_options(parser)
    options = Options(**vars(parser.parse_args(arguments)))
    raise_file_limit()
    with work_folder(options.keep) as folder:
        done = run(options, folder)
    more = context(done, options)
    for name, value in more.items():
        print(f"{name}: {value}")
    return conclude(figures(done, options), context=more, faults=done.faults, json_file=options.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
