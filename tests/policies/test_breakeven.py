from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.money import from_usd
from policies.offline.breakeven import (
    HOURS_PER_MONTH,
    Plan,
    WeightsLicence,
    best_by_the_hour,
    best_split,
    break_even_hour,
    break_even_month,
    effective,
    full_load,
    marginal,
    per_image,
)
from policies.offline.queueing import erlang_c, late, slots_for
from policies.offline.throughput import CARDS, doubt, step_tflop, throughput

HOUR = from_usd("0.34")
LICENCE = WeightsLicence(fee=from_usd("999"), included=100_000, overage=from_usd("0.01"))


def plan(images_per_hour: int = 600, **terms: object) -> Plan:
    return Plan(hour=HOUR, images_per_hour=Fraction(images_per_hour), **terms)  # type: ignore[arg-type]


def test_thirty_four_cents_over_600_pictures_is_00057() -> None:
    assert full_load(HOUR, Fraction(600)) == 566_667
    assert full_load(HOUR, Fraction(183)) == 1_857_923


@pytest.mark.parametrize(
    ("images", "cost"),
    [(219_150, "0.001133333"), (87_660, "0.002833333"), (21_915, "0.011333333"), (4_383, "0.056666667")],
)
def test_an_idle_machine_makes_its_pictures_dear(images: int, cost: str) -> None:
    assert effective(HOUR, HOURS_PER_MONTH, images) == from_usd(cost)  # 50, 20, 5 and 1 % of 600 an hour


def test_nothing_drawn_has_no_price_each() -> None:
    assert effective(HOUR, HOURS_PER_MONTH, 0) is None
    assert per_image(HOUR, 0) is None


def test_a_picture_more_is_free_on_a_machine_that_is_on_and_costs_its_seconds_on_one_paid_by_them() -> None:
    assert marginal(HOUR, Fraction(6), always_on=True) == 0
    assert marginal(HOUR, Fraction(6), always_on=False) == 566_667


@pytest.mark.parametrize(("price", "images"), [("0.025", "68/5"), ("0.0154", "1700/77"), ("0.003", "340/3")])
def test_break_even_an_hour_is_the_price_of_the_hour_over_that_of_a_picture(price: str, images: str) -> None:
    assert break_even_hour(HOUR, from_usd(price)) == Fraction(images)


@pytest.mark.parametrize(
    ("terms", "price", "images"),
    [
        ({}, "0.025", 9_935),  # $248.37 a month over $0.025
        ({}, "0.003", 82_790),
        ({"engineering": from_usd("3000")}, "0.025", 129_935),
        ({"licence": LICENCE}, "0.025", 49_895),  # $1,247.37
        ({"engineering": from_usd("3000"), "utilisation": Fraction(7, 10)}, "0.003", 1_413_950),  # five machines
        ({"licence": WeightsLicence(fee=from_usd("999"), included=100_000, overage=from_usd("0.03"))}, "0.025", 49_895),
        ({}, "0.0005", None),  # below the full-load cost
        ({"licence": WeightsLicence(overage=from_usd("0.03"))}, "0.025", None),
        ({"cold_start": Fraction(1, 60), "starts": 300}, "0.025", 10_003),  # 300 minutes more, $1.70
    ],
)
def test_break_even_a_month_by_hand(terms: dict[str, object], price: str, images: int | None) -> None:
    assert break_even_month(plan(**terms), from_usd(price)) == images  # type: ignore[arg-type]


def test_a_slow_machine_needs_a_second_one_before_it_pays() -> None:
    slow = plan(183, utilisation=Fraction(7, 10), engineering=from_usd("3000"))
    assert break_even_month(slow, from_usd("0.025")) == 139_870  # two machines, $3,496.74
    assert slow.machines(139_870) == 2


@settings(deadline=None)
@given(
    st.integers(min_value=1, max_value=10**9),
    st.integers(min_value=1, max_value=5_000),
    st.integers(min_value=0, max_value=10**13),
    st.integers(min_value=1, max_value=10**8),
)
def test_at_break_even_owning_costs_no_more_and_one_picture_before_it_costs_more(
    hour: int, pace: int, engineering: int, price: int
) -> None:
    owned = Plan(hour=hour, images_per_hour=Fraction(pace), engineering=engineering)
    found = break_even_month(owned, price)
    if found is not None:
        assert owned.month(found) <= price * found
        assert found == 1 or owned.month(found - 1) > price * (found - 1)


@pytest.mark.parametrize(
    ("demand", "machines", "own", "cost"),
    [
        ([100] * 24, 1, 2_400, "8.16"),
        ([0] * 23 + [1000], 0, 0, "25"),
        ([50] * 23 + [500], 1, 1_250, "18.16"),  # 400 bought for $10
        ([], 0, 0, "0"),
    ],
)
def test_the_best_mix_by_hand(demand: list[int], machines: int, own: int, cost: str) -> None:
    found = best_split(plan(100), from_usd("0.025"), demand)
    assert (found.machines, found.own_images, found.cost) == (machines, own, from_usd(cost))


@pytest.mark.parametrize(
    ("demand", "cold_start", "hours", "starts", "cost"),
    [
        ([100, 0, 0, 100], 0, 2, 2, "0.68"),  # off between; a picture bought is $0.025, an hour of them $2.50
        ([100, 0, 0, 100], 2, 4, 1, "2.04"),  # a start costs two hours, so it stays on
        ([100, 0, 0, 100], 7, 4, 1, "3.74"),
        ([10, 10], 1, 0, 0, "0.5"),  # $0.25 an hour to buy, $0.34 to own
        ([150, 20], 0, 3, 2, "1.02"),  # the second machine for an hour, the first for both
        ([], 0, 0, 0, "0"),
    ],
)
def test_machines_by_the_hour_by_hand(demand: list[int], cold_start: int, hours: int, starts: int, cost: str) -> None:
    found = best_by_the_hour(plan(100, cold_start=Fraction(cold_start)), from_usd("0.025"), demand)
    assert (found.machine_hours, found.starts, found.cost) == (hours, starts, from_usd(cost))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(min_value=0, max_value=400), max_size=8), st.integers(min_value=0, max_value=10**8))
def test_machines_by_the_hour_are_switched_as_well_as_can_be(demand: list[int], price: int) -> None:
    owned = plan(1000, cold_start=Fraction(1, 2))
    start = HOUR // 2
    costs = []
    for choice in range(2 ** len(demand)):  # every sequence of on and off, one machine being enough
        on = [bool(choice >> hour & 1) for hour in range(len(demand))]
        begun = sum(now and not before for now, before in zip(on, [False, *on], strict=False))
        bought = sum(images for images, runs in zip(demand, on, strict=True) if not runs)
        costs.append(HOUR * sum(on) + start * begun + price * bought)
    assert best_by_the_hour(owned, price, demand).cost == min(costs)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(min_value=0, max_value=2_000), max_size=48), st.integers(min_value=1, max_value=10**8))
def test_the_best_mix_is_never_dearer_than_buying_and_forgets_no_picture(demand: list[int], price: int) -> None:
    found = best_split(plan(100, engineering=from_usd("3000")), price, demand)
    assert found.cost <= found.bought_only
    assert found.own_images + found.bought_images == sum(demand)


@pytest.mark.parametrize(("side", "tflop"), [(512, 17.7), (1024, 69.5), (2048, 408.8)])
def test_a_step_takes_what_was_counted(side: int, tflop: float) -> None:
    assert float(step_tflop(side, side)) == pytest.approx(tflop, abs=0.05)


def test_an_rtx_4090_cannot_draw_600_dev_pictures_an_hour() -> None:
    able = throughput(1024, 1024, 28, CARDS["rtx-4090"])
    assert (round(able.most), round(able.likely)) == (305, 183)
    assert "at most 305 in bf16" in str(doubt(Fraction(600), able))
    assert "82% of the card's peak" in str(doubt(Fraction(250), able))
    assert doubt(Fraction(183), able) is None


@pytest.mark.parametrize(("slots", "load", "waits"), [(3, 2.0, 4 / 9), (10, 8.0, 0.4092), (1, 0.5, 0.5), (2, 2.0, 1.0)])
def test_erlang_c_agrees_with_its_tables(slots: int, load: float, waits: float) -> None:
    assert erlang_c(slots, load) == pytest.approx(waits, abs=1e-4)


@given(
    st.floats(min_value=0.001, max_value=20),
    st.floats(min_value=0.1, max_value=30),
    st.floats(min_value=0, max_value=20),
    st.floats(min_value=0.5, max_value=0.999),
)
def test_the_slots_for_a_peak_are_enough_and_one_fewer_is_not(
    per_second: float, seconds: float, wait: float, on_time: float
) -> None:
    found = slots_for(per_second, seconds, wait, on_time)
    assert found.load < found.slots
    assert late(found.slots, found.load, seconds, wait) <= 1 - on_time
    fewer = found.slots - 1
    assert fewer <= found.load or late(fewer, found.load, seconds, wait) > 1 - on_time
