"""What pairs of a comparison say, valid however often one looks.

People look at a running comparison every day, and a test made for one look then finds differences that are not there
(about three times in ten). Everything here holds at every look at once: an interval that ever excludes a value may be
believed, with the stated risk, whenever it is read.

    Planned      pairs a comparison needs, and the limit its evidence is measured against
    Means        an interval for the mean difference of pairs, narrowest around the planned number of pairs
    Failures     a test of who fails more often, exact however rare failures are
    verdict      better, worse, equivalent, or not yet decided

`Means` is a constant boundary on the sum of differences up to the planned pairs (the probability that Brownian motion
leaves a band is known in closed form: Feller, An Introduction to Probability Theory, vol. 2, X.5), and a normal mixture
beyond them (Robbins, Ann. Math. Stat. 41, 1970); nine tenths of the risk belong to the first. `Failures` is a
likelihood ratio against a fair coin, whose reciprocal bounds the risk (Ville's inequality).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import ceil, exp, inf, lgamma, log, pi, sqrt
from statistics import NormalDist
from typing import Literal, TypeAlias

from msgspec import Struct

Verdict: TypeAlias = Literal["lower", "higher", "equivalent", "undecided"]
"""Of the challenger against the champion: its cost, latency, failures or score."""

WITHIN_PLAN = 0.9
"""Share of the risk spent up to the planned number of pairs; the rest covers whoever goes on looking."""
FEWEST = 20
"""Pairs before which a spread is not known well enough to say anything."""
FEWEST_FOR_FAILURES = 300
"""Pairs before which the interval of rare failures means nothing."""
POWER = 0.85
"""Chance of finding what a plan is sized for; a little above the 80 % people expect."""
STEP = 0.583
"""A walk passes a wall as Brownian motion passes one so many steps further (Siegmund, Sequential Analysis, 10.2)."""
PATIENCE_DAYS = 90.0
"""A comparison that would take longer is called undecidable at once."""

_LARGEST = 700.0
"""Above this `exp` overflows."""
_normal = NormalDist()


class Interval(Struct, frozen=True):
    """Where the mean difference (challenger minus champion) lies."""

    low: float
    high: float

    def within(self, margin: float) -> bool:
        """Whether nothing in it is further from zero than `margin`."""
        return -margin < self.low and self.high < margin


class Planned(Struct, frozen=True, kw_only=True):
    """How a measure is to be judged."""

    pairs: int
    """What the comparison is sized for; it may stop earlier and may go on."""
    alpha: float
    """Risk of ever calling equal things different, already divided by the number of measures looked at."""
    margin: float | None = None
    """Differences smaller than this do not matter; None: nothing is ever called equivalent."""


class Means:
    """The mean of the differences of pairs."""

    def __init__(self, planned: Planned) -> None:
        self._planned = planned
        self._bands = {
            risk: (band(WITHIN_PLAN * risk), (1 - WITHIN_PLAN) * risk) for risk in (planned.alpha, 2 * planned.alpha)
        }
        self.pairs = 0
        self.mean = 0.0
        self._squares = 0.0  # sum of squared deviations from the mean, after Welford

    def add(self, difference: float) -> None:
        """Take in one pair: challenger minus champion."""
        self.pairs += 1
        step = difference - self.mean
        self.mean += step / self.pairs
        self._squares += step * (difference - self.mean)

    @property
    def spread(self) -> float:
        """Standard deviation of the differences."""
        return sqrt(self._squares / (self.pairs - 1)) if self.pairs > 1 else inf

    def interval(self, risk: float | None = None) -> Interval:
        """Where the mean lies, at the planned risk or at twice that (each side by itself at the planned one)."""
        if self.pairs < FEWEST:
            return Interval(-inf, inf)
        radius = self._radius(self._planned.alpha if risk is None else risk)
        return Interval(self.mean - radius, self.mean + radius)

    def _radius(self, risk: float) -> float:
        edge, left = self._bands[risk]
        pairs, planned = self.pairs, self._planned.pairs
        if pairs <= planned:
            return edge * _student(edge, pairs) * self.spread * sqrt(planned) / pairs
        return self.spread * _mixture(pairs, 4 * planned, left)

    def verdict(self) -> Verdict:
        """What may be said by now."""
        margin = self._planned.margin
        if margin is not None and self.interval(2 * self._planned.alpha).within(margin):
            return "equivalent"
        sure = self.interval()
        return "lower" if sure.high < 0 else "higher" if sure.low > 0 else "undecided"


class Failures:
    """Who fails more often. Pairs in which both fail or neither does say nothing about that."""

    def __init__(self, planned: Planned, share: float = 0.75) -> None:
        """`share` is how many of the pairs with one failure the worse side is thought to have, for most power there."""
        self._planned = planned
        self._share = share
        self._means = Means(planned)
        self.champion = 0
        """Pairs in which the champion alone failed."""
        self.challenger = 0
        """Pairs in which the challenger alone failed."""

    def add(self, *, champion: bool, challenger: bool) -> None:
        """Take in one pair: who failed."""
        self._means.add(challenger - champion)
        self.champion += champion and not challenger
        self.challenger += challenger and not champion

    @property
    def pairs(self) -> int:
        """Pairs taken in."""
        return self._means.pairs

    def interval(self) -> Interval:
        """Where the difference of the failure rates lies; everything until failures are no longer rare."""
        return self._means.interval() if self._means.pairs >= FEWEST_FOR_FAILURES else Interval(-inf, inf)

    def evidence(self) -> float:
        """How many times likelier the single failures are under unequal sides than under equal ones."""
        one, other = self.champion, self.challenger
        both = one + other
        fair = both * log(0.5)
        with_share = [a * log(self._share) + b * log(1 - self._share) for a, b in ((one, other), (other, one))]
        spread_out = _log_beta(one + 0.5, other + 0.5) - _log_beta(0.5, 0.5)
        return sum(exp(min(each - fair, 700.0)) for each in with_share) * 0.45 + 0.1 * exp(
            min(spread_out - fair, 700.0)
        )

    def verdict(self) -> Verdict:
        """What may be said by now."""
        margin = self._planned.margin
        enough = self._means.pairs >= FEWEST_FOR_FAILURES and self.champion + self.challenger > 0
        if margin is not None and enough and self._means.interval(2 * self._planned.alpha).within(margin):
            return "equivalent"
        if self.evidence() < 1 / self._planned.alpha:
            return "undecided"
        return "lower" if self.challenger < self.champion else "higher"


@cache
def band(risk: float) -> float:
    """The height that Brownian motion on [0, 1] leaves, up or down, with probability `risk`."""
    return _solve(lambda height: risk - _leaves(height), 0.5, 10.0)


def pairs_to_tell(effect: float, spread: float, alpha: float, power: float = POWER) -> int:
    """Pairs within which a difference of `effect` is found with probability `power`, looked at after every pair."""
    edge = band(WITHIN_PLAN * alpha)
    pairs = 2 * FEWEST
    for _ in range(5):  # what pairs cost beside continuous motion depends, a little, on their number
        wall = edge * _student(edge, pairs) + STEP / sqrt(pairs)
        drift = _solve(lambda at, wall=wall: _crosses(at, wall) - power, 0.0, 40.0)  # type: ignore[misc]
        pairs = max(ceil((drift * spread / abs(effect)) ** 2), 2 * FEWEST)
    return pairs


def pairs_to_equate(margin: float, spread: float, alpha: float, power: float = POWER) -> int:
    """Pairs within which equal things are called equivalent with probability `power`."""
    edge = band(WITHIN_PLAN * 2 * alpha)
    room = edge + _normal.inv_cdf((1 + power) / 2)
    return max(ceil((room * spread / margin) ** 2), 2 * FEWEST)


def pairs_to_tell_failures(champion: float, challenger: float, alpha: float, power: float = 0.8) -> int:
    """Pairs within which a difference of two failure rates is found with at least probability `power`.

    A walk may also pass its wall earlier and fall back, which is not counted: the plan is generous.
    """
    share = single_failures(champion, challenger)
    low, high = sorted((share, 1 - share))
    gain = high * log(2 * high) + low * log(2 * low)
    scatter = log(high / low) * sqrt(high * low)
    rate = champion * (1 - challenger) + challenger * (1 - champion)
    wall = log(1 / (alpha * 0.45))
    late = _normal.inv_cdf(power)
    # The evidence is a walk of `gain` a step: it has passed the wall by step n unless it lags `late` deviations.
    root = (late * scatter + sqrt((late * scatter) ** 2 + 4 * gain * wall)) / (2 * gain)
    return max(ceil(root**2 / rate), FEWEST_FOR_FAILURES)


def single_failures(champion: float, challenger: float) -> float:
    """Of the pairs with one failure, the share in which the worse side failed; rates as parts of 1."""
    low, high = sorted((champion, challenger))
    worse, better = high * (1 - low), low * (1 - high)
    return worse / (worse + better)


def fixed_pairs(effect: float, spread: float, alpha: float, power: float = 0.8) -> int:
    """Pairs for a test that is looked at once, at its end: the yardstick for the others."""
    return ceil(((_normal.inv_cdf(1 - alpha / 2) + _normal.inv_cdf(power)) * spread / effect) ** 2)


def fixed_pairs_for_failures(champion: float, challenger: float, alpha: float, power: float = 0.8) -> int:
    """The same for two failure rates."""
    spread = sqrt(champion * (1 - champion) + challenger * (1 - challenger))
    return fixed_pairs(challenger - champion, spread, alpha, power)


def undecidable(pairs: int, pairs_a_day: float) -> bool:
    """Whether traffic would take longer than anyone waits."""
    return pairs > pairs_a_day * PATIENCE_DAYS


def _student(edge: float, pairs: int) -> float:
    """How much wider the tails are of a spread that is itself measured: their first term, after Cornish and Fisher."""
    return 1 + (edge**2 + 1) / (4 * pairs)


def _leaves(height: float) -> float:
    """Probability that Brownian motion leaves (-height, height) before time 1."""
    odd = [2 * k + 1 for k in range(50)]
    stays = sum([(1 if n % 4 == 1 else -1) / n * exp(-(n**2) * pi**2 / (8 * height**2)) for n in odd])
    return 1 - 4 / pi * stays


def _crosses(drift: float, edge: float) -> float:
    """Probability that Brownian motion with a drift has passed `edge` by time 1."""
    return _normal.cdf(drift - edge) + exp(2 * drift * edge) * _normal.cdf(-drift - edge)


def _mixture(pairs: int, tuned_for: int, risk: float) -> float:
    """Radius in standard deviations of the normal mixture that is narrowest near `tuned_for` pairs."""
    known = pairs * 9.0 / tuned_for  # 9: where the radius, times the root of the pairs, is least for a risk of 5 %
    return sqrt((known + 1) / known * (log(known + 1) - 2 * log(risk)) / pairs)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _solve(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function passes zero."""
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return high
