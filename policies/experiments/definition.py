"""An experiment: whose calls are compared with which other sellers, how many of them, for how much, and by what rule.

People write them in a policy (`policies/policy_file/experiments.py`); `sampling.py` says which calls one takes,
`verdicts.py` what its pairs say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal, TypeAlias

from msgspec import Struct, field
from msgspec.structs import replace

from policies.money import NanoUsd
from policies.rules import About, Condition
from policies.types import Offer, Tier
from providers.contract import ImageRequest

Measure: TypeAlias = Literal["cost", "latency", "queue", "failures", "score", "clip", "aesthetic", "judge", "votes"]
Param: TypeAlias = str | int | float | bool

MARGINS: Mapping[Measure, float] = {
    "cost": 0.02,
    "latency": 0.10,
    "queue": 0.5,
    "failures": 0.01,
    "score": 0.02,
    "clip": 0.5,
    "aesthetic": 0.1,
    "judge": 0.1,
    "votes": 0.1,
}
"""Differences that do not matter in practice: shares of cost and latency, seconds in a queue, failures as parts of 1,
and points: of a score between 0 and 1, of CLIP's hundred, of an aesthetic score from 1 to 10; and, as a part of the
pairs judged or voted on, those the challenger won less those it lost."""
OF_PICTURES: frozenset[Measure] = frozenset({"score", "clip", "aesthetic", "judge", "votes"})
"""Measured between the pictures of a pair, in points of which more is better: challenger less champion."""
LONGEST_KEPT = 365 * 86_400.0


class Arm(Struct, frozen=True, kw_only=True):
    """Whose live calls an experiment is about; None asks nothing."""

    provider: str | None = None
    """A provider account, or a kind."""
    model: str | None = None

    def served(self, offer: Offer) -> bool:
        """Whether a call that an offer was asked for first is one of them."""
        by_provider = self.provider is None or self.provider in {offer.account, offer.kind}
        return by_provider and self.model in {None, offer.model}

    def __str__(self) -> str:
        """As people read it: `fal:flux-dev`, `fal`, or the model alone."""
        return ":".join(part for part in (self.provider, self.model) if part) or "any"


class Challenger(Struct, frozen=True, kw_only=True):
    """Where copies go, and how they are asked for."""

    name: str
    account: str
    model: str | None = None
    """None: the model that served the call."""
    params: Mapping[str, Param] = {}
    """`steps` and `guidance` of the request; any other is a field of the seller's, sent as it stands."""

    def offer_of(self, champion: Offer) -> str:
        """The id of the offer that a copy of a call goes to."""
        _, slash, operation = champion.id.partition("/")
        return f"{self.account}:{self.model or champion.model}{slash}{operation}"


class Calls(Struct, frozen=True, kw_only=True):
    """Some calls, by what they are like; all that is said must hold."""

    like: Condition = Condition()
    tiers: frozenset[Tier] | None = None

    def include(self, facts: Facts) -> bool:
        """Whether a call is one of them."""
        return (self.tiers is None or facts.tier in self.tiers) and self.like.holds(facts.about, facts.minute)


class Facts(Struct, frozen=True, kw_only=True):
    """A call that has ended, as far as an experiment looks at it."""

    call_id: str
    about: About
    """Team, key, tags, the model asked for, intent, operation."""
    tier: Tier
    """What it asked for at least."""
    width: int
    height: int
    champion: Offer
    """Who was asked first. Where it failed and another delivered, that failure is the champion's side of the pair: were
    only calls copied that it delivered, it would never fail."""
    at: float
    """When it came (unix seconds)."""
    minute: int | None = None
    """The minute of the week that was, in the policy's zone (`Rules.minute`)."""


class Sample(Struct, frozen=True, kw_only=True):
    """Which calls are copied: `never` goes before `always`, that before the first of `by`, and that before `share`."""

    share: float = 0.05
    by: tuple[tuple[Calls, float], ...] = ()
    """Calls -> the share that is copied of them."""
    stratify: tuple[str, ...] = ()
    """What results are told apart by: tier, size, intent, team, model, operation, or `tag:NAME`."""
    always: tuple[Calls, ...] = ()
    never: tuple[Calls, ...] = ()


class Allowance(Struct, frozen=True, kw_only=True):
    """Most that all copies of an experiment may cost."""

    day: NanoUsd
    """In a day, counted in UTC."""
    total: NanoUsd


class Decide(Struct, frozen=True, kw_only=True):
    """How its pairs are judged."""

    error: float = 0.05
    """Probability at most that a challenger that is the same in everything is called different in anything."""
    margins: Mapping[Measure, float] = field(default_factory=lambda: dict(MARGINS))
    """Measure -> the difference below which nobody minds."""


class Experiment(Struct, frozen=True, kw_only=True):
    """One comparison on live calls."""

    name: str
    champion: Arm = Arm()
    challengers: tuple[Challenger, ...]
    sample: Sample = Sample()
    budget: Allowance
    start: float | None = None
    """Unix seconds; None: as soon as the policy is in force."""
    stop: float | None = None
    """Unix seconds; None: until it is taken out, or its budget is spent."""
    compare: frozenset[Measure] = frozenset({"cost", "latency", "failures"})
    decide: Decide = Decide()
    keep: float = 30 * 86_400.0
    """Seconds for which pairs and their pictures are kept."""

    def runs(self, at: float) -> bool:
        """Whether a call that comes at a moment can be one of it."""
        return (self.start is None or at >= self.start) and self.stop_is_ahead(at)

    def stop_is_ahead(self, at: float) -> bool:
        """Whether its end has not come by a moment."""
        return self.stop is None or at < self.stop

    def challenger(self, name: str) -> Challenger | None:
        """The challenger of that name."""
        return next((each for each in self.challengers if each.name == name), None)


def terms_of(experiment: Experiment, challenger: Challenger) -> str:
    """What is compared with what, so that pairs from before a change under the same names are told from those since."""
    champion = experiment.champion
    return json.dumps(
        [champion.provider, champion.model, challenger.account, challenger.model, *challenger.params.items()]
    )


def copied(request: ImageRequest, challenger: Challenger) -> ImageRequest:
    """What a challenger is asked for: the call's own prompt, seed and size, with the challenger's parameters."""
    mine = {name: challenger.params[name] for name in ("steps", "guidance") if name in challenger.params}
    return replace(request, **mine)


def fields_of(challenger: Challenger) -> Mapping[str, Param]:
    """What is sent beside the request, in the seller's own words."""
    return {name: value for name, value in challenger.params.items() if name not in {"steps", "guidance"}}
