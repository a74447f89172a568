"""The light a scene is painted in: chosen by words of its prompt, else by its seed."""

from __future__ import annotations

import random
from typing import TypeAlias

from msgspec import Struct

Colour: TypeAlias = tuple[int, int, int]


class Palette(Struct, frozen=True, kw_only=True):
    """Colours of one time of day, from the top of the sky down to the nearest hill."""

    words: tuple[str, ...]
    top: Colour
    middle: Colour
    low: Colour
    sun: Colour
    cloud: Colour
    far: Colour
    near: Colour
    cloudiness: int = 60
    """Percent of the clouds' full strength."""
    sun_size: float = 0.05
    stars: bool = False
    water: bool = True

    def ridge(self, depth: float) -> Colour:
        """The colour of a hill between the far (0) and the near (1) end of the view."""
        red, green, blue = (int(a + (b - a) * depth) for a, b in zip(self.far, self.near, strict=True))
        return red, green, blue


PALETTES = (
    Palette(
        words=("sunset", "dusk", "evening", "warm", "fire", "autumn"),
        top=(40, 34, 92),
        middle=(214, 92, 98),
        low=(255, 190, 120),
        sun=(255, 226, 170),
        cloud=(255, 150, 130),
        far=(176, 110, 130),
        near=(34, 22, 48),
        sun_size=0.07,
    ),
    Palette(
        words=("morning", "dawn", "pink", "spring", "dream", "pastel"),
        top=(116, 156, 214),
        middle=(236, 190, 204),
        low=(255, 232, 205),
        sun=(255, 246, 224),
        cloud=(255, 250, 250),
        far=(178, 180, 208),
        near=(58, 74, 104),
    ),
    Palette(
        words=("noon", "day", "summer", "blue", "mountain", "snow", "sky"),
        top=(36, 96, 188),
        middle=(118, 178, 232),
        low=(214, 236, 248),
        sun=(255, 252, 236),
        cloud=(255, 255, 255),
        far=(150, 178, 206),
        near=(38, 74, 66),
        cloudiness=85,
    ),
    Palette(
        words=("night", "moon", "star", "space", "dark", "midnight"),
        top=(6, 10, 32),
        middle=(18, 32, 74),
        low=(58, 84, 132),
        sun=(226, 232, 248),
        cloud=(62, 78, 122),
        far=(50, 68, 112),
        near=(6, 10, 22),
        cloudiness=45,
        sun_size=0.04,
        stars=True,
    ),
    Palette(
        words=("aurora", "neon", "cyber", "green", "magic", "winter"),
        top=(8, 14, 40),
        middle=(20, 92, 104),
        low=(126, 220, 178),
        sun=(198, 255, 226),
        cloud=(70, 214, 164),
        far=(48, 118, 128),
        near=(6, 22, 34),
        cloudiness=75,
        sun_size=0.03,
        stars=True,
    ),
    Palette(
        words=("desert", "sand", "dune", "mars", "gold", "yellow"),
        top=(92, 140, 178),
        middle=(226, 200, 160),
        low=(250, 222, 170),
        sun=(255, 250, 226),
        cloud=(255, 240, 214),
        far=(224, 178, 130),
        near=(122, 66, 38),
        cloudiness=35,
        water=False,
    ),
    Palette(
        words=("forest", "fog", "mist", "rain", "jungle", "garden"),
        top=(128, 150, 156),
        middle=(184, 202, 198),
        low=(224, 232, 218),
        sun=(250, 250, 236),
        cloud=(236, 242, 240),
        far=(150, 176, 164),
        near=(22, 48, 38),
        cloudiness=90,
    ),
)


def palette_for(prompt: str, dice: random.Random) -> Palette:
    """The palette that a word of the prompt calls for, else one by the dice."""
    chance = dice.choice(PALETTES)
    words = prompt.lower()
    return next((palette for palette in PALETTES if any(word in words for word in palette.words)), chance)
