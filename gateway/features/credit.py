"""The concurrency that prepaid credit buys, for as long as some of it is left: an account's slots follow its lots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from msgspec.structs import replace

from gateway.storage.database import Database
from policies.billing import Billing, slots_bought
from policies.catalog import Catalog


async def slots_of_credit(db: Database, billings: Mapping[str, Billing], at: datetime) -> Mapping[str, int]:
    """Account -> orders in flight that its credit allows at a moment; only those whose credit says so."""
    found: dict[str, int] = {}
    for account, billing in billings.items():
        if any(lot.slots is not None for lot in billing.lots):
            slots = slots_bought(billing, Counter(await db.billing_counters(account)).__getitem__, at)
            if slots is not None:
                found[account] = slots
    return found


def with_slots(catalog: Catalog, bought: Mapping[str, int]) -> Catalog:
    """The catalogue, where accounts allow what their credit buys, if that is more than without it."""
    more = {
        name: replace(capacity, slots=max(capacity.slots, bought[name]))
        for name, capacity in catalog.capacities.items()
        if name in bought and capacity.slots is not None
    }
    return replace(catalog, capacities={**catalog.capacities, **more}) if more else catalog
