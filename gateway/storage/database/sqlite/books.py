"""The commands that move money, each run inside the writer's transaction.

Balances are kept in memory while nobody else writes the file (SQLite's `data_version` tells), so a budget check
reads no row, and each balance that changed is written once per group instead of once per command. Rows that no command
reads (entries, decisions, recipes, assets) are gathered and written together before the commit: one statement for many
rows costs a third of one statement each. So are the ends of orders that this process holds: whether each of them was
as its owner believed is seen by how many rows changed, and where one was not, the group is run again with a look first.
"""

# ruff: noqa: S608 - statements are put together from constants; values are always bound

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

from msgspec import Struct

from gateway.errors import BudgetSpent
from gateway.storage.changes import ChangeRow, key_change
from gateway.storage.database import AlreadyClosed, Closing, Correction, TakenOver, UnknownAttempt
from gateway.storage.database.sqlite import shadows
from gateway.storage.database.sqlite.accounts import Account, Change
from gateway.storage.database.sqlite.group_commit import Regroup
from gateway.storage.database.sqlite.invoices import Invoices
from gateway.storage.database.sqlite.values import (
    ASSET,
    ATTEMPT,
    BUDGET,
    IDEMPOTENCY,
    KEY,
    asset_columns,
    budget,
    budget_columns,
    change_columns,
    decision_columns,
    encode,
    idempotency,
    idempotency_columns,
    key,
    key_columns,
    micros,
    recipe_columns,
)
from gateway.storage.database.sqlite.windowed import Counters, Windowed, decode_counters
from gateway.storage.rows import (
    AssetRow,
    AttemptRow,
    BudgetRow,
    DecisionRow,
    ErasureRow,
    IdempotencyRow,
    KeyHour,
    KeyRow,
    NewHold,
    Outcome,
    RecipeRow,
)
from gateway.storage.shadows import ShadowRow, VoteRow
from policies.billing import Billed, Billing, percent
from policies.money import to_usd
from providers.contract import ListedPrice, Ticket

Fact: TypeAlias = "tuple[str, str, str, int, str]"
"""An entry's book, party, kind, amount and note."""

Row: TypeAlias = "tuple[object, ...]"
"""The columns of a row to insert."""

OPEN = "state <> 'settled' AND state <> 'released'"
"""As the partial index says it, so that SQLite uses it."""

_HOLD = f"""INSERT INTO attempts ({ATTEMPT}, reservation, budgets)
    VALUES (?,?,?,?,?,?,?,?,?,?,?,0,0,?,?,?,?,?,?,NULL,NULL,NULL,?,?,?,?,NULL,?,?)"""
_FIND = """SELECT state, owner, account, team, key_id, hold_cost, hold_charge, cost, charge, budgets,
    offer_id, listed, count FROM attempts WHERE id = ?"""
_ACCEPT = "UPDATE attempts SET state = ?, ticket = ? WHERE id = ?"
_CLOSE = """UPDATE attempts SET state = ?, cost = ?, charge = ?, listed = ?, ended = COALESCE(ended, ?), outcome = ?
    WHERE id = ?"""
_CLOSE_HELD = """UPDATE attempts SET state = ?, cost = ?, charge = ?, listed = ?, ended = ?, outcome = ?
    WHERE id = ? AND owner = ? AND state IN ('intent', 'accepted')"""
_SUSPEND = "UPDATE attempts SET state = 'suspended', ended = ?, outcome = ? WHERE id = ?"
_TAKE_OVER = f"UPDATE attempts SET owner = ? WHERE id = ? AND owner = ? AND {OPEN}"
_ENTRY = "INSERT INTO entries (at, book, party, kind, amount, attempt_id, note) VALUES (?,?,?,?,?,?,?)"
_CORRECT = """INSERT INTO entries (at, book, party, kind, amount, attempt_id, endpoint, note)
    SELECT ?, ?, ?, 'correction', ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM entries
        WHERE kind = 'correction' AND book = ? AND party = ? AND (note = ? OR (note >= ? AND note < ?)))"""
_BALANCE = """INSERT INTO balances VALUES (?,?,?,?)
    ON CONFLICT DO UPDATE SET held = excluded.held, posted = excluded.posted"""
_ASSET = f"INSERT INTO assets ({ASSET}) VALUES ({','.join('?' * 20)})"
_DECISION = "INSERT INTO decisions (call_id, part, number, at, team, body) VALUES (?,?,?,?,?,?)"
_RECIPE = "INSERT INTO recipes (call_id, team, user, request, created) VALUES (?,?,?,?,?) ON CONFLICT DO NOTHING"
_CLAIM = f"""INSERT INTO idempotency ({IDEMPOTENCY}) VALUES (?,?,?,?,?,?,?)
    ON CONFLICT DO UPDATE SET fingerprint = excluded.fingerprint, call_id = excluded.call_id, user = excluded.user,
    created = excluded.created, answered = 0 WHERE created < ?"""
_CLAIMED = f"SELECT {IDEMPOTENCY} FROM idempotency WHERE team = ? AND key = ?"
_PLACES = ",".join("?" * len(KeyRow.__struct_fields__))
_KEY = f"INSERT INTO keys ({KEY}) VALUES ({_PLACES})"
_KEY_NOW = f"SELECT {KEY} FROM keys WHERE id = ?"
_CHANGE_KEY = f"UPDATE keys SET ({KEY}) = ({_PLACES}) WHERE id = ?"
_CHANGE = "INSERT INTO changes (at, actor, of, name, action, detail) VALUES (?,?,?,?,?,?)"
_BUDGET = f"INSERT OR REPLACE INTO budgets ({BUDGET}) VALUES ({','.join('?' * len(BudgetRow.__struct_fields__))})"
_BUDGETS = f"SELECT {BUDGET} FROM budgets"
_TEAM = "INSERT INTO teams VALUES (?, ?) ON CONFLICT DO UPDATE SET budget = excluded.budget"


REMEMBERED = 50_000
"""Balances, and counters of open holds, kept in memory; beyond that they are read anew as they are needed."""


class Books:
    """Balances in memory, entries and attempts in the file, and the commands that change them together."""

    def __init__(self, connection: sqlite3.Connection, same_file: Callable[[], None]) -> None:
        """`same_file` raises when the file is no longer where it was opened."""
        self._execute = connection.execute
        self._executemany = connection.executemany
        self._same_file = same_file
        self._balances: dict[Account, list[int]] = {}
        self._budgets: dict[Account, int | None] = {}
        self._windowed: Windowed | None = None
        self._invoices = Invoices(connection)
        self._touched: set[Account] = set()
        self._counted: dict[str, Counters | None] = {}
        """The counters that each open hold made here moves; they never change."""
        self._rows: dict[str, list[Row]] = {
            _HOLD: [],
            _CLOSE_HELD: [],
            _ENTRY: [],
            _DECISION: [],
            _RECIPE: [],
            _ASSET: [],
        }
        self._version = -1
        self._careful = False

    def begin(self, *, careful: bool) -> None:
        """Drop what is remembered when another process wrote since; `careful`: look before a hold is closed."""
        self._careful = careful
        self._same_file()
        (version,) = self._execute("PRAGMA data_version").fetchone()
        if version != self._version:
            self.forget()
            self._version = version

    def gathered(self) -> int:
        """How many rows wait to be written."""
        return sum(map(len, self._rows.values()))

    def flush(self) -> None:
        """Write the rows that were gathered and the balances that changed."""
        for statement in self._rows:
            self._write(statement)
        self._executemany(_BALANCE, [(*account, *self._balances[account]) for account in self._touched])
        self._touched.clear()
        self._invoices.flush()
        if len(self._balances) > REMEMBERED:  # budgets for each user, day by day
            self._balances.clear()
        if len(self._counted) > REMEMBERED:
            self._counted.clear()

    def forget(self) -> None:
        """Read balances and budgets anew, and let go of the rows that wait to be written."""
        self._balances.clear()
        self._budgets.clear()
        self._windowed = None
        self._invoices.forget()
        self._touched.clear()
        for rows in self._rows.values():
            rows.clear()

    def hold(self, owner: str, holds: Sequence[NewHold], decisions: Sequence[DecisionRow], at: datetime) -> None:
        """Set money aside for every hold or for none."""
        stamp = micros(at)
        changes: list[Change] = []
        windowed = self._windows()
        counters: list[Counters | None] = []
        for hold in holds:
            if hold.replaces is not None:
                changes += self._give_back(owner, hold.replaces, stamp)
            changes += (
                (("cost", hold.account), hold.cost, 0),
                (("charge", hold.team), hold.charge, 0),
                (("key", hold.key_id), hold.charge, 0),
            )
            counted = windowed.counters(hold, at)
            counters.append(counted)
            if counted is not None:
                changes += counted.changes(hold.cost, hold.charge)
        self._check_budgets(changes)
        windowed.check(changes, at, self._balance)
        for hold, counted in zip(holds, counters, strict=True):
            self._insert(owner, hold, stamp, counted)
            if not hold.reserve:
                self._counted[hold.attempt_id] = counted
        self.save_decisions(decisions)
        self._apply(changes)

    def accept(self, owner: str, attempt_id: str, ticket: Ticket) -> None:
        """Keep the provider's receipt."""
        found = self._find(attempt_id)
        found.must_be(owner, "intent", "accepted", "suspended")
        state = "accepted" if found.state == "intent" else found.state
        self._execute(_ACCEPT, (state, encode(ticket), found.id))

    def close(self, closing: Closing) -> bool:
        """End a hold once; False when it already ended just so."""
        state, cost, charge, stamp = closing.state, closing.cost, closing.charge, micros(closing.at)
        if cost < 0 or charge < 0 or (state == "released" and (cost or charge)):
            raise ValueError(f"{closing.attempt_id}: cannot be {state} with cost {cost} and charge {charge}")
        closed = self._close_held(closing, stamp) or self._close_found(closing, stamp)
        if closed is None:
            return False
        found, billed = closed
        if billed is not None:
            cost = billed.amount
        self._append(
            stamp,
            found.id,
            (
                *_closing_entries("cost", found.account, found.hold_cost, cost, state),
                *_closing_entries("charge", found.team, found.hold_charge, charge, state),
            ),
        )
        self._rows[_ASSET] += map(asset_columns, closing.assets)
        if closing.recipe is not None:
            self.save_recipe(closing.recipe)
        self.save_decisions(closing.decisions)
        self._apply(found.closing(cost, charge))
        if billed is not None:
            self._invoice(found, billed, closing.at)
        return True

    def _close_held(self, closing: Closing, stamp: int) -> _Closed | None:
        """Close a hold whose owner knows it well, without a look at it; None when somebody has to look."""
        held, owner = closing.held, closing.owner
        if held is None or owner is None or self._careful or closing.attempt_id not in self._counted:
            return None
        billed = self._invoices.bill(held.account, held.offer_id, closing)
        columns = (closing.state, *_posted(closing, billed), stamp, encode(closing.outcome))
        self._rows[_CLOSE_HELD].append((*columns, closing.attempt_id, owner))
        of = held.account, held.team, held.key_id, held.cost, held.charge
        counters = self._counted.pop(closing.attempt_id)
        return _Found(closing.attempt_id, "", owner, *of, 0, 0, counters, held.offer_id), billed

    def _close_found(self, closing: Closing, stamp: int) -> _Closed | None:
        """Close a hold after a look at it; None when it already ended just so."""
        state, cost, charge = closing.state, closing.cost, closing.charge
        found = self._find(closing.attempt_id)
        was = found.cost if found.listed is None or closing.listed is not None else found.listed
        if (found.state, was, found.charge) == (state, cost, charge):
            return None
        found.must_be(closing.owner, "intent", "accepted", "suspended", *(("reserved",) if state == "released" else ()))
        billed = self._invoices.bill(found.account, found.offer_id, closing)
        self._execute(_CLOSE, (state, *_posted(closing, billed), stamp, encode(closing.outcome), found.id))
        return found, billed

    def _invoice(self, found: _Found, billed: Billed, at: datetime) -> None:
        """Count what was billed, and post what the order owes or gets back beside its own cost."""
        self._invoices.apply(found.account, found.id, at, billed.moves)
        if billed.rebate:
            note = (
                f"{percent(billed.discount)} off in {billed.month}, from request {billed.request}: for those before it"
            )
            self._correct(
                Correction(
                    book="cost", party=found.account, amount=-billed.rebate, note=note, at=at, attempt_id=found.id
                )
            )
        model = found.offer_id.partition(":")[2].partition("/")[0]
        for amount, note in (
            (billed.fee, f"{found.account}: {billed.month}"),
            (billed.overage, f"{found.account}: pictures of {found.id} beyond those of {billed.month}"),
        ):
            if amount:
                party = f"licence:{model}"
                self._correct(Correction(book="cost", party=party, amount=amount, note=note, at=at, endpoint=model))

    def suspend(self, owner: str | None, attempt_id: str, outcome: Outcome, at: datetime) -> bool:
        """Keep the money held until it is known what is owed; the entries only say so."""
        found = self._find(attempt_id)
        if found.state == "suspended":
            return False
        found.must_be(owner, "intent", "accepted")
        stamp = micros(at)
        self._counted.pop(attempt_id, None)
        self._execute(_SUSPEND, (stamp, encode(outcome), found.id))
        self._append(stamp, attempt_id, found.both("suspend"))
        return True

    def correct(self, correction: Correction) -> bool:
        """Append a correction, once per book, party and note."""
        found = self._find(correction.attempt_id) if correction.attempt_id else None
        if not self._correct(correction):
            return False
        if correction.book != "cost":
            return True
        if found is not None and (found.state, found.cost) == ("released", 0):
            self._count_after_all(found, correction)
            return True
        moves = self._invoices.mend(correction.party, correction.amount, correction.at)
        self._invoices.apply(correction.party, correction.attempt_id, correction.at, moves)
        return True

    def _count_after_all(self, found: _Found, correction: Correction) -> None:
        """Count an order that was believed to cost nothing, and was billed."""
        closing = Closing(
            attempt_id=found.id,
            state="settled",
            at=correction.at,
            cost=correction.amount,
            listed=max(correction.amount, found.hold_cost),
            pictures=found.count if correction.pictures is None else correction.pictures,
        )
        billed = self._invoices.bill(found.account, found.offer_id, closing)
        if billed is not None:
            self._invoice(found, billed, correction.at)

    def set_billing(self, terms: Mapping[str, Billing]) -> None:
        """Put the billing of accounts in force."""
        self._invoices.set_terms(terms)

    def _correct(self, correction: Correction) -> bool:
        book, party, amount, note = correction.book, correction.party, correction.amount, correction.note
        told = f"{note}; {correction.why}" if correction.why else note
        columns = (amount, correction.attempt_id, correction.endpoint, told)
        known = (book, party, note, f"{note}; ", f"{note};!")  # "!" is the next after a blank
        if not self._execute(_CORRECT, (micros(correction.at), book, party, *columns, *known)).rowcount:
            return False
        changes: list[Change] = [((book, party), 0, amount)]
        if correction.attempt_id:
            self._write_attempts()
            column = "cost" if book == "cost" else "charge"
            row = self._execute(
                f"UPDATE attempts SET {column} = {column} + ? WHERE id = ? RETURNING key_id, budgets",
                (amount, correction.attempt_id),
            ).fetchone()
            if row is None:
                raise UnknownAttempt(correction.attempt_id)
            key_id, counters = row
            if book == "charge":
                changes.append((("key", key_id), 0, amount))
            if counters is not None:
                changes += decode_counters(counters).posted(book, amount)
        self._apply(changes)
        return True

    def take_over(self, attempts: Sequence[AttemptRow], owner: str) -> list[str]:
        """The attempts that are ours now; one still open, under the owner it was read with."""
        self._write_attempts()
        return [row.id for row in attempts if self._execute(_TAKE_OVER, (owner, row.id, row.owner)).rowcount]

    def save_decisions(self, decisions: Sequence[DecisionRow]) -> None:
        """Keep decisions."""
        self._rows[_DECISION] += map(decision_columns, decisions)

    def save_recipe(self, recipe: RecipeRow) -> None:
        """Keep a recipe; the first of a call stays."""
        self._rows[_RECIPE].append(recipe_columns(recipe))

    def keep_pair(self, row: ShadowRow, assets: Sequence[AssetRow]) -> bool:
        """Keep a pair, and pictures for it, unless its call was erased."""
        if row.delivered:
            self._write(_RECIPE)
            if self._execute(shadows.ASKED, (row.pair.call_id,)).fetchone() is None:
                return False
        self._execute(shadows.KEEP, shadows.columns(row))
        self._rows[_ASSET] += map(asset_columns, assets)
        return True

    def keep_votes(self, votes: Sequence[VoteRow]) -> int:
        """Keep what people said of pairs; how many of these were not known yet."""
        return sum(self._execute(shadows.KEEP_VOTE, shadows.vote_columns(vote)).rowcount for vote in votes)

    def claim_idempotency(self, row: IdempotencyRow, since: datetime) -> IdempotencyRow:
        """Keep a row unless an earlier one still counts; whichever counts."""
        self._execute(_CLAIM, (*idempotency_columns(row), micros(since)))
        return idempotency(self._execute(_CLAIMED, (row.team, row.key)).fetchone())

    def erase(self, calls: Sequence[str], assets: Sequence[str], record: ErasureRow) -> tuple[int, int]:
        """Forget pictures and recipes, and keep a record of that."""
        self._executemany("DELETE FROM assets WHERE id = ?", [(asset,) for asset in assets])
        recipes = sum(self._execute("DELETE FROM recipes WHERE call_id = ?", (call,)).rowcount for call in calls)
        keys = sum(self._execute("DELETE FROM idempotency WHERE call_id = ?", (call,)).rowcount for call in calls)
        self._executemany("UPDATE shadow_pairs SET user = NULL WHERE shadow_call = ?", [(call,) for call in calls])
        columns = (micros(record.at), record.actor, record.subject, record.images, recipes, keys, record.payloads)
        self._execute("INSERT INTO erasures VALUES (?,?,?,?,?,?,?)", columns)
        return recipes, keys

    def add_key(self, made: KeyRow, actor: str) -> None:
        """Keep a key, and let its budget count from now on."""
        self._execute(_KEY, key_columns(made))
        self._budgets.pop(("key", made.id), None)
        self._execute(_CHANGE, change_columns(key_change(None, made, "created", actor, made.created)))

    def change_key(self, before: KeyRow, after: KeyRow, change: ChangeRow) -> bool:
        """Put `after` in the place of `before`, with the record of it; False when that is no longer how it stands."""
        row = self._execute(_KEY_NOW, (before.id,)).fetchone()
        if row is None or key(row) != before:
            return False
        self._execute(_CHANGE_KEY, (*key_columns(after), before.id))
        self._budgets.pop(("key", before.id), None)
        self._execute(_CHANGE, change_columns(change))
        return True

    def add_change(self, change: ChangeRow) -> None:
        """Keep the record of a change."""
        self._execute(_CHANGE, change_columns(change))

    def open_key_hours(self, hours: Sequence[KeyHour], forget_before: int) -> None:
        """Keep where hours of keys begin, and forget old ones."""
        rows = [(hour.key_id, hour.hour, hour.opened) for hour in hours]
        self._executemany("INSERT OR IGNORE INTO key_hours VALUES (?,?,?)", rows)
        self._execute("DELETE FROM key_hours WHERE hour < ?", (forget_before,))

    def set_team_budget(self, team: str, budget: int | None) -> None:
        """Set a team's hard limit."""
        self._execute(_TEAM, (team, budget))
        self._budgets.pop(("charge", team), None)

    def set_budget(self, budget: BudgetRow) -> None:
        """Keep a budget, or what became of it; it counts from now on."""
        self._execute(_BUDGET, budget_columns(budget))
        self._windowed = None

    def count_fetches(self, times: Mapping[str, int]) -> None:
        """Add to how often pictures were fetched; one that is gone meanwhile is left out."""
        sql = """INSERT INTO fetches SELECT id, ? FROM assets WHERE id = ?
            ON CONFLICT DO UPDATE SET times = times + excluded.times"""
        self._executemany(sql, [(count, asset_id) for asset_id, count in times.items()])

    def keep_listed_prices(self, account: str, prices: Sequence[ListedPrice], at: datetime) -> None:
        """Put what a list says in place of what it said."""
        self._execute("DELETE FROM listed_prices WHERE account = ?", (account,))
        rows = [(account, price.endpoint, price.unit, price.nano_usd, micros(at)) for price in prices]
        self._executemany("INSERT OR REPLACE INTO listed_prices VALUES (?,?,?,?,?)", rows)

    def changed(self, sql: str, *columns: object) -> bool:
        """Run a statement that touches no money; whether it changed a row."""
        return self._execute(sql, columns).rowcount > 0

    def _write(self, statement: str) -> None:
        rows = self._rows[statement]
        if not rows:
            return
        changed = self._executemany(statement, rows).rowcount
        if statement is _CLOSE_HELD and changed != len(rows):
            raise Regroup  # one of them was not as its owner believed
        rows.clear()

    def _write_attempts(self) -> None:
        """Bring the rows of attempts up to date, before one is read."""
        self._write(_HOLD)
        self._write(_CLOSE_HELD)

    def _insert(self, owner: str, hold: NewHold, stamp: int, counters: Counters | None) -> None:
        self._rows[_HOLD].append(
            (
                hold.attempt_id,
                hold.call_id,
                hold.part,
                hold.team,
                hold.key_id,
                hold.account,
                hold.offer_id,
                hold.endpoint,
                "reserved" if hold.reserve else "intent",
                hold.cost,
                hold.charge,
                hold.width,
                hold.height,
                hold.count,
                hold.steps,
                owner,
                stamp,
                hold.prices,
                hold.policy,
                hold.fingerprint,
                encode(hold.inputs) if hold.inputs else None,
                hold.reserve,
                None if counters is None else encode(counters),
            ),
        )
        self._append(
            stamp,
            hold.attempt_id,
            (("cost", hold.account, "hold", hold.cost, ""), ("charge", hold.team, "hold", hold.charge, "")),
        )

    def _append(self, stamp: int, attempt_id: str, facts: Sequence[Fact]) -> None:
        self._rows[_ENTRY] += [
            (stamp, book, party, kind, amount, attempt_id, note) for book, party, kind, amount, note in facts
        ]

    def _give_back(self, owner: str, attempt_id: str, stamp: int) -> Iterable[Change]:
        """Release a reservation that another hold replaces."""
        found = self._find(attempt_id)
        found.must_be(owner, "reserved")
        self._execute(_CLOSE, ("released", 0, 0, None, stamp, None, found.id))
        self._append(stamp, attempt_id, found.both("release"))
        return found.closing(0, 0)

    def _check_budgets(self, changes: Sequence[Change]) -> None:
        """Refuse when more is asked for, in all, than a key or team has left."""
        asked: dict[Account, int] = {}
        for account, held, _ in changes:
            if account[0] in ("charge", "key"):
                asked[account] = asked.get(account, 0) + held
        for account, amount in asked.items():
            budget = self._budget(account)
            if budget is None or amount <= 0:
                continue
            held, posted = self._balance(account)
            if held + posted + amount > budget:
                raise _spent(account, budget, posted, held, amount)

    def _apply(self, changes: Iterable[Change]) -> None:
        """Move balances; the last step of a command, for memory has no savepoints."""
        for account, held, posted in changes:
            balance = self._balance(account)
            balance[0] += held
            balance[1] += posted
            self._touched.add(account)

    def _balance(self, account: Account) -> list[int]:
        balance = self._balances.get(account)
        if balance is None:
            row = self._execute("SELECT held, posted FROM balances WHERE book = ? AND party = ?", account).fetchone()
            balance = self._balances[account] = list(row or (0, 0))
        return balance

    def _windows(self) -> Windowed:
        if self._windowed is None:
            self._windowed = Windowed([budget(row) for row in self._execute(_BUDGETS)])
        return self._windowed

    def _budget(self, account: Account) -> int | None:
        if account not in self._budgets:
            kind, name = account
            table = "keys WHERE id" if kind == "key" else "teams WHERE team"
            row = self._execute(f"SELECT budget FROM {table} = ?", (name,)).fetchone()
            self._budgets[account] = row[0] if row else None
        return self._budgets[account]

    def _find(self, attempt_id: str) -> _Found:
        self._write_attempts()
        row = self._execute(_FIND, (attempt_id,)).fetchone()
        if row is None:
            raise UnknownAttempt(f"no attempt {attempt_id} was recorded")
        state, owner, account, team, key_id, held_cost, held_charge, cost, charge, counters, *rest = row
        known = None if counters is None else decode_counters(counters)
        amounts = held_cost, held_charge, cost, charge
        return _Found(attempt_id, state, owner, account, team, key_id, *amounts, known, *rest)


class _Found(Struct, frozen=True):
    """What a command must know of an attempt."""

    id: str
    state: str
    owner: str
    account: str
    team: str
    key_id: str
    hold_cost: int
    hold_charge: int
    cost: int
    charge: int
    counters: Counters | None = None
    """What it moves beside the balances."""
    offer_id: str = ""
    listed: int | None = None
    count: int = 0

    def must_be(self, owner: str | None, *states: str) -> None:
        """Refuse a process that does not own it, and a state the command does not start from."""
        if owner is not None and owner != self.owner:
            raise TakenOver(f"attempt {self.id} belongs to {self.owner}, not to {owner}")
        if self.state not in states:
            raise AlreadyClosed(f"attempt {self.id} is {self.state}")

    def both(self, kind: str) -> Sequence[Fact]:
        """An entry of the whole hold in each book."""
        return ("cost", self.account, kind, self.hold_cost, ""), ("charge", self.team, kind, self.hold_charge, "")

    def closing(self, cost: int, charge: int) -> Sequence[Change]:
        """What closing it at these figures does to the balances."""
        changes: tuple[Change, ...] = (
            (("cost", self.account), -self.hold_cost, cost),
            (("charge", self.team), -self.hold_charge, charge),
            (("key", self.key_id), -self.hold_charge, charge),
        )
        if self.counters is None:
            return changes
        return (*changes, *self.counters.changes(-self.hold_cost, -self.hold_charge, cost, charge))


_Closed: TypeAlias = tuple[_Found, Billed | None]
"""What was closed, and what the account's billing made of its cost, where it has any."""


def _posted(closing: Closing, billed: Billed | None) -> tuple[int, int, int | None]:
    """Cost and charge as they are posted, and the list price where the cost is another."""
    if billed is None:
        return closing.cost, closing.charge, None
    return billed.amount, closing.charge, closing.cost if closing.listed is None else closing.listed


def _closing_entries(book: str, party: str, hold: int, posted: int, state: str) -> Sequence[Fact]:
    """What ends a hold in one book: all given back; or posted, with the rest given back or the excess marked."""
    if state == "released":
        return ((book, party, "release", hold, ""),)
    settled = (book, party, "settle", min(posted, hold), "")
    if posted < hold:
        return settled, (book, party, "release", hold - posted, "")
    if posted > hold:
        return settled, (book, party, "settle", posted - hold, "overrun")
    return (settled,)


def _spent(account: Account, budget: int, posted: int, held: int, asked: int) -> BudgetSpent:
    who = f"{'API key' if account[0] == 'key' else 'team'} {account[1]}"
    fix = f" Have it raised (pixelgate keys limit {account[1]} --budget ...)." if account[0] == "key" else ""
    figures = {"budget": budget, "posted": posted, "held": held, "asked": asked}
    error = BudgetSpent(
        f"The budget of {who} is {to_usd(budget)} USD: {to_usd(posted)} spent, {to_usd(held)} set aside, "
        f"and this asks for {to_usd(asked)}.{fix}",
        extra={"budget": {"of": who, **{f"{name}_nano_usd": value for name, value in figures.items()}}},
    )
    error.left, error.budget = max(budget - posted - held, 0), account[1]
    return error
