"""Calls to be simulated: who asked for what and when, and, where they were recorded, what became of them.

Calls that ask for the same on the same terms share one `Kind`, so a million of them are a few arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from policies.types import Constraints, Worth
from providers.contract import ImageRequest

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

GAP_S = 3600.0
"""A silence longer than this is told: it may be a gap in the record."""
UNKNOWN, DELIVERED, NOT_DELIVERED = 0, 1, 2
"""What became of a recorded call."""


class Kind(Struct, frozen=True, kw_only=True):
    """What calls ask for, and on what terms. `request.count` is all pictures of such a call."""

    request: ImageRequest
    constraints: Constraints
    worth: Worth
    intent: str
    team: str = ""


class Done(Struct, frozen=True, kw_only=True):
    """What became of N recorded calls."""

    state: Ints
    """[N] UNKNOWN, DELIVERED or NOT_DELIVERED."""
    offer: Ints
    """[N] index into `offers`; -1: nobody, or it is not known."""
    offers: tuple[str, ...]
    cost: Ints
    """[N] nano-dollars; -1: not known."""
    seconds: Floats
    """[N] from arrival to the answer; nan: not known."""


class Trace(Struct, frozen=True, kw_only=True):
    """N calls by arrival."""

    name: str
    kinds: Sequence[Kind]
    at: Floats
    """[N] seconds since `begins`, in order."""
    kind: Ints
    """[N] index into `kinds`."""
    begins: float = 0.0
    """Seconds since 1970 in UTC of the zero of `at`; 0: nobody says."""
    done: Done | None = None
    """None for traffic that was made up."""
    remarks: tuple[str, ...] = ()
    """What was odd about it, in sentences."""

    @property
    def size(self) -> int:
        """Calls."""
        return len(self.at)

    @property
    def seconds(self) -> float:
        """From the first call to the last."""
        return float(self.at[-1] - self.at[0]) if self.size else 0.0

    def between(self, first: int, last: int) -> Trace:
        """The calls from `first` up to `last`, on the same clock."""
        return self.some(np.arange(first, last))

    def some(self, part: Ints) -> Trace:
        """Some of the calls, by their places, on the same clock."""
        done = self.done
        if done is not None:
            done = Done(
                state=done.state[part],
                offer=done.offer[part],
                offers=done.offers,
                cost=done.cost[part],
                seconds=done.seconds[part],
            )
        return Trace(
            name=self.name,
            kinds=self.kinds,
            at=self.at[part],
            kind=self.kind[part],
            begins=self.begins,
            done=done,
            remarks=self.remarks,
        )


def in_order(at: Floats) -> tuple[Ints, int]:
    """The order of arrival, and how many stood before an earlier one: clocks that went back, or several writers."""
    back = int((np.diff(at) < 0).sum())
    return np.argsort(at, kind="stable"), back


def gaps(at: Floats) -> tuple[int, float]:
    """Silences longer than `GAP_S` in an ordered trace: how many, and the longest in seconds."""
    silences = np.diff(at)
    long = silences[silences > GAP_S]
    return len(long), float(long.max()) if len(long) else 0.0
