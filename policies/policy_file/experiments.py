"""Experiments as people type them: whose calls, which challengers, how many copies, for how much.

- experiment: together-for-flux-dev
  champion: {provider: fal, model: flux-dev}
  challengers: [{name: together, account: together}]
  sample: {share: 10%}
  budget: {day: $5, total: $100}
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, tzinfo
from typing import Annotated, TypeAlias, TypeVar, get_args

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from policies.experiments.definition import (
    LONGEST_KEPT,
    MARGINS,
    Allowance,
    Arm,
    Calls,
    Challenger,
    Decide,
    Experiment,
    Measure,
    Param,
    Sample,
)
from policies.experiments.sampling import STRATA
from policies.policy_file.rules import ConditionFile
from policies.policy_file.values import Dollars, Duration, Name, Section, Share, Tiers

MOST_CHALLENGERS = 8
V = TypeVar("V")
_DAY = "%Y-%m-%d"
_MOMENT = "%Y-%m-%d %H:%M"


def parse_day(value: object) -> datetime:
    """Read `2026-12-01` or `2026-12-01 08:00`, which are counted in the policy's `timezone`."""
    if isinstance(value, date):  # as YAML reads a day
        return datetime(value.year, value.month, value.day)  # noqa: DTZ001 - the policy knows the zone
    for form in (_MOMENT, _DAY):
        try:
            return datetime.strptime(str(value), form)  # noqa: DTZ007 - the policy knows the zone
        except ValueError:
            continue
    raise PydanticCustomError(
        "day",
        "{value} is no day: write one as in 2026-12-01, or a moment as in 2026-12-01 08:00",
        {"value": repr(value)},
    )


def some_money(value: int) -> int:
    """Refuse an allowance of nothing."""
    if value == 0:
        raise PydanticCustomError(
            "allowance", "copies that may cost nothing are never drawn: write a sum, as in $5", {}
        )
    return value


def some_measures(values: tuple[V, ...]) -> tuple[V, ...]:
    """Refuse to compare nothing."""
    if not values:
        raise PydanticCustomError("some", "nothing is compared: write cost, latency or another, or leave it out", {})
    return values


def each_once(values: tuple[V, ...]) -> tuple[V, ...]:
    """Refuse a word that is said twice: one of them was meant to be another."""
    twice = next((each for at, each in enumerate(values) if each in values[:at]), None)
    if twice is not None:
        raise PydanticCustomError("twice", "{value} is said twice: leave one out", {"value": repr(twice)})
    return values


def some_margin(value: float) -> float:
    """Refuse a margin of nothing: no two sellers were ever proved equal to the last digit."""
    if value == 0:
        raise PydanticCustomError(
            "margin", "a margin of 0 can never be kept to: write the difference nobody minds, or leave it out", {}
        )
    return value


def some_of_them(values: tuple[V, ...]) -> tuple[V, ...]:
    """Refuse none, and more than anybody can pay for. Not by a length of the field, which counts only what is right."""
    if not 1 <= len(values) <= MOST_CHALLENGERS:
        raise PydanticCustomError(
            "some", "{count} of them: write 1 to {most}", {"count": len(values), "most": MOST_CHALLENGERS}
        )
    return values


def known_stratum(value: str) -> str:
    """Refuse what results cannot be told apart by."""
    tag = value.removeprefix("tag:")
    if value in STRATA or (tag and tag != value):
        return value
    raise PydanticCustomError(
        "stratum",
        "results cannot be told apart by {value}: write {known}, or tag:NAME",
        {"value": repr(value), "known": ", ".join(STRATA)},
    )


Day: TypeAlias = Annotated[
    datetime,
    BeforeValidator(parse_day),
    WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d\d-\d\d( \d\d:\d\d)?$", "examples": ["2026-12-01"]}),
]
_Money: TypeAlias = Annotated[Dollars, AfterValidator(some_money)]
_ShareMargin: TypeAlias = Annotated[Share, AfterValidator(some_margin)]
_Points: TypeAlias = Annotated[float, Field(ge=0, strict=False), AfterValidator(some_margin)]
_one_or_more_words = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
Strata: TypeAlias = Annotated[
    tuple[Annotated[str, AfterValidator(known_stratum)], ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    Field(strict=False),
    AfterValidator(each_once),
    WithJsonSchema(_one_or_more_words),
]
Params: TypeAlias = dict[
    Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")], Annotated[Param, Field(union_mode="smart")]
]


class ArmFile(Section):
    """Whose live calls."""

    provider: str | None = Field(default=None, description="Served by this provider account, or kind; by any.")
    model: str | None = Field(default=None, description="Drawn with this model of the catalogue; with any.")

    @model_validator(mode="after")
    def _says_something(self) -> ArmFile:
        if self.provider is None and self.model is None:
            raise PydanticCustomError("champion", "names nobody: write provider, model or both", {})
        return self


class ChallengerFile(Section):
    """Where copies go."""

    name: Name = Field(description="Its name, as reports show it.")
    account: str = Field(description="The provider account that draws the copies.")
    model: str | None = Field(default=None, description="The model it draws them with; the one that served.")
    params: Params = Field(
        default_factory=dict,
        description="How it is asked: steps, guidance, or a field the catalogue fixes for the offer; as the call was.",
    )


class CallsFile(ConditionFile):
    """Some calls."""

    tier: Tiers | None = Field(default=None, description="Calls that ask for these tiers; of any.")

    def calls(self) -> Calls:
        """Say it in the words of `policies.experiments`."""
        tiers = None if self.tier is None else frozenset(self.tier)
        return Calls(like=self.compiled(), tiers=tiers)


class SharedFile(CallsFile):
    """Some calls, and the share of them that is copied."""

    share: Share = Field(description="The share of these calls that is copied.")

    @model_validator(mode="after")
    def _says_whose(self) -> SharedFile:
        if self.model_fields_set == {"share"}:
            raise PydanticCustomError("condition", "says not which calls; a share of all is `sample.share`", {})
        return self


class SampleFile(Section):
    """Which calls are copied: never before always, that before by, that before share."""

    share: Share = Field(default=0.05, description="The share of other calls that is copied (5%).")
    by: tuple[SharedFile, ...] = Field(
        default=(), strict=False, description="Calls of which another share is copied; the first that fits counts."
    )
    stratify: Strata = Field(
        default=(),
        description="What results are told apart by, each with an even part of the day's budget: tier, size, intent, "
        "team, model, operation or tag:NAME; nothing.",
    )
    always: tuple[CallsFile, ...] = Field(default=(), strict=False, description="Calls that are always copied; none.")
    never: tuple[CallsFile, ...] = Field(default=(), strict=False, description="Calls that are never copied; none.")

    @model_validator(mode="after")
    def _takes_something(self) -> SampleFile:
        if not (self.share or self.always or any(each.share for each in self.by)):
            raise PydanticCustomError("sample", "takes no call: write a share above 0%", {})
        return self


class AllowanceFile(Section):
    """What copies may cost; callers are never charged for them."""

    day: _Money = Field(description="In a day, counted in UTC.")
    total: _Money = Field(description="In all.")


class MarginsFile(Section):
    """Differences below which nobody minds."""

    cost: _ShareMargin = Field(default=MARGINS["cost"], description="Of what a picture costs (2%).")
    latency: _ShareMargin = Field(default=MARGINS["latency"], description="Of the time it takes (10%).")
    queue: Annotated[Duration, AfterValidator(some_margin)] = Field(
        default=MARGINS["queue"], description="Of the time in the seller's queue (500ms)."
    )
    failures: _ShareMargin = Field(default=MARGINS["failures"], description="Of the calls that fail, in points (1%).")
    score: Annotated[float, Field(ge=0, le=1, strict=False), AfterValidator(some_margin)] = Field(
        default=MARGINS["score"], description="Of the score of a picture, between 0 and 1 (0.02)."
    )
    clip: _Points = Field(
        default=MARGINS["clip"], le=100, description="Of how well a picture shows its prompt, 100 x cosine (0.5)."
    )
    aesthetic: _Points = Field(
        default=MARGINS["aesthetic"], le=10, description="Of the aesthetic score of a picture, from 1 to 10 (0.1)."
    )
    judge: _Points = Field(
        default=MARGINS["judge"], le=1, description="Of the pairs the judge gives it, less those it does not (0.1)."
    )
    votes: _Points = Field(
        default=MARGINS["votes"], le=1, description="Of the pairs people give it, less those they do not (0.1)."
    )


class DecideFile(Section):
    """How pairs are judged."""

    error: Share = Field(
        default=0.05, gt=0, le=0.5, description="Most challengers, the same in everything, called different (5%)."
    )
    margins: MarginsFile = MarginsFile()


class ExperimentFile(Section):
    """One comparison on live calls."""

    experiment: Name = Field(description="Its name, as commands and reports show it.")
    because: Annotated[str, Field(min_length=1, max_length=300)] | None = Field(
        default=None, description="Why, in a sentence for those who read the report."
    )
    champion: ArmFile = Field(description="Whose live calls are compared.")
    challengers: Annotated[tuple[ChallengerFile, ...], AfterValidator(some_of_them)] = Field(
        strict=False, description="Who is compared with it; each draws every copied call."
    )
    sample: SampleFile = SampleFile()
    budget: AllowanceFile = Field(description="Most that copies may cost.")
    start: Day | None = Field(default=None, description="Not before this, in `timezone`; at once.")
    stop: Day | None = Field(default=None, description="Up to this, in `timezone`; until the budget is spent.")
    compare: Annotated[
        tuple[Measure, ...],
        BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
        Field(strict=False),
        AfterValidator(some_measures),
        AfterValidator(each_once),
        WithJsonSchema({"type": "array", "items": {"enum": list(get_args(Measure))}, "minItems": 1}),
    ] = Field(
        default=("cost", "latency", "failures"),
        description="What decides: any of cost, latency, queue, failures, score, clip, aesthetic, judge, votes; the "
        "three cost, latency, failures.",
    )
    decide: DecideFile = DecideFile()
    keep: Annotated[Duration, Field(ge=3_600, le=LONGEST_KEPT)] = Field(
        default=30 * 86_400.0, description="How long pairs and their pictures are kept, at least an hour (30d)."
    )

    def compiled(self, zone: tzinfo = UTC) -> Experiment:
        """Say it in the words of `policies.experiments`; days are those of a zone."""
        sample = self.sample
        given = self.decide.margins
        margins: Mapping[Measure, float] = {measure: getattr(given, measure) for measure in get_args(Measure)}
        return Experiment(
            name=self.experiment,
            champion=Arm(provider=self.champion.provider, model=self.champion.model),
            challengers=tuple(
                Challenger(name=each.name, account=each.account, model=each.model, params=dict(each.params))
                for each in self.challengers
            ),
            sample=Sample(
                share=sample.share,
                by=tuple((each.calls(), each.share) for each in sample.by),
                stratify=sample.stratify,
                always=tuple(each.calls() for each in sample.always),
                never=tuple(each.calls() for each in sample.never),
            ),
            budget=Allowance(day=self.budget.day, total=self.budget.total),
            start=None if self.start is None else self.start.replace(tzinfo=zone).timestamp(),
            stop=None if self.stop is None else self.stop.replace(tzinfo=zone).timestamp(),
            compare=frozenset(self.compare),
            decide=Decide(error=self.decide.error, margins=margins),
            keep=self.keep,
        )
