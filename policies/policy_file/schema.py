"""What a policy file may say; every fault is reported at once, under the key where it stands.

Seconds are typed with a unit (`500ms`, `3s`, `5m`, `24h`), money in dollars (`$0.002`), shares in percent (`85%`).
`compile_policy` turns a checked file into the `Policy` the gateway runs on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from policies.money import NanoUsd, from_usd
from policies.policy import (
    BreakerTerms,
    Crowding,
    Fallback,
    ForecastTerms,
    Hedging,
    Intent,
    Kept,
    Policy,
    Pool,
    Quality,
    ResponseFormat,
    Scarcity,
)
from policies.types import Requirements, Tier, Worth
from providers.contract import Safety

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", re.ASCII)
_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86_400)}
_DOLLARS = re.compile(r"\$?\s*(\d+(?:\.\d+)?)", re.ASCII)
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%", re.ASCII)
_SIZE = re.compile(r"(\d{2,5})x(\d{2,5})", re.ASCII)

_DAY_S = 86_400.0
_Loc: TypeAlias = tuple[str | int, ...]


def parse_duration(value: object) -> float:
    """Read seconds of `3s`, `500ms`, `5m`, `24h` or `7d`; a bare number is refused, since nobody can tell its unit."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise PydanticCustomError(
            "duration", "{value} is not a duration: write a number and its unit, as in 500ms or 3s", _shown(value)
        )
    return float(Decimal(found[1]) * _SECONDS[found[2]])


def parse_dollars(value: object) -> NanoUsd:
    """Read nano-dollars of `$0.002` or `0.002`."""
    found = None if isinstance(value, bool) else _DOLLARS.fullmatch(_decimal_text(value))
    if found is None:
        raise PydanticCustomError("dollars", "{value} is not an amount: write dollars, as in $0.002", _shown(value))
    try:
        return from_usd(found[1])
    except ValueError as fault:
        raise PydanticCustomError("dollars", "{value}: finer than a nano-dollar", _shown(value)) from fault


def parse_share(value: object) -> float:
    """Read a share of one, typed in percent (`85%` -> 0.85)."""
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if found is None or Decimal(found[1]) > 100:
        raise PydanticCustomError("share", "{value} is not a share: write 0% to 100%, as in 85%", _shown(value))
    return float(Decimal(found[1]) / 100)


def parse_size(value: object) -> tuple[int, int]:
    """Read width and height of `1024x1024`."""
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise PydanticCustomError("size", "{value} is not a size: write width x height, as in 1024x1024", _shown(value))
    return int(found[1]), int(found[2])


def parse_tier(value: object) -> Tier:
    """Find the tier behind `preview`, `standard` or `export`."""
    found = next((tier for tier in Tier if tier.word == value), None)
    if found is None:
        raise PydanticCustomError("tier", "{value} is not a tier: write preview, standard or export", _shown(value))
    return found


def _shown(value: object) -> dict[str, object]:
    return {"value": repr(value)}


def _decimal_text(value: object) -> str:
    # YAML reads 0.0005 as a float whose str() is 0.0005, but 0.00005 as one whose str() is 5e-05.
    return f"{Decimal(str(value)):f}" if isinstance(value, int | float) else str(value)


Duration = Annotated[float, BeforeValidator(parse_duration)]
Dollars = Annotated[int, BeforeValidator(parse_dollars)]
Share = Annotated[float, BeforeValidator(parse_share)]
Size = Annotated[tuple[int, int], BeforeValidator(parse_size)]
TierWord = Annotated[Tier, BeforeValidator(parse_tier)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]


class _Section(BaseModel):
    """A part of the file: unknown keys are errors, and what was read never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class IntentFile(_Section):
    """One intent: what a kind of picture is for."""

    tier: TierWord = Field(description="The least tier a model must have earned: preview, standard or export.")
    latency_slo: Duration = Field(description="From arrival; an answer after this counts as late.")
    deadline: Duration = Field(description="From arrival; nobody wants the answer after this.")
    late: Dollars = Field(default=0, description="What an answer after latency_slo costs, however late ($0).")
    late_second: Dollars = Field(default=2_000_000, description="What each second past latency_slo costs ($0.002).")
    failure: Dollars = Field(default=10_000_000, description="What a picture that does not come costs ($0.01).")
    ceiling: Dollars | None = Field(default=None, description="Most that one picture may cost; none as shipped.")
    promotes: str | None = Field(default=None, description="The intent whose pictures this one draws again, better.")
    keeps: tuple[Kept, ...] = Field(
        default=(), strict=False, description="What a promotion keeps: prompt, seed, aspect; nothing by default."
    )


class FallbackFile(_Section):
    """How far the gateway goes when an order fails."""

    attempts: int = Field(default=3, ge=1, le=10, description="Orders per picture in all, the first included (3).")
    timeouts: int = Field(default=1, ge=0, le=5, description="Timed-out orders that may be followed by another (1).")
    pause: Duration = Field(default=0.5, description="Before an unreachable offer is asked a second time (500ms).")
    refused_elsewhere: bool = Field(
        default=False, description="Whether a prompt one seller refuses is offered to another (no)."
    )
    better_tier: bool = Field(
        default=False, description="Whether another order may go to a better tier than the first, at its price (no)."
    )
    retry: Dollars = Field(default=1_500_000, description="What another order costs in trouble, beside time ($0.0015).")
    recurs: Share = Field(default=0.3, description="How often a picture whose order failed never comes (30%).")


class QueueFile(_Section):
    """Standing in line for room."""

    max_wait: Duration = Field(default=30.0, description="From arrival; then the caller is told to come back (30s).")


class SizesFile(_Section):
    """What sizes mean where the caller leaves them to us."""

    auto: Size = Field(default=(1024, 1024), description="Drawn when no size, or `auto`, is asked for (1024x1024).")


class ModelsFile(_Section):
    """What foreign model names mean here."""

    aliases: dict[str, str] = Field(
        default_factory=dict, description="Beginning of a model name -> auto or a model of the catalogue; none."
    )
    edits: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Models that may serve an edit whose caller leaves the model to us; any that can, as long as none.",
    )
    default_response_format: dict[str, ResponseFormat] = Field(
        default_factory=dict,
        description="Beginning of a model name -> url or b64_json, for callers who do not say; `default` is url.",
    )


class TeamAssetsFile(_Section):
    """What a team's pictures and prompts live for, where that differs."""

    keep: Duration | None = Field(default=None, ge=3_600, description="As `assets.keep`.")
    prompts: Duration | None = Field(default=None, description="As `assets.prompts`.")


class AssetsFile(_Section):
    """Keeping delivered pictures."""

    keep: Duration = Field(
        default=86_400.0, ge=3_600, description="How long a delivered picture can be fetched, at least an hour (24h)."
    )
    prompts: Duration | None = Field(
        default=None, description="How long what was asked for is kept, to promote by; until it is erased."
    )
    teams: dict[str, TeamAssetsFile] = Field(
        default_factory=dict, description="Team -> `keep` and `prompts` of its own, where they differ; none."
    )


class ContentFile(_Section):
    """How strictly what is drawn is checked."""

    safety: Safety = Field(
        default="standard", description="How strictly sellers check: strict, standard or relaxed (standard)."
    )
    teams: dict[str, Safety] = Field(
        default_factory=dict, description="Team -> strict, standard or relaxed, where it differs; none."
    )


class StreamingFile(_Section):
    """Showing something early."""

    preview: Dollars | None = Field(
        default=None, description="Most that a preview may cost which is shown as partial image 0; none is drawn."
    )


class CrowdingFile(_Section):
    """What it costs to take the last room of a capacity."""

    begins: Share = Field(default=0.85, lt=1, description="Share in use from which room counts as scarce (85%).")
    last_slot: Dollars = Field(default=500_000, description="Price of the very last slot ($0.0005).")


class ScarcityFile(_Section):
    """How capacity that will be missed later is priced now."""

    every: Duration = Field(default=5.0, description="Between two plans of bid prices; 0s turns them off (5s).")
    memory: Duration = Field(default=240.0, gt=0, description="Over which arrivals are averaged (4m).")
    fullness: Share = Field(default=0.9, gt=0, description="Share of slots and rates that a plan may fill (90%).")
    reserve: Share = Field(default=0.12, lt=1, description="Share of slots that only calls in a hurry may take (12%).")
    patient: Duration = Field(default=8.0, description="To spare, and a call is not in a hurry (8s).")


class HedgingFile(_Section):
    """When a second order is placed beside one that takes long."""

    on: bool = Field(default=True, description="Whether a late order may get a second one beside it (yes).")
    budget: Share = Field(default=0.05, description="Most second orders, as a share of all (5%).")
    quantile: Share = Field(
        default=0.97, gt=0, lt=1, description="An order is looked at when this share of its like is done (97%)."
    )
    below: Share = Field(default=0.8, description="Second orders only where no more of the slots is in use (80%).")


class PoolFile(_Section):
    """How GPUs of our own are used whose steps the gateway knows."""

    lead: Duration = Field(default=0.05, description="Before a machine is free, its next order is placed (50ms).")
    swap: Duration = Field(default=3.0, description="A machine takes to load another model (3s).")
    fixed_share: Share = Field(default=0.12, description="Share of a step that does not grow with its pictures (12%).")
    fullness: Share = Field(default=1.0, gt=0, description="Share of the machines' time that a plan may fill (100%).")
    blocks: Duration = Field(default=12.0, gt=0, description="A step after which half of a discount is gone (12s).")
    idle: Share = Field(default=0.35, description="Price of a second of a machine that is idle, of its bid (35%).")
    left_over: Share = Field(default=0.15, description="The same while another of its model is idle as well (15%).")


class BreakerFile(_Section):
    """When an offer that fails is left alone."""

    failures: int = Field(default=5, ge=1, le=100, description="Failures in a row that open the breaker (5).")
    timeout_counts: int = Field(default=2, ge=1, le=100, description="Failures a timeout counts for (2).")
    open_for: Duration = Field(default=2.0, gt=0, description="Left alone for this long, doubled each time (2s).")
    at_most: Duration = Field(default=60.0, gt=0, description="Where the doubling ends (60s).")
    misconfigured_for: Duration = Field(
        default=60.0,
        gt=0,
        description="For an account whose key or credit is refused, or a retired model, doubled up to tenfold (60s).",
    )


class ForecastFile(_Section):
    """How quickly latency forecasts follow what is seen."""

    drift: Share = Field(default=0.06, gt=0, description="Share of each surprise that moves a forecast (6%).")
    memory: int = Field(default=3000, ge=100, description="Observations after which older ones fade (3000).")


class RequireFile(_Section):
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


class PolicyFile(_Section):
    """A whole policy file."""

    policy: Name = Field(description="Its name, as decisions show it.")
    revision: int = Field(ge=1, description="Raise it with every change; replicas compare it.")
    default_intent: str = Field(description="The intent of calls that name neither intent nor quality.")
    intents: dict[Name, IntentFile] = Field(min_length=1, description="Every intent a call may have.")
    quality: dict[Quality, str] = Field(
        default_factory=dict, description="OpenAI's quality words -> intent or `default`; words left out are `default`."
    )
    fallback: FallbackFile = FallbackFile()
    queue: QueueFile = QueueFile()
    images_per_order: int = Field(
        default=1, ge=1, le=10, description="Pictures per order; with 1 each has a seed and an order of its own (1)."
    )
    sizes: SizesFile = SizesFile()
    models: ModelsFile = ModelsFile()
    assets: AssetsFile = AssetsFile()
    unknown_fields: Literal["reject", "ignore"] = Field(
        default="reject",
        description="What becomes of a field nobody knows; ignored ones are named in a header (reject).",
    )
    content: ContentFile = ContentFile()
    streaming: StreamingFile = StreamingFile()
    punctuality: float = Field(
        default=1.0, ge=0, le=10, strict=False, description="How many times over a late answer counts in choices; 1."
    )
    crowding: CrowdingFile = CrowdingFile()
    scarcity: ScarcityFile = ScarcityFile()
    hedging: HedgingFile = HedgingFile()
    pool: PoolFile = PoolFile()
    breaker: BreakerFile = BreakerFile()
    forecast: ForecastFile = ForecastFile()
    require: RequireFile = RequireFile()

    @model_validator(mode="after")
    def _names_and_numbers_agree(self) -> PolicyFile:
        faults = [
            InitErrorDetails(type=PydanticCustomError("policy", "{why}", {"why": why}), loc=loc, input=None)
            for loc, why in _disagreements(self)
        ]
        if faults:
            # pydantic keeps the places of a nested ValidationError; a ValueError would lose them.
            raise ValidationError.from_exception_data("PolicyFile", faults)
        return self


def _disagreements(file: PolicyFile) -> Iterator[tuple[_Loc, str]]:
    known = f"write one of {', '.join(file.intents)}"
    if file.default_intent not in file.intents:
        yield ("default_intent",), f"no intent is called '{file.default_intent}': {known}"
    for word, intent in file.quality.items():
        if intent != "default" and intent not in file.intents:
            yield ("quality", word), f"no intent is called '{intent}': {known}, or default"
    for name, intent_file in file.intents.items():
        if intent_file.promotes is not None and intent_file.promotes not in file.intents:
            yield ("intents", name, "promotes"), f"no intent is called '{intent_file.promotes}': {known}"
        if intent_file.deadline < intent_file.latency_slo:
            yield (
                ("intents", name, "deadline"),
                f"the deadline ({intent_file.deadline:g} s) is before latency_slo ({intent_file.latency_slo:g} s)",
            )
    if file.breaker.at_most < file.breaker.open_for:
        yield ("breaker", "at_most"), "the longest pause is shorter than the first (open_for)"


def compile_policy(file: PolicyFile) -> Policy:
    """Make the policy a checked file describes."""
    formats = dict(file.models.default_response_format)
    return Policy(
        name=file.policy,
        revision=file.revision,
        default_intent=file.default_intent,
        intents={name: _intent(name, intent) for name, intent in file.intents.items()},
        qualities={word: file.default_intent if to == "default" else to for word, to in file.quality.items()},
        fallback=Fallback(**file.fallback.model_dump()),
        max_wait=file.queue.max_wait,
        images_per_order=file.images_per_order,
        auto_size=file.sizes.auto,
        model_prefixes=dict(file.models.aliases),
        edit_models=frozenset(file.models.edits) or None,
        default_response_format=formats.pop("default", "url"),
        response_formats=formats,
        keep_assets=file.assets.keep,
        team_keep_assets={name: team.keep for name, team in file.assets.teams.items() if team.keep is not None},
        keep_prompts=file.assets.prompts,
        team_keep_prompts={name: team.prompts for name, team in file.assets.teams.items() if team.prompts is not None},
        ignore_unknown=file.unknown_fields == "ignore",
        safety=file.content.safety,
        team_safety=dict(file.content.teams),
        preview_ceiling=file.streaming.preview,
        crowding=Crowding(**file.crowding.model_dump()),
        punctuality=file.punctuality,
        scarcity=Scarcity(**file.scarcity.model_dump()),
        hedging=Hedging(**file.hedging.model_dump()),
        pool=Pool(**file.pool.model_dump()),
        breaker=BreakerTerms(**file.breaker.model_dump()),
        forecast=ForecastTerms(**file.forecast.model_dump()),
        require=file.require.compiled(),
    )


def _intent(name: str, file: IntentFile) -> Intent:
    return Intent(
        name=name,
        tier=file.tier,
        slo=file.latency_slo,
        deadline=file.deadline,
        worth=Worth(late=file.late, late_second=file.late_second, failure=file.failure),
        ceiling=file.ceiling,
        promotes=file.promotes,
        keeps=file.keeps,
    )
