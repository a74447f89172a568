"""The folder a demo lives in: a configuration like any other, whose accounts lead to the sandbox.

    <state>/config/gateway.yaml     one account at each seller, on loopback; JSON, which is YAML
    <state>/secrets/                their keys: `sandbox-<account>` opens an account of that name in the sandbox

With fixtures, two more models and accounts: one whose upstream always fails, one that answers after five seconds.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gateway.cli.shell import Stop
from gateway.settings import default_config, default_state
from gateway.yaml_files import read

ACCOUNTS: Mapping[str, Mapping[str, object]] = {
    "fal": {"kind": "fal", "concurrency": 10, "region": "us"},
    "together": {"kind": "together", "concurrency": 64, "rate": 20, "burst": 20, "region": "us"},
    "replicate": {"kind": "replicate", "concurrency": 64, "rate": 10, "burst": 20, "region": "us"},
    "openai": {"kind": "openai", "concurrency": 20, "region": "us"},
    "own": {"kind": "selfhosted", "machine_hour": "$0.34", "region": "us", "options": {"usage": True}},
}
NODES: Mapping[str, tuple[str, tuple[str, ...], int]] = {
    "rack1": ("sglang", ("flux-schnell",), 1),
    "rack2": ("vllm-omni", ("flux-schnell",), 4),
    "rack3": ("openai", ("flux-dev",), 2),
}
"""Our own GPUs: name -> dialect, what it serves, and how many orders it puts into one batch."""
MACHINES: Mapping[str, object] = {
    name: {"dialect": dialect, "models": models, "slots": slots} for name, (dialect, models, slots) in NODES.items()
}
"""The sandbox's script that makes them."""
FAILING, SLOW = "demo-fail", "demo-slow"
SLOW_S = 5.0
RULES = (
    {"provider": "fal", "account": FAILING, "do": "500"},
    {"provider": "fal", "account": SLOW, "do": "slow", "args": {"seconds": SLOW_S}},
)
"""The sandbox's script for the fixtures."""


def choose_state(asked: Path | None) -> Path:
    """The folder of this demo: the one asked for, else the usual one unless another demo lives there."""
    if asked is not None:
        return asked
    usual = default_state() / "demo"
    return usual if _owner(usual) in (None, os.getpid()) else usual.with_name(f"demo-{os.getpid()}")


def clear(state: Path) -> None:
    """Begin afresh; refuses to wipe a folder that is not a demo's."""
    if state.exists() and any(state.iterdir()) and not (state / "demo.pid").exists():
        raise Stop(f"{state} is not a demo's folder, so it is not wiped; name an empty one, or add --keep")
    shutil.rmtree(state, ignore_errors=True)


def write_home(state: Path, sandbox_url: str, port: int, *, fixtures: bool) -> Path:
    """Write the configuration of a demo; the folder to give to `--config`."""
    config, secrets = state / "config", state / "secrets"
    config.mkdir(parents=True, exist_ok=True)
    secrets.mkdir(mode=0o700, exist_ok=True)
    (state / "demo.pid").write_text(str(os.getpid()))
    accounts = dict(ACCOUNTS)
    if fixtures:
        models = _write_catalog(config / "catalog")
        accounts = {name: {**account, "models": models[str(account["kind"])]} for name, account in accounts.items()}
        accounts |= {name: {"kind": "fal", "concurrency": 10, "models": [name]} for name in (FAILING, SLOW)}
    for name in accounts:
        (secrets / _variable(name)).write_text(f"sandbox-{name}")
    settings = {
        "accounts": {
            name: {**account, "key_env": _variable(name), **_place(account, f"{sandbox_url}/{account['kind']}")}
            for name, account in accounts.items()
        },
        "database": {"durability": "process"},
        "state": str(state),
        "secrets": str(secrets),
        "port": port,
        "public_url": f"http://127.0.0.1:{port}",
        "callbacks": True,
    }
    (config / "gateway.yaml").write_bytes(msgspec.json.format(msgspec.json.encode(settings), indent=2))
    return config


def _place(account: Mapping[str, object], url: str) -> Mapping[str, object]:
    """Where an account leads to: its seller's twin, or a machine for each node of ours."""
    if account["kind"] != "selfhosted":
        return {"base_url": url}
    return {
        "nodes": [
            {
                "name": name,
                "base_url": f"{url}/machines/{name}",
                "dialect": dialect,
                "models": models,
                "slots": slots,
            }
            for name, (dialect, models, slots) in NODES.items()
        ]
    }


def _write_catalog(folder: Path) -> Mapping[str, list[str]]:
    """The shipped catalogue and the fixtures' models; the shipped models by kind of seller."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(default_config() / "catalog", folder)
    sold: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.yaml")):
        document = _document(path)
        for offer in document["offers"]:
            sold.setdefault(offer["provider"], []).append(document["model"])
    template = _document(folder / "flux-dev.yaml")
    for name in (FAILING, SLOW):
        # Said to be slow, so that only a caller who asks for it by name gets it; slower, and such an order would first
        # wait for calls that need the slot more.
        offers = [{**o, "typical_seconds": 60.0} for o in template["offers"] if o["provider"] == "fal"]
        model = {**template, "model": name, "title": f"Fixture {name}", "aliases": [], "offers": offers}
        (folder / f"{name}.yaml").write_bytes(msgspec.json.encode(model, enc_hook=str))
    return sold


def _document(path: Path) -> dict[str, Any]:
    document = read(path).data
    assert isinstance(document, dict)
    return document


def _variable(account: str) -> str:
    """Names no variable that people set, so that a demo never picks up a real key."""
    return f"SANDBOX_{account.upper().replace('-', '_')}_KEY"


def _owner(state: Path) -> int | None:
    """The process of the demo that lives in a folder, if it is alive."""
    try:
        pid = int((state / "demo.pid").read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid
