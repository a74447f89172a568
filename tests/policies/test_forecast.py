from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.latency_forecast import LatencyForecast, work
from policies.policy import ForecastTerms
from tests.support.sellers import SQUARE

TERMS = ForecastTerms()


def seen(seconds: float, times: int = 200, *, amount: float = 1.0, typical: float = 2.0) -> LatencyForecast:
    forecast = LatencyForecast(typical, TERMS)
    for n in range(times):
        forecast.observe(amount, seconds, float(n))
    return forecast


def test_unseen_the_catalogue_is_believed() -> None:
    forecast = LatencyForecast(2.0, TERMS)
    assert forecast.p(1.0, 0.5) == pytest.approx(2.0, rel=0.05)
    assert 2.5 < forecast.p(1.0, 0.95) < 4.0


@pytest.mark.parametrize(
    ("pixels", "count", "steps", "expected"),
    [
        (SQUARE, 1, None, 1.0),
        (SQUARE, 1, 28, 1.0),
        (SQUARE // 4, 1, None, 0.475),
        (4 * SQUARE, 1, None, 3.1),
        (SQUARE, 5, None, 2.0),
        (SQUARE, 1, 14, 0.6),
        (SQUARE, 1, 56, 1.8),
    ],
)
def test_larger_orders_take_longer(pixels: int, count: int, steps: int | None, expected: float) -> None:
    assert work(pixels, count, steps, default_steps=28) == pytest.approx(expected)


@pytest.mark.parametrize("seconds", [0.5, 1.5, 4.0, 9.0])
def test_it_settles_on_what_is_seen(seconds: float) -> None:
    assert seen(seconds, 400).p(1.0, 0.5) == pytest.approx(seconds, rel=0.15)


def test_one_outlier_hardly_moves_it() -> None:
    forecast = seen(2.0)
    before = forecast.p(1.0, 0.5)
    forecast.observe(1.0, 500.0, 300.0)
    assert forecast.p(1.0, 0.5) == pytest.approx(before, rel=0.05)


def test_large_orders_that_take_longer_than_foreseen_are_learned_for_themselves() -> None:
    forecast = LatencyForecast(2.0, TERMS)
    for n in range(400):
        forecast.observe(1.0, 2.0, float(n))
        forecast.observe(4.0, 16.0, float(n))
    assert forecast.expected(4.0) / forecast.expected(1.0) > 6.0


def test_an_offer_nobody_uses_forgets_that_it_was_slow() -> None:
    forecast = seen(8.0)
    slow, now = forecast.expected(1.0), 200.0
    for _ in range(600):
        now += 1.0
        forecast.forget(1.0, now)
    assert forecast.expected(1.0) < 0.5 * slow


def test_an_offer_in_use_forgets_nothing() -> None:
    forecast = seen(8.0)
    before = forecast.expected(1.0)
    forecast.forget(1.0, 210.0)
    assert forecast.expected(1.0) == before


def test_nothing_can_be_late_that_has_for_ever_and_all_is_that_has_no_time() -> None:
    forecast = LatencyForecast(2.0, TERMS)
    assert forecast.above(2.0, 1e9) == 0.0
    assert forecast.above(2.0, 0.0) == pytest.approx(1.0)
    assert forecast.lateness(2.0, 1e9) == 0.0
    assert forecast.lateness(2.0, -3.0) == pytest.approx(forecast.lateness(2.0, 0.0) + 3.0)


def test_it_tells_what_it_expects() -> None:
    assert repr(LatencyForecast(2.0, TERMS)).startswith("<LatencyForecast p50 2.0")


@given(st.lists(st.tuples(st.floats(0.05, 5.0), st.floats(0.0, 1e4)), max_size=60))
def test_whatever_is_seen_quantiles_rise_and_lateness_falls_with_slack(orders: list[tuple[float, float]]) -> None:
    forecast = LatencyForecast(2.0, ForecastTerms(memory=100))
    for n, (amount, seconds) in enumerate(orders):
        forecast.observe(amount, seconds, float(n))
    quantiles = [forecast.p(1.0, q) for q in (0.01, 0.5, 0.9, 0.95, 0.99)]
    assert quantiles == sorted(quantiles)
    assert quantiles[0] > 0.0
    late = [forecast.lateness(2.0, slack) for slack in (-5.0, 0.0, 1.0, 2.0, 5.0, 60.0)]
    assert late == sorted(late, reverse=True)
    assert late[-1] >= -1e-9


def test_a_seller_that_becomes_slow_at_once_is_believed_after_a_few_orders() -> None:
    forecast = seen(2.0)
    for n in range(30):
        forecast.observe(1.0, 6.0, 200.0 + n)
    assert forecast.expected(1.0) == pytest.approx(6.0, rel=0.1)


def test_surprises_on_both_sides_leave_the_forecast_where_it_is() -> None:
    forecast = seen(2.0)
    for n in range(100):
        forecast.observe(1.0, 2.0 * 1.5 ** (-1) ** n, 200.0 + n)
    assert forecast.expected(1.0) == pytest.approx(2.0, rel=0.05)
