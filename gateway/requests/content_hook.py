"""Asks the operator's own service whether a prompt may be drawn, and whether a picture may be handed out.

    POST url  {"stage": "before", "call", "team", "user", "operation", "prompt", "inputs": [{"media_type", "b64_json"}]}
              {"stage": "after",  ... the same, "media_type", "b64_json"}
    200       {"allow": true} or {"allow": false, "reason": "a word for the caller"}

A refused prompt is never ordered. A refused picture was drawn and is paid for by us, not by the team, and it is not
asked for elsewhere. Any other answer, or none within `timeout`, is a failure: the policy of `on_failure` is to go on
(`allow`) or to answer 503 (`refuse`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Literal

import msgspec
import pybase64
import structlog
from msgspec import Struct

from gateway.errors import ContentPolicy, NotKept, NotReady
from gateway.requests.call import Call
from providers.contract import Image
from providers.picture import NotAPicture, probe
from providers.transport import Http, WireError

log = structlog.get_logger("gateway.content")

REASON = 200
"""Characters of a reason that callers are shown."""

_encode = msgspec.json.Encoder().encode


class Verdict(Struct, frozen=True):
    """The hook's answer."""

    allow: bool
    reason: str = ""


class ContentHook(Struct, frozen=True, kw_only=True):
    """The hook, and when it is asked."""

    http: Http
    url: str
    before: bool
    inputs: bool
    """Whether it is shown the pictures of an edit with its prompt."""
    after: bool
    timeout: float
    """Seconds."""
    on_failure: Literal["allow", "refuse"]

    async def check_prompt(self, call: Call) -> None:
        """Raise `ContentPolicy` where the prompt is refused, `NotReady` where nobody says and that counts as no."""
        if not self.before:
            return
        given = (*call.inputs, *([call.mask] if call.mask else ())) if self.inputs else ()
        told = [_shown(one.head.format, one.data) for one in given]
        verdict = await self._ask(call, {"stage": "before", "inputs": told} if told else {"stage": "before"})
        if not verdict.allow:
            why = f": {verdict.reason[:REASON]}" if verdict.reason else "."
            raise ContentPolicy(f"The content check of this gateway refuses this prompt{why}")

    async def allows(self, call: Call, image: Image) -> bool:
        """Whether a picture may be handed out; raises `NotReady` as above."""
        if not self.after:
            return True
        try:
            form = (image.measured or probe(image.data)).format
        except NotAPicture:
            return True  # found out, and refused, by whoever keeps it
        return (await self._ask(call, {"stage": "after", **_shown(form, image.data)})).allow

    async def _ask(self, call: Call, told: Mapping[str, object]) -> Verdict:
        asked = {
            **told,
            "call": call.id,
            "team": call.caller.team,
            "user": call.user,
            "operation": call.request.operation,
            "prompt": call.request.prompt,
        }
        try:
            async with asyncio.timeout(self.timeout):
                answer = await self.http.send(
                    "POST", self.url, headers={"Content-Type": "application/json"}, data=_encode(asked)
                )
            verdict = msgspec.json.decode(answer.body, type=Verdict) if answer.status == 200 else None
        except (WireError, TimeoutError, msgspec.MsgspecError) as error:
            log.warning("content_check_failed", call=call.id, error=type(error).__name__)
            verdict = None
        if verdict is None:
            if self.on_failure == "refuse":
                kind = NotReady if told["stage"] == "before" else NotKept
                raise kind("The content check of this gateway cannot be asked right now.")
            return Verdict(allow=True)
        if not verdict.allow:
            log.info("content_refused", call=call.id, reason=told["stage"])
        return verdict


def _shown(form: str, data: bytes) -> dict[str, object]:
    return {"media_type": f"image/{form}", "b64_json": pybase64.b64encode(data).decode()}
