from __future__ import annotations

import pytest

from policies.money import from_usd
from policies.price_jumps import apart
from policies.tariffs import ComputeSecond, MachineSecond, PerImage, PerMegapixel, PerToken, Tariff


def usd(text: str) -> int:
    return from_usd(text)


@pytest.mark.parametrize(
    ("before", "after", "far"),
    [
        (PerImage(usd("0.025")), PerImage(usd("0.075")), False),
        (PerImage(usd("0.025")), PerImage(usd("0.0750001")), True),
        (PerImage(usd("0.075")), PerImage(usd("0.0249999")), True),
        (PerImage(usd("0.025")), PerMegapixel(usd("0.03")), False),
        (PerMegapixel(usd("0.0027"), 1_000_000, "exact"), PerMegapixel(usd("0.27"), 1_000_000, "exact"), True),
        (PerImage(0), PerImage(usd("5")), False),
        (MachineSecond(usd("0.34")), MachineSecond(usd("34")), True),
        (MachineSecond(usd("0.34")), PerImage(usd("5")), False),
        (ComputeSecond(usd("0.001"), "a"), ComputeSecond(usd("0.002"), "b"), False),
        (PerToken(5, 8, usd("32"), ((640, 480, 1000),)), PerToken(5, 8, usd("3200"), ((640, 480, 1000),)), True),
    ],
)
def test_prices_more_than_three_times_apart_are_told_and_others_are_not(
    before: Tariff, after: Tariff, far: bool
) -> None:
    assert apart(before, after) is far
    assert apart(after, before) is far
