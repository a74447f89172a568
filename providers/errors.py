"""Why a provider did not deliver. Each class's docstring is the sentence a user reads.

    ProviderError
    |-- NotAccepted          nothing was ordered, so nothing is owed
    |   |-- Overloaded       429, queue full
    |   |-- Unavailable      5xx, DNS, TLS, connection refused
    |   |-- Unsupported      it cannot express this request
    |   |-- Retired          the endpoint is gone
    |   `-- Misconfigured    bad key, no credit, account locked
    |-- Failed               accepted, then failed
    |-- ContentRefused       the provider will not draw this
    |-- BadDelivery          billed, but not what was ordered
    |-- TimedOut             accepted or perhaps accepted; no answer in time
    `-- OutcomeUnknown       the connection broke after the order was sent

`owed` says what the order costs although it failed; `elsewhere` whether another provider may do better.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from providers.contract import Ticket, Usage

Owed = Usage | Literal["nothing", "unknown"]


class ProviderError(Exception):
    """The provider did not deliver."""

    elsewhere: ClassVar[bool] = True
    """Whether another provider may do better with the same order."""
    owed: Owed = "nothing"

    def __init__(
        self,
        detail: str = "",
        *,
        owed: Owed | None = None,
        retry_after: float | None = None,
        ticket: Ticket | None = None,
        status: int | None = None,
    ) -> None:
        """`detail` is the provider's own words, already free of keys; `retry_after` is in seconds."""
        super().__init__(detail)
        self.detail = detail[:500]
        if owed is not None:
            self.owed = owed
        self.retry_after = retry_after
        self.ticket = ticket
        self.status = status

    @property
    def kind(self) -> str:
        """The class in the words of logs, metrics and records: `content_refused`."""
        name = type(self).__name__
        return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")

    def __str__(self) -> str:
        """The sentence, with the provider's words behind it."""
        sentence = (type(self).__doc__ or "").strip().splitlines()[0]
        return f"{sentence} ({self.detail})" if self.detail else sentence


class NotAccepted(ProviderError):
    """The provider did not take the order."""


class Overloaded(NotAccepted):
    """The provider has no room for this order right now."""


class Unavailable(NotAccepted):
    """The provider cannot be reached or is failing."""


class Unsupported(NotAccepted):
    """The provider cannot express this request."""


class Retired(NotAccepted):
    """The provider no longer offers this model."""


class Misconfigured(NotAccepted):
    """The provider refused our account: the key, its credit or its permissions."""


class Failed(ProviderError):
    """The provider took the order and then failed."""


class ContentRefused(ProviderError):
    """The provider refuses to draw this."""

    elsewhere = False


class BadDelivery(ProviderError):
    """The provider delivered something other than what was ordered."""


class TimedOut(ProviderError):
    """The provider did not finish in time."""

    owed: Owed = "unknown"


class OutcomeUnknown(ProviderError):
    """The connection broke after the order was sent, so nobody knows yet whether it will be billed."""

    owed: Owed = "unknown"
