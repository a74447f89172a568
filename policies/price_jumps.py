"""Prices that are suspiciously far from those before them: more often a slip of the unit or of a digit than true."""

from __future__ import annotations

from collections.abc import Iterator

from policies.money import NanoUsd
from policies.tariffs import PerToken, Tariff, Unpriced, by_time, quote
from providers.contract import ImageRequest

JUMP = 3
"""A price this many times higher or lower needs somebody who looked."""
_SECOND_NS = 1_000_000_000
_SIDE, _SMALL = 1024, 512


def far(one: NanoUsd, other: NanoUsd) -> bool:
    """Whether two prices are more than `JUMP` times apart."""
    return one > JUMP * other or other > JUMP * one


def apart(before: Tariff, after: Tariff) -> bool:
    """Whether a picture of a megapixel, or a second, costs that much more or less by one tariff than by the other.

    What is free says so aloud, and time cannot be held against pictures.
    """
    if by_time(before) != by_time(after):
        return False
    one, other = next(_samples(before, after), (0, 0))
    return bool(one and other) and far(one, other)


def _samples(before: Tariff, after: Tariff) -> Iterator[tuple[NanoUsd, NanoUsd]]:
    """What orders of the same size cost by both, where both have a price for it."""
    made = [tariff.made for tariff in (before, after) if isinstance(tariff, PerToken)]
    sizes = [(_SIDE, _SIDE), *((width, height) for rows in made for width, height, _ in rows), (_SMALL, _SMALL)]
    for width, height in sizes:
        request = ImageRequest(prompt="-", width=width, height=height)
        try:
            one, other = (quote(tariff, request, expected_machine_ns=_SECOND_NS).amount for tariff in (before, after))
        except Unpriced:
            continue
        yield one, other
