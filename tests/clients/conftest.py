from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import pytest

from gateway.cli.demo_home import RULES, SLOW
from tests.clients import installing
from tests.clients.cast import CAST, FAILING_ENDPOINTS, SLOW_ENDPOINTS, cases_of
from tests.support.demo import running_demo

DRIVERS = Path(__file__).with_name("drivers")
_PATIENCE_S = 240
MORE_RULES: Sequence[Mapping[str, object]] = (
    {"model": FAILING_ENDPOINTS, "do": "500"},
    {"model": SLOW_ENDPOINTS, "do": "slow", "args": {"seconds": 3}},
)
"""What goes wrong beside the script of the demo."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What a client made of one case: pictures, each a URL or base64, or the error it raised."""

    pictures: Sequence[str]
    error: dict[str, object] | None
    partials: Sequence[str] = ()


@pytest.fixture(scope="session")
def say(pytestconfig: pytest.Config) -> Say:
    """Prints a line of progress past pytest's capturing."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def speak(line: str) -> None:
        if capture is None:
            return
        with capture.global_and_fixture_disabled():
            print(f"\nclients: {line}", end="", flush=True)  # noqa: T201

    return speak


@pytest.fixture(scope="session")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """A gateway beside its sandbox, started as a user starts it; what it says of itself."""
    folder = tmp_path_factory.mktemp("gateway")
    _pay_for_previews(folder / "state")
    with running_demo(folder, str(installing.CHECKOUT / "run"), "demo", "--keep") as told:
        busy = {"provider": "fal", "account": SLOW, "do": "429", "args": {"retry_after": 86_400}}
        rules = [busy, *msgspec.to_builtins(RULES), *MORE_RULES]
        httpx.post(
            f"{told['sandbox_url']}/_sandbox/script", json={"rules": rules, "pictures": "plain"}
        ).raise_for_status()
        yield told


def _pay_for_previews(state: Path) -> None:
    """Lay a policy where the demo will look for one."""
    folder = state / "config" / "policies"
    folder.mkdir(parents=True)
    shipped = (installing.CHECKOUT / "config" / "policies" / "default.yaml").read_text()
    (folder / "default.yaml").write_text(f"{shipped}\nstreaming: {{preview: $0.01}}\n")
    (state / "demo.pid").write_text("0")  # this is a demo's folder


@pytest.fixture(scope="session")
def http(fixtures: Mapping[str, str]) -> Iterator[httpx.Client]:
    """A client without manners of its own, for shapes that are sent raw."""
    with httpx.Client(base_url=fixtures["base_url"], timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def outcomes(fixtures: Mapping[str, str], say: Say) -> Callable[[str], dict[str, Outcome]]:
    """Case -> outcome, of a client by its name; each client is installed and run once."""
    known: dict[str, dict[str, Outcome]] = {}

    def of(name: str) -> dict[str, Outcome]:
        if name not in known:
            known[name] = _run(name, fixtures, say)
        return known[name]

    return of


def _run(name: str, fixtures: Mapping[str, str], say: Say) -> dict[str, Outcome]:
    command, cwd = _command(name, say)
    cases = cases_of(CAST[name], fixtures)
    began = time.monotonic()
    done = subprocess.run(
        command,
        cwd=cwd,
        input=json.dumps({"base_url": fixtures["base_url"], "cases": cases}),
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE_S,
    )
    assert done.returncode == 0, f"{name} could not be run:\n{done.stderr[-4000:]}"
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]
    say(f"{name}: {len(cases)} cases after {time.monotonic() - began:.1f} s")
    return {
        line["name"]: Outcome(line.get("pictures", ()), line.get("error"), line.get("partials", ())) for line in lines
    }


def _command(name: str, say: Say) -> tuple[list[str], Path]:
    client = CAST[name]
    if client.driver.endswith(".py"):
        python = installing.python_environment(client.environment, say)
        return [str(python), str(DRIVERS / client.driver)], DRIVERS
    # Modules of JavaScript look for their packages from where they lie, upwards.
    folder = installing.node_environment(say)
    for script in DRIVERS.glob("*.mjs"):
        draft = folder / f"{script.name}.{os.getpid()}"
        draft.write_bytes(script.read_bytes())
        draft.replace(folder / script.name)
    return ["node", str(folder / client.driver)], folder


def _environment() -> dict[str, str]:
    """Ours, less what would lead a client to our modules, a proxy or somebody's account."""
    ours = ("PYTHON", "OPENAI_", "LITELLM_", "LANGCHAIN_", "LANGSMITH_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(ours)}
    # What each of these would otherwise report or look up elsewhere.
    quiet = {"HAYSTACK_TELEMETRY_ENABLED": "False", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "DO_NOT_TRACK": "1"}
    return kept | quiet
