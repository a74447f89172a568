"""What must be remembered: money, attempts, decisions, assets and keys, behind verbs instead of SQL.

Every verb that writes is one command: all of it is committed or none, and it returns after the commit.
A backend that cannot record raises `gateway.errors.NotReady`, so that nothing is spent unrecorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Literal, Protocol

from msgspec import Struct

from gateway.storage.activity import Activity, PostedCost, RecordedCall, SpentHours
from gateway.storage.audit import Audit
from gateway.storage.changes import ChangeRow
from gateway.storage.policies import CanaryRow, CanaryState, PolicyEvent, PolicyRevision
from gateway.storage.prices import PriceChange, PriceRevision, Proposal, ProposalState
from gateway.storage.rows import (
    AlertRow,
    AssetRow,
    AttemptRow,
    BalanceRow,
    Book,
    BudgetRow,
    DecisionRow,
    EntryRow,
    ErasureRow,
    IdempotencyRow,
    KeyHour,
    KeyRow,
    NewHold,
    Outcome,
    RecipeRow,
)
from gateway.storage.shadows import Compared, Judged, ShadowRow, VoteRow
from gateway.storage.statements import Statement
from policies.billing import Billing
from policies.experiments.constancy import Draw
from policies.experiments.pairs import Pair
from policies.money import NanoUsd
from policies.types import DataTerms
from providers.contract import ListedPrice, Ticket

Durability = Literal["power", "process"]
"""What a commit survives. power: a power cut (one fsync per group of commands). process: a crash of the process."""


class Held(Struct, frozen=True):
    """What whoever set money aside still knows of it; spares the database a look before it closes the hold."""

    account: str
    team: str
    key_id: str
    cost: int
    charge: int
    offer_id: str = ""


class Closing(Struct, frozen=True, kw_only=True):
    """How an attempt's hold ends, with everything that becomes true in the same commit. Money is nano-dollars."""

    attempt_id: str
    state: Literal["settled", "released"]
    at: datetime
    owner: str | None = None
    """The process that believes it owns the attempt; refused when another took over. None: whoever owns it."""
    cost: int = 0
    """What we owe the provider account by its list price, of which the account's billing makes what is posted; where
    `listed` is given, what the seller itself says, which stands."""
    charge: int = 0
    """What the team owes us."""
    listed: int | None = None
    """The list price of an order whose seller told what it billed."""
    pictures: int = 0
    """Pictures that were made, good or not."""
    outcome: Outcome = Outcome()
    assets: tuple[AssetRow, ...] = ()
    recipe: RecipeRow | None = None
    decisions: tuple[DecisionRow, ...] = ()
    held: Held | None = None


class Correction(Struct, frozen=True, kw_only=True):
    """A later entry that mends what was posted before. Money is nano-dollars and may be negative."""

    book: Book
    party: str
    amount: int
    note: str
    """What it mends, in words; a second correction of the same book and party under an equal note is refused."""
    at: datetime
    """When it counts: within the period it mends."""
    attempt_id: str = ""
    """The attempt it mends; empty when it belongs to an endpoint as a whole."""
    endpoint: str = ""
    """The provider's id of the model; only needed without an attempt."""
    pictures: int | None = None
    """How many were made of an order that was believed to cost nothing; None: as many as were ordered."""
    why: str = ""
    """What is said behind the note; another replica may explain the same correction in other words."""


class Heartbeat(Struct, frozen=True, kw_only=True):
    """A sign of life from the process that owns holds."""

    owner: str
    pid: int
    host: str
    at: datetime


class Spending(Struct, frozen=True, kw_only=True):
    """What a key or a team has used of its budget, in nano-dollars."""

    held: int = 0
    posted: int = 0
    budget: int | None = None
    """Hard limit; None is unlimited."""

    @property
    def left(self) -> int | None:
        """What may still be held, or None without a budget."""
        return None if self.budget is None else max(self.budget - self.held - self.posted, 0)


Alive = Callable[[Heartbeat], bool]
"""Whether the process behind a heartbeat still runs; True when it cannot be known."""


class AlreadyClosed(RuntimeError):
    """This attempt is already over with other figures; a hold is closed exactly once."""


class TakenOver(RuntimeError):
    """Another process has taken this attempt over; nothing this process says about it counts any more."""


class UnknownAttempt(LookupError):
    """No attempt of this id was ever recorded."""


class Database(Protocol):
    """Everything that must be remembered. Times are UTC; money is nano-dollars."""

    # Money: one command each.

    async def hold(self, owner: str, holds: Sequence[NewHold], decisions: Sequence[DecisionRow], at: datetime) -> None:
        """Set money aside for every hold or for none, with the intent to order (or a reservation).

        Raises `BudgetSpent`, naming the budget, where held + posted + asked would exceed that of a key, team or window.
        A `replaces` reservation is given back in the same commit, and counts as free for the check.
        """

    async def accept(self, owner: str, attempt_id: str, ticket: Ticket) -> None:
        """Keep the provider's receipt. Raises `AlreadyClosed`, `TakenOver` or `UnknownAttempt`."""

    async def close(self, closing: Closing) -> bool:
        """End a hold, once: True when this call did it, False when it was over with these very figures.

        Raises `AlreadyClosed`, `TakenOver` or `UnknownAttempt`.
        """

    async def suspend(self, owner: str | None, attempt_id: str, outcome: Outcome, at: datetime) -> bool:
        """Nobody knows yet what is owed: the money stays held. False when it already was suspended."""

    async def correct(self, correction: Correction) -> bool:
        """Append a correction; False when one of this book, party and note exists."""

    # What invoices count.

    async def set_billing(self, terms: Mapping[str, Billing]) -> None:
        """Put the billing of every account that has some in force; from here on orders are settled by it."""

    async def billing_counters(self, account: str) -> Mapping[str, int]:
        """What an account's invoice has counted, by counter."""

    # Owners and recovery.

    async def beat(self, heartbeat: Heartbeat) -> None:
        """Record that an owner lives."""

    async def orphans(self, now: datetime, stale_after_s: float, alive: Alive) -> Sequence[AttemptRow]:
        """Open, unsuspended attempts whose owner never beat, stopped beating, or is dead by `alive`."""

    async def take_over(self, attempts: Sequence[AttemptRow], owner: str) -> Sequence[str]:
        """Make `owner` the owner of attempts still open and still owned as read; the ids it won."""

    async def open_attempts(self) -> Sequence[AttemptRow]:
        """Attempts that are reserved, intended or accepted, oldest first."""

    async def suspended(self, account: str | None = None) -> Sequence[AttemptRow]:
        """Attempts whose cost nobody knows yet, oldest first."""

    async def account_attempts(self, account: str, since: datetime) -> Sequence[AttemptRow]:
        """Every attempt at a provider account started since a moment, oldest first; reservations left out."""

    # What a call left behind.

    async def attempts(self, call_id: str) -> Sequence[AttemptRow]:
        """The orders of a call, oldest first; reservations left out."""

    async def attempt(self, attempt_id: str) -> AttemptRow | None:
        """One attempt."""

    async def save_decisions(self, decisions: Sequence[DecisionRow]) -> None:
        """Keep decisions that led to no hold."""

    async def decisions(self, call_id: str) -> Sequence[DecisionRow]:
        """The decisions of a call, in the order taken."""

    async def save_recipe(self, recipe: RecipeRow) -> None:
        """Keep what a call asked for; the first recipe of a call stays."""

    async def recipe(self, call_id: str) -> RecipeRow | None:
        """What a call asked for."""

    async def asset(self, asset_id: str, team: str) -> AssetRow | None:
        """A picture of this team; another team's is as if it did not exist."""

    async def asset_by_path(self, path: str) -> AssetRow | None:
        """The picture at a path of the blob store."""

    async def call_assets(self, call_id: str) -> Sequence[AssetRow]:
        """The pictures of a call, in the order of its answer."""

    async def children(self, asset_id: str, team: str) -> Sequence[AssetRow]:
        """The pictures that were made from this one."""

    async def expired_assets(self, now: datetime, limit: int) -> Sequence[AssetRow]:
        """Pictures whose time is over, the longest over first."""

    async def drop_asset(self, asset_id: str) -> None:
        """Forget a picture that was deleted; what it cost stays in the books."""

    async def count_fetches(self, times: Mapping[str, int]) -> None:
        """Add to how often pictures were fetched, by id."""

    # Privacy.

    async def user_calls(self, user: str, team: str | None) -> Sequence[str]:
        """Calls made for an end user, by one team or any; copies of such calls among them."""

    async def erase(self, calls: Sequence[str], assets: Sequence[str], record: ErasureRow) -> tuple[int, int]:
        """Forget pictures, and what calls asked for; how many recipes and idempotency records went.

        The record is kept with these figures.
        """

    async def erasures(self) -> Sequence[ErasureRow]:
        """Everything that was erased, oldest first."""

    async def drop_recipes(self, before: datetime, *, team: str | None, but: Sequence[str] = ()) -> None:
        """Forget what a team's calls asked for before a moment; without a team, that of all `but` some."""

    async def drop_decisions(self, before: datetime, *, team: str | None, but: Sequence[str] = ()) -> None:
        """Forget why a team's calls before a moment were served so; without a team, that of all `but` some."""

    # Calls that are asked for again.

    async def claim_idempotency(self, row: IdempotencyRow, since: datetime) -> IdempotencyRow:
        """The first row of this team and key made after `since`: an earlier one, or this one, which is then kept."""

    async def answer_idempotency(self, team: str, key: str, call_id: str) -> None:
        """Remember that the call of a key delivered."""

    async def free_idempotency(self, team: str, key: str, call_id: str) -> None:
        """Forget a key whose call came to nothing."""

    async def drop_idempotency(self, before: datetime) -> None:
        """Forget keys first used before a moment."""

    async def answered_calls(self, key_id: str, fingerprint: bytes, since: datetime) -> Sequence[str]:
        """Calls of an API key, ordered since a moment, that drew what a fingerprint stands for; newest first."""

    # Keys and budgets.

    async def add_key(self, key: KeyRow, actor: str = "gateway") -> None:
        """Keep a new key, and the record that `actor` made it."""

    async def keys(self) -> Sequence[KeyRow]:
        """Every key, revoked ones too, oldest first."""

    async def changed_keys(self, since: int) -> Sequence[KeyRow]:
        """The keys that were made or changed after the change of a number."""

    async def key(self, key_id: str) -> KeyRow | None:
        """One key."""

    async def change_key(self, before: KeyRow, after: KeyRow, change: ChangeRow) -> bool:
        """Put `after` in a key's place, with the record of it; False when the key is no longer as `before`."""

    async def add_change(self, change: ChangeRow) -> None:
        """Keep the record of a change that was made elsewhere: in a file."""

    async def changes(self, of: Literal["key", "account"], name: str | None, limit: int) -> Sequence[ChangeRow]:
        """The last changes of a key or an account, or of all of them, newest first."""

    async def last_change(self) -> int:
        """The number of the last change, 0 before the first: a look at it tells whether anything changed."""

    async def key_spent(self, key_id: str) -> Spending:
        """What a key has used of its budget."""

    async def key_hours(self, since: int) -> Sequence[KeyHour]:
        """Where hours began in which keys spent anything, from one of them on (hours since 1970)."""

    async def open_key_hours(self, hours: Sequence[KeyHour], *, forget_before: int) -> None:
        """Keep where hours of keys begin, each once, and forget those before one of them."""

    async def set_team_budget(self, team: str, budget: int | None) -> None:
        """Set, change or (None) lift a team's hard limit."""

    async def spending(self) -> tuple[Mapping[str, Spending], Mapping[str, Spending]]:
        """What every key (first) and every team (second) has used of its budget."""

    async def set_budget(self, budget: BudgetRow) -> None:
        """Keep a budget with windows, or what became of it; running gateways hold it in force within moments."""

    async def budgets(self) -> Sequence[BudgetRow]:
        """Every budget that was not removed, oldest first."""

    async def counters(self, budget_id: str, windows: Iterable[str]) -> Mapping[str, Spending]:
        """What counts in some windows of a budget, by the counter's name (`gateway.storage.budgets.counter`)."""

    # Alerts.

    async def raise_alert(self, alert: AlertRow) -> bool:
        """Keep an alert; False when it was raised before."""

    async def alerts(self, limit: int) -> Sequence[AlertRow]:
        """The alerts raised last, newest first."""

    async def undelivered_alerts(self, hook: str, since: datetime) -> Sequence[AlertRow]:
        """What was raised since a moment and a hook has not got, oldest first."""

    async def alert_delivered(self, alert_id: str, hook: str, at: datetime) -> None:
        """Remember that a hook got an alert."""

    # Sellers' own price lists.

    async def listed_prices(self, account: str) -> Mapping[str, ListedPrice]:
        """What an account's list said when it was last read, by endpoint."""

    async def keep_listed_prices(self, account: str, prices: Sequence[ListedPrice], at: datetime) -> None:
        """Remember what an account's list says now; what it no longer names is forgotten."""

    async def propose_prices(self, account: str, changes: Sequence[PriceChange], at: datetime) -> int:
        """Have what is open of an account be what its list would change; how many of them are new."""

    async def price_proposals(self, state: ProposalState | None = None) -> Sequence[Proposal]:
        """What was proposed, oldest first; those of one state, or all."""

    async def end_proposals(
        self, ids: Sequence[int], state: ProposalState, actor: str, message: str, at: datetime
    ) -> bool:
        """Decide about open proposals; False, and nothing is changed, when one of them is not open."""

    async def add_price_revision(self, revision: PriceRevision, applied: Sequence[int] = ()) -> int | None:
        """Keep synced prices, and that they apply some proposals; None, and nothing is kept, when one is not open."""

    async def price_revisions(self) -> Sequence[PriceRevision]:
        """Every text of synced prices there was, oldest first."""

    # The books.

    async def balances(self) -> Sequence[BalanceRow]:
        """Every party's balance."""

    async def entries(self, after_seq: int = 0, limit: int = 1000) -> Sequence[EntryRow]:
        """Entries in the order they were written, after one of them."""

    async def posted_costs(self, after_seq: int = 0, limit: int = 1000) -> Sequence[PostedCost]:
        """Posted entries of the cost books, with their orders, after one entry, in the order they were written."""

    async def corrections(self, account: str, since: datetime) -> Sequence[Correction]:
        """What was corrected in an account's cost book since a moment, without naming an attempt, oldest first."""

    async def mended(self, account: str, since: datetime) -> Mapping[str, int]:
        """Attempt id -> what corrections of the cost book that name it add up to, of orders started since a moment."""

    async def audit(self) -> list[str]:
        """One sentence per broken promise about money, recomputed from the entries; empty when all hold."""

    async def examine(self) -> Audit:
        """The same, with how much was looked at and how often a bill went beyond its hold."""

    async def recorded_calls(
        self, after: str, since: datetime, limit: int = 20_000
    ) -> tuple[Sequence[RecordedCall], str | None]:
        """Calls after one of them, by id, decided about since a moment; and after which to go on, None at the end."""

    async def activity(self, start: datetime, end: datetime, zone: tzinfo, account: str | None = None) -> Activity:
        """What was posted from `start` to before `end`, days as `zone` counts them.

        With an account: only what is owed to it.
        """

    async def spent_hours(self, after_seq: int, since: datetime) -> SpentHours:
        """What was posted after one entry, as far as one look reads, and not before a moment; added up by the hour."""

    async def placed_since(self, since: datetime) -> Mapping[str, tuple[int, int]]:
        """Account -> orders of calls begun since a moment, and how many of them it refused for their rate."""

    async def settled_since(self, account: str, since: datetime) -> Sequence[AttemptRow]:
        """Settled orders of calls begun since a moment, oldest first; quick, however many there were before."""

    async def draft_statement(self, account: str, month: str, start: datetime, end: datetime) -> Statement:
        """What the ledger says about an account's month so far.

        With what was posted to earlier months after the last close, so that nothing is on no statement.
        """

    async def statements(self, account: str | None = None) -> Sequence[Statement]:
        """The closed statements, oldest first."""

    async def close_statement(self, statement: Statement) -> bool:
        """Lock a month; False when it was closed before."""

    # Policies.

    async def policy_revisions(self, policy: str | None = None) -> Sequence[PolicyRevision]:
        """Every revision of a policy, or of all, oldest first."""

    async def add_policy_revision(self, revision: PolicyRevision, expect: int | None = None) -> int | None:
        """Keep a revision, and its number; None, and nothing is kept, when another than `expect` is its policy's last.

        Candidates of a canary are not the last of anything.
        """

    async def policy_events(self) -> Sequence[PolicyEvent]:
        """What was done with revisions, oldest first."""

    async def add_policy_event(self, event: PolicyEvent) -> None:
        """Keep what was done with one."""

    async def canaries(self) -> Sequence[CanaryRow]:
        """Every canary there was, oldest first; at most one is running."""

    async def start_canary(self, canary: CanaryRow) -> int | None:
        """Begin a canary, and its id; None while another one runs."""

    async def end_canary(self, canary: CanaryRow, state: CanaryState, reason: str, at: datetime) -> bool:
        """Change the state of a canary; False when it is no longer as it was read."""

    async def report_canary(self, canary_id: int, report: bytes) -> None:
        """Keep how a canary stands."""

    # Experiments.

    async def keep_pair(self, row: ShadowRow, assets: Sequence[AssetRow] = ()) -> bool:
        """Keep a pair, with pictures that were kept for it alone.

        False, and nothing is kept, where what the delivered live call asked for was erased meanwhile.
        """

    async def shadow_pairs(self, experiment: str) -> Sequence[Pair]:
        """The pairs of an experiment, oldest first; a side's `asset` is None once its picture is gone."""

    async def unmeasured_pairs(self, limit: int, experiment: str | None = None) -> Sequence[ShadowRow]:
        """Pairs whose pictures nobody has measured yet, the oldest first; of one experiment, or of all."""

    async def measure_pair(self, pair: Pair) -> None:
        """Remember what was measured, and the sides as they look since."""

    async def unmeasure_pairs(self, experiment: str) -> None:
        """Forget what was measured of an experiment's pairs, where both pictures are kept."""

    async def unjudged_pairs(
        self, compared: Sequence[Compared], limit: int, before: datetime, tries: int, data: DataTerms
    ) -> Sequence[ShadowRow]:
        """Measured pairs that compare this, of which both pictures are kept, that no judge has said anything about.

        Those asked about least often first, then the oldest; without those asked about since `before`, or `tries` times
        while it answered, and those whose calls ask for more than `data`, which is what the judge does with what it is
        shown, or whose requirements were not kept.
        """

    async def begin_judgement(
        self, pair: Pair, at: datetime, cost: NanoUsd, *, before: datetime, since: datetime, most: NanoUsd
    ) -> bool:
        """Note that a judge is asked about a pair now.

        False, and nothing is noted, where somebody else asked since `before`, or where all that was asked since `since`
        would cost more than `most` with it.
        """

    async def end_judgement(
        self,
        pair: Pair,
        at: datetime,
        judgement: int | None,
        failure: str | None,
        cost: NanoUsd,
        *,
        of_all: bool = False,
    ) -> None:
        """Remember what the judge said, or why it said nothing; `of_all`: it answered nobody, which is no try."""

    async def judged(self, experiment: str) -> Judged:
        """What was asked about an experiment so far."""

    async def keep_votes(self, votes: Sequence[VoteRow]) -> int:
        """Keep what people said of pairs; how many of these were not known yet.

        Of one person and pair the latest choice counts, at the time when their first one came in.
        """

    async def votes(self, experiment: str) -> Sequence[VoteRow]:
        """What people said of an experiment's pairs."""

    async def shadow_calls(self, calls: Sequence[str]) -> Sequence[str]:
        """The copies of some live calls."""

    async def count_left_out(self, experiment: str, reason: str, at: datetime, calls: int) -> None:
        """Add to how many copies an experiment did not make on a day, and why."""

    async def left_out(self, experiment: str) -> Mapping[str, int]:
        """How many copies an experiment did not make so far, by reason."""

    async def keep_draw(self, draw: Draw) -> None:
        """Keep what was drawn to see whether an offer has changed."""

    async def draws(self, offer: str | None = None) -> Sequence[Draw]:
        """What was drawn at an offer, or at all, to see whether it has changed, oldest first."""

    async def drop_pairs(self, now: datetime) -> None:
        """Forget the pairs whose time is over; their pictures go by their own."""

    # The connection.

    async def check(self) -> None:
        """Raise `NotReady`, with the reason, when money cannot be recorded."""

    async def aclose(self) -> None:
        """Commit what was asked for and let go; every later verb raises `NotReady`."""


def open_database(url: str, durability: Durability = "power", *, create: bool = True) -> Database:
    """The database behind a URL: `sqlite:///relative.db` or `sqlite:////absolute.db`.

    A missing file is created only when `create` is set; an empty, foreign or damaged one raises `NotReady`.
    """
    scheme, separator, path = url.partition(":///")
    if not separator or scheme != "sqlite" or not path:
        raise ValueError(f"database url {url!r}: only sqlite:///PATH is known (four slashes for an absolute path)")
    from gateway.storage.database.sqlite import SqliteDatabase

    return SqliteDatabase(path, durability, create=create)


__all__ = [
    "Alive",
    "AlreadyClosed",
    "Closing",
    "Correction",
    "Database",
    "Durability",
    "Heartbeat",
    "Held",
    "Spending",
    "TakenOver",
    "UnknownAttempt",
    "open_database",
]
