"""What sellers that call back have in common: bells that wake who waits for an order, and keys that prove who calls."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from providers.errors import ProviderError
from providers.transport import jittered

_log = logging.getLogger(__name__)

_EARLY_KEPT: Final = 1024
_STAMP_S: Final = 300
_KEYS_S: Final = 24 * 3600.0
_KEYS_AGAIN_S: Final = 60.0


class Bells:
    """A bell for each order that is waited for. One rung before anybody waits is heard by who comes."""

    def __init__(self) -> None:
        self._bells: dict[str, asyncio.Event] = {}
        self._early: dict[str, None] = {}

    def ring(self, order_id: str) -> None:
        """Wake whoever waits for an order, now or soon."""
        bell = self._bells.get(order_id)
        if bell is not None:
            bell.set()
            return
        self._early[order_id] = None
        if len(self._early) > _EARLY_KEPT:
            del self._early[next(iter(self._early))]

    @contextmanager
    def bell(self, order_id: str) -> Iterator[asyncio.Event]:
        """Give a bell that rings when the seller calls back about an order, or has rung if it already did."""
        bell = self._bells[order_id] = asyncio.Event()
        if order_id in self._early:
            del self._early[order_id]
            bell.set()
        try:
            yield bell
        finally:
            if self._bells.get(order_id) is bell:
                del self._bells[order_id]


async def ring_or_pause(bell: asyncio.Event, pause: float) -> bool:
    """Wait for the bell, for about `pause` seconds; whether it rang."""
    try:
        async with asyncio.timeout(jittered(pause)):
            await bell.wait()
    except TimeoutError:
        return False
    bell.clear()
    return True


def is_fresh(stamp: str, now: float) -> bool:
    """Whether a callback's stamp (Unix seconds, in digits) is within five minutes of `now`; others are replays."""
    return stamp.isascii() and stamp.isdigit() and abs(now - int(stamp[:15])) <= _STAMP_S


class Keys:
    """What a seller signs with: kept a day, asked for again (at most once a minute) when none of them fits."""

    def __init__(self, fetch: Callable[[], Awaitable[Sequence[bytes]]]) -> None:
        """`fetch` may raise a `ProviderError`; then trust goes to nobody new."""
        self._fetch = fetch
        self._keys: Sequence[bytes] = ()
        self._fetched = self._asked = -math.inf
        self._asking = asyncio.Lock()

    async def one_fits(self, fits: Callable[[bytes], bool]) -> bool:
        """Whether `fits` holds for a key the seller has, asking for new ones if for none we know."""
        if any(map(fits, self._fresh())):
            return True
        await self._ask_again()
        return any(map(fits, self._fresh()))

    def _fresh(self) -> Sequence[bytes]:
        return self._keys if asyncio.get_running_loop().time() - self._fetched < _KEYS_S else ()

    async def _ask_again(self) -> None:
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if now - self._asked < _KEYS_AGAIN_S:
                return
            self._asked = now
            try:
                self._keys = await self._fetch()
            except ProviderError as error:
                _log.warning("callback keys cannot be read: %s", error.detail)
            else:
                self._fetched = now
