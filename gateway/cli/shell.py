"""What the commands share: where things are, how to stop, how to print."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from gateway.settings import CHECKOUT, Settings, load_settings
from gateway.storage.database import Database, open_database
from policies.money import to_usd

T = TypeVar("T")

COMMAND = "./run" if (CHECKOUT / "run").is_file() else "pixelgate"
"""How to call us from here, for remarks that name another command."""


class Stop(Exception):
    """The command ends here, with a sentence for people and an exit code."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


def write_file(file: Path, text: str) -> None:
    """Write a file that was asked for; stops where that cannot be."""
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Stop(f"{file}: cannot be written ({error.strerror})") from error


@Parameter(name="*", group="Where")
@dataclass(frozen=True)
class Where:
    """Which configuration and which records a command works on."""

    config: Path | None = None
    """Folder that holds gateway.yaml; the shipped one when left out."""
    state: Path | None = None
    """Folder of a gateway's records; the configured one when left out."""

    def settings(self, **flags: object) -> Settings:
        """The settings in force; raises `BadFile`. A demo's state folder brings its own configuration along."""
        own = self.state / "config" if self.state else None
        config = self.config or (own if own and own.is_dir() else None)
        return load_settings(config, flags={"state": self.state, **flags})


HERE = Where()
Port: TypeAlias = Annotated[int, Parameter(validator=Number(gte=0, lte=65_535))]
Json: TypeAlias = Annotated[bool, Parameter(name="--json", help="Print JSON for scripts instead of text for people.")]


def open_records(settings: Settings) -> Database:
    """The records of a gateway that has run before; stops when there are none."""
    path = Path(settings.database_url.partition(":///")[2])
    if not path.exists():
        raise Stop(f"there are no records at {path}; has this gateway run? `--state DIR` names another folder")
    return open_database(settings.database_url, settings.database.durability, create=False)


def with_records(settings: Settings, work: Callable[[Database], Coroutine[object, object, T]]) -> T:
    """What `work` brings from the records, which are closed then."""

    async def run() -> T:
        db = open_records(settings)
        try:
            return await work(db)
        finally:
            await db.aclose()

    return run_async(run())


def run_async(work: Coroutine[object, object, T]) -> T:
    """Run `work` on the fast loop."""
    import uvloop

    return uvloop.run(work)


def above_zero(time_scale: float) -> float:
    """The option `--time-scale` as given; stops when time would stand still or run backwards."""
    if not time_scale > 0:
        raise Stop(f"--time-scale {time_scale:g}: must be above 0; 1 is as slow as real providers")
    return time_scale


def me() -> str:
    """Who types this, as the machine knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def say(text: str = "") -> None:
    """Print to standard error: progress and remarks, which no script reads."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    print(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode())


def plain(text: str) -> str:
    """Text in which nothing speaks to the terminal: tags come from callers, and may hold any character."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def table(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> str:
    """Rows with aligned columns; those of `right` are aligned to the right."""
    rows = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def dollars(nano: int | None) -> str:
    """Exact dollars for people: $0.0027."""
    return "-" if nano is None else f"${to_usd(nano)}"
