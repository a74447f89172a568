"""`pixelgate report`: what was spent, what that saved, and what to change."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gateway.cli.report_page import page
from gateway.cli.shell import HERE, Stop, Where, open_records, plain, print_json, run_async, say, table, write_file
from gateway.money.currency import Currency, currency_of
from gateway.money.periods import Kind, Period, day_of, period_of, zone_of
from gateway.money.reports import NOT_RECORDED, Line, Report, report
from gateway.money.suggestions import Compared
from gateway.revisions import Revision, load_revision
from gateway.storage.database import Database

_COLUMNS = ("view", "name", "cost_nano_usd", "charge_nano_usd", "orders", "images", "cost", "charge", "currency")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_SHOWN = 10
"""Lines of a view that the terminal shows; files have them all."""


@Parameter(name="*")
@dataclass(frozen=True)
class Form:
    """Which period, whose midnight, what money, and where to."""

    date: str | None = None
    """A day of the period (2026-11-25); the last one that is over when left out."""
    tz: str = "UTC"
    """Time zone whose midnights part the days: Europe/Berlin."""
    currency: str = "USD"
    """Show money in this currency, too; the books stay in dollars."""
    rate: str | None = None
    """Units of that currency for one dollar: 0.92. None is looked up."""
    json: Annotated[bool, Parameter(name="--json", help="Print JSON for scripts instead of text for people.")] = False
    csv: bool = False
    """Print every line of every view as CSV."""
    html: Path | None = None
    """Write one HTML file with charts, which needs nothing beside it."""


PLAIN = Form()


def daily(*, form: Form = PLAIN, where: Where = HERE) -> None:
    """Report on a day."""
    _run("daily", form, where)


def weekly(*, form: Form = PLAIN, where: Where = HERE) -> None:
    """Report on a week, from Monday."""
    _run("weekly", form, where)


def monthly(*, form: Form = PLAIN, where: Where = HERE) -> None:
    """Report on a month."""
    _run("monthly", form, where)


def _run(kind: Kind, form: Form, where: Where) -> None:
    if form.json and form.csv:
        raise Stop("--json and --csv both go to standard output; choose one")
    money = currency_of(form.currency, form.rate)
    zone = zone_of(form.tz)
    period = period_of(kind, day_of(form.date) if form.date else None, zone, datetime.now(UTC))
    found = run_async(_read(where, period))
    if form.html is not None:
        write_file(form.html, page(found, money))
        say(f"wrote {form.html}")
    if form.json:
        print_json(shape(found, money))
    elif form.csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(_COLUMNS)
        writer.writerows(_rows(found, money))
    elif form.html is None:
        print("\n".join(_text(found, money)))


async def _read(where: Where, period: Period) -> Report:
    settings = where.settings()
    revision = load_revision(settings, every_account=True)
    db = open_records(settings)
    try:
        billing = {
            name: account.billing.billing()
            for name, account in settings.accounts.items()
            if account.billing is not None
        }
        compared = await _compared(db, revision) if revision.policy.experiments else ()
        return await report(db, revision.catalog, period, billing, compared)
    finally:
        await db.aclose()


async def _compared(db: Database, revision: Revision) -> Sequence[Compared]:
    """The experiments of the policy that say *switch*, and what that is worth."""
    from gateway.cli.shadow_report import judged, reason  # numpy takes its time

    told = [(await judged(db, revision, each))[0] for each in revision.policy.experiments]
    return [
        Compared(
            experiment=each.experiment.name,
            challenger=verdict.challenger,
            says=reason(verdict),
            saved_a_month=-round(verdict.money.month),
        )
        for each in told
        for verdict in each.verdicts
        if verdict.verdict == "switch" and verdict.money is not None
    ]


def shape(found: Report, money: Currency) -> dict[str, object]:
    """The report as `--json` prints it."""
    period = found.period
    return {
        "period": {
            "kind": period.kind,
            "first": period.first.isoformat(),
            "last": period.last.isoformat(),
            "tz": period.zone.key,
            "over": period.over,
        },
        "prices": found.prices,
        "currency": {"code": money.code, "rate": str(money.rate)},
        "total": _line(found.total, money),
        "copies": [_line(line, money) for line in found.copies],
        "by": {name: [_line(line, money) for line in lines] for name, lines in found.by.items()},
        "tags": {name: [_line(line, money) for line in lines] for name, lines in found.tags.items()},
        "days": [_line(line, money) for line in found.days],
        "baselines": [
            {
                "name": each.name,
                "about": each.about,
                "saves_by": each.saves_by,
                "cost_nano_usd": each.cost,
                "actual_nano_usd": each.actual,
                "saved_nano_usd": each.saved,
                "orders": each.orders,
                "not_served": each.not_served,
                "certain": each.certain,
            }
            for each in found.baselines
        ],
        "suggestions": [
            {
                "name": each.name,
                "do": each.do,
                "evidence": each.evidence,
                "nano_usd": each.nano_usd,
                "nano_usd_per_month": each.per_month,
            }
            for each in found.suggestions
        ],
        "suspended": {
            name: {"orders": held.orders, "held_nano_usd": held.held} for name, held in found.suspended.items()
        },
        "not_recorded": NOT_RECORDED,
    }


def _line(line: Line, money: Currency) -> dict[str, object]:
    return {
        "name": line.name,
        "cost_nano_usd": line.cost,
        "charge_nano_usd": line.charge,
        "orders": line.orders,
        "images": line.images,
        "cost": money.exact(line.cost),
        "charge": money.exact(line.charge),
    }


def views(found: Report) -> Iterator[tuple[str, Sequence[Line]]]:
    """Every view with its lines: total, day, then model, provider, tier, team, key and each tag."""
    yield "total", [found.total]
    yield "day", found.days
    yield from found.by.items()
    for name, lines in found.tags.items():
        yield f"tag {name}", lines


def _rows(found: Report, money: Currency) -> Iterator[Sequence[object]]:
    for view, lines in views(found):
        for line in lines:
            yield (
                _inert(view), _inert(line.name), line.cost, line.charge, line.orders, line.images,
                money.exact(line.cost), money.exact(line.charge), money.code,
            )  # fmt: skip


def _inert(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: tags come from callers."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _text(found: Report, money: Currency) -> Iterator[str]:
    period = found.period
    total = found.total
    so_far = "" if period.over else ", so far"
    yield f"{period.kind} report, {period.first} to {period.last} ({period.zone.key}){so_far}"
    yield (
        f"{total.images:,} pictures in {total.orders:,} orders: cost {_exactly(money, total.cost)}, "
        f"charged {_exactly(money, total.charge)}"
    )
    for line in found.copies:
        yield f"of it {_exactly(money, line.cost)} for {line.orders:,} copies, {line.name}, which nobody is charged"
    for view, lines in views(found):
        if view in ("total", "day") or not lines:
            continue
        yield ""
        yield table(_table(view, lines, money), right=frozenset({1, 2, 3, 4}))
    yield from _savings(found, money)
    yield from _advice(found, money)


def _exactly(money: Currency, nano: int) -> str:
    amount = money.exact(nano)
    return f"${amount}" if money.code == "USD" else f"{amount} {money.code}"


def _table(view: str, lines: Sequence[Line], money: Currency) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [(view, "cost", "charged", "orders", "pictures")]
    rows += [
        (line.name, money.shown(line.cost), money.shown(line.charge), f"{line.orders:,}", f"{line.images:,}")
        for line in lines[:_SHOWN]
    ]
    if rest := len(lines) - _SHOWN:
        rows += [(f"and {rest} more", "", "", "", "")] if rest > 0 else []
    return rows


def _savings(found: Report, money: Currency) -> Iterator[str]:
    yield ""
    yield f"the same pictures elsewhere (tariffs of catalogue {found.prices}):"
    rows = [("  rule", "would cost", "did cost", "saved", "not served", "")]
    rows += [
        (
            f"  {each.name}",
            ("" if each.certain else "about ") + money.shown(each.cost),
            money.shown(each.actual),
            money.shown(each.saved),
            str(each.not_served),
            each.about,
        )
        for each in found.baselines
    ]
    yield table(rows, right=frozenset({1, 2, 3, 4}))


def _advice(found: Report, money: Currency) -> Iterator[str]:
    yield ""
    yield "to change:" if found.suggestions else "nothing to suggest"
    for each in found.suggestions:
        worth = "" if each.nano_usd is None else f"{money.shown(each.nano_usd)}: "
        monthly = "" if each.per_month is None else f" ({money.shown(each.per_month)} a month)"
        yield f"  {worth}{plain(each.do)}{monthly}"
        yield f"      {plain(each.evidence)}"
    for each_missing in NOT_RECORDED:
        yield f"  not looked at: {each_missing}"
