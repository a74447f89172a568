"""What pairs add up to; seeded, and without a clock."""

from __future__ import annotations

import random
from math import exp, inf

import pytest
from msgspec.structs import replace

from policies.experiments.definition import Allowance, Arm, Challenger, Decide, Experiment, Measure, terms_of
from policies.experiments.pairs import Pair
from policies.experiments.quantiles import quantile
from policies.experiments.readings import read
from policies.experiments.verdicts import Verdict, judge, risk_of
from tests.support.pairs import CENT, Sellers


def experiment(compare: tuple[Measure, ...] = ("cost", "latency", "failures"), **changes: object) -> Experiment:
    said: dict[str, object] = {
        "name": "one",
        "champion": Arm(provider="fal"),
        "challengers": (Challenger(name="t", account="together"),),
        "budget": Allowance(day=10**12, total=10**13),
        "compare": frozenset(compare),
        "decide": Decide(),
    }
    return Experiment(**{**said, **changes})  # type: ignore[arg-type]  # one table of fields


def judged(pairs: list[Pair], what: Experiment | None = None) -> Verdict:
    (found,) = judge(what or experiment(), pairs)
    return found


def test_a_cheaper_seller_that_is_no_worse_is_switched_to() -> None:
    found = judged(Sellers(1, dearer=0.8).pairs(5_000))
    assert found.verdict == "switch"
    assert found.why == ("cost",)
    cost = found.readings[0]
    assert cost.low < -0.2 < cost.high < 0
    assert found.money is not None
    assert found.money.low < found.money.month < found.money.high < 0


@pytest.mark.parametrize(
    ("worse", "why"),
    [({"dearer": 1.2}, ("cost",)), ({"slower": 1.5}, ("latency",)), ({"dearer": 0.8, "fails": 0.1}, ("failures",))],
)
def test_one_thing_that_is_worse_is_reason_to_stay(worse: dict[str, float], why: tuple[str, ...]) -> None:
    found = judged(Sellers(2, **worse).pairs(2_000))
    assert found.verdict == "stay"
    assert set(why) <= set(found.why)


def test_sellers_that_are_the_same_are_no_reason_to_move() -> None:
    found = judged(Sellers(3).pairs(6_000))
    assert (found.verdict, {each.said for each in found.readings}) == ("stay", {"equivalent"})


def test_nothing_is_said_of_few_pairs_and_of_none() -> None:
    assert judged([]).verdict == "open"
    found = judged(Sellers(4, dearer=0.5).pairs(20))
    assert found.verdict == "open"
    assert {each.said for each in found.readings} == {"undecided"}


def test_failures_that_never_come_are_the_same_once_there_are_pairs_enough() -> None:
    few, many = (judged(Sellers(3).pairs(count), experiment(("failures",))).readings[0] for count in (350, 450))
    assert (few.said, many.said) == ("undecided", "equivalent")


def test_a_seller_that_always_fails_is_not_waited_for() -> None:
    assert judged(Sellers(5, fails=1.0).pairs(40)).verdict == "stay"


def test_a_picture_of_another_size_is_a_failure_of_the_challenger_alone() -> None:
    found = judged([resized(pair) for pair in Sellers(6).pairs(100)])
    assert found.other_sizes == 100
    assert (found.verdict, found.why) == ("stay", ("failures",))


def resized(pair: Pair) -> Pair:
    return replace(pair, challenger_side=replace(pair.challenger_side, width=pair.champion.width + 16))


def test_a_long_tail_is_reason_to_stay_though_the_mean_is_the_same() -> None:
    rng = random.Random(7)
    pairs = [
        replace(pair, challenger_side=replace(pair.challenger_side, latency_s=30.0 if rng.random() < 0.12 else 2.2))
        for pair in Sellers(7, dearer=0.8).pairs(3_000)
    ]
    found = judged(pairs)
    assert (found.verdict, found.tail_is_worse) == ("stay", True)
    assert found.why == ("tail",)


def test_what_traffic_cannot_decide_is_called_so_at_once() -> None:
    rare = [moved(pair, at * 86_400.0) for at, pair in enumerate(Sellers(8).pairs(60))]
    found = judged(rare)
    assert found.verdict == "open"
    assert "failures" in found.hopeless
    assert found.days_left is None


def moved(pair: Pair, at: float) -> Pair:
    return replace(pair, at=at)


def test_days_left_are_told_by_the_pace_of_the_pairs() -> None:
    found = judged([moved(pair, at * 120.0) for at, pair in enumerate(Sellers(9).pairs(200))])
    assert found.verdict == "open"
    slowest = max(found.readings, key=lambda each: each.planned - each.pairs)
    assert found.days_left == pytest.approx((slowest.planned - slowest.pairs) / (slowest.pairs / found.days))


def test_money_that_ends_before_the_plan_makes_a_measure_hopeless() -> None:
    poor = experiment(budget=Allowance(day=CENT, total=200 * CENT))
    assert "failures" in judged(Sellers(10).pairs(150), poor).hopeless


def test_strata_that_disagree_are_named() -> None:
    pairs = Sellers(11, dearer=0.7).pairs(800, stratum="export") + Sellers(12, dearer=1.3).pairs(800, stratum="preview")
    found = judged(pairs)
    assert found.disagree == {"cost": ("export", "preview")}
    assert [(stratum.name, stratum.pairs) for stratum in found.strata] == [("export", 800), ("preview", 800)]


def test_each_stratum_has_a_verdict_and_money_of_its_own() -> None:
    pairs = Sellers(11, dearer=0.7).pairs(1_000, stratum="export") + Sellers(12, dearer=1.3).pairs(
        3_000, stratum="preview"
    )
    (found,) = judge(experiment(("cost",)), pairs, calls_a_day=400.0)
    verdicts = {each.name: each.verdict for each in found.strata}
    assert verdicts == {"preview": "stay", "export": "switch"}
    months = [each.money.month for each in found.strata if each.money is not None]
    calls = [each.money.calls_a_month for each in found.strata if each.money is not None]
    assert found.money is not None
    assert sum(months) == pytest.approx(found.money.month)
    assert calls == pytest.approx([9_000, 3_000])


def test_strata_that_come_later_make_nothing_surer_that_was_said_before() -> None:
    early = Sellers(20, dearer=0.9).pairs(400, stratum="a") + Sellers(21).pairs(400, stratum="b")
    late = [moved(pair, 1e6 + pair.at) for pair in Sellers(22).pairs(400, stratum="c")]
    before, after = (judged(some, experiment(("cost",))).strata for some in (early, early + late))
    known = {each.name: (each.readings[0].low, each.readings[0].high) for each in before}
    assert known.items() <= {each.name: (each.readings[0].low, each.readings[0].high) for each in after}.items()


def test_pairs_from_before_an_experiment_was_changed_under_its_name_do_not_count() -> None:
    before, now = (
        experiment(challengers=(Challenger(name="t", account="together", params={"steps": steps}),)) for steps in (4, 8)
    )
    old = [replace(pair, terms=terms_of(before, before.challengers[0])) for pair in Sellers(23).pairs(100)]
    new = [replace(pair, id=f"new{pair.id}", terms=terms_of(now, now.challengers[0])) for pair in Sellers(24).pairs(60)]
    assert (judged(old + new, now).pairs, judged(old + new, now).set_aside) == (60, 100)
    assert judged(old + new, now).readings == judged(new, now).readings


def test_a_pair_weighs_as_many_calls_as_it_stands_for() -> None:
    common = Sellers(13, dearer=1.2).pairs(500, stratum="preview", share=0.01)
    copied_often = Sellers(14, dearer=0.8).pairs(500, stratum="export", share=1.0)
    cost = judged(common + copied_often, experiment(("cost",))).readings[0]
    assert cost.estimate == pytest.approx(0.2, abs=0.02)


def test_the_error_is_divided_among_all_that_is_looked_at() -> None:
    two = (Challenger(name="t", account="together"), Challenger(name="r", account="replicate"))
    assert risk_of(experiment()) == pytest.approx(0.05 / 4)
    assert risk_of(experiment(("cost",), challengers=two)) == pytest.approx(0.05 / 2)


def test_equal_sellers_looked_at_again_and_again_are_seldom_called_different() -> None:
    runs, wrong = 40, 0
    for seed in range(runs):
        pairs = Sellers(100 + seed).pairs(600)
        looks = [read("latency", pairs[:upto], alpha=0.05, margin=0.1, days=1.0) for upto in range(60, 601, 30)]
        wrong += any(look.low > 0 or look.high < 0 for look in looks)
    assert wrong <= runs * 0.1


def test_the_same_pairs_are_judged_alike_in_any_order() -> None:
    pairs = Sellers(15, dearer=0.9).pairs(400)
    shuffled = list(pairs)
    random.Random(1).shuffle(shuffled)
    assert judged(pairs) == judged(shuffled)


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_the_interval_of_a_quantile_holds_however_often_it_is_looked_at(share: float) -> None:
    rng, runs, missed = random.Random(16), 200, 0
    truth = exp(0.5 * {0.5: 0.0, 0.95: 1.6449}[share])
    for _ in range(runs):
        seen: list[float] = []
        for upto in (50, 100, 200, 400, 800):
            seen += [rng.lognormvariate(0, 0.5) for _ in range(upto - len(seen))]
            found = quantile(sorted(seen), share, 0.1)
            if not found.low <= truth <= found.high:
                missed += 1
                break
    assert missed <= runs * 0.1


def test_a_quantile_of_too_few_has_no_upper_end() -> None:
    found = quantile([1.0] * 20, 0.99, 0.05)
    assert (found.value, found.high) == (1.0, inf)
