"""`pixelgate statement`: a provider account's month, held against its invoice and then locked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cyclopts import Parameter

from gateway.cli.shell import HERE, Json, Where, dollars, open_records, print_json, run_async, say, table
from gateway.errors import InvalidRequest
from gateway.money.currency import Currency, currency_of
from gateway.money.periods import month_of
from gateway.money.statements import against, close, differences, read_invoice, statement_of
from gateway.settings import Settings
from gateway.storage.statements import Statement
from gateway.yaml_files import nearest


@Parameter(name="*")
@dataclass(frozen=True)
class Foreign:
    """What an invoice in another currency is worth."""

    currency: str = "USD"
    """Currency of the invoice, where its lines name none."""
    rate: str | None = None
    """Units of it for one dollar, as agreed with the seller: 0.92."""

    def money(self) -> Currency:
        """The currency and its rate."""
        return currency_of(self.currency, self.rate)


DOLLARS = Foreign()


def show(
    *,
    account: str,
    month: str,
    invoice: Path | None = None,
    foreign: Foreign = DOLLARS,
    json: Json = False,
    where: Where = HERE,
) -> int:
    """Show a month by endpoint, beside the invoice. Exit code 1: they differ, or a cost is not known yet.

    Parameters
    ----------
    account
        The provider account, by its name in gateway.yaml.
    month
        2026-11, in UTC.
    invoice
        CSV with the columns endpoint and amount, perhaps currency, quantity and description.
    """
    found = run_async(_show(where.settings(), account, month, invoice, foreign.money()))
    if json:
        print_json(_shape(found))
    else:
        _print(found, compared=invoice is not None or found.closed is not None)
    differs = bool(found.invoice) and bool(differences(found))
    return 1 if (differs and found.closed is None) or found.suspended else 0


def close_month(
    *,
    account: str,
    month: str,
    invoice: Path,
    accept: str = "",
    foreign: Foreign = DOLLARS,
    json: Json = False,
    where: Where = HERE,
) -> int:
    """Lock a month: its lines never change again, and what is posted later counts in the next one.

    Refused while the month lasts, while the cost of one of its orders is unknown, before an earlier month that is
    open, and when ledger and invoice differ and nobody said why that is accepted.

    Parameters
    ----------
    account
        The provider account, by its name in gateway.yaml.
    month
        2026-11, in UTC.
    invoice
        CSV with the columns endpoint and amount, perhaps currency, quantity and description.
    accept
        Why a difference is accepted; kept with the statement.
    """
    found = run_async(_close(where.settings(), account, month, invoice, accept, foreign.money()))
    if json:
        print_json(_shape(found))
    else:
        _print(found, compared=True)
        say(f"closed {found.account} {found.month}")
    return 0


def list_statements(*, account: str | None = None, json: Json = False, where: Where = HERE) -> None:
    """List the closed statements.

    Parameters
    ----------
    account
        Only those of this provider account.
    """
    found = run_async(_list(where.settings(), account))
    if json:
        print_json({"statements": [_shape(statement) for statement in found]})
        return
    rows = [("month", "account", "ledger", "invoice", "difference", "closed", "note")]
    rows += [
        (
            each.month, each.account, dollars(each.cost), dollars(each.invoiced),
            dollars(each.cost - each.invoiced), f"{each.closed:%Y-%m-%d}", each.note,
        )
        for each in found
    ]  # fmt: skip
    print(table(rows, right=frozenset({2, 3, 4})))


async def _show(settings: Settings, account: str, month: str, invoice: Path | None, money: Currency) -> Statement:
    _known(settings, account)
    period = month_of(month, datetime.now(UTC))
    asked = read_invoice(invoice, money) if invoice else None
    db = open_records(settings)
    try:
        found = await statement_of(db, account, period)
    finally:
        await db.aclose()
    return found if asked is None or found.closed else against(found, asked)


async def _close(settings: Settings, account: str, month: str, invoice: Path, note: str, money: Currency) -> Statement:
    _known(settings, account)
    period = month_of(month, datetime.now(UTC))
    asked = read_invoice(invoice, money)
    db = open_records(settings)
    try:
        found = await statement_of(db, account, period)
        return await close(db, found if found.closed else against(found, asked), period, note)
    finally:
        await db.aclose()


async def _list(settings: Settings, account: str | None) -> Sequence[Statement]:
    db = open_records(settings)
    try:
        return await db.statements(account)
    finally:
        await db.aclose()


def _known(settings: Settings, account: str) -> None:
    if account not in settings.accounts:
        names = sorted(settings.accounts)
        hint = nearest(account, names) or f"there are {', '.join(names)}."
        raise InvalidRequest(f"Invalid 'account': there is no provider account {account!r}; {hint}", param="account")


def _print(found: Statement, *, compared: bool) -> None:
    state = f"closed on {found.closed:%Y-%m-%d}" if found.closed else "open"
    print(f"{found.account} {found.month}, {state}")
    columns = ("endpoint", "orders", "pictures", "ledger", "late", "invoice", "difference")
    rows: list[tuple[str, ...]] = [columns]
    rows += [
        (
            line.endpoint, f"{line.orders:,}", f"{line.images:,}", dollars(line.cost), dollars(line.late),
            dollars(line.invoiced), dollars(line.cost - line.invoiced),
        )
        for line in found.lines
    ]  # fmt: skip
    rows.append(
        (
            "total", "", "", dollars(found.cost), dollars(sum(line.late for line in found.lines)),
            dollars(found.invoiced), dollars(found.cost - found.invoiced),
        )
    )  # fmt: skip
    shown = rows if compared else [row[:5] for row in rows]
    print(table(shown, right=frozenset(range(1, 7))))
    if found.suspended:
        say(f"the cost of {found.suspended} orders is not known yet; `ledger reconcile` may know it")
    if found.note:
        print(f"accepted: {found.note}")


def _shape(found: Statement) -> dict[str, object]:
    return {
        "account": found.account,
        "month": found.month,
        "closed": found.closed,
        "cost_nano_usd": found.cost,
        "invoiced_nano_usd": found.invoiced if found.invoice else None,
        "suspended": found.suspended,
        "invoice_sha256": found.invoice or None,
        "note": found.note,
        "last_seq": found.last_seq,
        "lines": [
            {
                "endpoint": line.endpoint,
                "orders": line.orders,
                "images": line.images,
                "cost_nano_usd": line.cost,
                "late_nano_usd": line.late,
                "invoiced_nano_usd": line.invoiced if found.invoice else None,
            }
            for line in found.lines
        ],
    }
