"""`pixelgate accounts`: provider accounts that have a file each, and their keys, sealed or named."""

from __future__ import annotations

import getpass
import json as jsonlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cyclopts import Parameter
from pydantic import ValidationError

from gateway.cli.shell import (
    COMMAND,
    HERE,
    Json,
    Stop,
    Where,
    me,
    print_json,
    run_async,
    say,
    table,
    with_records,
)
from gateway.revisions import load_revision
from gateway.sealing import fresh_master, seal, unseal
from gateway.settings import MASTER, NAME, Account, Settings, account_path
from gateway.storage.changes import AccountAction, ChangeRow
from gateway.storage.database import Database, open_database
from gateway.yaml_files import BadFile, dotted, sentence
from policies.catalog import TeamCalls

_REMARK = "# Written by `pixelgate accounts add`; `pixelgate accounts remove` takes it back.\n"


def list_accounts(*, json: Json = False, where: Where = HERE) -> None:
    """List every provider account: whose it is, whether it is on, and where its key comes from; never the key."""
    settings = where.settings()
    rows = [_public(settings, name, account) for name, account in sorted(settings.accounts.items())]
    if json:
        print_json({"accounts": rows})
        return
    head = ("account", "kind", "team", "its calls", "key", "state")
    print(table([head, *(_line(row) for row in rows)]))


@Parameter(name="*")
@dataclass(frozen=True)
class Contract:
    """What is agreed with the seller, and who may use it."""

    team: str | None = None
    """The one team that may use it; anyone when left out."""
    team_calls: TeamCalls | None = None
    """What else its calls may use: `also` all others, only other `models`, or nothing, as this is for `all`."""
    concurrency: int | None = None
    """Orders in flight at once that the contract allows."""
    rate: float | None = None
    """Orders per second that the contract allows."""
    region: str | None = None
    """Where prompts and pictures are processed, if the contract says."""
    models: list[str] | None = None
    """Sell only these models through it. Repeat the option for several."""
    base_url: str | None = None
    """Where the seller answers, when not at its usual place."""


@Parameter(name="*")
@dataclass(frozen=True)
class Key:
    """Where its key is."""

    key_env: str | None = None
    """The variable, or the file in the secrets folder, that holds its key."""
    sealed: bool = False
    """Read its key from standard input, and keep it encrypted in the file."""


USUAL, UNSAID = Contract(), Key()


def add(
    name: str,
    /,
    *,
    kind: str,
    key: Key = UNSAID,
    contract: Contract = USUAL,
    author: str | None = None,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Add a provider account, in a file of its own. Running gateways sell through it within a second.

    Its key is never an option: `--key-env` names where it is, `--sealed` reads it from standard input and keeps it
    encrypted under the master key.

    Parameters
    ----------
    name
        What it is called: lower case, digits, - and _.
    kind
        Which adapter speaks to it: fal, together, replicate, openai, selfhosted.
    author
        Who adds it; whoever types this when left out.
    """
    settings = where.settings()
    _must_be_new(settings, name)
    fields: dict[str, object] = {
        "kind": kind,
        "key_env": key.key_env,
        "key_sealed": _sealed(settings, name) if key.sealed else None,
        **asdict(contract),
    }
    fields = {field: value for field, value in fields.items() if value is not None}
    path = account_path(settings.config, name)
    _check(settings, name, fields)
    _write(path, fields)
    try:
        account = where.settings().accounts[name]
    except BadFile:
        path.unlink()
        raise
    run_async(_note(settings, name, "added", author, _detail(fields, gone=False)))
    if json:
        print_json(_public(where.settings(), name, account))
        return
    print(f"added {name} in {path}; running gateways sell through it within a second")
    if account.why_off is not None:
        say(f"it is off for now: {account.why_off}")


def _must_be_new(settings: Settings, name: str) -> None:
    if re.fullmatch(NAME, name) is None:
        raise Stop(
            f"{name!r} is no name of an account: a letter, then letters, digits, - and _; lower case, at most 32"
        )
    if name in settings.accounts:
        raise Stop(f"there is an account {name} already; `{COMMAND} accounts remove {name}` first, or edit its file")


def remove(name: str, /, *, author: str | None = None, where: Where = HERE) -> None:
    """Remove a provider account that has a file of its own. Running gateways order nothing from it within a second.

    Parameters
    ----------
    name
        As `accounts list` shows it.
    author
        Who removes it; whoever types this when left out.
    """
    settings = where.settings()
    path = account_path(settings.config, name)
    if name not in settings.accounts:
        raise Stop(f"there is no account {name}; see `{COMMAND} accounts list`", code=1)
    if not path.is_file():
        raise Stop(f"the account {name} stands in gateway.yaml; take it out there", code=1)
    if Path(settings.database_url.partition(":///")[2]).exists():
        left = with_records(settings, lambda db: _unsettled(db, name))
        if left:
            raise Stop(
                f"{left} orders at {name} are not settled yet, and without it nobody can ask what they cost; see "
                f"`{COMMAND} ledger reconcile`. `off: true` in {path} ends all new ones meanwhile",
                code=1,
            )
    account = settings.accounts[name]
    fields = account.model_dump(mode="json", exclude={"key"}, exclude_unset=True)
    path.unlink()
    run_async(_note(settings, name, "removed", author, _detail(fields, gone=True)))
    print(f"removed {name}; running gateways order nothing from it within a second")


def seal_key(name: str, /, *, json: Json = False, where: Where = HERE) -> None:
    """Encrypt a provider key, read from standard input, for `key_sealed` of an account.

    Parameters
    ----------
    name
        The account it is for; under another name it does not open.
    """
    sealed = _sealed(where.settings(), name)
    if json:
        print_json({"account": name, "key_sealed": sealed})
    else:
        print(sealed)


def reseal(*, author: str | None = None, where: Where = HERE) -> None:
    """Encrypt every sealed key anew, under the first of several master keys: to change the master key.

    Only files below `accounts/`; what stands in gateway.yaml is named, for you to seal.

    Parameters
    ----------
    author
        Who does it; whoever types this when left out.
    """
    settings = where.settings()
    master = _master_of(settings)
    for name, account in settings.accounts.items():
        if account.key_sealed is None:
            continue
        path = account_path(settings.config, name)
        if not path.is_file():
            say(f"left     {name}: it stands in gateway.yaml; `{COMMAND} accounts seal {name}` there")
            continue
        key = unseal(master, name, account.key_sealed)
        if key is None:
            say(f"left     {name}: {account.why_off}")
            continue
        path_text = path.read_text(encoding="utf-8")
        _replace(path, path_text.replace(account.key_sealed, seal(master, name, key)))
        run_async(_note(settings, name, "resealed", author, {}))
        print(f"resealed {name}")


def master_key() -> None:
    """Make a master key for sealed provider keys and print it; its place is PIXELGATE_MASTER_KEY, and no file here."""
    print(fresh_master())


def history(name: str | None = None, /, *, last: int = 50, json: Json = False, where: Where = HERE) -> None:
    """Say who added and removed accounts with files of their own, and when, the last change first.

    Parameters
    ----------
    name
        The account; all when left out.
    last
        How many changes.
    """
    if last < 1:
        raise Stop(f"--last {last}: at least one")
    changes = with_records(where.settings(), lambda db: db.changes("account", name, last))
    if json:
        told = [{"at": c.at, "by": c.actor, "account": c.name, "did": c.action, "changed": c.detail} for c in changes]
        print_json({"changes": told})
        return
    lines = [(f"{c.at:%Y-%m-%d %H:%M:%S}", c.actor, c.action, c.name) for c in changes]
    print(table([("at (UTC)", "who", "did", "account"), *lines]))


def _asked_for_key() -> str:
    """The key as typed, or as piped in."""
    typed = getpass.getpass("key: ") if sys.stdin.isatty() else sys.stdin.readline()
    key = typed.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise Stop("the key on standard input is empty, or holds what no key holds: one line, visible ASCII characters")
    return key


def _master_of(settings: Settings) -> str:
    if settings.master_key is None:
        raise Stop(f"{MASTER} is not set; `{COMMAND} accounts master-key` makes one, once for all accounts")
    return settings.master_key.get_secret_value()


def _sealed(settings: Settings, name: str) -> str:
    master = _master_of(settings)
    return seal(master, name, _asked_for_key())


def _check(settings: Settings, name: str, fields: Mapping[str, object]) -> None:
    """Stop at an account that the gateway would refuse."""
    try:
        account = Account.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = f"--{dotted(first['loc']).replace('_', '-')}: " if first["loc"] else ""
        raise Stop(f"{option}{sentence(first)}") from None
    with_it = settings.model_copy(update={"accounts": {**settings.accounts, name: account}})
    try:
        load_revision(with_it, every_account=True)
    except BadFile as error:
        fault = error.faults[0]
        needs_key = fault.message == f"{name} needs a key"
        hint = "say where it is with --key-env, or type it with --sealed" if needs_key else fault.hint
        raise Stop(f"{fault.message}{f'; {hint}' if hint else ''}") from None


def _write(path: Path, fields: Mapping[str, object]) -> None:
    lines = [f"{field}: {jsonlib.dumps(value)}\n" for field, value in fields.items()]
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _replace(path, _REMARK + "".join(lines))
    except OSError as error:
        raise Stop(f"{path}: {error.strerror}; `--config DIR` names a folder of your own", code=1) from None


def _replace(path: Path, text: str) -> None:
    """Put a text in a file's place at once, readable by us alone."""
    draft = path.with_name(f".{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


async def _unsettled(db: Database, account: str) -> int:
    """How many orders at an account are not over for the books."""
    under_way = [row for row in await db.open_attempts() if row.account == account]
    return len(under_way) + len(await db.suspended(account))


async def _note(
    settings: Settings, name: str, action: AccountAction, author: str | None, detail: Mapping[str, object]
) -> None:
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    db = open_database(settings.database_url, settings.database.durability)
    who, at = author or me(), datetime.now(UTC)
    change = ChangeRow(at=at, actor=who, of="account", name=name, action=action, detail=detail)
    try:
        await db.add_change(change)
    finally:
        await db.aclose()


def _detail(fields: Mapping[str, object], *, gone: bool) -> dict[str, object]:
    """What an account is, for the record; of a sealed key only that there is one."""
    told = {field: "..." if field == "key_sealed" else value for field, value in fields.items()}
    sides = ("from", "to") if gone else ("to", "from")
    return {field: {sides[0]: value, sides[1]: None} for field, value in told.items()}


def _public(settings: Settings, name: str, account: Account) -> dict[str, object]:
    path = account_path(settings.config, name)
    return {
        "account": name,
        "kind": account.kind,
        "team": account.team,
        "team_calls": None if account.team is None else account.team_calls,
        "key": account.key_from,
        "on": account.why_off is None,
        "why_off": account.why_off,
        "concurrency": account.concurrency,
        "rate": account.rate,
        "models": account.models,
        "file": path.name if path.is_file() else "gateway.yaml",
    }


def _line(row: Mapping[str, object]) -> Sequence[str]:
    state = "on" if row["on"] else f"off: {row['why_off']}"
    cells = (row["account"], row["kind"], row["team"], row["team_calls"], row["key"])
    return (*("-" if cell is None else str(cell) for cell in cells), state)
