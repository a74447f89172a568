"""A generation body, field by field: what OpenAI documents today and our extensions. Pure functions.

Nothing a caller says is dropped in silence: a field is understood, or documented as accepted without effect (`style`,
`complexity`), or refused with 400. `null` means the default. Extensions may also come as `x-pixelgate-*` headers,
for clients that drop fields they do not know; the header wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import msgspec
from msgspec import Struct

from gateway.errors import InvalidRequest
from gateway.http.bodies import decode_object
from gateway.http.fields import (
    Fields,
    boolean,
    choice,
    dollars,
    hint,
    integer,
    mapping,
    number,
    refuse_unknown,
    shown,
    text,
    words,
    wrong_type,
)
from gateway.http.model_names import AUTO, Meaning, Names, allowed_models
from gateway.requests.call import Caller
from policies.policy import Intent, Quality, ResponseFormat
from policies.types import Constraints, Worth
from providers.contract import Format, ImageRequest, Lora, Safety

MAX_PROMPT = 32_000
MAX_COUNT = 10
MAX_SEED = 2**31 - 1
"""The smallest range among the sellers: signed 32 bits. The seeds we draw are below it, too."""
MAX_STEPS = 200
MAX_GUIDANCE = 100.0
SIDES = (16, 16_384)
"""Pixels; what is drawn within is for the offers to say."""
MAX_DEADLINE_MS = 600_000
"""Both official clients wait 600 s at most."""
MAX_LORAS = 16
MAX_TAGS = 16

QUALITIES: Mapping[str, Quality] = {word: word for word in get_args(Quality)}
FORMATS = ("png", "jpeg", "webp")
RESPONSE_FORMATS: Mapping[str, ResponseFormat] = {"url": "url", "b64_json": "b64_json", "base64": "b64_json"}
"""`base64` is Together's word."""
ALIASES: Mapping[str, str] = {"steps": "num_inference_steps", "guidance": "guidance_scale", "image_loras": "loras"}
OPENAI_FIELDS = frozenset(
    {
        "prompt", "model", "n", "size", "quality", "response_format", "output_format", "output_compression",
        "background", "style", "moderation", "stream", "partial_images", "user", "safety_identifier", "complexity",
        "frame_count", "frame_duration_ms", "svg",
    }
)  # fmt: skip
EXTENSIONS = frozenset(
    {
        "seed", "num_inference_steps", "guidance_scale", "negative_prompt", "width", "height", "loras", "intent",
        "max_cost", "deadline_ms", "providers", "tags", "parent",
    }
)  # fmt: skip
UNSUPPORTED: Mapping[str, str] = {
    "frame_count": "animated pictures are not drawn here",
    "frame_duration_ms": "animated pictures are not drawn here",
    "svg": "vector pictures are not drawn here",
    "image_url": "pictures are not drawn from other pictures here yet",
    "reference_images": "pictures are not drawn from other pictures here yet",
    "disable_safety_checker": "the safety check is for the gateway's policy to set",
    "enable_safety_checker": "the safety check is for the gateway's policy to set",
    "safety_tolerance": "the safety check is for the gateway's policy to set; send 'moderation' instead",
}
KNOWN = OPENAI_FIELDS | EXTENSIONS | ALIASES.keys() | UNSUPPORTED.keys()

HEADER_PREFIX = b"x-pixelgate-"
_SIZE = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", re.ASCII)
_INTEGER = re.compile(r"-?[0-9]{1,30}", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", re.ASCII)


class Wish(Struct, frozen=True, kw_only=True):
    """What a body asks for: everything of a call but who asks, and when."""

    request: ImageRequest
    constraints: Constraints
    worth: Worth
    intent: str
    model: str
    compression: int | None
    user: str | None
    safety_identifier: str | None
    tags: Mapping[str, str]
    parent: str | None
    response_format: ResponseFormat


def parse_generation(fields: Fields, names: Names, caller: Caller) -> Wish:
    """What a generation body asks for; raises `InvalidRequest`, `NotFound` (model), `Forbidden` (model)."""
    fields = canonical(fields)
    refuse_unsupported(fields)
    model = model_name(fields)
    meaning = names.meaning(model)
    intent = intent_of(fields, names)
    request = image_request(fields, names.policy.auto_size)
    safety_identifier = text(fields, "safety_identifier", 512)
    return Wish(
        request=request,
        constraints=constraints_of(fields, names, caller, meaning, intent),
        worth=intent.worth,
        intent=intent.name,
        model=model,
        compression=compression_of(fields, request.format),
        user=safety_identifier or text(fields, "user", 512) or None,
        safety_identifier=safety_identifier or None,
        tags=tags_of(fields),
        parent=text(fields, "parent", 100),
        response_format=response_format_of(fields, names, model),
    )


def canonical(fields: Fields) -> Fields:
    """The fields under their first names; raises for unknown ones, and for a field and its alias that disagree."""
    refuse_unknown(fields, KNOWN)
    used = ALIASES.keys() & fields.keys()
    if not used:
        return fields
    merged = {name: value for name, value in fields.items() if name not in ALIASES}
    for alias in sorted(used):
        name, value = ALIASES[alias], fields[alias]
        if value is not None and merged.get(name) not in (None, value):
            raise InvalidRequest(f"'{alias}' and '{name}' mean the same, but disagree. Send one of them.", param=alias)
        merged[name] = value if value is not None else merged.get(name)
    return merged


def refuse_unsupported(fields: Fields) -> None:
    """Raise for what OpenAI or other servers know and we do not do; checks fields that have no effect, too."""
    for name, why in UNSUPPORTED.items():
        if fields.get(name) is not None:
            raise InvalidRequest(f"Unsupported parameter: '{name}': {why}.", param=name, code="unsupported_parameter")
    if boolean(fields, "stream"):
        raise _unsupported("stream", "true", "Answers are not streamed yet; send false.")
    if integer(fields, "partial_images", 0, 3):
        raise _unsupported("partial_images", str(fields["partial_images"]), "Answers are not streamed yet; send 0.")
    if choice(fields, "background", ("auto", "opaque", "transparent")) == "transparent":
        raise _unsupported("background", "transparent", "Supported values are: 'auto', 'opaque'.")
    choice(fields, "style", ("vivid", "natural"))
    choice(fields, "complexity", ("low", "medium", "high"))


def model_name(fields: Fields) -> str:
    """The model as the caller named it; `auto` when not named."""
    return text(fields, "model", 200) or AUTO


def intent_of(fields: Fields, names: Names) -> Intent:
    """The intent asked for, in so many words or by quality."""
    policy = names.policy
    asked = choice(fields, "intent", policy.intents.keys())
    quality = choice(fields, "quality", QUALITIES.keys())
    if asked is not None:
        return policy.intents[asked]
    return policy.intent_of_quality(None if quality is None else QUALITIES[quality])


def image_request(fields: Fields, auto_size: tuple[int, int]) -> ImageRequest:
    """What to draw."""
    width, height = size_of(fields, auto_size)
    count = integer(fields, "n", 1, MAX_COUNT)
    return ImageRequest(
        prompt=prompt_of(fields),
        width=width,
        height=height,
        count=1 if count is None else count,
        format=format_of(fields),
        steps=integer(fields, "num_inference_steps", 1, MAX_STEPS),
        seed=integer(fields, "seed", 0, MAX_SEED),
        guidance=number(fields, "guidance_scale", 0.0, MAX_GUIDANCE),
        negative_prompt=text(fields, "negative_prompt", MAX_PROMPT) or None,
        loras=loras_of(fields),
        safety=safety_of(fields),
    )


def prompt_of(fields: Fields) -> str:
    """The prompt, which is the one field that must be there."""
    prompt = text(fields, "prompt", MAX_PROMPT)
    if prompt is None:
        raise InvalidRequest("Missing required parameter: 'prompt'.", param="prompt", code="missing_required_parameter")
    if not prompt.strip():
        raise InvalidRequest("Invalid 'prompt': it is blank. Say what to draw.", param="prompt")
    return prompt


def size_of(fields: Fields, auto_size: tuple[int, int]) -> tuple[int, int]:
    """Width and height in pixels, from `size` or from `width` and `height`."""
    size = optional_size(fields)
    width, height = integer(fields, "width", *SIDES), integer(fields, "height", *SIDES)
    if width is None and height is None:
        return size or auto_size
    if width is None or height is None:
        missing = "width" if width is None else "height"
        raise InvalidRequest(f"'width' and 'height' go together; '{missing}' is missing.", param=missing)
    if size not in (None, (width, height)):
        raise InvalidRequest(
            f"'size' ({fields['size']}) and 'width' x 'height' ({width}x{height}) disagree. Send one of them.",
            param="size",
        )
    return width, height


def optional_size(fields: Fields) -> tuple[int, int] | None:
    """Width and height that `size` names; None for `auto`."""
    size = text(fields, "size", 40)
    if size is None or size == "auto":
        return None
    match = _SIZE.fullmatch(size)
    if match is None:
        raise InvalidRequest(
            f"Invalid value for 'size': {shown(size)}. Expected 'auto' or WIDTHxHEIGHT in pixels such as '1024x1024'.",
            param="size",
        )
    width, height = int(match[1]), int(match[2])
    least, most = SIDES
    if min(width, height) < least or max(width, height) > most:
        raise InvalidRequest(
            f"Invalid value for 'size': {shown(size)}. Each side must be from {least} to {most} pixels.", param="size"
        )
    return width, height


def format_of(fields: Fields) -> Format:
    """The file format of the pictures."""
    match choice(fields, "output_format", (*FORMATS, "gif", "svg")):
        case "jpeg":
            return "jpeg"
        case "webp":
            return "webp"
        case "gif" | "svg" as other:
            raise _unsupported("output_format", other, "Supported values are: 'png', 'jpeg', 'webp'.")
        case _:
            return "png"


def compression_of(fields: Fields, fmt: Format) -> int | None:
    """Quality to encode with; 100 is what OpenAI documents as the default, so for png it means nothing special."""
    compression = integer(fields, "output_compression", 0, 100)
    if fmt != "png":
        return compression
    if compression not in (None, 100):
        raise InvalidRequest(
            f"'output_compression' {compression} needs 'output_format' 'jpeg' or 'webp'; png is always lossless.",
            param="output_compression",
        )
    return None


def safety_of(fields: Fields) -> Safety:
    """How strictly the seller should check, from OpenAI's `moderation`."""
    return "relaxed" if choice(fields, "moderation", ("auto", "low")) == "low" else "standard"


def loras_of(fields: Fields) -> tuple[Lora, ...]:
    """LoRA weights: `[{"path": ..., "scale": 1.0}]`."""
    value = fields.get("loras")
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_LORAS:
        raise wrong_type("loras", f"a list of at most {MAX_LORAS} objects such as {{'path': ..., 'scale': 1.0}}", value)
    return tuple(_lora(item, f"loras[{position}]") for position, item in enumerate(value))


def _lora(value: object, param: str) -> Lora:
    if not isinstance(value, dict):
        raise wrong_type(param, "an object such as {'path': ..., 'scale': 1.0}", value)
    refuse_unknown(value, ("path", "scale"), f"{param}.")
    path = text(value, "path", 2000, f"{param}.path")
    if not path:
        raise InvalidRequest(
            f"Missing required parameter: '{param}.path'.", param=f"{param}.path", code="missing_required_parameter"
        )
    scale = number(value, "scale", -4.0, 4.0, f"{param}.scale")
    return Lora(path=path, scale=1.0 if scale is None else scale)


def tags_of(fields: Fields) -> dict[str, str]:
    """The caller's own labels, for reports: at most 16 pairs of strings."""
    tags = mapping(fields, "tags") or {}
    if len(tags) > MAX_TAGS:
        raise InvalidRequest(f"Invalid 'tags': at most {MAX_TAGS} are kept, but got {len(tags)}.", param="tags")
    return {_tag_name(name): text(tags, name, 512, f"tags.{name[:64]}") or "" for name in tags}


def _tag_name(name: str) -> str:
    if not name or len(name) > 64:
        raise InvalidRequest(f"Invalid 'tags': {shown(name)} is not a name of 1 to 64 characters.", param="tags")
    return name


def response_format_of(fields: Fields, names: Names, model: str) -> ResponseFormat:
    """How pictures travel: as asked, else as apps that use this model name expect."""
    asked = choice(fields, "response_format", RESPONSE_FORMATS.keys())
    return names.policy.response_format_of(model) if asked is None else RESPONSE_FORMATS[asked]


def ceiling_of(fields: Fields, intent: Intent) -> int | None:
    """Nano-dollars one picture may cost: `max_cost` is for the whole request, shared evenly by its pictures."""
    asked, count = dollars(fields, "max_cost"), integer(fields, "n", 1, MAX_COUNT) or 1
    limits = [limit for limit in (intent.ceiling, None if asked is None else asked // count) if limit is not None]
    return min(limits, default=None)


def deadline_of(fields: Fields, intent: Intent) -> float:
    """Seconds from arrival after which nobody wants the answer."""
    asked = integer(fields, "deadline_ms", 1, MAX_DEADLINE_MS)
    return intent.deadline if asked is None else asked / 1000


def constraints_of(fields: Fields, names: Names, caller: Caller, meaning: Meaning, intent: Intent) -> Constraints:
    """What the caller will not give up: the intent's terms, narrowed by the key's and the body's."""
    sellers = _sellers(fields, names.sellers, meaning.seller)
    deadline = deadline_of(fields, intent)
    return msgspec.structs.replace(
        names.policy.constraints(intent),
        models=allowed_models(meaning, caller, names.catalog, intent.tier),
        slo=min(intent.slo, deadline),
        deadline=deadline,
        ceiling=ceiling_of(fields, intent),
        only=sellers.only,
        ignore=sellers.ignore,
        order=sellers.order,
        prefer=meaning.prefer,
    )


class _Sellers(NamedTuple):
    only: frozenset[str] | None
    ignore: frozenset[str]
    order: tuple[str, ...]


def _sellers(fields: Fields, known: frozenset[str], named: str | None) -> _Sellers:
    """`{"only": [], "ignore": [], "order": []}`, together with the provider that the model's suffix names."""
    asked = mapping(fields, "providers", ("only", "ignore", "order")) or {}
    lists = {name: words(asked, name, f"providers.{name}") or () for name in ("only", "ignore", "order")}
    for name, sellers in lists.items():
        for seller in sellers:
            if seller not in known:
                raise InvalidRequest(
                    f"Invalid 'providers.{name}': {shown(seller)} is no provider of this gateway."
                    f"{hint(seller, known)} Known are: {', '.join(sorted(known))}.",
                    param="providers",
                )
    only = frozenset(lists["only"]) or None
    if named is not None and only is not None and named not in only:
        raise InvalidRequest(
            f"'model' names the provider '{named}', which 'providers.only' leaves out. Send one of them.",
            param="providers",
        )
    return _Sellers(frozenset({named}) if named else only, frozenset(lists["ignore"]), lists["order"])


def with_headers(fields: dict[str, object], headers: Mapping[bytes, bytes]) -> dict[str, object]:
    """The fields, with those sent as `x-pixelgate-*` headers in place of the body's."""
    found = [name for name in headers if name.startswith(HEADER_PREFIX)]
    for header in found:
        name = header[len(HEADER_PREFIX) :].decode("latin-1").replace("-", "_")
        name = ALIASES.get(name, name)
        if name not in EXTENSIONS:
            known = [word.replace("_", "-") for word in (*EXTENSIONS, *ALIASES)]
            raise InvalidRequest(
                f"Unknown header: '{header.decode('latin-1')[:80]}'.{hint(name.replace('_', '-'), known)}",
                param=name[:80],
                code="unknown_parameter",
            )
        for alias in [alias for alias, meant in ALIASES.items() if meant == name]:
            fields.pop(alias, None)
        fields[name] = _header_value(name, headers[header])
    return fields


Shape = Literal["integer", "number", "json"]
_SHAPES: Mapping[str, Shape] = {
    "seed": "integer",
    "num_inference_steps": "integer",
    "width": "integer",
    "height": "integer",
    "deadline_ms": "integer",
    "guidance_scale": "number",
    "loras": "json",
    "providers": "json",
    "tags": "json",
}


def _header_value(name: str, raw: bytes) -> object:
    """A header's text as the JSON value the body would hold; what does not fit stays text, for the field to refuse."""
    try:
        value = raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise InvalidRequest(f"The header for '{name}' is not valid UTF-8.", param=name) from None
    shape = _SHAPES.get(name)
    if shape == "integer" and _INTEGER.fullmatch(value):
        return int(value)
    if shape == "number" and _NUMBER.fullmatch(value):
        return float(value)
    if shape == "json":
        return _header_json(name, value)
    return value


def _header_json(name: str, value: str) -> object:
    try:
        return decode_object(f'{{"value": {value}}}'.encode())["value"]
    except InvalidRequest as error:
        raise InvalidRequest(f"The header for '{name}' must hold JSON. {error.message}", param=name) from None


def _unsupported(param: str, value: str, more: str) -> InvalidRequest:
    return InvalidRequest(f"Unsupported value for '{param}': '{value}'. {more}", param=param, code="unsupported_value")
