"""Two orders for one picture: where nobody paints a transparent background, one draws and the next cuts it out.

Both prices belong to the one picture, so the terms of each order are the caller's less what the other takes.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from policies.eligibility import objection
from policies.types import Ask, Candidate, Constraints, Offer
from providers.contract import ImageRequest


def may_chain(request: ImageRequest) -> bool:
    """Whether a request could take two orders."""
    return request.transparent and request.operation != "remove_background"


def is_chained(ask: Ask, offers: Iterable[Offer]) -> bool:
    """Whether an ask takes two orders: it wants a transparent background, and no offer it may mean paints one."""
    return may_chain(ask.request) and not any(objection(offer, ask) is None for offer in offers)


def opaque(request: ImageRequest) -> ImageRequest:
    """What the first order draws: the same picture without transparency, with nothing lost to compression."""
    return replace(request, transparent=False, format="png")


def removal(request: ImageRequest) -> ImageRequest:
    """What the second order is asked: one picture of the same size, and only what it shows."""
    return ImageRequest(
        operation="remove_background",
        width=request.width,
        height=request.height,
        format=request.format,
        transparent=True,
        safety=request.safety,
        references=(request.size,),
    )


def drawing_terms(terms: Constraints, after: Candidate) -> Constraints:
    """The caller's terms for the first order: the second needs a part of the money and of the time."""
    return replace(terms, ceiling=_less(terms.ceiling, after.quote.amount), slo=max(terms.slo - after.latency_p50, 0.0))


def removal_terms(terms: Constraints, own: Constraints, spent: int) -> Constraints:
    """The terms for the second order, after `spent` nano-dollars on the first.

    `terms` are those of the whole, `own` those of an order of its kind: any model that the key may use, for the ones
    that the caller named are for drawing.
    """
    ceilings = [each for each in (_less(terms.ceiling, spent), own.ceiling) if each is not None]
    return replace(
        own,
        ceiling=min(ceilings, default=None),
        slo=min(terms.slo, own.slo),
        deadline=min(terms.deadline, own.deadline),
    )


def _less(ceiling: int | None, spent: int) -> int | None:
    return None if ceiling is None else max(ceiling - spent, 0)
