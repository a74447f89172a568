from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.money.differences import UnitPrice
from gateway.money.ledger import Ledger
from gateway.money.matching import Mend, Release, Settle, adding_up_to, by_request, by_total, quiet_spans
from gateway.money.reconcile import Period, Resolution, drift, glance, post, resolve
from gateway.storage.database.sqlite import SqliteDatabase
from gateway.storage.rows import Outcome
from providers.contract import Generation, OnAccepted, Order, Ticket, UsageRecord
from providers.errors import Unsupported
from tests.support.books import NOON, HandClock, attempt, new_hold

Books: TypeAlias = tuple[SqliteDatabase, Ledger, HandClock]

MIDNIGHT = NOON.replace(hour=0)
LATER = NOON + timedelta(hours=1)
LOST = Outcome(error="timed_out", detail="no answer")


class Seller:
    """A provider account that sells nothing and only sends bills."""

    name = "fal"

    def __init__(self, *lines: UsageRecord) -> None:
        self.lines = list(lines)

    async def generate(self, order: Order, on_accepted: OnAccepted) -> Generation:
        raise Unsupported(f"{order.endpoint} for {on_accepted}")

    async def usage(self, since: datetime, endpoints: Sequence[str]) -> Sequence[UsageRecord]:
        return [line for line in self.lines if line.at >= since and line.endpoint in endpoints]

    async def aclose(self) -> None:
        self.lines.clear()


class Prompt(Seller):
    """One whose bills come at once."""

    bills_by_order: Literal[True] = True


class Mute:
    """A provider account that says nothing about money."""

    name = "own"

    async def generate(self, order: Order, on_accepted: OnAccepted) -> Generation:
        raise Unsupported(f"{order.endpoint} for {on_accepted}")

    async def aclose(self) -> None:
        return


class OwnMachines(Mute):
    """Machines of ours: nobody bills their orders."""

    bills_nobody: Literal[True] = True


def line(amount: int, request: str | None = None, at: float = 1.0, endpoint: str = "flux/schnell") -> UsageRecord:
    return UsageRecord(endpoint=endpoint, nano_usd=amount, at=NOON + timedelta(seconds=at), request_id=request)


def total(amount: int, day: datetime = MIDNIGHT, endpoint: str = "flux/schnell") -> UsageRecord:
    return UsageRecord(endpoint=endpoint, nano_usd=amount, at=day)


def period(clock: HandClock) -> Period:
    return Period(since=NOON - timedelta(hours=1), settled_before=clock.utc(), now=clock.utc())


async def order(
    ledger: Ledger, clock: HandClock, hold: int = 1000, *, ticket: str | None = None, cost: int | None = None
) -> str:
    """One order that was settled at a cost, or whose end is unknown."""
    (held,) = await ledger.hold([new_hold(hold)])
    if ticket is not None:
        await held.accept(Ticket(ticket))
    clock.forward(2)
    await (held.suspend(LOST) if cost is None else held.settle(cost=cost, charge=cost, outcome=Outcome(delivered=1)))
    clock.forward(1)
    return held.attempt_id


async def test_lines_settle_orders_by_receipt_and_silence_releases_them(
    db: SqliteDatabase, ledger: Ledger, clock: HandClock
) -> None:
    await order(ledger, clock, ticket="a")
    await order(ledger, clock, ticket="b")
    await order(ledger, clock, ticket="c", cost=1000)
    seller = Seller(line(800, "a"), line(1000, "c", at=7))
    assert await resolve(db, "fal", seller, period(clock)) == Resolution(settled=1, released=1)
    assert [(row.state, row.cost, row.charge) for row in await db.account_attempts("fal", NOON)] == [
        ("settled", 800, 0),
        ("released", 0, 0),
        ("settled", 1000, 1000),
    ]
    ours = (await drift(db, {"fal": seller}, MIDNIGHT))["fal"]
    assert (ours.ours, ours.theirs, ours.drift, ours.suspended, ours.orders) == (1800, 1800, 0, 0, 2)
    assert await resolve(db, "fal", seller, period(clock)) == Resolution()


async def test_the_outcome_of_a_resolved_order_stays_what_it_was(
    db: SqliteDatabase, ledger: Ledger, clock: HandClock
) -> None:
    await order(ledger, clock, ticket="a")
    (before,) = await db.suspended()
    await resolve(db, "fal", Seller(line(800, "a")), period(clock))
    after = await db.attempt(before.id)
    assert after is not None
    assert (after.outcome, after.ended) == (LOST, before.ended)


async def test_a_total_settles_the_orders_that_add_up_to_it(
    db: SqliteDatabase, ledger: Ledger, clock: HandClock
) -> None:
    for hold, cost in ((1000, 1000), (700, None), (1000, None), (400, None)):
        await order(ledger, clock, hold, cost=cost)
    seller = Seller(total(2400))
    assert await resolve(db, "fal", seller, period(clock)) == Resolution(settled=2, released=1)
    assert (await drift(db, {"fal": seller}, MIDNIGHT))["fal"].drift == 0


async def test_the_drift_is_told_by_endpoint_and_model_and_adds_up(
    db: SqliteDatabase, ledger: Ledger, clock: HandClock
) -> None:
    await order(ledger, clock, 1000, cost=1000, ticket="a")
    held = replace(new_hold(700), endpoint="flux/dev", offer_id="fal:flux-dev/edit")
    (hold,) = await ledger.hold([held])
    await hold.settle(cost=600, charge=600, outcome=Outcome())
    found = (await drift(db, {"fal": Seller(line(1000, "a"), line(450, "b", endpoint="flux/dev"))}, MIDNIGHT))["fal"]
    assert [(each.endpoint, each.models, each.drift, each.orders) for each in found.endpoints] == [
        ("flux/dev", ("flux-dev",), 150, 1), ("flux/schnell", ("flux-schnell",), 0, 1),
    ]  # fmt: skip
    assert found.drift == sum(each.drift or 0 for each in found.endpoints)


@pytest.mark.parametrize("seconds", [0, 400])
async def test_a_glance_corrects_what_the_latest_bills_say_and_nothing_else(
    db: SqliteDatabase, ledger: Ledger, clock: HandClock, seconds: int
) -> None:
    await order(ledger, clock, 1000, cost=1000, ticket="a")
    await order(ledger, clock, 1000, cost=1000, ticket="b")
    await order(ledger, clock, 700, ticket="lost")
    clock.forward(seconds)
    seller = Seller(line(1200, "a"), line(5, "stranger"), line(700, "lost"))
    assert await glance(db, "fal", seller, NOON, clock.utc()) == Resolution()  # it may take hours to name an order
    seller = Prompt(*seller.lines)
    found = await glance(db, "fal", seller, NOON, clock.utc())
    assert (found.corrections, found.corrected_by, found.endpoints) == (1, 200, ("flux/schnell",))
    assert await glance(db, "fal", seller, NOON, clock.utc()) == Resolution()
    assert [row.cost for row in await db.account_attempts("fal", NOON)] == [1200, 1000, 0]
    assert await db.audit() == []


@pytest.fixture
def books(db: SqliteDatabase, ledger: Ledger, clock: HandClock) -> Books:
    return db, ledger, clock


def counted(units: str | None, price: int | None, amount: int) -> UsageRecord:
    """A line of order `a` that says how it was counted."""
    return replace(line(amount, "a"), units=None if units is None else Decimal(units), unit_nano_usd=price)


@pytest.mark.parametrize(
    ("told", "cause", "says"),
    [
        (counted("2", 1000, 2000), "units", "2 units at $0.000001 billed, 1 at $0.000001 reckoned"),
        (counted("1", 1200, 1200), "price", "1 unit at $0.0000012 billed, 1 at $0.000001 reckoned"),
        (counted("1.5", 900, 1350), "price and units", "1.5 units at $0.0000009 billed, 1 at $0.000001 reckoned"),
        (counted("1.0000001", 1000, 950), "discount", "1.0000001 units at $0.000001, less $0.00000005"),
        (counted(None, None, 950), "not told", "the seller does not say how many units it bills"),
    ],
)
async def test_a_correction_says_which_units_were_billed_against_those_we_reckoned(
    books: Books, told: UsageRecord, cause: str, says: str
) -> None:
    db, ledger, clock = books
    await order(ledger, clock, 1000, cost=1000, ticket="a")
    found = await resolve(db, "fal", Seller(told), period(clock), lambda _: 1000)
    assert [(why.cause, why.says, why.orders) for why in found.differences] == [(cause, says, 1)]
    (correction,) = [entry for entry in await db.entries() if entry.kind == "correction"]
    assert correction.note == f"usage report of request a: {told.nano_usd} reported, 1000 posted; {says}"
    (endpoint,) = (await drift(db, {"fal": Seller(told)}, MIDNIGHT, lambda _: 1000))["fal"].endpoints
    assert (endpoint.drift, endpoint.differences) == (0, found.differences)


async def test_units_that_were_told_are_said_where_our_own_price_of_one_is_not_known(books: Books) -> None:
    db, ledger, clock = books
    await order(ledger, clock, 1000, cost=1000, ticket="a")
    (endpoint,) = (await drift(db, {"fal": Seller(counted("2", 1000, 2000))}, MIDNIGHT))["fal"].endpoints
    says = "2 units at $0.000001 billed, $0.000001 reckoned; what we reckon a unit at is not known"
    assert [(each.cause, each.says) for each in endpoint.differences] == [("not reckoned", says)]


def always(price: int | None) -> UnitPrice:
    return lambda _: price


@pytest.mark.parametrize("prices", [(1000, 1250), (1000, None), (None, 1000)])
async def test_replicas_that_explain_a_correction_in_other_words_post_it_once(
    books: Books, prices: tuple[int | None, int | None]
) -> None:
    db, ledger, clock = books
    await order(ledger, clock, 1000, cost=1000, ticket="a")
    rows, told = await db.account_attempts("fal", NOON), [counted("2", 1000, 2000)]
    plans = [by_request(told, rows, NOON, clock.utc(), always(price)) for price in prices]
    posted = [await post(db, "fal", action, clock.utc()) for plan in plans for action in plan.actions]
    assert posted == [True, False]
    assert [row.cost for row in await db.account_attempts("fal", NOON)] == [2000]
    assert await db.audit() == []


@pytest.mark.parametrize("reported", [2399, 900])
async def test_a_total_that_nothing_explains_is_posted_as_reported(
    db: SqliteDatabase, ledger: Ledger, clock: HandClock, reported: int
) -> None:
    await order(ledger, clock, 1000, cost=1000)
    await order(ledger, clock, 700)
    seller = Seller(total(reported))
    by = reported - 1000
    assert await resolve(db, "fal", seller, period(clock)) == Resolution(
        released=1, corrections=1, corrected_by=by, endpoints=("flux/schnell",)
    )
    assert (await drift(db, {"fal": seller}, MIDNIGHT))["fal"].drift == 0
    assert await resolve(db, "fal", seller, period(clock)) == Resolution()


async def test_a_correction_of_one_day_does_not_count_on_the_next(
    db: SqliteDatabase, ledger: Ledger, clock: HandClock
) -> None:
    await order(ledger, clock, 1000, cost=1000)
    seller = Seller(total(1003))
    await resolve(db, "fal", seller, period(clock))
    clock.forward(24 * 3600)
    await order(ledger, clock, 1000, cost=1000)
    await order(ledger, clock, 500)
    seller.lines.append(total(1500, MIDNIGHT + timedelta(days=1)))
    today = Period(since=clock.utc() - timedelta(minutes=5), settled_before=clock.utc(), now=clock.utc())
    assert await resolve(db, "fal", seller, today) == Resolution(settled=1)
    assert (await drift(db, {"fal": seller}, MIDNIGHT))["fal"].drift == 0


async def test_totals_wait_while_an_order_is_under_way(db: SqliteDatabase, ledger: Ledger, clock: HandClock) -> None:
    await order(ledger, clock, 700)
    await ledger.hold([new_hold(1000)])
    clock.forward(5)
    assert await resolve(db, "fal", Seller(total(1700)), period(clock)) == Resolution(waiting=1)


async def test_an_empty_report_undoes_nothing_we_posted(db: SqliteDatabase, ledger: Ledger, clock: HandClock) -> None:
    await order(ledger, clock, 1000, cost=1000)
    await order(ledger, clock, 700)
    assert await resolve(db, "fal", Seller(), period(clock)) == Resolution(waiting=1)


async def test_an_empty_report_releases_what_was_never_billed(
    db: SqliteDatabase, ledger: Ledger, clock: HandClock
) -> None:
    await order(ledger, clock, 700)
    assert await resolve(db, "fal", Seller(), period(clock)) == Resolution(released=1)


async def test_a_seller_without_reports_leaves_money_suspended(
    db: SqliteDatabase, ledger: Ledger, clock: HandClock
) -> None:
    await order(ledger, clock, 700)
    assert await resolve(db, "fal", Mute(), period(clock)) == Resolution(waiting=1)
    assert (await drift(db, {"fal": Mute()}, MIDNIGHT))["fal"].drift is None


def test_a_line_without_receipt_finds_the_order_by_amount_and_time() -> None:
    near, far, dear = attempt(started=100), attempt(started=0), attempt(started=100, hold=5000)
    plan = by_request([line(1000, "x", at=103)], [far, dear, near], NOON, NOON)
    assert plan.actions == (Settle(near, 1000),)


def test_a_price_that_rose_meanwhile_does_not_hide_whose_line_it_is() -> None:
    row = attempt(hold=3_000_000)
    plan = by_request([line(3_500_000, "x")], [row], NOON, LATER)
    assert plan.actions == (Settle(row, 3_500_000),)


def test_a_line_may_belong_to_an_order_whose_receipt_is_on_its_way() -> None:
    under_way = attempt("intent", started=100, ended=None)
    plan = by_request([line(1000, "x", at=101)], [under_way], NOON, LATER)
    assert plan.actions == ()
    assert [stranger.request_id for stranger in plan.strangers] == ["x"]


def test_an_order_believed_refused_but_billed_is_corrected() -> None:
    refused = attempt("released", started=100)
    (mend,) = by_request([line(1000, "x", at=101)], [refused], NOON, LATER).actions
    assert isinstance(mend, Mend)
    assert (mend.attempt, mend.amount) == (refused, 1000)


def test_an_order_billed_otherwise_than_posted_is_corrected() -> None:
    dearer, free = attempt("settled", cost=700, ticket="a"), attempt("settled", cost=700, ticket="b")
    mends = by_request([line(900, "a", at=1)], [dearer, free], NOON, LATER).actions
    assert [mend.amount for mend in mends if isinstance(mend, Mend)] == [200, -700]


def test_silence_about_young_or_earlier_orders_says_nothing() -> None:
    young = attempt(ticket="a", started=50, ended=60)
    earlier = attempt("settled", cost=700, ticket="b", started=-100, ended=-90)
    plan = by_request([line(1, "other", at=70)], [young, earlier], NOON, NOON + timedelta(seconds=60))
    assert plan.actions == ()


def test_someone_elses_lines_are_told_and_not_posted() -> None:
    plan = by_request([line(123, "x", at=5000)], [attempt("settled", cost=5, ticket="a", started=4000)], NOON, NOON)
    assert plan.actions == ()
    assert len(plan.strangers) == 1


def test_spans_end_at_midnights_that_no_order_straddles() -> None:
    day = 24 * 3600
    rows = [
        attempt("settled", started=0, ended=5),
        attempt("settled", started=day / 2 - 1, ended=day / 2 + 1),
        attempt("accepted", started=2 * day, ended=None),
    ]
    end = NOON + timedelta(days=2, hours=1)
    assert quiet_spans(rows, NOON, end) == [(MIDNIGHT, MIDNIGHT + timedelta(days=2))]
    assert quiet_spans(rows[:2], NOON, end)[-1] == (MIDNIGHT + timedelta(days=2), end)


@given(st.lists(st.integers(0, 50), max_size=12), st.data())
def test_a_total_made_of_amounts_is_always_explained(amounts: list[int], data: st.DataObject) -> None:
    part = data.draw(st.lists(st.booleans(), min_size=len(amounts), max_size=len(amounts)))
    wanted = sum(amount for amount, taken in zip(amounts, part, strict=True) if taken)
    chosen = adding_up_to(wanted, amounts)
    assert chosen is not None
    assert sum(amounts[index] for index in chosen) == wanted


@given(st.lists(st.integers(0, 50), max_size=12), st.integers(-10, 700), st.integers(0, 100))
def test_after_a_total_our_sum_is_theirs_and_nothing_is_suspended(holds: list[int], reported: int, posted: int) -> None:
    rows = [attempt(hold=hold) for hold in holds]
    actions = by_total("flux/schnell", reported, posted, rows, (MIDNIGHT, NOON))
    cost = sum(a.cost if isinstance(a, Settle) else a.amount for a in actions if not isinstance(a, Release))
    assert posted + cost == reported
    assert {a.attempt.id for a in actions if isinstance(a, Settle | Release)} == {row.id for row in rows}


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d"]), st.integers(0, 9)), min_size=1, max_size=8))
def test_after_lines_every_order_with_a_receipt_costs_what_they_say(lines: list[tuple[str, int]]) -> None:
    rows = [attempt(ticket="a"), attempt("settled", cost=4, ticket="b"), attempt("released", ticket="c")]
    plan = by_request([line(amount, request, at=9) for request, amount in lines], rows, NOON, LATER)
    cost = {row.id: row.cost for row in rows}
    for action in plan.actions:
        assert not isinstance(action, Mend) or action.attempt is not None
        if isinstance(action, Settle):
            cost[action.attempt.id] += action.cost
        elif isinstance(action, Mend) and action.attempt is not None:
            cost[action.attempt.id] += action.amount
    billed = [sum(amount for request, amount in lines if request == name) for name in "abc"]
    assert list(cost.values()) == billed


async def test_a_report_that_names_our_attempts_settles_exactly_those(
    db: SqliteDatabase, ledger: Ledger, clock: HandClock
) -> None:
    silent = await order(ledger, clock)
    named = await order(ledger, clock)
    dear = await order(ledger, clock, cost=900)
    forgotten = await order(ledger, clock, cost=50)
    report = Seller(line(1000, named, at=4), line(901, dear, at=7), line(1000, "somebody else's", at=1))
    found = await resolve(db, "fal", report, period(clock))
    assert (found.settled, found.released, found.corrections, len(found.strangers)) == (1, 1, 1, 1)
    rows = {row.id: (row.state, row.cost) for row in await db.account_attempts("fal", NOON)}
    assert rows == {
        silent: ("released", 0),
        named: ("settled", 1000),
        dear: ("settled", 901),
        forgotten: ("settled", 50),
    }


async def test_an_order_that_nobody_measured_at_our_own_machines_is_owed_to_nobody(
    db: SqliteDatabase, ledger: Ledger, clock: HandClock
) -> None:
    await order(ledger, clock)
    early = Period(since=NOON - timedelta(hours=1), settled_before=NOON, now=clock.utc())
    assert await resolve(db, "fal", OwnMachines(), early) == Resolution(waiting=1)
    assert await resolve(db, "fal", Mute(), period(clock)) == Resolution(waiting=1)
    assert await resolve(db, "fal", OwnMachines(), period(clock)) == Resolution(released=1)
