"""What was spent within a period, on what, and what to change: views of one look at the ledger.

Each view's lines add up to the total, and the total is the sum of the ledger's posted entries, to the nano-dollar.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import TypeAlias

from msgspec import Struct

from gateway.money.periods import DAY, Period
from gateway.money.savings import Baseline, baselines
from gateway.money.suggestions import Compared, Prepaid, Suggestion, suggestions
from gateway.storage.activity import Activity, Open, Source, Spent
from gateway.storage.database import Database
from gateway.storage.shadows import PARTY
from policies.billing import Billing, credit_left
from policies.catalog import Catalog

UNKNOWN = "-"
"""What a posting belongs to when nobody knows: a correction that names no order, a model no longer in the catalogue."""

NOT_RECORDED = ("sizes that are shown: pictures are fetched whole, and how large they appear is known to nobody here",)
"""What a suggestion would need and the records do not hold."""

Of: TypeAlias = Callable[[Source], str]


class Line(Struct, frozen=True, kw_only=True):
    """What was spent on one thing. Money is nano-dollars."""

    name: str
    cost: int
    """What we owe provider accounts."""
    charge: int
    """What teams owe us."""
    orders: int
    images: int


class Report(Struct, frozen=True, kw_only=True):
    """A period's spend, savings and suggestions."""

    period: Period
    prices: int
    """Revision of the catalogue that baselines and suggestions are priced with."""
    total: Line
    by: Mapping[str, Sequence[Line]]
    """model, provider, tier, team, key -> their lines, dearest first; each adds up to the total."""
    tags: Mapping[str, Sequence[Line]]
    """Name of a tag -> a line for each of its values, and one for what does not carry it; each adds up to the total."""
    days: Sequence[Line]
    baselines: Sequence[Baseline]
    suggestions: Sequence[Suggestion]
    suspended: Mapping[str, Open]

    @property
    def copies(self) -> Sequence[Line]:
        """The lines of what copies for experiments cost, by party; nobody is charged for them."""
        return [line for line in self.by["team"] if line.name.startswith(PARTY)]


async def report(
    db: Database,
    catalog: Catalog,
    period: Period,
    billing: Mapping[str, Billing] | None = None,
    compared: Sequence[Compared] = (),
) -> Report:
    """Read the ledger once and look at it from every side.

    `billing` says how accounts' invoices are made; `compared` are the experiments that say *switch*.
    """
    prepaid = [each for name, terms in (billing or {}).items() for each in await _left(db, name, terms, period)]
    return report_of(await db.activity(period.start, period.end, period.zone), catalog, period, prepaid, compared)


async def _left(db: Database, account: str, terms: Billing, period: Period) -> Sequence[Prepaid]:
    """What is left of an account's credit now."""
    counters = await db.billing_counters(account)
    return [
        Prepaid(
            account=account,
            lot=lot.name,
            left=left,
            days=None if lot.expires is None else (lot.expires - period.now) / DAY,
        )
        for lot, left in credit_left(terms, lambda name: counters.get(name, 0), period.now)
        if left > 0
    ]


def report_of(
    activity: Activity,
    catalog: Catalog,
    period: Period,
    prepaid: Sequence[Prepaid] = (),
    compared: Sequence[Compared] = (),
) -> Report:
    """The report of an activity; pure."""
    models = {(offer.account, offer.endpoint): offer.model for offer in catalog.offers.values()}

    def model(source: Source) -> str:
        if source.offer_id:
            return source.offer_id.partition(":")[2].partition("/")[0]
        return models.get((source.account, source.endpoint), UNKNOWN)

    def tier(source: Source) -> str:
        info = catalog.models.get(model(source))
        return info.tier.word if info else UNKNOWN

    def key(source: Source) -> str:
        name = activity.keys.get(source.key_id)
        return f"{source.key_id} ({name})" if name else source.key_id or UNKNOWN

    views: Mapping[str, Of] = {
        "model": model,
        "provider": lambda source: source.account or UNKNOWN,
        "tier": tier,
        "team": lambda source: source.team or UNKNOWN,
        "key": key,
    }
    total = Spent()
    for spent in activity.posted.values():
        total.add(spent)
    return Report(
        period=period,
        prices=catalog.revision,
        total=_line("total", total),
        by={name: _lines(activity, of) for name, of in views.items()},
        tags=_tags(activity),
        days=_days(activity, period),
        baselines=baselines(activity, catalog),
        suggestions=suggestions(activity, catalog, period.months, prepaid, compared),
        suspended=activity.suspended,
    )


def _lines(activity: Activity, of: Of) -> Sequence[Line]:
    sums: defaultdict[str, Spent] = defaultdict(Spent)
    for source, spent in activity.posted.items():
        sums[of(source)].add(spent)
    return _dearest_first(sums)


def _tags(activity: Activity) -> Mapping[str, Sequence[Line]]:
    names = sorted({name for tags in activity.tags for name, _ in tags})
    found: dict[str, Sequence[Line]] = {}
    for name in names:
        sums: defaultdict[str, Spent] = defaultdict(Spent)
        for tags, spent in activity.tags.items():
            sums[dict(tags).get(name, UNKNOWN)].add(spent)
        found[name] = _dearest_first(sums)
    return found


def _days(activity: Activity, period: Period) -> Sequence[Line]:
    """A line for each day, also for those on which nothing happened."""
    sums: dict[date, Spent] = {}
    day = period.first
    while day <= period.last:
        sums[day] = Spent()
        day += DAY
    for source, spent in activity.posted.items():
        sums[source.day].add(spent)
    return [_line(day.isoformat(), spent) for day, spent in sums.items()]


def _dearest_first(sums: Mapping[str, Spent]) -> Sequence[Line]:
    lines = [_line(name, spent) for name, spent in sums.items()]
    return sorted(lines, key=lambda line: (-line.cost, -line.charge, line.name))


def _line(name: str, spent: Spent) -> Line:
    return Line(name=name, cost=spent.cost, charge=spent.charge, orders=spent.orders, images=spent.images)
