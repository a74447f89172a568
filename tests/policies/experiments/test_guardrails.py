"""A bad canary ends soon, a good one almost never; seeded, and without a clock."""

from __future__ import annotations

import random

import pytest

from policies.experiments.guardrails import Guardrails, Outcome
from policies.policy import CanaryTerms

TERMS = CanaryTerms(calls=300)
RUNS = 500
KINDS = (("preview", 3_000_000.0, 0.9), ("export", 40_000_000.0, 8.0))
"""What is asked for, what it costs in nano-dollars, and how long it takes in the middle."""


def outcome(rng: random.Random, kind: int, *, dearer: float = 1.0, slower: float = 1.0, fails: float = 0.01) -> Outcome:
    """One call: two sellers a third apart in price, a tail of slow ones, rare failures."""
    _, price, seconds = KINDS[kind]
    slow = 4.0 if rng.random() < 0.03 else 1.0
    return Outcome(
        seconds=seconds * slow * slower * rng.lognormvariate(0.0, 0.25),
        nano_usd=price * dearer * (1.33 if rng.random() < 0.2 else 1.0),
        failed=rng.random() < fails,
    )


def ran(rng: random.Random, **badly: float) -> Guardrails:
    """A canary with its part of the calls, until it has passed or was ended."""
    rails = Guardrails(TERMS)
    while not rails.passed and rails.crossed is None:
        kind = rng.random() < 0.3
        side = "canary" if rng.random() < 0.4 else "control"
        changed = badly if side == "canary" else {}
        rails.add(side, KINDS[kind][0], outcome(rng, kind, **changed))  # type: ignore[arg-type]  # one of two words
    return rails


def test_a_good_canary_is_ended_in_one_of_a_hundred_cases_at_most() -> None:
    rng = random.Random(1)
    ended = [rails.crossed for _ in range(RUNS) if (rails := ran(rng)).crossed is not None]
    assert len(ended) <= RUNS // 100, ended


@pytest.mark.parametrize(
    ("badly", "guardrail", "within"),
    [({"dearer": 1.5}, "cost", 150), ({"slower": 2.5}, "p95", 250), ({"fails": 0.3}, "failures", 120)],
)
def test_a_bad_canary_is_ended_for_what_is_bad_about_it(badly: dict[str, float], guardrail: str, within: int) -> None:
    rng = random.Random(2)
    runs = [ran(rng, **badly) for _ in range(50)]
    assert {rails.crossed.guardrail for rails in runs if rails.crossed is not None} == {guardrail}
    assert all(rails.crossed is not None and rails.pairs <= within for rails in runs)


def test_a_canary_that_always_fails_is_ended_after_a_score_of_calls() -> None:
    assert ran(random.Random(3), fails=1.0).pairs <= 25


def test_what_is_allowed_ends_nobody() -> None:
    rng = random.Random(4)
    assert not [1 for _ in range(50) if ran(rng, dearer=1.04, slower=1.1).crossed]


def test_a_mix_of_calls_that_differs_says_nothing_about_a_policy() -> None:
    rng, rails = random.Random(5), Guardrails(TERMS)
    for _ in range(20_000):
        side = "canary" if rng.random() < 0.2 else "control"
        kind = rng.random() < (0.9 if side == "canary" else 0.05)  # its callers ask for exports
        rails.add(side, KINDS[kind][0], outcome(rng, kind))  # type: ignore[arg-type]
        if rails.passed:
            break
    assert rails.passed
    report = rails.report()
    assert report.canary.mean_nano_usd > 5 * report.control.mean_nano_usd
    assert report.cost_ratio is not None
    assert report.cost_ratio[0] < 1.0 < report.cost_ratio[1]


def test_calls_that_only_one_side_has_are_judged_by_nobody() -> None:
    rails = Guardrails(TERMS)
    for _ in range(100):
        rails.add("canary", "edit", Outcome(seconds=1.0, failed=True))
        rails.add("control", "preview", Outcome(seconds=1.0, nano_usd=1.0))
    assert (rails.pairs, rails.crossed, rails.passed) == (0, None, False)
    assert rails.report().canary.failed == 100


def test_free_pictures_can_be_compared_too() -> None:
    rails = Guardrails(TERMS)
    for _ in range(TERMS.calls):
        rails.add("control", "preview", Outcome(seconds=1.0))
        rails.add("canary", "preview", Outcome(seconds=1.0))
    assert rails.passed
