"""GPU servers of our own, as far as they have a state: what they speak, what they have loaded, how they misbehave.

A server is known by its name and made when it is first asked for: `sglang-1` speaks like SGLang, `sd-server-2` like
stable-diffusion.cpp; a name that begins with no dialect speaks plain OpenAI. A script changes it:

    {"machines": {"sglang-1": {"models": ["flux-dev"], "slots": 2, "state": "killed"}}}

- `state`: `up`; `killed`: every connection breaks, and so does what was being drawn; `hanging`: it takes orders, says
  that it is well, and never finishes one
- `lies`: `model` (another one is loaded, and it says so where it is asked), `answer_model` (it says so only in the
  answer), `format`, `url`, `seed`, `size`, `count`; whatever it lies about, the work is done and billed
- `usd_per_hour`: what an hour costs; its orders cost their share of it
"""

from __future__ import annotations

import asyncio
from fractions import Fraction
from typing import Literal, get_args

from msgspec import Struct

from providers.sandbox.invoice import Price, machine_hour
from providers.sandbox.limits import Gate

Dialect = Literal["openai", "sglang", "vllm-omni", "sd-server", "aquiles-image"]
State = Literal["up", "killed", "hanging"]
Lie = Literal["model", "answer_model", "format", "url", "seed", "size", "count"]
OTHER_MODEL = "flux-quite-another"


class Change(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a script changes about a server; what is left out stays as it is."""

    dialect: Dialect | None = None
    models: tuple[str, ...] | None = None
    slots: int | None = None
    usd_per_hour: str | None = None
    steps: int | None = None
    """What an aquiles-image server was started with."""
    state: State | None = None
    lies: tuple[Lie, ...] | None = None


class Machine:
    """One server; one order at a time unless it batches (`slots`), the rest waits."""

    def __init__(self, name: str) -> None:
        self.name = name
        named = (dialect for dialect in get_args(Dialect) if name.startswith(dialect))
        self.dialect: Dialect = next(named, "openai")
        self.models: tuple[str, ...] = ("flux-schnell", "flux-dev")
        self.gate = Gate(1)
        self.price: Price = machine_hour(Fraction("0.34"))
        self.steps = 4
        self.state: State = "up"
        self.lies: frozenset[Lie] = frozenset()
        self.at_work: set[asyncio.Task[None]] = set()
        self.unanswered = 0
        """Orders it took while it hung."""

    def change(self, change: Change) -> None:
        """Put a script in force."""
        if change.dialect is not None:
            self.dialect = change.dialect
        if change.models is not None:
            self.models = change.models
        if change.slots is not None:
            self.gate.limit = change.slots
        if change.usd_per_hour is not None:
            self.price = machine_hour(Fraction(change.usd_per_hour))
        if change.steps is not None:
            self.steps = change.steps
        if change.lies is not None:
            self.lies = frozenset(change.lies)
        if change.state is not None and change.state != self.state:
            self._become(change.state)

    def _become(self, state: State) -> None:
        """Whatever it was drawing is gone: nobody is told, nothing is billed."""
        self.state = state
        self.unanswered = 0
        for task in self.at_work:
            task.cancel()

    @property
    def busy(self) -> int:
        """Orders taken and not finished."""
        return self.gate.running + self.gate.waiting + self.unanswered
