"""What a field of a JSON body may hold: each kind reads a value exactly, and describes itself as JSON Schema.

One table of these makes both a parser and its page of `/openapi.json`, so that the document cannot say what the parser
does not do. `null` means the default everywhere, so every schema allows it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.http import fields as read
from gateway.http.fields import Fields

Schema = Mapping[str, object]
HeaderShape = Literal["text", "integer", "number", "json"]


@dataclass(frozen=True, kw_only=True)
class Field(ABC):
    """A field, by its name; `about` is its sentence in the documentation."""

    name: str
    about: str
    required: bool = False

    @abstractmethod
    def schema(self) -> Schema:
        """What it may hold, as JSON Schema."""


@dataclass(frozen=True, kw_only=True)
class Readable(Field):
    """A field that may hold something."""

    extension: bool = False
    """Ours, so it may also come as the header `x-pixelgate-<name>`."""
    default: object = None

    @property
    def header_shape(self) -> HeaderShape:
        """How its value is spelled as a header."""
        return "text"

    def schema(self) -> Schema:
        """What it may hold, as JSON Schema; unless it is required, `null` too."""
        value = dict(self.value_schema())
        if not self.required:
            value = {"anyOf": [value, {"type": "null"}]} if "type" not in value else _or_null(value)
        described: dict[str, object] = {"description": self.about, **value}
        return described if self.default is None else {**described, "default": self.default}

    @abstractmethod
    def value_schema(self) -> Schema:
        """What it may hold beside `null`."""


@dataclass(frozen=True, kw_only=True)
class Text(Readable):
    """A string of at most `longest` characters."""

    longest: int
    pattern: str | None = None
    """For the documentation: what its parser takes."""

    def value_schema(self) -> Schema:
        """A string."""
        limits: dict[str, object] = {"type": "string", "maxLength": self.longest}
        return limits if self.pattern is None else {**limits, "pattern": self.pattern}

    def read(self, fields: Fields) -> str | None:
        """The string; None when absent."""
        return read.text(fields, self.name, self.longest)


@dataclass(frozen=True, kw_only=True)
class Integer(Readable):
    """An integer within [`least`, `most`]."""

    least: int
    most: int

    @property
    def header_shape(self) -> HeaderShape:
        """Digits."""
        return "integer"

    def value_schema(self) -> Schema:
        """An integer."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}

    def read(self, fields: Fields) -> int | None:
        """The integer; None when absent."""
        return read.integer(fields, self.name, self.least, self.most)


@dataclass(frozen=True, kw_only=True)
class Number(Readable):
    """A number within [`least`, `most`]."""

    least: float
    most: float

    @property
    def header_shape(self) -> HeaderShape:
        """Digits and a point."""
        return "number"

    def value_schema(self) -> Schema:
        """A number."""
        return {"type": "number", "minimum": self.least, "maximum": self.most}

    def read(self, fields: Fields) -> float | None:
        """The number; None when absent."""
        return read.number(fields, self.name, self.least, self.most)


@dataclass(frozen=True, kw_only=True)
class Choice(Readable):
    """One of `words`."""

    words: Collection[str]

    def value_schema(self) -> Schema:
        """One of the words."""
        return {"type": "string", "enum": list(self.words)}

    def read(self, fields: Fields) -> str | None:
        """The word; None when absent."""
        return read.choice(fields, self.name, self.words)


@dataclass(frozen=True, kw_only=True)
class Word(Readable):
    """One of some words that the policy or the configuration names."""

    shipped: Sequence[str]
    """Those of the shipped policy, as examples."""

    def value_schema(self) -> Schema:
        """A string."""
        return {"type": "string", "examples": list(self.shipped)}

    def read(self, fields: Fields, words: Collection[str]) -> str | None:
        """The word, one of `words`; None when absent."""
        return read.choice(fields, self.name, words)


@dataclass(frozen=True, kw_only=True)
class Boolean(Readable):
    """`true` or `false`."""

    @property
    def header_shape(self) -> HeaderShape:
        """JSON."""
        return "json"

    def value_schema(self) -> Schema:
        """A boolean."""
        return {"type": "boolean"}

    def read(self, fields: Fields) -> bool | None:
        """The boolean; None when absent."""
        return read.boolean(fields, self.name)


@dataclass(frozen=True, kw_only=True)
class Dollars(Readable):
    """An amount of dollars."""

    def value_schema(self) -> Schema:
        """A number, or a decimal in a string."""
        return {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": read.MAX_USD},
                {"type": "string", "maxLength": 40, "pattern": r"^[0-9]{1,7}(\.[0-9]{1,30})?$"},
            ]
        }

    def read(self, fields: Fields) -> int | None:
        """Nano-dollars; None when absent."""
        return read.dollars(fields, self.name)


@dataclass(frozen=True, kw_only=True)
class Structure(Readable):
    """A list or an object with a shape of its own, read by a function beside the table."""

    shape: Schema

    @property
    def header_shape(self) -> HeaderShape:
        """JSON."""
        return "json"

    def value_schema(self) -> Schema:
        """The shape."""
        return self.shape


@dataclass(frozen=True, kw_only=True)
class Unsupported(Field):
    """A field that others know and we refuse, unless it is `null`; `about` says why."""

    def schema(self) -> Schema:
        """Only `null`."""
        return {"description": f"Not supported: {self.about}.", "type": "null", "deprecated": True}


def object_schema(table: Collection[Field], aliases: Mapping[str, str]) -> Schema:
    """The schema of a body that holds the fields of `table`, some of them under an alias, and no others."""
    by_name = {field.name: field for field in table}
    properties: dict[str, Schema] = {field.name: field.schema() for field in table}
    for alias, name in aliases.items():
        if name in by_name:
            properties[alias] = {**by_name[name].schema(), "description": f"The same as `{name}`.", "deprecated": True}
    required = [field.name for field in table if field.required]
    body: dict[str, object] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**body, "required": required} if required else body


def _or_null(value: Mapping[str, object]) -> dict[str, object]:
    nullable = {**value, "type": [value["type"], "null"]}
    words = value.get("enum")
    return {**nullable, "enum": [*words, None]} if isinstance(words, list) else nullable
