"""The shipped catalogue and the sandbox's own invoice against prices reckoned by hand, and against each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from gateway.yaml_files import load, read
from policies import eligibility
from policies.catalog import AccountTerms, Catalog, compile_offers
from policies.catalog_file import DatedPrice, ModelFile, Price
from policies.price_book import in_force
from policies.services import ServicesFile, price_of
from policies.tariffs import ComputeSecond, MachineSecond, Tariff, Unpriced, bill, quote
from policies.types import Ask, Constraints, Offer
from providers.contract import ImageRequest, Operation, Tokens, Usage
from providers.sandbox.endpoints import TOGETHER, Endpoint
from providers.sandbox.fal_endpoints import FAL
from providers.sandbox.invoice import BESIDE_PICTURES, PUBLISHED, PriceList, Work, charge, machine_hour
from providers.sandbox.invoice import Price as ListPrice
from providers.sandbox.replicate_endpoints import REPLICATE

ROOT = Path(__file__).parents[2]
KINDS = ("fal", "together", "replicate")
T = TypeVar("T")


class Vector(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An order at an endpoint, and what it costs."""

    provider: str
    endpoint: str
    width: int
    height: int
    count: int = 1
    nano_usd: int
    steps: int | None = None
    inputs: tuple[str, ...] = ()
    """Sizes of the input pictures: "1024x1024"."""
    machine_ms: int = 0
    """Milliseconds of a machine, where it is sold by its time."""
    sold: bool = True

    def __str__(self) -> str:
        size = f"{self.width}x{self.height}-n{self.count}-s{self.steps}"
        return f"{self.provider}-{self.endpoint}-{'-'.join((size, *self.inputs))}"

    def request(self, operation: Operation = "generate") -> ImageRequest:
        """The order that is asked for."""
        return ImageRequest(
            operation=operation,
            width=self.width,
            height=self.height,
            count=self.count,
            steps=self.steps,
            references=self.references,
        )

    def usage(self) -> Usage:
        """What it consumed."""
        return Usage(
            images=((self.width, self.height),) * self.count,
            steps=self.steps,
            references=self.references,
            machine_ns=self.machine_ns,
        )

    def work(self) -> Work:
        """The same, in the words of the sellers' own book."""
        return Work(
            pictures=[(self.width, self.height)] * self.count,
            steps=self.steps,
            inputs=self.references,
            machine_ns=self.machine_ns,
        )

    @property
    def machine_ns(self) -> int:
        """Nanoseconds of a machine."""
        return self.machine_ms * 1_000_000

    @property
    def references(self) -> tuple[tuple[int, int], ...]:
        """Sizes of the input pictures."""
        return tuple(sizes_of(self.inputs))


def sizes_of(texts: Iterable[str]) -> Iterator[tuple[int, int]]:
    for text in texts:
        width, _, height = text.partition("x")
        yield int(width), int(height)


def shipped(*kinds: str) -> Catalog:
    models = [load(path, ModelFile) for path in sorted((ROOT / "config/catalog").glob("*.yaml"))]
    return compile_offers(models, [AccountTerms(name=kind, kind=kind) for kind in kinds], revision=1)


def plain(name: str) -> dict[str, object]:
    document = read(ROOT / f"tests/prices/{name}.yaml").data
    assert isinstance(document, dict)
    return document


def hand_written() -> list[Vector]:
    found = []
    for name in ("vectors", "edits"):
        document = plain(name)
        found += msgspec.convert(document["vectors"], list[Vector])
    return found


CATALOG = shipped(*KINDS)
OFFERS: Mapping[tuple[str, str], Offer] = {(offer.kind, offer.endpoint): offer for offer in CATALOG.offers.values()}
TWINS: Mapping[tuple[str, str], Endpoint] = {
    **{("fal", name): twin for name, twin in FAL.items()},
    **{("together", name): twin for name, twin in TOGETHER.items()},
    **{("replicate", name): twin for name, twin in REPLICATE.items()},
}
INVOICED: Mapping[tuple[str, str], ListPrice] = {
    (seller, endpoint): price for (seller, endpoint), price in PUBLISHED.items() if seller != "openai"
}
BY_TOKENS = {offer.model: offer for offer in shipped("openai").offers.values()}
VECTORS = hand_written()

sizes = st.tuples(st.integers(1, 4096), st.integers(1, 4096))


def test_two_hundred_prices_were_reckoned_by_hand_and_cover_every_offer() -> None:
    assert len(VECTORS) >= 200
    assert {(vector.provider, vector.endpoint) for vector in VECTORS} == OFFERS.keys()


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_quote_bill_and_invoice_say_what_was_reckoned_by_hand(vector: Vector) -> None:
    key = vector.provider, vector.endpoint
    offer, steps = OFFERS[key], OFFERS[key].abilities.default_steps
    quoted = quote(offer.tariff, vector.request(), default_steps=steps, expected_machine_ns=vector.machine_ns)
    assert quoted.amount == vector.nano_usd
    assert bill(offer.tariff, vector.usage(), default_steps=steps) == vector.nano_usd
    assert charge(INVOICED[key], vector.work()).nano_usd == vector.nano_usd


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_what_is_marked_as_sold_can_be_ordered_and_nothing_else(vector: Vector) -> None:
    offer = OFFERS[vector.provider, vector.endpoint]
    asked = Ask(
        call_id="c",
        part=0,
        request=replace(vector.request(offer.abilities.operations[0]), mask=offer.abilities.needs_mask),
        constraints=Constraints(),
        arrived=0.0,
    )
    objection = eligibility.ability(offer, asked) or eligibility.size(offer, asked)
    assert (objection is None) is vector.sold, objection


@given(
    st.sampled_from(sorted(OFFERS)),
    st.lists(sizes, max_size=10),
    st.none() | st.integers(1, 100),
    st.lists(sizes, max_size=4),
    st.integers(0, 10**12),
)
def test_our_bill_is_the_invoice_whatever_was_made(
    key: tuple[str, str],
    images: list[tuple[int, int]],
    steps: int | None,
    inputs: list[tuple[int, int]],
    machine_ns: int,
) -> None:
    offer = OFFERS[key]
    used = Usage(images=tuple(images), steps=steps, references=tuple(inputs), machine_ns=machine_ns)
    try:
        ours = bill(offer.tariff, used, default_steps=offer.abilities.default_steps)
    except Unpriced:
        reject()  # larger than anything the endpoint sells
    work = Work(pictures=images, steps=steps, inputs=inputs, machine_ns=machine_ns)
    assert ours == charge(INVOICED[key], work).nano_usd


class BesidePictures(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A service, and what so many of it cost."""

    service: str
    count: int = 1
    seconds: int = 0
    nano_usd: int


class Alternative(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an order would cost by a price that a source prints and that is not in force."""

    model: str
    says: str
    price: dict[str, object]
    width: int
    height: int
    count: int = 1
    steps: int | None = None
    nano_usd: int


def entries(name: str, kind: type[T]) -> list[T]:
    document = plain(name)
    return msgspec.convert(document["vectors"], list[kind])  # type: ignore[valid-type]  # a type at run time


SERVICES = {entry.name: entry for entry in load(ROOT / "config/services.yaml", ServicesFile).services}
BESIDE = entries("services", BesidePictures)


@pytest.mark.parametrize("vector", BESIDE, ids=lambda vector: f"{vector.service}-{vector.seconds}s-n{vector.count}")
def test_what_is_no_picture_costs_what_was_reckoned_by_hand(vector: BesidePictures) -> None:
    service = SERVICES[vector.service]
    assert price_of(service.price.charge(), count=vector.count, seconds=vector.seconds) == vector.nano_usd
    theirs = BESIDE_PICTURES["fal", service.endpoint](vector.seconds)
    assert theirs * vector.count * 10**9 == vector.nano_usd


def test_every_service_has_prices_by_hand_and_a_place_in_the_sellers_book() -> None:
    assert {vector.service for vector in BESIDE} == SERVICES.keys()
    assert {(entry.provider, entry.endpoint) for entry in SERVICES.values()} == BESIDE_PICTURES.keys()


@given(st.sampled_from(sorted(SERVICES)), st.integers(1, 10_000))
def test_longer_never_costs_less_and_the_sellers_book_agrees(name: str, seconds: int) -> None:
    charged = SERVICES[name].price.charge()
    amount = price_of(charged, seconds=seconds)
    assert amount <= price_of(charged, seconds=seconds + 1)
    assert amount == BESIDE_PICTURES["fal", SERVICES[name].endpoint](seconds) * 10**9


@pytest.mark.parametrize("other", entries("conflicts", Alternative), ids=lambda other: f"{other.model}: {other.says}")
def test_a_price_of_another_source_can_be_put_in_force_and_is_quoted_exactly(other: Alternative) -> None:
    tariff = Price.model_validate(other.price).tariff()
    request = ImageRequest(width=other.width, height=other.height, count=other.count, steps=other.steps)
    usage = Usage(images=(request.size,) * other.count, steps=other.steps)
    assert quote(tariff, request).amount == bill(tariff, usage) == other.nano_usd
    assert other.model in CATALOG.models


class Moment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An order placed at a moment, and what it costs then; None: nobody sells it."""

    at: datetime
    usd: str
    """Of a unit, by the seller's own list at that moment."""
    width: int = 1024
    height: int = 1024
    nano_usd: int | None = None


class Changing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of an endpoint in time."""

    endpoint: str
    rows: tuple[dict[str, object], ...]
    cases: tuple[Moment, ...]


CHANGES = [
    (book, moment)
    for book in msgspec.convert(read(ROOT / "tests" / "prices" / "changes.yaml").data, dict[str, list[Changing]])[
        "books"
    ]
    for moment in book.cases
]


@pytest.mark.parametrize(
    ("book", "moment"),
    CHANGES,
    ids=[f"{book.endpoint}-{one.at:%Y-%m-%dT%H:%M:%S}-{one.width}" for book, one in CHANGES],
)
def test_the_minute_a_price_changes_quote_bill_and_invoice_change_with_it(book: Changing, moment: Moment) -> None:
    rows = [DatedPrice.model_validate(row) for row in book.rows]
    ends = [row.valid_from for row in rows[1:]]
    prices = tuple(row.row(until) for row, until in zip(rows, (*ends, None), strict=True))
    row = in_force(prices, moment.at)
    if moment.nano_usd is None:
        assert row is None
        return
    assert row is not None
    request = ImageRequest(width=moment.width, height=moment.height)
    list_prices = PriceList()
    list_prices.change("fal", book.endpoint, moment.usd)
    invoiced = charge(list_prices.of("fal", book.endpoint), Work(pictures=[request.size])).nano_usd
    assert quote(row.tariff, request).amount == bill(row.tariff, Usage(images=(request.size,))) == moment.nano_usd
    assert invoiced == moment.nano_usd


class Metered(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a meter counted, and what it costs."""

    tariff: str
    """A model that is billed by tokens, or a machine."""
    width: int = 1024
    height: int = 1024
    text_in: int = 0
    image_in: int = 0
    image_out: int = 0
    machine_ns: int = 0
    nano_usd: int


MACHINES: Mapping[str, Tariff] = {
    "own-rtx-4090": MachineSecond(340_000_000),
    **{
        name: ComputeSecond(price, name)
        for name, price in (
            ("cpu", 100_000),
            ("gpu-t4", 225_000),
            ("gpu-a40-small", 575_000),
            ("gpu-a40-large", 725_000),
            ("gpu-l40s", 975_000),
            ("gpu-a100-large", 1_400_000),
            ("gpu-h100", 1_525_000),
        )
    },
}


@pytest.mark.parametrize("vector", entries("metered", Metered), ids=lambda v: f"{v.tariff}-{v.nano_usd}")
def test_what_a_meter_counted_costs_what_was_reckoned_by_hand(vector: Metered) -> None:
    size = (vector.width, vector.height)
    tokens = Tokens(text_in=vector.text_in, image_in=vector.image_in, image_out=vector.image_out)
    usage = Usage(images=(size,), tokens=tokens, machine_ns=vector.machine_ns)
    work = Work(
        pictures=[size],
        machine_ns=vector.machine_ns,
        text_tokens=vector.text_in,
        input_tokens=vector.image_in,
        output_tokens=vector.image_out,
    )
    tariff = MACHINES.get(vector.tariff) or BY_TOKENS[vector.tariff].tariff
    assert bill(tariff, usage) == vector.nano_usd
    if isinstance(tariff, MachineSecond):
        assert charge(machine_hour(Fraction("0.34")), work).nano_usd == vector.nano_usd
    elif vector.tariff in BY_TOKENS:
        assert charge(PUBLISHED["openai", "gpt-image-2"], work).nano_usd == vector.nano_usd


@pytest.mark.parametrize(
    ("model", "size", "cents"),
    [
        ("gpt-image-2-low", (1024, 1024), 0.6),
        ("gpt-image-2-low", (1024, 1536), 0.5),
        ("gpt-image-2-medium", (1024, 1024), 5.3),
        ("gpt-image-2-medium", (1024, 1536), 4.1),
        ("gpt-image-2-high", (1024, 1024), 21.1),
        ("gpt-image-2-high", (1024, 1536), 16.5),
    ],
)
def test_a_quote_by_tokens_is_what_openai_says_a_picture_costs(model: str, size: tuple[int, int], cents: float) -> None:
    quoted = quote(BY_TOKENS[model].tariff, ImageRequest(width=size[0], height=size[1]))
    assert round(quoted.amount / 10_000_000, 1) == cents
    assert not quoted.certain


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


def test_every_tier_can_be_bought_from_every_seller() -> None:
    kinds_by_tier: dict[str, set[str]] = {}
    for offer in CATALOG.offers.values():
        kinds_by_tier.setdefault(offer.tier.word, set()).add(offer.kind)
    assert kinds_by_tier == {tier: set(KINDS) for tier in ("preview", "standard", "export")}
