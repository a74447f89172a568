"""Asks sellers now and then what they sell and at what price; tells what differs from our book, and proposes it."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from datetime import timedelta

import structlog

from gateway.clock import Clock
from gateway.features.alerts import Alerts
from gateway.features.price_sync import look, propose
from gateway.money.price_list import Finding
from gateway.storage.database import Database
from policies.price_book import in_force
from policies.types import Offer
from providers.contract import Provider
from providers.errors import ProviderError

log = structlog.get_logger("gateway.prices")


class PriceWatch:
    """Compares lists, keeps what they said, and proposes what they would change."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        alerts: Alerts,
        providers: Mapping[str, Provider],
        offers: Callable[[], Sequence[Offer]],
        stale_after: timedelta = timedelta(days=90),
    ) -> None:
        """`offers` are those in force; a price that nobody has looked at for `stale_after` is told."""
        self._stale_after = stale_after
        self._db = db
        self._clock = clock
        self._alerts = alerts
        self._providers = providers
        self._offers = offers

    async def work(self) -> None:
        """Ask every seller once; one that does not answer is logged and asked again next time."""
        agreed: set[str] = set()
        for account in list(self._providers):
            try:
                findings = await self.look(account)
            except ProviderError as error:
                log.warning("price_list_unavailable", account=account, error=error.kind, detail=error.detail)
                continue
            for finding in findings:
                if finding.alarming:
                    await self._alerts.listed(finding)
            offers = {offer.id: offer for offer in self._offers()}
            if new := await propose(self._db, self._clock.utc(), account, findings, offers):
                log.info("prices_proposed", account=account, count=new)
            agreed |= {name for finding in findings if finding.verdict == "same" for name in finding.offers}
        await self._tell_stale(agreed)

    async def _tell_stale(self, agreed: Container[str]) -> None:
        """Tell of prices in force that nobody has looked at for long, and no list has just confirmed."""
        now = self._clock.utc()
        before = (now - self._stale_after).date().isoformat()
        stale = sorted(
            offer.id
            for offer in self._offers()
            if offer.id not in agreed
            and (row := in_force(offer.book, now)) is not None
            and row.checked_on
            and row.checked_on < before
        )
        if stale:
            await self._alerts.stale(stale, self._stale_after)

    async def look(self, account: str) -> Sequence[Finding]:
        """An account's list beside our prices; nothing for a seller that has none. Raises its `ProviderError`s."""
        return await look(self._db, self._clock, account, self._providers[account], self._offers())
