import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.experiments.picture_measures import SIDE, Pixels, measures, score, similarity


def drawn(seed: int = 1) -> Pixels:
    """Something with edges, colours and shades, like a picture."""
    chance = np.random.default_rng(seed)
    across, down = np.meshgrid(np.linspace(0, 1, SIDE), np.linspace(0, 1, SIDE))
    pixels = np.stack([255 * across, 255 * down, 128 + 127 * np.sin(9 * across * down)], axis=-1)
    for _ in range(30):
        left, top, size = chance.integers(0, SIDE - 40, 3)
        pixels[top : top + 8 + size // 8, left : left + 8 + size // 6] = chance.uniform(0, 255, 3)
    return np.asarray(pixels)


def blurred(pixels: Pixels, times: int = 12) -> Pixels:
    for _ in range(times):
        pixels = (np.roll(pixels, 1, 0) + np.roll(pixels, -1, 0) + np.roll(pixels, 1, 1) + np.roll(pixels, -1, 1)) / 4
    return pixels


def test_a_picture_is_like_itself_in_every_measure() -> None:
    same = measures(drawn(), drawn())
    assert same["phash"] == same["colour"] == same["sharpness"] == same["score"] == 0
    assert same["ssim"] == pytest.approx(1)
    assert same["ms_ssim"] == pytest.approx(1)


def test_another_picture_is_unlike_it_but_no_worse() -> None:
    other = measures(drawn(1), drawn(2))
    assert other["ssim"] < 0.9
    assert other["phash"] > 0.1
    assert abs(other["score"]) < 0.05


@pytest.mark.parametrize("level", [0.0, 128.0, 255.0])
def test_a_blank_picture_is_told_and_scores_nothing(level: float) -> None:
    found = measures(drawn(), np.full((SIDE, SIDE, 3), level))
    assert (found["blank_champion"], found["blank_challenger"], found["score_challenger"]) == (0, 1, 0)


def test_a_blurred_picture_is_less_sharp_and_scores_less() -> None:
    found = measures(drawn(), blurred(drawn()))
    assert found["sharpness"] < -1
    assert found["score"] < -0.05


def test_a_grey_picture_scores_less_than_a_coloured_one() -> None:
    grey = np.repeat(drawn().mean(axis=-1, keepdims=True), 3, axis=-1)
    assert score(grey) < score(drawn())


def test_a_little_noise_leaves_a_picture_alike_and_much_of_it_does_not() -> None:
    noise = np.random.default_rng(3).normal(0, 1, (SIDE, SIDE))
    grey = drawn().mean(axis=-1)
    little, much = (similarity(grey, np.clip(grey + by * noise, 0, 255)) for by in (2, 60))
    assert min(little) > 0.9
    assert max(much) < 0.6


@given(st.integers(0, 2**32 - 1), st.floats(0, 255))
def test_a_score_lies_between_nought_and_one(seed: int, scale: float) -> None:
    pixels = np.random.default_rng(seed).uniform(0, scale, (SIDE, SIDE, 3))
    assert 0 <= score(pixels) <= 1
