"""`pixelgate keys`: make, list and revoke API keys."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from pydantic_core import PydanticCustomError

from gateway.cli.shell import COMMAND, HERE, Json, Stop, Where, dollars, open_records, print_json, run_async, table
from gateway.keys import make_key
from gateway.revisions import load_revision
from gateway.settings import Settings, read_pepper
from gateway.storage.database import Database, open_database
from gateway.storage.rows import KeyRow
from gateway.yaml_files import nearest
from policies.policy_file.values import parse_dollars, parse_duration

T = TypeVar("T")


def create(  # noqa: PLR0913 - the terms of a key
    *,
    team: str = "default",
    name: str = "",
    budget: str | None = None,
    rpm: int | None = None,
    ipm: int | None = None,
    models: list[str] | None = None,
    expires: str | None = None,
    admin: bool = False,
    moderation: bool = False,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Make an API key. It is shown once and stored only as a keyed hash.

    Parameters
    ----------
    team
        Who pays.
    name
        What the key is for, in your own words.
    budget
        Dollars it may spend over its life ($25); `limits.budget` when left out, else unlimited.
    rpm
        Requests a minute; `limits.requests_per_minute` when left out, else unlimited.
    ipm
        Pictures a minute; `limits.images_per_minute` when left out, else unlimited.
    models
        Models it may use; all when left out. Repeat the option for several.
    expires
        After this long it ends: 30d, 12h. Never when left out.
    moderation
        Give it the scope `moderation`: it may ask for a laxer check than its team's.
    admin
        Give it the scope `admin`, which everything under /admin asks for.
    """
    settings = where.settings()
    now = datetime.now(UTC)
    if rpm is not None and rpm < 1:
        raise Stop(f"--rpm {rpm}: at least one request a minute, or leave it out; `keys revoke` ends a key")
    if ipm is not None and ipm < 1:
        raise Stop(f"--ipm {ipm}: at least one picture a minute, or leave it out; `keys revoke` ends a key")
    if not team:
        raise Stop("--team: say who pays, or leave it out")
    _check_models(settings, models or [])
    row, shown = make_key(
        read_pepper(settings),
        team=team,
        name=name,
        created=now,
        scopes=("images", *(("admin",) if admin else ()), *(("moderation",) if moderation else ())),
        models=tuple(models) if models else None,
        budget=settings.limits.budget if budget is None else _typed("--budget", parse_dollars, budget),
        rpm=settings.limits.requests_per_minute if rpm is None else rpm,
        ipm=settings.limits.images_per_minute if ipm is None else ipm,
        expires=None if expires is None else now + timedelta(seconds=_typed("--expires", parse_duration, expires)),
    )
    run_async(_add(settings, row))
    if json:
        print_json({"key": shown, **_public(row)})
    else:
        print(shown)


def list_keys(*, json: Json = False, where: Where = HERE) -> None:
    """List every key with its terms and what it spent."""
    rows = run_async(_read(open_records(where.settings())))
    if json:
        print_json({"keys": [{**_public(row), "spent_nano_usd": spent} for row, spent in rows]})
        return
    head = ("id", "team", "name", "spent", "budget", "rpm", "created", "state")
    print(table([head, *(_line(row, spent) for row, spent in rows)], right=frozenset({3, 4, 5})))


def revoke(key_id: str, /, *, where: Where = HERE) -> None:
    """End a key for good; requests that carry it get 401.

    Parameters
    ----------
    key_id
        Its id, as `keys list` shows it (the middle of pg_<id>_...).
    """
    settings = where.settings()
    if not run_async(_revoke(open_records(settings), _id_of(key_id))):
        raise Stop(f"no key {_id_of(key_id)} is in use; see `{COMMAND} keys list`", code=1)
    print(f"revoked {_id_of(key_id)}; running gateways know it within seconds")


def _typed(option: str, parse: Callable[[object], T], text: str) -> T:
    try:
        return parse(text)
    except PydanticCustomError as error:
        raise Stop(f"{option}: {error.message()}") from None


def _check_models(settings: Settings, models: list[str]) -> None:
    """Stop at a name that would never fit: keys are held against the catalogue's own names, not against aliases."""
    known = load_revision(settings, every_account=True).catalog.models if models else {}
    for model in models:
        if model not in known:
            raise Stop(f"--models {model}: no such model; {nearest(model, list(known)) or ', '.join(known)}")


async def _add(settings: Settings, row: KeyRow) -> None:
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    db = open_database(settings.database_url, settings.database.durability)
    try:
        await db.add_key(row)
    finally:
        await db.aclose()


async def _read(db: Database) -> list[tuple[KeyRow, int]]:
    try:
        spent, _ = await db.spending()
        return [(row, spent[row.id].posted if row.id in spent else 0) for row in await db.keys()]
    finally:
        await db.aclose()


async def _revoke(db: Database, key_id: str) -> bool:
    try:
        return await db.revoke_key(key_id, datetime.now(UTC))
    finally:
        await db.aclose()


def _id_of(text: str) -> str:
    """The id, also out of a whole key."""
    return text.split("_")[1] if text.startswith("pg_") else text


def _public(row: KeyRow) -> dict[str, object]:
    return {
        "id": row.id,
        "team": row.team,
        "name": row.name,
        "scopes": row.scopes,
        "models": row.models,
        "budget_nano_usd": row.budget,
        "rpm": row.rpm,
        "ipm": row.ipm,
        "created": row.created,
        "expires": row.expires,
        "revoked": row.revoked,
    }


def _line(row: KeyRow, spent: int) -> tuple[str, ...]:
    ended = row.expires is not None and row.expires <= datetime.now(UTC)
    state = "revoked" if row.revoked else "expired" if ended else "good"
    budget, rpm = dollars(row.budget), "-" if row.rpm is None else str(row.rpm)
    return row.id, row.team, row.name, dollars(spent), budget, rpm, f"{row.created:%Y-%m-%d %H:%M}", state
