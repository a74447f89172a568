from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from gateway.errors import BudgetSpent
from gateway.money.ledger import Hold, Ledger
from gateway.storage.database import AlreadyClosed, TakenOver
from gateway.storage.rows import Outcome
from providers.contract import Ticket
from tests.support.books import HandClock, new_hold
from tests.support.stateful import OnBooks

BUDGET = 5000
AMOUNTS = st.integers(min_value=0, max_value=2000)
PICK = st.integers(min_value=0, max_value=99)
with_an_order = precondition(lambda books: any(not hold.reserved for hold in books.live))
with_a_reservation = precondition(lambda books: any(hold.reserved for hold in books.live))


class Books(OnBooks):
    """Random lives of holds with crashes between; a model in plain numbers says what must come out."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.owners = 0
        self.live: list[Hold] = []
        self.over: list[Hold] = []
        self.unknown: dict[str, int] = {}
        self.posted = 0
        self.overrun = 0
        self.open()
        self.run(self.db.set_team_budget("acme", BUDGET))

    @property
    def held(self) -> int:
        return sum(hold.charge for hold in self.live) + sum(self.unknown.values())

    def open(self) -> None:
        super().open()
        self.owners += 1
        self.ledger = Ledger(self.db, f"own_{self.owners}", self.clock)
        self.run(self.ledger.beat())

    def pick(self, number: int, *, reserved: bool) -> Hold:
        fitting = [hold for hold in self.live if hold.reserved == reserved]
        return fitting[number % len(fitting)]

    def end(self, hold: Hold, charge: int) -> None:
        self.live.remove(hold)
        self.over.append(hold)
        self.posted += charge
        self.overrun += max(charge - hold.charge, 0)

    @rule(amounts=st.lists(AMOUNTS, min_size=1, max_size=3), reserve=st.booleans())
    def hold(self, amounts: list[int], reserve: bool) -> None:
        fits = self.held + self.posted + sum(amounts) <= BUDGET or sum(amounts) == 0
        try:
            self.live += self.run(self.ledger.hold([new_hold(amount, reserve=reserve) for amount in amounts]))
        except BudgetSpent:
            assert not fits
        else:
            assert fits

    @with_a_reservation
    @rule(number=PICK, amount=AMOUNTS)
    def order_what_was_reserved(self, number: int, amount: int) -> None:
        old = self.pick(number, reserved=True)
        more = amount - old.charge
        fits = more <= 0 or self.held + self.posted + more <= BUDGET
        try:
            (new,) = self.run(self.ledger.hold([new_hold(amount, replaces=old.attempt_id)]))
        except BudgetSpent:
            assert not fits
            return
        assert fits
        self.end(old, 0)
        self.live.append(new)

    @with_an_order
    @rule(number=PICK)
    def accept(self, number: int) -> None:
        hold = self.pick(number, reserved=False)
        self.run(hold.accept(Ticket(hold.attempt_id)))

    @with_an_order
    @rule(number=PICK, cost=AMOUNTS, charge=AMOUNTS)
    def settle(self, number: int, cost: int, charge: int) -> None:
        hold = self.pick(number, reserved=False)
        assert self.run(hold.settle(cost=cost, charge=charge, outcome=Outcome(delivered=1)))
        self.end(hold, charge)

    @precondition(lambda books: books.live)
    @rule(number=PICK)
    def release(self, number: int) -> None:
        hold = self.live[number % len(self.live)]
        assert self.run(hold.release())
        self.end(hold, 0)

    @with_an_order
    @rule(number=PICK)
    def suspend(self, number: int) -> None:
        hold = self.pick(number, reserved=False)
        assert self.run(hold.suspend(Outcome(error="timed_out")))
        self.end(hold, 0)
        self.unknown[hold.attempt_id] = hold.charge

    @precondition(lambda books: books.unknown)
    @rule(charge=AMOUNTS)
    def learn(self, charge: int) -> None:
        row = self.run(self.db.suspended())[0]
        assert self.run(self.ledger.adopt(row).settle(cost=charge, charge=charge, outcome=Outcome()))
        self.posted += charge
        self.overrun += max(charge - self.unknown.pop(row.id), 0)

    @precondition(lambda books: books.over)
    @rule(number=PICK)
    def close_again(self, number: int) -> None:
        with pytest.raises(AlreadyClosed):
            self.run(self.over[number % len(self.over)].release())

    @rule()
    def crash(self) -> None:
        """The process dies; the next one takes over everything it left open, once, and locks it out."""
        self.close()
        dead, lost = self.ledger, self.live
        self.open()
        self.clock.forward(60)
        self.live = [hold for _, hold in self.run(self.ledger.orphans())]
        assert {hold.attempt_id for hold in self.live} == {hold.attempt_id for hold in lost}
        assert self.run(self.ledger.orphans()) == ()
        dead.db = self.db
        for hold in lost:
            with pytest.raises(TakenOver):
                self.run(hold.release())

    @invariant()
    def the_books_balance(self) -> None:
        assert self.run(self.db.audit()) == []
        held, posted = next(
            ((row.held, row.posted) for row in self.run(self.db.balances()) if row.book == "charge"), (0, 0)
        )
        assert (held, posted) == (self.held, self.posted)
        assert held + posted <= BUDGET + self.overrun


Books.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestBooks = Books.TestCase
