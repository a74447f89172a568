"""Replicate, through its SDK: create a prediction, wait for its end or its webhook, fetch the pictures.

    POST /v1/models/{owner}/{name}/predictions   official models, endpoint "owner/name"
    POST /v1/predictions                         any version, endpoint "owner/name:version" or the version alone
    ->  prediction (its id is the receipt)  ->  GET /v1/predictions/{id}  ->  files

A prediction tells machine time and counts pictures, but no price. What it drew is deleted after an hour; that it ran,
and how long, stays. Formats: Replicate's docs and replicate 1.0.7, as of 2026-11.
"""

from __future__ import annotations

import asyncio
import io
import math
import re
import time
from binascii import Error as NotBase64
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlencode

import msgspec
import pybase64
from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from yarl import URL

from providers.callbacks import Bells, Keys, is_fresh, ring_or_pause
from providers.contract import CancelOutcome, Generation, Input, ListedOrder, OnAccepted, Order, Safety, Ticket, Usage
from providers.errors import (
    BadDelivery,
    ContentRefused,
    Failed,
    Misconfigured,
    OutcomeUnknown,
    Overloaded,
    Owed,
    ProviderError,
    Retired,
    TimedOut,
    Unavailable,
    Unsupported,
)
from providers.masks import white_on_black
from providers.picture import Piece, complete, data_uri, deliver, format_of, input_fields, requested, steps_of
from providers.transport import (
    ATTEMPT_HEADER,
    USER_AGENT,
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
    import httpx
    from replicate.client import Client

T = TypeVar("T")

_HOST: Final = "api.replicate.com"
_SIDE_CALL_S: Final = 15.0
"""Seconds that a call beside an order (cancel, account, keys) may take."""
_READS: Final = 6
"""Times one look at a prediction is tried before we have lost sight of it; about three seconds in all."""
_SHORTEST_LIFE_S: Final = 5
"""Least seconds that Replicate accepts in `Cancel-After`."""
_INLINE: Final = 256 * 1024
"""Bytes from which an input picture is uploaded: Replicate asks for data URIs below that only."""
_TOLERANCE: Final[Mapping[Safety, int]] = {"strict": 1, "standard": 2, "relaxed": 5}
"""A number, not a string; 2 is Replicate's own default, 5 the most that all of the Pro models take."""
_TOLERANCE_WITH_INPUTS: Final = 2
"""The most that models take with input pictures."""
_UNSAFE: Final = re.compile(
    r"nsfw|flagged as sensitive|\bE005\b|moderat|safety (?:filter|system|checker)", re.IGNORECASE
)
"""How models say, in the text of a failure, that they will not draw this."""
_SUBMIT_ENDS: Final[Mapping[int, type[ProviderError]]] = {
    401: Misconfigured,
    402: Misconfigured,  # out of credit
    403: Misconfigured,
    404: Retired,
    408: Unavailable,
    409: Unavailable,
    429: Overloaded,
}
"""What a status means before acceptance; 5xx in Replicate's own words are `Unavailable`, other 4xx `Unsupported`."""


class Settings(BaseModel):
    """The account's token, and how eagerly to ask for results."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    key: SecretStr = Field(description="An API token of the account: r8_...")
    base_url: str = Field(
        default=f"https://{_HOST}", pattern=r"^https?://", description="Where Replicate answers, without /v1."
    )
    poll_first: float = Field(default=0.4, gt=0, description="Seconds from the receipt to the first question.")
    poll_growth: float = Field(default=1.3, ge=1, description="By what each pause outgrows the one before.")
    poll_max: float = Field(default=3.0, gt=0, description="Longest pause between two questions, in seconds.")
    poll_called_back: float = Field(
        default=8.0,
        gt=0,
        description="Pause between two questions, in seconds, when Replicate has promised to call back.",
    )
    file_hosts: tuple[str, ...] = Field(
        default=("replicate.delivery",), description="Hosts that result files may be fetched from."
    )


def connect(name: str, settings: Settings, http: Http) -> Replicate:
    """Speak to Replicate for the provider account `name`; the SDK is imported in a thread meanwhile."""
    return Replicate(name, settings, http)


class _Metrics(Struct):
    predict_time: Decimal | None = None
    image_count: int | None = None


class _Prediction(Struct):
    """As much of a prediction as we read; the SDK's own class knows neither `aborted` nor a version of null."""

    id: str
    status: str
    model: str | None = None
    version: str | None = None
    output: object = None
    error: object = None
    metrics: _Metrics | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    data_removed: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more; a status nobody has heard of is taken for one on the way."""
        return self.status in {"succeeded", "failed", "canceled", "aborted"}

    @property
    def ran(self) -> Decimal | None:
        """Seconds of a machine's time, as billed; None where it never ran."""
        if self.metrics is not None and self.metrics.predict_time is not None:
            return self.metrics.predict_time
        if self.started_at is None or self.completed_at is None:
            return None
        return Decimal(str((self.completed_at - self.started_at).total_seconds()))

    @property
    def machine_ns(self) -> int:
        """The same in nanoseconds; 0 where it never ran."""
        return int((max(self.ran or Decimal(0), Decimal(0)) * 1_000_000_000).to_integral_value())

    @property
    def queue_s(self) -> float | None:
        """Seconds it waited for a machine, where both moments are told."""
        if self.created_at is None or self.started_at is None:
            return None
        return max((self.started_at - self.created_at).total_seconds(), 0.0)


class _Page(Struct):
    results: list[_Prediction]
    next: str | None = None


class _Problem(Struct):
    title: str = ""
    detail: str = ""
    retry_after: float | None = None


class _CallbackBody(Struct):
    id: str


class _Secret(Struct):
    key: str


class _Urls(Struct):
    get: str


class _Upload(Struct):
    urls: _Urls


class _Exchange:
    """One question put through the SDK: headers it has no parameter for, and the raw answer."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers
        self.body = b""


_EXCHANGE: Final[ContextVar[_Exchange]] = ContextVar("replicate_exchange")


class Replicate:
    """One account at Replicate."""

    def __init__(
        self, name: str, settings: Settings, http: Http, *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        """`wall_clock` gives Unix seconds; callbacks are stamped with them."""
        self.name = name
        self._settings = settings
        self._http = http
        self._key = settings.key.get_secret_value()
        self._root = settings.base_url.rstrip("/").removesuffix("/v1")
        origin = str(URL(self._root).origin())
        self._is_replicates_own = URL(origin).host == _HOST
        self._file_hosts = (*settings.file_hosts, *([] if self._is_replicates_own else [origin]))
        self._sdk = Loading(lambda: _load(http, self._root, self._key))
        self._bells = Bells()
        self._secrets = Keys(self._read_secrets)
        self._wall_clock = wall_clock

    async def generate(self, order: Order, on_accepted: OnAccepted) -> Generation:
        """Create a prediction for `order`, tell its ticket, wait for the end, fetch the pictures.

        Replicate itself ends a prediction that outlives the order, so none runs on unseen.
        """
        fields = _fields(order)
        sdk = await self._sdk.get()
        deadline = asyncio.get_running_loop().time() + order.timeout
        try:
            async with asyncio.timeout_at(deadline):
                fields |= await self._input_fields(sdk, order)
        except TimeoutError as error:
            raise Unavailable("the input pictures were not taken in time") from error
        try:
            async with asyncio.timeout_at(deadline):
                begun = await self._create(sdk, order, fields)
        except TimeoutError as error:
            raise TimedOut(f"no receipt in {order.timeout:g} s") from error
        ticket = Ticket(begun.id, {"endpoint": order.endpoint})
        await on_accepted(ticket)
        pause = self._settings.poll_called_back if self._webhook(order) else self._settings.poll_first
        return await self._bring_home(order, ticket, deadline, pause)

    async def resume(self, order: Order, ticket: Ticket) -> Generation:
        """Bring home an order from its ticket; it may have ended long ago, but its pictures last an hour."""
        return await self._bring_home(order, ticket, asyncio.get_running_loop().time() + order.timeout, 0.0)

    async def cancel(self, ticket: Ticket) -> CancelOutcome:
        """Ask once. What has not started costs nothing; what runs is stopped and its time billed."""
        try:
            async with asyncio.timeout(_SIDE_CALL_S):
                sdk = await self._sdk.get()
                return _cancel_outcome(await self._cancelled(sdk, ticket))
        except (TimeoutError, WireError):
            return "unknown"

    async def find(self, endpoint: str, since: datetime) -> Sequence[ListedOrder]:
        """List the predictions of an endpoint made from a moment on, newest first."""
        start = since.astimezone(UTC)
        return [
            ListedOrder(ticket=Ticket(each.id, {"endpoint": endpoint}), at=each.created_at.astimezone(UTC))
            async for each in self._predictions(start)
            if _is_of(each, endpoint) and each.created_at is not None
        ]

    async def read_callback(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Verify a webhook (standard-webhooks HMAC over id, stamp and body) and wake whoever waits for its order.

        One that comes twice does nothing more; one that comes before its order's ticket is known is kept.
        """
        given = {name.lower(): value for name, value in headers.items()}
        if not is_fresh(given.get("webhook-timestamp", ""), self._wall_clock()):
            return False
        await self._sdk.get()
        if not await self._secrets.one_fits(lambda secret: _signed(secret, given, body)):
            return False
        try:
            prediction_id = msgspec.json.decode(body, type=_CallbackBody).id
        except msgspec.MsgspecError:
            return False
        self._bells.ring(prediction_id)
        return True

    async def check(self, endpoints: Sequence[str]) -> Sequence[str]:
        """Ask for the account and for each model, which costs nothing. What credit is left, Replicate does not tell."""
        try:
            await self._get("/v1/account")
        except Misconfigured as error:
            return [f"Replicate refuses the token of account `{self.name}`: {error.detail}"]
        except ProviderError as error:
            return [f"Replicate's account cannot be read: {error.detail}"]
        return [fault for endpoint in endpoints if (fault := await self._fault_of(endpoint))]

    async def aclose(self) -> None:
        """Let go of the SDK's client; the connections are the transport's."""
        sdk = await self._sdk.get()
        await sdk._async_client.aclose()  # noqa: SLF001  # the SDK has no way to be closed

    async def _create(self, sdk: Client, order: Order, fields: Mapping[str, object]) -> _Prediction:
        """Create a prediction once and read the receipt; raises what its absence means."""
        life = max(math.ceil(order.timeout), _SHORTEST_LIFE_S)
        headers = {"Cancel-After": f"{life}s", ATTEMPT_HEADER: order.attempt_id}
        hook: dict[str, Any] = {}
        if webhook := self._webhook(order):
            hook = {"webhook": webhook, "webhook_events_filter": ["completed"]}
        model, _, version = order.endpoint.partition(":")
        try:
            if version or "/" not in model:
                create = sdk.predictions.async_create(version=version or model, input=dict(fields), **hook)
            else:
                create = sdk.models.predictions.async_create(model, dict(fields), **hook)
            return await _ask(create, _Prediction, headers)
        except Answered as error:
            raise self._not_taken(error.answer, order) from error
        except WireError as error:
            raise unsent(error) from error

    def _webhook(self, order: Order) -> str | None:
        """Where Replicate is to call back: nowhere by plain HTTP, for it refuses such an order as a whole."""
        url = order.callback_url
        return url if url and (url.startswith("https://") or not self._is_replicates_own) else None

    async def _bring_home(self, order: Order, ticket: Ticket, deadline: float, pause: float) -> Generation:
        owed: Owed = "unknown"
        try:
            async with asyncio.timeout_at(deadline):
                sdk = await self._sdk.get()
                ended = await self._wait(sdk, ticket, deadline, pause)
                urls = self._urls(ended, order, ticket)
                owed = consumed = _consumed(ended, order, len(urls))
                pieces = await asyncio.gather(*(self._piece(url, order, deadline) for url in urls))
        except TimeoutError as error:
            raise TimedOut(f"not finished in {order.timeout:g} s", ticket=ticket, owed=owed) from error
        except WireError as error:
            raise OutcomeUnknown(f"lost sight of the order: {error}", ticket=ticket) from error
        return deliver(
            order,
            pieces,
            ticket=ticket,
            queue_s=ended.queue_s,
            run_s=None if ended.ran is None else float(ended.ran),
            made=len(consumed.images),
            machine_ns=consumed.machine_ns,
        )

    async def _wait(self, sdk: Client, ticket: Ticket, deadline: float, pause: float) -> _Prediction:
        """Look at the prediction, at growing intervals or when called back, until it has ended."""
        longest = max(pause, self._settings.poll_max)

        async def look() -> _Prediction:
            return await _ask(sdk.predictions.async_get(ticket.id), _Prediction)

        with self._bells.bell(ticket.id) as bell:
            while True:
                rung = await ring_or_pause(bell, pause)
                prediction = await read(look, deadline=deadline, attempts=_READS)
                if prediction.ended:
                    return prediction
                pause = 0.0 if rung else pause
                pause = min(max(pause, self._settings.poll_first) * self._settings.poll_growth, longest)

    def _urls(self, ended: _Prediction, order: Order, ticket: Ticket) -> list[str]:
        """Where the pictures are; raises what their absence means."""
        ran = Usage(machine_ns=ended.machine_ns)
        if ended.status == "aborted":
            raise TimedOut("it did not start in time", owed="nothing", ticket=ticket)
        if ended.status == "canceled":
            raise TimedOut("it was stopped before its end", owed=ran, ticket=ticket)
        if ended.status == "failed":
            words = str(ended.error or "no reason given")
            kind = ContentRefused if _UNSAFE.search(words) else Failed
            raise kind(self._scrubbed(words, order), owed=ran, ticket=ticket)
        urls = [ended.output] if isinstance(ended.output, str) else ended.output
        if isinstance(urls, list) and all(isinstance(url, str) for url in urls):
            return urls
        gone = "its pictures are deleted by now" if ended.data_removed else "an output that holds no pictures"
        raise BadDelivery(gone, owed=_consumed(ended, order, order.request.count), ticket=ticket)

    async def _piece(self, url: str, order: Order, deadline: float) -> Piece:
        """Unpack or fetch one picture; where that fails, its bytes are empty and `trouble` says why."""
        data, trouble = b"", ""
        try:
            if url.startswith("data:"):
                data = _inline(url)
            else:
                data = await self._http.fetch(url, hosts=self._file_hosts, deadline=deadline, whole=complete)
        except WireError as error:
            trouble = f"a picture could not be fetched: {error}"
        return Piece(data=data, seed=order.request.seed if order.abilities.seed else None, trouble=trouble)

    async def _cancelled(self, sdk: Client, ticket: Ticket) -> _Prediction:
        try:
            return await _ask(sdk.predictions.async_cancel(ticket.id), _Prediction)
        except Answered:  # perhaps because it is over
            return await _ask(sdk.predictions.async_get(ticket.id), _Prediction)

    async def _input_fields(self, sdk: Client, order: Order) -> dict[str, object]:
        """Hand over the input pictures and say where they are; nothing is ordered yet, so nothing is owed."""
        input_fields(order, [""] * len(order.inputs))  # raises before anything is uploaded
        if order.mask is not None and not order.abilities.mask:
            raise Unsupported(f"{order.endpoint} takes no mask")
        urls = await asyncio.gather(*(self._handed_over(sdk, picture) for picture in order.inputs))
        fields = input_fields(order, urls)
        if order.mask is not None:
            fields["mask"] = await self._handed_over(sdk, await white_on_black(order.mask))
        return fields

    async def _handed_over(self, sdk: Client, picture: Input) -> str:
        """Give the URL of an input picture: its bytes themselves while they are few, else an upload of them."""
        if len(picture.data) < _INLINE:
            return data_uri(picture)
        name, media_type = f"input.{picture.head.format}", f"image/{picture.head.format}"
        upload = sdk.files.async_create(io.BytesIO(picture.data), filename=name, content_type=media_type)
        try:
            return (await _ask(upload, _Upload)).urls.get
        except Answered as error:
            kind = _SUBMIT_ENDS.get(error.status) or (Unavailable if error.status >= 500 else Unsupported)
            raise kind(
                self._words(error.answer), retry_after=_told_to_wait(error.answer), status=error.status
            ) from error
        except WireError as error:
            raise Unavailable(f"an input picture could not be uploaded: {error}") from error

    def _not_taken(self, answer: Answer, order: Order) -> ProviderError:
        """Say what a refused creation means."""
        status, problem = answer.status, _problem(answer.body)
        kind = _SUBMIT_ENDS.get(status) or (Unavailable if status >= 500 else Unsupported)
        if status == 422 and problem is not None and "version" in problem.title.lower():
            kind = Retired
        elif problem is None and status >= 500 and status != 503:
            kind = OutcomeUnknown  # a proxy speaks; the API behind it may have taken the order
        words = self._scrubbed(self._words(answer), order)
        return kind(words, retry_after=_told_to_wait(answer), status=status)

    def _words(self, answer: Answer) -> str:
        problem = _problem(answer.body)
        said = ": ".join(filter(None, (problem.title, problem.detail.strip()))) if problem else ""
        return scrub(said or f"HTTP {answer.status}", (self._key,))

    def _scrubbed(self, words: str, order: Order) -> str:
        return scrub(words, (self._key, order.request.prompt))

    async def _fault_of(self, endpoint: str) -> str | None:
        """Say why an endpoint is of no use; None when it is good, or is a bare version, which cannot be looked up."""
        model, _, version = endpoint.partition(":")
        if "/" not in model:
            return None
        try:
            await self._get(f"/v1/models/{model}" + (f"/versions/{version}" if version else ""))
        except Retired:
            return f"Replicate has no model {endpoint}"
        except ProviderError as error:
            return f"Replicate does not tell of {endpoint}: {error.detail}"
        return None

    async def _predictions(self, start: datetime) -> AsyncIterator[_Prediction]:
        """Read the account's predictions from a moment on, page by page."""
        query: str | None = urlencode({"created_after": start.isoformat().replace("+00:00", "Z")})
        while query is not None:
            page = _decode(await self._get(f"/v1/predictions?{query}"), _Page)
            for prediction in page.results:
                if prediction.created_at is not None and prediction.created_at < start:
                    return  # newest first, so what follows is older still
                yield prediction
            query = URL(page.next).raw_query_string if page.next else None

    async def _read_secrets(self) -> list[bytes]:
        """Fetch the secret Replicate signs this account's callbacks with."""
        body = await self._get("/v1/webhooks/default/secret")
        return [_decode(body, _Secret).key.encode()]

    async def _get(self, path: str) -> bytes:
        async def ask() -> bytes:
            answer = await self._http.send(
                "GET", f"{self._root}{path}", headers={"Authorization": f"Bearer {self._key}"}
            )
            if answer.status != 200:
                raise Answered(answer)
            return answer.body

        try:
            async with asyncio.timeout(_SIDE_CALL_S):
                return await read(ask, deadline=asyncio.get_running_loop().time() + _SIDE_CALL_S, attempts=3)
        except Answered as error:
            kind = {401: Misconfigured, 403: Misconfigured, 404: Retired}.get(error.status, Unavailable)
            raise kind(self._words(error.answer), status=error.status) from error
        except (TimeoutError, WireError) as error:
            raise Unavailable(str(error) or "no answer") from error


def _load(http: Http, root: str, key: str) -> Client:
    """Import the SDK (0.2 s) and bind it to our transport; runs in a thread.

    Every answer of 400 or above leaves the SDK at once as `Answered`, so its retries never see one to repeat.
    """
    import httpx  # comes with the SDK
    from replicate.client import Client  # slow, and only accounts at Replicate need it

    return Client(
        api_token=key,
        base_url=f"https://{_HOST}",
        timeout=httpx.Timeout(None),  # the adapter bounds every order itself
        transport=http.sdk_transport({_HOST: root}, raise_answers=True),
        headers={"User-Agent": USER_AGENT},
        trust_env=False,
        event_hooks={"request": [_add_headers], "response": [_keep_body]},
    )


async def _add_headers(request: httpx.Request) -> None:
    request.headers.update(_EXCHANGE.get().headers)


async def _keep_body(response: httpx.Response) -> None:
    _EXCHANGE.get().body = await response.aread()


async def _ask(call: Awaitable[object], kind: type[T], headers: Mapping[str, str] | None = None) -> T:
    """Put one question through the SDK and read the answer ourselves; raises a `WireError`."""
    exchange = _Exchange(headers or {})
    token = _EXCHANGE.set(exchange)
    try:
        await call
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        if not exchange.body:
            raise Cut("an answer that cannot be read", 200) from error
    finally:
        _EXCHANGE.reset(token)
    try:
        return msgspec.json.decode(exchange.body, type=kind)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Cut("an answer that cannot be read", 200) from error


def _fields(order: Order) -> dict[str, object]:
    """Say an order in Replicate's words; raises `Unsupported` for what they cannot say."""
    asked, able = order.request, order.abilities
    if asked.operation not in able.operations:
        raise Unsupported(f"{order.endpoint} does not {asked.operation} here")
    if asked.count > able.max_count:
        raise Unsupported(f"{order.endpoint} draws at most {able.max_count} pictures an order, not {asked.count}")
    if len(asked.loras) > 1:
        raise Unsupported(f"{order.endpoint} takes one LoRA, not {len(asked.loras)}")
    wanted: dict[str, object | None] = {
        "prompt": asked.prompt or None,
        **_size(order),
        "num_outputs": asked.count if able.max_count > 1 else None,
        "seed": asked.seed if able.seed else None,
        "num_inference_steps": steps_of(order),
        "guidance": asked.guidance if able.guidance else None,
        "negative_prompt": asked.negative_prompt if able.negative_prompt else None,
        "prompt_strength": asked.strength if able.strength else None,
        "lora_weights": asked.loras[0].path if asked.loras else None,
        "lora_scale": asked.loras[0].scale if asked.loras else None,
        "output_format": _format(order) if len(able.formats) > 1 else None,
        **_safety(order),
    }
    return {name: value for name, value in wanted.items() if value is not None} | dict(able.fixed)


def _format(order: Order) -> str:
    chosen = format_of(order)
    return "jpg" if chosen == "jpeg" else chosen


def _size(order: Order) -> dict[str, object]:
    asked, able = order.request, order.abilities
    if able.size_dialect == "input":
        return {}
    if not able.sizes.allows(asked.width, asked.height):
        raise Unsupported(f"{order.endpoint} does not draw {asked.width}x{asked.height}")
    match able.size_dialect:
        case "aspect_ratio":
            return {"aspect_ratio": _named(order)}
        case "aspect_ratio_megapixels":
            ratio, _, megapixels = _named(order).partition(" ")
            return {"aspect_ratio": ratio, "megapixels": megapixels}
        case "custom_ratio":
            return {"aspect_ratio": "custom", "width": asked.width, "height": asked.height}
        case "width_height":
            return {"width": asked.width, "height": asked.height}
        case "size":
            return {"size": f"{asked.width}x{asked.height}"}
        case "image_size":
            raise Unsupported(f"Replicate has no words for sizes by {able.size_dialect}")


def _named(order: Order) -> str:
    name = order.abilities.sizes.name_of(order.request.width, order.request.height)
    if name is None:
        size = f"{order.request.width}x{order.request.height}"
        raise Unsupported(f"{order.endpoint} knows sizes by name, and {size} has none")
    return name


def _safety(order: Order) -> dict[str, object]:
    match order.abilities.safety_dialect:
        case "tolerance":
            tolerance = _TOLERANCE[order.request.safety]
            return {"safety_tolerance": min(tolerance, _TOLERANCE_WITH_INPUTS) if order.inputs else tolerance}
        case "disable_checker":
            return {"disable_safety_checker": order.request.safety == "relaxed"}
        case "checker":
            raise Unsupported("Replicate has no words for a safety checker that is switched on")
        case "none":
            return {}


def _consumed(ended: _Prediction, order: Order, shown: int) -> Usage:
    """What a prediction that succeeded consumed.

    Pictures count as Replicate counts them; where it does not, one that its safety check dropped counts as made.
    """
    counted = ended.metrics.image_count if ended.metrics else None
    made = max(shown, order.request.count) if counted is None else counted
    return msgspec.structs.replace(requested(order, made), machine_ns=ended.machine_ns)


def _cancel_outcome(prediction: _Prediction) -> CancelOutcome:
    match prediction.status:
        case "succeeded" | "failed":
            return "finished"
        case "aborted":
            return "unbilled"
        case "canceled":
            return "unbilled" if prediction.started_at is None and prediction.ran is None else "running"
        case _:
            return "running"


def _is_of(prediction: _Prediction, endpoint: str) -> bool:
    """Whether a prediction was made at an endpoint."""
    model, _, version = endpoint.partition(":")
    if "/" not in model:
        return prediction.version == model
    return prediction.model == model and (not version or prediction.version == version)


def _signed(secret: bytes, headers: Mapping[str, str], body: bytes) -> bool:
    from replicate.webhook import Webhooks, WebhookSigningSecret  # loaded by now: `_sdk` is of that package

    try:
        Webhooks.validate(headers=dict(headers), body=body.decode(), secret=WebhookSigningSecret(key=secret.decode()))
    except ValueError:  # its own errors, and those of base64 and UTF-8
        return False
    return True


def _problem(body: bytes) -> _Problem | None:
    """Read Replicate's words in an error body; None where the body is not Replicate's."""
    try:
        return msgspec.json.decode(body, type=_Problem)
    except (msgspec.MsgspecError, ValueError):
        return None


def _told_to_wait(answer: Answer) -> float | None:
    """Seconds to wait, from the header or from the body, which is where Replicate tells them."""
    problem = _problem(answer.body)
    told = problem.retry_after if problem else None
    return retry_after(answer.headers, "ratelimit-reset") or (None if told is None else min(max(told, 0.0), 3600.0))


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Unavailable("an answer that cannot be read") from error


def _inline(url: str) -> bytes:
    """Unpack the bytes of a `data:` URL; empty where they are no base64."""
    try:
        return pybase64.b64decode(url.partition(",")[2], validate=True)
    except (NotBase64, ValueError):
        return b""
