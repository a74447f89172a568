from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policies.catalog import AccountTerms, BadCatalog, compile_offers
from policies.catalog_file import AgreedPrice, ModelFile, OfferEntry
from policies.price_book import LONG_AGO, Book, PriceRow, in_force, misplaced, next_change, under_contract
from policies.tariffs import MachineSecond, PerImage

CHANGE = datetime(2026, 12, 21, tzinfo=UTC)
SECOND = timedelta(seconds=1)
FAL = AccountTerms(name="fal", kind="fal")


def entry(**more: object) -> dict[str, object]:
    return {
        "provider": "fal",
        "endpoint": "fal-ai/flux/dev",
        "price": {"per_image": "$0.025"},
        "abilities": {"sizes": {"only": ["1024x1024"]}},
        "typical_seconds": 3.5,
        "source": "model page",
        "checked_on": "2026-11-21",
        **more,
    }


def change(price: str = "$0.03", **more: object) -> dict[str, object]:
    row = {"valid_from": "2026-12-21", "price": {"per_image": price}, "source": "mail", "checked_on": "2026-11-22"}
    return {**row, **more}


def files(*entries: dict[str, object]) -> list[ModelFile]:
    head = {"model": "flux-dev", "tier": "standard", "title": "FLUX.1 [dev]", "licence": {"name": "x", "commercial": 1}}
    return [ModelFile.model_validate({**head, "offers": list(entries)})]


def price_at(at: datetime, *entries: dict[str, object], account: AccountTerms = FAL) -> int | None:
    offer = compile_offers(files(*entries), [account], 1, at).offers.get("fal:flux-dev")
    return offer.tariff.price if offer and isinstance(offer.tariff, PerImage) else None


def test_an_announced_price_comes_into_force_in_its_first_second_and_not_before() -> None:
    announced = entry(changes=[change()])
    assert price_at(CHANGE - SECOND, announced) == 25_000_000
    assert price_at(CHANGE, announced) == 30_000_000
    offer = compile_offers(files(announced), [FAL], 1, CHANGE).offers["fal:flux-dev"]
    assert (offer.source, offer.checked_on) == ("mail", "2026-11-22")


def test_a_catalogue_knows_when_it_must_be_compiled_again() -> None:
    announced = files(entry(changes=[change(), change("$0.04", valid_from="2027-01-01T09:00+01:00")]))
    first = compile_offers(announced, [FAL], 1, LONG_AGO)
    assert first.changes_at == CHANGE
    second = compile_offers(announced, [FAL], 1, CHANGE)
    assert second.changes_at == datetime(2027, 1, 1, 8, tzinfo=UTC)
    assert compile_offers(announced, [FAL], 1, second.changes_at).changes_at is None


def test_what_has_no_price_at_a_moment_is_not_for_sale_then() -> None:
    trial = entry(valid_from="2026-11-01", valid_to="2026-12-01", changes=[change()])
    days = [datetime(2026, 10, 31, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)]
    assert [price_at(day, trial) for day in (*days, CHANGE)] == [None, 25_000_000, None, 30_000_000]


def test_an_order_is_billed_by_the_price_of_the_moment_it_was_placed() -> None:
    after = compile_offers(files(entry(changes=[change()])), [FAL], 1, CHANGE).offers["fal:flux-dev"]
    assert after.tariff_at(CHANGE - SECOND) == PerImage(25_000_000)
    assert after.tariff_at(CHANGE) == PerImage(30_000_000)


def test_a_contract_replaces_the_list_for_as_long_as_it_was_agreed() -> None:
    agreed = AgreedPrice.model_validate({"per_image": "$0.02", "valid_from": "2026-12-01", "valid_to": "2027-01-01"})
    account = AccountTerms(name="fal", kind="fal", prices={"flux-dev": agreed.row("fal")})
    days = ["2026-11-30", "2026-12-01", "2026-12-31", "2027-01-01"]
    prices = [
        price_at(datetime.fromisoformat(f"{day}T00:00Z"), entry(changes=[change()]), account=account) for day in days
    ]
    assert prices == [25_000_000, 20_000_000, 20_000_000, 30_000_000]


def test_an_hour_of_our_own_machines_stays_ours_through_listed_changes() -> None:
    hourly = entry(
        provider="selfhosted",
        price={"per_machine_hour": "$0.34"},
        changes=[change() | {"price": {"per_machine_hour": "$0.50"}}],
    )
    own = AccountTerms(name="own", kind="selfhosted", machine_hour=200_000_000)
    offer = compile_offers(files(hourly), [own], 1, CHANGE).offers["own:flux-dev"]
    assert offer.tariff == MachineSecond(200_000_000)


@pytest.mark.parametrize(
    ("more", "loc", "why"),
    [
        ({"changes": [change(), change()]}, ("changes", 1, "valid_from"), "not after the row before it"),
        ({"valid_to": "2027-01-01", "changes": [change()]}, ("changes", 0, "valid_from"), "still in force"),
        ({"changes": [change(valid_to="2026-12-20")]}, ("changes", 0, "valid_from"), "before it begins"),
        ({"valid_from": "2026-12-22", "changes": [change()]}, ("changes", 0, "valid_from"), "not after the row"),
    ],
)
def test_rows_that_overlap_or_end_before_they_begin_are_refused_where_they_stand(
    more: dict[str, object], loc: tuple[str | int, ...], why: str
) -> None:
    with pytest.raises(BadCatalog) as caught:
        compile_offers(files(entry(**more)), [FAL], 1)
    assert any(fault.loc == ("offers", 0, *loc) and why in fault.message for fault in caught.value.faults)


def test_a_contract_that_ends_before_it_begins_is_refused() -> None:
    agreed = AgreedPrice.model_validate({"per_image": 1, "valid_from": "2026-12-01", "valid_to": "2026-11-01"})
    with pytest.raises(BadCatalog, match="before it begins"):
        compile_offers(
            files(entry()), [AccountTerms(name="fal", kind="fal", prices={"flux-dev": agreed.row("fal")})], 1
        )


@pytest.mark.parametrize("said", ["tomorrow", "2026-13-01", "2026-12-21T15:00", 20261221])
def test_a_moment_is_a_day_or_a_time_with_its_zone(said: object) -> None:
    with pytest.raises(ValidationError, match=r"expected a day|no time zone"):
        OfferEntry.model_validate(entry(changes=[change(valid_from=said)]))


moments = st.integers(0, 12).map(lambda month: LONG_AGO.replace(year=2026) + timedelta(days=30 * month))


@st.composite
def books(draw: st.DrawFn) -> Book:
    edges = sorted(set(draw(st.lists(moments, max_size=5))))
    rows = zip((None, *edges), (*edges, None), strict=True)
    kept = [row for row in rows if draw(st.booleans())]
    return tuple(
        PriceRow(tariff=PerImage(number), since=since, until=until) for number, (since, until) in enumerate(kept, 1)
    )


@given(books(), books(), moments)
def test_at_every_moment_the_contract_holds_where_it_says_so_and_else_the_list(
    listed: Book, agreed: Book, at: datetime
) -> None:
    merged = under_contract(listed, agreed)
    expected = in_force(agreed, at) or in_force(listed, at)
    found = in_force(merged, at)
    assert (found and found.tariff) == (expected and expected.tariff)
    assert not list(misplaced(merged))


@given(books(), moments)
def test_nothing_changes_between_a_moment_and_the_next_change(book: Book, at: datetime) -> None:
    edge = next_change(book, at)
    assert edge is None or edge > at
    for later in (at + SECOND, (edge or at + timedelta(days=400)) - SECOND):
        if edge is None or later < edge:
            assert in_force(book, later) == in_force(book, at)
