"""`pixelgate prices`: the price book, where each price was read and when, and sellers' own lists beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from msgspec import Struct

from gateway.cli.shell import HERE, Json, Where, open_records, print_json, run_async, say, table
from gateway.clock import SystemClock
from gateway.features.price_sync import look
from gateway.money.price_list import Finding
from gateway.revisions import Revision, load_revision, policy_names, policy_path
from gateway.settings import Settings
from gateway.yaml_files import BadFile, load
from policies.catalog import Catalog
from policies.policy_file.names import names_in
from policies.policy_file.schema import PolicyFile
from policies.price_book import PriceRow
from policies.tariffs import describe
from policies.types import Offer
from providers import registry
from providers.errors import ProviderError
from providers.transport import Http


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


class RetiringFacts(Struct, frozen=True, kw_only=True):
    """An offer that its seller stops selling, as `--json` shows it."""

    offer: str
    retires: datetime
    over: bool
    successor: str | None
    concerns: tuple[str, ...]
    """The policies and aliases that name its model."""


def list_prices(
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
    settings = where.settings()
    catalog = load_revision(settings, every_account=True).catalog
    wanted = None if model is None else catalog.resolve(model) or model
    offers = [offer for offer in catalog.offers.values() if wanted in (None, offer.model)]
    rows = [fact for offer in offers for fact in _facts(offer, now, stale_after)]
    if changes:
        rows = [fact for fact in rows if fact.valid_from is not None and fact.valid_from > now]
    retiring = list(_retiring(settings, catalog, offers))
    if json:
        print_json({"prices": rows, "changes_at": catalog.changes_at, "retiring": retiring})
    else:
        _print(rows, stale_after, changes=changes)
        _print_retiring(retiring)
    return 1 if any(fact.stale for fact in rows) or not (rows or changes) else 0


def check(*, json: Json = False, where: Where = HERE) -> int:
    """Read the price lists of sellers that have one (fal.ai), and compare. Needs their keys; changes no price.

    Exit code 1: something is listed otherwise, changed its unit or is gone, or a list could not be read.
    """
    settings = where.settings()
    revision = load_revision(settings)
    findings, faults = run_async(_check(settings, revision))
    if json:
        print_json({"findings": findings, "faults": faults})
    else:
        rows = [(each.verdict, f"{each.account}:{each.endpoint}", each.says) for each in findings]
        print(table(rows) if rows else "no account that is on has a price list")
        for account, why in faults.items():
            say(f"{account}: its list cannot be read ({why})")
    return int(bool(faults) or any(finding.alarming for finding in findings))


async def _check(settings: Settings, revision: Revision) -> tuple[list[Finding], dict[str, str]]:
    db, http, findings, faults = open_records(settings), Http(), list[Finding](), dict[str, str]()
    offers = tuple(revision.catalog.offers.values())
    try:
        for name, account in revision.accounts.items():
            provider = registry.connect(account.kind, name, account.adapter_settings(), http)
            try:
                findings += await look(db, SystemClock(), name, provider, offers)
            except ProviderError as error:
                faults[name] = f"{error.kind}: {error.detail}"
            finally:
                await provider.aclose()
    finally:
        await http.aclose()
        await db.aclose()
    return findings, faults


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


def _retiring(settings: Settings, catalog: Catalog, offers: Sequence[Offer]) -> Iterator[RetiringFacts]:
    for offer in offers:
        if offer.retires is not None:
            yield RetiringFacts(
                offer=offer.id,
                retires=offer.retires,
                over=bool(offer.retired),
                successor=offer.successor,
                concerns=tuple(_concerned(settings, catalog, offer.model)),
            )


def _concerned(settings: Settings, catalog: Catalog, model: str) -> Iterator[str]:
    """Where a model is named: policies, in force or not, and other names of it."""
    yield from (f"alias {alias}" for alias in catalog.models[model].aliases)
    for name in policy_names(settings):
        path = policy_path(settings.model_copy(update={"policy": name}))
        try:
            file = load(path, PolicyFile) if path is not None else None
        except BadFile:  # `policy lint` says what is wrong with it
            continue
        if file is not None and any(
            named.kind.endswith("model") and catalog.resolve(named.name) == model for named in names_in(file)
        ):
            yield f"policy {name}"


def _print_retiring(retiring: Sequence[RetiringFacts]) -> None:
    for each in retiring:
        when = f"{'retired' if each.over else 'retires'} {each.retires:%Y-%m-%d}"
        then = f", then {each.successor}" if each.successor else ""
        say(f"{each.offer} {when}{then}; named by: {', '.join(each.concerns) or 'nothing'}")


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
