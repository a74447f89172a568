"""Changes files that commands write and running gateways read: one command at a time, each file in one step."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path


@contextlib.asynccontextmanager
async def alone(folder: Path) -> AsyncIterator[None]:
    """No other command writes into a folder meanwhile; editors know of no locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        while not _locked(descriptor):  # noqa: ASYNC110 - another process tells nobody when it is done
            await asyncio.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def exchange(path: Path, content: bytes) -> None:
    """Exchange a file for another in one step, so that nobody ever reads half of it."""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).chmod(mode)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
