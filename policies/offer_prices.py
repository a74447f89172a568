"""What an order costs at an offer: its tariff, its steps and its pace put together."""

from __future__ import annotations

from policies.latency_forecast import work
from policies.tariffs import Quote, by_time, quote
from policies.types import Offer
from providers.contract import ImageRequest

_LONGEST = 8
"""How many times longer than expected an order by time may take before its hold is too small."""


def quote_at(offer: Offer, request: ImageRequest, *, revision: int = 0, expected_s: float | None = None) -> Quote:
    """Price `request` at `offer`; `expected_s` is what was observed, the catalogue's pace when left out.

    Raises `Unpriced` when the offer has no price for the size.
    """
    tariff, default_steps = offer.tariff, offer.abilities.default_steps
    if not by_time(tariff):
        return quote(tariff, request, default_steps=default_steps, revision=revision)
    if expected_s is None:
        pixels = request.width * request.height
        expected_s = offer.typical_s * work(pixels, request.count, request.steps, default_steps)
    expected_ns = round(expected_s * 1e9)
    return quote(
        tariff,
        request,
        default_steps=default_steps,
        revision=revision,
        expected_machine_ns=expected_ns,
        longest_machine_ns=_LONGEST * expected_ns,
    )
