"""How each kind of image server is spoken to: one endpoint for all, and differences that bite.

    name            server (version looked at)        what bites
    openai          any other server of that shape    nothing is assumed; doctor and the bytes of its answers decide
    sglang          SGLang Diffusion 0.5.23           draws with whatever it has loaded, JPEG and 50 steps unless told
    vllm-omni       vLLM-Omni 0.30                    its seconds: only with --enable-diffusion-pipeline-profiler
    sd-server       stable-diffusion.cpp (2026-08)    seed, steps and guidance only inside the prompt
    aquiles-image   aquiles-image 0.8.3               three sizes; draws with steps, seed and guidance of its start

Every order says size, steps, seed, guidance and format in full, for servers draw with defaults of their own. A server
that would ignore what an order says is not given it (`objection`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from providers.contract import Order
from providers.errors import Unsupported
from providers.picture import format_of, steps_of

Name: TypeAlias = Literal["openai", "sglang", "vllm-omni", "sd-server", "aquiles-image"]
Fields: TypeAlias = dict[str, object]

_TAG: Final = "sd_cpp_extra_args"
"""Between `<...>` and `</...>` with this name, sd-server looks for JSON inside a prompt."""
_AQUILES_SIZES: Final = frozenset({"256x256", "512x512", "1024x1024"})
"""It takes four more and draws them on their side: 1536x1024 comes as 1024x1536 (`parse_size` of 0.8.3)."""
_MOST_PICTURES: Final = 10


class Dialect(Struct, frozen=True, kw_only=True):
    """One kind of server."""

    write: Callable[[Order, str], Fields]
    """The body of an order, for the model under the server's own name of it."""
    ignores: frozenset[str] = frozenset()
    """What it accepts without effect, or has no words for."""
    sizes: frozenset[str] | None = None
    """The only sizes it draws."""
    ready: str = ""
    """A path that answers 200 once it can draw; it has none where this is empty."""
    models: str = "/v1/models"
    """Where it says what it has loaded."""
    names_models: bool = True
    """Whether it says so under names that people choose."""
    load: str = ""
    """Where it says how much it has to do; nowhere when empty."""
    read_load: Callable[[bytes], int | None] = lambda _: None
    """Orders it has taken and not finished, from what `load` answers; None where that does not say."""


def objection(dialect: Dialect, order: Order, steps: int | None) -> str | None:
    """Why a server of this kind cannot draw exactly what is ordered; `steps` are those it was started with."""
    asked, size = order.request, f"{order.request.width}x{order.request.height}"
    if dialect.sizes is not None and size not in dialect.sizes:
        return f"does not draw {size}"
    if asked.count > _MOST_PICTURES:
        return f"draws at most {_MOST_PICTURES} pictures at once"
    says = {name for name, value in _wanted(order).items() if value is not None} | ({"loras"} if asked.loras else set())
    ignored = says & dialect.ignores
    if steps is not None and steps_of(order) in (None, steps):
        ignored -= {"num_inference_steps"}
    return f"ignores {' and '.join(sorted(ignored))}" if ignored else None


def _wanted(order: Order) -> Fields:
    """What goes beyond OpenAI's own fields, under the names most servers have for it; None where there is nothing."""
    asked, able = order.request, order.abilities
    return {
        "seed": asked.seed if able.seed else None,
        "num_inference_steps": steps_of(order),
        "guidance_scale": (able.fixed.get("guidance_scale") if asked.guidance is None else asked.guidance)
        if able.guidance
        else None,
        "negative_prompt": asked.negative_prompt if able.negative_prompt else None,
    }


def _openai(order: Order, model: str) -> Fields:
    """OpenAI's own fields, and the usual names for what OpenAI has none for."""
    asked, able = order.request, order.abilities
    fields: Fields = {
        "model": model,
        "prompt": asked.prompt,
        "n": asked.count,
        "response_format": "b64_json",
        "output_format": format_of(order),
    }
    if able.size_dialect == "width_height":
        fields["width"], fields["height"] = asked.width, asked.height
    else:
        fields["size"] = f"{asked.width}x{asked.height}"
    wanted = _wanted(order)
    wanted["background"] = "transparent" if asked.transparent and able.transparent else None
    wanted["loras"] = [{"path": lora.path, "scale": lora.scale} for lora in asked.loras] or None
    fields.update(able.fixed)
    fields.update([(name, value) for name, value in wanted.items() if value is not None])
    return fields


def _vllm_omni(order: Order, model: str) -> Fields:
    fields = _openai(order, model)
    loras = order.request.loras
    if len(loras) > 1:
        raise Unsupported("vLLM-Omni takes one LoRA per order")
    if fields.pop("loras", None):
        fields["lora"] = {"name": loras[0].path, "path": loras[0].path, "scale": loras[0].scale}
    return fields


def _sd_server(order: Order, _model: str) -> Fields:
    """Seed, steps and guidance travel as JSON inside the prompt, so no caller may write such a part of his own."""
    asked, able, wanted = order.request, order.abilities, _wanted(order)
    if _TAG in asked.prompt or _TAG in (asked.negative_prompt or ""):
        raise Unsupported(f"a prompt with {_TAG} in it would give orders of its own")
    sample: Fields = {}
    if wanted["num_inference_steps"] is not None:
        sample["sample_steps"] = wanted["num_inference_steps"]
    if wanted["guidance_scale"] is not None:
        sample["guidance"] = {"distilled_guidance": wanted["guidance_scale"]}
    extra: Fields = {name: value for name, value in able.fixed.items() if name != "guidance_scale"}
    extra |= {name: wanted[name] for name in ("seed", "negative_prompt") if wanted[name] is not None}
    if sample:
        extra["sample_params"] = sample
    return {
        "prompt": f"{asked.prompt}<{_TAG}>{msgspec.json.encode(extra).decode()}</{_TAG}>",
        "n": asked.count,
        "size": f"{asked.width}x{asked.height}",
        "output_format": format_of(order),
    }


def _aquiles(order: Order, model: str) -> Fields:
    asked = order.request
    return {
        "model": model,
        "prompt": asked.prompt,
        "n": asked.count,
        "size": f"{asked.width}x{asked.height}",
        "response_format": "b64_json",
        "output_format": format_of(order),
    }


def _gauges(*names: str) -> Callable[[bytes], int | None]:
    """Add up gauges of a Prometheus page."""

    def read(page: bytes) -> int | None:
        found = [
            float(line.rpartition(" ")[2])
            for line in page.decode(errors="replace").splitlines()
            if line.startswith(names) and line.rpartition(" ")[2].replace(".", "", 1).isdigit()
        ]
        return round(sum(found)) if found else None

    return read


def _counts(*names: str) -> Callable[[bytes], int | None]:
    """Add up numbers of a JSON object."""

    def read(page: bytes) -> int | None:
        try:
            said = msgspec.json.decode(page, type=dict[str, object])
        except msgspec.MsgspecError:
            return None
        found = [value for name in names if isinstance(value := said.get(name), int)]
        return sum(found) if len(found) == len(names) else None

    return read


DIALECTS: Final[Mapping[Name, Dialect]] = {
    "openai": Dialect(write=_openai, load="/health", read_load=_counts("running", "queued")),
    "sglang": Dialect(
        write=_openai,
        ignores=frozenset({"loras"}),
        ready="/health",
        load="/metrics",
        read_load=_gauges("sglang:http_requests_active"),
    ),
    "vllm-omni": Dialect(
        write=_vllm_omni,
        ready="/health",
        load="/metrics",
        read_load=_gauges("vllm_omni:num_requests_running", "vllm_omni:num_requests_waiting"),
    ),
    "sd-server": Dialect(
        write=_sd_server, ignores=frozenset({"loras"}), models="/sdcpp/v1/capabilities", names_models=False
    ),
    "aquiles-image": Dialect(
        write=_aquiles,
        ignores=frozenset({"seed", "num_inference_steps", "guidance_scale", "negative_prompt", "loras"}),
        sizes=_AQUILES_SIZES,
        ready="/health",
        load="/stats",
        read_load=_counts("queued", "processing"),
    ),
}
