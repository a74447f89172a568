from msgspec.structs import replace

from policies.experiments.constancy import Draw, changes, reproducible, unlike

SAME = Draw(
    id="d",
    at=0,
    offer="fal:m",
    prompt="p",
    quoted=100,
    billed=100,
    latency_s=1.0,
    width=512,
    height=512,
    print="f" * 16,
)
KNOWN = [SAME, SAME, SAME]


def what(before: list[Draw], draw: Draw) -> list[str]:
    return [each.what for each in changes(before, draw)]


def test_the_same_again_is_no_news() -> None:
    assert what([], SAME) == what(KNOWN, SAME) == what(KNOWN * 9, SAME) == []


def test_another_picture_for_the_same_seed_is_told() -> None:
    assert what(KNOWN, replace(SAME, print="0f" * 8)) == ["pixels"]


def test_what_was_told_once_is_how_the_offer_is_from_then_on() -> None:
    other = replace(SAME, print="0f" * 8)
    told = replace(other, changed=("pixels",))
    assert what([*KNOWN, told], other) == []
    assert what([*KNOWN, told, other, other], SAME) == ["pixels"]


def test_pixels_of_an_offer_that_never_draws_the_same_are_left_alone() -> None:
    moody = [SAME, replace(SAME, print="0" * 16), replace(SAME, print="0f" * 8)]
    assert not reproducible(moody)
    assert what(moody, replace(SAME, print="f0" * 8)) == []


def test_another_size_and_another_bill_are_told() -> None:
    assert what(KNOWN, replace(SAME, width=1024, billed=200)) == ["size", "billed"]
    assert what(KNOWN, replace(SAME, error="bad_delivery", width=256, height=256, print="")) == ["size"]


def test_a_bill_that_follows_our_own_price_or_the_clock_is_no_news() -> None:
    assert what(KNOWN, replace(SAME, quoted=200, billed=200)) == []
    by_time = [replace(SAME, billed=each) for each in (90, 100, 110)]
    assert what(by_time, replace(SAME, billed=130)) == []


def test_slowness_is_told_once_it_lasts() -> None:
    slow = replace(SAME, latency_s=3.0)
    assert what([SAME] * 9, slow) == []
    assert what([SAME] * 9 + [slow] * 2, slow) == ["latency"]


def test_an_offer_that_is_suddenly_quick_is_told_as_well() -> None:
    quick = replace(SAME, latency_s=0.4)
    assert what([SAME] * 9 + [quick] * 2, quick) == ["latency"]


def test_a_model_that_was_exchanged_while_its_offer_failed_is_told() -> None:
    failed = replace(SAME, error="failed", width=0, height=0, print="")
    outage = [*KNOWN, failed, failed, replace(failed, changed=("failing",)), failed]
    assert what(outage, failed) == []
    assert what(outage, SAME) == []
    assert what(outage, replace(SAME, print="0f" * 8)) == ["pixels"]


def test_bills_are_watched_after_our_own_price_has_changed_too() -> None:
    dearer = replace(SAME, quoted=200, billed=200)
    assert what([*KNOWN, dearer], replace(dearer, billed=250)) == ["billed"]
    assert what([*KNOWN, dearer], dearer) == []


def test_failures_are_told_from_the_third_in_a_row() -> None:
    failed = replace(SAME, error="failed", width=0, height=0, print="")
    assert what(KNOWN, failed) == what([*KNOWN, failed], failed) == []
    assert what([*KNOWN, failed, failed], failed) == ["failing"]
    assert what([failed, failed], failed) == []  # it never drew anything


def test_hashes_differ_by_the_share_of_their_bits() -> None:
    assert unlike("ff", "ff") == 0
    assert unlike("ff", "0f") == 0.5
