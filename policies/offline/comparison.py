"""Two outcomes of the same calls side by side: what moves where, and what that does to money and punctuality.

Intervals come from a bootstrap over blocks of time: calls of one block share weather (load, limits, what the engine had
learned), so blocks are drawn, never single calls. Both outcomes are judged by the same objectives and worths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from policies.bootstrap import ENOUGH, blocks_of, draws_of
from policies.offline.simulation import Bools, Figures, Outcome
from policies.offline.trace import Floats, Ints, Trace

_MOVES = 12


class Interval(NamedTuple):
    """An estimate, and where 95 % of the bootstrap's draws lie."""

    value: float
    low: float
    high: float


class Group(Struct, frozen=True, kw_only=True):
    """Some of the calls under both."""

    name: str
    old: Figures
    new: Figures
    cost_pct: Interval | None
    """Change of cost, in percent of the old; None where the old cost nothing or there are too few blocks."""
    on_time_points: Interval | None
    """Change of the share on time, in points."""


class Move(Struct, frozen=True, kw_only=True):
    """Calls whose first picture came from elsewhere."""

    old: str
    new: str
    calls: int
    cost: int
    """Nano-dollars more, or less, that these calls cost in all."""


class Comparison(Struct, frozen=True, kw_only=True):
    """Old against new."""

    old: str
    new: str
    total: Group
    teams: tuple[Group, ...]
    """The dearest first."""
    intents: tuple[Group, ...]
    under: tuple[Group, ...]
    """The calls that some rules of the new policy are about, by what they were called."""
    moved: int
    """Calls whose first picture came from elsewhere."""
    moves: tuple[Move, ...]
    """The most frequent."""
    blocks: str
    """What was drawn for the intervals."""


class _Drawn(NamedTuple):
    """Each call's block, how many blocks there are, and how often each is drawn."""

    block: Ints
    blocks: int
    draws: Floats


def compare(
    old: Outcome, new: Outcome, trace: Trace, *, seed: int = 1, under: Mapping[str, Bools] | None = None
) -> Comparison:
    """Compare two outcomes of one trace. `under`: name of a group -> [N] the calls in it."""
    block, blocks, name = blocks_of(trace.at)
    drawn = _Drawn(block, blocks, draws_of(blocks, seed))
    teams = np.array([kind.team for kind in trace.kinds], object)[trace.kind]
    intents = np.array([kind.intent for kind in trace.kinds], object)[trace.kind]

    def group(label: str, where: Bools | None) -> Group:
        return _group(label, old, new, where, drawn)

    def groups(labels: npt.NDArray[np.object_]) -> tuple[Group, ...]:
        found = [group(str(label), np.asarray(labels == label)) for label in sorted(set(labels.tolist()))]
        return tuple(sorted(found, key=lambda each: -each.old.cost))

    moved = _offers(old, new)
    return Comparison(
        old=old.name,
        new=new.name,
        total=group("all", None),
        teams=groups(teams),
        intents=groups(intents),
        under=tuple(group(name, where) for name, where in (under or {}).items()),
        moved=int((moved[0] != moved[1]).sum()),
        moves=_moves(old, new, *moved),
        blocks=f"{blocks:,} {name}",
    )


def _group(name: str, old: Outcome, new: Outcome, where: Bools | None, drawn: _Drawn) -> Group:
    block, blocks, draws = drawn
    weight = np.ones(old.size) if where is None else where.astype(np.float64)

    def summed(values: npt.NDArray[np.generic]) -> Floats:
        return np.asarray(np.bincount(block, weights=values.astype(np.float64) * weight, minlength=blocks))

    was, now = summed(old.cost), summed(new.cost)
    calls = summed(np.ones(old.size))
    timely = summed(~new.late & ~new.failed) - summed(~old.late & ~old.failed)
    enough = int((calls > 0).sum()) >= ENOUGH // 2
    return Group(
        name=name,
        old=old.figures(where),
        new=new.figures(where),
        cost_pct=_ratio(now - was, was, draws) if enough else None,
        on_time_points=_ratio(timely, calls, draws) if enough else None,
    )


def _ratio(part: Floats, whole: Floats, draws: Floats) -> Interval | None:
    """Percent that `part` is of `whole`, both summed over blocks."""
    if whole.sum() <= 0:
        return None
    below = draws @ whole
    ratios = 100.0 * (draws @ part)[below > 0] / below[below > 0]
    low, high = np.percentile(ratios, (2.5, 97.5))
    return Interval(float(100.0 * part.sum() / whole.sum()), float(low), float(high))


def _offers(old: Outcome, new: Outcome) -> tuple[Ints, Ints, Sequence[str]]:
    """Both outcomes' offers under common numbers; 0 is nobody."""
    names = list(dict.fromkeys(["nobody", *old.offers, *new.offers]))
    place = {name: number for number, name in enumerate(names)}
    was, now = (np.array([0, *(place[name] for name in outcome.offers)])[outcome.offer + 1] for outcome in (old, new))
    return was, now, names


def _moves(old: Outcome, new: Outcome, was: Ints, now: Ints, names: Sequence[str]) -> tuple[Move, ...]:
    pair = was * len(names) + now
    differ = was != now
    counts = np.bincount(pair[differ], minlength=len(names) ** 2)
    money = np.bincount(pair[differ], weights=(new.cost - old.cost)[differ], minlength=len(names) ** 2)
    order = [int(i) for i in np.argsort(-counts, kind="stable")[:_MOVES] if counts[i]]
    return tuple(
        Move(old=names[i // len(names)], new=names[i % len(names)], calls=int(counts[i]), cost=round(float(money[i])))
        for i in order
    )
