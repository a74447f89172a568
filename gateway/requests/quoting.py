"""What every offer would charge for a request, feasible or not, and why: the shape of `quote --json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from gateway.errors import sentences
from gateway.requests.call import Call, terms_of_removal
from gateway.storage.database import Database
from policies import services
from policies.billing import Billable, Billing, Expected, expect
from policies.chaining import drawing_terms, is_chained, opaque, removal, removal_terms
from policies.money import to_usd
from policies.offer_prices import quote_at
from policies.services import ServiceEntry, price_of
from policies.tariffs import Quote, Unpriced, describe
from policies.types import Ask, Candidate, Decision, Offer, Submit, View, Wait
from providers.contract import ImageRequest

Decide: TypeAlias = Callable[[Ask], Decision]
"""What the engine says to an ask."""


class Invoices(Struct, frozen=True, kw_only=True):
    """How the invoices of accounts stand at a moment."""

    at: datetime
    billings: Mapping[str, Billing] = {}
    """Account -> what its invoice makes of list prices."""
    counters: Mapping[str, Mapping[str, int]] = {}
    """Account -> what it has counted."""

    def expect(self, offer: Offer, orders: Sequence[Quote], pictures: Sequence[int]) -> Expected:
        """What orders at an offer will come to, of so many pictures each."""
        counters = self.counters.get(offer.account, {})
        billables = [
            Billable(listed=order.amount, pictures=count, at=self.at, model=offer.model)
            for order, count in zip(orders, pictures, strict=True)
        ]
        return expect(self.billings.get(offer.account, Billing()), lambda name: counters.get(name, 0), billables)


async def invoices_of(db: Database, billings: Mapping[str, Billing], at: datetime) -> Invoices:
    """How the invoices stand that are more than their list prices."""
    counters = {account: await db.billing_counters(account) for account in billings}
    return Invoices(at=at, billings=billings, counters=counters)


class QuotedOffer(Struct, frozen=True, kw_only=True):
    """One offer's price for a request, as the surface shows it; with that of a second order, where it takes two."""

    offer: str
    provider: str
    model: str
    nano_usd: int | None
    """By the list: what the caller is charged."""
    usd: str | None
    hold_nano_usd: int | None
    """What is set aside for it, by the list and at most."""
    expected_nano_usd: int | None
    """What it will cost us as the invoice of the account stands, if it is the next on it."""
    why: Sequence[str]
    """Why that is not the list price, a sentence each."""
    revision: int | None
    """Of the prices; None for what is no part of the catalogue."""
    certain: bool
    unit: str
    tariff: str
    source: str
    feasible: bool
    reason: str
    then: str | None = None
    """The offer of the second order, where a picture takes two; its price is in `nano_usd`."""


class Weighed(Struct, frozen=True, kw_only=True):
    """The first order of a call, and what the engine says to it; and of its second order, where it takes two."""

    ask: Ask
    decision: Decision
    per_order: int
    then: tuple[Ask, Decision] | None = None

    @property
    def after(self) -> Candidate | None:
        """Who would finish the drawings."""
        return None if self.then is None else best_of(self.then[1])


def best_of(decision: Decision) -> Candidate | None:
    """Whom a decision orders from, or waits for."""
    match decision.move:
        case Submit(candidate) | Wait(best=Candidate() as candidate):
            return candidate
        case _:
            return None


def weigh(call: Call, per_order: int, budget_left: int | None, view: View, decide: Decide) -> Weighed:
    """Ask the engine about a call as the request path would, and order nothing."""
    ask = first_order(call, per_order, budget_left)
    if not is_chained(ask, view.offers(ask.constraints.models)):
        return Weighed(ask=ask, decision=decide(ask), per_order=per_order)
    terms, request = call.constraints, replace(ask.request, count=1)
    second = replace(ask, request=removal(request), constraints=removal_terms(terms, terms_of_removal(call), 0))
    finished = decide(second)
    after = best_of(finished)
    drawn = replace(
        ask,
        request=opaque(request),
        constraints=terms if after is None else drawing_terms(terms, after),
        budget_left=budget_left if budget_left is None or after is None else max(budget_left - after.quote.hold, 0),
    )
    return Weighed(ask=drawn, decision=decide(drawn), per_order=1, then=(second, finished))


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


def quoted(count: int, weighed: Weighed, view: View, invoices: Invoices) -> list[QuotedOffer]:
    """Every offer that could be meant, cheapest feasible first, for a call of `count` pictures.

    A call is priced as it would be ordered, so many pictures at a time, because each order is rounded by itself.
    """
    ask, decision = weighed.ask, weighed.decision
    feasible = {candidate.offer.id: candidate for candidate in decision.ranked}
    reasons = {rejection.offer: rejection.reason for rejection in decision.rejected}
    request = replace(ask.request, count=count)
    rows = [
        replace(
            _row(offer, ask.constraints.asked(offer.id, request), weighed.per_order, invoices),
            revision=view.prices,
            feasible=offer.id in feasible,
            reason=reasons.get(offer.id, ""),
        )
        for offer in view.offers(ask.constraints.models)
    ]
    if weighed.then is not None:
        rows = [_with_second(row, count, weighed.after, weighed.then[1], invoices) for row in rows]
    return sorted(rows, key=lambda row: (not row.feasible, row.nano_usd is None, row.nano_usd or 0, row.offer))


def _row(offer: Offer, request: ImageRequest, per_order: int, invoices: Invoices) -> QuotedOffer:
    """What an offer would charge, whether or not it may serve."""
    counts = [min(per_order, request.count - first) for first in range(0, request.count, per_order)]
    amount = hold = expected = None
    certain = False
    why: tuple[str, ...] = ()
    try:
        orders = [quote_at(offer, replace(request, count=count)) for count in counts]
    except Unpriced as error:
        unit = str(error)
    else:
        unit = orders[0].unit if len(orders) == 1 else f"{len(orders)} orders, the first of {orders[0].unit}"
        amount, hold = sum([order.amount for order in orders]), sum([order.hold for order in orders])
        certain = all(order.certain for order in orders)
        forecast = invoices.expect(offer, orders, counts)
        expected, why = forecast.amount, forecast.why
    return QuotedOffer(
        offer=offer.id,
        provider=offer.kind,
        model=offer.model,
        nano_usd=amount,
        usd=None if amount is None else to_usd(amount),
        hold_nano_usd=hold,
        expected_nano_usd=expected,
        why=why,
        revision=None,
        certain=certain,
        unit=unit,
        tariff=describe(offer.tariff),
        source=offer.source,
        feasible=False,
        reason="",
    )


def _with_second(
    row: QuotedOffer, count: int, after: Candidate | None, decision: Decision, invoices: Invoices
) -> QuotedOffer:
    """A drawing's price with that of the order that finishes it; without one, nobody may serve."""
    if after is None:
        why = sentences([rejection.reason for rejection in decision.rejected]) or "no offer removes backgrounds"
        reason = f"its background stays: {why}"
        return replace(
            row,
            nano_usd=None,
            usd=None,
            hold_nano_usd=None,
            expected_nano_usd=None,
            why=(),
            certain=False,
            feasible=False,
            reason=reason,
        )
    if row.nano_usd is None or row.hold_nano_usd is None or row.expected_nano_usd is None:
        return row
    amount = row.nano_usd + count * after.quote.amount
    second = invoices.expect(after.offer, [after.quote] * count, [1] * count)
    return replace(
        row,
        nano_usd=amount,
        usd=to_usd(amount),
        hold_nano_usd=row.hold_nano_usd + count * after.quote.hold,
        expected_nano_usd=row.expected_nano_usd + second.amount,
        why=(*row.why, *(f"{after.offer.id}: {sentence}" for sentence in second.why)),
        certain=row.certain and after.quote.certain,
        unit=f"{row.unit}, then {count} x {after.quote.unit}",
        then=after.offer.id,
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
        hold_nano_usd=amount,
        expected_nano_usd=amount,
        why=(),
        revision=None,
        certain=amount is not None,
        unit=unit,
        tariff=services.describe(charge),
        source=service.source,
        feasible=False,
        reason="priced to compare; it is no picture, so no request reaches it",
    )


def _length(charge: services.Charge, seconds: int | None) -> str:
    return f"{seconds} s" if isinstance(charge, services.ByLength) else "1"
