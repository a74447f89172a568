from __future__ import annotations

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from policies.policy import Crowding, Fallback
from policies.tariffs import MachineSecond, ResolutionTable
from policies.types import Ask, Capacity, Event, Live, Reason, Rejection, Shed, Submit, Tier, Wait, Worth
from providers.contract import ImageRequest
from tests.support.pasts import ASKS, EVENTS, MARKETS, OFFERS, REASONS, lived
from tests.support.sellers import CENT, POLICY, Town, ask, failed, offer, shipped

SLOTS = Capacity(id="a", slots=2)
RATE = Capacity(id="a/rate", rate=20.0, burst=1)
CHEAP = offer("a:m", 0.28, capacities=("a",))
DEAR = offer("b:m", 134.0)


def chosen(town: Town, wish: Ask | None = None, now: float = 0.0, reason: Reason = "new") -> str:
    move = town.decide(wish or ask(), now, reason).move
    assert isinstance(move, Submit), move
    return move.candidate.offer.id


def reasons(town: Town, wish: Ask, now: float = 0.0, reason: Reason = "new") -> dict[str, str]:
    rejected = town.decide(wish, now, reason).rejected
    return {each.offer: f"{each.code}: {each.reason}" for each in rejected}


def test_the_cheapest_of_equals_draws() -> None:
    assert chosen(Town(offer("a:m", 2), offer("b:m", 1), offer("c:m", 3))) == "b:m"


def test_equal_costs_are_decided_by_name() -> None:
    assert chosen(Town(offer("b:m"), offer("a:m"))) == "a:m"


def test_a_slow_seller_pays_for_each_late_second() -> None:
    slow, quick = offer("a:m", 1.0, typical_s=10.0), offer("b:m", 2.0)
    assert chosen(Town(slow, quick), ask(slo=15.0)) == "a:m"
    assert chosen(Town(slow, quick), ask(slo=1.0)) == "b:m"


def test_time_already_lost_counts_against_the_objective() -> None:
    town = Town(offer("a:m", 1.0, typical_s=6.0), offer("b:m", 1.5))
    assert chosen(town, ask(slo=8.0)) == "a:m"
    assert chosen(town, ask(slo=8.0), now=7.0, reason="failed") == "b:m"


def test_a_seller_that_fails_pays_for_the_risk_before_its_breaker_opens() -> None:
    town = Town(offer("a:m", 1.0), offer("b:m", 1.1))
    assert chosen(town) == "a:m"
    for _ in range(4):
        town.tell("error", "a:m")
    assert chosen(town) == "b:m"


def test_the_last_room_costs_extra() -> None:
    town = Town(offer("a:m", 1.0, capacities=("a",)), offer("b:m", 1.01), capacities=[SLOTS])
    assert chosen(town) == "a:m"
    town.market.busy["a"] = 1
    assert chosen(town) == "b:m"


def test_costs_are_shown_by_scorer_and_add_up() -> None:
    best = Town(CHEAP, capacities=[SLOTS]).decide(ask()).ranked[0]
    assert list(best.costs) == ["price", "latency", "reliability", "load", "slots", "rate", "prepaid", "machine"]
    assert best.costs["price"] == 2_800_000
    assert best.total == sum(best.costs.values())
    assert best.headroom == 2


@pytest.mark.parametrize(("prefer", "winner"), [("value", "a:m"), ("cheapest", "c:m"), ("fastest", "b:m")])
def test_preference_changes_the_ranking(prefer: str, winner: str) -> None:
    sellers = offer("a:m", 1.0), offer("b:m", 2.0, typical_s=0.2), offer("c:m", 0.9, typical_s=20.0)
    assert chosen(Town(*sellers), ask(slo=5.0, prefer=prefer)) == winner


def test_the_callers_own_order_goes_first_and_names_accounts_or_kinds() -> None:
    town = Town(offer("a:m", 1), offer("b:m", 2), offer("c:m", 3, kind="fal"))
    assert chosen(town, ask(order=("fal", "b"))) == "c:m"
    assert [each.offer.id for each in town.decide(ask(order=("fal", "b"))).ranked] == ["c:m", "b:m", "a:m"]


def test_a_machine_is_priced_by_the_time_it_will_probably_take() -> None:
    best = Town(offer("own:m", tariff=MachineSecond(360_000_000_000), typical_s=2.0)).decide(ask()).ranked[0]
    assert best.quote.amount == pytest.approx(200_000_000, rel=1e-3)
    assert best.quote.hold == pytest.approx(8 * 200_000_000, rel=1e-3)
    assert not best.quote.certain


def test_waiting_an_instant_beats_paying_more() -> None:
    """$0.0028 with its rate token back in 50 ms, against $1.34 at once."""
    town = Town(replace(CHEAP, capacities=("a/rate",)), DEAR, capacities=[RATE])
    town.tell("submitted", "a:m")
    decision = town.decide(ask())
    assert isinstance(decision.move, Wait)
    assert decision.move.best is not None
    assert (decision.move.best.offer.id, decision.move.capacity) == ("a:m", "a/rate")
    assert decision.move.best.wait_s == pytest.approx(town.engine.room("a/rate", 0, 0.0))
    assert [each.offer.id for each in decision.ranked] == ["b:m"]
    assert chosen(town, now=decision.move.until, reason="room") == "a:m"


def test_paying_more_beats_a_long_wait() -> None:
    town = Town(replace(CHEAP, typical_s=20.0), offer("b:m", 0.6), capacities=[SLOTS])
    town.market.busy["a"] = 2
    assert chosen(town, ask(slo=60.0)) == "b:m"


def test_a_part_woken_by_room_takes_it_whoever_else_stands_in_line() -> None:
    town = Town(CHEAP, DEAR, capacities=[SLOTS])
    town.market.busy["a"], town.market.line["a"] = 1, 500
    assert chosen(town, reason="room") == "a:m"


def test_a_part_woken_too_late_waits_as_the_head_of_the_line() -> None:
    town = Town(CHEAP, offer("b:m", 1.5), capacities=[SLOTS])
    town.market.busy["a"], town.market.line["a"] = 2, 500
    assert chosen(town) == "b:m"
    assert isinstance(town.decide(ask(), reason="room").move, Wait)


def test_nobody_waits_where_room_comes_after_the_longest_wait_and_another_can_draw() -> None:
    town = Town(CHEAP, DEAR, capacities=[SLOTS])
    town.tell("throttled", "a:m", retry_after=40.0)
    assert chosen(town) == "b:m"


def test_nobody_waits_for_a_picture_that_would_miss_the_deadline() -> None:
    town = Town(replace(CHEAP, typical_s=8.0), DEAR, capacities=[SLOTS])
    town.market.busy["a"] = 2
    assert chosen(town, ask(deadline=9.0)) == "b:m"
    assert isinstance(town.decide(ask(deadline=60.0)).move, Wait)


def test_nobody_waits_for_a_seller_that_fails() -> None:
    town = Town(CHEAP, DEAR, capacities=[SLOTS])
    for _ in range(5):
        town.tell("error", "a:m")
    assert chosen(town) == "b:m"


def test_nobody_waits_merely_for_an_account_that_is_preferred() -> None:
    town = Town(offer("a:m", 2.0, capacities=("a",)), offer("b:m", 1.0), capacities=[SLOTS])
    town.market.busy["a"] = 2
    assert chosen(town, ask(order=("a",))) == "b:m"


def test_the_fastest_counts_its_line() -> None:
    town = Town(offer("a:m", capacities=("a",)), offer("b:m", typical_s=3.0), capacities=[SLOTS])
    assert chosen(town, ask(prefer="fastest")) == "a:m"
    town.market.busy["a"], town.market.line["a"] = 2, 20
    assert chosen(town, ask(prefer="fastest")) == "b:m"


def test_when_all_are_full_the_part_stands_in_line_and_looks_again_within_a_second() -> None:
    town = Town(CHEAP, capacities=[SLOTS])
    town.market.busy["a"] = 2
    move = town.decide(ask()).move
    assert isinstance(move, Wait)
    assert move.capacity == "a"
    assert 0.0 < move.until <= 1.0
    assert reasons(town, ask())["a:m"] == "headroom: a is full; room is expected in 0.5 s"


def test_after_the_longest_wait_the_part_is_given_up_with_a_time_to_come_back() -> None:
    town = Town(CHEAP, capacities=[SLOTS])
    town.market.busy["a"] = 2
    move = town.decide(ask(), now=POLICY.max_wait, reason="wake").move
    assert isinstance(move, Shed)
    assert move.retry_after == pytest.approx(0.5, rel=0.1)
    assert not move.reasons[0].lasting


def test_after_the_deadline_nothing_is_ordered() -> None:
    decision = Town(CHEAP, capacities=[SLOTS]).decide(ask(deadline=10.0), now=10.0, reason="wake")
    assert decision.move == Shed((Rejection(offer="", code="deadline", reason="10 s have passed"),))


def test_what_no_waiting_cures_is_given_up_at_once() -> None:
    move = Town(CHEAP, capacities=[SLOTS]).decide(ask(ceiling=1)).move
    assert isinstance(move, Shed)
    assert (move.retry_after, [each.code for each in move.reasons]) == (None, ["ceiling"])


@pytest.mark.parametrize("capacities", [(), ("a",), ("a/rate",), ("a", "a/rate")])
@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize("retry_after", [0.25, 7.0])
def test_retry_after_is_honoured_exactly(capacities: tuple[str, ...], in_flight: int, retry_after: float) -> None:
    town = Town(replace(CHEAP, capacities=capacities), capacities=[SLOTS, RATE])
    town.tell("submitted", "a:m")
    town.tell("throttled", "a:m", 0.5, retry_after=retry_after, in_flight=in_flight, latency=0.1)
    town.tell("ok", "a:m", 0.6, in_flight=in_flight, latency=0.6)
    until = 0.5 + retry_after
    assert isinstance(town.decide(ask(), until - 0.01).move, Wait)
    assert chosen(town, now=until) == "a:m"


def test_an_account_that_asks_for_a_pause_gets_it_for_all_its_models() -> None:
    town = Town(offer("a:m"), offer("a:n"))
    town.tell("throttled", "a:m", retry_after=7.0)
    assert reasons(town, ask())["a:n"] == "headroom: a asked us to come back in 7.0 s"


def test_panic_failing_sellers_are_asked_when_nobody_else_is_left() -> None:
    town = Town(offer("a:m"), offer("b:m", 2))
    for name in ("a:m", "b:m"):
        for _ in range(5):
            town.tell("error", name)
    decision = town.decide(ask())
    assert isinstance(decision.move, Submit)
    assert [each.offer.id for each in decision.ranked] == ["a:m", "b:m"]
    assert decision.rejected == ()


def test_no_panic_while_another_seller_is_merely_full() -> None:
    town = Town(CHEAP, offer("b:m"), capacities=[SLOTS])
    town.market.busy["a"] = 2
    for _ in range(5):
        town.tell("error", "b:m")
    move = town.decide(ask()).move
    assert isinstance(move, Wait)


def test_panic_takes_no_room_that_is_not_there() -> None:
    town = Town(CHEAP, capacities=[SLOTS])
    town.market.busy["a"] = 2
    for _ in range(5):
        town.tell("error", "a:m")
    move = town.decide(ask()).move
    assert isinstance(move, Wait)
    assert move.capacity == "a"


def test_panic_leaves_a_refused_account_alone_but_asks_the_failing_one() -> None:
    town = Town(offer("a:m"), offer("b:m", 2))
    town.tell("misconfigured", "a:m")
    assert chosen(town) == "b:m"
    for _ in range(5):
        town.tell("error", "b:m")
    assert chosen(town) == "b:m"
    assert reasons(town, ask()) == {
        "a:m": "breaker: a:m is left alone for 60.0 s: the account is refused: check its key and credit"
    }


def test_a_model_that_the_seller_has_retired_is_left_alone_and_named_and_its_account_goes_on() -> None:
    town = Town(offer("a:m"), offer("a:n", 2))
    town.tell("retired", "a:m")
    assert chosen(town) == "a:n"
    assert reasons(town, ask()) == {
        "a:m": (
            "breaker: a:m is left alone for 60.0 s: the seller no longer has this model: `doctor` names what is gone"
        )
    }


def test_failures_of_one_model_leave_the_others_of_its_account_alone() -> None:
    town = Town(offer("a:m"), offer("a:n", 2))
    for _ in range(5):
        town.tell("error", "a:m")
    assert chosen(town) == "a:n"


def test_a_failed_order_is_followed_by_another_elsewhere() -> None:
    town = Town(offer("a:m"), offer("b:m", 2))
    assert chosen(town, ask(failed("a:m", "failed")), reason="failed") == "b:m"


def test_an_order_nobody_took_is_asked_again_after_a_pause_when_nobody_else_is_left() -> None:
    town, wish = Town(offer("a:m")), ask(failed("a:m", "unavailable"))
    move = town.decide(wish, 3.0, "failed").move
    assert isinstance(move, Wait)
    assert (move.until, move.capacity) == (3.5, None)
    assert chosen(town, wish, now=3.5, reason="wake") == "a:m"


def test_an_offer_that_fails_a_part_again_and_again_is_asked_ever_more_rarely() -> None:
    town = Town(offer("a:m"), policy=replace(POLICY, fallback=Fallback(attempts=8)))
    waits = [
        next(now for now in range(120) if isinstance(town.decide(wish, now, "wake").move, Submit))
        for wish in (ask(*[failed("a:m", "unavailable")] * times) for times in range(1, 6))
    ]
    assert waits == [0, 3, 11, 43, 75]


def test_a_pause_does_not_hide_a_longer_wait() -> None:
    town = Town(CHEAP, capacities=[SLOTS])
    town.tell("throttled", "a:m", retry_after=20.0)
    assert reasons(town, ask(failed("a:m", "overloaded")), reason="failed") == {
        "a:m": "headroom: a is full; room is expected in 20.0 s"
    }


@pytest.mark.parametrize(
    ("tried", "said"),
    [
        (("failed", "failed", "failed"), "3 orders failed, as many as the policy allows"),
        (("timed_out", "outcome_unknown"), "too many orders may still be billed: they timed out or broke off"),
        (("content_refused",), "s0:m: content refused, and that is not taken elsewhere"),
    ],
)
def test_no_further_order_follows(tried: tuple[str, ...], said: str) -> None:
    history = [failed(f"s{n}:m", error, elsewhere=error != "content_refused") for n, error in enumerate(tried)]
    move = Town(*(offer(f"s{n}:m") for n in range(5))).decide(ask(*history), reason="failed").move
    assert isinstance(move, Shed)
    assert [each.reason for each in move.reasons] == [said]


@pytest.mark.parametrize("tried", [("failed", "bad_delivery"), ("timed_out",), ("overloaded",) * 9])
def test_another_order_follows(tried: tuple[str, ...]) -> None:
    history = [failed(f"s{n % 2}:m", error) for n, error in enumerate(tried)]
    town = Town(offer("s0:m"), offer("s1:m"), offer("s2:m", 0.5))
    assert chosen(town, ask(*history), reason="failed") == "s2:m"


def test_a_refused_prompt_is_taken_elsewhere_only_where_the_policy_says_so() -> None:
    open_minded = replace(POLICY, fallback=Fallback(refused_elsewhere=True))
    town = Town(offer("a:m"), offer("b:m", 2), policy=open_minded)
    assert chosen(town, ask(failed("a:m", "content_refused", elsewhere=False)), reason="failed") == "b:m"


def test_a_size_the_tariff_has_no_price_for_is_no_offer() -> None:
    table = ResolutionTable(rows=((1_000_000, CENT),))
    assert reasons(Town(offer("a:m", tariff=table)), ask()) == {
        "a:m": "price: a:m: no price for 1,048,576 pixels: the table ends at 1,000,000"
    }


def test_an_account_without_limits_that_is_overloaded_without_a_word_counts_as_failing() -> None:
    town = Town(offer("a:m"), offer("b:m", 2))
    for _ in range(5):
        town.tell("throttled", "a:m")
    assert chosen(town) == "b:m"


def test_a_decision_names_policy_prices_and_reason() -> None:
    decision = Town(CHEAP, capacities=[SLOTS]).decide(ask(), reason="wake")
    assert (decision.policy, decision.prices, decision.reason) == ("test@3", 7, "wake")
    assert decision.ranked[0].quote.revision == 7


def test_an_offer_that_left_the_catalogue_teaches_nothing() -> None:
    town = Town(CHEAP, capacities=[SLOTS])
    town.tell("error", "gone:m")
    assert chosen(town) == "a:m"


def test_a_quote_asked_twice_is_the_same() -> None:
    town = Town(*shipped().offers.values(), capacities=shipped().capacities.values())
    for side in (512, 1024, 2048, 512):
        wish = ask(request=ImageRequest(width=side, height=side), deadline=1e6)
        fresh = Town(*shipped().offers.values(), capacities=shipped().capacities.values())
        assert town.decide(wish) == fresh.decide(wish)


def test_engines_tell_their_state() -> None:
    town = Town(CHEAP, DEAR, capacities=[SLOTS])
    assert repr(town.engine) == "<CostEngine test@3 over 2 offers>"


@settings(max_examples=150, deadline=None)
@given(EVENTS, MARKETS, ASKS, REASONS)
def test_whatever_happened_a_decision_is_sound(
    events: list[Event], busy: dict[str, int], wish: Ask, reason: Reason
) -> None:
    town = lived(events, busy)
    decision = town.decide(wish, 0.0, reason)
    names = [each.offer.id for each in decision.ranked] + [each.offer for each in decision.rejected]
    assert sorted(names) == sorted(each.id for each in OFFERS), "every offer is either ranked or rejected"
    assert all(each.reason for each in decision.rejected)
    if isinstance(decision.move, Submit):
        best = decision.move.candidate
        assert best == decision.ranked[0]
        assert best.headroom > 0
        assert all(town.engine.room(name, busy.get(name, 0), 0.0) == 0.0 for name in best.offer.capacities)
    if isinstance(decision.move, Shed):
        assert not decision.ranked, "nobody is turned away while somebody can draw"


@settings(max_examples=100, deadline=None)
@given(EVENTS, MARKETS, ASKS, REASONS)
def test_the_winner_has_the_least_total(events: list[Event], busy: dict[str, int], wish: Ask, reason: Reason) -> None:
    plain = replace(wish, constraints=replace(wish.constraints, prefer="value", order=()))
    decision = lived(events, busy).decide(plain, 0.0, reason)
    totals = [each.total for each in decision.ranked]
    assert totals == sorted(totals)


@settings(max_examples=60, deadline=None)
@given(EVENTS, MARKETS, ASKS, REASONS)
def test_the_same_past_gives_the_same_decision(
    events: list[Event], busy: dict[str, int], wish: Ask, reason: Reason
) -> None:
    town = lived(events, busy)
    first = town.decide(wish, 0.0, reason)
    assert town.decide(wish, 0.0, reason) == first
    assert lived(events, busy).decide(wish, 0.0, reason) == first


def test_what_misfortune_costs_is_the_callers_to_say() -> None:
    slow, quick = offer("a:m", 1.0, typical_s=10.0), offer("b:m", 2.0)
    patient = replace(ask(slo=1.0), worth=Worth(late_second=1_000, failure=0))
    assert chosen(Town(slow, quick), patient) == "a:m"


def test_a_policy_without_crowding_takes_the_last_room_for_nothing() -> None:
    town = Town(CHEAP, capacities=[SLOTS], policy=replace(POLICY, crowding=Crowding(last_slot=0)))
    town.market.busy["a"] = 1
    assert town.decide(ask()).ranked[0].costs["load"] == 0


def test_fallback_keeps_the_tier_of_the_first_order() -> None:
    town = Town(offer("a:m", tier=Tier.PREVIEW), offer("b:m", 9, tier=Tier.PREVIEW), offer("c:m", 2, tier=Tier.EXPORT))
    move = town.decide(ask(failed("a:m", "failed"), tier=Tier.PREVIEW), reason="failed").move
    assert isinstance(move, Submit)
    assert move.candidate.offer.id == "b:m"


def test_a_preview_that_every_preview_seller_failed_does_not_come_back_as_an_export() -> None:
    town = Town(offer("a:m", tier=Tier.PREVIEW), offer("c:m", 2, tier=Tier.EXPORT))
    move = town.decide(ask(failed("a:m", "failed"), tier=Tier.PREVIEW), reason="failed").move
    assert isinstance(move, Shed)
    assert {reason.code for reason in move.reasons} == {"tried", "tier"}


def test_machines_that_run_anyway_are_chosen_by_what_an_order_adds_and_quoted_whole() -> None:
    hour = MachineSecond(3_600_000_000_000)
    rented, owned = offer("api:m", 0.05), offer("own:m", tariff=hour, typical_s=0.01, counted=0.0)
    best = Town(rented, owned).decide(ask()).ranked[0]
    assert (best.offer.id, best.costs["price"], best.quote.amount) == ("own:m", 0, 10_000_000)
    assert Town(rented, replace(owned, counted=1.0)).decide(ask()).ranked[0].offer.id == "api:m"


def test_seconds_that_are_lost_already_do_not_speak_against_a_second_order() -> None:
    """It hangs; the 27 s it is late by are lost whoever draws, and are worth more than the failure to be feared."""
    town = Town(offer("a:m", 0.3), offer("b:m", 0.3))
    town.tell("submitted", "a:m")
    wish = replace(ask(slo=3.0), worth=Worth(late_second=2_000_000, failure=50_000_000), live=(Live("a:m", "a", 0.0),))
    move = town.decide(wish, 30.0, "wake").move
    assert isinstance(move, Submit)
    assert move.candidate.offer.id == "b:m"
