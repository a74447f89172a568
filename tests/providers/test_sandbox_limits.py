from __future__ import annotations

import asyncio
import time

import pytest

from providers.sandbox.accounts import Account, Limits
from providers.sandbox.fal_endpoints import FAL
from providers.sandbox.latency import Latency
from providers.sandbox.limits import Bucket, Gate
from providers.sandbox.pulse import Pulse


async def test_gate_serves_in_order_of_arrival_and_follows_its_limit() -> None:
    gate, seen = Gate(1), list[str]()
    leave = asyncio.Event()

    async def hold(name: str) -> None:
        async with gate.slot(name):
            seen.append(name)
            await leave.wait()

    tasks = [asyncio.create_task(hold(name)) for name in "abc"]
    await asyncio.sleep(0)
    assert (seen, gate.waiting, gate.position("c")) == (["a"], 2, 1)
    gate.limit = 2
    await asyncio.sleep(0)
    assert seen == ["a", "b"]
    leave.set()
    await asyncio.gather(*tasks)
    assert (seen, gate.running, gate.waiting) == (["a", "b", "c"], 0, 0)


@pytest.mark.parametrize("turns", [0, 1])
async def test_gate_gives_the_turn_of_one_who_left_to_the_next(turns: int) -> None:
    gate = Gate(1)

    async def pass_through(name: str) -> None:
        async with gate.slot(name):
            await asyncio.sleep(0)

    async with gate.slot("first"):
        waiting = [asyncio.create_task(pass_through(name)) for name in "ab"]
        await asyncio.sleep(0)
        if turns == 0:
            waiting[0].cancel()
    waiting[0].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (gate.running, gate.waiting, waiting[1].cancelled()) == (0, 0, False)


def test_bucket_saves_a_burst_and_fills_at_its_rate() -> None:
    bucket = Bucket(rate=10, burst=2)
    assert [bucket.take(0.0) for _ in range(3)] == [True, True, False]
    assert (bucket.take(0.09), bucket.take(0.11), bucket.peek(100.0)) == (False, True, 2)


def test_caller_is_blamed_for_limits_it_was_told_and_not_for_surprises() -> None:
    account = Account("fal", "a")
    account.limit(Limits(concurrency=2))
    for number in range(3):
        account.arrive("e", f"{number}", None)
        account.accept()
    account.limit(Limits(concurrency=1))
    assert (account.stats.limit_violations, account.stats.surprises) == (1, 0)
    account.in_flight = 1
    account.accept()
    assert (account.stats.limit_violations, account.stats.surprises) == (1, 1)
    account.tell_concurrency()
    account.accept()
    assert (account.stats.limit_violations, account.stats.surprises, account.stats.peak_in_flight) == (2, 1, 3)


def test_rate_kept_with_a_little_jitter_is_no_violation_and_a_storm_is() -> None:
    steady, storm = Account("together", "a"), Account("together", "b")
    assert all(steady.take_token(number / 20) for number in range(200))
    assert sum(storm.take_token(number / 200) for number in range(200)) < 45
    assert (steady.stats.limit_violations, storm.stats.limit_violations > 100) == (0, True)


def test_a_rate_lowered_without_notice_must_be_kept_only_after_it_was_told() -> None:
    account = Account("together", "a")
    account.arrive("e", "first", None)
    account.limit(Limits(rate=5, burst=5))
    for number in range(40):
        account.take_token(number / 20)
    assert (account.stats.limit_violations, account.stats.surprises > 10) == (0, True)
    for number in range(60):
        account.take_token(10 + number / 5)
    assert account.stats.limit_violations == 0
    for number in range(60):
        account.take_token(30 + number / 20)
    assert account.stats.limit_violations > 20


def test_repeated_bodies_and_attempts_are_counted() -> None:
    account = Account("fal", "a")
    account.arrive("e", "same", "attempt-1")
    account.arrive("e", "same", "attempt-1")
    account.arrive("other", "same", "attempt-2")
    assert (account.stats.duplicates, account.stats.attempts) == (1, {"attempt-1": 2, "attempt-2": 1})


def test_work_takes_as_long_for_the_same_draw_and_longer_for_more() -> None:
    latency, dev = Latency(3, 0.01), FAL["fal-ai/flux/dev"]
    one = latency.run_s(dev, (1024, 1024), 1, 28, "x")
    assert one == Latency(3, 0.01).run_s(dev, (1024, 1024), 1, None, "x")
    assert 0.01 < one < 0.12
    assert latency.run_s(dev, (1024, 1024), 4, 50, "x") > 3 * one


def test_the_first_order_after_long_idling_meets_a_cold_machine() -> None:
    latency, dev = Latency(3, 1.0), FAL["fal-ai/flux/dev"]
    waits = [latency.cold_start_s(dev, "x", now) for now in (0.0, 500.0, 1101.0, 1102.0)]
    assert [wait > 0 for wait in waits] == [False, False, True, False]


async def test_what_a_busy_sandbox_was_late_to_count_is_nobodys_fault() -> None:
    pulse = Pulse()
    await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251 - the event loop is to stand still
    behind = pulse.behind()
    pulse.stop()
    assert behind > 0.2
    blamed, excused = Account("together", "a"), Account("together", "b")
    for account in (blamed, excused):
        account.limit(Limits(rate=20, burst=20))
    for _ in range(25):
        blamed.take_token(1.0)
        excused.take_token(1.0, behind)
    assert blamed.stats.limit_violations > 0
    assert excused.stats.limit_violations == 0
