"""`pixelgate prices sync`, `apply`, `reject`, `history`, `rollback`: what sellers' lists would change, and who did."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, TypeVar

from cyclopts import Parameter
from msgspec import to_builtins

from gateway.cli.shell import (
    COMMAND,
    HERE,
    Json,
    Stop,
    Where,
    dollars,
    me,
    open_records,
    print_json,
    run_async,
    say,
    table,
)
from gateway.clock import SystemClock
from gateway.errors import InvalidRequest
from gateway.features import price_sync
from gateway.features.price_sync import Applied, Decision, Undecided, look
from gateway.revisions import SYNCED, load_revision
from gateway.settings import Settings
from gateway.storage.database import Database, open_database
from gateway.storage.prices import PriceChange, PriceRevision, Proposal
from policies.catalog_file import moment_of
from providers import registry
from providers.errors import ProviderError
from providers.transport import Http

T = TypeVar("T")


@Parameter(name="*")
@dataclass(frozen=True)
class Signed:
    """Who decides, and why."""

    author: str | None = None
    """Who decides; the name of whoever types this when left out."""
    message: str = ""
    """Why."""

    def decision(
        self, offers: Sequence[str] = (), looked_at: Sequence[str] = (), since: datetime | None = None
    ) -> Decision:
        """What is decided, under this name."""
        return Decision(
            author=self.author or me(),
            message=self.message,
            offers=frozenset(offers),
            looked_at=frozenset(looked_at),
            since=since,
        )


UNSIGNED = Signed()


def sync(*, json: Json = False, where: Where = HERE) -> int:
    """Ask every seller what it sells and at what price, and propose what that would change. Changes no price.

    Exit code 1: something is proposed, or a seller could not be asked.
    """
    settings = where.settings()
    faults, proposals = run_async(_sync(settings))
    if json:
        print_json({"proposals": [_as_json(each) for each in proposals], "faults": faults})
    else:
        _print_proposals(proposals)
        for account, why in faults.items():
            say(f"{account}: cannot be asked ({why})")
    return int(bool(faults) or bool(proposals))


def apply(
    *offers: str,
    accept_jump: tuple[str, ...] = (),
    since: Annotated[str | None, Parameter(name="--from")] = None,
    signed: Signed = UNSIGNED,
    json: Json = False,
    where: Where = HERE,
) -> int:
    """Put what is proposed in force, with who did it, when, and the price before and after.

    Exit code 1: something still waits for somebody to look at it, or nothing is proposed.

    Parameters
    ----------
    offers
        Only what is proposed of these, as `prices sync` names them; everything when left out.
    accept_jump
        An offer whose odd change you looked at: another unit, more than 3 times the price, or less than a third. Only
        the number changes; where units are counted otherwise now, edit the catalogue and reject the proposal.
    since
        From when it counts: a day (midnight UTC), or a moment with its zone. From now on when left out.
    """
    settings = where.settings()
    decision = signed.decision(offers, accept_jump, None if since is None else _moment(since))
    done = _decide(settings, lambda db, now: price_sync.apply(db, settings, decision, now))
    _print_applied(settings, done, json=json)
    return int(bool(done.waiting) or done.revision is None)


def reject(*offers: str, signed: Signed = UNSIGNED, json: Json = False, where: Where = HERE) -> None:
    """Leave what is proposed alone, until the seller's list says something else again.

    Parameters
    ----------
    offers
        Only what is proposed of these; everything when left out.
    """
    decision = signed.decision(offers)
    rejected = _decide(where.settings(), lambda db, now: price_sync.reject(db, decision, now))
    if json:
        print_json({"rejected": [_as_json(each) for each in rejected]})
    else:
        print(f"rejected: {', '.join(each.offer for each in rejected)}")


def history(*, json: Json = False, where: Where = HERE) -> None:
    """List what was applied and taken back, the newest first; and what was rejected."""
    db = open_records(where.settings())

    async def read() -> tuple[Sequence[PriceRevision], Sequence[Proposal]]:
        try:
            return await db.price_revisions(), await db.price_proposals("rejected")
        finally:
            await db.aclose()

    rows, rejected = run_async(read())
    if json:
        print_json({"revisions": [_public(row) for row in rows], "rejected": [_as_json(each) for each in rejected]})
        return
    if not rows and not rejected:
        say("nothing was applied or rejected yet")
    for row in reversed(rows):
        message = f": {row.message}" if row.message else ""
        print(f"{row.seq}  {row.at:%Y-%m-%d %H:%M:%S} UTC  {row.source} by {row.author}{message}")
        print(f"   prices {row.prices_before} -> {row.prices}")
        for change in row.changes:
            print(f"   {_told(change)}")
    for each in rejected:
        assert each.ended is not None, "what was rejected was so at some time"
        print(f"-  {each.ended:%Y-%m-%d %H:%M:%S} UTC  rejected by {each.actor}  {_told(each.change)}")


def rollback(
    revision: int | None = None, /, *, signed: Signed = UNSIGNED, json: Json = False, where: Where = HERE
) -> None:
    """Put earlier synced prices in force again; those in force stay in the history.

    Parameters
    ----------
    revision
        As `prices history` numbers them; 0: the catalogue alone. The last text that says something else when left out.
    """
    settings = where.settings()
    decision = signed.decision()
    done = _decide(settings, lambda db, now: price_sync.roll_back(db, settings, revision, decision, now))
    _print_applied(settings, done, json=json)


async def _sync(settings: Settings) -> tuple[Mapping[str, str], Sequence[Proposal]]:
    revision = load_revision(settings)
    offers, clock, faults = revision.catalog.offers, SystemClock(), dict[str, str]()
    db, http = _records(settings), Http()
    try:
        for name, account in revision.accounts.items():
            provider = registry.connect(account.kind, name, account.adapter_settings(), http)
            try:
                findings = await look(db, clock, name, provider, tuple(offers.values()))
                await price_sync.propose(db, clock.utc(), name, findings, offers)
            except ProviderError as error:
                faults[name] = f"{error.kind}: {error.detail}"
            finally:
                await provider.aclose()
        return faults, await db.price_proposals("open")
    finally:
        await http.aclose()
        await db.aclose()


def _decide(settings: Settings, work: Callable[[Database, datetime], Awaitable[T]]) -> T:
    """What deciding brings; stops where there is nothing to decide."""
    db = _records(settings)

    async def run() -> T:
        try:
            return await work(db, datetime.now(UTC))
        finally:
            await db.aclose()

    try:
        return run_async(run())
    except Undecided as why:
        raise Stop(str(why), code=1) from None


def _records(settings: Settings) -> Database:
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    return open_database(settings.database_url, settings.database.durability)


def _moment(typed: str) -> datetime:
    try:
        return moment_of(typed)
    except ValueError as why:
        raise InvalidRequest(f"Invalid 'from': {why}.", param="from") from None


def _print_proposals(proposals: Sequence[Proposal]) -> None:
    if not proposals:
        say("the book agrees with every list that could be read")
        return
    rows = [("offer", "ours", "listed", "unit", "")]
    for each in proposals:
        change = each.change
        note = change.says if change.kind == "gone" else f"waits: {change.waits}" if change.waits else ""
        unit = f"{change.unit_before} -> {change.unit}" if change.kind == "unit" else change.unit
        rows.append((change.offer, dollars(change.ours), dollars(change.listed), unit, note))
    print(table(rows, right=frozenset({1, 2})))
    say(f"`{COMMAND} prices apply` puts them in force, but for those that wait: `--accept-jump OFFER` for each of them")


def _print_applied(settings: Settings, done: Applied, *, json: bool) -> None:
    if json:
        revision = None if done.revision is None else _public(done.revision)
        print_json({"revision": revision, "waiting": [_as_json(each) for each in done.waiting]})
        return
    row = done.revision
    if row is not None:
        for change in row.changes:
            print(_told(change))
        print(f"revision {row.seq} is in {settings.state / SYNCED}: prices {row.prices_before} -> {row.prices}")
        say("running gateways follow within a second")
    for each in done.waiting:
        say(f"{each.offer} waits ({each.change.waits}): look at it, then `--accept-jump {each.offer}`, or reject it")


def _told(change: PriceChange) -> str:
    if change.kind == "gone":
        return f"{change.offer}: {change.says}"
    return f"{change.offer}: {dollars(change.ours)} -> {dollars(change.listed)} per {change.unit or 'unit'}"


def _as_json(each: Proposal) -> Mapping[str, object]:
    return {
        "id": each.id,
        "at": each.at,
        "account": each.account,
        "state": each.state,
        "ended": each.ended,
        "actor": each.actor or None,
        "message": each.message,
        **to_builtins(each.change),
    }


def _public(row: PriceRevision) -> Mapping[str, object]:
    return {
        "revision": row.seq,
        "at": row.at,
        "author": row.author,
        "source": row.source,
        "message": row.message,
        "changes": [to_builtins(change) for change in row.changes],
        "prices_before": row.prices_before,
        "prices": row.prices,
    }
