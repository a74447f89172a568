"""One writer for all: it commits whatever has gathered, so that a durable commit costs one fsync per group.

Commands of one turn of the event loop travel together; while a group is being committed the next one gathers. A
refused command takes nothing with it and leaves the others alone; every caller is answered after the commit.

Where a commit waits for the disk it runs in a thread. Where it does not (durability `process`: a write into the page
cache, 30 us), it runs on the event loop at the end of the turn: the hand-over to a thread and back would cost more.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Protocol, TypeAlias, TypeVar, TypeVarTuple

from gateway.errors import NotReady

GROUP = 256
"""Most commands in one transaction."""

GATHER_S = 0.01
"""Least seconds between two commits on the event loop while many orders are under way: one is then for many of them.
With few, a commit comes at the end of the turn."""

MANY = 8
"""Orders under way from which commits are gathered."""

TIDY_EVERY = 200
"""Commits on the event loop between two checkpoints: a few megabytes of log."""

OWN_FAULTS = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError, sqlite3.InterfaceError)
"""What SQLite blames on one command; every other database error concerns the file, and so the whole group."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Command: TypeAlias = "tuple[Callable[..., object], tuple[object, ...], asyncio.Future[object]]"
Answer: TypeAlias = "tuple[asyncio.Future[object], object, Exception | None]"


class Transaction(Protocol):
    """What the commands share while a transaction is open."""

    def begin(self, *, careful: bool) -> None:
        """A transaction was begun; raises to refuse it. `careful`: the group was run before, and had to be undone."""

    def gathered(self) -> int:
        """How much is gathered in memory, to be written by `flush`."""

    def flush(self) -> None:
        """Write what was gathered in memory; the commit follows."""

    def forget(self) -> None:
        """Something was rolled back: memory no longer agrees with the file, and what was gathered is void."""


class Regroup(Exception):
    """A command was refused after it had written, or believed what was not so: the group is run again, with care."""


class GroupWriter:
    """Runs commands on one connection, for the callers of one event loop."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        transaction: Transaction,
        blame: Callable[[Exception], NotReady],
        *,
        tidy: Callable[[], None] | None = None,
        under_way: Callable[[], int] = lambda: 0,
    ) -> None:
        """`blame` turns a fault of the file into what callers hear.

        With `tidy` commits run on the event loop, and it is called after every `TIDY_EVERY` of them; `under_way` then
        says how many orders are open.
        """
        self._tidy = tidy
        self._untidied = 0
        self._committed_at = 0.0
        self._under_way = under_way
        self._connection = connection
        self._transaction = transaction
        self._blame = blame
        self._gathering: list[Command] = []
        self._queue: SimpleQueue[list[Command] | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._closed = False

    def submit(self, work: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run `work(*args)` in the next transaction; cancelling the future forgets the answer, not the command."""
        if self._closed:
            raise NotReady("The database is closed.")
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._start(loop)
        future: asyncio.Future[T] = loop.create_future()
        if not self._gathering:
            self._due(loop)
        self._gathering.append((work, args, future))  # type: ignore[arg-type]  # Future is invariant; we only pair them
        return future

    def close(self) -> None:
        """Take no more commands; to be called on the event loop, then `join`."""
        self._closed = True
        self._hand_over()
        self._queue.put(None)

    def join(self) -> None:
        """Block until everything that was submitted is committed."""
        if self._thread is not None:
            self._thread.join()

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None:
            raise RuntimeError("a database serves one event loop; open another for another loop")
        self._loop = loop
        if self._tidy is not None:
            return
        self._thread = Thread(target=self._run, args=(loop,), name="pixelgate-writer", daemon=True)
        self._thread.start()

    def _due(self, loop: asyncio.AbstractEventLoop) -> None:
        """See to it that what is gathered from now on is handed over."""
        soon = self._committed_at + GATHER_S - loop.time()
        if self._tidy is not None and soon > 0 and self._under_way() >= MANY:
            loop.call_later(soon, self._hand_over)
        else:
            loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        gathered, self._gathering = self._gathering, []
        if not gathered:
            return
        if self._tidy is None:
            self._queue.put(gathered)
            return
        for start in range(0, len(gathered), GROUP):
            _answer(self._commit(gathered[start : start + GROUP]))
        if self._loop is not None:
            self._committed_at = self._loop.time()
        self._untidied += 1
        if self._untidied == TIDY_EVERY and not self._closed:
            self._untidied = 0
            self._tidy()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        closing = False
        while not closing and (commands := self._queue.get()) is not None:
            with contextlib.suppress(Empty):
                while len(commands) < GROUP and not closing:
                    more = self._queue.get_nowait()
                    closing = more is None
                    commands += more or ()
            for start in range(0, len(commands), GROUP):
                answers = self._commit(commands[start : start + GROUP])
                with contextlib.suppress(RuntimeError):  # the loop is gone, and its callers with it
                    loop.call_soon_threadsafe(_answer, answers)

    def _commit(self, commands: list[Command]) -> list[Answer]:
        try:
            try:
                return self._transact(commands, self._bare, careful=False)
            except Regroup:
                self._undo()
                return self._transact(commands, self._one, careful=True)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            self._undo()
            return [(future, None, self._blame(error)) for _, _, future in commands]  # one each: they gather tracebacks

    def _transact(self, commands: list[Command], run: Callable[[Command], Answer], *, careful: bool) -> list[Answer]:
        self._connection.execute("BEGIN IMMEDIATE")
        self._transaction.begin(careful=careful)
        answers = [run(command) for command in commands]
        try:
            self._transaction.flush()
        except OWN_FAULTS as error:
            raise Regroup from error
        self._connection.execute("COMMIT")
        return answers

    def _bare(self, command: Command) -> Answer:
        """Run a command without a savepoint, which costs as much as a row: refusals that wrote nothing need none."""
        work, args, future = command
        before = self._connection.total_changes, self._transaction.gathered()
        try:
            return future, work(*args), None
        except Regroup:
            raise
        except sqlite3.Error as error:
            if isinstance(error, OWN_FAULTS):
                raise Regroup from error
            raise
        except Exception as error:
            if (self._connection.total_changes, self._transaction.gathered()) != before:
                raise Regroup from error
            return future, None, error

    def _one(self, command: Command) -> Answer:
        work, args, future = command
        execute = self._connection.execute
        execute("SAVEPOINT command")
        try:
            value = work(*args)
            self._transaction.flush()
        except sqlite3.Error as error:
            if not isinstance(error, OWN_FAULTS):
                raise
            refusal: Exception = error
        except Exception as error:  # noqa: BLE001 - the caller's to handle
            refusal = error
        else:
            execute("RELEASE command")
            return future, value, None
        execute("ROLLBACK TO command")
        execute("RELEASE command")
        self._transaction.forget()
        return future, None, refusal

    def _undo(self) -> None:
        self._transaction.forget()
        with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back by itself after the worst faults
            self._connection.execute("ROLLBACK")


def _answer(answers: list[Answer]) -> None:
    for future, value, error in answers:
        if future.done():
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
