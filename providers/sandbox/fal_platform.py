"""fal's platform API: models, prices, estimates, and what was billed, by request and by day, with paging."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Literal, TypeAlias

import msgspec
from aiohttp import web
from msgspec import Struct
from multidict import MultiMapping

from providers.sandbox.accounts import account_name
from providers.sandbox.fal import detail
from providers.sandbox.fal_endpoints import FAL
from providers.sandbox.invoice import PUBLISHED, Line
from providers.sandbox.wire import answer
from providers.sandbox.world import World

Tell: TypeAlias = Callable[[str, MultiMapping[str]], web.Response]
"""Answers a question about an account, by its query; raises `ValueError` naming what is wrong with that."""

_MOST_IDS = 50
_PAGE = 50
_MOST_PER_PAGE = 1000
_NANO = 1_000_000_000
_PLAIN = "-plain"
"""Accounts whose key draws and sees prices, and nothing of what the workspace is billed."""


class Amount(Struct, frozen=True):
    """How much of an endpoint an estimate is of."""

    call_quantity: int | None = None
    unit_quantity: Decimal | None = None


class Estimate(Struct, frozen=True):
    """The body of a question for an estimate."""

    estimate_type: Literal["historical_api_price", "unit_price"]
    endpoints: dict[str, Amount]


class FalPlatform:
    """Everything under `/fal/api/v1`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Put the API's paths into the application."""
        router.add_get("/fal/api/v1/models", self._models)
        router.add_get("/fal/api/v1/models/pricing", self._pricing)
        router.add_post("/fal/api/v1/models/pricing/estimate", self._estimate)
        router.add_get("/fal/api/v1/models/usage", _of_admin(self._usage))
        router.add_get("/fal/api/v1/models/billing-events", _of_admin(self._billing_events))
        router.add_delete("/fal/api/v1/models/requests/{request_id}/payloads", self._payloads)

    async def _models(self, request: web.Request) -> web.Response:
        if _account(request) is None:
            return detail(401, "Authentication required")
        wanted = _ids(request.query, "endpoint_id") or tuple(FAL)
        models = [
            {"endpoint_id": name, "metadata": {"display_name": name, "category": "text-to-image", "status": status}}
            for name in wanted
            if name in FAL
            for status in ("active" if self._world.sells("fal", name) else "deprecated",)
        ]
        return answer({"models": models, "next_cursor": None, "has_more": False})

    async def _pricing(self, request: web.Request) -> web.Response:
        if _account(request) is None:
            return detail(401, "Authentication required")
        wanted = _ids(request.query, "endpoint_id")
        if not 1 <= len(wanted) <= _MOST_IDS:
            return detail(422, "endpoint_id: give 1 to 50 endpoint ids")
        unknown = [name for name in wanted if name not in FAL or not self._world.sells("fal", name)]
        if unknown:
            return detail(404, f"Endpoint not found: {unknown[0]}")
        return answer({"prices": [self._price(name) for name in wanted], "next_cursor": None, "has_more": False})

    def _price(self, name: str) -> dict[str, object]:
        price = self._world.prices.of("fal", name)
        return {"endpoint_id": name, "unit_price": float(price.usd), "unit": price.unit, "currency": "USD"}

    async def _estimate(self, request: web.Request) -> web.Response:
        name = _account(request)
        if name is None:
            return detail(401, "Authentication required")
        try:
            asked = msgspec.json.decode(await request.read(), type=Estimate)
            usd = sum((self._expected(name, asked, *each) for each in asked.endpoints.items()), Fraction(0))
        except (msgspec.MsgspecError, ValueError) as fault:
            return detail(422, str(fault))
        except LookupError as unknown:
            return detail(404, f"Endpoint not found: {unknown.args[0]}")
        return answer({"estimate_type": asked.estimate_type, "total_cost": float(usd), "currency": "USD"})

    def _expected(self, account: str, asked: Estimate, name: str, amount: Amount) -> Fraction:
        """Dollars of so many units, or of so many calls that cost what the account's did in the middle so far."""
        if name not in FAL or not self._world.sells("fal", name):
            raise LookupError(name)
        price = self._world.prices.estimated("fal", name)
        if asked.estimate_type == "unit_price":
            if amount.unit_quantity is None:
                raise ValueError(f"endpoints.{name}.unit_quantity: required")
            return price * Fraction(amount.unit_quantity)
        if amount.call_quantity is None:
            raise ValueError(f"endpoints.{name}.call_quantity: required")
        lines = [line for line in self._lines(account) if line.model == name]
        paid = Fraction(sum(line.nano_usd for line in lines), _NANO)
        return (paid / len(lines) if lines else price) * amount.call_quantity

    def _usage(self, account: str, query: MultiMapping[str]) -> web.Response:
        lines = self._wanted(account, query)
        first, size = _page(query)
        if query.get("timeframe", "day") != "day":
            raise ValueError("timeframe: the sandbox only tells days")
        days: dict[str, list[Line]] = {}
        for line in sorted(lines, key=lambda line: line.at):
            days.setdefault(f"{line.at:%Y-%m-%dT00:00:00Z}", []).append(line)
        series = [{"bucket": day, "results": _usage_of(some)} for day, some in days.items()]
        more = first + size < len(series)
        body = {"time_series": series[first : first + size], "next_cursor": str(first + size) if more else None}
        return answer({**body, "has_more": more})

    def _billing_events(self, account: str, query: MultiMapping[str]) -> web.Response:
        lines = self._wanted(account, query)
        first, size = _page(query)
        more = first + size < len(lines)
        events = [_event(line) for line in lines[first : first + size]]
        return answer({"billing_events": events, "next_cursor": str(first + size) if more else None, "has_more": more})

    async def _payloads(self, request: web.Request) -> web.Response:
        if _account(request) is None:
            return detail(401, "Authentication required")
        job = self._world.jobs.get(request.match_info["request_id"])
        if job is None:
            return detail(404, "Request not found")
        made = [name for name, (owner, _) in self._world.files.items() if owner is job]
        for name in made:
            del self._world.files[name]
        return answer({"cdn_delete_results": [{"link": name, "exception": None} for name in made]})

    def _wanted(self, account: str, query: MultiMapping[str]) -> Sequence[Line]:
        endpoints, requests = set(_ids(query, "endpoint_id")), set(_ids(query, "request_id"))
        if len(requests) > _MOST_IDS:
            raise ValueError("request_id: give at most 50 request ids")
        start, end = _moment(query.get("start")), _moment(query.get("end"))
        return [
            line
            for line in self._lines(account)
            if (not endpoints or line.model in endpoints)
            and (not requests or line.request_id in requests)
            and (start is None or line.at >= start)
            and (end is None or line.at < end)
        ]

    def _lines(self, account: str) -> Iterator[Line]:
        for line in self._world.book.lines:
            if line.provider == "fal" and line.account == account and line.reported:
                yield line


def _of_admin(
    tell: Callable[[str, MultiMapping[str]], web.Response],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """What is told of an account, to keys of its admins alone."""

    async def handler(request: web.Request) -> web.Response:
        name = _account(request)
        if name is None:
            return detail(401, "Authentication required")
        if name.endswith(_PLAIN):
            return detail(403, "This endpoint requires an admin API key")
        try:
            return tell(name, request.query)
        except ValueError as fault:
            return detail(422, str(fault))

    return handler


def _account(request: web.Request) -> str | None:
    return account_name(request.headers.get("Authorization", ""), "Key")


def _ids(query: MultiMapping[str], name: str) -> tuple[str, ...]:
    """Ids given as a comma list, repeated, or both."""
    return tuple(part for value in query.getall(name, []) for part in value.split(",") if part)


def _moment(text: str | None) -> datetime | None:
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text}: give a moment with its offset, as in 2026-11-21T00:00:00Z")
    return moment


def _page(query: MultiMapping[str]) -> tuple[int, int]:
    cursor, limit = query.get("cursor", "0"), query.get("limit", str(_PAGE))
    if not cursor.isdecimal():
        raise ValueError("cursor: use the next_cursor of a page before")
    if not limit.isdecimal() or not 1 <= int(limit) <= _MOST_PER_PAGE:
        raise ValueError("limit: give a number from 1 to 1000")
    return int(cursor), int(limit)


def _usage_of(lines: Sequence[Line]) -> Sequence[Mapping[str, object]]:
    """A day's lines, together where endpoint, price and discount are the same; dollars before and after discounts."""
    alike: dict[tuple[str, Fraction, Fraction], list[Line]] = {}
    for line in lines:
        alike.setdefault((line.model, line.unit_usd, line.percent), []).append(line)
    return [
        {
            "endpoint_id": model,
            "unit": PUBLISHED["fal", model].unit,
            "quantity": float(sum(line.units for line in some)),
            "unit_price": float(price),
            "percent_discount": float(percent) or None,
            "cost_subtotal": float(sum(line.units for line in some) * price),
            "cost_discount": float(sum(line.units for line in some) * price - Fraction(_sum(some), _NANO)),
            "cost_total": float(Fraction(_sum(some), _NANO)),
            "currency": "USD",
            "auth_method": "sandbox key",
        }
        for (model, price, percent), some in alike.items()
    ]


def _sum(lines: Sequence[Line]) -> int:
    return sum(line.nano_usd for line in lines)


def _event(line: Line) -> dict[str, object]:
    return {
        "request_id": line.request_id,
        "endpoint_id": line.model,
        "timestamp": line.at.isoformat(),
        "output_units": float(line.units),
        "unit_price": float(line.unit_usd),
        "percent_discount": float(line.percent) or None,
        "cost_estimate_nano_usd": line.nano_usd,
    }
