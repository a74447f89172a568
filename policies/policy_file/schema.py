"""What a policy file may say; every fault is reported at once, under the key where it stands.

Seconds are typed with a unit (`500ms`, `3s`, `5m`, `24h`), money in dollars (`$0.002`), shares in percent (`85%`).
`compile_policy` turns a checked file into the `Policy` the gateway runs on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from policies.policy import (
    BreakerTerms,
    CanaryTerms,
    Crowding,
    Fallback,
    ForecastTerms,
    Hedging,
    Intent,
    Kept,
    Policy,
    Pool,
    Quality,
    Reservation,
    ResponseFormat,
    Scarcity,
)
from policies.policy_file.examples import ExampleFile
from policies.policy_file.experiments import ExperimentFile
from policies.policy_file.rules import RequireFile, RuleFile
from policies.policy_file.values import Dollars, Duration, Loc, Name, Section, Share, Size, Tiers, TierWord, Words
from policies.rules import Rules
from policies.types import Worth
from providers.contract import Safety


class IntentFile(Section):
    """One intent: what a kind of picture is for."""

    tier: TierWord = Field(description="The least tier a model must have earned: preview, standard or export.")
    latency_slo: Duration = Field(description="From arrival; an answer after this counts as late.")
    deadline: Duration = Field(description="From arrival; nobody wants the answer after this.")
    late: Dollars = Field(default=0, description="What an answer after latency_slo costs, however late ($0).")
    late_second: Dollars = Field(default=2_000_000, description="What each second past latency_slo costs ($0.002).")
    failure: Dollars = Field(default=10_000_000, description="What a picture that does not come costs ($0.01).")
    priority: Duration = Field(
        default=0.0, description="In line for room, a call counts as having come so much earlier (0s)."
    )
    ceiling: Dollars | None = Field(default=None, description="Most that one picture may cost; none as shipped.")
    latency_ceiling: Duration | None = Field(
        default=None, gt=0, description="Longest that an offer may nearly always (p95) take; none as shipped."
    )
    promotes: str | None = Field(default=None, description="The intent whose pictures this one draws again, better.")
    keeps: tuple[Kept, ...] = Field(
        default=(), strict=False, description="What a promotion keeps: prompt, seed, aspect; nothing by default."
    )


class FallbackFile(Section):
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


class QueueFile(Section):
    """Standing in line for room."""

    max_wait: Duration = Field(default=30.0, description="From arrival; then the caller is told to come back (30s).")
    max_waiting: int = Field(
        default=1_000, ge=0, description="Most calls that wait at once; beyond, the least worth is sent away (1000)."
    )


class CanaryFile(Section):
    """How `policy canary start` tries another policy while this one is in force."""

    share: Share = Field(default=0.05, gt=0, description="Share of keys and end users that it serves (5%).")
    calls: int = Field(
        default=2_000,
        ge=100,
        le=1_000_000,
        description="Calls compared after which it has passed, and is promoted (2000).",
    )
    cost: Share = Field(default=0.05, description="How much more a picture may cost before it is ended (5%).")
    p95: Share = Field(default=0.25, description="How much longer its slowest twentieth may take (25%).")
    risk: Share = Field(default=0.005, gt=0, description="Most good ones that are ended by chance (0.5%).")


class SizesFile(Section):
    """What sizes mean where the caller leaves them to us."""

    auto: Size = Field(default=(1024, 1024), description="Drawn when no size, or `auto`, is asked for (1024x1024).")


class ModelsFile(Section):
    """What foreign model names mean here."""

    aliases: dict[str, str] = Field(
        default_factory=dict, description="Beginning of a model name -> auto or a model of the catalogue; none."
    )
    edits: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Models that may serve an edit whose caller leaves the model to us; any that can, as long as none.",
    )
    least_steps: dict[str, Annotated[int, Field(ge=1, le=500)]] = Field(
        default_factory=dict,
        description="Model -> fewest steps it may be drawn with; as few as it can, as long as none.",
    )
    default_response_format: dict[str, ResponseFormat] = Field(
        default_factory=dict,
        description=(
            "Beginning of a model name -> url or b64_json, for callers who do not say; other names: `default` (url), "
            "and `edits` (b64_json) for edits."
        ),
    )


class TeamAssetsFile(Section):
    """What a team's pictures and prompts live for, where that differs."""

    keep: Duration | None = Field(default=None, ge=3_600, description="As `assets.keep`.")
    prompts: Duration | None = Field(default=None, description="As `assets.prompts`.")
    decisions: Duration | None = Field(default=None, ge=3_600, description="As `assets.decisions`.")


class AssetsFile(Section):
    """Keeping delivered pictures."""

    keep: Duration = Field(
        default=86_400.0, ge=3_600, description="How long a delivered picture can be fetched, at least an hour (24h)."
    )
    prompts: Duration | None = Field(
        default=None, description="How long what was asked for is kept, to promote by; until it is erased."
    )
    decisions: Duration | None = Field(
        default=None,
        ge=3_600,
        description="How long it is kept why a call was served as it was, at least an hour; without end. "
        "No prompt is in it.",
    )
    teams: dict[str, TeamAssetsFile] = Field(
        default_factory=dict,
        description="Team -> `keep`, `prompts` and `decisions` of its own, where they differ; none.",
    )


class ContentFile(Section):
    """How strictly what is drawn is checked."""

    safety: Safety = Field(
        default="standard", description="How strictly sellers check: strict, standard or relaxed (standard)."
    )
    teams: dict[str, Safety] = Field(
        default_factory=dict, description="Team -> strict, standard or relaxed, where it differs; none."
    )


class StreamingFile(Section):
    """Showing something early."""

    preview: Dollars | None = Field(
        default=None, description="Most that a preview may cost which is shown as partial image 0; none is drawn."
    )


class CrowdingFile(Section):
    """What it costs to take the last room of a capacity."""

    begins: Share = Field(default=0.85, lt=1, description="Share in use from which room counts as scarce (85%).")
    last_slot: Dollars = Field(default=500_000, description="Price of the very last slot ($0.0005).")


class ScarcityFile(Section):
    """How capacity that will be missed later is priced now."""

    every: Duration = Field(
        default=10.0,
        description="Between two plans of bid prices: a tenth of it while they move far, twice where few calls come; "
        "0s turns them off (10s).",
    )
    memory: Duration = Field(default=180.0, gt=0, description="Over which arrivals are averaged (3m).")
    fullness: Share = Field(default=0.9, gt=0, description="Share of slots and rates that a plan may fill (90%).")
    reserve: Share = Field(default=0.12, lt=1, description="Share of slots that only calls in a hurry may take (12%).")
    patient: Duration = Field(default=8.0, description="To spare, and a call is not in a hurry (8s).")


class HedgingFile(Section):
    """When a second order is placed beside one that takes long."""

    enabled: bool = Field(default=True, description="Whether a late order may get a second one beside it (yes).")
    budget: Share = Field(default=0.05, description="Most second orders, as a share of all (5%).")
    quantile: Share = Field(
        default=0.97, gt=0, lt=1, description="An order is looked at when this share of its like is done (97%)."
    )
    below: Share = Field(default=0.8, description="Second orders only where no more of the slots is in use (80%).")


class PoolFile(Section):
    """How GPUs of our own are used whose steps the gateway knows."""

    lead: Duration = Field(default=0.05, description="Before a machine is free, its next order is placed (50ms).")
    swap: Duration = Field(default=3.0, description="A machine takes to load another model (3s).")
    fixed_share: Share = Field(default=0.12, description="Share of a step that does not grow with its pictures (12%).")
    fullness: Share = Field(default=1.0, gt=0, description="Share of the machines' time that a plan may fill (100%).")
    blocks: Duration = Field(default=12.0, gt=0, description="A step after which half of a discount is gone (12s).")
    idle: Share = Field(default=0.35, description="Price of a second of a machine that is idle, of its bid (35%).")
    left_over: Share = Field(default=0.15, description="The same while another of its model is idle as well (15%).")


class BreakerFile(Section):
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


class ForecastFile(Section):
    """How quickly latency forecasts follow what is seen."""

    drift: Share = Field(default=0.06, gt=0, description="Share of each surprise that moves a forecast (6%).")
    memory: int = Field(default=3000, ge=100, description="Observations after which older ones fade (3000).")


class WelcomeFile(Section):
    """Whom a share of slots is reserved for."""

    tier: Tiers | None = Field(default=None, description="Calls of these tiers; of any.")
    team: Words | None = Field(default=None, description="Calls of these teams; of any.")

    @model_validator(mode="after")
    def _says_something(self) -> WelcomeFile:
        if not self.model_fields_set:
            raise PydanticCustomError("reservation", "names nobody: write tier or team", {})
        return self


class ReservationFile(Section):
    """A share of slots that only some calls may take."""

    keep: Share = Field(gt=0, lt=1, description="Share of an account's slots.")
    providers: Words | None = Field(default=None, description="Whose slots: provider accounts or kinds; all.")
    only_for: WelcomeFile = Field(description="Who may take them.")

    def compiled(self) -> Reservation:
        """Say it in the engine's words."""
        return Reservation(
            share=self.keep,
            sellers=None if self.providers is None else frozenset(self.providers),
            tiers=None if self.only_for.tier is None else frozenset(self.only_for.tier),
            teams=None if self.only_for.team is None else frozenset(self.only_for.team),
        )


class PolicyFile(Section):
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
    canary: CanaryFile = CanaryFile()
    hedging: HedgingFile = HedgingFile()
    pool: PoolFile = PoolFile()
    breaker: BreakerFile = BreakerFile()
    forecast: ForecastFile = ForecastFile()
    require: RequireFile = RequireFile()
    timezone: str = Field(default="UTC", description="Where hours and days of rules are counted (UTC).")
    rules: tuple[RuleFile, ...] = Field(default=(), strict=False, description="What holds for some calls; none.")
    reservations: tuple[ReservationFile, ...] = Field(
        default=(), strict=False, description="Shares of slots kept for some calls; none."
    )
    experiments: tuple[ExperimentFile, ...] = Field(
        default=(), strict=False, description="Comparisons of sellers on copies of live calls; none."
    )
    examples: tuple[ExampleFile, ...] = Field(
        default=(), strict=False, description="What the policy does, as `policy test` checks it; none."
    )

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


def json_schema() -> str:
    """The language as JSON Schema, for editors. Descriptions say the defaults, as people would type them."""
    said = _for_editors(PolicyFile.model_json_schema())
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **said}, indent=1) + "\n"


def _for_editors(schema: Any) -> Any:
    """Without pydantic's titles, and defaults in seconds and nano-dollars."""
    if isinstance(schema, list):
        return [_for_editors(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _for_editors(value) for name, value in schema.items() if name not in {"title", "default"}}
    if isinstance(schema.get("properties"), dict):
        found["properties"] = {name: _for_editors(value) for name, value in schema["properties"].items()}
    return found


def _disagreements(file: PolicyFile) -> Iterator[tuple[Loc, str]]:
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
    yield from _disagreements_of_rules(file)
    yield from _disagreements_of_experiments(file)
    if sum(each.keep for each in file.reservations) >= 1:
        yield (
            ("reservations", len(file.reservations) - 1, "keep"),
            "all shares together leave nothing for other calls",
        )
    if file.breaker.at_most < file.breaker.open_for:
        yield ("breaker", "at_most"), "the longest pause is shorter than the first (open_for)"


def _disagreements_of_rules(file: PolicyFile) -> Iterator[tuple[Loc, str]]:
    try:
        Rules(timezone=file.timezone)
    except (KeyError, ValueError, OSError):
        yield ("timezone",), f"no time zone is called '{file.timezone}': write one such as Europe/Berlin, or UTC"
    names: dict[str, int] = {}
    for at, rule in enumerate(file.rules):
        if rule.rule in names:
            yield ("rules", at, "rule"), f"rule {names[rule.rule] + 1} is called '{rule.rule}' already"
        names.setdefault(rule.rule, at)
        for side, condition in (("when", rule.when), ("unless", rule.unless)):
            yield from _unknown_intents(file, ("rules", at, side, "intent"), condition.intent if condition else None)


def _disagreements_of_experiments(file: PolicyFile) -> Iterator[tuple[Loc, str]]:
    names: dict[str, int] = {}
    for at, each in enumerate(file.experiments):
        here: Loc = ("experiments", at)
        if each.experiment in names:
            yield (
                (*here, "experiment"),
                f"experiment {names[each.experiment] + 1} is called '{each.experiment}' already",
            )
        names.setdefault(each.experiment, at)
        challengers = [challenger.name for challenger in each.challengers]
        for place, name in enumerate(challengers):
            if name in challengers[:place]:
                yield (
                    (*here, "challengers", place, "name"),
                    f"challenger {challengers.index(name) + 1} is called '{name}' already",
                )
        if each.budget.total < each.budget.day:
            yield (*here, "budget", "total"), "all days together may cost less than one: write more, or lower `day`"
        if each.start is not None and each.stop is not None and each.stop <= each.start:
            yield (*here, "stop"), f"stops before it starts ({each.start:%Y-%m-%d %H:%M}): write a later day"
        sampled = {"by": each.sample.by, "always": each.sample.always, "never": each.sample.never}
        for word, all_calls in sampled.items():
            for place, calls in enumerate(all_calls):
                yield from _unknown_intents(file, (*here, "sample", word, place, "intent"), calls.intent)


def _unknown_intents(file: PolicyFile, loc: Loc, intents: tuple[str, ...] | None) -> Iterator[tuple[Loc, str]]:
    for intent in intents or ():
        if intent not in file.intents:
            yield loc, f"no intent is called '{intent}': write one of {', '.join(file.intents)}"


def compile_policy(file: PolicyFile) -> Policy:
    """Make the policy a checked file describes."""
    formats = dict(file.models.default_response_format)
    rules = Rules([rule.compiled() for rule in file.rules], file.timezone)
    return Policy(
        name=file.policy,
        revision=file.revision,
        default_intent=file.default_intent,
        intents={name: _intent(name, intent) for name, intent in file.intents.items()},
        qualities={word: file.default_intent if to == "default" else to for word, to in file.quality.items()},
        fallback=Fallback(**file.fallback.model_dump()),
        max_wait=file.queue.max_wait,
        max_waiting=file.queue.max_waiting,
        images_per_order=file.images_per_order,
        auto_size=file.sizes.auto,
        model_prefixes=dict(file.models.aliases),
        edit_models=frozenset(file.models.edits) or None,
        default_response_format=formats.pop("default", "url"),
        edit_response_format=formats.pop("edits", "b64_json"),
        response_formats=formats,
        keep_assets=file.assets.keep,
        team_keep_assets={name: team.keep for name, team in file.assets.teams.items() if team.keep is not None},
        keep_prompts=file.assets.prompts,
        team_keep_prompts={name: team.prompts for name, team in file.assets.teams.items() if team.prompts is not None},
        keep_decisions=file.assets.decisions,
        team_keep_decisions={
            name: team.decisions for name, team in file.assets.teams.items() if team.decisions is not None
        },
        ignore_unknown=file.unknown_fields == "ignore",
        safety=file.content.safety,
        team_safety=dict(file.content.teams),
        preview_ceiling=file.streaming.preview,
        crowding=Crowding(**file.crowding.model_dump()),
        punctuality=file.punctuality,
        scarcity=Scarcity(**file.scarcity.model_dump()),
        canary=CanaryTerms(**file.canary.model_dump()),
        hedging=Hedging(**file.hedging.model_dump()),
        pool=Pool(**file.pool.model_dump()),
        breaker=BreakerTerms(**file.breaker.model_dump()),
        forecast=ForecastTerms(**file.forecast.model_dump()),
        require=file.require.compiled(),
        rules=rules,
        reservations=tuple(each.compiled() for each in file.reservations),
        experiments=tuple(each.compiled(rules.zone) for each in file.experiments),
        least_steps=dict(file.models.least_steps),
    )


def _intent(name: str, file: IntentFile) -> Intent:
    return Intent(
        name=name,
        tier=file.tier,
        slo=file.latency_slo,
        deadline=file.deadline,
        worth=Worth(late=file.late, late_second=file.late_second, failure=file.failure),
        priority=file.priority,
        ceiling=file.ceiling,
        latency_ceiling=file.latency_ceiling,
        promotes=file.promotes,
        keeps=file.keeps,
    )
