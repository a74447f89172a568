"""Replicate's twin as the real SDK and plain HTTP see it: lifecycle, waiting, deadlines, limits, files and webhooks."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession, web
from httpx_aiohttp import AiohttpTransport
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from replicate.client import Client
from replicate.exceptions import ReplicateError
from replicate.webhook import Webhooks

from providers.sandbox import Sandbox, start
from providers.sandbox.endpoints import Endpoint
from providers.sandbox.fields import Invalid
from providers.sandbox.replicate import read_wish
from providers.sandbox.replicate_endpoints import REPLICATE
from providers.sandbox.replicate_webhooks import SECRET, signed_headers

SCHNELL = "black-forest-labs/flux-schnell"
PRO = "black-forest-labs/flux-1.1-pro"
AUTH = {"Authorization": "Bearer sandbox-a"}
Connect = Callable[[str], Client]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with await start(time_scale=0.01, pictures="plain") as running:
        yield running


@pytest.fixture
async def connect(sandbox: Sandbox) -> AsyncIterator[Connect]:
    clients: list[Client] = []

    def made(account: str) -> Client:
        base = f"{sandbox.url}/replicate"
        clients.append(Client(api_token=f"sandbox-{account}", base_url=base, transport=AiohttpTransport()))
        return clients[-1]

    yield made
    for client in clients:
        await client._async_client.aclose()


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[ClientSession]:
    async with ClientSession(base_url=f"{sandbox.url}/replicate/") as session:
        yield session


async def create(
    http: ClientSession, model: str = SCHNELL, /, headers: dict[str, str] | None = None, **more: Any
) -> Any:
    body = {"input": {"prompt": "x"} | more.pop("wish", {})} | more
    async with http.post(f"v1/models/{model}/predictions", json=body, headers=AUTH | (headers or {})) as taken:
        return taken.status, await taken.json()


async def look(http: ClientSession, prediction_id: str) -> Any:
    async with http.get(f"v1/predictions/{prediction_id}", headers=AUTH) as taken:
        return await taken.json()


async def until(http: ClientSession, prediction_id: str, done: Callable[[Any], bool]) -> Any:
    for _ in range(500):
        told = await look(http, prediction_id)
        if done(told):
            return told
        await asyncio.sleep(0.02)
    raise AssertionError(told)


async def ended(http: ClientSession, prediction_id: str) -> Any:
    return await until(http, prediction_id, lambda each: each["status"] not in {"starting", "processing"})


async def test_the_sdk_brings_home_a_list_from_open_models_and_a_string_from_the_others(
    connect: Connect, sandbox: Sandbox
) -> None:
    client = connect("a")
    wish = {"prompt": "a lake", "aspect_ratio": "16:9", "megapixels": "0.25", "num_outputs": 2, "output_format": "png"}
    open_one = await client.models.predictions.async_create(SCHNELL, wish)
    with pytest.raises(ValueError, match="version"):  # every second one has none
        await client.models.predictions.async_create(PRO, {"prompt": "x"})
    pro = await client.models.predictions.async_create(
        PRO, {"prompt": "y", "aspect_ratio": "custom", "width": 500, "height": 300}
    )
    assert open_one.status in {"starting", "processing"}
    assert pro.version == "hidden"
    open_one, pro = await client.predictions.async_get(open_one.id), await client.predictions.async_get(pro.id)
    while pro.status != "succeeded" or open_one.status != "succeeded":
        await asyncio.sleep(0.02)
        open_one, pro = await client.predictions.async_get(open_one.id), await client.predictions.async_get(pro.id)
    sizes = []
    async with ClientSession() as session:
        for url in [*(open_one.output or ()), pro.output]:
            async with session.get(url) as taken:
                sizes.append(Image.open(io.BytesIO(await taken.read())).size)
    assert sizes == [(672, 384), (672, 384), (512, 288)]
    assert open_one.metrics is not None
    assert (open_one.metrics["image_count"], open_one.metrics["predict_time"] > 0) == (2, True)
    assert sandbox.invoice()["total_nano_usd"]["replicate"] >= 46_000_000


async def test_who_prefers_to_wait_gets_the_pictures_inside_the_answer(http: ClientSession) -> None:
    status, told = await create(http, headers={"Prefer": "wait=10"})
    assert (status, told["status"]) == (201, "succeeded")
    picture = base64.b64decode(told["output"][0].partition(",")[2])
    assert Image.open(io.BytesIO(picture)).format == "WEBP"


async def test_who_waited_in_vain_gets_202_and_the_prediction_goes_on(http: ClientSession, sandbox: Sandbox) -> None:
    sandbox.script([{"do": "slow", "args": {"seconds": 1.5}}])
    status, told = await create(http, headers={"Prefer": "wait=1"})
    assert (status, told["status"], told["output"]) == (202, "processing", None)
    assert (await ended(http, told["id"]))["status"] == "succeeded"
    status, _ = await create(http, headers={"Prefer": "wait=0"})
    assert status == 422


async def test_a_deadline_aborts_what_waits_and_cancels_what_runs(http: ClientSession, sandbox: Sandbox) -> None:
    sandbox.script({"rules": [{"do": "slow", "args": {"seconds": 30}}], "limits": {"replicate": {"concurrency": 1}}})
    _, running = await create(http, headers={"Cancel-After": "7s"})
    _, waiting = await create(http, headers={"Cancel-After": "5"})
    assert running["deadline"] > running["created_at"]
    refused, _ = await create(http, headers={"Cancel-After": "4s"})
    assert refused == 422
    await asyncio.sleep(7.2)
    ran, never_ran = await look(http, running["id"]), await look(http, waiting["id"])
    assert (ran["status"], never_ran["status"], never_ran["started_at"]) == ("canceled", "aborted", None)
    assert 6 < ran["metrics"]["predict_time"] < 8
    assert "predict_time" not in never_ran["metrics"]
    assert sandbox.invoice()["lines"] == []


async def test_cancelling_stops_what_has_not_ended_and_leaves_the_rest(http: ClientSession, sandbox: Sandbox) -> None:
    sandbox.script([{"do": "slow", "when": {"first": 1}, "args": {"seconds": 30}}])
    _, running = await create(http)
    _, quick = await create(http)
    await ended(http, quick["id"])
    async with http.post(f"v1/predictions/{running['id']}/cancel", headers=AUTH) as taken:
        assert (await taken.json())["status"] == "canceled"
    async with http.post(f"v1/predictions/{quick['id']}/cancel", headers=AUTH) as taken:
        assert (taken.status, (await taken.json())["status"]) == (200, "succeeded")


async def test_says_no_in_its_own_ways(connect: Connect, http: ClientSession) -> None:
    with pytest.raises(ReplicateError) as broke:
        await connect("poor-broke").models.predictions.async_create(SCHNELL, {"prompt": "x"})
    assert (broke.value.status, broke.value.title) == (402, "Insufficient credit")
    with pytest.raises(ReplicateError) as strange:
        await connect("a").models.predictions.async_create("nobody/nothing", {"prompt": "x"})
    assert strange.value.status == 404
    with pytest.raises(ReplicateError) as version:
        await connect("a").predictions.async_create(version="0" * 64, input={"prompt": "x"})
    assert (version.value.status, version.value.title) == (422, "Invalid version or not permitted")
    async with http.get("v1/account", headers={"Authorization": "Key sandbox-a"}) as taken:
        assert (taken.status, (await taken.json())["title"]) == (401, "Unauthenticated")
    for wish in ({"aspect_ratio": "5:7"}, {"megapixels": 1}, {"num_outputs": 5}, {"num_inference_steps": 5}):
        status, told = await create(http, wish=wish)
        assert (status, told["invalid_fields"][0]["field"]) == (422, f"input.{next(iter(wish))}")
    status, told = await create(http, webhook="http://example.com/")
    assert (status, told["invalid_fields"][0]["field"]) == (422, "webhook")


async def test_unsafe_wishes_fail_unbilled(http: ClientSession, sandbox: Sandbox) -> None:
    said = []
    for model in (SCHNELL, PRO):
        _, begun = await create(http, model, wish={"prompt": "UNSAFE-SANDBOX"})
        told = await ended(http, begun["id"])
        said.append((told["status"], told["error"]))
    assert [status for status, _ in said] == ["failed", "failed"]
    assert "NSFW" in said[0][1]
    assert "E005" in said[1][1]
    assert sandbox.invoice()["lines"] == []


async def test_accounts_low_on_credit_may_create_one_and_are_told_to_wait(sandbox: Sandbox) -> None:
    headers = {"Authorization": "Bearer sandbox-a-low"}
    statuses, told = [], {}
    async with ClientSession(base_url=f"{sandbox.url}/replicate/", headers=headers) as session:
        for _ in range(2):
            async with session.post(f"v1/models/{SCHNELL}/predictions", json={"input": {"prompt": "x"}}) as taken:
                statuses.append(taken.status)
                told = await taken.json()
    assert statuses == [201, 429]
    assert "while you have less than $5.0 in credit" in told["detail"]
    assert 8 <= told["retry_after"] <= 10


async def test_above_ten_a_second_it_throttles(http: ClientSession, sandbox: Sandbox) -> None:
    sandbox.script({"limits": {"replicate": {"rate": 1, "burst": 2}}})
    statuses = [(await create(http))[0] for _ in range(4)]
    assert statuses == [201, 201, 429, 429]


async def test_results_are_deleted_after_a_while_and_a_key_sent_for_them_is_noticed() -> None:
    async with await start(time_scale=0.0015, pictures="plain") as sandbox:
        async with ClientSession(base_url=f"{sandbox.url}/replicate/") as http:
            _, begun = await create(http)
            (url,) = (await ended(http, begun["id"]))["output"]
            async with http.get(url, headers=AUTH) as taken:
                assert taken.status == 200
            told = await until(http, begun["id"], lambda each: bool(each["data_removed"]))
            async with http.get(url) as taken:
                assert taken.status == 404
        stats: dict[str, Any] = msgspec.to_builtins(sandbox.stats())
    assert stats["replicate"]["a"]["leaked_keys"] == 1
    assert (told["output"], told["input"], told["metrics"]["image_count"]) == (None, {}, 1)


async def test_lists_predictions_newest_first_from_a_moment_on(http: ClientSession) -> None:
    _, first = await create(http)
    moment = datetime.now(UTC).isoformat()
    _, second = await create(http)
    _, third = await create(http)
    async with http.get("v1/predictions", params={"created_after": moment}, headers=AUTH) as taken:
        found = await taken.json()
    assert [each["id"] for each in found["results"]] == [third["id"], second["id"]]
    async with http.get("v1/predictions", headers={"Authorization": "Bearer sandbox-b"}) as taken:
        assert (await taken.json())["results"] == []
    assert first["id"] not in str(found)


async def test_tells_of_account_models_hardware_and_secret(http: ClientSession) -> None:
    for path, status in (
        ("v1/account", 200),
        ("v1/hardware", 200),
        (f"v1/models/{SCHNELL}", 200),
        ("v1/models/nobody/nothing", 404),
        ("v1/nothing", 404),
    ):
        async with http.get(path, headers=AUTH) as taken:
            assert (path, taken.status) == (path, status)
    async with http.get("v1/webhooks/default/secret", headers=AUTH) as taken:
        assert (await taken.json())["key"] == SECRET


def test_signature_is_that_of_the_published_vector() -> None:
    headers = signed_headers("msg_1", "1763683200", b'{"id":"p1","status":"succeeded"}')
    assert headers["webhook-signature"].split()[1] == "v1,WIFwFg+Snr3WbM9N3VOCgpRAWErldsqlp+Am1jx4Bmc="


Hear = Callable[[], Awaitable[tuple[str, list[tuple[dict[str, str], bytes]]]]]


@pytest.fixture
async def ear() -> AsyncIterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    heard: list[tuple[dict[str, str], bytes]] = []

    async def hear(request: web.Request) -> web.Response:
        heard.append((dict(request.headers), await request.read()))
        return web.Response(status=500 if len(heard) == 1 else 200)

    app = web.Application()
    app.router.add_post("/hook", hear)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook", heard
    await runner.cleanup()


async def told(heard: list[tuple[dict[str, str], bytes]], count: int) -> list[Any]:
    for _ in range(200):
        if len(heard) >= count:
            break
        await asyncio.sleep(0.01)
    return [msgspec.json.decode(body) for _, body in heard]


async def test_the_end_is_called_back_signed_until_it_is_taken(
    connect: Connect, ear: tuple[str, list[tuple[dict[str, str], bytes]]]
) -> None:
    url, heard = ear
    client = connect("a")
    begun = await client.models.predictions.async_create(
        SCHNELL, {"prompt": "x"}, webhook=url, webhook_events_filter=["completed"]
    )
    said = await told(heard, 2)
    assert [(each["id"], each["status"]) for each in said] == [(begun.id, "succeeded")] * 2
    secret = await client.webhooks.default.async_secret()
    Webhooks.validate(headers=heard[1][0], body=heard[1][1].decode(), secret=secret, tolerance=300)


async def test_only_the_events_asked_for_are_called_back(
    http: ClientSession, ear: tuple[str, list[tuple[dict[str, str], bytes]]]
) -> None:
    url, heard = ear
    await create(http, webhook=url, webhook_events_filter=["start", "output"])
    said = await told(heard, 2)
    await asyncio.sleep(0.1)
    assert [each["status"] for each in said] == ["processing", "succeeded"] or said[0]["status"] == "starting"
    assert len(heard) == 2


BODIES = st.dictionaries(
    st.sampled_from(
        ["prompt", "aspect_ratio", "megapixels", "num_outputs", "seed", "width", "height", "output_format"]
    ),
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4) | st.lists(st.text()),
)


@given(body=BODIES, endpoint=st.sampled_from([*REPLICATE.values()]))
def test_it_names_the_field_it_does_not_understand(body: dict[str, object], endpoint: Endpoint) -> None:
    named = ""
    try:
        wish = read_wish({"prompt": "x"} | body, endpoint, 1)
    except Invalid as fault:
        named = fault.field
    else:
        assert endpoint.sizes.snap(wish.size) == wish.size
    needed = {endpoint.inputs.field} if endpoint.inputs else set()
    assert named in {"", *needed, *body}
