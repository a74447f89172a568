"""Whether an offer still draws what it drew: the same prompt and seed, drawn now and then, held against earlier ones.

Sellers swap models, speed them up and change prices without a word. A picture drawn again from one seed shows that:
most offers draw it alike to the pixel, or nearly. Those that do not are told by how far apart their first pictures lie,
and nothing is said of their pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Literal, TypeAlias

from msgspec import Struct

from policies.money import NanoUsd, to_usd
from policies.types import OfferId

Changed: TypeAlias = Literal["pixels", "size", "billed", "latency", "failing"]

FIRST = 3
"""Pictures an offer is known by; the first that came since it was last told to have changed."""
REPRODUCIBLE = 0.1
"""Share of hash bits in which the first pictures of an offer may differ at most, if its pixels are to be watched."""
UNLIKE = 0.2
"""Share of hash bits beyond which a picture is another one. Unrelated pictures differ in a half."""
LASTING = 5
"""Draws from which a change of latency is told, and as many before them."""
OTHER_PACE = 2.0
"""Times the usual latency, or the part of it: a model that is twice as quick is seldom the same."""
FAILS = 3
"""Draws in a row that bring no picture."""


class Draw(Struct, frozen=True, kw_only=True):
    """One picture drawn to see whether an offer has changed."""

    id: str
    at: float
    """Unix seconds."""
    offer: OfferId
    prompt: str
    """The name of the prompt."""
    quoted: NanoUsd
    billed: NanoUsd
    latency_s: float
    error: str | None = None
    """The class of the error; None where a picture came."""
    width: int = 0
    height: int = 0
    """Of the picture that came, also where it has a wrong size."""
    print: str = ""
    """The perceptual hash, in hexadecimal digits; empty without a picture."""
    asset: str | None = None
    changed: tuple[Changed, ...] = ()
    """What was told of it when it came."""


class Change(Struct, frozen=True):
    """Something about an offer that is no longer as it was."""

    what: Changed
    says: str


def changes(before: Sequence[Draw], draw: Draw) -> list[Change]:
    """What is new in a draw; `before` are the earlier ones of this offer and prompt, oldest first.

    What was told once is how the offer is from then on: only draws since then count. But an offer that failed for a
    while is held against what it was before: that is when models are exchanged.
    """
    known = _since(before, "pixels", "size", "billed", "latency")
    if draw.error is not None:
        return _failing(_since(known, "failing"), draw) or _other_size(known, draw)
    drawn = [each for each in known if each.error is None]
    return [
        *_other_size(known, draw),
        *_other_bill(drawn, draw),
        *_other_pixels(drawn, draw),
        *_other_pace(drawn, draw),
    ]


def _since(before: Sequence[Draw], *what: Changed) -> Sequence[Draw]:
    """The draws from the last on of which any of these was told."""
    return before[max((at for at, each in enumerate(before) if {*what} & {*each.changed}), default=0) :]


def reproducible(known: Sequence[Draw]) -> bool:
    """Whether an offer draws the same picture again, as far as its first ones show."""
    prints = [each.print for each in known if each.print]
    return len(prints) >= FIRST and all(unlike(prints[0], other) <= REPRODUCIBLE for other in prints[1:])


def unlike(one: str, other: str) -> float:
    """Share of bits in which two perceptual hashes differ."""
    return (int(one, 16) ^ int(other, 16)).bit_count() / (4 * len(one))


def _failing(before: Sequence[Draw], draw: Draw) -> list[Change]:
    lately = [*before[1 - FAILS :], draw]
    if len(lately) < FAILS or any(each.error is None for each in lately) or not any(b.error is None for b in before):
        return []
    return [Change("failing", f"{FAILS} draws in a row brought no picture ({draw.error})")]


def _other_size(before: Sequence[Draw], draw: Draw) -> list[Change]:
    known = next(((each.width, each.height) for each in before if each.error is None), None)
    came = draw.width, draw.height
    if known is None or came in {(0, 0), known}:
        return []
    return [Change("size", f"{came[0]}x{came[1]} came where {known[0]}x{known[1]} did")]


def _other_bill(drawn: Sequence[Draw], draw: Draw) -> list[Change]:
    """Billed otherwise than it was at the same price of ours."""
    known = [each for each in drawn if each.quoted == draw.quoted][:FIRST]
    if not known or draw.billed == known[-1].billed:
        return []
    exact = {each.billed for each in known} == {known[-1].billed}
    if not exact:  # billed by time: it differs from draw to draw
        return []
    return [Change("billed", f"${to_usd(draw.billed)} was billed where ${to_usd(known[-1].billed)} was")]


def _other_pixels(drawn: Sequence[Draw], draw: Draw) -> list[Change]:
    known = drawn[:FIRST]
    if not draw.print or not reproducible(known):
        return []
    apart = min(unlike(each.print, draw.print) for each in known)
    if apart <= UNLIKE:
        return []
    return [Change("pixels", f"another picture came for the same prompt and seed ({apart:.0%} of its hash differ)")]


def _other_pace(drawn: Sequence[Draw], draw: Draw) -> list[Change]:
    taken = [each.latency_s for each in (*drawn, draw)]
    if len(taken) < 2 * LASTING:
        return []
    usual, now = median(taken[:-LASTING]), median(taken[-LASTING:])
    if usual / OTHER_PACE <= now <= OTHER_PACE * usual:
        return []
    return [Change("latency", f"{now:.1f} s in the middle of the last {LASTING} draws, {usual:.1f} s before")]
