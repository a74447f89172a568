"""Why a seller bills an order other than we reckoned: another price for a unit, other units, or another discount."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Literal, TypeAlias

from msgspec import Struct

from gateway.storage.rows import AttemptRow
from policies.listed_prices import unit_price
from policies.money import half_even, to_usd
from policies.types import Offer
from providers.contract import UsageRecord

UnitPrice: TypeAlias = Callable[[AttemptRow], int | None]
"""What a unit of an order costs by our tariff of the moment it was placed (nano-dollars), if a list could name it."""

Cause: TypeAlias = Literal["price", "units", "price and units", "discount", "believed free", "not told", "not reckoned"]
"""discount: the seller took something off, before or after. believed free: billed though we took it for failed.
not told: the seller says no units. not reckoned: what we reckon one at is not known: no list names it, or no catalogue
is there."""

_NEAR = Fraction(1, 10**6)
"""Sellers write units as decimals, so a third of one is told to some digits only."""


class Difference(Struct, frozen=True):
    """Orders of an endpoint that were billed otherwise for the same reason; `says` is that of one of them, in words."""

    endpoint: str
    cause: Cause
    says: str
    orders: int = 1


def unit_prices(offers: Mapping[str, Offer]) -> UnitPrice:
    """By the book of each offer, synced and agreed prices included; `offers` may change meanwhile."""

    def price(row: AttemptRow) -> int | None:
        offer = offers.get(row.offer_id)
        return None if offer is None else unit_price(offer.tariff_at(row.started))

    return price


def unpriced(_: AttemptRow) -> int | None:
    """The unit price of an order whose catalogue nobody knows."""
    return None


def difference(row: AttemptRow, line: UsageRecord, reckoned: int, unit_price: int | None) -> Difference:
    """Why a line bills an order other than we posted. `reckoned` is its list price by our tariff, in nano-dollars."""
    if row.state == "released" and not reckoned:
        return Difference(row.endpoint, "believed free", "billed, and we took it for failed")
    if line.units is None or line.unit_nano_usd is None:
        return Difference(row.endpoint, "not told", "the seller does not say how many units it bills")
    billed = f"{_units(line.units)} at ${to_usd(line.unit_nano_usd)}"
    if unit_price is None:
        says = f"{billed} billed, ${to_usd(reckoned)} reckoned; what we reckon a unit at is not known"
        return Difference(row.endpoint, "not reckoned", says)
    ours = Fraction(reckoned, unit_price)
    units, price = not _near(Fraction(line.units), ours), line.unit_nano_usd != unit_price
    if not (units or price):
        off = half_even(Fraction(line.units) * line.unit_nano_usd) - line.nano_usd
        return Difference(row.endpoint, "discount", f"{billed}, less ${to_usd(off)}")
    cause: Cause = "price and units" if units and price else "units" if units else "price"
    return Difference(
        row.endpoint, cause, f"{billed} billed, {_text(_decimal(ours))} at ${to_usd(unit_price)} reckoned"
    )


def summed(found: Iterable[Difference]) -> tuple[Difference, ...]:
    """One for each endpoint and cause, by name, with all their orders."""
    together: dict[tuple[str, str], Difference] = {}
    for each in found:
        key = (each.endpoint, each.cause)
        first = together.get(key)
        orders = each.orders + (first.orders if first else 0)
        together[key] = Difference(each.endpoint, each.cause, (first or each).says, orders)
    return tuple(together[key] for key in sorted(together))


def _near(one: Fraction, other: Fraction) -> bool:
    return abs(one - other) <= _NEAR * max(abs(one), abs(other))


def _decimal(units: Fraction) -> Decimal:
    return Decimal(round(units * 10**6)) / 10**6


def _units(number: Decimal) -> str:
    return f"{_text(number)} unit{'' if number == 1 else 's'}"


def _text(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
