"""Money set aside for orders, and what becomes of it: a hold is settled, released or suspended, once.

The ledger is this process's side of the books: it puts time and owner on every command, keeps the ends that the
database could not take yet, and mirrors budgets so that the engine can look without waiting. The truth is in the
commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Literal, Self, TypeAlias
from weakref import WeakSet

from gateway.clock import Clock
from gateway.errors import BudgetSpent, NotReady
from gateway.storage.database import (
    AlreadyClosed,
    Closing,
    Database,
    Heartbeat,
    Held,
    Spending,
    TakenOver,
    UnknownAttempt,
)
from gateway.storage.rows import AssetRow, AttemptRow, DecisionRow, NewHold, Outcome, RecipeRow
from policies.billing import Billing
from providers.contract import Ticket

STALE_AFTER_S = 15.0
"""Seconds without a heartbeat after which another process may take an owner's attempts over."""

UNSENT = Outcome(error="cancelled", detail="given up before an order was placed")
LEFT = Outcome(error="cancelled", detail="left while the order was under way")

_here: WeakSet[Ledger] = WeakSet()
"""The ledgers of this process: their owners live, whatever their heartbeats say."""

End: TypeAlias = "Callable[[], Awaitable[bool]]"
"""A command that ends a hold; repeating it is harmless, for an end that already stands is left alone."""


class Ledger:
    """Sets money aside and follows every hold of this process to its end."""

    def __init__(self, db: Database, owner: str, clock: Clock) -> None:
        """`owner` names this process, never to be used by another (`own_3f9c...`); late writes are fenced by it."""
        self.db = db
        self.owner = owner
        self.clock = clock
        self._live: dict[str, Hold] = {}
        self._late: dict[str, End] = {}
        self._undoing: set[asyncio.Task[None]] = set()
        self._refusals: set[str] = set()
        self._billing: Mapping[str, Billing] | None = None
        self._keys: dict[str, Spending] = {}
        self._teams: dict[str, Spending] = {}
        _here.add(self)

    async def hold(self, holds: Sequence[NewHold], decisions: Sequence[DecisionRow] = ()) -> tuple[Hold, ...]:
        """Set money aside for all of `holds` or for none. Raises `BudgetSpent` or `NotReady`."""
        made = tuple([Hold(self, new.attempt_id, new.cost, new.charge, reserved=new.reserve) for new in holds])
        replaced = [new.replaces for new in holds if new.replaces is not None]
        self._live.update([(hold.attempt_id, hold) for hold in made])
        try:
            await self.db.hold(self.owner, holds, decisions, self.clock.utc())
        except asyncio.CancelledError:
            self._give_back_unseen((*replaced, *(hold.attempt_id for hold in made)))
            raise
        except BaseException as error:
            for hold in made:
                self._live.pop(hold.attempt_id, None)
            if isinstance(error, BudgetSpent):
                self._refusals.add(error.budget)
            raise
        for attempt_id in replaced:
            if old := self._live.pop(attempt_id, None):
                old.closed = True
                self._mirror(old, -old.charge)
        for new, hold in zip(holds, made, strict=True):
            hold.account, hold.key_id, hold.team = new.account, new.key_id, new.team
            hold.offer_id = new.offer_id
            self._mirror(hold, hold.charge)
        return made

    def budget_left(self, key_id: str, team: str) -> int | None:
        """Nano-dollars that key and team may still spend, None without a budget: a hint, for the commit decides."""
        key, group = self._keys.get(key_id), self._teams.get(team)
        left = [spending.left for spending in (key, group) if spending is not None]
        return min((amount for amount in left if amount is not None), default=None)

    def charged_keys(self) -> Mapping[str, int]:
        """Nano-dollars that every key was charged in all, as of the last sign of life."""
        return {key: spending.posted for key, spending in self._keys.items()}

    def take_refusals(self) -> frozenset[str]:
        """The budgets that refused an order since this was asked last, by what `BudgetSpent.budget` says."""
        taken = frozenset(self._refusals)
        self._refusals.clear()
        return taken

    async def set_billing(self, terms: Mapping[str, Billing]) -> None:
        """Settle by other terms from now on; from the next sign of life, when the database does not take them now."""
        self._billing = terms
        with contextlib.suppress(NotReady):
            await self._write_billing()

    async def beat(self) -> None:
        """Sign of life, due every few seconds: also writes late ends and refreshes the mirror of budgets.

        Call it once before the first hold, so that a crash right after it can be told from a slow start.
        """
        for attempt_id, end in tuple(self._late.items()):
            await self._retry(attempt_id, end)
        await self._write_billing()
        heartbeat = Heartbeat(owner=self.owner, pid=os.getpid(), host=socket.gethostname(), at=self.clock.utc())
        await self.db.beat(heartbeat)
        keys, teams = await self.db.spending()
        self._keys, self._teams = dict(keys), dict(teams)

    async def orphans(self, stale_after_s: float = STALE_AFTER_S) -> tuple[tuple[AttemptRow, Hold], ...]:
        """Take over what dead owners left open, and what we own but nobody here holds: the attempts this process won.

        A reservation among them can be released at once; the others may have been ordered.
        """
        lost = await self.db.orphans(self.clock.utc(), stale_after_s, _alive)
        ours = [row for row in await self.db.open_attempts() if row.owner == self.owner]
        rows = {row.id: row for row in (*lost, *ours) if not self._follows(row.id)}
        won = await self.db.take_over(tuple(rows.values()), self.owner)
        return tuple((rows[each], self.adopt(rows[each])) for each in won if not self._follows(each))

    def adopt(self, attempt: AttemptRow) -> Hold:
        """The hold of an attempt read from the database: one taken over, or a suspended one to be settled."""
        hold = Hold(self, attempt.id, attempt.hold_cost, attempt.hold_charge, reserved=attempt.state == "reserved")
        hold.account, hold.key_id, hold.team = attempt.account, attempt.key_id, attempt.team
        hold.offer_id = attempt.offer_id
        hold.fenced = attempt.state != "suspended"
        if hold.fenced:
            self._live[attempt.id] = hold
        return hold

    @property
    def late(self) -> int:
        """Ends that the database has not taken yet."""
        return len(self._late)

    async def stop(self) -> None:
        """Write what is still to be written."""
        await asyncio.gather(*self._undoing)
        for attempt_id, end in tuple(self._late.items()):
            await self._retry(attempt_id, end)

    async def _write_billing(self) -> None:
        terms = self._billing
        if terms is not None:
            await self.db.set_billing(terms)
            self._billing = None if self._billing is terms else self._billing

    def _follows(self, attempt_id: str) -> bool:
        return attempt_id in self._live or attempt_id in self._late

    async def _end(self, hold: Hold, end: End, charge: int | None) -> bool:
        """Bring a hold's end into the database, now or later; False when later."""
        if charge is not None:
            self._mirror(hold, charge - hold.charge)
        try:
            await end()
        except NotReady:
            self._late[hold.attempt_id] = end
            return False
        except asyncio.CancelledError:
            self._late[hold.attempt_id] = end  # on its way to the commit, but nobody saw it arrive
            raise
        finally:
            self._live.pop(hold.attempt_id, None)
        return True

    async def _retry(self, attempt_id: str, end: End) -> None:
        """Write a late end; one that somebody else decided meanwhile stands."""
        try:
            await end()
        except NotReady:
            return
        except (AlreadyClosed, TakenOver, UnknownAttempt):
            pass
        self._late.pop(attempt_id, None)

    def _give_back_unseen(self, attempt_ids: Iterable[str]) -> None:
        """A hold whose caller left during the commit: whether it was made is unknown here, but commands keep order."""

        async def release(attempt_id: str) -> None:
            closing = Closing(
                attempt_id=attempt_id, state="released", at=self.clock.utc(), owner=self.owner, outcome=UNSENT
            )
            try:
                await self.db.close(closing)
            except (UnknownAttempt, AlreadyClosed, TakenOver):
                pass
            except NotReady:
                self._late[attempt_id] = lambda: self.db.close(closing)
            self._live.pop(attempt_id, None)

        for attempt_id in attempt_ids:
            task = asyncio.get_running_loop().create_task(release(attempt_id))
            self._undoing.add(task)
            task.add_done_callback(self._undoing.discard)

    def _mirror(self, hold: Hold, change: int) -> None:
        """Move the mirrors of key and team by what a hold now takes."""
        for mirror, name in ((self._keys, hold.key_id), (self._teams, hold.team)):
            spending = mirror.get(name)
            if spending is not None and spending.budget is not None:
                held = spending.held + change
                mirror[name] = Spending(held=held, posted=spending.posted, budget=spending.budget)


class Hold:
    """Money set aside for one order. Using it after its end is a programming error (`AlreadyClosed`)."""

    __slots__ = (
        "account",
        "attempt_id",
        "charge",
        "closed",
        "cost",
        "fenced",
        "key_id",
        "ledger",
        "offer_id",
        "reserved",
        "team",
    )

    def __init__(self, ledger: Ledger, attempt_id: str, cost: int, charge: int, *, reserved: bool) -> None:
        """`cost` and `charge` are what is set aside, in nano-dollars; a reservation placed no order."""
        self.ledger = ledger
        self.attempt_id = attempt_id
        self.cost = cost
        self.charge = charge
        self.reserved = reserved
        self.closed = False
        self.account = ""
        self.offer_id = ""
        self.key_id = ""
        self.team = ""
        self.fenced = True
        """Refuse to write when another process took over; a suspended hold may be ended by whoever learns its cost."""

    async def accept(self, ticket: Ticket) -> None:
        """Write the provider's receipt durably."""
        self._must_be_open()
        await self.ledger.db.accept(self.ledger.owner, self.attempt_id, ticket)

    async def settle(
        self,
        *,
        cost: int,
        charge: int,
        outcome: Outcome,
        pictures: int = 0,
        assets: Sequence[AssetRow] = (),
        recipe: RecipeRow | None = None,
    ) -> bool:
        """Post what is owed and give the rest back. False when the database takes it only later (`Ledger.beat`).

        `cost` is by the list price of the `pictures` that were made; the account's billing makes of it what is owed.
        """
        return await self._close(
            "settled", outcome, cost=cost, charge=charge, pictures=pictures, assets=tuple(assets), recipe=recipe
        )

    async def release(self, outcome: Outcome = UNSENT) -> bool:
        """Nothing is owed: give all of it back. False as in `settle`."""
        return await self._close("released", outcome)

    async def suspend(self, outcome: Outcome) -> bool:
        """Nobody knows what is owed: keep it aside until that is known. False as in `settle`."""
        self._must_be_open()
        self.closed = True
        ledger, at, owner = self.ledger, self.ledger.clock.utc(), self._owner
        return await ledger._end(self, lambda: ledger.db.suspend(owner, self.attempt_id, outcome, at), None)  # noqa: SLF001 - one thing in two classes

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Undo: a reservation is given back; an order whose end nobody told is suspended."""
        if self.closed:
            return
        await (self.release() if self.reserved else self.suspend(LEFT))

    async def _close(
        self,
        state: Literal["settled", "released"],
        outcome: Outcome,
        *,
        cost: int = 0,
        charge: int = 0,
        pictures: int = 0,
        assets: tuple[AssetRow, ...] = (),
        recipe: RecipeRow | None = None,
    ) -> bool:
        self._must_be_open()
        self.closed = True
        ledger = self.ledger
        closing = Closing(
            attempt_id=self.attempt_id,
            state=state,
            at=ledger.clock.utc(),
            owner=self._owner,
            cost=cost,
            charge=charge,
            pictures=pictures,
            outcome=outcome,
            assets=assets,
            recipe=recipe,
            held=Held(self.account, self.team, self.key_id, self.cost, self.charge, self.offer_id),
        )
        return await ledger._end(self, lambda: ledger.db.close(closing), charge)  # noqa: SLF001 - one thing in two classes

    @property
    def _owner(self) -> str | None:
        return self.ledger.owner if self.fenced else None

    def _must_be_open(self) -> None:
        if self.closed:
            raise AlreadyClosed(f"the hold of attempt {self.attempt_id} has already ended")


def _alive(heartbeat: Heartbeat) -> bool:
    """Whether the process still runs, as far as this machine can tell."""
    if heartbeat.host != socket.gethostname():
        return True
    if heartbeat.pid == os.getpid():  # ours, or our number was theirs before a container came back
        return any(ledger.owner == heartbeat.owner for ledger in _here)
    try:
        os.kill(heartbeat.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
