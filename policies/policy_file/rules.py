"""Rules as people type them: `when`, `unless`, and what then holds.

- rule: acme-stays-in-europe
when: {team: acme}
require: {region: eu, training: never}
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from policies.policy_file.values import Day, Days, Dollars, Duration, Name, Operations, Section, Size, TierWord, Words
from policies.rules import DAY, Condition, Rule
from policies.types import Bar, Params, Preference, Requirements
from providers.contract import Safety

_DAY_S = 86_400.0
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)", re.ASCII)


def parse_hours(value: object) -> tuple[int, int]:
    """Read minutes of the day of `22:00-06:00`."""
    found = _HOURS.fullmatch(value) if isinstance(value, str) else None
    begin, end = (int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])) if found else (0, 0)
    if found is None or end > DAY:
        raise PydanticCustomError(
            "hours",
            "{value} are no hours: write from-to with two digits each, as in 22:00-06:00",
            {"value": repr(value)},
        )
    if begin == end:
        raise PydanticCustomError("hours", "{value} begins where it ends, so it is never", {"value": repr(value)})
    return begin, end


def refuse_expression(value: object) -> object:
    """Refuse what is typed as an expression: conditions are keys."""
    if isinstance(value, str):
        raise PydanticCustomError(
            "expression", "expressions are not accepted: write conditions as keys, as in {{team: acme}}", {}
        )
    return value


Hours = Annotated[
    tuple[int, int],
    BeforeValidator(parse_hours),
    WithJsonSchema({"type": "string", "pattern": f"^{_HOURS.pattern}$", "examples": ["22:00-06:00"]}),
]


class RequireFile(Section):
    """What must hold for every call, whatever its caller says."""

    region: str | None = Field(default=None, description="Where prompts and pictures must be processed; anywhere.")
    training: Literal["allowed", "never"] = Field(
        default="allowed", description="Whether sellers may train on them (allowed)."
    )
    retention: Duration | None = Field(
        default=None, description="Longest that sellers may keep prompts and pictures; any time."
    )
    commercial: bool = Field(default=False, description="Only models whose pictures may be used commercially (no).")

    def compiled(self) -> Requirements:
        """Say it in the engine's words."""
        kept = None if self.retention is None else self.retention / _DAY_S
        return Requirements(region=self.region, training=self.training, retention_days=kept, commercial=self.commercial)


class SizeFile(Section):
    """Which sizes a condition is about, by their area."""

    over: Size | None = Field(default=None, description="Larger than this.")
    up_to: Size | None = Field(default=None, description="This large, or smaller.")

    @model_validator(mode="after")
    def _says_something(self) -> SizeFile:
        if self.over is None and self.up_to is None:
            raise PydanticCustomError("size", "says nothing: write over, up_to or both", {})
        over, up_to = self.areas
        if over is not None and up_to is not None and over >= up_to:
            raise PydanticCustomError("size", "no size is over the one and up to the other", {})
        return self

    @property
    def areas(self) -> tuple[int | None, int | None]:
        """Both in pixels."""
        return tuple(None if size is None else size[0] * size[1] for size in (self.over, self.up_to))  # type: ignore[return-value]  # two


class ConditionFile(Section):
    """What a call must be like; all that is said must hold, and of a list one."""

    team: Words | None = Field(default=None, description="Teams, one or a list.")
    key: Words | None = Field(default=None, description="API keys by their id, as `keys list` shows it.")
    tags: dict[str, Words] | None = Field(
        default=None, min_length=1, description="Tag -> the value it must have, one or a list; all tags must fit."
    )
    model: Words | None = Field(
        default=None, description="Models asked for by name; `auto` where the choice is left to us."
    )
    intent: Words | None = Field(default=None, description="Intents of this policy.")
    operation: Operations | None = Field(default=None, description="generate, edit or remove_background.")
    size: SizeFile | None = Field(default=None, description="The size of one picture, by its area.")
    hours: Hours | None = Field(default=None, description="Hours in which the call comes in, in `timezone`.")
    days: Days | None = Field(default=None, description="Days on which those hours begin; every day.")

    @model_validator(mode="after")
    def _says_something(self) -> ConditionFile:
        if not self.model_fields_set:
            raise PydanticCustomError("condition", "says nothing; leave it out to mean every call", {})
        return self

    def compiled(self) -> Condition:
        """Say it in the words of `policies.rules`."""
        over, up_to = self.size.areas if self.size else (None, None)
        return Condition(
            teams=_set(self.team),
            keys=_set(self.key),
            models=_set(self.model),
            intents=_set(self.intent),
            operations=_set(self.operation),
            tags=tuple((name, frozenset(values)) for name, values in (self.tags or {}).items()),
            over=over,
            up_to=up_to,
            hours=self.hours,
            days=None if self.days is None else frozenset(get_args(Day).index(day) for day in self.days),
        )


class OffersFile(Section):
    """What a rule allows or denies."""

    providers: Words | None = Field(default=None, description="Provider accounts, or kinds of them.")
    models: Words | None = Field(default=None, description="Models of the catalogue.")
    offers: Words | None = Field(default=None, description="Single offers, as in fal:flux-dev.")

    @model_validator(mode="after")
    def _says_something(self) -> OffersFile:
        if not self.model_fields_set:
            raise PydanticCustomError("offers", "names nothing: write providers, models or offers", {})
        return self


class PreferFile(Section):
    """Which of two offers goes first, where both may serve and have room."""

    offer: str = Field(description="The offer that goes first, as in together:flux-schnell.")
    over: str = Field(description="The offer that it goes before, though that costs less in all.")

    @model_validator(mode="after")
    def _are_two(self) -> PreferFile:
        if self.offer == self.over:
            raise PydanticCustomError("prefer", "is preferred to itself: name another offer", {})
        return self


class ParamsFile(Section):
    """How one offer is asked by calls that do not say."""

    offer: str = Field(description="The offer, as in together:flux-schnell.")
    steps: int | None = Field(default=None, ge=1, le=500, description="Steps it draws in; its own default.")
    guidance: Annotated[float, Field(ge=0, le=100, strict=False)] | None = Field(
        default=None, description="How closely it keeps to the prompt; its own default."
    )

    @model_validator(mode="after")
    def _says_something(self) -> ParamsFile:
        if self.steps is None and self.guidance is None:
            raise PydanticCustomError("params", "say nothing: write steps, guidance or both", {})
        return self


class RuleFile(Section):
    """One rule: for which calls, and what then holds."""

    rule: Name = Field(description="Its name, as rejections and decisions show it.")
    because: Annotated[str, Field(min_length=1, max_length=300)] | None = Field(
        default=None, description="Why, in a sentence for those it stops."
    )
    when: Annotated[ConditionFile | None, BeforeValidator(refuse_expression)] = Field(
        default=None, description="Which calls it is about; every call."
    )
    unless: Annotated[ConditionFile | None, BeforeValidator(refuse_expression)] = Field(
        default=None, description="Which of those it is not about; none."
    )
    allow: OffersFile | None = Field(default=None, description="Only these may serve; each list narrows on its own.")
    deny: OffersFile | None = Field(default=None, description="None of these may serve.")
    prefer: tuple[PreferFile, ...] | None = Field(
        default=None,
        strict=False,
        description="Offers that go right before others, unless the caller says who is first.",
    )
    params: tuple[ParamsFile, ...] | None = Field(
        default=None, strict=False, description="How offers are asked by calls that do not say; as the seller does."
    )
    ceiling: Dollars | None = Field(default=None, description="Most that one picture may cost.")
    latency_ceiling: Duration | None = Field(
        default=None, gt=0, description="Longest that an offer may nearly always (p95) take."
    )
    require: RequireFile | None = Field(default=None, description="As `require` of the policy, beside it.")
    safety: Safety | None = Field(default=None, description="At least this level: strict, standard or relaxed.")
    tier: TierWord | None = Field(default=None, description="The least tier, instead of the intent's.")
    latency_slo: Duration | None = Field(default=None, gt=0, description="Instead of the intent's.")
    deadline: Duration | None = Field(default=None, gt=0, description="Instead of the intent's.")
    late: Dollars | None = Field(default=None, description="Instead of the intent's.")
    late_second: Dollars | None = Field(default=None, description="Instead of the intent's.")
    failure: Dollars | None = Field(default=None, description="Instead of the intent's.")

    @model_validator(mode="after")
    def _does_something(self) -> RuleFile:
        if not self.model_fields_set - {"rule", "because", "when", "unless"}:
            raise PydanticCustomError("rule", "changes nothing: say what holds, as in deny, ceiling or require", {})
        return self

    @property
    def denies(self) -> bool:
        """Whether it can leave a call with nobody to serve it, by names."""
        return self.allow is not None or self.deny is not None

    def compiled(self) -> Rule:
        """Say it in the words of `policies.rules`."""
        return Rule(
            name=self.rule,
            when=self.when.compiled() if self.when else None,
            unless=self.unless.compiled() if self.unless else None,
            bars=tuple(
                Bar(
                    rule=self.rule,
                    because=self.because or "",
                    only=named is self.allow,
                    providers=_set(named.providers),
                    models=_set(named.models),
                    offers=_set(named.offers),
                )
                for named in (self.allow, self.deny)
                if named is not None
            ),
            preferred=tuple(Preference(offer=each.offer, over=each.over) for each in self.prefer or ()),
            params=tuple(
                Params(offer=each.offer, steps=each.steps, guidance=each.guidance) for each in self.params or ()
            ),
            ceiling=self.ceiling,
            latency_ceiling=self.latency_ceiling,
            require=self.require.compiled() if self.require else None,
            safety=self.safety,
            tier=self.tier,
            slo=self.latency_slo,
            deadline=self.deadline,
            late=self.late,
            late_second=self.late_second,
            failure=self.failure,
        )


def _set(words: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if words is None else frozenset(words)
