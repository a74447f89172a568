"""What sellers' lists would change: proposed, looked at, applied with a name, and taken back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.cli import run
from gateway.errors import InvalidRequest, NoOffer
from gateway.features import price_sync
from gateway.features.price_sync import Decision, Undecided
from gateway.revisions import SYNCED, load_revision
from gateway.storage.prices import Proposal
from policies.eligibility import objection
from policies.listed_prices import unit_price
from policies.types import Ask, Constraints, Offer
from providers.contract import ImageRequest
from providers.sandbox import start
from tests.support.homes import edit, small_home
from tests.support.town import TIME_SCALE, Town, town

DEV, SCHNELL, PRO = "fal-ai/flux/dev", "fal-ai/flux/schnell", "fal-ai/flux-2-pro"
ANN = Decision(author="ann", message="their mail of Monday")


class Market(Town):
    """A town whose sellers change their lists."""

    async def sync(self) -> dict[str, Proposal]:
        await self.app.price_watch.work()
        return {each.offer: each for each in await self.app.db.price_proposals("open")}

    def lists(self, **scripts: dict[str, Any]) -> None:
        self.sandbox.script({name: {"fal": what} for name, what in scripts.items()})

    async def apply(self, decision: Decision = ANN) -> price_sync.Applied:
        done = await price_sync.apply(self.app.db, self.app.settings, decision, self.app.clock.utc())
        self.follow()
        return done

    def follow(self, *, after: timedelta = timedelta(seconds=1)) -> None:
        """What a running gateway does once the file has changed, or a moment has come."""
        at = self.app.clock.utc() + after
        self.app.adopt(self.app.settings, load_revision(self.app.settings, at=at))

    def offer(self, name: str) -> Offer:
        return self.app.revision.catalog.offers[name]


@asynccontextmanager
async def market(folder: Path, **changes: Any) -> AsyncIterator[Market]:
    home = small_home(folder)
    async with town(folder, config=home, **changes) as t:
        yield Market(t.app, t.sandbox)


async def test_a_price_on_the_list_is_proposed_and_changes_nothing_until_somebody_applies_it(tmp_path: Path) -> None:
    async with market(tmp_path) as m:
        assert await m.sync() == {}
        m.lists(prices={DEV: "0.026"})
        proposed = await m.sync()
        assert set(proposed) == {"fal:flux-dev"}
        assert (proposed["fal:flux-dev"].change.ours, proposed["fal:flux-dev"].change.listed) == (
            25_000_000,
            26_000_000,
        )
        m.follow()
        assert unit_price(m.offer("fal:flux-dev").tariff) == 25_000_000
        before = m.app.revision.number
        done = await m.apply()
        assert unit_price(m.offer("fal:flux-dev").tariff) == 26_000_000
        (row,) = await m.app.db.price_revisions()
        assert done.revision == row
        assert (row.author, row.message, row.prices_before) == ("ann", "their mail of Monday", before)
        assert row.prices != before
        assert await m.sync() == {}


async def test_what_is_applied_is_what_the_seller_bills(tmp_path: Path) -> None:
    async with market(tmp_path, sellers=("fal",)) as m:
        m.lists(prices={DEV: "0.0263", PRO: "0.036"})
        await m.sync()
        await m.apply(msgspec.structs.replace(ANN, looked_at=frozenset({"fal:flux-2-pro"})))
        for model, size in (("flux-dev", 512), ("flux-2-pro", 1024), ("flux-2-pro", 1536)):
            await m.app.serve(m.call(width=size, height=size, models=[model]))
        await m.assert_books_agree()


async def test_another_unit_and_a_jump_wait_for_somebody_who_looked_and_the_rest_does_not(tmp_path: Path) -> None:
    async with market(tmp_path) as m:
        await m.sync()
        m.lists(prices={SCHNELL: "0.0031", PRO: "0.12"}, units={DEV: "second"})
        proposed = await m.sync()
        assert {name: each.change.kind for name, each in proposed.items()} == {
            "fal:flux-schnell": "price", "fal:flux-dev": "unit", "fal:flux-2-pro": "price",
        }  # fmt: skip
        assert "is it still counted" in proposed["fal:flux-dev"].change.waits
        assert "more than 3 times" in proposed["fal:flux-2-pro"].change.waits
        done = await m.apply()
        assert {each.offer for each in done.waiting} == {"fal:flux-dev", "fal:flux-2-pro"}
        assert unit_price(m.offer("fal:flux-schnell").tariff) == 3_100_000
        assert unit_price(m.offer("fal:flux-2-pro").tariff) == 30_000_000
        assert set(await m.sync()) == {"fal:flux-dev", "fal:flux-2-pro"}  # a unit stays proposed, though it is old news
        await m.apply(msgspec.structs.replace(ANN, looked_at=frozenset({"fal:flux-dev", "fal:flux-2-pro"})))
        assert unit_price(m.offer("fal:flux-2-pro").tariff) == 120_000_000
        assert await m.sync() == {}


async def test_what_is_rejected_is_not_proposed_again_until_the_list_says_something_else(tmp_path: Path) -> None:
    async with market(tmp_path) as m:
        m.lists(prices={DEV: "0.03"})
        await m.sync()
        await price_sync.reject(m.app.db, ANN, m.app.clock.utc())
        assert await m.sync() == {}
        m.lists(prices={DEV: "0.031"})
        assert set(await m.sync()) == {"fal:flux-dev"}
        m.lists(prices={DEV: "0.025"})
        assert await m.sync() == {}  # as ours again: there is nothing left to decide
        with pytest.raises(Undecided, match="Nothing is proposed"):
            await m.apply()


async def test_a_seller_without_a_list_tells_a_price_by_what_it_billed_last(tmp_path: Path) -> None:
    async with market(tmp_path, sellers=("together",)) as m:
        assert await m.sync() == {}
        m.sandbox.script({"prices": {"together": {"black-forest-labs/FLUX.1-schnell": "0.003"}}})
        assert await m.sync() == {}  # nothing was billed yet
        await m.app.serve(m.call())
        proposed = await m.sync()
        assert {name: each.change.listed for name, each in proposed.items()} == {"together:flux-schnell": 3_000_000}
        m.sandbox.script({"prices": {"together": {"black-forest-labs/FLUX.1-schnell": "0.004"}}})
        await m.app.serve(m.call())
        assert set(await m.sync()) == {"together:flux-schnell"}  # two prices within the hour: the one before stands
        await m.apply()
        assert unit_price(m.offer("together:flux-schnell").tariff) == 3_000_000


async def test_an_estimate_that_differs_from_list_and_book_is_told_and_waits_for_somebody(tmp_path: Path) -> None:
    async with market(tmp_path) as t:
        t.lists(estimated={PRO: "0.0285"})
        (proposed,) = (await t.sync()).values()
        assert (proposed.offer, proposed.change.ours, proposed.change.listed) == (
            "fal:flux-2-pro", 30_000_000, 28_500_000,
        )  # fmt: skip
        assert proposed.change.waits.endswith("estimated at $0.0285 a unit, where $0.03 was expected")
        assert [alert.facts["verdict"] for alert in await t.app.db.alerts(10) if alert.kind == "listed_price"] == [
            "estimate"
        ]
        assert (await t.apply()).revision is None


async def test_a_list_that_its_sellers_own_estimate_contradicts_waits_for_somebody(tmp_path: Path) -> None:
    async with market(tmp_path) as t:
        await t.sync()
        t.lists(prices={DEV: "0.026"}, estimated={DEV: "0.025"}, units={SCHNELL: "second"})
        found = await t.sync()
        assert found["fal:flux-dev"].change.listed == 26_000_000
        assert found["fal:flux-dev"].change.waits == "the seller's own estimate says $0.025"
        assert found["fal:flux-schnell"].change.kind == "unit"


async def test_a_price_that_list_and_estimate_agree_upon_is_a_price_like_any(tmp_path: Path) -> None:
    async with market(tmp_path) as t:
        t.lists(prices={PRO: "0.031"})
        (proposed,) = (await t.sync()).values()
        assert (proposed.offer, proposed.change.listed, proposed.change.waits) == (
            "fal:flux-2-pro", 31_000_000, "one of several numbers; the others would follow in proportion",
        )  # fmt: skip


async def test_a_price_may_come_into_force_later_and_orders_before_keep_theirs(tmp_path: Path) -> None:
    async with market(tmp_path) as m:
        m.lists(prices={DEV: "0.03"})
        await m.sync()
        now = m.app.clock.utc()
        with pytest.raises(InvalidRequest, match="is over"):
            await m.apply(msgspec.structs.replace(ANN, since=now - timedelta(minutes=1)))
        await m.apply(msgspec.structs.replace(ANN, since=now + timedelta(days=7)))
        assert unit_price(m.offer("fal:flux-dev").tariff) == 25_000_000
        assert await m.sync() == {}  # it is known already
        m.follow(after=timedelta(days=8))
        offer = m.offer("fal:flux-dev")
        assert (unit_price(offer.tariff), unit_price(offer.tariff_at(now))) == (30_000_000, 25_000_000)


async def test_a_model_that_is_gone_is_proposed_to_retire_and_then_not_sold_with_the_reason(tmp_path: Path) -> None:
    async with market(tmp_path, sellers=("fal", "together", "replicate")) as m:
        m.sandbox.script({"retired": {"fal": [DEV], "together": ["black-forest-labs/FLUX.1-schnell"],
                                      "replicate": ["black-forest-labs/flux-2-pro"]}})  # fmt: skip
        proposed = await m.sync()
        gone = {"fal:flux-dev", "together:flux-schnell", "replicate:flux-2-pro"}
        assert {name for name, each in proposed.items() if each.change.kind == "gone"} == gone
        await m.apply()
        ask = Ask(call_id="", part=0, request=ImageRequest(), constraints=Constraints(), arrived=0.0)
        objected = objection(m.offer("fal:flux-dev"), ask)
        assert objected is not None
        assert (objected.code, objected.reason[:30]) == ("retired", "fal no longer sells flux-dev s")
        assert await m.sync() == {}
        delivery = await m.app.serve(m.call(models=["flux-dev"]))
        assert {row.account for row in await m.app.db.attempts(delivery.call_id)} == {"replicate"}


def retiring(home: Path, day: str) -> None:
    """An announcement in the catalogue: fal stops selling flux-dev on a day."""
    ends = f"    endpoint: fal-ai/flux/dev\n    retires: {day}\n    successor: flux-2-pro\n"
    edit(home / "catalog" / "flux-dev.yaml", "    endpoint: fal-ai/flux/dev\n", ends)


async def test_an_announced_end_comes_by_itself_and_names_what_follows(tmp_path: Path) -> None:
    async with market(tmp_path) as m:
        day = m.app.clock.utc() + timedelta(days=9)
        retiring(m.app.settings.config, f"{day:%Y-%m-%d}")
        m.follow()
        offer = m.offer("fal:flux-dev")
        assert (offer.retired, offer.successor) == ("", "flux-2-pro")
        assert m.app.revision.catalog.changes_at == offer.retires
        m.follow(after=timedelta(days=10))
        why = f"fal no longer sells flux-dev since {day:%Y-%m-%d}; use flux-2-pro"
        assert m.offer("fal:flux-dev").retired == why
        assert m.app.revision.catalog.models["flux-dev"].offers == ("fal:flux-dev/edit",)
        with pytest.raises(NoOffer, match="no longer sells flux-dev"):
            await m.app.serve(m.call(models=["flux-dev"]))


def test_the_policies_concerned_by_an_end_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = small_home(tmp_path)
    accounts = {name: {"kind": name, "key_env": "NONE"} for name in ("fal", "replicate")}
    (home / "gateway.yaml").write_text(json.dumps({"accounts": accounts}))
    policy = home / "policies" / "default.yaml"
    policy.write_text(policy.read_text().rstrip() + "\nrules:\n  - {rule: dev, deny: {models: [flux-dev]}}\n")
    retiring(home, "2099-01-31")
    where = ["--config", str(home), "--state", str(tmp_path / "state")]
    assert run(["policy", "lint", "--config", str(home), "--format", "json"]) == 1
    found = [each for each in json.loads(capsys.readouterr().out)["findings"] if each["code"] == "retires"]
    assert ("warning", "flux-dev: fal until 2099-01-31, then flux-2-pro; others go on") in [
        (each["level"], each["message"]) for each in found
    ]
    run(["prices", "list", "--model", "flux-dev", "--json", *where])
    (end,) = json.loads(capsys.readouterr().out)["retiring"]
    assert (end["offer"], end["successor"], end["over"]) == ("fal:flux-dev", "flux-2-pro", False)
    assert end["concerns"] == ["alias flux-1-dev", "policy default"]


async def test_prices_nobody_looked_at_for_long_are_told_once_a_month_and_still_count(tmp_path: Path) -> None:
    async with market(tmp_path, alerts={"stale_prices": "1s"}) as m:
        await m.sync()
        await m.sync()
        (alert,) = await m.app.db.alerts(10)
        assert alert.kind == "stale_prices"
        assert alert.facts["offers"] == ["together:flux-2-pro", "together:flux-schnell"]  # fal's own list agrees
        assert (await m.app.serve(m.call())).images


async def test_who_edits_the_catalogue_afterwards_has_the_last_word(tmp_path: Path) -> None:
    async with market(tmp_path) as m:
        m.lists(prices={DEV: "0.026"})
        await m.sync()
        await m.apply()
        edit(m.app.settings.config / "catalog" / "flux-dev.yaml", "{per_megapixel: $0.025,", "{per_megapixel: $0.027,")
        m.follow()
        assert unit_price(m.offer("fal:flux-dev").tariff) == 27_000_000


async def test_going_back_writes_what_was_and_keeps_what_is(tmp_path: Path) -> None:
    async with market(tmp_path) as m:
        db, settings, number = m.app.db, m.app.settings, m.app.revision.number
        m.lists(prices={DEV: "0.026"})
        await m.sync()
        await m.apply()
        done = await price_sync.roll_back(db, settings, None, ANN, m.app.clock.utc())
        assert done.revision is not None
        assert done.revision.prices == number
        m.follow()
        assert unit_price(m.offer("fal:flux-dev").tariff) == 25_000_000
        await price_sync.roll_back(db, settings, 1, ANN, m.app.clock.utc())
        m.follow()
        assert unit_price(m.offer("fal:flux-dev").tariff) == 26_000_000
        assert [row.source for row in await db.price_revisions()] == ["applied", "rolled back", "rolled back"]
        with pytest.raises(Undecided, match="no revision 9"):
            await price_sync.roll_back(db, settings, 9, ANN, m.app.clock.utc())


async def test_what_somebody_wrote_by_hand_is_in_the_history_before_it_is_written_over(tmp_path: Path) -> None:
    async with market(tmp_path) as m:
        m.lists(prices={DEV: "0.026"})
        await m.sync()
        await m.apply()
        path = m.app.settings.state / SYNCED
        edit(path, "unit_price: $0.026", "unit_price: $0.0265")
        m.follow()
        assert unit_price(m.offer("fal:flux-dev").tariff) == 26_500_000
        await price_sync.roll_back(m.app.db, m.app.settings, 0, ANN, m.app.clock.utc())
        saved = [row for row in await m.app.db.price_revisions() if row.source == "saved"]
        assert [b"$0.0265" in row.content for row in saved] == [True]


async def test_the_commands_propose_apply_tell_and_go_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        sandbox.script({"prices": {"fal": {DEV: "0.026", SCHNELL: "0.03"}}})
        home = small_home(tmp_path)
        account = {"kind": "fal", "key_env": "SHOP_KEY", "base_url": f"{sandbox.url}/fal"}
        (home / "gateway.yaml").write_text(json.dumps({"accounts": {"fal": account}}))
        monkeypatch.setenv("SHOP_KEY", "sandbox-fal")
        where = ["--config", str(home), "--state", str(tmp_path / "state")]

        async def said(*command: str, code: int = 0) -> dict[str, Any]:
            ended = await asyncio.to_thread(run, ["prices", *command, "--json", *where])
            captured = capsys.readouterr()
            assert ended == code, captured.err
            found: dict[str, Any] = json.loads(captured.out)
            return found

        proposals = (await said("sync", code=1))["proposals"]
        assert [(each["offer"], bool(each["waits"])) for each in proposals] == [
            ("fal:flux-dev", False), ("fal:flux-schnell", True),
        ]  # fmt: skip
        applied = await said("apply", "--author", "ann", "--message", "mail", code=1)
        assert [each["offer"] for each in applied["waiting"]] == ["fal:flux-schnell"]
        prices = (await said("list", "--model", "flux-dev"))["prices"]
        (in_force,) = [row for row in prices if row["offer"] == "fal:flux-dev" and row["in_force"]]
        assert in_force["tariff"].startswith("$0.026 per megapixel")
        assert (await said("reject", "fal:flux-schnell"))["rejected"][0]["offer"] == "fal:flux-schnell"
        (row,) = (await said("history"))["revisions"]
        assert (row["author"], row["message"], row["changes"][0]["listed"]) == ("ann", "mail", 26_000_000)
        assert (await said("rollback"))["revision"]["prices"] == row["prices_before"]
        for command in (["history"], ["sync"]):
            await asyncio.to_thread(run, ["prices", *command, *where])
        told = capsys.readouterr().out
        assert "rolled back by" in told
        assert "fal:flux-dev  $0.025  $0.026  image" in told
        await asyncio.to_thread(run, ["doctor", "--offline", *where])
        assert "sellers say otherwise of fal:flux-dev: see `prices sync`" in capsys.readouterr().out
        for command, code, why in (
            (["apply", "fal:flux-2"], 1, "Nothing is proposed of fal:flux-2"),
            (["apply", "--from", "tomorrow"], 2, "Invalid 'from'"),
        ):
            assert await asyncio.to_thread(run, ["prices", *command, *where]) == code
            assert why in capsys.readouterr().err
