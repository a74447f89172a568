from __future__ import annotations

import io
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from gateway.assets import AI_MADE, convert
from tests.gateway.http.conftest import PIXEL

if TYPE_CHECKING:
    from providers.contract import Format
    from tests.gateway.http.conftest import Door


async def url_of(door: Door) -> str:
    url: str = (await door.generate()).json()["data"][0]["url"]
    return url.removeprefix("http://pictures.test")


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("bytes=0-9", 0, 9), ("bytes=5-", 5, None), ("bytes=-4", -4, None), ("bytes=60-999", 60, None)],
)
async def test_a_part_of_a_picture_may_be_fetched(door: Door, asked: str, first: int, last: int | None) -> None:
    answer = await door.http.get(await url_of(door), headers={"range": asked})
    expected = PIXEL[first : None if last is None else last + 1]
    assert (answer.status_code, answer.content) == (206, expected)
    start = first % len(PIXEL)
    assert answer.headers["content-range"] == f"bytes {start}-{start + len(expected) - 1}/{len(PIXEL)}"


@pytest.mark.parametrize("asked", ["bytes=0-1,3-4", "lines=1-2", "bytes=-", "bytes=x-9", "bytes=9"])
async def test_what_is_no_plain_range_gets_the_whole_picture(door: Door, asked: str) -> None:
    answer = await door.http.get(await url_of(door), headers={"range": asked})
    assert (answer.status_code, answer.content) == (200, PIXEL)
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize("asked", ["bytes=72-", "bytes=9-3", "bytes=-0"])
async def test_a_range_beyond_the_picture_is_not_satisfiable(door: Door, asked: str) -> None:
    answer = await door.http.get(await url_of(door), headers={"range": asked})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(PIXEL)}")


async def test_fetches_are_counted_while_the_picture_is_kept_and_looks_at_its_head_are_not(door: Door) -> None:
    (fetched, gone), db = [await url_of(door) for _ in range(2)], door.services.db
    await url_of(door)
    for url in (fetched, fetched, gone):
        assert (await door.http.get(url)).status_code == 200
    assert (await door.http.head(fetched)).status_code == 200
    await door.services.fetches.keep(db)
    now = door.services.clock.utc()
    day = timedelta(days=1)
    counted = (await db.activity(now - day, now + day, UTC)).fetched
    assert [(each.kept, each.fetched) for each in counted.values()] == [(3, 2)]
    asset = await db.asset_by_path(gone.removeprefix("/assets/"))
    assert asset is not None
    await db.drop_asset(asset.id)
    await db.count_fetches({asset.id: 1})
    counted = (await db.activity(now - day, now + day, UTC)).fetched
    assert [(each.kept, each.fetched) for each in counted.values()] == [(2, 1)]


async def test_a_range_of_another_version_gets_the_whole_picture(door: Door) -> None:
    headers = {"range": "bytes=0-3", "if-range": '"other"'}
    assert (await door.http.get(await url_of(door), headers=headers)).status_code == 200


async def test_a_deleted_picture_is_gone_and_only_its_team_may_delete_it(door: Door) -> None:
    picture = (await door.generate({"idempotency-key": "k"})).json()["data"][0]
    path = f"/v1/images/{picture['id']}"
    stranger = await door.add_key(team="other")
    assert (await door.http.delete(path, headers={"authorization": f"Bearer {stranger}"})).status_code == 404
    told = (await door.http.delete(path)).json()
    assert (told["id"], told["deleted"]) == (picture["id"], True)
    assert (told["pixelgate"]["recipes"], told["pixelgate"]["keys"]) == (1, 1)
    assert (await door.http.get(path)).status_code == 404
    assert (await door.http.get(picture["url"].removeprefix("http://pictures.test"))).status_code == 404
    assert (await door.http.delete(path)).status_code == 404
    again = (await door.generate({"idempotency-key": "k"})).json()["data"][0]
    assert again["id"] != picture["id"]


def drawn(fmt: str, **told: bytes) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (32, 32), "teal").save(out, fmt, **told)
    return out.getvalue()


@pytest.mark.parametrize("fmt", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("source", ["PNG", "JPEG", "WEBP"])
def test_a_picture_that_must_be_encoded_anew_says_that_a_model_made_it(source: str, fmt: Format) -> None:
    assert b"digitalsourcetype/trainedAlgorithmicMedia" in convert(drawn(source), fmt, 80)


@pytest.mark.parametrize("fmt", ["png", "jpeg", "webp"])
def test_what_the_provider_said_of_the_source_is_carried_over(fmt: Format) -> None:
    said = AI_MADE.replace(b"trainedAlgorithmicMedia", b"compositeWithTrainedAlgorithmicMedia")
    assert b"compositeWithTrainedAlgorithmicMedia" in convert(drawn("JPEG", xmp=said), fmt, 80)
