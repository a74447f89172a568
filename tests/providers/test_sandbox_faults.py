from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from aiohttp import ClientConnectionError, ClientPayloadError, ClientSession, ClientTimeout
from PIL import Image

from providers.sandbox import Sandbox, start

FAL = {"Authorization": "Key sandbox-a"}
TOGETHER = {"Authorization": "Bearer sandbox-a"}
ONE = 176_947  # 256x256 on Together's schnell: 0.065536 MP x 0.0027 $, rounded to the nano-dollar
DEV = 25_000_000


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with await start(time_scale=0.001, pictures="plain") as running:
        yield running


@pytest.fixture
async def web(sandbox: Sandbox) -> AsyncIterator[ClientSession]:
    async with ClientSession(base_url=sandbox.url, timeout=ClientTimeout(total=10)) as session:
        yield session


def fault(sandbox: Sandbox, do: str, **args: object) -> None:
    sandbox.script([{"do": do, "args": args}])


async def draw(web: ClientSession, n: int = 1, shape: str = "base64") -> tuple[int, Any]:
    wish = {"model": "black-forest-labs/FLUX.1-schnell", "prompt": "x", "width": 256, "height": 256}
    body = wish | {"n": n, "response_format": shape}
    async with web.post("/together/v1/images/generations", json=body, headers=TOGETHER) as taken:
        return taken.status, await taken.json()


async def queue(web: ClientSession, n: int = 1) -> Mapping[str, str]:
    wish = {"prompt": "x", "image_size": {"width": 512, "height": 512}, "num_images": n}
    async with web.post("/fal/queue/fal-ai/flux/dev", json=wish, headers=FAL) as taken:
        body: Mapping[str, str] = await taken.json()
        return body


async def settle(web: ClientSession, order: Mapping[str, str]) -> str:
    for _ in range(300):
        async with web.get(order["status_url"], headers=FAL) as taken:
            status: str = (await taken.json())["status"]
        if status == "COMPLETED":
            break
        await asyncio.sleep(0.01)
    return status


async def result(web: ClientSession, order: Mapping[str, str]) -> tuple[int, Any]:
    await settle(web, order)
    async with web.get(order["response_url"], headers=FAL) as taken:
        return taken.status, await taken.json()


def billed(sandbox: Sandbox) -> int:
    return sum(sandbox.invoice()["total_nano_usd"].values())


async def billed_in_the_end(sandbox: Sandbox, amount: int) -> bool:
    for _ in range(300):
        if billed(sandbox) == amount:
            return True
        await asyncio.sleep(0.01)
    return False


@pytest.mark.parametrize("status", ["429", "500", "503", "402", "404"])
async def test_a_status_at_submission_is_not_billed(web: ClientSession, sandbox: Sandbox, status: str) -> None:
    fault(sandbox, status, retry_after=2)
    seen, body = await draw(web)
    assert (seen, set(body), billed(sandbox)) == (int(status), {"error"}, 0)
    async with web.post("/fal/queue/fal-ai/flux/dev", json={"prompt": "x"}, headers=FAL) as taken:
        assert (taken.status, taken.headers["Retry-After"], "detail" in await taken.json()) == (int(status), "2", True)


async def test_a_status_at_the_result_comes_after_the_work_and_is_not_billed(
    web: ClientSession, sandbox: Sandbox
) -> None:
    fault(sandbox, "503", at="result")
    assert (await draw(web))[0] == 503
    status, body = await result(web, await queue(web))
    assert (status, body["error_type"], billed(sandbox)) == (503, "runner_scheduling_failure", 0)


async def test_a_status_while_asking_passes_when_it_was_said_often_enough(web: ClientSession, sandbox: Sandbox) -> None:
    fault(sandbox, "503", at="status", times=1)
    order = await queue(web)
    async with web.get(order["status_url"], headers=FAL) as taken:
        assert taken.status == 503
    assert await settle(web, order) == "COMPLETED"


async def test_timeout_never_answers_and_bills_once(web: ClientSession, sandbox: Sandbox) -> None:
    fault(sandbox, "timeout")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await draw(web)
    assert await billed_in_the_end(sandbox, ONE)
    order = await queue(web)
    assert await billed_in_the_end(sandbox, ONE + DEV)
    async with web.get(order["status_url"], headers=FAL) as taken:
        assert (await taken.json())["status"] == "IN_PROGRESS"


async def test_reset_breaks_the_answer_after_the_bill_or_before_any_order(web: ClientSession, sandbox: Sandbox) -> None:
    fault(sandbox, "reset")
    with pytest.raises(ClientConnectionError):
        await draw(web)
    assert billed(sandbox) == ONE
    fault(sandbox, "reset", at="submit")
    for ask in (draw, queue):
        with pytest.raises(ClientConnectionError):
            await ask(web)
    assert billed(sandbox) == ONE


async def test_truncate_leaves_half_a_picture_behind_correct_headers(web: ClientSession, sandbox: Sandbox) -> None:
    fault(sandbox, "truncate")
    _, body = await draw(web)
    picture = Image.open(io.BytesIO(base64.b64decode(body["data"][0]["b64_json"])))
    with pytest.raises(OSError, match="truncated"):
        picture.load()
    assert billed(sandbox) == ONE


async def test_truncate_can_lie_about_the_length_and_get_well(web: ClientSession, sandbox: Sandbox) -> None:
    fault(sandbox, "truncate", lie=True, times=1)
    _, body = await result(web, await queue(web))
    url = body["images"][0]["url"]
    with pytest.raises(ClientPayloadError):
        async with web.get(url) as taken:
            await taken.read()
    async with web.get(url) as taken:
        assert Image.open(io.BytesIO(await taken.read())).size == (512, 512)


async def test_slow_takes_the_seconds_it_is_told(web: ClientSession, sandbox: Sandbox) -> None:
    fault(sandbox, "slow", seconds=0.3, body_s=0.2)
    before = asyncio.get_running_loop().time()
    assert (await draw(web))[0] == 200
    assert asyncio.get_running_loop().time() - before > 0.45


async def test_refuse_follows_each_sellers_custom(web: ClientSession, sandbox: Sandbox) -> None:
    fault(sandbox, "refuse")
    assert (await draw(web))[0] == 422
    status, body = await result(web, await queue(web))
    assert (status, body["has_nsfw_concepts"], billed(sandbox)) == (200, [True], DEV)


async def test_black_is_billed_and_not_flagged(web: ClientSession, sandbox: Sandbox) -> None:
    fault(sandbox, "black")
    _, body = await draw(web)
    picture = Image.open(io.BytesIO(base64.b64decode(body["data"][0]["b64_json"])))
    assert (picture.convert("L").getextrema(), billed(sandbox)) == ((0, 0), ONE)
    _, told = await result(web, await queue(web))
    assert told["has_nsfw_concepts"] == [False]


async def test_wrong_size_is_billed_by_the_pixels_made(web: ClientSession, sandbox: Sandbox) -> None:
    fault(sandbox, "wrong_size", width=512, height=256)
    _, body = await draw(web)
    picture = Image.open(io.BytesIO(base64.b64decode(body["data"][0]["b64_json"])))
    assert (picture.size, billed(sandbox)) == ((512, 256), 353_894)


@pytest.mark.parametrize(("asked", "made"), [(4, 2), (1, 2)])
async def test_wrong_count_is_billed_by_the_pictures_made(
    web: ClientSession, sandbox: Sandbox, asked: int, made: int
) -> None:
    fault(sandbox, "wrong_count")
    _, body = await result(web, await queue(web, asked))
    assert (len(body["images"]), billed(sandbox)) == (made, made * DEV)


async def test_wrong_count_may_be_more_than_asked_or_none(web: ClientSession, sandbox: Sandbox) -> None:
    fault(sandbox, "wrong_count", count=5)
    assert (len((await draw(web, 4))[1]["data"]), billed(sandbox)) == (5, 884_736)
    fault(sandbox, "wrong_count", count=0)
    assert (await draw(web, 4))[1]["data"] == []


async def test_html_comes_with_200_after_the_bill(web: ClientSession, sandbox: Sandbox) -> None:
    fault(sandbox, "html")
    order = await queue(web)
    await settle(web, order)
    async with web.get(order["response_url"], headers=FAL) as taken:
        assert (taken.status, taken.content_type) == (200, "text/html")
    assert billed(sandbox) == DEV


async def test_late_accept_works_and_bills_although_its_receipt_is_lost(web: ClientSession, sandbox: Sandbox) -> None:
    fault(sandbox, "late_accept")
    for ask in (draw, queue):
        with pytest.raises(ClientConnectionError):
            await ask(web)
    assert await billed_in_the_end(sandbox, ONE + DEV)


async def test_work_goes_on_and_is_billed_when_the_client_leaves(web: ClientSession, sandbox: Sandbox) -> None:
    fault(sandbox, "slow", seconds=0.6)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await draw(web)
    assert billed(sandbox) == 0
    assert await billed_in_the_end(sandbox, ONE)


async def test_rules_fall_where_and_when_they_say(web: ClientSession, sandbox: Sandbox) -> None:
    model = "black-forest-labs/*"
    sandbox.script(
        [
            {"provider": "together", "account": "b", "do": "500"},
            {"provider": "together", "model": model, "do": "503", "when": {"first": 1}},
            {"provider": "together", "model": model, "do": "429", "when": {"every": 3}},
            {"provider": "together", "do": "404", "when": {"from_s": 60, "to_s": 90}},
        ]
    )
    assert [(await draw(web))[0] for _ in range(6)] == [503, 200, 429, 200, 200, 429]


async def test_shares_are_met_and_repeatable(web: ClientSession, sandbox: Sandbox) -> None:
    sandbox.script({"limits": {"together": {"rate": 1000, "burst": 1000}}})
    runs = []
    for _ in range(2):
        sandbox.script([{"do": "500", "when": {"share": 0.3}}])
        runs.append([(await draw(web))[0] for _ in range(40)])
    assert runs[0] == runs[1]
    assert 4 <= runs[0].count(500) <= 20
