"""Replicate's callbacks: signed as standard-webhooks are, repeated until they are taken, lost or doubled by script."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Sequence

import aiohttp
import msgspec

from providers.sandbox.jobs import Job
from providers.sandbox.wire import fingerprint, is_loopback
from providers.sandbox.world import World

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"  # noqa: S105  # opens nothing but the sandbox
_FIRST_WAIT_S = 2.0
_TRIES = 6
"""The end is told again for about a minute, each wait twice the one before; what happens on the way only once."""

Shown = Callable[[Job], dict[str, object]]


def signed_headers(message_id: str, timestamp: str, body: bytes) -> dict[str, str]:
    """The headers that prove a callback comes from the sandbox's Replicate; the first signature is a retired key's."""
    signature = _signature(base64.b64decode(SECRET.removeprefix("whsec_")), message_id, timestamp, body)
    retired = _signature(b"retired", message_id, timestamp, body)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{retired} v1,{signature}",
    }


def _signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    signed = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return base64.b64encode(signed.digest()).decode()


class ReplicateWebhooks:
    """Sends what happens to predictions to who asked for it."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def deliver(self, job: Job, url: str, events: Sequence[str], shown: Shown) -> None:
        """Report a prediction's start and end; only to loopback, whatever the caller asked."""
        if not is_loopback(url):
            return self._count(job, "not_loopback")
        if "start" in events:
            await self._send(job, url, msgspec.json.encode(shown(job)), tries=1)
        await job.finished.wait()
        if job.mute or job.strike.do == "lost_webhook":
            return self._count(job, "lost" if job.strike.do == "lost_webhook" else "none")
        body = msgspec.json.encode(shown(job))
        if "output" in events and job.scenes:
            await self._send(job, url, body, tries=1)
        if "completed" in events:
            for _ in range(1 + (job.strike.args.copies if job.strike.do == "dup_webhook" else 0)):
                self._count(job, "delivered" if await self._send(job, url, body, tries=_TRIES) else "given_up")
        return None

    async def _send(self, job: Job, url: str, body: bytes, *, tries: int) -> bool:
        message_id = f"msg_{fingerprint(job.id, body)[:24]}"
        for number in range(tries):
            headers = signed_headers(message_id, str(int(time.time())), body) | {"Content-Type": "application/json"}
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
