"""The other story a demo tells: a team that has always bought at one seller tries another on copies of its own calls.

The sandbox's fal is the dearer one, and a tenth of its orders take five times as long. The report tells the two apart,
and the policy it asks for is played over the calls that were recorded: does it save what was promised?
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from gateway.app import App
from gateway.cli.shadow_adopt import adopted_policy, verdict_on
from gateway.cli.shadow_report import look, text
from gateway.cli.shadow_shared import experiment_of
from gateway.cli.shell import Stop
from gateway.cli.simulate import usd
from gateway.revisions import load_revision
from gateway.settings import default_config, load_settings

if TYPE_CHECKING:
    from providers.sandbox import Sandbox

EXPERIMENT = "fal-or-together"
HABIT = f"""
rules:
  - rule: we-have-always-bought-there
    prefer: [{{offer: fal:flux-schnell, over: together:flux-schnell}}]

experiments:
  - experiment: {EXPERIMENT}
    champion: {{provider: fal, model: flux-schnell}}
    challengers: [{{name: together, account: together}}]
    sample: {{share: 100%}}
    budget: {{day: $5, total: $100}}
    compare: [cost, latency]
    decide: {{margins: {{latency: 15%}}}}
"""
"""What the demo's policy says beside the shipped one."""
TAIL: Sequence[Mapping[str, object]] = ({"provider": "fal", "when": {"share": 0.1}, "do": "slow"},)
"""The sandbox's script."""
TIME_SCALE = 0.05
SIZES = ("512x512", "768x768", "1024x768", "1024x1024")
SECONDS = 45.0
APART_S = 0.12
"""Seconds between two calls: the challenger's rate leaves room to spare for a copy of each."""


def write_policy(config: Path) -> None:
    """The shipped policies, with the team's habit and its experiment."""
    folder = config / "policies"
    shutil.copytree(default_config() / "policies", folder, dirs_exist_ok=True)
    policy = folder / "default.yaml"
    policy.write_text(policy.read_text(encoding="utf-8") + HABIT, encoding="utf-8")


class Team:
    """The team whose calls are copied."""

    async def shop(self, app: App, _: Sandbox, key: str) -> bool:
        """Call for a while; whether there were answers."""
        draw = random.Random(1)  # noqa: S311 - sizes, no secrets
        ends, tasks = Counter[str](), set[asyncio.Task[None]]()
        headers = {"authorization": f"Bearer {key}"}
        until = time.monotonic() + SECONDS
        async with aiohttp.ClientSession(f"{app.settings.public_base}", headers=headers) as session:

            async def ask(number: int) -> None:
                body = {
                    "model": "flux-schnell",
                    "prompt": f"a lighthouse, number {number}",
                    "size": draw.choice(SIZES),
                    "providers": {"only": ["fal", "together"]},
                }
                async with session.post("/v1/images/generations", json=body) as answer:
                    ends[answer.headers.get("x-pixelgate-offer", "") if answer.ok else str(answer.status)] += 1

            while (left := until - time.monotonic()) > 0:
                tasks.add(asyncio.create_task(ask(len(tasks))))
                _progress(f"{sum(ends.values())} calls answered, {left:.0f} s to go")
                await asyncio.sleep(APART_S)
            await asyncio.gather(*tasks)
        _progress("")
        print(f"calls, by who answered: {dict(ends.most_common())}", flush=True)
        await app.idle()
        return ends["fal:flux-schnell"] > 0


def conclude(config: Path) -> bool:
    """Print the report, adopt its verdict, play it; whether the replay saves what was promised, within its interval."""
    settings = load_settings(config, environ={})
    revision = load_revision(settings)
    told, pairs = look(settings, revision, experiment_of(revision, EXPERIMENT))
    print(f"\n{text(told)}\n", flush=True)
    verdict = verdict_on(told, None)
    if verdict.verdict != "switch":
        raise Stop("the two sellers were not told apart; is this machine very busy? Try again", code=1)
    adopted = adopted_policy(settings, revision, told, verdict, pairs, days=1.0)
    print(adopted.diff, flush=True)
    backtest = adopted.backtest
    if backtest is None or backtest.promised is None:
        raise Stop("nothing was recorded that could be played", code=1)
    print(backtest.told, flush=True)
    low, high = backtest.promised
    kept = low <= backtest.month <= high
    judged = "as promised" if kept else f"promised were ${usd(round(-high))} to ${usd(round(-low))}"
    print(f"\nthe adopted policy saves ${usd(round(-backtest.month))} in 30 days: {judged}", flush=True)
    return kept


def _progress(line: str) -> None:
    """A line that the next one replaces, for people only."""
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{line}", end="", file=sys.stderr, flush=True)
