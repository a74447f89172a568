"""Blocks of time that intervals are drawn from: what happens within one shares its weather, so it is drawn whole."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BLOCKS_S = ((3600.0, "hours"), (600.0, "spans of 10 min"), (60.0, "minutes"), (3.0, "spans of 3 s"))
"""The largest that gives enough blocks is drawn. An interval knows of no weather that lasts longer than its blocks, so
what was seen for less than some minutes says little of other hours; the report names the blocks."""
ENOUGH = 12
DRAWS = 1000


def blocks_of(at: Floats) -> tuple[Ints, int, str]:
    """The block of each moment (seconds), how many blocks there are, and what they are."""
    every = [(name, _numbered(at, seconds)) for seconds, name in BLOCKS_S]
    name, block = next((each for each in every if _count(each[1]) >= ENOUGH), every[-1])
    return block, _count(block), name


def draws_of(blocks: int, seed: int) -> Floats:
    """[draws, blocks] how often each block is drawn; the same for the same seed."""
    rng = np.random.default_rng([seed, 23])
    return (
        rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=DRAWS).astype(np.float64)
        if blocks
        else np.empty((0, 0))
    )


def _numbered(at: Floats, seconds: float) -> Ints:
    """Each moment's block; blocks without any have no number."""
    return np.unique((at // seconds).astype(np.int64), return_inverse=True)[1]


def _count(block: Ints) -> int:
    return int(block.max()) + 1 if len(block) else 0
