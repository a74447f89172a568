"""One account at Replicate: an order from its submission to its pictures."""

from __future__ import annotations

import asyncio
import io
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import msgspec
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from yarl import URL

from providers.callbacks import Bells, Keys, is_fresh, ring_or_pause
from providers.contract import CancelOutcome, Generation, Input, ListedOrder, OnAccepted, Order, Ticket, Usage
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
from providers.picture import Piece, complete, data_uri, deliver, input_fields, requested
from providers.transport import (
    ATTEMPT_HEADER,
    Answer,
    Answered,
    Http,
    Loading,
    WireError,
    read,
    scrub,
    unsent,
)

if TYPE_CHECKING:
    from replicate.client import Client
from providers.replicate.messages import (
    CallbackBody,
    Page,
    Prediction,
    Secret,
    Upload,
    cancel_outcome,
    decode,
    inline,
    is_of,
    problem_of,
    told_to_wait,
)
from providers.replicate.sdk import HOST, ask_sdk, load
from providers.replicate.words import fields_of

_SIDE_CALL_S: Final = 15.0
"""Seconds that a call beside an order (cancel, account, keys) may take."""
_READS: Final = 6
"""Times one look at a prediction is tried before we have lost sight of it; about three seconds in all."""
_SHORTEST_LIFE_S: Final = 5
"""Least seconds that Replicate accepts in `Cancel-After`."""
_INLINE: Final = 256 * 1024
"""Bytes from which an input picture is uploaded: Replicate asks for data URIs below that only."""
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
        default=f"https://{HOST}", pattern=r"^https?://", description="Where Replicate answers, without /v1."
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
        self._is_replicates_own = URL(origin).host == HOST
        self._file_hosts = (*settings.file_hosts, *([] if self._is_replicates_own else [origin]))
        self._sdk = Loading(lambda: load(http, self._root, self._key))
        self._bells = Bells()
        self._secrets = Keys(self._read_secrets)
        self._wall_clock = wall_clock

    async def loaded(self) -> None:
        """Wait until the SDK is imported, or cannot be."""
        await self._sdk.over()

    async def generate(self, order: Order, on_accepted: OnAccepted) -> Generation:
        """Create a prediction for `order`, tell its ticket, wait for the end, fetch the pictures.

        Replicate itself ends a prediction that outlives the order, so none runs on unseen.
        """
        fields = fields_of(order)
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
                return cancel_outcome(await self._cancelled(sdk, ticket))
        except (TimeoutError, WireError):
            return "unknown"

    async def find(self, endpoint: str, since: datetime) -> Sequence[ListedOrder]:
        """List the predictions of an endpoint made from a moment on, newest first."""
        start = since.astimezone(UTC)
        return [
            ListedOrder(ticket=Ticket(each.id, {"endpoint": endpoint}), at=each.created_at.astimezone(UTC))
            async for each in self._predictions(start)
            if is_of(each, endpoint) and each.created_at is not None
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
            prediction_id = msgspec.json.decode(body, type=CallbackBody).id
        except msgspec.MsgspecError:
            return False
        self._bells.ring(prediction_id)
        return True

    async def still_sold(self, endpoints: Sequence[str]) -> Sequence[str]:
        """Those of some endpoints whose model can be looked up; a bare version cannot, and counts as sold."""
        return [endpoint for endpoint in endpoints if not await self._is_gone(endpoint)]

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

    async def _create(self, sdk: Client, order: Order, fields: Mapping[str, object]) -> Prediction:
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
            return await ask_sdk(create, Prediction, headers)
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
                owed = consumed = _consumption(ended, order, len(urls))
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

    async def _wait(self, sdk: Client, ticket: Ticket, deadline: float, pause: float) -> Prediction:
        """Look at the prediction, at growing intervals or when called back, until it has ended."""
        longest = max(pause, self._settings.poll_max)

        async def look() -> Prediction:
            return await ask_sdk(sdk.predictions.async_get(ticket.id), Prediction)

        with self._bells.bell(ticket.id) as bell:
            while True:
                rung = await ring_or_pause(bell, pause)
                prediction = await read(look, deadline=deadline, attempts=_READS)
                if prediction.ended:
                    return prediction
                pause = 0.0 if rung else pause
                pause = min(max(pause, self._settings.poll_first) * self._settings.poll_growth, longest)

    def _urls(self, ended: Prediction, order: Order, ticket: Ticket) -> list[str]:
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
        raise BadDelivery(gone, owed=_consumption(ended, order, order.request.count), ticket=ticket)

    async def _piece(self, url: str, order: Order, deadline: float) -> Piece:
        """Unpack or fetch one picture; where that fails, its bytes are empty and `trouble` says why."""
        data, trouble = b"", ""
        try:
            if url.startswith("data:"):
                data = inline(url)
            else:
                data = await self._http.fetch(url, hosts=self._file_hosts, deadline=deadline, whole=complete)
        except WireError as error:
            trouble = f"a picture could not be fetched: {error}"
        return Piece(data=data, seed=order.request.seed if order.abilities.seed else None, trouble=trouble)

    async def _cancelled(self, sdk: Client, ticket: Ticket) -> Prediction:
        try:
            return await ask_sdk(sdk.predictions.async_cancel(ticket.id), Prediction)
        except Answered:  # perhaps because it is over
            return await ask_sdk(sdk.predictions.async_get(ticket.id), Prediction)

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
            return (await ask_sdk(upload, Upload)).urls.get
        except Answered as error:
            kind = _SUBMIT_ENDS.get(error.status) or (Unavailable if error.status >= 500 else Unsupported)
            raise kind(
                self._words(error.answer), retry_after=told_to_wait(error.answer), status=error.status
            ) from error
        except WireError as error:
            raise Unavailable(f"an input picture could not be uploaded: {error}") from error

    def _not_taken(self, answer: Answer, order: Order) -> ProviderError:
        """Say what a refused creation means."""
        status, problem = answer.status, problem_of(answer.body)
        kind = _SUBMIT_ENDS.get(status) or (Unavailable if status >= 500 else Unsupported)
        if status == 422 and problem is not None and "version" in problem.title.lower():
            kind = Retired
        elif problem is None and status >= 500 and status != 503:
            kind = OutcomeUnknown  # a proxy speaks; the API behind it may have taken the order
        words = self._scrubbed(self._words(answer), order)
        return kind(words, retry_after=told_to_wait(answer), status=status)

    def _words(self, answer: Answer) -> str:
        problem = problem_of(answer.body)
        said = ": ".join(filter(None, (problem.title, problem.detail.strip()))) if problem else ""
        return scrub(said or f"HTTP {answer.status}", (self._key,))

    def _scrubbed(self, words: str, order: Order) -> str:
        return scrub(words, (self._key, order.request.prompt))

    async def _fault_of(self, endpoint: str) -> str | None:
        """Say why an endpoint is of no use; None when it is good, or cannot be looked up."""
        try:
            return f"Replicate has no model {endpoint}" if await self._is_gone(endpoint) else None
        except ProviderError as error:
            return f"Replicate does not tell of {endpoint}: {error.detail}"

    async def _is_gone(self, endpoint: str) -> bool:
        """Whether a model no longer exists; a bare version cannot be looked up."""
        model, _, version = endpoint.partition(":")
        if "/" not in model:
            return False
        try:
            await self._get(f"/v1/models/{model}" + (f"/versions/{version}" if version else ""))
        except Retired:
            return True
        return False

    async def _predictions(self, start: datetime) -> AsyncIterator[Prediction]:
        """Read the account's predictions from a moment on, page by page."""
        query: str | None = urlencode({"created_after": start.isoformat().replace("+00:00", "Z")})
        while query is not None:
            page = decode(await self._get(f"/v1/predictions?{query}"), Page)
            for prediction in page.results:
                if prediction.created_at is not None and prediction.created_at < start:
                    return  # newest first, so what follows is older still
                yield prediction
            query = URL(page.next).raw_query_string if page.next else None

    async def _read_secrets(self) -> list[bytes]:
        """Fetch the secret Replicate signs this account's callbacks with."""
        body = await self._get("/v1/webhooks/default/secret")
        return [decode(body, Secret).key.encode()]

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


def _consumption(ended: Prediction, order: Order, shown: int) -> Usage:
    """What a prediction that succeeded consumed.

    Pictures count as Replicate counts them; where it does not, one that its safety check dropped counts as made.
    """
    counted = ended.metrics.image_count if ended.metrics else None
    made = max(shown, order.request.count) if counted is None else counted
    return msgspec.structs.replace(requested(order, made), machine_ns=ended.machine_ns)


def _signed(secret: bytes, headers: Mapping[str, str], body: bytes) -> bool:
    from replicate.webhook import Webhooks, WebhookSigningSecret  # loaded by now: `_sdk` is of that package

    try:
        Webhooks.validate(headers=dict(headers), body=body.decode(), secret=WebhookSigningSecret(key=secret.decode()))
    except ValueError:  # its own errors, and those of base64 and UTF-8
        return False
    return True
