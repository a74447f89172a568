"""How long an order will take: a prior from the catalogue, corrected by what is seen.

The forecast of one order is `typical seconds x work x what was learned`. `work` says how much larger than the
typical picture the order is. What is learned is a drift of the whole offer, an offset per amount of work, and a
histogram of (seen / forecast), from which quantiles, and the seconds an answer will probably be late, are read.

The numbers of the histogram (16 bins an octave over 7 octaves, a log-normal prior with a slow tail, worth 60
observations) come from the routing study behind this gateway, where they were tuned on simulated traffic.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import lru_cache
from itertools import accumulate, pairwise
from math import erf, exp, exp2, inf, log, log2, sqrt

from policies.policy import ForecastTerms

PIXELS_PER_WORK = 1_048_576
"""The picture whose latency the catalogue calls typical: 1024 x 1024."""

_BINS_PER_OCTAVE = 16
_OCTAVES_BELOW = 3.5
_BINS = 112
_PRIOR_WEIGHT = 60.0
_PRIOR_SPREAD = 0.25  # of the natural logarithm
_SLOW_SHARE = 0.02
_SLOW = (1.5, 8.0)  # the slow tail takes this many times longer
_CLIP = 0.35  # one surprise moves the drift by no more than this times the learning rate
_TREND_STEP = 0.2
_HASTE = 4.0  # how much faster the drift follows where every order is a surprise on the same side
_OFFSET_SHARE = 1 / 3  # an offset learns a third as fast as the drift
_FADE = 0.7  # what old observations keep when memory is full
_REFRESH = 32  # observations between two readings of the histogram
_IDLE_S = 60.0  # an offer unseen for this long begins to forget its drift...
_FORGET_S = 300.0  # ...at this time constant, so that one that was slow is tried again

SURELY = 11.4
"""Times its `expected` after which any order has ended, for all a forecast says."""

COLD_AFTER_S = 60.0
"""An offer that nobody has used for this long may have gone cold."""
_COLD_STEP = 0.4
_COLDEST = 6

_CENTRES = tuple(exp2((i + 0.5) / _BINS_PER_OCTAVE - _OCTAVES_BELOW) for i in range(_BINS))


def work(pixels: int, count: int = 1, steps: int | None = None, default_steps: int | None = None) -> float:
    """How much longer than a 1024 x 1024 picture at default steps an order takes, before anything was learned."""
    size = 0.3 + 0.7 * pixels / PIXELS_PER_WORK
    effort = 1.0 if not steps or not default_steps else 0.2 + 0.8 * steps / default_steps
    return size * effort * (0.75 + 0.25 * count)


class LatencyForecast:
    """Seconds one offer takes; `amount` is always `work(...)` of the order."""

    __slots__ = (
        "_above",
        "_bins",
        "_drift",
        "_hedge_at",
        "_mass",
        "_mean_above",
        "_offsets",
        "_seen_at",
        "_terms",
        "_trend",
        "_unread",
        "ratio_hedge",
        "ratio_p50",
        "ratio_p95",
        "typical_s",
        "version",
    )

    def __init__(self, typical_s: float, terms: ForecastTerms, hedge_at: float = 0.97) -> None:
        """`hedge_at` is the quantile whose ratio is kept as `ratio_hedge`."""
        self.typical_s = typical_s
        self._hedge_at = hedge_at
        self._terms = terms
        self._drift = 0.0
        self._trend = 0.0
        self._offsets: dict[int, float] = {}
        self._bins = list(_PRIOR)
        self._mass = _PRIOR_WEIGHT
        self._seen_at = -inf
        self._unread = 0
        self.version = 0
        """Changes whenever `expected` or a ratio may have changed, so that callers can keep what they computed."""
        self._read()

    def __repr__(self) -> str:
        p50, p95 = self.p(1.0, 0.5), self.p(1.0, 0.95)
        return f"<LatencyForecast p50 {p50:.2f}s p95 {p95:.2f}s, drift x{exp(self._drift):.2f}>"

    def retune(self, typical_s: float, terms: ForecastTerms, hedge_at: float) -> None:
        """Go by other terms from here on; seconds already learned stay, whatever is called typical now."""
        self._terms = terms
        if typical_s != self.typical_s:
            self._drift += log(self.typical_s / typical_s)
            self.typical_s = typical_s
            self.version += 1
        if hedge_at != self._hedge_at:
            self._hedge_at = hedge_at
            self._read()
            self.version += 1

    def expected(self, amount: float) -> float:
        """Seconds the middle of the histogram stands for; quantiles are multiples of it."""
        learned = exp(self._drift + self._offsets.get(_bucket(amount), 0.0))
        return self.typical_s * amount * learned

    def p(self, amount: float, quantile: float) -> float:
        """Seconds within which a share of such orders is done."""
        return self.expected(amount) * self.ratio(quantile)

    def ratio(self, quantile: float) -> float:
        """Seconds within which a share of orders is done, as a multiple of `expected`."""
        # _above falls; searching its mirror image finds the first bin with less than 1 - quantile above it.
        first = bisect_left(self._above, quantile - 1.0, key=_negative)
        return _CENTRES[min(max(first - 1, 0), _BINS - 1)]

    def above(self, expected: float, seconds: float) -> float:
        """Probability that an order with this `expected` takes longer than `seconds`."""
        return self._above[bisect_right(_CENTRES, seconds / expected)]

    def late(self, expected: float, slack: float) -> tuple[float, float]:
        """`above` and `lateness` at once, for the hot path."""
        first = bisect_right(_CENTRES, slack / expected)
        above = self._above[first]
        return above, expected * self._mean_above[first] - slack * above

    def lateness(self, expected: float, slack: float) -> float:
        """Mean seconds that an order with this `expected` ends after `slack` (0 for those that end before)."""
        return self.late(expected, slack)[1]

    def observe(self, amount: float, seconds: float, now: float, cold_s: float = 0.0) -> None:
        """Learn from an order that took `seconds`, or, for a timeout, at least so long; `cold_s` of them expected."""
        surprise = log2(max(seconds, 1e-3) / (self.expected(amount) + cold_s))
        index = int((surprise + _OCTAVES_BELOW) * _BINS_PER_OCTAVE)
        self._bins[min(max(index, 0), _BINS - 1)] += 1.0
        self._mass += 1.0
        if self._mass > self._terms.memory:
            self._bins = [weight * _FADE for weight in self._bins]
            self._mass *= _FADE
        clipped = min(max(surprise * log(2.0), -_CLIP), _CLIP)
        self._trend += _TREND_STEP * (clipped - self._trend)
        # Surprises on one side alone are no noise: the seller has become another.
        haste = 1.0 + _HASTE * max(2.0 * abs(self._trend) / _CLIP - 1.0, 0.0)
        step = self._terms.drift * haste * clipped
        self._drift += step
        bucket = _bucket(amount)
        self._offsets[bucket] = self._offsets.get(bucket, 0.0) + step * _OFFSET_SHARE
        self._seen_at = now
        self.version += 1
        self._unread += 1
        if self._unread >= _REFRESH:
            self._read()

    def forget(self, elapsed: float, now: float) -> None:
        """Let the drift fade while nothing is seen; `elapsed` is the seconds since this was last called."""
        if now - self._seen_at > _IDLE_S and self._drift:
            self._drift *= exp(-elapsed / _FORGET_S)
            self.version += 1

    def overdue(self) -> None:
        """Raise the forecast one step for orders that should have ended by now: silence is evidence too."""
        self._drift += self._terms.drift * _CLIP
        self.version += 1

    def _read(self) -> None:
        """Sum the histogram from its slow end, so that every question is one look-up."""
        self._unread = 0
        shares = [weight / self._mass for weight in reversed(self._bins)]
        means = [share * centre for share, centre in zip(shares, reversed(_CENTRES), strict=True)]
        self._above = [*reversed([*accumulate(shares)]), 0.0]
        self._mean_above = [*reversed([*accumulate(means)]), 0.0]
        self.ratio_p50, self.ratio_p95, self.ratio_hedge = self.ratio(0.5), self.ratio(0.95), self.ratio(self._hedge_at)


class ColdStart:
    """Seconds an order takes longer where nobody has used the offer for a while, learned by how long that was."""

    __slots__ = ("_extra",)

    def __init__(self) -> None:
        self._extra: dict[int, float] = {}

    def __repr__(self) -> str:
        shown = ", ".join(f"{2**far} min {extra:.1f} s" for far, extra in sorted(self._extra.items()))
        return f"<ColdStart {shown or 'never seen'}>"

    def seconds(self, idle: float) -> float:
        """Seconds beyond the forecast after `idle` seconds; as after the next shorter time seen, if this was not."""
        if idle <= COLD_AFTER_S or not self._extra:
            return 0.0
        far = _doublings(idle)
        known = max([each for each in self._extra if each <= far], default=None)
        return 0.0 if known is None else max(self._extra[known], 0.0)

    def observe(self, idle: float, beyond: float) -> None:
        """Learn from an order that took `beyond` seconds longer than a warm offer would."""
        if idle > COLD_AFTER_S:
            far = _doublings(idle)
            before = self._extra.get(far, self.seconds(idle))
            self._extra[far] = before + _COLD_STEP * (beyond - before)


def _doublings(idle: float) -> int:
    """How often a minute was doubled, up to an hour."""
    return min(int(log2(min(idle, 1e6) / COLD_AFTER_S)), _COLDEST)


def _negative(value: float) -> float:
    return -value


@lru_cache(maxsize=1024)
def _bucket(amount: float) -> int:
    """Half an octave of work; there are few amounts, and every forecast asks."""
    return round(2.0 * log2(amount))


def _prior() -> tuple[float, ...]:
    """Draw a log-normal body around 1 and a slow tail, spread evenly over its octaves."""
    edges = [(i / _BINS_PER_OCTAVE - _OCTAVES_BELOW) for i in range(_BINS + 1)]
    body = [0.5 * (1.0 + erf(edge * log(2.0) / _PRIOR_SPREAD / sqrt(2.0))) for edge in edges]
    slow = [min(max((edge - log2(_SLOW[0])) / (log2(_SLOW[1]) - log2(_SLOW[0])), 0.0), 1.0) for edge in edges]
    below = [(1.0 - _SLOW_SHARE) * b + _SLOW_SHARE * s for b, s in zip(body, slow, strict=True)]
    return tuple(_PRIOR_WEIGHT * (high - low) for low, high in pairwise(below))


_PRIOR = _prior()
