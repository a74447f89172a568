"""`pixelgate calculator`: what volumes would cost, a month and a year, at every offer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Literal

from msgspec import Struct

from gateway.cli.shell import HERE, Json, Stop, Where, dollars, print_json, table
from gateway.requests.quoting import Invoices, QuotedOffer
from gateway.revisions import load_revision
from policies.billing import Billable, Billing, costs
from policies.money import half_even
from policies.types import Tier


def calculator(  # noqa: PLR0913 - the terms of a request
    *,
    model: str = "auto",
    tier: Literal["preview", "standard", "export"] | None = None,
    size: str = "1024x1024",
    steps: int | None = None,
    volumes: str = "100,1000,10000,50000,100000",
    yearly: bool = False,
    json: Json = False,
    where: Where = HERE,
) -> int:
    """Price volumes of pictures a month at every offer, cheapest first. Needs no keys and orders nothing.

    Every picture is an order of its own. What an account's billing says counts as in a month that has just begun, with
    nothing of its allowances used: volume discounts, what is free, licences. Exit code 1: no offer can draw it.

    Parameters
    ----------
    model
        A model or alias, or `auto` for every model of the tier.
    tier
        The least tier; the policy's default intent decides when left out.
    size
        WIDTHxHEIGHT in pixels, or a name such as landscape_4_3.
    steps
        Steps of the model; its default when left out.
    volumes
        Pictures a month, with commas between.
    yearly
        Show what a year of such months costs instead of one; what is given once is taken off once.
    """
    from gateway.cli.offline import weigh

    counts = _volumes(volumes)
    fields = {"model": model, "size": size, "n": 1, "steps": steps}
    now = datetime.now(UTC)
    revision = load_revision(where.settings(), every_account=True, at=now)
    catalog = revision.catalog
    quotes = weigh(revision, fields, tier=Tier[tier.upper()] if tier else None).quotes(Invoices(at=now))
    priced = [
        _Priced(offer, _volumes_at(offer, catalog.billings.get(catalog.offers[offer.offer].account), counts, now))
        for offer in quotes
        if offer.feasible and offer.nano_usd is not None
    ]
    if json:
        print_json({"revision": catalog.revision, "offers": [_shape(each) for each in priced]})
    else:
        _print(priced, counts, yearly=yearly)
    return 0 if priced else 1


class _Volume(Struct, frozen=True):
    """What so many pictures a month cost."""

    images_per_month: int
    month_nano_usd: int
    year_nano_usd: int
    certain: bool
    """Whether every discount in it is published."""


class _Priced(Struct, frozen=True):
    offer: QuotedOffer
    volumes: Sequence[_Volume]


def _volumes_at(offer: QuotedOffer, billing: Billing | None, counts: Sequence[int], now: datetime) -> list[_Volume]:
    """What volumes cost at an offer, in the month that begins now and in the twelve from now."""
    billing = billing or Billing()
    order = Billable(listed=offer.nano_usd or 0, pictures=1, at=now, model=offer.model)
    months = [now, *(datetime(now.year + month // 12, month % 12 + 1, 15, tzinfo=UTC) for month in _after(now.month))]
    found = []
    for count in counts:
        by_month = costs(billing, order, count, months)
        certain = billing.certain_to is None or count <= billing.certain_to
        found.append(_Volume(count, by_month[0], sum(by_month), certain))
    return found


def _after(month: int) -> range:
    """The eleven months after one, counted from January as 0."""
    return range(month, month + 11)


def _shape(priced: _Priced) -> dict[str, object]:
    offer = priced.offer
    return {
        "offer": offer.offer,
        "provider": offer.provider,
        "model": offer.model,
        "nano_usd": offer.nano_usd,
        "certain": offer.certain,
        "volumes": priced.volumes,
    }


def _print(priced: Sequence[_Priced], counts: list[int], *, yearly: bool) -> None:
    if not priced:
        print("no offer can draw this")
        return
    print(f"dollars {'a year of 12 months' if yearly else 'a month'}, by pictures a month")
    rows: list[tuple[str, ...]] = [("offer", "a picture", *(f"{count:,}" for count in counts))]
    for each in priced:
        about = "" if each.offer.certain else "about "
        rows.append(
            (each.offer.offer, about + dollars(each.offer.nano_usd), *(_cell(one, yearly) for one in each.volumes))
        )
    print(table(rows, right=frozenset(range(1, len(counts) + 2))))


def _cell(volume: _Volume, yearly: bool) -> str:
    amount = _cents(volume.year_nano_usd if yearly else volume.month_nano_usd)
    return amount if volume.certain else f"about {amount}"


def _cents(nano: int) -> str:
    """Dollars rounded half to even to the cent, for the table; `--json` has every digit."""
    cents = half_even(Fraction(nano, 10_000_000))
    return f"{cents // 100:,}.{cents % 100:02}"


def _volumes(text: str) -> list[int]:
    found = [part.strip().replace("_", "") for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) <= 10**9 for part in found):
        raise Stop(f"--volumes {text}: pictures a month with commas between, each from 1 to 1,000,000,000")
    return sorted({int(part) for part in found})
