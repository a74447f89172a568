"""What two pictures of one prompt can be told apart by, cheaply: arithmetic on pixels, without any learned model.

Likeness (`phash`, `ssim`, `ms_ssim`, `colour`) is not quality: two sellers given one prompt and seed draw two pictures.
It says whether an offer still draws what it drew (same offer, same seed), and whether two are one and the same model.

A `score` is of one picture, from 0 to 1: the mean of its sharpness, contrast, colourfulness and detail, each mapped to
0 to 1, and 0 when it is blank. It tells a washed-out, blurred or broken picture from a sound one. It knows nothing of
the prompt and nothing of beauty; whoever wants that asks people.

Everything works on small copies: luminance of `SIDE` x `SIDE` pixels, and colours likewise, whatever the size drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import log2, pi
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.float64]
"""Red, green and blue from 0 to 255: `SIDE` x `SIDE` x 3. Luminance: `SIDE` x `SIDE`."""

SIDE = 256
"""Pixels of a side of the copies that are measured."""
BLANK_SPREAD = 2.0
"""Standard deviation of luminance (of 255) below which nothing is on a picture."""
HASHED = 32
HASH_SIDE = 8
"""A perceptual hash compares so many coefficients squared of a copy of `HASHED` pixels squared."""

_LUMA = np.array([0.299, 0.587, 0.114])
"""ITU-R BT.601, as JPEG uses it."""
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
"""Constants of SSIM (Wang et al. 2004)."""
_WINDOW, _SIGMA = 11, 1.5
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of MS-SSIM's five scales (Wang et al. 2003), finest first."""
_SOME_SHARPNESS = 200.0
"""Variance of the Laplacian that counts half: drawn pictures of 256 pixels have 100 to 3,000, blurred ones below 50."""
_FULL_CONTRAST = 64.0
_SOME_COLOUR = 30.0
"""Colourfulness that counts half: "moderately colourful" in Hasler and Suesstrunk (2003)."""


def measures(champion: Pixels, challenger: Pixels) -> Mapping[str, float]:
    """What tells a pair apart, by name.

    phash            share of 64 bits in which the perceptual hashes differ: 0 alike, about 0.5 unrelated
    ssim, ms_ssim    structural similarity of luminance: 1 alike
    colour           distance of the mean colours, 0 alike to 1
    sharpness        binary logarithm of the challenger's sharpness over the champion's
    blank_champion, blank_challenger    1 where nothing is on the picture, else 0
    score_champion, score_challenger    see above
    score            the challenger's less the champion's, -1 to 1
    """
    first, second = luminance(champion), luminance(challenger)
    ssim, ms_ssim = similarity(first, second)
    ours, theirs = score(champion), score(challenger)
    mean_gap = champion.mean(axis=(0, 1)) - challenger.mean(axis=(0, 1))
    return {
        "phash": float(np.mean(phash(first) != phash(second))),
        "ssim": ssim,
        "ms_ssim": ms_ssim,
        "colour": float(np.linalg.norm(mean_gap) / (255 * 3**0.5)),
        "sharpness": log2((sharpness(second) + 1.0) / (sharpness(first) + 1.0)),
        "blank_champion": float(is_blank(first)),
        "blank_challenger": float(is_blank(second)),
        "score_champion": ours,
        "score_challenger": theirs,
        "score": theirs - ours,
    }


def luminance(pixels: Pixels) -> Pixels:
    """Brightness of every pixel, 0 to 255."""
    brightness: Pixels = pixels @ _LUMA
    return brightness


def is_blank(brightness: Pixels) -> bool:
    """Whether a picture is one even surface: black, white or grey."""
    return bool(brightness.std() < BLANK_SPREAD)


def sharpness(brightness: Pixels) -> float:
    """Variance of the Laplacian: high where edges are crisp, or where there is noise."""
    middle = brightness[1:-1, 1:-1]
    edges = brightness[:-2, 1:-1] + brightness[2:, 1:-1] + brightness[1:-1, :-2] + brightness[1:-1, 2:] - 4.0 * middle
    return float(edges.var())


def colourfulness(pixels: Pixels) -> float:
    """Hasler and Suesstrunk's measure: 0 grey, 33 moderately, 82 highly, 109 extremely colourful."""
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    opponent, other = red - green, (red + green) / 2 - blue
    spread = float(np.hypot(opponent.std(), other.std()))
    return spread + 0.3 * float(np.hypot(opponent.mean(), other.mean()))


def detail(brightness: Pixels) -> float:
    """Entropy of the brightness levels, as a share of the most there can be (8 bits)."""
    counts = np.bincount(np.clip(brightness, 0, 255).astype(np.uint8).ravel(), minlength=256)
    shares = counts[counts > 0] / brightness.size
    return float(-(shares * np.log2(shares)).sum() / 8)


def score(pixels: Pixels) -> float:
    """How sound a picture is by itself, 0 to 1."""
    brightness = luminance(pixels)
    if is_blank(brightness):
        return 0.0
    crisp, colour = sharpness(brightness), colourfulness(pixels)
    parts = (
        crisp / (crisp + _SOME_SHARPNESS),
        min(float(brightness.std()) / _FULL_CONTRAST, 1.0),
        colour / (colour + _SOME_COLOUR),
        detail(brightness),
    )
    return sum(parts) / len(parts)


def phash(brightness: Pixels) -> NDArray[np.bool_]:
    """The perceptual hash: signs of the lowest frequencies about their median, 64 of them."""
    step = brightness.shape[0] // HASHED
    small = brightness.reshape(HASHED, step, HASHED, step).mean(axis=(1, 3))
    waves = _cosines(HASHED)[:HASH_SIDE]
    low = waves @ small @ waves.T
    bits: NDArray[np.bool_] = (low > np.median(low.ravel()[1:])).ravel()
    return bits


def similarity(first: Pixels, second: Pixels) -> tuple[float, float]:
    """SSIM, and MS-SSIM over five scales, of two brightnesses of one size."""
    finest, product = 0.0, 1.0
    for scale, weight in enumerate(_SCALES):
        whole, structure = _ssim(first, second)
        finest = whole if scale == 0 else finest
        part = whole if scale == len(_SCALES) - 1 else structure
        product *= max(part, 0.0) ** weight
        first, second = _halved(first), _halved(second)
    return finest, product


def _ssim(first: Pixels, second: Pixels) -> tuple[float, float]:
    """SSIM, and its part that does not look at brightness."""
    mean_1, mean_2 = _blurred(first), _blurred(second)
    spread_1 = _blurred(first * first) - mean_1 * mean_1
    spread_2 = _blurred(second * second) - mean_2 * mean_2
    both = _blurred(first * second) - mean_1 * mean_2
    structure = (2 * both + _C2) / (spread_1 + spread_2 + _C2)
    brightness = (2 * mean_1 * mean_2 + _C1) / (mean_1 * mean_1 + mean_2 * mean_2 + _C1)
    return float((brightness * structure).mean()), float(structure.mean())


def _blurred(brightness: Pixels) -> Pixels:
    """Weighed by a Gaussian window, where it lies wholly within the picture."""
    weights = _window()
    length = brightness.shape[0] - _WINDOW + 1
    across = sum(weight * brightness[:, at : at + length] for at, weight in enumerate(weights))
    assert isinstance(across, np.ndarray)
    down = sum(weight * across[at : at + length] for at, weight in enumerate(weights))
    assert isinstance(down, np.ndarray)
    return down


def _halved(brightness: Pixels) -> Pixels:
    half = brightness.shape[0] // 2
    small: Pixels = brightness.reshape(half, 2, half, 2).mean(axis=(1, 3))
    return small


@cache
def _window() -> tuple[float, ...]:
    places = np.arange(_WINDOW) - _WINDOW // 2
    weights = np.exp(-(places**2) / (2 * _SIGMA**2))
    return tuple(float(weight) for weight in weights / weights.sum())


@cache
def _cosines(size: int) -> Pixels:
    """The matrix of a discrete cosine transform (DCT-II)."""
    places = np.arange(size)
    waves: Pixels = np.cos(pi / size * (places[None, :] + 0.5) * places[:, None])
    return waves
