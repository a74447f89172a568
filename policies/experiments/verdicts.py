"""What an experiment's pairs say: switch, stay, or not yet decided; by challenger, and why.

    switch   no measure is worse by more than its margin, and one is surely better
    stay     one is surely worse; or all are the same, and nothing is to be gained
    open     neither can be said yet: more pairs will tell, or `hopeless` says that they will not come in time

The allowed error is divided by everything that is looked at (measures, the slowest twentieth among them, times
challengers: Bonferroni), so whoever reads all of it, every day, is misled by one experiment of twenty at most. Strata
share another such error among them, evenly among as many as are ever judged: how many there will be, nobody knows when
the first is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from policies.bootstrap import ENOUGH, blocks_of, draws_of
from policies.experiments.definition import Challenger, Experiment, Measure, terms_of
from policies.experiments.pairs import Pair, Side
from policies.experiments.quantiles import QUANTILES, Quantile, quantile, ratio
from policies.experiments.readings import PILOT, Reading, came_short, of_another_size, read
from policies.money import NanoUsd

Judgement: TypeAlias = Literal["switch", "stay", "open"]

TAIL = 0.95
"""The quantile of latency that decides, beside the mean."""
STRATA_JUDGED = 20
"""Strata that are judged by themselves: the first that came, so that none takes another's place later.

Of the pairs that are kept: where those of a stratum are all forgotten before the end, another does take its place.
"""
MONTH_DAYS = 30.0
_DAY_S = 86_400.0
_LEAST_DAYS = 1 / 24
_ORDER: tuple[Measure, ...] = get_args(Measure)


class Tail(Struct, frozen=True, kw_only=True):
    """How long one of so many takes on either side, in seconds."""

    share: float
    champion: Quantile
    challenger: Quantile
    ratio: tuple[float, float]
    """Challenger over champion, at least and at most."""


class Money(Struct, frozen=True, kw_only=True):
    """What a switch is worth, in nano-dollars; less than 0 is saved."""

    champion: float
    """What a picture costs there."""
    challenger: float
    month: float
    """Change of a month's spending at today's traffic."""
    low: float
    high: float
    """Where 95 % of the bootstrap's draws lie; infinite where too few blocks were seen."""
    calls_a_month: float
    blocks: str
    """What was drawn."""


class Tally(Struct, frozen=True, kw_only=True):
    """One side in counts."""

    offers: Mapping[str, int]
    outcomes: Mapping[str, int]
    """delivered, refused, failed, timeout, blank -> how often."""
    errors: Mapping[str, int]
    """Class of error -> how often."""
    billed: NanoUsd
    quoted: NanoUsd


class Opinion(Struct, frozen=True, kw_only=True):
    """What some pairs of one challenger say of it against the champion."""

    verdict: Judgement
    why: tuple[Measure | Literal["tail"], ...]
    """The measures that decided it, or that are still open."""
    readings: tuple[Reading, ...]
    tails: tuple[Tail, ...]
    tail_is_worse: bool
    pairs: int
    days: float
    """From the first pair to the last; of a stratum, of all pairs."""
    money: Money | None
    """None: no pair in which both delivered."""
    days_left: float | None
    """Until every measure's plan is reached; None: it is decided, or nobody can tell."""
    hopeless: tuple[Measure, ...]
    """Measures that today's traffic, or what is left of the budget, cannot decide."""


class Stratum(Opinion, frozen=True, kw_only=True):
    """Some of the pairs by themselves."""

    name: str
    """As `sampling.stratum_of` writes it."""


class Verdict(Opinion, frozen=True, kw_only=True):
    """One challenger against the champion."""

    challenger: str
    set_aside: int
    """Pairs that compare something else: the experiment, or the challenger, was another under the same name."""
    strata: tuple[Stratum, ...]
    """Those of most pairs first."""
    disagree: Mapping[Measure, tuple[str, str]]
    """Measure -> a stratum in which it is surely lower, and one in which it is surely higher."""
    pictures: Mapping[str, float]
    """What was measured between the pictures of pairs, by name: means over those that have it."""
    other_sizes: int
    """Pairs whose challenger's picture has other pixels."""
    champion: Tally
    challenger_side: Tally


def judge(
    experiment: Experiment, pairs: Iterable[Pair], *, calls_a_day: float | None = None, seed: int = 1
) -> tuple[Verdict, ...]:
    """Judge every challenger; `calls_a_day` is how many calls it is about, told from its pairs where None."""
    ordered = sorted(pairs, key=lambda pair: (pair.at, pair.id))
    spent = sum(pair.challenger_side.billed for pair in ordered)
    return tuple(
        _judge(
            experiment, challenger, ordered, left=experiment.budget.total - spent, calls_a_day=calls_a_day, seed=seed
        )
        for challenger in experiment.challengers
    )


def pairs_of(experiment: Experiment, challenger: Challenger, pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs of a challenger that compare what the experiment compares now."""
    terms = terms_of(experiment, challenger)
    return [pair for pair in pairs if pair.challenger == challenger.name and pair.terms in {"", terms}]


def risk_of(experiment: Experiment) -> float:
    """The risk of each thing that is looked at."""
    looked_at = len(experiment.compare) + ("latency" in experiment.compare)
    return experiment.decide.error / (looked_at * len(experiment.challengers))


def compared(experiment: Experiment) -> list[Measure]:
    """What decides, in the order people read it."""
    return [measure for measure in _ORDER if measure in experiment.compare]


def _judge(
    experiment: Experiment, challenger: Challenger, of_all: Sequence[Pair], *, left: NanoUsd,
    calls_a_day: float | None, seed: int,
) -> Verdict:  # fmt: skip
    pairs = pairs_of(experiment, challenger, of_all)
    days = max((pairs[-1].at - pairs[0].at) / _DAY_S, _LEAST_DAYS) if pairs else 0.0
    stood_for = sum(1 / pair.share for pair in pairs)
    look = _Look(
        experiment=experiment,
        alpha=risk_of(experiment),
        days=days,
        left=left,
        each=sum(pair.challenger_side.billed for pair in pairs) / len(pairs) if pairs else 0.0,
        calls_a_day=(stood_for / days if calls_a_day is None else calls_a_day) if pairs else 0.0,
        stood_for=stood_for,
        seed=seed,
    )
    strata = _strata(look, pairs)
    return Verdict(
        challenger=challenger.name,
        set_aside=sum(pair.challenger == challenger.name for pair in of_all) - len(pairs),
        strata=strata,
        disagree=_disagreements(strata),
        pictures=_means_of(pairs),
        other_sizes=sum(of_another_size(pair) for pair in pairs),
        champion=_counted([pair.champion for pair in pairs]),
        challenger_side=_counted([pair.challenger_side for pair in pairs]),
        **_opinion(look, pairs),
    )


class _Look(Struct, frozen=True, kw_only=True):
    """What all opinions on a challenger share."""

    experiment: Experiment
    alpha: float
    days: float
    left: NanoUsd
    """Of the budget."""
    each: float
    """What a copy costs."""
    calls_a_day: float
    """All that the experiment is about."""
    stood_for: float
    """Calls that all pairs stand for."""
    seed: int


def _opinion(look: _Look, pairs: Sequence[Pair]) -> dict[str, Any]:
    """The fields of `Opinion`."""
    readings = _read_all(look.experiment, pairs, look.alpha, look.days)
    tails = _tails(pairs, look.alpha)
    slow = "latency" in look.experiment.compare and any(
        tail.share == TAIL and tail.ratio[0] > 1 + look.experiment.decide.margins["latency"] for tail in tails
    )
    verdict, why = _verdict(readings, tail_is_worse=slow)
    is_open = verdict == "open"
    hopeless = [reading.measure for reading in readings if is_open and _hopeless(reading, look.left, look.each)]
    waits = [reading.days_left for reading in readings if reading.days_left is not None]
    return {
        "verdict": verdict,
        "why": why,
        "readings": readings,
        "tails": tails,
        "tail_is_worse": slow,
        "pairs": len(pairs),
        "days": look.days,
        "money": _money(look, pairs),
        "days_left": max(waits) if is_open and waits and not hopeless else None,
        "hopeless": tuple(hopeless),
    }


def _read_all(experiment: Experiment, pairs: Sequence[Pair], alpha: float, days: float) -> tuple[Reading, ...]:
    margins = experiment.decide.margins
    return tuple(
        read(measure, pairs, alpha=alpha, margin=margins[measure], days=days) for measure in compared(experiment)
    )


def _verdict(
    readings: Sequence[Reading], *, tail_is_worse: bool
) -> tuple[Judgement, tuple[Measure | Literal["tail"], ...]]:
    worse: list[Measure | Literal["tail"]] = [each.measure for each in readings if each.said == "worse"]
    if tail_is_worse:
        worse.append("tail")
    if worse:
        return "stay", tuple(worse)
    better = tuple([each.measure for each in readings if each.said == "better"])
    unsure = tuple([each.measure for each in readings if each.said == "undecided"])
    if better and not unsure:
        return "switch", better
    if all(each.said == "equivalent" for each in readings):
        return "stay", tuple(each.measure for each in readings)
    return "open", unsure or tuple([each.measure for each in readings if each.said == "no worse"])


def _hopeless(reading: Reading, left: NanoUsd, each: float) -> bool:
    """Whether neither traffic nor money will decide a measure."""
    needed = reading.planned - reading.pairs
    unpaid = needed > 0 and reading.pairs >= PILOT and needed * each > left
    return not reading.decided and (reading.hopeless or unpaid)


def _tails(pairs: Sequence[Pair], alpha: float) -> tuple[Tail, ...]:
    both = [pair for pair in pairs if not any(came_short(pair))]
    if len(both) < PILOT:
        return ()
    ours = sorted(pair.champion.latency_s for pair in both)
    theirs = sorted(pair.challenger_side.latency_s for pair in both)
    found = [(share, quantile(ours, share, alpha / 2), quantile(theirs, share, alpha / 2)) for share in QUANTILES]
    return tuple(Tail(share=share, champion=one, challenger=two, ratio=ratio(two, one)) for share, one, two in found)


def _strata(look: _Look, pairs: Sequence[Pair]) -> tuple[Stratum, ...]:
    """The opinions on the first strata that came; none where there is but one."""
    names = list(dict.fromkeys(pair.stratum for pair in pairs))
    if len(names) < 2:
        return ()
    closer = replace(look, alpha=look.alpha / STRATA_JUDGED)
    members = {name: [pair for pair in pairs if pair.stratum == name] for name in names[:STRATA_JUDGED]}
    found = [Stratum(name=name, **_opinion(closer, some)) for name, some in members.items()]
    return tuple(sorted(found, key=lambda each: -each.pairs))


def _disagreements(strata: Sequence[Stratum]) -> Mapping[Measure, tuple[str, str]]:
    found: dict[Measure, tuple[str, str]] = {}
    lowest: dict[Measure, str] = {}
    highest: dict[Measure, str] = {}
    for stratum in strata:
        for reading in stratum.readings:
            if reading.said == "equivalent":
                continue
            if reading.high < 0:
                lowest.setdefault(reading.measure, stratum.name)
            elif reading.low > 0:
                highest.setdefault(reading.measure, stratum.name)
    for measure, name in lowest.items():
        if measure in highest:
            found[measure] = (name, highest[measure])
    return found


def _means_of(pairs: Sequence[Pair]) -> Mapping[str, float]:
    seen: dict[str, list[float]] = {}
    for pair in pairs:
        for name, value in pair.measures.items():
            seen.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in sorted(seen.items())}


def _counted(sides: Sequence[Side]) -> Tally:
    return Tally(
        offers=dict(Counter(side.offer for side in sides).most_common()),
        outcomes=dict(Counter(side.outcome for side in sides).most_common()),
        errors=dict(Counter(side.error for side in sides if side.error is not None).most_common()),
        billed=sum(side.billed for side in sides),
        quoted=sum(side.quoted for side in sides),
    )


def _money(look: _Look, pairs: Sequence[Pair]) -> Money | None:
    """What a month would cost more or less, with the failures of neither."""
    both = [pair for pair in pairs if not any(came_short(pair))]
    if not both:
        return None
    weight = np.array([1 / pair.share for pair in both])
    ours = np.array([pair.champion.billed for pair in both], dtype=np.float64)
    theirs = np.array([pair.challenger_side.billed for pair in both], dtype=np.float64)
    part = sum(1 / pair.share for pair in pairs) / look.stood_for
    calls = part * look.calls_a_day * MONTH_DAYS
    block, blocks, name = blocks_of(np.array([pair.at for pair in both]))
    low, high = -inf, inf
    if blocks >= ENOUGH:
        more = np.bincount(block, weights=weight * (theirs - ours), minlength=blocks)
        stood_for = np.bincount(block, weights=weight, minlength=blocks)
        draws = draws_of(blocks, look.seed)
        low, high = (float(end) * calls for end in np.percentile((draws @ more) / (draws @ stood_for), (2.5, 97.5)))
    mean, other = float((weight * ours).sum() / weight.sum()), float((weight * theirs).sum() / weight.sum())
    return Money(champion=mean, challenger=other, month=(other - mean) * calls, low=low, high=high,
                 calls_a_month=calls, blocks=f"{blocks:,} {name}")  # fmt: skip
