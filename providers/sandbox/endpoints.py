"""What the imitated sellers draw: which endpoints exist, what each accepts and which sizes it really paints.

Ranges, defaults and sizes are those of the sellers' model pages and generated client types as of 2026-11.
Anything outside `Sizes` is not refused but silently changed, as the originals do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias

from msgspec import Struct

Seller = Literal["fal", "together", "replicate", "openai", "selfhosted"]
Size: TypeAlias = tuple[int, int]

BACKGROUND_REMOVER = "a029dff38972b5fda4ec5d75d7d1cd25aeff621d2cf4946a41055d7db66b80bc"
"""The version of Replicate's background remover that is sold."""
FAL_PRESETS: Mapping[str, Size] = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
ULTRA_SIZES: Mapping[str, Size] = {
    "21:9": (3136, 1344),
    "16:9": (2752, 1536),
    "4:3": (2368, 1792),
    "3:2": (2496, 1664),
    "1:1": (2048, 2048),
    "2:3": (1664, 2496),
    "3:4": (1792, 2368),
    "9:16": (1536, 2752),
    "9:21": (1344, 3136),
}
KONTEXT_SIZES: Mapping[str, Size] = {
    "21:9": (1568, 672),
    "16:9": (1392, 752),
    "4:3": (1184, 880),
    "3:2": (1248, 832),
    "1:1": (1024, 1024),
    "2:3": (832, 1248),
    "3:4": (880, 1184),
    "9:16": (752, 1392),
    "9:21": (672, 1568),
}
"""About a megapixel each: the resolutions Kontext was trained at."""
_RECRAFT = (
    "1024x1024 1365x1024 1024x1365 1536x1024 1024x1536 1820x1024 1024x1820 1024x2048 2048x1024 "
    "1434x1024 1024x1434 1024x1280 1280x1024 1024x1707 1707x1024"
)


def read_size(text: str) -> Size | None:
    """`"1024x768"` as width and height; None when it is not of that form."""
    width, x, height = text.partition("x")
    return (int(width), int(height)) if x and width.isdecimal() and height.isdecimal() else None


RECRAFT_SIZES: Mapping[str, Size] = {name: size for name in _RECRAFT.split() if (size := read_size(name)) is not None}


class Sizes(Struct, frozen=True, kw_only=True):
    """The sizes an endpoint paints: a grid between two sides, or a closed list."""

    low: int = 256
    high: int = 2048
    multiple: int = 16
    named: Mapping[str, Size] = {}

    def snap(self, size: Size) -> Size:
        """The size that is painted when `size` is asked for."""
        if self.named:
            return min(self.named.values(), key=lambda known: _distance(known, size))
        width, height = (self._side(side) for side in size)
        return width, height

    def _side(self, side: int) -> int:
        nearest = round(side / self.multiple) * self.multiple
        return min(max(nearest, self.low), self.high)


def _distance(known: Size, size: Size) -> float:
    shape = abs(math.log(known[0] / known[1]) - math.log(max(size[0], 1) / max(size[1], 1)))
    area = abs(math.log(known[0] * known[1]) - math.log(max(size[0] * size[1], 1)))
    return shape * 4 + area


class Inputs(Struct, frozen=True, kw_only=True):
    """Pictures an endpoint works from."""

    field: str
    """Where they are named; a plural takes a list."""
    least: int = 1
    most: int = 1
    mask: str = ""
    """The field of a mask, white where the first picture is drawn anew; empty: it takes none."""


class Endpoint(Struct, frozen=True, kw_only=True):
    """One thing a seller sells."""

    id: str
    seller: Seller
    tier: Literal["preview", "standard", "export"]
    typical_s: float
    """Median seconds of work for one megapixel at default steps."""
    sizes: Sizes = Sizes()
    steps: tuple[int, int] | None = None
    default_steps: int = 28
    guidance: tuple[float, float] | None = None
    refuses_guidance: bool = False
    max_count: int = 1
    seed: bool = True
    formats: tuple[str, ...] = ("jpeg", "png")
    default_format: str = "jpeg"
    open_weights: bool = False
    """Open models draw unsafe prompts black and flag them; the others refuse with an error."""
    tolerance: bool = False
    """Takes `safety_tolerance`, a string "1".."6"."""
    declares_sizes: bool = True
    ratios: bool = False
    """Takes `aspect_ratio` by the names of its sizes, and nothing else about size."""
    inputs: Inputs | None = None
    as_input: bool = False
    """Draws as large as its first input, and is told no size."""
    cuts_out: bool = False
    """Takes no prompt: removes what is behind the thing in the picture, and answers with one `image`."""
    by_the_second: bool = False
    """Sold by a machine's time, whatever comes of the work (Replicate's community models)."""
    shapes: Mapping[str, Size] = {}
    """Sizes by aspect ratio and, where the endpoint takes them, megapixels ("16:9 0.25"); Replicate."""


_TOGETHER = (
    Endpoint(
        id="black-forest-labs/FLUX.1-kontext-pro",
        seller="together",
        tier="export",
        typical_s=6.0,
        max_count=4,
        ratios=True,
        sizes=Sizes(named=KONTEXT_SIZES),
        inputs=Inputs(field="image_url"),
    ),
    Endpoint(
        id="black-forest-labs/FLUX.1-kontext-max",
        seller="together",
        tier="export",
        typical_s=8.0,
        max_count=4,
        ratios=True,
        sizes=Sizes(named=KONTEXT_SIZES),
        inputs=Inputs(field="image_url"),
    ),
    Endpoint(
        id="black-forest-labs/FLUX.1-schnell",
        seller="together",
        tier="preview",
        typical_s=0.8,
        steps=(1, 12),
        default_steps=4,
        max_count=4,
        sizes=Sizes(high=1440),
        open_weights=True,
    ),
    Endpoint(
        id="black-forest-labs/FLUX.1.1-pro",
        seller="together",
        tier="export",
        typical_s=5.0,
        max_count=4,
        sizes=Sizes(high=1440, multiple=32),
    ),
    Endpoint(
        id="black-forest-labs/FLUX.2-dev",
        seller="together",
        tier="standard",
        typical_s=4.0,
        steps=(1, 50),
        max_count=4,
        sizes=Sizes(high=1920),
        open_weights=True,
    ),
    Endpoint(
        id="black-forest-labs/FLUX.2-flex",
        seller="together",
        tier="standard",
        typical_s=6.0,
        steps=(1, 50),
        max_count=4,
        sizes=Sizes(high=1920),
    ),
    Endpoint(
        id="black-forest-labs/FLUX.2-pro",
        seller="together",
        tier="export",
        typical_s=8.0,
        max_count=4,
        sizes=Sizes(high=1920),
    ),
    Endpoint(
        id="black-forest-labs/FLUX.2-max",
        seller="together",
        tier="export",
        typical_s=10.0,
        max_count=4,
        sizes=Sizes(high=1920),
    ),
)
_OPENAI = (
    Endpoint(
        id="gpt-image-2",
        seller="openai",
        tier="export",
        typical_s=15.0,
        max_count=10,
        seed=False,
        sizes=Sizes(low=16, high=3840),
        formats=("png", "jpeg", "webp"),
        default_format="png",
    ),
)
TOGETHER: Mapping[str, Endpoint] = {endpoint.id: endpoint for endpoint in _TOGETHER}
OPENAI: Mapping[str, Endpoint] = {endpoint.id: endpoint for endpoint in _OPENAI}


def selfhosted(model: str) -> Endpoint:
    """Our own GPU server draws whatever model it is asked for; pace and look follow the name."""
    small = "schnell" in model or "flash" in model
    return Endpoint(
        id=model,
        seller="selfhosted",
        tier="preview" if small else "standard",
        typical_s=2.8 if small else 19.6,
        steps=(1, 100),
        default_steps=4 if small else 28,
        guidance=(0, 50),
        max_count=10,
        sizes=Sizes(low=64, multiple=8),
        formats=("png", "jpeg", "webp"),
        default_format="png",
    )
