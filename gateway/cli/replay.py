"""`pixelgate policy replay` and `diff`: recorded calls decided again, in closed loop, by other policies or prices."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from cyclopts import Parameter
from cyclopts.validators import Number
from msgspec import Struct

from gateway.cli.pieces import SAMPLED_S, pieces, play_all
from gateway.cli.shell import HERE, Json, Stop, Where, print_json, say, table, write_file
from gateway.cli.simulate import usd
from gateway.cli.simulating import World, accounts_of, progress_bar, revision_of
from gateway.revisions import Revision
from gateway.settings import Settings
from policies.offline.catalog_world import Assumptions, Trouble
from policies.offline.comparison import Comparison, Group, Interval, compare
from policies.offline.simulation import Figures, Outcome
from policies.offline.trace import DELIVERED, Trace

WORLD = World()
Sample = Annotated[float, Parameter(validator=Number(gt=0, lte=1))]
Days = Annotated[float, Parameter(validator=Number(gt=0, lte=3660))]


class Recorded(Struct, frozen=True, kw_only=True):
    """What calls came to in truth, beside the simulation of the old side: how far the world is from it."""

    calls: int
    """Those whose cost is known."""
    cost: int
    simulated: int
    """Nano-dollars of the same calls in the simulation."""
    on_time_pct: float | None
    """Of the calls whose seconds are known; None: of none."""
    simulated_on_time_pct: float | None


class Replayed(Struct, frozen=True, kw_only=True):
    """A trace under two configurations."""

    trace: Trace
    """The calls that were played."""
    comparison: Comparison
    recorded: Recorded | None
    sample: float
    remarks: tuple[str, ...]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Telling:
    """Which calls are played, and how the outcome is told."""

    trace: Path | None = None
    """A file of calls, one JSON object a line; what this gateway recorded when left out."""
    days: Days = 7.0
    """How far back its records are read."""
    sample: Sample = 1.0
    """Share of the time to play, in stretches of half an hour spread evenly."""
    markdown: bool = False
    """Print Markdown for a pull request."""
    html: Path | None = None
    """Write one page with charts."""
    json: Json = False


TELLING = Telling()


def replay(
    *,
    policy: str | None = None,
    catalog: Path | None = None,
    telling: Telling = TELLING,
    world: World = WORLD,
    where: Where = HERE,
) -> int:
    """Decide recorded calls again under another policy or price book: what moves where, money and punctuality.

    Both sides run in the simulator, on the same luck; what was recorded stands beside them, to show how far the
    simulation is from it. Exit code 1: there is nothing recorded.

    Parameters
    ----------
    policy
        A policy file, or the name of a policy, that would take the place of the one in force.
    catalog
        Folder of another catalogue: new prices.
    """
    settings = where.settings()
    sides = [revision_of(settings, None, None), revision_of(settings, policy, catalog)]
    return _tell(_played(settings, sides, world, telling), telling)


def diff(
    old: str,
    new: str,
    /,
    *,
    old_catalog: Path | None = None,
    catalog: Path | None = None,
    telling: Telling = TELLING,
    world: World = WORLD,
    where: Where = HERE,
) -> int:
    """Compare two policies over the same recorded calls.

    Parameters
    ----------
    old
        A policy file, or the name of a policy; its terms say what is late and what that is worth.
    new
        The other.
    old_catalog
        Folder of the catalogue for the old one; the one in force when left out.
    catalog
        The same for the new one.
    """
    settings = where.settings()
    sides = [revision_of(settings, old, old_catalog), revision_of(settings, new, catalog)]
    return _tell(_played(settings, sides, world, telling), telling)


def trace(*, days: Days = 7.0, output: Path | None = None, where: Where = HERE) -> int:
    """Write what this gateway recorded as a trace: one JSON object a line, without words. Exit code 1: nothing.

    Parameters
    ----------
    days
        How far back.
    output
        The file; standard output when left out.
    """
    import msgspec

    from gateway.cli.recorded import recorded_lines

    settings = where.settings()
    lines = recorded_lines(settings, revision_of(settings, None, None).policy, days)
    text = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    if output is None:
        sys.stdout.buffer.write(text)
    else:
        output.write_bytes(text)
        say(f"wrote {len(lines):,} calls to {output}")
    return 0


def _played(settings: Settings, sides: Sequence[Revision], world: World, telling: Telling) -> Replayed:
    return compared(sides, _traces(settings, sides, telling.trace, telling.days), world, telling.sample)


def _traces(settings: Settings, sides: Sequence[Revision], path: Path | None, days: float) -> list[Trace]:
    from gateway.cli.recorded import recorded_lines
    from gateway.cli.trace_file import read_traces, traces_of

    if path is not None:
        return read_traces(path, sides)
    lines = recorded_lines(settings, sides[0].policy, days)
    return traces_of(f"{days:g} days of records", enumerate(lines, 1), sides)


def compared(
    sides: Sequence[Revision],
    traces: Sequence[Trace],
    world: World,
    sample: float = 1.0,
    under: Mapping[str, Collection[str]] | None = None,
) -> Replayed:
    """Play a trace under both sides and compare them, judged by the terms of the first.

    `under`: name of a group -> rules of the second side; the calls they are about are compared by themselves, too.
    """
    cut = pieces(traces[0], sample)
    if not cut:
        raise Stop(f"--sample {sample:g}: no call falls into the stretches that were drawn; ask for more")
    chosen = np.concatenate([np.arange(piece.first, piece.last) for piece in cut])
    for side in sides:
        _terms(world, side)
    with progress_bar("replaying", len(chosen) * len(sides)) as told:
        old, new = play_all(sides, traces, cut, _terms_of(world), seed=world.seed, told=told)
    played = traces[0].some(chosen)
    remarks = list(traces[0].remarks)
    if sample < 1:
        remarks.append(
            f"a sample: {len(chosen):,} of {traces[0].size:,} calls, in {len(cut):,} stretches of "
            f"{SAMPLED_S / 60:.0f} minutes; the intervals say what that leaves open"
        )
    names = _names(sides)
    return Replayed(
        trace=played,
        comparison=compare(
            _named(old, names[0]),
            _named(new, names[1]),
            played,
            seed=world.seed,
            under={name: _under(traces[1].some(chosen), rules) for name, rules in (under or {}).items()},
        ),
        recorded=_recorded(played, old),
        sample=sample,
        remarks=tuple(remarks),
    )


def _under(trace: Trace, rules: Collection[str]) -> npt.NDArray[np.bool_]:
    """[N] whether one of some rules is about a call."""
    ruled = [any(name in rules for name in kind.constraints.rules) for kind in trace.kinds]
    return np.array(ruled, bool)[trace.kind]


def _terms_of(world: World) -> Callable[[Revision], tuple[Assumptions, tuple[Trouble, ...], dict[str, int]]]:
    return lambda side: _terms(world, side)


def _terms(world: World, side: Revision) -> tuple[Assumptions, tuple[Trouble, ...], dict[str, int]]:
    accounts = accounts_of(side)
    limits = dict(world.limits(accounts))
    if not any(limits.get(name) != 0 for name in accounts):
        raise Stop("--limit: no account is left that sells anything")
    return world.assumed(), tuple(world.troubles(accounts)), limits


def _names(sides: Sequence[Revision]) -> tuple[str, str]:
    """What to call both sides; by their prices, too, where those differ."""
    old, new = sides
    if old.number != new.number:
        return f"{old.policy.label}, prices {old.number}", f"{new.policy.label}, prices {new.number}"
    if old.policy.label == new.policy.label:
        return f"{old.policy.label} (old)", f"{new.policy.label} (new)"
    return old.policy.label, new.policy.label


def _named(outcome: Outcome, name: str) -> Outcome:
    from msgspec.structs import replace

    return replace(outcome, name=name)


def _recorded(trace: Trace, old: Outcome) -> Recorded | None:
    done = trace.done
    if done is None or not (done.cost >= 0).any():
        return None
    known = done.cost >= 0
    timed = ~np.isnan(done.seconds) & (done.state == DELIVERED)
    slo = np.array([kind.constraints.slo for kind in trace.kinds])[trace.kind]
    return Recorded(
        calls=int(known.sum()),
        cost=int(done.cost[known].sum()),
        simulated=int(old.cost[known].sum()),
        on_time_pct=float(100 * (done.seconds[timed] <= slo[timed]).mean()) if timed.any() else None,
        simulated_on_time_pct=float(100 * (~old.late & ~old.failed)[timed].mean()) if timed.any() else None,
    )


def _tell(found: Replayed, telling: Telling) -> int:
    if telling.markdown and telling.json:
        raise Stop("--markdown and --json both go to standard output; choose one")
    for remark in found.remarks:
        say(f"remark: {remark}")
    if telling.html is not None:
        from gateway.cli.replay_page import page

        write_file(telling.html, page(found))
        say(f"wrote {telling.html}")
    if telling.json:
        print_json(shape(found))
    elif telling.markdown:
        print(as_markdown(found))
    elif telling.html is None:
        print(text(found))
    return 0


HEAD = ("", "calls", "cost old", "cost new", "change", "95 %", "on time old", "new", "points", "95 %", "p95 old", "new")


def lines_of(group: Group) -> tuple[str, ...]:
    """A group as cells under `HEAD`."""
    cost, points, old, new = group.cost_pct, group.on_time_points, group.old, group.new
    return (
        group.name,
        f"{old.calls:,}",
        usd(old.cost),
        usd(new.cost),
        "" if not old.cost else f"{100 * (new.cost / old.cost - 1):+.2f} %",
        _between(cost, " %"),
        f"{old.on_time_pct:.2f} %",
        f"{new.on_time_pct:.2f} %",
        f"{new.on_time_pct - old.on_time_pct:+.2f}",
        _between(points, ""),
        f"{old.p95:.1f} s",
        f"{new.p95:.1f} s",
    )


def _between(interval: Interval | None, unit: str) -> str:
    return "-" if interval is None else f"{interval.low:+.2f} to {interval.high:+.2f}{unit}"


def groups_of(comparison: Comparison) -> list[Group]:
    """All, then by team, then by intent; a single team or intent says nothing that `all` does not."""
    teams = comparison.teams if len(comparison.teams) > 1 else ()
    intents = comparison.intents if len(comparison.intents) > 1 else ()
    return [comparison.total, *teams, *intents]


def summary(found: Replayed) -> str:
    """One sentence for whoever reads no table."""
    total = found.comparison.total
    old, new = total.old, total.new
    change = f"{100 * (new.cost / old.cost - 1):+.2f} %" if old.cost else "no change"
    between = "" if total.cost_pct is None else f" (95 %: {_between(total.cost_pct, ' %')})"
    return (
        f"{found.comparison.new} instead of {found.comparison.old} over {old.calls:,} calls: cost {change}{between}, "
        f"on time {old.on_time_pct:.2f} % -> {new.on_time_pct:.2f} %, failed {old.failed_pct:.2f} % -> "
        f"{new.failed_pct:.2f} %; {found.comparison.moved:,} calls drawn elsewhere."
    )


def beside(found: Replayed) -> str:
    """How far the simulation of the old side is from what was recorded."""
    recorded = found.recorded
    if recorded is None:
        return "Nothing was recorded of what these calls cost."
    off = f" ({100 * (recorded.simulated / recorded.cost - 1):+.1f} %)" if recorded.cost else ""
    timely = ""
    if recorded.on_time_pct is not None and recorded.simulated_on_time_pct is not None:
        timely = f"; on time {recorded.on_time_pct:.2f} % recorded, {recorded.simulated_on_time_pct:.2f} % simulated"
    return (
        f"Recorded: ${usd(recorded.cost)} for {recorded.calls:,} calls whose cost is known; the old side's simulation "
        f"says ${usd(recorded.simulated)}{off}{timely}."
    )


def intervals(found: Replayed) -> str:
    """How the intervals were made."""
    blocks = found.comparison.blocks
    return f"Late and on time by the old side's terms. Intervals: bootstrap over {blocks}; `-`: too few of them."


def text(found: Replayed) -> str:
    """For people."""
    comparison = found.comparison
    rows = [HEAD, *(lines_of(group) for group in groups_of(comparison))]
    parts = [summary(found), beside(found), "", table(rows, right=frozenset(range(1, len(HEAD)))), ""]
    if comparison.moves:
        moves = [("calls", "from", "to", "cost $")]
        moves += [(f"{move.calls:,}", move.old, move.new, signed(move.cost)) for move in comparison.moves]
        parts += ["Drawn elsewhere:", table(moves, right=frozenset({0, 3})), ""]
    return "\n".join([*parts, intervals(found)])


def signed(nano: int) -> str:
    """Dollars with their sign."""
    return f"{'-' if nano < 0 else '+'}{usd(abs(nano))}"


def as_markdown(found: Replayed) -> str:
    """For a pull request."""
    comparison = found.comparison

    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    parts = [f"### Policy: {comparison.old} -> {comparison.new}", "", summary(found), "", row(HEAD)]
    parts += [row(["---", *["---:"] * (len(HEAD) - 1)]), *(row(lines_of(each)) for each in groups_of(comparison)), ""]
    if comparison.moves:
        parts += [row(("calls", "from", "to", "cost $")), row(("---:", "---", "---", "---:"))]
        parts += [row((f"{m.calls:,}", f"`{m.old}`", f"`{m.new}`", signed(m.cost))) for m in comparison.moves]
        parts.append("")
    parts += [f"{beside(found)} {intervals(found)}"]
    parts += [f"- {remark}" for remark in found.remarks]
    return "\n".join(parts)


def shape(found: Replayed) -> dict[str, object]:
    """As `--json` prints it."""
    comparison = found.comparison
    return {
        "old": comparison.old,
        "new": comparison.new,
        "trace": {"name": found.trace.name, "calls": found.trace.size, "seconds": found.trace.seconds},
        "sample": found.sample,
        "total": _group(comparison.total),
        "teams": [_group(group) for group in comparison.teams],
        "intents": [_group(group) for group in comparison.intents],
        "moved": comparison.moved,
        "moves": [
            {"from": move.old, "to": move.new, "calls": move.calls, "cost_nano_usd": move.cost}
            for move in comparison.moves
        ],
        "recorded": found.recorded,
        "blocks": comparison.blocks,
        "remarks": list(found.remarks),
    }


def _group(group: Group) -> dict[str, object]:
    return {
        "name": group.name,
        "old": _figures(group.old),
        "new": _figures(group.new),
        "cost_pct": group.cost_pct and group.cost_pct._asdict(),
        "on_time_points": group.on_time_points and group.on_time_points._asdict(),
    }


def _figures(figures: Figures) -> dict[str, object]:
    return {
        "calls": figures.calls,
        "images": figures.images,
        "cost_nano_usd": figures.cost,
        "penalty_nano_usd": figures.penalty,
        "on_time_pct": round(figures.on_time_pct, 4),
        "failed_pct": round(figures.failed_pct, 4),
        "p50_s": round(figures.p50, 3),
        "p95_s": round(figures.p95, 3),
    }
