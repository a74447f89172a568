"""What is known of one offer at the moment of a decision; all that scorers may read besides the ask."""

from __future__ import annotations

from msgspec import Struct

from policies.latency_forecast import LatencyForecast
from policies.policy import Crowding
from policies.tariffs import Quote
from policies.types import Offer


class Facts(Struct, frozen=True, kw_only=True):
    """One offer, seen by one ask."""

    offer: Offer
    quote: Quote
    forecast: LatencyForecast
    expected_s: float
    """`forecast.expected` of the order."""
    error_rate: float
    """Probability that the order fails."""
    share_left: float
    """Unused share, 0 to 1, of its tightest capacity once this order is placed."""
    crowding: Crowding
    now: float
    wait_s: float = 0.0
    """Seconds until the order could be placed; 0 where there is room now."""
