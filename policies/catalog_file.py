"""What a catalogue file may say: a model, what may be done with its pictures, and every way to buy it.

Shape only, with every fault at once; whether documents and accounts make sense together is `policies/catalog.py`'s.
Nothing here has a price by default: an offer without one is refused, and so is $0 unless it says `free: true`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, model_validator

from policies.listed_prices import Synced
from policies.money import NanoUsd, from_usd
from policies.price_book import Book, PriceRow
from policies.tariffs import (
    BINARY_MEGAPIXEL,
    ComputeSecond,
    FirstMegapixel,
    MachineSecond,
    PerImage,
    PerMegapixel,
    PerRequest,
    PerToken,
    ResolutionTable,
    RunMegapixel,
    Tariff,
)
from policies.types import Licence
from providers.contract import (
    Abilities,
    FidelityDialect,
    Format,
    InputDialect,
    Operation,
    SafetyDialect,
    SizeDialect,
    SizeRule,
)

_HIGHEST = 1_000
"""Dollars per unit above which a price is taken for a slip of the unit."""


def _price(value: object) -> NanoUsd:
    """Nano-dollars of what a person typed: `$0.0027`, `"0.0027"` or `0.0027`."""
    try:
        dollars = Decimal(str(value).strip().removeprefix("$").strip())
    except InvalidOperation:
        raise ValueError(f"expected dollars such as $0.0027, got {value!r}") from None
    if not (dollars.is_finite() and 0 <= dollars <= _HIGHEST):
        raise ValueError(f"expected dollars from $0 to ${_HIGHEST}, got {value!r}; are these cents or nano-dollars?")
    if dollars == 0:
        raise ValueError("a price of $0 is refused; write `price: {free: true}` if this really costs nothing")
    return from_usd(dollars)


def _size(value: object) -> tuple[int, int]:
    """Width and height of `1024x768`."""
    width, by, height = str(value).lower().partition("x")
    if not (by and width.isascii() and height.isascii() and width.isdigit() and height.isdigit()):
        raise ValueError(f"expected a size such as 1024x768, got {value!r}")
    if int(width) == 0 or int(height) == 0:
        raise ValueError(f"a size has at least one pixel each way, got {value!r}")
    return int(width), int(height)


def _area(value: object) -> int:
    """Pixels, typed as a number (262144) or as a size (512x512)."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    width, height = _size(value)
    return width * height


def moment_of(value: object) -> dt.datetime:
    """A moment in UTC of what a person typed: a day begins at midnight UTC, a time says its zone."""
    text = value.isoformat() if isinstance(value, dt.date) else str(value)
    try:
        if len(text) == len("2026-12-01") and text.count("-") == 2:
            return dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), dt.UTC)
        moment = dt.datetime.fromisoformat(text if "T" in text else "")
    except ValueError:
        raise ValueError(f"expected a day such as 2026-12-01, or 2026-12-01T15:00Z, got {text!r}") from None
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} says no time zone; write {moment.isoformat(timespec='minutes')}Z for UTC")
    return moment.astimezone(dt.UTC)


Dollars = Annotated[int, BeforeValidator(_price)]
Moment = Annotated[dt.datetime, BeforeValidator(moment_of)]
Size = Annotated[tuple[int, int], BeforeValidator(_size)]
Area = Annotated[int, BeforeValidator(_area)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
"""Lower case, without the colon that parts a model from its suffix (`flux-dev:cheapest`)."""


class Document(BaseModel):
    """A part of a catalogue document: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(Document):
    """One row of a price table."""

    up_to: Area
    """The largest picture this row holds: `512x512`, or its pixels."""
    price: Dollars


class TokenPrices(Document):
    """Dollars for a million tokens of each kind."""

    text_in: Dollars
    image_in: Dollars
    image_out: Dollars


class TokenCounts(Document):
    """How many tokens pictures usually count as, so that a price can be told before the seller has counted."""

    made: Mapping[Size, PositiveInt] = Field(min_length=1)
    """One picture made, by size, at the quality this endpoint draws."""
    given: PositiveInt | None = None
    """One input picture, usually."""
    given_at_most: PositiveInt | None = None

    @model_validator(mode="after")
    def _ordered(self) -> TokenCounts:
        if (self.given is None) != (self.given_at_most is None):
            raise ValueError("given and given_at_most belong together: what an input picture counts as, and at most")
        if self.given and self.given_at_most and self.given > self.given_at_most:
            raise ValueError(f"given {self.given} is above given_at_most {self.given_at_most}")
        return self


_INPUTS = frozenset({"counts_inputs", "largest_input"})
_WAYS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "free": (frozenset(), frozenset()),
    "per_image": (frozenset(), frozenset({"with_reference"})),
    "per_request": (frozenset(), frozenset()),
    "per_megapixel": (frozenset({"pixels", "rounding"}), frozenset({"default_steps"}) | _INPUTS),
    "by_size": (frozenset(), frozenset({"beyond_per_megapixel", "pixels"})),
    "first_megapixel": (frozenset({"further_megapixel", "pixels"}), _INPUTS),
    "per_run": (frozenset({"output_megapixel", "input_megapixel", "pixels", "rounding"}), frozenset({"largest_input"})),
    "per_million_tokens": (frozenset({"tokens"}), frozenset()),
    "per_compute_second": (frozenset({"hardware"}), frozenset()),
    "per_machine_hour": (frozenset(), frozenset()),
}
"""Each way to charge, with the fields it needs and those it may have beside it."""


class Price(Document):
    """How an offer is charged: exactly one of the ways, with the fields that belong to it."""

    free: Literal[True] | None = None
    per_image: Dollars | None = None
    with_reference: Dollars | None = None
    """Added for each picture where the order has input pictures."""
    per_request: Dollars | None = None
    per_megapixel: Dollars | None = None
    by_size: tuple[Row, ...] | None = Field(default=None, min_length=1)
    first_megapixel: Dollars | None = None
    further_megapixel: Dollars | None = None
    per_run: Dollars | None = None
    output_megapixel: Dollars | None = None
    input_megapixel: Dollars | None = None
    per_million_tokens: TokenPrices | None = None
    tokens: TokenCounts | None = None
    per_compute_second: Dollars | None = None
    hardware: Annotated[str, Field(min_length=1)] | None = None
    """The seller's name of the machine that a second is priced for."""
    per_machine_hour: Dollars | None = None
    pixels: PositiveInt | None = None
    """What the seller calls a megapixel: 1048576 at fal, 1000000 at Together. Never guessed."""
    rounding: Literal["up", "exact"] | None = None
    default_steps: PositiveInt | None = None
    beyond_per_megapixel: Dollars | None = None
    counts_inputs: Literal[True] | None = None
    """Input pictures are charged by their megapixels, too."""
    largest_input: PositiveInt | None = None
    """Most megapixels one input picture counts as."""

    @model_validator(mode="after")
    def _one_way(self) -> Price:
        given = {name for name in Price.model_fields if getattr(self, name) is not None}
        ways = [way for way in _WAYS if way in given]
        if len(ways) != 1:
            found = f"found {' and '.join(ways)}" if ways else "found none"
            raise ValueError(f"a price says exactly one of {', '.join(_WAYS)}; {found}")
        needed, allowed = _WAYS[ways[0]]
        if missing := sorted(needed - given):
            raise ValueError(f"{ways[0]} also needs {' and '.join(missing)}: sellers differ, so nothing is assumed")
        if foreign := sorted(given - needed - allowed - set(ways)):
            raise ValueError(f"{' and '.join(foreign)} means nothing beside {ways[0]}")
        return self

    @model_validator(mode="after")
    def _table_in_order(self) -> Price:
        if self.beyond_per_megapixel is not None and self.pixels is None:
            raise ValueError("beyond_per_megapixel also needs pixels: what this seller calls a megapixel")
        if self.largest_input is not None and not (self.counts_inputs or self.per_run):
            raise ValueError("largest_input means something only where input pictures are charged: counts_inputs: true")
        ends = [row.up_to for row in self.by_size or ()]
        if ends != sorted(set(ends)):
            raise ValueError("rows of by_size go from small to large, each size once")
        return self

    def tariff(self) -> Tariff:
        """Turn what was typed into the tariff that is reckoned with."""
        if self.per_image is not None:
            return PerImage(self.per_image, self.with_reference or 0)
        if self.per_request is not None:
            return PerRequest(self.per_request)
        if self.per_million_tokens is not None and self.tokens is not None:
            return _per_token(self.per_million_tokens, self.tokens)
        if self.per_compute_second is not None and self.hardware is not None:
            return ComputeSecond(self.per_compute_second, self.hardware)
        if self.per_machine_hour is not None:
            return MachineSecond(self.per_machine_hour)
        return self._by_size()

    def _by_size(self) -> Tariff:
        """Those of the ways that look at sizes; else it is free."""
        pixels, inputs = self.pixels or BINARY_MEGAPIXEL, self.counts_inputs or False
        if self.by_size is not None:
            rows = tuple((row.up_to, row.price) for row in self.by_size)
            return ResolutionTable(rows, self.beyond_per_megapixel, pixels)
        if self.per_megapixel is not None and self.rounding:
            return PerMegapixel(
                self.per_megapixel, pixels, self.rounding, self.default_steps, inputs, self.largest_input
            )
        if self.first_megapixel is not None and self.further_megapixel is not None:
            return FirstMegapixel(self.first_megapixel, self.further_megapixel, pixels, inputs, self.largest_input)
        if self.per_run is not None and self.output_megapixel is not None and self.input_megapixel is not None:
            assert self.rounding, "a checked price per run says how it rounds"
            return RunMegapixel(
                self.per_run, self.output_megapixel, self.input_megapixel, pixels, self.rounding, self.largest_input
            )
        assert self.free, "a checked price has exactly one way"
        return PerImage(0)


class AgreedPrice(Price):
    """A price of one account, for as long as it was agreed."""

    valid_from: Moment | None = None
    """Its first moment; until then the listed price holds."""
    valid_to: Moment | None = None
    """The first moment at which it is over and the listed price holds again."""
    confirm: Literal[True] | None = None
    """Somebody looked: it really is that far from the listed price."""

    def row(self, account: str) -> PriceRow:
        """Turn what was typed into a row of the price book."""
        source = f"prices of account {account}"
        return PriceRow(
            tariff=self.tariff(),
            since=self.valid_from,
            until=self.valid_to,
            source=source,
            confirmed=bool(self.confirm),
        )


def _per_token(prices: TokenPrices, tokens: TokenCounts) -> PerToken:
    return PerToken(
        prices.text_in,
        prices.image_in,
        prices.image_out,
        tuple((width, height, count) for (width, height), count in tokens.made.items()),
        tokens.given or 0,
        tokens.given_at_most or 0,
    )


class Sizes(Document):
    """Which sizes are drawn exactly: a range, a list, or a list with the seller's names."""

    min: PositiveInt | None = None
    max: PositiveInt | None = None
    multiple: PositiveInt | None = None
    max_pixels: Area | None = None
    named: Mapping[str, Size] | None = Field(default=None, min_length=1)
    only: tuple[Size, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_form(self) -> Sizes:
        given = self.model_fields_set
        listed = given & {"named", "only"}
        if listed and len(given) > 1:
            raise ValueError("sizes are either named, or only these, or a range of min, max and multiple")
        if not listed and not {"min", "max", "multiple"} <= given:
            raise ValueError("a range of sizes needs min, max and multiple, in pixels")
        if self.min and self.max and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self

    def rule(self) -> SizeRule:
        """Turn what was typed into the rule that requests are held against."""
        if self.named is not None:
            return SizeRule(named=dict(self.named))
        if self.only is not None:
            return SizeRule(named={f"{width}x{height}": (width, height) for width, height in self.only})
        return SizeRule(
            min_side=self.min or 1, max_side=self.max or 1, multiple=self.multiple or 1, max_pixels=self.max_pixels
        )


class Steps(Document):
    """How many steps may be asked for, and how many are run when none are."""

    min: PositiveInt = 1
    max: PositiveInt
    default: PositiveInt

    @model_validator(mode="after")
    def _ordered(self) -> Steps:
        if not self.min <= self.default <= self.max:
            raise ValueError(f"default {self.default} lies outside {self.min} to {self.max}")
        return self


class Guidance(Document):
    """How strongly the prompt may be followed."""

    min: Annotated[float, Field(ge=0)]
    max: Annotated[float, Field(ge=0)]


class Strength(Document):
    """How far a picture may leave its first input."""

    min: Annotated[float, Field(ge=0, le=1)] = 0.0
    max: Annotated[float, Field(ge=0, le=1)] = 1.0


class References(Document):
    """How many input pictures one order takes, and how the endpoint takes them."""

    min: Annotated[int, Field(ge=0)] = 0
    max: PositiveInt
    dialect: InputDialect
    mask: bool | Literal["required"] = False
    strength: Strength | None = None
    fidelity: FidelityDialect | None = None

    @model_validator(mode="after")
    def _ordered(self) -> References:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class AbilitiesEntry(Document):
    """What an endpoint can be asked for, in the words of `providers.contract.Abilities`."""

    operations: tuple[Operation, ...] = Field(default=("generate",), min_length=1)
    sizes: Sizes
    max_count: Annotated[int, Field(ge=1, le=10)] = 1
    """Pictures one order may ask for."""
    formats: tuple[Format, ...] = Field(default=("jpeg", "png"), min_length=1)
    seed: bool = True
    steps: Steps | None = None
    guidance: Guidance | None = None
    negative_prompt: bool = False
    loras: Annotated[int, Field(ge=0)] = 0
    transparent: bool = False
    references: References | None = None
    size_dialect: SizeDialect = "image_size"
    safety_dialect: SafetyDialect = "none"
    fixed: Mapping[str, str | int | float | bool] = {}

    def abilities(self) -> Abilities:
        """Turn what was typed into the contract's abilities."""
        inputs = self.references
        strength = inputs.strength if inputs else None
        return Abilities(
            operations=self.operations,
            sizes=self.sizes.rule(),
            max_count=self.max_count,
            formats=self.formats,
            seed=self.seed,
            steps=(self.steps.min, self.steps.max) if self.steps else None,
            default_steps=self.steps.default if self.steps else None,
            guidance=(self.guidance.min, self.guidance.max) if self.guidance else None,
            negative_prompt=self.negative_prompt,
            loras=self.loras,
            transparent=self.transparent,
            references=(inputs.min, inputs.max) if inputs else (0, 0),
            mask=bool(inputs and inputs.mask),
            needs_mask=bool(inputs and inputs.mask == "required"),
            strength=(strength.min, strength.max) if strength else None,
            fidelity=inputs.fidelity if inputs else None,
            input_dialect=inputs.dialect if inputs else None,
            size_dialect=self.size_dialect,
            safety_dialect=self.safety_dialect,
            fixed=dict(self.fixed),
        )


class LicenceEntry(Document):
    """What the pictures may be used for, as far as we could read."""

    name: str
    commercial: bool
    note: str = ""

    def licence(self) -> Licence:
        """Turn what was typed into the value requirements are held against."""
        return Licence(name=self.name, commercial=self.commercial)


class DatedPrice(Document):
    """A price, where it was read, and when it is in force."""

    price: Price
    valid_from: Moment | None = None
    """Its first moment; before it the offer is not for sale."""
    valid_to: Moment | None = None
    """The first moment at which it is over; left out: when the next one of the offer begins, if any."""
    source: Annotated[str, Field(min_length=1)]
    """Where it was read."""
    checked_on: dt.date
    confirm: Literal[True] | None = None
    """Somebody looked: it really is that far from the price before it."""
    note: str = ""

    def row(self, until: dt.datetime | None) -> PriceRow:
        """Turn what was typed into a row of the price book, over at `until` if it does not say when."""
        return PriceRow(
            tariff=self.price.tariff(),
            since=self.valid_from,
            until=until if self.valid_to is None else self.valid_to,
            source=self.source,
            checked_on=self.checked_on.isoformat(),
            confirmed=bool(self.confirm),
        )


class PriceChange(DatedPrice):
    """A price that is announced."""

    valid_from: Moment
    """Its first moment; a day begins at midnight UTC."""


class OfferEntry(DatedPrice):
    """One way to buy the model: from any account of `provider` that is on."""

    provider: Name
    """The kind of seller: `fal`, `together`, `replicate`, `selfhosted`."""
    endpoint: Annotated[str, Field(min_length=1)]
    abilities: AbilitiesEntry
    typical_seconds: Annotated[float, Field(gt=0)]
    """Median seconds for one picture of a megapixel at default steps; corrected by what is observed."""
    licence: LicenceEntry | None = None
    """Where this seller's terms differ from the model's own licence."""
    changes: tuple[PriceChange, ...] = ()
    """Prices that follow, in their order."""
    retires: Moment | None = None
    """The first moment at which the seller no longer sells it, as announced."""
    successor: Name | None = None
    """The model to use instead, then."""

    def book(self) -> Book:
        """Every price of the offer, in time."""
        ends = [change.valid_from for change in self.changes]
        rows = (self, *self.changes)
        return tuple(row.row(until) for row, until in zip(rows, (*ends, None), strict=True))


class ModelFile(Document):
    """One document of the catalogue: a model and every way to buy it."""

    model: Name
    tier: Literal["preview", "standard", "export"]
    title: Annotated[str, Field(min_length=1)]
    licence: LicenceEntry
    aliases: tuple[Name, ...] = ()
    offers: Annotated[tuple[OfferEntry, ...], Field(min_length=1)]


class SyncedRow(Document):
    """What a seller's own list said of one offer, and somebody applied."""

    offer: Annotated[str, Field(pattern=r"^[^:]+:.+$")]
    """`fal:flux-dev`, as `quote` names it."""
    unit_price: Dollars | None = None
    """What a billing unit costs; the tariff's other numbers keep their proportion to it."""
    instead_of: Dollars | None = None
    """The catalogue's own price of a unit; the row counts for as long as the catalogue says that."""
    retires: Moment | None = None
    """When the seller stopped selling it."""
    valid_from: Moment
    source: Annotated[str, Field(min_length=1)]
    checked_on: dt.date

    @model_validator(mode="after")
    def _one_thing(self) -> SyncedRow:
        if (self.unit_price is None) != (self.instead_of is None):
            raise ValueError("unit_price and instead_of belong together: the price of a unit, and the catalogue's own")
        if (self.unit_price is None) == (self.retires is None):
            raise ValueError("a row says either unit_price or retires")
        return self

    def synced(self) -> Synced | None:
        """Turn what was written into a price; None where the row says no price."""
        if self.unit_price is None or self.instead_of is None:
            return None
        return Synced(
            unit_price=self.unit_price,
            instead_of=self.instead_of,
            since=self.valid_from,
            source=self.source,
            checked_on=self.checked_on.isoformat(),
        )


class SyncedFile(Document):
    """What was applied of sellers' own lists, over the catalogue."""

    synced: tuple[SyncedRow, ...] = ()
