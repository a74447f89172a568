"""`pixelgate keys`: make API keys, say what they may do, give them fresh secrets, end them, and read who did that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

from cyclopts import Parameter
from msgspec.structs import replace
from pydantic_core import PydanticCustomError

from gateway.cli.shell import (
    COMMAND,
    HERE,
    Json,
    Stop,
    Where,
    dollars,
    me,
    open_records,
    print_json,
    run_async,
    say,
    table,
    with_records,
)
from gateway.keys import SCOPES, USUAL_SCOPES, make_key, rotated
from gateway.revisions import load_revision
from gateway.settings import Settings, read_pepper
from gateway.storage.changes import ChangeRow, KeyAction, key_change
from gateway.storage.database import Database, Spending, open_database
from gateway.storage.rows import KeyRow
from gateway.storage.shadows import PARTY
from gateway.yaml_files import nearest
from policies.policy_file.values import parse_dollars, parse_duration, parse_size
from policies.types import Tier

T = TypeVar("T")

NONE = "none"
"""What lifts a limit."""
_MONEY = frozenset({"budget", "max_price", "max_call_price"})


@Parameter(name="*", group="What it may do, and spend")
@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a key may do. `none` is no limit; for models and tiers, `all`."""

    budget: str | None = None
    """Dollars it may spend over its life ($25); when left out `limits.budget`, else unlimited."""
    rpm: str | None = None
    """Requests a minute; when left out `limits.requests_per_minute`, else unlimited."""
    ipm: str | None = None
    """Pictures a minute; when left out `limits.images_per_minute`, else unlimited."""
    concurrency: str | None = None
    """Calls in flight at once."""
    max_price: str | None = None
    """Dollars that one picture may cost at most ($0.05)."""
    max_call_price: str | None = None
    """Dollars that all pictures of one call may cost together at most."""
    max_size: str | None = None
    """The largest picture, by its pixels: 2048x2048."""
    models: list[str] | None = None
    """Models it may use. Repeat the option for several."""
    tiers: list[str] | None = None
    """Tiers of the models it may draw with: preview, standard, export. Repeat the option for several."""
    scopes: list[str] | None = None
    """What it may do at all, instead of the usual scopes: images:write, images:read, decisions:read, models:read,
    quotes:read, moderation, admin. Repeat the option for several."""
    expires: str | None = None
    """After this long, from now, it ends: 30d, 12h; `none` for never."""

    def read(self, settings: Settings, now: datetime) -> dict[str, object]:
        """Field of a key's record -> what was said of it; stops at what makes no sense."""
        said: dict[str, object] = {}
        amounts = {"budget": self.budget, "max_price": self.max_price, "max_call_price": self.max_call_price}
        for field, text in amounts.items():
            if text is not None:
                said[field] = _amount(field, text)
        for field, text in {"rpm": self.rpm, "ipm": self.ipm, "concurrency": self.concurrency}.items():
            if text is not None:
                said[field] = _count(field, text)
        if self.max_size is not None:
            size = _or_none(lambda text: _typed("--max-size", parse_size, text), self.max_size)
            said["max_pixels"] = None if size is None else size[0] * size[1]
        if self.models is not None:
            said["models"] = _words("--models", self.models, list(_catalogue(settings)))
        if self.tiers is not None:
            said["tiers"] = _words("--tiers", self.tiers, [tier.word for tier in Tier])
        if self.scopes is not None:
            _words("--scopes", self.scopes, list(SCOPES), all_of_them=False)
            said["scopes"] = tuple(dict.fromkeys(self.scopes))
        if self.expires is not None:
            seconds = _or_none(lambda text: _typed("--expires", parse_duration, text), self.expires)
            said["expires"] = None if seconds is None else now + timedelta(seconds=seconds)
        return said


UNSAID = Terms()


def create(  # noqa: PLR0913 - each is an option of its own
    *,
    team: str = "default",
    name: str = "",
    terms: Terms = UNSAID,
    admin: bool = False,
    moderation: bool = False,
    author: str | None = None,
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
    moderation
        Give it the scope `moderation` beside the others: it may ask for a laxer check than its team's.
    admin
        Give it the scope `admin` beside the others, which everything under /admin asks for.
    author
        Who makes it; whoever types this when left out.
    """
    settings = where.settings()
    now = datetime.now(UTC)
    if not team:
        raise Stop("--team: say who pays, or leave it out")
    if team.startswith(PARTY):
        raise Stop(f"--team {team}: names that begin with '{PARTY}' are those of experiments; choose another")
    limits = settings.limits
    usual = {
        "budget": limits.budget,
        "rpm": limits.requests_per_minute,
        "ipm": limits.images_per_minute,
        "scopes": USUAL_SCOPES,
    }
    row, shown = make_key(read_pepper(settings), team=team, name=name, created=now)
    row = replace(row, **usual | terms.read(settings, now))
    row = replace(row, scopes=_with(row.scopes, admin=admin, moderation=moderation))
    run_async(_add(settings, row, author or me()))
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


def show(key_id: str, /, *, json: Json = False, where: Where = HERE) -> None:
    """Show one key: its terms, what it spent, and what was changed of it last.

    Parameters
    ----------
    key_id
        Its id, as `keys list` shows it (the middle of pg_<id>_...).
    """

    async def read(db: Database) -> tuple[KeyRow, Spending, Sequence[ChangeRow]]:
        row = await _found(db, key_id)
        return row, await db.key_spent(row.id), await db.changes("key", row.id, 5)

    row, spent, changes = with_records(where.settings(), read)
    if json:
        told = {**_public(row), "spent_nano_usd": spent.posted, "held_nano_usd": spent.held}
        print_json({**told, "changes": [_public_change(change) for change in changes]})
        return
    for what, value in _told(row, spent):
        print(f"{what:<20} {value}")
    print(f"\n{_changes_table(changes)}")


def limit(
    key_id: str,
    /,
    *,
    terms: Terms = UNSAID,
    author: str | None = None,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Change what a key may do; what is not named stays. Running gateways know within two seconds.

    `none` lifts a limit; for models and tiers, `all` does.

    Parameters
    ----------
    key_id
        Its id, as `keys list` shows it (the middle of pg_<id>_...).
    author
        Who changes it; whoever types this when left out.
    """
    settings, now = where.settings(), datetime.now(UTC)
    said = terms.read(settings, now)
    if not said:
        raise Stop("say what to change: --rpm 60, --max-price $0.05 ...; see --help")
    row = _change(settings, key_id, "limited", author, lambda row: replace(row, **said))
    if json:
        print_json(_public(row))
    else:
        print(f"changed {row.id}; running gateways know it within two seconds")


def rotate(
    key_id: str,
    /,
    *,
    overlap: str = "24h",
    author: str | None = None,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Give a key a fresh secret, shown once. The one it had stays good for a while, so that nothing has to stand still.

    Id, team, terms, budget and history stay. Rotating again within that time ends the oldest secret at once.

    Parameters
    ----------
    key_id
        Its id, as `keys list` shows it (the middle of pg_<id>_...).
    overlap
        How long the secret it had stays good beside the fresh one: 24h, 30m; `none` ends it at once, for a stolen one.
    author
        Who rotates it; whoever types this when left out.
    """
    settings, now = where.settings(), datetime.now(UTC)
    seconds = _or_none(lambda text: _typed("--overlap", parse_duration, text), overlap) or 0.0
    pepper, made = read_pepper(settings), []

    def fresh(row: KeyRow) -> KeyRow:
        changed, shown = rotated(pepper, row, now, timedelta(seconds=seconds))
        made.append(shown)
        return changed

    row = _change(settings, key_id, "rotated", author, fresh)
    if json:
        print_json({"key": made[-1], **_public(row)})
        return
    print(made[-1])
    until = "has ended" if row.former_until is None else f"is good until {row.former_until:%Y-%m-%d %H:%M} UTC"
    say(f"the secret it had {until}")


def release(
    key_id: str,
    /,
    *,
    time: Annotated[str, Parameter(name="--for")] = "1h",
    author: str | None = None,
    where: Where = HERE,
) -> None:
    """Let a key go on that was paused since it spent far more than usual; or see to it that it will not be paused.

    Parameters
    ----------
    key_id
        Its id, as `keys list` shows it (the middle of pg_<id>_...).
    time
        For how long it is not paused again, whatever it spends: 1h, 24h.
    author
        Who releases it; whoever types this when left out.
    """
    until = datetime.now(UTC) + timedelta(seconds=_typed("--for", parse_duration, time))

    def released(row: KeyRow) -> KeyRow:
        return replace(row, paused_until=None, unbraked_until=until)

    row = _change(where.settings(), key_id, "released", author, released)
    print(f"released {row.id}; it is not paused before {until:%Y-%m-%d %H:%M} UTC, whatever it spends")


def revoke(key_id: str, /, *, author: str | None = None, where: Where = HERE) -> None:
    """End a key for good; requests that carry it get 401.

    Parameters
    ----------
    key_id
        Its id, as `keys list` shows it (the middle of pg_<id>_...).
    author
        Who ends it; whoever types this when left out.
    """
    now = datetime.now(UTC)
    row = _change(where.settings(), key_id, "revoked", author, lambda row: replace(row, revoked=now))
    print(f"revoked {row.id}; running gateways know it within two seconds")


def history(key_id: str | None = None, /, *, last: int = 50, json: Json = False, where: Where = HERE) -> None:
    """Say who changed what of keys, and when, the last change first.

    Parameters
    ----------
    key_id
        The id of the key; all keys when left out.
    last
        How many changes.
    """
    if last < 1:
        raise Stop(f"--last {last}: at least one")
    name = None if key_id is None else _id_of(key_id)
    changes = with_records(where.settings(), lambda db: db.changes("key", name, last))
    if json:
        print_json({"changes": [_public_change(change) for change in changes]})
    else:
        print(_changes_table(changes))


def _amount(field: str, text: str) -> int | None:
    option = _option(field)
    amount = _or_none(lambda text: _typed(option, parse_dollars, text), text)
    if amount == 0:
        raise Stop(f"{option} {text}: must be above $0; `{COMMAND} keys revoke` ends a key")
    return amount


def _count(field: str, text: str) -> int | None:
    option = _option(field)
    if text == NONE:
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 10**9:
        raise Stop(f"{option} {text}: at least 1, or `{NONE}` for no limit; `{COMMAND} keys revoke` ends a key")
    return int(text)


def _or_none(read: Callable[[str], T], text: str) -> T | None:
    return None if text == NONE else read(text)


def _words(option: str, given: Sequence[str], known: Sequence[str], *, all_of_them: bool = True) -> object:
    """The words given, which must be known; None for `all`."""
    if all_of_them and list(given) == ["all"]:
        return None
    for word in given:
        if word not in known:
            more = " (`all` lifts the limit)" if all_of_them else ""
            raise Stop(f"{option} {word}: there is none of that name; {nearest(word, known) or ', '.join(known)}{more}")
    return tuple(dict.fromkeys(given))


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _typed(option: str, parse: Callable[[object], T], text: str) -> T:
    try:
        return parse(text)
    except PydanticCustomError as error:
        raise Stop(f"{option}: {error.message()}") from None


def _catalogue(settings: Settings) -> Mapping[str, object]:
    """Models by name: keys are held against the catalogue's own names, not against aliases."""
    return load_revision(settings, every_account=True).catalog.models


def _with(scopes: tuple[str, ...], *, admin: bool, moderation: bool) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*scopes, *(("admin",) if admin else ()), *(("moderation",) if moderation else ())]))


async def _add(settings: Settings, row: KeyRow, author: str) -> None:
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    db = open_database(settings.database_url, settings.database.durability)
    try:
        await db.add_key(row, author)
    finally:
        await db.aclose()


async def _read(db: Database) -> list[tuple[KeyRow, int]]:
    try:
        spent, _ = await db.spending()
        return [(row, spent[row.id].posted if row.id in spent else 0) for row in await db.keys()]
    finally:
        await db.aclose()


async def _found(db: Database, key_id: str) -> KeyRow:
    row = await db.key(_id_of(key_id))
    if row is None:
        raise Stop(f"there is no key {_id_of(key_id)}; see `{COMMAND} keys list`", code=1)
    return row


def _change(
    settings: Settings, key_id: str, action: KeyAction, author: str | None, change: Callable[[KeyRow], KeyRow]
) -> KeyRow:
    """Change a key that is in use, with the record of it."""

    async def work(db: Database) -> KeyRow:
        before = await _found(db, key_id)
        if before.revoked is not None:
            raise Stop(f"the key {before.id} was revoked; make another with `{COMMAND} keys create`", code=1)
        after = change(before)
        if not await db.change_key(before, after, key_change(before, after, action, author or me(), _now())):
            raise Stop(f"somebody else changed the key {before.id} just now; look and try again", code=1)
        return after

    return with_records(settings, work)


def _now() -> datetime:
    return datetime.now(UTC)


def _id_of(text: str) -> str:
    """The id, also out of a whole key."""
    return text.split("_")[1] if text.startswith("pg_") else text


def _public(row: KeyRow) -> dict[str, object]:
    return {
        "id": row.id,
        "team": row.team,
        "name": row.name,
        "state": _state(row),
        "scopes": row.scopes,
        "models": row.models,
        "tiers": row.tiers,
        "budget_nano_usd": row.budget,
        "rpm": row.rpm,
        "ipm": row.ipm,
        "concurrency": row.concurrency,
        "max_price_nano_usd": row.max_price,
        "max_call_price_nano_usd": row.max_call_price,
        "max_pixels": row.max_pixels,
        "created": row.created,
        "expires": row.expires,
        "revoked": row.revoked,
        "former_until": row.former_until,
        "paused_until": row.paused_until,
        "unbraked_until": row.unbraked_until,
    }


def _public_change(change: ChangeRow) -> dict[str, object]:
    return {"at": change.at, "by": change.actor, "key": change.name, "did": change.action, "changed": change.detail}


def _state(row: KeyRow) -> str:
    now = _now()
    if row.revoked is not None:
        return "revoked"
    if row.expires is not None and row.expires <= now:
        return "expired"
    if row.paused_until is not None and row.paused_until > now:
        return "paused"
    return "rotating" if row.former_until is not None and row.former_until > now else "good"


def _line(row: KeyRow, spent: int) -> tuple[str, ...]:
    budget, rpm = dollars(row.budget), "-" if row.rpm is None else str(row.rpm)
    return row.id, row.team, row.name, dollars(spent), budget, rpm, f"{row.created:%Y-%m-%d %H:%M}", _state(row)


def _told(row: KeyRow, spent: Spending) -> list[tuple[str, str]]:
    """What a key is and may do, in words."""
    rows = [
        ("id", row.id),
        ("team", row.team),
        ("name", row.name or "-"),
        ("state", _state(row)),
        ("secret it had", f"good {_until(row.former_until)}" if _state(row) == "rotating" else "-"),
        ("paused", _until(row.paused_until) if _state(row) == "paused" else "-"),
        ("not paused", _until(row.unbraked_until)),
        ("expires", "never" if row.expires is None else f"{row.expires:%Y-%m-%d %H:%M} UTC"),
        ("scopes", ", ".join(row.scopes) or "none"),
        ("models", "all" if row.models is None else ", ".join(row.models)),
        ("tiers", "all" if row.tiers is None else ", ".join(row.tiers)),
        ("spent", f"{dollars(spent.posted)}, {dollars(spent.held)} set aside"),
        ("budget", dollars(row.budget)),
        ("price of a picture", dollars(row.max_price)),
        ("price of a call", dollars(row.max_call_price)),
        ("pixels", "-" if row.max_pixels is None else f"{row.max_pixels:,}"),
    ]
    counts = {"requests a minute": row.rpm, "pictures a minute": row.ipm, "calls in flight": row.concurrency}
    return [*rows, *((what, "-" if count is None else str(count)) for what, count in counts.items())]


def _until(at: datetime | None) -> str:
    return "-" if at is None else f"until {at:%Y-%m-%d %H:%M} UTC"


def _changes_table(changes: Sequence[ChangeRow]) -> str:
    lines = [
        (f"{change.at:%Y-%m-%d %H:%M:%S}", change.actor, change.action, change.name, _in_words(change))
        for change in changes
    ]
    return table([("at (UTC)", "who", "did", "key", "what"), *lines])


def _in_words(change: ChangeRow) -> str:
    """`rpm 60 -> 120`; of a new key, what it was made with."""
    said = []
    for field, moved in change.detail.items():
        assert isinstance(moved, dict), field
        after = _value(field, moved["to"])
        before = "" if change.action == "created" else f"{_value(field, moved['from'])} -> "
        said.append(f"{field} {before}{after}")
    return "; ".join(said)


def _value(field: str, value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    if field in _MONEY and isinstance(value, int):
        return dollars(value)
    return NONE if value is None else str(value)
