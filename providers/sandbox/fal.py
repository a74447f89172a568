"""fal's twin: queue, direct runs and result files, as fal-client 1.0.3 sees them.

Shapes are those of fal's queue and inference references (2026-11). The queue takes everything an endpoint
exists for: what is wrong with an order shows only when a runner picks it up, as the result's own status.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from aiohttp import web

from providers.sandbox import fields, wire
from providers.sandbox.accounts import Account, account_name
from providers.sandbox.endpoints import FAL_PRESETS, Endpoint, Size
from providers.sandbox.fal_endpoints import FAL
from providers.sandbox.fal_webhooks import Webhooks
from providers.sandbox.faults import At, Strike
from providers.sandbox.fields import Invalid
from providers.sandbox.jobs import Failure, Job, Wish, worker_failure
from providers.sandbox.sources import Source, read_mask, read_sources
from providers.sandbox.wire import answer, fingerprint
from providers.sandbox.world import World

_LOCKED = "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."
_NO_KEY = "Authentication is required to access this application. Check your key at https://fal.ai/dashboard/keys"
_UNSAFE = "The content could not be processed because it contained material flagged by a content checker."
_UPLOADER = "sandbox-cdn-"
"""Begins every upload token."""
_REQUEST = re.compile(r"(?P<app>[^/]+/[^/]+)/requests/(?P<id>[^/]+)(?P<action>/status|/cancel)?")
_ERROR_TYPES: Mapping[int, str] = {
    400: "bad_request",
    500: "internal_error",
    502: "runner_incomplete_response",
    503: "runner_scheduling_failure",
    504: "request_timeout",
}
Handler = Callable[[web.Request, Account], Awaitable[web.StreamResponse]]


class FalTwin:
    """Everything under `/fal` that inference needs."""

    def __init__(self, world: World, webhooks: Webhooks) -> None:
        self._world = world
        self._webhooks = webhooks

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Put the twin's paths into the application."""
        router.add_post("/fal/run/{endpoint:.+}", self._guarded(self._run))
        router.add_post("/fal/queue/{endpoint:.+}", self._guarded(self._submit))
        router.add_get("/fal/queue/{path:.+}", self._guarded(self._read))
        router.add_put("/fal/queue/{path:.+}", self._guarded(self._cancel))
        router.add_post("/fal/rest/storage/auth/token", self._guarded(self._storage_token))
        router.add_post("/fal/cdn/files/upload", self._upload)
        router.add_get("/fal/cdn/files/{name}", self._file)
        router.add_route("*", "/fal/{path:.*}", self._nothing)

    def _guarded(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def guarded(request: web.Request) -> web.StreamResponse:
            name = account_name(request.headers.get("Authorization", ""), "Key")
            if name is None:
                return detail(401, _NO_KEY)
            return await handler(request, self._world.account("fal", name))

        return guarded

    async def _nothing(self, _request: web.Request) -> web.Response:
        return detail(404, "Not Found")

    async def _storage_token(self, request: web.Request, account: Account) -> web.StreamResponse:
        if account.broke:
            return detail(403, _LOCKED)
        if request.query.get("storage_type") != "fal-cdn-v3":
            return detail(422, "storage_type: Input should be 'fal-cdn-v3'")
        expires = datetime.now(UTC) + timedelta(minutes=10)
        body = {"token": f"{_UPLOADER}{account.name}", "token_type": "Bearer", "expires_at": expires.isoformat()}
        return answer(body | {"base_url": f"{self._world.url}/fal/cdn"})

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        if not request.headers.get("Authorization", "").startswith(f"Bearer {_UPLOADER}"):
            return detail(401, "Invalid upload token")
        data = await request.read()
        name = f"{fingerprint(self._world.seed, len(self._world.uploads), data)}.bin"
        url = f"{self._world.url}/fal/cdn/files/{name}"
        self._world.uploads[url] = data
        return answer({"access_url": url})

    async def _submit(self, request: web.Request, account: Account) -> web.StreamResponse:
        started = await self._start(request, account, direct=False)
        if isinstance(started, web.StreamResponse):
            return started
        job, strike = started, started.strike
        callback = request.query.get("fal_webhook")
        if callback:
            self._world.spawn(self._webhooks.deliver(job, callback, self._outcome))
        if strike.do == "late_accept":
            if strike.args.answer_after_s is None:
                raise wire.drop(request)
            await asyncio.sleep(strike.args.answer_after_s)
        disturbed = await wire.disturb(request, strike, "submit", self._world.closing)
        if disturbed is not None:
            return disturbed
        position = max(0, account.in_flight - account.gate.limit)
        body = {"status": "IN_QUEUE", **self._links(job), "gateway_request_id": job.id, "queue_position": position}
        return answer(body, headers={"x-fal-request-id": job.id})

    async def _start(self, request: web.Request, account: Account, *, direct: bool) -> Job | web.Response:
        """Accept an order, or say why not."""
        raw = await request.read()
        endpoint = FAL.get(request.match_info["endpoint"])
        if endpoint is None or not self._world.sells("fal", endpoint.id):
            return detail(404, f"Application '{request.match_info['endpoint']}' not found")
        if account.broke:
            account.reject("locked")
            return detail(403, _LOCKED)
        strike = self._world.submission(request, account, endpoint.id, raw)
        job = self._world.open_job(account, endpoint, _uuid(self._world.new_id(account)), strike)
        refused = _refused_at_once(request, job, direct=direct)
        if refused is not None:
            return refused
        outcome = understand(raw, endpoint, strike, self._world.drawn_seed(account), self._world.uploads)
        if isinstance(outcome, Failure):
            account.reject(outcome.kind)
            if direct:
                return answer(_error_body(outcome), outcome.status, {"x-fal-request-id": job.id})
        self._world.remember(job)
        if isinstance(outcome, Failure):
            return self._world.accept(job, None, outcome)
        unsafe = outcome.unsafe or strike.do == "refuse"
        job.flagged = unsafe or (strike.do == "black" and strike.args.flagged)
        return self._world.accept(job, outcome, worker_failure(strike, _ERROR_TYPES))

    async def _run(self, request: web.Request, account: Account) -> web.StreamResponse:
        if account.in_flight >= account.gate.limit:
            account.tell_concurrency()
            account.reject("concurrency")
            return detail(429, "Too many concurrent requests. Please wait and retry.")
        started = await self._start(request, account, direct=True)
        if isinstance(started, web.StreamResponse):
            return started
        await started.finished.wait()
        disturbed = await wire.disturb(request, started.strike, "result", self._world.closing)
        return disturbed if disturbed is not None else self._outcome_response(started)

    async def _read(self, request: web.Request, account: Account) -> web.StreamResponse:
        path = request.match_info["path"]
        match = _REQUEST.fullmatch(path)
        if match is None or match["action"] == "/cancel":
            return detail(405, "Method Not Allowed")
        job = self._job(match, account)
        if job is None:
            return detail(404, "Request not found")
        at: At = "status" if match["action"] else "result"
        if at == "result" and (job.mute or job.state in {"queued", "running"}):
            return detail(400, "Request is still in progress")
        if at == "status" and job.strike.status is not None and job.strike.hits("status"):
            return _flat(job.strike.status, "Temporarily unavailable", {"x-fal-request-id": job.id})
        disturbed = await wire.disturb(request, job.strike, at, self._world.closing)
        if disturbed is not None:
            return disturbed
        return self._status(job) if at == "status" else self._outcome_response(job)

    def _job(self, match: re.Match[str], account: Account) -> Job | None:
        job = self._world.jobs.get(match["id"])
        if job is None or job.account is not account or app_of(job.endpoint.id) != match["app"]:
            return None
        return job

    def _status(self, job: Job) -> web.Response:
        headers = {"x-fal-request-id": job.id}
        links = self._links(job)
        if job.state == "queued":
            position = job.account.gate.position(job.id)
            return answer({"status": "IN_QUEUE", "queue_position": position, **links}, 202, headers)
        if job.state == "running" or job.mute:
            return answer({"status": "IN_PROGRESS", "logs": None, **links}, 202, headers)
        error = job.failure
        if job.state == "cancelled":
            error = Failure(499, "client_cancelled", "Request was cancelled by the client")
        body = {
            "status": "COMPLETED",
            "logs": None,
            "metrics": {"inference_time": round(job.run_s, 6)},
            **links,
            "error": error.message if error else None,
            "error_type": error.kind if error else None,
        }
        return answer(body, 200, headers)

    def _links(self, job: Job) -> dict[str, object]:
        base = f"{self._world.url}/fal/queue/{app_of(job.endpoint.id)}/requests/{job.id}"
        return {
            "request_id": job.id,
            "response_url": base,
            "status_url": f"{base}/status",
            "cancel_url": f"{base}/cancel",
        }

    async def _cancel(self, request: web.Request, account: Account) -> web.StreamResponse:
        match = _REQUEST.fullmatch(request.match_info["path"])
        if match is None or match["action"] != "/cancel":
            return detail(405, "Method Not Allowed")
        job = self._job(match, account)
        if job is None:
            return answer({"status": "NOT_FOUND"}, 404)
        if job.state in {"done", "cancelled"}:
            return answer({"status": "ALREADY_COMPLETED"}, 400)
        if job.state == "running":
            return answer({"status": "CANCELLATION_REQUESTED"}, 202)
        assert job.task is not None
        job.task.cancel()
        job.state = "cancelled"
        return answer({"status": "OK"}, 200)

    def _outcome_response(self, job: Job) -> web.Response:
        status, body = self._outcome(job)
        headers = {"x-fal-request-id": job.id}
        if job.failure is not None:
            headers["X-Fal-Error-Type"] = job.failure.kind
        return answer(body, status, headers)

    def _outcome(self, job: Job) -> tuple[int, dict[str, object]]:
        """The result's status and body, as the result URL and the webhook tell it."""
        if job.state == "cancelled":
            return 499, {"detail": "Request was cancelled by the client", "error_type": "client_cancelled"}
        if job.failure is not None:
            return job.failure.status, _error_body(job.failure)
        assert job.wish is not None
        images = self._images(job)
        body: dict[str, object] = {"image": images[0]} if job.endpoint.cuts_out else {"images": images}
        if job.endpoint.seed:
            body["seed"] = job.wish.seed
        if job.endpoint.open_weights:
            body["prompt"] = job.wish.prompt
            body["timings"] = {"inference": round(job.run_s, 6)}
            body["has_nsfw_concepts"] = [job.flagged] * len(job.scenes)
        return 200, body

    def _images(self, job: Job) -> list[dict[str, object]]:
        images: list[dict[str, object]] = []
        for number, scene in enumerate(job.scenes):
            kind = f"image/{scene.format}"
            image: dict[str, object] = {"url": self._where(job, number, kind), "content_type": kind}
            if job.endpoint.declares_sizes:
                image |= {"width": scene.width, "height": scene.height}
            images.append(image)
        return images

    def _where(self, job: Job, number: int, kind: str) -> str:
        if not job.links:
            picture = shortened(job.pictures[number], job.strike)
            return f"data:{kind};base64,{base64.b64encode(picture).decode()}"
        return f"{self._world.url}/fal/cdn/files/{job.links[number]}"

    async def _file(self, request: web.Request) -> web.StreamResponse:
        kept = self._world.files.get(request.match_info["name"])
        if kept is None or kept[0].account.seller != "fal":
            return detail(404, "Not Found")
        return await send_file(request, self._world, *kept)


def _refused_at_once(request: web.Request, job: Job, *, direct: bool) -> web.Response | None:
    account, strike = job.account, job.strike
    headers = {"x-fal-request-id": job.id}
    if strike.do == "reset" and strike.at == "submit":
        raise wire.drop(request)
    if strike.status is not None and strike.hits("submit"):
        account.reject(strike.do)
        if strike.args.retry_after is not None:
            headers["Retry-After"] = f"{strike.args.retry_after:g}"
        return _flat(strike.status, _LOCKED if strike.status == 403 else "Scripted failure.", headers)
    longest = request.query.get("fal_max_queue_length", "")
    if not direct and longest.isdecimal() and account.gate.waiting >= int(longest):
        account.reject("queue_length")
        return _flat(429, "Queue length limit exceeded", headers)
    return None


async def send_file(request: web.Request, world: World, job: Job, number: int) -> web.StreamResponse:
    """Serve one made picture, as whole and as fast as the fault on its order lets it be."""
    strike = job.strike
    if strike.status is not None and strike.hits("asset"):
        return detail(strike.status, "Scripted failure.")
    disturbed = await wire.disturb(request, strike, "asset", world.closing)
    if disturbed is not None:
        return disturbed
    scene = job.scenes[number]
    picture = await world.painter.paint(scene)
    whole = web.Response(body=picture, content_type=f"image/{scene.format}")
    if strike.do == "truncate" and strike.args.lie and strike.hits("asset"):
        raise await wire.cut_short(request, whole, strike.args.keep)
    whole.body = shortened(picture, strike)
    if strike.do == "slow" and strike.args.body_s:
        return await wire.drip(request, whole, strike.args.body_s)
    return whole


def shortened(picture: bytes, strike: Strike) -> bytes:
    """The picture, or the part of it that a `truncate` fault leaves."""
    if strike.do == "truncate" and strike.hits("asset"):
        return picture[: int(len(picture) * strike.args.keep)]
    return picture


def understand(
    raw: bytes, endpoint: Endpoint, strike: Strike, drawn_seed: int, uploads: Mapping[str, bytes] = MappingProxyType({})
) -> Wish | Failure:
    """What an order wants, or the fault a runner finds in it before it works. `uploads` are files by their address."""
    body = wire.read_object(raw)
    if body is None:
        return Failure(422, "json_invalid", "JSON decode error")
    try:
        wish = _read_wish(body, endpoint, drawn_seed, uploads)
    except Invalid as fault:
        return Failure(422, fault.kind, fault.message, fault.field)
    if not endpoint.open_weights and (wish.unsafe or strike.do == "refuse"):
        return Failure(422, "content_policy_violation", _UNSAFE, "prompt")
    return wish


def _read_wish(body: Mapping[str, object], endpoint: Endpoint, drawn_seed: int, uploads: Mapping[str, bytes]) -> Wish:
    prompt = "" if endpoint.cuts_out else fields.text(body, "prompt")
    inputs, mask = read_inputs(body, endpoint, uploads)
    if endpoint.refuses_guidance and body.get("guidance_scale") is not None:
        raise Invalid("guidance_scale", "extra_forbidden", "Extra inputs are not permitted")
    if endpoint.guidance is not None:
        fields.number(body, "guidance_scale", endpoint.guidance)
    if endpoint.tolerance:
        fields.choice(body, "safety_tolerance", ("1", "2", "3", "4", "5", "6"), "2")
    form = fields.choice(body, "output_format", endpoint.formats, endpoint.default_format)
    steps = None if endpoint.steps is None else fields.integer(body, "num_inference_steps", endpoint.steps)
    count = fields.integer(body, "num_images", (1, endpoint.max_count)) if endpoint.max_count > 1 else 1
    seed = fields.integer(body, "seed") if endpoint.seed else None
    return Wish(
        prompt=prompt,
        size=endpoint.sizes.snap(_asked_size(body, endpoint, inputs)),
        count=1 if count is None else count,
        format=form,
        seed=drawn_seed if seed is None else seed,
        steps=steps,
        inline=body.get("sync_mode") is True,
        inputs=inputs,
        mask=mask,
    )


def read_inputs(
    body: Mapping[str, object], endpoint: Endpoint, uploads: Mapping[str, bytes]
) -> tuple[tuple[Source, ...], Source | None]:
    """The pictures an order is to be made from, and the mask over the first of them."""
    taken = endpoint.inputs
    if taken is None:
        return (), None
    inputs = read_sources(body, taken.field, (taken.least, taken.most), uploads)
    if not taken.mask or not inputs:
        return inputs, None
    return inputs, read_mask(body, taken.mask, inputs[0], uploads)


def ratio_size(body: Mapping[str, object], endpoint: Endpoint, inputs: Sequence[Source]) -> Size:
    """The size named by `aspect_ratio`; without it the one most like the first input."""
    named = endpoint.sizes.named
    if inputs and body.get("aspect_ratio") is None:
        return inputs[0].width, inputs[0].height
    return named[fields.choice(body, "aspect_ratio", tuple(named), "16:9")]


def _asked_size(body: Mapping[str, object], endpoint: Endpoint, inputs: Sequence[Source]) -> Size:
    if endpoint.as_input:
        return inputs[0].width, inputs[0].height
    if endpoint.ratios:
        return ratio_size(body, endpoint, inputs)
    usual = "square_hd" if endpoint.sizes.named else "landscape_4_3"
    asked = body.get("image_size")
    if asked == "auto" and inputs:
        return inputs[0].width, inputs[0].height
    if isinstance(asked, dict):
        width = fields.integer(asked, "width", (1, 14142))
        height = fields.integer(asked, "height", (1, 14142))
        return (512 if width is None else width, 512 if height is None else height)
    return FAL_PRESETS[fields.choice(body, "image_size", tuple(FAL_PRESETS), usual)]


def app_of(endpoint: str) -> str:
    """`fal-ai/flux/dev` lives under `fal-ai/flux`: fal drops the rest of the path when polling."""
    return "/".join(endpoint.split("/")[:2])


def detail(status: int, message: str) -> web.Response:
    """Fal's plain error shape."""
    return answer({"detail": message}, status)


def _flat(status: int, message: str, headers: Mapping[str, str]) -> web.Response:
    kind = _ERROR_TYPES.get(status)
    if kind is None:
        return answer({"detail": message}, status, headers)
    return answer({"detail": message, "error_type": kind}, status, {"X-Fal-Error-Type": kind, **headers})


def _error_body(failure: Failure) -> dict[str, object]:
    kind, field = failure.kind, failure.field
    if failure.status != 422:
        return {"detail": failure.message, "error_type": kind}
    fault: dict[str, object] = {
        "loc": ["body", field] if field else ["body"],
        "msg": failure.message,
        "type": kind,
        "url": f"https://docs.fal.ai/errors#{kind}",
    }
    return {"detail": [fault]}


def _uuid(digits: str) -> str:
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
