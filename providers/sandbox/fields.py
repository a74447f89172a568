"""Reads fields of a request body, and says what is wrong with one in words every seller can put in its own shape."""

from __future__ import annotations

from collections.abc import Collection, Mapping


class Invalid(Exception):
    """A field holds what the seller does not accept."""

    def __init__(self, field: str, kind: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.kind = kind
        self.message = message


def text(body: Mapping[str, object], field: str, default: str | None = None) -> str:
    """A string; required when there is no default."""
    value = body.get(field)
    if value is None and default is not None:
        return default
    if field not in body:
        raise Invalid(field, "missing", "Field required")
    if not isinstance(value, str):
        raise Invalid(field, "string_type", "Input should be a valid string")
    return value


def choice(body: Mapping[str, object], field: str, allowed: Collection[str], default: str) -> str:
    """One of several strings."""
    value = text(body, field, default)
    if value not in allowed:
        options = " or ".join(f"'{option}'" for option in allowed)
        raise Invalid(field, "literal_error", f"Input should be {options}")
    return value


def integer(body: Mapping[str, object], field: str, between: tuple[int, int] | None = None) -> int | None:
    """A whole number within bounds; None when the field is absent."""
    value = body.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise Invalid(field, "int_type", "Input should be a valid integer")
    _check(field, value, between)
    return value


def number(body: Mapping[str, object], field: str, between: tuple[float, float]) -> float | None:
    """A number within bounds; None when the field is absent."""
    value = body.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Invalid(field, "float_type", "Input should be a valid number")
    _check(field, value, between)
    return float(value)


def _check(field: str, value: float, between: tuple[float, float] | None) -> None:
    if between is None:
        return
    if value < between[0]:
        raise Invalid(field, "greater_than_equal", f"Input should be greater than or equal to {between[0]}")
    if value > between[1]:
        raise Invalid(field, "less_than_equal", f"Input should be less than or equal to {between[1]}")
