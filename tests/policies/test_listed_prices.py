"""What a seller's list says, put into our tariffs and into the book."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.revisions import load_revision
from gateway.settings import Settings
from policies.listed_prices import Synced, repriced, synced_over, unit_price
from policies.price_book import PriceRow, in_force, misplaced
from policies.tariffs import (
    FirstMegapixel,
    MachineSecond,
    PerImage,
    PerMegapixel,
    ResolutionTable,
    RunMegapixel,
    Tariff,
    bill,
)
from providers.contract import Usage
from providers.sandbox.invoice import PUBLISHED

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def synced(price: int, instead_of: int, since: datetime = NOW) -> Synced:
    return Synced(unit_price=price, instead_of=instead_of, since=since, source="list", checked_on="2026-11-26")


def price_at(book: tuple[PriceRow, ...], at: datetime) -> int | None:
    row = in_force(book, at)
    return None if row is None else unit_price(row.tariff)


def test_every_price_of_fal_is_held_against_the_number_that_fal_lists() -> None:
    revision = load_revision(Settings.model_validate({"accounts": {"fal": {"kind": "fal", "key": "k"}}}))
    for offer in revision.catalog.offers.values():
        assert unit_price(offer.tariff) == PUBLISHED["fal", offer.endpoint].usd * 1_000_000_000, offer.id


TARIFFS = (
    PerImage(40_000_000, 10_000_000),
    PerMegapixel(25_000_000),
    ResolutionTable(((262_144, 20_000_000), (589_824, 30_000_000), (1_048_576, 40_000_000)), 40_000_000),
    FirstMegapixel(30_000_000, 15_000_000),
    RunMegapixel(15_000_000, 15_000_000, 15_000_000),
)


@pytest.mark.parametrize("tariff", TARIFFS, ids=lambda tariff: type(tariff).__name__)
@given(times=st.integers(1, 50))
def test_a_list_that_is_so_many_times_dearer_makes_every_order_so_many_times_dearer(tariff: Tariff, times: int) -> None:
    price = unit_price(tariff)
    assert price is not None
    dearer = repriced(tariff, price * times)
    for images in (((512, 512),), ((1024, 1024),), ((2048, 1024), (640, 480))):
        usage = Usage(images=images, references=((1024, 1024),))
        assert bill(dearer, usage) == times * bill(tariff, usage)
    assert repriced(dearer, price) == tariff


def test_machines_of_our_own_are_on_no_list() -> None:
    assert unit_price(MachineSecond(340_000_000)) is None
    with pytest.raises(ValueError, match="no list names"):
        repriced(MachineSecond(340_000_000), 1)


def test_a_synced_price_holds_from_its_moment_until_the_next_and_until_the_catalogues_own_change() -> None:
    announced = NOW + 10 * DAY
    listed = (
        PriceRow(tariff=PerMegapixel(25), until=announced, checked_on="2026-11-01"),
        PriceRow(tariff=PerMegapixel(40), since=announced, checked_on="2026-11-01"),
    )
    book = synced_over(listed, [synced(26, 25), synced(27, 25, NOW + DAY)])
    moments = (NOW - DAY, NOW, NOW + DAY, announced)
    assert [price_at(book, at) for at in moments] == [25, 26, 27, 40]


def test_a_catalogue_that_was_edited_since_has_the_last_word() -> None:
    edited = (PriceRow(tariff=PerMegapixel(28), checked_on="2026-11-27"),)
    assert synced_over(edited, [synced(26, 25)]) == edited


@st.composite
def books(draw: st.DrawFn) -> tuple[PriceRow, ...]:
    """A catalogue's rows in the order of time, some with gaps between them."""
    edges = sorted(draw(st.sets(st.integers(0, 20), max_size=5)))
    rows: list[PriceRow] = []
    for since, until in zip((None, *edges), (*edges, None), strict=True):
        if draw(st.booleans()) or not edges:
            rows.append(
                PriceRow(
                    tariff=PerMegapixel(draw(st.integers(1, 3))),
                    since=None if since is None else NOW + since * DAY,
                    until=None if until is None else NOW + until * DAY,
                    checked_on="2026-11-01",
                )
            )
    return tuple(rows)


@given(books(), st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9), st.integers(1, 3)), max_size=5))
def test_at_every_moment_the_last_synced_price_holds_while_the_catalogue_says_what_it_stood_for(
    listed: tuple[PriceRow, ...], changes: list[tuple[int, int, int]]
) -> None:
    rows = [synced(price, base, NOW + day * DAY) for day, price, base in sorted(changes)]
    book = synced_over(listed, rows)
    assert list(misplaced(book)) == []
    for half_days in range(-1, 43):
        at = NOW + half_days * DAY / 2
        said = in_force(listed, at)
        meant = [row for row in rows if row.since <= at and in_force(listed, row.since) is said]
        counting = [row for row in meant if said is not None and unit_price(said.tariff) == row.instead_of]
        expected = counting[-1].unit_price if counting else price_at(listed, at)
        assert price_at(book, at) == expected
