"""The shipped catalogue and the sandbox's own invoice against prices reckoned by hand, and against each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from ruamel.yaml import YAML

from gateway.yaml_files import load
from policies.catalog import AccountTerms, Catalog, compile_offers
from policies.catalog_file import ModelFile
from policies.tariffs import bill, quote
from policies.types import Offer
from providers.contract import ImageRequest, Usage
from providers.sandbox.endpoints import FAL, TOGETHER, Endpoint
from providers.sandbox.invoice import PUBLISHED, Price, Work, charge

ROOT = Path(__file__).parents[2]


class Vector(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    provider: str
    endpoint: str
    width: int
    height: int
    count: int
    nano_usd: int
    steps: int | None = None
    sold: bool = True

    def __str__(self) -> str:
        return f"{self.provider}-{self.endpoint}-{self.width}x{self.height}-n{self.count}-s{self.steps}"


def shipped() -> Catalog:
    models = [load(path, ModelFile) for path in sorted((ROOT / "config/catalog").glob("*.yaml"))]
    return compile_offers(models, [AccountTerms(name=kind, kind=kind) for kind in ("fal", "together")], revision=1)


def hand_written() -> list[Vector]:
    document = YAML(typ="safe", pure=True).load(ROOT / "tests/prices/vectors.yaml")
    return msgspec.convert(document["vectors"], list[Vector])


CATALOG = shipped()
OFFERS: Mapping[tuple[str, str], Offer] = {(offer.kind, offer.endpoint): offer for offer in CATALOG.offers.values()}
TWINS: Mapping[tuple[str, str], Endpoint] = {
    **{("fal", name): twin for name, twin in FAL.items()},
    **{("together", name): twin for name, twin in TOGETHER.items()},
}
INVOICED: Mapping[tuple[str, str], Price] = {
    (seller, endpoint): price for (seller, endpoint), price in PUBLISHED.items() if seller != "openai"
}
VECTORS = hand_written()


def quoted(offer: Offer, width: int, height: int, count: int, steps: int | None) -> int:
    request = ImageRequest(width=width, height=height, count=count, steps=steps)
    return quote(offer.tariff, request, default_steps=offer.abilities.default_steps).amount


def billed(offer: Offer, width: int, height: int, count: int, steps: int | None) -> int:
    usage = Usage(images=((width, height),) * count, steps=steps)
    return bill(offer.tariff, usage, default_steps=offer.abilities.default_steps)


def test_at_least_seventy_prices_were_reckoned_by_hand_and_cover_every_offer() -> None:
    assert len(VECTORS) >= 70
    assert {(vector.provider, vector.endpoint) for vector in VECTORS} == OFFERS.keys()


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_quote_bill_and_invoice_say_what_was_reckoned_by_hand(vector: Vector) -> None:
    key = vector.provider, vector.endpoint
    order = vector.width, vector.height, vector.count, vector.steps
    assert quoted(OFFERS[key], *order) == vector.nano_usd
    assert billed(OFFERS[key], *order) == vector.nano_usd
    sizes = [(vector.width, vector.height)] * vector.count
    assert charge(INVOICED[key], Work(pictures=sizes, steps=vector.steps)).nano_usd == vector.nano_usd


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_what_is_marked_as_sold_can_be_ordered_and_nothing_else(vector: Vector) -> None:
    able = OFFERS[vector.provider, vector.endpoint].abilities
    low, high = able.steps or (0, 0)
    possible = (
        able.sizes.allows(vector.width, vector.height)
        and vector.count <= able.max_count
        and (vector.steps is None or low <= vector.steps <= high)
    )
    assert possible is vector.sold


@given(
    st.sampled_from(sorted(OFFERS)),
    st.lists(st.tuples(st.integers(1, 4096), st.integers(1, 4096)), max_size=10),
    st.none() | st.integers(1, 100),
)
def test_our_bill_is_the_invoice_whatever_was_made(
    key: tuple[str, str], images: list[tuple[int, int]], steps: int | None
) -> None:
    offer = OFFERS[key]
    ours = bill(offer.tariff, Usage(images=tuple(images), steps=steps), default_steps=offer.abilities.default_steps)
    assert ours == charge(INVOICED[key], Work(pictures=images, steps=steps)).nano_usd


def test_the_catalogue_and_the_sandbox_sell_the_same_endpoints() -> None:
    assert OFFERS.keys() == TWINS.keys() == INVOICED.keys()


@pytest.mark.parametrize("key", sorted(OFFERS), ids=" ".join)
def test_the_sandbox_can_do_what_the_catalogue_says(key: tuple[str, str]) -> None:
    able, twin = OFFERS[key].abilities, TWINS[key]
    assert OFFERS[key].tier.word == twin.tier
    assert (able.steps, able.max_count, able.seed) == (twin.steps, twin.max_count, twin.seed)
    assert able.default_steps in {None, twin.default_steps}
    assert set(able.formats) == set(twin.formats)
    assert (able.safety_dialect == "tolerance") is twin.tolerance
    if able.guidance is not None:
        assert twin.guidance == able.guidance


@given(st.sampled_from(sorted(OFFERS)), st.integers(32, 400), st.integers(32, 400))
def test_the_sandbox_draws_exactly_the_sizes_the_catalogue_allows(
    key: tuple[str, str], columns: int, rows: int
) -> None:
    size = columns * 8, rows * 8
    drawn_exactly = TWINS[key].sizes.snap(size) == size
    assert OFFERS[key].abilities.sizes.allows(*size) is drawn_exactly


def test_every_named_size_is_drawn_exactly() -> None:
    for key, offer in OFFERS.items():
        for size in offer.abilities.sizes.named.values():
            assert TWINS[key].sizes.snap(size) == size


def test_every_price_says_where_and_when_it_was_read() -> None:
    for offer in CATALOG.offers.values():
        assert offer.source
        assert offer.checked_on >= "2026-11-01"


def test_every_tier_can_be_bought_from_both_sellers() -> None:
    kinds_by_tier: dict[str, set[str]] = {}
    for offer in CATALOG.offers.values():
        kinds_by_tier.setdefault(offer.tier.word, set()).add(offer.kind)
    assert kinds_by_tier == {tier: {"fal", "together"} for tier in ("preview", "standard", "export")}
