"""Random lives of orders at a seller that takes something off, with crashes between: our books beside its own tab."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from gateway.money.ledger import Hold, Ledger
from gateway.money.matching import Settle
from gateway.money.reconcile import post
from gateway.storage.database import Correction
from gateway.storage.rows import Outcome
from policies.billing import Allowance, Billing, Lot, VolumeTier
from providers.sandbox.discounts import Contract, Free, Prepaid, Tab
from tests.support.books import NOON, HandClock, new_hold
from tests.support.stateful import OnBooks

SOON = NOON + timedelta(days=20)
BILLING = Billing(
    zone="America/New_York",
    tiers=(VolumeTier(3, 725), VolumeTier(6, 1_000)),
    allowances=(
        Allowance(name="pictures", images=2),
        Allowance(name="gift", amount=1_500, monthly=False, until=SOON),
    ),
    lots=(Lot(name="short", amount=2_500, expires=SOON), Lot(name="long", amount=4_000)),
)
CONTRACT = Contract(
    zone="America/New_York",
    off=((3, "7.25"), (6, "10")),
    free=(Free(pictures=2), Free(usd="0.0000015", every="lifetime", ends=SOON)),
    prepaid=(Prepaid(usd="0.0000025", lapses=SOON), Prepaid(usd="0.000004")),
)
LISTED = st.integers(min_value=0, max_value=2_000)
PICTURES = st.integers(min_value=1, max_value=4)


class Billed(OnBooks):
    """What the commits of the ledger make of an account, and what its seller does."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.tab = Tab(CONTRACT)
        self.owners = self.refunds = self.invoiced = 0
        self.billed: list[tuple[str, int]] = []
        self.open()
        self.run(self.ledger.set_billing({"fal": BILLING}))

    def open(self) -> None:
        super().open()
        self.owners += 1
        self.ledger = Ledger(self.db, f"own_{self.owners}", self.clock)

    def hold(self, listed: int) -> Hold:
        (hold,) = self.run(self.ledger.hold([new_hold(listed)]))
        return hold

    def invoice(self, hold: Hold, listed: int, pictures: int) -> int:
        slip = self.tab.enter(listed, pictures, self.clock.utc())
        self.invoiced += slip.owed
        self.billed.append((hold.attempt_id, slip.owed))
        return slip.owed

    @rule(listed=LISTED, pictures=PICTURES)
    def an_order_delivers(self, listed: int, pictures: int) -> None:
        hold = self.hold(listed)
        self.invoice(hold, listed, pictures)
        self.run(hold.settle(cost=listed, charge=listed, outcome=Outcome(delivered=pictures), pictures=pictures))

    @rule(listed=LISTED)
    def an_order_fails_unbilled(self, listed: int) -> None:
        self.run(self.hold(listed).release(Outcome(error="overloaded")))

    @rule(listed=LISTED)
    def an_order_is_lost_and_its_seller_reports_it(self, listed: int) -> None:
        hold = self.hold(listed)
        owed = self.invoice(hold, listed, 1)
        self.run(hold.suspend(Outcome(error="timed_out")))
        (row,) = self.run(self.db.suspended("fal"))
        assert self.run(post(self.db, "fal", Settle(row, owed), self.clock.utc()))

    @precondition(lambda books: any(owed for _, owed in books.billed))
    @rule(share=st.integers(min_value=1, max_value=100))
    def a_refund_comes(self, share: int) -> None:
        attempt, owed = max(self.billed, key=lambda each: each[1])
        amount = -(-owed * share // 100)
        self.billed.remove((attempt, owed))
        self.refunds += 1
        self.tab.refund(amount, self.clock.utc())
        self.invoiced -= amount
        refund = Correction(
            book="cost",
            party="fal",
            amount=-amount,
            note=f"refund {self.refunds}",
            at=self.clock.utc(),
            attempt_id=attempt,
        )
        assert self.run(self.db.correct(refund))

    @rule(days=st.integers(min_value=0, max_value=12))
    def time_goes_by(self, days: int) -> None:
        self.clock.forward(days * 86_400 + 3_600)

    @rule()
    def the_process_dies_and_another_takes_over(self) -> None:
        self.close()
        self.open()

    @invariant()
    def the_books_agree(self) -> None:
        balances = {(row.book, row.party): row for row in self.run(self.db.balances())}
        owed = balances.get(("cost", "fal"))
        assert (0 if owed is None else owed.posted) == self.invoiced
        counted = self.run(self.db.billing_counters("fal"))
        assert [lot.amount - counted.get(f"credit/{lot.name}", 0) for lot in BILLING.lots] == list(self.tab.credit)
        assert self.run(self.db.audit()) == []


TestBilled = Billed.TestCase
TestBilled.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
