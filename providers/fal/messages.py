"""What fal's answers say, as far as we read them, and how a broken one is told."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from binascii import Error as NotBase64
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final, TypeVar

import msgspec
import pybase64
from msgspec import Struct

from providers.contract import CancelOutcome
from providers.errors import Unavailable
from providers.transport import Answer, Cut

T = TypeVar("T")

_CANCELS: Final[Mapping[str, CancelOutcome]] = {
    "OK": "unbilled",
    "CANCELLATION_REQUESTED": "running",
    "ALREADY_COMPLETED": "finished",
}


class File(Struct):
    """A picture of a result."""

    url: str
    width: int | None = None
    height: int | None = None


class Output(Struct):
    """A result: one picture or several, and what fal says of all of them."""

    images: list[File] | None = None
    image: File | None = None
    seed: int | None = None
    has_nsfw_concepts: list[bool] | None = None

    def files(self) -> list[File]:
        """Every picture, in order."""
        return self.images if self.images is not None else [self.image] if self.image else []


class Problem(Struct):
    """One fault of a refused request."""

    loc: list[str | int] = []
    msg: str = ""
    type: str = ""


class Complaint(Struct):
    """An error body, in both of its shapes."""

    detail: str | list[Problem] = ""
    error_type: str | None = None


class CancelAnswer(Struct):
    """What a cancellation comes to."""

    status: str = ""


class Price(Struct):
    """A line of the price list."""

    endpoint_id: str
    unit_price: Decimal
    unit: str


class Prices(Struct):
    """A page of the price list."""

    prices: list[Price]


class Metadata(Struct, frozen=True):
    """What is told of a model."""

    status: str = "active"


class Model(Struct):
    """A model of the catalogue."""

    endpoint_id: str
    metadata: Metadata = Metadata()


class ModelPage(Struct):
    """A page of the catalogue."""

    models: list[Model]


class Page(Struct):
    """Where the next page of any list begins."""

    next_cursor: str | None = None


class Event(Struct):
    """A bill for one request; its id is the request's."""

    request_id: str
    endpoint_id: str
    timestamp: datetime
    cost_estimate_nano_usd: int
    percent_discount: Decimal | None = None
    output_units: Decimal | None = None
    unit_price: Decimal | None = None


class Events(Struct):
    """A page of bills."""

    billing_events: list[Event]


class Used(Struct):
    """What was billed of one endpoint in one span of time; dollars. Older answers say `cost`."""

    endpoint_id: str
    quantity: Decimal
    unit: str = ""
    cost_total: Decimal | None = None
    cost: Decimal = Decimal(0)


class Bucket(Struct):
    """One span of time, by its beginning."""

    bucket: datetime
    results: list[Used]


class UsagePage(Struct):
    """A page of what was billed, span by span."""

    time_series: list[Bucket]


class Estimated(Struct):
    """What some units will cost; dollars."""

    total_cost: Decimal


class Jwk(Struct):
    """A public key, as JSON web keys are written."""

    x: str = ""
    crv: str = ""


class Jwks(Struct):
    """The public keys that callbacks are signed with."""

    keys: list[Jwk]


class CallbackBody(Struct):
    """What a callback says that we read."""

    request_id: str


def complaint(answer: Answer) -> tuple[frozenset[str], str]:
    """Types and words of an error, in both of fal's shapes; never the `input` it echoes."""
    named = answer.headers.get("x-fal-error-type", "")
    try:
        said = msgspec.json.decode(answer.body, type=Complaint)
    except (msgspec.MsgspecError, ValueError):
        return frozenset({named}), ""
    if isinstance(said.detail, str):
        return frozenset({named, said.error_type or ""}), said.detail
    words = "; ".join(f"{'.'.join(map(str, problem.loc))}: {problem.msg}" for problem in said.detail)
    return frozenset({named, *(problem.type for problem in said.detail)}), words


def cancel_outcome(body: bytes) -> CancelOutcome:
    """What a cancellation came to."""
    try:
        said = msgspec.json.decode(body, type=CancelAnswer).status
    except (msgspec.MsgspecError, ValueError):
        return "unknown"
    return _CANCELS.get(said, "unknown")


def decode_output(body: bytes) -> Output:
    """A result; raises `Cut` for one that cannot be read."""
    try:
        return msgspec.json.decode(body, type=Output)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Cut("a result that cannot be read", 200) from error


def decode(body: bytes, kind: type[T]) -> T:
    """An answer of the platform API; raises `Unavailable` for one that cannot be read."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Unavailable("an answer that cannot be read") from error


def inline(url: str) -> bytes:
    """Unpack the bytes of a `data:` URL; empty where they are no base64."""
    try:
        return pybase64.b64decode(url.partition(",")[2], validate=True)
    except (NotBase64, ValueError):
        return b""


def unpadded(text: str) -> bytes:
    """Bytes of base64 for URLs without its padding; empty where they are none."""
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (NotBase64, ValueError):
        return b""
