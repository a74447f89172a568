"""`pixelgate ledger machines`: what our own GPUs cost, busy and idle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from gateway.cli.shell import HERE, Json, Stop, Where, dollars, open_records, print_json, run_async, table
from gateway.revisions import load_revision
from gateway.settings import Settings
from gateway.storage.rows import AttemptRow
from policies.tariffs import MachineSecond

UNTOLD = "(untold)"
"""Orders of which no machine told that it drew them."""
_HOUR_S = 3600.0


class MachineCost(Struct, frozen=True, kw_only=True):
    """One machine over a period; money in nano-dollars."""

    account: str
    machine: str
    orders: int
    """Orders it drew, delivered or not."""
    busy_s: float
    """Seconds of its time that those orders cost."""
    busy_nano_usd: int
    """What the books say of them: the account's side of the ledger."""
    owned_nano_usd: int
    """What it costs to have it for the whole period, drawing or not."""

    @property
    def idle_nano_usd(self) -> int:
        """What no order pays for."""
        return self.owned_nano_usd - self.busy_nano_usd


def machines(*, days: float = 1.0, json: Json = False, where: Where = HERE) -> int:
    """What our own machines cost: busy by the ledger, owned by the hour, and the rest, which is idle.

    Counts every machine named in `gateway.yaml` as on for the whole period. Its idle cost is no order's, and so no part
    of what `ledger reconcile` compares. Exit code 1: there is no machine of our own.

    Parameters
    ----------
    days
        Look at orders started within so many days; 0.5 is half a day.
    """
    if days <= 0:
        raise Stop(f"--days {days:g}: more than nothing")
    found = run_async(_machines(where.settings(), days))
    if json:
        print_json({"days": days, "machines": [_shown(each) for each in found]})
    else:
        print(_table(found) if found else "no account of kind selfhosted is on, or none is priced by the machine hour")
    return 0 if found else 1


def costs(
    attempts: Sequence[AttemptRow], account: str, names: Sequence[str], hour: int, hours: float
) -> Sequence[MachineCost]:
    """Sum up an account's orders by machine; `hour` is what one costs, `names` are those there are."""
    drawn: dict[str, list[AttemptRow]] = {name: [] for name in names}
    for row in attempts:
        if row.outcome is None or row.state not in {"settled", "released"}:
            continue
        told = row.outcome.machine or (UNTOLD if row.cost or row.outcome.error == "outcome_unknown" else "")
        if told:
            drawn.setdefault(told, []).append(row)
    return [
        MachineCost(
            account=account,
            machine=name,
            orders=len(rows),
            busy_s=sum(row.cost for row in rows) * _HOUR_S / hour,
            busy_nano_usd=sum(row.cost for row in rows),
            owned_nano_usd=round(hour * hours) if name in names else 0,
        )
        for name, rows in drawn.items()
    ]


async def _machines(settings: Settings, days: float) -> list[MachineCost]:
    hours = _hours(settings)
    db = open_records(settings)
    try:
        since = datetime.now(UTC) - timedelta(days=days)
        found: list[MachineCost] = []
        for account, hour in hours.items():
            nodes = settings.accounts[account].nodes
            names = [account] if nodes is None else [str(node["name"]) for node in nodes]
            found += costs(await db.account_attempts(account, since), account, names, hour, days * 24)
        return found
    finally:
        await db.aclose()


def _hours(settings: Settings) -> Mapping[str, int]:
    """Account of our own machines -> nano-dollars that an hour of one costs."""
    offers = load_revision(settings).catalog.offers.values()
    return {
        offer.account: offer.tariff.nano_usd_per_hour
        for offer in offers
        if offer.kind == "selfhosted" and isinstance(offer.tariff, MachineSecond)
    }


def _shown(cost: MachineCost) -> Mapping[str, object]:
    return {
        "account": cost.account,
        "machine": cost.machine,
        "orders": cost.orders,
        "busy_s": cost.busy_s,
        "busy_nano_usd": cost.busy_nano_usd,
        "idle_nano_usd": cost.idle_nano_usd,
        "owned_nano_usd": cost.owned_nano_usd,
    }


def _table(found: Sequence[MachineCost]) -> str:
    total = MachineCost(
        account="",
        machine="all",
        orders=sum(each.orders for each in found),
        busy_s=sum(each.busy_s for each in found),
        busy_nano_usd=sum(each.busy_nano_usd for each in found),
        owned_nano_usd=sum(each.owned_nano_usd for each in found),
    )
    rows = [("account", "machine", "orders", "busy", "busy cost", "idle cost", "owned cost")]
    rows += [
        (
            each.account,
            each.machine,
            str(each.orders),
            f"{each.busy_s:.1f} s",
            dollars(each.busy_nano_usd),
            dollars(each.idle_nano_usd),
            dollars(each.owned_nano_usd),
        )
        for each in (*found, total)
    ]
    return table(rows, right=frozenset({2, 3, 4, 5, 6}))
