"""fal's file host, where input pictures wait for the order that names them.

    POST rest.fal.ai/storage/auth/token  ->  a token for some minutes
    POST v3.fal.media/files/upload       ->  the file's public, unguessable address

fal-client 1.0.3 speaks to both through clients of its own, past our transport and with ten attempts, so this is the
same protocol on ours. An upload costs nothing and is repeated where repeating may help; files are gone after an hour.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec
from msgspec import Struct

from providers.contract import Input
from providers.errors import Misconfigured, ProviderError, Unavailable
from providers.transport import Answered, Http, WireError, read, scrub

_ATTEMPTS: Final = 3
_EARLY: Final = timedelta(seconds=30)
"""How long before its end a token is renewed."""
_LIFECYCLE: Final = '{"expiration_duration_seconds":3600}'
"""Longer than any order waits and runs, and not longer than that."""


class _Token(Struct):
    token: str
    token_type: str
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)]


class _Stored(Struct):
    access_url: str


class Storage:
    """Where one account's inputs are put."""

    def __init__(self, http: Http, origins: Mapping[str, str], key: str) -> None:
        self._http = http
        self._rest = origins["rest.fal.ai"]
        self._cdn = origins["v3.fal.media"]
        self._key = key
        self._token: _Token | None = None
        self._asking = asyncio.Lock()

    async def put(self, picture: Input, deadline: float) -> str:
        """Upload one picture; gives its address. `deadline` is on the loop's clock.

        Nothing is ordered yet, so all it raises is `NotAccepted` of some kind.
        """
        headers = {
            "Content-Type": f"image/{picture.head.format}",
            "X-Fal-File-Name": f"input.{picture.head.format}",
            "X-Fal-Object-Lifecycle": _LIFECYCLE,
            "X-Fal-Object-Lifecycle-Preference": _LIFECYCLE,
        }

        async def once() -> bytes:
            token = await self._fresh_token()
            signed = {**headers, "Authorization": f"{token.token_type} {token.token}"}
            return await self._post(f"{self._cdn}/files/upload", signed, picture.data)

        try:
            async with asyncio.timeout_at(deadline):
                stored = await read(once, deadline=deadline, attempts=_ATTEMPTS)
            return msgspec.json.decode(stored, type=_Stored).access_url
        except Answered as error:
            raise self._refusal(error) from error
        except (TimeoutError, WireError, msgspec.MsgspecError) as error:
            raise Unavailable(f"an input picture could not be uploaded: {type(error).__name__}") from error

    async def _fresh_token(self) -> _Token:
        async with self._asking:
            if self._token is None or self._token.expires_at - _EARLY <= datetime.now(UTC):
                url = f"{self._rest}/storage/auth/token?storage_type=fal-cdn-v3"
                headers = {"Authorization": f"Key {self._key}", "Content-Type": "application/json"}
                self._token = msgspec.json.decode(await self._post(url, headers, b"{}"), type=_Token)
            return self._token

    async def _post(self, url: str, headers: Mapping[str, str], data: bytes) -> bytes:
        answer = await self._http.send("POST", url, headers=headers, data=data)
        if answer.status >= 300:
            raise Answered(answer)
        return answer.body

    def _refusal(self, error: Answered) -> ProviderError:
        self._token = None
        kind = Misconfigured if error.status in {401, 402, 403} else Unavailable
        words = scrub(f"an input picture could not be uploaded: HTTP {error.status}", (self._key,))
        return kind(words, status=error.status)
