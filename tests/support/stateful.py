"""What stateful property tests of the books share: a database in a folder of their own, and a loop to ask it in."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import TypeVar

from hypothesis.stateful import RuleBasedStateMachine

from gateway.storage.database.sqlite import SqliteDatabase

T = TypeVar("T")


class OnBooks(RuleBasedStateMachine):
    """A machine over a database that may be closed and opened again; whoever derives from it opens it first."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()

    def run(self, work: Coroutine[object, object, T]) -> T:
        return self.loop.run_until_complete(work)

    def open(self) -> None:
        self.db = SqliteDatabase(str(Path(self.folder.name) / "books.db"), "process")

    def close(self) -> None:
        self.run(self.db.aclose())

    def teardown(self) -> None:
        self.close()
        self.loop.close()
        self.folder.cleanup()
