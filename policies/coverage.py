"""Whether a policy leaves anybody to serve an intent: a plain call of it, at the policy's own size."""

from __future__ import annotations

from collections.abc import Iterable

from policies.eligibility import CODES, objection, price_objection
from policies.offer_prices import quote_at
from policies.policy import Policy
from policies.tariffs import Unpriced
from policies.types import Ask, Offer, Rejection
from providers.contract import ImageRequest


def unserved(policy: Policy, intent: str, offers: Iterable[Offer]) -> str | None:
    """Why none of `offers` can serve a plain call of an intent, by the one that came furthest; None when one can."""
    width, height = policy.auto_size
    ask = Ask(
        call_id="",
        part=0,
        request=ImageRequest(prompt="-", width=width, height=height),
        constraints=policy.constraints(policy.intents[intent]),
        intent=intent,
        arrived=0.0,
    )
    furthest: Rejection | None = None
    for offer in offers:
        why = _why_not(offer, ask)
        if why is None:
            return None
        if furthest is None or CODES.index(why.code) > CODES.index(furthest.code):
            furthest = why
    return "nothing is for sale" if furthest is None else furthest.reason


def _why_not(offer: Offer, ask: Ask) -> Rejection | None:
    objected = objection(offer, ask)
    if objected is not None:
        return objected
    try:
        return price_objection(offer, ask, quote_at(offer, ask.request))
    except Unpriced as error:
        return Rejection(offer=offer.id, code="price", reason=str(error))
