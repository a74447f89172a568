"""Budgets: whose spending counts in which, and in which window of time. Pure: the database keeps the counters.

A budget limits what a key, team, end user, tag or model is charged, or what a provider account, the copies of an
experiment or the whole gateway cost. Its window is a calendar's (`day` to `year`, where its zone is), `total`, or
rolling (`24h`, `30d`). An order counts in the window in which its money is set aside, to the end, however late its bill
comes.

A rolling window moves in steps of a 24th, and counts the step it is leaving to the last: nothing older ever lets more
be spent within a length, and money is free again at most a 24th of it late.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Protocol
from zoneinfo import ZoneInfo

from msgspec import Struct

from gateway.errors import InvalidRequest
from gateway.storage.database import Spending
from gateway.storage.rows import BudgetRow
from gateway.storage.shadows import PARTY
from gateway.yaml_files import nearest

EACH = "*"
"""In place of a name: one counter for every team, user, value of a tag ..."""
CALENDAR = ("day", "week", "month", "year")
OF_COSTS = frozenset({"account", "gateway", "shadow"})
"""Budgets of what we owe sellers; the others count what teams owe us."""
STEPS = 24
"""Steps in which a rolling window moves."""
_ROLLING = re.compile(r"([1-9][0-9]{0,3})([hd])", re.ASCII)


class Spender(Protocol):
    """Who spends, and on what; `NewHold` is one."""

    @property
    def team(self) -> str: ...  # noqa: D102 - as in `NewHold`, and so below
    @property
    def key_id(self) -> str: ...  # noqa: D102
    @property
    def user(self) -> str | None: ...  # noqa: D102
    @property
    def tags(self) -> Mapping[str, str]: ...  # noqa: D102
    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def account(self) -> str: ...  # noqa: D102


class Window(Struct, frozen=True, gc=False):
    """One window of a budget: from `start` to before `end`; both None when it never ends."""

    name: str
    """What its counters are called by."""
    start: datetime | None = None
    end: datetime | None = None


def checked_window(text: str) -> str:
    """A window as people type it; raises `InvalidRequest`."""
    if text in ("total", *CALENDAR) or _ROLLING.fullmatch(text):
        return text
    hint = nearest(text, ["total", *CALENDAR]) or "a length such as 24h or 30d makes it rolling"
    raise InvalidRequest(
        f"Invalid 'per': expected one of total, {', '.join(CALENDAR)}, or a length such as 24h, got {text!r}; {hint}.",
        param="per",
    )


def window_at(budget: BudgetRow, at: datetime) -> Window:
    """The window that what is spent at a moment counts in; of a rolling one, its step."""
    if budget.window == "total":
        return Window("")
    if budget.window in CALENDAR:
        return _calendar(budget.window, at, ZoneInfo(budget.zone))
    step = _length(budget.window) / STEPS
    number = (at - _EPOCH) // step
    return Window(str(number), _EPOCH + number * step, _EPOCH + (number + 1) * step)


def counted_windows(budget: BudgetRow, at: datetime) -> Iterator[str]:
    """Names of all windows whose spending counts at a moment, the current one first."""
    current = window_at(budget, at).name
    yield current
    if budget.window != "total" and budget.window not in CALENDAR:
        yield from (str(int(current) - back) for back in range(1, STEPS + 1))


def told_in(budget: BudgetRow, at: datetime) -> str:
    """In which stretch of time the same is told of a budget once: its window; of a rolling one, a length of it.

    Told by the step, a day's budget would be told of every hour for as long as it is nearly spent.
    """
    current = window_at(budget, at).name
    return current if budget.window in ("total", *CALENDAR) else f"{int(current) // STEPS} x {budget.window}"


def limit_at(budget: BudgetRow, at: datetime) -> int:
    """What may be spent in a window, with what was added for a while; nano-dollars."""
    added = budget.extra if budget.extra_until is None or at < budget.extra_until else 0
    return budget.limit + added


def soft_limit_at(budget: BudgetRow, at: datetime) -> int:
    """From what is spent in a window on something is done about it; nano-dollars. The limit itself without one."""
    limit = limit_at(budget, at)
    return limit if budget.soft is None else limit * budget.soft // 100


def spender(budget: BudgetRow, order: Spender) -> str | None:
    """Whose counter an order moves: a word for the counter's name; None when the budget is not about it."""
    value = _value(budget, order)
    if value is None or (budget.name not in (EACH, value) and budget.of not in ("tag", "gateway")):
        return None
    return _word(value) if EACH in budget.name else ""


def counter(budget: BudgetRow, window: str, word: str) -> str:
    """The name under which a budget's spending in a window is kept."""
    return f"{budget.id}/{window}/{word}"


def about(budget: BudgetRow) -> str:
    """A budget in words: `team acme per month`."""
    whose = "the gateway" if budget.of == "gateway" else f"{'each ' if EACH in budget.name else ''}{budget.of}"
    name = "" if budget.name in ("", EACH) else f" {budget.name}"
    per = "in all" if budget.window == "total" else f"per {budget.window}"
    return f"{whose}{name} {per}"


def by_word(counters: Mapping[str, Spending]) -> Mapping[str, Spending]:
    """Sums of a budget's counters by their word, the fullest first; at least one, if of nothing.

    `counters` are those of the windows that count at a moment (`Database.counters` of `counted_windows`).
    """
    found: dict[str, Spending] = {}
    for name, spending in counters.items():
        word = name.rpartition("/")[2]
        before = found.get(word, Spending())
        found[word] = Spending(held=before.held + spending.held, posted=before.posted + spending.posted)
    fullest = sorted(found.items(), key=lambda each: -(each[1].held + each[1].posted))
    return dict(fullest) or {"": Spending()}


def _value(budget: BudgetRow, order: Spender) -> str | None:
    """What a budget looks at of an order; None where the order has no such thing."""
    if budget.of == "tag":
        return _tagged(budget.name, order.tags)
    values: Mapping[str, str | None] = {
        "gateway": "",
        "team": order.team,
        "key": order.key_id,
        "user": order.user,
        "model": order.model,
        "account": order.account,
        "shadow": order.team.removeprefix(PARTY) if order.team.startswith(PARTY) else None,
    }
    return values[budget.of]


def _tagged(name: str, tags: Mapping[str, str]) -> str | None:
    """The value of the tag that `campaign=autumn` or `campaign=*` is about, when it is that."""
    tag, _, wanted = name.partition("=")
    value = tags.get(tag)
    return value if value is not None and wanted in (EACH, value) else None


def _word(value: str) -> str:
    """A value as part of a counter's name; a digest, for it may be a person's."""
    return sha256(value.encode()).hexdigest()[:16]


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _length(window: str) -> timedelta:
    match = _ROLLING.fullmatch(window)
    assert match is not None, window
    return timedelta(hours=int(match[1])) if match[2] == "h" else timedelta(days=int(match[1]))


def _calendar(window: str, at: datetime, zone: ZoneInfo) -> Window:
    day = at.astimezone(zone).date()
    match window:
        case "day":
            first, after = day, day + timedelta(days=1)
        case "week":
            first = day - timedelta(days=day.weekday())
            after = first + timedelta(days=7)
        case "month":
            first = day.replace(day=1)
            after = (first + timedelta(days=31)).replace(day=1)
        case _:
            first, after = day.replace(month=1, day=1), day.replace(year=day.year + 1, month=1, day=1)
    start, end = (datetime(each.year, each.month, each.day, tzinfo=zone).astimezone(UTC) for each in (first, after))
    return Window(first.isoformat(), start, end)
