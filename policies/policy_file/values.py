"""Values as people type them in a policy: seconds with a unit, money in dollars, shares in percent, sizes in pixels.

Each is read in one way only, and says in the JSON Schema what an editor may accept for it.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from policies.money import NanoUsd, from_usd
from policies.types import Tier
from providers.contract import Operation

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", re.ASCII)
_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86_400)}
_DOLLARS = re.compile(r"\$?\s*(\d+(?:\.\d+)?)", re.ASCII)
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%", re.ASCII)
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}", re.ASCII)
_SIZE = re.compile(r"(\d{2,5})x(\d{2,5})", re.ASCII)

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Loc: TypeAlias = tuple[str | int, ...]
"""Where something stands in a file."""


def parse_duration(value: object) -> float:
    """Read seconds of `3s`, `500ms`, `5m`, `24h` or `7d`; a bare number is refused, since nobody can tell its unit."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise PydanticCustomError(
            "duration", "{value} is not a duration: write a number and its unit, as in 500ms or 3s", _shown(value)
        )
    return float(Decimal(found[1]) * _SECONDS[found[2]])


def parse_dollars(value: object) -> NanoUsd:
    """Read nano-dollars of `$0.002` or `0.002`."""
    found = None if isinstance(value, bool) else _DOLLARS.fullmatch(_decimal_text(value))
    if found is None:
        raise PydanticCustomError("dollars", "{value} is not an amount: write dollars, as in $0.002", _shown(value))
    try:
        return from_usd(found[1])
    except ValueError as fault:
        raise PydanticCustomError("dollars", "{value}: finer than a nano-dollar", _shown(value)) from fault


def parse_share(value: object) -> float:
    """Read a share of one, typed in percent (`85%` -> 0.85)."""
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if found is None or Decimal(found[1]) > 100:
        raise PydanticCustomError("share", "{value} is not a share: write 0% to 100%, as in 85%", _shown(value))
    return float(Decimal(found[1]) / 100)


def parse_size(value: object) -> tuple[int, int]:
    """Read width and height of `1024x1024`."""
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise PydanticCustomError("size", "{value} is not a size: write width x height, as in 1024x1024", _shown(value))
    return int(found[1]), int(found[2])


def parse_name(value: str) -> str:
    """Refuse a name that could not stand in a command, a file name or a report as it is."""
    if _NAME.fullmatch(value) is None:
        raise PydanticCustomError(
            "name", "{value} is no name: write up to 64 small letters, digits, - and _, a letter first", _shown(value)
        )
    return value


def parse_tier(value: object) -> Tier:
    """Find the tier behind `preview`, `standard` or `export`."""
    found = next((tier for tier in Tier if tier.word == value), None)
    if found is None:
        raise PydanticCustomError("tier", "{value} is not a tier: write preview, standard or export", _shown(value))
    return found


def _shown(value: object) -> dict[str, object]:
    return {"value": repr(value)}


def _decimal_text(value: object) -> str:
    # YAML reads 0.0005 as a float whose str() is 0.0005, but 0.00005 as one whose str() is 5e-05.
    return f"{Decimal(str(value)):f}" if isinstance(value, int | float) else str(value)


def parse_words(value: object) -> object:
    """Read one word as a list of one."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def _typed(kind: str | list[str], pattern: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": kind, "pattern": f"^{pattern}$", "examples": [example]})


Duration = Annotated[float, BeforeValidator(parse_duration), _typed("string", _DURATION.pattern, "500ms")]
Dollars = Annotated[int, BeforeValidator(parse_dollars), _typed(["string", "number"], r"\$?\s*\d+(\.\d+)?", "$0.002")]
Share = Annotated[float, BeforeValidator(parse_share), _typed("string", _PERCENT.pattern, "85%")]
Size = Annotated[tuple[int, int], BeforeValidator(parse_size), _typed("string", _SIZE.pattern, "1024x1024")]
TierWord = Annotated[
    Tier, BeforeValidator(parse_tier), WithJsonSchema({"type": "string", "enum": [tier.word for tier in Tier]})
]


def _one_or_more(items: dict[str, object]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [items, {"type": "array", "items": items, "minItems": 1}]})


Words = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=200)], ...],
    BeforeValidator(parse_words),
    Field(min_length=1, max_length=1_000),
    _one_or_more({"type": "string"}),
]
"""One word, or a list of them."""
Operations = Annotated[
    tuple[Operation, ...],
    BeforeValidator(parse_words),
    Field(min_length=1),
    _one_or_more({"enum": list(get_args(Operation))}),
]
Days = Annotated[
    tuple[Day, ...], BeforeValidator(parse_words), Field(min_length=1), _one_or_more({"enum": list(get_args(Day))})
]
Tiers = Annotated[
    tuple[TierWord, ...],
    BeforeValidator(parse_words),
    Field(min_length=1),
    _one_or_more({"enum": [tier.word for tier in Tier]}),
]
Name = Annotated[str, AfterValidator(parse_name), WithJsonSchema({"type": "string", "pattern": f"^{_NAME.pattern}$"})]


class Section(BaseModel):
    """A part of the file: unknown keys are errors, and what was read never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
