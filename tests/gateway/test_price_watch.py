"""Sellers' own lists beside ours: a change there is told, and changes nothing here."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import ClientSession

from gateway.app import build, overdue
from gateway.money.matching import DAY
from gateway.money.price_list import Verdict, compared
from gateway.money.reconcile import drift
from policies.tariffs import FirstMegapixel, MachineSecond, PerImage, PerMegapixel, Tariff
from policies.types import Offer, Tier
from providers.contract import Abilities, ListedPrice
from providers.errors import Misconfigured
from providers.sandbox import start
from tests.support.town import TIME_SCALE, Town, settings, town


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


@pytest.mark.parametrize(
    ("since", "every", "late"), [(3500, 3600, False), (8000, 3600, True), (59, 5, False), (61, 5, True)]
)
def test_what_is_done_every_hour_is_not_missed_after_a_minute(since: float, every: float, *, late: bool) -> None:
    assert overdue(since, every) == late


async def test_a_silent_change_in_bills_is_told_with_the_first_of_them_and_corrected(tmp_path: pathlib.Path) -> None:
    async with town(tmp_path, sellers=("fal",), recovery={"bills": "50ms", "price_lists": "1h"}) as t:
        t.sandbox.script({"prices": {"fal": {"*": "0.05"}}})
        await t.app.serve(t.call())
        await until(lambda: told_of(t, "bill_drift"))
        await until_books_agree(t)


async def test_other_units_in_bills_are_told_as_such_with_the_first_of_them(tmp_path: pathlib.Path) -> None:
    async with town(tmp_path, sellers=("fal",), recovery={"bills": "50ms", "price_lists": "1h"}) as t:
        t.sandbox.script({"counted": {"fal": {"*": "2"}}})
        await t.app.serve(t.call())
        await until(lambda: told_of(t, "bill_drift"))
        (alert,) = await t.app.db.alerts(10)
        assert "The number of units changed of fal-ai/flux/" in alert.text
        assert "2 units at $0.0" in alert.text
        await until_books_agree(t)


async def test_another_unit_on_a_list_is_told_by_the_next_reading(tmp_path: pathlib.Path) -> None:
    async with town(tmp_path, sellers=("fal",), recovery={"price_lists": "50ms"}) as t:
        await until(lambda: t.app.db.listed_prices("fal"))
        t.sandbox.script({"units": {"fal": {"fal-ai/flux/dev": "second"}}})
        await until(lambda: told_of(t, "listed_price"))
        (alert,) = await t.app.db.alerts(10)
        assert (alert.facts["verdict"], alert.facts["unit"]) == ("unit", "second")
        (proposed,) = await t.app.db.price_proposals("open")
        assert (proposed.offer, proposed.change.kind) == ("fal:flux-dev", "unit")


async def test_bills_for_what_was_never_ordered_here_are_told_once_and_are_no_drift(tmp_path: pathlib.Path) -> None:
    async with town(tmp_path, sellers=("fal",), recovery={"price_lists": "1h"}) as t:
        await t.app.serve(t.call())
        async with ClientSession(headers={"Authorization": "Key sandbox-fal"}) as thief:
            url = f"{t.sandbox.url}/fal/run/fal-ai/flux-2-max"
            async with thief.post(url, json={"prompt": "x"}) as taken:
                assert taken.status == 200
        await t.app.recovery.reconcile()
        await t.app.recovery.reconcile()
        (alert,) = [each for each in await t.app.db.alerts(10) if each.kind == "strange_bill"]
        assert (alert.facts["endpoint"], alert.facts["nano_usd"]) == ("fal-ai/flux-2-max", 70_000_000)
        ours = (await drift(t.app.db, t.app.providers, t.app.clock.utc() - DAY))["fal"]
        assert (ours.drift, [(each.endpoint, each.nano_usd) for each in ours.elsewhere]) == (
            0, [("fal-ai/flux-2-max", 70_000_000)],
        )  # fmt: skip


async def test_a_key_that_may_not_see_bills_draws_at_the_books_prices_and_raises_no_alarm(
    tmp_path: pathlib.Path,
) -> None:
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        account = {"kind": "fal", "key": "sandbox-fal-plain", "base_url": f"{sandbox.url}/fal"}
        app = await build(settings(tmp_path, sandbox.url, accounts={"fal": account}))
        await app.start()
        t = Town(app, sandbox)
        await app.serve(t.call())
        await app.recovery.reconcile()
        await app.recovery.glance()
        with pytest.raises(Misconfigured, match="requires an admin API key"):
            await drift(app.db, app.providers, app.clock.utc() - DAY)
        assert await app.db.alerts(10) == []
        assert sum((await t.costs()).values()) == sandbox.invoice()["total_nano_usd"]["fal"]
        await app.stop()


async def told_of(t: Town, kind: str) -> bool:
    return kind in {alert.kind for alert in await t.app.db.alerts(10)}


async def until(is_so: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(20):
        while not await is_so():  # noqa: ASYNC110 - what it waits for comes from loops of the gateway
            await asyncio.sleep(0.02)


async def until_books_agree(t: Town) -> None:
    async def agree() -> bool:
        return await t.costs() == t.invoiced()

    await until(agree)
    await t.assert_books_agree()


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
        await t.app.price_watch.work()
        assert [each.facts["verdict"] for each in await t.app.db.alerts(10)] == ["changed"]
        t.sandbox.script({"prices": {"fal": {"fal-ai/flux/dev": "0.06"}}})
        await t.app.price_watch.work()
        assert [each.facts["listed_nano_usd"] for each in await t.app.db.alerts(10)] == [60_000_000, 50_000_000]
