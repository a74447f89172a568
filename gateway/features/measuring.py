"""Measures the pictures of pairs: a few a minute beside live work, the rest when somebody asks for it.

A pair takes 40 to 80 ms of processor time, ten times what a copy itself takes, and with learned measures half a second
of one core, so measuring them all in the gateway would be felt. What it leaves is measured by `pixelgate shadow
measure`, in a process of its own.

Pairs hold no prompts. A measure that needs one reads what the live call asked for, as long as that is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import structlog
from msgspec.structs import replace

from gateway.assets import Assets, Unfit, opened
from gateway.features.learned import LearnedMeasures
from gateway.settings import Settings
from gateway.storage.database import Database
from gateway.storage.rows import AssetRow
from gateway.storage.shadows import ShadowRow
from policies.experiments.definition import Measure
from policies.experiments.pairs import Pair, Side
from policies.experiments.picture_measures import SIDE, Pixels, measures

if TYPE_CHECKING:
    from PIL.Image import Image

log = structlog.get_logger("gateway.measuring")


class Measuring:
    """Measures pairs that nobody has measured yet."""

    def __init__(self, db: Database, assets: Assets, learned: LearnedMeasures) -> None:
        self._db = db
        self._assets = assets
        self.learned = learned
        self.prompts: dict[str, str] = {}
        """Call -> its prompt, of calls that nobody asked for, whose prompts are kept nowhere."""

    async def some(self, most: int, experiment: str | None = None) -> int:
        """Measure the oldest of them, at most so many; of one experiment, or of all. How many there were."""
        rows = await self._db.unmeasured_pairs(most, experiment)
        for row in rows:
            await self._db.measure_pair(await self._measured(row))
        return len(rows)

    async def again(self, experiment: str) -> None:
        """Have the pairs of an experiment measured anew, as far as their pictures are kept."""
        await self._db.unmeasure_pairs(experiment)

    async def _measured(self, row: ShadowRow) -> Pair:
        """The pair with its measures; without any where a picture is gone or cannot be read."""
        pictures = {picture.id: picture for picture in await self._db.call_assets(row.shadow_call)}
        pair = row.pair
        champion = await self._bytes(pictures.get(pair.champion.asset or ""))
        challenger = await self._bytes(pictures.get(pair.challenger_side.asset or ""))
        if champion is None or challenger is None:
            return pair
        prompt = await self._prompt(pair.call_id) if self.learned.reads_prompts else None
        try:
            return await asyncio.to_thread(measured, pair, champion, challenger, self.learned, prompt)
        except Unfit as unfit:
            log.warning("pair_not_measured", pair=pair.id, detail=unfit.why)
            return pair

    async def _prompt(self, call_id: str) -> str | None:
        """What a call asked to be drawn; None once that is forgotten."""
        if call_id in self.prompts:
            return self.prompts[call_id]
        recipe = await self._db.recipe(call_id)
        return None if recipe is None else str(recipe.request.get("prompt") or "") or None

    async def _bytes(self, picture: AssetRow | None) -> bytes | None:
        return None if picture is None else await self._assets.read(picture.path)


def unmeasurable(settings: Settings) -> Mapping[Measure, str]:
    """Measures that an experiment may compare and nothing here takes, and why not."""
    missing = LearnedMeasures(settings.models_folder).missing
    found: dict[Measure, str] = {name: missing[name] for name in ("clip", "aesthetic") if name in missing}
    why = settings.shadow.judge.why_off
    return found if why is None else {**found, "judge": why}


def measured(
    pair: Pair, champion: bytes, challenger: bytes, learned: LearnedMeasures | None = None, prompt: str | None = None
) -> Pair:
    """A pair with what its pictures say; a picture with nothing on it was not delivered but blank.

    Raises `Unfit` where nobody can decode them.
    """
    ours, theirs = _decoded(champion), _decoded(challenger)
    found = dict(measures(_pixels(ours), _pixels(theirs)))
    if learned is not None:
        found |= learned.measures(ours, theirs, prompt)
    return replace(
        pair,
        measures=found,
        champion=_looked_at(pair.champion, blank=bool(found["blank_champion"])),
        challenger_side=_looked_at(pair.challenger_side, blank=bool(found["blank_challenger"])),
    )


def pixels_of(data: bytes) -> Pixels:
    """A small copy of a picture; raises `Unfit` where nobody can decode it."""
    return _pixels(_decoded(data))


def _decoded(data: bytes) -> Image:
    with opened(data) as picture:
        picture.draft("RGB", (2 * SIDE, 2 * SIDE))  # JPEG is decoded no larger than it must be
        return picture.convert("RGB")


def _pixels(picture: Image) -> Pixels:
    from PIL.Image import Resampling

    small = picture.resize((SIDE, SIDE), Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(small, dtype=np.float64)


def _looked_at(side: Side, *, blank: bool) -> Side:
    return replace(side, outcome="blank") if blank else side
