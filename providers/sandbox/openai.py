"""OpenAI's twin: synchronous images, from words or from pictures, billed by the tokens the answer counts.

Tokens of a picture made follow the formula behind OpenAI's own calculator for gpt-image-2 (read 2026-06); those of a
picture given are a tile count of this twin's own, for OpenAI publishes none: callers take the answer's word anyway.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Mapping, Sequence

from aiohttp import web
from msgspec import Struct

from providers.sandbox import fields, wire
from providers.sandbox.accounts import Account, account_name
from providers.sandbox.endpoints import OPENAI, Endpoint, Size, read_size
from providers.sandbox.fal import shortened
from providers.sandbox.faults import Strike
from providers.sandbox.fields import Invalid
from providers.sandbox.jobs import Job, Wish, worker_failure
from providers.sandbox.sources import Source, look_into
from providers.sandbox.wire import answer
from providers.sandbox.world import World

_QUALITIES: Mapping[str, int] = {"low": 16, "medium": 48, "high": 96}
"""Steps along the longer side of a picture."""
_MOST_INPUTS = 16
_CODES: Mapping[int, tuple[str, str | None]] = {
    400: ("invalid_request_error", "invalid_value"),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", None),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}
_MESSAGES: Mapping[int, str] = {
    401: "Incorrect API key provided. You can find your API key at https://platform.openai.com/account/api-keys.",
    429: "Rate limit reached for images. Please try again later.",
}
_BLOCKED = "Your request was rejected by the safety system. safety_violations=[violence]."


class Form(Struct, frozen=True, kw_only=True):
    """A request as it came: fields, and the pictures beside them."""

    values: Mapping[str, object]
    images: Sequence[bytes] = ()
    mask: bytes | None = None
    raw: bytes = b""


class OpenAITwin:
    """Everything under `/openai`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Put the twin's paths into the application."""
        router.add_post("/openai/v1/images/generations", self._draw)
        router.add_post("/openai/v1/images/edits", self._draw)
        router.add_get("/openai/v1/models", self._models)
        router.add_route("*", "/openai/{path:.*}", self._nothing)

    async def _nothing(self, request: web.Request) -> web.Response:
        return error(404, f"Invalid URL ({request.method} {request.path})", code="unknown_url")

    async def _models(self, request: web.Request) -> web.Response:
        if account_name(request.headers.get("Authorization", ""), "Bearer") is None:
            return error(401)
        models = [
            {"id": name, "object": "model", "created": 0, "owned_by": "openai"}
            for name in OPENAI
            if self._world.sells("openai", name)
        ]
        return answer({"object": "list", "data": models})

    async def _draw(self, request: web.Request) -> web.StreamResponse:
        name = account_name(request.headers.get("Authorization", ""), "Bearer")
        if name is None:
            return error(401)
        account = self._world.account("openai", name)
        started = await self._start(request, account)
        if isinstance(started, web.Response):
            return started
        if started.strike.do == "late_accept" and started.strike.args.answer_after_s is None:
            raise wire.drop(request)
        await started.finished.wait()
        return await self._tell(request, started)

    async def _start(self, request: web.Request, account: Account) -> Job | web.Response:
        edits = request.path.endswith("/edits")
        form = await (read_form(request) if edits else read_json(request))
        if form is None:
            return error(400, "We could not parse the JSON body of your request.", code="")
        model = form.values.get("model")
        endpoint = OPENAI.get(model) if isinstance(model, str) else None
        if endpoint is None:
            account.reject("404")
            return error(404, f"The model '{model}' does not exist.", param="model")
        strike = self._world.submission(request, account, endpoint.id, form.raw)
        refused = _refused_at_once(request, account, strike)
        if refused is not None:
            return refused
        try:
            wish = read_wish(form, endpoint, self._world.drawn_seed(account), edits=edits)
        except Invalid as fault:
            account.reject("invalid")
            return error(400, fault.message, param=fault.field, code=fault.kind)
        if wish.unsafe or strike.do == "refuse":
            account.reject("refused")
            return error(400, _BLOCKED, kind="image_generation_user_error", code="moderation_blocked")
        job = self._world.open_job(account, endpoint, f"req_{self._world.new_id(account)}", strike)
        return self._world.accept(job, wish, worker_failure(strike))

    async def _tell(self, request: web.Request, job: Job) -> web.StreamResponse:
        strike = job.strike
        if job.state != "done":
            raise wire.drop(request)
        if strike.do == "late_accept" and strike.args.answer_after_s is not None:
            await asyncio.sleep(strike.args.answer_after_s)
        headers = {"x-request-id": job.id}
        if job.failure is not None:
            return error(job.failure.status, job.failure.message, headers=headers)
        for at in ("submit", "result"):
            disturbed = await wire.disturb(request, strike, at, self._world.closing)
            if disturbed is not None:
                return disturbed
        return await wire.send(request, answer(_body(job), headers=headers), strike)


def _body(job: Job) -> dict[str, object]:
    work = job.work
    return {
        "created": int(time.time()),
        "background": "opaque",
        "data": [{"b64_json": base64.b64encode(shortened(one, job.strike)).decode()} for one in job.pictures],
        "usage": {
            "input_tokens": work.text_tokens + work.input_tokens,
            "output_tokens": work.output_tokens,
            "total_tokens": work.text_tokens + work.input_tokens + work.output_tokens,
            "input_tokens_details": {"text_tokens": work.text_tokens, "image_tokens": work.input_tokens},
        },
    }


def _refused_at_once(request: web.Request, account: Account, strike: Strike) -> web.Response | None:
    if account.broke:
        account.reject("quota")
        return error(429, "You exceeded your current quota.", kind="insufficient_quota", code="insufficient_quota")
    if strike.do == "reset" and strike.at == "submit":
        raise wire.drop(request)
    if strike.status is None or not strike.hits("submit"):
        return None
    account.reject(strike.do)
    headers = {} if strike.args.retry_after is None else {"retry-after": f"{strike.args.retry_after:g}"}
    return error(strike.status, headers=headers)


async def read_json(request: web.Request) -> Form | None:
    """A generation's body."""
    raw = await request.read()
    values = wire.read_object(raw)
    return None if values is None else Form(values=values, raw=raw)


async def read_form(request: web.Request) -> Form | None:
    """An edit's body: fields as text, `image` or `image[]` and `mask` as files."""
    if request.content_type != "multipart/form-data":
        return None
    values: dict[str, object] = {}
    images: list[bytes] = []
    mask: bytes | None = None
    for name, value in (await request.post()).items():
        if isinstance(value, web.FileField):
            data = value.file.read()
            images += [data] if name in {"image", "image[]"} else []
            mask = data if name == "mask" else mask
        elif isinstance(value, str):
            values[name] = int(value) if name in {"n", "output_compression"} and value.isdecimal() else value
    seen = repr((sorted(values.items()), images, mask)).encode()
    return Form(values=values, images=images, mask=mask, raw=seen)


def read_wish(form: Form, endpoint: Endpoint, drawn_seed: int, *, edits: bool) -> Wish:
    """What the caller asks for; raises `Invalid` naming the field that is wrong."""
    body = form.values
    if "response_format" in body:
        raise Invalid("response_format", "unknown_parameter", "Unknown parameter: 'response_format'.")
    prompt = fields.text(body, "prompt")
    quality = fields.choice(body, "quality", tuple(_QUALITIES), "high")
    fields.choice(body, "background", ("auto", "opaque"), "auto")
    if not edits:
        fields.choice(body, "moderation", ("auto", "low"), "auto")
    count = fields.integer(body, "n", (1, endpoint.max_count))
    inputs, mask = _sources(form) if edits else ((), None)
    return Wish(
        prompt=prompt,
        size=_size(body),
        count=count or 1,
        format=fields.choice(body, "output_format", endpoint.formats, endpoint.default_format),
        seed=drawn_seed,
        inline=True,
        inputs=inputs,
        mask=mask,
        text_tokens=-(-len(prompt) // 4) + 4,
        input_tokens=sum(_tiles(source) for source in inputs),
        tokens_each=picture_tokens(quality, _size(body)),
    )


def _sources(form: Form) -> tuple[tuple[Source, ...], Source | None]:
    if not 1 <= len(form.images) <= _MOST_INPUTS:
        raise Invalid("image", "invalid_value", f"Give 1 to {_MOST_INPUTS} images.")
    inputs = tuple(look_into(data, "image") for data in form.images)
    if form.mask is None:
        return inputs, None
    mask = look_into(form.mask, "mask")
    if (mask.width, mask.height) != (inputs[0].width, inputs[0].height):
        raise Invalid("mask", "invalid_value", "The mask and the image must have the same size.")
    return inputs, mask.inverted()


def _tiles(source: Source) -> int:
    return 65 + 129 * -(-source.width // 512) * -(-source.height // 512)


def _size(body: Mapping[str, object]) -> Size:
    size = read_size(fields.text(body, "size", "1024x1024"))
    if size is None:
        raise Invalid("size", "invalid_value", "Invalid size: give WIDTHxHEIGHT.")
    width, height = size
    if width % 16 or height % 16 or max(width, height) > 3840 or max(width, height) > 3 * min(width, height):
        raise Invalid("size", "invalid_value", "Sides are multiples of 16, at most 3840, at most 3:1.")
    if not 655_360 <= width * height <= 8_294_400:
        raise Invalid("size", "invalid_value", "A picture has 655,360 to 8,294,400 pixels.")
    return size


def picture_tokens(quality: str, size: Size) -> int:
    """Tokens of one picture made, after the formula of OpenAI's calculator."""
    steps, (low, high) = _QUALITIES[quality], sorted(size)
    across = (2 * steps * low + high) // (2 * high)
    return -(-steps * across * (2_000_000 + low * high) // 4_000_000)


def error(
    status: int,
    message: str = "",
    *,
    kind: str | None = None,
    code: str | None = None,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """OpenAI's error envelope."""
    named, usual = _CODES.get(status, ("invalid_request_error" if status < 500 else "server_error", None))
    body = {
        "message": message or _MESSAGES.get(status, "The server had an error while processing your request."),
        "type": kind or named,
        "param": param,
        "code": usual if code is None else code or None,
    }
    return answer({"error": body}, status, headers)
