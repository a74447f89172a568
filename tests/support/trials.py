"""A town whose policy compares sellers on copies of its calls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from gateway.app import build
from gateway.requests.call import Call, Delivery
from gateway.revisions import Revision, load_revision
from gateway.settings import Settings
from gateway.storage.rows import AssetRow
from policies.experiments.definition import Allowance, Arm, Challenger, Experiment, Sample
from policies.experiments.pairs import Pair
from providers.sandbox import Sandbox, start
from tests.support.town import TIME_SCALE, Town, settings, single_minded

DOLLAR = 1_000_000_000
NAME = "fal-or-together"


def experiment(*challengers: Challenger, **changes: object) -> Experiment:
    """fal against Together (or others), on every call, for more money than a test spends."""
    plain = Experiment(
        name=NAME,
        champion=Arm(provider="fal"),
        challengers=challengers or (Challenger(name="together", account="together"),),
        sample=Sample(share=1.0),
        budget=Allowance(day=DOLLAR, total=10 * DOLLAR),
    )
    return replace(plain, **changes)


class Trial(Town):
    """A town, and its pairs."""

    async def asks(self, *, shadow: bool = True, prompt: str = "a lighthouse in the rain", **terms: object) -> Delivery:
        """A call that the champion draws, at a moment when accounts have room for a copy of it."""
        await eventually(self._is_spare)
        return await self.app.serve(self.asked(shadow=shadow, prompt=prompt, **terms))

    def asked(self, *, shadow: bool = True, prompt: str = "a lighthouse in the rain", **terms: object) -> Call:
        """A call that only the champion may draw."""
        terms = {"only": frozenset({"fal"}), "models": frozenset({"flux-schnell"}), **terms}
        return replace(self.call(prompt=prompt, **terms), shadow=shadow)  # type: ignore[arg-type]  # as `call` has it

    async def pairs(self, enough: int = 1) -> Sequence[Pair]:
        """The pairs, once there are so many."""
        await eventually(lambda: self._are(enough))
        return await self.app.db.shadow_pairs(NAME)

    async def _is_spare(self) -> bool:
        engine, now = self.app.engine, self.app.clock.now()
        engine.tick(self.app.market, now)  # a bucket fills from its first tick on
        rates = [each for each in self.app.revision.catalog.capacities.values() if each.rate is not None]
        return all(engine.room(each.id, 3, now) <= 0 for each in rates)

    async def _are(self, enough: int) -> bool:
        return len(await self.app.db.shadow_pairs(NAME)) >= enough

    async def copies_are_over(self) -> None:
        """Wait until no copy is thought of any more."""

        async def none_left() -> bool:
            await self.app.idle()
            return self.app.shadowing._under_way == 0

        await eventually(none_left)
        await self.app.shadowing.keep_finished()

    async def spent(self) -> int:
        """What the experiment's budget counts, held or posted."""
        counters = await self.app.db.counters(f"bud_shadow_{NAME}_total", [""])
        return sum(each.held + each.posted for each in counters.values())

    async def left_out(self) -> dict[str, int]:
        """Why copies were not made."""
        await self.app.shadowing.note_left_out()
        return dict(await self.app.db.left_out(NAME))

    async def pictures(self, pair: Pair) -> list[AssetRow]:
        """What is kept of a pair."""
        copies = await self.app.db.shadow_calls([pair.call_id])
        return [picture for call in copies for picture in await self.app.db.call_assets(call)]


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(90):
            while not await holds():  # noqa: ASYNC110 - whatever it is, it has no event for a test to await
                await asyncio.sleep(0.02)
            return
    raise AssertionError("it never came to be")


def revised(terms: Settings, *experiments: Experiment) -> tuple[Settings, Revision]:
    """What settings put in force, with experiments."""
    revision = load_revision(terms)
    return terms, replace(revision, policy=replace(revision.policy, experiments=experiments or (experiment(),)))


async def open_trial(folder: Path, sandbox: Sandbox, *experiments: Experiment, terms: Settings | None = None) -> Trial:
    """A gateway that carries experiments out, started."""
    app = await build(*revised(terms or settings(folder, sandbox.url), *experiments), engine=single_minded)
    await app.start()
    return Trial(app, sandbox)


@asynccontextmanager
async def trial(folder: Path, *experiments: Experiment) -> AsyncIterator[Trial]:
    """A running gateway that carries experiments out, over a running sandbox."""
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        town = await open_trial(folder, sandbox, *experiments, terms=settings(folder, sandbox.url))
        try:
            yield town
        finally:
            await town.app.stop()
