"""A demo in a process of its own: what acceptance tests stand on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
TIME_SCALE = "0.02"
"""Sandbox seconds per real second."""


@contextmanager
def running_demo(folder: Path, *command: str) -> Iterator[Mapping[str, str]]:
    """What a running demo says of itself; `command` starts one, our own interpreter when left out.

    It must end well when it is told to, whatever was done to it.
    """
    told = folder / "fixtures.json"
    started = command or (sys.executable, "-m", "gateway", "demo")
    options = ("--port", "0", "--fixtures", str(told), "--state", str(folder / "state"), "--time-scale", TIME_SCALE)
    with subprocess.Popen(
        [*started, *options], cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            until = time.monotonic() + 60
            while not told.exists():
                assert process.poll() is None, "the demo ended by itself"
                assert time.monotonic() < until, "the demo did not start"
                time.sleep(0.1)
            yield json.loads(told.read_text())
            assert process.poll() is None, "the demo ended by itself"
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
