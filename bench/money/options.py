"""What the command lines of `bench money` and `bench budgets` have in common."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let a parser take them."""
    parser.add_argument("--kills", type=int, default=2, help="SIGKILLs of the gateway in the middle (default 2)")
    parser.add_argument("--seed", type=int, default=1, help="draws the calls and the faults (default 1)")
    parser.add_argument(
        "--time-scale", type=float, default=0.02, help="real seconds for one of the sellers' (default 0.02)"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--keep", type=Path, help="leave database, invoice and logs in this (new) folder")


@contextmanager
def work_folder(keep: Path | None) -> Iterator[Path]:
    """The folder of a run: the one to keep, or one that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="pixelgate-bench-") as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
