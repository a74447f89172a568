"""Our own GPU servers' twins: one path each, `/selfhosted/machines/NAME`, each in the dialect of a real server.

What bites in the real ones bites here: what SGLang draws with whatever it has loaded, what sd-server reads only inside
the prompt, the sizes that aquiles-image draws on their side. Beside its own paths every machine keeps a log at
`/v1/usage`, as our own worker would: attempt, model, seconds and time of every order it finished.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
from aiohttp import web

from providers.sandbox import fields, wire
from providers.sandbox.accounts import KEY_PREFIX, Account
from providers.sandbox.endpoints import read_size, selfhosted
from providers.sandbox.fal import shortened
from providers.sandbox.faults import Args, Strike
from providers.sandbox.fields import Invalid
from providers.sandbox.jobs import Job, Wish, worker_failure
from providers.sandbox.machines import OTHER_MODEL, Machine
from providers.sandbox.selfhosted import UNSAFE, error, struck_at_once
from providers.sandbox.wire import answer
from providers.sandbox.world import World

Body = Mapping[str, object]

_ATTEMPT = "x-pixelgate-attempt"
_EXTRA = re.compile(r"<sd_cpp_extra_args>(.*?)</sd_cpp_extra_args>")
_AQUILES_SIZES = ("256x256", "512x512", "1024x1024", "1536x1024", "1024x1536", "1792x1024", "1024x1792")
_FOREIGN = "https://pictures.example.com/0.png"


class MachineTwin:
    """Everything under `/selfhosted/machines`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Put the twins' paths into the application."""
        root = "/selfhosted/machines/{machine}"
        router.add_post(f"{root}/v1/images/generations", self._generate)
        router.add_get(f"{root}/v1/models", self._models)
        router.add_get(f"{root}/sdcpp/v1/capabilities", self._capabilities)
        router.add_get(f"{root}/v1/usage", self._usage)
        for path in ("health", "metrics", "stats"):
            router.add_get(f"{root}/{path}", self._tell)

    def _machine(self, request: web.Request) -> Machine:
        machine = self._world.machine(request.match_info["machine"])
        if machine.state == "killed":
            raise wire.drop(request)
        return machine

    def _account(self, request: web.Request) -> Account:
        key = request.headers.get("Authorization", "").partition(" ")[2]
        return self._world.account("selfhosted", key.removeprefix(KEY_PREFIX) or "default")

    async def _models(self, request: web.Request) -> web.Response:
        machine = self._machine(request)
        if machine.dialect == "sd-server":
            return answer({"data": [{"id": "sd-cpp-local", "object": "model", "owned_by": "local"}]})
        models = [{"id": model, "object": "model", "created": 0, "owned_by": "own"} for model in _loaded(machine)]
        return answer({"object": "list", "data": models})

    async def _capabilities(self, request: web.Request) -> web.Response:
        machine = self._machine(request)
        if machine.dialect != "sd-server":
            return answer({"detail": "Not Found"}, 404)
        model = _loaded(machine)[0]
        return answer({"model": {"name": f"{model}.gguf", "stem": model, "path": f"/models/{model}.gguf"}})

    async def _tell(self, request: web.Request) -> web.Response:
        """Health and load, where the dialect has them."""
        machine, path = self._machine(request), request.path.rpartition("/")[2]
        running = machine.gate.running + machine.unanswered
        match machine.dialect, path:
            case "openai", "health":
                return answer({"status": "ok", "running": running, "queued": machine.gate.waiting})
            case (("sglang" | "vllm-omni" | "aquiles-image"), "health"):
                return answer({"status": "ok"})
            case "sglang", "metrics":
                return web.Response(text=f'sglang:http_requests_active{{path="/v1/images"}} {machine.busy}.0\n')
            case "vllm-omni", "metrics":
                page = f'vllm_omni:num_requests_running{{model_name="m"}} {running}.0\n'
                return web.Response(
                    text=f'{page}vllm_omni:num_requests_waiting{{model_name="m"}} {machine.gate.waiting}.0\n'
                )
            case "aquiles-image", "stats":
                return answer({"queued": machine.gate.waiting, "processing": running, "available": True})
            case _:
                return answer({"detail": "Not Found"}, 404)

    async def _usage(self, request: web.Request) -> web.Response:
        machine, account = self._machine(request), self._account(request)
        since = datetime.fromisoformat(request.query["since"])
        orders = [
            {
                "attempt": line.attempt,
                "model": line.model,
                "gpu_seconds": line.machine_ns / 1e9,
                "images": line.pictures,
                "at": line.at.isoformat(),
            }
            for line in self._world.book.lines
            if line.machine == machine.name and line.account == account.name and line.at >= since and line.reported
        ]
        return answer({"orders": orders})

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        machine, account = self._machine(request), self._account(request)
        started = self._start(request, machine, account, await request.read())
        if isinstance(started, web.Response):
            return started
        if machine.state == "hanging":
            raise await wire.hold(request, self._world.closing)
        if started.strike.do == "late_accept" and started.strike.args.answer_after_s is None:
            raise wire.drop(request)
        await started.finished.wait()
        return await self._answer(request, machine, started)

    def _start(self, request: web.Request, machine: Machine, account: Account, raw: bytes) -> Job | web.Response:
        body = wire.read_object(raw)
        if body is None:
            return error(400, "no JSON object")
        model = _drawn_with(machine, body)
        strike = self._world.submission(request, account, model, raw)
        turned_away = struck_at_once(request, account, strike) or _refused_model(machine, body, account)
        if turned_away is not None:
            return turned_away
        endpoint = selfhosted(model)
        try:
            wish = _wish(machine, body, self._world.drawn_seed(account))
        except Invalid as fault:
            account.reject("invalid")
            return error(fault_status(machine), f"{fault.field}: {fault.message}", param=fault.field)
        if wish.unsafe or strike.do == "refuse":
            account.reject("refused")
            return error(400, UNSAFE, code="content_policy_violation")
        job = Job(self._world.new_id(account), account, endpoint, machine.price, _lying(machine, strike))
        job.gate, job.machine, job.attempt = machine.gate, machine.name, request.headers.get(_ATTEMPT, "")
        if machine.state == "hanging":
            machine.unanswered += 1
            return job
        self._world.accept(job, _lied(machine, wish), worker_failure(strike))
        if job.task is not None:
            machine.at_work.add(job.task)
            job.task.add_done_callback(machine.at_work.discard)
            job.task.add_done_callback(lambda _: _over(job))
        return job

    async def _answer(self, request: web.Request, machine: Machine, job: Job) -> web.StreamResponse:
        strike = job.strike
        if job.state != "done" or machine.state == "killed":
            raise wire.drop(request)
        if job.failure is not None:
            return error(job.failure.status, job.failure.message)
        for at in ("submit", "result"):
            disturbed = await wire.disturb(request, strike, at, self._world.closing)
            if disturbed is not None:
                return disturbed
        return await wire.send(request, answer(_told(machine, job), headers={"x-request-id": job.id}), strike)


def _over(job: Job) -> None:
    """A machine that is killed takes along orders whose work has not even begun, and so never ends by itself."""
    if not job.finished.is_set():
        job.account.in_flight -= 1
        job.finished.set()


def _loaded(machine: Machine) -> Sequence[str]:
    return (OTHER_MODEL,) if "model" in machine.lies else machine.models


def _drawn_with(machine: Machine, body: Body) -> str:
    """The model an order is drawn with: the one asked for where a server holds several, else the one it has."""
    asked, loaded = str(body.get("model", "")), _loaded(machine)
    return asked if asked in loaded else loaded[0]


def _refused_model(machine: Machine, body: Body, account: Account) -> web.Response | None:
    """SGLang and sd-server draw with what they have and say nothing."""
    if machine.dialect in {"sglang", "sd-server"} or body.get("model") in _loaded(machine):
        return None
    account.reject("model")
    if machine.dialect == "aquiles-image":
        return answer({"detail": f"Model not available: {body.get('model')}"}, 503)
    return error(400, f"model: this server has {', '.join(_loaded(machine))}", param="model")


def fault_status(machine: Machine) -> int:
    """The status for a field that is wrong."""
    return 422 if machine.dialect == "aquiles-image" else 400


def _wish(machine: Machine, body: Body, drawn_seed: int) -> Wish:
    """What the caller asks for in the server's own words, with its own defaults where it says nothing."""
    prompt, words = fields.text(body, "prompt"), body
    steps_default: int | None = None
    formats: tuple[str, ...] = ("png", "jpeg", "webp")
    format_default = "png"
    if machine.dialect == "sd-server":
        prompt, words = _extra(prompt)
    elif machine.dialect == "aquiles-image":
        words, formats = {"num_inference_steps": machine.steps, "seed": 42}, ("png", "jpeg")
    elif machine.dialect == "sglang":
        steps_default, format_default = 50, "jpeg"
    if machine.dialect == "vllm-omni":
        fields.choice(body, "response_format", ("b64_json", "file"), "b64_json")
        fields.number(body, "guidance_scale", (0, 20))
    seed, steps = fields.integer(words, "seed"), fields.integer(words, "num_inference_steps", (1, 200))
    return Wish(
        prompt=prompt,
        size=_size(machine, body),
        count=fields.integer(body, "n", (1, 10)) or 1,
        format=fields.choice(body, "output_format", formats, format_default),
        seed=drawn_seed if seed is None else seed,
        steps=steps_default if steps is None else steps,
        inline=True,
    )


def _extra(prompt: str) -> tuple[str, Body]:
    """The prompt of an sd-server without the JSON inside it, and what that says in everybody's words."""
    found = _EXTRA.search(prompt)
    said = msgspec.json.decode(found[1], type=dict[str, object]) if found else {}
    sample = said.get("sample_params")
    steps = sample.get("sample_steps") if isinstance(sample, dict) else None
    words = {"seed": said.get("seed"), "num_inference_steps": steps}
    return _EXTRA.sub("", prompt), {name: value for name, value in words.items() if value is not None}


def _size(machine: Machine, body: Body) -> tuple[int, int]:
    width, height = body.get("width"), body.get("height")
    if isinstance(width, int) and isinstance(height, int):
        return width, height
    text = fields.text(body, "size", "1024x1024")
    size = read_size(text)
    if size is None or (machine.dialect == "aquiles-image" and text not in _AQUILES_SIZES):
        raise Invalid("size", "invalid_value", "give width x height, as in '1024x1024'")
    return (size[1], size[0]) if machine.dialect == "aquiles-image" else size


def _lying(machine: Machine, strike: Strike) -> Strike:
    """A lie about size or count is drawn as the fault of that name."""
    for lie, fault in (("size", "wrong_size"), ("count", "wrong_count")):
        if lie in machine.lies:
            return Strike(fault, Args())
    return strike


def _lied(machine: Machine, wish: Wish) -> Wish:
    """What is really drawn."""
    if "seed" in machine.lies:
        wish = msgspec.structs.replace(wish, seed=wish.seed + 1_000)
    if "format" in machine.lies:
        wish = msgspec.structs.replace(wish, format="jpeg" if wish.format == "png" else "png")
    return wish


def _told(machine: Machine, job: Job) -> dict[str, object]:
    """The answer in the server's own shape; real servers round their seconds less than they measure them."""
    seconds = job.machine_ns / 1e9
    data: list[dict[str, object]] = []
    for picture, scene in zip(job.pictures, job.scenes, strict=True):
        item: dict[str, object] = {"b64_json": base64.b64encode(shortened(picture, job.strike)).decode()}
        if "url" in machine.lies:
            item = {"url": _FOREIGN}
        if machine.dialect == "openai":
            item["seed"] = scene.seed
        data.append(item)
    told: dict[str, object] = {"created": int(time.time()), "data": data}
    match machine.dialect:
        case "openai":
            told |= {"id": job.id, "model": job.endpoint.id, "metrics": {"gpu_seconds": seconds}}
        case "sglang":
            told |= {"id": job.id, "inference_time_s": seconds, "peak_memory_mb": 24_000.0}
        case "vllm-omni":
            told |= {"metrics": {"stage_durations": {"diffuse": seconds}, "peak_memory_mb": 24_000.0}}
        case "sd-server" | "aquiles-image":
            pass
    if "answer_model" in machine.lies:
        told["model"] = OTHER_MODEL
    return told
