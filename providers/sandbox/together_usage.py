"""Together's billing report: totals per model and day, decimal strings, no word about single orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import groupby

from aiohttp import web

from providers.sandbox.accounts import Account
from providers.sandbox.invoice import Line, decimal_text
from providers.sandbox.wire import answer
from providers.sandbox.world import World

_NANO = 1_000_000_000


def usage_answer(world: World, account: Account, query: Mapping[str, str]) -> web.Response:
    """`GET /v1/billing/usage` of one account: windows of a month, paged by `after` and `limit`.

    Unlike the original, which closes a window only when its day or hour is over, the running one is told too:
    nobody can wait a day in a sandbox.
    """
    month = query.get("month") or datetime.now(UTC).strftime("%Y-%m")
    lines = [line for line in world.book.lines if _belongs(line, account, month)]
    hourly = query.get("granularity") == "hour"
    windows = [_window(start, list(some), hourly=hourly) for start, some in groupby(lines, _hour if hourly else _day)]
    first, size = _number(query, "after", 0), _number(query, "limit", 1000)
    more = first + size < len(windows)
    body = {
        "object": "list",
        "billing_period": month,
        "currency": "USD",
        "organization_id": account.name,
        "data": windows[first : first + size],
        "next_cursor": str(first + size) if more else None,
    }
    return answer(body)


def _belongs(line: Line, account: Account, month: str) -> bool:
    return (
        line.provider == "together"
        and line.account == account.name
        and line.reported
        and line.at.strftime("%Y-%m") == month
    )


def _day(line: Line) -> datetime:
    return line.at.replace(hour=0, minute=0, second=0, microsecond=0)


def _hour(line: Line) -> datetime:
    return line.at.replace(minute=0, second=0, microsecond=0)


def _window(start: datetime, lines: Sequence[Line], *, hourly: bool) -> dict[str, object]:
    end = start + (timedelta(hours=1) if hourly else timedelta(days=1))
    groups: dict[tuple[str, Fraction], list[Line]] = {}
    for line in lines:
        groups.setdefault((line.model, line.unit_usd), []).append(line)
    return {
        "date": start.date().isoformat(),
        "start_time": start.isoformat(),
        "end_time": end.isoformat(),
        "line_items": [_item(model, usd, some) for (model, usd), some in groups.items()],
    }


def _item(model: str, unit_usd: Fraction, lines: Sequence[Line]) -> dict[str, object]:
    cost = sum(line.nano_usd for line in lines)
    return {
        "product_name": model,
        "quantity": decimal_text(sum((line.units for line in lines), Fraction(0))),
        "unit_price": decimal_text(unit_usd),
        "cost": decimal_text(Fraction(cost, _NANO)),
        "pricing_dimensions": {},
        "attributes": {},
        "applied_credit": None,
    }


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    given = query.get(name, "")
    return int(given) if given.isdecimal() else default
