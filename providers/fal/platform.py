"""fal's platform API and what lies beside orders: price list, billing events, models, payloads, callback keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final
from urllib.parse import quote, urlencode

import msgspec

from providers.contract import ListedPrice, UsageRecord, UsageTotal
from providers.errors import Misconfigured, Unavailable
from providers.fal.messages import (
    Estimated,
    Events,
    Jwks,
    ModelPage,
    Page,
    Prices,
    UsagePage,
    complaint,
    decode,
    unpadded,
)
from providers.transport import Answered, Cut, Http, Lost, NotSent, WireError, read, scrub

SIDE_CALL_S: Final = 15.0
"""Seconds that a call beside an order (cancel, prices, keys) may take."""
_IDS_A_PAGE: Final = 50
"""Most endpoint ids that fal's platform API takes in one question."""


class Platform:
    """What an account may ask fal beside orders; all of it is free."""

    def __init__(self, http: Http, origins: Mapping[str, str], key: str) -> None:
        """`origins` says where each of fal's hosts is reached."""
        self._http = http
        self._origins = origins
        self._key = key

    async def prices(self, endpoints: Sequence[str]) -> Sequence[ListedPrice]:
        """List fal's own price per billing unit; its `unit` may say "image" where pages say megapixel."""
        prices: list[ListedPrice] = []
        for page in _pages(endpoints):
            async for answer in self._platform("/v1/models/pricing", {"endpoint_id": ",".join(page)}):
                listed = decode(answer, Prices).prices
                prices += (
                    ListedPrice(endpoint=p.endpoint_id, unit=p.unit, nano_usd=_nano(p.unit_price)) for p in listed
                )
        return prices

    async def usage(self, since: datetime, endpoints: Sequence[str]) -> Sequence[UsageRecord]:
        """List what fal bills, request by request, discounts included."""
        start = since.astimezone(UTC).isoformat().replace("+00:00", "Z")
        records: list[UsageRecord] = []
        for page in _pages(endpoints):
            query = {"start": start, "endpoint_id": ",".join(page)}
            async for answer in self._platform("/v1/models/billing-events", query):
                records += (
                    UsageRecord(
                        endpoint=event.endpoint_id,
                        nano_usd=event.cost_estimate_nano_usd,
                        at=event.timestamp.astimezone(UTC),
                        request_id=event.request_id,
                        discount=event.percent_discount or Decimal(0),
                        units=event.output_units,
                        unit_nano_usd=None if event.unit_price is None else _nano(event.unit_price),
                    )
                    for event in decode(answer, Events).billing_events
                )
        return records

    async def totals(self, since: datetime) -> Sequence[UsageTotal]:
        """List what fal billed of any endpoint, day by day (UTC); fal wants an admin key for that."""
        day = since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        query = {"start": day.isoformat().replace("+00:00", "Z"), "timezone": "UTC", "timeframe": "day"}
        totals: list[UsageTotal] = []
        async for answer in self._platform("/v1/models/usage", {**query, "expand": "time_series"}):
            totals += (
                UsageTotal(
                    endpoint=used.endpoint_id,
                    day=span.bucket.astimezone(UTC),
                    units=used.quantity,
                    unit=used.unit,
                    nano_usd=_nano(used.cost if used.cost_total is None else used.cost_total),
                )
                for span in decode(answer, UsagePage).time_series
                for used in span.results
            )
        return totals

    async def estimate(self, units: Mapping[str, int]) -> int:
        """Ask what units of endpoints cost this account; what it knows beyond the list are terms of the account."""
        endpoints = {endpoint: {"unit_quantity": number} for endpoint, number in units.items()}
        asked = msgspec.json.encode({"estimate_type": "unit_price", "endpoints": endpoints})
        return _nano(decode(await self._ask("/v1/models/pricing/estimate", asked), Estimated).total_cost)

    async def erase(self, request_id: str) -> bool:
        """Delete a request's payloads and the files it made; fal wants an admin key for that."""
        url = f"{self._origins['api.fal.ai']}/v1/models/requests/{quote(request_id, safe='')}/payloads"
        try:
            async with asyncio.timeout(SIDE_CALL_S):
                answer = await self._http.send("DELETE", url, headers={"Authorization": f"Key {self._key}"})
        except (NotSent, Lost, Cut, TimeoutError) as error:
            raise Unavailable(type(error).__name__) from error
        return answer.status == 200

    async def active(self, endpoints: Sequence[str]) -> Sequence[str]:
        """Those of some endpoints that fal still runs."""
        found: list[str] = []
        for page in _pages(endpoints):
            async for answer in self._platform("/v1/models", {"endpoint_id": ",".join(page)}):
                models = decode(answer, ModelPage).models
                found += (model.endpoint_id for model in models if model.metadata.status == "active")
        return found

    async def callback_keys(self) -> list[bytes]:
        """Fetch the public keys fal signs its callbacks with."""
        body = await self._get(f"{self._origins['rest.fal.ai']}/.well-known/jwks.json", {})
        return [unpadded(key.x) for key in decode(body, Jwks).keys if key.crv == "Ed25519"]

    async def _platform(self, path: str, query: Mapping[str, str]) -> AsyncIterator[bytes]:
        """Read every page of a list of fal's platform API; raises `Misconfigured` or `Unavailable`."""
        cursor: str | None = ""
        while cursor is not None:
            asked = {**query, "cursor": cursor} if cursor else query
            url = f"{self._origins['api.fal.ai']}{path}?{urlencode(asked)}"
            body = await self._get(url, {"Authorization": f"Key {self._key}"})
            yield body
            cursor = decode(body, Page).next_cursor

    async def _ask(self, path: str, body: bytes) -> bytes:
        """Ask the platform API something that takes a body, and changes nothing there."""
        headers = {"Authorization": f"Key {self._key}", "Content-Type": "application/json"}
        return await self._read(f"{self._origins['api.fal.ai']}{path}", headers, body)

    async def _get(self, url: str, headers: Mapping[str, str]) -> bytes:
        return await self._read(url, headers, None)

    async def _read(self, url: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
        async def ask() -> bytes:
            answer = await self._http.send("GET" if body is None else "POST", url, headers=headers, data=body)
            if answer.status != 200:
                raise Answered(answer)
            return answer.body

        try:
            async with asyncio.timeout(SIDE_CALL_S):
                return await read(ask, deadline=asyncio.get_running_loop().time() + SIDE_CALL_S, attempts=3)
        except Answered as error:
            words = scrub(complaint(error.answer)[1] or f"HTTP {error.status}", (self._key,))
            kind = Misconfigured if error.status in {401, 403} else Unavailable
            raise kind(words, status=error.status) from error
        except (TimeoutError, WireError) as error:
            raise Unavailable(str(error) or "no answer") from error


def _pages(endpoints: Sequence[str]) -> list[Sequence[str]]:
    return [endpoints[at : at + _IDS_A_PAGE] for at in range(0, len(endpoints), _IDS_A_PAGE)]


def _nano(dollars: Decimal) -> int:
    """Nano-dollars of a listed price; the list is for comparing, so finer ones are rounded."""
    return int((dollars * 1_000_000_000).to_integral_value())
