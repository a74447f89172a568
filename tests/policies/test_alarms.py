"""What is worth telling: hours that cost far more than usual, accounts whose limits stand in the way."""

from __future__ import annotations

from math import exp, sin, tau
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.alarms import KNOWN_DAYS, LEAST_UNUSUAL, TIMES_USUAL, Pressure, unusual_from
from policies.money import USD

HOUR = 500_000
"""An hour like any other."""


def usual(hour: int) -> float:
    """Dollars that follow the day: five times as many at noon as at night."""
    return 3 + 2 * sin(tau * (hour % 24 - 6) / 24)


def months(seed: int, days: int = 28) -> dict[int, int]:
    """Four weeks and a day, which scatter by a third."""
    random = Random(seed)
    hours = range(HOUR - days * 24, HOUR + 24)
    return {hour: round(usual(hour) * exp(random.gauss(0, 0.35)) * USD) for hour in hours}


def alarms(spent: dict[int, int]) -> list[int]:
    past = {hour: amount for hour, amount in spent.items() if hour < HOUR}
    told = []
    for hour in range(HOUR, HOUR + 24):
        limit = unusual_from(past, hour)
        assert limit is not None
        told += [hour] if spent[hour] >= limit else []
        past[hour] = spent[hour]
    return told


def test_two_hundred_usual_days_raise_at_most_two_alarms() -> None:
    assert sum(bool(alarms(months(seed))) for seed in range(200)) <= 2


@pytest.mark.parametrize("at", [3, 12, 20])
def test_ten_times_the_usual_is_told_at_every_time_of_the_day(at: int) -> None:
    hour = next(hour for hour in range(HOUR, HOUR + 24) if hour % 24 == at)
    for seed in range(50):
        spent = months(seed)
        spent[hour] = round(10 * usual(hour) * USD)
        assert hour in alarms(spent)


def test_a_mishap_of_last_week_hardly_moves_what_is_usual() -> None:
    spent = dict.fromkeys(range(HOUR - 28 * 24, HOUR), USD)
    before = unusual_from(spent, HOUR)
    spent[HOUR - 7 * 24] = 1000 * USD
    assert unusual_from(spent, HOUR) == before == TIMES_USUAL * USD


@given(st.integers(0, KNOWN_DAYS * 24 - 1))
def test_nothing_is_unusual_before_a_week_is_known(hours: int) -> None:
    assert unusual_from({HOUR - hours: 1}, HOUR) is None


def test_a_habit_of_cents_is_nobodys_alarm() -> None:
    assert unusual_from({HOUR - 27 * 24: 1}, HOUR) == LEAST_UNUSUAL


@pytest.mark.parametrize(
    ("pressure", "pressed"),
    [
        (Pressure(orders=20, refused=1), True),
        (Pressure(orders=21, refused=1), False),
        (Pressure(orders=19, refused=19), False),
        (Pressure(looks=60, full=30), True),
        (Pressure(looks=60, full=29), False),
        (Pressure(looks=59, full=59), False),
        (Pressure(), False),
    ],
)
def test_an_account_is_pressed_when_its_limits_stand_in_the_way_often_enough(
    pressure: Pressure, *, pressed: bool
) -> None:
    assert pressure.pressed == pressed
