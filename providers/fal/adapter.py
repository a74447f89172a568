"""One account at fal.ai: an order from its submission to its pictures."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from yarl import URL

from providers.callbacks import Bells, Keys, is_fresh, ring_or_pause
from providers.contract import (
    CancelOutcome,
    Generation,
    Input,
    ListedPrice,
    OnAccepted,
    Order,
    Ticket,
    Usage,
    UsageRecord,
    UsageTotal,
)
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
from providers.fal.messages import (
    CallbackBody,
    Output,
    cancel_outcome,
    complaint,
    decode_output,
    inline,
)
from providers.fal.platform import SIDE_CALL_S, Platform
from providers.fal.storage import Storage
from providers.fal.words import fields_of
from providers.masks import white_on_black
from providers.picture import Piece, complete, data_uri, deliver, input_fields, requested, steps_of
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
    import fal_client
    import httpx

_HOSTS: Final[Mapping[str, str]] = {
    "fal.run": "run",
    "queue.fal.run": "queue",
    "rest.fal.ai": "rest",
    "api.fal.ai": "api",
    "v3.fal.media": "cdn",
}
"""fal's hosts, and the folder each becomes when everything lies under one `base_url`."""
_RESULT_READS: Final = 4
_SUBMIT_ENDS: Final[Mapping[int, type[ProviderError]]] = {
    401: Misconfigured,
    402: Misconfigured,
    403: Misconfigured,  # also "User is locked. Reason: Exhausted balance"
    404: Retired,
    408: Unavailable,
    409: Unavailable,
    429: Overloaded,
    499: OutcomeUnknown,
}
"""What a status means before acceptance; other 5xx are `Unavailable` (never billed), other 4xx `Unsupported`."""


class Settings(BaseModel):
    """The account's key, and how eagerly to ask for results."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    key: SecretStr = Field(description="An API key of the account, as fal shows it: id:secret.")
    base_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Where run, queue, rest and api lie as folders, when not at fal's own hosts.",
    )
    poll_first: float = Field(default=0.4, gt=0, description="Seconds from the receipt to the first question.")
    poll_growth: float = Field(default=1.3, ge=1, description="By what each pause outgrows the one before.")
    poll_max: float = Field(default=3.0, gt=0, description="Longest pause between two questions, in seconds.")
    poll_called_back: float = Field(
        default=8.0, gt=0, description="Pause between two questions, in seconds, when fal has promised to call back."
    )
    sync_mode: bool = Field(
        default=False, description="Take pictures inside the answer instead of from fal's file host, which keeps them."
    )
    inline_inputs: int = Field(
        default=65536,
        ge=0,
        description="Bytes up to which an input picture travels inside the order; larger ones are uploaded before it.",
    )
    file_hosts: tuple[str, ...] = Field(
        default=("fal.media", "fal.ai", "fal.run"), description="Hosts that result files may be fetched from."
    )


def connect(name: str, settings: Settings, http: Http) -> Fal:
    """Speak to fal for the provider account `name`; the SDK is imported in a thread meanwhile."""
    return Fal(name, settings, http)


class _Sdk(NamedTuple):
    """fal-client, and the HTTP client it speaks through."""

    fal: fal_client.AsyncClient
    client: httpx.AsyncClient


class _End(NamedTuple):
    """How the queue says an order ended."""

    failed: bool
    queue_s: float
    run_s: float | None


class Fal:
    """One account at fal.ai."""

    def __init__(
        self, name: str, settings: Settings, http: Http, *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        """`wall_clock` gives Unix seconds; callbacks are stamped with them."""
        self.name = name
        self._settings = settings
        self._http = http
        self._key = settings.key.get_secret_value()
        self._origins = _origins(settings.base_url)
        self._file_hosts = (
            *settings.file_hosts,
            *([str(URL(settings.base_url).origin())] if settings.base_url else ()),
        )
        self._sdk = Loading(lambda: _load(http, self._origins, self._key))
        self._bells = Bells()
        self._platform = Platform(http, self._origins, self._key)
        self._callback_keys = Keys(self._platform.callback_keys)
        self._wall_clock = wall_clock
        self._storage = Storage(http, self._origins, self._key)

    async def loaded(self) -> None:
        """Wait until the SDK is imported, or cannot be."""
        await self._sdk.over()

    async def generate(self, order: Order, on_accepted: OnAccepted) -> Generation:
        """Put inputs where fal sees them, queue `order`, tell its ticket, wait for the end, fetch the pictures."""
        fields = fields_of(order, sync_mode=self._settings.sync_mode or order.unstored)
        sdk = await self._sdk.get()
        deadline = asyncio.get_running_loop().time() + order.timeout
        fields |= await self._inputs(order, deadline)
        try:
            async with asyncio.timeout_at(deadline):
                ticket = await self._submit(sdk, order, fields)
        except TimeoutError as error:
            raise TimedOut(f"no receipt in {order.timeout:g} s") from error
        await on_accepted(ticket)
        pause = self._settings.poll_called_back if order.callback_url else self._settings.poll_first
        return await self._bring_home(order, ticket, deadline, pause)

    async def resume(self, order: Order, ticket: Ticket) -> Generation:
        """Bring home an order from its ticket; it may have ended long ago."""
        return await self._bring_home(order, ticket, asyncio.get_running_loop().time() + order.timeout, 0.0)

    async def cancel(self, ticket: Ticket) -> CancelOutcome:
        """Ask once. A queued order is dropped unbilled; a running one may still finish and be billed."""
        try:
            async with asyncio.timeout(SIDE_CALL_S):
                sdk = await self._sdk.get()
                answer = await sdk.client.put(_handle(sdk, ticket).cancel_url)
            return cancel_outcome(answer.content)
        except Answered as error:
            return cancel_outcome(error.answer.body)
        except (TimeoutError, WireError):
            return "unknown"

    names_every_price: Final = True

    async def list_prices(self, endpoints: Sequence[str]) -> Sequence[ListedPrice]:
        """List fal's own price per billing unit; its `unit` may say "image" where pages say megapixel."""
        return await self._platform.prices(endpoints)

    async def still_sold(self, endpoints: Sequence[str]) -> Sequence[str]:
        """Those of some endpoints that fal lists as active."""
        return await self._platform.active(endpoints)

    bills_by_order: Literal[True] = True

    async def usage(self, since: datetime, endpoints: Sequence[str]) -> Sequence[UsageRecord]:
        """List what fal bills, request by request, discounts included."""
        return await self._platform.usage(since, endpoints)

    async def totals(self, since: datetime) -> Sequence[UsageTotal]:
        """List what fal billed of any endpoint, day by day, whoever ordered it."""
        return await self._platform.totals(since)

    async def estimate(self, units: Mapping[str, int]) -> int:
        """Ask what so many units of each endpoint will cost this account, together."""
        return await self._platform.estimate(units)

    async def erase(self, ticket: Ticket) -> bool:
        """Delete a request's payloads and the files it made; fal wants an admin key for that."""
        return await self._platform.erase(ticket.id)

    async def read_callback(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Verify a webhook (Ed25519 over its ids, stamp and body) and wake whoever waits for its order.

        One that comes twice does nothing more; one that comes before its order's ticket is known is kept.
        """
        if not await self._trusts({name.lower(): value for name, value in headers.items()}, body):
            return False
        try:
            request_id = msgspec.json.decode(body, type=CallbackBody).request_id
        except msgspec.MsgspecError:
            return False
        self._bells.ring(request_id)
        return True

    async def check(self, endpoints: Sequence[str]) -> Sequence[str]:
        """Ask for models and prices, which costs nothing; prices need a good key, and name no missing endpoint."""
        try:
            known = await self._platform.active(endpoints)
            priced = {price.endpoint for price in await self.list_prices(known)} if known else set()
        except Misconfigured as error:
            return [f"fal refuses the key of account `{self.name}`: {error.detail}"]
        except ProviderError as error:
            return [f"fal's price list cannot be read: {error.detail}"]
        gone = [f"fal has no endpoint {endpoint} any more" for endpoint in endpoints if endpoint not in known]
        return gone + [f"fal names no price for {endpoint}" for endpoint in known if endpoint not in priced]

    async def aclose(self) -> None:
        """Let go of the SDK's client; the connections are the transport's."""
        await (await self._sdk.get()).client.aclose()

    async def _inputs(self, order: Order, deadline: float) -> dict[str, object]:
        """Say where the pictures to work from are; those too large for the order itself are uploaded."""
        urls = await asyncio.gather(*(self._address(order, picture, deadline) for picture in order.inputs))
        fields = input_fields(order, urls)
        if order.mask is not None:
            fields["mask_url"] = await self._address(order, await white_on_black(order.mask), deadline)
        return fields

    async def _address(self, order: Order, picture: Input, deadline: float) -> str:
        if order.unstored or len(picture.data) <= self._settings.inline_inputs:
            return data_uri(picture)
        return await self._storage.put(picture, deadline)

    async def _submit(self, sdk: _Sdk, order: Order, fields: Mapping[str, object]) -> Ticket:
        headers = {"X-Fal-No-Retry": "1", "X-Fal-Disable-Fallbacks": "true", ATTEMPT_HEADER: order.attempt_id}
        if order.unstored:  # inputs travel inside it, pictures inside its answer: nothing comes to lie on the file host
            headers["X-Fal-Store-IO"] = "0"
        try:
            handle = await sdk.fal.submit(order.endpoint, dict(fields), webhook_url=order.callback_url, headers=headers)
        except Answered as error:
            raise self._not_taken(error.answer, order) from error
        except WireError as error:
            raise unsent(error) from error
        except (ValueError, LookupError, TypeError) as error:
            raise OutcomeUnknown("the receipt cannot be read") from error
        return Ticket(
            handle.request_id,
            {
                "endpoint": order.endpoint,
                "status_url": handle.status_url,
                "response_url": handle.response_url,
                "cancel_url": handle.cancel_url,
            },
        )

    async def _bring_home(self, order: Order, ticket: Ticket, deadline: float, pause: float) -> Generation:
        owed: Owed = "unknown"
        try:
            async with asyncio.timeout_at(deadline):
                sdk = await self._sdk.get()
                end = await self._wait(_handle(sdk, ticket), deadline, pause)
                output = await self._result(sdk, order, ticket, end, deadline)
                owed = declared(order, output)
                pieces = await asyncio.gather(*(self._piece(output, at, deadline) for at in range(len(output.files()))))
        except TimeoutError as error:
            raise TimedOut(f"not finished in {order.timeout:g} s", ticket=ticket, owed=owed) from error
        except WireError as error:
            raise OutcomeUnknown(f"lost sight of the order: {error}", ticket=ticket) from error
        return deliver(order, pieces, ticket=ticket, queue_s=end.queue_s, run_s=end.run_s)

    async def _wait(self, handle: fal_client.AsyncRequestHandle, deadline: float, pause: float) -> _End:
        """Ask for the status, at growing intervals or when called back, until the order has ended."""
        from fal_client import Completed, Queued  # there by now: the handle is of that SDK

        clock = asyncio.get_running_loop().time
        since = clock()
        queued_until = since
        longest = max(pause, self._settings.poll_max)
        with self._bells.bell(handle.request_id) as bell:
            while True:
                rung = await ring_or_pause(bell, pause)
                status = await read(lambda: _status(handle), deadline=deadline)
                if isinstance(status, Completed):
                    run_s = (status.metrics or {}).get("inference_time")
                    failed = bool(status.error or status.error_type)
                    return _End(failed, queued_until - since, run_s if isinstance(run_s, (int, float)) else None)
                if isinstance(status, Queued):
                    queued_until = clock()
                pause = 0.0 if rung else pause
                pause = min(max(pause, self._settings.poll_first) * self._settings.poll_growth, longest)

    async def _result(self, sdk: _Sdk, order: Order, ticket: Ticket, end: _End, deadline: float) -> Output:
        """Read the result; raises what its absence means."""
        url = _handle(sdk, ticket).response_url

        async def ask() -> Output | Answer:
            try:
                return decode_output((await sdk.client.get(url)).content)
            except Answered as error:
                if end.failed:
                    return error.answer  # this is the failure itself, not a hiccup in telling it
                raise

        try:
            output = await read(ask, deadline=deadline, attempts=_RESULT_READS)
        except Answered as error:
            output = error.answer
        except Cut as error:
            raise BadDelivery(str(error), owed=requested(order), ticket=ticket) from error
        if isinstance(output, Answer):
            raise self._ended_badly(output, order, ticket, end)
        if end.failed:
            raise Failed("fal calls it failed, yet shows a result", owed="unknown", ticket=ticket)
        return output

    async def _piece(self, output: Output, at: int, deadline: float) -> Piece:
        """Fetch one picture; where that fails, its bytes are empty and `trouble` says why."""
        file, marks = output.files()[at], output.has_nsfw_concepts or []
        data, trouble = b"", ""
        try:
            if file.url.startswith("data:"):
                data = inline(file.url)
            else:
                data = await self._http.fetch(file.url, hosts=self._file_hosts, deadline=deadline, whole=complete)
        except WireError as error:
            trouble = f"a picture could not be fetched: {error}"
        return Piece(
            data=data,
            declared=(file.width, file.height) if file.width and file.height else None,
            seed=output.seed,
            flagged=at < len(marks) and marks[at],
            trouble=trouble,
        )

    def _not_taken(self, answer: Answer, order: Order) -> ProviderError:
        """Say what a refused submission means."""
        types, words = complaint(answer)
        status = answer.status
        kind = _SUBMIT_ENDS.get(status) or (Unavailable if status >= 500 else Unsupported)
        if "content_policy_violation" in types:
            kind = ContentRefused
        elif status in {502, 504} and "x-fal-request-id" not in answer.headers:
            kind = OutcomeUnknown  # a proxy speaks; the queue behind it may have taken the order
        text = self._scrubbed(words, status, order)
        return kind(text, retry_after=retry_after(answer.headers), status=status)

    def _ended_badly(self, answer: Answer, order: Order, ticket: Ticket, end: _End) -> ProviderError:
        """Say what an error in place of a result means; the order had been accepted."""
        types, words = complaint(answer)
        status, text = answer.status, self._scrubbed(words, answer.status, order)
        if "content_policy_violation" in types:
            return ContentRefused(text, ticket=ticket, status=status)
        if status in {400, 413, 422}:
            return Unsupported(text, ticket=ticket, status=status)
        if status >= 500 and end.failed:
            return Failed(text, ticket=ticket, status=status)  # never billed, says fal's FAQ
        return Failed(text, owed="unknown", ticket=ticket, status=status)

    def _scrubbed(self, words: str, status: int, order: Order) -> str:
        return scrub(words or f"HTTP {status}", (self._key, self._key.rpartition(":")[2], order.request.prompt))

    async def _trusts(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether a callback is fal's and fresh; header names in small letters."""
        stamp = headers.get("x-fal-webhook-timestamp", "")
        ids = [headers.get("x-fal-webhook-request-id", ""), headers.get("x-fal-webhook-user-id", "")]
        if not is_fresh(stamp, self._wall_clock()):
            return False
        try:
            signature = bytes.fromhex(headers.get("x-fal-webhook-signature", ""))
        except ValueError:
            return False
        message = "\n".join([*ids, stamp, hashlib.sha256(body).hexdigest()]).encode()
        return await self._callback_keys.one_fits(lambda key: _signed(key, signature, message))


def _signed(key: bytes, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # only accounts that are called back need it
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # same

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _load(http: Http, origins: Mapping[str, str], key: str) -> _Sdk:
    """Import fal-client (160 ms) and bind it to our transport; runs in a thread."""
    import fal_client  # slow, and only accounts at fal need it

    client = http.sdk(origins, {"Authorization": f"Key {key}"}, raise_answers=True)

    class Bound(fal_client.AsyncClient):
        """fal-client builds its HTTP client itself and leaves no other way to give it one."""

        @property
        def _client(self) -> Coroutine[None, None, httpx.AsyncClient]:
            async def get() -> httpx.AsyncClient:
                return client

            return get()

    return _Sdk(Bound(key=key), client)


def _origins(base_url: str | None) -> Mapping[str, str]:
    if base_url is None:
        return {host: f"https://{host}" for host in _HOSTS}
    return {host: f"{base_url.rstrip('/')}/{folder}" for host, folder in _HOSTS.items()}


def _handle(sdk: _Sdk, ticket: Ticket) -> fal_client.AsyncRequestHandle:
    from fal_client import AsyncRequestHandle  # there by now: an `_Sdk` exists

    data = ticket.data
    return AsyncRequestHandle(
        request_id=ticket.id,
        response_url=data["response_url"],
        status_url=data["status_url"],
        cancel_url=data["cancel_url"],
        client=sdk.client,
    )


async def _status(handle: fal_client.AsyncRequestHandle) -> fal_client.Status:
    try:
        return await handle.status()
    except (ValueError, LookupError, TypeError) as error:
        raise Cut("a status that cannot be read", 200) from error


def declared(order: Order, output: Output) -> Usage:
    """Count up the pictures of a result as fal tells of them."""
    asked = (order.request.width, order.request.height)
    sizes = ((file.width, file.height) if file.width and file.height else asked for file in output.files())
    return Usage(images=tuple(sizes), steps=steps_of(order), references=order.request.references)
