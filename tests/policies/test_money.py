from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import money

amounts = st.integers(-(10**18), 10**18)


@pytest.mark.parametrize(
    ("usd", "nano"),
    [("0.0027", 2_700_000), ("0.34", 340_000_000), ("1", money.USD), ("0.000000001", 1), ("-2", -2 * 10**9)],
)
def test_dollars_become_nano_dollars_exactly(usd: str, nano: int) -> None:
    assert money.from_usd(usd) == nano


def test_an_amount_finer_than_a_nano_dollar_is_refused() -> None:
    with pytest.raises(ValueError, match="finer than a nano-dollar"):
        money.from_usd(Decimal("0.0000000001"))


def test_dollars_are_shown_exactly_and_without_trailing_zeros() -> None:
    assert money.to_usd(2_831_155) == "0.002831155"
    assert money.to_usd(30_000_000) == "0.03"
    assert money.to_usd(5 * money.USD) == "5"
    assert money.to_usd(-1) == "-0.000000001"
    assert money.to_usd(0) == "0"


@given(amounts)
def test_showing_and_reading_again_loses_nothing(nano: int) -> None:
    assert money.from_usd(money.to_usd(nano)) == nano


@pytest.mark.parametrize(
    ("exact", "posted"), [("1/2", 0), ("3/2", 2), ("27/2", 14), ("81/2", 40), ("-1/2", 0), ("4/3", 1)]
)
def test_ties_go_to_the_even_neighbour(exact: str, posted: int) -> None:
    assert money.half_even(Fraction(exact)) == posted


@given(st.fractions(-1_000_000, 1_000_000))
def test_a_hold_is_never_below_what_is_posted(exact: Fraction) -> None:
    assert money.ceil(exact) - 1 < exact <= money.ceil(exact)
    assert money.half_even(exact) <= money.ceil(exact)
