"""Replicate's twin: predictions, their files and webhooks, as replicate 1.0.7 sees them.

Shapes are those of Replicate's HTTP reference (2026-11). A prediction goes from `starting` over `processing` to an end;
what it drew is deleted an hour later, sooner by the sandbox's clock. Inputs no model knows are ignored, as there.
There is no other book than the predictions themselves, so a fault that hides an end does so until its deadline only.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from weakref import WeakKeyDictionary

from aiohttp import web
from msgspec import Struct
from msgspec.structs import replace

from providers.sandbox import fields, wire
from providers.sandbox.accounts import Account, account_name
from providers.sandbox.endpoints import Endpoint, Size
from providers.sandbox.fal import read_inputs, send_file, shortened
from providers.sandbox.faults import Strike
from providers.sandbox.fields import Invalid
from providers.sandbox.jobs import Failure, Job, Wish
from providers.sandbox.replicate_endpoints import REPLICATE
from providers.sandbox.replicate_webhooks import SECRET, ReplicateWebhooks
from providers.sandbox.wire import answer
from providers.sandbox.world import World

_NO_KEY = "You did not pass a valid authentication token"
_NOT_FOUND = "The requested resource could not be found."
_BROKE = (
    "You have insufficient credit to run this model. Go to https://replicate.com/account/billing#billing to purchase "
    "credit. Once you purchase credit, please wait a few minutes before trying again."
)
_LOW = (
    "Request was throttled. Your rate limit for creating predictions is reduced to 6 requests per minute with a burst "
    "of 1 requests while you have less than $5.0 in credit. Your rate limit resets in ~{wait}s."
)
_THROTTLED = "Request was throttled. Your rate limit resets in ~{wait}s."
_ALL_UNSAFE = "All generated images contained NSFW content. Try running it again with a different prompt."
_FLAGGED = "The input or output was flagged as sensitive. Please try again with different inputs. (E005)"
_CRASHED = "Prediction failed. (E1000)"
_PREFER = re.compile(r"wait(?:=([1-9]|[1-9][0-9]|60))?")
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")
_LONGEST_S = 1800.0
"""A prediction is ended after so long, deadline or not."""
_LEAST_LIFE_S = 5
_WAIT_S = 60.0
_KEPT_S = 3600.0
_PAGE = 100
_FORMATS: Mapping[str, str] = {"webp": "webp", "jpg": "jpeg", "png": "png"}
Handler = Callable[[web.Request, Account], Awaitable[web.StreamResponse]]


class Terms(Struct, kw_only=True):
    """What was agreed about one prediction, beside the work itself."""

    model: str
    version: str | None
    given: Mapping[str, object]
    created: datetime
    hidden_until: float
    """On the monotonic clock: until then a fault may hide the prediction's end."""
    deadline: datetime | None = None
    aborted: bool = False


class Refusal(Exception):
    """The request ends here with this answer."""

    def __init__(self, response: web.Response) -> None:
        super().__init__(response.status)
        self.response = response


class ReplicateTwin:
    """Everything under `/replicate`."""

    def __init__(self, world: World, webhooks: ReplicateWebhooks) -> None:
        self._world = world
        self._webhooks = webhooks
        self._terms: WeakKeyDictionary[Job, Terms] = WeakKeyDictionary()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Put the twin's paths into the application."""
        root = "/replicate/v1"
        router.add_post(f"{root}/models/{{owner}}/{{name}}/predictions", self._guarded(self._create, reads=False))
        router.add_post(f"{root}/predictions", self._guarded(self._create, reads=False))
        router.add_get(f"{root}/predictions", self._guarded(self._list))
        router.add_get(f"{root}/predictions/{{id}}", self._guarded(self._read))
        router.add_post(f"{root}/predictions/{{id}}/cancel", self._guarded(self._cancel))
        router.add_post(f"{root}/files", self._guarded(self._upload))
        router.add_get(f"{root}/account", self._guarded(self._account))
        router.add_get(f"{root}/hardware", self._guarded(self._hardware))
        router.add_get(f"{root}/webhooks/default/secret", self._guarded(self._secret))
        router.add_get(f"{root}/models/{{owner}}/{{name}}", self._guarded(self._model))
        router.add_get(f"{root}/models/{{owner}}/{{name}}/versions/{{version}}", self._guarded(self._model))
        router.add_get("/replicate/delivery/{name}", self._file)
        router.add_route("*", "/replicate/{path:.*}", self._nothing)

    def _guarded(
        self, handler: Handler, *, reads: bool = True
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def guarded(request: web.Request) -> web.StreamResponse:
            name = account_name(request.headers.get("Authorization", ""), "Bearer")
            if name is None:
                return problem(401, _NO_KEY, title="Unauthenticated")
            account = self._world.account("replicate", name)
            if reads and not account.reads.take(time.monotonic() / self._world.time_scale):
                return _throttled(_THROTTLED, 1)
            try:
                return await handler(request, account)
            except Refusal as refusal:
                return refusal.response

        return guarded

    async def _nothing(self, _request: web.Request) -> web.Response:
        return problem(404, _NOT_FOUND)

    async def _create(self, request: web.Request, account: Account) -> web.StreamResponse:
        raw = await request.read()
        body = wire.read_object(raw)
        if body is None:
            return problem(400, "The request body is not valid JSON.", title="Bad request")
        endpoint = _endpoint(request, body)
        if not self._world.sells("replicate", endpoint.id.partition(":")[0]):
            return problem(404, _NOT_FOUND)
        if account.broke:
            account.reject("402")
            return problem(402, _BROKE, title="Insufficient credit")
        strike = self._world.submission(request, account, endpoint.id, raw)
        _throttle(account, self._world.behind())
        _strike_at_once(request, account, strike)
        job, wait_s = self._start(request, account, endpoint, body, strike)
        if strike.do == "late_accept":
            if strike.args.answer_after_s is None:
                raise wire.drop(request)
            await asyncio.sleep(strike.args.answer_after_s)
        if wait_s is not None:
            await _finished(job, wait_s)
        disturbed = await wire.disturb(request, strike, "submit", self._world.closing)
        if disturbed is not None:
            return disturbed
        shown = self.shown(job)
        whole = wait_s is None or shown["status"] not in {"starting", "processing"}
        return answer(shown, 201 if whole else 202, {"Location": f"{self._root()}/predictions/{job.id}"})

    def _start(
        self, request: web.Request, account: Account, endpoint: Endpoint, body: Mapping[str, object], strike: Strike
    ) -> tuple[Job, float | None]:
        """Take a prediction in; how long its caller wants to be kept waiting, in seconds."""
        try:
            wait_s, life_s = _prefer(request), _life(request)
            given = _input(body)
            wish = read_wish(given, endpoint, self._world.drawn_seed(account), self._world.uploads)
            wish = replace(wish, inline=wait_s is not None)
            webhook, events = _webhook(body)
        except Invalid as fault:
            account.reject("invalid")
            raise Refusal(_invalid(fault)) from fault
        if endpoint.open_weights and given.get("go_fast", True) is True:
            wish = replace(wish, seed=wish.seed ^ account.index)  # fast, and never the same twice
        order_id = base64.b32encode(bytes.fromhex(self._world.new_id(account))).decode().rstrip("=").lower()
        job = self._world.open_job(account, endpoint, order_id, strike)
        self._world.remember(job)
        now = datetime.now(UTC)
        model, _, version = endpoint.id.partition(":")
        self._terms[job] = Terms(
            model=model,
            version=version or ("hidden" if account.index % 2 else None),
            given=given,
            created=now,
            hidden_until=time.monotonic() + (life_s or _LONGEST_S * self._world.time_scale),
            deadline=None if life_s is None else now + timedelta(seconds=life_s),
        )
        self._world.accept(job, wish, _failure(endpoint, wish, strike))
        self._world.spawn(self._end_in_time(job, life_s or _LONGEST_S * self._world.time_scale))
        if webhook is not None:
            self._world.spawn(self._webhooks.deliver(job, webhook, events, self.shown))
        return job, wait_s

    async def _end_in_time(self, job: Job, seconds: float) -> None:
        """Stop a prediction at its deadline: unpaid if it never started, else for the time it ran."""
        await _finished(job, seconds)
        if job.state in {"queued", "running"}:
            await self._stop(job, aborted=job.state == "queued")

    async def _stop(self, job: Job, *, aborted: bool = False) -> None:
        """End the work; what ran by the second is paid for so far, and a picture that was not drawn is not."""
        assert job.task is not None
        self._terms[job].aborted = aborted
        job.state = "cancelled"
        job.task.cancel()
        await job.finished.wait()
        if job.started_at is not None and job.endpoint.by_the_second:
            job.machine_ns = round(job.machine_s * 1e9)
            self._world.bill(job)

    async def _read(self, request: web.Request, account: Account) -> web.StreamResponse:
        job = self._job(request, account)
        if self._hides(job):
            if job.strike.status is not None and job.strike.hits("status"):
                return problem(job.strike.status, "Temporarily unavailable")
            disturbed = await wire.disturb(request, job.strike, "status", self._world.closing)
            if disturbed is None and job.state == "done":
                disturbed = await wire.disturb(request, job.strike, "result", self._world.closing)
            if disturbed is not None:
                return disturbed
        whole = answer(self.shown(job))
        if job.strike.do == "truncate" and job.strike.args.json and job.state == "done":
            return await wire.send(request, whole, job.strike)
        return whole

    async def _list(self, request: web.Request, account: Account) -> web.StreamResponse:
        """Predictions of the account, newest first."""
        after = request.query.get("created_after")
        start = datetime.fromisoformat(after) if after else datetime.min.replace(tzinfo=UTC)
        mine = [job for job in self._world.jobs.values() if job.account is account and job in self._terms]
        found = [job for job in reversed(mine) if self._terms[job].created >= start]
        cursor = request.query.get("cursor", "0")
        first = int(cursor) if cursor.isdecimal() else 0
        more = first + _PAGE < len(found)
        following = f"{self._root()}/predictions?cursor={first + _PAGE}" + (f"&created_after={after}" if after else "")
        page = [self.shown(job) for job in found[first : first + _PAGE]]
        return answer({"previous": None, "next": following if more else None, "results": page})

    async def _cancel(self, request: web.Request, account: Account) -> web.StreamResponse:
        job = self._job(request, account)
        if job.state in {"queued", "running"}:
            await self._stop(job)
        return answer(self.shown(job))

    def _job(self, request: web.Request, account: Account) -> Job:
        job = self._world.jobs.get(request.match_info["id"])
        if job is None or job.account is not account or job not in self._terms:
            raise Refusal(problem(404, _NOT_FOUND))
        return job

    def _hides(self, job: Job) -> bool:
        return time.monotonic() < self._terms[job].hidden_until

    def _expired(self, job: Job) -> bool:
        if job.ended_at is None:
            return False
        return datetime.now(UTC) - job.ended_at > timedelta(seconds=_KEPT_S * self._world.time_scale)

    def shown(self, job: Job) -> dict[str, object]:
        """A prediction as everybody is told of it."""
        terms, gone = self._terms[job], self._expired(job)
        ended = job.state in {"done", "cancelled"} and not (job.mute and self._hides(job))
        base = f"{self._root()}/predictions/{job.id}"
        body: dict[str, object] = {
            "id": job.id,
            "model": terms.model,
            "version": terms.version,
            "input": {} if gone else terms.given,
            "logs": "" if gone or job.wish is None else f"Using seed: {job.wish.seed}\n",
            "output": None,
            "data_removed": gone,
            "error": None,
            "source": "api",
            "status": self._status(job, ended=ended),
            "created_at": _moment(terms.created),
            "started_at": _moment(job.started_at),
            "completed_at": _moment(job.ended_at) if ended else None,
            "urls": {"get": base, "cancel": f"{base}/cancel", "web": f"https://replicate.com/p/{job.id}"},
            "metrics": {},
        }
        if terms.deadline is not None:
            body["deadline"] = _moment(terms.deadline)
        return body | self._end(job, terms, gone=gone) if ended else body

    def _end(self, job: Job, terms: Terms, *, gone: bool) -> dict[str, object]:
        """What is told of a prediction that has ended."""
        metrics: dict[str, object] = {"total_time": round(_seconds(terms.created, job.ended_at), 6)}
        if job.started_at is not None:
            metrics["predict_time"] = job.machine_s
        if job.failure is not None and job.state == "done":
            return {"error": job.failure.message, "metrics": metrics}
        if job.state != "done":
            return {"metrics": metrics}
        metrics["image_count"] = len(job.scenes)
        if gone:
            return {"metrics": metrics}
        urls = [self._where(job, number) for number in range(len(job.scenes))]
        alone = job.endpoint.max_count == 1 and len(urls) == 1
        return {"output": urls[0] if alone else urls, "metrics": metrics}

    def _status(self, job: Job, *, ended: bool) -> str:
        if not ended:
            return "starting" if job.state == "queued" else "processing"
        if job.state == "cancelled":
            return "aborted" if self._terms[job].aborted else "canceled"
        return "succeeded" if job.failure is None else "failed"

    def _where(self, job: Job, number: int) -> str:
        if job.links:
            return f"{self._world.url}/replicate/delivery/{job.links[number]}"
        picture = shortened(job.pictures[number], job.strike)
        return f"data:image/{job.scenes[number].format};base64,{base64.b64encode(picture).decode()}"

    async def _file(self, request: web.Request) -> web.StreamResponse:
        """Serve a result to anybody; a key sent here is a key given away."""
        kept = self._world.files.get(request.match_info["name"])
        if kept is None or kept[0].account.seller != "replicate" or self._expired(kept[0]):
            return problem(404, _NOT_FOUND)
        if "Authorization" in request.headers:
            kept[0].account.stats.leaked_keys += 1
        return await send_file(request, self._world, *kept)

    async def _upload(self, request: web.Request, account: Account) -> web.StreamResponse:
        """Take a file to be named as an input later."""
        content = (await request.post()).get("content")
        if not isinstance(content, web.FileField):
            return problem(422, "- content: a file is required\n", title="Input validation failed")
        data = await asyncio.to_thread(content.file.read)
        file_id = wire.fingerprint(self._world.seed, len(self._world.uploads), account.name, data)
        url = f"{self._root()}/files/{file_id}"
        self._world.uploads[url] = data
        body = {"id": file_id, "name": content.filename, "content_type": content.content_type, "size": len(data)}
        now = datetime.now(UTC)
        moments = {"created_at": _moment(now), "expires_at": _moment(now + timedelta(days=1))}
        return answer({**body, **moments, "etag": file_id, "checksums": {}, "metadata": {}, "urls": {"get": url}}, 201)

    async def _account(self, _request: web.Request, account: Account) -> web.Response:
        url = f"https://github.com/{account.name}"
        return answer({"type": "organization", "username": account.name, "name": account.name, "github_url": url})

    async def _hardware(self, _request: web.Request, _account: Account) -> web.Response:
        known = {"cpu": "CPU", "gpu-t4": "Nvidia T4 GPU", "gpu-l40s": "Nvidia L40S GPU", "gpu-h100": "Nvidia H100 GPU"}
        return answer([{"name": name, "sku": sku} for sku, name in known.items()])

    async def _secret(self, _request: web.Request, _account: Account) -> web.Response:
        return answer({"key": SECRET})

    async def _model(self, request: web.Request, _account: Account) -> web.Response:
        model, version = "{owner}/{name}".format(**request.match_info), request.match_info.get("version")
        if (f"{model}:{version}" if version else model) not in {
            *REPLICATE,
            *(name.partition(":")[0] for name in REPLICATE),
        } or not self._world.sells("replicate", model):
            return problem(404, _NOT_FOUND)
        owner, _, name = model.partition("/")
        return answer({"id": version} if version else {"owner": owner, "name": name, "visibility": "public"})

    def _root(self) -> str:
        return f"{self._world.url}/replicate/v1"


def _endpoint(request: web.Request, body: Mapping[str, object]) -> Endpoint:
    """The model that is asked for: by its path, or by its version in the body."""
    if "owner" in request.match_info:
        endpoint = REPLICATE.get("{owner}/{name}".format(**request.match_info))
        if endpoint is None:
            raise Refusal(problem(404, _NOT_FOUND))
        return endpoint
    version = body.get("version")
    for name, endpoint in REPLICATE.items():
        if version in {name, name.partition(":")[2] or name}:
            return endpoint
    words = "The specified version does not exist (or perhaps you don't have permission to use it?)"
    raise Refusal(problem(422, words, title="Invalid version or not permitted"))


def _throttle(account: Account, behind: float) -> None:
    if account.take_token(time.monotonic(), behind):
        return
    account.reject("rate")
    wait = max(1, round((1 - account.bucket.peek(time.monotonic())) / account.bucket.rate))
    raise Refusal(_throttled(_LOW if account.low else _THROTTLED, wait))


def _throttled(words: str, wait: int) -> web.Response:
    return answer({"detail": words.format(wait=wait), "status": 429, "retry_after": wait}, 429)


def _strike_at_once(request: web.Request, account: Account, strike: Strike) -> None:
    if strike.do == "reset" and strike.at == "submit":
        raise wire.drop(request)
    if strike.status is None or not strike.hits("submit"):
        return
    account.reject(strike.do)
    words = _BROKE if strike.status == 402 else "Scripted failure."
    if strike.args.retry_after is not None:
        raise Refusal(problem(strike.status, words, retry_after=strike.args.retry_after))
    raise Refusal(problem(strike.status, words))


def _failure(endpoint: Endpoint, wish: Wish, strike: Strike) -> Failure | None:
    """How the work ends when not with pictures."""
    if wish.unsafe or strike.do == "refuse":
        return Failure(200, "nsfw", _ALL_UNSAFE if endpoint.open_weights else _FLAGGED)
    if strike.status is not None and strike.at == "result":
        return Failure(200, "error", _CRASHED)
    return None


def _prefer(request: web.Request) -> float | None:
    """Seconds the caller wants to wait for the end; None: not at all."""
    asked = request.headers.get("Prefer")
    if asked is None:
        return None
    match = _PREFER.fullmatch(asked)
    if match is None:
        raise Invalid("Prefer", "pattern", "Does not match pattern '^wait(=([1-9]|[1-9][0-9]|60))?$'")
    return float(match[1] or _WAIT_S)


def _life(request: web.Request) -> float | None:
    """Seconds until the prediction is to be stopped; None: no such wish."""
    asked = request.headers.get("Cancel-After")
    if asked is None:
        return None
    match = _DURATION.fullmatch(asked)
    seconds = (
        0
        if match is None
        else sum(int(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True))
    )
    if seconds < _LEAST_LIFE_S:
        raise Invalid("Cancel-After", "duration", "Must be a duration of at least 5 seconds")
    return float(seconds)


def _input(body: Mapping[str, object]) -> dict[str, object]:
    given = body.get("input")
    if not isinstance(given, dict):
        raise Invalid("input", "required", "input is required")
    return given


def _webhook(body: Mapping[str, object]) -> tuple[str | None, Sequence[str]]:
    url, events = body.get("webhook"), body.get("webhook_events_filter", ["start", "output", "logs", "completed"])
    if url is None:
        return None, ()
    if not isinstance(url, str) or not url.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        raise Invalid("webhook", "format", "Must be an HTTPS URL")
    if not isinstance(events, list) or not set(map(str, events)) <= {"start", "output", "logs", "completed"}:
        raise Invalid("webhook_events_filter", "enum", "Must be some of start, output, logs, completed")
    return url, [str(event) for event in events]


def read_wish(
    given: Mapping[str, object],
    endpoint: Endpoint,
    drawn_seed: int,
    uploads: Mapping[str, bytes] = MappingProxyType({}),
) -> Wish:
    """What the caller asks for; raises `Invalid` naming the field that is wrong. `uploads` are files by address."""
    inputs, mask = read_inputs(given, endpoint, uploads)
    if endpoint.tolerance:
        fields.integer(given, "safety_tolerance", (0, 6))
    if endpoint.guidance is not None:
        fields.number(given, "guidance", endpoint.guidance)
    fields.integer(given, "output_quality", (0, 100))
    formats = [name for name, form in _FORMATS.items() if form in endpoint.formats]
    named = fields.choice(given, "output_format", formats, formats[0])
    steps = None if endpoint.steps is None else fields.integer(given, "num_inference_steps", endpoint.steps)
    count = fields.integer(given, "num_outputs", (1, endpoint.max_count)) if endpoint.max_count > 1 else 1
    seed = fields.integer(given, "seed")
    return Wish(
        prompt="" if endpoint.cuts_out else fields.text(given, "prompt"),
        size=(inputs[0].width, inputs[0].height) if endpoint.as_input else _size(given, endpoint),
        count=count or 1,
        format=_FORMATS[named],
        seed=drawn_seed if seed is None else seed,
        steps=steps,
        inputs=inputs,
        mask=mask,
    )


def _size(given: Mapping[str, object], endpoint: Endpoint) -> Size:
    """The size painted: a ratio by name (and megapixels), a size by name, or any on the model's grid."""
    sizes, shapes = endpoint.sizes, endpoint.shapes
    if not shapes and sizes.named:
        return sizes.named[fields.choice(given, "size", sizes.named, next(iter(sizes.named)))]
    if not shapes:
        return sizes.snap(_sides(given))
    names = {name.partition(" ")[0]: None for name in shapes}
    if not sizes.named:
        names["custom"] = None
    ratio = fields.choice(given, "aspect_ratio", names, "1:1")
    if ratio == "custom":
        return sizes.snap(_sides(given))
    megapixels = [name.partition(" ")[2] for name in shapes if name.startswith(f"{ratio} ")]
    if not megapixels:
        return shapes[ratio]
    return shapes[f"{ratio} {fields.choice(given, 'megapixels', megapixels, '1')}"]


def _sides(given: Mapping[str, object]) -> Size:
    width, height = (fields.integer(given, side, (1, 10_000)) for side in ("width", "height"))
    return width or 1024, height or 1024


async def _finished(job: Job, seconds: float) -> None:
    """Wait for the end of the work, at most so long."""
    try:
        async with asyncio.timeout(seconds):
            await job.finished.wait()
    except TimeoutError:
        return


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")


def _seconds(start: datetime, end: datetime | None) -> float:
    return 0.0 if end is None else (end - start).total_seconds()


def _invalid(fault: Invalid) -> web.Response:
    where = fault.field if fault.field in {"input", "webhook", "Prefer", "Cancel-After"} else f"input.{fault.field}"
    wrong = [{"type": fault.kind, "field": where, "description": fault.message}]
    return problem(422, f"- {where}: {fault.message}\n", title="Input validation failed", invalid_fields=wrong)


def problem(status: int, words: str, *, title: str | None = None, **more: object) -> web.Response:
    """Replicate's error body."""
    body = (
        {"title": title, "detail": words, "status": status, **more}
        if title
        else {"detail": words, "status": status, **more}
    )
    return answer(body, status)
