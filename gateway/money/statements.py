"""The month's statement of a provider account, held against the invoice it sent."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from gateway.errors import InvalidRequest
from gateway.money.currency import CODES, Currency
from gateway.money.periods import Period, month_of
from gateway.storage.database import Database
from gateway.storage.statements import Statement, StatementLine
from policies.money import USD, half_even

_NEEDED = ("endpoint", "amount")
_ALLOWED = (*_NEEDED, "currency", "quantity", "description")


class Invoice(Struct, frozen=True):
    """What a seller asks for, by endpoint, in nano-dollars."""

    amounts: Mapping[str, int]
    digest: str


def read_invoice(path: Path, money: Currency) -> Invoice:
    """An invoice as CSV: a line for each endpoint, or several. Raises `InvalidRequest` with file and line.

    `money` says what amounts of another currency are worth in dollars.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _bad(f"{path}: {error}") from None
    reader = csv.DictReader(text.splitlines())
    names = [name.strip() for name in reader.fieldnames or ()]
    if missing := [name for name in _NEEDED if name not in names]:
        raise _bad(f"{path}:1: no column {' and '.join(map(repr, missing))}; known are {', '.join(_ALLOWED)}")
    if strange := [name for name in names if name not in _ALLOWED]:
        raise _bad(f"{path}:1: unknown column {strange[0]!r}; known are {', '.join(_ALLOWED)}")
    reader.fieldnames = names
    exact: dict[str, Fraction] = {}
    for row in reader:
        place = f"{path}:{reader.line_num}"
        endpoint = (row["endpoint"] or "").strip()
        if not endpoint:
            raise _bad(f"{place}: endpoint: empty")
        exact[endpoint] = exact.get(endpoint, Fraction(0)) + _dollars(row, place, money)
    return Invoice({name: half_even(amount * USD) for name, amount in exact.items()}, sha256(data).hexdigest())


def _dollars(row: Mapping[str, str | None], place: str, money: Currency) -> Fraction:
    code = (row.get("currency") or money.code).strip().upper()
    if code not in CODES:
        raise _bad(f"{place}: currency: {code!r} is no currency of ISO 4217")
    if code not in ("USD", money.code):
        raise _bad(f"{place}: currency: {code} needs its rate: --currency {code} --rate ...")
    typed = (row["amount"] or "").strip()
    try:
        amount = Decimal(typed)
    except InvalidOperation:
        raise _bad(f"{place}: amount: expected a number such as 12.50, got {typed!r}") from None
    if not amount.is_finite() or abs(amount) > 10**9:
        raise _bad(f"{place}: amount: {typed} cannot be")
    return Fraction(amount) / (1 if code == "USD" else Fraction(money.rate))


def against(statement: Statement, invoice: Invoice) -> Statement:
    """The statement with what the invoice asks for; an endpoint that only one of them knows is a line, too."""
    ours = {line.endpoint: line for line in statement.lines}
    lines = [
        replace(ours.get(endpoint) or StatementLine(endpoint=endpoint, orders=0, images=0, cost=0), invoiced=amount)
        for endpoint in sorted(ours.keys() | invoice.amounts.keys())
        for amount in (invoice.amounts.get(endpoint, 0),)
    ]
    return replace(statement, lines=lines, invoice=invoice.digest)


def differences(statement: Statement) -> list[StatementLine]:
    """The lines on which ledger and invoice disagree."""
    return [line for line in statement.lines if line.cost != line.invoiced]


async def statement_of(db: Database, account: str, period: Period) -> Statement:
    """The closed statement of a month, or what the ledger says about it so far."""
    month = f"{period.first:%Y-%m}"
    for statement in await db.statements(account):
        if statement.month == month:
            return statement
    return await db.draft_statement(account, month, period.start, period.end)


async def close(db: Database, statement: Statement, period: Period, note: str) -> Statement:
    """Lock a statement that was held against its invoice. Raises `InvalidRequest` when it is not ready for that."""
    what = f"{statement.account} {statement.month}"
    if statement.closed is not None:
        raise _bad(f"The statement {what} was closed on {statement.closed:%Y-%m-%d}; it is locked")
    if not period.over:
        raise _bad(f"The month {statement.month} is not over yet")
    _in_order(statement, await db.statements(statement.account), period)
    if statement.suspended:
        raise _bad(
            f"The cost of {statement.suspended} orders of {what} is not known yet; `ledger reconcile` may know it"
        )
    if differences(statement) and not note:
        raise _bad(f"Ledger and invoice of {what} differ; say why that is accepted with --accept")
    done = replace(statement, closed=period.now, note=note)
    if not await db.close_statement(done):
        raise _bad(f"The statement {what} was closed by somebody else just now")
    return done


def _in_order(statement: Statement, before: Iterable[Statement], period: Period) -> None:
    """Months are closed one after the other, so that what is posted late is on the next one, once."""
    last = max((each.month for each in before), default=None)
    if last is None:
        return
    following = f"{month_of(last, period.now).end:%Y-%m}"
    if statement.month != following:
        raise _bad(f"After {last}, the month to close is {following}: months are closed in their order")


def _bad(message: str) -> InvalidRequest:
    return InvalidRequest(f"{message}.")
