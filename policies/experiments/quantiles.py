"""How long the slowest take, valid however often one looks.

The interval of a quantile is two order statistics, from shares somewhat below and above it: Howard and Ramdas,
"Sequential estimation of quantiles" (Bernoulli 28, 2022), theorem 1. It needs nothing of the latencies but that they
are drawn alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log, sqrt

from msgspec import Struct

QUANTILES = (0.5, 0.95, 0.99)


class Quantile(Struct, frozen=True, kw_only=True):
    """One quantile: as seen, and where it surely is."""

    value: float
    low: float
    high: float
    """Infinite while there are too few to say."""


def quantile(ordered: Sequence[float], share: float, risk: float) -> Quantile:
    """The quantile of values in rising order; `risk` is that its interval ever misses it."""
    count = len(ordered)
    if count == 0:
        return Quantile(value=0.0, low=0.0, high=inf)
    below, above = _room(count, share, risk), _room(count, 1 - share, risk)
    return Quantile(
        value=ordered[min(int(share * count), count - 1)],
        low=ordered[int((share - below) * count)] if share > below else 0.0,
        high=ordered[int((share + above) * count)] if share + above < 1 else inf,
    )


def ratio(challenger: Quantile, champion: Quantile) -> tuple[float, float]:
    """Where challenger over champion lies, at most at the risks of both together."""
    low = challenger.low / champion.high if champion.high > 0 else 0.0
    return low, challenger.high / champion.low if champion.low > 0 else inf


def _room(count: int, share: float, risk: float) -> float:
    loops = (1.4 * log(max(log(2.1 * count), 1.0)) + log(10 / risk)) / count
    return 1.5 * sqrt(share * (1 - share) * loops) + 0.8 * loops
