"""The values the engine reads and answers with; every one of them can be stored, replayed and explained.

Times are seconds on whatever clock the driver keeps (monotonic in the gateway, virtual in a simulation);
only differences matter. Money is nano-dollars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from policies.money import NanoUsd
from policies.price_book import Book, in_force
from policies.tariffs import Quote, Tariff
from providers.contract import Abilities, ImageRequest

if TYPE_CHECKING:
    from policies.judgement import Weighed
    from policies.policy import Policy

CapacityId: TypeAlias = str
"""What limits orders: "fal" (slots of the account fal), "fal/rate" (its orders per second)."""

OfferId: TypeAlias = str
"""`account:model`, as in "fal:flux-schnell"; `account:model/operation` where it does not draw from words."""


class Tier(IntEnum):
    """How good a picture is: what a caller asks for at least, and what a model earns."""

    PREVIEW = 1
    STANDARD = 2
    EXPORT = 3

    @property
    def word(self) -> str:
        """The tier as people type it."""
        return self.name.lower()


class Capacity(Struct, frozen=True, kw_only=True):
    """A limit that offers of one provider account share. One of `slots`, `rate`, `credit` and `free` is set."""

    id: CapacityId
    slots: int | None = None
    """Orders in flight at once."""
    machines: bool = False
    """Whether the slots are GPUs of our own, each drawing one step at a time that nothing interrupts."""
    credit: NanoUsd | None = None
    """Prepaid money; once it is spent, orders are refused."""
    free: int | None = None
    """Pictures the seller draws for nothing, before it charges."""
    renews: float | None = None
    """Seconds on the driver's clock at which `credit` and `free` are whole again; None: never."""
    rate: float | None = None
    """Orders per second, refilling a bucket of `burst`."""
    burst: int = 1


class DataTerms(Struct, frozen=True, kw_only=True):
    """What a provider account does with prompts and pictures, as its contract says."""

    region: str | None = None
    """Where they are processed ("us", "eu"); None where the contract does not say."""
    retention_days: float | None = None
    unstored_days: float | None = None
    """How long it keeps anything of an order that it is told to store nothing of; None: it cannot be told."""
    trains: bool = True
    """Whether the seller may train on them. Unknown counts as yes."""


class Licence(Struct, frozen=True, kw_only=True):
    """What the pictures of a model may be used for."""

    name: str = "unknown"
    commercial: bool = True


class Offer(Struct, frozen=True, kw_only=True):
    """One model as one provider account sells it."""

    id: OfferId
    model: str
    account: str
    kind: str
    """The seller: `fal`, `together`, `replicate`, `selfhosted`."""
    endpoint: str
    tier: Tier
    tariff: Tariff
    abilities: Abilities
    capacities: tuple[CapacityId, ...]
    typical_s: float
    """Median seconds for one picture of 1 megapixel at default steps: a prior, corrected by what is observed."""
    licence: Licence = Licence()
    data: DataTerms = DataTerms()
    team: str | None = None
    """Set when the account belongs to one team; nobody else may use it."""
    kept_from: frozenset[str] = frozenset()
    """Teams that have an account of their own for this, and so do not buy it here."""
    counted: float = 1.0
    """Share of the quote that weighs in the choice: less than 1 for machines that run anyway. Bills are whole."""
    source: str = ""
    checked_on: str = ""
    book: Book = ()
    """Every price of it in time, `tariff` among them."""
    retires: datetime | None = None
    """The first moment at which its seller no longer sells it, where that is known."""
    successor: str | None = None
    """The model to use instead, then."""
    retired: str = ""
    """Why it is no longer for sale, once that moment has come."""

    def tariff_at(self, at: datetime) -> Tariff:
        """What an order placed at a moment is billed by; the price in force where none was then."""
        row = in_force(self.book, at)
        return self.tariff if row is None else row.tariff


class Requirements(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What must be true of whoever handles the data and of the rights in the picture."""

    region: str | None = None
    training: Literal["allowed", "never"] = "allowed"
    retention_days: float | None = None
    """Longest that a seller may keep prompts and pictures; None does not mind."""
    commercial: bool = False
    """The picture will be used commercially, so the model's licence must allow that."""


class Bar(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a rule of the policy says against offers."""

    rule: str
    """Its name, for those who ask why."""
    because: str = ""
    """Its reason, as the policy gives it."""
    only: bool = False
    """True: nothing but what it names may serve; False: nothing that it names."""
    providers: frozenset[str] | None = None
    """Provider accounts or kinds; None names none, as below."""
    models: frozenset[str] | None = None
    offers: frozenset[OfferId] | None = None


class Preference(Struct, frozen=True, kw_only=True):
    """What a rule of the policy says of two offers: where both may serve and have room, the one goes first."""

    offer: OfferId
    over: OfferId


class Params(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a rule of the policy has an offer asked, where the caller does not say; None leaves it to the offer."""

    offer: OfferId
    steps: int | None = None
    guidance: float | None = None


class Constraints(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What the caller will not give up."""

    tier: Tier = Tier.PREVIEW
    models: frozenset[str] | None = None
    """Only these models; None leaves the choice to tier and price."""
    slo: float = 15.0
    """Seconds from arrival after which an answer counts as late."""
    deadline: float = 120.0
    """Seconds from arrival after which nobody wants the answer."""
    ceiling: NanoUsd | None = None
    """Most that one picture may cost."""
    latency_ceiling: float | None = None
    """Seconds in which an offer must nearly always (p95) answer; None does not mind."""
    only: frozenset[str] | None = None
    """Names of provider accounts or kinds that may serve."""
    ignore: frozenset[str] = frozenset()
    order: tuple[str, ...] = ()
    """Preferred accounts or kinds, best first; a preference among the feasible, not a filter."""
    prefer: Literal["value", "cheapest", "fastest"] = "value"
    require: Requirements = Requirements()
    bars: tuple[Bar, ...] = ()
    """What rules of the policy say against offers."""
    preferred: tuple[Preference, ...] = ()
    """What they prefer to what; a caller who says who is to be first is not overruled."""
    params: tuple[Params, ...] = ()
    """How they have offers asked; of several for one offer, the last."""
    rules: tuple[str, ...] = ()
    """The rules of the policy that made these terms what they are."""

    def asked(self, offer: OfferId, request: ImageRequest) -> ImageRequest:
        """What an offer is asked for: the request, with what rules say of the offer and the caller does not."""
        for each in reversed(self.params):
            if each.offer == offer:
                return replace(
                    request,
                    steps=each.steps if request.steps is None else request.steps,
                    guidance=each.guidance if request.guidance is None else request.guidance,
                )
        return request


class Worth(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What this call's misfortunes cost, in nano-dollars, so that they add up with prices."""

    late: NanoUsd = 0
    """For an answer after the objective, however late."""
    late_second: NanoUsd = 2_000_000
    failure: NanoUsd = 10_000_000


class Tried(Struct, frozen=True):
    """An attempt that is over and did not deliver."""

    offer: OfferId
    account: str
    error: str
    """The `kind` of the `ProviderError`."""
    elsewhere: bool
    cost: NanoUsd = 0


class Live(Struct, frozen=True):
    """An attempt still running."""

    offer: OfferId
    account: str
    since: float


class Ask(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One part of a call, as the engine sees it: what to draw, on what terms, and what was tried so far."""

    call_id: str
    part: int
    request: ImageRequest
    constraints: Constraints
    worth: Worth = Worth()
    intent: str = "preview"
    team: str = ""
    arrived: float
    budget_left: NanoUsd | None = None
    """What key and team may still spend; None is unlimited."""
    tried: tuple[Tried, ...] = ()
    live: tuple[Live, ...] = ()


class Machine(NamedTuple):
    """One GPU of our own that is up."""

    model: str | None
    """What it has loaded; None when nothing yet."""
    free_at: float
    """When its present step ends; a moment in the past when it is idle."""


class InLine(Struct, frozen=True, gc=False):
    """A part that waits at the gateway for a machine."""

    model: str
    seconds: float
    """How long it will occupy the machine."""
    due: float
    """When its objective passes."""
    worth: float
    """Nano-dollars that a second of the machine would save it."""


class MachineLine(Protocol):
    """Parts held at the gateway for a machine of one model (`policies.pool.Held`)."""

    def __len__(self) -> int:
        """How many they are."""

    def ahead(self, wish: InLine, bid: float) -> Sequence[float]:
        """Seconds that each of those takes who go before a part that does not stand in line."""


class Machines(Struct, frozen=True, gc=False):
    """GPUs of our own, as the gateway knows them."""

    up: Sequence[Machine]
    queued: Mapping[str, float]
    """Model -> seconds of work ordered and not begun."""
    line: Mapping[str, MachineLine]
    """By model."""


class View(Protocol):
    """Live facts, kept up to date as things happen, indexed by model, never rebuilt for a call."""

    prices: int
    """Revision of the catalogue in force."""

    def offers(self, models: frozenset[str] | None) -> Sequence[Offer]:
        """The offers of some models, or all."""

    def in_flight(self, capacity: CapacityId) -> int:
        """Orders in flight against a capacity, ours alone; against a rate, those that have not gone out yet."""

    def waiting(self, capacity: CapacityId) -> int:
        """Parts of calls that stand in line for a capacity and go before the one that asks."""

    def machines(self, capacity: CapacityId) -> Machines | None:
        """The GPUs behind a capacity; None where nobody knows more of them than how many orders are in flight."""


SCORED: tuple[str, ...] = ("price", "latency", "reliability", "load", "slots", "rate", "prepaid", "machine")
"""What a total is made of, in the order of `Candidate.scores`; each is a module of `policies/scorers/`."""


class Candidate(Struct, frozen=True, gc=False):
    """An offer that may serve, with everything it would cost in nano-dollars."""

    offer: Offer
    quote: Quote
    latency_p50: float
    latency_p95: float
    headroom: int
    """Orders that could still start at once on its tightest capacity."""
    wait_s: float = 0.0
    """Seconds until the order could go out; 0 where there is room now."""
    late: float = 0.0
    """Probability that the answer comes after the objective."""
    total: int = 0
    """What serving here costs in all; the least total wins."""
    scores: tuple[int, ...] = ()
    """The total by scorer, in the order of `SCORED`; empty for what was never weighed."""

    @property
    def costs(self) -> Mapping[str, int]:
        """Scorer name -> nano-dollars."""
        return dict(zip(SCORED, self.scores, strict=False))


class Rejection(Struct, frozen=True, kw_only=True, gc=False):
    """An offer that may not serve, and why."""

    offer: OfferId
    code: str
    """The gate that refused: model, retired, provider, rule, team, ability, size, tier, licence, data, steps, price,
    ceiling, budget, tried, latency, breaker, headroom, deadline."""
    reason: str
    """A sentence for people, naming the value that blocks."""
    lasting: bool = True
    """False when waiting may cure it (headroom, breaker)."""


class Submit(Struct, frozen=True, gc=False):
    """Order from this candidate now; ask me again at `wake_at` if it is not done by then (None: do not)."""

    candidate: Candidate
    wake_at: float | None = None


class Wait(Struct, frozen=True, gc=False):
    """Ask me again at `until`, or as soon as `capacity` has room with a share of `spare` left for others."""

    until: float
    capacity: CapacityId | None = None
    best: Candidate | None = None
    """Whom we wait for; its quote is what is set aside meanwhile."""
    line: InLine | None = None
    """What to tell others who want the same machines, while this part waits."""
    lost: bool = False
    """Late whatever happens, and hardly worse for waiting: it stands behind those who may still be in time."""
    spare: float = 0.0


class Shed(Struct, frozen=True):
    """Give this part up."""

    reasons: tuple[Rejection, ...]
    retry_after: float | None = None
    """Seconds after which asking again may help; None when it will not."""


Reason = Literal["new", "failed", "wake", "room"]


class Decision(Struct, frozen=True, kw_only=True, gc=False):
    """What the engine says to one ask, with all it weighed."""

    move: Submit | Wait | Shed
    ready: Sequence[Weighed] = ()
    """Offers with room, cheapest in all first."""
    lined_up: Sequence[Weighed] = ()
    """Offers without room for now, cheapest in all first; the reason stands among `rejected`."""
    barred: tuple[Rejection, ...] = ()
    """Offers that may not serve at all, and why; or why nothing more may be ordered."""
    policy: str
    """Name and revision: "default@7"."""
    prices: int
    reason: Reason = "new"
    picture: object | None = None
    """What it was taken from (`policies.picture.Picture`): judged again, it gives the same decision."""

    @property
    def ranked(self) -> tuple[Candidate, ...]:
        """Candidates with room, cheapest in all first; made anew each time, for few decisions are asked."""
        return tuple([each.candidate() for each in self.ready])

    @property
    def waiting(self) -> tuple[Candidate, ...]:
        """Candidates without room for now, cheapest in all first."""
        return tuple([each.candidate() for each in self.lined_up])

    @property
    def rejected(self) -> tuple[Rejection, ...]:
        """Why offers may not serve at all, or not for now; those last, in the order of `waiting`."""
        return (*self.barred, *[why for each in self.lined_up if (why := each.seen.objection) is not None])


EventKind = Literal[
    "leased",
    "submitted",
    "ok",
    "error",
    "throttled",
    "timeout",
    "refused",
    "cancelled",
    "misconfigured",
    "retired",
    "beside",
]
"""leased: an order will go out; only from drivers that do something between a decision and its order, which say
`submitted` when it does. beside: an order went out that is no call's, such as a copy for an experiment: it spends what
the account allows, and nothing is learned from it."""


class Event(Struct, frozen=True, kw_only=True, gc=False):
    """Something that happened to an order; all the engine ever learns."""

    kind: EventKind
    offer: OfferId
    pixels: int
    """Width x height of one picture."""
    count: int = 1
    steps: int | None = None
    in_flight: int = 0
    """Orders in flight on the account when this one was submitted, itself included."""
    latency: float = 0.0
    """Seconds from submission to this event."""
    queue_s: float | None = None
    """Seconds of those spent in the provider's queue, where it tells."""
    retry_after: float | None = None
    cost: NanoUsd = 0
    quoted: NanoUsd | None = None
    """What the order was quoted; None where nobody remembers."""


class Engine(Protocol):
    """Chooses. Pure: no clock, no I/O, no hidden randomness; the same class serves, simulates and is benchmarked."""

    def decide(self, ask: Ask, view: View, now: float, reason: Reason) -> Decision:
        """What to do next for one part of a call."""

    def observe(self, event: Event, now: float) -> None:
        """Learn from what happened."""

    def tick(self, view: View, now: float) -> None:
        """Once a second: whatever is planned rather than decided."""

    def room(self, capacity: CapacityId, in_flight: int, now: float, spare: float = 0.0) -> float:
        """Seconds until one more order may start against a capacity: 0 now, inf when one must end first.

        `spare`: share of its slots that has to be left beside that order.
        """

    def under(
        self, policy: Policy, capacities: Mapping[CapacityId, Capacity], offers: Mapping[OfferId, Offer]
    ) -> Engine:
        """The engine of another revision, with all that was and will be learned; this one goes on for its own calls."""

    def beside(self, policy: Policy) -> Engine:
        """An engine that decides by another policy over the same offers, with everything learned shared."""
