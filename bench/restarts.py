"""How long a gateway takes to be ready after one died with orders under way: on a month's ledger, and on none.

What the interpreter loads and what the configuration says is the same for both, and not timed here. No account is on,
so each order that was under way is taken over and its money left aside.
"""

from __future__ import annotations

import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from gateway import telemetry
from gateway.app import build
from gateway.ids import new_id, sibling
from gateway.revisions import Revision, load_revision
from gateway.settings import load_settings
from gateway.storage.database import open_database
from gateway.storage.rows import NewHold

LEFT = 100
"""Orders that were under way."""
ROUNDS = 15


def _left() -> NewHold:
    call = new_id("call")
    return NewHold(
        attempt_id=f"{sibling(call, 'att')}00",
        call_id=call,
        part=0,
        team="team-0",
        key_id="key_00",
        account="fal",
        offer_id="fal:flux-schnell",
        endpoint="endpoints/flux-schnell",
        cost=3_000_000,
        charge=3_000_000,
        width=1024,
        height=1024,
        count=1,
    )


async def _restart_s(path: Path, revision: Revision, faults: list[str]) -> float:
    """Leave orders under way, and start a gateway on them; answers seconds."""
    url = f"sqlite:///{path}"
    db = open_database(url, "process")
    before = len(await db.suspended())
    await db.hold("own_gone", [_left() for _ in range(LEFT)], (), datetime.now(UTC))
    await db.aclose()
    settings = load_settings(None, environ={}, flags={"state": path.parent, "database": {"url": url}})
    began = time.perf_counter()
    app = await build(settings, revision)
    await app.start()
    took = time.perf_counter() - began
    taken = len(await app.db.suspended()) - before
    if taken != LEFT:
        faults.append(f"{taken} of {LEFT} orders under way were taken over when the gateway was ready")
    await app.stop()
    return took


async def restarts(path: Path) -> tuple[float, float, list[str]]:
    """Seconds of a start on the ledger at `path` (absolute), and of one on none, the best of some in turns; faults."""
    telemetry.configure(sys.stderr.buffer, "error")
    faults: list[str] = []
    revision = load_revision(load_settings(None, environ={}))
    with tempfile.TemporaryDirectory(prefix="pixelgate-bench-") as folder:
        empty = Path(folder) / "pixelgate.db"
        timed = [
            (await _restart_s(path, revision, faults), await _restart_s(empty, revision, faults)) for _ in range(ROUNDS)
        ]
    full, bare = zip(*timed, strict=True)
    return min(full), min(bare), faults
