"""What every bench ends with: a table for people, a file for scripts, an exit status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct


class Figure(Struct, frozen=True, kw_only=True):
    """One measured number beside what it must and should be."""

    name: str
    value: float | None
    """None when the bench could not measure it; that fails a figure that has a must."""
    unit: str
    must: float | None = None
    aim: float | None = None
    at_least: bool = False
    """Whether must and aim are floors; they are ceilings otherwise."""

    @property
    def ok(self) -> bool:
        """Whether the must holds; a figure without one is only reported."""
        if self.must is None:
            return True
        if self.value is None:
            return False
        return self.value >= self.must if self.at_least else self.value <= self.must


def document(figures: Sequence[Figure], context: Mapping[str, object]) -> bytes:
    """The JSON of `--json`: `figures` by name, and `context` (arguments, machine, what went wrong) beside them."""
    shape = {
        figure.name: {
            "value": figure.value,
            "unit": figure.unit,
            "must": figure.must,
            "aim": figure.aim,
            "ok": figure.ok,
        }
        for figure in figures
    }
    return msgspec.json.format(msgspec.json.encode({"figures": shape, "context": context}), indent=2) + b"\n"


def table(figures: Sequence[Figure]) -> str:
    """Figure, value, must, aim and verdict, one line each."""
    rows = [("figure", "value", "must", "aim", "")]
    rows += [_row(figure) for figure in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def conclude(
    figures: Sequence[Figure], *, context: Mapping[str, object], faults: Sequence[str] = (), json_file: Path | None
) -> int:
    """Print the table and every fault, write the file, answer the exit status: 0 when all is as it must be."""
    print(table(figures))
    for fault in faults:
        print(f"FAULT: {fault}")
    if json_file is not None:
        json_file.write_bytes(document(figures, {**context, "faults": list(faults)}))
    return 0 if not faults and all(figure.ok for figure in figures) else 1


def _row(figure: Figure) -> tuple[str, str, str, str, str]:
    sign = ">=" if figure.at_least else "<="
    must, aim = ("" if limit is None else f"{sign} {_number(limit)}" for limit in (figure.must, figure.aim))
    value = "not measured" if figure.value is None else f"{_number(figure.value)} {figure.unit}".rstrip()
    return figure.name, value, must, aim, "" if figure.must is None else ("ok" if figure.ok else "FAILED")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.3g}"
