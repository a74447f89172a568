from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.yaml_files import load
from policies.breaker import Breaker
from policies.policy import Policy
from policies.policy_file.schema import PolicyFile, compile_policy
from policies.sellers import Seller, Shared
from policies.tariffs import PerImage
from policies.types import Event, Licence, Offer, Tier
from providers.contract import Abilities

CONFIG = Path(__file__).parents[2] / "config"


def seller(policy: Policy) -> Seller:
    offer = Offer(
        id="fal:flux-schnell",
        model="flux-schnell",
        account="fal",
        kind="fal",
        endpoint="fal-ai/flux/schnell",
        tier=Tier.PREVIEW,
        tariff=PerImage(3_000_000),
        abilities=Abilities(),
        capacities=(),
        typical_s=1.0,
        licence=Licence(name="apache-2.0", commercial=True),
    )
    return Seller(offer, policy, Breaker(policy.breaker, 10), Shared((), {}, {}))


@pytest.fixture(scope="module")
def policy() -> Policy:
    return compile_policy(load(CONFIG / "policies/default.yaml", PolicyFile))


@given(gaps=st.lists(st.floats(0.0, 5.0), min_size=1, max_size=30), ends=st.randoms(use_true_random=False))
def test_an_order_that_ends_is_the_one_forgotten(policy: Policy, gaps: list[float], ends: random.Random) -> None:
    one = seller(policy)
    sent, now = [], 0.0
    for gap in gaps:
        now += gap
        one.submitted(Event(kind="submitted", offer="fal:flux-schnell", pixels=1_048_576), now)
        sent.append(now)
    order = list(sent)
    ends.shuffle(order)
    for at in order:
        one.ended(at, now)
        sent.remove(at)
        assert [each for each, *_ in one.out] == sent
    assert not one.out


def test_an_end_that_nobody_sent_for_is_no_error(policy: Policy) -> None:
    one = seller(policy)
    assert one.ended(3.0, 3.0) == 0.0
    assert not one.out


def test_the_first_order_after_a_silence_is_expected_to_take_as_long_as_the_last_such_one(policy: Policy) -> None:
    one, shape = seller(policy), Event(kind="submitted", offer="fal:flux-schnell", pixels=1_048_576)

    def order(at: float, seconds: float) -> None:
        one.submitted(shape, at)
        idle = one.ended(at, at + seconds)
        done = Event(kind="ok", offer="fal:flux-schnell", pixels=1_048_576, latency=seconds)
        one.served(done, 3_000_000, at + seconds, idle)

    for hour in range(20):
        order(3600.0 * hour, 6.0)
        order(3600.0 * hour + 10.0, 1.0)
    silent = 20 * 3600.0
    assert one.cold.seconds(one.idle(silent)) > 4.0
    one.submitted(shape, silent)
    assert one.cold_s(silent) > 4.0
    assert one.cold.seconds(one.idle(silent)) == 0.0
