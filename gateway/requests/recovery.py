"""Ends what a crash or a lost answer left open. Money is never guessed: it waits until a provider has spoken.

At start and then on a schedule, though a start waits for the first step alone:
  1. Orphans, whose process is dead, are taken over: reservations are given back, orders with a receipt are collected
     from sellers that can, the others are suspended. A caller who asks again in time gets what is collected.
  2. Suspended orders are looked up in what their provider account says it bills, or, where it bills without a word,
     among the orders it lists.
  3. More rarely, all orders are compared with that: a price that changed without notice becomes a correction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta

import structlog
from msgspec import Struct
from msgspec.structs import replace

from gateway.clock import Clock
from gateway.money.differences import unit_prices
from gateway.money.ledger import Hold, Ledger
from gateway.money.reconcile import Period, Resolution, elsewhere, glance, resolve
from gateway.requests.admission import Admission
from gateway.requests.lost_orders import LostOrders
from gateway.requests.orders import FoundOrder, Spawn
from gateway.storage.database import Database
from gateway.storage.rows import AttemptRow, Outcome
from policies.tariffs import Unpriced, bill
from policies.types import Offer
from providers.contract import Cancels, Generation, ImageRequest, Order, Provider, Resumable, Ticket, Usage
from providers.errors import ProviderError

DAY = timedelta(days=1)
LATEST = timedelta(minutes=5)
"""How far back the latest bills go."""
SKEW = timedelta(minutes=1)
"""How far a provider's clock may be from ours."""

log = structlog.get_logger("gateway.recovery")


class Recovery(Struct, frozen=True, kw_only=True):
    """What recovering takes."""

    db: Database
    ledger: Ledger
    clock: Clock
    providers: Mapping[str, Provider]
    offers: Mapping[str, Offer]
    admission: Admission
    lost_orders: LostOrders
    spawn: Spawn
    claimed: Callable[[FoundOrder], Awaitable[bool]]
    """Offers an order to a caller who asks again; False when none came in time."""
    order_timeout: float
    linger: float
    """Seconds for which an order that we cannot follow counts as in flight: its seller may still be working on it."""
    stale_after: float
    unknown_after: float
    """Seconds; an order this old that its provider does not list was never billed."""
    reconciled: Callable[[str, Resolution], Awaitable[None]]
    """Hears what a round with a provider account changed."""

    async def take_over(self) -> None:
        """Make what dead processes left open ours, and begin to end it; waits for no seller."""
        orphans = await self.ledger.orphans(self.stale_after)
        await asyncio.gather(*(self._adopt(attempt, hold) for attempt, hold in orphans))  # in one commit, not in many

    async def sweep(self) -> None:
        """One round over everything left open."""
        await self.take_over()
        for account, provider in list(self.providers.items()):  # a reload may add some meanwhile
            await self.lost_orders.look_for(account, provider)
            ripe = [
                attempt.started
                for attempt in await self.db.suspended(account)
                if attempt.started < self._known_before()
            ]
            if ripe:
                await self._resolve(account, provider, min(ripe) - SKEW)

    async def reconcile(self) -> None:
        """Compare the orders of the last day with what their providers say they bill, and correct our books."""
        for account, provider in list(self.providers.items()):
            await self._resolve(account, provider, self.clock.utc() - DAY)
            await self._look_elsewhere(account, provider)

    async def glance(self) -> None:
        """Look at the latest bills of providers that name orders: a price that changed in silence shows at once."""
        now = self.clock.utc()
        for account, provider in list(self.providers.items()):
            try:
                found = await glance(self.db, account, provider, now - LATEST, now, unit_prices(self.offers))
            except ProviderError as error:
                # `reconcile` warns of it, once an hour; here it would be twice a minute.
                log.debug("latest_bills_unavailable", account=account, error=error.kind, detail=error.detail)
                continue
            await self.reconciled(account, found)

    def _known_before(self) -> datetime:
        """What ended before this is on its provider's report by now, if it was billed at all."""
        return self.clock.utc() - timedelta(seconds=self.unknown_after)

    async def _adopt(self, attempt: AttemptRow, hold: Hold) -> None:
        if hold.reserved:
            await hold.release()
            return
        log.info("order_taken_over", attempt=attempt.id, offer=attempt.offer_id, state=attempt.state)
        provider, offer = self.providers.get(attempt.account), self.offers.get(attempt.offer_id)
        if provider is None or offer is None:
            await hold.suspend(Outcome(error="outcome_unknown", detail="the account or its offer is gone"))
            return
        ticket = attempt.ticket
        if ticket is None or not isinstance(provider, Resumable):
            self.admission.force(offer.capacities).linger(self.linger)
            await hold.suspend(Outcome(error="outcome_unknown", detail="the gateway stopped while it was under way"))
            return
        self.spawn(self._collect(hold, attempt, ticket, offer, provider))

    async def _collect(
        self, hold: Hold, attempt: AttemptRow, ticket: Ticket, offer: Offer, provider: Resumable
    ) -> None:
        """Follow an order to its end by its receipt, for a caller who asks again, else so that its cost is known."""
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
        lease = self.admission.force(offer.capacities)
        generation = self.spawn(_brought_home(provider, order, ticket))
        if attempt.fingerprint is not None:
            attempt = replace(attempt, ticket=ticket)
            found = FoundOrder(attempt=attempt, offer=offer, lease=lease, hold=hold, generation=generation)
            if await self.claimed(found):
                return
        try:
            if isinstance(provider, Cancels) and not generation.done() and await provider.cancel(ticket) == "unbilled":
                generation.cancel()
                await hold.release(Outcome(error="cancelled", detail="cancelled after a crash"))
                return
            await self._book_unwanted(hold, attempt, offer, generation)
        finally:
            lease.release()

    async def _book_unwanted(
        self, hold: Hold, attempt: AttemptRow, offer: Offer, generation: asyncio.Task[Generation]
    ) -> None:
        """Nobody asked again, so the team owes nothing."""
        try:
            usage = (await generation).usage
            await hold.settle(
                cost=self._cost(offer, attempt, usage),
                charge=0,
                pictures=len(usage.images),
                outcome=Outcome(error="abandoned", detail="finished after a crash; nobody was waiting any more"),
            )
        except ProviderError as error:
            outcome = Outcome(error=error.kind, detail=error.detail)
            if isinstance(error.owed, Usage):
                cost, pictures = self._cost(offer, attempt, error.owed), len(error.owed.images)
                await hold.settle(cost=cost, charge=0, outcome=outcome, pictures=pictures)
            elif error.owed == "nothing":
                await hold.release(outcome)
            else:
                await hold.suspend(outcome)

    def _cost(self, offer: Offer, attempt: AttemptRow, usage: Usage) -> int:
        try:
            tariff, steps = offer.tariff_at(attempt.started), attempt.steps or offer.abilities.default_steps
            return bill(tariff, usage, default_steps=steps)
        except Unpriced:
            return attempt.hold_cost

    async def _look_elsewhere(self, account: str, provider: Provider) -> None:
        """Tell of what is billed for models that were never ordered here."""
        try:
            found = await elsewhere(self.db, account, provider, self.clock.utc() - DAY)
        except ProviderError as error:
            log.info("totals_unavailable", account=account, error=error.kind, detail=error.detail)
            return
        await self.reconciled(account, Resolution(elsewhere=tuple(found)))

    async def _resolve(self, account: str, provider: Provider, since: datetime) -> None:
        """Settle, release and correct whatever a provider's own report decides about orders since a moment."""
        period = Period(since=since, settled_before=self._known_before(), now=self.clock.utc())
        try:
            found = await resolve(self.db, account, provider, period, unit_prices(self.offers))
        except ProviderError as error:
            log.warning("usage_unavailable", account=account, error=error.kind, detail=error.detail)
            return
        if resolved := found.settled + found.released + found.corrections:
            log.info("account_reconciled", account=account, resolved=resolved, suspended=found.waiting)
        ripe = tuple(line for line in found.strangers if line.at < period.settled_before)
        await self.reconciled(account, replace(found, strangers=ripe))


async def _brought_home(provider: Resumable, order: Order, ticket: Ticket) -> Generation:
    """What an order brings (as a coroutine, which a task needs)."""
    return await provider.resume(order, ticket)
