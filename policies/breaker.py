"""When an offer or an account that fails is left alone, and how likely the next order is to fail.

A breaker is *closed* (orders pass), *open* (none passes until a moment) or *half-open* (one probe passes; its end
closes the breaker or opens it again for twice as long). There is one per offer and one per account, since a seller
may fail in one model only. Whether breakers may be ignored because nobody else is left (panic) is the engine's affair.
"""

from __future__ import annotations

from math import exp2, inf

from policies.policy import BreakerTerms

_MISCONFIGURED_GROWS_TO = 10
_PROBE_S = 5.0
"""A probe that has not ended after this many seconds no longer keeps others from probing."""
_SILENT_S = 5.0
_PRIOR_ERRORS = 0.2
_PRIOR_ORDERS = 20.0
"""Unseen, an offer is expected to fail once in a hundred orders; twenty orders outweigh that belief."""
_MEMORY_ORDERS = 50.0
_HALF_LIFE_S = 60.0


class Breaker:
    """Leaves alone what keeps failing."""

    __slots__ = (
        "_failures",
        "_open_for",
        "_probing_until",
        "_served",
        "_terms",
        "_threshold",
        "_why",
        "held_until",
        "open_until",
        "passes",
    )

    def __init__(self, terms: BreakerTerms, threshold: int) -> None:
        """`threshold` failures in a row open it."""
        self._terms = terms
        self._threshold = threshold
        self._failures = 0
        self._open_for = 0.0
        self._probing_until = -inf
        self._served = -inf
        self.held_until = -inf
        """The seller asked us to come back at this moment."""
        self._why = ""
        self.open_until = -inf
        """Orders pass again from this moment, one at first; -inf while closed."""
        self.passes = True
        """Whether it is closed, and the seller has never named a moment to come back: there is nothing to ask it."""

    def __repr__(self) -> str:
        if self.open_until == -inf:
            return f"<Breaker closed, {self._failures} of {self._threshold} failures>"
        return f"<Breaker open until {self.open_until:.1f}, then one probe: {self._why}>"

    def retune(self, terms: BreakerTerms, threshold: int) -> None:
        """Go by other terms from here on; what was counted stays."""
        self._terms = terms
        self._threshold = threshold

    @property
    def closed(self) -> bool:
        """Whether orders pass freely."""
        return self.open_until == -inf

    @property
    def hopeless(self) -> bool:
        """Whether it is open because our account was refused or the model is gone; trying anyway is pointless then."""
        return self._why in (_MISCONFIGURED, _RETIRED)

    @property
    def is_silent(self) -> bool:
        """Whether it is open because orders hang: one more would probably hang as well."""
        return self._why == _SILENT

    @property
    def why(self) -> str:
        """What opened it."""
        return self._why

    def room(self, now: float, *, despite_failures: bool = False) -> float:
        """Seconds until an order may pass; 0 when it may now. Failures can be overlooked, a refused account not."""
        if self.open_until == -inf or (despite_failures and not self.hopeless):
            return 0.0
        return max(self.open_until - now, self._probing_until - now, 0.0)

    def held(self, now: float) -> float:
        """Seconds until the moment the seller named; 0 when it named none or that has passed."""
        return max(self.held_until - now, 0.0)

    def submitted(self, now: float) -> None:
        """Count an order that goes out: through a half-open breaker it is the probe."""
        if self.open_until <= now and not self.closed:
            self._probing_until = now + _PROBE_S

    def ok(self, sent_at: float) -> None:
        """Close: an order was served that was sent at this moment."""
        self._served = max(self._served, sent_at)
        self._failures = 0
        self._open_for = 0.0
        self._why = ""
        self.open_until = self._probing_until = -inf
        self.passes = self.held_until == -inf

    def undecided(self) -> None:
        """Let another probe: an order ended without saying anything about the seller's health."""
        self._probing_until = -inf

    def failed(self, now: float, weight: int = 1, sent_at: float = inf) -> None:
        """Count a failure; enough of them in a row, or a failed probe, open the breaker."""
        if sent_at < self._served:  # orders sent after it have been served: what it met is over
            return
        self._failures += weight
        if now < self.open_until:  # sent before it opened, or in panic: it says nothing new
            return
        if not self.closed or self._failures >= self._threshold:
            self._open(now, self._terms.open_for, self._terms.at_most, f"{self._failures} failures in a row")

    def silent(self, now: float) -> None:
        """Open, or stay open, because nobody answers, though nothing has failed yet."""
        if now < max(self.open_until, self._probing_until):
            return
        self._open(now, max(self._terms.open_for, _SILENT_S), self._terms.at_most, _SILENT)

    def refused_account(self, now: float) -> None:
        """Open at once and for long: the seller refused our key, credit or permissions."""
        self._give_up(now, _MISCONFIGURED)

    def retired(self, now: float) -> None:
        """Open at once and for long: the seller no longer has the model."""
        self._give_up(now, _RETIRED)

    def _give_up(self, now: float, why: str) -> None:
        if now < self.open_until and self.hopeless:
            return
        first = self._terms.misconfigured_for
        self._open_for = self._open_for if self.hopeless else 0.0
        self._open(now, first, first * _MISCONFIGURED_GROWS_TO, why)

    def hold_off(self, until: float) -> None:
        """Note when the seller said to come back, where no capacity keeps count of it; it fails no less for that."""
        self.held_until = max(self.held_until, until)
        self.passes = False

    def _open(self, now: float, first: float, at_most: float, why: str) -> None:
        self._open_for = min(max(self._open_for * 2.0, first), at_most)
        self._why = why
        self._probing_until = -inf
        self.open_until = now + self._open_for
        self.passes = False


_SILENT = "nobody answers"
_MISCONFIGURED = "the account is refused: check its key and credit"
_RETIRED = "the seller no longer has this model: `doctor` names what is gone"


class ErrorRate:
    """The probability that the next order of an offer fails: recent orders count most, and silence heals."""

    __slots__ = ("_at", "_errors", "_orders")

    def __init__(self) -> None:
        self._errors = 0.0
        self._orders = 0.0
        self._at = -inf

    def __repr__(self) -> str:
        return f"<ErrorRate {self.at(self._at):.1%} over {self._orders:.0f} recent orders>"

    def at(self, now: float) -> float:
        """Probability of failure of an order placed now."""
        if not self._orders:
            return _PRIOR_ERRORS / _PRIOR_ORDERS
        kept = exp2((self._at - now) / _HALF_LIFE_S) if now > self._at else 1.0
        return (self._errors * kept + _PRIOR_ERRORS) / (self._orders * kept + _PRIOR_ORDERS)

    def observe(self, now: float, *, failed: bool) -> None:
        """Count an order that ended."""
        kept = (1.0 - 1.0 / _MEMORY_ORDERS) * (exp2((self._at - now) / _HALF_LIFE_S) if now > self._at else 1.0)
        self._errors = self._errors * kept + failed
        self._orders = self._orders * kept + 1.0
        self._at = now
