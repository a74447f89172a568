"""What accounts' invoices mean for choosing: the slots that credit buys, and the share of a price that is owed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from gateway.storage.database import Database
from policies.billing import Billable, Billing, expect, slots_bought
from policies.catalog import Catalog
from policies.money import USD
from policies.types import Offer


class Outlook(Struct, frozen=True, kw_only=True):
    """How an account's next order stands."""

    slots: int | None = None
    """Orders in flight that its credit buys; None where it says nothing of them."""
    share: float = 1.0
    """Of its list price, what the next order will cost, in thousandths."""


async def outlooks(db: Database, billings: Mapping[str, Billing], at: datetime) -> Mapping[str, Outlook]:
    """Account -> how its next order stands at a moment, where that is not as the list and the contract say."""
    found: dict[str, Outlook] = {}
    for account, billing in billings.items():
        counted = Counter(await db.billing_counters(account)).__getitem__
        owed = expect(billing, counted, [Billable(listed=USD, pictures=1, at=at)]).amount
        outlook = Outlook(slots=slots_bought(billing, counted, at), share=round(owed / USD, 3))
        if outlook != Outlook():
            found[account] = outlook
    return found


def as_invoiced(catalog: Catalog, ahead: Mapping[str, Outlook]) -> Catalog:
    """The catalogue, where accounts allow what their credit buys, and offers weigh by what they will cost."""
    if not ahead:
        return catalog
    offers = {name: _as_invoiced(offer, ahead) for name, offer in catalog.offers.items()}
    capacities = dict(catalog.capacities)
    for account, outlook in ahead.items():
        capacity = capacities.get(account)
        if capacity is not None and capacity.slots is not None and outlook.slots is not None:
            capacities[account] = replace(capacity, slots=max(capacity.slots, outlook.slots))
    by_model = {model: tuple(offers[offer.id] for offer in some) for model, some in catalog.by_model.items()}
    return replace(catalog, offers=offers, by_model=by_model, capacities=capacities)


def _as_invoiced(offer: Offer, ahead: Mapping[str, Outlook]) -> Offer:
    share = ahead.get(offer.account, Outlook()).share
    return offer if share == 1.0 else replace(offer, counted=offer.counted * share)
