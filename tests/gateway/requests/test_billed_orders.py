"""Orders at sellers that take something off: a whole gateway, and the sandbox's own tabs beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.app import build
from gateway.errors import GatewayError
from gateway.revisions import load_revision
from gateway.settings import Settings
from policies.billing_file import BillingEntry
from providers.sandbox import start
from tests.support.town import TIME_SCALE, Town, settings, single_minded

BILLING: Mapping[str, Mapping[str, object]] = {
    "marginal": {"volume": [{"from_request": 3, "discount": "50%"}], "applies": "marginal"},
    "whole": {"volume": [{"from_request": 3, "discount": "7.25%"}], "applies": "whole"},
    "free": {"free": [{"name": "a", "images": 2, "per": "month"}, {"name": "b", "amount": "$0.004", "per": "once"}]},
    "credit": {"credit": [{"name": "a", "amount": "$0.01"}]},
    "slots": {"credit": [{"name": "a", "amount": "$0.006", "slots": 40}]},
}
CONTRACTS: Mapping[str, Mapping[str, object]] = {
    "marginal": {"off": [[3, "50"]]},
    "whole": {"off": [[3, "7.25"]], "backdated": True},
    "free": {"free": [{"pictures": 2}, {"usd": "0.004", "every": "lifetime"}]},
    "credit": {"prepaid": [{"usd": "0.01"}]},
    "slots": {"prepaid": [{"usd": "0.006"}]},
}


def billed(url: str, folder: Path, terms: str) -> Settings:
    """Settings of a gateway with one account of such terms."""
    accounts = dict(settings(folder, url, ("fal",)).accounts)
    entry = BillingEntry.model_validate(BILLING[terms]) if terms else None
    accounts["fal"] = accounts["fal"].model_copy(update={"billing": entry})
    return settings(folder, url, ("fal",)).model_copy(update={"accounts": accounts})


@asynccontextmanager
async def market(folder: Path, terms: str = "") -> AsyncIterator[Town]:
    """A gateway and a sandbox that know the terms of one account, each in its own words."""
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        sandbox.script({"contracts": {"fal": CONTRACTS[terms]} if terms else {}})
        app = await build(billed(sandbox.url, folder, terms), engine=single_minded)
        await app.start()
        try:
            yield Town(app, sandbox)
        finally:
            await app.stop()


async def draw(t: Town, seed: int) -> int:
    try:
        call = t.call(models=frozenset({"flux-schnell"}), seed=seed)
        return (await t.app.pipeline.serve(call)).charge
    except GatewayError:
        return 0


@pytest.mark.parametrize("terms", list(BILLING))
async def test_the_ledger_equals_an_invoice_that_takes_something_off(tmp_path: Path, terms: str) -> None:
    async with market(tmp_path, terms) as t:
        charges = await asyncio.gather(*(draw(t, seed) for seed in range(6)))
        assert charges == [3_000_000] * 6  # teams pay what they were quoted
        await t.assert_books_agree()
        (quote,) = await t.app.pipeline.quote(t.call(models=frozenset({"flux-schnell"})))
        assert quote.nano_usd == quote.hold_nano_usd == 3_000_000
        before = (await t.costs()).get("fal", 0)
        await draw(t, 99)
        assert (await t.costs()).get("fal", 0) - before == quote.expected_nano_usd
        await t.assert_books_agree()


async def test_faults_and_lost_orders_leave_the_books_of_a_discount_equal(tmp_path: Path) -> None:
    async with market(tmp_path, "whole") as t:
        faults = [
            {"provider": "fal", "when": {"share": 0.3}, "do": "500"},
            {"provider": "fal", "when": {"share": 0.3}, "do": "reset", "args": {"at": "result"}},
            {"provider": "fal", "when": {"share": 0.2}, "do": "black"},
        ]
        t.sandbox.script({"rules": faults})
        await asyncio.gather(*(draw(t, seed) for seed in range(16)))
        await t.settled()
        await asyncio.sleep(0.7)  # until an order of which nothing is heard counts as never billed
        await t.app.recovery.sweep()
        await t.app.recovery.reconcile()
        await t.assert_books_agree()


async def test_a_refund_reaches_the_ledger_and_fills_the_credit_again(tmp_path: Path) -> None:
    async with market(tmp_path, "credit") as t:
        for seed in range(4):
            await draw(t, seed)
        assert (await t.app.db.billing_counters("fal"))["credit/a"] == 10_000_000
        request = str(t.sandbox.invoice()["lines"][0]["request_id"])
        t.sandbox.script({"refunds": {"fal": {request: "0.003"}}})
        await t.app.recovery.reconcile()
        assert (await t.app.db.billing_counters("fal"))["credit/a"] == 7_000_000
        assert (await t.costs())["fal"] == 9_000_000
        await t.assert_books_agree()


async def test_credit_buys_slots_until_it_is_spent(tmp_path: Path) -> None:
    async with market(tmp_path, "slots") as t:
        slots = []
        for seed in range(3):
            slots.append(t.app.regime.catalog.capacities["fal"].slots)
            await draw(t, seed)
            await t.app._look_at_invoices()
        assert slots == [40, 40, 10]
        await t.assert_books_agree()


async def test_a_discount_that_has_begun_weighs_in_the_choice_and_changes_no_price(tmp_path: Path) -> None:
    async with market(tmp_path, "marginal") as t:
        weighed = []
        for seed in range(3):
            offer = t.app.regime.catalog.offers["fal:flux-schnell"]
            weighed.append(offer.counted)
            assert await draw(t, seed) == 3_000_000
            await t.app._look_at_invoices()
        assert weighed == [1.0, 1.0, 0.5]
        assert t.app.regime.catalog.by_model["flux-schnell"][0].counted == 0.5
        await t.assert_books_agree()


async def test_terms_that_change_while_the_gateway_runs_count_from_the_next_order_on(tmp_path: Path) -> None:
    async with market(tmp_path) as t:
        await draw(t, 1)
        t.sandbox.script({"contracts": {"fal": CONTRACTS["free"]}})
        changed = billed(t.sandbox.url, tmp_path, "free")
        t.app.adopt(changed, load_revision(changed))
        await t.settled()
        await draw(t, 2)
        assert (await t.costs())["fal"] == 3_000_000
        await t.assert_books_agree()
