"""`pixelgate policy simulate`: what a policy would cost, and how punctual it would be, beside baselines."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from msgspec import Struct

from gateway.cli.shell import HERE, Json, Stop, Where, print_json, say, table, write_file
from gateway.cli.simulating import World, accounts_of, progress_bar, revision_of
from gateway.revisions import Revision
from policies.money import to_usd
from policies.offline.baselines import baselines
from policies.offline.catalog_bound import MOST, lower_bound
from policies.offline.catalog_world import CatalogWorld
from policies.offline.simulation import EnginePolicy, Outcome, play
from policies.offline.trace import Trace
from policies.offline.traffic import CROWDS, make_up

WORLD = World()


class Simulated(Struct, frozen=True, kw_only=True):
    """Every choice over the same calls, the policy first."""

    policy: str
    prices: int
    trace: Trace
    outcomes: tuple[Outcome, ...]
    bound: float | None
    """Nano-dollars below which no J can be; None where it was not computed."""
    remarks: tuple[str, ...]


def simulate(  # noqa: PLR0913 - what is simulated
    *,
    policy: str | None = None,
    catalog: Path | None = None,
    traffic: str = "day",
    trace: Path | None = None,
    hours: Annotated[float, Parameter(validator=Number(gt=0, lte=8760))] = 2.0,
    rate: Annotated[float, Parameter(validator=Number(gt=0, lte=1000))] = 2.0,
    alone: bool = False,
    html: Path | None = None,
    json: Json = False,
    world: World = WORLD,
    where: Where = HERE,
) -> int:
    """Play traffic through the engine that serves, in a world made of your catalogue, in virtual time.

    Beside it run simple baselines, and the least cost that anybody could have had. It needs no keys and orders nothing.
    Exit code 1: nobody could serve some of what was asked for.

    Parameters
    ----------
    policy
        A policy file, or the name of a policy; the one in force when left out.
    catalog
        Folder of another catalogue.
    traffic
        What comes, made up from the seed: day, steady, flash, studio or night.
    trace
        A file of calls, one JSON object a line, instead of made-up traffic.
    hours
        How much of it is made up.
    rate
        Its calls per second, on average.
    alone
        The policy alone, without baselines and bound.
    html
        Write one page with a picture of cost against punctuality.
    """
    if traffic not in CROWDS:
        known = "; ".join(f"{name} ({crowd.about})" for name, crowd in CROWDS.items())
        raise Stop(f"--traffic {traffic}: there is no such traffic; there are: {known}")
    revision = revision_of(where.settings(), policy, catalog)
    found = run(revision, _calls(revision, traffic, trace, hours, rate, world.seed), world, alone=alone)
    for remark in found.remarks:
        say(f"remark: {remark}")
    if html is not None:
        from gateway.cli.simulation_page import page

        write_file(html, page(found))
        say(f"wrote {html}")
    if json:
        print_json(shape(found))
    elif html is None:
        print(text(found))
    return 1 if found.outcomes[0].figures().failed else 0


def _calls(revision: Revision, traffic: str, trace: Path | None, hours: float, rate: float, seed: int) -> Trace:
    from gateway.cli.trace_file import made_up, read_trace

    if trace is not None:
        return read_trace(trace, revision)
    if hours * 3600 * rate > 5e6:
        raise Stop(f"--hours {hours:g} --rate {rate:g}: more than five million calls; ask for fewer")
    calls = made_up(make_up(traffic, hours=hours, rate=rate, seed=seed), traffic, revision)
    if not calls.size:
        raise Stop(f"--hours {hours:g} --rate {rate:g}: no call came; ask for more")
    return calls


def run(revision: Revision, trace: Trace, world: World, *, alone: bool = False) -> Simulated:
    """Every choice over the same calls and the same luck."""
    accounts = accounts_of(revision)
    stage = CatalogWorld(
        revision.catalog,
        trace,
        per_order=revision.policy.images_per_order,
        seed=world.seed,
        assumed=world.assumed(),
        troubles=world.troubles(accounts),
        limits=world.limits(accounts),
    )
    if not stage.offers:
        raise Stop("--limit: no account is left that sells anything")
    outcomes, others = [], [] if alone else list(baselines(stage).values())
    with progress_bar("simulating", stage.size * (1 + len(others))) as told:
        policy = EnginePolicy(stage, revision.policy, revision.catalog.capacities)
        outcomes.append(play(stage, policy, progress=told))
        for number, make in enumerate(others, 1):
            before = number * stage.size
            outcomes.append(play(stage, make(), progress=partial(_told_from, told, before)))
    remarks = list(trace.remarks)
    bound = None if alone else lower_bound(stage)
    if not alone and bound is None:
        remarks.append(f"no bound: it is computed for at most {MOST:,} orders, and these are {stage.size:,}")
    return Simulated(
        policy=revision.policy.label,
        prices=revision.number,
        trace=trace,
        outcomes=tuple(outcomes),
        bound=bound,
        remarks=(*remarks, *unserved(stage)),
    )


def _told_from(told: Callable[[int], None], before: int, done: int) -> None:
    told(before + done)


def unserved(world: CatalogWorld) -> list[str]:
    """What nobody sells, in sentences."""
    found = []
    for number, kind in enumerate(world.kinds):
        if not any(world.row(number).serves):
            count = int((world.kind == number).sum())
            wish = kind.request
            models = "" if kind.constraints.models is None else f" of {', '.join(sorted(kind.constraints.models))}"
            found.append(
                f"nobody can serve {count:,} orders: {wish.count} x {wish.width}x{wish.height}{models}, "
                f"intent {kind.intent}, {wish.operation}; `quote` says why"
            )
    return found[:5] + ([f"and {len(found) - 5} more kinds of order that nobody can serve"] if len(found) > 5 else [])


def text(found: Simulated) -> str:
    """For people: a line for the policy and each baseline."""
    trace = found.trace
    head = (
        f"{trace.name}: {trace.size:,} calls in {trace.seconds / 3600:.2f} h; policy {found.policy}, prices "
        f"{found.prices}. Costs in dollars, penalties by the policy."
    )
    rows = [("by", "cost", "penalty", "in all", "over bound", "per 1000", "on time", "failed", "p50", "p95", "429s")]
    for outcome in found.outcomes:
        each = outcome.figures()
        over = "" if not found.bound else f"{100 * (each.total / found.bound - 1):.1f} %"
        rows.append(
            (
                outcome.name,
                usd(each.cost),
                usd(each.penalty),
                usd(each.total),
                over,
                usd(round(each.per_thousand)),
                f"{each.on_time_pct:.2f} %",
                f"{each.failed_pct:.2f} %",
                f"{each.p50:.1f} s",
                f"{each.p95:.1f} s",
                f"{outcome.refused:,}",
            )
        )
    lines = [head, "", table(rows, right=frozenset(range(1, len(rows[0]))))]
    if found.bound is not None:
        lines += ["", f"Nobody could have been below {usd(round(found.bound))} in all (bound)."]
    first = found.outcomes[0]
    shares = [f"{name} {100 * count / first.size:.1f} %" for name, count in list(first.shares().items())[:6]]
    return "\n".join([*lines, f"Under {first.name}, first pictures came from: {', '.join(shares) or 'nobody'}."])


def usd(nano: int) -> str:
    """Dollars to the cent of a cent, for columns."""
    return f"{float(to_usd(nano)):,.4f}"


def shape(found: Simulated) -> dict[str, object]:
    """As `--json` prints it."""
    return {
        "policy": found.policy,
        "prices": found.prices,
        "trace": {"name": found.trace.name, "calls": found.trace.size, "seconds": found.trace.seconds},
        "bound_nano_usd": None if found.bound is None else round(found.bound),
        "outcomes": [_row(outcome, found.bound) for outcome in found.outcomes],
        "remarks": list(found.remarks),
    }


def _row(outcome: Outcome, bound: float | None) -> dict[str, object]:
    each = outcome.figures()
    return {
        "name": outcome.name,
        "about": outcome.about,
        "calls": each.calls,
        "images": each.images,
        "cost_nano_usd": each.cost,
        "penalty_nano_usd": each.penalty,
        "total_nano_usd": each.total,
        "regret_pct": round(100 * (each.total / bound - 1), 3) if bound else None,
        "on_time_pct": round(each.on_time_pct, 4),
        "failed_pct": round(each.failed_pct, 4),
        "p50_s": round(each.p50, 3),
        "p95_s": round(each.p95, 3),
        "orders": outcome.orders,
        "second_orders": outcome.second_orders,
        "r429": outcome.refused,
        "wasted_nano_usd": outcome.wasted,
        "offers": outcome.shares(),
    }
