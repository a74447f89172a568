from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import RateLimited
from gateway.http.auth import Flight, Key
from gateway.http.openapi import operations
from gateway.keys import SCOPES, make_key, rotated
from tests.gateway.http.conftest import PEPPER
from tests.gateway.http.test_auth import change

if TYPE_CHECKING:
    from gateway.http.operations import Operation
    from tests.gateway.http.conftest import Door

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DRAWS = "/v1/images/generations"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def error_of(answer: Any) -> dict[str, Any]:
    told: dict[str, Any] = answer.json()["error"]
    return told


GUARDED = [operation for operation in operations() if operation.key]


def test_every_endpoint_that_needs_a_key_asks_for_a_known_scope() -> None:
    assert {operation.scope for operation in GUARDED} == SCOPES.keys() - {"moderation"}
    assert not any(operation.scope for operation in operations() if not operation.key)


@pytest.mark.parametrize("operation", GUARDED, ids=lambda operation: operation.id)
async def test_an_endpoint_refuses_a_key_that_lacks_its_scope_alone_and_names_it(
    door: Door, operation: Operation
) -> None:
    path = operation.path.replace("{deployment}", "flux-dev").replace("{image_id}", "img_1")
    path = path.replace("{model_id}", "auto").replace("{decision_id}", "dec_1")
    lacking = bearer(await door.add_key(scopes=tuple(SCOPES.keys() - {operation.scope})))
    refused = await door.http.request(operation.method, path, headers=lacking, json={})
    assert (refused.status_code, error_of(refused)["code"]) == (403, "forbidden")
    assert f"lacks the scope '{operation.scope}'" in error_of(refused)["message"]
    having = bearer(await door.add_key(scopes=(operation.scope,)))
    assert (await door.http.request(operation.method, path, headers=having, json={})).status_code != 403


async def test_no_more_calls_of_a_key_are_in_flight_than_it_may_have_however_many_come_at_once(door: Door) -> None:
    door.painter.waits_for = asyncio.Event()
    key = bearer(await door.add_key(concurrency=3))
    calls = [asyncio.create_task(door.generate(key)) for _ in range(20)]
    done, waiting = await asyncio.wait(calls, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    while len(done) < 17:
        more, waiting = await asyncio.wait(waiting, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert more, "a call too many was let in"
        done |= more
    assert {task.result().status_code for task in done} == {429}
    refused = next(iter(done)).result()
    assert error_of(refused)["code"] == "rate_limit_exceeded"
    assert "3 calls in flight" in error_of(refused)["message"]
    assert int(refused.headers["retry-after"]) >= 1
    assert len(door.painter.calls) == 3
    door.painter.waits_for.set()
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
    assert (await door.generate(key)).status_code == 200


async def test_a_call_that_fails_or_whose_stream_ends_is_no_longer_in_flight(door: Door) -> None:
    key = bearer(await door.add_key(concurrency=1))
    assert (await door.generate(key, size="nonsense")).status_code == 400
    door.painter.fails_with = RuntimeError("a fault of ours")
    assert (await door.generate(key)).status_code == 500
    door.painter.fails_with = None
    streamed = await door.generate(key, stream=True)
    assert b"image_generation.completed" in streamed.content
    assert (await door.generate(key)).status_code == 200


async def test_a_stream_is_in_flight_until_its_last_event(door: Door) -> None:
    key = bearer(await door.add_key(concurrency=1))
    door.painter.waits_for = asyncio.Event()
    body = {"prompt": "a", "stream": True}
    async with door.http.stream("POST", DRAWS, headers=key, json=body) as streamed:
        events = streamed.aiter_lines()
        assert (await anext(events)).startswith(":")  # it has begun
        assert (await door.generate(key)).status_code == 429
        door.painter.waits_for.set()
        assert [line async for line in events if line.startswith("event")] == ["event: image_generation.completed"]
    assert (await door.generate(key)).status_code == 200


async def test_a_repeat_that_joins_its_call_is_not_one_more_in_flight(door: Door) -> None:
    door.painter.waits_for = asyncio.Event()
    key = bearer(await door.add_key(concurrency=1))
    first = asyncio.create_task(door.generate({**key, "x-stainless-retry-count": "0"}))
    for _ in range(2000):
        if door.painter.calls:
            break
        await asyncio.sleep(0.01)
    again = asyncio.create_task(door.generate({**key, "x-stainless-retry-count": "1"}))
    assert (await door.generate({**key, "x-stainless-retry-count": "1"}, prompt="another")).status_code == 429
    door.painter.waits_for.set()
    assert {(await first).status_code, (await again).status_code} == {200}
    assert len(door.painter.calls) == 1


@given(steps=st.lists(st.integers(min_value=-1, max_value=9), max_size=60), most=st.integers(min_value=1, max_value=4))
def test_flights_are_exactly_those_that_were_let_in_and_have_not_ended(steps: list[int], most: int) -> None:
    row, _ = make_key(PEPPER, team="acme", name="t", created=NOW, concurrency=most)
    key, open_flights = Key(row, 0.0), list[Flight]()
    for step in steps:
        if step < 0:
            try:
                open_flights.append(key.take_off())
            except RateLimited:
                assert len(open_flights) == most
        elif step < len(open_flights):
            ended = open_flights.pop(step)
            ended.end()
            ended.end()
        key = Key(row, 0.0, key)  # changed, as by a command
        assert key.flights.count == len(open_flights) <= most


async def test_a_key_of_some_tiers_draws_with_models_of_these_alone(door: Door) -> None:
    key = bearer(await door.add_key(tiers=("preview",)))
    assert (await door.generate(key)).status_code == 200
    assert door.painter.calls[0].constraints.models == frozenset({"flux-schnell"})
    dear = await door.generate(key, quality="high")
    assert (dear.status_code, error_of(dear)["param"]) == (403, "intent")
    assert "only draw with models of tier preview, and this asks for export" in error_of(dear)["message"]
    named = await door.generate(key, model="flux-1.1-pro")
    assert (named.status_code, error_of(named)["param"]) == (403, "model")
    assert "keys limit" in error_of(named)["message"]
    listed = await door.http.get("/v1/models", headers=key)
    assert {entry["pixelgate"]["model"] for entry in listed.json()["data"]} == {"auto", "flux-schnell"}
    assert len(door.painter.calls) == 1


async def test_models_and_tiers_of_a_key_narrow_each_other(door: Door) -> None:
    key = bearer(await door.add_key(tiers=("preview", "standard"), models=("flux-dev", "flux-1.1-pro")))
    assert (await door.generate(key)).status_code == 200
    assert door.painter.calls[0].constraints.models == frozenset({"flux-dev"})
    other = await door.generate(key, model="flux-schnell")
    assert "may only use: flux-dev" in error_of(other)["message"]


async def test_a_picture_larger_than_a_key_may_have_is_refused_through_every_door(door: Door) -> None:
    preview = (await door.generate(size="512x512")).json()["data"][0]["id"]
    key = bearer(await door.add_key(max_pixels=512 * 512))
    assert (await door.generate(key, size="512x512")).status_code == 200
    large = await door.generate(key, size="512x528")
    assert (large.status_code, error_of(large)["param"]) == (403, "size")
    assert "at most 262,144 pixels, and 512x528 are 270,336" in error_of(large)["message"]
    for path in (f"/v1/images/{preview}/promote", "/v1/quotes"):
        assert (await door.post(path, {"size": "1024x1024"}, key)).status_code == 403
    assert (await door.post("/v1/quotes", {"size": "256x256"}, key)).status_code == 200
    assert len(door.painter.calls) == 3


@pytest.mark.parametrize(
    ("terms", "asked", "ceiling"),
    [
        ({"max_price": 10_000_000}, {}, 10_000_000),
        ({"max_price": 10_000_000}, {"max_cost": 0.004}, 4_000_000),
        ({"max_price": 10_000_000}, {"max_cost": 1}, 10_000_000),
        ({"max_call_price": 10_000_000}, {"n": 4}, 2_500_000),
        ({"max_price": 2_000_000, "max_call_price": 10_000_000}, {"n": 4}, 2_000_000),
    ],
)
async def test_what_a_key_may_pay_is_what_a_picture_may_cost_unless_less_is_asked(
    door: Door, terms: dict[str, int], asked: dict[str, object], ceiling: int
) -> None:
    assert (await door.generate(bearer(await door.add_key(**terms)), **asked)).status_code == 200
    assert door.painter.calls[0].constraints.ceiling == ceiling


async def test_a_changed_key_counts_as_soon_as_the_gateway_looks_and_keeps_what_it_used(door: Door) -> None:
    shown = await door.add_key(rpm=2)
    key = bearer(shown)
    assert (await door.generate(key)).status_code == 200
    await change(door, shown, rpm=10, tiers=("preview",))
    answer = await door.generate(key)
    assert answer.headers["x-ratelimit-limit-requests"] == "10"
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"  # of the two, one was used
    assert (await door.generate(key, quality="high")).status_code in (403, 429)


async def test_nothing_is_read_while_nothing_changed(door: Door) -> None:
    before = await door.services.keys.find({b"authorization": f"Bearer {door.key}".encode()})
    await door.services.keys.follow()
    assert await door.services.keys.find({b"authorization": f"Bearer {door.key}".encode()}) is before


async def test_both_secrets_of_a_rotated_key_work_until_the_old_one_ends(door: Door) -> None:
    row = await door.services.db.key(door.key.split("_")[1])
    assert row is not None
    now = datetime.now(UTC)
    changed, fresh = rotated(PEPPER, row, now, timedelta(hours=1))
    terms = {"hash": changed.hash, "former": changed.former, "former_until": changed.former_until}
    await change(door, door.key, **terms)
    assert fresh.split("_")[1] == row.id
    for shown in (door.key, fresh, door.key):
        assert (await door.generate(bearer(shown))).status_code == 200
    door.painter.clock.ahead += 3601
    over = await door.generate(bearer(door.key))
    assert (over.status_code, error_of(over)["code"]) == (401, "invalid_api_key")
    assert "was rotated" in error_of(over)["message"]
    assert door.key not in over.text
    assert (await door.generate(bearer(fresh))).status_code == 200


def test_a_second_rotation_ends_the_oldest_secret_and_none_overlaps_where_none_is_to() -> None:
    row, _ = make_key(PEPPER, team="acme", name="t", created=NOW)
    once, _ = rotated(PEPPER, row, NOW, timedelta(hours=1))
    twice, _ = rotated(PEPPER, once, NOW, timedelta(hours=1))
    assert (once.former, twice.former) == (row.hash, once.hash)
    at_once, _ = rotated(PEPPER, once, NOW, timedelta(0))
    assert (at_once.former, at_once.former_until) == (None, None)
