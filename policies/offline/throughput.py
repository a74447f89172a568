"""How many pictures an hour a GPU can draw, by the arithmetic of FLUX.1: a prior until orders have been measured.

Counted with torch's FLOP counter on the true shapes (11.891 billion parameters, 256 text tokens, batch 1): 17.7 TFLOP a
step at 512x512, 69.5 at 1024x1024, 408.8 at 2048x2048. Attention makes it grow faster than the pixels.
"""

from __future__ import annotations

from fractions import Fraction

from msgspec import Struct

_MEGAPIXEL = 1024 * 1024
_BASE, _LINEAR, _SQUARE = Fraction(337, 100), Fraction(5439, 100), Fraction(1174, 100)
"""TFLOP of a step: constant, per megapixel, per square megapixel; through the three points that were counted."""

USUAL_SHARE = Fraction(3, 5)
"""Share of a card's peak that well-run servers reach.

`./run bench gpu` on an H200: 60 % ([schnell]) and 68 % ([dev]) at 1024x1024 through torch.compile, without it 47 and
52 %."""

CARDS = {"rtx-4090": Fraction(165), "h200": Fraction(790)}
"""Peak bf16 TFLOP/s: the RTX 4090's by its maker, the H200's measured on random matrices."""

STEPS = {"flux-schnell": 4, "flux-dev": 28}
"""Models whose arithmetic this is, with their usual steps."""


class Throughput(Struct, frozen=True, kw_only=True):
    """What arithmetic allows one card, in pictures an hour."""

    most: Fraction
    """Every operation at the card's peak: no bf16 server draws more."""
    likely: Fraction
    """At the share of the peak that was given."""


def step_tflop(width: int, height: int) -> Fraction:
    """Operations of one step for one picture."""
    megapixels = Fraction(width * height, _MEGAPIXEL)
    return _BASE + _LINEAR * megapixels + _SQUARE * megapixels * megapixels


def throughput(width: int, height: int, steps: int, peak: Fraction, share: Fraction = USUAL_SHARE) -> Throughput:
    """Pictures an hour of a card with `peak` TFLOP/s."""
    most = 3600 * peak / (step_tflop(width, height) * steps)
    return Throughput(most=most, likely=most * share)


def doubt(claimed: Fraction, able: Throughput) -> str | None:
    """Why a claimed number of pictures an hour is hard to believe; None when it is not."""
    if claimed > able.most:
        return (
            f"{_round(claimed)} pictures an hour are more than the card's arithmetic allows: at most "
            f"{_round(able.most)} in bf16 if nothing were ever idle, about {_round(able.likely)} as servers go; "
            "it would take fp8, fewer steps or a step cache, and its pictures would differ"
        )
    if claimed > able.likely:
        share = claimed / able.most
        return (
            f"{_round(claimed)} pictures an hour would use {float(share):.0%} of the card's peak; "
            f"about {_round(able.likely)} are usual"
        )
    return None


def _round(value: Fraction) -> str:
    return f"{float(value):,.0f}"
