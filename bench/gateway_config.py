"""Configuration folders for gateways under test: written fresh, holding everything they keep."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from bench.processes import CHECKOUT, python
from gateway.yaml_files import read

SHIPPED = CHECKOUT / "config"


class Home(Struct, frozen=True, kw_only=True):
    """A configuration folder, and the environment its gateway is started with."""

    folder: Path
    env: Mapping[str, str]

    @property
    def state(self) -> Path:
        """Where this gateway keeps its database, pictures and log."""
        return self.folder / "state"

    def command(self, *words: str) -> list[str]:
        """A `pixelgate` command line that reads this configuration."""
        return python("gateway", *words, "--config", str(self.folder))

    def run(self, *words: str, within_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.command(*words),
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
            cwd=CHECKOUT,
            env={**os.environ, **self.env},
        )

    def create_key(self, team: str) -> str:
        """A fresh API key without limits for a team."""
        done = self.run("keys", "create", "--team", team, "--json")
        if done.returncode != 0:
            raise RuntimeError(f"no key was made: {done.stderr or done.stdout}")
        key: str = json.loads(done.stdout)["key"]
        return key


def write_home(
    folder: Path,
    *,
    settings: Mapping[str, object],
    env: Mapping[str, str] | None = None,
    catalog: Mapping[str, object] | None = None,
) -> Home:
    """A folder with these settings, the shipped policy, and the models given (none: the caller brings a catalogue)."""
    shutil.copytree(SHIPPED / "policies", folder / "policies")
    if catalog:
        _forget_models(folder / "policies" / "default.yaml")
    (folder / "catalog").mkdir()
    for model, document in (catalog or {}).items():
        _write_yaml(folder / "catalog" / f"{model}.yaml", document)
    home = Home(folder=folder, env=env or {})
    _write_yaml(folder / "gateway.yaml", {**settings, "state": str(home.state)})
    return home


def copy_catalog(home: Home, pace: float) -> None:
    """The shipped catalogue for sellers whose time runs `pace` times as long: what is typical there is scaled."""
    for file in (SHIPPED / "catalog").glob("*.yaml"):
        text = re.sub(
            r"(?m)^(\s*typical_seconds:\s*)([0-9.]+)",
            lambda found: f"{found[1]}{float(found[2]) * pace:.6f}",
            file.read_text(),
        )
        (home.folder / "catalog" / file.name).write_text(text)


def hurry_policy(home: Home, pace: float) -> None:
    """The shipped policy where a second counts as `1 / pace` of them: late sooner, and dearer by the second."""
    file = home.folder / "policies" / "default.yaml"
    hurried = re.sub(
        r"(?m)^(\s*latency_slo:\s*)([0-9.]+)s", lambda found: f"{found[1]}{float(found[2]) * pace:g}s", file.read_text()
    )
    file.write_text(
        re.sub(r"(late_second: \$)([0-9.]+)", lambda found: f"{found[1]}{float(found[2]) / pace:g}", hurried)
    )


def write_own_gpu(folder: Path, upstream_url: str) -> Home:
    """One account of kind `selfhosted` that sells one model at a price per image; commits survive the process."""
    return write_own_gpus(folder, {"gpu": (upstream_url, 10_000)})


def write_own_gpus(folder: Path, accounts: Mapping[str, tuple[str, int]]) -> Home:
    """Accounts of kind `selfhosted`, by the address of their server and their slots, that sell the same model."""
    settings = {
        "accounts": {
            name: {"kind": "selfhosted", "base_url": url, "concurrency": slots}
            for name, (url, slots) in accounts.items()
        },
        "database": {"durability": "process"},
    }
    offer = {
        "provider": "selfhosted",
        "endpoint": "bench",
        "price": {"per_image": "$0.001"},
        "abilities": {
            "sizes": {"min": 64, "max": 2048, "multiple": 8},
            "formats": ["png"],
            "size_dialect": "size",
        },
        "typical_seconds": 1.0,
        "source": "made up for the bench",
        "checked_on": "2026-11-21",
    }
    model = {
        "model": "bench",
        "tier": "preview",
        "title": "The mock upstream",
        "licence": {"name": "none", "commercial": True},
        "offers": [offer],
    }
    return write_home(folder, settings=settings, catalog={"bench": model})


def add_to_policy(home: Home, **sections: object) -> None:
    """Say something more in a home's policy."""
    file = home.folder / "policies" / "default.yaml"
    document = read(file).data
    assert isinstance(document, dict)
    _write_yaml(file, {**document, **sections})


def _forget_models(policy: Path) -> None:
    """A catalogue of a bench's own has none of the models that the shipped policy names."""
    document = read(policy).data
    assert isinstance(document, dict)
    for names in ("edits", "least_steps"):
        document["models"].pop(names, None)
    document.pop("examples", None)
    _write_yaml(policy, document)


def _write_yaml(path: Path, document: object) -> None:
    """JSON is YAML."""
    path.write_text(json.dumps(document, indent=2) + "\n")
