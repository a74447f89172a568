"""What invoices make of list prices: by hand, by our billing and by the sandbox's own tabs, to the nano-dollar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import Struct
from pydantic import ValidationError

from gateway.yaml_files import read
from policies.billing import (
    Allowance,
    Billable,
    Billing,
    Lot,
    costs,
    credit_left,
    mend,
    month_of,
    reasons,
    settle,
    slots_bought,
)
from policies.billing_file import BillingEntry
from providers.sandbox.discounts import Contract, Tab

MIDDAY = datetime(2026, 11, 15, 12, tzinfo=UTC)
QUARTER_US = 900_000_000
FILE = Path(__file__).parents[1] / "prices" / "billing.yaml"


class Case(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One order in a row of equal ones, and what it comes to."""

    contract: str
    before: int
    listed: int
    owed: int
    pictures: int = 1
    back: int = 0
    credit: int = 0
    left: tuple[int, ...] | None = None
    licence: int = 0
    certain: bool = True
    at: datetime = MIDDAY
    earlier: datetime | None = None
    """When the others were billed, where that was at another time."""

    def __str__(self) -> str:
        return f"{self.contract}-{self.before + 1}-{self.listed}-{self.pictures}-{self.at:%m-%dT%H:%M}"


class Sides(Struct, frozen=True):
    """A contract as we type it, and as the sandbox does."""

    ours: dict[str, object]
    theirs: Contract


class Prices(Struct, frozen=True):
    contracts: dict[str, Sides]
    cases: tuple[Case, ...]


PRICES = msgspec.convert(read(FILE).data, Prices, strict=False)


class Account:
    """Our side of an account: the counters, kept as the ledger keeps them."""

    def __init__(self, billing: Billing) -> None:
        self.billing = billing
        self.counters: Counter[str] = Counter()

    def count(self, moves: Mapping[str, int]) -> None:
        for name, amount in moves.items():
            self.counters[name] += amount

    def counted(self, name: str) -> int:
        return self.counters[name]


def billing(contract: str) -> Billing:
    return BillingEntry.model_validate(PRICES.contracts[contract].ours).billing()


@pytest.mark.parametrize("case", PRICES.cases, ids=str)
def test_quote_bill_and_invoice_say_what_was_reckoned_by_hand(case: Case) -> None:
    ours, tab = Account(billing(case.contract)), Tab(PRICES.contracts[case.contract].theirs)
    order = Billable(listed=case.listed, pictures=case.pictures, at=case.at, model="flux-dev")
    earlier = order if case.earlier is None else msgspec.structs.replace(order, at=case.earlier)
    for _ in range(case.before):
        ours.count(settle(ours.billing, ours.counted, earlier).moves)
        tab.enter(earlier.listed, earlier.pictures, earlier.at)
        tab.royalty("flux-dev", earlier.pictures, earlier.at)
    quoted = settle(ours.billing, ours.counted, order)  # asking changes nothing
    billed = settle(ours.billing, ours.counted, order)
    ours.count(billed.moves)
    slip = tab.enter(order.listed, order.pictures, order.at)
    licence = sum(owed for _, owed in tab.royalty("flux-dev", order.pictures, order.at))
    assert quoted == billed
    assert (billed.amount, billed.rebate, billed.credit) == (case.owed, case.back, case.credit)
    assert (slip.owed, slip.back, slip.prepaid) == (case.owed, case.back, case.credit)
    assert billed.fee + billed.overage == licence == case.licence
    assert billed.certain is case.certain
    if case.left is not None:
        left = [lot.amount - ours.counted(f"credit/{lot.name}") for lot in ours.billing.lots]
        assert (*left,) == tuple(tab.credit) == case.left


@pytest.mark.parametrize(
    "contract", ["marginal", "whole", "odd", "pictures-a-month", "trial", "weights", "all-at-once", "free-then-whole"]
)
@pytest.mark.parametrize("count", [1, 2, 3, 7, 999, 1000, 5001])
def test_a_months_cost_is_the_sum_of_its_orders(contract: str, count: int) -> None:
    ours = Account(billing(contract))
    order = Billable(listed=2_831_155, pictures=2, at=MIDDAY, model="flux-dev")
    total = 0
    for _ in range(count):
        billed = settle(ours.billing, ours.counted, order)
        ours.count(billed.moves)
        total += billed.amount + billed.overage + billed.fee - billed.rebate
    assert costs(ours.billing, order, count, [MIDDAY]) == [total]


def test_a_refund_fills_the_credit_that_lasts_longest_and_what_has_expired_stays_lost() -> None:
    ours = Account(billing("credit"))
    morning = datetime(2026, 11, 20, 11, tzinfo=UTC)
    for _ in range(3):
        ours.count(settle(ours.billing, ours.counted, Billable(listed=30_000_000, pictures=1, at=morning)).moves)
    ours.count(mend(ours.billing, ours.counted, -30_000_000, morning + timedelta(hours=2)))
    assert (ours.counters["credit/late"], ours.counters["credit/early"]) == (0, 70_000_000)
    assert ours.counters["2026-11/due"] == -10_000_000
    assert [left for _, left in credit_left(ours.billing, ours.counted, morning)] == [0, 1_000_000_000]


def test_what_a_seller_says_itself_stands_and_still_counts() -> None:
    ours = Account(billing("marginal"))
    billed = settle(ours.billing, ours.counted, Billable(listed=100, pictures=1, at=MIDDAY, told=42))
    ours.count(billed.moves)
    assert billed.amount == 42
    assert ours.counters == {"2026-11/requests": 1, "2026-11/listed": 100, "2026-11/due": 42}


def test_reasons_say_what_moved_a_price_and_nothing_else() -> None:
    ours = Account(billing("whole"))
    order = Billable(listed=30_000_000, pictures=1, at=MIDDAY)
    assert list(reasons(ours.billing, settle(ours.billing, ours.counted, order), order)) == []
    before = 999 * 30_000_000
    ours.counters.update({"2026-11/requests": 999, "2026-11/listed": before, "2026-11/owed": before})
    said = list(reasons(ours.billing, settle(ours.billing, ours.counted, order), order))
    assert said == ["request 1,000 of 2026-11: 5 % off", "$1.4985 comes back for the 999 requests before it"]
    ours.counters["2026-11/requests"] = 10_000
    (said_beyond,) = reasons(ours.billing, settle(ours.billing, ours.counted, order), order)
    assert "beyond request 10,000 this is not certain" in said_beyond


def test_credit_buys_slots_while_some_of_it_is_left() -> None:
    entry = {"credit": [{"name": "a", "amount": "$0.01", "slots": 20}, {"name": "b", "amount": "$1", "slots": 10}]}
    ours = Account(BillingEntry.model_validate(entry).billing())
    assert slots_bought(ours.billing, ours.counted, MIDDAY) == 20
    ours.count(settle(ours.billing, ours.counted, Billable(listed=10_000_000, pictures=1, at=MIDDAY)).moves)
    assert slots_bought(ours.billing, ours.counted, MIDDAY) == 10


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"volume": [{"from_request": 1000, "discount": "5%"}]}, "volume also needs applies"),
        ({"volume": [{"from_request": 1000, "discount": 5}], "applies": "whole"}, "a discount such as 5%"),
        ({"volume": [{"from_request": 1000, "discount": "-5%"}], "applies": "whole"}, "a discount such as 5%"),
        ({"volume": [{"from_request": 1, "discount": "100%"}], "applies": "whole"}, "below 100%"),
        ({"zone": "Mars/Olympus"}, "no time zone is called 'Mars/Olympus'"),
        ({"free": [{"name": "a", "per": "month"}]}, "exactly one of images and amount"),
        ({"free": [{"name": "a", "images": -1, "per": "month"}]}, "greater than 0"),
        ({"free": [{"name": "a", "amount": "5 EUR", "per": "once"}]}, "is not an amount: write dollars"),
        ({"free": [{"name": "a", "pictures": 5, "per": "once"}]}, "Extra inputs"),
        ({"credit": [{"name": "a", "amount": "$-5"}]}, "is not an amount"),
        (
            {"credit": [{"name": "a", "amount": "$5", "valid_from": "2026-12-01", "expires": "2026-12-01"}]},
            "is not after valid_from",
        ),
        ({"credit": [{"name": "a", "amount": "$5"}, {"name": "a", "amount": "$6"}]}, "names 'a' twice"),
        ({"licences": [{"model": "flux-dev"}]}, "needs no entry"),
        ({"licences": [{"model": "flux-dev", "overage": "$10000"}]}, "are these cents or nano-dollars"),
    ],
)
def test_terms_that_make_no_sense_are_refused_with_the_fix(entry: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        BillingEntry.model_validate(entry)


MOMENTS = st.timedeltas(timedelta(0), timedelta(days=9))


class Agreement(RuleBasedStateMachine):
    """Our billing and the sandbox's, over any row of orders, refunds, expiries and months."""

    @initialize(
        tiers=st.lists(st.integers(1, 12), max_size=3, unique=True),
        backdated=st.booleans(),
        zone=st.sampled_from(["UTC", "America/Los_Angeles"]),
        free=st.lists(st.tuples(st.booleans(), st.integers(1, 5), st.booleans(), st.integers(0, 40)), max_size=2),
        lots=st.lists(st.tuples(st.integers(1, 200_000_000), st.integers(1, 60), st.integers(0, 9)), max_size=3),
    )
    def begin(
        self,
        tiers: list[int],
        backdated: bool,
        zone: str,
        free: list[tuple[bool, int, bool, int]],
        lots: list[tuple[int, int, int]],
    ) -> None:
        self.at = datetime(2026, 10, 25, 3, tzinfo=UTC)
        begun = self.at

        def day(number: int) -> str:
            return (begun + timedelta(days=number)).isoformat()

        off = [(first, f"{2.25 * (place + 1)}") for place, first in enumerate(sorted(tiers))]
        ours: dict[str, object] = {
            "zone": zone,
            "volume": [{"from_request": first, "discount": f"{percent}%"} for first, percent in off],
            "free": [
                {
                    "name": f"free-{place}",
                    **({"images": size} if pictures else {"amount": f"$0.0{size}"}),
                    "per": "month" if monthly else "once",
                    "valid_to": day(days + 1),
                }
                for place, (pictures, size, monthly, days) in enumerate(free)
            ],
            "credit": [
                {
                    "name": f"lot-{place}",
                    "amount": f"${nano / 1e9:.9f}",
                    "valid_from": day(first),
                    "expires": day(first + days),
                }
                for place, (nano, days, first) in enumerate(lots)
            ],
        }
        theirs = {
            "zone": zone,
            "off": off,
            "backdated": backdated,
            "free": [
                {
                    "pictures": size if pictures else 0,
                    "usd": "0" if pictures else f"0.0{size}",
                    "every": "month" if monthly else "lifetime",
                    "ends": day(days + 1),
                }
                for pictures, size, monthly, days in free
            ],
            "prepaid": [
                {"usd": f"{nano / 1e9:.9f}", "bought": day(first), "lapses": day(first + days)}
                for nano, days, first in lots
            ],
        }
        if off:
            ours["applies"] = "whole" if backdated else "marginal"
        self.ours = Account(BillingEntry.model_validate(ours).billing())
        self.tab = Tab(msgspec.convert(theirs, Contract, strict=False))
        self.posted = self.invoiced = 0

    @rule(listed=st.integers(0, 90_000_000), pictures=st.integers(1, 4))
    def an_order_is_settled(self, listed: int, pictures: int) -> None:
        billed = settle(
            self.ours.billing, self.ours.counted, Billable(listed=listed, pictures=pictures, at=self.at, model="m")
        )
        slip = self.tab.enter(listed, pictures, self.at)
        assert (billed.amount, billed.rebate, billed.credit) == (slip.owed, slip.back, slip.prepaid)
        assert 0 <= billed.amount <= listed  # what is held undiscounted is enough
        self.ours.count(billed.moves)
        self.posted += billed.amount - billed.rebate
        self.invoiced += slip.owed - slip.back

    @rule(amount=st.integers(1, 90_000_000))
    def a_refund_comes(self, amount: int) -> None:
        self.ours.count(mend(self.ours.billing, self.ours.counted, -amount, self.at))
        self.tab.refund(amount, self.at)
        self.posted -= amount
        self.invoiced -= amount

    @rule(later=MOMENTS)
    def time_goes_by(self, later: timedelta) -> None:
        self.at += later

    @invariant()
    def the_books_agree(self) -> None:
        lots = self.ours.billing.lots
        left = [lot.amount - self.ours.counted(f"credit/{lot.name}") for lot in lots]
        assert left == list(self.tab.credit)
        assert all(0 <= rest <= lot.amount for rest, lot in zip(left, lots, strict=True))
        assert self.posted == self.invoiced
        due = sum(value for name, value in self.ours.counters.items() if name.endswith("/due"))
        drawn = sum(lot.amount - rest for rest, lot in zip(left, lots, strict=True))
        assert due + drawn == self.posted


TestAgreement = Agreement.TestCase


def test_months_are_those_of_the_zone() -> None:
    at = datetime(2026, 11, 30, 23, 30, tzinfo=UTC)
    assert (month_of(Billing(), at), month_of(Billing(zone="Europe/Berlin"), at)) == ("2026-11", "2026-12")


@given(
    bought=st.integers(0, 3 * QUARTER_US),
    lasts=st.integers(1, 3 * QUARTER_US),
    moments=st.lists(st.integers(0, 4 * QUARTER_US), min_size=1, max_size=6),
)
def test_credit_and_what_is_free_count_from_their_first_microsecond_to_their_last(
    bought: int, lasts: int, moments: list[int]
) -> None:
    since, until = MIDDAY + timedelta(microseconds=bought), MIDDAY + timedelta(microseconds=bought + lasts)
    terms = Billing(
        allowances=(Allowance(name="gift", amount=10, since=since, until=until),),
        lots=(Lot(name="lot", amount=100, since=since, expires=until),),
    )
    for moment in (*moments, bought - 1, bought, bought + lasts - 1, bought + lasts):
        at = MIDDAY + timedelta(microseconds=moment)
        billed = settle(terms, lambda _: 0, Billable(listed=50, pictures=1, at=at))
        assert (billed.free, billed.credit) == ((10, 40) if since <= at < until else (0, 0))
