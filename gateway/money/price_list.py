"""Holds sellers' own price lists against ours: what differs, what changed since last time, what is no longer listed.

A list names a price per billing unit, and sellers name units loosely (fal lists `image` where its pages say megapixel),
so a price is compared by its number, and a unit only with the unit that was listed before. Nothing is changed here:
what differs is proposed, and somebody applies it or does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from gateway.storage.prices import ChangeKind, PriceChange, Proposal
from policies.listed_prices import of_one_number, unit_price
from policies.money import to_usd
from policies.price_book import in_force
from policies.price_jumps import JUMP, far
from policies.types import Offer
from providers.contract import ListedPrice

Verdict: TypeAlias = Literal["same", "differs", "changed", "unit", "gone", "apart", "estimate"]
"""same; differs from ours; changed since last time; unit: its unit changed; gone: no longer listed, or no longer sold;
apart: not to be compared; estimate: the seller estimates other than its list, or our book, says."""


class Finding(Struct, frozen=True, kw_only=True):
    """One endpoint of the list beside our price; amounts in nano-dollars per billing unit."""

    account: str
    endpoint: str
    offers: tuple[str, ...]
    verdict: Verdict
    ours: int | None
    theirs: int | None
    unit: str
    unit_before: str = ""
    """What the unit was called when it was last read, where that is another word."""
    estimate: int | None = None
    """What the seller estimates a unit to cost, where its list says another price than before, or than ours."""
    sold: bool = True
    """Whether its seller still has the model."""
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
        ours, price, earlier = unit_price(sold[0].tariff), now.get(endpoint), before.get(endpoint)
        verdict, says = _verdict(ours, price, earlier)
        yield Finding(
            account=account,
            endpoint=endpoint,
            offers=tuple(offer.id for offer in sold),
            verdict=verdict,
            ours=ours,
            theirs=None if price is None else price.nano_usd,
            unit="" if price is None else price.unit,
            unit_before=earlier.unit if earlier is not None and verdict == "unit" else "",
            says=says,
        )


def expected_prices(findings: Iterable[Finding]) -> Mapping[str, Finding]:
    """Endpoint -> what was found of it, where a unit has a price."""
    return {each.endpoint: each for each in findings if each.sold and expected(each)}


def expected(finding: Finding) -> int:
    """What a unit costs by the list, else by our book; 0 where neither says."""
    return (finding.ours or 0) if finding.theirs is None else finding.theirs


def estimated(finding: Finding, price: int) -> Finding:
    """What is to be told where a seller estimates another price for a unit than expected; beside what its list says."""
    if finding.verdict not in ("same", "apart"):
        says = f"{finding.says}; its own estimate says ${to_usd(price)}"
        return replace(finding, estimate=price, says=says)
    says = f"estimated at ${to_usd(price)} a unit, where ${to_usd(expected(finding))} was expected"
    return replace(finding, verdict="estimate", theirs=price, says=says)


def no_longer_sold(account: str, offers: Iterable[Offer], still: frozenset[str]) -> Iterator[Finding]:
    """A finding for each endpoint that is not among those its seller still sells."""
    gone: dict[str, list[str]] = {}
    for offer in offers:
        if offer.endpoint not in still:
            gone.setdefault(offer.endpoint, []).append(offer.id)
    for endpoint, sold_as in gone.items():
        yield Finding(
            account=account,
            endpoint=endpoint,
            offers=tuple(sold_as),
            verdict="gone",
            ours=None,
            theirs=None,
            unit="",
            sold=False,
            says=f"{account} no longer has this model",
        )


def changes_of(
    findings: Sequence[Finding], offers: Mapping[str, Offer], earlier: Sequence[Proposal], now: datetime
) -> Sequence[PriceChange]:
    """What a look at an account's list would change of the price book.

    `earlier` are the account's proposals so far: what was rejected is not proposed again until the list says something
    else, and a unit that changed stays proposed until somebody has decided. Left alone are offers whose price is agreed
    with the account, or of which the book knows already that they will cost this.
    """
    rejected = {each.change.seen for each in earlier if each.state == "rejected"}
    waiting = {each.change.seen: each.change for each in earlier if each.state == "open" and each.change.kind == "unit"}
    found: list[PriceChange] = []
    for finding in findings:
        for offer in (offers[name] for name in finding.offers if name in offers):
            standing = waiting.get((offer.id, "unit", finding.unit, finding.theirs))
            change = _change(finding, offer, now) if standing is None else standing
            if change is not None and change.seen not in rejected:
                found.append(change)
    return found


def _change(finding: Finding, offer: Offer, now: datetime) -> PriceChange | None:
    if not finding.sold:
        return None if offer.retires else _as_change(finding, offer, "gone", None, "")
    ours, listed = unit_price(offer.tariff), finding.theirs
    if listed is None or ours is None or _agreed(offer, now):
        return None
    if finding.verdict == "unit":
        why = (
            f"the unit is called {finding.unit} now, before {finding.unit_before}: is it still counted as we count it?"
        )
        return _as_change(finding, offer, "unit", ours, why)
    if finding.verdict == "estimate":
        return _as_change(finding, offer, "price", ours, f"an estimate and no list: {finding.says}")
    if listed == ours or any(unit_price(row.tariff) == listed for row in offer.book if row.since and row.since > now):
        return None
    waits = _why_waits(offer, ours, listed)
    if finding.estimate is not None and not waits:
        waits = f"the seller's own estimate says ${to_usd(finding.estimate)}"
    return _as_change(finding, offer, "price", ours, waits)


def _why_waits(offer: Offer, ours: int, listed: int) -> str:
    """What somebody must look at before a price counts; empty where nothing is odd."""
    if not listed:
        return "a price of $0"
    if far(ours, listed):
        return f"more than {JUMP} times apart"
    return "" if of_one_number(offer.tariff) else "one of several numbers; the others would follow in proportion"


def _as_change(finding: Finding, offer: Offer, kind: ChangeKind, ours: int | None, waits: str) -> PriceChange:
    return PriceChange(
        offer=offer.id,
        endpoint=finding.endpoint,
        kind=kind,
        unit=finding.unit,
        unit_before=finding.unit_before,
        ours=ours,
        listed=finding.theirs,
        waits=waits,
        says=finding.says if kind == "gone" else f"${to_usd(finding.theirs or 0)} per {finding.unit}",
    )


def _agreed(offer: Offer, now: datetime) -> bool:
    """Whether the price in force is the account's own: what a contract says was never looked up."""
    row = in_force(offer.book, now)
    return row is not None and not row.checked_on


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
    return ("apart", f"{_listed(price)}; ours is of another kind") if ours is None else ("same", _listed(price))


def _listed(price: ListedPrice) -> str:
    return f"${to_usd(price.nano_usd)} per {price.unit}"


def _jump(before: int, after: int) -> str:
    """A warning where so large a step is more likely another unit."""
    return f": more than {JUMP} times apart, so look at the unit" if far(before, after) else ""
