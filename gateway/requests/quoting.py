"""What every offer would charge for a request, feasible or not, and why: the shape of `quote --json`."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from gateway.requests.call import Call
from policies import services
from policies.money import to_usd
from policies.offer_prices import quote_at
from policies.services import ServiceEntry, price_of
from policies.tariffs import Unpriced, describe
from policies.types import Ask, Decision, Offer, View
from providers.contract import ImageRequest


class QuotedOffer(Struct, frozen=True, kw_only=True):
    """One offer's price for a request, as the surface shows it."""

    offer: str
    provider: str
    model: str
    nano_usd: int | None
    usd: str | None
    certain: bool
    unit: str
    tariff: str
    source: str
    feasible: bool
    reason: str


def first_order(call: Call, per_order: int, budget_left: int | None = None) -> Ask:
    """What the engine would be asked about the first order of a call."""
    return Ask(
        call_id=call.id,
        part=0,
        request=replace(call.request, count=min(call.request.count, per_order)),
        constraints=call.constraints,
        worth=call.worth,
        intent=call.intent,
        team=call.caller.team,
        arrived=call.arrived,
        budget_left=budget_left,
    )


def quoted(request: ImageRequest, ask: Ask, decision: Decision, view: View, per_order: int = 1) -> list[QuotedOffer]:
    """Every offer the ask could mean, cheapest feasible first; `request` is the whole call, `ask` one order of it.

    A call is priced as it would be ordered, `per_order` pictures at a time, because each order is rounded by itself.
    """
    feasible = {candidate.offer.id: candidate for candidate in decision.ranked}
    reasons = {rejection.offer: rejection.reason for rejection in decision.rejected}
    rows = [
        _row(offer, request, per_order, offer.id in feasible, reasons.get(offer.id, ""))
        for offer in view.offers(ask.constraints.models)
    ]
    return sorted(rows, key=lambda row: (not row.feasible, row.nano_usd is None, row.nano_usd or 0, row.offer))


def _row(offer: Offer, request: ImageRequest, per_order: int, feasible: bool, reason: str) -> QuotedOffer:
    try:
        amount, certain, unit = price(offer, request, per_order)
    except Unpriced as error:
        amount, certain, unit = None, False, str(error)
    return QuotedOffer(
        offer=offer.id,
        provider=offer.kind,
        model=offer.model,
        nano_usd=amount,
        usd=None if amount is None else to_usd(amount),
        certain=certain,
        unit=unit,
        tariff=describe(offer.tariff),
        source=offer.source,
        feasible=feasible,
        reason=reason,
    )


def quoted_service(service: ServiceEntry, count: int, seconds: int | None) -> QuotedOffer:
    """What a seller would charge for something that is no picture; nobody can order it here."""
    charge = service.price.charge()
    try:
        amount, unit = price_of(charge, count=count, seconds=seconds), f"{count} x {_length(charge, seconds)}"
    except Unpriced as error:
        amount, unit = None, str(error)
    return QuotedOffer(
        offer=f"{service.provider}:{service.name}",
        provider=service.provider,
        model=service.name,
        nano_usd=amount,
        usd=None if amount is None else to_usd(amount),
        certain=amount is not None,
        unit=unit,
        tariff=services.describe(charge),
        source=service.source,
        feasible=False,
        reason="priced to compare; it is no picture, so no request reaches it",
    )


def _length(charge: services.Charge, seconds: int | None) -> str:
    return f"{seconds} s" if isinstance(charge, services.ByLength) else "1"


def price(offer: Offer, request: ImageRequest, per_order: int) -> tuple[int, bool, str]:
    """Nano-dollars for all pictures of a request, whether that is certain, and what is charged for."""
    amount, certain, unit = 0, True, ""
    for first in range(0, request.count, per_order):
        count = min(per_order, request.count - first)
        one = quote_at(offer, replace(request, count=count))
        amount, certain, unit = amount + one.amount, certain and one.certain, unit or one.unit
    orders = -(-request.count // per_order)
    return amount, certain, unit if orders == 1 else f"{orders} orders, the first of {unit}"
