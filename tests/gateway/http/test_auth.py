from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import openai
import pytest
from msgspec.structs import replace

from gateway.errors import NoCapacity
from gateway.http.auth import KeyRing, Rate, duration
from gateway.keys import make_key, mask, split_key
from gateway.storage.changes import key_change
from gateway.storage.rows import KeyRow
from tests.gateway.http.conftest import PEPPER, SetClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.gateway.http.conftest import Door


class Records:
    def __init__(self, *rows: KeyRow) -> None:
        self.rows = list(rows)
        self.reads = 0

    async def keys(self) -> Sequence[KeyRow]:
        self.reads += 1
        return self.rows

    async def last_change(self) -> int:
        return len(self.rows)

    async def changed_keys(self, since: int) -> Sequence[KeyRow]:
        return self.rows[since:]


async def change(door: Door, shown: str, **terms: object) -> KeyRow:
    """Change a key as a command in another process does, and let the gateway look."""
    before = await door.services.db.key(shown.split("_")[1])
    assert before is not None
    after = replace(before, **terms)
    record = key_change(before, after, "limited", "ops", datetime.now(UTC))
    assert await door.services.db.change_key(before, after, record)
    await door.services.keys.follow()
    return after


def test_a_key_is_stored_only_as_a_keyed_hash() -> None:
    row, shown = make_key(PEPPER, team="acme", name="ci", created=datetime.now(UTC))
    key_id, secret = split_key(shown.encode()) or ("", b"")
    assert (len(key_id), len(secret)) == (12, 43)
    assert key_id == row.id
    assert secret not in repr(row).encode()
    other, _ = make_key(PEPPER, team="acme", name="ci", created=datetime.now(UTC))
    assert other.hash != row.hash


@pytest.mark.parametrize("shown", [b"", b"pg", b"pg_", b"pg_a", b"pg_a_", b"sk-abc", b"pg_\xff_x", b"\x00_\x00_\x00"])
def test_what_is_no_key_is_none(shown: bytes) -> None:
    assert split_key(shown) is None


def test_a_masked_key_can_be_recognised_but_not_used() -> None:
    assert mask(b"pg_4fa1c2d3e4f5_abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG") == "pg_4fa1****DEFG"
    assert mask(b"short") == "sho****"
    assert mask("s\xfcss\n".encode()) == "s??****"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Basic dTpw"},
        {"authorization": "Bearer sk-somebody-elses-key-0000000000000"},
        {"authorization": "Bearer pg_000000000000_wrong"},
        {"authorization": "Bearer pg__"},
        {"api-key": "pg_000000000000_wrong"},
    ],
)
async def test_no_key_or_a_bad_one_is_refused_before_the_body_is_looked_at(door: Door, headers: dict[str, str]) -> None:
    del door.http.headers["authorization"]
    answer = await door.http.post("/v1/images/generations", content=b"[[[", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_a_wrong_secret_for_a_known_id_is_refused_and_masked(door: Door) -> None:
    wrong = door.key[:-4] + "0000"
    answer = await door.generate({"authorization": f"Bearer {wrong}"})
    assert answer.status_code == 401
    assert wrong not in answer.text


@pytest.mark.parametrize("key", ["schl\xfcssel", "\xff\xfe", "\u30ad\u30fc"])
async def test_a_key_that_is_not_ascii_is_only_wrong(door: Door, key: str) -> None:
    head = b"POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n"
    answer = await door.raw(head + b"Authorization: Bearer " + key.encode() + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401")


async def test_azure_style_clients_send_the_key_their_way(door: Door) -> None:
    del door.http.headers["authorization"]
    assert (await door.generate({"api-key": door.key})).status_code == 200
    assert (await door.generate({"authorization": f"bearer {door.key}"})).status_code == 200


async def test_the_official_client_sees_an_authentication_error(door: Door) -> None:
    async with door.openai.with_options(api_key="pg_000000000000_wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.images.generate(prompt="a")


async def test_an_expired_key_is_refused(door: Door) -> None:
    key = await door.add_key(expires=datetime.now(UTC) + timedelta(hours=1))
    assert (await door.generate({"authorization": f"Bearer {key}"})).status_code == 200
    door.painter.clock.ahead = 3601
    answer = await door.generate({"authorization": f"Bearer {key}"})
    assert answer.status_code == 401
    assert "expired" in answer.json()["error"]["message"]


async def test_a_revoked_key_is_refused_after_the_next_refresh(door: Door) -> None:
    assert (await door.generate()).status_code == 200
    await change(door, door.key, revoked=datetime.now(UTC))
    answer = await door.generate()
    assert answer.status_code == 401
    assert "revoked" in answer.json()["error"]["message"]


async def test_a_key_made_elsewhere_is_found_without_waiting(door: Door) -> None:
    row, shown = make_key(PEPPER, team="acme", name="new", created=datetime.now(UTC))
    await door.services.db.add_key(row)
    door.painter.clock.ahead += 2
    assert (await door.generate({"authorization": f"Bearer {shown}"})).status_code == 200


async def test_guessing_ids_reads_the_database_at_most_once_a_second() -> None:
    records = Records()
    ring = KeyRing(records, PEPPER, SetClock())
    for guess in range(100):
        with pytest.raises(Exception, match="Incorrect API key"):
            await ring.find({b"authorization": b"Bearer pg_%012d_x" % guess})
    assert records.reads == 1


async def test_a_key_without_the_scope_may_look_but_not_draw(door: Door) -> None:
    key = await door.add_key(scopes=("models:read",))
    answer = await door.generate({"authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert (await door.http.get("/v1/models", headers={"authorization": f"Bearer {key}"})).status_code == 200


async def test_a_keys_rate_is_kept_and_told(door: Door) -> None:
    key = await door.add_key(rpm=2)
    headers = {"authorization": f"Bearer {key}"}
    first = await door.generate(headers)
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-reset-requests"] == "30s"
    await door.generate(headers)
    refused = await door.generate(headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 25 <= int(refused.headers["retry-after"]) <= 30
    assert 25_000 < int(refused.headers["retry-after-ms"]) <= 30_000
    assert refused.headers["x-should-retry"] == "true"
    door.painter.clock.ahead += 31
    assert (await door.generate(headers)).status_code == 200


async def test_refreshing_does_not_give_a_key_its_rate_back(door: Door) -> None:
    key = await door.add_key(rpm=1)
    headers = {"authorization": f"Bearer {key}"}
    assert (await door.generate(headers)).status_code == 200
    await door.services.keys.refresh()
    assert (await door.generate(headers)).status_code == 429


def test_a_bucket_never_holds_more_than_a_minutes_worth() -> None:
    rate = Rate(60, 0.0)
    assert sum(rate.take(1000.0) == 0 for _ in range(200)) == 60
    assert rate.take(1000.0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0ms"), (0.8501, "851ms"), (1.0, "1s"), (59.2, "1m0s"), (360, "6m0s")]
)
def test_durations_read_as_openais_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text


async def test_a_key_may_have_a_rate_of_pictures_and_is_told_of_it(door: Door) -> None:
    key = {"authorization": f"Bearer {await door.add_key(ipm=3)}"}
    two = await door.generate(key, n=2)
    assert two.headers["x-ratelimit-limit-images"] == "3"
    assert two.headers["x-ratelimit-remaining-images"] == "1"
    refused = await door.generate(key, n=2)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert int(refused.headers["retry-after-ms"]) <= 60_000
    never = await door.generate(key, n=4)
    assert (never.status_code, never.json()["error"]["param"]) == (400, "n")
    assert len(door.painter.calls) == 1


async def test_a_repeat_that_joins_its_call_is_not_counted_as_more_pictures(door: Door) -> None:
    door.painter.waits_for = asyncio.Event()
    key = {"authorization": f"Bearer {await door.add_key(ipm=1)}"}
    first = asyncio.create_task(door.generate(key | {"x-stainless-retry-count": "0"}))
    for _ in range(2000):
        if door.painter.calls:
            break
        await asyncio.sleep(0.01)
    again = asyncio.create_task(door.generate(key | {"x-stainless-retry-count": "1"}))
    assert (await door.generate(key | {"x-stainless-retry-count": "1"}, prompt="another")).status_code == 429
    door.painter.waits_for.set()
    assert {(await first).status_code, (await again).status_code} == {200}
    assert (await door.generate(key | {"x-stainless-retry-count": "2"})).status_code == 429  # it would be drawn anew


async def test_pictures_that_did_not_come_are_there_for_the_repeat(door: Door) -> None:
    key = {"authorization": f"Bearer {await door.add_key(ipm=2)}"}
    door.painter.fails_with = NoCapacity("busy")
    failed = await door.generate(key, n=2)
    assert (failed.status_code, failed.headers["x-ratelimit-remaining-images"]) == (503, "2")
    door.painter.fails_with = None
    assert (await door.generate(key | {"x-stainless-retry-count": "1"}, n=2)).status_code == 200
    assert (await door.generate(key)).status_code == 429
