"""What the same pictures would have cost elsewhere, at the tariffs in force."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from policies.money import NanoUsd
from policies.offer_prices import quote_at
from policies.tariffs import Unpriced
from policies.types import Offer
from providers.contract import ImageRequest


class Elsewhere(Struct, frozen=True):
    """The least that some offers would charge for an order."""

    amount: NanoUsd
    certain: bool
    offer: str


def fits(offer: Offer, request: ImageRequest) -> bool:
    """Whether an offer is for sale and draws this size from words."""
    able = offer.abilities
    return (
        not offer.retired and request.operation in able.operations and able.sizes.allows(request.width, request.height)
    )


def cheapest(offers: Iterable[Offer], request: ImageRequest, model: str | None = None) -> Elsewhere | None:
    """The least any of `offers` would charge for `request`; None when none of them can draw it.

    Steps are those of `model`, the one that drew it; another model is priced at its own. An offer that draws fewer
    pictures at once is priced for as many orders as it takes.
    """
    prices = [found for offer in offers if (found := _price(offer, request, model)) is not None]
    return min(prices, key=lambda price: (price.amount, price.offer), default=None)


def at_account(offers: Sequence[Offer], request: ImageRequest, offer: Offer, account: str) -> Elsewhere | None:
    """What one account would charge: for the very model, else for its cheapest model that is at least as good."""
    sold = [each for each in offers if each.account == account]
    same = cheapest([each for each in sold if each.model == offer.model], request, offer.model)
    return same or cheapest([each for each in sold if each.tier >= offer.tier], request, offer.model)


def _price(offer: Offer, request: ImageRequest, model: str | None) -> Elsewhere | None:
    if not fits(offer, request):
        return None
    if offer.model != model:
        request = replace(request, steps=None)
    amount, certain = 0, True
    try:
        for first in range(0, request.count, offer.abilities.max_count):
            part = replace(request, count=min(offer.abilities.max_count, request.count - first))
            quote = quote_at(offer, part)
            amount, certain = amount + quote.amount, certain and quote.certain
    except Unpriced:
        return None
    return Elsewhere(amount, certain, offer.id)
