"""What copies may cost, whatever becomes of their experiment meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.clock import SystemClock
from gateway.features.shadow_budgets import ShadowBudgets, budget_row, budgets_of
from gateway.storage.database import Database, open_database
from gateway.storage.shadows import SENTINEL
from policies.experiments.definition import Allowance
from tests.support.trials import experiment

CLOCK = SystemClock()


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    found = open_database(f"sqlite:///{tmp_path / 'books.db'}", "process")
    yield found
    await found.aclose()


async def limits(db: Database) -> dict[str, int]:
    return {row.id: row.limit for row in await db.budgets() if row.of == "shadow"}


async def test_a_budget_stays_in_force_until_the_last_copy_of_an_experiment_that_was_taken_out(db: Database) -> None:
    budgets, ours = ShadowBudgets(db, CLOCK), experiment()
    budgets.adopt([ours])
    await budgets.write()
    both = await limits(db)
    assert set(both.values()) == {ours.budget.day, ours.budget.total}
    with budgets.drawing(ours):
        budgets.adopt([])
        await budgets.write()
        assert await limits(db) == both
        assert not budgets.holds(ours)  # but no further copy begins
    await budgets.write()
    assert await limits(db) == {}


async def test_a_smaller_allowance_counts_at_once_and_what_was_spent_stays(db: Database) -> None:
    budgets, ours = ShadowBudgets(db, CLOCK), experiment()
    budgets.adopt([ours])
    await budgets.write()
    budgets.adopt([replace(ours, budget=Allowance(day=7, total=70))])
    await budgets.write()
    assert set((await limits(db)).values()) == {7, 70}
    assert budgets.left(experiment(budget=Allowance(day=7, total=70)), "") == 7


def test_an_experiment_called_like_the_sentinel_has_a_budget_of_its_own() -> None:
    now = CLOCK.utc()
    theirs = {row.id for row in budgets_of(experiment(name="sentinel"), now)}
    assert budget_row(SENTINEL, 1, now).id not in theirs
