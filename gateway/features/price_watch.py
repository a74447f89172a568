"""Reads sellers' own price lists now and then, and tells when they say something else than ours, or than last time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import structlog

from gateway.clock import Clock
from gateway.features.alerts import Alerts
from gateway.money.price_list import Finding, compared
from gateway.storage.database import Database
from policies.types import Offer
from providers.contract import ListsPrices, Provider
from providers.errors import ProviderError

log = structlog.get_logger("gateway.prices")


class PriceWatch:
    """Compares lists; keeps what they said."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        alerts: Alerts,
        providers: Mapping[str, Provider],
        offers: Callable[[], Sequence[Offer]],
    ) -> None:
        """`offers` are those in force."""
        self._db = db
        self._clock = clock
        self._alerts = alerts
        self._providers = providers
        self._offers = offers

    async def work(self) -> None:
        """Read every list once; a seller whose list cannot be read is logged and asked again next time."""
        for account in list(self._providers):
            try:
                findings = await self.look(account)
            except ProviderError as error:
                log.warning("price_list_unavailable", account=account, error=error.kind, detail=error.detail)
                continue
            for finding in findings:
                if finding.alarming:
                    await self._alerts.listed(finding)

    async def look(self, account: str) -> Sequence[Finding]:
        """An account's list beside our prices; nothing for a seller that has none. Raises its `ProviderError`s."""
        return await look(self._db, self._clock, account, self._providers[account], self._offers())


async def look(
    db: Database, clock: Clock, account: str, provider: Provider, offers: Sequence[Offer]
) -> Sequence[Finding]:
    """Read an account's list, compare it, and keep what it said."""
    if not isinstance(provider, ListsPrices):
        return ()
    sold = [offer for offer in offers if offer.account == account]
    listed = await provider.list_prices(sorted({offer.endpoint for offer in sold}))
    findings = list(compared(account, sold, listed, await db.listed_prices(account)))
    await db.keep_listed_prices(account, listed, clock.utc())
    return findings
