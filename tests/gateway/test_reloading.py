"""Files that change while the gateway runs: the good ones come into force, the others are named and change nothing."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.app import build
from gateway.cli import run
from gateway.errors import NoOffer
from gateway.features import reloading
from gateway.revisions import Shelf, load_revision, stamp_of
from gateway.settings import Settings
from policies.money import to_usd
from policies.tariffs import PerImage, PerMegapixel
from policies.types import Tier
from providers.sandbox import start
from tests.support.homes import edit, small_home
from tests.support.town import SELLERS, TIME_SCALE, Town, settings

WITHIN_S = 20.0
"""Far more than a reload takes, for machines that are busy."""


class Edited(Town):
    """A town whose configuration is edited."""

    home: Path
    changes: dict[str, object]

    @property
    def policy_file(self) -> Path:
        return self.home / "policies" / "default.yaml"

    @property
    def condition(self) -> reloading.Condition:
        return self.app.condition()

    async def reload(self) -> None:
        """Have the files read now."""
        assert self.app.reloading is not None
        await self.app.reloading.reload()
        assert not self.condition.faults, self.condition.faults

    async def until_in_force(self, label: str) -> None:
        """Wait until a policy is in force."""
        await self.until(lambda: self.condition.policy == label)

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something is so."""
        given_up = time.monotonic() + WITHIN_S
        while not true():
            assert time.monotonic() < given_up, self.condition
            await asyncio.sleep(0.02)


def with_fal(t: Edited, **changes: object) -> dict[str, dict[str, object]]:
    """The town's accounts, one of them changed."""
    accounts = {name: account.model_dump(exclude_unset=True) for name, account in t.app.settings.accounts.items()}
    for account in accounts.values():
        account["key"] = account["key"].get_secret_value()
    return {**accounts, "fal": {**accounts["fal"], **changes}}


@asynccontextmanager
async def edited(folder: Path, home: Path | None = None, **changes: object) -> AsyncIterator[Edited]:
    """A running town; of a configuration of its own, where none is given."""
    home = home or small_home(folder)
    shelf, given = Shelf(), dict(changes)
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:

        def read() -> Settings:
            return settings(folder, sandbox.url, SELLERS, config=home, **given)

        now = read()
        app = await build(now, load_revision(now, shelf=shelf))
        app.follow_files(read, shelf)
        await app.start()
        try:
            town = Edited(app, sandbox)
            town.home, town.changes = home, given
            yield town
        finally:
            await app.stop()


async def test_a_saved_policy_is_in_force_within_moments(tmp_path: Path) -> None:
    async with edited(tmp_path) as t:
        edit(t.policy_file, "revision: 1 ", "revision: 2 ")
        await t.until(lambda: t.condition.policy == "default@2")
        delivery = await t.app.serve(t.call())
        assert delivery.policy == "default@2"
        await t.assert_books_agree()


async def test_a_broken_file_is_named_with_its_place_and_changes_nothing(tmp_path: Path) -> None:
    async with edited(tmp_path) as t:
        before = t.policy_file.read_text()
        edit(t.policy_file, "    latency_slo: 3s ", "    latency_slo: 3 ")
        await t.until(lambda: bool(t.condition.faults))
        (fault,) = t.condition.faults
        line = 1 + t.policy_file.read_text().splitlines().index(fault.text)
        assert (fault.line, fault.column) == (line, fault.text.index("3") + 1)
        assert "3 is not a duration" in fault.message
        assert t.condition.word.startswith(f"refused at default.yaml:{line}:{fault.column};")
        assert t.condition.policy == "default@1"
        assert (await t.app.serve(t.call())).policy == "default@1"
        t.policy_file.write_text(before)
        await t.until(lambda: not t.condition.faults)
        await t.assert_books_agree()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "a: [",
        "a: &x [1]\nb: [*x, *x]\n",
        "x" * 1_000_000,
        "- " * 200,
        "policy: default\npolicy: default\n",
        b"\xff\xfe\x00".decode("latin-1"),
    ],
)
async def test_whatever_is_saved_the_last_good_policy_goes_on(tmp_path: Path, content: str) -> None:
    async with edited(tmp_path) as t:
        t.policy_file.write_text(content, encoding="latin-1")
        await t.until(lambda: bool(t.condition.faults))
        assert (await t.app.serve(t.call())).policy == "default@1"
        assert all(fault.path.endswith("default.yaml") for fault in t.condition.faults)


async def test_a_policy_that_leaves_nobody_for_an_intent_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with edited(tmp_path) as t:
        edit(t.policy_file, "training: allowed", "region: eu")
        await t.until(lambda: bool(t.condition.faults))
        assert [fault.message.partition(":")[0] for fault in t.condition.faults] == [
            f"no offer can serve intent '{intent}'" for intent in ("preview", "standard", "export")
        ]
        assert "not in eu" in t.condition.faults[0].message
        assert t.condition.faults[0].text.startswith("  preview:")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("unknown_fields:", "rules: [{rule: nobody, deny: {providers: [fal, together]}}]\nunknown_fields:", "no offer"),
        ("    failure: $0.01 ", "    ceiling: $0.000001\n    failure: $0.01 ", "below every quote"),
    ],
)
async def test_rules_and_ceilings_that_leave_nobody_are_refused_too(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    async with edited(tmp_path) as t:
        edit(t.policy_file, old, new)
        await t.until(lambda: bool(t.condition.faults))
        assert said in t.condition.faults[0].message
        assert t.condition.policy == "default@1"


async def test_no_call_fails_while_policies_are_saved_good_and_broken(tmp_path: Path) -> None:
    async with edited(tmp_path) as t:
        over = asyncio.Event()

        async def keep_asking() -> set[str]:
            seen = set()
            while not over.is_set():
                seen.add((await t.app.serve(t.call())).policy)
            return seen

        callers = [asyncio.create_task(keep_asking()) for _ in range(4)]
        for number in range(2, 12):
            good = t.policy_file.read_text().replace(f"revision: {number - 1} ", f"revision: {number} ")
            t.policy_file.write_text(good)
            await t.until_in_force(f"default@{number}")
            t.policy_file.write_text(good.replace("intents:", "intents: [", 1))
            await t.until(lambda: bool(t.condition.faults))
            t.policy_file.write_text(good)
            await t.until(lambda: not t.condition.faults)
        over.set()
        policies = set().union(*await asyncio.gather(*callers))
        assert "default@1" in policies
        assert "default@11" in policies
        await t.assert_books_agree()


async def test_a_policy_file_that_is_gone_is_not_replaced_by_the_shipped_one(tmp_path: Path) -> None:
    async with edited(tmp_path) as t:
        edit(t.policy_file, "revision: 1 ", "revision: 5 ")
        await t.until(lambda: t.condition.policy == "default@5")
        text = t.policy_file.read_text()
        t.policy_file.unlink()
        await t.until(lambda: bool(t.condition.faults))
        assert "is gone" in t.condition.faults[0].message
        assert t.condition.policy == "default@5"
        t.policy_file.write_text(text)
        await t.until(lambda: not t.condition.faults)


async def test_a_call_ends_under_the_policy_and_prices_it_began_with(tmp_path: Path) -> None:
    async with edited(tmp_path) as t:
        began_under = t.app.regime
        t.sandbox.script([{"provider": "together", "do": "slow", "args": {"seconds": 2}, "when": {"first": 1}}])
        call = t.call(tier=Tier.PREVIEW)
        serving = asyncio.create_task(t.app.serve(call))
        await t.until(lambda: bool(t.app.running))
        shutil.copy(t.home / "catalog" / "flux-schnell.yaml", tmp_path / "flux-schnell.yaml")
        (t.home / "catalog" / "flux-schnell.yaml").unlink()  # the model leaves the catalogue while it draws
        await t.until(lambda: t.app.regime is not began_under)
        assert "together:flux-schnell" not in t.app.regime.catalog.offers
        delivery = await serving
        assert delivery.offers[0].endswith(":flux-schnell")
        (attempt, *_) = await t.attempts(call)
        assert attempt.prices == began_under.catalog.revision
        await t.assert_books_agree()


async def test_what_an_account_allows_counts_at_once_and_wakes_who_waits(tmp_path: Path) -> None:
    async with edited(tmp_path) as t:
        t.changes["accounts"] = with_fal(t, concurrency=1)
        await t.reload()
        lease = t.app.admission.lease(("fal",))
        assert lease is not None
        assert t.app.admission.lease(("fal",)) is None
        woken = asyncio.Event()
        t.app.admission.wait("fal", woken.set)
        t.changes["accounts"] = with_fal(t, concurrency=3)
        await t.reload()
        await asyncio.wait_for(woken.wait(), WITHIN_S)
        assert t.app.market.in_flight("fal") >= 1  # the lease has outlived both reloads
        lease.release()


async def test_an_account_that_is_set_aside_sells_no_more_and_its_orders_end_well(tmp_path: Path) -> None:
    async with edited(tmp_path) as t:
        serving = asyncio.create_task(t.app.serve(t.call(tier=Tier.EXPORT, only=["fal"])))
        await t.until(lambda: bool(t.app.running))
        t.changes["accounts"] = with_fal(t, off=True)
        await t.reload()
        assert {offer.account for offer in t.app.regime.catalog.offers.values()} == {"together"}
        assert (await serving).offers == ("fal:flux-2-pro",)
        await t.assert_books_agree()


async def test_a_new_account_sells_at_once(tmp_path: Path) -> None:
    async with edited(tmp_path) as t:
        accounts = with_fal(t)
        t.changes["accounts"] = {**accounts, "second": {**accounts["fal"], "key": "sandbox-second"}}
        await t.reload()
        assert (await t.app.serve(t.call(only=["second"]))).offers == ("second:flux-schnell",)
        await t.settled()
        assert await t.held() == 0


async def test_an_account_reached_in_another_way_waits_for_a_restart(tmp_path: Path) -> None:
    async with edited(tmp_path) as t:
        t.changes["accounts"] = with_fal(t, base_url="http://127.0.0.1:9/fal")
        await t.reload()
        assert t.condition.restart == ("accounts.fal",)
        assert (await t.app.serve(t.call(only=["fal"]))).offers == ("fal:flux-schnell",)


async def test_an_account_that_comes_back_with_another_key_keeps_its_connection_and_says_so(tmp_path: Path) -> None:
    async with edited(tmp_path) as t:
        accounts = with_fal(t)
        second = {**accounts["fal"], "key": "sandbox-second"}
        for now in ({"second": second}, {}, {"second": {**second, "key": "sandbox-third"}}):
            t.changes["accounts"] = {**accounts, **now}
            await t.reload()
        assert t.condition.restart == ("accounts.second",)
        assert (await t.app.serve(t.call(only=["second"]))).offers == ("second:flux-schnell",)
        await t.settled()
        assert set(t.invoiced()) == {"second"}


async def test_an_accounts_own_file_is_followed(tmp_path: Path) -> None:
    async with edited(tmp_path) as t:
        before = stamp_of(t.app.settings)
        (t.home / "accounts").mkdir()
        (t.home / "accounts" / "second.yaml").write_text("kind: fal\n")
        assert len(stamp_of(t.app.settings) - before) == 1


async def test_settings_that_need_a_restart_are_named(tmp_path: Path) -> None:
    async with edited(tmp_path) as t:
        t.changes["orders"] = {"timeout": "9s"}
        assert t.app.reloading is not None
        t.app.reloading.at_once()  # what SIGHUP does
        await t.until(lambda: t.condition.restart == ("orders",))
        assert t.app.settings.orders.timeout != 9.0


async def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    async with edited(tmp_path) as t:
        follower = t.app.reloading
        assert follower is not None
        read, texts = follower._read, ["revision: 2 ", "revision: 3 "]

        def meddling() -> Settings:
            """Somebody saves once more between the looks at the files."""
            if texts:
                old = "revision: 1 " if len(texts) == 2 else "revision: 2 "
                edit(t.policy_file, old, texts.pop(0))
            return read()

        follower._read = meddling
        await follower.reload()
        assert t.condition.policy == "default@3"


async def test_files_that_never_hold_still_are_named(tmp_path: Path) -> None:
    async with edited(tmp_path) as t:
        text, still = t.policy_file.read_text(), asyncio.Event()

        def meddle() -> None:
            number = 0
            while not still.is_set():
                number += 1
                t.policy_file.write_text(f"{text}# {number}\n")
                time.sleep(0.001)

        meddling = asyncio.create_task(asyncio.to_thread(meddle))
        await t.until(lambda: any("keeps changing" in fault.message for fault in t.condition.faults))
        still.set()
        await meddling
        await t.until(lambda: not t.condition.faults)


async def test_sellers_are_not_asked_for_what_no_longer_sells(tmp_path: Path) -> None:
    async with edited(tmp_path) as t:
        (t.home / "catalog" / "flux-2-pro.yaml").unlink()
        await t.until(lambda: len(t.app.regime.catalog.models) == 2)
        with pytest.raises(NoOffer):
            await t.app.serve(t.call(tier=Tier.EXPORT))


@pytest.mark.parametrize("price", ["$0.3", "$0.00003"])
async def test_a_price_a_hundred_times_off_is_refused_with_its_place_until_somebody_confirms_it(
    tmp_path: Path, price: str
) -> None:
    async with edited(tmp_path) as t:
        file = t.home / "catalog" / "flux-schnell.yaml"
        before = file.read_text()
        assert "{per_megapixel: $0.003," in before
        edit(file, "{per_megapixel: $0.003,", f"{{per_megapixel: {price},")
        await t.until(lambda: bool(t.condition.faults))
        (fault,) = t.condition.faults
        assert fault.path.endswith("flux-schnell.yaml")
        assert fault.text[fault.column - 1 :].startswith(f"{{per_megapixel: {price},")
        assert "more than 3 times higher or lower than the one in force: mind the unit" in fault.message
        assert (await t.app.serve(t.call(models=frozenset({"flux-schnell"})))).charge <= 3_000_000
        edit(file, "    source: ", "    confirm: true\n    source: ")
        await t.until(lambda: not t.condition.faults)
        tariff = t.app.revision.catalog.offers["fal:flux-schnell"].tariff
        assert isinstance(tariff, PerMegapixel)
        assert to_usd(tariff.price) == price.removeprefix("$")


async def test_a_price_a_hundred_times_off_is_noticed_at_the_next_start_as_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with edited(tmp_path) as t:
        file = t.home / "catalog" / "flux-schnell.yaml"
    edit(file, "{per_megapixel: $0.003,", "{per_megapixel: $0.3,")
    (file.parents[1] / "gateway.yaml").write_text("accounts: {fal: {kind: fal, key_env: SHOP_KEY}}\n")
    where = ["--config", str(file.parents[1]), "--state", str(tmp_path)]
    assert await asyncio.to_thread(run, ["doctor", "--offline", *where]) == 2
    assert "flux-schnell.yaml:14:12: more than 3 times higher or lower than the one in force" in capsys.readouterr().err
    edit(file, "    source: ", "    confirm: true\n    source: ")
    await asyncio.to_thread(run, ["doctor", "--offline", *where])
    assert "3 models" in capsys.readouterr().out
    (tmp_path / "known-prices.json").write_text("{")
    assert await asyncio.to_thread(run, ["doctor", "--offline", *where]) == 2
    assert "known-prices.json: cannot be read" in capsys.readouterr().err


async def test_an_announced_price_comes_into_force_by_itself_when_its_moment_comes(tmp_path: Path) -> None:
    async with edited(tmp_path) as t:
        moment = t.app.clock.utc() + timedelta(seconds=4)
        change = (
            f"    changes:\n      - {{valid_from: {moment.isoformat()}, price: {{per_image: $0.005}}, source: mail, "
        )
        file = t.home / "catalog" / "flux-schnell.yaml"
        edit(file, "    typical_seconds:", f"{change}checked_on: 2026-11-25}}\n    typical_seconds:")
        await t.until(lambda: t.app.revision.catalog.changes_at == moment)
        before = t.condition.prices
        assert t.app.revision.catalog.offers["fal:flux-schnell"].tariff != PerImage(5_000_000)
        await t.until(lambda: t.condition.prices != before)
        assert t.app.clock.utc() >= moment
        assert t.app.revision.catalog.offers["fal:flux-schnell"].tariff == PerImage(5_000_000)
        assert t.app.revision.catalog.changes_at is None
