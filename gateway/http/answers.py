"""The answer to a request for pictures: OpenAI's `ImagesResponse`, and ours beside it.

A large body stays in pieces, each sent as it is: joining a picture of 1.5 MB as base64 into one body of 2 MB took
1.5 ms, mostly page faults of fresh memory, against 0.04 ms for the encoding itself.

`usage` counts what OpenAI's clients and dashboards expect, by this rule, since FLUX has no tokens: text is one token
for each started 4 characters of prompt, a picture is one token for each started block of 32 x 32 pixels. What it cost
is in `pixelgate.nano_usd`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Literal, TypeAlias, cast

import msgspec
import pybase64
from litestar.types import Scope, Send
from msgspec import Struct

from gateway.http.errors import JSON, OPENAI_VERSION, Headers
from gateway.http.services import Services
from gateway.requests.call import Call, Delivered, Delivery
from gateway.requests.coalescing import Cache
from policies.money import to_usd
from policies.policy import ResponseFormat
from providers.contract import ImageRequest

QUALITY_OF_TIER: Mapping[str, str] = {"preview": "low", "standard": "medium", "export": "high"}
"""The `quality` reported: the one drawn, never `auto`."""
CHARACTERS_PER_TOKEN = 4
BLOCK = 32
"""Pixels."""
ONE_PIECE = 128 * 1024
"""Bytes up to which a body is sent in one piece: below this, memory is reused and each further message costs more."""
Whole: TypeAlias = Callable[[object, int, Headers, bytes], bool]
"""Takes the request's scope, status, headers and body; False where the answer has to be sent step by step."""
WHOLE = "pixelgate.whole"
"""The extension of ASGI by which our server takes a whole answer at once (`gateway.http.connections`)."""


class Answer(Struct, frozen=True):
    """A whole HTTP answer."""

    status: int
    headers: Headers
    pieces: Sequence[bytes]
    """The body, in order; of an answer with `events`, its beginning."""
    events: AsyncIterator[bytes] | None = None
    """What is still to come of a streamed body."""

    async def send(self, scope: Scope, send: Send) -> None:
        """Hand it to the server."""
        if self.events is None and len(self.pieces) == 1:
            whole = cast("Mapping[str, Whole]", scope.get("extensions") or {}).get(WHOLE)
            if whole is not None and whole(scope, self.status, self.headers, self.pieces[0]):
                return
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        *more, last = self.pieces
        for piece in more:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if self.events is not None:
            await send({"type": "http.response.body", "body": last, "more_body": True})
            last = b""
            async for event in self.events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": last, "more_body": False})


class InputTokens(Struct, frozen=True):
    """`usage.input_tokens_details`."""

    text_tokens: int
    image_tokens: int


class TokenUsage(Struct, frozen=True):
    """`usage`."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InputTokens


class Account(Struct, frozen=True):
    """`pixelgate`: which offer drew it, why, and what it cost."""

    decision: str
    offer: str
    provider: str
    model: str
    intent: str
    nano_usd: int
    cache: str
    policy: str


class Head(Struct, frozen=True, omit_defaults=True):
    """Everything of the body but the pictures."""

    created: int
    size: str
    quality: str
    background: str
    output_format: str
    usage: TokenUsage
    pixelgate: Account
    safety_identifier: str | None = None


class PictureFacts(Struct, frozen=True, omit_defaults=True):
    """What `data[i]` holds beside the picture itself."""

    id: str
    seed: int | None
    parent: str | None = None


class Picture(PictureFacts, frozen=True, omit_defaults=True):
    """`data[i]`, whole: one of `url` and `b64_json`. For the documentation; what is sent is put together in pieces."""

    url: str | None = None
    b64_json: str | None = None


class ImagesResponse(Head, frozen=True, kw_only=True, omit_defaults=True):
    """OpenAI's answer to a request for pictures, and ours beside it."""

    data: list[Picture]


IMAGES_HEADERS = (
    "x-request-id",
    "openai-processing-ms",
    "openai-version",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-images",
    "x-ratelimit-remaining-images",
    "x-ratelimit-reset-images",
    "x-pixelgate-warning",
    "x-pixelgate-decision",
    "x-pixelgate-offer",
    "x-pixelgate-cost",
    "x-pixelgate-cache",
    "x-pixelgate-policy",
    "x-pixelgate-attempts",
)
"""What comes beside a body of pictures; those of the rate only for keys that have one."""


class Shape(Struct, frozen=True, kw_only=True):
    """How the caller wants the answer."""

    response_format: ResponseFormat
    safety_identifier: str | None = None
    stream: bool = False
    """Whether it comes as events; see `gateway.http.streaming`."""
    partial_images: int = 0
    """How many pictures may be shown before the one that was asked for."""
    warnings: tuple[str, ...] = ()
    """What of the request was not done as asked; told in a header."""
    events: Literal["image_generation", "image_edit"] = "image_generation"
    """What the events are called."""


_encode = msgspec.json.Encoder().encode


def images_body(
    services: Services, call: Call, delivery: Delivery, shape: Shape, cache: Cache = "miss"
) -> Sequence[bytes]:
    """The JSON of a delivery, in one piece unless it is large."""
    first = delivery.images[0].asset
    head = Head(
        created=int(first.created.timestamp()),
        size=f"{first.width}x{first.height}",
        quality=QUALITY_OF_TIER.get(first.tier, "medium"),
        background="transparent" if call.request.transparent else "opaque",
        output_format=call.request.format,
        usage=usage_of(call.request, delivery.images),
        pixelgate=account_of(services, call, delivery, cache),
        safety_identifier=shape.safety_identifier,
    )
    pieces = _pieces(services, _encode(head), delivery, shape.response_format)
    return pieces if sum(map(len, pieces)) > ONE_PIECE else (b"".join(pieces),)


def account_of(services: Services, call: Call, delivery: Delivery, cache: Cache) -> Account:
    """Who drew a delivery, why, and for how much."""
    first = delivery.images[0].asset
    return Account(
        decision=delivery.decision_id,
        offer=first.offer_id,
        provider=provider_of(services, first.offer_id),
        model=first.model,
        intent=call.intent,
        nano_usd=delivery.charge,
        cache=cache,
        policy=delivery.policy,
    )


def _pieces(services: Services, head: bytes, delivery: Delivery, form: ResponseFormat) -> list[bytes]:
    pieces: list[bytes] = []
    before = head[:-1] + b',"data":['
    for picture in delivery.images:
        asset = picture.asset
        facts = _encode(PictureFacts(asset.id, asset.seed, asset.parent_id))[1:]
        if form == "b64_json":
            pieces += (before + b'{"b64_json":"', pybase64.b64encode(picture.data))
            before = b'",' + facts
        else:
            before += b'{"url":' + _encode(services.asset_url(asset.path)) + b"," + facts
        before += b","
    pieces.append(before[:-1] + b"]}")
    return pieces


def images_headers(delivery: Delivery, cache: Cache = "miss") -> Headers:
    """What is told beside the body, for clients that see headers only."""
    return [
        (b"x-pixelgate-decision", delivery.decision_id.encode()),
        (b"x-pixelgate-offer", ",".join(delivery.offers).encode()),
        (b"x-pixelgate-cost", to_usd(delivery.charge).encode()),
        (b"x-pixelgate-cache", cache.encode()),
        (b"x-pixelgate-policy", delivery.policy.encode()),
        (b"x-pixelgate-attempts", b"%d" % delivery.attempts),
    ]


def warning_header(warnings: Sequence[str]) -> tuple[bytes, bytes]:
    """What was not done as asked, in one header; anything a header may not hold becomes `?`."""
    said = "; ".join(warnings)[:1000]
    return b"x-pixelgate-warning", "".join(c if " " <= c <= "~" else "?" for c in said).encode()


def usual_headers(request_id: str, length: int, seconds: float) -> Headers:
    """What every answer about pictures carries."""
    return [
        (b"content-type", JSON),
        (b"content-length", b"%d" % length),
        (b"x-request-id", request_id.encode()),
        (b"openai-processing-ms", b"%d" % int(seconds * 1000)),
        OPENAI_VERSION,
    ]


def usage_of(request: ImageRequest, images: tuple[Delivered, ...]) -> TokenUsage:
    """Tokens, by the rule above."""
    text = -(-len(request.prompt) // CHARACTERS_PER_TOKEN)
    given = sum([_blocks(*size) for size in request.references])
    output = sum([_blocks(image.asset.width, image.asset.height) for image in images])
    return TokenUsage(text + given, output, text + given + output, InputTokens(text, given))


def _blocks(width: int, height: int) -> int:
    return -(-width // BLOCK) * -(-height // BLOCK)


def provider_of(services: Services, offer_id: str) -> str:
    """The kind of seller behind an offer; of one that is gone, the account's name."""
    offer = services.catalog.offers.get(offer_id)
    return offer.kind if offer else offer_id.partition(":")[0]
