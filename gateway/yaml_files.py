"""Reads the YAML that people type, and says what is wrong with it as file, line, column, a caret and the fix.

    document = read(path)                 size, text, events and duplicate keys are checked here
    value = document.parse(Model)         pydantic's faults, each put at its line and column
    raise BadFile([document.fault(("offers", 0, "price"), "no price", hint="...")])     faults found later

`load(path, Model)` does the first two. Everything wrong with a file is reported at once.
Anchors, aliases and tags are refused: a file says what it says, once, in plain values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, TypeAlias, TypeVar, Union, get_args, get_origin

from msgspec import Struct
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_EVENTS = 20_000

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

    def __init__(self, path: str, text: str, root: object, data: object) -> None:
        self.path = path
        self.data = data
        self._lines = text.splitlines()
        self._root = root  # ruamel's values, which know their places

    def parse(self, model: type[M]) -> M:
        """The document as `model`; raises `BadFile` with every fault in it."""
        try:
            return model.model_validate(self.data)
        except ValidationError as error:
            raise BadFile(sorted(self.faults(error, model), key=lambda fault: (fault.line, fault.column))) from None

    def faults(self, error: ValidationError, model: type[BaseModel], under: Loc = ()) -> list[Fault]:
        """Pydantic's findings about the part of this document at `under`, each with its place."""
        return [self._fault_of(detail, model, under) for detail in error.errors(include_url=False)]

    def fault(self, loc: Loc, message: str, *, hint: str | None = None, at_key: bool = False) -> Fault:
        """A fault at `loc`, or at the nearest place above it that the file has; `at_key` points at the key."""
        line, column = self._position(loc, at_key=at_key)
        text = self._lines[line - 1] if 0 < line <= len(self._lines) else ""
        return Fault(path=self.path, line=line, column=column, message=message, hint=hint, text=text)

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
        return self.fault((*under, *loc), f"{dotted(loc)}: {message}" if loc else message, hint=hint_of(detail))

    def _position(self, loc: Loc, *, at_key: bool) -> tuple[int, int]:
        node, place = self._root, (0, 0)
        for depth, part in enumerate(loc):
            found = _child(node, part, at_key=at_key and depth == len(loc) - 1)
            if found is not None:  # pydantic also names union members in a loc; the file has nothing there
                node, place = found
        return (place[0] + 1, place[1] + 1) if self._lines else (0, 0)


def load(path: Path, model: type[M]) -> M:
    """The file at `path` as `model`; raises `BadFile`."""
    return read(path).parse(model)


def read(path: Path) -> Document:
    """The document at `path`, checked for form but not yet for meaning; raises `BadFile`."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadFile([Fault(path=str(path), message=f"cannot be read: {error.strerror or error}")]) from None
    return read_bytes(raw, str(path))


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
    root, data = _compose(text, path)
    return Document(path, text, root, data)


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


def _compose(text: str, path: str) -> tuple[object, object]:
    """What the text says: with places, and as plain values."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    yaml = YAML(typ="rt", pure=True)
    try:
        _refuse_unsafe_events(yaml, text, path)
        root = yaml.load(text)
        return root, _plain(root)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        message = (error.problem or error.context or "is not YAML").partition("\n")[0]
        raise BadFile([_marked(text, path, line, column, message)]) from None
    except YAMLError as error:
        raise BadFile([Fault(path=path, message=f"is not YAML: {str(error).partition(chr(10))[0]}")]) from None
    except (ValueError, RecursionError) as error:  # an impossible date, a mapping as a key
        line, column = _place_of_impossible(text)
        raise BadFile([_marked(text, path, line, column, f"is not YAML we accept: {error}")]) from None


def _place_of_impossible(text: str) -> tuple[int, int]:
    """Line and column of the first plain value that looks like a date and is none (2026-02-31); zeros without one."""
    from ruamel.yaml import YAML, events

    for event in YAML(typ="rt", pure=True).parse(text):
        if isinstance(event, events.ScalarEvent) and event.style is None:
            try:
                YAML(typ="rt", pure=True).load(event.value)
            except ValueError:
                return event.start_mark.line + 1, event.start_mark.column + 1
    return 0, 0


def _refuse_unsafe_events(yaml: object, text: str, path: str) -> None:
    """Raise `BadFile` at the first anchor, alias, tag, merge key, second document or excessive depth."""
    from ruamel.yaml import YAML, events

    assert isinstance(yaml, YAML)
    depth = documents = 0
    for count, event in enumerate(yaml.parse(text)):
        problem = _problem_of(event)
        if isinstance(event, events.CollectionStartEvent):
            depth += 1
        elif isinstance(event, events.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, events.DocumentStartEvent):
            documents += 1
        if depth > MAX_DEPTH:
            problem = f"is nested deeper than {MAX_DEPTH} levels"
        if documents > 1:
            problem = "holds a second document; one file is one document"
        if count > MAX_EVENTS:
            problem = f"holds more than {MAX_EVENTS:,} values"
        if problem:
            mark = event.start_mark
            raise BadFile([_marked(text, path, mark.line + 1, mark.column + 1, problem)])


def _problem_of(event: object) -> str | None:
    from ruamel.yaml import events

    if isinstance(event, events.AliasEvent):
        return "aliases (*name) are not accepted; write the value out"
    if getattr(event, "anchor", None):
        return "anchors (&name) are not accepted; write the value out"
    if isinstance(event, events.NodeEvent) and getattr(event, "tag", None):
        return "tags (!name) are not accepted; write a plain value"
    if isinstance(event, events.ScalarEvent) and event.value == "<<" and event.style is None:
        return "merge keys (<<) are not accepted; write the values out"
    return None


def _marked(text: str, path: str, line: int, column: int, message: str) -> Fault:
    lines = text.splitlines()
    shown = lines[line - 1] if 0 < line <= len(lines) else ""
    return Fault(path=path, line=line, column=column, message=message, text=shown)


def _child(node: object, part: str | int, *, at_key: bool) -> tuple[object, tuple[int, int]] | None:
    """The value under `part` and its place, or None when the file has none."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    if isinstance(node, CommentedMap) and part in node:
        return node[part], node.lc.key(part) if at_key else node.lc.value(part)
    if isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
        return node[part], node.lc.item(part)
    return None


def _plain(node: object) -> object:
    """Plain Python of ruamel's values, which remember their place and so resist pickling, JSON and comparison."""
    if isinstance(node, Mapping):
        if odd := next((key for key in node if isinstance(key, Mapping | Sequence) and not isinstance(key, str)), None):
            raise ValueError(f"{odd} cannot be a key")
        return {_plain(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    if type(node).__name__ == "ScalarBoolean":  # an int to Python
        return bool(node)
    for kind in (int, float, str):
        if isinstance(node, kind) and type(node) not in (kind, bool):
            return kind(node)
    return node


def _window(text: str, column: int, width: int = 100) -> tuple[str, int]:
    """A line cut to what fits a terminal, and where the column lies in it; tabs become spaces."""
    text = text.replace("\t", " ")
    start = max(0, column - width) if column > width else 0
    return text[start : start + width], column - start
