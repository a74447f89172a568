"""What sellers charge for that is no picture: trainings, styles, speech. Priced and shown, never ordered here.

Run            one price for each
ByLength       a price by the row that holds the length; beyond the last row, so many whole last rows and the rest
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, TypeAlias, assert_never

from msgspec import Struct
from pydantic import Field, PositiveInt, model_validator

from policies.catalog_file import Document, Dollars, Name
from policies.money import NanoUsd, to_usd
from policies.tariffs import Unpriced


class Run(Struct, frozen=True):
    """The same price for each."""

    price: NanoUsd


class ByLength(Struct, frozen=True):
    """A price by length of what is made."""

    rows: tuple[tuple[int, NanoUsd], ...]
    """(seconds, price), ascending."""


Charge: TypeAlias = Run | ByLength


class LengthRow(Document):
    """One row of a table by length."""

    up_to: PositiveInt
    """Seconds."""
    price: Dollars


class ServicePrice(Document):
    """How a service is charged: for each, or by its length."""

    each: Dollars | None = None
    by_seconds: tuple[LengthRow, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_way(self) -> ServicePrice:
        if (self.each is None) == (self.by_seconds is None):
            raise ValueError("a price says exactly one of each, by_seconds")
        ends = [row.up_to for row in self.by_seconds or ()]
        if ends != sorted(set(ends)):
            raise ValueError("rows of by_seconds go from short to long, each length once")
        return self

    def charge(self) -> Charge:
        """Turn what was typed into what is reckoned with."""
        if self.each is not None:
            return Run(self.each)
        return ByLength(tuple((row.up_to, row.price) for row in self.by_seconds or ()))


class ServiceEntry(Document):
    """One thing that a seller sells beside pictures."""

    name: Name
    title: Annotated[str, Field(min_length=1)]
    provider: Name
    endpoint: Annotated[str, Field(min_length=1)]
    price: ServicePrice
    source: Annotated[str, Field(min_length=1)]
    checked_on: dt.date
    note: str = ""


class ServicesFile(Document):
    """`services.yaml`."""

    services: tuple[ServiceEntry, ...]

    @model_validator(mode="after")
    def _each_once(self) -> ServicesFile:
        names = [entry.name for entry in self.services]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"named twice: {', '.join(twice)}")
        return self


def price_of(charge: Charge, *, count: int = 1, seconds: int | None = None) -> NanoUsd:
    """Nano-dollars of `count` of them, each `seconds` long; raises `Unpriced` when a needed length is not told."""
    match charge:
        case Run():
            return charge.price * count
        case ByLength():
            if seconds is None:
                raise Unpriced("its price goes by length: say how many seconds")
            return _by_length(charge, seconds) * count
        case _:
            assert_never(charge)


def describe(charge: Charge) -> str:
    """Say the price in one line for people: "$0.02 up to 30 s, $0.03 up to 60 s"."""
    match charge:
        case Run():
            return f"${to_usd(charge.price)} each"
        case ByLength():
            return ", ".join(f"${to_usd(price)} up to {most} s" for most, price in charge.rows)
        case _:
            assert_never(charge)


def _by_length(charge: ByLength, seconds: int) -> NanoUsd:
    longest, price = charge.rows[-1]
    whole, rest = divmod(seconds, longest)
    return whole * price + (next(price for most, price in charge.rows if rest <= most) if rest else 0)
