"""OpenAI itself, through its SDK: one synchronous POST that answers with pictures and the tokens they took.

There is no queue, and no receipt before the answer. The answer's own count of tokens is what is billed, so an answer
that never came whole leaves its money unknown. Formats: OpenAI's API reference and openai 3.52.0, as of 2026-11.
"""

from __future__ import annotations

import asyncio
import logging
from binascii import Error as NotBase64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import msgspec
import pybase64
from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from providers.contract import Generation, Input, OnAccepted, Order, Ticket, Tokens
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
from providers.picture import Piece, deliver, format_of
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
    import httpx2
    import openai

T = TypeVar("T")

_HOST: Final = "api.openai.com"
_SIDE_CALL_S: Final = 15.0
"""Seconds that a call beside an order (models) may take."""
_ENDS: Final[Mapping[int, type[ProviderError]]] = {
    401: Misconfigured,
    402: Misconfigured,
    403: Misconfigured,  # also an organisation that is not verified for the model
    404: Retired,
    408: Unavailable,
    409: Unavailable,
    429: Overloaded,
    500: Failed,  # the model failed and says so: nothing was delivered, nothing is billed
    503: Unavailable,
    521: Unavailable,  # the edge could not even reach the platform; so 522, 523 and 529
    522: Unavailable,
    523: Unavailable,
    529: Unavailable,
}
"""What a status means. Other 5xx are the edge giving up on a platform that may go on drawing and bill, so their
outcome is unknown; other 4xx are `Unsupported`."""
_CODES: Final[Mapping[str, type[ProviderError]]] = {
    "moderation_blocked": ContentRefused,
    "content_policy_violation": ContentRefused,
    "insufficient_quota": Misconfigured,  # a 429 that no waiting cures
    "billing_hard_limit_reached": Misconfigured,
}
"""What OpenAI's own code of an error means, whatever its status."""


class Settings(BaseModel):
    """The account's key, and whose it is."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    key: SecretStr = Field(description="An API key of the account.")
    base_url: str = Field(
        default=f"https://{_HOST}", pattern=r"^https?://", description="Where OpenAI answers, without /v1."
    )
    organization: str | None = Field(default=None, description="The organization orders are billed to, where several.")
    project: str | None = Field(default=None, description="The project orders are billed to, where several.")


def connect(name: str, settings: Settings, http: Http) -> OpenAI:
    """Speak to OpenAI for the provider account `name`; the SDK is imported in a thread meanwhile."""
    return OpenAI(name, settings, http)


class _Item(Struct):
    b64_json: str = ""


class _InputTokens(Struct):
    text_tokens: int = 0
    image_tokens: int = 0


class _Usage(Struct):
    output_tokens: int
    input_tokens_details: _InputTokens

    def tokens(self) -> Tokens:
        """The counts that are billed, each at its own price."""
        given = self.input_tokens_details
        return Tokens(text_in=given.text_tokens, image_in=given.image_tokens, image_out=self.output_tokens)


class _Pictures(Struct):
    data: list[_Item]
    usage: _Usage


class _Error(Struct):
    message: str = ""
    code: str | None = None


class _Refusal(Struct):
    error: _Error


class _Model(Struct):
    id: str


class _Models(Struct):
    data: list[_Model]


class OpenAI:
    """One account at OpenAI."""

    def __init__(self, name: str, settings: Settings, http: Http) -> None:
        self.name = name
        self._http = http
        self._settings = settings
        self._key = settings.key.get_secret_value()
        self._root = settings.base_url.rstrip("/").removesuffix("/v1")
        self._sdk = Loading(lambda: _load(http, settings, self._root))

    async def loaded(self) -> None:
        """Wait until the SDK is imported, or cannot be."""
        await self._sdk.over()

    async def generate(self, order: Order, on_accepted: OnAccepted) -> Generation:
        """Draw `order`. OpenAI names it only in the answer, so `on_accepted` comes no earlier than the pictures."""
        fields = _fields(order)
        sdk = await self._sdk.get()
        deadline = asyncio.get_running_loop().time() + order.timeout
        try:
            async with asyncio.timeout_at(deadline):
                answer = await self._post(sdk, order, fields)
        except TimeoutError as error:
            raise TimedOut(f"no answer in {order.timeout:g} s") from error
        request_id = answer.headers.get("x-request-id")
        ticket = Ticket(request_id, {"endpoint": order.endpoint}) if request_id else None
        if ticket is not None:
            await on_accepted(ticket)
        told = _pictures(answer.body, ticket)
        pieces = [Piece(data=_unpacked(item.b64_json)) for item in told.data]
        return deliver(order, pieces, ticket=ticket, tokens=told.usage.tokens())

    async def still_sold(self, endpoints: Sequence[str]) -> Sequence[str]:
        """Those of some endpoints that stand in OpenAI's list of models."""
        known = {model.id for model in _decode(await self._get("/v1/models"), _Models).data}
        return [endpoint for endpoint in endpoints if endpoint in known]

    async def check(self, endpoints: Sequence[str]) -> Sequence[str]:
        """Ask for the list of models, which costs nothing and needs a good key."""
        try:
            known = await self.still_sold(endpoints)
        except Misconfigured as error:
            return [f"OpenAI refuses the key of account `{self.name}`: {error.detail}"]
        except ProviderError as error:
            return [f"OpenAI's list of models cannot be read: {error.detail}"]
        return [f"OpenAI has no model {endpoint}" for endpoint in endpoints if endpoint not in known]

    async def aclose(self) -> None:
        """Let go of the SDK's client; the connections are the transport's."""
        await (await self._sdk.get()).close()

    async def _post(self, sdk: openai.AsyncOpenAI, order: Order, fields: Mapping[str, Any]) -> Answer:
        """Send an order once and read the answer; raises what its absence means."""
        from openai import APIConnectionError, APIStatusError  # loaded by now: `sdk` is of that package

        images = sdk.images.with_raw_response
        send = images.edit if order.request.operation == "edit" else images.generate
        try:
            raw = await send(**fields, extra_headers={ATTEMPT_HEADER: order.attempt_id}, timeout=None)
        except APIStatusError as error:
            answer = Answer(error.status_code, error.response.headers, error.response.content)
            raise self._refusal(answer, order) from error
        except APIConnectionError as error:
            raise self._broken(error.__cause__ or error, order) from error
        except WireError as error:  # this SDK wraps httpx's errors only, and repeats on nothing else
            raise self._broken(error, order) from error
        return Answer(raw.status_code, raw.headers, raw.http_response.content)

    def _broken(self, cause: BaseException, order: Order) -> ProviderError:
        """Say what a conversation that broke off means."""
        if isinstance(cause, Cut) and cause.status == 200:
            return BadDelivery(str(cause), owed="unknown")  # drawn and billed, but its tokens were in the lost part
        if isinstance(cause, Cut):
            return self._refusal(Answer(cause.status, {}, b""), order)
        if isinstance(cause, WireError):
            return unsent(cause)
        return OutcomeUnknown(type(cause).__name__)

    def _refusal(self, answer: Answer, order: Order) -> ProviderError:
        status, said = answer.status, _complaint(answer.body)
        kind = _ENDS.get(status) or (OutcomeUnknown if status >= 500 else Unsupported)
        if said is None and status >= 500 and kind is not Unavailable:
            kind = OutcomeUnknown  # not OpenAI's own words
        kind = _CODES.get(said.code or "", kind) if said else kind
        text = scrub(said.message if said else f"HTTP {status}", (self._key, order.request.prompt))
        return kind(text, retry_after=retry_after(answer.headers), status=status)

    async def _get(self, path: str) -> bytes:
        async def ask() -> bytes:
            headers = {"Authorization": f"Bearer {self._key}"}
            answer = await self._http.send("GET", f"{self._root}{path}", headers=headers)
            if answer.status != 200:
                raise Answered(answer)
            return answer.body

        try:
            async with asyncio.timeout(_SIDE_CALL_S):
                return await read(ask, deadline=asyncio.get_running_loop().time() + _SIDE_CALL_S, attempts=3)
        except Answered as error:
            said = _complaint(error.answer.body)
            words = scrub(said.message if said else f"HTTP {error.status}", (self._key,))
            kind = Misconfigured if error.status in {401, 403} else Unavailable
            raise kind(words, status=error.status) from error
        except (TimeoutError, WireError) as error:
            raise Unavailable(str(error) or "no answer") from error


def _load(http: Http, settings: Settings, root: str) -> openai.AsyncOpenAI:
    """Import the SDK (a second and more) and bind it to our transport; runs in a thread."""
    import openai

    logging.getLogger("openai").setLevel(logging.INFO)  # at DEBUG it logs whole requests, prompts included
    sdk = openai.AsyncOpenAI(
        api_key=settings.key.get_secret_value(),
        base_url=f"https://{_HOST}/v1",
        max_retries=0,
        http_client=cast("httpx2.AsyncClient", http.sdk({_HOST: root})),  # it still takes clients of httpx
    )
    # Given to the constructor, None would mean: whatever the environment says.
    sdk.organization, sdk.project = settings.organization, settings.project
    assert sdk.images.with_raw_response
    return sdk


def _fields(order: Order) -> dict[str, Any]:
    """Say an order in the SDK's words; raises `Unsupported` for what they cannot say."""
    asked, able = order.request, order.abilities
    if asked.operation not in able.operations or asked.operation not in {"generate", "edit"}:
        raise Unsupported(f"{order.endpoint} does not {asked.operation} here")
    if asked.count > able.max_count:
        raise Unsupported(f"{order.endpoint} draws at most {able.max_count} pictures an order, not {asked.count}")
    if not able.sizes.allows(asked.width, asked.height):
        raise Unsupported(f"{order.endpoint} does not draw {asked.width}x{asked.height}")
    fields: dict[str, Any] = {
        "model": order.endpoint,
        "prompt": asked.prompt,
        "n": asked.count,
        "size": f"{asked.width}x{asked.height}",
        "output_format": format_of(order),
        "background": "transparent" if asked.transparent else "opaque",
        "extra_body": dict(able.fixed) or None,
    }
    if asked.operation == "generate":
        return fields | {"moderation": "low" if asked.safety == "relaxed" else "auto"}
    fewest, most = able.references
    if not fewest <= len(order.inputs) <= most or (order.mask and not able.mask):
        raise Unsupported(f"{order.endpoint} does not work from these pictures")
    if able.fidelity == "asked" and asked.fidelity is not None:
        fields["input_fidelity"] = asked.fidelity
    fields["image"] = [_file(f"image-{number}", picture) for number, picture in enumerate(order.inputs)]
    return fields if order.mask is None else fields | {"mask": _file("mask", order.mask)}


def _file(name: str, picture: Input) -> tuple[str, bytes, str]:
    return f"{name}.{picture.head.format}", picture.data, f"image/{picture.head.format}"


def _pictures(body: bytes, ticket: Ticket | None) -> _Pictures:
    """Read an answer of 200; one that cannot be read was drawn and is billed, but does not say how much."""
    try:
        return msgspec.json.decode(body, type=_Pictures)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadDelivery("the answer holds no pictures", owed="unknown", ticket=ticket) from error


def _unpacked(text: str) -> bytes:
    try:
        return pybase64.b64decode(text, validate=True)
    except (NotBase64, ValueError):
        return b""


def _complaint(body: bytes) -> _Error | None:
    """OpenAI's words in an error body; None where the body is not OpenAI's."""
    try:
        return msgspec.json.decode(body, type=_Refusal).error
    except (msgspec.MsgspecError, ValueError):
        return None


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Unavailable("an answer that cannot be read") from error
