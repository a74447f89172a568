"""Holds sellers' own price lists against ours: what differs, what changed since last time, what is no longer listed.

A list names a price per billing unit, and sellers name units loosely (fal lists `image` where its pages say megapixel),
so a price is compared by its number, and a unit only with the unit that was listed before. Nothing is changed here: a
difference is shown, and a person edits the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

from policies.money import to_usd
from policies.tariffs import ComputeSecond, PerImage, PerMegapixel, PerRequest, Tariff
from policies.types import Offer
from providers.contract import ListedPrice

Verdict: TypeAlias = Literal["same", "differs", "changed", "unit", "gone", "apart"]
"""same; differs from ours; changed since last time; unit: its unit changed; gone: no longer listed; apart: not to be
compared, for ours has more than one number."""

JUMP = 3
"""A price this many times higher or lower is more likely a change of unit."""


class Finding(Struct, frozen=True, kw_only=True):
    """One endpoint of the list beside our price; amounts in nano-dollars per billing unit."""

    account: str
    endpoint: str
    offers: tuple[str, ...]
    verdict: Verdict
    ours: int | None
    theirs: int | None
    unit: str
    says: str

    @property
    def alarming(self) -> bool:
        """Whether somebody should look."""
        return self.verdict not in ("same", "apart")


def compared(
    account: str, offers: Iterable[Offer], listed: Sequence[ListedPrice], before: Mapping[str, ListedPrice]
) -> Iterator[Finding]:
    """A finding for each endpoint of an account's offers; `before` is what was listed last time, by endpoint."""
    now = {price.endpoint: price for price in listed}
    by_endpoint: dict[str, list[Offer]] = {}
    for offer in offers:
        by_endpoint.setdefault(offer.endpoint, []).append(offer)
    for endpoint, sold in by_endpoint.items():
        ours, price, earlier = _unit_price(sold[0].tariff), now.get(endpoint), before.get(endpoint)
        verdict, says = _verdict(ours, price, earlier)
        yield Finding(
            account=account,
            endpoint=endpoint,
            offers=tuple(offer.id for offer in sold),
            verdict=verdict,
            ours=ours,
            theirs=None if price is None else price.nano_usd,
            unit="" if price is None else price.unit,
            says=says,
        )


def _verdict(ours: int | None, price: ListedPrice | None, earlier: ListedPrice | None) -> tuple[Verdict, str]:
    if price is None:
        return (
            ("apart", "not on the list")
            if earlier is None
            else ("gone", f"no longer listed; it was {_listed(earlier)}")
        )
    if earlier is not None and earlier.unit != price.unit:
        return "unit", f"the unit changed: {_listed(price)}, before {_listed(earlier)}"
    if earlier is not None and earlier.nano_usd != price.nano_usd:
        return "changed", f"{_listed(price)}, before {_listed(earlier)}{_jump(earlier.nano_usd, price.nano_usd)}"
    if ours is not None and ours != price.nano_usd:
        return "differs", f"{_listed(price)}, ours ${to_usd(ours)}{_jump(ours, price.nano_usd)}"
    return ("apart", f"{_listed(price)}; ours has more than one number") if ours is None else ("same", _listed(price))


def _listed(price: ListedPrice) -> str:
    return f"${to_usd(price.nano_usd)} per {price.unit}"


def _jump(before: int, after: int) -> str:
    """A warning where so large a step is more likely another unit."""
    far = after > JUMP * before or before > JUMP * after
    return f": more than {JUMP} times apart, so look at the unit" if far else ""


def _unit_price(tariff: Tariff) -> int | None:
    """The one number of a tariff that has just one."""
    match tariff:
        case PerImage(price, 0) | PerRequest(price):
            return price
        case PerMegapixel(price):
            return price
        case ComputeSecond(price):
            return price
        case _:
            return None
