"""Together AI, through its SDK: one synchronous POST that answers with the pictures.

There is no queue, no receipt before the answer and no word of seed, size or cost in it. So pictures are measured,
and an answer that never came leaves its money unknown until the account's usage totals tell.
Formats: Together's docs and together 3.1.1, as of 2026-11.
"""

from __future__ import annotations

import asyncio
import logging
from binascii import Error as NotBase64
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlencode

import msgspec
import pybase64
from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from yarl import URL

from providers.contract import Generation, ListedPrice, OnAccepted, Order, Ticket, UsageRecord
from providers.errors import (
    BadDelivery,
    ContentRefused,
    Failed,
    Misconfigured,
    OutcomeUnknown,
    Overloaded,
    ProviderError,
    Retired,
    TimedOut,
    Unavailable,
    Unsupported,
)
from providers.picture import Piece, complete, data_uri, deliver, format_of, input_fields, requested, steps_of
from providers.transport import (
    ATTEMPT_HEADER,
    Answer,
    Answered,
    Cut,
    Http,
    Loading,
    WireError,
    read,
    retry_after,
    scrub,
    unsent,
)

if TYPE_CHECKING:
    import together

T = TypeVar("T")

_HOST: Final = "api.together.ai"
_SIDE_CALL_S: Final = 15.0
"""Seconds that a call beside an order (usage, models) may take."""
_PAGE: Final = 1000
"""Most windows of the usage report on one page."""
_ENDS: Final[Mapping[int, type[ProviderError]]] = {
    401: Misconfigured,
    402: Misconfigured,  # credit or spending limit
    403: Misconfigured,  # the account's build tier
    404: Retired,
    408: Unavailable,
    409: Unavailable,
    422: ContentRefused,  # the safety checker, for every image model
    429: Overloaded,  # above our own dynamic rate
    500: Failed,  # the model failed and says so: nothing was delivered, nothing is billed
    503: Unavailable,  # below our rate, but the platform is full
    521: Unavailable,  # the edge could not even reach the platform; so 522 and 523
    522: Unavailable,
    523: Unavailable,
    529: Unavailable,
}
"""What a status means. Other 5xx (502, 504, 520, 524) are the edge giving up on a platform that may go on drawing and
bill, so their outcome is unknown; other 4xx are `Unsupported`."""


class Settings(BaseModel):
    """The account's key."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    key: SecretStr = Field(description="An API key of the account.")
    base_url: str = Field(
        default=f"https://{_HOST}", pattern=r"^https?://", description="Where Together answers, without /v1."
    )
    file_hosts: tuple[str, ...] = Field(
        default=("together.ai", "together.xyz"),
        description="Hosts that pictures may be fetched from, should Together send links instead of bytes.",
    )


def connect(name: str, settings: Settings, http: Http) -> Together:
    """Speak to Together for the provider account `name`; the SDK is imported in a thread meanwhile."""
    return Together(name, settings, http)


class _Item(Struct):
    b64_json: str | None = None
    url: str | None = None


class _Pictures(Struct):
    data: list[_Item]
    id: str = ""


class _Error(Struct):
    message: str = ""
    code: str | None = None


class _Refusal(Struct):
    error: _Error


class _Model(Struct):
    id: str


class _Line(Struct):
    product_name: str
    cost: Decimal
    unit_price: Decimal | None = None


class _Window(Struct):
    start_time: datetime
    end_time: datetime
    line_items: list[_Line]


class _Usage(Struct):
    data: list[_Window]
    next_cursor: str | None = None


class Together:
    """One account at Together."""

    def __init__(self, name: str, settings: Settings, http: Http) -> None:
        self.name = name
        self._http = http
        self._key = settings.key.get_secret_value()
        self._root = settings.base_url.rstrip("/").removesuffix("/v1")
        origin = str(URL(self._root).origin())
        self._file_hosts = (*settings.file_hosts, *([] if URL(origin).host == _HOST else [origin]))
        self._sdk = Loading(lambda: _load(http, self._root, self._key))

    async def loaded(self) -> None:
        """Wait until the SDK is imported, or cannot be."""
        await self._sdk.over()

    async def generate(self, order: Order, on_accepted: OnAccepted) -> Generation:
        """Draw `order`. Together gives its id with the pictures, so `on_accepted` comes no earlier than they do."""
        fields = _fields(order)
        sdk = await self._sdk.get()
        deadline = asyncio.get_running_loop().time() + order.timeout
        try:
            async with asyncio.timeout_at(deadline):
                body = await self._post(sdk, order, fields)
        except TimeoutError as error:
            raise TimedOut(f"no answer in {order.timeout:g} s") from error
        answer = _pictures(body, order)
        ticket = Ticket(answer.id, {"endpoint": order.endpoint}) if answer.id else None
        if ticket is not None:
            await on_accepted(ticket)
        pieces = await asyncio.gather(*(self._piece(item, deadline) for item in answer.data))
        return deliver(order, pieces, ticket=ticket)

    async def usage(self, since: datetime, endpoints: Sequence[str]) -> Sequence[UsageRecord]:
        """List totals by model and hour: every hour that ends after `since`, dated by its beginning.

        Together tells whole hours only, and the running one not before it is over.
        """
        wanted, start = frozenset(endpoints), since.astimezone(UTC)
        return [
            UsageRecord(endpoint=line.product_name, nano_usd=_nano(line.cost), at=window.start_time.astimezone(UTC))
            for month in _months(start, datetime.now(UTC))
            async for window in self._windows(month)
            if window.end_time > start
            for line in window.line_items
            if line.product_name in wanted
        ]

    async def still_sold(self, endpoints: Sequence[str]) -> Sequence[str]:
        """Those of some endpoints that stand in Together's list of models."""
        known = {model.id for model in _decode(await self._get("/v1/models", {}), list[_Model])}
        return [endpoint for endpoint in endpoints if endpoint in known]

    names_every_price: Final = False

    async def list_prices(self, endpoints: Sequence[str]) -> Sequence[ListedPrice]:
        """Price per unit of each model that was used this month, as it was billed last; Together has no price list.

        A model that was billed at two prices within its last hour is left out until the next one.
        """
        wanted, last = frozenset(endpoints), dict[str, set[Decimal]]()
        windows = [window async for window in self._windows(datetime.now(UTC).strftime("%Y-%m"))]
        for window in sorted(windows, key=lambda window: window.start_time):
            told: dict[str, set[Decimal]] = {}
            for line in window.line_items:
                if line.product_name in wanted and line.unit_price is not None:
                    told.setdefault(line.product_name, set()).add(line.unit_price)
            last |= told
        return [
            ListedPrice(endpoint=endpoint, unit="unit billed", nano_usd=_nano(prices.pop()))
            for endpoint, prices in last.items()
            if len(prices) == 1
        ]

    async def check(self, endpoints: Sequence[str]) -> Sequence[str]:
        """Ask for the list of models, which costs nothing and needs a good key."""
        try:
            known = await self.still_sold(endpoints)
        except Misconfigured as error:
            return [f"Together refuses the key of account `{self.name}`: {error.detail}"]
        except ProviderError as error:
            return [f"Together's list of models cannot be read: {error.detail}"]
        return [f"Together has no model {endpoint}" for endpoint in endpoints if endpoint not in known]

    async def aclose(self) -> None:
        """Let go of the SDK's client; the connections are the transport's."""
        await (await self._sdk.get()).close()

    async def _post(self, sdk: together.AsyncTogether, order: Order, fields: Mapping[str, Any]) -> bytes:
        """Send an order once and read the answer; raises what its absence means."""
        from together import APIConnectionError, APIStatusError  # loaded by now: `sdk` is of that package

        try:
            raw = await sdk.images.with_raw_response.generate(
                **fields, extra_headers={ATTEMPT_HEADER: order.attempt_id}, timeout=None
            )
        except APIStatusError as error:
            answer = Answer(error.status_code, error.response.headers, error.response.content)
            raise self._refusal(answer, order) from error
        except APIConnectionError as error:
            raise self._broken(error.__cause__ or error, order) from error
        return raw.http_response.content

    def _broken(self, cause: BaseException, order: Order) -> ProviderError:
        """Say what a conversation that broke off means."""
        if isinstance(cause, Cut) and cause.status == 200:
            return BadDelivery(str(cause), owed=requested(order))
        if isinstance(cause, Cut):
            return self._refusal(Answer(cause.status, {}, b""), order)
        if isinstance(cause, WireError):
            return unsent(cause)
        return OutcomeUnknown(type(cause).__name__)

    def _refusal(self, answer: Answer, order: Order) -> ProviderError:
        status, said = answer.status, _complaint(answer.body)
        kind = _ENDS.get(status) or (OutcomeUnknown if status >= 500 else Unsupported)
        if said is None and status >= 500 and kind is not Unavailable:
            kind = OutcomeUnknown  # not Together's own words
        text = scrub(said or f"HTTP {status}", (self._key, order.request.prompt))
        return kind(text, retry_after=retry_after(answer.headers, "x-ratelimit-reset"), status=status)

    async def _piece(self, item: _Item, deadline: float) -> Piece:
        """Unpack or fetch one picture; where that fails, its bytes are empty."""
        if item.url is None:
            return Piece(data=_unpacked(item.b64_json or ""))
        try:
            data = await self._http.fetch(item.url, hosts=self._file_hosts, deadline=deadline, whole=complete)
        except WireError as error:
            return Piece(data=b"", trouble=f"a picture could not be fetched: {error}")
        return Piece(data=data)

    async def _windows(self, month: str) -> AsyncIterator[_Window]:
        cursor: str | None = ""
        while cursor is not None:
            query = {"month": month, "granularity": "hour", "limit": str(_PAGE)}
            page = _decode(await self._get("/v1/billing/usage", query | ({"after": cursor} if cursor else {})), _Usage)
            for window in page.data:
                yield window
            cursor = page.next_cursor

    async def _get(self, path: str, query: Mapping[str, str]) -> bytes:
        url = f"{self._root}{path}?{urlencode(query)}" if query else f"{self._root}{path}"

        async def ask() -> bytes:
            answer = await self._http.send("GET", url, headers={"Authorization": f"Bearer {self._key}"})
            if answer.status != 200:
                raise Answered(answer)
            return answer.body

        try:
            async with asyncio.timeout(_SIDE_CALL_S):
                return await read(ask, deadline=asyncio.get_running_loop().time() + _SIDE_CALL_S, attempts=3)
        except Answered as error:
            words = scrub(_complaint(error.answer.body) or f"HTTP {error.status}", (self._key,))
            kind = Misconfigured if error.status in {401, 402, 403} else Unavailable
            raise kind(words, status=error.status) from error
        except (TimeoutError, WireError) as error:
            raise Unavailable(str(error) or "no answer") from error


def _load(http: Http, root: str, key: str) -> together.AsyncTogether:
    """Import the SDK (0.5 s, and another second for its images) and bind it to our transport; runs in a thread."""
    import together

    logging.getLogger("together").setLevel(logging.INFO)  # at DEBUG it logs whole requests, prompts included
    sdk = together.AsyncTogether(
        api_key=key, base_url=f"https://{_HOST}", max_retries=0, http_client=http.sdk({_HOST: root})
    )
    assert sdk.images.with_raw_response
    return sdk


def _fields(order: Order) -> dict[str, Any]:
    """Say an order in the SDK's words; raises `Unsupported` for what they cannot say."""
    asked, able = order.request, order.abilities
    if asked.operation not in able.operations or asked.operation not in {"generate", "edit"} or asked.mask:
        raise Unsupported(f"{order.endpoint} does not {asked.operation} here")
    if asked.count > able.max_count:
        raise Unsupported(f"{order.endpoint} draws at most {able.max_count} pictures an order, not {asked.count}")
    if not able.sizes.allows(asked.width, asked.height):
        raise Unsupported(f"{order.endpoint} does not draw {asked.width}x{asked.height}")
    extra = dict(able.fixed)
    inputs = input_fields(order, [data_uri(picture) for picture in order.inputs])
    wanted: dict[str, Any] = {
        "model": order.endpoint,
        "prompt": asked.prompt,
        "n": asked.count,
        "response_format": "base64",
        "output_format": format_of(order),
        "seed": asked.seed if able.seed else None,
        "steps": steps_of(order),
        "guidance_scale": asked.guidance if able.guidance else None,
        "negative_prompt": asked.negative_prompt if able.negative_prompt else None,
        "image_loras": [{"path": lora.path, "scale": lora.scale} for lora in asked.loras] or None,
        "disable_safety_checker": asked.safety == "relaxed" if able.safety_dialect == "disable_checker" else None,
    }
    if able.size_dialect == "aspect_ratio":
        extra["aspect_ratio"] = able.sizes.name_of(asked.width, asked.height)
    elif able.size_dialect != "input":
        wanted["width"], wanted["height"] = asked.width, asked.height
    return inputs | {name: value for name, value in wanted.items() if value is not None} | {"extra_body": extra or None}


def _pictures(body: bytes, order: Order) -> _Pictures:
    """Read an answer of 200; one that cannot be read owes what was ordered, for the work was done."""
    try:
        return msgspec.json.decode(body, type=_Pictures)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadDelivery("the answer holds no pictures", owed=requested(order)) from error


def _unpacked(text: str) -> bytes:
    try:
        return pybase64.b64decode(text, validate=True)
    except (NotBase64, ValueError):
        return b""


def _complaint(body: bytes) -> str | None:
    """Together's words in an error body; None where the body is not Together's."""
    try:
        return msgspec.json.decode(body, type=_Refusal).error.message
    except (msgspec.MsgspecError, ValueError):
        return None


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Unavailable("an answer that cannot be read") from error


def _months(first: datetime, last: datetime) -> list[str]:
    """Every month from one moment to another, as `2026-11`."""
    count = (last.year - first.year) * 12 + last.month - first.month
    months = (first.month - 1 + ahead for ahead in range(count + 1))
    return [f"{first.year + month // 12:04d}-{month % 12 + 1:02d}" for month in months]


def _nano(dollars: Decimal) -> int:
    """Nano-dollars of a total; Together bills no finer."""
    return int((dollars * 1_000_000_000).to_integral_value())
