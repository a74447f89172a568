"""What Replicate's answers say, as far as we read them."""

from __future__ import annotations

from binascii import Error as NotBase64
from datetime import datetime
from decimal import Decimal
from typing import TypeVar

import msgspec
import pybase64
from msgspec import Struct

from providers.contract import CancelOutcome
from providers.errors import (
    Unavailable,
)
from providers.transport import (
    Answer,
    retry_after,
)

T = TypeVar("T")


class Metrics(Struct):
    """What a prediction took and made."""

    predict_time: Decimal | None = None
    image_count: int | None = None


class Prediction(Struct):
    """As much of a prediction as we read; the SDK's own class knows neither `aborted` nor a version of null."""

    id: str
    status: str
    model: str | None = None
    version: str | None = None
    output: object = None
    error: object = None
    metrics: Metrics | None = None
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


class Page(Struct):
    """A page of predictions."""

    results: list[Prediction]
    next: str | None = None


class Problem(Struct):
    """An error body."""

    title: str = ""
    detail: str = ""
    retry_after: float | None = None


class CallbackBody(Struct):
    """What a callback says that we read."""

    id: str


class Secret(Struct):
    """The secret that callbacks are signed with."""

    key: str


class Urls(Struct):
    """Where an uploaded file is found."""

    get: str


class Upload(Struct):
    """An uploaded file."""

    urls: Urls


def cancel_outcome(prediction: Prediction) -> CancelOutcome:
    """What a cancellation came to."""
    match prediction.status:
        case "succeeded" | "failed":
            return "finished"
        case "aborted":
            return "unbilled"
        case "canceled":
            return "unbilled" if prediction.started_at is None and prediction.ran is None else "running"
        case _:
            return "running"


def is_of(prediction: Prediction, endpoint: str) -> bool:
    """Whether a prediction was made at an endpoint."""
    model, _, version = endpoint.partition(":")
    if "/" not in model:
        return prediction.version == model
    return prediction.model == model and (not version or prediction.version == version)


def problem_of(body: bytes) -> Problem | None:
    """Read Replicate's words in an error body; None where the body is not Replicate's."""
    try:
        return msgspec.json.decode(body, type=Problem)
    except (msgspec.MsgspecError, ValueError):
        return None


def told_to_wait(answer: Answer) -> float | None:
    """Seconds to wait, from the header or from the body, which is where Replicate tells them."""
    problem = problem_of(answer.body)
    told = problem.retry_after if problem else None
    return retry_after(answer.headers, "ratelimit-reset") or (None if told is None else min(max(told, 0.0), 3600.0))


def decode(body: bytes, kind: type[T]) -> T:
    """An answer beside orders; raises `Unavailable` for one that cannot be read."""
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
