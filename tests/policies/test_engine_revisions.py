"""One engine under one revision after another: what is learned goes on, what is written counts at once."""

from __future__ import annotations

from msgspec.structs import replace

from policies.concurrency import RateLimit, SlotLimit
from policies.engine import CostEngine
from policies.policy import BreakerTerms
from policies.tariffs import PerImage
from policies.types import Ask, Capacity, Event, Live, Offer, Shed, Submit
from tests.support.sellers import CENT, POLICY, SQUARE, Market, Town, ask, failed, offer

SLOTS = (Capacity(id="fal", slots=4),)


def town() -> Town:
    return Town(offer("fal:dev", 2.5, capacities=("fal",)), offer("together:dev", 3.0), capacities=SLOTS)


def revised(before: Town, *offers: Offer, capacities: tuple[Capacity, ...] = SLOTS) -> Town:
    """The same town after a change of its catalogue."""
    after = Town(*offers, capacities=capacities)
    after.engine = before.engine.under(POLICY, {each.id: each for each in capacities}, {o.id: o for o in offers})
    after.market.prices = before.market.prices + 1
    return after


def choice(where: Town, wish: Ask | None = None, now: float = 0.0) -> str:
    move = where.decide(wish or ask(), now).move
    assert isinstance(move, Submit), move
    return move.candidate.offer.id


def test_a_call_decides_again_by_the_prices_it_began_under() -> None:
    before = town()
    after = revised(before, offer("fal:dev", 9.0, capacities=("fal",)), offer("together:dev", 3.0))
    assert choice(before) == "fal:dev"
    assert choice(after) == "together:dev"
    move = before.decide(ask()).move
    assert isinstance(move, Submit)
    assert move.candidate.offer.tariff == PerImage(round(2.5 * CENT))


def test_an_offer_that_is_gone_still_serves_the_calls_that_began_with_it() -> None:
    before = town()
    after = revised(before, offer("together:dev", 3.0))
    wish = ask(failed("together:dev", "unreachable"))
    assert choice(before, wish) == "fal:dev"
    live = replace(ask(), live=(Live("fal:dev", "fal", 0.0),))
    assert not isinstance(before.decide(live, 0.5).move, Shed)
    before.tell("ok", "fal:dev", 1.0, latency=1.0)  # and its end is heard of
    after.tell("ok", "fal:dev", 1.0, latency=1.0)


def test_latencies_and_breakers_are_remembered() -> None:
    before = town()
    for second in range(40):
        before.tell("submitted", "fal:dev", float(second))
        before.tell("ok", "fal:dev", second + 6.0, latency=6.0)
    slow = before.engine._sellers["fal:dev"].forecast.p(1.0, 0.5)
    after = revised(before, offer("fal:dev", 2.4, capacities=("fal",)), offer("together:dev", 3.0))
    assert after.engine._sellers["fal:dev"].forecast.p(1.0, 0.5) == slow
    for _ in range(POLICY.breaker.failures):
        before.tell("error", "fal:dev", 50.0)  # an order of the revision before
    assert choice(after, now=50.1) == "together:dev"


def test_seconds_that_were_learned_stay_when_others_are_called_typical() -> None:
    before = town()
    for _ in range(40):
        before.tell("ok", "fal:dev", 1.0, latency=6.0)
    slow = before.engine._sellers["fal:dev"].forecast.expected(1.0)
    after = revised(before, offer("fal:dev", 2.5, capacities=("fal",), typical_s=3.0))
    assert abs(after.engine._sellers["fal:dev"].forecast.expected(1.0) - slow) < 1e-9


def test_a_changed_limit_counts_at_once_and_a_learned_one_stays() -> None:
    before = town()
    assert before.engine.room("fal", 4, 0.0) > 0
    raised = revised(before, *before.market.offers(None), capacities=(Capacity(id="fal", slots=8),))
    assert raised.engine.room("fal", 4, 0.0) == 0
    raised.tell("throttled", "fal:dev", 2.0, in_flight=3)
    assert raised.engine.room("fal", 2, 2.0) > 0
    again = revised(raised, *before.market.offers(None), capacities=(Capacity(id="fal", slots=9),))
    assert again.engine.room("fal", 2, 2.0) > 0


def test_an_account_whose_limit_is_lifted_has_room() -> None:
    before = town()
    assert before.engine.room("fal", 4, 0.0) > 0
    assert revised(before, *before.market.offers(None), capacities=()).engine.room("fal", 4, 0.0) == 0


def test_an_account_may_get_a_rate() -> None:
    before = town()
    both = (*SLOTS, Capacity(id="fal/rate", rate=1.0, burst=1))
    after = revised(before, offer("fal:dev", 2.5, capacities=("fal", "fal/rate")), capacities=both)
    after.tell("submitted", "fal:dev", 10.0)
    assert after.engine.room("fal/rate", 0, 10.1) > 0


def test_a_limit_of_slots_follows_its_contract_unless_it_knows_better() -> None:
    limit = SlotLimit(4)
    limit.reconfigure(10)
    assert limit.value == 10
    limit.refused(6, 1.0, 1.5)
    limit.reconfigure(20)
    assert limit.value == 5
    limit.reconfigure(2)
    assert limit.value == 2


def test_a_rate_follows_its_contract_unless_it_knows_better() -> None:
    limit = RateLimit(10.0, 10)
    limit.reconfigure(20.0, 20)
    assert limit.value == limit.configured == RateLimit(20.0, 20).configured
    limit.refused(1.0, 1.5)
    lowered = limit.value
    limit.reconfigure(40.0, 40)
    assert limit.value == lowered
    limit.reconfigure(0.5, 1)
    assert limit.value == RateLimit(0.5, 1).configured


def test_two_policies_decide_side_by_side_and_learn_together() -> None:
    before = town()
    patient = before.engine.beside(replace(POLICY, name="patient", breaker=BreakerTerms(failures=50)))
    market: Market = before.market
    assert patient.decide(ask(), market, 0.0, "new").policy == "patient@3"
    assert before.decide(ask()).policy == POLICY.label
    for _ in range(POLICY.breaker.failures):
        patient.observe(Event(kind="error", offer="fal:dev", pixels=SQUARE, in_flight=1), 1.0)
    assert choice(before, now=1.1) == "together:dev"  # breakers open as the policy in force says


def test_learned_demand_survives_a_change_of_prices() -> None:
    before = town()
    for second in range(100):
        before.decide(ask(), float(second))
    before.engine.tick(before.market, 100.0)
    before.engine.tick(before.market, 110.0)
    after = revised(before, offer("fal:dev", 2.6, capacities=("fal",)))
    after.decide(ask(), 111.0)
    assert isinstance(after.engine, CostEngine)
    (slate,) = after.engine._slates.kinds.values()
    assert slate.hurried.rate > 0.1


def test_the_engine_that_plans_counts_the_calls_of_the_one_beside_it() -> None:
    before = town()
    beside = before.engine.beside(replace(POLICY, name="other"))
    for second in range(100):
        beside.decide(ask(), before.market, float(second), "new")
    before.engine.tick(before.market, 100.0)
    before.engine.tick(before.market, 110.0)
    (slate,) = before.engine._slates.kinds.values()
    assert slate.hurried.rate > 0.1
