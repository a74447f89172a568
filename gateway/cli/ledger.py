"""`pixelgate ledger`: the books, checked and handed out."""

from __future__ import annotations

import contextlib
import csv
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, TextIO

import msgspec
from cyclopts import Parameter

from gateway.cli.shell import HERE, Json, Stop, Where, dollars, open_records, print_json, run_async, say, table
from gateway.money.differences import unit_prices, unpriced
from gateway.money.focus import COLUMNS, row_of
from gateway.money.periods import Period, month_of
from gateway.money.reconcile import EndpointDrift, Reconciliation, drift
from gateway.revisions import load_revision
from gateway.settings import Settings
from gateway.storage.audit import Audit
from gateway.storage.rows import EntryRow
from gateway.yaml_files import BadFile
from providers import registry
from providers.errors import ProviderError
from providers.transport import Http

_PAGE = 5000
_COLUMNS = ("seq", "at", "book", "party", "kind", "amount", "attempt_id", "call_id", "offer_id", "note")


def reconcile(*, days: int = 30, json: Json = False, where: Where = HERE) -> int:
    """Compare our books with what each provider says it bills, in nano-dollars.

    Orders under way are on one side only until they end, so ask a quiet gateway. Exit code 1: something differs, or
    the cost of an order is not known yet.

    Parameters
    ----------
    days
        Compare orders started within so many days.
    """
    if days < 1:
        raise Stop(f"--days {days}: at least one day")
    accounts = run_async(_reconcile(where.settings(), days))
    suspended = sum(account.suspended for account in accounts.values())
    differs = any(account.drift for account in accounts.values())
    if json:
        drift = {name: account.drift for name, account in accounts.items() if account.drift is not None}
        orders = sum(account.orders for account in accounts.values())
        print_json({"drift_nano_usd": drift, "suspended": suspended, "orders": orders, "accounts": accounts})
    else:
        rows: list[tuple[str, ...]] = [("account", "orders", "ledger", "provider", "drift", "suspended")]
        for name, account in accounts.items():
            rows.append((name, *_sums(account)))
            rows += [(f"  {' '.join(each.models)} ({each.endpoint})", *_sums(each)) for each in account.endpoints]
        print(table(rows, right=frozenset({1, 2, 3, 4, 5})))
        _tell_differences(accounts)
        for name, account in accounts.items():
            for total in account.elsewhere:
                what = f"{dollars(total.nano_usd)} for {total.endpoint} on {total.day:%Y-%m-%d}"
                say(f"{name} also bills {what}, which was never ordered here")
    return 1 if differs or suspended else 0


def _tell_differences(accounts: Mapping[str, Reconciliation]) -> None:
    for account in accounts.values():
        for why in (why for endpoint in account.endpoints for why in endpoint.differences):
            orders = "1 order" if why.orders == 1 else f"{why.orders:,} orders"
            say(f"{why.endpoint}: {orders} billed otherwise ({why.cause}): {why.says}")


def _sums(found: Reconciliation | EndpointDrift) -> tuple[str, ...]:
    amounts = (dollars(found.ours), dollars(found.theirs), dollars(found.drift))
    return (str(found.orders), *amounts, str(found.suspended))


def audit(*, json: Json = False, where: Where = HERE) -> int:
    """Recompute every promise about money from the entries. Exit code 1: a promise is broken.

    Works on the books of a running gateway: everything is read in one snapshot, and nothing waits for it.
    """
    found = run_async(_audit(where.settings()))
    if json:
        print_json(found)
        return 1 if found.faults else 0
    looked = f"{found.entries:,} entries of {found.attempts:,} orders"
    print("\n".join(found.faults) or f"the books hold every promise ({looked})")
    if found.overruns:
        beyond = dollars(found.overrun_nano_usd)
        large = f", {found.large_overruns:,} of them by more than twice the hold" if found.large_overruns else ""
        say(f"{found.overruns:,} bills went beyond what was held, which cost {beyond}{large}")
    return 1 if found.faults else 0


def export(
    *,
    form: Annotated[Literal["csv", "jsonl", "parquet", "focus"], Parameter(name="--format")] = "csv",
    after: int = 0,
    month: str | None = None,
    output: Path | None = None,
    where: Where = HERE,
) -> None:
    """Hand out the entries in the order they were written; amounts are nano-dollars, in FOCUS dollars.

    Parameters
    ----------
    form
        csv with a header line, one JSON object a line, a Parquet file, or what sellers are owed as FOCUS 1.2 in CSV.
    after
        Only entries after this `seq`: for fetching what is new.
    month
        Only entries of this month, in UTC: 2026-11.
    output
        File to write; standard output when left out. Parquet needs one.
    """
    settings = where.settings()
    period = None if month is None else month_of(month, datetime.now(UTC))
    if form == "parquet":
        if output is None:
            raise Stop("--format parquet writes a file: say --output entries.parquet")
        run_async(_export_parquet(settings, output, after, period))
        return
    with (
        contextlib.nullcontext(sys.stdout) if output is None else output.open("w", encoding="utf-8", newline="") as out
    ):
        if form == "focus":
            run_async(_export_focus(settings, out, after, period))
        else:
            run_async(_export(settings, out, form, after, period))


async def _reconcile(settings: Settings, days: int) -> Mapping[str, Reconciliation]:
    on = settings.accounts_on()
    if not on:
        why = "; ".join(f"{name}: {reason}" for name, reason in settings.accounts_off().items())
        raise Stop(f"no provider account is on, so there is nobody to ask ({why})")
    now = datetime.now(UTC)
    try:
        price = unit_prices(load_revision(settings, every_account=True, at=now).catalog.offers)
    except BadFile as broken:  # it only names causes: what is owed does not wait for a mended file
        say(f"{broken}\nWithout a catalogue, differences are told without their causes.")
        price = unpriced
    db, http = open_records(settings), Http()
    providers = {name: registry.connect(a.kind, name, a.adapter_settings(), http) for name, a in on.items()}
    try:
        return await drift(db, providers, now - timedelta(days=days), price)
    except ProviderError as error:
        raise Stop(f"a provider did not tell what it bills: {error}", code=1) from None
    finally:
        for provider in providers.values():
            await provider.aclose()
        await http.aclose()
        await db.aclose()


async def _audit(settings: Settings) -> Audit:
    db = open_records(settings)
    try:
        return await db.examine()
    finally:
        await db.aclose()


async def _export(
    settings: Settings, out: TextIO, form: Literal["csv", "jsonl"], after: int, period: Period | None
) -> None:
    writer = csv.writer(out)
    if form == "csv":
        writer.writerow(_COLUMNS)
    async for page in _entries(settings, after, period):
        if form == "csv":
            writer.writerows([[str(getattr(entry, column)) for column in _COLUMNS] for entry in page])
        else:
            out.writelines(f"{msgspec.json.encode(entry).decode()}\n" for entry in page)


async def _export_parquet(settings: Settings, output: Path, after: int, period: Period | None) -> None:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise Stop(
            "--format parquet needs pyarrow, which is not installed: pip install 'pixelgate[parquet]'", code=1
        ) from None
    types = {"seq": pa.int64(), "at": pa.timestamp("us", tz="UTC"), "amount": pa.int64()}
    schema = pa.schema([(column, types.get(column, pa.string())) for column in _COLUMNS])
    with parquet.ParquetWriter(output, schema) as writer:
        async for page in _entries(settings, after, period):
            columns = {column: [getattr(entry, column) for entry in page] for column in _COLUMNS}
            writer.write_table(pa.Table.from_pydict(columns, schema=schema))


async def _export_focus(settings: Settings, out: TextIO, after: int, period: Period | None) -> None:
    kinds = {name: account.kind for name, account in settings.accounts.items()}
    writer = csv.DictWriter(out, COLUMNS)
    writer.writeheader()
    db = open_records(settings)
    try:
        while page := await db.posted_costs(after, _PAGE):
            writer.writerows([row_of(cost, kinds) for cost in page if _within(cost.at, period)])
            after = page[-1].seq
    finally:
        await db.aclose()


async def _entries(settings: Settings, after: int, period: Period | None) -> AsyncIterator[Sequence[EntryRow]]:
    db = open_records(settings)
    try:
        while page := await db.entries(after, _PAGE):
            yield [entry for entry in page if _within(entry.at, period)]
            after = page[-1].seq
    finally:
        await db.aclose()


def _within(at: datetime, period: Period | None) -> bool:
    return period is None or period.start <= at < period.end
