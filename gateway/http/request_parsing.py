"""A generation body, field by field: what OpenAI documents today and our extensions. Pure functions.

Nothing a caller says is dropped in silence: a field is understood, or documented as accepted without effect (`style`,
`complexity`), or refused with 400. `null` means the default. Extensions may also come as `x-pixelgate-*` headers,
for clients that drop fields they do not know; the header wins.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from gateway.errors import Forbidden, InvalidRequest
from gateway.http import generation_fields as field
from gateway.http.bodies import decode_object
from gateway.http.fields import (
    Fields,
    hint,
    mapping,
    number,
    refuse_unknown,
    shown,
    text,
    words,
    wrong_type,
)
from gateway.http.generation_fields import ALIASES, EXTENSIONS, KNOWN, MAX_LORA_SCALE, MAX_LORAS, MAX_TAGS, UNSUPPORTED
from gateway.http.model_names import AUTO, Meaning, Names, allowed_models
from gateway.requests.call import Caller
from policies.policy import Intent, ResponseFormat
from policies.types import Constraints, Worth
from providers.contract import Abilities, Format, ImageRequest, Lora, Operation, Safety

HEADER_PREFIX = b"x-pixelgate-"
_LORA = re.compile(field.LORA_PATTERN, re.ASCII)
_SIZE = re.compile(field.SIZE_PATTERN, re.ASCII)
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
    shadow: bool
    parent: str | None
    response_format: ResponseFormat
    stream: bool = False
    partial_images: int = 0
    warnings: tuple[str, ...] = ()
    """What is not done as asked."""
    soft_limit: str = ""
    """What the soft limit of a budget made of it, in words."""


def parse_generation(fields: Fields, names: Names, caller: Caller) -> Wish:
    """What a generation body asks for; raises `InvalidRequest`, `NotFound` (model), `Forbidden` (model)."""
    fields, warnings = known_fields(fields, names, KNOWN)
    fields = canonical(fields)
    refuse_unsupported(fields)
    model = model_name(fields)
    intent = intent_of(fields, names)
    request = see_through(fields, image_request(fields, names.policy.auto_size), names, caller)
    constraints = constraints_of(fields, names, caller, names.meaning(model), intent)
    return wish_of(fields, names, caller, Asked(model, intent, request, constraints, warnings))


class Asked(NamedTuple):
    """What a request asks for, before what is read alike of every request for pictures."""

    model: str
    intent: Intent
    request: ImageRequest
    constraints: Constraints
    warnings: tuple[str, ...]


def wish_of(fields: Fields, names: Names, caller: Caller, asked: Asked) -> Wish:
    """The wish, with what is read alike of every request for pictures: safety, format, end user, labels, form."""
    refuse_too_large(asked.request, caller)
    safety, lowered = safety_of(fields, names, caller)
    safety_identifier = field.SAFETY_IDENTIFIER.read(fields)
    return Wish(
        request=msgspec.structs.replace(asked.request, safety=safety),
        constraints=asked.constraints,
        worth=asked.intent.worth,
        intent=asked.intent.name,
        model=asked.model,
        compression=compression_of(fields, asked.request.format),
        user=safety_identifier or field.USER.read(fields) or None,
        safety_identifier=safety_identifier or None,
        tags=tags_of(fields),
        shadow=field.SHADOW.read(fields) is not False,
        parent=field.PARENT.read(fields),
        response_format=response_format_of(fields, names, asked.model, edit=asked.request.operation != "generate"),
        stream=bool(field.STREAM.read(fields)),
        partial_images=partial_images_of(fields),
        warnings=asked.warnings + lowered,
    )


def known_fields(fields: Fields, names: Names, known: Collection[str]) -> tuple[Fields, tuple[str, ...]]:
    """The fields; where the policy ignores what nobody knows, without that, and a warning that names it."""
    if not names.policy.ignore_unknown or all(name in known for name in fields):
        return fields, ()
    kept = {name: value for name, value in fields.items() if name in known}
    unknown = ", ".join(name[:80] for name in fields if name not in known)
    return kept, (f"ignored: {unknown}",)


def canonical(fields: Fields, known: Collection[str] = KNOWN) -> Fields:
    """The fields under their first names; raises for unknown ones, and for a field and its alias that disagree."""
    refuse_unknown(fields, known)
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


def refuse_unsupported(fields: Fields, unsupported: Mapping[str, str] = UNSUPPORTED) -> None:
    """Raise for what OpenAI or other servers know and we do not do; checks fields that have no effect, too."""
    for name in fields.keys() & unsupported.keys():
        if fields[name] is not None:
            why = unsupported[name]
            raise InvalidRequest(f"Unsupported parameter: '{name}': {why}.", param=name, code="unsupported_parameter")
    field.STYLE.read(fields)
    field.COMPLEXITY.read(fields)


def partial_images_of(fields: Fields) -> int:
    """How many partial images may be shown: only a stream can, and none beside a picture with a `max_cost`."""
    partial = field.PARTIAL_IMAGES.read(fields) or 0
    if partial and not field.STREAM.read(fields):
        raise InvalidRequest(
            f"'partial_images' {partial} needs 'stream' true: without it only whole pictures come.",
            param="partial_images",
        )
    return 0 if fields.get("max_cost") is not None else partial


def model_name(fields: Fields) -> str:
    """The model as the caller named it; `auto` when not named."""
    return field.MODEL.read(fields) or AUTO


def intent_of(fields: Fields, names: Names) -> Intent:
    """The intent asked for, in so many words or by quality."""
    policy = names.policy
    asked = field.INTENT.read(fields, policy.intents.keys())
    quality = field.QUALITY.read(fields)
    if asked is not None:
        return policy.intents[asked]
    return policy.intent_of_quality(None if quality is None else field.QUALITIES[quality])


def image_request(fields: Fields, auto_size: tuple[int, int]) -> ImageRequest:
    """What to draw."""
    width, height = size_of(fields, auto_size)
    count = field.COUNT.read(fields)
    return ImageRequest(
        prompt=prompt_of(fields),
        width=width,
        height=height,
        count=1 if count is None else count,
        format=format_of(fields),
        steps=field.STEPS.read(fields),
        seed=field.SEED.read(fields),
        guidance=field.GUIDANCE.read(fields),
        negative_prompt=field.NEGATIVE_PROMPT.read(fields) or None,
        loras=loras_of(fields),
    )


def see_through(fields: Fields, request: ImageRequest, names: Names, caller: Caller) -> ImageRequest:
    """The request, with a transparent background where it is asked for; raises where it could not be had."""
    if field.BACKGROUND.read(fields) != "transparent" and not request.transparent:
        return request
    if request.format == "jpeg":
        raise InvalidRequest(
            "'output_format' 'jpeg' knows no transparency; send 'png' or 'webp'.", param="output_format"
        )
    if request.transparent:
        return request
    able = {offer.model for offer in names.catalog.for_sale() if _clears(offer.abilities, request.operation)}
    if not able:
        raise _unsupported(
            "background",
            "transparent",
            "Supported values are: 'auto', 'opaque'. Nothing that is sold here paints a transparent background or "
            "removes one; it takes a provider account that sells 'remove_background'.",
        )
    if caller.models is not None and not caller.models & able:  # tiers are of what is drawn, not of what cuts it out
        raise Forbidden(
            f"A transparent background takes one of these models, and this API key may use none of them: "
            f"{', '.join(sorted(able))}.",
            param="background",
        )
    return msgspec.structs.replace(request, transparent=True)


def _clears(abilities: Abilities, operation: Operation) -> bool:
    """Whether an offer paints transparent backgrounds, or removes them."""
    return abilities.transparent and (operation in abilities.operations or "remove_background" in abilities.operations)


def prompt_of(fields: Fields) -> str:
    """The prompt, which is the one field that must be there."""
    prompt = field.PROMPT.read(fields)
    if prompt is None:
        raise InvalidRequest("Missing required parameter: 'prompt'.", param="prompt", code="missing_required_parameter")
    if not prompt.strip():
        raise InvalidRequest("Invalid 'prompt': it is blank. Say what to draw.", param="prompt")
    return prompt


def size_of(fields: Fields, auto_size: tuple[int, int]) -> tuple[int, int]:
    """Width and height in pixels, from `size` or from `width` and `height`."""
    size = optional_size(fields)
    width, height = field.WIDTH.read(fields), field.HEIGHT.read(fields)
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
    size = field.SIZE.read(fields)
    if size is None or size == "auto":
        return None
    if size in field.PRESETS:
        return field.PRESETS[size]
    match = _SIZE.fullmatch(size)
    if match is None:
        raise InvalidRequest(
            f"Invalid value for 'size': {shown(size)}. Expected 'auto', WIDTHxHEIGHT in pixels such as '1024x1024', "
            f"or one of: {', '.join(field.PRESETS)}.{hint(size, field.PRESETS)}",
            param="size",
        )
    width, height = int(match[1]), int(match[2])
    least, most = field.SIDES
    if min(width, height) < least or max(width, height) > most:
        raise InvalidRequest(
            f"Invalid value for 'size': {shown(size)}. Each side must be from {least} to {most} pixels.", param="size"
        )
    return width, height


def format_of(fields: Fields) -> Format:
    """The file format of the pictures."""
    match field.OUTPUT_FORMAT.read(fields):
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
    compression = field.OUTPUT_COMPRESSION.read(fields)
    if fmt != "png":
        return compression
    if compression not in (None, 100):
        raise InvalidRequest(
            f"'output_compression' {compression} needs 'output_format' 'jpeg' or 'webp'; png is always lossless.",
            param="output_compression",
        )
    return None


def safety_of(fields: Fields, names: Names, caller: Caller) -> tuple[Safety, tuple[str, ...]]:
    """How strictly the seller should check: as the policy says for the team; `moderation: low` lowers it by one level.

    That takes a key of the scope `moderation`; with another the level stays, and a warning says so.
    """
    level = names.policy.safety_for(caller.team)
    if field.MODERATION.read(fields) != "low" or level == "relaxed":
        return level, ()
    if "moderation" not in caller.scopes:
        return level, (f"moderation: this key may not lower it, so it stays {level}",)
    return ("relaxed" if level == "standard" else "standard"), ()


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
    if not _LORA.fullmatch(path) or (urlsplit(path).hostname or "").lower().endswith(field.INWARD):
        raise InvalidRequest(
            f"Invalid '{param}.path': {shown(path)} is neither a name such as 'owner/weights' nor a public address "
            "such as 'https://example.com/weights.safetensors'.",
            param=f"{param}.path",
        )
    scale = number(value, "scale", -MAX_LORA_SCALE, MAX_LORA_SCALE, f"{param}.scale")
    return Lora(path=path, scale=1.0 if scale is None else scale)


def tags_of(fields: Fields) -> dict[str, str]:
    """The caller's own labels, for reports: at most 16 pairs of strings."""
    tags = mapping(fields, "tags")
    if not tags:
        return {}
    if len(tags) > MAX_TAGS:
        raise InvalidRequest(f"Invalid 'tags': at most {MAX_TAGS} are kept, but got {len(tags)}.", param="tags")
    return {_tag_name(name): text(tags, name, 512, f"tags.{name[:64]}") or "" for name in tags}


def _tag_name(name: str) -> str:
    if not name or len(name) > 64:
        raise InvalidRequest(f"Invalid 'tags': {shown(name)} is not a name of 1 to 64 characters.", param="tags")
    return name


def response_format_of(fields: Fields, names: Names, model: str, *, edit: bool = False) -> ResponseFormat:
    """How pictures travel: as asked, else as apps that use this model name expect."""
    asked = field.RESPONSE_FORMAT.read(fields)
    return names.policy.response_format_of(model, edit=edit) if asked is None else field.RESPONSE_FORMATS[asked]


def refuse_too_large(request: ImageRequest, caller: Caller) -> None:
    """Raise `Forbidden` for a picture larger than the caller's key may have drawn."""
    most = None if caller.limits is None else caller.limits.pixels
    if most is not None and request.width * request.height > most:
        raise Forbidden(
            f"This API key may have pictures drawn of at most {most:,} pixels, and {request.width}x{request.height} "
            f"are {request.width * request.height:,}. Ask for a smaller 'size', or have the limit raised "
            f"(pixelgate keys limit {caller.key_id} --max-size {request.width}x{request.height}).",
            param="size",
        )


def ceiling_of(fields: Fields, intent: Intent, caller: Caller) -> int | None:
    """Nano-dollars one picture may cost: `max_cost` is for the whole request, shared evenly by its pictures.

    What the caller's key allows a call to cost is shared alike.
    """
    asked, count = field.MAX_COST.read(fields), field.COUNT.read(fields) or 1
    limits = [intent.ceiling, None if asked is None else asked // count]
    if caller.limits is not None:
        whole = caller.limits.call_price
        limits += [caller.limits.price, None if whole is None else whole // count]
    return min((limit for limit in limits if limit is not None), default=None)


def deadline_of(fields: Fields, intent: Intent) -> float:
    """Seconds from arrival after which nobody wants the answer."""
    asked = field.DEADLINE_MS.read(fields)
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
        ceiling=ceiling_of(fields, intent, caller),
        only=sellers.only,
        ignore=sellers.ignore,
        order=sellers.order,
        prefer=meaning.prefer,
    )


class _Sellers(NamedTuple):
    only: frozenset[str] | None
    ignore: frozenset[str]
    order: tuple[str, ...]


_NO_SELLERS = _Sellers(None, frozenset(), ())


def _sellers(fields: Fields, known: frozenset[str], named: str | None) -> _Sellers:
    """`{"only": [], "ignore": [], "order": []}`, together with the provider that the model's suffix names."""
    if named is None and fields.get("providers") is None:
        return _NO_SELLERS
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


def _header_value(name: str, raw: bytes) -> object:
    """A header's text as the JSON value the body would hold; what does not fit stays text, for the field to refuse."""
    try:
        value = raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise InvalidRequest(f"The header for '{name}' is not valid UTF-8.", param=name) from None
    shape = EXTENSIONS[name]
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
