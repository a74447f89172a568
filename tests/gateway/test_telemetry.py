from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from gateway import telemetry


@pytest.fixture
def stream() -> Iterator[io.BytesIO]:
    lines = io.BytesIO()
    telemetry.configure(lines)
    yield lines
    structlog.reset_defaults()


def said(stream: io.BytesIO) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(stream.getvalue().splitlines()[-1])
    return line


def test_only_known_fields_are_said_and_the_others_are_named(stream: io.BytesIO) -> None:
    telemetry.logger().info("order_accepted", offer="fal:flux-dev", prompt="a secret", key="pg_secret")
    line = said(stream)
    assert (line["event"], line["level"], line["offer"]) == ("order_accepted", "info", "fal:flux-dev")
    assert line["dropped"] == ["key", "prompt"]
    assert b"secret" not in stream.getvalue()


def test_an_exception_is_told_by_class_and_place_but_not_by_its_words(stream: io.BytesIO) -> None:
    try:
        raise RuntimeError("a prompt, quoted")
    except RuntimeError:
        telemetry.logger().exception("background_work_failed", work="tick")
    line = said(stream)
    assert (line["error"], line["level"]) == ("RuntimeError", "error")
    assert "test_telemetry.py" in line["where"]
    assert b"quoted" not in stream.getvalue()


def test_long_text_is_cut(stream: io.BytesIO) -> None:
    telemetry.logger().warning("cancel_failed", detail="x" * 10_000)
    assert len(said(stream)["detail"]) == 300


def test_lower_levels_are_silent_and_events_are_counted(stream: io.BytesIO) -> None:
    before = telemetry.counts["order_failed"]
    telemetry.logger().debug("order_failed")
    telemetry.logger().info("order_failed")
    assert len(stream.getvalue().splitlines()) == 1
    assert telemetry.counts["order_failed"] == before + 1


def test_a_process_that_serves_loads_no_console_no_first_pydantic_and_no_seller_it_does_not_use() -> None:
    program = "import sys, gateway.cli.serve; from gateway.app import Lean; Lean([]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "structlog" in loaded
    assert not loaded & {"rich", "pydantic.v1", "fal_client", "together", "replicate", "openai", "httpx"}
