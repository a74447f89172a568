"""fal.ai, through fal-client: submit to the queue, wait for its word or ask for it, fetch the pictures.

    (inputs to v3.fal.media)  ->  POST queue.fal.run/{endpoint}  ->  receipt  ->  status (or a signed webhook)
    ->  result  ->  files

A result stays at fal for days, so an order with a ticket can always be brought home later, and its charge looked up
by its id (`billing-events`, in nano-dollars). Formats: fal's docs and fal-client 1.0.3, as of 2026-11.
"""

from __future__ import annotations

from providers.fal.adapter import Fal, Settings, connect

__all__ = ["Fal", "Settings", "connect"]
