from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import fal_client
import httpx
import httpx_aiohttp
import pytest
from aiohttp import ClientSession
from PIL import Image
from together import AsyncTogether, NotFoundError, PermissionDeniedError, UnprocessableEntityError

from providers.sandbox import Sandbox, start

SCHNELL = "black-forest-labs/FLUX.1-schnell"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with await start(time_scale=0.01, pictures="plain") as running:
        yield running


class Rewrite(httpx_aiohttp.AiohttpTransport):
    def __init__(self, base: str) -> None:
        super().__init__()
        self._base = httpx.URL(base)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        prefix = {"fal.run": b"/fal/run", "queue.fal.run": b"/fal/queue"}.get(request.url.host)
        if prefix is not None:
            request.url = self._base.copy_with(raw_path=prefix + request.url.raw_path)
            request.headers["Host"] = self._base.netloc.decode()
        return await super().handle_async_request(request)


class LocalFal(fal_client.AsyncClient):
    def __init__(self, http: httpx.AsyncClient, key: str) -> None:
        super().__init__(key=key)
        self._http = http

    @property
    def _client(self) -> Coroutine[None, None, httpx.AsyncClient]:
        async def shared() -> httpx.AsyncClient:
            return self._http

        return shared()


@pytest.fixture
async def fal(sandbox: Sandbox) -> AsyncIterator[Callable[[str], LocalFal]]:
    clients: list[httpx.AsyncClient] = []

    def connect(account: str) -> LocalFal:
        key = f"sandbox-{account}"
        clients.append(httpx.AsyncClient(transport=Rewrite(sandbox.url), headers={"Authorization": f"Key {key}"}))
        return LocalFal(clients[-1], key)

    yield connect
    for client in clients:
        await client.aclose()


@pytest.fixture
async def together(sandbox: Sandbox) -> AsyncIterator[Callable[[str], AsyncTogether]]:
    clients: list[AsyncTogether] = []

    def connect(account: str) -> AsyncTogether:
        clients.append(AsyncTogether(api_key=f"sandbox-{account}", base_url=f"{sandbox.url}/together", max_retries=0))
        return clients[-1]

    yield connect
    for client in clients:
        await client.close()


async def download(url: str) -> bytes:
    async with ClientSession() as session, session.get(url) as taken:
        assert taken.status == 200
        return await taken.read()


async def test_fal_subscribe_brings_home_pictures_of_the_size_asked_for(fal: Callable[[str], LocalFal]) -> None:
    wish = {"prompt": "a lake", "image_size": {"width": 512, "height": 768}, "num_images": 2, "seed": 7}
    output: dict[str, Any] = await fal("a").subscribe("fal-ai/flux/dev", wish, with_logs=True)
    assert (output["seed"], output["has_nsfw_concepts"]) == (7, [False, False])
    for image in output["images"]:
        assert Image.open(io.BytesIO(await download(image["url"]))).size == (512, 768)
        assert (image["width"], image["height"], image["content_type"]) == (512, 768, "image/jpeg")


async def test_fal_status_goes_from_queue_to_completed_with_its_inference_time(
    fal: Callable[[str], LocalFal], sandbox: Sandbox
) -> None:
    sandbox.script({"limits": {"fal": {"concurrency": 1}}, "latency_scale": 20})
    client = fal("a")
    handles = [await client.submit("fal-ai/flux/schnell", {"prompt": str(number)}) for number in range(3)]
    last = await handles[2].status()
    assert isinstance(last, fal_client.Queued)
    assert last.position >= 1
    await handles[2].get()
    done = await handles[2].status(with_logs=True)
    assert isinstance(done, fal_client.Completed)
    assert done.metrics["inference_time"] > 0


async def test_fal_handle_found_again_by_full_endpoint_id(fal: Callable[[str], LocalFal]) -> None:
    client = fal("a")
    handle = await client.submit("fal-ai/flux-pro/v1.1-ultra", {"prompt": "x", "aspect_ratio": "1:1"})
    output = await client.result("fal-ai/flux-pro/v1.1-ultra", handle.request_id)
    assert (output["images"][0]["width"], output["images"][0]["height"]) == (2048, 2048)


async def test_fal_cancels_what_is_queued_and_only_asks_what_is_running(
    fal: Callable[[str], LocalFal], sandbox: Sandbox
) -> None:
    sandbox.script({"limits": {"fal": {"concurrency": 1}}, "latency_scale": 50})
    client = fal("a")
    running = await client.submit("fal-ai/flux/schnell", {"prompt": "one"})
    queued = await client.submit("fal-ai/flux/schnell", {"prompt": "two"})
    await queued.cancel()
    await running.cancel()
    await running.get()
    with pytest.raises(fal_client.FalClientHTTPError, match="cancelled"):
        await queued.get()
    assert sandbox.invoice()["total_nano_usd"] == {"fal": 3_000_000}


async def test_fal_sync_mode_puts_the_picture_into_the_answer(fal: Callable[[str], LocalFal]) -> None:
    output = await fal("a").run("fal-ai/flux-2", {"prompt": "x", "sync_mode": True})
    kind, _, data = output["images"][0]["url"].partition(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (1024, 768)


async def test_fal_says_no_in_its_own_ways(fal: Callable[[str], LocalFal]) -> None:
    with pytest.raises(fal_client.FalClientHTTPError, match="User is locked") as locked:
        await fal("poor-broke").submit("fal-ai/flux/dev", {"prompt": "x"})
    with pytest.raises(fal_client.FalClientHTTPError) as unsafe:
        await fal("a").subscribe("fal-ai/flux-2-pro", {"prompt": "UNSAFE-SANDBOX"})
    with pytest.raises(fal_client.FalClientHTTPError) as guidance:
        await fal("a").subscribe("fal-ai/flux-2-pro", {"prompt": "x", "guidance_scale": 3})
    faults: Any = [unsafe.value.message, guidance.value.message]
    assert (locked.value.status_code, unsafe.value.status_code) == (403, 422)
    assert [fault[0]["type"] for fault in faults] == ["content_policy_violation", "extra_forbidden"]


async def test_fal_draws_unsafe_prompts_black_and_flagged_on_open_models(
    fal: Callable[[str], LocalFal], sandbox: Sandbox
) -> None:
    output = await fal("a").run("fal-ai/flux/schnell", {"prompt": "UNSAFE-SANDBOX"})
    picture = Image.open(io.BytesIO(await download(output["images"][0]["url"])))
    assert output["has_nsfw_concepts"] == [True]
    assert picture.convert("L").getextrema() == (0, 0)
    assert sandbox.invoice()["total_nano_usd"] == {"fal": 3_000_000}


async def test_together_gives_pictures_inline_or_by_link(together: Callable[[str], AsyncTogether]) -> None:
    client = together("a")
    raw = await client.images.with_raw_response.generate(
        model=SCHNELL, prompt="x", n=2, width=512, height=256, response_format="base64", output_format="png"
    )
    inline = await raw.parse()
    linked = await client.images.generate(model=SCHNELL, prompt="y", width=512, height=256)
    pictures = [base64.b64decode(getattr(item, "b64_json", None) or "") for item in inline.data]
    pictures.append(await download(getattr(linked.data[0], "url", None) or ""))
    assert [Image.open(io.BytesIO(picture)).size for picture in pictures] == [(512, 256)] * 3
    assert raw.headers["x-ratelimit-limit"] == "20"
    assert inline.id.endswith("-SEA")


async def test_together_says_no_in_its_own_ways(together: Callable[[str], AsyncTogether]) -> None:
    with pytest.raises(NotFoundError):
        await together("a").images.generate(model="black-forest-labs/FLUX.1-dev", prompt="x")
    with pytest.raises(UnprocessableEntityError):
        await together("a").images.generate(model=SCHNELL, prompt="UNSAFE-SANDBOX")
    with pytest.raises(PermissionDeniedError):
        await together("new-tier1").images.generate(model="black-forest-labs/FLUX.2-pro", prompt="x")


async def test_together_usage_is_the_invoice_by_model(
    together: Callable[[str], AsyncTogether], sandbox: Sandbox
) -> None:
    client = together("a")
    await asyncio.gather(*(client.images.generate(model=SCHNELL, prompt=f"{n}") for n in range(2)))
    usage = await client.organization.usage.costs.list()
    (item,) = usage.data[0].line_items
    assert (item.product_name, item.quantity, item.unit_price) == (SCHNELL, "2.097152", "0.0027")
    assert item.cost == "0.00566231"
    assert sandbox.invoice()["by_account"] == {"together": {"a": 5_662_310}}
