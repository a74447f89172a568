"""Reads one field of a decoded JSON object, exactly: `true` is no integer, `"1"` is no number, `null` is absent.

Every message names the field, what came and what may come; codes are OpenAI's own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from math import isfinite

from gateway.errors import InvalidRequest
from policies.money import USD

Fields = Mapping[str, object]

MAX_USD = 1_000_000
"""Dollars; larger amounts are surely a mistake, and nano-dollars of them still fit 64 bits."""


def text(fields: Fields, name: str, longest: int, param: str | None = None) -> str | None:
    """A string of at most `longest` characters."""
    value = fields.get(name)
    if value is None:
        return None
    param = param or name
    if not isinstance(value, str):
        raise wrong_type(param, "a string", value)
    if len(value) > longest:
        raise InvalidRequest(
            f"Invalid '{param}': string too long. Expected at most {longest} characters, but got {len(value)} instead.",
            param=param,
            code="string_above_max_length",
        )
    if "\0" in value:
        raise InvalidRequest(f"Invalid '{param}': it may not contain the character NUL.", param=param)
    return value


def integer(fields: Fields, name: str, least: int, most: int) -> int | None:
    """An integer within [`least`, `most`]."""
    value = fields.get(name)
    if value is None:
        return None
    if type(value) is not int:
        raise wrong_type(name, f"an integer from {least} to {most}", value)
    if value < least:
        raise InvalidRequest(
            f"Invalid '{name}': integer below minimum value. "
            f"Expected a value >= {least}, but got {shown(value)} instead.",
            param=name,
            code="integer_below_min_value",
        )
    if value > most:
        raise InvalidRequest(
            f"Invalid '{name}': integer above maximum value. "
            f"Expected a value <= {most}, but got {shown(value)} instead.",
            param=name,
            code="integer_above_max_value",
        )
    return value


def number(fields: Fields, name: str, least: float, most: float, param: str | None = None) -> float | None:
    """A finite number within [`least`, `most`]."""
    value = fields.get(name)
    if value is None:
        return None
    param = param or name
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise wrong_type(param, f"a number from {least:g} to {most:g}", value)
    if not least <= value <= most:
        raise InvalidRequest(
            f"Invalid '{param}': expected a number from {least:g} to {most:g}, but got {shown(value)} instead.",
            param=param,
        )
    return float(value)


def choice(fields: Fields, name: str, words: Collection[str]) -> str | None:
    """One of `words`."""
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise wrong_type(name, f"one of {listed(words)}", value)
    if value not in words:
        raise InvalidRequest(
            f"Invalid value for '{name}': {shown(value)}. Supported values are: {listed(words)}.{hint(value, words)}",
            param=name,
        )
    return value


def boolean(fields: Fields, name: str) -> bool | None:
    """`true` or `false`."""
    value = fields.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise wrong_type(name, "true or false", value)


def dollars(fields: Fields, name: str) -> int | None:
    """An amount of dollars, as a number or a decimal string, in nano-dollars; finer ones are rounded down."""
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise wrong_type(name, "an amount in dollars such as 0.05", value)
    amount = _decimal(value)
    if amount is None or not 0 <= amount <= MAX_USD:
        raise InvalidRequest(
            f"Invalid '{name}': expected dollars from 0 to {MAX_USD} such as 0.05, but got {shown(value)} instead.",
            param=name,
        )
    return int(amount * USD)


def _decimal(value: float | str) -> Decimal | None:
    if isinstance(value, str) and not (value.isascii() and len(value) <= 40 and "_" not in value):
        return None
    if isinstance(value, int) and value > MAX_USD:
        return None
    try:
        # The shortest decimal that means this float is what was typed: 0.1, not 0.1000000000000000055.
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() else None


def words(fields: Fields, name: str, param: str) -> tuple[str, ...] | None:
    """A list of strings."""
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > 50:
        raise wrong_type(param, "a list of at most 50 strings", value)
    return tuple(_word(item, f"{param}[{position}]") for position, item in enumerate(value))


def _word(value: object, param: str) -> str:
    if not isinstance(value, str) or not value:
        raise wrong_type(param, "a string that is not empty", value)
    return value


def mapping(fields: Fields, name: str, keys: Collection[str] | None = None) -> dict[str, object] | None:
    """An object; when `keys` are given it may hold no others."""
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise wrong_type(name, "an object", value)
    if keys is not None:
        refuse_unknown(value, keys, f"{name}.")
    return value


def refuse_unknown(fields: Fields, known: Collection[str], prefix: str = "") -> None:
    """Raise for a field nobody knows: a misspelt one must not draw, and bill, the wrong picture."""
    for name in fields:
        if name not in known:
            raise InvalidRequest(
                f"Unknown parameter: '{prefix}{name[:80]}'.{hint(name, known)}",
                param=f"{prefix}{name[:80]}",
                code="unknown_parameter",
            )


def wrong_type(param: str, expected: str, value: object) -> InvalidRequest:
    """The error for a value of the wrong JSON type."""
    return InvalidRequest(
        f"Invalid type for '{param}': expected {expected}, but got {_kind(value)} instead.",
        param=param,
        code="invalid_type",
    )


def hint(value: str, words: Iterable[str]) -> str:
    """` Did you mean 'quality'?`, when one of `words` is near."""
    near = get_close_matches(value[:80].lower(), list(words), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def listed(words: Iterable[str]) -> str:
    """Words for a sentence: `'url', 'b64_json'`."""
    return ", ".join(f"'{word}'" for word in words)


def shown(value: object) -> str:
    """A value as it may appear in a message: short."""
    if isinstance(value, int) and not -(10**20) < value < 10**20:
        return "a number of more than 20 digits"
    if isinstance(value, float) and not isfinite(value):
        return "a number too large to hold"
    spelled = repr(value) if isinstance(value, str) else str(value)
    return spelled if len(spelled) <= 80 else f"{spelled[:77]}..."


def _kind(value: object) -> str:
    match value:
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a decimal"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
