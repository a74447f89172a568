"""Traffic that is made up from a seed: what is asked for, and when. Every kind of traffic has a name.

The mix is 80 % previews, 15 % standards and 5 % exports, which follow previews. What is asked for is a body of
`POST /v1/images/generations` without its prompt; `tier` stands for whichever intent of the policy asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from policies.offline.trace import Floats, Ints
from policies.types import Tier

Bools = npt.NDArray[np.bool_]

_DAY_S = 86_400.0
_SLOT_S = 10.0
_SIZES: Mapping[Tier, tuple[Sequence[str], Sequence[float]]] = {
    Tier.PREVIEW: (("512x512", "1024x1024", "1344x768", "768x1344"), (0.30, 0.50, 0.10, 0.10)),
    Tier.STANDARD: (("1024x1024", "1344x768", "1216x832", "512x512"), (0.60, 0.15, 0.15, 0.10)),
    Tier.EXPORT: (("1024x1024", "1344x768", "1440x1440", "2048x2048"), (0.45, 0.20, 0.15, 0.20)),
}
_COUNTS = ((1, 2, 4), (0.6, 0.2, 0.2))
"""Pictures of a preview."""
_PATIENT_MS = 600_000
"""Deadline of batch work."""


class Shape(Struct, frozen=True, kw_only=True):
    """What some of the calls ask for."""

    tier: Tier
    ask: Mapping[str, object]
    """Fields of a generation body."""


class Pattern(Struct, frozen=True, kw_only=True):
    """N calls that were made up."""

    shapes: Sequence[Shape]
    at: Floats
    """[N] seconds, in order."""
    shape: Ints
    """[N] index into `shapes`."""


class Crowd(Struct, frozen=True, kw_only=True):
    """How a kind of traffic comes."""

    about: str
    swing: float = 0.0
    """Share by which day lies above, and night below, the mean rate."""
    bursts: float = 0.3
    """How much the rate of a minute wanders (log-normal)."""
    share: float = 1.0
    """Of the given rate."""
    flash: Sequence[tuple[float, float, float]] = ()
    """Flash crowds: (begins, lasts, times the load); the first two as shares of the whole."""
    waves: Sequence[tuple[float, float]] = ()
    """Batches within 30 s: (begins, pictures); as shares of the whole time, and of all its calls."""


CROWDS: Mapping[str, Crowd] = {
    "day": Crowd(about="a day's swing between night and noon, squeezed into the hours asked for", swing=0.8),
    "steady": Crowd(about="the same rate all the time", bursts=0.1),
    "flash": Crowd(
        about="two flash crowds of four and six times the load", flash=((0.35, 0.08, 4.0), (0.7, 0.04, 6.0))
    ),
    "studio": Crowd(
        about="light traffic, and batches of standard pictures that may take ten minutes",
        share=0.5,
        waves=((0.12, 0.12), (0.37, 0.18), (0.62, 0.12), (0.8, 0.08)),
    ),
    "night": Crowd(about="a twentieth of the rate: offers go cold", share=0.05, bursts=0.1),
}


def make_up(name: str, *, hours: float, rate: float, seed: int) -> Pattern:
    """Traffic of a name over `hours` at `rate` calls a second; `KeyError` for a name nobody knows."""
    crowd, seconds = CROWDS[name], hours * 3600.0
    rng = np.random.default_rng([seed, 11])
    first = _arrivals(rng, crowd, seconds, rate * crowd.share)
    tiers = np.where(rng.random(len(first)) < 0.15 / 0.95, int(Tier.STANDARD), int(Tier.PREVIEW))
    previews = np.nonzero(tiers == Tier.PREVIEW)[0]
    chosen = previews[rng.random(len(previews)) < 0.0625]
    exports = first[chosen] + rng.uniform(15.0, 120.0, len(chosen))
    exports = exports[exports < seconds]
    waves = [
        begins * seconds + np.sort(rng.random(round(part * rate * seconds)) * 30.0) for begins, part in crowd.waves
    ]
    batch = np.concatenate(waves) if waves else np.empty(0)
    at = np.concatenate([first, exports, batch])
    tier = np.concatenate([tiers, np.full(len(exports), int(Tier.EXPORT)), np.full(len(batch), int(Tier.STANDARD))])
    patient = np.concatenate([np.zeros(len(first) + len(exports), bool), np.ones(len(batch), bool)])
    order = np.argsort(at, kind="stable")
    return _shaped(rng, at[order], tier[order], patient[order])


def _arrivals(rng: np.random.Generator, crowd: Crowd, seconds: float, rate: float) -> Floats:
    """A Poisson stream whose rate swings, wanders and jumps."""
    slots = max(1, int(np.ceil(seconds / _SLOT_S)))
    t = (np.arange(slots) + 0.5) * _SLOT_S
    period = min(seconds, _DAY_S)
    rates = rate * (1 + crowd.swing * np.sin(2 * np.pi * t / period - np.pi / 2))
    wander, x = np.empty(slots), 0.0
    for k in range(slots):
        x += -0.08 * x + crowd.bursts * 0.4 * rng.standard_normal()
        wander[k] = x
    rates *= np.exp(wander - wander.var() / 2)
    for begins, lasts, times in crowd.flash:
        start, end = begins * seconds, (begins + lasts) * seconds
        rise = np.clip((t - start) / 20.0, 0, 1) * np.clip((end - t) / 60.0, 0, 1)
        rates *= 1 + (times - 1) * rise
    counts = rng.poisson(rates * _SLOT_S)
    at = np.sort(np.repeat(np.arange(slots) * _SLOT_S, counts) + rng.random(counts.sum()) * _SLOT_S)
    return at[at < seconds]


def _shaped(rng: np.random.Generator, at: Floats, tier: Ints, patient: Bools) -> Pattern:
    shapes: list[Shape] = []
    found: dict[tuple[int, str, int, bool], int] = {}
    sizes = np.empty(len(at), object)
    for each, (names, shares) in _SIZES.items():
        here = tier == each
        sizes[here] = rng.choice(names, int(here.sum()), p=shares)
    counts = np.where(tier == Tier.PREVIEW, rng.choice(_COUNTS[0], len(at), p=_COUNTS[1]), 1)
    which = np.empty(len(at), np.int64)
    for i, key in enumerate(zip(tier.tolist(), sizes.tolist(), counts.tolist(), patient.tolist(), strict=True)):
        place = found.get(key)
        if place is None:
            place = found[key] = len(shapes)
            shapes.append(_shape(*key))
        which[i] = place
    return Pattern(shapes=shapes, at=at, shape=which)


def _shape(tier: int, size: str, count: int, patient: bool) -> Shape:
    ask: dict[str, object] = {"size": size, "n": count}
    if patient:
        ask["deadline_ms"] = _PATIENT_MS
    return Shape(tier=Tier(tier), ask=ask)
