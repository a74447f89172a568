"""Reads the YAML that people type, and says what is wrong with it as file, line, column, a caret and the fix.

    document = read(path)                 size, text, events and duplicate keys are checked here
    value = document.parse(Model)         pydantic's faults, each put at its line and column
    raise BadFile([document.fault(("offers", 0, "price"), "no price", hint="...")])     faults found later

`load(path, Model)` does the first two. Everything wrong with a file is reported at once.
Anchors, aliases and tags are refused: a file says what it says, once, in plain values.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from math import inf, nan
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, BinaryIO, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

from msgspec import Struct
from msgspec.structs import replace
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_EVENTS = 60_000

# YAML 1.2, of which parsers of 1.1 would read yes, 1:30 and 017 otherwise.
_WORDS = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
}
_WORDY = frozenset({"", *"tTfF~nN"})
_NUMERIC = frozenset("+-.0123456789")
_INT = re.compile(r"[-+]?(?:0o[0-7]+|0x[0-9a-fA-F]+|[0-9]+(?:_[0-9]+)*)", re.ASCII)
_ZEROES = re.compile(r"[-+]?0[0-9_]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_ODD = {".inf": inf, "+.inf": inf, "-.inf": -inf, ".nan": nan}
_LONGEST_NUMBER = 40
_TRAPS = frozenset({"yes", "no", "on", "off"})
_LONGEST_TRAP = 3
_SEXAGESIMAL = re.compile(r"[-+]?[0-9]+(?::[0-5]?[0-9])+(?:\.[0-9]*)?", re.ASCII)
_PARSER_HINTS = {
    "cannot start any token": "indent with spaces, not tabs, and quote words that begin with @ or `",
    "mapping values are not allowed": "quote a value that holds a colon and a space",
    "could not find expected ':'": "write `key: value`",
}

Loc: TypeAlias = Sequence[str | int]
"""Where a value stands: keys and list positions from the top, as pydantic names them."""
M = TypeVar("M", bound=BaseModel)


class Fault(Struct, frozen=True, kw_only=True):
    """One thing wrong with a file. Lines and columns count from 1; 0 is the file as a whole."""

    path: str
    line: int = 0
    column: int = 0
    message: str
    hint: str | None = None
    """What to type instead."""
    text: str = ""
    """The line at fault, as it stands in the file."""
    code: str = "yaml"
    """What kind of fault it is, for machines: yaml, shape, and those of whoever found it."""
    level: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        """`file:line:column: message`, the line with a caret under it, and the hint."""
        place = f"{self.path}:{self.line}:{self.column}" if self.line else self.path
        lines = [f"{place}: {self.message}"]
        if self.text:
            text, column = _window(self.text, self.column)
            lines += [f"    {text}", "    " + " " * (column - 1) + "^"]
        if self.hint:
            lines.append(f"    fix: {self.hint}")
        return "\n".join(lines)


class BadFile(Exception):
    """A configuration file cannot be used; `faults` says all that is wrong with it."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(faults)
        self.faults = tuple(faults)

    def __str__(self) -> str:
        """Every fault, one under the other."""
        return "\n".join(str(fault) for fault in self.faults)


class Document:
    """A file's values as plain Python, and where in the file each of them stands."""

    def __init__(self, path: str, text: str, data: object, place: _Place, traps: Sequence[Fault] = ()) -> None:
        self.path = path
        self.data = data
        self.traps = tuple(traps)
        """Words and numbers that readers of YAML 1.1 take for something else; no faults here."""
        self._lines = text.splitlines()
        self._place = place

    def parse(self, model: type[M]) -> M:
        """The document as `model`; raises `BadFile` with every fault in it."""
        try:
            return model.model_validate(self.data)
        except ValidationError as error:
            raise BadFile(sorted(self.faults(error, model), key=lambda fault: (fault.line, fault.column))) from None

    def faults(self, error: ValidationError, model: type[BaseModel], under: Loc = ()) -> list[Fault]:
        """Pydantic's findings about the part of this document at `under`, each with its place."""
        details = error.errors(include_url=False)
        unknown = [detail["loc"] for detail in details if detail["type"] == "extra_forbidden"]
        return [
            self._fault_of(detail, model, under)
            for detail in details
            if not (detail["type"] == "missing" and _misspelt(detail["loc"], unknown))
        ]

    def fault(
        self,
        loc: Loc,
        message: str,
        *,
        hint: str | None = None,
        at_key: bool = False,
        code: str = "shape",
        level: Literal["error", "warning"] = "error",
    ) -> Fault:
        """A fault at `loc`, or at the nearest place above it that the file has; `at_key` points at the key."""
        line, column = self._position(loc, at_key=at_key)
        text = self._lines[line - 1] if 0 < line <= len(self._lines) else ""
        return Fault(
            path=self.path, line=line, column=column, message=message, hint=hint, text=text, code=code, level=level
        )

    def has(self, loc: Loc) -> bool:
        """Whether the file itself says something at `loc`."""
        node: object = self.data
        for part in loc:
            inside = part in node if isinstance(node, dict) else isinstance(node, list) and part in range(len(node))
            if not inside:
                return False
            node = node[part]  # type: ignore[index]  # only a dict or list passes the line above
        return True

    def _fault_of(self, detail: ErrorDetails, model: type[BaseModel], under: Loc) -> Fault:
        loc, kind = detail["loc"], detail["type"]
        name = str(loc[-1]) if loc else ""
        if kind == "extra_forbidden":
            known = sorted(fields_at(model, loc[:-1]))
            hint = nearest(name, known) or (f"known here: {', '.join(known)}" if known else None)
            return self.fault((*under, *loc), f"unknown key {name!r}", hint=hint, at_key=True)
        if kind == "missing":
            return self.fault((*under, *loc[:-1]), f"{name!r} is missing", hint=f"add `{name}: ...`", at_key=True)
        message = sentence(detail)
        if name == "[key]":
            return self.fault((*under, *loc[:-1]), f"{dotted(loc[:-1])}: {message}", hint=hint_of(detail), at_key=True)
        return self.fault((*under, *loc), f"{dotted(loc)}: {message}" if loc else message, hint=hint_of(detail))

    def _position(self, loc: Loc, *, at_key: bool) -> tuple[int, int]:
        place, line, column = self._place, self._place.line, self._place.column
        for depth, part in enumerate(loc):
            below = place.below
            if isinstance(below, dict) and part in below:
                line, column, place = below[part]
                if not (at_key and depth == len(loc) - 1):
                    line, column = place.line, place.column
            elif isinstance(below, list) and isinstance(part, int) and part < len(below):
                place = below[part]
                line, column = place.line, place.column
            # else: pydantic also names union members in a loc; the file has nothing there
        return (line + 1, column + 1) if self._lines else (0, 0)


def _misspelt(missing: Loc, unknown: Sequence[Loc]) -> bool:
    """Whether an unknown key beside a missing one is that key, misspelt: then one fault says it."""
    name = str(missing[-1])
    beside = [str(loc[-1]) for loc in unknown if loc[:-1] == missing[:-1]]
    return bool(get_close_matches(name, beside, n=1, cutoff=0.6))


def load(path: Path, model: type[M]) -> M:
    """The file at `path` as `model`; raises `BadFile`."""
    return read(path).parse(model)


def read(path: Path) -> Document:
    """The document at `path`, checked for form but not yet for meaning; raises `BadFile`."""
    return read_bytes(bytes_of(path), str(path))


def bytes_of(path: Path) -> bytes:
    """What stands in a file, up to a little more than is accepted; raises `BadFile`."""
    try:
        with path.open("rb") as file:
            return read_whole(file, str(path))
    except OSError as error:
        raise BadFile([Fault(path=str(path), message=f"cannot be read: {error.strerror or error}")]) from None


def read_whole(file: BinaryIO, path: str) -> bytes:
    """All bytes of a file that nobody writes meanwhile; a bit more than `MAX_BYTES` where there are more."""
    before = os.fstat(file.fileno())
    raw = file.read(MAX_BYTES + 1)
    after = os.fstat(file.fileno())
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        hint = "read it again once it is written; editors that write beside it and rename do no harm"
        raise BadFile([Fault(path=path, message="changed while it was being read", hint=hint)])
    return raw


def read_bytes(raw: bytes, path: str) -> Document:
    """As `read`, for bytes already at hand; `path` is what messages call them."""
    if len(raw) > MAX_BYTES:
        raise BadFile([Fault(path=path, message=f"is larger than {MAX_BYTES // 1024} KB", hint="split it")])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise BadFile([Fault(path=path, line=line, column=column, message="is not UTF-8 text")]) from None
    return _compose(text, path)


def nearest(name: str, known: Sequence[str]) -> str | None:
    """Ask "did you mean 'x'?" about a misspelt name; None when nothing is near."""
    by_folded = {word.casefold(): word for word in known}
    close = get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return f"did you mean {by_folded[close[0]]!r}?" if close else None


def sentence(detail: ErrorDetails) -> str:
    """What pydantic found, with the value it found it in."""
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    value = detail["input"]
    message = message[:1].lower() + message[1:] if message.startswith("Input ") else message
    if isinstance(value, str | int | float | bool) and repr(value) not in message and "Input" in detail["msg"]:
        message += f", not {value!r}"
    return message


def hint_of(detail: ErrorDetails) -> str | None:
    """The nearest accepted word, where pydantic names the accepted ones."""
    if detail["type"] in ("bool_type", "bool_parsing") and str(detail["input"]).lower() in _TRAPS:
        return f"write {str(str(detail['input']).lower() in ('yes', 'on')).lower()}"
    expected = str(detail.get("ctx", {}).get("expected", ""))
    return nearest(str(detail["input"]), re.findall(r"'([^']*)'", expected)) if expected else None


def dotted(loc: Loc) -> str:
    """`offers[0].price`, as people write it."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.lstrip(".")


def fields_at(model: type[BaseModel], loc: Loc) -> frozenset[str]:
    """The keys that `model` accepts at `loc`; empty when any key goes."""
    annotations: list[object] = [model]
    for part in loc:
        annotations = [below for annotation in annotations for below in _below(annotation, part)]
    return frozenset(
        field.alias or name
        for annotation in annotations
        for member in _members(annotation)
        if isinstance(member, type) and issubclass(member, BaseModel)
        for name, field in member.model_fields.items()
    )


def _below(annotation: object, part: str | int) -> Iterator[object]:
    """The types that stand under `part`: a field's, or whatever a list or mapping holds."""
    for member in _members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            if member.__name__ == part:  # pydantic names the member of a union in a loc
                yield member
            yield from (field.annotation for name, field in member.model_fields.items() if part in (name, field.alias))
        elif isinstance(origin := get_origin(member), type) and (arguments := get_args(member)):
            yield arguments[-1 if issubclass(origin, Mapping) else 0]


def _members(annotation: object) -> Iterator[object]:
    """The members of a union, through Annotated, or the annotation itself."""
    if get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


class _Place(Struct, frozen=True, gc=False):
    """Where a value begins, counted from 0, and the places of what it holds."""

    line: int
    column: int
    below: dict[str | int, tuple[int, int, _Place]] | list[_Place] | None = None
    """Of a mapping: key -> line and column of the key, and the place of its value."""


_NOWHERE = _Place(0, 0)


def _compose(text: str, path: str) -> Document:
    """What the text says, as plain values, and where each of them stands."""
    from yaml import MarkedYAMLError, YAMLError

    reading = _Reading(text, path)
    try:
        data, place = reading.whole()
        return Document(path, text, data, place, reading.traps)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        message = (error.problem or error.context or "is not YAML").partition("\n")[0]
        raise BadFile([_marked(text, path, line, column, message, _hint_for(message))]) from None
    except YAMLError as error:  # a character that no text holds
        at = getattr(error, "position", None)
        line, column = _line_and_column(text, at) if isinstance(at, int) else (0, 0)
        raise BadFile([_marked(text, path, line, column, f"is not YAML: {_first_line(error)}")]) from None
    finally:
        reading.close()


class _Reading:
    """One pass over the events of a text, which builds values and places and refuses what people should not use."""

    def __init__(self, text: str, path: str) -> None:
        self._text = text
        self._path = path
        self._loader = _loader()(text)
        self._events = 0
        self._depth = 0
        self._faults: list[Fault] = []
        self.traps: list[Fault] = []

    def close(self) -> None:
        """Let go of the parser."""
        self._loader.dispose()

    def whole(self) -> tuple[object, _Place]:
        """The only document of the text; None where it is empty."""
        from yaml import events

        self._next()
        if isinstance(self._next(), events.StreamEndEvent):
            return None, _NOWHERE
        data, place = self._value(self._next())
        self._next()
        after = self._next()
        if isinstance(after, events.DocumentStartEvent):
            raise self._refused(after, "holds a second document; one file is one document")
        if self._faults:
            raise BadFile(self._faults)
        return data, place

    def _next(self) -> Any:
        event = self._loader.get_event()
        self._events += 1
        if self._events > MAX_EVENTS:
            raise self._refused(event, f"holds more than {MAX_EVENTS:,} values")
        return event

    def _value(self, event: Any) -> tuple[object, _Place]:
        from yaml import events

        kind, mark = type(event), event.start_mark
        if kind is events.AliasEvent:
            raise self._refused(event, "aliases (*name) are not accepted", "write the value out")
        if event.anchor is not None:
            raise self._refused(event, "anchors (&name) are not accepted", "write the value out")
        if event.tag is not None:
            raise self._refused(event, "tags (!name) are not accepted", "write a plain value")
        if kind is events.ScalarEvent:
            return self._scalar(event), _Place(mark.line, mark.column)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._refused(event, f"is nested deeper than {MAX_DEPTH} levels")
        below: dict[str | int, tuple[int, int, _Place]] | list[_Place]
        data, below = self._mapping() if kind is events.MappingStartEvent else self._sequence()
        self._depth -= 1
        return data, _Place(mark.line, mark.column, below)

    def _sequence(self) -> tuple[list[object], list[_Place]]:
        from yaml import events

        data, places = [], []
        while type(event := self._next()) is not events.SequenceEndEvent:
            value, place = self._value(event)
            data.append(value)
            places.append(place)
        return data, places

    def _mapping(self) -> tuple[dict[str | int, object], dict[str | int, tuple[int, int, _Place]]]:
        from yaml import events

        data: dict[str | int, object] = {}
        places: dict[str | int, tuple[int, int, _Place]] = {}
        while type(event := self._next()) is not events.MappingEndEvent:
            if type(event) is events.ScalarEvent and event.value == "<<" and not event.style:
                raise self._refused(event, "merge keys (<<) are not accepted", "write the values out")
            key, at = self._value(event)
            if isinstance(key, list | dict):
                raise self._refused(event, f"{_first_line(key)} cannot be a key", "write a plain word")
            name = key if isinstance(key, str | int) and not isinstance(key, bool) else str(event.value)
            value, place = self._value(self._next())
            if name in data:
                first = places[name][0] + 1
                self._fault(event, f"duplicate key {name!r}: it stands in line {first} already", "leave one of them")
                continue
            data[name] = value
            places[name] = (at.line, at.column, place)
        return data, places

    def _scalar(self, event: Any) -> object:
        text: str = event.value
        if event.style:  # quoted, or a block
            return text
        first = text[:1]
        if first in _NUMERIC:
            return self._number(event, text)
        if first in _WORDY and text in _WORDS:
            return _WORDS[text]
        if len(text) <= _LONGEST_TRAP and text.lower() in _TRAPS:
            self._trap(event, "true or false", f"write true or false, or '{text}' in quotes")
        return text

    def _number(self, event: Any, text: str) -> object:
        if _INT.fullmatch(text):
            return self._whole_number(event, text)
        if _FLOAT.fullmatch(text):
            return float(text)
        if _DATE.fullmatch(text):
            try:
                return dt.date.fromisoformat(text)
            except ValueError as error:
                self._fault(event, f"is not a day of the calendar: {error}")
                return text
        if _SEXAGESIMAL.fullmatch(text):
            self._trap(event, "a number to the base of 60", f"write '{text}' in quotes")
        return _ODD.get(text.lower(), text)

    def _trap(self, event: Any, what: str, hint: str) -> None:
        mark = event.start_mark
        message = f"{event.value} is {what} to many readers of YAML"
        fault = _marked(self._text, self._path, mark.line + 1, mark.column + 1, message, hint)
        self.traps.append(replace(fault, code="trap", level="warning"))

    def _whole_number(self, event: Any, text: str) -> int:
        if _ZEROES.fullmatch(text):
            hint = f"write {text.lstrip('+-0_') or 0}, or '{text}' in quotes"
            self._fault(event, f"{text} is octal to some readers and decimal to others", hint)
        elif len(text) > _LONGEST_NUMBER:
            self._fault(event, f"a number of {len(text)} digits is longer than any that is meant")
        else:
            return int(text, 0)
        return 0

    def _fault(self, event: Any, message: str, hint: str | None = None) -> None:
        mark = event.start_mark
        self._faults.append(_marked(self._text, self._path, mark.line + 1, mark.column + 1, message, hint))

    def _refused(self, event: Any, message: str, hint: str | None = None) -> BadFile:
        self._fault(event, message, hint)
        return BadFile(self._faults)


def _loader() -> Any:
    """The parser of libyaml, an order of magnitude quicker; the same in Python where it was not built."""
    import yaml

    return getattr(yaml, "CLoader", yaml.Loader)


def _hint_for(message: str) -> str | None:
    """What to type instead, for what the parser says most."""
    return next((hint for said, hint in _PARSER_HINTS.items() if said in message), None)


def _line_and_column(text: str, at: int) -> tuple[int, int]:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


def _first_line(value: object) -> str:
    return str(value).partition("\n")[0]


def _marked(text: str, path: str, line: int, column: int, message: str, hint: str | None = None) -> Fault:
    lines = text.splitlines()
    shown = lines[line - 1] if 0 < line <= len(lines) else ""
    return Fault(path=path, line=line, column=column, message=message, text=shown, hint=hint)


def _window(text: str, column: int, width: int = 100) -> tuple[str, int]:
    """A line cut to what fits a terminal, and where the column lies in it; tabs become spaces."""
    text = text.replace("\t", " ")
    start = max(0, column - width) if column > width else 0
    return text[start : start + width], column - start
