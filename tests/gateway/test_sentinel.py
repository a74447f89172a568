"""Whether offers still draw, bill and answer as they did."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.assets import Unfit
from gateway.cli import run
from gateway.features.sentinel import Sentinel
from gateway.features.shadow_budgets import budget_row
from gateway.storage.shadows import SENTINEL
from policies.experiments.constancy import Draw
from policies.experiments.picture_measures import Pixels
from policies.types import Offer
from tests.support.town import Town, town

PROMPT = "still-life"


class Watched(Town):
    """A town whose offers are watched."""

    @property
    def sentinel(self) -> Sentinel:
        return self.app.sentinel

    @property
    def schnell(self) -> Offer:
        return self.app.revision.catalog.offers["fal:flux-schnell"]

    async def draws(self, times: int = 1) -> Draw:
        """Draw so often; the last one."""
        last: Draw | None = None
        for _ in range(times):
            last = await self.sentinel.draw(self.schnell, PROMPT)
        assert last is not None
        return last

    async def told(self) -> list[str]:
        """What people were told of offers."""
        return [str(each.facts["changed"]) for each in await self.app.db.alerts(10) if each.kind == "offer_changed"]


@asynccontextmanager
async def watched(folder: Path, budget: str = "$1") -> AsyncIterator[Watched]:
    async with town(folder, sentinel={"budget": budget, "every": "1h"}) as t:
        yield Watched(t.app, t.sandbox)


async def test_an_offer_that_draws_the_same_is_no_news_and_nobody_is_charged(tmp_path: Path) -> None:
    async with watched(tmp_path) as t:
        last = await t.draws(4)
        assert (last.error, last.changed, last.width) == (None, (), 512)
        assert await t.told() == []
        assert await t.charged("shadow:_sentinel") == 0
        await t.assert_books_agree()


async def test_another_size_and_another_bill_are_told_once(tmp_path: Path) -> None:
    async with watched(tmp_path) as t:
        await t.draws(3)
        t.sandbox.script(
            [{"provider": "fal", "do": "wrong_size", "when": {"share": 1}, "args": {"width": 1024, "height": 1024}}]
        )
        assert (await t.draws()).changed == ("size",)
        assert (await t.draws()).changed == ()
        assert await t.told() == ["size"]


async def test_a_picture_that_differs_for_the_same_seed_is_told(tmp_path: Path) -> None:
    async with watched(tmp_path) as t:
        t.sandbox.script({"pictures": "rich"})
        await t.draws(3)
        known = [each.print for each in await t.app.db.draws()]
        assert len(set(known)) == 1
        last = await t.draws()
        for number in range(3):
            await t.app.db.keep_draw(swapped(last, number))
        assert (await t.draws()).changed == ("pixels",)
        assert await t.told() == ["pixels"]


async def test_a_model_that_is_exchanged_without_a_word_is_told(tmp_path: Path) -> None:
    async with watched(tmp_path) as t:
        t.sandbox.script({"pictures": "rich"})
        assert (await t.draws(4)).changed == ()
        t.sandbox.script({"pictures": "plain"})  # same seller, endpoint, price, size and seed
        assert (await t.draws()).changed == ("pixels",)
        assert (await t.draws()).changed == ()
        assert await t.told() == ["pixels"]
        await t.assert_books_agree()


async def test_a_picture_that_no_decoder_takes_is_a_draw_without_a_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched(tmp_path) as t:
        monkeypatch.setattr("gateway.features.measuring.pixels_of", undecodable)
        last = await t.draws(4)
        assert (last.error, last.print, last.changed) == (None, "", ())
        assert await t.told() == []


def undecodable(_: bytes) -> Pixels:
    raise Unfit("a picture that no decoder takes")


def swapped(draw: Draw, number: int) -> Draw:
    """A draw as another model would have brought it, whose pictures are those that count since."""
    other = f"{int(draw.print, 16) ^ 0xFFFF_0000_FFFF_0000:016x}"
    changed = ("pixels",) if number == 0 else ()
    return replace(draw, id=f"draw_{number}", at=draw.at + (number + 1) / 1000, print=other, changed=changed)


async def test_offers_take_turns_and_the_budget_of_a_day_is_never_passed(tmp_path: Path) -> None:
    async with watched(tmp_path, budget="$0.004") as t:
        now = t.app.clock.utc().timestamp()
        before = [offer.id for offer, _ in await t.sentinel.due(now)]
        await t.sentinel.work()
        after = [offer.id for offer, _ in await t.sentinel.due(now - 3600)]
        assert after == before[1:]
        for _ in range(3):
            await t.sentinel.draw(t.schnell, PROMPT)
        await t.settled()
        assert sum((await t.costs()).values()) <= 4_000_000


async def test_a_budget_that_an_earlier_version_wrote_bounds_nothing_any_more(tmp_path: Path) -> None:
    async with watched(tmp_path) as t:
        old = replace(budget_row(SENTINEL, 1, t.app.clock.utc()), id="bud_shadow_sentinel_day")
        await t.app.db.set_budget(old)
        assert (await t.draws()).error is None
        kept = [row.id for row in await t.app.db.budgets() if row.name == SENTINEL]
        assert kept == [budget_row(SENTINEL, 1, t.app.clock.utc()).id]


async def test_without_a_budget_nothing_is_drawn(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        await t.app.sentinel.work()
        assert t.sandbox.requests() == ()


def test_running_it_without_a_budget_says_which_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sentinel", "run", "--state", str(tmp_path)]) == 2
    assert "`sentinel.budget`" in capsys.readouterr().err
