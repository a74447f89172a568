"""`multipart/form-data`: fields as text and pictures as bytes, read within limits.

A part is a picture by its name, for clients give files any name and any type, or none. What a field's text means is
for the table of fields to say (`typed`): a form has no numbers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from litestar.types import Receive
from msgspec import Struct
from multipart import (  # type: ignore[import-untyped]  # it ships no types
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from gateway.errors import InvalidRequest
from gateway.http.bodies import compressed, decode_object, read_body
from gateway.http.errors import UnsupportedMediaType
from gateway.http.field_kinds import Boolean, Field, Readable, Structure, Text

MAX_FORM = 64 * 1024 * 1024
"""Bytes of a whole form, and of a JSON body that holds pictures."""
MAX_FILE = 50 * 1024 * 1024
MAX_PARTS = 128
MAX_TEXT = 256 * 1024
"""Bytes of one field; a prompt of 32,000 characters takes at most 128,000."""
_INTEGER = re.compile(r"-?[0-9]{1,30}", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", re.ASCII)


class Form(Struct, frozen=True):
    """What a form held."""

    texts: Mapping[str, str]
    files: tuple[tuple[str, bytes], ...]
    """(name, bytes) of every part that is a picture by its name, in the order in which they came."""


def is_form(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a body says that it is a form."""
    return headers.get(b"content-type", b"").lower().startswith(b"multipart/form-data")


async def read_form(headers: Mapping[bytes, bytes], receive: Receive, pictures: Collection[str]) -> Form:
    """The form in a body; parts named in `pictures` are files.

    Raises `TooLarge`, `UnsupportedMediaType`, `InvalidRequest`, `ClientGone`.
    """
    refusal = compressed(headers)
    body = await read_body(headers, receive, MAX_FORM)
    if refusal:
        raise refusal
    _, options = parse_options_header(headers[b"content-type"].decode("latin-1"))
    boundary = options.get("boundary", "")
    if not 1 <= len(boundary) <= 70:
        raise UnsupportedMediaType("The Content-Type of a form names its boundary, of 1 to 70 characters.")
    try:
        parts = _parts(body, boundary)
    except ParserLimitReached as error:
        raise _malformed(f"{error}; at most {MAX_PARTS} parts of {MAX_FILE} bytes are read") from None
    except (MultipartError, UnicodeError) as error:
        raise _malformed(str(error)) from None
    return _sorted(parts, pictures)


def _parts(body: bytes, boundary: str) -> list[tuple[str, bytes]]:
    parts: list[tuple[str, bytes]] = []
    name, chunks = "", list[bytes]()
    with PushMultipartParser(
        boundary, content_length=len(body), max_segment_size=MAX_FILE, max_segment_count=MAX_PARTS
    ) as parser:
        for event in parser.parse(body):
            if isinstance(event, MultipartSegment):
                name, chunks = event.name or "", []
            elif event is None:
                parts.append((name, b"".join(chunks)))
            else:
                chunks.append(bytes(event))
    return parts


def _sorted(parts: list[tuple[str, bytes]], pictures: Collection[str]) -> Form:
    texts: dict[str, str] = {}
    files: list[tuple[str, bytes]] = []
    for name, data in parts:
        if name in pictures:
            files.append((name, data))
        elif name in texts:
            raise _malformed(f"the field {name[:80]!r} comes twice")
        else:
            texts[name] = _text(name, data)
    return Form(texts, tuple(files))


def _text(name: str, data: bytes) -> str:
    param = name[:80]
    if len(data) > MAX_TEXT:
        raise InvalidRequest(f"Invalid '{param}': a field of a form holds at most {MAX_TEXT} bytes.", param=param)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest(f"Invalid '{param}': it is not valid UTF-8.", param=param) from None


def typed(texts: Mapping[str, str], table: Mapping[str, Field]) -> dict[str, object]:
    """The fields as a JSON body would hold them; what does not fit stays text, for the field to refuse."""
    return {name: _typed(text, table.get(name), name) for name, text in texts.items()}


def _typed(text: str, field: Field | None, name: str) -> object:
    if text == "null" and not isinstance(field, Text):  # OpenAI's client for Node tells people to send it so
        return None
    if isinstance(field, Boolean):
        return {"true": True, "false": False}.get(text.lower(), text)
    shape = field.header_shape if isinstance(field, Readable) else "text"
    if shape == "integer" and _INTEGER.fullmatch(text):
        return int(text)
    if shape == "number" and _NUMBER.fullmatch(text):
        return float(text)
    if isinstance(field, Structure):
        try:
            return decode_object(f'{{"value": {text}}}'.encode())["value"]
        except InvalidRequest as error:
            raise InvalidRequest(f"The field '{name}' must hold JSON. {error.message}", param=name) from None
    return text


def _malformed(why: str) -> InvalidRequest:
    return InvalidRequest(f"We could not parse the form of your request: {why}.", code="invalid_form")
