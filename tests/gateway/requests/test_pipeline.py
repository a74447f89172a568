from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from gateway.app import cost_engine
from gateway.cli.show import explained
from gateway.errors import ContentPolicy, DeadlinePassed, NoCapacity, NoOffer, Undeliverable
from gateway.http.decisions import explain
from gateway.requests.journal import decided_again, noted, said
from gateway.revisions import Revision
from policies.types import Decision, Engine, Rejection, Shed, Submit, Tier, Wait
from providers.picture import probe
from providers.transport import Loading
from tests.support.town import ScriptedEngine, single_minded, town

SCHNELL = frozenset({"flux-schnell"})


async def test_a_preview_is_drawn_at_the_cheapest_offer_and_the_books_agree(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        delivery = await t.app.pipeline.serve(t.call())
        assert delivery.offers == ("together:flux-schnell",)
        assert delivery.charge == 707_789  # 512 x 512 / 10^6 MP x $0.0027
        head = probe(delivery.images[0].data)
        assert (head.format, head.width, head.height) == ("png", 512, 512)
        await t.assert_books_agree()


async def test_an_export_earns_a_model_of_the_export_tier(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        delivery = await t.app.pipeline.serve(t.call(width=1024, height=1024, tier=Tier.EXPORT))
        assert delivery.images[0].asset.tier == "export"
        await t.assert_books_agree()


async def test_ten_pictures_are_ten_orders_with_ten_seeds_in_the_asked_order(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        call = t.call(count=10)
        delivery = await t.app.pipeline.serve(call)
        assert [picture.asset.index for picture in delivery.images] == list(range(10))
        assert len({picture.asset.seed for picture in delivery.images}) == 10
        assert [row.state for row in await t.attempts(call) if row.state != "released"] == ["settled"] * 10
        await t.assert_books_agree()


@pytest.mark.parametrize("fault", ["429", "500", "503", "truncate", "black", "wrong_size", "html"])
async def test_a_failing_seller_is_followed_by_another_and_the_team_pays_only_for_what_it_got(
    tmp_path: Path, fault: str
) -> None:
    async with town(tmp_path) as t:
        t.sandbox.script([{"provider": "together", "do": fault, "when": {"share": 1}}])
        delivery = await t.app.pipeline.serve(t.call())
        assert delivery.offers == ("fal:flux-schnell",)
        assert await t.charged() == delivery.charge == 3_000_000
        await t.assert_books_agree()


async def test_a_refusal_is_not_taken_elsewhere_and_costs_nothing(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        with pytest.raises(ContentPolicy):
            await t.app.pipeline.serve(t.call(prompt="UNSAFE-SANDBOX"))
        assert await t.charged() == 0
        await t.assert_books_agree()


async def test_nothing_is_ordered_when_no_offer_can_serve(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        with pytest.raises(NoOffer, match="1032x1032"):
            await t.app.pipeline.serve(t.call(width=1030, height=1030))
        assert t.invoiced() == {}


async def test_all_sellers_failing_is_undeliverable_and_names_the_attempts(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        t.sandbox.script([{"provider": p, "do": "500", "when": {"share": 1}} for p in ("fal", "together")])
        with pytest.raises(Undeliverable) as caught:
            await t.app.pipeline.serve(t.call())
        assert len(caught.value.extra["attempts"]) >= 2  # type: ignore[arg-type]
        await t.assert_books_agree()


def unforgiving(revision: Revision) -> Engine:
    """The engine without second orders, whose breakers stay open for a minute."""
    policy = replace(revision.policy, breaker=replace(revision.policy.breaker, open_for=60.0))
    return single_minded(replace(revision, policy=policy))


async def test_with_every_breaker_open_a_call_is_served_all_the_same_and_the_decision_says_so(tmp_path: Path) -> None:
    async with town(tmp_path, unforgiving) as t:
        t.sandbox.script([{"provider": p, "do": "500", "when": {"share": 1}} for p in ("fal", "together")])
        for _ in range(5):
            with pytest.raises(Undeliverable):
                await t.app.pipeline.serve(t.call(models=SCHNELL))
        t.sandbox.script([])
        call = t.call(models=SCHNELL)
        delivery = await t.app.pipeline.serve(call)
        (row,) = await t.app.db.decisions(call.id)
        story = explain([noted(row.body)], await t.attempts(call))
        assert story.decisions[0].panic
        assert "every offer that could serve kept failing" in explained(story)
        assert await t.charged() == delivery.charge > 0
        await t.assert_books_agree()


async def test_a_deadline_leaves_the_order_to_end_by_itself_and_charges_nothing(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        t.sandbox.script(
            [{"provider": p, "do": "slow", "when": {"share": 1}, "args": {"seconds": 1}} for p in ("fal", "together")]
        )
        with pytest.raises(DeadlinePassed):
            await t.app.pipeline.serve(t.call(deadline=0.15))
        assert await t.charged() == 0
        await t.assert_books_agree()


async def test_sixty_calls_at_once_never_exceed_a_limit(tmp_path: Path) -> None:
    patient = {"timeout": "20s", "least_patience": "20s", "linger": "200ms", "drain": "5s"}
    async with town(tmp_path, orders=patient) as t:
        calls = [t.call(only=frozenset({"fal"}), deadline=60.0) for _ in range(60)]
        await asyncio.gather(*(t.app.pipeline.serve(call) for call in calls))
        assert t.limits_broken("fal") == 0
        await t.assert_books_agree()


def both(decision: Decision, now: float) -> Decision:
    """Order from the best, and ask again at once."""
    return _with(decision, Submit(decision.ranked[0], now))


def second(decision: Decision, now: float) -> Decision:
    """Order from the runner-up."""
    return _with(decision, Submit(decision.ranked[1]))


def wait(decision: Decision, now: float) -> Decision:
    """Wait a moment for the best."""
    return _with(decision, Wait(now + 0.05, None, decision.ranked[0]))


def shed(decision: Decision, now: float) -> Decision:
    """Give up."""
    return _with(decision, Shed(decision.rejected, 7.0))


def _with(decision: Decision, move: Submit | Wait | Shed) -> Decision:
    return msgspec.structs.replace(decision, move=move, reason="new", picture=None)


async def test_a_scripted_hedge_delivers_once_and_books_the_loser(tmp_path: Path) -> None:
    engine = ScriptedEngine([both, second])
    async with town(tmp_path, engine.over) as t:
        delivery = await t.app.pipeline.serve(t.call())
        assert delivery.attempts == 2
        assert engine.reasons == ["new", "wake"]
        assert len(delivery.images) == 1
        await t.settled()
        assert await t.charged() == delivery.charge
        await t.assert_books_agree()


async def test_a_scripted_wait_sets_money_aside_and_then_orders(tmp_path: Path) -> None:
    engine = ScriptedEngine([wait])
    async with town(tmp_path, engine.over) as t:
        delivery = await t.app.pipeline.serve(t.call())
        assert engine.reasons == ["new", "wake"]
        assert delivery.attempts == 1
        await t.assert_books_agree()


async def test_a_scripted_shed_spends_nothing_and_says_when_to_come_back(tmp_path: Path) -> None:
    async with town(tmp_path, ScriptedEngine([shed]).over) as t:
        with pytest.raises((NoCapacity, NoOffer)):
            await t.app.pipeline.serve(t.call())
        assert t.invoiced() == {}
        assert await t.held() == 0


async def test_one_part_shed_sinks_the_call_before_anything_is_spent(tmp_path: Path) -> None:
    async with town(tmp_path, ScriptedEngine([None, shed]).over) as t:
        with pytest.raises((NoCapacity, NoOffer)):
            await t.app.pipeline.serve(t.call(count=3))
        assert t.invoiced() == {}
        assert await t.held() == 0


def too_late(decision: Decision, now: float) -> Decision:
    """Give up because the deadline has passed."""
    return _with(decision, Shed((Rejection(offer="", code="deadline", reason="0.1 s have passed"),)))


async def test_an_engine_that_finds_the_deadline_passed_is_a_timeout_and_not_a_bad_request(tmp_path: Path) -> None:
    async with town(tmp_path, ScriptedEngine([too_late]).over) as t:
        with pytest.raises(DeadlinePassed):
            await t.app.pipeline.serve(t.call())


async def test_sellers_without_room_are_no_capacity_with_a_moment_to_come_back(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        t.sandbox.script([{"provider": "together", "do": "429", "when": {"share": 1}, "args": {"retry_after": 40}}])
        with pytest.raises(NoCapacity) as caught:
            await t.app.pipeline.serve(t.call(only=frozenset({"together"}), models=frozenset({"flux-schnell"})))
        assert caught.value.retry_after is not None
        assert 0 < caught.value.retry_after <= 60
        await t.assert_books_agree()


async def test_a_stored_decision_is_taken_again_and_is_the_same(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        call = t.call()
        await t.app.pipeline.serve(call)
        rows = await t.app.db.decisions(call.id)
        revision = t.app.revision
        for row in rows:
            assert b"lighthouse" not in row.body
            again = decided_again(row.body, revision.policy, revision.catalog.offers)
            assert again is not None
            note, decision = again
            assert (note.move, note.chosen) == said(decision)


async def test_orders_that_waited_for_an_sdk_do_not_all_go_out_at_once(tmp_path: Path) -> None:
    rate = {"rate": 20.0, "burst": 20}
    async with town(tmp_path, engine=cost_engine, sellers=("together",)) as t:
        t.sandbox.script({"rules": [], "limits": {"together": rate}})
        provider = t.app.providers["together"]
        sdk = await provider._sdk.get()  # type: ignore[attr-defined]

        def slowly() -> object:
            time.sleep(1.5)
            return sdk

        provider._sdk = Loading(slowly)  # type: ignore[attr-defined]
        await asyncio.gather(*(t.app.serve(t.call()) for _ in range(40)))
        assert t.limits_broken("together") == 0
        await t.assert_books_agree()
