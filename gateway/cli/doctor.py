"""`pixelgate doctor`: looks for what would go wrong before a caller does."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from gateway.cli.shell import HERE, Json, Stop, Where, dollars, open_records, print_json, run_async
from gateway.features.known_prices import remembered
from gateway.revisions import Revision, load_revision
from gateway.settings import Settings
from policies.offer_prices import quote_at
from policies.tariffs import Unpriced
from policies.types import Offer
from providers import registry
from providers.contract import ChecksAccount, ImageRequest
from providers.transport import Http

if TYPE_CHECKING:
    from gateway.cli.doctor_spend import Drawn

_ROOM_BYTES = 1_000_000_000

Verdict = Literal["ok", "warn", "fail"]


class Finding(Struct, frozen=True):
    """One thing looked at."""

    verdict: Verdict
    about: str
    says: str


def doctor(*, offline: bool = False, spend: bool = False, json: Json = False, where: Where = HERE) -> int:
    """Check settings, keys, prices, folders and books. Exit codes: 0 all is well, 1 something would go wrong.

    2: the configuration cannot be read, or `--spend` and `--offline` together.

    Parameters
    ----------
    offline
        Do not ask the providers whether keys and endpoints are good. (Asking costs nothing.)
    spend
        Draw the cheapest picture at each account, through the ledger, and say what it cost: the only way to learn
        whether an account has credit, and the tier its models want.
    """
    if offline and spend:
        raise Stop("--spend orders pictures, which --offline forbids; leave one of them out")
    settings = where.settings()
    findings = run_async(examine(settings, offline=offline))
    drawn = run_async(_drawn(settings)) if spend and settings.accounts_on() else []
    findings += [_finding_of(one) for one in drawn]
    if json:
        spent = [{"account": one.account, "offer": one.offer, "nano_usd": one.nano_usd} for one in drawn]
        print_json({"findings": findings, "spent": spent})
    else:
        marks = {"ok": "ok  ", "warn": "--  ", "fail": "BAD "}
        print("\n".join(f"{marks[finding.verdict]} {finding.about}: {finding.says}" for finding in findings))
    return 1 if any(finding.verdict == "fail" for finding in findings) else 0


async def _drawn(settings: Settings) -> list[Drawn]:
    from gateway.cli.doctor_spend import draw_one_each

    return [one async for one in draw_one_each(settings)]


def _finding_of(one: Drawn) -> Finding:
    cost = dollars(one.nano_usd)
    if one.fault is not None:
        return Finding("fail" if one.ordered else "warn", f"account {one.account}", f"{one.fault} (spent {cost})")
    return Finding("ok", f"account {one.account}", f"drew a picture at {one.offer} for {cost}")


async def examine(settings: Settings, *, offline: bool = False) -> list[Finding]:
    """Look at everything that can be looked at without spending; raises `BadFile`."""
    revision = load_revision(settings, every_account=True, after=remembered(settings))
    findings = [*_machine(), *_files(settings, revision), *_prices(revision), *_accounts(settings, revision)]
    findings += [finding async for finding in _books(settings)]
    if not offline:
        findings += [finding async for finding in _providers(settings, revision)]
    return findings


def _machine() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("ok", "python", f"{version} at {sys.executable}")
    for name in ("uvloop", "httptools"):
        if importlib.util.find_spec(name) is None:
            yield Finding("warn", name, "is not installed; serving costs much more CPU without it")


def _files(settings: Settings, revision: Revision) -> Iterator[Finding]:
    yield Finding("ok", "configuration", f"{settings.config}, policy {revision.policy.label}, prices {revision.number}")
    parent = next((folder for folder in (settings.state, *settings.state.parents) if folder.exists()), None)
    if parent is None or not os.access(parent, os.W_OK):
        yield Finding("fail", "state", f"{settings.state} cannot be written")
        return
    free = shutil.disk_usage(parent).free
    verdict: Verdict = "ok" if free > _ROOM_BYTES else "warn"
    yield Finding(verdict, "state", f"{settings.state}, {free / 1e9:.1f} GB free")


def _prices(revision: Revision) -> Iterator[Finding]:
    """Ask each offer what a picture of a size it draws would cost."""
    unpriced = [f"{offer.id} ({error})" for offer in revision.catalog.offers.values() if (error := _unpriced(offer))]
    models, offers = len(revision.catalog.models), len(revision.catalog.offers)
    if unpriced:
        yield Finding("fail", "prices", f"no price from {', '.join(unpriced)}")
    else:
        yield Finding("ok", "prices", f"{models} models, {offers} offers, each with a price")


def _unpriced(offer: Offer) -> str | None:
    sizes = offer.abilities.sizes
    width, height = next(iter(sizes.named.values()), (sizes.max_side - sizes.max_side % sizes.multiple,) * 2)
    if sizes.max_pixels is not None and width * height > sizes.max_pixels:
        width = height = sizes.min_side + -sizes.min_side % sizes.multiple
    try:
        quote_at(offer, ImageRequest(width=width, height=height))
    except Unpriced as error:
        return str(error)
    return None


def _accounts(settings: Settings, revision: Revision) -> Iterator[Finding]:
    off = settings.accounts_off()
    for name in settings.accounts:
        if name in off:
            yield Finding("warn", f"account {name}", f"off: {off[name]}")
            continue
        offers = [offer for offer in revision.catalog.for_sale() if offer.account == name]
        yield Finding("ok" if offers else "warn", f"account {name}", f"on; {_limits(revision, name)}; {_sells(offers)}")
    if len(off) == len(settings.accounts):
        yield Finding(
            "fail",
            "accounts",
            "no provider is on; set FAL_KEY, TOGETHER_API_KEY or REPLICATE_API_TOKEN, or connect your own GPUs",
        )


def _limits(revision: Revision, name: str) -> str:
    """What our settings allow the account; what the seller allows shows in its answers."""
    slots, rate = revision.catalog.capacities.get(name), revision.catalog.capacities.get(f"{name}/rate")
    told = [f"at most {slots.slots} orders at once"] if slots else []
    told += [f"{rate.rate:g} orders a second"] if rate and rate.rate else []
    return ", ".join(told) or "no limit set"


def _sells(offers: Sequence[Offer]) -> str:
    """One quote: the cheapest picture, so that a price in the wrong unit is seen."""
    from gateway.cli.doctor_spend import cheapest

    found = cheapest(offers)
    if found is None:
        return f"{len(offers)} offers, none drawn from words"
    offer, request = found
    size, amount = f"{request.width}x{request.height}", dollars(quote_at(offer, request).amount)
    return f"{len(offers)} offers, the cheapest picture {size} at {offer.id} for {amount}"


async def _books(settings: Settings) -> AsyncIterator[Finding]:
    if not (settings.state / "pixelgate.db").exists() and settings.database.url is None:
        yield Finding("ok", "books", "none yet; this gateway has not run")
        return
    db = open_records(settings)
    try:
        faults = await db.audit()
        suspended, proposed = await db.suspended(), await db.price_proposals("open")
    finally:
        await db.aclose()
    for fault in faults:
        yield Finding("fail", "books", fault)
    if suspended:
        yield Finding("warn", "books", f"{len(suspended)} orders whose cost no provider has told yet")
    if not faults:
        yield Finding("ok", "books", "hold every promise")
    if proposed:
        some = ", ".join(each.offer for each in proposed[:3]) + (", ..." if len(proposed) > 3 else "")
        yield Finding("warn", "prices", f"sellers say otherwise of {some}: see `prices sync`")


async def _providers(settings: Settings, revision: Revision) -> AsyncIterator[Finding]:
    http = Http()
    try:
        for name, account in settings.accounts_on().items():
            provider = registry.connect(account.kind, name, account.adapter_settings(), http)
            try:
                if isinstance(provider, ChecksAccount):
                    endpoints = [o.endpoint for o in revision.catalog.for_sale() if o.account == name]
                    faults = await provider.check(endpoints)
                    for fault in faults:
                        yield Finding("fail", f"account {name}", fault)
                    if not faults:
                        yield Finding("ok", f"account {name}", f"key and {len(endpoints)} endpoints are good")
            finally:
                await provider.aclose()
    finally:
        await http.aclose()
