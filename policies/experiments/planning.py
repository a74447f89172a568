"""What an experiment will cost and when it can say something, before the first copy is drawn.

Prices of copies are quotes, call by call, and so is the spread of the differences in cost; the spread of latencies and
the rate of failures are the champion's own, of the same days. A copy is as likely as a sample says; where the day's
budget ends first, the rest of the day goes without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt

from msgspec import Struct

from policies.catalog import Catalog
from policies.eligibility import objection
from policies.experiments.definition import Challenger, Experiment, Facts, Measure, copied
from policies.experiments.readings import USUAL_FAILURES, USUAL_SPREADS, planned_pairs
from policies.experiments.sampling import share_of
from policies.experiments.significance import PATIENCE_DAYS, undecidable
from policies.experiments.verdicts import compared, risk_of
from policies.money import NanoUsd
from policies.offer_prices import quote_at
from policies.tariffs import Unpriced
from policies.types import Ask, Constraints, Offer
from providers.contract import ImageRequest

_DAY_S = 86_400.0


class Volume(Struct, frozen=True, kw_only=True):
    """Calls alike, and how many of them come in a day."""

    facts: Facts
    request: ImageRequest
    """One order of it."""
    a_day: float


class Past(Struct, frozen=True, kw_only=True):
    """What is known of the champion; None: nothing yet, and the usual is assumed."""

    latency_spread: float | None = None
    """Standard deviation of the log latency of calls alike."""
    queue_spread: float | None = None
    """Standard deviation of the seconds in the seller's queue."""
    failures: float | None = None
    """Orders that failed, as a part of 1."""


class MeasurePlan(Struct, frozen=True, kw_only=True):
    """One measure before there are pairs."""

    measure: Measure
    pairs: int
    """What the comparison is sized for."""
    days: float
    """Until that many are drawn; infinite where none is."""
    hopeless: bool
    """Whether traffic or money will not reach that far."""
    assumed: bool
    """Whether its spread is the usual one, for nothing was recorded."""


class ChallengerPlan(Struct, frozen=True, kw_only=True):
    """Copies for one challenger."""

    challenger: str
    copies_a_day: float
    """What the budget lets through."""
    each: NanoUsd
    """Mean quote of a copy."""
    champion_each: NanoUsd
    """Mean quote of the same pictures at the champion."""
    a_day: NanoUsd
    unable: Mapping[str, float]
    """Why it cannot draw -> copies a day that are not drawn for that."""
    measures: tuple[MeasurePlan, ...]


class Plan(Struct, frozen=True, kw_only=True):
    """An experiment before it starts."""

    experiment: str
    calls_a_day: float
    """Those it is about."""
    copied_a_day: float
    """Those of them that the sample takes, budget or not."""
    wanted: NanoUsd
    """What a day of copies would cost without a limit."""
    a_day: NanoUsd
    """What it will cost: no more than the budget."""
    in_all: NanoUsd
    """What it will have cost by `ends`."""
    ends: float | None
    """Days from its start, or now, until it stops or its money is spent; None: without end, for it spends nothing."""
    challengers: tuple[ChallengerPlan, ...]

    @property
    def hopeless(self) -> bool:
        """Whether a challenger has a measure that will not be decided."""
        return any(measure.hopeless for each in self.challengers for measure in each.measures)

    @property
    def decided_in(self) -> float | None:
        """Days until everything can be said; None where something cannot be."""
        days = [measure.days for each in self.challengers for measure in each.measures]
        return None if self.hopeless or not days else max(days)


def plan(
    experiment: Experiment, volumes: Iterable[Volume], catalog: Catalog, *, past: Past, at: float, spent: NanoUsd = 0
) -> Plan:
    """Price and size an experiment at some volumes, as seen at a moment (unix seconds).

    `spent` is what its copies have cost so far.
    """
    ours = [volume for volume in volumes if experiment.champion.served(volume.facts.champion)]
    taken = [(volume, volume.a_day * share_of(experiment.sample, volume.facts)) for volume in ours]
    drafts = [_draft(challenger, taken, catalog) for challenger in experiment.challengers]
    wanted = sum(draft.a_day for draft in drafts)
    part = min(1.0, experiment.budget.day / wanted) if wanted else 0.0
    a_day = wanted * part
    left = max(experiment.budget.total - spent, 0)
    ends = left / a_day if a_day else None
    if experiment.stop is not None:
        lasts = max(experiment.stop - max(experiment.start or at, at), 0.0) / _DAY_S
        ends = lasts if ends is None else min(ends, lasts)
    alpha = risk_of(experiment)
    return Plan(
        experiment=experiment.name,
        calls_a_day=sum(volume.a_day for volume in ours),
        copied_a_day=sum(a_day for _, a_day in taken),
        wanted=round(wanted),
        a_day=round(a_day),
        in_all=round(a_day * (ends or 0.0)),
        ends=ends,
        challengers=tuple(
            ChallengerPlan(
                challenger=draft.name,
                copies_a_day=draft.copies * part,
                each=round(draft.a_day / draft.copies) if draft.copies else 0,
                champion_each=round(draft.champion_a_day / draft.copies) if draft.copies else 0,
                a_day=round(draft.a_day * part),
                unable=draft.unable,
                measures=tuple(_measures(experiment, alpha, draft, past, part, ends)),
            )
            for draft in drafts
        ),
    )


class _Draft(Struct, kw_only=True):
    """A challenger's copies of a day, without a limit."""

    name: str
    copies: float = 0.0
    a_day: float = 0.0
    champion_a_day: float = 0.0
    differences: list[tuple[float, float]]
    """What a copy costs more than its call, and how many are like it in a day."""
    unable: dict[str, float]


def _draft(challenger: Challenger, taken: Sequence[tuple[Volume, float]], catalog: Catalog) -> _Draft:
    draft = _Draft(name=challenger.name, differences=[], unable={})
    for volume, copies in taken:
        if copies <= 0:
            continue
        champion = volume.facts.champion
        name = challenger.offer_of(champion)
        offer = catalog.offers.get(name)
        request = copied(volume.request, challenger)
        why = f"{name} is not sold" if offer is None else _refusal(offer, request, volume.facts)
        try:
            quoted = 0 if offer is None or why else quote_at(offer, request).amount
            ours = quote_at(champion, volume.request).amount
        except Unpriced as error:
            why = f"{name}: {error}"
            quoted = ours = 0
        if why is not None:
            draft.unable[why] = draft.unable.get(why, 0.0) + copies
            continue
        draft.copies += copies
        draft.a_day += copies * quoted
        draft.champion_a_day += copies * ours
        draft.differences.append((quoted - ours, copies))
    return draft


def _refusal(offer: Offer, request: ImageRequest, facts: Facts) -> str | None:
    terms = Constraints(models=frozenset({offer.model}))
    ask = Ask(call_id="", part=0, request=request, constraints=terms, team=facts.about.team, arrived=0.0)
    found = objection(offer, ask)
    return None if found is None else found.reason


def _measures(
    experiment: Experiment, alpha: float, draft: _Draft, past: Past, part: float, ends: float | None
) -> Iterable[MeasurePlan]:
    a_day = draft.copies * part
    for measure in compared(experiment):
        known = _spread(measure, draft, past)
        usual = USUAL_FAILURES if measure == "failures" else USUAL_SPREADS.get(measure, 0.0)
        pairs = planned_pairs(
            measure, alpha, experiment.decide.margins[measure], spread=usual if known is None else known
        )
        days = pairs / a_day if a_day else float("inf")
        yield MeasurePlan(
            measure=measure,
            pairs=pairs,
            days=days,
            hopeless=undecidable(pairs, a_day)
            or days > experiment.keep / _DAY_S
            or (ends is not None and days > min(ends, PATIENCE_DAYS)),
            assumed=known is None,
        )


def _spread(measure: Measure, draft: _Draft, past: Past) -> float | None:
    """The spread of a pair's difference; of failures, the champion's rate."""
    if measure == "cost":
        return _cost_spread(draft)
    if measure == "failures":
        return past.failures
    one = {"latency": past.latency_spread, "queue": past.queue_spread}.get(measure)
    return None if one is None else one * sqrt(2)


def _cost_spread(draft: _Draft) -> float | None:
    mean = draft.champion_a_day / draft.copies if draft.copies else 0.0
    if not mean:
        return None
    middle = sum(value * copies for value, copies in draft.differences) / draft.copies
    squares = sum((value - middle) ** 2 * copies for value, copies in draft.differences) / draft.copies
    return sqrt(squares) / mean
