"""An own GPU server's twin: OpenAI's images API with pictures in the answer, and a queue inside."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Mapping

from aiohttp import web

from providers.sandbox import fields, wire
from providers.sandbox.accounts import KEY_PREFIX, Account
from providers.sandbox.endpoints import Endpoint, read_size, selfhosted
from providers.sandbox.fal import shortened
from providers.sandbox.faults import Strike
from providers.sandbox.fields import Invalid
from providers.sandbox.jobs import Job, Wish, worker_failure
from providers.sandbox.wire import answer
from providers.sandbox.world import World

_MODELS = ("flux-schnell", "flux-dev", "flux-2-dev", "flux-2-flash")
UNSAFE = "Your request was rejected as a result of our safety system."


class SelfhostedTwin:
    """Everything under `/selfhosted`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Put the twin's paths into the application."""
        router.add_post("/selfhosted/v1/images/generations", self._generate)
        router.add_get("/selfhosted/v1/models", self._models)
        router.add_get("/selfhosted/health", self._health)

    def _account(self, request: web.Request) -> Account:
        key = request.headers.get("Authorization", "").partition(" ")[2]
        return self._world.account("selfhosted", key.removeprefix(KEY_PREFIX) or "default")

    async def _models(self, _request: web.Request) -> web.Response:
        models = [{"id": model, "object": "model", "created": 0, "owned_by": "own"} for model in _MODELS]
        return answer({"object": "list", "data": models})

    async def _health(self, request: web.Request) -> web.Response:
        gate = self._account(request).gate
        return answer({"status": "ok", "running": gate.running, "queued": gate.waiting, "slots": gate.limit})

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        account = self._account(request)
        started = self._start(request, account, await request.read())
        if isinstance(started, web.Response):
            return started
        if started.strike.do == "late_accept" and started.strike.args.answer_after_s is None:
            raise wire.drop(request)
        await started.finished.wait()
        return await self._tell(request, started)

    def _start(self, request: web.Request, account: Account, raw: bytes) -> Job | web.Response:
        body = wire.read_object(raw)
        model = body.get("model") if body is not None else None
        if body is None or not isinstance(model, str):
            return error(400, "model: give the name of a model", param="model")
        strike = self._world.submission(request, account, model, raw)
        struck = struck_at_once(request, account, strike)
        if struck is not None:
            return struck
        endpoint = selfhosted(model)
        try:
            wish = read_wish(body, endpoint, self._world.drawn_seed(account))
        except Invalid as fault:
            account.reject("invalid")
            return error(400, f"{fault.field}: {fault.message}", param=fault.field)
        if wish.unsafe or strike.do == "refuse":
            account.reject("refused")
            return error(400, UNSAFE, code="content_policy_violation")
        job = self._world.open_job(account, endpoint, self._world.new_id(account), strike)
        return self._world.accept(job, wish, worker_failure(strike))

    async def _tell(self, request: web.Request, job: Job) -> web.StreamResponse:
        strike = job.strike
        if job.state != "done":
            raise wire.drop(request)
        if strike.do == "late_accept" and strike.args.answer_after_s is not None:
            await asyncio.sleep(strike.args.answer_after_s)
        if job.failure is not None:
            return error(job.failure.status, job.failure.message)
        for at in ("submit", "result"):
            disturbed = await wire.disturb(request, strike, at, self._world.closing)
            if disturbed is not None:
                return disturbed
        data = [
            {"b64_json": base64.b64encode(shortened(picture, strike)).decode(), "seed": scene.seed}
            for picture, scene in zip(job.pictures, job.scenes, strict=True)
        ]
        body = {"created": int(time.time()), "id": job.id, "data": data}
        return await wire.send(request, answer(body, headers={"x-request-id": job.id}), strike)


def struck_at_once(request: web.Request, account: Account, strike: Strike) -> web.Response | None:
    """What a fault answers before anything is taken in; None: nothing."""
    if strike.do == "reset" and strike.at == "submit":
        raise wire.drop(request)
    if strike.status is None or not strike.hits("submit"):
        return None
    account.reject(strike.do)
    headers = {} if strike.args.retry_after is None else {"retry-after": f"{strike.args.retry_after:g}"}
    return error(strike.status, "Scripted failure.", headers=headers)


def read_wish(body: Mapping[str, object], endpoint: Endpoint, drawn_seed: int) -> Wish:
    """What the caller asks for; raises `Invalid` naming the field that is wrong."""
    prompt = fields.text(body, "prompt")
    size = read_size(fields.text(body, "size", "1024x1024"))
    if size is None:
        raise Invalid("size", "invalid_value", "give width x height, as in '1024x1024'")
    fields.choice(body, "response_format", ("b64_json",), "b64_json")
    fields.number(body, "guidance_scale", (0, 50))
    count = fields.integer(body, "n", (1, endpoint.max_count))
    seed = fields.integer(body, "seed")
    steps = fields.integer(body, "steps", endpoint.steps)
    return Wish(
        prompt=prompt,
        size=endpoint.sizes.snap(size),
        count=count or 1,
        format=fields.choice(body, "output_format", endpoint.formats, endpoint.default_format),
        seed=drawn_seed if seed is None else seed,
        steps=fields.integer(body, "num_inference_steps", endpoint.steps) if steps is None else steps,
        inline=True,
    )


def error(
    status: int,
    message: str,
    *,
    code: str | None = None,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """OpenAI's error envelope."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return answer({"error": {"message": message, "type": kind, "param": param, "code": code}}, status, headers)
