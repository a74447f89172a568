"""Sellers that differ in price, and in how long their slowest pictures take, are told apart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from policies.experiments.definition import Challenger
from policies.experiments.verdicts import Verdict, judge
from providers.sandbox import start
from tests.support.town import TIME_SCALE, settings
from tests.support.trials import NAME, eventually, experiment, open_trial

PAIRS = 150


@pytest.mark.slow
async def test_a_cheaper_seller_with_a_slow_tail_is_told_from_the_champion_drawn_again(tmp_path: Path) -> None:
    two = (Challenger(name="together", account="together"), Challenger(name="again", account="fal"))
    compared = experiment(*two, compare=frozenset({"cost", "latency"}))
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        plenty = {"concurrency": 200, "rate": 10_000.0, "burst": 10_000}
        sandbox.script(
            {
                "limits": {"fal": plenty, "together": plenty},
                "rules": [{"provider": "together", "do": "slow", "when": {"every": 6}, "args": {"seconds": 4}}],
            }
        )
        terms = settings(tmp_path, sandbox.url)
        wide = {
            name: {"concurrency": 100} if name == "fal" else {"rate": 500.0, "burst": 500} for name in terms.accounts
        }
        accounts = {name: each.model_copy(update=wide[name]) for name, each in terms.accounts.items()}
        town = await open_trial(tmp_path, sandbox, compared, terms=terms.model_copy(update={"accounts": accounts}))
        try:

            async def enough() -> bool:
                await asyncio.gather(*(town.asks(prompt=f"a lighthouse, view {n}") for n in range(4)))
                return len(await town.app.db.shadow_pairs(NAME)) >= 2 * PAIRS

            await eventually(enough)
            await town.copies_are_over()
            found = {each.challenger: each for each in judge(compared, await town.app.db.shadow_pairs(NAME))}
            await town.assert_books_agree()
        finally:
            await town.app.stop()
    assert said(found["together"], "cost") == "better"
    assert said(found["again"], "cost") == "equivalent"
    # Not by its mean: seconds are a fiftieth of real ones here, and what polling takes of the champion's hides that.
    assert slowest(found["together"]) > 2 * slowest(found["again"])


def slowest(verdict: Verdict) -> float:
    """Seconds of which the slowest twentieth of a challenger's pictures takes more."""
    return next(each.challenger.value for each in verdict.tails if each.share == 0.95)


def said(verdict: Verdict, measure: str) -> str:
    """What a verdict says of a measure."""
    return next(each.said for each in verdict.readings if each.measure == measure)
