"""One order from acceptance to the bill: waiting for a slot, working, painting, booking."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Literal

from msgspec import Struct

from providers.sandbox.accounts import Account
from providers.sandbox.drawing import Scene
from providers.sandbox.endpoints import Endpoint, Size
from providers.sandbox.faults import NO_FAULT, Strike
from providers.sandbox.invoice import Price, Work
from providers.sandbox.sources import Source

State = Literal["queued", "running", "done", "cancelled"]
UNSAFE = "UNSAFE-SANDBOX"


class Wish(Struct, frozen=True, kw_only=True):
    """What the caller asked for, understood and snapped to what the endpoint paints."""

    prompt: str
    size: Size
    count: int
    format: str
    seed: int
    steps: int | None = None
    inline: bool = False
    """Pictures in the answer itself instead of behind links."""
    inputs: tuple[Source, ...] = ()
    """The pictures to work from."""
    mask: Source | None = None
    """White where the first of them is to be drawn anew."""
    text_tokens: int = 0
    input_tokens: int = 0
    tokens_each: int = 0
    """Of one picture made."""

    @property
    def input_sizes(self) -> tuple[Size, ...]:
        """Width and height of every input."""
        return tuple((source.width, source.height) for source in self.inputs)

    @property
    def unsafe(self) -> bool:
        """Whether every seller refuses it."""
        return UNSAFE in self.prompt


class Failure(Struct, frozen=True):
    """Why an accepted order ends without pictures and without a bill."""

    status: int
    kind: str
    message: str
    field: str = ""


class Job:
    """One accepted order."""

    def __init__(self, order_id: str, account: Account, endpoint: Endpoint, price: Price, strike: Strike) -> None:
        self.id = order_id
        self.account = account
        self.endpoint = endpoint
        self.price = price
        self.strike = strike
        self.state: State = "queued"
        self.wish: Wish | None = None
        self.failure: Failure | None = None
        self.flagged = False
        self.run_s = 0.0
        self.cold_s = 0.0
        """How much of `run_s` went by before the machine was warm."""
        self.started_at: datetime | None = None
        self.ended_at: datetime | None = None
        self.scenes: Sequence[Scene] = ()
        self.pictures: Sequence[bytes] = ()
        self.links: Sequence[str] = ()
        self.finished = asyncio.Event()
        self.gate = account.gate
        """What it waits for: its account's turn, or that of the machine it is for."""
        self.machine = ""
        self.attempt = ""
        self.machine_ns = 0
        """Its share of the machine's time, known once it runs."""
        self.task: asyncio.Task[None] | None = None

    @property
    def work(self) -> Work:
        """What it took, as its seller bills it."""
        assert self.wish is not None
        wish, sizes = self.wish, [(scene.width, scene.height) for scene in self.scenes]
        return Work(
            pictures=sizes,
            steps=wish.steps or self.endpoint.default_steps,
            inputs=wish.input_sizes,
            machine_ns=self.machine_ns,
            text_tokens=wish.text_tokens,
            input_tokens=wish.input_tokens,
            output_tokens=wish.tokens_each * len(sizes),
        )

    @property
    def machine_s(self) -> float:
        """Seconds that a warm machine worked on it, as sellers that bill them tell, to the microsecond."""
        if self.state == "done" or self.started_at is None or self.ended_at is None:
            return round(self.run_s - self.cold_s, 6)
        return round(min((self.ended_at - self.started_at).total_seconds(), self.run_s - self.cold_s), 6)

    @property
    def mute(self) -> bool:
        """Whether its end is never told to anybody (a `timeout` fault)."""
        return self.strike.do == "timeout" and self.strike.at == "result"


def worker_failure(strike: Strike, kinds: Mapping[int, str] = MappingProxyType({})) -> Failure | None:
    """The failure that a scripted status at the result brings after the work; `kinds` are the seller's names."""
    if strike.status is None or strike.at != "result":
        return None
    return Failure(strike.status, kinds.get(strike.status, "internal_error"), "The worker failed.")


def scenes_of(endpoint: Endpoint, wish: Wish, strike: Strike = NO_FAULT, *, black: bool = False) -> list[Scene]:
    """The pictures an order makes, whatever it asked for."""
    width, height = _made_size(wish.size, strike)
    return [
        Scene(
            prompt=wish.prompt,
            seed=wish.seed + number,
            model=endpoint.id,
            tier=endpoint.tier,
            width=width,
            height=height,
            format=wish.format,
            steps=wish.steps or endpoint.default_steps,
            black=black or strike.do == "black",
            inputs=wish.inputs,
            mask=wish.mask,
            cut_out=endpoint.cuts_out,
        )
        for number in range(_made_count(wish.count, strike))
    ]


def _made_size(size: Size, strike: Strike) -> Size:
    if strike.do != "wrong_size":
        return size
    width, height = size
    if strike.args.swap and width != height:
        return height, width
    if strike.args.width is None and strike.args.height is None:
        return max(16, width - 16), height
    return strike.args.width or width, strike.args.height or height


def _made_count(count: int, strike: Strike) -> int:
    if strike.do != "wrong_count":
        return count
    if strike.args.count is not None:
        return max(0, strike.args.count)
    return count // 2 if count > 1 else 2
