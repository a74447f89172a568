"""The calls a money run makes: the same for the same seed, and of every sort the endpoint knows.

Sizes are ones somebody draws exactly, on both sides of the edges where prices step; the prompts are numbered, so that
no two orders look alike to a provider.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from msgspec import Struct

UNSAFE = "UNSAFE-SANDBOX"
"""The word every sandbox provider refuses to draw."""

COUNTS: Mapping[int, float] = {1: 60, 2: 15, 3: 8, 4: 7, 5: 3, 6: 2, 7: 1.5, 8: 1.5, 9: 1, 10: 1}
"""Pictures in a call, and how often."""

TEAMS = ("acme", "birch")


class Product(Struct, frozen=True):
    """A model as callers ask for it."""

    model: str
    weight: float
    sizes: tuple[str, ...]
    sellers: tuple[str, ...] = ()
    """Kinds of seller that all of `sizes` can be forced through; none: the choice is always the gateway's."""


PREVIEW_SIZES = ("256x256", "512x512", "640x384", "768x768", "1024x1024", "1024x1040", "1440x1440", "272x1440")
SIZES = ("512x512", "512x768", "1024x1024", "1024x1040", "1040x1024", "1440x1440", "1920x1088")
PRO_SIZES = ("256x256", "512x512", "512x544", "768x768", "768x800", "1024x1024", "1024x1056", "1440x1440")

RATIO_SIZES = ("512x512", "1024x1024", "1344x768", "672x384", "448x576")

PRODUCTS = (
    Product("flux-schnell", 30, PREVIEW_SIZES, ("fal", "together", "selfhosted")),
    Product("flux-schnell", 3, ("2048x2048", "1536x2048", "2048x256")),
    Product("flux-schnell", 8, RATIO_SIZES, ("fal", "together", "replicate")),
    Product("flux-dev", 4, RATIO_SIZES, ("fal", "replicate")),
    Product("flux-dev", 8, ("256x256", *SIZES, "2048x2048"), ("fal", "selfhosted")),
    Product("flux-1.1-pro", 8, PRO_SIZES, ("fal", "together", "replicate")),
    Product("flux-1.1-pro-ultra", 3, ("2048x2048", "2752x1536", "1344x3136"), ("fal",)),
    Product("flux-2-dev", 5, SIZES, ("fal", "together")),
    Product("flux-2-flash", 8, (*SIZES, "2048x2048"), ("fal",)),
    Product("flux-2-flex", 4, SIZES, ("fal", "together")),
    Product("flux-2-pro", 5, SIZES, ("fal", "together")),
    Product("flux-2-max", 3, SIZES, ("fal", "together")),
    Product("recraft-v3", 3, ("1024x1024", "1365x1024", "1024x1707", "1820x1024"), ("fal",)),
    Product("auto", 12, ("256x256", "512x512", "1024x1024", "1024x1040", "1440x1440")),
    Product("gpt-image-1", 4, ("1024x1024", "1536x1024", "1024x1536")),
    Product("dall-e-3", 4, ("1024x1024", "auto")),
)


class PlannedCall(Struct, frozen=True, kw_only=True):
    """One call, and how patient its caller is."""

    number: int
    team: str
    body: Mapping[str, object]
    leaves_after: float | None = None
    """Seconds after which the caller hangs up; None: waits to the end."""

    @property
    def count(self) -> int:
        """Pictures asked for."""
        count = self.body["n"]
        assert isinstance(count, int)
        return count

    @property
    def unsafe(self) -> bool:
        """Whether every provider must refuse it."""
        return UNSAFE in str(self.body["prompt"])


def plan_calls(calls: int, seed: int) -> Sequence[PlannedCall]:
    """The calls of one run, in the order they start."""
    draw = random.Random(seed)
    return [_call(number, draw) for number in range(calls)]


def _call(number: int, draw: random.Random) -> PlannedCall:
    product = draw.choices(PRODUCTS, [product.weight for product in PRODUCTS])[0]
    count = draw.choices(list(COUNTS), list(COUNTS.values()))[0]
    prompt = f"a lighthouse at dusk, number {number}"
    if draw.random() < 0.04:
        prompt += f", {UNSAFE}"
    body: dict[str, object] = {
        "model": product.model,
        "prompt": prompt,
        "n": count,
        "size": draw.choices(product.sizes, [1 / _pixels(size) for size in product.sizes])[0],
        "response_format": draw.choice(("url", "b64_json")),
        "deadline_ms": 10_000,
    }
    if draw.random() < 0.8:
        body["output_format"] = draw.choice(("png", "jpeg", "jpeg", "jpeg", "jpeg", "webp"))
    if draw.random() < 0.4:
        body["intent"] = draw.choice(("preview", "standard", "export"))
    if product.sellers and draw.random() < 0.3:
        body["providers"] = {"only": [draw.choice(product.sellers)]}
    leaves_after = draw.uniform(0.01, 0.5) if draw.random() < 0.06 else None
    return PlannedCall(number=number, team=draw.choice(TEAMS), body=body, leaves_after=leaves_after)


def _pixels(size: str) -> int:
    """Large pictures are drawn less often, as people ask for them less often and they fill the disk."""
    width, by, height = size.partition("x")
    return int(width) * int(height) if by else 1024 * 1024
