"""`python -m bench.rollout`: policies saved, broken, tried and sent back while a gateway serves its callers."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from statistics import median

import aiohttp
from msgspec import Struct

from bench.gateway_config import Home, copy_catalog, write_home
from bench.loopback import HOST, ask_json, wait_for_200
from bench.processes import Child, free_port, python, running, scratch
from bench.report import Figure, conclude
from policies.experiments.guardrails import Guardrails, Outcome
from policies.policy import CanaryTerms

ACCOUNTS: Mapping[str, Mapping[str, object]] = {
    "fal": {"concurrency": 40},
    "together": {"rate": 40.0, "burst": 40},
}
CALLERS = 6
"""Calls under way at once."""
WITHIN_S = 20.0
"""A change that has not come into force, or been refused, by then counts as lost."""
LARGE = b"# " + b"x" * 1_000_000

Break = tuple[str, Callable[[str], str]]
BREAKS: Sequence[Break] = (
    ("misspelt key", lambda text: text.replace("failure: $0.01", "failrue: $0.01", 1)),
    ("no unit", lambda text: text.replace("latency_slo: 15s", "latency_slo: 15", 1)),
    ("no YAML", lambda text: text.replace("intents:", "intents: [", 1)),
    ("duplicate key", lambda text: text.replace("default_intent:", "policy: default\ndefault_intent:", 1)),
    ("anchor", lambda text: text.replace("fallback:", "fallback: &here", 1)),
    ("unknown intent", lambda text: text.replace("low: preview", "low: previw", 1)),
    ("unknown model", lambda text: text.replace("dall-e-: auto", "dall-e-: dall-f", 1)),
    ("nobody left", lambda text: text.replace("training: allowed", "region: eu", 1)),
    ("a megabyte", lambda text: text + LARGE.decode()),
    ("half a file", lambda text: text[: len(text) // 2] + "\n  - ["),
)
"""What people, editors and disks do to a file."""


class Seen(Struct, kw_only=True):
    """What the callers saw."""

    statuses: Counter[int]
    last_sent: dict[str, float]
    """Policy -> when the last call that it served was sent, on the machine's clock."""
    served: Counter[str]
    """Policy -> calls."""


class Traffic:
    """Callers who ask one after another until they are told to stop."""

    def __init__(self, port: int, key: str) -> None:
        self._url = f"http://{HOST}:{port}/v1/images/generations"
        self._headers = {"authorization": f"Bearer {key}"}
        self.seen = Seen(statuses=Counter(), last_sent={}, served=Counter())
        self._users = 0
        self._over = False

    async def flow(self) -> None:
        """Ask until `stop`."""
        async with aiohttp.ClientSession(headers=self._headers) as session:
            await asyncio.gather(*(self._ask_on(session) for _ in range(CALLERS)))

    def stop(self) -> None:
        """Let the callers end."""
        self._over = True

    async def _ask_on(self, session: aiohttp.ClientSession) -> None:
        while not self._over:
            self._users += 1
            body = {"prompt": "a lighthouse", "size": "512x512", "user": f"user {self._users}"}
            sent = time.time()
            try:
                async with session.post(self._url, json=body) as answer:
                    await answer.read()
                    self._note(answer.status, answer.headers.get("x-pixelgate-policy", ""), sent)
            except aiohttp.ClientError:
                self._note(0, "", sent)

    def _note(self, status: int, policy: str, sent: float) -> None:
        self.seen.statuses[status] += 1
        if policy:
            self.seen.served[policy] += 1
            self.seen.last_sent[policy] = max(sent, self.seen.last_sent.get(policy, 0.0))


class Stage(Struct, frozen=True, kw_only=True):
    """A gateway over a sandbox, its configuration and keys."""

    home: Home
    port: int
    key: str
    admin: str
    log: Path

    @property
    def policy(self) -> Path:
        """The file of the policy in force."""
        return self.home.folder / "policies" / "default.yaml"

    def condition(self) -> dict[str, object]:
        """What `GET /admin/configuration` says."""
        import http.client

        connection = http.client.HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request("GET", "/admin/configuration", headers={"authorization": f"Bearer {self.admin}"})
            said: dict[str, object] = json.loads(connection.getresponse().read())
            return said
        finally:
            connection.close()

    def lines(self, event: str) -> list[dict[str, object]]:
        """The log lines of an event."""
        found = [json.loads(line) for line in self.log.read_bytes().splitlines() if line.startswith(b"{")]
        return [line for line in found if line.get("event") == event]


@contextmanager
def staged(folder: Path, time_scale: float) -> Iterator[Stage]:
    """Sandbox and gateway, for the length of a block."""
    sold, port, log = free_port(), free_port(), folder / "gateway.log"
    command = python("providers.sandbox", "--port", str(sold), "--time-scale", str(time_scale))
    with running(command, log=folder / "sandbox.log") as sandbox:
        wait_for_200(sandbox, sold, "/_sandbox/stats")
        limits = {"fal/fal": {"concurrency": 40}, "together": {"rate": 40.0, "burst": 40}}
        ask_json(sold, "/_sandbox/script", {"pictures": "plain", "limits": limits})
        accounts = {
            name: {
                "kind": name,
                "key_env": f"BENCH_{name.upper()}",
                "base_url": f"http://{HOST}:{sold}/{name}",
                **terms,
            }
            for name, terms in ACCOUNTS.items()
        }
        settings = {"accounts": accounts, "database": {"durability": "process"}}
        env = {f"BENCH_{name.upper()}": f"sandbox-{name}" for name in ACCOUNTS}
        home = write_home(folder / "gateway", settings=settings, env=env)
        copy_catalog(home, pace=time_scale)
        key = home.create_key("acme")
        admin = json.loads(home.run("keys", "create", "--admin", "--json").stdout)["key"]
        gateway = Child(home.command("serve", "--host", HOST, "--port", str(port)), log=log, core=None, env=env)
        try:
            wait_for_200(gateway, port, "/health/ready")
            yield Stage(home=home, port=port, key=key, admin=admin, log=log)
        finally:
            gateway.stop(within_s=20)


class Reloads(Struct, kw_only=True):
    """What became of the saves."""

    named_s: list[float]
    in_force_s: list[float]
    faults: list[str]


def reload_many(stage: Stage, saves: int) -> Reloads:
    """Save good and broken policies in turn; seconds until each is in force, or its error is named."""
    done = Reloads(named_s=[], in_force_s=[], faults=[])
    text = stage.policy.read_text()
    for number in range(saves):
        if number % 2:
            name, broken = BREAKS[number // 2 % len(BREAKS)]
            _save_broken(stage, done, name, broken(text))
        else:
            text = re.sub(r"(?m)^revision: \d+", f"revision: {number // 2 + 2}", text)
            text = re.sub(r"late_second: \$[0-9.]+", f"late_second: $0.00{number % 9 + 1}", text, count=1)
            _save_good(stage, done, text, f"default@{number // 2 + 2}")
    _save_good(stage, done, text, "")
    return done


def _save_good(stage: Stage, done: Reloads, text: str, label: str) -> None:
    began = time.monotonic()
    stage.policy.write_text(text)
    if label:
        took = _until(lambda: stage.condition()["policy"] == label, began)
        done.in_force_s.append(took)
    else:
        took = _until(lambda: stage.condition()["status"] == "ok", began)
    if took > WITHIN_S:
        done.faults.append(f"{label or 'the last good policy'} did not come into force")


def _save_broken(stage: Stage, done: Reloads, name: str, text: str) -> None:
    before = stage.condition()["refused_at"]
    began = time.monotonic()
    stage.policy.write_text(text)
    took = _until(lambda: stage.condition()["refused_at"] not in (None, before), began)
    done.named_s.append(took)
    faults = stage.condition()["faults"]
    assert isinstance(faults, list)
    placed = [
        fault for fault in faults if fault["file"] == "default.yaml" and (fault["line"] or "larger" in fault["message"])
    ]
    if took > WITHIN_S or not placed or len(placed) != len(faults):
        done.faults.append(f"{name}: not named with its place: {faults}")


def _until(true: Callable[[], bool], began: float) -> float:
    """Seconds since `began` until something is so."""
    while not true() and time.monotonic() - began <= WITHIN_S:
        time.sleep(0.02)
    return time.monotonic() - began


def try_bad(stage: Stage, seen: Seen) -> tuple[list[Figure], list[str]]:
    """Start a canary that is far too dear; how soon nobody is served by it any more."""
    text = stage.policy.read_text()
    number = int(next(line for line in text.splitlines() if line.startswith("revision:")).split()[1]) + 1
    draft = stage.home.folder / "draft.yaml"
    bad = re.sub(r"(?m)^revision: \d+", f"revision: {number}", text)
    draft.write_text(bad.replace("default_intent: preview", "default_intent: export", 1))
    started = stage.home.run("policy", "canary", "start", str(draft), "--share", "20%")
    if started.returncode:
        return [], [f"no canary was started: {started.stderr}"]
    began = time.monotonic()
    while not stage.lines("canary_rolled_back") and time.monotonic() - began < 60.0:
        time.sleep(0.1)
    lines = stage.lines("canary_rolled_back")
    if not lines:
        return [], ["the bad canary was not sent back within a minute"]
    crossed = datetime.fromisoformat(str(lines[0]["at"])).timestamp()
    time.sleep(3.0)  # calls go on, and none may be its any more
    late = max(seen.last_sent.get(f"default@{number}", crossed) - crossed, 0.0)
    status = json.loads(stage.home.run("policy", "canary", "status", "--json").stdout)
    faults = [] if status["state"] == "rolled back" else [f"the bad canary is {status['state']}"]
    return [
        Figure(name="rollback_s", value=late, unit="s", must=5.0),
        Figure(name="bad_canary_calls", value=float(seen.served[f"default@{number}"]), unit=""),
    ], faults


def simulate(runs: int, calls: int, seed: int) -> list[Figure]:
    """Good and bad canaries, without a gateway: how many are ended, and after how many calls."""
    rng, terms = random.Random(seed), CanaryTerms(calls=calls)
    good = [_ran(rng, terms) for _ in range(runs)]
    ended = 100.0 * sum(rails.crossed is not None for rails in good) / runs
    figures = [Figure(name="good_rolled_back_pct", value=ended, unit="%", must=1.0)]
    for name, badly in (("dear", {"dearer": 1.2}), ("slow", {"slower": 2.0}), ("failing", {"fails": 0.1})):
        bad = [_ran(rng, terms, **badly) for _ in range(max(runs // 10, 10))]
        caught = [rails.pairs for rails in bad if rails.crossed is not None]
        figures += [
            Figure(name=f"{name}_caught_pct", value=100.0 * len(caught) / len(bad), unit="%", must=95.0, at_least=True),
            Figure(name=f"{name}_calls", value=float(median(caught)) if caught else None, unit=""),
        ]
    return figures


def _ran(rng: random.Random, terms: CanaryTerms, **badly: float) -> Guardrails:
    rails = Guardrails(terms)
    while not rails.passed and rails.crossed is None:
        export, canary = rng.random() < 0.3, rng.random() < 0.4
        outcome = _outcome(rng, export=export, **(badly if canary else {}))
        rails.add("canary" if canary else "control", export, outcome)
    return rails


def _outcome(
    rng: random.Random, *, export: bool, dearer: float = 1.0, slower: float = 1.0, fails: float = 0.01
) -> Outcome:
    """A preview or an export: two sellers a third apart in price, a tail of slow ones, few failures."""
    price, seconds = (40_000_000.0, 8.0) if export else (3_000_000.0, 0.9)
    slow = 4.0 if rng.random() < 0.03 else 1.0
    return Outcome(
        seconds=seconds * slow * slower * rng.lognormvariate(0.0, 0.25),
        nano_usd=price * dearer * (1.33 if rng.random() < 0.2 else 1.0),
        failed=rng.random() < fails,
    )


async def live(stage: Stage, saves: int) -> tuple[list[Figure], list[str]]:
    """Everything that takes a running gateway, under load."""
    traffic = Traffic(stage.port, stage.key)
    flowing = asyncio.create_task(traffic.flow())
    reloads = await asyncio.to_thread(reload_many, stage, saves)
    canary, faults = await asyncio.to_thread(try_bad, stage, traffic.seen)
    traffic.stop()
    await flowing
    seen = traffic.seen
    failed = seen.statuses.total() - seen.statuses[200]
    return [
        Figure(name="reloads", value=float(len(reloads.named_s) + len(reloads.in_force_s)), unit=""),
        Figure(name="requests", value=float(seen.statuses.total()), unit=""),
        Figure(name="failed_requests", value=float(failed), unit="", must=0.0),
        Figure(name="error_named_s", value=max(reloads.named_s), unit="s at most", must=1.0),
        Figure(name="error_named_median_s", value=median(reloads.named_s), unit="s"),
        Figure(name="in_force_s", value=max(reloads.in_force_s), unit="s at most"),
        Figure(name="in_force_median_s", value=median(reloads.in_force_s), unit="s"),
        *canary,
    ], [*reloads.faults, *faults, *([f"statuses {dict(seen.statuses)}"] if failed else [])]


def main(arguments: Sequence[str]) -> int:
    """Run the bench; answers the exit status."""
    parser = argparse.ArgumentParser(prog="bench rollout", description="Policies saved, broken and tried under load.")
    parser.add_argument("--saves", type=int, default=100, help="policies saved, every other one broken (default 100)")
    parser.add_argument("--runs", type=int, default=500, help="simulated good canaries (default 500)")
    parser.add_argument("--calls", type=int, default=2000, help="planned calls of each (default 2000)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed draws the same canaries (default 1)")
    parser.add_argument("--time-scale", type=float, default=0.02, help="sandbox seconds per real second (default 0.02)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    with scratch() as folder, staged(folder, options.time_scale) as stage:
        figures, faults = asyncio.run(live(stage, options.saves))
    figures += simulate(options.runs, options.calls, options.seed)
    context = {"saves": options.saves, "runs": options.runs, "calls": options.calls, "seed": options.seed}
    return conclude(figures, context=context, faults=faults, json_file=options.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
