"""Erases what is kept of pictures and people: blobs, prompts, idempotency records, and what providers keep.

Money is not touched: what was ordered stays in the books, without a word of what was drawn. Every erasure leaves a line
of its own, with who asked and how much went, but not what it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import structlog
from msgspec import Struct

from gateway.clock import Clock
from gateway.storage.database import Database
from gateway.storage.rows import AssetRow, AttemptRow, ErasureRow
from providers.contract import Erases, Provider
from providers.errors import ProviderError

log = structlog.get_logger("gateway.privacy")


class Pictures(Protocol):
    """Where the bytes of pictures lie."""

    async def forget(self, paths: Sequence[str]) -> None:
        """Delete pictures by their public paths; a missing one is no error."""


class Erasure(Struct, frozen=True, kw_only=True):
    """What went."""

    images: int
    recipes: int
    keys: int
    """Idempotency records."""
    payloads: int
    """Orders whose payloads their provider erased."""
    payloads_left: int
    """Orders whose provider offers no such thing, or refused; it keeps them for as long as its terms say."""


class Eraser(Struct, frozen=True, kw_only=True):
    """Erases, wherever something is kept."""

    db: Database
    assets: Pictures
    providers: Mapping[str, Provider]
    clock: Clock

    async def image(self, asset: AssetRow, actor: str) -> Erasure:
        """One picture; with the last picture of a call goes what it was drawn from, and every copy of it."""
        others = [each for each in await self.db.call_assets(asset.call_id) if each.id != asset.id]
        attempt = await self.db.attempt(asset.attempt_id)
        attempts = [] if attempt is None or any(each.attempt_id == attempt.id for each in others) else [attempt]
        if others:
            return await self._erase([], [asset], attempts, actor, asset.id)
        copies = await self.db.shadow_calls([asset.call_id])
        assets = [asset, *[each for call in copies for each in await self.db.call_assets(call)]]
        attempts += [each for call in copies for each in await self.db.attempts(call)]
        return await self._erase([asset.call_id, *copies], assets, attempts, actor, asset.id)

    async def user(self, user: str, team: str | None, actor: str) -> Erasure:
        """Everything that was drawn for an end user, of one team or of all."""
        calls = await self.db.user_calls(user, team)
        calls = list(dict.fromkeys([*calls, *await self.db.shadow_calls(calls)]))
        assets = [asset for call in calls for asset in await self.db.call_assets(call)]
        attempts = [attempt for call in calls for attempt in await self.db.attempts(call)]
        subject = f"user {hashlib.sha256(user.encode()).hexdigest()[:16]}"
        return await self._erase(calls, assets, attempts, actor, subject)

    async def _erase(
        self,
        calls: Sequence[str],
        assets: Sequence[AssetRow],
        attempts: Sequence[AttemptRow],
        actor: str,
        subject: str,
    ) -> Erasure:
        # Bytes first: what breaks off here is found again by its rows.
        await self.assets.forget([asset.path for asset in assets])
        sent = [attempt for attempt in attempts if attempt.ticket is not None]
        payloads = sum([await self._payload(attempt) for attempt in sent])
        record = ErasureRow(at=self.clock.utc(), actor=actor, subject=subject, images=len(assets), payloads=payloads)
        recipes, keys = await self.db.erase(calls, [asset.id for asset in assets], record)
        log.info("erased", pictures=len(assets))
        return Erasure(
            images=len(assets), recipes=recipes, keys=keys, payloads=payloads, payloads_left=len(sent) - payloads
        )

    async def _payload(self, attempt: AttemptRow) -> bool:
        provider = self.providers.get(attempt.account)
        if provider is None or attempt.ticket is None or not isinstance(provider, Erases):
            return False
        try:
            return await provider.erase(attempt.ticket)
        except ProviderError as error:
            log.warning("payload_not_erased", attempt=attempt.id, error=error.kind, detail=error.detail)
            return False
