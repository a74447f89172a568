from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from policies.eligibility import (
    exhausted,
    nearest_drawn,
    nearest_feasible,
    nearest_size,
    objection,
    price_objection,
    tried_objection,
)
from policies.policy import Fallback
from policies.tariffs import PerImage, ResolutionTable, quote
from policies.types import Ask, DataTerms, Licence, Live, Offer, Rejection, Requirements, Tier, Tried
from providers.contract import Abilities, ImageRequest, Lora, SizeRule
from tests.support.sellers import CENT, Market, ask, failed, offer, shipped

PLAIN = offer("a:m")
ABLE = Abilities(
    sizes=SizeRule(min_side=256, max_side=1440, multiple=32),
    steps=(1, 50),
    guidance=(0.0, 20.0),
    negative_prompt=True,
    loras=1,
    transparent=True,
)


def drawing(**wishes: object) -> Ask:
    return ask(request=replace(ImageRequest(prompt="a lighthouse"), **wishes))


def requiring(**terms: object) -> Ask:
    return ask(require=replace(Requirements(), **terms))


@pytest.mark.parametrize(
    ("sold", "wish", "said"),
    [
        (PLAIN, ask(models=frozenset({"n"})), "model: m was not asked for"),
        (PLAIN, ask(only=frozenset({"b", "c"})), "provider: a is not among the allowed providers: b, c"),
        (PLAIN, ask(ignore=frozenset({"a"})), "provider: a is to be ignored"),
        (offer("a:m", team="red"), ask(), "team: the account a belongs to another team"),
        (
            offer("a:m", kept_from=frozenset({"red"})),
            replace(ask(), team="red"),
            "team: team red buys m at accounts of its own alone",
        ),
        (PLAIN, drawing(operation="remove_background"), "ability: a:m does not remove background"),
        (offer("a:m", abilities=Abilities(seed=False)), drawing(seed=7), "ability: a:m takes no seed"),
        (PLAIN, drawing(transparent=True), "ability: a:m paints no transparent background"),
        (PLAIN, drawing(negative_prompt="fog"), "ability: a:m takes no negative prompt"),
        (PLAIN, drawing(loras=(Lora("x"),)), "ability: a:m takes no LoRAs, not 1"),
        (offer("a:m", abilities=ABLE), drawing(loras=(Lora("x"), Lora("y"))), "ability: a:m takes 1 LoRAs, not 2"),
        (PLAIN, drawing(steps=4), "ability: a:m takes no steps"),
        (offer("a:m", abilities=ABLE), drawing(steps=51), "ability: a:m takes steps from 1 to 50, not 51"),
        (offer("a:m", abilities=ABLE), drawing(guidance=20.5), "ability: a:m takes guidance from 0 to 20, not 20.5"),
        (
            offer("a:m", abilities=Abilities(operations=("edit",), references=(1, 1), mask=True, needs_mask=True)),
            drawing(operation="edit", references=((64, 64),)),
            "ability: a:m works only under a mask",
        ),
        (
            offer("a:m", abilities=Abilities(operations=("edit",), references=(1, 1), size_dialect="input")),
            drawing(operation="edit", references=((640, 480),)),
            "size: a:m draws as large as its input, 640x480, not 1024x1024",
        ),
        (PLAIN, drawing(width=1030, height=1030), "size: a:m does not draw exactly 1030x1030"),
        (PLAIN, ask(tier=Tier.EXPORT), "tier: m is of tier standard, below export"),
        (
            offer("a:m", licence=Licence(name="non-commercial", commercial=False)),
            requiring(commercial=True),
            "licence: a:m is licensed as non-commercial, not for commercial use",
        ),
        (PLAIN, requiring(region="eu"), "data: a processes data in an unnamed region, not in eu"),
        (
            offer("a:m", data=DataTerms(region="us")),
            requiring(region="eu"),
            "data: a processes data in us, not in eu",
        ),
        (PLAIN, requiring(training="never"), "data: a may train on prompts and pictures"),
    ],
)
def test_what_stands_in_the_way_is_named(sold: Offer, wish: Ask, said: str) -> None:
    found = objection(sold, wish)
    assert found is not None
    assert (f"{found.code}: {found.reason}", found.lasting, found.offer) == (said, True, "a:m")


@pytest.mark.parametrize(
    "wish",
    [
        ask(),
        ask(models=frozenset({"m"}), tier=Tier.EXPORT),
        ask(only=frozenset({"fal"})),
        ask(only=frozenset({"a"}), ignore=frozenset({"b"})),
        drawing(format="webp", seed=7, steps=50, guidance=0.0, loras=(Lora("x"),), negative_prompt="fog"),
        drawing(width=1440, height=256, transparent=True, negative_prompt=""),
        requiring(commercial=True, region="eu", training="never"),
        replace(ask(), team="red"),
    ],
)
def test_an_able_offer_serves(wish: Ask) -> None:
    team = "red" if wish.team else None
    sold = offer("a:m", kind="fal", abilities=ABLE, data=DataTerms(region="eu", trains=False), team=team)
    assert objection(sold, wish) is None


def test_an_offer_is_refused_by_the_first_gate_it_fails() -> None:
    found = objection(PLAIN, replace(drawing(width=1030, steps=3), constraints=ask(tier=Tier.EXPORT).constraints))
    assert found is not None
    assert found.code == "ability"


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"ceiling": CENT}, None),
        ({"ceiling": CENT - 1}, "ceiling: a:m costs $0.01 a picture, above $0.009999999"),
        ({"budget_left": 3 * CENT}, None),
        ({"budget_left": 3 * CENT - 1}, "budget: a:m costs $0.03, and $0.029999999 of the budget is left"),
        ({"budget_left": 0, "ceiling": 0}, "ceiling: a:m costs $0.01 a picture, above $0"),
    ],
)
def test_ceiling_and_budget_are_exact_to_the_nano_dollar(wishes: dict[str, int], said: str | None) -> None:
    wish = ask(request=ImageRequest(count=3), **wishes)
    found = price_objection(PLAIN, wish, quote(PLAIN.tariff, wish.request))
    assert (None if found is None else f"{found.code}: {found.reason}") == said


@pytest.mark.parametrize(
    ("tried", "said"),
    [
        ((), None),
        ((failed("b:m", "failed"),), None),
        ((failed("a:m", "overloaded"),) * 5, None),
        ((failed("a:m", "unavailable"),), None),
        ((failed("a:m", "unavailable"),) * 2, "a:m could not be reached"),
        ((failed("a:m", "bad_delivery"),), "a:m failed: bad delivery"),
        ((failed("a:m", "timed_out"),), "a:m failed: timed out"),
        ((failed("a:m", "overloaded"), failed("a:m", "failed")), "a:m failed: failed"),
    ],
)
def test_an_offer_that_failed_is_not_asked_again_unless_it_was_full_or_out_of_reach(
    tried: tuple[Tried, ...], said: str | None
) -> None:
    found = tried_objection(PLAIN, ask(*tried), Fallback())
    assert (None if found is None else found.reason) == said


def test_an_offer_that_draws_already_is_not_asked_a_second_time() -> None:
    found = tried_objection(PLAIN, replace(ask(), live=(Live("a:m", "a", 0.0),)), Fallback())
    assert found is not None
    assert found.reason == "a:m is drawing this already"


@given(
    st.lists(st.sampled_from(["overloaded", "unavailable", "failed", "timed_out", "outcome_unknown", "bad_delivery"])),
    st.integers(1, 6),
    st.integers(0, 4),
)
def test_orders_and_timeouts_are_counted_and_being_full_is_neither(errors: list[str], attempts: int, late: int) -> None:
    tried = tuple(failed("a:m", error) for error in errors)
    orders = len(errors) - errors.count("overloaded")
    unknown = errors.count("timed_out") + errors.count("outcome_unknown")
    spent = orders >= attempts or unknown > late
    assert (exhausted(tried, Fallback(attempts=attempts, timeouts=late)) is not None) == spent


def near(wish: Ask, *offers: Offer) -> tuple[str, str] | None:
    found = nearest_feasible(wish, Market(offers or shipped().offers.values()))
    return None if found is None else (found[0].id, found[1])


@pytest.mark.parametrize(
    ("width", "height", "nearest"),
    [
        (1030, 1030, ("fal:flux-2-klein-9b", "at 1032x1032")),
        (4096, 4096, ("fal:flux-schnell", "at 2048x2048")),
        (8, 8, ("together:flux-schnell", "at 256x256")),
    ],
)
def test_a_size_nobody_draws_is_answered_with_the_nearest_in_the_same_shape(
    width: int, height: int, nearest: tuple[str, str]
) -> None:
    assert near(drawing(width=width, height=height)) == nearest


def test_a_ceiling_below_all_quotes_is_answered_with_the_cheapest_price_of_one_picture() -> None:
    assert near(ask(ceiling=1), offer("a:m", 2), PLAIN) == ("a:m", "at $0.01 a picture")
    four = offer("a:m", abilities=Abilities(max_count=4))
    assert near(ask(request=ImageRequest(count=4), ceiling=1), four) == ("a:m", "at $0.01 a picture")


def test_a_model_nobody_sells_is_answered_with_the_cheapest_other_of_the_tier() -> None:
    said = "without the wish that blocks it (model)"
    assert near(ask(models=frozenset({"midjourney"}))) == ("together:flux-schnell", said)
    assert near(ask(models=frozenset({"midjourney"}), tier=Tier.EXPORT)) == ("fal:flux-2-pro", said)


def test_one_wish_that_nobody_grants_is_named() -> None:
    assert near(drawing(transparent=True), PLAIN) == ("a:m", "without the wish that blocks it (ability)")
    assert near(ask(only=frozenset({"b"})), PLAIN) == ("a:m", "without the wish that blocks it (provider)")


@pytest.mark.parametrize(
    "wish",
    [
        ask(),
        drawing(width=1030, transparent=True),
        ask(request=ImageRequest(width=1030, height=1030), ceiling=1),
        ask(only=frozenset({"b"}), ceiling=1),
    ],
)
def test_nothing_is_near_where_two_wishes_fail_or_none(wish: Ask) -> None:
    assert near(wish, PLAIN) is None


def test_another_teams_account_is_never_suggested() -> None:
    assert near(ask(), offer("a:m", team="red")) is None


def test_a_size_without_a_price_does_not_hide_the_priced_one_beside_it() -> None:
    table = ResolutionTable(rows=((4_194_304, CENT),))
    assert near(drawing(width=4096, height=4096), offer("a:m", tariff=table)) == ("a:m", "at 2048x2048")
    assert near(drawing(width=4096, height=4096), offer("a:m", tariff=ResolutionTable(rows=((1, CENT),)))) is None


RULES = st.one_of(
    st.builds(
        lambda low, span, multiple, area: SizeRule(
            min_side=low,
            max_side=low + max(span, multiple),
            multiple=multiple,
            max_pixels=None if area is None else (low + multiple) ** 2 + area,
        ),
        st.integers(64, 512),
        st.integers(64, 4096),
        st.sampled_from([1, 8, 16, 32]),
        st.none() | st.integers(0, 4_000_000),
    ),
    st.builds(
        lambda sizes: SizeRule(named=sizes),
        st.dictionaries(st.text(max_size=3), st.tuples(st.integers(64, 4096), st.integers(64, 4096)), min_size=1),
    ),
)


@given(RULES, st.integers(1, 10_000), st.integers(1, 10_000))
def test_a_suggested_size_can_be_drawn(rule: SizeRule, width: int, height: int) -> None:
    sold = offer("a:m", abilities=Abilities(sizes=rule), tariff=PerImage(CENT))
    assert rule.allows(*nearest_size(sold, ImageRequest(width=width, height=height)))


@given(RULES, st.integers(1, 10_000), st.integers(1, 10_000))
def test_a_size_that_can_be_drawn_is_its_own_nearest(rule: SizeRule, width: int, height: int) -> None:
    sold = offer("a:m", abilities=Abilities(sizes=rule))
    drawn = nearest_size(sold, ImageRequest(width=width, height=height))
    assert nearest_size(sold, ImageRequest(width=drawn[0], height=drawn[1])) == drawn


def test_more_pictures_than_an_order_may_hold_are_an_objection() -> None:
    assert objection(offer("a:m"), ask(request=ImageRequest(count=2))) == Rejection(
        offer="a:m", code="ability", reason="a:m draws at most 1 pictures an order, not 2"
    )


def test_a_seller_that_keeps_prompts_longer_than_allowed_may_not_serve() -> None:
    week = Requirements(retention_days=7)
    long, short = DataTerms(retention_days=30), DataTerms(retention_days=1)
    assert objection(offer("a:m", data=short), ask(require=week)) is None
    for terms in (long, DataTerms()):
        refused = objection(offer("a:m", data=terms), ask(require=week))
        assert refused is not None
        assert refused.code == "data"


def test_the_nearest_size_of_an_endpoint_that_is_told_none_is_that_of_its_input() -> None:
    keeps_size = offer("a:m", abilities=Abilities(operations=("edit",), references=(1, 2), size_dialect="input"))
    wish = ImageRequest(operation="edit", references=((640, 480), (64, 64)))
    assert nearest_size(keeps_size, wish) == (640, 480)
    assert objection(keeps_size, ask(request=replace(wish, width=640, height=480))) is None


def test_a_size_left_to_us_is_that_of_the_input_where_anybody_draws_it_else_the_cheapest_of_its_shape() -> None:
    able = Abilities(operations=("edit",), references=(1, 1))
    named = SizeRule(named={"1:1": (1024, 1024), "4:3": (1184, 880)})
    dear = offer("a:m", 9, abilities=replace(able, sizes=SizeRule(min_side=512, max_side=2048, multiple=16)))
    cheap = offer("b:m", 4, abilities=replace(able, sizes=named))
    mute = offer("c:m", 1, abilities=Abilities())

    def left_to_us(width: int, height: int) -> tuple[int, int] | None:
        request = ImageRequest(operation="edit", references=((width, height),), width=width, height=height)
        return nearest_drawn(ask(request=request), [dear, cheap, mute])

    assert left_to_us(640, 512) == (640, 512)
    assert left_to_us(400, 300) == (1184, 880)
    assert left_to_us(1000, 300) == (992, 512)
    request = ImageRequest(operation="edit", references=((64, 64),) * 3)
    assert nearest_drawn(ask(request=request), [dear, cheap, mute]) is None
