from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.breaker import Breaker, ErrorRate
from policies.policy import BreakerTerms

TERMS = BreakerTerms()


def opened(failures: int = 5) -> Breaker:
    breaker = Breaker(TERMS, 5)
    for _ in range(failures):
        breaker.failed(0.0)
    return breaker


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    assert opened(4).closed
    assert opened(5).room(0.0) == 2.0
    assert opened(5).why == "5 failures in a row"


def test_a_success_in_between_starts_the_count_again() -> None:
    breaker = opened(4)
    breaker.ok(0.0)
    breaker.failed(0.0)
    assert breaker.closed


def test_a_timeout_weighs_more() -> None:
    breaker = Breaker(TERMS, 5)
    for _ in range(3):
        breaker.failed(0.0, TERMS.timeout_counts)
    assert not breaker.closed


def test_when_its_time_is_over_one_probe_passes() -> None:
    breaker = opened()
    assert breaker.room(2.0) == 0.0
    breaker.submitted(2.0)
    assert breaker.room(2.1) > 0.0


def test_a_probe_that_is_never_heard_of_again_does_not_block_for_ever() -> None:
    breaker = opened()
    breaker.submitted(2.0)
    assert breaker.room(7.0) == 0.0


def test_a_probe_that_ends_without_a_verdict_lets_another_pass() -> None:
    breaker = opened()
    breaker.submitted(2.0)
    breaker.undecided()
    assert breaker.room(2.1) == 0.0


def test_each_failed_probe_doubles_the_time_up_to_a_limit() -> None:
    breaker, now, waits = opened(), 0.0, []
    for _ in range(7):
        waits.append(breaker.room(now))
        now += waits[-1]
        breaker.submitted(now)
        breaker.failed(now)
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_a_probe_that_is_served_closes_it_and_the_next_time_is_short_again() -> None:
    breaker = opened()
    breaker.failed(2.0)
    assert breaker.room(2.0) == 4.0
    breaker.ok(0.0)
    assert breaker.closed
    for _ in range(5):
        breaker.failed(10.0)
    assert breaker.room(10.0) == 2.0


def test_failures_of_orders_sent_before_it_opened_do_not_prolong_it() -> None:
    breaker = opened()
    for _ in range(20):
        breaker.failed(1.0)
    assert breaker.room(1.0) == 1.0


def test_a_failure_of_an_order_that_others_overtook_says_nothing_new() -> None:
    breaker = opened()
    breaker.submitted(2.0)
    breaker.ok(2.0)
    for _ in range(20):
        breaker.failed(60.0, sent_at=1.0)
    assert breaker.closed
    breaker.failed(60.0, TERMS.failures, sent_at=3.0)
    assert not breaker.closed


def test_a_refused_account_stays_closed_to_us_for_long_and_ever_longer() -> None:
    breaker, now, waits = Breaker(TERMS, 10), 0.0, []
    for _ in range(6):
        breaker.refused_account(now)
        waits.append(breaker.room(now))
        now += waits[-1]
    assert waits == [60.0, 120.0, 240.0, 480.0, 600.0, 600.0]


def test_many_orders_refused_together_count_once() -> None:
    breaker = Breaker(TERMS, 10)
    for _ in range(9):
        breaker.refused_account(0.0)
    assert breaker.room(0.0) == 60.0


def test_failures_can_be_overlooked_a_refused_account_not() -> None:
    failing, refused = opened(), Breaker(TERMS, 10)
    refused.refused_account(0.0)
    assert failing.room(0.0, despite_failures=True) == 0.0
    assert refused.room(0.0, despite_failures=True) == 60.0


def test_the_moment_a_seller_names_stands_whatever_its_other_orders_do() -> None:
    breaker = Breaker(TERMS, 5)
    breaker.hold_off(30.0)
    breaker.hold_off(10.0)
    breaker.ok(0.0)
    assert (breaker.held(0.0), breaker.held(30.0), breaker.closed) == (30.0, 0.0, True)


def test_it_tells_its_state() -> None:
    assert repr(opened(2)) == "<Breaker closed, 2 of 5 failures>"
    assert repr(opened()) == "<Breaker open until 2.0, then one probe: 5 failures in a row>"


def test_unseen_one_order_in_a_hundred_is_expected_to_fail() -> None:
    assert ErrorRate().at(0.0) == pytest.approx(0.01)


def test_a_seller_that_always_fails_is_known_after_a_few_orders_and_silence_heals() -> None:
    errors = ErrorRate()
    for _ in range(50):
        errors.observe(0.0, failed=True)
    assert errors.at(0.0) > 0.6
    assert 0.3 < errors.at(60.0) < errors.at(0.0)
    assert errors.at(3600.0) == pytest.approx(0.01, abs=1e-3)


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=60), st.floats(0, 1000))
def test_an_error_rate_is_a_probability(seen: list[tuple[float, bool]], later: float) -> None:
    errors, now = ErrorRate(), 0.0
    for wait, failed in seen:
        now += wait
        errors.observe(now, failed=failed)
    assert 0.0 < errors.at(now + later) < 1.0
    assert repr(errors).startswith("<ErrorRate ")


def test_there_is_nothing_to_ask_it_while_it_is_closed() -> None:
    assert opened(4).passes
    assert not opened(5).passes


def test_orders_pass_unasked_again_once_one_was_served() -> None:
    breaker = opened()
    breaker.ok(sent_at=1.0)
    assert breaker.passes


def test_whoever_once_named_a_moment_to_come_back_is_always_asked() -> None:
    breaker = opened(0)
    breaker.hold_off(60.0)
    breaker.ok(sent_at=1.0)
    assert not breaker.passes
    assert breaker.held(1.0) == 59.0
