"""What is true in a simulated world: who asks when, how long orders take, what they cost, when sellers are down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from policies.offline.contract import Account, Request

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

SLOT = 10.0
"""Seconds for which conditions stay as they are."""
OK, FAST_ERROR, HANG = 0, 1, 2
"""What happens to orders at an account: served, refused at once, or never answered."""
ALPHA = 0.12
"""Fixed share of a GPU step; the rest grows with the images in it."""


class Endpoint(Protocol):
    """Something that can be ordered from."""

    @property
    def name(self) -> str:
        """As people call it."""

    @property
    def account(self) -> int:
        """Index of the account whose limits it shares."""

    @property
    def model(self) -> str:
        """What it draws with."""


EndpointT = TypeVar("EndpointT", bound=Endpoint)


class World(Protocol[EndpointT]):
    """The truth. E endpoints, A accounts, K slots of SLOT seconds, the last of which goes on for ever."""

    name: str
    seed: int
    horizon: float
    """Seconds until the last arrival, or more."""
    endpoints: list[EndpointT]
    accounts: list[Account]
    pool: int
    """The account that is a pool of own GPUs; -1: there is none."""
    gpus: int
    mult: Floats
    """[E, K] duration multiplier."""
    perr: Floats
    """[A, K] error probability."""
    outage: Ints
    """[A, K] OK, FAST_ERROR or HANG."""
    limit: Floats
    """[A, K] effective concurrency; for the pool, GPUs that are up."""
    pricemul: Floats
    """[E, K] of what is billed over what is listed."""
    cold_idle: Floats
    """[E] idle seconds after which a call is cold."""
    cold_s: Floats
    """[E] seconds that a cold call takes longer."""
    warm: bool
    """Whether every endpoint was used just before the beginning."""

    @property
    def size(self) -> int:
        """Requests."""

    def arrivals(self) -> Sequence[float]:
        """When each request comes, in order."""

    def request(self, r: int) -> Request:
        """One of them, fresh."""

    def keys(self) -> Sequence[int] | None:
        """Of each request in a cache of answers, -1 where it has none; None: nothing is cached."""

    def seconds(self, r: int, e: int) -> float:
        """How long request `r` takes at `e` at multiplier 1; in the pool, a GPU step for it alone."""

    def serves(self, r: int, e: int) -> bool:
        """Whether `e` can serve request `r` at all."""

    def bill(self, r: int, e: int, seconds: float) -> float:
        """List price of request `r` at `e`, which took so long there."""

    def chance(self, r: int, attempt: int) -> float:
        """Uniform in 0..1: whether this attempt, counted from 0, fails."""

    def unit_s(self, e: int, mp: float) -> float:
        """GPU-seconds of a whole picture of this size, for endpoints of the pool."""
