"""Child processes of a bench: started on a core of their own, awaited until they answer, measured, always ended."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024
CHECKOUT = Path(__file__).resolve().parent.parent


class Child:
    """A running process and the processes it started."""

    def __init__(self, command: Sequence[str], *, log: Path, core: int | None, env: Mapping[str, str] | None) -> None:
        """`core` pins it (and what it starts) to one CPU; standard error and output go to `log`."""
        self.log = log
        self.started = time.monotonic()
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                list(command),
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=CHECKOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        if core is not None:
            os.sched_setaffinity(self.pid, {core})

    @property
    def pid(self) -> int:
        """The process id of the first process."""
        return self.process.pid

    def cpu_s(self) -> float:
        """CPU seconds (user and system, all threads) the tree has used, children that ended included."""
        return sum(_cpu_ticks(pid) for pid in tree(self.pid)) / TICKS_PER_S

    def resident_kb(self) -> int:
        """Resident memory of the tree, in kB of 1,024 bytes."""
        return sum(_resident_pages(pid) for pid in tree(self.pid)) * PAGE_KB

    def kill(self) -> None:
        """End it with SIGKILL, and everything it started: what a power cut would do to the process."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, within_s: float = 10.0) -> int | None:
        """Ask with SIGTERM, insist with SIGKILL; answers the exit status it chose, None when it had to be killed."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.kill()

    def must_live(self) -> None:
        """Raise with the end of its log when it has ended by itself."""
        status = self.process.poll()
        if status is not None:
            raise ChildEndedError(f"{self.process.args!r} ended with status {status}:\n{self.last_words()}")

    def last_words(self, lines: int = 30) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class ChildEndedError(RuntimeError):
    """A process the bench needs ended by itself, or never answered."""


@contextmanager
def running(
    command: Sequence[str], *, log: Path, core: int | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Child]:
    """A child for the length of a block."""
    child = Child(command, log=log, core=core, env=env)
    try:
        yield child
    finally:
        child.stop()


def python(module: str, *arguments: str) -> list[str]:
    """The command line of a module of ours under this very interpreter."""
    return [sys.executable, "-m", module, *arguments]


def tree(pid: int) -> list[int]:
    """A process and all its descendants that are alive."""
    found = [pid]
    for parent in found:
        with suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def free_port() -> int:
    """A loopback port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for one run, in memory where the system offers that.

    On disk the file system would be measured with us: ext4 without a journal, for one, searches for minutes past
    the inodes of files deleted before, and then creating a file costs ten times what it usually does.
    """
    memory = Path("/dev/shm")  # noqa: S108 - made unguessable below
    with tempfile.TemporaryDirectory(prefix="pixelgate-bench-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def raise_file_limit() -> int:
    """Allow as many open files as the system lets us; answers how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _cpu_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    user, system, children_user, children_system = (int(field) for field in fields[11:15])
    return user + system + children_user + children_system


def _resident_pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
