"""Prices as sellers' own lists name them, put into our tariffs.

A list names one price per billing unit. How units are counted stands in the catalogue, and so does the proportion of a
tariff's numbers to each other; so what a list says is one number, and the others of the tariff follow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from fractions import Fraction

from msgspec import Struct
from msgspec.structs import replace

from policies.money import NanoUsd
from policies.price_book import Book, PriceRow, in_force, next_change, under_contract
from policies.tariffs import (
    ComputeSecond,
    FirstMegapixel,
    PerImage,
    PerMegapixel,
    PerRequest,
    ResolutionTable,
    RunMegapixel,
    Tariff,
)


class Synced(Struct, frozen=True, kw_only=True):
    """What a seller's list says an offer costs, instead of what the catalogue says."""

    unit_price: NanoUsd
    instead_of: NanoUsd
    """The catalogue's own number; where that is another by now, somebody has edited it, and the catalogue counts."""
    since: datetime
    source: str
    checked_on: str


def unit_price(tariff: Tariff) -> NanoUsd | None:
    """The number of a tariff that a list's price per unit stands for; None where no list could name it.

    Of several it is that of a megapixel: of the first, of one out, or of the largest row.
    """
    match tariff:
        case PerImage() | PerRequest() | PerMegapixel():
            number = tariff.price
        case ResolutionTable():
            number = tariff.rows[-1][1] if tariff.beyond is None else tariff.beyond
        case FirstMegapixel():
            number = tariff.first
        case RunMegapixel():
            number = tariff.output
        case ComputeSecond():
            number = tariff.nano_usd_per_second
        case _:
            return None
    return number or None


def of_one_number(tariff: Tariff) -> bool:
    """Whether a list's price says all of a tariff."""
    return isinstance(tariff, PerRequest | PerMegapixel | ComputeSecond) or (
        isinstance(tariff, PerImage) and not tariff.with_reference
    )


def repriced(tariff: Tariff, price: NanoUsd) -> Tariff:
    """The tariff at another price per unit: its other numbers keep their proportion, each rounded half to even.

    Raises `ValueError` for a tariff that no list could name.
    """
    before = unit_price(tariff)
    if before is None:
        raise ValueError("no list names a price for such a tariff")
    scale = Fraction(price, before)

    def scaled(number: NanoUsd) -> NanoUsd:
        return round(number * scale)

    match tariff:
        case PerImage():
            return replace(tariff, price=price, with_reference=scaled(tariff.with_reference))
        case PerRequest() | PerMegapixel():
            return replace(tariff, price=price)
        case ResolutionTable():
            rows = tuple((most, scaled(each)) for most, each in tariff.rows)
            return replace(tariff, rows=rows, beyond=None if tariff.beyond is None else price)
        case FirstMegapixel():
            return replace(tariff, first=price, further=scaled(tariff.further))
        case RunMegapixel():
            return replace(tariff, run=scaled(tariff.run), output=price, input=scaled(tariff.input))
        case ComputeSecond():
            return replace(tariff, nano_usd_per_second=price)
        case _:
            raise ValueError("no list names a price for such a tariff")


def synced_over(listed: Book, synced: Sequence[Synced]) -> Book:
    """The catalogue's rows, with what was synced in their place; `synced` is in the order of time.

    A synced price holds until the next one, or until the catalogue's own next change, which was announced.
    """
    rows: list[PriceRow] = []
    for each in synced:
        row = in_force(listed, each.since)
        if row is None or unit_price(row.tariff) != each.instead_of:
            continue
        if rows:
            before = rows[-1]
            rows[-1] = replace(before, until=min(before.until or each.since, each.since))
        rows.append(
            replace(
                row,
                tariff=repriced(row.tariff, each.unit_price),
                since=each.since,
                until=next_change(listed, each.since),
                source=each.source,
                checked_on=each.checked_on,
            )
        )
    return under_contract(listed, tuple(rows)) if rows else listed
