"""A transparent background where nobody paints one: two orders, one bill, and books that agree whatever fails."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from gateway.app import build
from gateway.errors import BudgetSpent, ContentPolicy, NoOffer, Undeliverable
from gateway.http.decisions import explain
from gateway.ids import new_id
from gateway.requests.call import Call
from gateway.requests.coalescing import Repeat
from gateway.requests.journal import decided_again, noted, said
from gateway.storage.activity import Spent
from policies.types import Decision, Submit, Tier, Wait
from providers.sandbox import Sandbox, start
from tests.gateway.requests.test_recovery import crash
from tests.support.town import TIME_SCALE, ScriptedEngine, Step, Town, settings, single_minded, town

DRAWN = 707_789
"""512 x 512 / 10^6 MP x $0.0027 at together."""
CLEARED = 18_000_000
"""Bria's removal at fal."""


PATIENT = {"timeout": "60s", "least_patience": "40s", "linger": "200ms", "drain": "5s"}
"""On a busy machine no order is given up for another before its time."""


def quiet_town(folder: Path, **changes: Any) -> AbstractAsyncContextManager[Town]:
    return town(folder, **{"orders": PATIENT, **changes})


def clear(t: Town, *, count: int = 1, seed: int | None = None, **constraints: Any) -> Call:
    call = t.call(count=count, seed=seed, **constraints)
    return msgspec.structs.replace(call, request=msgspec.structs.replace(call.request, transparent=True))


async def ordered(sandbox: Sandbox, seller: str) -> None:
    """Wait until an order has reached a seller."""
    for _ in range(2_000):
        if seller in sandbox.stats():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"nothing was ordered from {seller}")


async def test_one_order_draws_the_next_clears_and_the_team_pays_both_once(tmp_path: Path) -> None:
    async with quiet_town(tmp_path) as t:
        call = clear(t, seed=7)
        delivery = await t.app.pipeline.serve(call)
        assert delivery.charge == DRAWN + CLEARED == await t.charged()
        assert delivery.offers == ("together:flux-schnell", "fal:bria-rmbg-2/remove_background")
        asset = delivery.images[0].asset
        assert (asset.model, asset.tier, asset.seed, asset.cost) == ("flux-schnell", "preview", 7, DRAWN + CLEARED)
        with Image.open(io.BytesIO(delivery.images[0].data)) as seen:
            assert (seen.mode, seen.size, seen.getchannel("A").getextrema()[0]) == ("RGBA", (512, 512), 0)
        rows = await t.attempts(call)
        assert [(row.account, row.state, row.charge) for row in rows] == [
            ("together", "settled", 0),
            ("fal", "settled", DRAWN + CLEARED),
        ]
        await t.assert_books_agree()


async def test_several_pictures_are_each_drawn_and_cleared(tmp_path: Path) -> None:
    async with quiet_town(tmp_path) as t:
        delivery = await t.app.pipeline.serve(clear(t, count=3))
        assert [picture.asset.index for picture in delivery.images] == [0, 1, 2]
        assert delivery.charge == 3 * (DRAWN + CLEARED)
        assert delivery.attempts == 6
        await t.assert_books_agree()


async def test_the_story_of_the_call_tells_both_orders(tmp_path: Path) -> None:
    async with quiet_town(tmp_path) as t:
        call = clear(t)
        await t.app.pipeline.serve(call)
        notes = [noted(row.body) for row in await t.app.db.decisions(call.id)]
        assert [(note.operation, note.move) for note in notes] == [
            ("remove_background", "submit"),
            ("generate", "submit"),
            ("remove_background", "submit"),
        ]
        assert explain(notes, await t.attempts(call)).chosen == "together:flux-schnell"


@pytest.mark.parametrize("budget", [DRAWN, CLEARED, DRAWN + CLEARED - 1])
async def test_who_cannot_afford_both_orders_gets_neither(tmp_path: Path, budget: int) -> None:
    async with quiet_town(tmp_path) as t:
        await t.app.db.set_team_budget("acme", budget)
        await t.app.ledger.beat()
        with pytest.raises((BudgetSpent, NoOffer)):
            await t.app.pipeline.serve(clear(t))
        assert t.invoiced() == {}
        await t.assert_books_agree()


async def test_the_budget_for_both_is_enough(tmp_path: Path) -> None:
    async with quiet_town(tmp_path) as t:
        await t.app.db.set_team_budget("acme", DRAWN + CLEARED)
        await t.app.ledger.beat()
        await t.app.pipeline.serve(clear(t))
        await t.assert_books_agree()


async def test_a_ceiling_covers_both_orders(tmp_path: Path) -> None:
    async with quiet_town(tmp_path) as t:
        with pytest.raises(NoOffer):
            await t.app.pipeline.serve(clear(t, ceiling=DRAWN + CLEARED - 1))
        assert t.invoiced() == {}
        await t.app.pipeline.serve(clear(t, ceiling=DRAWN + CLEARED))
        await t.assert_books_agree()


@pytest.mark.parametrize("fault", ["500", "refuse", "black"])
async def test_a_drawing_that_nobody_clears_is_owed_to_its_seller_and_charged_to_nobody(
    tmp_path: Path, fault: str
) -> None:
    async with quiet_town(tmp_path) as t:
        t.sandbox.script([{"provider": "fal", "model": "*bria*", "do": fault, "when": {"share": 1}}])
        with pytest.raises((Undeliverable, ContentPolicy)):
            await t.app.pipeline.serve(clear(t))
        await t.settled()
        assert (await t.costs())["together"] == DRAWN
        assert await t.charged() == 0
        await t.assert_books_agree()


async def test_a_failed_drawing_is_drawn_elsewhere_and_then_cleared(tmp_path: Path) -> None:
    async with quiet_town(tmp_path) as t:
        t.sandbox.script([{"provider": "together", "do": "black", "when": {"share": 1}}])
        delivery = await t.app.pipeline.serve(clear(t))
        assert delivery.charge == await t.charged() == 3_000_000 + CLEARED
        await t.assert_books_agree()


async def test_a_removal_of_unknown_outcome_is_looked_up_and_charged_to_nobody(tmp_path: Path) -> None:
    async with quiet_town(tmp_path) as t:
        t.sandbox.script([{"provider": "fal", "model": "*bria*", "do": "reset", "when": {"share": 1}}])
        with pytest.raises(Undeliverable):
            await t.app.pipeline.serve(clear(t))
        await asyncio.sleep(0.6)  # `recovery.unknown_after`
        await t.app.recovery.sweep()
        assert await t.charged() == 0
        await t.assert_books_agree()


async def test_a_preview_is_cleared_where_that_costs_least_by_the_second_too(tmp_path: Path) -> None:
    async with quiet_town(tmp_path, sellers=("fal", "together", "replicate")) as t:
        delivery = await t.app.pipeline.serve(clear(t))
        assert delivery.offers == ("together:flux-schnell", "replicate:background-remover/remove_background")
        assert DRAWN < delivery.charge == await t.charged() < DRAWN + CLEARED
        await t.assert_books_agree()


async def test_an_export_is_cleared_by_a_model_of_its_tier(tmp_path: Path) -> None:
    async with quiet_town(tmp_path, sellers=("fal", "together", "replicate")) as t:
        call = clear(t, tier=Tier.EXPORT)
        call = msgspec.structs.replace(call, request=msgspec.structs.replace(call.request, width=1024, height=1024))
        delivery = await t.app.pipeline.serve(call)
        assert delivery.offers[-1] == "fal:bria-rmbg-2/remove_background"
        await t.assert_books_agree()


async def test_where_the_allowed_sellers_clear_nothing_nothing_is_ordered_and_the_decision_is_kept(
    tmp_path: Path,
) -> None:
    async with quiet_town(tmp_path) as t:
        call = clear(t, only=frozenset({"together"}))
        with pytest.raises(NoOffer, match="remove the background"):
            await t.app.pipeline.serve(call)
        assert t.invoiced() == {}
        assert len(await t.app.db.decisions(call.id)) == 1


async def test_a_key_that_may_not_use_a_model_that_clears_gets_nothing_drawn(tmp_path: Path) -> None:
    async with quiet_town(tmp_path) as t:
        call = clear(t)
        caller = msgspec.structs.replace(call.caller, models=frozenset({"flux-schnell"}))
        with pytest.raises(NoOffer):
            await t.app.pipeline.serve(msgspec.structs.replace(call, caller=caller))
        assert t.invoiced() == {}


async def test_a_quote_tells_what_both_orders_cost(tmp_path: Path) -> None:
    async with quiet_town(tmp_path) as t:
        call = clear(t, count=2)
        rows = {row.offer: row for row in await t.app.pipeline.quote(call)}
        row = rows["together:flux-schnell"]
        assert (row.feasible, row.then) == (True, "fal:bria-rmbg-2/remove_background")
        assert row.nano_usd == 2 * (DRAWN + CLEARED) == (await t.app.pipeline.serve(call)).charge
        nobody = await t.app.pipeline.quote(clear(t, only=frozenset({"together"})))
        assert not any(row.feasible for row in nobody)


async def test_a_report_counts_one_picture_both_costs_and_no_failure(tmp_path: Path) -> None:
    async with quiet_town(tmp_path) as t:
        await t.app.pipeline.serve(clear(t))
        now = t.app.clock.utc()
        found = await t.app.db.activity(now - timedelta(hours=1), now + timedelta(hours=1), UTC)
        total = Spent()
        for spent in found.posted.values():
            total.add(spent)
        assert (total.cost, total.charge, total.orders, total.images) == (DRAWN + CLEARED, DRAWN + CLEARED, 2, 1)
        assert {(drawn.offer_id, drawn.operation, drawn.images) for drawn in found.drawn} == {
            ("together:flux-schnell", "generate", 1),
            ("fal:bria-rmbg-2/remove_background", "remove_background", 1),
        }
        assert found.failed == {}


async def test_a_caller_who_leaves_between_the_orders_is_charged_nothing(tmp_path: Path) -> None:
    async with quiet_town(tmp_path) as t:
        t.sandbox.script([{"provider": "fal", "do": "slow", "when": {"share": 1}, "args": {"seconds": 0.5}}])
        serving = asyncio.create_task(t.app.pipeline.serve(clear(t)))
        await ordered(t.sandbox, "fal")
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await t.settled()
        assert await t.charged() == 0
        await t.assert_books_agree()


def again(decision: Decision, now: float) -> Decision:
    """Order from the best, and ask again at once."""
    return moved(decision, Submit(decision.ranked[0], now))


def beside(decision: Decision, now: float) -> Decision:
    """Order from the best of those that are not drawing it already."""
    return moved(decision, Submit(decision.ranked[0]))


def later(decision: Decision, now: float) -> Decision:
    """Wait a moment for the best."""
    return moved(decision, Wait(now + 0.05, None, decision.ranked[0]))


def moved(decision: Decision, move: Submit | Wait) -> Decision:
    return msgspec.structs.replace(decision, move=move)


SCRIPTS: Mapping[str, Sequence[Step | None]] = {
    "two orders draw": [None, again, beside],
    "two orders clear": [None, None, again, beside],
    "both wait for room": [later, later, None, later],
    "two draw and two clear": [None, again, beside, again, beside],
}


@pytest.mark.parametrize("name", SCRIPTS)
async def test_whatever_the_engine_says_in_between_the_team_pays_for_one_picture(tmp_path: Path, name: str) -> None:
    engine = ScriptedEngine(SCRIPTS[name])
    async with quiet_town(tmp_path, engine=engine.over, sellers=("fal", "together", "replicate")) as t:
        delivery = await t.app.pipeline.serve(clear(t))
        assert engine.script == []
        await t.settled()
        assert len(delivery.images) == 1
        assert await t.charged() == delivery.charge > 0
        await t.assert_books_agree()


async def test_a_budget_for_one_and_a_half_pictures_draws_one_of_two(tmp_path: Path) -> None:
    async with quiet_town(tmp_path) as t:
        await t.app.db.set_team_budget("acme", (DRAWN + CLEARED) * 3 // 2)
        await t.app.ledger.beat()
        done = await asyncio.gather(*(t.app.pipeline.serve(clear(t)) for _ in range(2)), return_exceptions=True)
        assert sorted(type(each).__name__ for each in done) == ["BudgetSpent", "Delivery"]
        assert await t.charged() == DRAWN + CLEARED
        assert t.invoiced() == {"together": DRAWN, "fal": CLEARED}
        await t.assert_books_agree()


async def test_every_decision_about_both_orders_is_taken_again_the_same(tmp_path: Path) -> None:
    async with quiet_town(tmp_path) as t:
        call = clear(t, count=2)
        await t.app.pipeline.serve(call)
        rows = await t.app.db.decisions(call.id)
        assert len(rows) >= 5
        for row in rows:
            found = decided_again(row.body, t.app.revision.policy, t.app.revision.catalog.offers)
            assert found is not None
            note, decision = found
            assert (note.move, note.chosen) == said(decision)


async def killed(folder: Path, sandbox: Sandbox, changes: dict[str, Any], **terms: Any) -> tuple[Town, Call]:
    """A second gateway on the state of one that died while fal worked, and the call that it died with."""
    first = await build(settings(folder, sandbox.url, **changes), engine=single_minded)
    await first.start()
    call = msgspec.structs.replace(clear(Town(first, sandbox), **terms), fingerprint=b"0123456789abcdef")
    serving = asyncio.create_task(first.coalescing.serve(call, Repeat()))
    await ordered(sandbox, "fal")
    await asyncio.sleep(0.5)  # until its receipt is written
    await crash(first)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    second = await build(settings(folder, sandbox.url, **changes), engine=single_minded)
    await second.start()
    return Town(second, sandbox), call


@pytest.mark.parametrize("returns", [True, False])
@pytest.mark.parametrize("at", ["*bria*", "*flux*"])
async def test_killed_during_either_order_it_is_found_and_charged_only_when_its_caller_returns(
    tmp_path: Path, returns: bool, at: str
) -> None:
    changes: dict[str, Any] = {"orders": {**PATIENT, "regain": "60s" if returns else "100ms"}}
    seller, price = ("fal", 3_000_000) if at == "*flux*" else ("together", DRAWN)
    models = None if at == "*bria*" else frozenset({"flux-schnell"})
    only = None if at == "*bria*" else frozenset({"fal"})
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        slow = {"provider": "fal", "model": at, "do": "slow", "when": {"share": 1}, "args": {"seconds": 1.5}}
        sandbox.script([slow])
        t, call = await killed(tmp_path, sandbox, changes, models=models, only=only)
        if returns:
            repeat = msgspec.structs.replace(call, id=new_id("call"), arrived=t.app.clock.now())
            delivery = (await t.app.coalescing.serve(repeat, Repeat(count=1))).delivery
            assert delivery.charge == price + CLEARED
            assert delivery.images[0].asset.offer_id == f"{seller}:flux-schnell"
        await t.assert_books_agree()
        invoiced = {seller: price}
        if returns or at == "*bria*":
            invoiced["fal"] = invoiced.get("fal", 0) + CLEARED
        assert t.invoiced() == invoiced
        assert await t.charged() == (price + CLEARED if returns else 0)
        await t.app.stop()
