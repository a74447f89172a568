"""Agrees with the sellers about money: learns what suspended orders cost, and compares our book with their bill.

Everything is read from the provider first and from our book second, so that an order seen on the report is never
missing from the rows; and every posting is a command that another replica may have been quicker with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import structlog
from msgspec import Struct
from msgspec.structs import replace

from gateway.money.differences import Difference, UnitPrice, difference, summed, unpriced
from gateway.money.matching import (
    DAY,
    Action,
    Mend,
    Plan,
    Release,
    Settle,
    by_endpoint,
    by_request,
    by_total,
    one_line_each,
    quiet_spans,
    unmeasured,
)
from gateway.storage.database import AlreadyClosed, Closing, Correction, Database
from gateway.storage.rows import AttemptRow, Outcome
from providers.contract import (
    BillsByOrder,
    BillsNobody,
    Provider,
    ReportsTotals,
    ReportsUsage,
    UsageRecord,
    UsageTotal,
)
from providers.errors import Misconfigured

log = structlog.get_logger("gateway.money")


class Period(Struct, frozen=True, kw_only=True):
    """Which orders to compare; all times UTC."""

    since: datetime
    """Orders started from here on."""
    settled_before: datetime
    """What ended before this is on the provider's report by now, if it was billed at all."""
    now: datetime


class Resolution(Struct, frozen=True, kw_only=True):
    """What one round with a provider account settled."""

    settled: int = 0
    released: int = 0
    corrections: int = 0
    corrected_by: int = 0
    """Nano-dollars that the corrections add up to."""
    endpoints: tuple[str, ...] = ()
    """What was corrected, by name."""
    differences: tuple[Difference, ...] = ()
    """Why, for each endpoint and cause; nothing of what was corrected as a total."""
    waiting: int = 0
    """Suspended orders the report cannot speak about yet."""
    strangers: tuple[UsageRecord, ...] = ()
    """Lines of no order of ours: somebody else uses this account."""
    elsewhere: tuple[UsageTotal, ...] = ()
    """What was billed for endpoints that no order was placed at."""


class EndpointDrift(Struct, frozen=True, kw_only=True):
    """Our book beside a provider's bill for one endpoint, in nano-dollars."""

    endpoint: str
    models: tuple[str, ...]
    """What it is sold as."""
    ours: int
    theirs: int | None
    drift: int | None
    suspended: int
    orders: int
    differences: tuple[Difference, ...] = ()
    """Why orders are billed, or were corrected to be, other than by our tariff."""


class Reconciliation(Struct, frozen=True, kw_only=True):
    """Our book beside a provider's bill, in nano-dollars."""

    ours: int
    theirs: int | None
    """None where the provider reports nothing."""
    drift: int | None
    """Ours less theirs."""
    suspended: int
    """Orders whose cost is not known yet."""
    orders: int
    """Orders settled."""
    endpoints: tuple[EndpointDrift, ...] = ()
    """The same by endpoint, by name."""
    elsewhere: tuple[UsageTotal, ...] = ()
    """What was billed for endpoints that no order was placed at; no part of the drift."""


async def resolve(
    db: Database, account: str, provider: Provider, period: Period, unit_price: UnitPrice = unpriced
) -> Resolution:
    """Settle, release or correct whatever the provider's own report decides. Raises its `ProviderError`s.

    A report that knows nothing of what we have posted is taken for a report that is late, not for a bill of nothing.
    """
    plan = Plan()
    if isinstance(provider, ReportsUsage):
        before = period.since - DAY  # orders begun the day before may straddle midnight, or be billed late
        endpoints = by_endpoint(await db.account_attempts(account, before))
        records = await provider.usage(before, sorted(endpoints)) if endpoints else ()
        attempts = await db.account_attempts(account, before)
        named = [line for line in records if line.request_id is not None]
        if named:
            plan = by_request(named, attempts, period.since, period.settled_before, unit_price)
        else:
            plan = _by_totals(records, attempts, await db.corrections(account, before), period)
    elif isinstance(provider, BillsNobody):
        plan = unmeasured(await db.suspended(account), period.settled_before)
    posted = [action for action in plan.actions if await post(db, account, action, period.now)]
    return Resolution(
        settled=sum(isinstance(action, Settle) for action in posted),
        released=sum(isinstance(action, Release) for action in posted),
        corrections=sum(isinstance(action, Mend) for action in posted),
        corrected_by=sum(action.amount for action in posted if isinstance(action, Mend)),
        endpoints=tuple(sorted({action.endpoint for action in posted if isinstance(action, Mend)})),
        differences=_reasons(posted),
        waiting=len(await db.suspended(account)),
        strangers=plan.strangers,
    )


async def elsewhere(db: Database, account: str, provider: Provider, since: datetime) -> Sequence[UsageTotal]:
    """What an account was billed, from the day of a moment on, for endpoints that no order of ours was placed at.

    Nothing where the provider does not tell totals. Raises its `ProviderError`s.
    """
    if not isinstance(provider, ReportsTotals):
        return ()
    totals = await provider.totals(since)
    ordered = by_endpoint(await db.account_attempts(account, since - 2 * DAY))
    return tuple(total for total in totals if total.endpoint not in ordered and total.nano_usd)


async def glance(
    db: Database, account: str, provider: Provider, since: datetime, now: datetime, unit_price: UnitPrice = unpriced
) -> Resolution:
    """Correct what a provider that names orders bills otherwise than we posted, of the orders of the last minutes.

    A look at few lines, so that a price which changed in silence shows at once; what it does not show (orders that are
    not billed, or of unknown outcome) is left to `resolve`. Raises the provider's `ProviderError`s.
    """
    if not isinstance(provider, BillsByOrder):
        return Resolution()
    endpoints = by_endpoint(await db.settled_since(account, since))
    lines = await provider.usage(since, sorted(endpoints)) if endpoints else ()
    settled = await db.settled_since(account, since)
    ours = {row.id for row in settled} | {row.ticket.id for row in settled if row.ticket is not None}
    known = [line for line in lines if line.request_id in ours]
    if not known:
        return Resolution()
    plan = by_request(known, settled, now, since, unit_price)
    mends = [action for action in plan.actions if isinstance(action, Mend)]
    posted = [mend for mend in mends if await post(db, account, mend, now)]
    return Resolution(
        corrections=len(posted),
        corrected_by=sum(mend.amount for mend in posted),
        endpoints=tuple(sorted({mend.endpoint for mend in posted})),
        differences=_reasons(posted),
    )


def _reasons(posted: Sequence[Action]) -> tuple[Difference, ...]:
    return summed(each.why for each in posted if isinstance(each, Mend) and each.why is not None)


async def drift(
    db: Database, providers: Mapping[str, Provider], since: datetime, unit_price: UnitPrice = unpriced
) -> Mapping[str, Reconciliation]:
    """Provider account -> our book and its bill for orders started since a moment. Raises `ProviderError`s.

    For sellers that report by the day, only a midnight (UTC) that no order straddles compares like with like.
    """
    return {
        account: await _compare(db, account, provider, since, unit_price) for account, provider in providers.items()
    }


async def _compare(
    db: Database, account: str, provider: Provider, since: datetime, unit_price: UnitPrice
) -> Reconciliation:
    attempts, mends = await db.account_attempts(account, since), await db.corrections(account, since)
    endpoints = sorted({*by_endpoint(attempts), *(mend.endpoint for mend in mends)})
    lines = None
    if isinstance(provider, ReportsUsage):
        lines = await provider.usage(since, endpoints) if endpoints else ()
    found = tuple(_of_endpoint(endpoint, attempts, mends, lines) for endpoint in endpoints)
    if lines:
        reasons = _differences(attempts, lines, await db.mended(account, since), unit_price)
        found = tuple(
            replace(each, differences=tuple(why for why in reasons if why.endpoint == each.endpoint)) for each in found
        )
    ours = sum(each.ours for each in found)
    theirs = None if lines is None else sum(each.theirs or 0 for each in found)
    return Reconciliation(
        ours=ours,
        theirs=theirs,
        drift=None if theirs is None else ours - theirs,
        suspended=sum(each.suspended for each in found),
        orders=sum(each.orders for each in found),
        endpoints=found,
        elsewhere=await _elsewhere_if_told(db, account, provider, since),
    )


async def _elsewhere_if_told(db: Database, account: str, provider: Provider, since: datetime) -> tuple[UsageTotal, ...]:
    try:
        return tuple(await elsewhere(db, account, provider, since))
    except Misconfigured as error:  # a key that may see its own orders need not see the whole account's
        log.info("totals_unavailable", account=account, error=error.kind, detail=error.detail)
        return ()


def _differences(
    attempts: Sequence[AttemptRow],
    lines: Sequence[UsageRecord],
    mended: Mapping[str, int],
    unit_price: UnitPrice,
) -> tuple[Difference, ...]:
    """Why orders that have a line of their own are not billed as we reckoned them before any correction."""
    bill = one_line_each(lines)
    found = []
    for row in attempts:
        line = bill.get(row.id) or (bill.get(row.ticket.id) if row.ticket is not None else None)
        if line is None or (row.id not in mended and row.cost == line.nano_usd) or row.state == "suspended":
            continue
        reckoned = row.cost - mended.get(row.id, 0) if row.listed is None else row.listed
        found.append(difference(row, line, reckoned, unit_price(row)))
    return summed(found)


def _of_endpoint(
    endpoint: str, attempts: Sequence[AttemptRow], mends: Sequence[Correction], lines: Sequence[UsageRecord] | None
) -> EndpointDrift:
    rows = [row for row in attempts if row.endpoint == endpoint]
    ours = sum(row.cost for row in rows) + sum(mend.amount for mend in mends if mend.endpoint == endpoint)
    theirs = None if lines is None else sum(line.nano_usd for line in lines if line.endpoint == endpoint)
    return EndpointDrift(
        endpoint=endpoint,
        models=tuple(sorted({row.offer_id.partition(":")[2].partition("/")[0] for row in rows})),
        ours=ours,
        theirs=theirs,
        drift=None if theirs is None else ours - theirs,
        suspended=sum(row.state == "suspended" for row in rows),
        orders=sum(row.state == "settled" for row in rows),
    )


def _by_totals(
    records: Sequence[UsageRecord], attempts: Sequence[AttemptRow], corrections: Sequence[Correction], period: Period
) -> Plan:
    """Compare each endpoint's total with ours, span by span in which nothing was under way at either end."""
    actions: list[Action] = []
    for endpoint, rows in by_endpoint(attempts).items():
        for start, end in quiet_spans(rows, period.since, period.settled_before):
            within = [row for row in rows if start <= row.started < end]
            mends = [each.amount for each in corrections if each.endpoint == endpoint and start <= each.at < end]
            reported = [line.nano_usd for line in records if line.endpoint == endpoint and start <= line.at < end]
            posted = sum(row.cost for row in within) + sum(mends)
            if reported or not posted:
                suspended = [row for row in within if row.state == "suspended"]
                actions += by_total(endpoint, sum(reported), posted, suspended, (start, end))
    return Plan(tuple(actions))


async def post(db: Database, account: str, action: Action, now: datetime) -> bool:
    """Write one action; False when another replica was quicker."""
    if isinstance(action, Mend):
        return await db.correct(
            Correction(
                book="cost",
                party=account,
                amount=action.amount,
                note=action.note,
                at=action.at or now,
                attempt_id=action.attempt.id if action.attempt else "",
                endpoint="" if action.attempt else action.endpoint,
                pictures=action.pictures,
                why="" if action.why is None else action.why.says,
            )
        )
    try:
        return await db.close(_closing(action, now))
    except AlreadyClosed:
        return False


def _closing(action: Settle | Release, now: datetime) -> Closing:
    """How an order ends of which somebody else told what it cost."""
    row = action.attempt
    outcome = row.outcome or Outcome()
    if isinstance(action, Release):
        return Closing(attempt_id=row.id, state="released", at=now, outcome=outcome)
    return Closing(
        attempt_id=row.id,
        state="settled",
        at=now,
        cost=action.cost,
        listed=max(action.cost, row.hold_cost) if action.told else None,
        pictures=row.count if action.pictures is None else action.pictures,
        outcome=outcome,
    )
