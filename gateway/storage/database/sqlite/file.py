"""The database file: made once and whole, opened with care, brought up to date, never silently replaced."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from gateway.errors import NotReady
from gateway.storage.database import Durability

BUSY_MS = 5000
"""How long a command waits for another process's transaction before it gives up."""

APPLICATION_ID = 0x70786774
"""Marks the file as ours ("pxgt")."""

CHECKPOINT_PAGES = 4000
"""16 MB of log between checkpoints: the pages at the tail of each table are copied once instead of many times."""

# Whenever `sqlite3` binds NULL or bytes, it looks for a way to adapt them, finds none, and makes an error of that which
# it then forgets: a sixteenth of what a row costs. These are ways, in C, that leave both as they are.
sqlite3.register_adapter(type(None), {}.get)  # type: ignore[arg-type]  # None has no other constructor
sqlite3.register_adapter(bytes, bytes)

_LOCKED_UP = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def not_ready(path: Path, error: Exception) -> NotReady:
    """What the caller hears when the file cannot be used, with what a person can do about it."""
    if isinstance(error, NotReady):
        return NotReady(error.message, retry_after=5)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    hint = {
        sqlite3.SQLITE_FULL: "the disk is full: free some space",
        sqlite3.SQLITE_CORRUPT: "the file is damaged: restore a backup",
        sqlite3.SQLITE_NOTADB: "this is not a database: restore a backup",
        sqlite3.SQLITE_READONLY: "the file may not be written: check its permissions",
        sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: check that its folder exists",
    }.get(code, "another process holds it" if code in _LOCKED_UP else "")
    reason = f"{error} ({hint})" if hint else str(error)
    unusable = NotReady(f"The database {path.name} cannot be used: {reason}", retry_after=5)
    unusable.__cause__ = error
    return unusable


def open_file(path: Path, *, create: bool) -> None:
    """See to it that a whole, current database lies at `path`. Raises `NotReady`."""
    try:
        if create and not path.exists():
            _create(path)
        if not path.exists():
            raise NotReady(f"There is no database at {path}; start the gateway once to make it.")
        if path.stat().st_size == 0:
            raise NotReady(f"The database {path.name} is empty; restore a backup, or remove the file to start anew.")
        connection = connect(path, "power")
        try:
            _migrate(connection, path)
        finally:
            connection.close()
    except (sqlite3.Error, OSError) as error:
        raise not_ready(path, error) from error


def connect(path: Path, durability: Durability, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection that never makes a file, in autocommit so that transactions are ours to begin."""
    uri = f"{path.resolve().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute("PRAGMA cache_size = -16000")
    connection.execute("PRAGMA temp_store = MEMORY")
    if read_only:
        connection.execute("PRAGMA query_only = 1")
    return connection


def _create(path: Path) -> None:
    """Build the file beside its place and link it in: nobody ever sees half of it, and two starters make one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.new-{os.getpid()}")
    draft.unlink(missing_ok=True)
    connection = sqlite3.connect(draft, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        _migrate(connection, path)
    finally:
        connection.close()
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink()


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Run the numbered scripts the file has not seen, each in a transaction of its own."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise NotReady(f"The file {path.name} is a database of another program; point the database url elsewhere.")
    scripts = _scripts()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(scripts):
        raise NotReady(
            f"The database {path.name} has schema {version}, this release knows up to {len(scripts)}: "
            "it was written by a newer release; upgrade."
        )
    for number, script in enumerate(scripts[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            (seen,) = connection.execute("PRAGMA user_version").fetchone()
            if seen < number:
                for statement in _statements(script):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


def _statements(script: str) -> Iterator[str]:
    """A script's statements one by one (`executescript` would commit the transaction we hold)."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _scripts() -> list[str]:
    """The migrations in their order, as shipped beside this module."""
    folder = resources.files(__package__) / "migrations"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    return [entry.read_text(encoding="utf-8") for entry in files]
