"""Every field of a generation body, once: the parser reads by this table, and `/openapi.json` is written from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from gateway.http.field_kinds import (
    Boolean,
    Choice,
    Dollars,
    Field,
    HeaderShape,
    Integer,
    Number,
    Readable,
    Schema,
    Structure,
    Text,
    Unsupported,
    Word,
    object_schema,
)
from gateway.http.operations import Parameter
from policies.policy import Quality, ResponseFormat

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
MAX_LORA_SCALE = 4.0
MAX_TAGS = 16
MAX_NAMES = 50
"""Providers in one list."""

QUALITIES: Mapping[str, Quality] = {word: word for word in get_args(Quality)}
FORMATS = ("png", "jpeg", "webp")
FOREIGN_FORMATS = ("gif", "svg")
RESPONSE_FORMATS: Mapping[str, ResponseFormat] = {"url": "url", "b64_json": "b64_json", "base64": "b64_json"}
"""`base64` is Together's word."""
ALIASES: Mapping[str, str] = {"steps": "num_inference_steps", "guidance": "guidance_scale", "image_loras": "loras"}

PRESETS: Mapping[str, tuple[int, int]] = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
"""fal's names for sizes, and the pixels fal means by them."""
SIZE_PATTERN = r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})"
LORA_PATTERN = (
    r"([A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*){0,3}"
    r"|https://([A-Za-z0-9-]+\.)+[A-Za-z]{2,}(:[0-9]{1,5})?(/[!-~]*)?)"
)
"""A name, or an https address by a name of the public net: our own machines fetch these, too, from within."""
INWARD = (".internal", ".local", ".localhost", ".lan", ".home", ".corp")
"""Ends of names that lead into somebody's own network."""
_LORA: Schema = {
    "type": "object",
    "properties": {
        "path": {"type": "string", "maxLength": 2000, "pattern": f"^{LORA_PATTERN}$"},
        "scale": {"type": ["number", "null"], "minimum": -MAX_LORA_SCALE, "maximum": MAX_LORA_SCALE, "default": 1.0},
    },
    "required": ["path"],
    "additionalProperties": False,
}
_NAMES: Schema = {"type": ["array", "null"], "maxItems": MAX_NAMES, "items": {"type": "string", "minLength": 1}}

PROMPT = Text(name="prompt", longest=MAX_PROMPT, required=True, pattern=r"\S", about="What to draw; not blank.")
MODEL = Text(
    name="model",
    longest=200,
    default="auto",
    about=(
        "Which models may draw it: `auto`, a name of `GET /v1/models`, or a foreign name whose beginning the policy "
        "knows (`dall-e-3`); behind it may stand `:cheapest`, `:fastest`, or a provider (`flux-dev:fal`)."
    ),
)
COUNT = Integer(name="n", least=1, most=MAX_COUNT, default=1, about="How many pictures.")
SIZE = Text(
    name="size",
    longest=40,
    default="auto",
    pattern=f"^(auto|{'|'.join(PRESETS)}|{SIZE_PATTERN.replace('(', '').replace(')', '')})$",
    about=(
        f"`auto`, or exactly these pixels, each side from {SIDES[0]} to {SIDES[1]}; or one of "
        f"fal's names for these: "
        f"{', '.join(f'`{name}` {width}x{height}' for name, (width, height) in PRESETS.items())}."
    ),
)
QUALITY = Choice(
    name="quality", words=QUALITIES, about="An intent, as the policy says, unless `intent` is sent.", default="auto"
)
RESPONSE_FORMAT = Choice(
    name="response_format",
    words=RESPONSE_FORMATS,
    about="How pictures travel; the default is what apps that use this model name expect, as the policy says.",
)
OUTPUT_FORMAT = Choice(
    name="output_format",
    words=(*FORMATS, *FOREIGN_FORMATS),
    default="png",
    about="File format; `gif` and `svg` are known and refused.",
)
OUTPUT_COMPRESSION = Integer(
    name="output_compression", least=0, most=100, about="Quality of jpeg and webp; with png only 100."
)
BACKGROUND = Choice(
    name="background",
    words=("auto", "opaque", "transparent"),
    default="auto",
    about="`transparent` (png and webp) takes a second order, which removes what was drawn behind the thing, where no "
    "offer paints it; it costs what both do.",
)
STYLE = Choice(name="style", words=("vivid", "natural"), about="Accepted for old apps, without effect.")
COMPLEXITY = Choice(name="complexity", words=("low", "medium", "high"), about="Accepted, without effect.")
MODERATION = Choice(
    name="moderation",
    words=("auto", "low"),
    default="auto",
    about="`low` asks for a check one level laxer than the policy's; it takes a key of the scope `moderation`.",
)
STREAM = Boolean(name="stream", default=False, about="`true`: the answer comes as server-sent events.")
PARTIAL_IMAGES = Integer(
    name="partial_images",
    least=0,
    most=3,
    default=0,
    about="How many may be shown early in a stream; fewer may come, and none without a policy that pays for a preview.",
)
USER = Text(name="user", longest=512, about="The end user.")
SAFETY_IDENTIFIER = Text(name="safety_identifier", longest=512, about="The end user; wins over `user`, and is echoed.")

SEED = Integer(
    name="seed",
    extension=True,
    least=0,
    most=MAX_SEED,
    about="The first picture's seed; the next take the next.",
)
STEPS = Integer(
    name="num_inference_steps",
    extension=True,
    least=1,
    most=MAX_STEPS,
    about="Steps of inference; only offers that take it may serve.",
)
GUIDANCE = Number(
    name="guidance_scale",
    extension=True,
    least=0.0,
    most=MAX_GUIDANCE,
    about="How closely to follow the prompt; only offers that take it may serve.",
)
NEGATIVE_PROMPT = Text(
    name="negative_prompt",
    extension=True,
    longest=MAX_PROMPT,
    about="What should not be seen; only offers that take it may serve.",
)
WIDTH = Integer(name="width", extension=True, least=SIDES[0], most=SIDES[1], about="Pixels; goes with `height`.")
HEIGHT = Integer(name="height", extension=True, least=SIDES[0], most=SIDES[1], about="Pixels; goes with `width`.")
LORAS = Structure(
    name="loras",
    extension=True,
    shape={"type": "array", "maxItems": MAX_LORAS, "items": _LORA},
    about="LoRA weights, each by name or https address; only offers that take them may serve.",
)
INTENT = Word(
    name="intent",
    extension=True,
    shipped=("preview", "standard", "export"),
    about="How good, how soon: an intent of the policy.",
)
MAX_COST = Dollars(
    name="max_cost", extension=True, about="Dollars that the whole request may cost; shared evenly by its pictures."
)
DEADLINE_MS = Integer(
    name="deadline_ms",
    extension=True,
    least=1,
    most=MAX_DEADLINE_MS,
    about="Milliseconds after which nobody wants the answer.",
)
PROVIDERS = Structure(
    name="providers",
    extension=True,
    shape={
        "type": "object",
        "properties": {"only": _NAMES, "ignore": _NAMES, "order": _NAMES},
        "additionalProperties": False,
    },
    about="Provider accounts or kinds.",
)
TAGS = Structure(
    name="tags",
    extension=True,
    shape={
        "type": "object",
        "maxProperties": MAX_TAGS,
        "propertyNames": {"minLength": 1, "maxLength": 64},
        "additionalProperties": {"type": ["string", "null"], "maxLength": 512},
    },
    about="The caller's labels, for reports.",
)
SHADOW = Boolean(
    name="shadow",
    extension=True,
    default=True,
    about="`false`: no copy of it, or of what is promoted from it, goes to another seller for an experiment.",
)
PARENT = Text(name="parent", extension=True, longest=100, about="The id of the image this one descends from.")

GENERATION: tuple[Field, ...] = (
    PROMPT, MODEL, COUNT, SIZE, QUALITY, RESPONSE_FORMAT, OUTPUT_FORMAT, OUTPUT_COMPRESSION, BACKGROUND, STYLE,
    COMPLEXITY, MODERATION, STREAM, PARTIAL_IMAGES, USER, SAFETY_IDENTIFIER,
    SEED, STEPS, GUIDANCE, NEGATIVE_PROMPT, WIDTH, HEIGHT, LORAS, INTENT, MAX_COST, DEADLINE_MS, PROVIDERS,
    TAGS, SHADOW, PARENT,
    Unsupported(name="frame_count", about="animated pictures are not drawn here"),
    Unsupported(name="frame_duration_ms", about="animated pictures are not drawn here"),
    Unsupported(name="svg", about="vector pictures are not drawn here"),
    Unsupported(name="image_url", about="pictures are not drawn from other pictures here yet"),
    Unsupported(name="reference_images", about="pictures are not drawn from other pictures here yet"),
    Unsupported(name="disable_safety_checker", about="the safety check is for the gateway's policy to set"),
    Unsupported(name="enable_safety_checker", about="the safety check is for the gateway's policy to set"),
    Unsupported(
        name="safety_tolerance",
        about="the safety check is for the gateway's policy to set; send 'moderation' instead",
    ),
)  # fmt: skip
"""In the order of the documentation."""

UNSUPPORTED: Mapping[str, str] = {field.name: field.about for field in GENERATION if isinstance(field, Unsupported)}
_EXTENSIONS = tuple(field for field in GENERATION if isinstance(field, Readable) and field.extension)
EXTENSIONS: Mapping[str, HeaderShape] = {field.name: field.header_shape for field in _EXTENSIONS}
"""Fields that may also come as headers, and how their values are spelled there."""
KNOWN = frozenset(field.name for field in GENERATION) | ALIASES.keys()


def extension_headers() -> tuple[Parameter, ...]:
    """Every extension as the header it may be sent as."""
    return tuple(
        Parameter(
            name=f"x-pixelgate-{field.name.replace('_', '-')}",
            about=f"As the field `{field.name}`: {field.about}",
            schema=field.value_schema(),
            place="header",
            json=field.header_shape == "json",
        )
        for field in _EXTENSIONS
    )


def generation_schema() -> Schema:
    """A generation body as JSON Schema."""
    return object_schema(GENERATION, ALIASES)
