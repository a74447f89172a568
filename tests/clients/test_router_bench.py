from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

import pytest

from bench.routing.litellm_peer import STRATEGIES, LiteLLMRouter
from bench.routing.scenarios import HOUR
from bench.routing.sim import play
from bench.routing.traffic import traffic
from bench.routing.world import World, accounts, build


def quiet() -> World:
    t = 0.1 * HOUR
    return build("quiet", 3, t, traffic(3, t, 1.0), accounts(gpus=0), 0).finish()


def played(strategy: str) -> Mapping[str, Any]:
    with closing(LiteLLMRouter(strategy)) as router:
        return play(quiet(), router)


@pytest.fixture(scope="module")
def shuffled() -> Mapping[str, Any]:
    return played("simple-shuffle")


@pytest.mark.parametrize("strategy", [each for each in STRATEGIES if each != "simple-shuffle"])
def test_litellms_own_router_serves_the_bench_under_its_strategies(strategy: str, shuffled: Mapping[str, Any]) -> None:
    found = played(strategy)
    assert found["failed_pct"] == 0.0
    assert found["share"] != shuffled["share"]
    if strategy == "cost-based-routing":
        assert found["spend"] < shuffled["spend"]


def test_it_answers_the_same_again_in_the_same_world(shuffled: Mapping[str, Any]) -> None:
    assert shuffled["failed_pct"] == 0.0
    assert played("simple-shuffle")["J"] == shuffled["J"]
