"""What copies of an experiment may still cost: budgets that the commit of each order checks, and what is known of them.

What is reckoned here only keeps us from asking in vain: the commit refuses what a budget does not hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from gateway.clock import Clock
from gateway.storage.budgets import window_at
from gateway.storage.database import Database
from gateway.storage.rows import BudgetRow
from gateway.storage.shadows import SENTINEL
from policies.experiments.definition import Experiment
from policies.experiments.sampling import room


class Spending(Struct, kw_only=True):
    """What an experiment spent, as far as this process knows."""

    day: date
    today: dict[str, int]
    """Stratum -> nano-dollars, orders under way included."""
    total: int
    stopped_until: datetime | None = None
    """Its budget refused an order; not before this is it worth asking again."""

    def turn(self, day: date) -> None:
        """Begin a day, if it is another."""
        if day != self.day:
            self.day, self.today = day, dict.fromkeys(self.today, 0)

    def add(self, stratum: str, amount: int) -> None:
        """Count money in, or out again."""
        self.today[stratum] = self.today.get(stratum, 0) + amount
        self.total += amount


class ShadowBudgets:
    """The budgets of the experiments in force."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._experiments: Sequence[Experiment] = ()
        self._spent: dict[str, Spending] = {}
        self._under_way: Counter[str] = Counter()
        """Experiment -> its copies that may set money aside any moment."""
        self._written = True

    def adopt(self, experiments: Sequence[Experiment]) -> None:
        """Hold these in force from the next `write` on."""
        self._experiments, self._written = experiments, False

    def holds(self, experiment: Experiment) -> bool:
        """Whether an experiment of this name is in force and its budget is written."""
        return experiment.name in self._spent and any(each.name == experiment.name for each in self._experiments)

    def left(self, experiment: Experiment, stratum: str) -> int:
        """What a copy may still cost, in nano-dollars; 0 while its budget refuses orders."""
        spending = self._spending(experiment)
        if spending.stopped_until is not None and self._clock.utc() < spending.stopped_until:
            return 0
        return room(experiment, stratum, spending.today, spending.total)

    def add(self, experiment: Experiment, stratum: str, amount: int) -> None:
        """Count money in, or out again."""
        self._spending(experiment).add(stratum, amount)

    def refused(self, experiment: Experiment) -> None:
        """A budget held no more; it is not asked again today."""
        self._spending(experiment).stopped_until = _midnight_after(self._clock.utc())

    @contextmanager
    def drawing(self, experiment: Experiment) -> Iterator[None]:
        """While a copy may set money aside, its budget stays in force, though its experiment is taken out meanwhile."""
        self._under_way[experiment.name] += 1
        try:
            yield
        finally:
            self._under_way[experiment.name] -= 1

    async def write(self) -> None:
        """Write the budgets of the experiments in force, take others out, and read what was spent; once."""
        if self._written:
            return
        now, experiments = self._clock.utc(), self._experiments
        wanted = {row.id: row for each in experiments for row in budgets_of(each, now)}
        known = {row.id: row for row in await self._db.budgets() if row.of == "shadow" and row.name != SENTINEL}
        for row in wanted.values():
            before = known.get(row.id)
            if before is None or before.limit != row.limit:
                await self._db.set_budget(row)
        idle = True
        for row in known.values():
            if row.id not in wanted and self._under_way[row.name]:
                idle = False
            elif row.id not in wanted:
                await self._db.set_budget(replace(row, removed=now))
        for each in experiments:
            self._spent[each.name] = await self._read(each, now)
        self._written = idle and experiments is self._experiments

    def _spending(self, experiment: Experiment) -> Spending:
        spending = self._spent[experiment.name]
        spending.turn(self._clock.utc().date())
        return spending

    async def _read(self, experiment: Experiment, now: datetime) -> Spending:
        day, total = budgets_of(experiment, now)
        counted = [
            sum(
                each.held + each.posted
                for each in (await self._db.counters(row.id, [window_at(row, now).name])).values()
            )
            for row in (day, total)
        ]
        strata: Counter[str] = Counter()
        if experiment.sample.stratify:
            midnight = now.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
            for pair in await self._db.shadow_pairs(experiment.name):
                strata[pair.stratum] += pair.challenger_side.billed if pair.at >= midnight else 0
        elif counted[0]:
            strata[""] = counted[0]
        return Spending(day=now.date(), today=dict(strata), total=counted[1])


def budgets_of(experiment: Experiment, now: datetime) -> tuple[BudgetRow, BudgetRow]:
    """What copies of an experiment may cost in a day, and in all."""
    day = budget_row(experiment.name, experiment.budget.day, now)
    total = f"bud_shadow_{experiment.name}_total"
    return day, replace(day, id=total, limit=experiment.budget.total, window="total")


def budget_row(name: str, limit: int, now: datetime) -> BudgetRow:
    """What may be spent under a name in a day, counted in UTC."""
    return BudgetRow(
        id=f"bud_shadow_{name}_day", of="shadow", name=name, limit=limit, window="day", zone="UTC", created=now
    )


def _midnight_after(now: datetime) -> datetime:
    return (now + timedelta(days=1)).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
