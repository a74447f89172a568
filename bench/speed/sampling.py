"""Where a gateway process spends its CPU time, without a profiler installed.

`python -m bench.speed.sampling FILE MODULE [arguments]` runs the module and takes the main thread's stack every two
milliseconds of CPU time the process uses, once its event loop runs. On leaving it writes FILE: CPU seconds of each
thread, then the share of samples with each function at the top of the stack, then anywhere on it. Samples in which the
main thread only waits (its loop's `run` is at the top) belong to the other threads.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import FrameType

EVERY_S = 0.002
LOOP = "asyncio/runners.py:Runner.run"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Sampler:
    """Counts the functions found on the main thread's stack, and CPU time by thread."""

    def __init__(self) -> None:
        self.samples = 0
        self.top: Counter[str] = Counter()
        self.anywhere: Counter[str] = Counter()
        self.threads: dict[str, float] = {}

    def take(self, _signal: int, frame: FrameType | None) -> None:
        """One sample; the signal of a CPU timer calls it."""
        stack: list[str] = []
        while frame is not None:
            stack.append(_name(frame))
            frame = frame.f_back
        if LOOP not in stack:
            return
        self.samples += 1
        self.top[stack[0]] += 1
        self.anywhere.update(set(stack[: stack.index(LOOP)]))
        if self.samples % 100 == 0:
            self.threads |= {thread.name: _cpu_s(thread) for thread in threading.enumerate()}

    def report(self, lines: int = 70) -> str:
        """All of it as text."""
        total = max(self.samples, 1)
        parts = [f"{self.samples} samples, one every {EVERY_S * 1000:g} ms of CPU time", "", "CPU seconds by thread"]
        parts += [f"{seconds:8.2f}  {name}" for name, seconds in self.threads.items()]
        for title, counts in (("at the top of the stack", self.top), ("anywhere on the stack", self.anywhere)):
            parts += ["", title]
            parts += [f"{100 * count / total:6.1f} %  {name}" for name, count in counts.most_common(lines)]
        return "\n".join(parts) + "\n"


def _name(frame: FrameType) -> str:
    folder, _, file = frame.f_code.co_filename.rpartition("/")
    return f"{folder.rpartition('/')[2]}/{file}:{frame.f_code.co_qualname}"


def _cpu_s(thread: threading.Thread) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return 0.0


def main(report: Path, module: str, arguments: list[str]) -> None:
    """Run `module` as if it had been started by itself, sampled."""
    sampler = Sampler()
    signal.signal(signal.SIGPROF, sampler.take)
    signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        report.write_text(sampler.report())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
