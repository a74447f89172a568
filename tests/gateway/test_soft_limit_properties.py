"""Random lives of orders under budgets with soft limits, by day, by rolling window, by user and in all.

A model in plain numbers says which orders must pass, which calls are to be lowered or put back, and what people are to
be told, once each.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from msgspec.structs import replace

from gateway.errors import BudgetSpent
from gateway.features.alerts import Alerts
from gateway.features.soft_limits import SoftLimits
from gateway.money.ledger import Ledger
from gateway.requests.call import Caller
from gateway.storage.database import Closing
from gateway.storage.rows import Outcome
from providers.transport import Http
from tests.support.books import HandClock, new_hold
from tests.support.limited import BERLIN, Limited, Placed, budget
from tests.support.stateful import OnBooks

AMOUNTS = st.integers(min_value=0, max_value=1500)
PICK = st.integers(min_value=0, max_value=99)
ACME = Caller(key_id="key_1", team="acme")
with_open = precondition(lambda world: any(order.open for order in world.orders))


class World(OnBooks):
    """What the gateway makes of soft limits, and what plain sums do."""

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.orders = HandClock(), list[Placed]()
        self.told: set[tuple[str, str, str]] = set()
        """Budget, whose, and in which window: what somebody was to be told of."""
        self.open()
        self.budgets = [
            Limited(replace(budget("team", "acme", "day", 5000, "Europe/Berlin"), soft=30, then="preview")),
            Limited(replace(budget("gateway", "", "24h", 6000), soft=25, then="queue")),
            Limited(replace(budget("user", "*", "month", 4000), soft=40, then="preview")),
            Limited(replace(budget("account", "fal", "24h", 5000), soft=20, then="notify")),
        ]
        for each in self.budgets:
            self.run(self.db.set_budget(each.row))

    def open(self) -> None:
        super().open()
        self.soft = SoftLimits()
        self.run(self.hire())

    async def hire(self) -> None:
        self.http = Http()
        self.alerts = Alerts(self.db, Ledger(self.db, "own_1", self.clock), self.clock, self.http, (), (100,))

    def close(self) -> None:
        self.run(self.http.aclose())
        super().close()

    def pick(self, number: int) -> Placed:
        opened = [order for order in self.orders if order.open]
        return opened[number % len(opened)]

    def past(self, limited: Limited) -> set[str]:
        """Whose spending is at the soft limit or beyond, in the windows that count now."""
        assert limited.row.soft is not None
        soft = limited.limit(self.clock.at) * limited.row.soft // 100
        return {word for word, sums in limited.used(self.orders, self.clock.at).items() if sum(sums) >= soft}

    def window(self, limited: Limited) -> str:
        """In which window somebody is told once: a day, a month, or a day's length of hours since 1970."""
        match limited.row.window:
            case "day":
                return str(self.clock.at.astimezone(BERLIN).date())
            case "month":
                return f"{self.clock.at:%Y-%m}"
            case _:
                return str(self.clock.at.timestamp() // 86_400)

    @rule(cost=AMOUNTS, charge=AMOUNTS, account=st.sampled_from(["fal", "together"]), user=st.sampled_from("ab"))
    def one_passes_unless_a_hard_limit_is_in_its_way(self, cost: int, charge: int, account: str, user: str) -> None:
        asked = replace(new_hold(charge, cost=cost, account=account), user=user)
        order = Placed(asked.attempt_id, self.clock.at, account, user, (cost, charge), [0, 0])
        fits = all(each.fits(order, self.orders, self.clock.at) for each in self.budgets)
        try:
            self.run(self.db.hold("own_1", [asked], (), self.clock.at))
        except BudgetSpent:
            assert not fits
            return
        assert fits
        self.orders.append(order)

    @with_open
    @rule(number=PICK, share=st.integers(0, 100))
    def one_is_paid(self, number: int, share: int) -> None:
        order = self.pick(number)
        cost, charge = (held * share // 100 for held in order.held)
        closing = Closing(attempt_id=order.id, state="settled", at=self.clock.at, cost=cost, charge=charge)
        assert self.run(self.db.close(closing))
        order.open, order.posted = False, [cost, charge]

    @with_open
    @rule(number=PICK)
    def one_is_given_back(self, number: int) -> None:
        order = self.pick(number)
        assert self.run(self.db.close(Closing(attempt_id=order.id, state="released", at=self.clock.at)))
        order.open = False

    @with_open
    @rule(number=PICK)
    def nobody_knows_what_one_costs(self, number: int) -> None:
        self.run(self.db.suspend(None, self.pick(number).id, Outcome(error="timed_out"), self.clock.at))

    @rule(which=st.integers(0, 3), extra=AMOUNTS, hours=st.integers(0, 30))
    def a_budget_is_raised_for_a_while(self, which: int, extra: int, hours: int) -> None:
        limited = self.budgets[which]
        limited.row = replace(limited.row, extra=extra, extra_until=self.clock.at + timedelta(hours=hours))
        self.run(self.db.set_budget(limited.row))

    @rule(minutes=st.integers(0, 2000))
    def time_goes_by(self, minutes: int) -> None:
        self.clock.forward(60 * minutes)

    @rule()
    def the_process_dies_and_another_takes_over(self) -> None:
        self.close()
        self.open()

    @invariant()
    def calls_are_touched_exactly_while_their_spending_is_at_the_soft_limit_or_beyond(self) -> None:
        self.run(self.soft.look(self.db, self.clock.at))
        for user in ("a", "b", None):
            touched = {row.id for row in self.soft.on(ACME, user, {})}
            assert touched == {
                each.row.id
                for each in self.budgets
                if each.row.then != "notify" and self.past(each) & {user if each.row.of == "user" else ""}
            }

    @invariant()
    def people_are_told_once_a_window(self) -> None:
        self.run(self.alerts.look())
        self.told |= {(each.row.id, word, self.window(each)) for each in self.budgets for word in self.past(each)}
        alerts = [each for each in self.run(self.db.alerts(10_000)) if each.kind == "budget_soft"]
        assert Counter(str(each.facts["budget"]) for each in alerts) == Counter(each[0] for each in self.told)

    def teardown(self) -> None:
        for order in self.orders:
            if order.open:
                self.run(self.db.close(Closing(attempt_id=order.id, state="released", at=self.clock.at)))
        assert not any(row.held for row in self.run(self.db.balances()))
        assert self.run(self.db.audit()) == []
        super().teardown()


World.TestCase.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
TestSoftLimits = World.TestCase
