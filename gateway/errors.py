"""What callers see when we cannot serve them: one tree, each class a row of docs/reference/errors.md.

    GatewayError
    |-- InvalidRequest         400, OpenAI's own codes
    |   |-- NoOffer            400 no_offer
    |   |-- ContentPolicy      400 content_policy_violation
    |   `-- IdempotencyKeyReused  400 idempotency_key_reused
    |-- InvalidApiKey          401
    |-- Forbidden              403
    |-- NotFound               404 not_found / model_not_found
    |-- TooLarge               413
    |-- BudgetSpent            429 insufficient_quota, waiting will not cure it
    |-- RateLimited            429 rate_limit_exceeded
    |-- KeyPaused              429 key_paused
    |-- Undeliverable          502
    |-- NoCapacity             503
    |-- NotReady               503
    |   `-- NotKept            503 not_ready, and a repeat would be drawn anew
    `-- DeadlinePassed         504

Each class's docstring is the sentence a user reads when no more precise one is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

MAX_RETRY_AFTER = 60.0
"""Seconds. Clients give up, or worse retry at once, beyond it (openai-python honours 120 s, openai-node 60 s)."""


class GatewayError(Exception):
    """The gateway could not serve this request."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: str | None = None
    should_retry: ClassVar[bool | None] = None
    """What `x-should-retry` says; None leaves it to the client, which repeats 408, 409, 429 and 5xx."""
    usual_wait: ClassVar[float | None] = None
    """Seconds that `Retry-After` says where nothing better is known."""

    def __init__(
        self,
        message: str = "",
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        """`param` names the offending field; `extra` is more for the error body (`reasons`, `attempts`)."""
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        super().__init__(self.message)
        self.param = param
        if code is not None:
            self.code = code
        wait = self.usual_wait if retry_after is None else retry_after
        self.retry_after = None if wait is None else min(max(wait, 0.0), MAX_RETRY_AFTER)
        self.extra: Mapping[str, object] = extra or {}
        self.headers: Sequence[tuple[bytes, bytes]] = ()
        """What its answer carries beside the usual headers."""


class InvalidRequest(GatewayError):
    """This is not a valid image request."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class NoOffer(InvalidRequest):
    """Nothing in the catalogue can satisfy these constraints."""

    code = "no_offer"


class ContentPolicy(InvalidRequest):
    """Every willing provider refused to draw this."""

    code = "content_policy_violation"


class IdempotencyKeyReused(InvalidRequest):
    """This Idempotency-Key was first used with another body."""

    code = "idempotency_key_reused"


class InvalidApiKey(GatewayError):
    """The API key is missing, unknown, expired or revoked."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class Forbidden(GatewayError):
    """This API key may not do that."""

    status = 403
    type = "invalid_request_error"
    code = "forbidden"


class NotFound(GatewayError):
    """There is nothing here by that name."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class TooLarge(GatewayError):
    """The request body is larger than this endpoint accepts."""

    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class BudgetSpent(GatewayError):
    """The budget that this would be charged to is spent."""

    left: int | None = None
    """Nano-dollars that a cheaper order might cost; None when nobody said."""
    budget: str = ""
    """Whose: the id of a budget or a key, or a team."""
    of_offer: bool = False
    """Whether it is the budget of an account or a model, so that another offer may still be paid for."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"
    should_retry = False


class RateLimited(GatewayError):
    """This API key sends more requests than it may."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    should_retry = True
    usual_wait: ClassVar[float | None] = 1.0


class KeyPaused(GatewayError):
    """This API key spent far more than it usually does, and is paused for a while."""

    status = 429
    type = "rate_limit_error"
    code = "key_paused"
    should_retry = False


class Undeliverable(GatewayError):
    """Providers were tried and none delivered."""

    status = 502
    code = "undeliverable"
    should_retry = False


class NoCapacity(GatewayError):
    """No provider has room before the deadline."""

    status = 503
    code = "no_capacity"
    should_retry = True
    usual_wait: ClassVar[float | None] = 1.0


class NotReady(GatewayError):
    """The gateway cannot record money right now, so it does not spend any."""

    status = 503
    code = "not_ready"
    should_retry = True
    usual_wait: ClassVar[float | None] = 5.0


class NotKept(NotReady):
    """A picture was drawn, and paid for by the gateway, but cannot be handed out right now."""

    should_retry = False
    usual_wait = None


class DeadlinePassed(GatewayError):
    """The deadline passed before a picture was ready."""

    status = 504
    code = "timed_out"
    should_retry = False


def sentences(reasons: Sequence[str]) -> str:
    """Distinct reasons in one line, in the order they came."""
    return "; ".join(dict.fromkeys(reasons))
