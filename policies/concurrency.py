"""What an account really takes: its configured limits, and lower ones learned when it refuses sooner than agreed.

`SlotLimit` bounds orders in flight, `RateLimit` orders per second. Neither ever allows more than is configured.
Both are fed with what happened to orders and the time it happened; neither has a clock.

Orders overlap, so a refusal teaches only when its order was sent after the last lesson; the others, sent before we
knew better, merely confirm it.
"""

from __future__ import annotations

from math import ceil, inf
from typing import Protocol

_IN_A_ROW_S = 30.0
"""A second refusal within this time means that the limit has really fallen, not that somebody else took a slot."""
_PROBE_S = 30.0
"""Seconds before one more is tried above what was refused; doubled while that keeps being refused."""
_PROBE_AT_MOST_S = 900.0
_NEXT_STEP_S = 4.0
"""After a probe succeeded."""
_PAUSE_S = 1.0
"""After an account refused its only order and did not say when to come back; doubled up to `_PAUSE_AT_MOST_S`."""
_PAUSE_AT_MOST_S = 30.0
_QUEUED_S = 0.5
"""Time in the provider's queue that counts as a sign that fewer orders run at once than we think."""

_RATE_MARGIN = 0.97
_JITTER_S = 0.15
"""How far apart two orders may drift between us and a provider: an SDK builds them, new connections open, the network
takes its time. What comes before an order goes out does not count, for it spends its token only then."""
_STEADY_S = 10.0
"""Seconds without a refusal before a lowered rate is raised a step."""
_STEP = 1.1
_STRIDE = 1.5
"""Where nothing is known of a limit above: after a storm of refusals that had nothing to do with our rate."""
_FLOOR = 1 / 32
"""Least share of the configured rate: a seller that takes less is not slow but out of order."""


class Limit(Protocol):
    """One capacity as the engine reads it."""

    @property
    def value(self) -> float:
        """The limit as it is believed to be now: orders at once, or orders a second."""

    def left(self, in_flight: int, now: float) -> int:
        """Orders that may start now."""

    def room(self, in_flight: int, now: float) -> float:
        """Seconds until one more may start: 0 now, inf when one must end first."""

    def share_left(self, in_flight: int, now: float) -> float:
        """Unused share of the limit, 0 to 1, the order about to start included."""

    def glance(self, in_flight: int, now: float) -> tuple[int, float]:
        """`left` and `share_left` at once."""

    def wait(self, in_flight: int, ahead: int, order_s: float, now: float) -> float:
        """Seconds one who comes behind `ahead` others will probably wait, when orders take `order_s` seconds."""


class SlotLimit:
    """Orders in flight at once.

    A refusal with k in flight sets the limit to k - 1: those were accepted. A second one in a row means that orders
    which began under the old limit hide the new one, so the limit falls to 1 and doubles with every round of
    successes; the third refusal then names the new limit exactly.
    """

    __slots__ = (
        "_blocked_until",
        "_climbing",
        "_confirmed",
        "_learned_at",
        "_pause",
        "_probe_at",
        "_probe_wait",
        "_probing",
        "_refused_at",
        "configured",
        "value",
    )

    def __init__(self, configured: int) -> None:
        self.configured = configured
        self.value = configured
        self._refused_at: int | None = None
        self._learned_at = -inf
        self._blocked_until = -inf
        self._pause = 0.0
        self._probe_at = inf
        self._probe_wait = _PROBE_S
        self._climbing = False
        self._probing = False
        self._confirmed = True

    def __repr__(self) -> str:
        state = "climbing" if self._climbing else "probing" if self._probing else "steady"
        refused = f", refused at {self._refused_at}" if self._refused_at else ""
        return f"<SlotLimit {self.value} of {self.configured}, {state}{refused}>"

    def reconfigure(self, configured: int) -> None:
        """Follow a changed contract; a limit learned below it stays, and is tried upwards as ever."""
        learned = self.value < self.configured
        self.configured = configured
        self.value = min(self.value, configured) if learned else configured

    def left(self, in_flight: int, now: float) -> int:
        """Orders that may start now."""
        return 0 if now < self._blocked_until else max(self.value - in_flight, 0)

    def room(self, in_flight: int, now: float) -> float:
        """Seconds until one more may start: 0 now, inf when one must end first."""
        if in_flight >= self.value:
            return inf
        return max(self._blocked_until - now, 0.0)

    def share_left(self, in_flight: int, now: float) -> float:  # noqa: ARG002 - slots do not depend on the time
        """Unused share of the slots once one more is taken."""
        return max(self.value - in_flight - 1, 0) / self.value

    def glance(self, in_flight: int, now: float) -> tuple[int, float]:
        """`left` and `share_left` at once, for the hot path."""
        value = self.value
        left = value - in_flight
        if left <= 0:
            return 0, 0.0
        return (0 if now < self._blocked_until else left), (left - 1) / value

    def wait(self, in_flight: int, ahead: int, order_s: float, now: float) -> float:
        """Seconds one who comes behind `ahead` others will probably wait: slots come free evenly."""
        short = in_flight + ahead + 1 - self.value
        return max(short * order_s / self.value, self._blocked_until - now, 0.0)

    def block(self, until: float) -> None:
        """Start nothing before `until`: the provider said so."""
        self._blocked_until = max(self._blocked_until, until)

    def ok(self, in_flight: int, sent_at: float, queue_s: float | None, now: float) -> None:
        """Learn from an order that was served; `in_flight` counts it and those beside it when it was sent."""
        self._pause = 0.0
        if sent_at < self._learned_at:
            return
        if self._climbing:
            if 2 * in_flight >= self.value:
                self._climb(now)
        elif in_flight >= self.value:
            if queue_s is not None and queue_s > _QUEUED_S and in_flight > 1:
                self._lower(in_flight - 1, now)
            else:
                self._full_and_well(in_flight, now)

    def refused(self, in_flight: int, sent_at: float, now: float, *, told: bool = False) -> None:
        """Learn from an order the provider had no room for; `told`: it says itself when to come back."""
        if in_flight <= 1:  # no limit on orders in flight refuses the only one: it is something else, and may pass
            if not told:
                self._pause = min(max(2.0 * self._pause, _PAUSE_S), _PAUSE_AT_MOST_S)
                self.block(now + self._pause)
            return
        if sent_at < self._learned_at:
            self._cap(in_flight)
            return
        if self._probing:
            self._probe_wait = min(2.0 * self._probe_wait, _PROBE_AT_MOST_S)
            self._lower(in_flight - 1, now)
        elif self._confirmed or now - self._learned_at > _IN_A_ROW_S or self._climbing:
            if not self._climbing:
                self._probe_wait = _PROBE_S
            self._lower(in_flight - 1, now)
        else:
            self._lower(1, now)
            self._refused_at = in_flight
            self._climbing = self.value < in_flight - 1

    def _lower(self, to: int, now: float) -> None:
        self._cap(to + 1)
        self.value = min(self.value, max(to, 1))
        self._learned_at = now
        self._probe_at = now + self._probe_wait
        self._climbing = self._probing = self._confirmed = False

    def _cap(self, refused_at: int) -> None:
        """Remember the fewest in flight that were refused; the limit lies below."""
        self._refused_at = refused_at if self._refused_at is None else min(self._refused_at, refused_at)
        self.value = min(self.value, max(self._refused_at - 1, 1))

    def _climb(self, now: float) -> None:
        ceiling = self.configured if self._refused_at is None else min(self.configured, self._refused_at - 1)
        self.value = min(self.value + 1, ceiling)
        if self.value >= ceiling:
            self._climbing = False
            self._probe_at = now + self._probe_wait

    def _full_and_well(self, in_flight: int, now: float) -> None:
        """All slots were in use and the provider took it: the limit holds, and may now and then be tried upwards."""
        self._confirmed = True
        if self._probing:
            self._probing = False
            self._probe_wait = _PROBE_S
            self._probe_at = now + _NEXT_STEP_S
            self._refused_at = None if in_flight >= self.configured else in_flight + 1
        if self.value < self.configured and now >= self._probe_at:
            self.value += 1
            self._probing = True


class RateLimit:
    """Orders per second, as a token bucket a little smaller and slower than the provider's.

    A token is spent when an order goes out; `in_flight` counts those decided on that have not, for each will need one.

    Orders sent evenly arrive unevenly, so some tokens of the burst are left unused; an account without a burst to
    spare gets a little more time between orders instead. The bucket starts with a single token, since nobody knows
    what was ordered just before a restart.

    A refusal halves the rate, further ones in a row quarter it, so three find a limit down to a thirtieth; it is
    raised again in small steps, ever more slowly where it is refused again.
    """

    __slots__ = (
        "_at",
        "_blocked_until",
        "_good",
        "_learned_at",
        "_most",
        "_refused_rate",
        "_steps_at",
        "_tokens",
        "_wait",
        "configured",
        "value",
    )

    def __init__(self, rate: float, burst: int) -> None:
        """`rate` in orders per second and `burst` as the provider grants them."""
        self.configured, self._most = _cautious(rate, burst)
        self.value = self.configured
        self._tokens = 1.0
        self._at: float | None = None
        self._blocked_until = -inf
        self._learned_at = -inf
        self._refused_rate = inf
        self._good: float | None = None
        self._steps_at = inf
        self._wait = _PROBE_S

    def __repr__(self) -> str:
        return f"<RateLimit {self.value:.3g} of {self.configured:.3g} orders/s, {self._tokens:.1f} tokens>"

    def reconfigure(self, rate: float, burst: int) -> None:
        """Follow a changed contract; a rate learned below it stays, and is tried upwards as ever."""
        learned = self.value < self.configured
        self.configured, self._most = _cautious(rate, burst)
        self.value = min(self.value, self.configured) if learned else self.configured
        self._tokens = min(self._tokens, self._most)

    def left(self, in_flight: int, now: float) -> int:
        """Orders that may start now."""
        return 0 if now < self._blocked_until else max(int(self._tokens_at(now) - in_flight + 1e-9), 0)

    def room(self, in_flight: int, now: float) -> float:
        """Seconds until one more may start; 0 when it may now."""
        missing = 1.0 + in_flight - self._tokens_at(now)
        refill = missing / self.value if missing > 1e-9 else 0.0
        return max(refill, self._blocked_until - now, 0.0)

    def share_left(self, in_flight: int, now: float) -> float:
        """Share of the bucket still full once one more is taken; a token that is back at once is hardly missed."""
        if self._most <= 1.0:
            return 1.0
        gone = 1.0 - max(self._tokens_at(now) - in_flight - 1.0, 0.0) / (self._most - 1.0)
        return 1.0 - gone * min(1.0, 1.0 / self.value)

    def glance(self, in_flight: int, now: float) -> tuple[int, float]:
        """`left` and `share_left` at once, for the hot path."""
        tokens, most = self._tokens_at(now) - in_flight, self._most
        left = 0 if now < self._blocked_until or tokens < 0.0 else int(tokens + 1e-9)
        if most <= 1.0:
            return left, 1.0
        gone = 1.0 - (tokens - 1.0 if tokens > 1.0 else 0.0) / (most - 1.0)
        return left, 1.0 - gone * (1.0 if self.value <= 1.0 else 1.0 / self.value)

    def wait(self, in_flight: int, ahead: int, order_s: float, now: float) -> float:  # noqa: ARG002 - tokens come evenly
        """Seconds one who comes behind `ahead` others will wait."""
        short = in_flight + ahead + 1 - self._tokens_at(now)
        return max(short / self.value, self._blocked_until - now, 0.0)

    def submitted(self, now: float) -> None:
        """Spend a token; an order nobody asked us about (found after a crash) may leave the bucket in debt."""
        self._tokens = self._tokens_at(now) - 1.0
        self._at = now

    def block(self, until: float, now: float) -> None:
        """Start nothing before `until`, and one at that moment: the provider said so."""
        self._blocked_until = max(self._blocked_until, until)
        self._tokens = max(self._tokens_at(now), 1.0 - (until - now) * self.value)
        self._at = now

    def refused(self, sent_at: float, now: float) -> None:
        """Learn from an order that came too soon for the provider."""
        if sent_at < self._learned_at:
            return
        refused, self._refused_rate = self.value, self.value
        patience = _STEADY_S
        if self._good is not None:  # a step up was too much
            self.value, self._good = self._good, None
            patience = self._wait = min(2.0 * self._wait, _PROBE_AT_MOST_S)
        elif now - self._learned_at > _IN_A_ROW_S:
            self.value = max(refused / 2.0, self.configured * _FLOOR)
            self._wait = _PROBE_S
        else:
            self.value = max(refused / 4.0, self.configured * _FLOOR)
        self._tokens = min(self._tokens_at(now), 0.0)
        self._at = self._learned_at = now
        self._steps_at = now + patience

    def recover(self, now: float) -> None:
        """Raise a lowered rate one step when it has held long enough."""
        if self._at is None:
            self._at = now
        if now < self._steps_at or self.value >= self.configured:
            return
        self._tokens, self._at = self._tokens_at(now), now
        if self.value >= self._refused_rate:  # what was refused before has held: the provider's limit has risen
            self._refused_rate, self._wait = inf, _PROBE_S
        self._good = self.value
        self.value = min(self.value * (_STEP if self._refused_rate < inf else _STRIDE), self.configured)
        near = self.value >= 0.9 * self._refused_rate
        self._steps_at = now + (self._wait if near else _STEADY_S)

    def _tokens_at(self, now: float) -> float:
        # While lowered, the provider's burst is likely lower as well.
        at, value = self._at, self.value
        if at is None or now <= at:
            return self._tokens
        most = self._most if value >= self.configured else 1.0
        tokens = self._tokens + (now - at) * value
        return tokens if tokens < most else most  # noqa: FURB136 - min() takes longer than all the rest


def _cautious(rate: float, burst: int) -> tuple[float, float]:
    """Orders a second, and the most at once, that stay below what a provider grants though orders arrive unevenly."""
    spare = max(ceil(rate * _JITTER_S), 1)
    slack = _JITTER_S if burst <= spare else 0.0
    return 1.0 / (1.0 / (rate * _RATE_MARGIN) + slack), float(max(burst - spare, 1))
