"""Every field of an edit: those of a generation, and what says how far the picture may go from its inputs."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.http.field_kinds import Boolean, Choice, Field, Number, Schema, Structure, Unsupported, object_schema
from gateway.http.generation_fields import (
    ALIASES,
    COUNT,
    GENERATION,
    MODEL,
    RESPONSE_FORMAT,
    SIZE,
    SIZE_PATTERN,
    USER,
)
from gateway.http.inputs import MAX_ID, MAX_URL, MOST

_NAMED: Schema = {
    "type": "object",
    "properties": {
        "image_url": {"type": "string", "maxLength": MAX_URL},
        "file_id": {
            "type": "string",
            "maxLength": MAX_ID,
            "description": "The id of a picture that this gateway drew for the same team (`img_...`).",
        },
    },
    "oneOf": [{"required": ["image_url"]}, {"required": ["file_id"]}],
    "additionalProperties": False,
}
_FILE: Schema = {"type": "string", "format": "binary"}

IMAGES = Structure(
    name="images",
    required=True,
    shape={"type": "array", "minItems": 1, "maxItems": MOST, "items": _NAMED},
    about="The pictures to work from: an address, a data URL, or the id of a picture drawn here.",
)
MASK = Structure(
    name="mask",
    shape=_NAMED,
    about="A PNG as large as the first picture, transparent where that is to be drawn anew.",
)
PICTURES = frozenset({IMAGES.name, MASK.name})
"""Fields of a JSON body that name pictures."""
INPUT_SIZES = Structure(
    name="input_sizes",
    shape={
        "type": "array",
        "minItems": 1,
        "maxItems": MOST,
        "items": {"type": "string", "pattern": f"^{SIZE_PATTERN.replace('(', '').replace(')', '')}$"},
    },
    about="Sizes of the pictures to work from, such as `1024x768`, in place of the pictures.",
)
MASKED = Boolean(name="masked", default=False, about="Whether a mask would come with pictures of `input_sizes`.")
INPUT_FIDELITY = Choice(
    name="input_fidelity",
    words=("high", "low"),
    about="`high`: only offers that keep closely to their inputs, or can be told to, may serve. `low` asks for no more "
    "than is usual, so any may.",
)
STRENGTH = Number(
    name="strength",
    least=0.0,
    most=1.0,
    about="How far the picture may leave its first input; only offers that take it may serve.",
)
OPERATION = Choice(
    name="operation",
    words=("edit", "remove_background"),
    default="edit",
    about="`remove_background` keeps what the picture shows and makes the rest transparent; it needs no prompt.",
)
_ELSEWHERE = ("image_url", "reference_images")
"""What a generation refuses for its own reason; an edit says it in another field."""
_SHARED = tuple(field for field in GENERATION if field.name not in _ELSEWHERE)
_OWN: tuple[Field, ...] = (
    INPUT_FIDELITY,
    STRENGTH,
    OPERATION,
    Unsupported(name="markup", about="drawings over a picture are not understood here"),
)

FORM: Mapping[str, Field] = {field.name: field for field in (*_SHARED, *_OWN)}
"""Fields beside the pictures, by name."""
KNOWN = FORM.keys() | ALIASES.keys()
UNSUPPORTED: Mapping[str, str] = {field.name: field.about for field in FORM.values() if isinstance(field, Unsupported)}


VARIATION: Mapping[str, Field] = {field.name: field for field in (MODEL, COUNT, SIZE, RESPONSE_FORMAT, USER)}
"""Fields of a variation beside its picture: all that OpenAI's endpoint had."""


def variation_schema() -> Schema:
    """A variation's form."""
    shared = object_schema(tuple(VARIATION.values()), {})
    properties = shared["properties"]
    assert isinstance(properties, dict)
    return {**shared, "properties": {"image": _FILE, **properties}, "required": ["image"]}


def json_schema() -> Schema:
    """An edit's JSON body."""
    return object_schema((*_SHARED, IMAGES, MASK, *_OWN), ALIASES)


def quote_schema() -> Schema:
    """A body to be priced: an edit's, also with sizes in place of pictures, or a generation's. Nothing is required."""
    whole = object_schema((*_SHARED, IMAGES, MASK, INPUT_SIZES, MASKED, *_OWN), ALIASES)
    return {name: value for name, value in whole.items() if name != "required"}


def form_schema() -> Schema:
    """An edit's form: `image`, once or several times, also as `image[]`."""
    shared = object_schema((*_SHARED, *_OWN), ALIASES)
    properties = shared["properties"]
    assert isinstance(properties, dict)
    pictures: Schema = {"anyOf": [_FILE, {"type": "array", "minItems": 1, "maxItems": MOST, "items": _FILE}]}
    files = {"image": pictures, "image[]": pictures, "mask": {**_FILE, "description": MASK.about}}
    return {**shared, "properties": {**files, **properties}}
