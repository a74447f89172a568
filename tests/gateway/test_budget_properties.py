"""Random lives of orders under budgets by day, by rolling window, by user and in all, with crashes between.

A model in plain numbers, with calendars of its own, says which orders must pass and what every window must stand at.
"""

from __future__ import annotations

from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from msgspec.structs import replace

from gateway.errors import BudgetSpent
from gateway.storage.budgets import by_word, counted_windows
from gateway.storage.database import Closing, Correction
from gateway.storage.rows import Outcome
from tests.support.books import NOON, new_hold
from tests.support.limited import Limited, Placed, budget
from tests.support.stateful import OnBooks

AMOUNTS = st.integers(min_value=0, max_value=2000)
PICK = st.integers(min_value=0, max_value=99)
with_open = precondition(lambda world: any(order.open for order in world.orders))
with_over = precondition(lambda world: any(not order.open for order in world.orders))


class World(OnBooks):
    """What the commits make of budgets, and what plain sums do."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.orders, self.notes = NOON, list[Placed](), 0
        self.open()
        self.budgets = [
            Limited(budget("team", "acme", "day", 5000, "Europe/Berlin")),
            Limited(budget("account", "fal", "24h", 6000)),
            Limited(budget("user", "*", "total", 4000)),
            Limited(budget("gateway", "", "month", 12_000)),
        ]
        for each in self.budgets:
            self.run(self.db.set_budget(each.row))

    def pick(self, number: int, *, is_open: bool) -> Placed:
        fitting = [order for order in self.orders if order.open == is_open]
        return fitting[number % len(fitting)]

    @rule(cost=AMOUNTS, charge=AMOUNTS, account=st.sampled_from(["fal", "together"]), user=st.sampled_from("ab"))
    def an_order_is_placed(self, cost: int, charge: int, account: str, user: str) -> None:
        asked = replace(new_hold(charge, cost=cost, account=account), user=user)
        order = Placed(asked.attempt_id, self.now, account, user, (cost, charge), [0, 0])
        fits = all(each.fits(order, self.orders, self.now) for each in self.budgets)
        try:
            self.run(self.db.hold("own_1", [asked], (), self.now))
        except BudgetSpent:
            assert not fits
            return
        assert fits
        self.orders.append(order)

    @with_open
    @rule(number=PICK, cost=AMOUNTS, charge=AMOUNTS)
    def one_is_paid(self, number: int, cost: int, charge: int) -> None:
        order = self.pick(number, is_open=True)
        closing = Closing(attempt_id=order.id, state="settled", at=self.now, cost=cost, charge=charge)
        assert self.run(self.db.close(closing))
        order.open, order.posted = False, [cost, charge]

    @with_open
    @rule(number=PICK)
    def one_is_given_back(self, number: int) -> None:
        order = self.pick(number, is_open=True)
        assert self.run(self.db.close(Closing(attempt_id=order.id, state="released", at=self.now)))
        order.open = False

    @with_open
    @rule(number=PICK)
    def nobody_knows_what_one_costs(self, number: int) -> None:
        order = self.pick(number, is_open=True)
        self.run(self.db.suspend(None, order.id, Outcome(error="timed_out"), self.now))

    @with_over
    @rule(number=PICK, amount=st.integers(-2000, 2000), book=st.sampled_from([0, 1]))
    def one_is_corrected(self, number: int, amount: int, book: int) -> None:
        order = self.pick(number, is_open=False)
        amount, self.notes = max(amount, -order.posted[book]), self.notes + 1
        party = order.account if book == 0 else "acme"
        mend = Correction(
            book="charge" if book else "cost",
            party=party,
            amount=amount,
            note=f"{self.notes}",
            at=self.now,
            attempt_id=order.id,
        )
        assert self.run(self.db.correct(mend))
        order.posted[book] += amount

    @rule(which=st.integers(0, 3), limit=st.integers(1, 8000), extra=AMOUNTS, hours=st.integers(0, 30))
    def a_budget_is_changed(self, which: int, limit: int, extra: int, hours: int) -> None:
        limited = self.budgets[which]
        until = self.now + timedelta(hours=hours)
        limited.row = replace(limited.row, limit=limit, extra=extra, extra_until=until)
        self.run(self.db.set_budget(limited.row))

    @rule(minutes=st.integers(0, 2000))
    def time_goes_by(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule()
    def the_process_dies_and_another_takes_over(self) -> None:
        self.close()
        self.open()

    @invariant()
    def every_window_stands_at_what_was_set_aside_and_spent_in_it(self) -> None:
        for limited in self.budgets:
            names = counted_windows(limited.row, self.now)
            stands = by_word(self.run(self.db.counters(limited.row.id, names))).values()
            assert sorted(set(limited.used(self.orders, self.now).values()) - {(0, 0)}) == sorted(
                {(each.held, each.posted) for each in stands} - {(0, 0)}
            )
        assert self.run(self.db.audit()) == []


World.TestCase.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
TestBudgets = World.TestCase
