"""fal's callbacks: signed with Ed25519, repeated until they are taken, lost or doubled when a script says so."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import Callable

import aiohttp
import msgspec
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from providers.sandbox.jobs import Job
from providers.sandbox.wire import answer, is_loopback
from providers.sandbox.world import World

_TRIES = 10
# Ten tries over two hours, each wait twice the one before.
_FIRST_WAIT_S = 14.0
_KEY_SEED = bytes(range(32))
_OTHER_KEY_SEED = bytes(range(32, 64))

Outcome = Callable[[Job], tuple[int, dict[str, object]]]


def signed_headers(request_id: str, user_id: str, timestamp: str, body: bytes) -> dict[str, str]:
    """The four headers that prove a callback comes from the sandbox's fal."""
    digest = hashlib.sha256(body).hexdigest()
    message = f"{request_id}\n{user_id}\n{timestamp}\n{digest}".encode()
    return {
        "X-Fal-Webhook-Request-Id": request_id,
        "X-Fal-Webhook-User-Id": user_id,
        "X-Fal-Webhook-Timestamp": timestamp,
        "X-Fal-Webhook-Signature": Ed25519PrivateKey.from_private_bytes(_KEY_SEED).sign(message).hex(),
    }


def key_set() -> dict[str, object]:
    """The public keys: one about to be retired, and the one in use."""
    return {"keys": [_jwk("sandbox-old", _OTHER_KEY_SEED), _jwk("sandbox", _KEY_SEED)]}


def _jwk(name: str, seed: bytes) -> dict[str, str]:
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    x = base64.urlsafe_b64encode(public).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "kid": name, "use": "sig", "alg": "EdDSA", "x": x}


class Webhooks:
    """Sends the end of queued orders to who asked for it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Put the key set where fal publishes it."""
        router.add_get("/fal/rest/.well-known/jwks.json", self._keys)

    async def _keys(self, _request: web.Request) -> web.Response:
        return answer(key_set())

    async def deliver(self, job: Job, url: str, outcome: Outcome) -> None:
        """Wait for the order's end and report it; only to loopback, whatever the caller asked."""
        await job.finished.wait()
        if job.mute or job.state == "cancelled" or job.strike.do == "lost_webhook":
            return self._count(job, "lost" if job.strike.do == "lost_webhook" else "none")
        if not is_loopback(url):
            return self._count(job, "not_loopback")
        body = msgspec.json.encode(_report(job, *outcome(job)))
        copies = 1 + (job.strike.args.copies if job.strike.do == "dup_webhook" else 0)
        for _ in range(copies):
            self._count(job, "delivered" if await self._send(job, url, body) else "given_up")
        return None

    async def _send(self, job: Job, url: str, body: bytes) -> bool:
        for number in range(_TRIES):
            stamp = str(int(time.time()))
            headers = signed_headers(job.id, job.account.name, stamp, body) | {"Content-Type": "application/json"}
            try:
                async with self._world.session.post(url, data=body, headers=headers, allow_redirects=False) as taken:
                    if taken.status < 300:
                        return True
            except (aiohttp.ClientError, TimeoutError):
                self._count(job, "unreachable")
            await asyncio.sleep(max(0.01, _FIRST_WAIT_S * 2**number * self._world.time_scale))
        return False

    def _count(self, job: Job, how: str) -> None:
        counts = job.account.stats.webhooks
        counts[how] = counts.get(how, 0) + 1


def _report(job: Job, status: int, payload: dict[str, object]) -> dict[str, object]:
    good = status == 200
    return {
        "request_id": job.id,
        "gateway_request_id": job.id,
        "status": "OK" if good else "ERROR",
        "error": None if good else f"Invalid status code: {status}",
        "payload": payload,
    }
