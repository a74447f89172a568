"""One image server of ours, spoken to over OpenAI's image endpoint.

`POST {base_url}/v1/images/generations`, plain HTTP, no SDK: this is the adapter that drives the most pictures per
second, so it does nothing per order but encode, send, decode and check. What differs from server to server is in
`dialects.py`; several servers behind one account are a `pool.py`.

Money: an order costs the seconds it kept the machine busy. A server that tells them is believed; where it tells none,
it is the time until its answer, shared by the `slots` of the machine. An answer without pictures leaves it unknown.
"""

from __future__ import annotations

import asyncio
from binascii import Error as NotBase64
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec
import pybase64
from msgspec import Struct
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
from providers.picture import Piece, deliver, format_of
from providers.plain_http import PlainClient, post
from providers.selfhosted.dialects import Dialect
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


class _Item(Struct):
    b64_json: str | None = None
    url: str | None = None
    seed: int | None = None


class _Metrics(Struct):
    gpu_seconds: float | None = None
    """Its share of a batch: what our own worker tells."""
    stage_durations: dict[str, float] | None = None
    """Seconds by stage: what vLLM-Omni tells, if it was started with its profiler."""


class _Pictures(Struct):
    data: list[_Item]
    model: str | None = None
    inference_time_s: float | None = None
    metrics: _Metrics | None = None


class _Error(Struct):
    message: str = ""
    code: str | int | None = None
    type: str | None = None


class _Refusal(Struct):
    error: _Error | str = ""
    detail: str = ""
    message: str = ""


class _Model(Struct):
    id: str = ""
    name: str = ""
    stem: str = ""


class _Models(Struct):
    data: list[_Model] = []
    model: _Model | None = None


class Status(Struct, frozen=True, kw_only=True):
    """What a server says of itself."""

    trouble: str = ""
    """Why it cannot draw; empty when it can."""
    silent: bool = False
    """It did not answer in time, which a server that is busy drawing may not."""
    models: frozenset[str] = frozenset()
    """Names of what it has loaded; empty when it does not say."""
    busy: int | None = None
    """Orders it has taken and not finished; None when it does not say."""


_PICTURES: Final = msgspec.json.Decoder(_Pictures)
_REFUSAL: Final = msgspec.json.Decoder(_Refusal)
_MODELS: Final = msgspec.json.Decoder(_Models)
_ENCODE: Final = msgspec.json.Encoder().encode


class Selfhosted:
    """One OpenAI-style image server of ours."""

    bills_nobody: Literal[True] = True

    def __init__(  # noqa: PLR0913  # what people write about a server, and the connection
        self,
        name: str,
        base_url: str,
        http: Http,
        *,
        key: str = "",
        dialect: Dialect,
        slots: int = 1,
        models: Mapping[str, str] | None = None,
        machine: str = "",
    ) -> None:
        """`models`: endpoint -> the server's own name of it; None: it goes by the same names. `machine`: its name."""
        self.name = name
        self.dialect = dialect
        self.models = models
        self.root = base_url.rstrip("/").removesuffix("/v1")
        self._http = http
        self._machine = machine
        self._slots = slots
        self._url = f"{self.root}/v1/images/generations"
        self._key = key
        self._headers = {"content-type": "application/json"}
        if self._key:
            self._headers["authorization"] = f"Bearer {self._key}"
        address = URL(self._url)
        self._path, self._authority = address.raw_path, address.authority
        # Plain HTTP inside our own network is the common case and the busy one; TLS goes the way of the other sellers.
        self._plain = PlainClient(address.host or "", address.port or 80) if address.scheme == "http" else None
        self._clock = asyncio.get_running_loop().time

    async def generate(self, order: Order, on_accepted: OnAccepted) -> Generation:  # noqa: ARG002  (no receipt)
        """Draw `order`. The server gives no receipt, so `on_accepted` is never called."""
        model = order.endpoint if self.models is None else self.models[order.endpoint]
        body = _ENCODE(self._fields(order, model))
        sent = self._clock()
        try:
            answer = await self._post(body, order)
        except TimeoutError as error:
            raise TimedOut(f"no answer in {order.timeout:g} s") from error
        except Cut as error:
            if error.status != 200:
                raise self._refusal(Answer(error.status, {}, b""), order) from error
            raise BadDelivery(str(error), owed="unknown") from error
        except WireError as error:
            raise unsent(error) from error
        if answer.status != 200:
            raise self._refusal(answer, order)
        return self._delivered(order, model, answer, sent)

    async def status(self, within_s: float = _CHECK_S) -> Status:
        """Ask the server how it is, what it has loaded and how much it has to do; nothing is drawn."""
        dialect = self.dialect
        try:
            async with asyncio.timeout(within_s):
                if dialect.ready and (ready := await self._get(dialect.ready)).status != 200:
                    return Status(trouble=_trouble(dialect.ready, ready.status))
                listed = await self._get(dialect.models)
                if listed.status != 200:
                    return Status(trouble=_trouble(dialect.models, listed.status))
                load = await self._get(dialect.load) if dialect.load else None
        except (TimeoutError, WireError) as error:
            why = f"does not answer ({str(error) or type(error).__name__})"
            return Status(trouble=why, silent=isinstance(error, TimeoutError))
        try:
            said = _MODELS.decode(listed.body)
        except (msgspec.MsgspecError, ValueError):
            return Status(trouble=f"answers {dialect.models} with something other than a list of models")
        every = [*said.data, *([said.model] if said.model else [])]
        busy = dialect.read_load(load.body) if load is not None and load.status == 200 else None
        names = {name for model in every for name in (model.id, model.name, model.stem) if name}
        return Status(models=frozenset(names), busy=busy)

    async def check(self, endpoints: Sequence[str]) -> Sequence[str]:
        """Ask how it is and what it has loaded; servers that draw one model only often list none, which is no fault."""
        status = await self.status()
        if status.trouble:
            return [f"{self.root} {status.trouble}"]
        return [f"{self.root} {missing}" for name in endpoints if (missing := self.lacks(name, status))]

    def lacks(self, endpoint: str, status: Status) -> str:
        """Say that the server has another model loaded than the one that is to be drawn; empty when it may have it."""
        if self.models is not None and endpoint not in self.models:
            return ""
        wanted = endpoint if self.models is None else self.models[endpoint]
        named = self.dialect.names_models or wanted != endpoint
        if not status.models or not named or wanted in status.models:
            return ""
        return f"has no model {wanted}, but {' and '.join(sorted(status.models))}"

    def endpoint(self, model: str) -> str:
        """The endpoint behind the server's own name of a model."""
        return next((name for name, own in (self.models or {}).items() if own == model), model)

    async def fetch(self, path: str) -> Answer:
        """Read something below the server's address, within ten seconds; raises `WireError` or `TimeoutError`."""
        async with asyncio.timeout(_CHECK_S):
            return await self._get(path)

    async def aclose(self) -> None:
        """Give back the connections that are not the transport's."""
        if self._plain is not None:
            await self._plain.aclose()

    async def _get(self, path: str) -> Answer:
        async def ask() -> Answer:
            return await self._http.send("GET", f"{self.root}{path}", headers=self._headers)

        return await read(ask, deadline=self._clock() + _CHECK_S, attempts=2)

    async def _post(self, body: bytes, order: Order) -> Answer:
        headers = {**self._headers, ATTEMPT_HEADER: order.attempt_id}
        if self._plain is not None:
            return await self._plain.send(post(self._path, self._authority, headers, body), order.timeout)
        async with asyncio.timeout(order.timeout):
            return await self._http.send("POST", self._url, headers=headers, data=body)

    def _fields(self, order: Order, model: str) -> dict[str, object]:
        asked = order.request
        if asked.operation != "generate":
            raise Unsupported(f"{asked.operation} is not spoken here")
        if not order.abilities.sizes.allows(asked.width, asked.height):
            raise Unsupported(f"{order.endpoint} does not draw {asked.width}x{asked.height}")
        return self.dialect.write(order, model)

    def _delivered(self, order: Order, model: str, answer: Answer, sent: float) -> Generation:
        """Take the pictures out of an answer, if they are what was ordered."""
        wall_s = self._clock() - sent
        try:
            said = _PICTURES.decode(answer.body)
            pieces = [_piece(item, order) for item in said.data]
        except (msgspec.MsgspecError, NotBase64, ValueError) as error:
            raise BadDelivery("the answer holds no pictures in base64", owed="unknown") from error
        ran_s, busy_s = _seconds(said)
        if busy_s is not None and not 0 <= busy_s <= wall_s:
            ran_s = busy_s = None  # nothing takes longer than from the question to its answer
        made = deliver(
            order,
            pieces,
            queue_s=None if ran_s is None else max(wall_s - ran_s, 0.0),
            run_s=busy_s if busy_s is not None else wall_s / self._slots,
            machine_ns=self._share_ns(wall_s) if busy_s is None else round(busy_s * 1e9),
            machine=self._machine,
        )
        if said.model is not None and said.model not in (model, order.endpoint):
            raise BadDelivery(f"drawn with {said.model} instead of {model}", owed=made.usage)
        wanted = format_of(order)
        for image in made.images:
            if image.measured is not None and image.measured.format != wanted:
                raise BadDelivery(f"{image.measured.format} instead of {wanted}", owed=made.usage)
        return made

    def _share_ns(self, wall_s: float) -> int:
        return round(wall_s * 1e9) // self._slots

    def _refusal(self, answer: Answer, order: Order) -> ProviderError:
        status, (code, words) = answer.status, _complaint(answer.body)
        kind = _ENDS.get(status) or (Failed if status >= 500 else Unsupported)
        if code in _CONTENT_CODES and status < 500:
            kind = ContentRefused
        text = scrub(words or f"HTTP {status}", (self._key, order.request.prompt))
        return kind(text, retry_after=retry_after(answer.headers), status=status)


def _piece(item: _Item, order: Order) -> Piece:
    """One picture of an answer; its address is never followed, for it leads into somebody's network."""
    if item.b64_json is None:
        trouble = "a link instead of a picture" if item.url is not None else "no picture in its place"
        return Piece(data=b"", trouble=trouble)
    wanted, count = order.request.seed, order.request.count
    trouble = ""
    if wanted is not None and item.seed is not None and not wanted <= item.seed < wanted + count:
        trouble = f"drawn with seed {item.seed} instead of {wanted}"
    return Piece(data=pybase64.b64decode(item.b64_json, validate=True), seed=item.seed, trouble=trouble)


def _seconds(said: _Pictures) -> tuple[float | None, float | None]:
    """Seconds from the start of the work to its end, and of these what the order costs; None where it is not told."""
    if said.inference_time_s is not None:
        return said.inference_time_s, said.inference_time_s
    if said.metrics is None:
        return None, None
    if said.metrics.gpu_seconds is not None:
        return None, said.metrics.gpu_seconds
    stages = sum((said.metrics.stage_durations or {}).values())
    return (stages, stages) if stages else (None, None)


def _trouble(path: str, status: int) -> str:
    if status in {401, 403}:
        return f"refuses the key (HTTP {status})"
    return f"answers {path} with HTTP {status}"


def _complaint(body: bytes) -> tuple[str, str]:
    """Code and words of an error body, in the shapes that servers of this kind use."""
    try:
        said = _REFUSAL.decode(body)
    except (msgspec.MsgspecError, ValueError):
        return "", ""
    if isinstance(said.error, _Error):
        return str(said.error.code or said.error.type or ""), said.error.message
    return "", said.error or said.detail or said.message
