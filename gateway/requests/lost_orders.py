"""What became of suspended orders at sellers that list the orders they took, but no money.

An order whose receipt was lost is found in the list, or was never taken. One whose end was missed is followed by its
receipt and costs what our tariff says of what it made: the same reckoning as for an order that went well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import structlog
from msgspec import Struct, field

from gateway.clock import Clock
from gateway.money.matching import DAY, SKEW, Release, Settle, by_endpoint, claims
from gateway.money.reconcile import post
from gateway.requests.orders import Spawn
from gateway.storage.database import Database
from gateway.storage.rows import AttemptRow
from policies.tariffs import Unpriced, bill
from policies.types import Offer
from providers.contract import FindsOrders, ImageRequest, Order, Provider, ReportsUsage, Resumable, Ticket, Usage
from providers.errors import ProviderError

log = structlog.get_logger("gateway.recovery")


class LostOrders(Struct, frozen=True, kw_only=True):
    """Looks for them, account by account."""

    db: Database
    clock: Clock
    offers: Mapping[str, Offer]
    spawn: Spawn
    order_timeout: float
    unknown_after: float
    """Seconds; an order that ended so long ago is listed by now, if it was taken at all."""
    followed: set[str] = field(default_factory=set)
    """Attempts whose end is being waited for just now."""

    async def look_for(self, account: str, provider: Provider) -> None:
        """One round: name what has no receipt, and follow what has one. Sellers that report money are left alone."""
        if isinstance(provider, ReportsUsage) or not isinstance(provider, FindsOrders):
            return
        if not isinstance(provider, Resumable):
            return
        before = self.clock.utc() - timedelta(seconds=self.unknown_after)
        ripe = [row for row in await self.db.suspended(account) if (row.ended or row.started) < before]
        for endpoint, rows in by_endpoint(row for row in ripe if row.ticket is None).items():
            await self._name(account, provider, endpoint, rows)
        for row in ripe:
            offer = self.offers.get(row.offer_id)
            if row.ticket is not None and offer is not None and row.id not in self.followed:
                self.followed.add(row.id)
                self.spawn(self._follow(row, row.ticket, offer, provider))

    async def _name(self, account: str, provider: FindsOrders, endpoint: str, rows: Sequence[AttemptRow]) -> None:
        """Give attempts whose receipt was lost the orders they became; release those that became none."""
        near = min(SKEW, timedelta(seconds=self.unknown_after / 2))
        since, until = min(row.started for row in rows) - near, max(row.ended or row.started for row in rows) + near
        try:
            listed = await provider.find(endpoint, since)
        except ProviderError as error:
            log.warning("orders_unavailable", account=account, error=error.kind, detail=error.detail)
            return
        attempts = await self.db.account_attempts(account, since - DAY)
        if any(row.state == "intent" and row.endpoint == endpoint and row.started <= until for row in attempts):
            return  # a listed order may be the one whose receipt is still on its way; the next round will know
        taken = {row.ticket.id for row in attempts if row.ticket is not None}
        claimed = claims([order for order in listed if order.ticket.id not in taken], rows, near)
        for row in rows:
            if row.id in claimed:
                await self.db.accept(row.owner, row.id, claimed[row.id])
            else:
                await post(self.db, account, Release(row), self.clock.utc())
        log.info("orders_looked_for", account=account, suspended=len(rows), resolved=len(claimed))

    async def _follow(self, attempt: AttemptRow, ticket: Ticket, offer: Offer, provider: Resumable) -> None:
        """Post what an order turned out to cost, once its seller tells how it ended; the team owes nothing."""
        try:
            end = await self._end(attempt, ticket, offer, provider)
            if end is not None:
                await post(self.db, attempt.account, end, self.clock.utc())
        finally:
            self.followed.discard(attempt.id)

    async def _end(
        self, attempt: AttemptRow, ticket: Ticket, offer: Offer, provider: Resumable
    ) -> Settle | Release | None:
        """What becomes of an order's money; None while nobody knows."""
        order = Order(
            attempt_id=attempt.id,
            endpoint=attempt.endpoint,
            abilities=offer.abilities,
            request=ImageRequest(
                width=attempt.width,
                height=attempt.height,
                count=attempt.count,
                steps=attempt.steps,
                references=attempt.inputs,
            ),
            timeout=self.order_timeout,
        )
        try:
            usage = (await provider.resume(order, ticket)).usage
        except ProviderError as error:
            if not isinstance(error.owed, Usage):
                return Release(attempt) if error.owed == "nothing" else None
            usage = error.owed
        tariff, steps = offer.tariff_at(attempt.started), attempt.steps or offer.abilities.default_steps
        try:
            cost = bill(tariff, usage, default_steps=steps)
        except Unpriced:
            cost = attempt.hold_cost
        return Settle(attempt, cost, len(usage.images), told=False)
