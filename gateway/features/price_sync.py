"""What sellers' own lists would change of the price book: proposed, then applied or rejected by somebody.

The catalogue's files stay as people reviewed them. What is applied stands in one file over them, in the state folder,
which a running gateway follows like any other; the history remembers every text it had, who wrote it and what it
changed. A row of it counts for as long as the catalogue says what it said when the row was written: whoever edits the
catalogue afterwards has the last word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from gateway.clock import Clock
from gateway.errors import InvalidRequest
from gateway.features.files import alone, exchange
from gateway.features.policy_history import author_of
from gateway.money.price_list import (
    Finding,
    changes_of,
    compared,
    estimated,
    expected,
    expected_prices,
    no_longer_sold,
)
from gateway.revisions import SYNCED, Revision, load_revision
from gateway.settings import Settings
from gateway.storage.database import Database
from gateway.storage.prices import PriceChange, PriceRevision, Proposal
from gateway.yaml_files import bytes_of
from policies.listed_prices import unit_price
from policies.money import to_usd
from policies.price_book import in_force
from policies.types import Offer
from providers.contract import Estimates, ListsModels, ListsPrices, Provider
from providers.errors import ProviderError, Unavailable

log = structlog.get_logger("gateway.prices")

HEAD = b"""# What `prices apply` took over from sellers' own lists; `prices history` says who and when.
# A price counts for as long as the catalogue says what stands in `instead_of`.
"""
NOTHING = HEAD + b"synced: []\n"
ESTIMATED = 1000
"""Units of each endpoint that an estimate is asked for: of a round number, dollars have few digits."""


class Undecided(Exception):
    """There is nothing to decide, or somebody else has."""


class Decision(Struct, frozen=True, kw_only=True):
    """What somebody decided about proposals, and why."""

    author: str
    message: str = ""
    offers: frozenset[str] = frozenset()
    """Only what is proposed of these; all of it when empty."""
    looked_at: frozenset[str] = frozenset()
    """Offers whose odd change was looked at."""
    since: datetime | None = None
    """From when it counts; from now on when None."""


class Applied(Struct, frozen=True, kw_only=True):
    """What was put in force, and what still waits for somebody to look."""

    revision: PriceRevision | None
    waiting: Sequence[Proposal] = ()


async def look(
    db: Database, clock: Clock, account: str, provider: Provider, offers: Sequence[Offer]
) -> Sequence[Finding]:
    """Ask an account's seller what it sells and at what price, compare, and keep what its list said.

    Nothing for a seller that tells neither. Raises its `ProviderError`s.
    """
    sold = [offer for offer in offers if offer.account == account and not offer.retired]
    endpoints, findings = sorted({offer.endpoint for offer in sold}), list[Finding]()
    if endpoints and isinstance(provider, ListsModels):
        still = frozenset(await provider.still_sold(endpoints))
        if not still and len(endpoints) > 1:
            raise Unavailable("its list of models names nothing that we sell")
        findings += no_longer_sold(account, sold, still)
        sold = [offer for offer in sold if offer.endpoint in still]
        endpoints = sorted(still)
    if sold and isinstance(provider, ListsPrices):
        listed, earlier = list(await provider.list_prices(endpoints)), await db.listed_prices(account)
        if not provider.names_every_price:
            told = {price.endpoint for price in listed}
            listed += [price for name, price in earlier.items() if name not in told]
        findings += compared(account, sold, listed, earlier)
        await db.keep_listed_prices(account, listed, clock.utc())
    if isinstance(provider, Estimates):
        findings = await _estimated(provider, account, findings)
    return findings


async def _estimated(provider: Estimates, account: str, findings: list[Finding]) -> list[Finding]:
    """Findings with the seller's estimates as a second opinion; as they are, where it gives none."""
    try:
        apart = await _apart(provider, list(expected_prices(findings).items()))
    except ProviderError as error:
        log.info("estimate_unavailable", account=account, error=error.kind, detail=error.detail)
        return findings
    return [apart.get(each.endpoint, each) if each.sold else each for each in findings]


async def _apart(provider: Estimates, asked: Sequence[tuple[str, Finding]]) -> Mapping[str, Finding]:
    """Endpoint -> what is estimated otherwise: asked of all in one question, and of either half where that differs."""
    if not asked:
        return {}
    total = await provider.estimate(dict.fromkeys((endpoint for endpoint, _ in asked), ESTIMATED))
    if total == ESTIMATED * sum(expected(each) for _, each in asked):
        return {}
    if len(asked) == 1:
        ((endpoint, found),) = asked
        return {endpoint: estimated(found, round(Fraction(total, ESTIMATED)))}
    half = len(asked) // 2
    return {**await _apart(provider, asked[:half]), **await _apart(provider, asked[half:])}


async def propose(
    db: Database, now: datetime, account: str, findings: Sequence[Finding], offers: Mapping[str, Offer]
) -> int:
    """Have what is proposed of an account be what its list would change now; how much of it is new."""
    earlier = [each for each in await db.price_proposals() if each.account == account]
    return await db.propose_prices(account, changes_of(findings, offers, earlier, now), now)


async def apply(db: Database, settings: Settings, decision: Decision, now: datetime) -> Applied:
    """Put what is proposed in force, but for what still waits for somebody to look at it.

    Raises `Undecided` where there is nothing to apply, `InvalidRequest` for a moment that is over.
    """
    since = decision.since or now
    if decision.since is not None and since < now:
        raise InvalidRequest(
            f"Invalid 'from': {since:%Y-%m-%dT%H:%MZ} is over; orders placed before now keep their price.", param="from"
        )
    proposed = await _proposed(db, decision.offers, decision.looked_at)
    ready = [each for each in proposed if not each.change.waits or each.offer in decision.looked_at]
    waiting = [each for each in proposed if each not in ready]
    if free := [each.offer for each in ready if each.change.listed == 0]:
        raise Undecided(f"{free[0]} is listed at $0; a price of $0 is written by hand: `price: {{free: true}}`.")
    if not ready:
        return Applied(revision=None, waiting=waiting)
    async with alone(_folder(settings)):
        await _keep_what_is_there(db, settings, now)
        content = _text(settings)
        reviewed = await asyncio.to_thread(load_revision, settings, every_account=True, at=now, synced=NOTHING)
        rows = [row for each in ready if (row := _row(each.change, reviewed, since, now)) is not None]
        revision = await _put(
            db, settings, (_with_rows(content, rows), tuple(each.change for each in ready)), decision, now,
            applied=[each.id for each in ready],
        )  # fmt: skip
    return Applied(revision=revision, waiting=waiting)


async def reject(db: Database, decision: Decision, now: datetime) -> Sequence[Proposal]:
    """Leave what is proposed alone, until the list says something else again. Raises `Undecided`."""
    proposed = await _proposed(db, decision.offers)
    ids = [each.id for each in proposed]
    if not await db.end_proposals(ids, "rejected", decision.author, decision.message, now):
        raise Undecided("Somebody else decided meanwhile; look again.")
    return proposed


async def roll_back(db: Database, settings: Settings, number: int | None, decision: Decision, now: datetime) -> Applied:
    """Write an earlier text of synced prices over the present one; without a number, the one before it.

    Raises `Undecided` where there is none.
    """
    async with alone(_folder(settings)):
        await _keep_what_is_there(db, settings, now)
        rows = await db.price_revisions()
        present = _text(settings)
        if number is None:
            earlier = [row.content for row in rows if row.content != present]
            content = earlier[-1] if earlier else NOTHING
        elif number == 0:
            content = NOTHING
        else:
            found = next((row for row in rows if row.seq == number), None)
            if found is None:
                raise Undecided(f"There is no revision {number} of prices; `prices history` lists them.")
            content = found.content
        if content == present:
            raise Undecided("That is what is in force already.")
        revision = await _put(db, settings, (content, ()), decision, now, back=True)
    return Applied(revision=revision)


async def _proposed(
    db: Database, offers: frozenset[str], looked_at: frozenset[str] = frozenset()
) -> Sequence[Proposal]:
    proposals = await db.price_proposals("open")
    if unknown := sorted((offers | looked_at) - {each.offer for each in proposals}):
        raise Undecided(f"Nothing is proposed of {', '.join(unknown)}; `prices sync` asks the sellers.")
    if not proposals:
        raise Undecided("Nothing is proposed; `prices sync` asks the sellers.")
    return [each for each in proposals if not offers or each.offer in offers | looked_at]


def _row(change: PriceChange, reviewed: Revision, since: datetime, now: datetime) -> str | None:
    """The line that a change takes in the file; None where it only takes note of a word."""
    source = msgspec.json.encode(f"the seller's own list, {now:%Y-%m-%d}").decode()
    tail = f"valid_from: {_quoted(since)}, source: {source}, checked_on: {now:%Y-%m-%d}"
    if change.kind == "gone":
        return f"- {{offer: {change.offer}, retires: {_quoted(since)}, {tail}}}"
    base = _price_at(reviewed, change.offer, since)
    if change.listed is None or base is None or change.listed == change.ours:
        return None
    prices = f"unit_price: ${to_usd(change.listed)}, instead_of: ${to_usd(base)}"
    return f"- {{offer: {change.offer}, {prices}, {tail}}}"


def _price_at(revision: Revision, name: str, since: datetime) -> int | None:
    """What a unit of an offer costs at a moment."""
    offer = revision.catalog.offers.get(name)
    row = None if offer is None else in_force(offer.book, since)
    return None if row is None else unit_price(row.tariff)


def _with_rows(content: bytes, rows: Iterable[str]) -> bytes:
    kept = [line for line in content.decode().splitlines() if line.startswith("- ")]
    lines = [*kept, *rows]
    return HEAD + ("synced:\n" + "\n".join(lines) if lines else "synced: []").encode() + b"\n"


async def _put(
    db: Database,
    settings: Settings,
    written: tuple[bytes, tuple[PriceChange, ...]],
    decision: Decision,
    now: datetime,
    *,
    applied: Sequence[int] = (),
    back: bool = False,
) -> PriceRevision:
    """Check a text of synced prices, keep it, and write it; raises `BadFile` with what is wrong with it."""
    content, changes = written
    before, after = await asyncio.to_thread(_both, settings, content, now)
    row = PriceRevision(
        at=now,
        author=decision.author,
        source="rolled back" if back else "applied",
        message=decision.message,
        content=content,
        changes=changes or tuple(_differences(before, after)),
        prices_before=before.number,
        prices=after.number,
    )
    seq = await db.add_price_revision(row, applied)
    if seq is None:
        raise Undecided("Somebody else decided meanwhile; look again.")
    exchange(settings.state / SYNCED, content)
    return msgspec.structs.replace(row, seq=seq)


def _both(settings: Settings, content: bytes, now: datetime) -> tuple[Revision, Revision]:
    before = load_revision(settings, every_account=True, at=now)
    return before, load_revision(settings, every_account=True, at=now, synced=content)


def _differences(before: Revision, after: Revision) -> Iterable[PriceChange]:
    """What another text changes of prices in force, for the history."""
    for name, offer in after.catalog.offers.items():
        other = before.catalog.offers.get(name)
        if other is None:
            continue
        ours, then = unit_price(other.tariff), unit_price(offer.tariff)
        if ours != then:
            says = f"${to_usd(then or 0)} per unit"
            yield PriceChange(offer=name, endpoint=offer.endpoint, kind="price", ours=ours, listed=then, says=says)
        if other.retires != offer.retires:
            says = "sold again" if offer.retires is None else f"retires {offer.retires:%Y-%m-%d}"
            yield PriceChange(offer=name, endpoint=offer.endpoint, kind="gone", says=says)


async def _keep_what_is_there(db: Database, settings: Settings, now: datetime) -> None:
    """A text that somebody saved by hand would be lost under the next one."""
    path, rows = settings.state / SYNCED, await db.price_revisions()
    content = _text(settings)
    if content == (rows[-1].content if rows else NOTHING):
        return
    before, after = await asyncio.to_thread(_both, settings, content, now)
    author = await asyncio.to_thread(author_of, path)
    row = PriceRevision(
        at=now, author=author, source="saved", content=content, prices_before=before.number, prices=after.number
    )
    await db.add_price_revision(row)


def _text(settings: Settings) -> bytes:
    path = settings.state / SYNCED
    return bytes_of(path) if path.is_file() else NOTHING


def _folder(settings: Settings) -> Path:
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    return settings.state


def _quoted(at: datetime) -> str:
    return f'"{at.astimezone(UTC).isoformat()}"'
