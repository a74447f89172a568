"""`pixelgate alerts`: what was told about money, and whether the hooks it goes to work."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from gateway.cli.shell import HERE, Json, Stop, Where, open_records, print_json, run_async, say, table
from gateway.errors import InvalidRequest
from gateway.features.alerts import KINDS, Hook, a_test, hooks_of, post
from gateway.settings import Settings
from gateway.storage.database import Database
from gateway.storage.rows import AlertRow
from gateway.yaml_files import nearest
from providers.transport import Http


def list_alerts(
    *, last: Annotated[int, Parameter(validator=Number(gte=1))] = 20, json: Json = False, where: Where = HERE
) -> None:
    """List the alerts raised last, newest first.

    Parameters
    ----------
    last
        How many.
    """
    rows = run_async(_read(open_records(where.settings()), last))
    if json:
        print_json({"alerts": rows})
    elif rows:
        print(table([(f"{row.at:%Y-%m-%d %H:%M}", row.kind, row.text) for row in rows]))
    else:
        say("no alert was raised yet")


def try_hooks(*, kind: tuple[str, ...] = ("test",), json: Json = False, where: Where = HERE) -> int:
    """Post a test alert to every hook. Exit code 1: one did not take it.

    Parameters
    ----------
    kind
        One of this kind, marked as a test, to see where it ends up; `all` for one of each.
    """
    kinds = tuple(KINDS) if "all" in kind else kind
    if unknown := [name for name in kinds if name not in KINDS]:
        hint = nearest(unknown[0], list(KINDS)) or f"there are all, {', '.join(KINDS)}"
        raise InvalidRequest(f"Invalid 'kind': there is no kind of alert called {unknown[0]!r}; {hint}.", param="kind")
    settings = where.settings()
    if not settings.alerts.hooks:
        raise Stop("no hooks: name them in gateway.yaml, `alerts: {hooks: [{url_env: SLACK_URL, form: slack}]}`")
    unset = [hook.url_env for hook in settings.alerts.hooks if hook.url is None]
    results: dict[str, str | None] = dict.fromkeys(unset, "the variable is not set")
    results |= run_async(_try(settings, kinds))
    if json:
        print_json({"hooks": [{"hook": name, "error": why} for name, why in results.items()]})
    else:
        print(table([(name, "ok" if why is None else why) for name, why in results.items()]))
    return int(any(why is not None for why in results.values()))


async def _read(db: Database, last: int) -> list[AlertRow]:
    try:
        return list(await db.alerts(last))
    finally:
        await db.aclose()


async def _try(settings: Settings, kinds: Sequence[str]) -> dict[str, str | None]:
    http, now = Http(), datetime.now(UTC)
    try:
        return {hook.name: await _each(http, hook, kinds, now) for hook in hooks_of(settings)}
    finally:
        await http.aclose()


async def _each(http: Http, hook: Hook, kinds: Sequence[str], now: datetime) -> str | None:
    """Why a hook did not take one of them; None where it took all."""
    for kind in kinds:
        if (why := await post(http, hook, a_test(now, kind), now)) is not None:
            return why
    return None
