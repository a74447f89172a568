"""Replicate's SDK on our transport."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from providers.transport import (
    USER_AGENT,
    Cut,
    Http,
)

if TYPE_CHECKING:
    import httpx
    from replicate.client import Client


HOST: Final = "api.replicate.com"
T = TypeVar("T")


class _Exchange:
    """One question put through the SDK: headers it has no parameter for, and the raw answer."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers
        self.body = b""


_EXCHANGE: Final[ContextVar[_Exchange]] = ContextVar("replicate_exchange")


def load(http: Http, root: str, key: str) -> Client:
    """Import the SDK (0.2 s) and bind it to our transport; runs in a thread.

    Every answer of 400 or above leaves the SDK at once as `Answered`, so its retries never see one to repeat.
    """
    import httpx  # comes with the SDK
    from replicate.client import Client  # slow, and only accounts at Replicate need it

    return Client(
        api_token=key,
        base_url=f"https://{HOST}",
        timeout=httpx.Timeout(None),  # the adapter bounds every order itself
        transport=http.sdk_transport({HOST: root}, raise_answers=True),
        headers={"User-Agent": USER_AGENT},
        trust_env=False,
        event_hooks={"request": [_add_headers], "response": [_keep_body]},
    )


async def _add_headers(request: httpx.Request) -> None:
    request.headers.update(_EXCHANGE.get().headers)


async def _keep_body(response: httpx.Response) -> None:
    _EXCHANGE.get().body = await response.aread()


async def ask_sdk(call: Awaitable[object], kind: type[T], headers: Mapping[str, str] | None = None) -> T:
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
