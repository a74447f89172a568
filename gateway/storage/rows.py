"""The records every database backend stores, in the words of the glossary. Money is nano-dollars, times are UTC."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from msgspec import Struct

from providers.contract import Ticket

AttemptState = Literal["reserved", "intent", "accepted", "settled", "released", "suspended"]
"""reserved: money set aside for a part that waits for room. intent: about to be sent. accepted: the provider has it.
settled, released: over. suspended: nobody knows yet what is owed; money stays aside until it is known."""

Book = Literal["cost", "charge"]
"""cost: what we owe a provider account. charge: what a team owes us."""

BudgetOf = Literal["gateway", "team", "key", "user", "tag", "model", "account", "shadow"]
"""`shadow`: what the copies of an experiment cost."""

BudgetThen = Literal["notify", "preview", "queue"]
"""What is done past the soft limit of a budget. notify: people are told. preview: calls without a tier of their own are
drawn at the lowest. queue: calls wait behind all others."""

EntryKind = Literal["hold", "settle", "release", "suspend", "correction"]


class NewHold(Struct, frozen=True, kw_only=True):
    """Money to set aside for one order, with the intent to place it."""

    attempt_id: str
    call_id: str
    part: int
    team: str
    key_id: str
    account: str
    offer_id: str
    endpoint: str
    cost: int
    """Upper bound of what the order can cost us."""
    charge: int
    """Upper bound of what the team can owe for it."""
    width: int
    height: int
    count: int
    steps: int | None = None
    prices: int = 0
    policy: str = ""
    reserve: bool = False
    """Set money aside without the intent to order yet: the part waits for room."""
    replaces: str | None = None
    """A reservation this hold takes over; released in the same commit."""
    fingerprint: bytes | None = None
    """What the caller would ask for again, where it may; see `gateway.requests.coalescing`."""
    inputs: tuple[tuple[int, int], ...] = ()
    """Width and height of every picture it is made from."""
    model: str = ""
    user: str | None = None
    """The end user it is for; only budgets look, and the record of the order does not have it."""
    tags: Mapping[str, str] = {}


class Outcome(Struct, frozen=True, kw_only=True):
    """How an order ended, for the record of the attempt."""

    error: str | None = None
    """`kind` of the ProviderError; None when it delivered."""
    detail: str = ""
    delivered: int = 0
    passed_on: int = 0
    """Pictures it drew for another order to finish; the team is charged for them there."""
    latency_s: float = 0.0
    queue_s: float | None = None
    run_s: float | None = None
    machine: str = ""
    """Which of our own machines did the work."""


class AttemptRow(Struct, frozen=True, kw_only=True):
    """One order and how it ended; also the hold on its money."""

    id: str
    call_id: str
    part: int
    team: str
    key_id: str
    account: str
    offer_id: str
    endpoint: str
    state: AttemptState
    hold_cost: int
    hold_charge: int
    cost: int
    """Posted so far."""
    charge: int
    width: int
    height: int
    count: int
    steps: int | None
    owner: str
    """The process that runs it; recovery takes over when its heartbeat stops."""
    started: datetime
    ended: datetime | None
    ticket: Ticket | None
    outcome: Outcome | None
    prices: int
    policy: str
    fingerprint: bytes | None = None
    inputs: tuple[tuple[int, int], ...] = ()
    listed: int | None = None
    """Its list price, where billing made of that what it costs."""


class EntryRow(Struct, frozen=True, kw_only=True):
    """A fact about money; appended, never edited."""

    seq: int
    at: datetime
    book: Book
    party: str
    """The provider account (cost) or the team (charge)."""
    kind: EntryKind
    amount: int
    """hold +, settle: what is posted, release/suspend: what leaves the hold. A correction may be negative."""
    attempt_id: str
    call_id: str
    offer_id: str
    note: str = ""


class AssetRow(Struct, frozen=True, kw_only=True):
    """A kept picture and where it comes from."""

    id: str
    call_id: str
    attempt_id: str
    team: str
    index: int
    """Position in the call's answer, from 0."""
    path: str
    """Where the bytes lie in the blob store, and the tail of its public URL: `{unguessable}/{name}.png`."""
    media_type: str
    width: int
    height: int
    bytes: int
    sha256: str
    seed: int | None
    model: str
    offer_id: str
    tier: str
    intent: str
    cost: int
    """Share of the charge, in nano-dollars."""
    parent_id: str | None
    created: datetime
    expires: datetime | None


class RecipeRow(Struct, frozen=True, kw_only=True):
    """What a call asked to be drawn, prompt included; kept apart from money and decisions so that it can be erased."""

    call_id: str
    team: str
    user: str | None
    request: Mapping[str, object]
    """The ImageRequest as plain values, with `model`, `intent`, `tags`, `compression` of the call beside it."""
    created: datetime


class IdempotencyRow(Struct, frozen=True, kw_only=True):
    """What was first asked for under an `Idempotency-Key`, and the call that answers it."""

    team: str
    key: str
    fingerprint: bytes
    call_id: str
    user: str | None
    created: datetime
    answered: bool = False
    """Whether its call delivered, so that its pictures are the answer for good."""


class ErasureRow(Struct, frozen=True, kw_only=True):
    """That something was erased, when and by whom, but not what it was."""

    at: datetime
    actor: str
    subject: str
    """An image's id, or a digest of a user's name."""
    images: int
    recipes: int = 0
    keys: int = 0
    payloads: int = 0


class DecisionRow(Struct, frozen=True, kw_only=True):
    """One decision of the engine: what it saw and chose, as JSON; no prompt in it."""

    call_id: str
    part: int
    number: int
    """0, 1, 2 ... within the call, in the order taken."""
    at: datetime
    team: str
    body: bytes
    """JSON of the surface's decision shape."""


class KeyRow(Struct, frozen=True, kw_only=True):
    """An API key: never its secret, only a keyed hash of it."""

    id: str
    hash: bytes
    team: str
    name: str
    scopes: tuple[str, ...]
    """What its holder may do at all; see `gateway.keys.SCOPES`."""
    models: tuple[str, ...] | None = None
    """None is all, and so below: what is None is not limited."""
    budget: int | None = None
    """Hard limit in nano-dollars over the key's life."""
    rpm: int | None = None
    """Requests per minute."""
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    ipm: int | None = None
    """Pictures per minute."""
    tiers: tuple[str, ...] | None = None
    """Tiers of the models it may draw with."""
    max_price: int | None = None
    """Most that one picture may cost, in nano-dollars."""
    max_call_price: int | None = None
    """Most that all pictures of one call may cost, in nano-dollars."""
    max_pixels: int | None = None
    """Width x height of the largest picture."""
    concurrency: int | None = None
    """Calls in flight at once."""
    former: bytes | None = None
    """What was `hash` before the last rotation; good until `former_until`."""
    former_until: datetime | None = None
    paused_until: datetime | None = None
    """It spent far more than usual, and is refused until then; see `policies.velocity`."""
    unbraked_until: datetime | None = None
    """Somebody released it: it is not paused again before."""


class KeyHour(Struct, frozen=True, kw_only=True):
    """That an hour began in which a key spent anything."""

    key_id: str
    hour: int
    """Hours since 1970, in UTC."""
    opened: int
    """What the key had been charged in all, in nano-dollars."""


class BudgetRow(Struct, frozen=True, kw_only=True):
    """A limit to what may be spent in a window of time; see `gateway.money.budgets`."""

    id: str
    of: BudgetOf
    name: str
    """Whose: a name, `*` for each by itself; of a tag `campaign=autumn` or `campaign=*`; empty for the gateway."""
    limit: int
    """Nano-dollars a window."""
    window: str
    """total, day, week, month, year, or the length of a rolling one: 24h, 30d."""
    zone: str
    """Time zone whose midnights part the windows of a calendar."""
    created: datetime
    extra: int = 0
    """Added to the limit for a while."""
    extra_until: datetime | None = None
    removed: datetime | None = None
    soft: int | None = None
    """Per cent of the limit from which on something is done, before it is reached."""
    then: BudgetThen = "notify"


class AlertRow(Struct, frozen=True, kw_only=True):
    """Something people are told about money, once."""

    id: str
    """Made of what it is about, so that the same is never raised twice."""
    at: datetime
    kind: str
    """budget, budget_forecast, bill_drift, offer_changed ...; all of them: `docs/how-to/alerts.md`."""
    text: str
    facts: Mapping[str, object]
    """The figures, for machines; amounts in nano-dollars."""


class BalanceRow(Struct, frozen=True, kw_only=True):
    """What a party has set aside and owes; always equal to the sum of its entries."""

    book: Book
    party: str
    held: int
    posted: int
