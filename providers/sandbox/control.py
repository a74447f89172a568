"""The sandbox's own side: the invoice, the script, what was asked, and how it was asked."""

from __future__ import annotations

import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Literal

import msgspec
from aiohttp import web
from msgspec import Struct

from providers.sandbox.accounts import Limits
from providers.sandbox.discounts import Contract
from providers.sandbox.endpoints import Seller
from providers.sandbox.faults import Rule
from providers.sandbox.machines import Change
from providers.sandbox.wire import answer
from providers.sandbox.world import World


class Script(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /_sandbox/script`; what is left out stays as it is."""

    rules: tuple[Rule, ...] | None = None
    """The fault script, replacing the one before."""
    limits: dict[str, Limits] = {}
    """By seller (`fal`) or account (`fal/team-a`)."""
    prices: dict[Seller, dict[str, str]] = {}
    """Dollars per unit as decimal text, by seller and endpoint; `*` is all of a seller's endpoints."""
    units: dict[Seller, dict[str, str]] = {}
    """What the seller's own list calls the unit of an endpoint; how it is counted does not change."""
    counted: dict[Seller, dict[str, str]] = {}
    """How many times its units each order counts from now on, by seller and endpoint or `*`; its list is silent."""
    estimated: dict[Seller, dict[str, str]] = {}
    """What a seller that estimates says a unit costs, in dollars, where its list says something else."""
    retired: dict[Seller, tuple[str, ...]] = {}
    """Endpoints that a seller no longer has, in place of those named before."""
    contracts: dict[str, Contract] = {}
    """What an account's bills are made by, by seller (`fal`) or account (`fal/team-a`)."""
    refunds: dict[Seller, dict[str, str]] = {}
    """Dollars given back at once, by seller and request."""
    machines: dict[str, Change] = {}
    """What changes at GPU servers of our own, by name."""
    latency_scale: float | None = None
    pictures: Literal["rich", "plain"] | None = None


class Control:
    """Everything under `/_sandbox`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Put the control paths into the application."""
        router.add_get("/_sandbox/invoice", self._invoice)
        router.add_get("/_sandbox/requests", self._requests)
        router.add_get("/_sandbox/stats", self._stats)
        router.add_post("/_sandbox/script", self._script)
        router.add_post("/_sandbox/reset", self._reset)

    async def _invoice(self, request: web.Request) -> web.Response:
        return answer(self._world.book.invoice(request.query.get("provider")))

    async def _requests(self, request: web.Request) -> web.Response:
        provider = request.query.get("provider")
        return answer({"requests": [one for one in self._world.requests if provider in {None, one["provider"]}]})

    async def _stats(self, _request: web.Request) -> web.Response:
        return answer(stats(self._world))

    async def _script(self, request: web.Request) -> web.Response:
        try:
            script = msgspec.json.decode(await request.read(), type=Script)
            apply(self._world, script)
        except (msgspec.MsgspecError, ValueError, LookupError) as fault:
            return answer({"error": str(fault)}, 400)
        return answer({"ok": True})

    async def _reset(self, _request: web.Request) -> web.Response:
        self._world.clear()
        return answer({"ok": True})


def apply(world: World, script: Script) -> None:
    """Put a script in force."""
    _apply_to_prices(world, script)
    _apply_to_bills(world, script)
    world.set_limits(script.limits)
    for name, change in script.machines.items():
        world.machine(name).change(change)
    if script.rules is not None:
        world.faults.set(script.rules, time.monotonic())
    if script.latency_scale is not None:
        world.latency.factor = script.latency_scale
    if script.pictures is not None:
        world.painter.plain = script.pictures == "plain"


def _apply_to_prices(world: World, script: Script) -> None:
    for seller, prices in script.prices.items():
        for endpoint, usd in prices.items():
            world.prices.change(seller, endpoint, usd)
    for seller, units in script.units.items():
        for endpoint, unit in units.items():
            world.prices.call(seller, endpoint, unit)
    for seller, times in script.counted.items():
        for endpoint, often in times.items():
            world.prices.count(seller, endpoint, often)
    for seller, estimates in script.estimated.items():
        for endpoint, usd in estimates.items():
            world.prices.estimate(seller, endpoint, usd)
    for seller, endpoints in script.retired.items():
        world.retired = {each for each in world.retired if each[0] != seller}
        world.retired |= {(seller, endpoint) for endpoint in endpoints}


def _apply_to_bills(world: World, script: Script) -> None:
    if script.contracts:
        world.set_contracts(script.contracts)
    for seller, refunds in script.refunds.items():
        for request, usd in refunds.items():
            world.refund(seller, request, int(Decimal(usd) * 1_000_000_000))


def stats(world: World) -> Mapping[str, object]:
    """The answer of `GET /_sandbox/stats`: by seller and account."""
    told: dict[str, dict[str, object]] = {}
    for (seller, name), account in world.accounts.items():
        now = {"running": account.gate.running, "in_flight": account.in_flight}
        told.setdefault(seller, {})[name] = msgspec.to_builtins(account.stats) | now
    return told
