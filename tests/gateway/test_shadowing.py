"""Copies of live calls: what they bring home, what they may cost, and that nobody notices them."""

from __future__ import annotations

import asyncio
import io
from datetime import UTC, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from PIL import Image

from gateway.app import build
from gateway.features.measuring import measured
from gateway.features.privacy import Eraser
from gateway.money.periods import period_of, zone_of
from gateway.money.reports import report_of
from gateway.requests.call import Caller
from policies.experiments.definition import Allowance, Calls, Challenger, Sample
from policies.experiments.pairs import Pair, Side
from policies.rules import Condition, Rule, Rules
from policies.types import Params
from providers.sandbox import start
from tests.support.town import TIME_SCALE, Town, settings, single_minded
from tests.support.trials import NAME, Trial, experiment, open_trial, revised, trial


async def test_a_copy_of_a_delivered_call_is_drawn_by_the_challenger_and_nobody_is_charged_for_it(
    tmp_path: Path,
) -> None:
    async with trial(tmp_path) as t:
        delivery = await t.asks()
        (pair,) = await t.pairs()
        assert (pair.call_id, pair.challenger) == (delivery.call_id, "together")
        assert (pair.champion.offer, pair.challenger_side.offer) == ("fal:flux-schnell", "together:flux-schnell")
        assert pair.champion.outcome == pair.challenger_side.outcome == "delivered"
        assert (pair.challenger_side.width, pair.challenger_side.height) == (512, 512)
        assert pair.champion.billed == pair.champion.quoted == delivery.charge
        assert pair.challenger_side.billed == pair.challenger_side.quoted > 0
        assert pair.challenger_side.latency_s > 0
        assert await t.charged() == delivery.charge
        assert await t.charged(f"shadow:{NAME}") == 0
        assert await t.spent() == pair.challenger_side.billed
        await t.assert_books_agree()
        now = t.app.clock.utc()
        activity = await t.app.db.activity(now - timedelta(days=1), now + timedelta(days=1), UTC)
        told = report_of(activity, t.app.revision.catalog, period_of("daily", now.date(), zone_of("UTC"), now))
        assert [line.cost for line in told.copies] == [pair.challenger_side.billed]
        assert told.total.cost == sum(t.invoiced().values())
        assert sum(spent.orders for spent in activity.drawn.values()) == 1  # savings and advice know live calls alone


async def test_the_copy_is_asked_for_with_the_same_words_seed_and_size(tmp_path: Path) -> None:
    async with trial(tmp_path) as t:
        delivery = await t.asks(prompt="a very red barn")
        await t.pairs()
        asked = next(each for each in t.sandbox.requests() if each["provider"] == "together")["body"]
        assert asked["prompt"] == "a very red barn"  # type: ignore[index]  # JSON
        assert asked["seed"] == delivery.images[0].asset.seed  # type: ignore[index]
        assert (asked["width"], asked["height"]) == (512, 512)  # type: ignore[index]


async def test_parameters_of_the_challenger_go_out_in_the_sellers_own_words(tmp_path: Path) -> None:
    pinned = Challenger(name="fal-pinned", account="fal", params={"acceleration": "none", "steps": 3})
    async with trial(tmp_path, experiment(pinned)) as t:
        await t.asks()
        await t.pairs()
        bodies = [each["body"] for each in t.sandbox.requests() if isinstance(each["body"], dict) and each["body"]]
        assert [(each.get("acceleration"), each.get("num_inference_steps")) for each in bodies] == [
            (None, 4),
            ("none", 3),
        ]


async def test_a_call_that_forbids_it_is_not_copied_nor_one_that_the_experiment_leaves_alone(tmp_path: Path) -> None:
    never = Sample(share=1.0, never=(Calls(like=Condition(teams=frozenset({"zeta"}))),))
    async with trial(tmp_path, experiment(sample=never)) as t:
        await t.asks(shadow=False)
        await t.asks(caller=Caller(key_id="key_z", team="zeta"))
        last = await t.asks()
        (pair,) = await t.pairs()
        await t.copies_are_over()
        assert [each.call_id for each in await t.pairs()] == [last.call_id] == [pair.call_id]


async def test_a_copy_is_never_copied_and_leaves_no_words_and_no_decisions(tmp_path: Path) -> None:
    async with trial(tmp_path, experiment(Challenger(name="again", account="fal"))) as t:
        await t.asks()
        (pair,) = await t.pairs()
        await t.copies_are_over()
        (copy,) = await t.app.db.shadow_calls([pair.call_id])
        assert len(await t.pairs()) == 1
        assert await t.app.db.recipe(copy) is None
        assert await t.app.db.decisions(copy) == []


@pytest.mark.parametrize(
    ("fault", "outcome", "error"),
    [
        ("500", "failed", "failed"),
        ("black", "blank", "bad_delivery"),
        ("refuse", "refused", "content_refused"),
        ("wrong_size", "failed", "bad_delivery"),
    ],
)
async def test_what_goes_wrong_at_the_challenger_is_the_pairs_news_and_nobody_elses(
    tmp_path: Path, fault: str, outcome: str, error: str
) -> None:
    async with trial(tmp_path) as t:
        t.sandbox.script([{"provider": "together", "do": fault, "when": {"share": 1}}])
        for _ in range(12):  # enough of them would close a breaker
            await t.asks()
            await t.copies_are_over()
        pairs = await t.pairs(12)
        assert {(each.challenger_side.outcome, each.challenger_side.error) for each in pairs} == {(outcome, error)}
        assert {each.champion.outcome for each in pairs} == {"delivered"}
        assert {each.challenger_side.width == 512 for each in pairs} == {False}
        t.sandbox.script([])
        live = await t.app.serve(t.call(only=frozenset({"together"}), models=frozenset({"flux-schnell"})))
        assert live.attempts == 1
        await t.copies_are_over()
        await t.assert_books_agree()


async def test_a_champion_that_fails_makes_a_pair_even_where_another_seller_serves_in_its_place(tmp_path: Path) -> None:
    async with trial(tmp_path) as t:
        t.sandbox.script([{"provider": "fal", "do": "500", "when": {"share": 1}}])
        delivery = await t.app.serve(t.call(models=frozenset({"flux-schnell"}), order=("fal",)))
        assert delivery.offers == ("together:flux-schnell",)
        (pair,) = await t.pairs()
        assert (pair.champion.offer, pair.champion.outcome) == ("fal:flux-schnell", "failed")
        assert pair.challenger_side.outcome == "delivered"


async def test_an_account_that_refuses_copies_gets_none_for_a_while_and_its_live_limits_stay(tmp_path: Path) -> None:
    async with trial(tmp_path) as t:
        before = t.app.engine.room("together/rate", 0, t.app.clock.now())
        t.sandbox.script([{"provider": "together", "do": "429", "when": {"share": 1}}])
        for _ in range(4):
            await t.asks()
            await t.copies_are_over()
        assert await t.app.db.shadow_pairs(NAME) == []
        assert sum((await t.left_out()).values()) == 4
        assert sum(each["provider"] == "together" for each in t.sandbox.requests()) < 4
        assert t.app.engine.room("together/rate", 0, t.app.clock.now()) <= before
        await t.assert_books_agree()


async def test_copies_at_once_never_cost_more_than_the_budget(tmp_path: Path) -> None:
    price = 3_000_000  # what fal asks for half a megapixel and less
    allowance = Allowance(day=2 * price + price // 2, total=100 * price)
    async with trial(tmp_path, experiment(Challenger(name="again", account="fal"), budget=allowance)) as t:
        await asyncio.gather(*(t.asks() for _ in range(5)))
        await t.copies_are_over()
        assert 0 < await t.spent() <= allowance.day
        assert len(await t.pairs()) <= 2
        assert any("budget" in reason for reason in await t.left_out())
        await t.assert_books_agree()


async def test_an_account_with_one_slot_is_left_to_live_calls(tmp_path: Path) -> None:
    async with trial(tmp_path, experiment(Challenger(name="again", account="fal"))) as t:
        terms = t.app.settings
        one = {**terms.accounts, "fal": terms.accounts["fal"].model_copy(update={"concurrency": 1})}
        t.app.adopt(
            *revised(terms.model_copy(update={"accounts": one}), experiment(Challenger(name="again", account="fal")))
        )
        await t.asks()
        await t.copies_are_over()
        assert await t.app.db.shadow_pairs(NAME) == []
        assert list(await t.left_out()) == ["no room to spare (fal:flux-schnell)"]


async def test_both_pictures_are_kept_for_the_pair_and_go_when_the_call_is_erased(tmp_path: Path) -> None:
    async with trial(tmp_path) as t:
        delivery = await t.asks()
        (pair,) = await t.pairs()
        pictures = await t.pictures(pair)
        assert {each.id for each in pictures} == {pair.champion.asset, pair.challenger_side.asset}
        assert all([await t.app.assets.read(each.path) for each in pictures])
        eraser = Eraser(db=t.app.db, assets=t.app.assets, providers=t.app.providers, clock=t.app.clock)
        erased = await eraser.image(delivery.images[0].asset, "a test")
        assert erased.images == 3
        assert [await t.app.assets.read(each.path) for each in pictures] == [None, None]
        (left,) = await t.pairs()
        assert left.champion.asset is left.challenger_side.asset is None


async def test_the_pictures_of_a_pair_are_measured_afterwards(tmp_path: Path) -> None:
    async with trial(tmp_path, experiment(Challenger(name="again", account="fal"))) as t:
        await t.asks()
        (before,) = await t.pairs()
        while await t.app.measuring.some(10):
            pass
        (pair,) = await t.pairs()
        assert before.measures == {}
        assert pair.measures["ssim"] == pytest.approx(1)  # the sandbox draws the same for the same words and seed
        assert pair.measures["score"] == 0
        assert pair.champion.outcome == pair.challenger_side.outcome == "delivered"


def test_a_picture_of_one_colour_was_no_delivery() -> None:
    side = Side(offer="fal:a", account="fal", quoted=1, billed=1, latency_s=1.0)
    pair = Pair(
        id="pair_1",
        experiment="e",
        challenger="c",
        call_id="call_1",
        at=0,
        champion=side,
        challenger_side=side,
        expires=1,
    )
    grey, drawn = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (512, 256), (90, 90, 90)).save(grey, "PNG")
    Image.effect_noise((512, 256), 80).save(drawn, "JPEG")
    told = measured(pair, drawn.getvalue(), grey.getvalue())
    assert (told.champion.outcome, told.challenger_side.outcome) == ("delivered", "blank")
    assert told.measures["score"] < 0


async def test_without_experiments_a_call_is_served_by_the_path_itself(tmp_path: Path) -> None:
    async with trial(tmp_path, experiment()) as t:
        assert not t.app.shadowing.idle
        town = Town(t.app, t.sandbox)
        t.app.shadowing._copyings = ()
        serving = t.app.serve(town.call())
        assert getattr(serving, "__qualname__", "") == "Pipeline.serve"
        await serving


async def test_two_experiments_keep_to_their_own_budgets_also_after_a_restart(tmp_path: Path) -> None:
    price = 3_000_000
    in_all = experiment(Challenger(name="again", account="fal"), budget=Allowance(day=10 * price, total=3 * price + 1))
    a_day = replace(in_all, name="other", budget=Allowance(day=2 * price - 1, total=50 * price))
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        for _ in range(2):
            t = await open_trial(tmp_path, sandbox, in_all, a_day, terms=settings(tmp_path, sandbox.url))
            try:
                await asyncio.gather(*(t.app.serve(t.asked()) for _ in range(8)))
                await t.copies_are_over()
                assert 0 < await t.spent() <= 3 * price
                assert len(await t.app.db.shadow_pairs("other")) <= 1
                await t.assert_books_agree()
            finally:
                await t.app.stop()


async def test_both_sides_are_asked_as_rules_have_their_offers_asked(tmp_path: Path) -> None:
    few = Rule(name="few", params=(Params(offer="fal:flux-schnell", steps=2),))
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        again = experiment(Challenger(name="again", account="fal"))
        terms, plain = revised(settings(tmp_path, sandbox.url), again)
        ruled = replace(plain, policy=replace(plain.policy, rules=Rules([few])))
        app = await build(terms, ruled, engine=single_minded)
        await app.start()
        t = Trial(app, sandbox)
        try:
            await t.asks()
            await t.pairs()
            bodies = [each["body"] for each in sandbox.requests() if isinstance(each["body"], dict) and each["body"]]
            assert [each.get("num_inference_steps") for each in bodies] == [2, 2]
            await t.copies_are_over()
        finally:
            await app.stop()
