"""`stream: true`: the pictures as server-sent events in OpenAI's form, whoever draws them.

    event: image_generation.partial_image      a preview, where the policy pays for one
    event: image_generation.completed          one for each picture
    event: error                               instead, once the answer has begun

No seller of FLUX hands out a picture half drawn, and an answer without partial images is a whole one. What can be shown
early is a preview: where the policy allows its price, the intent that the asked one promotes (Schnell for an export) is
drawn beside it, as a call of its own, and comes as partial image 0 if it is ready first.

The answer begins with the first event, or after `BEGIN_AFTER_S`: what fails before that is an ordinary HTTP error. Then
a comment line every `KEEP_ALIVE_S` keeps proxies from cutting a silent connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Literal

import msgspec
import pybase64
import structlog
from msgspec import Struct
from msgspec.structs import replace

from gateway.errors import GatewayError
from gateway.http.answers import QUALITY_OF_TIER, Account, Shape, TokenUsage, account_of, usage_of
from gateway.http.bodies import ClientGone
from gateway.http.errors import OPENAI_VERSION, Headers
from gateway.http.model_names import Meaning, allowed_models
from gateway.http.services import Services
from gateway.ids import new_id
from gateway.requests.call import Call, Delivered, Delivery, Limits
from gateway.requests.coalescing import Cache

log = structlog.get_logger("gateway.http")

BEGIN_AFTER_S = 1.0
KEEP_ALIVE_S = 10.0
KEEP_ALIVE = b": keep-alive\n\n"
MEDIA_TYPE = b"text/event-stream"

Work = Coroutine[Any, Any, tuple[Delivery, Cache]]

_encode = msgspec.json.Encoder().encode


class PictureEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything of an event but the picture: OpenAI's fields, and ours beside them."""

    type: str
    created_at: int
    size: str
    quality: str
    background: str
    output_format: str
    partial_image_index: int | None = None
    usage: TokenUsage | None = None
    safety_identifier: str | None = None
    id: str
    seed: int | None = None
    url: str
    pixelgate: Account


class Stream:
    """The events of one call."""

    def __init__(
        self,
        services: Services,
        call: Call,
        shape: Shape,
        *,
        preview: Call | None,
        explain: Callable[[Exception], bytes],
    ) -> None:
        """`preview` is a second call, whose picture comes as a partial one; `explain` makes the body of an error."""
        self._services = services
        self._call = call
        self._shape = shape
        self._preview = preview
        self._explain = explain
        self._begun = False

    async def events(self, work: Work) -> AsyncIterator[bytes]:
        """Each event as it comes, with signs of life between them.

        What fails before the first one is raised; `ClientGone` ends the events in silence.
        """
        serving = asyncio.ensure_future(work)
        preview = None if self._preview is None else asyncio.ensure_future(self._services.serve(self._preview))
        waiting: set[asyncio.Future[Any]] = {serving} if preview is None else {serving, preview}
        try:
            while not serving.done():
                patience = KEEP_ALIVE_S if self._begun else BEGIN_AFTER_S
                done, waiting = await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    self._begun = True
                    yield KEEP_ALIVE
                elif preview in done:
                    for event in self._partial(preview):
                        self._begun = True
                        yield event
            for event in self._last(serving):
                yield event
        finally:
            for task in (serving, preview):
                if task is not None:
                    task.cancel()

    def _last(self, serving: asyncio.Future[tuple[Delivery, Cache]]) -> Iterator[bytes]:
        try:
            delivery, cache = serving.result()
        except ClientGone:
            if not self._begun:
                raise
            return
        except Exception as error:
            if not self._begun:
                raise
            yield _event("error", self._explain(error))
            return
        for picture in delivery.images:
            yield self._event("completed", self._call, delivery, picture, cache)

    def _partial(self, preview: asyncio.Future[Delivery]) -> Iterator[bytes]:
        """The partial image; nothing when the preview came to nothing, for the picture itself is still to come."""
        assert self._preview is not None
        if (error := preview.exception()) is not None:
            if not isinstance(error, GatewayError):
                log.error("preview_failed", call=self._call.id, exc_info=error)
            return
        delivery = preview.result()
        yield self._event("partial_image", self._preview, delivery, delivery.images[0], "miss")

    def _event(
        self,
        kind: Literal["partial_image", "completed"],
        call: Call,
        delivery: Delivery,
        picture: Delivered,
        cache: Cache,
    ) -> bytes:
        asset, services, whole = picture.asset, self._services, kind == "completed"
        name = f"{self._shape.events}.{kind}"
        facts = PictureEvent(
            type=name,
            created_at=int(asset.created.timestamp()),
            size=f"{asset.width}x{asset.height}",
            quality=QUALITY_OF_TIER.get(asset.tier, "medium"),
            background="transparent" if call.request.transparent else "opaque",
            output_format=call.request.format,
            partial_image_index=None if whole else 0,
            usage=usage_of(call.request, (picture,)) if whole else None,
            safety_identifier=self._shape.safety_identifier if whole else None,
            id=asset.id,
            seed=asset.seed,
            url=services.asset_url(asset.path),
            pixelgate=account_of(services, call, delivery, cache),
        )
        return _event(name, _encode(facts)[:-1] + b',"b64_json":"' + pybase64.b64encode(picture.data) + b'"}')


def preview_of(services: Services, call: Call) -> Call | None:
    """The call that draws a preview of another; None where the policy pays for none.

    A call of several pictures gets none, nor does one whose key limits what a call may cost, or that nobody waits for.
    """
    policy, catalog = (
        (services.policy, services.catalog) if call.regime is None else (call.regime.policy, call.regime.catalog)
    )
    intent = policy.intents[call.intent]
    if policy.preview_ceiling is None or intent.promotes is None:
        return None
    limits = call.caller.limits or Limits()
    if call.request.count != 1 or limits.call_price is not None or call.batch:
        return None
    below = policy.intents[intent.promotes]
    ceiling = min(limit for limit in (policy.preview_ceiling, below.ceiling, limits.price) if limit is not None)
    try:
        models = allowed_models(Meaning(models=None), call.caller, catalog, below.tier)
    except GatewayError:
        return None
    constraints = replace(call.constraints, tier=below.tier, models=models, slo=below.slo, ceiling=ceiling)
    return replace(
        call,
        id=new_id("call"),
        request=replace(call.request, transparent=False),  # what is shown early is there soon, or no use
        intent=below.name,
        model="auto",
        worth=below.worth,
        constraints=constraints,
        fingerprint=None,
    )


def stream_headers(request_id: str, seconds: float) -> Headers:
    """What a stream carries: no length, and a word to proxies not to gather it."""
    return [
        (b"content-type", MEDIA_TYPE),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
        (b"x-request-id", request_id.encode()),
        (b"openai-processing-ms", b"%d" % int(seconds * 1000)),
        OPENAI_VERSION,
    ]


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
