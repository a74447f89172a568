"""The sellers' twins on loopback: fal, Together, Replicate and an own GPU server, which no SDK can tell from the real.

    async with await start(time_scale=0.01) as sandbox:
        sandbox.url                      # http://127.0.0.1:PORT
        sandbox.script([{"provider": "fal", "do": "503", "when": {"first": 2}}])
        sandbox.invoice()["total_nano_usd"]

A key is an account: `Authorization: Key sandbox-<account>` at fal, `Bearer sandbox-<account>` elsewhere.
Accounts ending in `-broke` have no credit, those ending in `-tier1` are not sold Together's better models,
those ending in `-low` are nearly out of it at Replicate, those ending in `-plain` may not see bills at fal.
"""

from __future__ import annotations

from providers.sandbox.server import Sandbox, start

__all__ = ["Sandbox", "start"]
