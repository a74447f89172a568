"""What the commands about experiments share: which one is meant, and the calls it would have copied."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from math import log, sqrt
from typing import Annotated

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number
from msgspec import Struct
from msgspec.structs import replace

from gateway.cli.shell import COMMAND, Stop, open_records, run_async
from gateway.features.shadow_budgets import budgets_of
from gateway.revisions import Revision
from gateway.settings import Settings
from gateway.storage.activity import RecordedCall
from gateway.storage.budgets import window_at
from gateway.storage.database import Database
from gateway.storage.rows import AttemptRow
from gateway.storage.shadows import PARTY
from gateway.yaml_files import nearest
from policies.experiments.definition import Calls, Experiment, Facts
from policies.experiments.planning import Past, Volume
from policies.policy_file.lint_experiments import champions
from policies.rules import About
from policies.types import Ask, Offer
from providers.contract import ImageRequest

Days = Annotated[float, Parameter(validator=Number(gt=0, lte=3660))]
_ask = msgspec.json.Decoder(Ask).decode
_FEWEST = 30
"""Orders from which the champion's spread is read; with fewer the usual is assumed."""


def experiment_of(revision: Revision, name: str) -> Experiment:
    """An experiment of a policy by its name; stops where there is none."""
    experiments = revision.policy.experiments
    found = next((each for each in experiments if each.name == name), None)
    if found is None:
        names = [each.name for each in experiments]
        meant = nearest(name, names)
        known = f"there are: {', '.join(names)}" if names else "it has none; write one under `experiments:`"
        raise Stop(f"{revision.policy.label} has no experiment called {name!r}; {meant or known}")
    return found


class Traffic(Struct, frozen=True):
    """What was recorded of live calls and of copies."""

    volumes: list[Volume]
    past: dict[str, Past]
    """Name of an experiment -> what is known of its champion."""
    spent: dict[str, int]
    """Name of an experiment -> nano-dollars of its copies so far."""
    days: float
    """How long the calls took to come."""


def traffic_of(settings: Settings, revision: Revision, experiments: Sequence[Experiment], days: float) -> Traffic:
    """The calls of the last days as volumes, and what is known of the champions; stops where there are no records."""
    return run_async(_read(open_records(settings), revision, experiments, days))


async def _read(db: Database, revision: Revision, experiments: Sequence[Experiment], days: float) -> Traffic:
    since = datetime.now(UTC) - timedelta(days=days)
    closely = any(_looks_closely(experiment) for experiment in experiments)
    volumes: list[Volume] = []
    try:
        after: str | None = ""
        first = None
        while after is not None:
            calls, after = await db.recorded_calls(after, since)
            for call in calls:
                first = call.at if first is None else min(first, call.at)
                tags, key = await _tags_and_key(db, call.call_id) if closely else ({}, "")
                volumes += _volumes(call, revision, tags, key)
        spanned = days if first is None else min(days, max((datetime.now(UTC) - first) / timedelta(days=1), 1 / 24))
        past = {each.name: await _past(db, each, revision, since) for each in experiments}
        spent = {each.name: await spent_on(db, each) for each in experiments}
    finally:
        await db.aclose()
    return Traffic([replace(each, a_day=each.a_day / spanned) for each in volumes], past, spent, spanned)


async def spent_on(db: Database, experiment: Experiment) -> int:
    """Nano-dollars of an experiment's copies so far, those under way included."""
    _, total = budgets_of(experiment, datetime.now(UTC))
    counters = await db.counters(total.id, [window_at(total, total.created).name])
    return sum(each.held + each.posted for each in counters.values())


def _looks_closely(experiment: Experiment) -> bool:
    """Whether its sample asks for tags or keys, which stand elsewhere than the rest."""
    sample = experiment.sample
    calls: list[Calls] = [*(each for each, _ in sample.by), *sample.always, *sample.never]
    return any(each.like.tags or each.like.keys is not None for each in calls)


async def _tags_and_key(db: Database, call_id: str) -> tuple[dict[str, str], str]:
    """What a call was tagged with, as long as that is kept, and the key it came with."""
    recipe = await db.recipe(call_id)
    attempts = await db.attempts(call_id)
    tags = recipe.request.get("tags") if recipe is not None else None
    return dict(tags) if isinstance(tags, dict) else {}, attempts[0].key_id if attempts else ""


def _volumes(call: RecordedCall, revision: Revision, tags: dict[str, str], key: str) -> list[Volume]:
    found = []
    for part in call.parts.values():
        champion = revision.catalog.offers.get(part.offer)
        if champion is not None:
            ask = _ask(part.ask)
            found.append(
                Volume(facts=_facts(call, ask, champion, revision, tags, key), request=ask.request,
                       a_day=float(part.delivered or 1))
            )  # fmt: skip
    return found


def _facts(call: RecordedCall, ask: Ask, champion: Offer, revision: Revision, tags: dict[str, str], key: str) -> Facts:
    request, models = ask.request, ask.constraints.models
    return Facts(
        call_id=call.call_id,
        about=About(
            team=call.team,
            key=key,
            tags=tags,
            model=next(iter(models)) if models is not None and len(models) == 1 else "auto",
            intent=ask.intent,
            operation=request.operation,
            pixels=request.width * request.height,
            at=call.at,
        ),
        tier=ask.constraints.tier,
        width=request.width,
        height=request.height,
        champion=champion,
        at=call.at.timestamp(),
        minute=revision.policy.rules.minute(call.at),
    )


def invented(revision: Revision, experiment: Experiment, a_day: float) -> list[Volume]:
    """So many calls a day at the champion, of the usual size; stops where nobody sells it."""
    policy = revision.policy
    width, height = policy.auto_size
    drawing = [each for each in champions(experiment, revision.catalog) if _draws(each, width, height)]
    if not drawing:
        raise Stop(f"no offer that is {experiment.champion} draws {width}x{height}; `{COMMAND} policy lint` says more")
    offer = next((each for each in drawing if _copied_by_all(each, experiment, revision)), drawing[0])
    intent = policy.intents[policy.default_intent]
    about = About(intent=intent.name, pixels=width * height)
    facts = Facts(call_id="", about=about, tier=intent.tier, width=width, height=height, champion=offer, at=0.0)
    return [Volume(facts=facts, request=ImageRequest(prompt="-", width=width, height=height), a_day=a_day)]


def _draws(offer: Offer, width: int, height: int) -> bool:
    return offer.abilities.operations[0] == "generate" and offer.abilities.sizes.allows(width, height)


def _copied_by_all(offer: Offer, experiment: Experiment, revision: Revision) -> bool:
    """Whether every challenger draws what an offer draws, at the usual size."""
    theirs = [revision.catalog.offers.get(each.offer_of(offer)) for each in experiment.challengers]
    return all(each is not None and _draws(each, *revision.policy.auto_size) for each in theirs)


async def _past(db: Database, experiment: Experiment, revision: Revision, since: datetime) -> Past:
    offers = {each.id: each for each in revision.catalog.offers.values() if experiment.champion.served(each)}
    accounts = sorted({each.account for each in offers.values()})
    rows = chain.from_iterable([await db.account_attempts(account, since) for account in accounts])
    return past_of([row for row in rows if row.offer_id in offers and not row.team.startswith(PARTY)])


def past_of(attempts: Sequence[AttemptRow]) -> Past:
    """What orders that are over say of whoever took them; the usual where they are few."""
    ended = [(row, row.outcome) for row in attempts if row.outcome is not None]
    if len(ended) < _FEWEST:
        return Past()
    alike: dict[tuple[str, int, int, int | None], list[float]] = defaultdict(list)
    queues = []
    for row, outcome in ended:
        if outcome.error is None and outcome.latency_s > 0:
            alike[row.offer_id, row.width, row.height, row.steps].append(log(outcome.latency_s))
            queues += [] if outcome.queue_s is None else [outcome.queue_s]
    return Past(
        latency_spread=_pooled(list(alike.values())),
        queue_spread=_pooled([queues]),
        failures=sum(outcome.error is not None for _, outcome in ended) / len(ended),
    )


def _pooled(groups: Sequence[Sequence[float]]) -> float | None:
    """The standard deviation within groups; None where too few values have any to be compared with."""
    squares, free = 0.0, 0
    for group in groups:
        mean = sum(group) / len(group) if group else 0.0
        squares += sum((value - mean) ** 2 for value in group)
        free += max(len(group) - 1, 0)
    return sqrt(squares / free) if free >= _FEWEST - 1 else None


async def calls_a_day(db: Database, experiment: Experiment, revision: Revision, since: datetime) -> float | None:
    """Pictures that the champion delivered to callers lately, in a day; None where there were none."""
    now = datetime.now(UTC)
    offers = {each.id for each in revision.catalog.offers.values() if experiment.champion.served(each)}
    seen = await db.activity(since, now, UTC)
    pictures = sum(
        spent.images
        for source, spent in seen.posted.items()
        if source.offer_id in offers and not source.team.startswith(PARTY)
    )
    if not pictures:
        return None
    (first,) = await db.entries(0, 1)
    return pictures / max((now - max(since, first.at)) / timedelta(days=1), 1 / 24)
