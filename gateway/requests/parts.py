"""The parts of a call: one or a few pictures each, drawn by one order, and how far they are."""

from __future__ import annotations

import asyncio
import secrets
from typing import Literal

import msgspec
from msgspec import Struct

from gateway.errors import GatewayError
from gateway.money.ledger import Hold
from gateway.requests.admission import Lease, Waiter
from gateway.requests.call import Delivered
from gateway.requests.orders import Halfway, Plan, RunningOrder
from policies.chaining import opaque, removal
from policies.types import Candidate, CapacityId, Shed, Tried
from providers.contract import ImageRequest
from providers.errors import ProviderError

SEEDS = 2**31
"""Seeds are below this: the smallest range among the sellers (signed 32 bits)."""

Stage = Literal["whole", "drawing", "finishing"]
"""Which order a part takes: the only one, or the first or second of two."""


class Part:
    """One or a few pictures of a call, and how far they are."""

    def __init__(self, index: int, first: int, wish: ImageRequest, seed: int) -> None:
        self.index = index
        self.first = first
        self.wish = wish
        self.seed = seed
        self.tried: list[Tried] = []
        self.live: list[RunningOrder] = []
        self.pictures: list[Delivered] = []
        self.charge = 0
        self.offer = ""
        self.error: ProviderError | GatewayError | None = None
        self.shed: Shed | None = None
        self.reserved: Hold | None = None
        self.waiter: Waiter | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.stage: Stage = "whole"
        self.asked = wish
        self.halfway: Halfway | None = None
        self.before: list[Tried] = []
        """What was tried in an earlier stage."""
        self.turn: CapacityId | None = None
        """What it was woken for, until it has been decided about."""

    def __repr__(self) -> str:
        state = "done" if self.done else "given up" if self.shed else f"{len(self.live)} live"
        return f"<Part {self.index} {state}, {len(self.tried)} tried>"

    @property
    def done(self) -> bool:
        """Whether all its pictures are there."""
        return self.wish.count == 0

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.done or self.shed is not None or isinstance(self.error, GatewayError)

    @property
    def waits(self) -> bool:
        """Whether it waits with nothing under way."""
        return self.timer is not None and not self.live

    def draw(self) -> None:
        """What it takes first, or again, is a drawing that another order is to finish."""
        self.stage, self.halfway, self.wish = "drawing", None, opaque(self.asked)

    def finish(self, halfway: Halfway | None = None) -> None:
        """What it takes now is the order that finishes a drawing."""
        self.stage, self.halfway, self.wish = "finishing", halfway, removal(self.asked)
        self.before += self.tried
        self.tried = []

    def won_by(self, winner: RunningOrder) -> None:
        """Make every other order for this part unwanted, before anything is charged."""
        for order in self.live:
            order.wanted = order is winner

    def take_turn(self) -> None:
        """Room was kept for it since it was woken; it is decided now whether it takes it."""
        if self.waiter is not None and self.waiter.woken:
            self.turn = self.waiter.capacity
            self.waiter.claim()

    def unpark(self) -> None:
        """Stop waiting for room or time."""
        if self.waiter is not None:
            self.waiter.cancel()
        if self.timer is not None:
            self.timer.cancel()
        self.waiter = self.timer = None


class Start(Struct, frozen=True):
    """A part about to be ordered: its lease is taken, its hold is not."""

    part: Part
    candidate: Candidate
    plan: Plan
    lease: Lease
    wake_at: float | None


def split(request: ImageRequest, per_order: int, draw: bool = True) -> list[Part]:
    """Cut a call into orders of at most `per_order` pictures.

    Seeds: the caller's own for the first picture and the next numbers for those after it, else one drawn per order.
    """
    parts = []
    for index, first in enumerate(range(0, request.count, per_order)):
        seed = secrets.randbelow(SEEDS) if request.seed is None else (request.seed + first) % SEEDS
        count = min(per_order, request.count - first)
        explicit = None if request.seed is None or not draw else seed
        parts.append(Part(index, first, msgspec.structs.replace(request, count=count, seed=explicit), seed))
    return parts
