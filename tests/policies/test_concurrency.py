from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.concurrency import RateLimit, SlotLimit


def served(limit: SlotLimit, start: float, seconds: float, step: float = 0.1) -> int:
    """Keep all slots busy with orders that are served, one ending every `step`; the limit afterwards."""
    for n in range(int(seconds / step)):
        now = start + n * step
        limit.ok(limit.value, now - step, None, now)
    return limit.value


def test_slots_are_counted() -> None:
    limit = SlotLimit(3)
    assert [limit.left(busy, 0.0) for busy in range(5)] == [3, 2, 1, 0, 0]
    assert [limit.room(busy, 0.0) for busy in (0, 2, 3)] == [0.0, 0.0, inf]
    assert [limit.share_left(busy, 0.0) for busy in (0, 1, 2)] == pytest.approx([2 / 3, 1 / 3, 0.0])


def test_waiting_for_a_slot_takes_its_share_of_an_order() -> None:
    limit = SlotLimit(4)
    assert limit.wait(4, 0, 8.0, 0.0) == 2.0
    assert limit.wait(4, 7, 8.0, 0.0) == 16.0
    limit.block(30.0)
    assert limit.wait(4, 0, 8.0, 0.0) == 30.0


def test_a_refusal_sets_the_limit_to_what_was_accepted() -> None:
    limit = SlotLimit(10)
    limit.refused(10, 0.0, 0.1)
    assert limit.value == 9


def test_refusals_of_orders_sent_together_are_one_lesson() -> None:
    limit = SlotLimit(10)
    for in_flight in (10, 9, 8, 7):
        limit.refused(in_flight, 0.0, 0.1)
    assert limit.value == 6


def test_time_in_the_providers_queue_lowers_the_limit_too() -> None:
    limit = SlotLimit(10)
    limit.ok(10, 0.0, 3.0, 4.0)
    assert limit.value == 9


def test_the_only_order_refused_is_no_matter_of_slots_but_earns_a_pause() -> None:
    limit, pauses = SlotLimit(2), []
    for _ in range(7):
        limit.refused(1, 0.0, 0.0)
        pauses.append(limit.room(0, 0.0))
    assert limit.value == 2
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_seller_that_says_when_to_come_back_is_believed() -> None:
    limit = SlotLimit(2)
    for _ in range(5):
        limit.refused(1, 0.0, 0.0, told=True)
        limit.block(0.5)
    assert (limit.room(0, 0.0), limit.room(0, 0.5)) == (0.5, 0.0)


def test_a_lowered_limit_is_tried_upwards_only_after_half_a_minute_and_one_at_a_time() -> None:
    limit = SlotLimit(10)
    limit.refused(6, 0.0, 0.1)
    assert served(limit, 0.2, 29.0) == 5
    assert served(limit, 29.2, 3.0) == 6
    assert served(limit, 32.2, 60.0) == 10


def test_a_refused_probe_doubles_the_time_to_the_next() -> None:
    limit, now = SlotLimit(10), 0.0
    limit.refused(6, now, now)
    for wait in (30.0, 60.0, 120.0, 240.0, 480.0, 900.0, 900.0):
        assert served(limit, now + 0.1, wait - 0.2) == 5
        now += wait
        limit.ok(5, now, None, now)
        assert limit.value == 6
        limit.refused(6, now, now)
        assert limit.value == 5


def test_limits_that_nobody_fills_are_not_tried_upwards() -> None:
    limit = SlotLimit(10)
    limit.refused(6, 0.0, 0.1)
    for n in range(1000):
        limit.ok(2, float(n + 1), None, float(n + 2))
    assert limit.value == 5


def closed_loop(limit: SlotLimit, allowed: int, seconds: float, *, order_s: float = 1.0) -> Iterator[float]:
    """Keep every slot of `limit` busy; the provider refuses beyond `allowed`. Yields when it does.

    `limit.configured` orders are in flight at the start, for the provider's limit falls while all of them run.
    """
    ends: list[tuple[float, int, float]] = []
    for n in range(limit.configured):
        heappush(ends, (order_s * (n + 1) / limit.configured, limit.configured, 0.0))
    now, busy = 0.0, limit.configured
    while now < seconds:
        now, in_flight, sent_at = heappop(ends)
        busy -= 1
        limit.ok(in_flight, sent_at, None, now)
        while limit.room(busy, now) <= 0:
            if busy >= allowed:
                yield now
                limit.refused(busy + 1, now, now)
                continue
            busy += 1
            heappush(ends, (now + order_s, busy, now))


@pytest.mark.parametrize(("configured", "allowed"), [(10, 3), (10, 9), (10, 1), (40, 2), (3, 2), (40, 20)])
def test_slots_lowered_without_notice_are_learned_within_three_refusals(configured: int, allowed: int) -> None:
    limit = SlotLimit(configured)
    refused = list(closed_loop(limit, allowed, 28.0))
    assert 1 <= len(refused) <= 3
    assert limit.value == allowed


@pytest.mark.parametrize("order_s", [0.3, 1.0, 6.0])
def test_lowered_slots_are_tried_ever_more_rarely(order_s: float) -> None:
    refused = list(closed_loop(SlotLimit(10), 3, 600.0, order_s=order_s))
    assert len(refused) <= 3 + 5  # probes after about 30, 60, 120, 240 and 480 s


def test_slots_tell_their_state() -> None:
    limit = SlotLimit(10)
    assert repr(limit) == "<SlotLimit 10 of 10, steady>"
    limit.refused(6, 0.0, 0.1)
    assert repr(limit) == "<SlotLimit 5 of 10, steady, refused at 6>"


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.booleans(), st.integers(1, 60), st.floats(0, 5), st.none() | st.floats(0, 5)), max_size=80),
)
def test_slots_stay_between_one_and_what_is_configured(
    configured: int, happened: list[tuple[bool, int, float, float | None]]
) -> None:
    limit, now = SlotLimit(configured), 0.0
    for ok, in_flight, took, queued in happened:
        now += 1.0
        if ok:
            limit.ok(in_flight, now - took, queued, now)
        else:
            limit.refused(in_flight, now - took, now)
        assert 1 <= limit.value <= configured


class Bucket:
    """A provider's token bucket."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst, self._tokens, self._at = rate, burst, burst, 0.0

    def takes(self, now: float) -> bool:
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens < 1.0 - 1e-9:
            return False
        self._tokens -= 1.0
        return True


def sent(limit: RateLimit, idle: list[float]) -> list[float]:
    """When orders go out that are each wanted so many seconds after the one before."""
    now, times = 0.0, []
    for pause in idle:
        now += pause
        now += limit.room(0, now)
        limit.submitted(now)
        times.append(now)
    return times


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([0.2, 1.0, 3.0, 10.0, 20.0, 39.0, 100.0, 250.0]),
    st.integers(1, 60),
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.0, 0.0, 0.02, 0.3, 5.0]),
            st.sampled_from([-0.03, 0.0, 0.03]) | st.floats(-0.03, 0.03),
        ),
        max_size=120,
    ),
)
def test_orders_jittered_by_30_ms_never_break_a_providers_bucket_of_the_same_size(
    rate: float, burst: int, orders: list[tuple[float, float]]
) -> None:
    times = sent(RateLimit(rate, burst), [pause for pause, _ in orders])
    theirs = Bucket(rate, burst)
    arrived = sorted(max(at + jitter, 0.0) for at, (_, jitter) in zip(times, orders, strict=True))
    assert all(theirs.takes(at) for at in arrived)


@pytest.mark.parametrize(("rate", "burst"), [(1.0, 2), (20.0, 5), (20.0, 20), (60.0, 30), (100.0, 20), (250.0, 60)])
def test_the_worst_jitter_breaks_no_bucket_either(rate: float, burst: int) -> None:
    """A full bucket is emptied late, and all that follows arrives as early as it can without overtaking."""
    limit = RateLimit(rate, burst)
    limit.submitted(0.0)
    times = [30.0 + at for at in sent_from(limit, 30.0, 200)]
    theirs = Bucket(rate, burst)
    arrived = [max(at - 0.03, times[0] + 0.03) for at in times]
    assert all(theirs.takes(at) for at in arrived)


def sent_from(limit: RateLimit, start: float, orders: int) -> list[float]:
    """When orders go out that are all wanted at `start`, counted from there."""
    now, times = start, []
    for _ in range(orders):
        now += limit.room(0, now)
        limit.submitted(now)
        times.append(now - start)
    return times


def test_a_rate_is_used_almost_fully() -> None:
    assert len([at for at in sent_from(RateLimit(20.0, 10), 0.0, 1500) if at < 60.0]) > 0.95 * 20 * 60


def test_after_a_restart_the_bucket_holds_one_token() -> None:
    limit = RateLimit(20.0, 10)
    assert limit.left(0, 0.0) == 1
    limit.submitted(0.0)
    assert limit.room(0, 0.0) == pytest.approx(1 / (20 * 0.97))
    assert limit.left(0, 10.0) == 7


def test_an_order_nobody_asked_about_leaves_a_debt() -> None:
    limit = RateLimit(1.0, 2)
    for _ in range(3):
        limit.submitted(0.0)
    assert limit.room(0, 0.0) == pytest.approx(3 / 0.97)


def test_waiting_for_a_token_counts_those_ahead() -> None:
    limit = RateLimit(1.0, 2)
    limit.submitted(0.0)
    assert limit.wait(0, 4, 9.0, 0.0) == pytest.approx(5 / 0.97)


def test_one_order_starts_the_moment_a_block_ends_and_the_next_by_rate() -> None:
    limit = RateLimit(20.0, 10)
    limit.submitted(0.0)
    limit.refused(0.0, 0.0)
    limit.block(7.3, 0.0)
    assert limit.room(0, 0.0) == 7.3
    assert limit.left(0, 7.29) == 0
    assert (limit.room(0, 7.3), limit.left(0, 7.3)) == (0.0, 1)
    limit.submitted(7.3)
    assert limit.room(0, 7.3) > 0.0


def paced(limit: RateLimit, allowed: float, seconds: float) -> Iterator[float]:
    """Order as fast as `limit` lets us; the provider refuses above `allowed` a second. Yields when it does."""
    theirs, now, ticked = Bucket(allowed, 1), 0.0, 0.0
    while now < seconds:
        now += limit.room(0, now) or 1e-3
        while ticked + 1.0 <= now:
            ticked += 1.0
            limit.recover(ticked)
        if limit.room(0, now) > 0:
            continue
        limit.submitted(now)
        if not theirs.takes(now):
            yield now
            limit.refused(now, now)


@pytest.mark.parametrize(("rate", "allowed"), [(20.0, 5.0), (20.0, 15.0), (20.0, 1.0), (1.0, 0.5), (100.0, 20.0)])
def test_a_rate_lowered_without_notice_is_learned_within_three_refusals(rate: float, allowed: float) -> None:
    limit = RateLimit(rate, 1 + int(rate / 2))
    refused = list(paced(limit, allowed, 30.0))
    assert 1 <= len(refused) <= 3
    assert refused[-1] - refused[0] < 30.0
    assert limit.value < allowed


def test_a_lowered_rate_is_raised_in_small_steps_and_ever_more_rarely_refused() -> None:
    limit = RateLimit(20.0, 10)
    refused = list(paced(limit, 5.0, 900.0))
    assert len(refused) <= 2 + 5  # then after about 80 s, and 60, 120, 240 and 480 s later
    assert 4.0 < limit.value < 5.5


def test_a_rate_that_rises_again_is_followed_within_minutes() -> None:
    limit = RateLimit(20.0, 10)
    assert list(paced(limit, 5.0, 200.0))
    for second in range(200, 800):
        limit.recover(float(second))
    assert limit.value == limit.configured


def test_a_rate_that_was_lowered_by_mistake_comes_back_in_the_end() -> None:
    limit = RateLimit(20.0, 10)
    limit.submitted(0.0)
    limit.refused(0.0, 0.1)
    assert limit.value == pytest.approx(limit.configured / 2)
    for second in range(1, 600):
        limit.recover(float(second))
    assert limit.value == limit.configured


def test_rates_tell_their_state() -> None:
    assert repr(RateLimit(20.0, 10)) == "<RateLimit 19.4 of 19.4 orders/s, 1.0 tokens>"
