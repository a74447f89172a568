"""What the pairs of one challenger say in one respect, challenger against champion.

    cost      dollars of challenger less champion, over the champion's mean; both delivered
    latency   the logarithm of challenger over champion, no further from 0 than `CLIP`; both delivered
    queue     seconds in the seller's queue, where both say; both delivered
    failures  who failed: nothing came, nothing was on it, or it was of another size
    score and the other measures of pictures: as measured between both; both delivered

A pair that stands for many calls (copied at a small share) weighs as many; only failures, whose test is exact, are
counted as they were copied. How many pairs a measure needs is read from its first `PILOT`; nothing is said before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import exp, inf, isfinite, log, sqrt
from typing import Literal, TypeAlias

from msgspec import Struct

from policies.experiments.definition import OF_PICTURES, Measure
from policies.experiments.pairs import Pair
from policies.experiments.significance import (
    FEWEST_FOR_FAILURES,
    Failures,
    Interval,
    Means,
    Planned,
    Verdict,
    pairs_to_equate,
    pairs_to_tell,
    pairs_to_tell_failures,
    single_failures,
    undecidable,
)

Said: TypeAlias = Literal["better", "worse", "equivalent", "no worse", "undecided"]
"""Of the challenger. `better` and `worse`: surely so, and by more than the margin as far as one can tell. `equivalent`:
surely within the margin. `no worse`: surely not worse by more than the margin."""

CLIP = 1.5
"""Differences of log latency beyond this count as this: an order that took five times as long is no better known."""
PILOT = 50
RARE = 0.005
"""Failures are planned for at least this rate: that none was seen says little."""
USUAL_SPREADS: Mapping[Measure, float] = {
    "cost": 0.1,
    "latency": 0.5,
    "queue": 1.5,
    "score": 0.15,
    "clip": 2.5,
    "aesthetic": 0.6,
    "judge": 0.8,
    "votes": 0.8,
}
"""Standard deviations of paired differences, for plans made before there are pairs."""
USUAL_FAILURES = 0.01
HIGHER_IS_BETTER: frozenset[Measure] = OF_PICTURES


class Reading(Struct, frozen=True, kw_only=True):
    """One measure of one challenger: shares of cost and latency (-0.12: 12 % less), seconds, parts of 1, or points."""

    measure: Measure
    said: Said
    pairs: int
    """Those that say something about it."""
    planned: int
    """Pairs the comparison is sized for."""
    estimate: float
    low: float
    """Where the difference surely is; infinite while nothing can be said."""
    high: float
    margin: float
    days_left: float | None = None
    """At the pace of its pairs, until its plan is reached; None: it is decided, or past its plan."""
    hopeless: bool = False
    """Whether its plan would take longer than anybody waits."""

    @property
    def decided(self) -> bool:
        """Whether nothing more is to be learned about it."""
        return self.said in {"better", "worse", "equivalent"}


def of_another_size(pair: Pair) -> bool:
    """Whether both brought a picture, and the challenger's has other pixels."""
    ours, theirs = pair.champion, pair.challenger_side
    return ours.delivered and theirs.delivered and (ours.width, ours.height) != (theirs.width, theirs.height)


def came_short(pair: Pair) -> tuple[bool, bool]:
    """Whether the champion brought nothing; whether the challenger brought nothing that could take its place."""
    return not pair.champion.delivered, not pair.challenger_side.delivered or of_another_size(pair)


def read(measure: Measure, pairs: Sequence[Pair], *, alpha: float, margin: float, days: float) -> Reading:
    """What `pairs`, oldest first, say.

    `alpha` is the risk of ever calling equal things different, `days` how long the pairs took to come.
    """
    if measure == "failures":
        return _read_failures(pairs, alpha=alpha, margin=margin, days=days)
    found = differences(measure, pairs)
    shown = _shares if measure == "latency" else _as_it_is
    inner = log(1 + margin) if measure == "latency" else margin
    spread = _spread([value for value, _ in found[:PILOT]])
    plan = planned_pairs(measure, alpha, margin, spread=USUAL_SPREADS[measure] if spread is None else spread)
    means = Means(Planned(pairs=plan, alpha=alpha, margin=inner))
    weight = sum(weight for _, weight in found) / len(found) if found else 1.0
    for value, each in found:
        means.add(value * each / weight)
    known = means.pairs >= PILOT
    interval = means.interval() if known else Interval(-inf, inf)
    verdict = means.verdict() if known else "undecided"
    sides = means.interval(2 * alpha) if known else Interval(-inf, inf)
    said = _said(measure, verdict, means.mean, sides, inner)
    told = Interval(shown(interval.low), shown(interval.high))
    seen = _Seen(means.pairs, plan, days)
    return _reading(measure, said, seen, told, estimate=shown(means.mean), margin=margin)


def differences(measure: Measure, pairs: Sequence[Pair]) -> list[tuple[float, float]]:
    """The difference of each pair that says something, and how many calls it stands for."""
    both = [pair for pair in pairs if not any(came_short(pair))]
    if measure == "cost":
        weight = sum(1 / pair.share for pair in both)
        mean = sum(pair.champion.billed / pair.share for pair in both) / weight if both else 0.0
        return [(_over(pair.challenger_side.billed - pair.champion.billed, mean), 1 / pair.share) for pair in both]
    if measure == "votes":  # people take pairs as they come to them: a look must not find new ones before old ones
        both.sort(key=lambda pair: pair.voted or 0.0)
    if measure in OF_PICTURES:
        return [(pair.measures[measure], 1 / pair.share) for pair in both if measure in pair.measures]
    found = [(_DIFFERENCES[measure](pair), 1 / pair.share) for pair in both]
    return [(value, weight) for value, weight in found if value is not None]


def planned_pairs(measure: Measure, alpha: float, margin: float, *, spread: float) -> int:
    """Pairs within which a difference as large as the margin is found, and equal things are called equivalent.

    `spread` is the standard deviation of a pair's difference; of failures, the rate at which the champion fails.
    """
    if measure == "failures":
        rate = max(spread, RARE)
        scatter = sqrt(2 * rate * (1 - rate))
        return max(pairs_to_tell_failures(rate, rate + margin, alpha), pairs_to_equate(margin, scatter, alpha))
    inner = log(1 + margin) if measure == "latency" else margin
    return max(pairs_to_tell(inner, spread, alpha), pairs_to_equate(inner, spread, alpha))


def _read_failures(pairs: Sequence[Pair], *, alpha: float, margin: float, days: float) -> Reading:
    ended = [came_short(pair) for pair in pairs]
    first = ended[:FEWEST_FOR_FAILURES]
    whole = len(first) == FEWEST_FOR_FAILURES
    rate = sum(champion for champion, _ in first) / len(first) if whole else USUAL_FAILURES
    plan = planned_pairs("failures", alpha, margin, spread=rate)
    failures = Failures(Planned(pairs=plan, alpha=alpha, margin=margin), single_failures(RARE, RARE + 2 * margin))
    for champion, challenger in ended:
        failures.add(champion=champion, challenger=challenger)
    estimate = (failures.challenger - failures.champion) / len(ended) if ended else 0.0
    verdict, interval = failures.verdict(), failures.interval()
    if ended and failures.champion + failures.challenger == 0:  # had one side failed in more, one would have by now
        most = log(2 / alpha) / len(ended)
        interval = Interval(-most, most)
        verdict = "equivalent" if most < margin else "undecided"
    said = _said("failures", verdict, estimate, interval, margin)
    seen = _Seen(len(ended), plan, days)
    return _reading("failures", said, seen, interval, estimate=estimate, margin=margin)


class _Seen(Struct, frozen=True):
    """How many pairs of a plan there are, and in how many days they came."""

    pairs: int
    planned: int
    days: float


def _reading(
    measure: Measure, said: Said, seen: _Seen, interval: Interval, *, estimate: float, margin: float
) -> Reading:
    a_day = seen.pairs / seen.days if seen.days > 0 else 0.0
    open_ = said in {"undecided", "no worse"}
    left = seen.planned - seen.pairs
    return Reading(
        measure=measure,
        said=said,
        pairs=seen.pairs,
        planned=seen.planned,
        estimate=estimate,
        low=interval.low,
        high=interval.high,
        margin=margin,
        days_left=left / a_day if open_ and left > 0 and a_day > 0 else None,
        hopeless=open_ and seen.pairs >= PILOT and undecidable(seen.planned, a_day),
    )


def _said(measure: Measure, verdict: Verdict, estimate: float, sides: Interval, margin: float) -> Said:
    """What a verdict on a difference means for the challenger; each end of `sides` may be believed by itself."""
    if verdict == "equivalent":
        return "equivalent"
    if verdict != "undecided" and abs(estimate) > margin:
        return "better" if (verdict == "higher") == (measure in HIGHER_IS_BETTER) else "worse"
    worst = -sides.low if measure in HIGHER_IS_BETTER else sides.high
    return "no worse" if worst < margin else "undecided"


def _latency(pair: Pair) -> float | None:
    one, other = pair.champion.latency_s, pair.challenger_side.latency_s
    return max(-CLIP, min(CLIP, log(other / one))) if one > 0 and other > 0 else None


def _queue(pair: Pair) -> float | None:
    one, other = pair.champion.queue_s, pair.challenger_side.queue_s
    return None if one is None or other is None else other - one


_DIFFERENCES: Mapping[Measure, Callable[[Pair], float | None]] = {
    "latency": _latency,
    "queue": _queue,
}


def _spread(values: Sequence[float]) -> float | None:
    """The standard deviation of the pilot; None before it is over."""
    if len(values) < PILOT:
        return None
    mean = sum(values) / len(values)
    return sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _over(difference: float, mean: float) -> float:
    """A difference of money as a share; of nothing, anything is infinitely much, and nothing is nothing."""
    return difference / mean if mean > 0 else 0.0 if difference == 0 else difference


def _shares(logarithm: float) -> float:
    return exp(min(logarithm, 50.0)) - 1 if isfinite(logarithm) else logarithm


def _as_it_is(value: float) -> float:
    return value
