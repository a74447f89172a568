"""What the bench needs of a harness: ours, or one elsewhere on disk with the same modules."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from bench.routing import baselines, bound, scenarios, sim


class Harness(Struct, frozen=True, kw_only=True):
    """Worlds, peers, the simulator and the bound."""

    worlds: Mapping[str, Callable[..., Any]]
    baselines: Sequence[Callable[[], Any]]
    play: Callable[[Any, Any], Mapping[str, Any]]
    """(world, policy) -> the figures of a run."""
    bound: Callable[[Any], float]
    """Dollars below which no policy can be."""
    penalise: Callable[[Any, float], None]
    """Multiply what a world charges for late and missing answers."""
    shuffle_100k_s: float
    """CPU seconds that weighted shuffle takes for 100,000 requests on the machine that the musts are meant for."""


def ours() -> Harness:
    """The harness beside this file."""
    return Harness(
        worlds=scenarios.BY_NAME,
        baselines=baselines.BASELINES,
        play=sim.play,
        bound=lambda world: bound.lower_bound(world).value,
        penalise=_penalise_ours,
        shuffle_100k_s=2.5,  # lines and pools: 1.2 times as long as the study's
    )


def elsewhere(folder: Path) -> Harness:
    """A harness whose modules (`scenarios`, `baselines`, `sim`, `bound`) lie in a folder."""
    sys.path.insert(0, str(folder.resolve()))
    theirs = {name: importlib.import_module(name) for name in ("scenarios", "baselines", "sim", "bound")}
    return Harness(
        worlds={make.__name__: make for make in theirs["scenarios"].DEV},
        baselines=theirs["baselines"].BASELINES,
        play=lambda world, policy: theirs["sim"].summarise(theirs["sim"].Sim(world, policy).run()),
        bound=lambda world: float(theirs["bound"].lower_bound(world)[0]),
        penalise=_penalise_theirs,
        shuffle_100k_s=2.1,
    )


def _penalise_ours(world: Any, times: float) -> None:
    asked = world.traffic
    world.traffic = asked._replace(miss=asked.miss * times, fail=asked.fail * times)


def _penalise_theirs(world: Any, times: float) -> None:
    world.miss = world.miss * times
    world.fail = world.fail * times
