"""Orders settled by what an account's invoice makes of list prices, in the commit of the settlement."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from gateway.money.focus import row_of
from gateway.money.ledger import Ledger
from gateway.money.reconcile import Period, resolve
from gateway.storage.database import Closing, Correction
from gateway.storage.database.sqlite import SqliteDatabase
from gateway.storage.rows import Outcome
from policies.billing import Allowance, Billing, Lot, VolumeTier, WeightsLicence
from providers.contract import Ticket, UsageRecord
from tests.gateway.test_reconcile import Seller
from tests.support.books import NOON, HandClock, new_hold

DELIVERED = Outcome(delivered=1)
HALF_FROM_3 = Billing(tiers=(VolumeTier(3, 5_000),))
HALF_OF_ALL_FROM_3 = Billing(tiers=(VolumeTier(3, 5_000),), applies="whole")


async def order(
    ledger: Ledger, listed: int = 1000, *, account: str = "fal", ticket: str = "", pictures: int = 1
) -> str:
    (hold,) = await ledger.hold([new_hold(listed, account=account)])
    if ticket:
        await hold.accept(Ticket(ticket))
    await hold.settle(cost=listed, charge=listed, outcome=DELIVERED, pictures=pictures)
    return hold.attempt_id


async def owed(db: SqliteDatabase, party: str = "fal") -> int:
    return sum(row.posted for row in await db.balances() if (row.book, row.party) == ("cost", party))


async def cost(db: SqliteDatabase, attempt_id: str) -> int:
    row = await db.attempt(attempt_id)
    assert row is not None
    return row.cost


async def test_a_discount_lowers_what_is_owed_from_its_request_on_and_teams_pay_what_they_were_quoted(
    db: SqliteDatabase, ledger: Ledger
) -> None:
    await ledger.set_billing({"fal": HALF_FROM_3})
    orders = [await order(ledger) for _ in range(4)]
    assert [await cost(db, each) for each in orders] == [1000, 1000, 500, 500]
    assert await db.billing_counters("fal") == {"2026-11/requests": 4, "2026-11/listed": 4000, "2026-11/due": 3000}
    assert await owed(db) == 3000
    assert [row.posted for row in await db.balances() if row.book == "charge"] == [4000]


async def test_a_discount_on_the_whole_gives_back_what_was_too_much_with_the_order_that_earns_it(
    db: SqliteDatabase, ledger: Ledger
) -> None:
    await ledger.set_billing({"fal": HALF_OF_ALL_FROM_3})
    orders = [await order(ledger) for _ in range(4)]
    assert [await cost(db, each) for each in orders] == [1000, 1000, -500, 500]
    assert await owed(db) == 2000


async def test_failures_and_what_is_given_back_do_not_count(db: SqliteDatabase, ledger: Ledger) -> None:
    await ledger.set_billing({"fal": HALF_FROM_3})
    (hold,) = await ledger.hold([new_hold(1000)])
    await hold.release(Outcome(error="overloaded"))
    (reserved,) = await ledger.hold([new_hold(1000, reserve=True)])
    await ledger.hold([new_hold(1000, reserve=True, replaces=reserved.attempt_id, attempt_id="att_r")])
    await order(ledger)
    assert (await db.billing_counters("fal"))["2026-11/requests"] == 1


async def test_other_accounts_pay_their_list_price(db: SqliteDatabase, ledger: Ledger) -> None:
    await ledger.set_billing({"fal": Billing(allowances=(Allowance(name="a", images=9),))})
    assert await cost(db, await order(ledger, account="together")) == 1000
    assert await cost(db, await order(ledger)) == 0


async def test_what_was_counted_survives_a_restart_and_another_process(tmp_path: Path, clock: HandClock) -> None:
    first = SqliteDatabase(str(tmp_path / "books.db"), "process")
    ledger = Ledger(first, "own_1", clock)
    await ledger.set_billing({"fal": HALF_FROM_3})
    await order(ledger)
    second = SqliteDatabase(str(tmp_path / "books.db"), "process")
    await order(Ledger(second, "own_2", clock))
    assert await cost(first, await order(ledger)) == 500
    assert await first.audit() == []
    await first.aclose()
    await second.aclose()


async def test_an_order_that_is_closed_again_counts_once(db: SqliteDatabase, ledger: Ledger) -> None:
    await ledger.set_billing({"fal": HALF_FROM_3})
    await order(ledger)
    await order(ledger)
    (hold,) = await ledger.hold([new_hold(1000)])
    closing = Closing(attempt_id=hold.attempt_id, state="settled", at=NOON, cost=1000, charge=1000, pictures=1)
    assert await db.close(closing)
    assert not await db.close(closing)
    assert (await db.billing_counters("fal"))["2026-11/requests"] == 3
    assert await owed(db) == 2500


async def test_a_refused_command_moves_no_counter(db: SqliteDatabase, ledger: Ledger) -> None:
    await ledger.set_billing({"fal": HALF_FROM_3})
    attempt = await order(ledger)
    with pytest.raises(ValueError, match="cannot be settled"):
        await db.close(Closing(attempt_id=attempt, state="settled", at=NOON, cost=-1))
    assert (await db.billing_counters("fal"))["2026-11/requests"] == 1


async def test_a_new_month_begins_at_nothing(db: SqliteDatabase, ledger: Ledger, clock: HandClock) -> None:
    await ledger.set_billing({"fal": HALF_FROM_3})
    for _ in range(3):
        await order(ledger)
    clock.forward(timedelta(days=9).total_seconds() + 43_200)  # midnight, 1 December
    assert await cost(db, await order(ledger)) == 1000
    assert (await db.billing_counters("fal"))["2026-12/requests"] == 1


async def test_credit_pays_and_a_refund_fills_it_again(db: SqliteDatabase, ledger: Ledger) -> None:
    await ledger.set_billing({"fal": Billing(lots=(Lot(name="a", amount=1500),))})
    first, second = await order(ledger), await order(ledger)
    assert (await cost(db, first), await cost(db, second)) == (1000, 1000)
    assert await db.billing_counters("fal") == {
        "credit/a": 1500,
        "2026-11/due": 500,
        "2026-11/requests": 2,
        "2026-11/listed": 2000,
    }
    refund = Correction(book="cost", party="fal", amount=-1000, note="refund", at=NOON, attempt_id=first)
    assert await db.correct(refund)
    assert not await db.correct(refund)
    assert (await db.billing_counters("fal"))["credit/a"] == 500
    assert await owed(db) == 1000


async def test_the_owner_of_weights_is_owed_a_fee_a_month_and_each_picture_beyond_it(
    db: SqliteDatabase, ledger: Ledger
) -> None:
    licence = WeightsLicence(model="flux-schnell", fee=99_000, included=2, overage=7)
    await ledger.set_billing({"fal": Billing(licences=(licence,))})
    await order(ledger)
    assert await owed(db, "licence:flux-schnell") == 99_000
    await order(ledger, pictures=3)
    assert await owed(db, "licence:flux-schnell") == 99_014
    assert await owed(db) == 2000


async def test_what_is_exported_says_list_price_and_what_was_billed(db: SqliteDatabase, ledger: Ledger) -> None:
    await ledger.set_billing({"fal": HALF_OF_ALL_FROM_3})
    for _ in range(3):
        await order(ledger)
    rows = [row_of(cost, {"fal": "fal"}) for cost in await db.posted_costs()]
    assert [(row["ListCost"], row["BilledCost"], row["ChargeCategory"]) for row in rows] == [
        ("0.000001", "0.000001", "Usage"),
        ("0.000001", "0.000001", "Usage"),
        ("-0.000001", "-0.000001", "Adjustment"),
        ("0.000001", "0.0000005", "Usage"),
    ]


async def test_what_the_seller_reports_of_a_lost_order_stands_and_counts(
    db: SqliteDatabase, ledger: Ledger, clock: HandClock
) -> None:
    await ledger.set_billing({"fal": HALF_FROM_3})
    await order(ledger, ticket="a")
    await order(ledger, ticket="b")
    (hold,) = await ledger.hold([new_hold(1000)])
    await hold.accept(Ticket("c"))
    await hold.suspend(Outcome(error="timed_out"))
    clock.forward(60)
    lines = [
        UsageRecord(endpoint="flux/schnell", nano_usd=amount, at=NOON, request_id=request)
        for request, amount in (("a", 1000), ("b", 1000), ("c", 500))
    ]
    period = Period(since=NOON - timedelta(hours=1), settled_before=clock.utc(), now=clock.utc())
    await resolve(db, "fal", Seller(*lines), period)
    assert (await owed(db), (await db.billing_counters("fal"))["2026-11/requests"]) == (2500, 3)


async def test_orders_billed_in_another_order_than_ours_are_mended_by_the_sellers_report(
    db: SqliteDatabase, ledger: Ledger, clock: HandClock
) -> None:
    await ledger.set_billing({"fal": HALF_FROM_3})
    for listed, ticket in ((1000, "a"), (1000, "b"), (4000, "c")):
        await order(ledger, listed, ticket=ticket)
    clock.forward(60)
    lines = [
        UsageRecord(endpoint="flux/schnell", nano_usd=amount, at=NOON, request_id=request)
        for request, amount in (("a", 1000), ("c", 4000), ("b", 500))
    ]
    period = Period(since=NOON - timedelta(hours=1), settled_before=clock.utc(), now=clock.utc())
    assert (await owed(db)) == 4000
    await resolve(db, "fal", Seller(*lines), period)
    assert await owed(db) == 5500


async def test_an_order_believed_refused_that_was_billed_counts_after_all(db: SqliteDatabase, ledger: Ledger) -> None:
    licence = WeightsLicence(model="flux-schnell", overage=7)
    await ledger.set_billing({"fal": Billing(licences=(licence,))})
    (hold,) = await ledger.hold([new_hold(1000)])
    await hold.release(Outcome(error="timed_out"))
    for number, amount in enumerate((900, 50)):
        await db.correct(
            Correction(book="cost", party="fal", amount=amount, note=f"{number}", at=NOON, attempt_id=hold.attempt_id)
        )
    assert await db.billing_counters("fal") == {
        "2026-11/requests": 1,
        "2026-11/listed": 1000,
        "2026-11/due": 950,
        "2026-11/licence/flux-schnell": 1,
    }
    assert await owed(db, "licence:flux-schnell") == 7


async def test_an_order_that_brought_a_rebate_at_its_seller_can_owe_less_than_nothing(
    db: SqliteDatabase, ledger: Ledger, clock: HandClock
) -> None:
    await ledger.set_billing({"fal": HALF_OF_ALL_FROM_3})
    await order(ledger, 4000, ticket="a")
    await order(ledger, 4000, ticket="b")
    (hold,) = await ledger.hold([new_hold(1000)])
    await hold.accept(Ticket("c"))
    await hold.suspend(Outcome(error="timed_out"))
    clock.forward(60)
    lines = [
        UsageRecord(endpoint="flux/schnell", nano_usd=amount, at=NOON, request_id=request)
        for request, amount in (("a", 4000), ("b", 4000), ("c", 500), ("c", -4000))
    ]
    period = Period(since=NOON - timedelta(hours=1), settled_before=clock.utc(), now=clock.utc())
    await resolve(db, "fal", Seller(*lines), period)
    assert (await cost(db, hold.attempt_id), await owed(db)) == (-3500, 4500)


async def test_the_audit_sees_a_counter_that_its_orders_do_not_explain(tmp_path: Path, clock: HandClock) -> None:
    books = SqliteDatabase(str(tmp_path / "books.db"), "process")
    ledger = Ledger(books, "own_1", clock)
    await ledger.set_billing({"fal": HALF_FROM_3})
    await order(ledger)
    books._connection.execute("UPDATE billing_counters SET value = 9 WHERE counter = '2026-11/requests'")
    assert await books.audit() == ["the invoice of fal has counted 9 2026-11/requests, its orders say 1"]
    await books.aclose()
