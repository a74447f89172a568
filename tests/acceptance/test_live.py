"""The live gateway beside the simulator: `bench live`, shortened."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.live.paced import PacedClock, PacedLoop
from providers.sandbox.endpoints import Endpoint
from providers.sandbox.fal_endpoints import FAL
from providers.sandbox.latency import Latency, median_s

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_trace_is_served_live_and_predicted_and_the_books_agree(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    options = ("--minutes", "0.2", "--rate", "2", "--pace", "0.5", "--json", str(figures))
    done = subprocess.run(
        [sys.executable, "-m", "bench.live", *options],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert figures.exists(), done.stdout + done.stderr
    found = {name: figure["value"] for name, figure in json.loads(figures.read_text())["figures"].items()}
    assert found["calls"] > 10
    assert found["drift_nano_usd"] == 0
    assert found["live_usd"] == pytest.approx(found["predicted_usd"], rel=0.5)


def test_a_paced_loop_waits_for_its_own_seconds_and_its_clock_agrees() -> None:
    async def wait() -> tuple[float, float]:
        clock = PacedClock()
        before, date = clock.now(), clock.utc()
        await asyncio.sleep(50.0)
        return clock.now() - before, (clock.utc() - date).total_seconds()

    began = time.monotonic()
    with asyncio.Runner(loop_factory=lambda: PacedLoop(0.002)) as runner:
        waited, dated = runner.run(wait())
    assert waited >= 50.0
    assert dated == pytest.approx(waited, rel=0.5)
    assert time.monotonic() - began < 50.0


def test_the_median_that_is_predicted_is_that_of_the_sandbox() -> None:
    endpoint: Endpoint = FAL["fal-ai/flux/schnell"]
    drawn = [Latency(1, 1.0).run_s(endpoint, (1024, 512), 2, None, str(number)) for number in range(800)]
    assert statistics.median(drawn) == pytest.approx(median_s(endpoint.typical_s, (1024, 512), 2), rel=0.05)
