"""`pixelgate ledger invoices`: what accounts' invoices have counted, and what is left that is free or paid for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec import Struct

from gateway.cli.shell import HERE, Json, Where, dollars, open_records, print_json, run_async, table
from gateway.revisions import load_revision
from gateway.settings import Settings
from policies.billing import Billing, allowances_left, credit_left, discount_of, month_of, percent


class Left(Struct, frozen=True, kw_only=True):
    """Something free, or credit, at this moment."""

    name: str
    what: str
    """`free images`, `free money` or `credit`."""
    left: int
    """Pictures or nano-dollars."""
    of: int
    ends: datetime | None


class Standing(Struct, frozen=True, kw_only=True):
    """How an account's invoice stands."""

    account: str
    month: str
    requests: int
    listed_nano_usd: int
    """By the list, without what was free by the picture."""
    due_nano_usd: int
    """Owed, less what credit paid."""
    discount: str
    """Of the next request."""
    left: tuple[Left, ...]


def invoices(*, json: Json = False, where: Where = HERE) -> int:
    """Show how the invoices stand of accounts with `billing`: requests of the month, discount, what is left.

    Exit code 1: no account that is on has any.
    """
    settings = where.settings()
    billings = load_revision(settings).catalog.billings
    found = run_async(_standings(settings, billings)) if billings else []
    if json:
        print_json({"invoices": found})
    elif not found:
        print("no account that is on has `billing` in gateway.yaml")
    else:
        _print(found)
    return 0 if found else 1


async def _standings(settings: Settings, billings: Mapping[str, Billing]) -> list[Standing]:
    db = open_records(settings)
    now = datetime.now(UTC)
    try:
        return [
            _standing(account, billing, Counter(await db.billing_counters(account)), now)
            for account, billing in billings.items()
        ]
    finally:
        await db.aclose()


def _standing(account: str, billing: Billing, counters: Counter[str], now: datetime) -> Standing:
    month, counted = month_of(billing, now), counters.__getitem__
    left = [
        Left(
            name=each.name,
            what="free money" if each.images is None else "free images",
            left=rest,
            of=each.images or each.amount or 0,
            ends=each.until,
        )
        for each, rest in allowances_left(billing, counted, now)
    ]
    left += [
        Left(name=lot.name, what="credit", left=rest, of=lot.amount, ends=lot.expires)
        for lot, rest in credit_left(billing, counted, now)
    ]
    requests = counters[f"{month}/requests"]
    return Standing(
        account=account,
        month=month,
        requests=requests,
        listed_nano_usd=counters[f"{month}/listed"],
        due_nano_usd=counters[f"{month}/due"],
        discount=percent(discount_of(billing, requests + 1)),
        left=tuple(left),
    )


def _print(found: list[Standing]) -> None:
    rows = [("account", "month", "requests", "by the list", "due", "next discount")]
    for each in found:
        amounts = dollars(each.listed_nano_usd), dollars(each.due_nano_usd)
        rows.append((each.account, each.month, f"{each.requests:,}", *amounts, each.discount))
    print(table(rows, right=frozenset({2, 3, 4, 5})))
    left = [("account", "left", "what", "of", "until")]
    left += [
        (each.account, _amount(one, one.left), f"{one.what} {one.name}", _amount(one, one.of), _end(one.ends))
        for each in found
        for one in each.left
    ]
    if len(left) > 1:
        print(f"\n{table(left, right=frozenset({1, 3}))}")


def _amount(left: Left, amount: int) -> str:
    return f"{amount:,}" if left.what == "free images" else dollars(amount)


def _end(at: datetime | None) -> str:
    return "-" if at is None else at.isoformat(timespec="minutes").replace("+00:00", "Z")
