"""`pixelgate calculator`: what volumes would cost, a month and a year, at every offer."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from gateway.cli.shell import HERE, Json, Stop, Where, dollars, print_json, table
from gateway.requests.quoting import QuotedOffer
from gateway.revisions import load_revision
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

    Every picture is an order of its own, at the listed price. Exit code 1: no offer can draw it.

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
        Show what a year costs instead of a month.
    """
    from gateway.cli.offline import weigh

    counts = _volumes(volumes)
    fields = {"model": model, "size": size, "n": 1, "steps": steps}
    revision = load_revision(where.settings(), every_account=True)
    quotes = weigh(revision, fields, tier=Tier[tier.upper()] if tier else None).quotes()
    offers = [offer for offer in quotes if offer.feasible and offer.nano_usd is not None]
    if json:
        print_json({"offers": [_shape(offer, counts) for offer in offers]})
    else:
        _print(offers, counts, 12 if yearly else 1)
    return 0 if offers else 1


def _shape(offer: QuotedOffer, counts: list[int]) -> dict[str, object]:
    price = offer.nano_usd or 0
    volumes = [
        {"images_per_month": count, "month_nano_usd": price * count, "year_nano_usd": price * count * 12}
        for count in counts
    ]
    return {
        "offer": offer.offer,
        "provider": offer.provider,
        "model": offer.model,
        "nano_usd": price,
        "certain": offer.certain,
        "volumes": volumes,
    }


def _print(offers: list[QuotedOffer], counts: list[int], months: int) -> None:
    if not offers:
        print("no offer can draw this")
        return
    span = "a year of 12 months" if months > 1 else "a month"
    print(f"dollars {span}, by pictures a month")
    rows: list[tuple[str, ...]] = [("offer", "a picture", *(f"{count:,}" for count in counts))]
    for offer in offers:
        about = "" if offer.certain else "about "
        price = offer.nano_usd or 0
        rows.append((offer.offer, about + dollars(price), *(_cents(price * count * months) for count in counts)))
    print(table(rows, right=frozenset(range(1, len(counts) + 2))))


def _cents(nano: int) -> str:
    """Dollars rounded half to even to the cent, for the table; `--json` has every digit."""
    cents = half_even(Fraction(nano, 10_000_000))
    return f"{cents // 100:,}.{cents % 100:02}"


def _volumes(text: str) -> list[int]:
    found = [part.strip().replace("_", "") for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) <= 10**9 for part in found):
        raise Stop(f"--volumes {text}: pictures a month with commas between, each from 1 to 1,000,000,000")
    return sorted({int(part) for part in found})
