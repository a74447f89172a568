from __future__ import annotations

from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.money import USD, ceil, half_even
from policies.tariffs import (
    DECIMAL_MEGAPIXEL,
    ComputeSecond,
    FirstMegapixel,
    MachineSecond,
    PerImage,
    PerMegapixel,
    PerRequest,
    PerToken,
    ResolutionTable,
    Rounding,
    RunMegapixel,
    Tariff,
    Unpriced,
    bill,
    describe,
    quote,
)
from providers.contract import ImageRequest, Tokens, Usage

TABLE = ResolutionTable(((512 * 512, 20_000_000), (1024 * 1024, 40_000_000)))
TOKENS = PerToken(5 * USD, 8 * USD, 32 * USD, ((1024, 1024, 1056), (1536, 1024, 1568)), 400, 6500)

prices = st.integers(1, 10**9)
sides = st.integers(1, 4096)
counts = st.integers(1, 10)
step_counts = st.none() | st.integers(1, 100)
megapixels = st.sampled_from([1_048_576, 1_000_000])
roundings: st.SearchStrategy[Rounding] = st.sampled_from(["up", "exact"])
wishes = st.builds(
    ImageRequest,
    width=sides,
    height=sides,
    count=counts,
    steps=step_counts,
    references=st.lists(st.tuples(sides, sides), max_size=4).map(tuple),
)
by_picture = st.one_of(
    st.builds(PerImage, prices, st.integers(0, 10**9)),
    st.builds(PerRequest, prices),
    st.builds(
        PerMegapixel,
        prices,
        megapixels,
        roundings,
        st.none() | st.integers(1, 50),
        st.booleans(),
        st.none() | st.integers(1, 4),
    ),
    st.builds(FirstMegapixel, prices, prices, megapixels, st.booleans(), st.none() | st.integers(1, 4)),
    st.builds(RunMegapixel, prices, prices, prices, megapixels, roundings, st.none() | st.integers(1, 4)),
    st.builds(lambda low, more: ResolutionTable(((262_144, low), (1_048_576, low + more)), low + more), prices, prices),
)
timed = st.builds(MachineSecond, prices) | st.builds(ComputeSecond, prices, st.just("gpu"))
tariffs: st.SearchStrategy[Tariff] = by_picture | timed


@given(by_picture, wishes, step_counts)
def test_what_was_quoted_is_what_is_billed(tariff: Tariff, wish: ImageRequest, default: int | None) -> None:
    quoted = quote(tariff, wish, default_steps=default, revision=7)
    made = Usage(images=(wish.size,) * wish.count, steps=wish.steps, references=wish.references)
    assert quoted.certain
    assert bill(tariff, made, default_steps=default) == quoted.amount
    assert 0 < quoted.amount <= quoted.hold <= quoted.amount + 1 or quoted.amount == 0
    assert quoted.revision == 7


@given(tariffs, sides, sides, counts, st.integers(1, 99), st.integers(0, 10**12))
def test_more_never_costs_less(
    tariff: Tariff, width: int, height: int, count: int, steps: int, machine_ns: int
) -> None:
    request = ImageRequest(width=width, height=height, count=count, steps=steps)
    amount = quote(tariff, request, expected_machine_ns=machine_ns).amount
    assert amount >= 0
    for more in (
        {"width": width + 1},
        {"height": height + 1},
        {"count": count + 1},
        {"steps": steps + 1},
        {"references": ((width, height),)},
    ):
        larger = msgspec.structs.replace(request, **more)
        assert quote(tariff, larger, expected_machine_ns=machine_ns).amount >= amount
    assert quote(tariff, request, expected_machine_ns=machine_ns + 1).amount >= amount


@given(prices, sides, sides, counts, st.integers(1, 60))
def test_an_exact_price_is_rounded_once_half_to_even_and_held_rounded_up(
    price: int, width: int, height: int, count: int, steps: int
) -> None:
    exact = Fraction(price * width * height * count, DECIMAL_MEGAPIXEL) * max(Fraction(1), Fraction(steps, 4))
    quoted = quote(
        PerMegapixel(price, DECIMAL_MEGAPIXEL, "exact", 4),
        ImageRequest(width=width, height=height, count=count, steps=steps),
    )
    assert quoted.amount == half_even(exact)
    assert quoted.hold == ceil(exact)


def test_the_word_of_the_seller_outranks_the_tariff() -> None:
    assert bill(PerImage(30_000_000), Usage(images=((512, 512),), nano_usd=28_500_000)) == 28_500_000
    assert bill(PerImage(30_000_000), Usage(images=((512, 512),), nano_usd=0)) == 0


def test_an_order_that_made_nothing_costs_nothing() -> None:
    by_size = (PerMegapixel(1), TABLE, FirstMegapixel(2, 1), RunMegapixel(3, 2, 1))
    for tariff in (PerImage(1), PerRequest(1), *by_size, TOKENS, ComputeSecond(1, "gpu"), MachineSecond(1)):
        assert bill(tariff, Usage()) == 0


def test_pictures_of_different_sizes_are_billed_each_by_its_own() -> None:
    usage = Usage(images=((512, 512), (1024, 1025)))
    assert bill(PerMegapixel(25_000_000), usage) == 75_000_000
    assert bill(FirstMegapixel(30_000_000, 15_000_000), usage) == 75_000_000


def test_steps_the_request_leaves_open_are_those_the_endpoint_runs_by_itself() -> None:
    tariff = PerMegapixel(4_000_000, DECIMAL_MEGAPIXEL, "exact", default_steps=4)
    request = ImageRequest(width=1000, height=1000)
    assert quote(tariff, request).amount == 4_000_000
    assert quote(tariff, request, default_steps=8).amount == 8_000_000
    assert bill(tariff, Usage(images=((1000, 1000),)), default_steps=8) == 8_000_000


def test_a_size_beyond_the_table_has_no_price() -> None:
    with pytest.raises(Unpriced, match="the table ends at 1,048,576"):
        quote(TABLE, ImageRequest(width=1025, height=1024))
    with pytest.raises(Unpriced):
        bill(TABLE, Usage(images=((512, 512), (2048, 2048))))


def test_machine_time_is_an_estimate_held_at_its_longest() -> None:
    tariff = MachineSecond(340_000_000)
    quoted = quote(tariff, ImageRequest(), expected_machine_ns=6 * 10**9, longest_machine_ns=60 * 10**9)
    assert not quoted.certain
    assert quoted.amount == 566_667  # $0.34 an hour, ten pictures a minute
    assert quoted.hold == 5_666_667
    assert bill(tariff, Usage(machine_ns=3_600 * 10**9)) == 340_000_000
    assert quote(tariff, ImageRequest(), expected_machine_ns=6 * 10**9).hold == 566_667


def test_input_pictures_cost_what_the_tariff_says_of_them() -> None:
    plain = ImageRequest(operation="edit", width=1024, height=1024)
    edit = msgspec.structs.replace(plain, references=((1024, 1024), (1500, 1500)))
    for tariff, without, with_inputs in (
        (PerImage(40), 40, 40),
        (PerImage(40, with_reference=10), 40, 50),
        (PerRequest(100), 100, 100),
        (PerMegapixel(12), 12, 12),
        (PerMegapixel(12, counts_inputs=True), 12, 12 + 12 + 36),
        (PerMegapixel(12, counts_inputs=True, largest_input=2), 12, 12 + 12 + 24),
        (FirstMegapixel(30, 15), 30, 30),
        (FirstMegapixel(30, 15, counts_inputs=True), 30, 30 + 15 + 45),
        (FirstMegapixel(30, 15, counts_inputs=True, largest_input=1), 30, 30 + 15 + 15),
        (RunMegapixel(15, 15, 15), 30, 30 + 15 + 45),
        (RunMegapixel(15, 20, 10, largest_input=2), 35, 35 + 10 + 20),
    ):
        assert quote(tariff, plain).amount == without
        assert quote(tariff, edit).amount == with_inputs


def test_inputs_are_charged_once_per_order_and_the_surcharge_once_per_picture() -> None:
    two = ImageRequest(operation="edit", count=2, references=((1024, 1024),))
    assert quote(PerImage(40, 10), two).amount == 100
    assert quote(PerMegapixel(12, counts_inputs=True), two).amount == 36
    assert quote(RunMegapixel(15, 20, 10), two).amount == 15 + 40 + 10


def test_tokens_are_estimated_before_and_billed_as_reported() -> None:
    wish = ImageRequest(operation="edit", prompt="a hat" * 20, references=((64, 64), (2048, 2048)))
    quoted = quote(TOKENS, wish)
    assert not quoted.certain
    assert quoted.amount == 25 * 5_000 + 2 * 400 * 8_000 + 1056 * 32_000
    assert quoted.hold == 100 * 5_000 + 2 * 6500 * 8_000 + 1056 * 32_000
    used = Tokens(text_in=23, image_in=323, image_out=1056)
    assert bill(TOKENS, Usage(images=((1024, 1024),), tokens=used)) == 23 * 5_000 + 323 * 8_000 + 1056 * 32_000


def test_a_letter_of_several_bytes_may_be_several_tokens() -> None:
    quoted = quote(TOKENS, ImageRequest(prompt="灯台"))
    assert quoted.hold - quoted.amount == (6 - 1) * 5_000


def test_tokens_that_nobody_told_have_no_price() -> None:
    with pytest.raises(Unpriced, match="512x512"):
        quote(TOKENS, ImageRequest(width=512, height=512))
    with pytest.raises(Unpriced, match="did not say"):
        bill(TOKENS, Usage(images=((1024, 1024),)))


def test_seconds_of_hardware_are_billed_by_the_nanosecond() -> None:
    tariff = ComputeSecond(975_000, "gpu-l40s")
    quoted = quote(tariff, ImageRequest(), expected_machine_ns=2 * 10**9, longest_machine_ns=16 * 10**9)
    assert (quoted.amount, quoted.hold, quoted.certain) == (1_950_000, 15_600_000, False)
    assert bill(tariff, Usage(machine_ns=2_345_678_901)) == 2_287_037


@pytest.mark.parametrize(
    ("tariff", "count", "unit"),
    [
        (PerImage(30_000_000), 1, "1 image x $0.03"),
        (PerImage(30_000_000), 3, "3 images x $0.03"),
        (PerMegapixel(25_000_000), 1, "2 MP x $0.025"),
        (PerMegapixel(25_000_000), 4, "4 x 2 MP x $0.025"),
        (PerMegapixel(2_700_000, DECIMAL_MEGAPIXEL, "exact", 4), 1, "2.0736 MP x $0.0027 x 8/4 steps"),
        (ResolutionTable(((4_194_304, 90_000_000),)), 1, "image up to 4,194,304 px = $0.09"),
        (ResolutionTable(((262_144, 20_000_000),), 40_000_000), 2, "2 x 2 started MP = $0.08"),
        (FirstMegapixel(30_000_000, 15_000_000), 1, "(1 MP x $0.03 + 1 MP x $0.015)"),
        (MachineSecond(340_000_000), 1, "about 2.5 s x $0.34/h"),
        (ComputeSecond(975_000, "gpu-l40s"), 1, "about 2.5 s x $0.000975/s"),
        (PerRequest(100_000_000), 3, "1 request x $0.1"),
        (RunMegapixel(15_000_000, 20_000_000, 10_000_000), 1, "1 run x $0.015 + 2 MP x $0.02"),
    ],
)
def test_a_quote_says_what_it_is_charged_by(tariff: Tariff, count: int, unit: str) -> None:
    request = ImageRequest(width=1920, height=1080, count=count, steps=8)
    assert quote(tariff, request, expected_machine_ns=2_500_000_000).unit == unit


@pytest.mark.parametrize(
    ("tariff", "unit"),
    [
        (PerImage(40_000_000, 10_000_000), "1 image x $0.05"),
        (PerMegapixel(12_000_000, counts_inputs=True), "1 MP x $0.012 + 3 input MP x $0.012"),
        (
            FirstMegapixel(30_000_000, 15_000_000, counts_inputs=True),
            "(1 MP x $0.03 + 0 MP x $0.015) + 3 input MP x $0.015",
        ),
        (
            RunMegapixel(15_000_000, 20_000_000, 10_000_000, DECIMAL_MEGAPIXEL, "exact"),
            "1 run x $0.015 + 1.048576 MP x $0.02 + 2.25 input MP x $0.01",
        ),
        (TOKENS, "about 403 tokens in, 1056 out"),
    ],
)
def test_a_quote_says_what_the_inputs_are_charged_by(tariff: Tariff, unit: str) -> None:
    assert quote(tariff, ImageRequest(operation="edit", prompt="add a hat", references=((1500, 1500),))).unit == unit


@pytest.mark.parametrize(
    ("tariff", "words"),
    [
        (PerImage(30_000_000), "$0.03 per image"),
        (PerMegapixel(3_000_000), "$0.003 per megapixel of 1,048,576 px, each image rounded up"),
        (
            PerMegapixel(2_700_000, DECIMAL_MEGAPIXEL, "exact", 4),
            "$0.0027 per megapixel of 1,000,000 px, by the pixel, times steps/4 above 4 steps",
        ),
        (TABLE, "$0.02 up to 262,144 px, $0.04 up to 1,048,576 px per image"),
        (
            ResolutionTable(((262_144, 20_000_000),), 40_000_000),
            "$0.02 up to 262,144 px per image; above, $0.04 per started megapixel of 1,048,576 px",
        ),
        (
            FirstMegapixel(30_000_000, 15_000_000),
            "$0.03 for the first megapixel of 1,048,576 px, $0.015 for each further one, each image rounded up",
        ),
        (MachineSecond(340_000_000), "$0.34 per machine hour, by the nanosecond"),
        (ComputeSecond(975_000, "gpu-l40s"), "$0.000975 per second of gpu-l40s, by the nanosecond"),
        (PerImage(40_000_000, 10_000_000), "$0.04 per image, $0.01 more with an input picture"),
        (PerRequest(100_000_000), "$0.1 per request"),
        (
            PerMegapixel(12_000_000, counts_inputs=True, largest_input=4),
            "$0.012 per megapixel of 1,048,576 px, each image rounded up, input pictures too (none as more than 4 MP)",
        ),
        (
            RunMegapixel(15_000_000, 2 * USD, 1 * USD),
            "$0.015 per run, $2 per megapixel out and $1 per megapixel in, of 1,048,576 px, each image rounded up",
        ),
        (TOKENS, "per million tokens: $5 text in, $8 image in, $32 image out"),
    ],
)
def test_a_tariff_reads_as_a_sentence(tariff: Tariff, words: str) -> None:
    assert describe(tariff) == words


@given(tariffs | st.just(TOKENS))
def test_a_tariff_can_be_stored_and_read_again(tariff: Tariff) -> None:
    stored = msgspec.json.encode(tariff)
    assert msgspec.json.decode(stored, type=Tariff) == tariff
