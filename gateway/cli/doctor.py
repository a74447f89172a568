"""`pixelgate doctor`: looks for what would go wrong before a caller does."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Literal

from msgspec import Struct

from gateway.cli.shell import HERE, Json, Where, open_records, print_json, run_async
from gateway.revisions import Revision, load_revision
from gateway.settings import Settings
from policies.offer_prices import quote_at
from policies.tariffs import Unpriced
from policies.types import Offer
from providers import registry
from providers.contract import ChecksAccount, ImageRequest
from providers.transport import Http

_ROOM_BYTES = 1_000_000_000

Verdict = Literal["ok", "warn", "fail"]


class Finding(Struct, frozen=True):
    """One thing looked at."""

    verdict: Verdict
    about: str
    says: str


def doctor(*, offline: bool = False, json: Json = False, where: Where = HERE) -> int:
    """Check settings, keys, prices, folders and books. Exit code 1: something would go wrong.

    Parameters
    ----------
    offline
        Do not ask the providers whether keys and endpoints are good. (Asking costs nothing.)
    """
    settings = where.settings()
    revision = load_revision(settings, every_account=True)
    findings = run_async(_all(settings, revision, offline))
    if json:
        print_json({"findings": findings})
    else:
        marks = {"ok": "ok  ", "warn": "--  ", "fail": "BAD "}
        print("\n".join(f"{marks[finding.verdict]} {finding.about}: {finding.says}" for finding in findings))
    return 1 if any(finding.verdict == "fail" for finding in findings) else 0


async def _all(settings: Settings, revision: Revision, offline: bool) -> list[Finding]:
    findings = [*_machine(), *_files(settings, revision), *_prices(revision), *_accounts(settings)]
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
    try:
        quote_at(offer, ImageRequest(width=width, height=height))
    except Unpriced as error:
        return str(error)
    return None


def _accounts(settings: Settings) -> Iterator[Finding]:
    off = settings.accounts_off()
    for name in settings.accounts:
        yield (
            Finding("warn", f"account {name}", f"off: {off[name]}")
            if name in off
            else Finding("ok", f"account {name}", "on")
        )
    if len(off) == len(settings.accounts):
        yield Finding(
            "fail",
            "accounts",
            "no provider is on; set FAL_KEY, TOGETHER_API_KEY or REPLICATE_API_TOKEN, or connect your own GPUs",
        )


async def _books(settings: Settings) -> AsyncIterator[Finding]:
    if not (settings.state / "pixelgate.db").exists() and settings.database.url is None:
        yield Finding("ok", "books", "none yet; this gateway has not run")
        return
    db = open_records(settings)
    try:
        faults = await db.audit()
        suspended = await db.suspended()
    finally:
        await db.aclose()
    for fault in faults:
        yield Finding("fail", "books", fault)
    if suspended:
        yield Finding("warn", "books", f"{len(suspended)} orders whose cost no provider has told yet")
    if not faults:
        yield Finding("ok", "books", "hold every promise")


async def _providers(settings: Settings, revision: Revision) -> AsyncIterator[Finding]:
    http = Http()
    try:
        for name, account in settings.accounts_on().items():
            provider = registry.connect(account.kind, name, account.adapter_settings(), http)
            try:
                if isinstance(provider, ChecksAccount):
                    endpoints = [o.endpoint for o in revision.catalog.offers.values() if o.account == name]
                    faults = await provider.check(endpoints)
                    for fault in faults:
                        yield Finding("fail", f"account {name}", fault)
                    if not faults:
                        yield Finding("ok", f"account {name}", f"key and {len(endpoints)} endpoints are good")
            finally:
                await provider.aclose()
    finally:
        await http.aclose()
