"""Together's twin: synchronous images behind a limiter that moves, as together 3.1.1 sees them.

The answer tells neither seed nor size nor cost. Above its rate an account gets 429, below it 503 when the
platform itself is full.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Mapping
from typing import NoReturn

from aiohttp import web

from providers.sandbox import fields, wire
from providers.sandbox.accounts import Account, account_name
from providers.sandbox.endpoints import TOGETHER, Endpoint
from providers.sandbox.fal import ratio_size, read_inputs, send_file, shortened
from providers.sandbox.faults import Strike
from providers.sandbox.fields import Invalid
from providers.sandbox.jobs import Job, Wish, worker_failure
from providers.sandbox.together_usage import usage_answer
from providers.sandbox.wire import answer
from providers.sandbox.world import World

_TYPES: Mapping[int, tuple[str, str | None]] = {
    400: ("invalid_request_error", "invalid_request"),
    401: ("invalid_request_error", "invalid_api_key"),
    402: ("credit_limit", "credit_limit_exceeded"),
    403: ("forbidden", None),
    404: ("invalid_request_error", "model_not_available"),
    422: ("invalid_request_error", "nsfw_content"),
    429: ("dynamic_request_limited", None),
    503: ("service_unavailable", "overloaded"),
    524: ("timeout", None),
}
_MESSAGES: Mapping[int, str] = {
    401: "Invalid API key provided. You can find your API key at https://api.together.ai/settings/api-keys.",
    402: "Credit limit exceeded, please navigate to https://api.together.ai/settings/billing.",
    403: "Your account's build tier is insufficient for this model.",
    422: "The request was flagged by the safety checker: NSFW content detected.",
    429: "You have reached your dynamic rate limit for this model. Please slow down.",
    503: "The server is overloaded or not ready yet.",
}


class Refusal(Exception):
    """The request ends here with this answer."""

    def __init__(self, response: web.Response) -> None:
        super().__init__(response.status)
        self.response = response


class TogetherTwin:
    """Everything under `/together`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Put the twin's paths into the application."""
        router.add_post("/together/v1/images/generations", self._generate)
        router.add_get("/together/v1/models", self._models)
        router.add_get("/together/v1/billing/usage", self._usage)
        router.add_get("/together/files/{name}", self._file)
        router.add_route("*", "/together/{path:.*}", self._nothing)

    async def _nothing(self, _request: web.Request) -> web.Response:
        return error(404, "Not found", kind="not_found")

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        try:
            account = self._account(request)
            job = await self._start(request, account)
        except Refusal as refusal:
            return refusal.response
        if job.strike.do == "late_accept" and job.strike.args.answer_after_s is None:
            raise wire.drop(request)
        await job.finished.wait()
        return await self._tell(request, job)

    def _account(self, request: web.Request) -> Account:
        name = account_name(request.headers.get("Authorization", ""), "Bearer")
        if name is None:
            refuse(401)
        return self._world.account("together", name)

    async def _start(self, request: web.Request, account: Account) -> Job:
        raw = await request.read()
        body = wire.read_object(raw)
        if body is None:
            refuse(400, "The request body is not valid JSON.")
        endpoint = self._endpoint(account, body)
        strike = self._world.submission(request, account, endpoint.id, raw)
        self._limit(account)
        _strike_at_once(request, account, strike)
        try:
            wish = read_wish(body, endpoint, self._world.drawn_seed(account))
        except Invalid as fault:
            account.reject("invalid")
            raise Refusal(error(400, f"{fault.field}: {fault.message}", param=fault.field)) from fault
        if wish.unsafe or strike.do == "refuse":
            account.reject("refused")
            raise Refusal(error(422, _MESSAGES[422], headers=_rate_headers(account)))
        digits = self._world.new_id(account)
        order_id = f"{digits[:7]}-{digits[7:13]}-{digits[13:29]}-SEA"
        job = self._world.open_job(account, endpoint, order_id, strike)
        return self._world.accept(job, wish, worker_failure(strike))

    def _endpoint(self, account: Account, body: Mapping[str, object]) -> Endpoint:
        model = body.get("model")
        if account.broke:
            account.reject("402")
            refuse(402)
        endpoint = TOGETHER.get(model) if isinstance(model, str) else None
        if endpoint is None or not self._world.sells("together", endpoint.id):
            account.reject("404")
            refuse(404, f"Unable to access model {model}. Please visit https://api.together.ai/models.")
        if account.first_tier and endpoint.tier == "export":
            account.reject("403")
            refuse(403)
        return endpoint

    def _limit(self, account: Account) -> None:
        if not account.take_token(time.monotonic(), self._world.behind()):
            account.reject("rate")
            raise Refusal(error(429, _MESSAGES[429], headers=_rate_headers(account)))
        if account.in_flight >= account.capacity:
            account.reject("capacity")
            raise Refusal(error(503, _MESSAGES[503], headers=_rate_headers(account)))

    async def _tell(self, request: web.Request, job: Job) -> web.StreamResponse:
        strike = job.strike
        if job.state != "done":
            raise wire.drop(request)
        late = strike.args.answer_after_s if strike.do == "late_accept" else None
        if late is not None:
            await asyncio.sleep(late)
        if job.failure is not None:
            return error(job.failure.status, _MESSAGES.get(job.failure.status, "Internal server error"))
        for at in ("submit", "result"):
            disturbed = await wire.disturb(request, strike, at, self._world.closing)
            if disturbed is not None:
                return disturbed
        body = {"id": job.id, "model": job.endpoint.id, "object": "list", "data": self._items(job)}
        return await wire.send(request, answer(body, headers=_rate_headers(job.account)), strike)

    def _items(self, job: Job) -> list[dict[str, object]]:
        bare = job.account.index % 2 == 1
        return [self._item(job, number, bare=bare) for number in range(len(job.scenes))]

    def _item(self, job: Job, number: int, *, bare: bool) -> dict[str, object]:
        item: dict[str, object] = {"timings": {"inference": round(job.run_s, 6)}}
        if job.links:
            kind, item["url"] = "url", f"{self._world.url}/together/files/{job.links[number]}"
        else:
            picture = shortened(job.pictures[number], job.strike)
            kind, item["b64_json"] = "b64_json", base64.b64encode(picture).decode()
        return item if bare else {"index": number, "type": kind, **item}

    async def _file(self, request: web.Request) -> web.StreamResponse:
        kept = self._world.files.get(request.match_info["name"])
        if kept is None or kept[0].account.seller != "together":
            return error(404, "Not found", kind="not_found")
        if not request.headers.get("User-Agent"):
            return web.Response(status=403, text="error code: 1010")
        return await send_file(request, self._world, *kept)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        try:
            self._account(request)
        except Refusal as refusal:
            return refusal.response
        sold = [endpoint for endpoint in TOGETHER.values() if self._world.sells("together", endpoint.id)]
        return answer([_listed(endpoint) for endpoint in sold])

    async def _usage(self, request: web.Request) -> web.StreamResponse:
        try:
            account = self._account(request)
        except Refusal as refusal:
            return refusal.response
        return usage_answer(self._world, account, request.query)


def _strike_at_once(request: web.Request, account: Account, strike: Strike) -> None:
    if strike.do == "reset" and strike.at == "submit":
        raise wire.drop(request)
    if strike.status is None or not strike.hits("submit"):
        return
    account.reject(strike.do)
    headers = _rate_headers(account)
    if strike.args.retry_after is not None:
        headers["retry-after"] = f"{strike.args.retry_after:g}"
    message = _MESSAGES.get(strike.status, "Internal server error")
    raise Refusal(error(strike.status, message, headers=headers))


def read_wish(body: Mapping[str, object], endpoint: Endpoint, drawn_seed: int) -> Wish:
    """What the caller asks for; raises `Invalid` naming the field that is wrong."""
    prompt = fields.text(body, "prompt")
    width = fields.integer(body, "width", (1, 10_000))
    height = fields.integer(body, "height", (1, 10_000))
    count = fields.integer(body, "n", (1, endpoint.max_count))
    steps = fields.integer(body, "steps", endpoint.steps or (1, 100))
    seed = fields.integer(body, "seed")
    fields.number(body, "guidance_scale", (0, 100))
    shape = fields.choice(body, "response_format", ("base64", "url"), "url")
    inputs, _ = read_inputs(body, endpoint, {})
    size = ratio_size(body, endpoint, inputs) if endpoint.ratios else (width or 1024, height or 1024)
    return Wish(
        prompt=prompt,
        size=endpoint.sizes.snap(size),
        count=count or 1,
        format=fields.choice(body, "output_format", endpoint.formats, endpoint.default_format),
        seed=drawn_seed if seed is None else seed,
        steps=steps if endpoint.steps is not None else None,
        inline=shape == "base64",
        inputs=inputs,
    )


def _rate_headers(account: Account) -> dict[str, str]:
    left = max(0.0, account.bucket.peek(time.monotonic()))
    wait = 0.0 if left >= 1 else (1 - left) / account.bucket.rate
    rate = f"{account.bucket.rate:g}"
    return {
        "x-ratelimit-limit": rate,
        "x-ratelimit-limit-dynamic": rate,
        "x-ratelimit-remaining": str(int(left)),
        "x-ratelimit-reset": f"{wait:.3f}",
    }


def refuse(status: int, message: str = "") -> NoReturn:
    """End the request with Together's words for `status`."""
    raise Refusal(error(status, message or _MESSAGES[status]))


def error(
    status: int,
    message: str,
    *,
    kind: str | None = None,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Together's error envelope."""
    named, code = _TYPES.get(status, ("server_error", None))
    body = {"error": {"message": message, "type": kind or named, "param": param, "code": code}}
    if status == 429:
        body["error"]["error_type"] = named
    return answer(body, status, headers)


def _listed(endpoint: Endpoint) -> dict[str, object]:
    return {
        "id": endpoint.id,
        "object": "model",
        "created": 0,
        "type": "image",
        "display_name": endpoint.id.partition("/")[2],
        "organization": "Black Forest Labs",
        "link": "",
        "license": "",
        "context_length": 0,
        "pricing": {"hourly": 0, "input": 0, "output": 0, "base": 0, "finetune": 0},
    }
