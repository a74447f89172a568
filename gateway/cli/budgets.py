"""`pixelgate budgets`: limits to what may be spent in a window of time, by whom and on what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cyclopts import Parameter
from msgspec.structs import replace
from pydantic_core import PydanticCustomError

from gateway.cli.shell import COMMAND, HERE, Json, Stop, Where, dollars, open_records, print_json, run_async, say, table
from gateway.ids import new_id
from gateway.money.periods import zone_of
from gateway.revisions import load_revision
from gateway.settings import Settings
from gateway.storage.budgets import EACH, about, by_word, checked_window, counted_windows, limit_at, window_at
from gateway.storage.database import Database, Spending
from gateway.storage.rows import BudgetOf, BudgetRow, BudgetThen
from gateway.yaml_files import nearest
from policies.catalog_file import moment_of
from policies.policy_file.values import parse_dollars, parse_share

NONE = "none"
"""What lifts a soft limit."""


@Parameter(name="*", group="Whose it is")
@dataclass(frozen=True, kw_only=True)
class Whose:
    """Whose budget it is: exactly one of these; `*` means each one by itself."""

    gateway: bool = False
    """What the whole gateway costs."""
    team: str | None = None
    """What a team is charged."""
    key: str | None = None
    """What an API key is charged, by its id."""
    user: str | None = None
    """What is charged for an end user (`user` or `safety_identifier` of the request)."""
    tag: str | None = None
    """What is charged under a tag: campaign=autumn, or campaign=* for each value."""
    model: str | None = None
    """What is charged for pictures of a model."""
    account: str | None = None
    """What a provider account costs."""

    def named(self) -> tuple[BudgetOf, str]:
        """The one that was said, with its name; stops when none or several were."""
        given: dict[BudgetOf, str | None] = {
            "gateway": "" if self.gateway else None,
            "team": self.team,
            "key": self.key,
            "user": self.user,
            "tag": self.tag,
            "model": self.model,
            "account": self.account,
        }
        said = [(of, name) for of, name in given.items() if name is not None]
        if len(said) != 1:
            raise Stop(f"say whose budget it is with exactly one of {', '.join(f'--{of}' for of in given)}")
        return said[0]


NOBODY = Whose()


def set_budget(  # noqa: PLR0913 - each is an option of its own
    limit: str,
    /,
    *,
    per: str = "month",
    tz: str = "UTC",
    soft: str | None = None,
    then: BudgetThen | None = None,
    whose: Whose = NOBODY,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Limit what may be spent in a window. Running gateways hold it in force within moments.

    Say whose it is with exactly one of the options from `--gateway` to `--account`; `*` means each one by itself. Set
    again for the same and the same window, it changes the limit, and what was spent still counts.

    Parameters
    ----------
    limit
        Dollars a window: $500.
    per
        total, day, week (from Monday), month or year; or a rolling length such as 24h or 30d.
    tz
        The time zone whose midnights part days, weeks, months and years.
    soft
        From this share of it on something is done before it is spent: 80%; `none` for nothing.
    then
        What: notify (an alert), preview (calls without a tier of their own are drawn at the lowest) or queue (calls
        wait behind all others); notify when left out.
    """
    of, name = whose.named()
    _check_then(of, soft, then)
    settings = where.settings()
    _check_name(settings, of, name)
    amount = _typed("LIMIT", limit)
    if amount <= 0:
        raise Stop(f"LIMIT {limit}: must be above $0; to stop all spending, `{COMMAND} keys revoke`")
    asked = BudgetRow(
        id=new_id("bud"),
        of=of,
        name=name,
        limit=amount,
        window=checked_window(per),
        zone=zone_of(tz).key,
        created=datetime.now(UTC),
        soft=_percent(soft),
        then=then or "notify",
    )
    kept = run_async(_set(open_records(settings), asked, said_soft=soft is not None))
    if json:
        print_json(_public(kept, {}))
    else:
        said = "" if kept.soft is None else f", from {kept.soft} % on {kept.then}"
        print(f"{kept.id}  {about(kept)}: {dollars(kept.limit)}{said}")


def list_budgets(*, json: Json = False, where: Where = HERE) -> None:
    """List every budget with what was spent in its current window; of one for each, the fullest counters."""
    rows = run_async(_read(open_records(where.settings())))
    if json:
        print_json({"budgets": [_public(row, counters) for row, counters in rows]})
    elif not rows:
        say(f"no budgets; make one with `{COMMAND} budgets set`")
    else:
        head = ("id", "of", "limit", "soft", "spent", "set aside", "left", "renews (UTC)")
        print(table([head, *(_line(row, counters) for row, counters in rows)], right=frozenset({2, 4, 5, 6})))


def raise_budget(budget_id: str, /, *, by: str, until: str, where: Where = HERE) -> None:
    """Add to a budget for a while; afterwards the limit is what it was.

    Parameters
    ----------
    budget_id
        As `budgets list` shows it.
    by
        Dollars on top of its limit.
    until
        The moment at which it ends: 2026-12-01, or 2026-12-01T15:00Z.
    """
    try:
        end = moment_of(until)
    except ValueError as error:
        raise Stop(f"--until: {error}") from None
    if end <= datetime.now(UTC):
        raise Stop(f"--until {until}: lies in the past")
    amount = _typed("--by", by)
    row = run_async(_change(open_records(where.settings()), budget_id, extra=amount, extra_until=end))
    print(f"{row.id}  {about(row)}: {dollars(row.limit)} and {dollars(amount)} more until {end:%Y-%m-%d %H:%M} UTC")


def remove(budget_id: str, /, *, where: Where = HERE) -> None:
    """Lift a budget.

    Parameters
    ----------
    budget_id
        As `budgets list` shows it.
    """
    row = run_async(_change(open_records(where.settings()), budget_id, removed=datetime.now(UTC)))
    print(f"removed {row.id}, which was of {about(row)}")


def _typed(option: str, text: str) -> int:
    try:
        return parse_dollars(text)
    except PydanticCustomError as error:
        raise Stop(f"{option}: {error.message()}") from None


def _check_name(settings: Settings, of: BudgetOf, name: str) -> None:
    """Stop at a name that nothing would ever count in."""
    if of == "tag":
        if not all(name.partition("=")):
            raise Stop(f"--tag {name}: write NAME=VALUE, or NAME=* for each value")
        return
    if of != "gateway" and not name:
        raise Stop(f"--{of}: say which, or * for each")
    known: Sequence[str] = ()
    if of == "account":
        known = list(settings.accounts)
    elif of == "model":
        known = list(load_revision(settings, every_account=True).catalog.models)
    if known and name not in (EACH, *known):
        raise Stop(f"--{of} {name}: there is none of that name; {nearest(name, known) or ', '.join(known)}")


def _check_then(of: BudgetOf, soft: str | None, then: BudgetThen | None) -> None:
    """Stop at a soft limit that could do nothing."""
    if then is not None and soft in (None, NONE):
        raise Stop(f"--then {then}: say from which share on, as in --soft 80%")
    if then in ("preview", "queue") and of in ("account", "model"):
        raise Stop(
            f"--then {then}: of --{of} only notify, for who serves a call is not known when it comes; "
            "take --team, --key, --user, --tag or --gateway"
        )


def _percent(soft: str | None) -> int | None:
    if soft in (None, NONE):
        return None
    try:
        percent = 100 * parse_share(soft)
    except PydanticCustomError as error:
        raise Stop(f"--soft: {error.message()}") from None
    if percent != round(percent) or not 1 <= percent <= 99:
        raise Stop(f"--soft {soft}: a whole number from 1% to 99%, or `{NONE}`")
    return round(percent)


async def _set(db: Database, asked: BudgetRow, *, said_soft: bool) -> BudgetRow:
    """Keep it, in place of one of the same and the same window; what is not said of its soft limit stays."""
    try:
        same = [row for row in await db.budgets() if _place(row) == _place(asked)]
        changed = {"soft": asked.soft, "then": asked.then} if said_soft else {}
        kept = replace(same[0], limit=asked.limit, **changed) if same else asked
        await db.set_budget(kept)
        return kept
    finally:
        await db.aclose()


def _place(row: BudgetRow) -> tuple[str, ...]:
    return row.of, row.name, row.window, row.zone


async def _read(db: Database) -> list[tuple[BudgetRow, Mapping[str, Spending]]]:
    try:
        now = datetime.now(UTC)
        return [(row, await db.counters(row.id, counted_windows(row, now))) for row in await db.budgets()]
    finally:
        await db.aclose()


async def _change(db: Database, budget_id: str, **changes: object) -> BudgetRow:
    try:
        found = next((row for row in await db.budgets() if row.id == budget_id), None)
        if found is None:
            raise Stop(f"there is no budget {budget_id}; see `{COMMAND} budgets list`", code=1)
        row = replace(found, **changes)
        await db.set_budget(row)
        return row
    finally:
        await db.aclose()


def _public(row: BudgetRow, counters: Mapping[str, Spending]) -> dict[str, object]:
    now = datetime.now(UTC)
    fullest, limit = list(by_word(counters).values()), limit_at(row, now)
    return {
        "id": row.id,
        "of": row.of,
        "name": row.name,
        "per": row.window,
        "tz": row.zone,
        "limit_nano_usd": limit,
        "posted_nano_usd": fullest[0].posted,
        "held_nano_usd": fullest[0].held,
        "left_nano_usd": max(limit - fullest[0].posted - fullest[0].held, 0),
        "counters": len(fullest),
        "renews": window_at(row, now).end,
        "extra_nano_usd": row.extra,
        "extra_until": row.extra_until,
        "soft_percent": row.soft,
        "then": None if row.soft is None else row.then,
    }


def _line(row: BudgetRow, counters: Mapping[str, Spending]) -> tuple[str, ...]:
    now = datetime.now(UTC)
    fullest = next(iter(by_word(counters).values()))
    limit, end = limit_at(row, now), window_at(row, now).end
    left = max(limit - fullest.posted - fullest.held, 0)
    renews = "never" if end is None else f"{end:%Y-%m-%d %H:%M}"
    soft = "-" if row.soft is None else f"{row.soft} % {row.then}"
    spent = dollars(fullest.posted)
    return row.id, about(row), dollars(limit), soft, spent, dollars(fullest.held), dollars(left), renews
