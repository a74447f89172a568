"""`pixelgate keys`: make, list and revoke API keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gateway.cli.shell import HERE, Json, Stop, Where, dollars, open_records, print_json, run_async, table
from gateway.keys import make_key
from gateway.settings import Settings, read_pepper
from gateway.storage.database import Database, open_database
from gateway.storage.rows import KeyRow
from policies.policy_file.schema import parse_dollars, parse_duration


def create(  # noqa: PLR0913 - the terms of a key
    *,
    team: str = "default",
    name: str = "",
    budget: str | None = None,
    rpm: int | None = None,
    models: list[str] | None = None,
    expires: str | None = None,
    admin: bool = False,
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
    models
        Models it may use; all when left out. Repeat the option for several.
    expires
        After this long it ends: 30d, 12h. Never when left out.
    admin
        It may also use /admin.
    """
    settings = where.settings()
    now = datetime.now(UTC)
    row, shown = make_key(
        read_pepper(settings),
        team=team,
        name=name,
        created=now,
        scopes=("images", "admin") if admin else ("images",),
        models=tuple(models) if models else None,
        budget=parse_dollars(budget) if budget else settings.limits.budget,
        rpm=rpm or settings.limits.requests_per_minute,
        expires=now + timedelta(seconds=parse_duration(expires)) if expires else None,
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
        raise Stop(f"no key {_id_of(key_id)} is in use; see `pixelgate keys list`", code=1)
    print(f"revoked {_id_of(key_id)}; running gateways know it within seconds")


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
        "created": row.created,
        "expires": row.expires,
        "revoked": row.revoked,
    }


def _line(row: KeyRow, spent: int) -> tuple[str, ...]:
    ended = row.expires is not None and row.expires <= datetime.now(UTC)
    state = "revoked" if row.revoked else "expired" if ended else "good"
    budget, rpm = dollars(row.budget), "-" if row.rpm is None else str(row.rpm)
    return row.id, row.team, row.name, dollars(spent), budget, rpm, f"{row.created:%Y-%m-%d %H:%M}", state
