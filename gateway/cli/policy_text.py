"""Small changes to a policy as it is written: the rest of the text, remarks among it, stays as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from gateway.cli.shell import Stop

_REVISION = re.compile(r"(?m)^(revision:[ \t]*)(\d+)")


def with_revision(text: str, number: int) -> str:
    """The text under another number."""
    found, times = _REVISION.subn(rf"\g<1>{number}", text, count=1)
    if not times:
        raise Stop("the policy has no line `revision: N` at its left edge; give it one", code=1)
    return found


def with_item(text: str, key: str, item: Sequence[str]) -> str:
    """The text with one more item at the end of the list under a key of the policy; `item` is its lines, unindented.

    Stops where the list is written between brackets.
    """
    lines = text.splitlines()
    at = next((place for place, line in enumerate(lines) if re.match(rf"{key}:(\s|$)", line)), None)
    if at is None:
        return "\n".join([*_without_blank_end(lines), "", f"{key}:", *_indented(item, "  ")]) + "\n"
    rest = lines[at].partition(":")[2].partition("#")[0].strip()
    if rest == "[]":
        lines[at] = f"{key}:"
    elif rest:
        raise Stop(f"line {at + 1}: `{key}` is written between brackets; write it as a list, one `- ` a line", code=1)
    end = at + 1
    indent = "  "
    for place in range(at + 1, len(lines)):
        line = lines[place]
        if line.lstrip().startswith("- ") and end == at + 1:
            indent = line[: len(line) - len(line.lstrip())]
        if line.strip() and not line.lstrip().startswith("#"):
            if not line[0].isspace() and not line.startswith("- "):
                break
            end = place + 1
    return "\n".join([*lines[:end], *_indented(item, indent), *lines[end:]]) + "\n"


def flow(value: object) -> str:
    """A value on one line; words in quotes only where YAML would take them for something else."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(name)}: {flow(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(each) for each in value) + "]"
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and value.lower() not in _TAKEN else json.dumps(value)
    return json.dumps(value)


_PLAIN = re.compile(
    r"[A-Za-z$][A-Za-z0-9_.$/-]*(:[A-Za-z0-9][A-Za-z0-9_./-]*)?"  # words, offers
    r"|\d+x\d+|\d+(\.\d+)?(%|ms|s|m|h|d)|\$\d+(\.\d+)?"  # sizes, shares and durations, money
)
_TAKEN = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def _indented(item: Sequence[str], indent: str) -> list[str]:
    first, *rest = item
    return [f"{indent}- {first}", *[f"{indent}  {line}" for line in rest]]


def _without_blank_end(lines: Sequence[str]) -> list[str]:
    kept = list(lines)
    while kept and not kept[-1].strip():
        kept.pop()
    return kept
