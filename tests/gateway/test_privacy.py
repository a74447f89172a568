from __future__ import annotations

import io
import sqlite3
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace
from PIL import Image
from pydantic import ValidationError

from gateway.app import build
from gateway.cli import run
from gateway.errors import NoOffer
from gateway.features.privacy import Eraser
from gateway.requests.coalescing import Repeat
from policies.types import Requirements
from providers.contract import Head, Input
from providers.sandbox import start
from tests.support.town import TIME_SCALE, Town, settings, single_minded, town

FAL = frozenset({"fal"})
PATIENT = {"timeout": "60s", "least_patience": "60s", "linger": "200ms", "drain": "5s"}


def noise(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((width, height), 60).convert("RGB").save(out, "PNG")
    return out.getvalue()


async def drawn(found: Town, user: str, *, team: str = "acme", key: str | None = None, count: int = 1) -> list[str]:
    """The ids of pictures drawn for an end user."""
    plain = found.call(only=FAL, count=count)
    call = replace(plain, user=user, caller=replace(plain.caller, team=team), fingerprint=user.encode())
    served = await found.app.coalescing.serve(call, Repeat(key=key))
    return [picture.asset.id for picture in served.delivery.images]


def eraser(found: Town) -> Eraser:
    app = found.app
    return Eraser(db=app.db, assets=app.assets, providers=app.providers, clock=app.clock)


async def test_a_user_is_erased_everywhere_and_nobody_else_is(tmp_path: Path) -> None:
    async with town(tmp_path, orders=PATIENT) as found:
        gone = await drawn(found, "ann", key="k1", count=2)
        kept = await drawn(found, "bob")
        blobs = {path.name for path in (tmp_path / "assets").rglob("*.*")}
        done = await eraser(found).user("ann", None, "test")
        assert (done.images, done.recipes, done.keys, done.payloads, done.payloads_left) == (2, 1, 1, 2, 0)
        assert all([await found.app.db.asset(image, "acme") is None for image in gone])
        bobs = await found.app.db.asset(kept[0], "acme")
        assert bobs is not None
        assert await found.app.assets.read(bobs.path) is not None
        assert await found.app.db.recipe(bobs.call_id) is not None
        assert len({path.name for path in (tmp_path / "assets").rglob("*.*")}) == len(blobs) - 2
        await found.assert_books_agree()


async def test_the_record_of_an_erasure_does_not_name_the_user_and_cannot_be_changed(tmp_path: Path) -> None:
    async with town(tmp_path, orders=PATIENT) as found:
        await drawn(found, "ann")
        await eraser(found).user("ann", None, "test")
        (row,) = await found.app.db.erasures()
        assert (row.actor, row.images, row.recipes) == ("test", 1, 1)
        assert "ann" not in row.subject
    with sqlite3.connect(tmp_path / "pixelgate.db") as books:
        for statement in ("UPDATE erasures SET images = 0", "DELETE FROM erasures"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                books.execute(statement)
        assert books.execute("SELECT COUNT(*) FROM recipes").fetchone() == (0,)


async def test_only_the_named_teams_pictures_of_a_user_are_erased(tmp_path: Path) -> None:
    async with town(tmp_path, orders=PATIENT) as found:
        await drawn(found, "ann")
        theirs = await drawn(found, "ann", team="other")
        assert (await eraser(found).user("ann", "acme", "test")).images == 1
        assert await found.app.db.asset(theirs[0], "other") is not None


async def test_a_picture_goes_alone_and_the_last_of_its_call_takes_the_prompt_along(tmp_path: Path) -> None:
    async with town(tmp_path, orders=PATIENT) as found:
        first, second = [
            asset
            for asset in [await found.app.db.asset(i, "acme") for i in await drawn(found, "ann", count=2)]
            if asset
        ]
        alone = await eraser(found).image(first, "test")
        assert (alone.images, alone.recipes, alone.payloads) == (1, 0, 1)
        assert await found.app.db.recipe(second.call_id) is not None
        assert (await eraser(found).image(second, "test")).recipes == 1
        assert await found.app.db.recipe(second.call_id) is None


async def test_an_erased_key_draws_anew(tmp_path: Path) -> None:
    async with town(tmp_path, orders=PATIENT) as found:
        before = await drawn(found, "ann", key="k")
        await eraser(found).user("ann", None, "test")
        assert await drawn(found, "ann", key="k") != before


async def test_prompts_live_as_long_as_their_teams_terms_say(tmp_path: Path) -> None:
    async with town(tmp_path, orders=PATIENT) as found:
        app = found.app
        mine, theirs = await drawn(found, "ann"), await drawn(found, "bob", team="other")
        policy = replace(app.revision.policy, keep_prompts=0.0, team_keep_prompts={"other": 3600.0})
        app.revision = replace(app.revision, policy=policy)
        await app._expire()
        assets = [await app.db.asset(mine[0], "acme"), await app.db.asset(theirs[0], "other")]
        recipes = [await app.db.recipe(asset.call_id) for asset in assets if asset]
        assert [recipe is None for recipe in recipes] == [True, False]


async def test_decisions_live_as_long_as_their_teams_terms_say(tmp_path: Path) -> None:
    async with town(tmp_path, orders=PATIENT) as found:
        app = found.app
        mine, theirs = await drawn(found, "ann"), await drawn(found, "bob", team="other")
        policy = replace(app.revision.policy, keep_decisions=0.0, team_keep_decisions={"other": 3600.0})
        app.revision = replace(app.revision, policy=policy)
        await app._expire()
        assets = [await app.db.asset(mine[0], "acme"), await app.db.asset(theirs[0], "other")]
        decisions = [await app.db.decisions(asset.call_id) for asset in assets if asset]
        assert [len(rows) for rows in decisions] == [0, 1]
        await found.assert_books_agree()


@pytest.mark.parametrize(("longest_days", "told"), [(None, False), (30.0, False), (1.0, True)])
async def test_a_seller_is_told_to_store_nothing_where_it_would_keep_things_too_long(
    tmp_path: Path, longest_days: float | None, told: bool
) -> None:
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        given = settings(tmp_path, sandbox.url, ("fal",), orders=PATIENT)
        account = given.accounts["fal"].model_copy(update={"retention": 30 * 86_400.0, "unstored": 3_600.0})
        app = await build(given.model_copy(update={"accounts": {"fal": account}}), engine=single_minded)
        await app.start()
        found = Town(app, sandbox)
        require = Requirements(retention_days=longest_days)
        await app.pipeline.serve(found.call(require=require))
        edit = found.call(require=require, models=frozenset({"flux-kontext-pro"}), width=1024, height=1024)
        picture = Input(noise(400, 400), Head("png", 400, 400))
        request = replace(edit.request, operation="edit", references=((400, 400),))
        await app.pipeline.serve(replace(edit, request=request, inputs=(picture,)))
        seen = cast("list[dict[str, Any]]", list(sandbox.requests()))
        orders = [each for each in seen if "prompt" in (each["body"] or {})]
        assert [each["headers"].get("x-fal-store-io") for each in orders] == (["0", "0"] if told else [None, None])
        assert [each["body"].get("sync_mode", False) for each in orders] == [told, told]
        assert orders[1]["body"]["image_url"].startswith("data:") == told
        assert any("/files/" in each["path"] for each in seen) != told  # neither uploaded nor fetched
        with pytest.raises(NoOffer, match="keeps prompts and pictures for"):
            await app.pipeline.serve(found.call(require=Requirements(retention_days=0.0)))
        await found.assert_books_agree()
        await app.stop()


async def test_only_a_seller_that_can_be_told_may_be_said_to_store_nothing(tmp_path: Path) -> None:
    account = {"kind": "together", "key": "x", "unstored": "1h"}
    with pytest.raises(ValidationError, match="together cannot be told"):
        settings(tmp_path, "http://127.0.0.1:9", (), accounts={"together": account})


async def test_pictures_live_as_long_as_their_teams_terms_say(tmp_path: Path) -> None:
    async with town(tmp_path, orders=PATIENT) as found:
        found.app.assets._teams = {"other": 7200.0}
        (mine,), (theirs,) = await drawn(found, "ann"), await drawn(found, "bob", team="other")
        assets = [await found.app.db.asset(mine, "acme"), await found.app.db.asset(theirs, "other")]
        left = [(asset.expires - asset.created).total_seconds() for asset in assets if asset and asset.expires]
        assert left == [pytest.approx(86_400, abs=5), pytest.approx(7200, abs=5)]


def test_the_command_needs_records_to_erase_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["privacy", "erase", "--user", "ann", "--state", str(tmp_path)]) == 2
    assert "no records" in capsys.readouterr().err
