"""`pixelgate prices`: the price book, where each price was read and when, and what was announced."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from msgspec import Struct

from gateway.cli.shell import HERE, Json, Where, print_json, say, table
from gateway.revisions import load_revision
from policies.price_book import PriceRow
from policies.tariffs import describe
from policies.types import Offer


class PriceFacts(Struct, frozen=True, kw_only=True):
    """One row of the book, as `--json` shows it."""

    offer: str
    tariff: str
    in_force: bool
    valid_from: datetime | None
    valid_to: datetime | None
    source: str
    checked_on: str
    stale: bool
    """In force, listed, and not looked at for longer than asked."""


def prices(
    *,
    model: str | None = None,
    changes: bool = False,
    stale_after: Annotated[int, Parameter(validator=Number(gte=1))] = 90,
    json: Json = False,
    where: Where = HERE,
) -> int:
    """Show every price: in force, announced and over. Needs no keys.

    Exit code 1: a price in force has not been looked at for too long, or there is no such offer.

    Parameters
    ----------
    model
        Only offers of this model or alias.
    changes
        Only prices that are still to come.
    stale_after
        Days after which a price should be looked at again.
    """
    now = datetime.now(UTC)
    catalog = load_revision(where.settings(), every_account=True).catalog
    wanted = None if model is None else catalog.resolve(model) or model
    offers = [offer for offer in catalog.offers.values() if wanted in (None, offer.model)]
    rows = [fact for offer in offers for fact in _facts(offer, now, stale_after)]
    if changes:
        rows = [fact for fact in rows if fact.valid_from is not None and fact.valid_from > now]
    if json:
        print_json({"prices": rows, "changes_at": catalog.changes_at})
    else:
        _print(rows, stale_after, changes=changes)
    return 1 if any(fact.stale for fact in rows) or not (rows or changes) else 0


def _facts(offer: Offer, now: datetime, stale_after: int) -> Iterator[PriceFacts]:
    for row in offer.book:
        in_force = row.holds(now)
        yield PriceFacts(
            offer=offer.id,
            tariff=describe(row.tariff),
            in_force=in_force,
            valid_from=row.since,
            valid_to=row.until,
            source=row.source,
            checked_on=row.checked_on,
            stale=in_force and _days_old(row, now) > stale_after,
        )


def _days_old(row: PriceRow, now: datetime) -> int:
    """Days since somebody looked; 0 for what a contract says."""
    return (now.date() - date.fromisoformat(row.checked_on)).days if row.checked_on else 0


def _print(rows: list[PriceFacts], stale_after: int, *, changes: bool) -> None:
    if not rows:
        say("no price is announced" if changes else "no offer of that model has a price")
        return
    head = ("offer", "price", "in force", "checked", "read at")
    print(table([head, *(_row(fact) for fact in rows)]))
    if old := sum(fact.stale for fact in rows):
        say(f"\n{old} of {len(rows)} prices were last looked at more than {stale_after} days ago: marked with !")


def _row(fact: PriceFacts) -> tuple[str, ...]:
    checked = f"{fact.checked_on or 'agreed'}{' !' if fact.stale else ''}"
    return fact.offer, fact.tariff, _span(fact), checked, fact.source


def _span(fact: PriceFacts) -> str:
    since = "" if fact.valid_from is None else f"from {_moment(fact.valid_from)} "
    until = "" if fact.valid_to is None else f"until {_moment(fact.valid_to)}"
    return (since + until).strip() or "now"


def _moment(at: datetime) -> str:
    """A day, or a minute where it is no midnight; UTC."""
    at = at.astimezone(UTC)
    return at.date().isoformat() if (at.hour, at.minute) == (0, 0) else f"{at:%Y-%m-%d %H:%M}Z"
