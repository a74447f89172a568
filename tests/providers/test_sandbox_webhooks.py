from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator

import msgspec
import pytest
from aiohttp import ClientSession, web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from providers.sandbox import Sandbox, start
from providers.sandbox.fal_webhooks import key_set, signed_headers

FAL = {"Authorization": "Key sandbox-a"}


class Ear:
    """A server that hears callbacks, and refuses the first `refusals` of them."""

    def __init__(self) -> None:
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.refusals = 0
        self.url = ""

    async def hear(self, request: web.Request) -> web.Response:
        self.heard.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        return web.Response(status=500 if len(self.heard) <= self.refusals else 200)

    async def wait(self, count: int) -> bool:
        for _ in range(200):
            if len(self.heard) >= count:
                return True
            await asyncio.sleep(0.01)
        return False


@pytest.fixture
async def ear() -> AsyncIterator[Ear]:
    made = Ear()
    app = web.Application()
    app.router.add_post("/hook", made.hear)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield made
    await runner.cleanup()


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with await start(time_scale=0.001, pictures="plain") as running:
        yield running


async def order(sandbox: Sandbox, url: str, prompt: str = "x") -> str:
    path = f"{sandbox.url}/fal/queue/fal-ai/flux-2-pro"
    async with ClientSession() as session:
        asked = session.post(path, json={"prompt": prompt}, params={"fal_webhook": url}, headers=FAL)
        async with asked as taken:
            request_id: str = (await taken.json())["request_id"]
            return request_id


def genuine(headers: dict[str, str], body: bytes, key: dict[str, str]) -> None:
    stamped = [headers[f"x-fal-webhook-{part}"] for part in ("request-id", "user-id", "timestamp")]
    message = "\n".join([*stamped, hashlib.sha256(body).hexdigest()]).encode()
    raw = base64.urlsafe_b64decode(key["x"] + "=")
    Ed25519PublicKey.from_public_bytes(raw).verify(bytes.fromhex(headers["x-fal-webhook-signature"]), message)


def test_signature_is_that_of_the_published_vector() -> None:
    body = (
        b'{"request_id":"req-1","gateway_request_id":"req-1","status":"OK",'
        b'"payload":{"images":[{"url":"http://127.0.0.1/i.png"}]}}'
    )
    headers = signed_headers("req-1", "user-1", "1763683200", body)
    assert headers["X-Fal-Webhook-Signature"] == (
        "5e0ef2e073232e8821304979c6c1bf02287e1543ea96e02fced7721af1d15142"
        "a3901bdadf0b07c8cfb1cfb5323c61c31e1e1f5a3ac3031addc2059a35b0630b"
    )
    keys = key_set()["keys"]
    assert isinstance(keys, list)
    assert [key["x"] for key in keys][1] == "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"


async def test_callback_is_signed_with_a_key_of_the_published_set(sandbox: Sandbox, ear: Ear) -> None:
    request_id = await order(sandbox, ear.url)
    assert await ear.wait(1)
    headers, body = ear.heard[0]
    told = msgspec.json.decode(body)
    assert (told["request_id"], told["status"], len(told["payload"]["images"])) == (request_id, "OK", 1)
    async with ClientSession() as session, session.get(f"{sandbox.url}/fal/rest/.well-known/jwks.json") as taken:
        genuine(headers, body, (await taken.json())["keys"][1])


async def test_callback_tells_of_failures(sandbox: Sandbox, ear: Ear) -> None:
    await order(sandbox, ear.url, "UNSAFE-SANDBOX")
    assert await ear.wait(1)
    told = msgspec.json.decode(ear.heard[0][1])
    assert (told["status"], told["error"]) == ("ERROR", "Invalid status code: 422")
    assert told["payload"]["detail"][0]["type"] == "content_policy_violation"


async def test_callback_is_repeated_until_it_is_taken(sandbox: Sandbox, ear: Ear) -> None:
    ear.refusals = 2
    await order(sandbox, ear.url)
    assert await ear.wait(3)


async def test_callbacks_are_doubled_and_lost_by_script(sandbox: Sandbox, ear: Ear) -> None:
    sandbox.script([{"do": "lost_webhook", "when": {"first": 1}}, {"do": "dup_webhook", "args": {"copies": 2}}])
    lost = await order(sandbox, ear.url)
    doubled = await order(sandbox, ear.url)
    assert await ear.wait(3)
    await asyncio.sleep(0.05)
    told = [msgspec.json.decode(body)["request_id"] for _, body in ear.heard]
    assert (told, lost in told) == ([doubled] * 3, False)


async def test_callbacks_leave_loopback_never(sandbox: Sandbox) -> None:
    await order(sandbox, "http://192.0.2.1/hook")
    for _ in range(200):
        kept: dict[str, int] = msgspec.to_builtins(sandbox.stats())["fal"]["a"]["webhooks"]
        if kept:
            break
        await asyncio.sleep(0.01)
    assert kept == {"not_loopback": 1}
