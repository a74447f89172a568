"""What the commands about the history of the policy share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.cli.shell import COMMAND, Stop, print_json, run_async
from gateway.features.policy_history import Change, History, Moved
from gateway.settings import Settings
from gateway.storage.database import Database, open_database
from gateway.storage.policies import PolicyRevision

T = TypeVar("T")


def with_records(db: Database, work: Callable[[Database, History], Awaitable[T]]) -> T:
    """What `work` brings from the records, which are closed then."""

    async def run() -> T:
        try:
            history = History(db)
            await history.refresh()
            return await work(db, history)
        finally:
            await db.aclose()

    return run_async(run())


def change(settings: Settings, changed: Change) -> PolicyRevision:
    """Put a policy in force; stops with who came in between."""
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    db = open_database(settings.database_url, settings.database.durability)
    try:
        return with_records(db, lambda _, history: history.change(settings, changed))
    except Moved as moved:
        raise Stop(str(moved), code=1) from None


def found(history: History, revision: int) -> PolicyRevision:
    """A revision by its number; stops when there is none."""
    row = history.revision(revision)
    if row is None:
        raise Stop(f"there is no revision {revision}; `{COMMAND} policy history` lists them", code=1)
    return row


def public(row: PolicyRevision) -> dict[str, object]:
    """A revision for scripts, without its text."""
    return {
        "revision": row.seq,
        "policy": row.label,
        "at": row.at,
        "author": row.author,
        "source": row.source,
        "message": row.message,
        "parent": row.parent,
        "digest": row.digest,
    }


def say_changed(settings: Settings, row: PolicyRevision, *, json: bool) -> None:
    """Print what is in force now."""
    if json:
        print_json(public(row))
        return
    path = settings.config / "policies" / f"{settings.policy}.yaml"
    print(f"revision {row.seq} ({row.label}) is in {path}; running gateways follow within a second")
