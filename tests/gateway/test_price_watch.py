"""Sellers' own lists beside ours: a change there is told, and changes nothing here."""

from __future__ import annotations

import pathlib

import pytest

from gateway.money.price_list import Verdict, compared
from policies.tariffs import FirstMegapixel, MachineSecond, PerImage, PerMegapixel, Tariff
from policies.types import Offer, Tier
from providers.contract import Abilities, ListedPrice
from tests.support.town import town


def offer(tariff: Tariff) -> Offer:
    return Offer(
        id="fal:flux-dev", model="flux-dev", account="fal", kind="fal", endpoint="fal-ai/flux/dev", tier=Tier.STANDARD,
        tariff=tariff, abilities=Abilities(), capacities=("fal",), typical_s=3.0,
    )  # fmt: skip


def listed(nano_usd: int, unit: str = "image") -> ListedPrice:
    return ListedPrice(endpoint="fal-ai/flux/dev", unit=unit, nano_usd=nano_usd)


@pytest.mark.parametrize(
    ("tariff", "now", "before", "verdict", "says"),
    [
        (PerMegapixel(25_000_000), listed(25_000_000), None, "same", "$0.025 per image"),
        (PerImage(25_000_000), listed(26_000_000), None, "differs", "$0.026 per image, ours $0.025"),
        (PerImage(25_000_000), listed(26_000_000), listed(25_000_000), "changed", "before $0.025 per image"),
        (PerImage(25_000_000), listed(250_000), listed(25_000_000), "changed", "more than 3 times apart"),
        (PerImage(25_000_000), listed(25_000_000, "second"), listed(25_000_000), "unit", "the unit changed"),
        (PerImage(25_000_000), None, listed(25_000_000), "gone", "no longer listed; it was $0.025 per image"),
        (PerImage(25_000_000), None, None, "apart", "not on the list"),
        (FirstMegapixel(30_000_000, 15_000_000), listed(30_000_000), None, "same", "$0.03 per image"),
        (FirstMegapixel(30_000_000, 15_000_000), listed(31_000_000), None, "differs", "$0.031 per image, ours $0.03"),
        (MachineSecond(340_000_000), listed(1), None, "apart", "ours is of another kind"),
    ],
)
def test_each_difference_has_its_word(
    tariff: Tariff, now: ListedPrice | None, before: ListedPrice | None, verdict: Verdict, says: str
) -> None:
    earlier = {} if before is None else {before.endpoint: before}
    (finding,) = compared("fal", [offer(tariff)], [] if now is None else [now], earlier)
    assert finding.verdict == verdict
    assert says in finding.says
    assert finding.alarming == (verdict not in ("same", "apart"))


async def test_a_silent_change_on_a_list_is_told_by_the_next_reading_and_changes_no_price(
    tmp_path: pathlib.Path,
) -> None:
    async with town(tmp_path) as t:
        await t.app.price_watch.work()
        assert await t.app.db.alerts(10) == []
        t.sandbox.script({"prices": {"fal": {"fal-ai/flux/dev": "0.05"}}})
        await t.app.price_watch.work()
        (alert,) = await t.app.db.alerts(10)
        assert "fal lists fal-ai/flux/dev otherwise: $0.05 per image, before $0.025 per image" in alert.text
        assert t.app.revision.catalog.offers["fal:flux-dev"].tariff == PerMegapixel(25_000_000)
        await t.app.price_watch.work()
        assert [each.facts["verdict"] for each in await t.app.db.alerts(10)] == ["differs", "changed"]
        await t.app.price_watch.work()
        assert len(await t.app.db.alerts(10)) == 2
