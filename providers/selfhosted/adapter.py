"""Our own GPU servers, as long as they speak OpenAI's image endpoint: vLLM-Omni, SGLang-Diffusion and their like.

`POST {base_url}/v1/images/generations`, plain HTTP, no SDK: this is the adapter that drives the most pictures per
second, so it does nothing per order but encode, send, decode and check.
Servers draw with defaults of their own (SGLang: 50 steps for any model), so everything that has a value is sent.
"""

from __future__ import annotations

import asyncio
from binascii import Error as NotBase64
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import pybase64
from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from yarl import URL

from providers.contract import Generation, OnAccepted, Order
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
from providers.picture import Piece, deliver, format_of, requested, steps_of
from providers.plain_http import PlainClient, post
from providers.transport import ATTEMPT_HEADER, Answer, Cut, Http, WireError, read, retry_after, scrub, unsent

_CHECK_S: Final = 10.0
_CONTENT_CODES: Final = frozenset({"content_policy_violation", "moderation_blocked"})
_ENDS: Final[Mapping[int, type[ProviderError]]] = {
    401: Misconfigured,
    402: Misconfigured,
    403: Misconfigured,
    404: Retired,
    429: Overloaded,
    503: Unavailable,
    504: OutcomeUnknown,  # a proxy gave up waiting; the server behind it may well be drawing
}
"""What a status means; any other 5xx is `Failed` (it says itself that nothing came of it), other 4xx `Unsupported`."""


class Settings(BaseModel):
    """Where the server is, and the key it wants, if any."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    base_url: str = Field(pattern=r"^https?://", description="Address of the server, without /v1.")
    key: SecretStr | None = Field(default=None, description="Sent as a bearer token; none when left out.")


def connect(name: str, settings: Settings, http: Http) -> Selfhosted:
    """Speak to the server of `settings` for the provider account `name`."""
    return Selfhosted(name, settings, http)


class _Item(Struct):
    b64_json: str | None = None
    seed: int | None = None


class _Pictures(Struct):
    data: list[_Item]


class _Error(Struct):
    message: str = ""
    code: str | int | None = None
    type: str | None = None


class _Refusal(Struct):
    error: _Error | str = ""
    detail: str = ""
    message: str = ""


class _Model(Struct):
    id: str


class _Models(Struct):
    data: list[_Model] = []


_PICTURES: Final = msgspec.json.Decoder(_Pictures)
_REFUSAL: Final = msgspec.json.Decoder(_Refusal)
_MODELS: Final = msgspec.json.Decoder(_Models)
_ENCODE: Final = msgspec.json.Encoder().encode


class Selfhosted:
    """One OpenAI-style image server of ours."""

    def __init__(self, name: str, settings: Settings, http: Http) -> None:
        self.name = name
        self._http = http
        self._root = settings.base_url.rstrip("/").removesuffix("/v1")
        self._url = f"{self._root}/v1/images/generations"
        self._key = settings.key.get_secret_value() if settings.key else ""
        self._headers = {"content-type": "application/json"}
        if self._key:
            self._headers["authorization"] = f"Bearer {self._key}"
        address = URL(self._url)
        self._path, self._authority = address.raw_path, address.authority
        # Plain HTTP inside our own network is the common case and the busy one; TLS goes the way of the other sellers.
        self._plain = PlainClient(address.host or "", address.port or 80) if address.scheme == "http" else None

    async def generate(self, order: Order, on_accepted: OnAccepted) -> Generation:  # noqa: ARG002  (no receipt)
        """Draw `order`. The server gives no receipt, so `on_accepted` is never called."""
        body = _ENCODE(_fields(order))
        try:
            answer = await self._post(body, order)
        except TimeoutError as error:
            raise TimedOut(f"no answer in {order.timeout:g} s") from error
        except Cut as error:
            if error.status != 200:
                raise self._refusal(Answer(error.status, {}, b""), order) from error
            raise BadDelivery(str(error), owed=requested(order)) from error
        except WireError as error:
            raise unsent(error) from error
        if answer.status != 200:
            raise self._refusal(answer, order)
        return deliver(order, _pieces(answer, order))

    async def _post(self, body: bytes, order: Order) -> Answer:
        headers = {**self._headers, ATTEMPT_HEADER: order.attempt_id}
        if self._plain is not None:
            return await self._plain.send(post(self._path, self._authority, headers, body), order.timeout)
        async with asyncio.timeout(order.timeout):
            return await self._http.send("POST", self._url, headers=headers, data=body)

    async def check(self, endpoints: Sequence[str]) -> Sequence[str]:
        """Ask for the list of models; servers that draw one model only often list none, which is no fault."""
        loop = asyncio.get_running_loop()

        async def ask() -> Answer:
            return await self._http.send("GET", f"{self._root}/v1/models", headers=self._headers)

        try:
            async with asyncio.timeout(_CHECK_S):
                answer = await read(ask, deadline=loop.time() + _CHECK_S, attempts=2)
        except (TimeoutError, WireError) as error:
            return [f"{self._root} does not answer ({error})"]
        if answer.status in {401, 403}:
            return [f"{self._root} refuses the key (HTTP {answer.status})"]
        if answer.status != 200:
            return [f"{self._root}/v1/models answers HTTP {answer.status}"]
        try:
            known = {model.id for model in _MODELS.decode(answer.body).data}
        except msgspec.MsgspecError:
            return [f"{self._root}/v1/models answers something other than a list of models"]
        return [f"{self._root} has no model {name}" for name in endpoints if known and name not in known]

    async def aclose(self) -> None:
        """Give back the connections that are not the transport's."""
        if self._plain is not None:
            await self._plain.aclose()

    def _refusal(self, answer: Answer, order: Order) -> ProviderError:
        status, (code, words) = answer.status, _complaint(answer.body)
        kind = _ENDS.get(status) or (Failed if status >= 500 else Unsupported)
        if code in _CONTENT_CODES and status < 500:
            kind = ContentRefused
        text = scrub(words or f"HTTP {status}", (self._key, order.request.prompt))
        return kind(text, retry_after=retry_after(answer.headers), status=status)


def _fields(order: Order) -> dict[str, object]:
    """Say an order in the words of OpenAI's image endpoint, with the usual names for what OpenAI has none for."""
    asked, able = order.request, order.abilities
    if asked.operation != "generate":
        raise Unsupported(f"{asked.operation} is not spoken here")
    if not able.sizes.allows(asked.width, asked.height):
        raise Unsupported(f"{order.endpoint} does not draw {asked.width}x{asked.height}")
    fields: dict[str, object] = {
        "model": order.endpoint,
        "prompt": asked.prompt,
        "n": asked.count,
        "response_format": "b64_json",
        "output_format": format_of(order),
    }
    if able.size_dialect == "width_height":
        fields["width"], fields["height"] = asked.width, asked.height
    else:
        fields["size"] = f"{asked.width}x{asked.height}"
    wanted: dict[str, object | None] = {
        "seed": asked.seed if able.seed else None,
        "num_inference_steps": steps_of(order),
        "guidance_scale": asked.guidance if able.guidance else None,
        "negative_prompt": asked.negative_prompt if able.negative_prompt else None,
        "background": "transparent" if asked.transparent and able.transparent else None,
        "loras": [{"path": lora.path, "scale": lora.scale} for lora in asked.loras] or None,
    }
    fields.update((name, value) for name, value in wanted.items() if value is not None)
    fields.update(able.fixed)
    return fields


def _pieces(answer: Answer, order: Order) -> list[Piece]:
    """Take the pictures out of an answer; one that is none owes what was ordered, for the work was done."""
    try:
        items = _PICTURES.decode(answer.body).data
        return [Piece(data=pybase64.b64decode(item.b64_json or "", validate=True), seed=item.seed) for item in items]
    except (msgspec.MsgspecError, NotBase64, ValueError) as error:
        raise BadDelivery("the answer holds no pictures in base64", owed=requested(order)) from error


def _complaint(body: bytes) -> tuple[str, str]:
    """Code and words of an error body, in the shapes that servers of this kind use."""
    try:
        said = _REFUSAL.decode(body)
    except (msgspec.MsgspecError, ValueError):
        return "", ""
    if isinstance(said.error, _Error):
        return str(said.error.code or said.error.type or ""), said.error.message
    return "", said.error or said.detail or said.message
