"""The database in one SQLite file: nothing to install, one writer, any number of readers and processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Literal, TypeVar, TypeVarTuple

from gateway.errors import NotReady
from gateway.storage.activity import Activity, PostedCost, RecordedCall, SpentHours
from gateway.storage.audit import Audit
from gateway.storage.changes import ChangeRow
from gateway.storage.database import Alive, Closing, Correction, Durability, Heartbeat, Spending
from gateway.storage.database.sqlite import policies, prices, shadows, statements, values
from gateway.storage.database.sqlite.activity import activity, posted_costs, spent_hours
from gateway.storage.database.sqlite.audit import audit
from gateway.storage.database.sqlite.books import OPEN, Books
from gateway.storage.database.sqlite.file import connect, not_ready, open_file
from gateway.storage.database.sqlite.group_commit import GroupWriter
from gateway.storage.database.sqlite.recorded import recorded
from gateway.storage.database.sqlite.values import ASSET, ATTEMPT, KEY, Columns, micros
from gateway.storage.policies import CanaryRow, CanaryState, PolicyEvent, PolicyRevision
from gateway.storage.prices import PriceChange, PriceRevision, Proposal, ProposalState
from gateway.storage.rows import (
    AlertRow,
    AssetRow,
    AttemptRow,
    BalanceRow,
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

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_ATTEMPTS = f"SELECT {ATTEMPT} FROM attempts"  # noqa: S608 - constants only
_ASSETS = f"SELECT {ASSET} FROM assets"  # noqa: S608 - constants only
_KEYS = f"SELECT {KEY} FROM keys"  # noqa: S608 - constants only
_BEAT = """INSERT INTO owners VALUES (?,?,?,?)
    ON CONFLICT DO UPDATE SET pid = excluded.pid, host = excluded.host, at = excluded.at"""
_PROBE = "INSERT INTO owners VALUES ('', 0, '', 0) ON CONFLICT DO UPDATE SET at = at + 1"
_ORPHANS = f"""SELECT {", ".join("attempts." + name for name in ATTEMPT.split(", "))},
    owners.pid, owners.host, owners.at
    FROM attempts LEFT JOIN owners USING (owner) WHERE {OPEN} AND state <> 'suspended' ORDER BY started, attempts.id"""  # noqa: S608 - constants only
_ENTRIES = """SELECT seq, at, book, party, kind, amount, attempt_id,
    COALESCE(attempts.call_id, ''), COALESCE(attempts.offer_id, ''), note
    FROM entries LEFT JOIN attempts ON attempts.id = attempt_id WHERE seq > ? ORDER BY seq LIMIT ?"""
_PLACED = """SELECT account, COUNT(*), COALESCE(SUM(CAST(outcome AS TEXT) ->> 'error' = 'overloaded'), 0)
    FROM attempts WHERE id >= ? AND NOT reservation GROUP BY account"""
_COUNTED = """SELECT party, held, posted, NULL FROM balances
    WHERE book IN ('budget cost', 'budget charge') AND party >= ? AND party < ?"""
_SPENDING = """SELECT party, held, posted, budget FROM balances LEFT JOIN {table} ON {key} = party WHERE book = '{book}'
    UNION ALL SELECT {key}, 0, 0, budget FROM {table}
    WHERE {key} NOT IN (SELECT party FROM balances WHERE book = '{book}')"""


class SqliteDatabase:
    """Implements `Database`. Serves one event loop: a writer thread of its own, and one thread for reads."""

    def __init__(self, path: str, durability: Durability, *, create: bool = True) -> None:
        """Open (and bring up to date) the file at `path`. Raises `NotReady`."""
        self._path = Path(path)
        open_file(self._path, create=create)
        self._identity = _identity(self._path)
        self._connection = connect(self._path, durability)
        self._reader = connect(self._path, durability, read_only=True)
        self._books = Books(self._connection, self._same_file)
        self._tidier = connect(self._path, durability) if durability == "process" else None
        self._writer = GroupWriter(
            self._connection,
            self._books,
            self._blame,
            tidy=self._tidy_up if self._tidier else None,
            under_way=lambda: self._under_way,
        )
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="pixelgate-reader")
        self._closed = False
        self._under_way = 0

    async def hold(self, owner: str, holds: Sequence[NewHold], decisions: Sequence[DecisionRow], at: datetime) -> None:
        """Set money aside for every hold or for none."""
        await self._writer.submit(self._books.hold, owner, holds, decisions, at)
        self._under_way += len(holds)

    async def accept(self, owner: str, attempt_id: str, ticket: Ticket) -> None:
        """Keep the provider's receipt."""
        await self._writer.submit(self._books.accept, owner, attempt_id, ticket)

    async def close(self, closing: Closing) -> bool:
        """End a hold, once."""
        closed = await self._writer.submit(self._books.close, closing)
        self._under_way = max(self._under_way - closed, 0)
        return closed

    async def suspend(self, owner: str | None, attempt_id: str, outcome: Outcome, at: datetime) -> bool:
        """Nobody knows yet what is owed: the money stays held."""
        suspended = await self._writer.submit(self._books.suspend, owner, attempt_id, outcome, at)
        self._under_way = max(self._under_way - suspended, 0)
        return suspended

    async def correct(self, correction: Correction) -> bool:
        """Append a correction."""
        return await self._writer.submit(self._books.correct, correction)

    async def set_billing(self, terms: Mapping[str, Billing]) -> None:
        """Put the billing of every account that has some in force."""
        await self._writer.submit(self._books.set_billing, terms)

    async def billing_counters(self, account: str) -> Mapping[str, int]:
        """What an account's invoice has counted."""
        sql = "SELECT counter, value FROM billing_counters WHERE account = ?"
        return dict(await self._all(lambda row: (str(row[0]), int(row[1])), sql, account))

    async def beat(self, heartbeat: Heartbeat) -> None:
        """Record that an owner lives."""
        columns = (heartbeat.owner, heartbeat.pid, heartbeat.host, micros(heartbeat.at))
        await self._writer.submit(self._books.changed, _BEAT, *columns)

    async def orphans(self, now: datetime, stale_after_s: float, alive: Alive) -> Sequence[AttemptRow]:
        """Open, unsuspended attempts whose owner is gone."""
        oldest = now - timedelta(seconds=stale_after_s)
        verdicts: dict[str, bool] = {}
        found = []
        for attempt, beat in await self._all(values.owned_attempt, _ORPHANS):
            if attempt.owner not in verdicts:
                verdicts[attempt.owner] = beat is None or beat.at < oldest or not alive(beat)
            if verdicts[attempt.owner]:
                found.append(attempt)
        return found

    async def take_over(self, attempts: Sequence[AttemptRow], owner: str) -> Sequence[str]:
        """Make `owner` the owner of attempts still open and still owned as read."""
        return await self._writer.submit(self._books.take_over, attempts, owner)

    async def open_attempts(self) -> Sequence[AttemptRow]:
        """Attempts that are reserved, intended or accepted."""
        return await self._attempts(f"WHERE {OPEN} AND state <> 'suspended'")

    async def suspended(self, account: str | None = None) -> Sequence[AttemptRow]:
        """Attempts whose cost nobody knows yet."""
        where = f"WHERE {OPEN} AND state = 'suspended' AND (? IS NULL OR account = ?)"
        return await self._attempts(where, account, account)

    async def account_attempts(self, account: str, since: datetime) -> Sequence[AttemptRow]:
        """Every order placed at a provider account since a moment."""
        where = "WHERE account = ? AND started >= ? AND NOT reservation"
        return await self._attempts(where, account, micros(since))

    async def settled_since(self, account: str, since: datetime) -> Sequence[AttemptRow]:
        """Settled orders of calls begun since a moment; ids begin with the milliseconds of their call."""
        where = "WHERE id >= ? AND account = ? AND state = 'settled'"
        return await self._attempts(where, values.first_id("att", since), account)

    async def placed_since(self, since: datetime) -> Mapping[str, tuple[int, int]]:
        """Account -> orders of calls begun since a moment, and how many of them it refused for their rate."""
        rows = await self._all(tuple, _PLACED, values.first_id("att", since))
        return {account: (orders, refused) for account, orders, refused in rows}

    async def count_fetches(self, times: Mapping[str, int]) -> None:
        """Add to how often pictures were fetched, by id."""
        await self._writer.submit(self._books.count_fetches, times)

    async def spent_hours(self, after_seq: int, since: datetime) -> SpentHours:
        """What was posted after one entry, added up by the hour."""
        return await self._read(spent_hours, self._reader, after_seq, since)

    async def attempts(self, call_id: str) -> Sequence[AttemptRow]:
        """The orders of a call."""
        where = "WHERE id BETWEEN ? AND ? AND call_id = ? AND NOT reservation"
        return await self._attempts(where, *values.ids_of(call_id, "att"), call_id)

    async def attempt(self, attempt_id: str) -> AttemptRow | None:
        """One attempt."""
        return next(iter(await self._attempts("WHERE id = ?", attempt_id)), None)

    async def save_decisions(self, decisions: Sequence[DecisionRow]) -> None:
        """Keep decisions that led to no hold."""
        await self._writer.submit(self._books.save_decisions, decisions)

    async def decisions(self, call_id: str) -> Sequence[DecisionRow]:
        """The decisions of a call."""
        sql = "SELECT call_id, part, number, at, team, body FROM decisions WHERE call_id = ? ORDER BY number"
        return await self._all(values.decision, sql, call_id)

    async def save_recipe(self, recipe: RecipeRow) -> None:
        """Keep what a call asked for."""
        await self._writer.submit(self._books.save_recipe, recipe)

    async def recipe(self, call_id: str) -> RecipeRow | None:
        """What a call asked for."""
        sql = "SELECT call_id, team, user, request, created FROM recipes WHERE call_id = ?"
        return next(iter(await self._all(values.recipe, sql, call_id)), None)

    async def asset(self, asset_id: str, team: str) -> AssetRow | None:
        """A picture of this team."""
        return next(iter(await self._assets("WHERE id = ? AND team = ?", asset_id, team)), None)

    async def asset_by_path(self, path: str) -> AssetRow | None:
        """The picture at a path of the blob store."""
        name = path.rpartition("/")[2].partition(".")[0]
        return next(iter(await self._assets("WHERE id = ? AND path = ?", name, path)), None)

    async def call_assets(self, call_id: str) -> Sequence[AssetRow]:
        """The pictures of a call."""
        where = "WHERE id BETWEEN ? AND ? AND call_id = ? ORDER BY position"
        return await self._assets(where, *values.ids_of(call_id, "img"), call_id)

    async def children(self, asset_id: str, team: str) -> Sequence[AssetRow]:
        """The pictures that were made from this one."""
        return await self._assets("WHERE parent_id = ? AND team = ? ORDER BY created, id", asset_id, team)

    async def expired_assets(self, now: datetime, limit: int) -> Sequence[AssetRow]:
        """Pictures whose time is over."""
        return await self._assets("WHERE expires <= ? ORDER BY expires LIMIT ?", micros(now), limit)

    async def drop_asset(self, asset_id: str) -> None:
        """Forget a picture that was deleted."""
        await self._writer.submit(self._books.changed, "DELETE FROM assets WHERE id = ?", asset_id)

    async def user_calls(self, user: str, team: str | None) -> Sequence[str]:
        """Calls made for an end user."""
        sql = """SELECT call_id FROM recipes WHERE user = ? AND (? IS NULL OR team = ?)
            UNION SELECT call_id FROM idempotency WHERE user = ? AND (? IS NULL OR team = ?)
            UNION SELECT shadow_call FROM shadow_pairs WHERE user = ? AND (? IS NULL OR team = ?)"""
        return await self._all(lambda row: str(row[0]), sql, *(user, team, team) * 3)

    async def erase(self, calls: Sequence[str], assets: Sequence[str], record: ErasureRow) -> tuple[int, int]:
        """Forget pictures, and what calls asked for."""
        return await self._writer.submit(self._books.erase, calls, assets, record)

    async def erasures(self) -> Sequence[ErasureRow]:
        """Everything that was erased."""
        sql = "SELECT at, actor, subject, images, recipes, keys, payloads FROM erasures ORDER BY rowid"
        return await self._all(values.erasure, sql)

    async def drop_recipes(self, before: datetime, *, team: str | None, but: Sequence[str] = ()) -> None:
        """Forget what calls asked for before a moment."""
        await self._drop_of_calls("recipes", before, team, but)

    async def drop_decisions(self, before: datetime, *, team: str | None, but: Sequence[str] = ()) -> None:
        """Forget why calls before a moment were served as they were."""
        await self._drop_of_calls("decisions", before, team, but)

    async def claim_idempotency(self, row: IdempotencyRow, since: datetime) -> IdempotencyRow:
        """The first row of this team and key made after `since`."""
        return await self._writer.submit(self._books.claim_idempotency, row, since)

    async def answer_idempotency(self, team: str, key: str, call_id: str) -> None:
        """Remember that the call of a key delivered."""
        sql = "UPDATE idempotency SET answered = 1 WHERE team = ? AND key = ? AND call_id = ?"
        await self._writer.submit(self._books.changed, sql, team, key, call_id)

    async def free_idempotency(self, team: str, key: str, call_id: str) -> None:
        """Forget a key whose call came to nothing."""
        sql = "DELETE FROM idempotency WHERE team = ? AND key = ? AND call_id = ?"
        await self._writer.submit(self._books.changed, sql, team, key, call_id)

    async def drop_idempotency(self, before: datetime) -> None:
        """Forget keys first used before a moment."""
        await self._writer.submit(self._books.changed, "DELETE FROM idempotency WHERE created < ?", micros(before))

    async def answered_calls(self, key_id: str, fingerprint: bytes, since: datetime) -> Sequence[str]:
        """Calls of an API key, ordered since a moment, that drew what a fingerprint stands for."""
        # Ids begin with the time in milliseconds, so the primary key finds what is recent without an index of its own.
        sql = """SELECT DISTINCT call_id FROM attempts WHERE id >= ? AND key_id = ? AND fingerprint = ?
            AND state = 'settled' AND charge > 0 ORDER BY call_id DESC"""
        first = f"att_{micros(since) // 1000:012x}"
        return await self._all(lambda row: str(row[0]), sql, first, key_id, fingerprint)

    async def add_key(self, key: KeyRow, actor: str = "gateway") -> None:
        """Keep a new key."""
        await self._writer.submit(self._books.add_key, key, actor)

    async def keys(self) -> Sequence[KeyRow]:
        """Every key."""
        return await self._all(values.key, f"{_KEYS} ORDER BY rowid")

    async def changed_keys(self, since: int) -> Sequence[KeyRow]:
        """The keys that were made or changed after a change."""
        where = "WHERE id IN (SELECT name FROM changes WHERE of = 'key' AND seq > ?)"
        return await self._all(values.key, f"{_KEYS} {where}", since)

    async def key(self, key_id: str) -> KeyRow | None:
        """One key."""
        return next(iter(await self._all(values.key, f"{_KEYS} WHERE id = ?", key_id)), None)

    async def change_key(self, before: KeyRow, after: KeyRow, change: ChangeRow) -> bool:
        """Put another record in a key's place."""
        return await self._writer.submit(self._books.change_key, before, after, change)

    async def add_change(self, change: ChangeRow) -> None:
        """Keep the record of a change that was made elsewhere."""
        await self._writer.submit(self._books.add_change, change)

    async def changes(self, of: Literal["key", "account"], name: str | None, limit: int) -> Sequence[ChangeRow]:
        """The last changes, newest first."""
        sql = """SELECT seq, at, actor, of, name, action, detail FROM changes
            WHERE of = ? AND (? IS NULL OR name = ?) ORDER BY seq DESC LIMIT ?"""
        return await self._all(values.change, sql, of, name, name, limit)

    async def last_change(self) -> int:
        """The number of the last change."""
        return (await self._all(lambda row: int(row[0]), "SELECT COALESCE(MAX(seq), 0) FROM changes"))[0]

    async def key_spent(self, key_id: str) -> Spending:
        """What a key has used of its budget."""
        return (await self._spending("keys", "id", "key")).get(key_id, Spending())

    async def key_hours(self, since: int) -> Sequence[KeyHour]:
        """Where hours of keys began."""
        return await self._all(values.key_hour, "SELECT key_id, hour, opened FROM key_hours WHERE hour >= ?", since)

    async def open_key_hours(self, hours: Sequence[KeyHour], *, forget_before: int) -> None:
        """Keep where hours of keys begin."""
        await self._writer.submit(self._books.open_key_hours, hours, forget_before)

    async def set_team_budget(self, team: str, budget: int | None) -> None:
        """Set, change or lift a team's hard limit."""
        await self._writer.submit(self._books.set_team_budget, team, budget)

    async def spending(self) -> tuple[Mapping[str, Spending], Mapping[str, Spending]]:
        """What every key and every team has used of its budget."""
        return await self._spending("keys", "id", "key"), await self._spending("teams", "team", "charge")

    async def set_budget(self, budget: BudgetRow) -> None:
        """Keep a budget, or what became of it."""
        await self._writer.submit(self._books.set_budget, budget)

    async def budgets(self) -> Sequence[BudgetRow]:
        """Every budget that was not removed, oldest first."""
        sql = f"SELECT {values.BUDGET} FROM budgets WHERE removed IS NULL ORDER BY created, id"  # noqa: S608 - columns
        return await self._all(values.budget, sql)

    async def counters(self, budget_id: str, windows: Iterable[str]) -> Mapping[str, Spending]:
        """What counts in some windows of a budget."""
        return await self._read(_counted, self._reader, budget_id, tuple(windows))

    async def raise_alert(self, alert: AlertRow) -> bool:
        """Keep an alert; False when it was raised before."""
        sql = "INSERT INTO alerts VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        return await self._writer.submit(self._books.changed, sql, *values.alert_columns(alert))

    async def alerts(self, limit: int) -> Sequence[AlertRow]:
        """The alerts raised last, newest first."""
        sql = "SELECT id, at, kind, text, facts FROM alerts ORDER BY rowid DESC LIMIT ?"
        return await self._all(values.alert, sql, limit)

    async def undelivered_alerts(self, hook: str, since: datetime) -> Sequence[AlertRow]:
        """What was raised since a moment and a hook has not got, oldest first."""
        sql = """SELECT id, at, kind, text, facts FROM alerts WHERE at >= ?
            AND id NOT IN (SELECT alert FROM alert_deliveries WHERE hook = ?) ORDER BY rowid"""
        return await self._all(values.alert, sql, micros(since), hook)

    async def alert_delivered(self, alert_id: str, hook: str, at: datetime) -> None:
        """Remember that a hook got an alert."""
        sql = "INSERT INTO alert_deliveries VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        await self._writer.submit(self._books.changed, sql, alert_id, hook, micros(at))

    async def listed_prices(self, account: str) -> Mapping[str, ListedPrice]:
        """What an account's list said when it was last read, by endpoint."""
        sql = "SELECT endpoint, unit, nano_usd FROM listed_prices WHERE account = ?"
        return {price.endpoint: price for price in await self._all(values.listed_price, sql, account)}

    async def keep_listed_prices(self, account: str, prices: Sequence[ListedPrice], at: datetime) -> None:
        """Remember what an account's list says now."""
        await self._writer.submit(self._books.keep_listed_prices, account, prices, at)

    async def propose_prices(self, account: str, changes: Sequence[PriceChange], at: datetime) -> int:
        """Have what is open of an account be what its list would change."""
        return await self._writer.submit(prices.propose, self._connection, account, changes, at)

    async def price_proposals(self, state: ProposalState | None = None) -> Sequence[Proposal]:
        """What was proposed, oldest first; those of one state, or all."""
        sql = f"SELECT {prices.PROPOSAL} FROM price_proposals WHERE ? IS NULL OR state = ? ORDER BY id"  # noqa: S608 - constants only
        return await self._all(prices.proposal, sql, state, state)

    async def end_proposals(
        self, ids: Sequence[int], state: ProposalState, actor: str, message: str, at: datetime
    ) -> bool:
        """Decide about open proposals."""
        return await self._writer.submit(prices.decide, self._connection, ids, state, actor, message, at)

    async def add_price_revision(self, revision: PriceRevision, applied: Sequence[int] = ()) -> int | None:
        """Keep synced prices, and that they apply some proposals."""
        return await self._writer.submit(prices.keep, self._connection, revision, applied)

    async def price_revisions(self) -> Sequence[PriceRevision]:
        """Every text of synced prices there was, oldest first."""
        return await self._all(prices.revision, f"SELECT {prices.REVISION} FROM price_revisions ORDER BY seq")  # noqa: S608 - constants only

    async def balances(self) -> Sequence[BalanceRow]:
        """Every party's balance."""
        sql = "SELECT book, party, held, posted FROM balances WHERE book IN ('cost', 'charge') ORDER BY book, party"
        return await self._all(values.balance, sql)

    async def entries(self, after_seq: int = 0, limit: int = 1000) -> Sequence[EntryRow]:
        """Entries in the order they were written."""
        return await self._all(values.entry, _ENTRIES, after_seq, limit)

    async def posted_costs(self, after_seq: int = 0, limit: int = 1000) -> Sequence[PostedCost]:
        """Posted entries of the cost books, with their orders."""
        return await self._read(posted_costs, self._reader, after_seq, limit)

    async def corrections(self, account: str, since: datetime) -> Sequence[Correction]:
        """What was corrected in an account's cost book without naming an attempt."""
        sql = """SELECT book, party, amount, note, at, attempt_id, endpoint FROM entries
            WHERE kind = 'correction' AND book = 'cost' AND party = ? AND attempt_id = '' AND at >= ? ORDER BY seq"""
        return await self._all(values.correction, sql, account, micros(since))

    async def mended(self, account: str, since: datetime) -> Mapping[str, int]:
        """Order -> what it was corrected by in the cost book, of an account's orders started since a moment."""
        sql = """SELECT attempt_id, SUM(amount) FROM entries JOIN attempts ON attempts.id = attempt_id
            WHERE kind = 'correction' AND book = 'cost' AND party = ? AND started >= ? GROUP BY attempt_id"""
        return dict(await self._all(_pair, sql, account, micros(since)))

    async def audit(self) -> list[str]:
        """One sentence per broken promise about money."""
        return list((await self.examine()).faults)

    async def examine(self) -> Audit:
        """Every broken promise about money, and how much was looked at."""
        return await self._read(audit, self._reader)

    async def recorded_calls(
        self, after: str, since: datetime, limit: int = 20_000
    ) -> tuple[Sequence[RecordedCall], str | None]:
        """Calls after one of them, decided about since a moment; and after which to go on."""
        return await self._read(recorded, self._reader, after, since, limit)

    async def activity(self, start: datetime, end: datetime, zone: tzinfo, account: str | None = None) -> Activity:
        """What was posted within a period."""
        return await self._read(activity, self._reader, start, end, zone, account)

    async def draft_statement(self, account: str, month: str, start: datetime, end: datetime) -> Statement:
        """What the ledger says about an account's month so far."""
        return await self._read(statements.draft, self._reader, account, month, start, end)

    async def statements(self, account: str | None = None) -> Sequence[Statement]:
        """The closed statements."""
        return await self._read(statements.closed, self._reader, account)

    async def close_statement(self, statement: Statement) -> bool:
        """Lock a month."""
        return await self._writer.submit(statements.close, self._connection, statement)

    async def policy_revisions(self, policy: str | None = None) -> Sequence[PolicyRevision]:
        """Every revision of a policy, or of all."""
        sql = f"SELECT {policies.REVISION} FROM policy_revisions WHERE ? IS NULL OR policy = ? ORDER BY seq"  # noqa: S608 - constants only
        return await self._all(policies.revision, sql, policy, policy)

    async def add_policy_revision(self, revision: PolicyRevision, expect: int | None = None) -> int | None:
        """Keep a revision."""
        return await self._writer.submit(policies.add, self._connection, revision, expect)

    async def policy_events(self) -> Sequence[PolicyEvent]:
        """What was done with revisions."""
        return await self._all(policies.event, f"SELECT {policies.EVENT} FROM policy_events ORDER BY rowid")  # noqa: S608 - constants only

    async def add_policy_event(self, event: PolicyEvent) -> None:
        """Keep what was done with one."""
        await self._writer.submit(self._books.changed, policies.ADD_EVENT, *policies.event_columns(event))

    async def canaries(self) -> Sequence[CanaryRow]:
        """Every canary there was."""
        return await self._all(policies.canary, f"SELECT {policies.CANARY} FROM canaries ORDER BY id")  # noqa: S608 - constants only

    async def start_canary(self, canary: CanaryRow) -> int | None:
        """Begin a canary."""
        return await self._writer.submit(policies.start_canary, self._connection, canary)

    async def end_canary(self, canary: CanaryRow, state: CanaryState, reason: str, at: datetime) -> bool:
        """Change the state of a canary."""
        columns = (state, micros(at), reason, canary.id, canary.state)
        return await self._writer.submit(self._books.changed, policies.END, *columns)

    async def report_canary(self, canary_id: int, report: bytes) -> None:
        """Keep how a canary stands."""
        await self._writer.submit(self._books.changed, policies.REPORT, report, canary_id)

    async def keep_pair(self, row: ShadowRow, assets: Sequence[AssetRow] = ()) -> bool:
        """Keep a pair, unless its call was erased."""
        return await self._writer.submit(self._books.keep_pair, row, assets)

    async def shadow_pairs(self, experiment: str) -> Sequence[Pair]:
        """The pairs of an experiment, oldest first."""
        return await self._all(shadows.pair, shadows.PAIRS, experiment)

    async def unmeasured_pairs(self, limit: int, experiment: str | None = None) -> Sequence[ShadowRow]:
        """Pairs whose pictures nobody has measured yet."""
        return await self._all(shadows.row, shadows.UNMEASURED, experiment, experiment, limit)

    async def measure_pair(self, pair: Pair) -> None:
        """Remember what was measured."""
        await self._writer.submit(self._books.changed, shadows.MEASURE, *shadows.measured_columns(pair))

    async def unmeasure_pairs(self, experiment: str) -> None:
        """Forget what was measured."""
        await self._writer.submit(self._books.changed, shadows.UNMEASURE, experiment)

    async def unjudged_pairs(
        self, compared: Sequence[Compared], limit: int, before: datetime, tries: int, data: DataTerms
    ) -> Sequence[ShadowRow]:
        """Measured pairs that no judge has said anything about."""
        wanted = values.encode(compared).decode()
        handled = data.region, not data.trains, data.retention_days
        return await self._all(shadows.row, shadows.UNJUDGED, wanted, *handled, micros(before), tries, limit)

    async def begin_judgement(
        self, pair: Pair, at: datetime, cost: NanoUsd, *, before: datetime, since: datetime, most: NanoUsd
    ) -> bool:
        """Note that a judge is asked about a pair now, unless that costs too much."""
        bounds = (micros(since), cost, most, pair.id, micros(before))
        columns = (pair.id, micros(at), pair.experiment, cost, *bounds)
        return await self._writer.submit(self._books.changed, shadows.BEGIN_JUDGEMENT, *columns)

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
        """Remember what the judge said."""
        columns = (judgement, failure, of_all, cost, pair.id, micros(at))
        await self._writer.submit(self._books.changed, shadows.END_JUDGEMENT, *columns)

    async def judged(self, experiment: str) -> Judged:
        """What was asked about an experiment so far."""
        return shadows.judged(await self._all(tuple, shadows.JUDGED, experiment))

    async def keep_votes(self, votes: Sequence[VoteRow]) -> int:
        """Keep what people said of pairs."""
        return await self._writer.submit(self._books.keep_votes, votes)

    async def votes(self, experiment: str) -> Sequence[VoteRow]:
        """What people said of an experiment's pairs."""
        return await self._all(shadows.vote, shadows.VOTES, experiment)

    async def shadow_calls(self, calls: Sequence[str]) -> Sequence[str]:
        """The copies of some live calls."""
        return await self._all(lambda row: str(row[0]), shadows.CALLS, values.encode(calls).decode())

    async def count_left_out(self, experiment: str, reason: str, at: datetime, calls: int) -> None:
        """Add to how many copies an experiment did not make."""
        day = at.date().isoformat()
        await self._writer.submit(self._books.changed, shadows.COUNT_LEFT_OUT, experiment, day, reason, calls)

    async def left_out(self, experiment: str) -> Mapping[str, int]:
        """How many copies an experiment did not make so far, by reason."""
        return dict(await self._all(lambda row: (str(row[0]), int(row[1])), shadows.LEFT_OUT, experiment))

    async def keep_draw(self, draw: Draw) -> None:
        """Keep what was drawn to see whether an offer has changed."""
        await self._writer.submit(self._books.changed, shadows.KEEP_DRAW, *shadows.draw_columns(draw))

    async def draws(self, offer: str | None = None) -> Sequence[Draw]:
        """What was drawn to see whether an offer has changed."""
        return await self._all(shadows.draw, shadows.DRAWS, offer, offer)

    async def drop_pairs(self, now: datetime) -> None:
        """Forget the pairs whose time is over."""
        if await self._writer.submit(self._books.changed, shadows.DROP, micros(now)):
            await self._writer.submit(self._books.changed, shadows.DROP_VOTES)

    async def check(self) -> None:
        """Raise `NotReady` when money cannot be recorded."""
        await self._writer.submit(self._books.changed, _PROBE)

    async def aclose(self) -> None:
        """Commit what was asked for and let go."""
        if self._closed:
            return
        self._closed = True
        self._writer.close()
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._readers.shutdown)
        for connection in (self._tidier, self._reader, self._connection):
            if connection is not None:
                connection.close()

    async def _drop_of_calls(
        self, table: Literal["recipes", "decisions"], before: datetime, team: str | None, but: Sequence[str]
    ) -> None:
        # Ids begin with the time in milliseconds.
        last = f"call_{micros(before) // 1000:012x}"
        sql = f"""DELETE FROM {table} WHERE call_id < ? AND (? IS NULL OR team = ?)
            AND team NOT IN (SELECT value FROM json_each(?))"""  # noqa: S608 - constants only
        await self._writer.submit(self._books.changed, sql, last, team, team, values.encode(but).decode())

    async def _attempts(self, where: str, *columns: object) -> list[AttemptRow]:
        return await self._all(values.attempt, f"{_ATTEMPTS} {where} ORDER BY started, id", *columns)

    async def _assets(self, where: str, *columns: object) -> list[AssetRow]:
        return await self._all(values.asset, f"{_ASSETS} {where}", *columns)

    async def _spending(self, table: str, key: str, book: str) -> Mapping[str, Spending]:
        return dict(await self._all(values.spending, _SPENDING.format(table=table, key=key, book=book)))

    async def _all(self, convert: Callable[[Columns], T], sql: str, *columns: object) -> list[T]:
        return await self._read(_fetch, self._reader, convert, sql, columns)

    async def _read(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        if self._closed:
            raise NotReady("The database is closed.")
        try:
            self._same_file()
            return await asyncio.get_running_loop().run_in_executor(self._readers, work, *args)
        except sqlite3.Error as error:
            raise self._blame(error) from error

    def _tidy_up(self) -> None:
        """Have the log moved into the file, beside the commits and without standing in their way."""
        asyncio.get_running_loop().run_in_executor(self._readers, self._checkpoint)

    def _checkpoint(self) -> None:
        assert self._tidier is not None
        with contextlib.suppress(sqlite3.OperationalError):  # locked, or a fault that the next commit will report
            self._tidier.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _same_file(self) -> None:
        """A deleted or replaced file would take our writes with it unseen."""
        if _identity(self._path) != self._identity:
            raise NotReady(f"The database {self._path.name} was moved or replaced; restore it and restart.")

    def _blame(self, error: Exception) -> NotReady:
        return not_ready(self._path, error)


def _pair(row: Columns) -> tuple[str, int]:
    name, number = row
    return name, number


def _counted(connection: sqlite3.Connection, budget_id: str, windows: Sequence[str]) -> dict[str, Spending]:
    """What some windows count; a range of the primary key each, so that those that are over are not read."""
    found: dict[str, Spending] = {}
    for window in windows:
        found |= _fetch(connection, values.spending, _COUNTED, (f"{budget_id}/{window}/", f"{budget_id}/{window}0"))
    return found


def _fetch(
    connection: sqlite3.Connection, convert: Callable[[Columns], T], sql: str, columns: Sequence[object]
) -> list[T]:
    return [convert(row) for row in connection.execute(sql, columns)]


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells this file from another of the same name; None when there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - once per commit, and half the price of Path.stat
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
