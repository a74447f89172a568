"""From copies of live calls to a policy that saves what was promised; with the sandbox's sellers."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from gateway.cli.shadow_adopt import Adopted, adopted_policy, verdict_on
from gateway.cli.shadow_plan import text as plan_text
from gateway.cli.shadow_report import look, text
from gateway.cli.shadow_shared import Traffic, traffic_of
from gateway.revisions import Revision, load_revision
from gateway.settings import Settings, default_config
from policies.experiments.planning import plan
from providers.sandbox import start
from tests.support.homes import small_home
from tests.support.town import TIME_SCALE, settings
from tests.support.trials import NAME, open_trial

ENOUGH = 55
"""Pairs from which a difference in cost is sure."""
HABIT = f"""
rules:
  - rule: we-have-always-bought-there
    prefer: [{{offer: fal:flux-schnell, over: together:flux-schnell}}]

experiments:
  - experiment: {NAME}
    champion: {{provider: fal}}
    challengers: [{{name: together, account: together}}]
    sample: {{share: 100%, stratify: size}}
    budget: {{day: $5, total: $100}}
    compare: [cost]
"""


APART_S = 0.06
"""Between calls, or they would come faster in the replay than the challenger's rate lets them be drawn."""


def configured(folder: Path, sandbox_url: str) -> Settings:
    home = small_home(folder)
    shutil.copy(default_config() / "gateway.yaml", home)
    policy = home / "policies/default.yaml"
    policy.write_text(policy.read_text() + HABIT)
    terms = settings(folder / "state", sandbox_url, config=home)
    fal = terms.accounts["fal"].model_copy(update={"concurrency": 200})
    return terms.model_copy(update={"accounts": {**terms.accounts, "fal": fal}})


async def traded(folder: Path) -> tuple[Settings, Revision, int]:
    """Calls that habit sends to the dearer seller, each copied to the other."""
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        terms = configured(folder, sandbox.url)
        revision = load_revision(terms)
        town = await open_trial(folder, sandbox, *revision.policy.experiments, terms=terms)
        try:
            calls = 0
            while len(await town.app.db.shadow_pairs(NAME)) < ENOUGH:  # copies without room to spare are left out
                size = (512, 768)[calls % 2]
                delivery = await town.asks(width=size, height=size, only=frozenset({"fal", "together"}))
                assert delivery.offers[0].startswith("fal:")
                calls += 1
                await asyncio.sleep(APART_S)
                assert calls < 10 * ENOUGH
            await town.copies_are_over()
            await town.assert_books_agree()
        finally:
            await town.app.stop()
    return terms, revision, calls


def told(folder: Path) -> tuple[str, str, Adopted, Traffic, float, int]:
    terms, revision, calls = asyncio.run(traded(folder))
    (experiment,) = revision.policy.experiments
    found, pairs = look(terms, revision, experiment)
    verdict = verdict_on(found, None)
    assert verdict.money is not None
    adopted = adopted_policy(terms, revision, found, verdict, pairs, days=1.0)
    large = [each for each in verdict.strata if each.name == "768x768"]
    of_large = adopted_policy(terms, revision, found, verdict, pairs, 1.0, large)
    assert of_large.backtest is not None
    (part,) = of_large.backtest.parts
    assert (part.stratum, part.calls) == ("768x768", calls // 2)
    assert large[0].money is not None
    each = large[0].money.month / large[0].money.calls_a_month
    assert (
        part.month
        == of_large.backtest.month
        == pytest.approx(
            each * part.calls * 24 * 30,
            rel=0.25,  # all within an hour; some find no room and stay
        )
    )
    traffic = traffic_of(terms, revision, [experiment], 1.0)
    planned = plan(
        experiment, traffic.volumes, revision.catalog, past=traffic.past[NAME], at=0.0, spent=traffic.spent[NAME]
    )
    return text(found), plan_text(planned, experiment), adopted, traffic, verdict.money.month, calls


def test_the_adopted_policy_saves_in_a_replay_what_the_report_promised(tmp_path: Path) -> None:
    report, planned, adopted, traffic, promised, calls = told(tmp_path)
    assert "together: SWITCH" in report
    assert "rule 'we-have-always-bought-there' prefers the opposite" in adopted.remarks[0]
    assert adopted.backtest is not None
    assert adopted.backtest.calls == calls
    assert adopted.backtest.moved > 0.9 * calls
    assert promised < 0
    assert adopted.backtest.month == pytest.approx(promised, rel=0.1)  # a few orders of a replay fail
    assert sum(volume.a_day for volume in traffic.volumes) == pytest.approx(calls * 24, rel=0.01)  # an hour at least
    assert traffic.spent[NAME] > 0
    assert f"{calls * 24:,} calls a day" in planned
