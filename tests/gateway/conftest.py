"""Empty books, a clock moved by hand, a ledger over both; the books must be in order when a test is over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.money.ledger import Ledger
from gateway.storage.database.sqlite import SqliteDatabase
from tests.support.books import HandClock


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(str(tmp_path / "books.db"), "process")
    yield database
    assert await database.audit() == []
    await database.aclose()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def ledger(db: SqliteDatabase, clock: HandClock) -> Ledger:
    ledger = Ledger(db, "own_1", clock)
    await ledger.beat()
    return ledger
