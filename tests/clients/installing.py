"""Installs each client into an environment of its own, once: `.pixelgate/clients/<name>-<digest of its lock>`.

The locks are made by, in `environments/`,

    uv pip compile --universal --python-version 3.11 --no-annotate --no-header NAME.in -o NAME.txt
    npm install --package-lock-only --ignore-scripts        (in node/; its .npmrc keeps the registry's address out)
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
LOCKS = Path(__file__).with_name("environments")
HOME = CHECKOUT / ".pixelgate" / "clients"
NO_NODE = (
    "the clients written in JavaScript need Node.js 20 or later with npm; on Debian or Ubuntu: "
    "apt-get install nodejs npm (or a newer Node.js from its own site), then run this tier again"
)
_PATIENCE_S = 540

Say = Callable[[str], None]


def python_environment(name: str, say: Say) -> Path:
    """The interpreter of an environment that holds what `environments/<name>.txt` lists, and nothing else."""
    lock = LOCKS / f"{name}.txt"
    folder = _folder(name, [lock])

    def install(draft: Path) -> None:
        uv = _uv()
        _run([*uv, "venv", "--quiet", "--python", sys.executable, str(draft)])
        interpreter = str(draft / "bin" / "python")
        _run([*uv, "pip", "install", "--quiet", "--python", interpreter, "--no-deps", "-r", str(lock)])

    _prepare(folder, install, say)
    return folder / "bin" / "python"


def node_environment(say: Say) -> Path:
    """A folder whose `node_modules` is what `environments/node/package-lock.json` lists."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise RuntimeError(NO_NODE)
    lock = LOCKS / "node"
    folder = _folder("node", [lock / "package-lock.json"])

    def install(draft: Path) -> None:
        shutil.copytree(lock, draft)
        _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=draft)

    _prepare(folder, install, say)
    return folder


def _folder(name: str, locks: Sequence[Path]) -> Path:
    content = b"".join(lock.read_bytes() for lock in locks) + sys.version.encode()
    return HOME / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"


def _prepare(folder: Path, install: Callable[[Path], None], say: Say) -> None:
    """Install unless somebody has; a folder that was not finished is begun anew."""
    HOME.mkdir(parents=True, exist_ok=True)
    with _turn(folder):
        done = folder / "installed"
        if done.exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        began = time.monotonic()
        say(f"installing {folder.name} ...")
        install(folder)
        done.touch()
        say(f"installed {folder.name} after {time.monotonic() - began:.0f} s")


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """One process installs an environment at a time; the lock ends with its holder."""
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _uv() -> list[str]:
    """Uv: on the PATH, else the one `./run` has put beside our interpreter, else put there now."""
    found = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if found is None:
        _run(
            [
                sys.executable,
                "-m",
                "pip",
                "install",
                "-q",
                "--require-hashes",
                "-r",
                str(CHECKOUT / "requirements-uv.lock"),
            ]
        )
        found = str(Path(sys.executable).parent / "uv")
    return [found]


def _run(command: Sequence[str], cwd: Path | None = None) -> None:
    # Networks that re-sign TLS are known to the machine's certificates only; uv asks them when told.
    environment = {**os.environ, "UV_SYSTEM_CERTS": "1", "UV_NO_PROGRESS": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=_PATIENCE_S
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} ... failed; is the network reachable?\n{done.stdout}{done.stderr}")
