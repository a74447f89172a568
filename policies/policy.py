"""A policy as the gateway uses it: everything a policy file says, in seconds and nano-dollars.

People write `config/policies/<name>.yaml`; `policies.policy_file.schema` checks it and makes this of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Literal

from msgspec import Struct

from policies.experiments.definition import Experiment
from policies.money import NanoUsd
from policies.rules import Rules
from policies.types import Ask, Constraints, Offer, Requirements, Tier, Worth
from providers.contract import Safety

ResponseFormat = Literal["url", "b64_json"]
Kept = Literal["prompt", "seed", "aspect"]
Quality = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]


class Intent(Struct, frozen=True, kw_only=True):
    """What a kind of picture is for: how good, how soon, and what a misfortune costs."""

    name: str
    tier: Tier
    slo: float
    """Seconds after which an answer counts as late."""
    deadline: float
    """Seconds after which nobody wants the answer."""
    worth: Worth = Worth()
    ceiling: NanoUsd | None = None
    """Most that one picture may cost unless the caller says otherwise; None is no limit."""
    latency_ceiling: float | None = None
    """Seconds in which an offer must nearly always (p95) answer; None is no limit."""
    promotes: str | None = None
    """The intent whose pictures are drawn again under this one."""
    priority: float = 0.0
    """Seconds by which a call counts as having come earlier, where several stand in line for the same room."""
    keeps: tuple[Kept, ...] = ()
    """What a promoted picture keeps of the picture it came from."""


class Fallback(Struct, frozen=True, kw_only=True):
    """How far the gateway goes when an order fails. Being throttled is not an attempt: nothing was ordered."""

    attempts: int = 3
    timeouts: int = 1
    """How many orders may time out and still be followed by another."""
    pause: float = 0.5
    """Seconds before an offer that could not be reached is asked the second time."""
    refused_elsewhere: bool = False
    """Whether a prompt one seller refuses to draw is offered to another."""
    better_tier: bool = False
    """Whether another order may go to a better tier than the first, at its price."""
    retry: NanoUsd = 1_500_000
    """What another order costs in trouble, beside its price and the time it takes."""
    recurs: float = 0.3
    """Probability that a picture whose order failed does not come at all."""


class Crowding(Struct, frozen=True, kw_only=True):
    """What it costs to take the last room of a capacity, so that it is left to those who need it."""

    begins: float = 0.85
    """Share of a capacity in use from which room counts as scarce."""
    last_slot: NanoUsd = 500_000
    """Price of the very last slot; between `begins` and full it grows in a straight line."""


class Scarcity(Struct, frozen=True, kw_only=True):
    """How capacity that will be missed later is priced now (`policies/scarcity.py`)."""

    every: float = 10.0
    """Seconds between two plans, where calls enough come to tell something new; 0 turns bid prices off."""
    memory: float = 180.0
    """Seconds over which arrivals are averaged."""
    fullness: float = 0.9
    """Share of its slots and rate that a plan may fill."""
    reserve: float = 0.12
    """Share of an account's slots that only calls in a hurry may take."""
    patient: float = 8.0
    """Seconds a call must have to spare to count as not in a hurry."""


class Hedging(Struct, frozen=True, kw_only=True):
    """When a second order is placed beside one that takes long (`policies/hedging.py`)."""

    enabled: bool = True
    budget: float = 0.05
    """Most second orders, as a share of all."""
    quantile: float = 0.97
    """An order is looked at again when this share of its like would be done."""
    below: float = 0.8
    """Only where no more than this share of the slots is in use."""


class Pool(Struct, frozen=True, kw_only=True):
    """How GPUs of our own are used (`policies/pool.py`)."""

    lead: float = 0.05
    """Seconds before a machine is free at which its next order is placed."""
    swap: float = 3.0
    """Seconds a machine takes to load another model."""
    fixed_share: float = 0.12
    """Share of a step that does not grow with the pictures in it."""
    fullness: float = 1.0
    """Share of the machines' time that a plan may fill."""
    blocks: float = 12.0
    """Seconds of a step after which an idle machine costs half of what the discount would save."""
    idle: float = 0.35
    """What a second of a machine that is idle costs, as a share of its bid price."""
    left_over: float = 0.15
    """The same while another of its model is idle as well; and what a second must be worth to those who wait."""


class BreakerTerms(Struct, frozen=True, kw_only=True):
    """When an offer that fails is left alone, and for how long (seconds)."""

    failures: int = 5
    """Failures in a row that open the breaker of an offer; twice as many open that of the account."""
    timeout_counts: int = 2
    """How many failures a timeout counts for: it costs the caller far more than an error."""
    open_for: float = 2.0
    """The first time; doubled each time the probe fails too."""
    at_most: float = 60.0
    misconfigured_for: float = 60.0
    """For an account whose key or credit is refused; doubled up to ten times this."""


class ForecastTerms(Struct, frozen=True, kw_only=True):
    """How quickly latency forecasts follow what is seen."""

    drift: float = 0.06
    """Share of each surprise that moves an offer's forecast."""
    memory: int = 3000
    """Observations after which older ones fade."""


class Reservation(Struct, frozen=True, kw_only=True):
    """A share of slots that some calls alone may take."""

    share: float
    sellers: frozenset[str] | None = None
    """Provider accounts or kinds whose slots they are; None: all."""
    tiers: frozenset[Tier] | None = None
    """For calls of these tiers; None: whatever the tier."""
    teams: frozenset[str] | None = None

    def is_kept_from(self, offer: Offer, ask: Ask) -> bool:
        """Whether a call may not take what is kept of an offer's slots."""
        here = self.sellers is None or offer.account in self.sellers or offer.kind in self.sellers
        tier, team = ask.constraints.tier, ask.team
        welcome = (self.tiers is None or tier in self.tiers) and (self.teams is None or team in self.teams)
        return here and not welcome


class CanaryTerms(Struct, frozen=True, kw_only=True):
    """How a new policy is tried on a part of the calls (`policies/experiments/guardrails.py`)."""

    share: float = 0.05
    """Share of keys and end users whose calls it serves."""
    calls: int = 2_000
    """Calls, each compared with one like it, after which a canary that crossed nothing has passed."""
    cost: float = 0.05
    """How much more a picture may cost, as a share."""
    p95: float = 0.25
    """How much longer the slowest twentieth may take, as a share."""
    risk: float = 0.005
    """Probability at most that a good one is ended."""


class Policy(Struct, frozen=True, kw_only=True, dict=True):
    """One revision of a routing policy."""

    name: str
    revision: int
    default_intent: str
    intents: Mapping[str, Intent]
    qualities: Mapping[Quality, str]
    """OpenAI's quality word -> intent."""
    fallback: Fallback = Fallback()
    max_wait: float = 30.0
    """Seconds a call may stand in line for room before it is told to come back."""
    max_waiting: int = 1_000
    """Most calls that may wait at once."""
    images_per_order: int = 1
    auto_size: tuple[int, int] = (1024, 1024)
    """Width and height where the caller leaves the size to us."""
    model_prefixes: Mapping[str, str] = {}
    """Beginning of a foreign model name -> what it means here: `auto` or a model of the catalogue."""
    edit_models: frozenset[str] | None = None
    """Models that may serve an edit whose caller leaves the model to us; None: any that can."""
    response_formats: Mapping[str, ResponseFormat] = {}
    """Beginning of a model name -> response format where the caller names none."""
    default_response_format: ResponseFormat = "url"
    edit_response_format: ResponseFormat = "b64_json"
    """The same for edits, whose clients read nothing else unless they name a model that had URLs."""
    keep_assets: float = 86_400.0
    """Seconds a delivered picture stays available."""
    ignore_unknown: bool = False
    """Whether fields nobody knows are left out, with a warning, instead of refused."""
    safety: Safety = "standard"
    """How strictly sellers are asked to check what they draw."""
    team_safety: Mapping[str, Safety] = {}
    """The same for teams it differs for."""
    team_keep_assets: Mapping[str, float] = {}
    """The same, in seconds, for teams it differs for."""
    keep_prompts: float | None = None
    """Seconds after which what a call asked for is forgotten; None: with its erasure."""
    team_keep_prompts: Mapping[str, float] = {}
    keep_decisions: float | None = None
    """Seconds for which it is kept why a call was served as it was; None: without end."""
    team_keep_decisions: Mapping[str, float] = {}
    preview_ceiling: NanoUsd | None = None
    """Most that a preview may cost which is drawn beside a streamed picture, to be shown first; None: none is drawn."""
    punctuality: float = 1.0
    """How many times over a late answer counts in choices: more than once where a share in time is promised."""
    crowding: Crowding = Crowding()
    scarcity: Scarcity = Scarcity()
    canary: CanaryTerms = CanaryTerms()
    hedging: Hedging = Hedging()
    pool: Pool = Pool()
    breaker: BreakerTerms = BreakerTerms()
    forecast: ForecastTerms = ForecastTerms()
    require: Requirements = Requirements()
    rules: Rules = Rules()
    reservations: tuple[Reservation, ...] = ()
    experiments: tuple[Experiment, ...] = ()
    least_steps: Mapping[str, int] = {}
    """Model -> fewest steps it may be drawn with."""

    @cached_property
    def label(self) -> str:
        """Name and revision: `default@7`. Put together once, for every decision carries it."""
        return f"{self.name}@{self.revision}"

    def intent_of_quality(self, quality: Quality | None) -> Intent:
        """Find the intent a quality word asks for; the default intent where none is given."""
        return self.intents[self.qualities.get(quality, self.default_intent) if quality else self.default_intent]

    def model_behind(self, name: str) -> str | None:
        """Say what a foreign model name (`dall-e-3`) means here, by its longest known beginning; None: nothing."""
        prefix = longest_prefix(name, self.model_prefixes)
        return None if prefix is None else self.model_prefixes[prefix]

    def response_format_of(self, name: str | None, *, edit: bool = False) -> ResponseFormat:
        """Say how pictures travel when the caller does not say, by the model name the caller used."""
        prefix = longest_prefix(name or "", self.response_formats)
        if prefix is not None:
            return self.response_formats[prefix]
        return self.edit_response_format if edit else self.default_response_format

    def safety_for(self, team: str) -> Safety:
        """Say how strictly sellers check what is drawn for a team."""
        return self.team_safety.get(team, self.safety)

    def constraints(self, intent: Intent) -> Constraints:
        """Say what an intent asks for before the caller adds wishes; refine it with `msgspec.structs.replace`."""
        return Constraints(
            tier=intent.tier,
            slo=intent.slo,
            deadline=intent.deadline,
            ceiling=intent.ceiling,
            latency_ceiling=intent.latency_ceiling,
            require=self.require,
        )


def longest_prefix(name: str, prefixes: Mapping[str, object]) -> str | None:
    """Find the longest of `prefixes` that `name` begins with."""
    return max((prefix for prefix in prefixes if name.startswith(prefix)), key=len, default=None)
