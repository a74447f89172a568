"""The gateway's engine as a policy of the routing harness: names are mapped, nothing is decided here.

Importable by any harness with the interface of `bench/routing/api.py`: `PixelgatePolicy` has `start`, `decide`,
`feedback` and `tick`, and reads nothing but the attributes named there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from msgspec.structs import replace

from policies.engine import CostEngine
from policies.offline.driver import Driver
from policies.policy import BreakerTerms, Crowding, Fallback, Intent, Policy
from policies.tariffs import PerImage, PerMegapixel, ResolutionTable, Tariff
from policies.types import (
    Ask,
    Capacity,
    Constraints,
    Live,
    Machines,
    Offer,
    Tier,
    Tried,
    Worth,
)
from providers.contract import Abilities, ImageRequest, SizeRule

NANO = 1e9
MP = 1 << 20
_ASKS_KEPT = 512
_NO_WORK_S = 1e-6
"""Of work that is queued; the harness adds and takes, so a trace is left."""
_until = itemgetter(1)
TIERS = {1: Tier.PREVIEW, 2: Tier.STANDARD, 3: Tier.EXPORT, 4: Tier.EXPORT}
INTENTS = {1: "draft", 2: "standard", 3: "export", 4: "export"}
POLICY = Policy(
    name="bench",
    revision=1,
    default_intent="draft",
    intents={
        "draft": Intent(name="draft", tier=Tier.PREVIEW, slo=4.0, deadline=64.0, priority=600.0),
        "standard": Intent(name="standard", tier=Tier.STANDARD, slo=20.0, deadline=140.0, priority=592.0),
        "export": Intent(name="export", tier=Tier.EXPORT, slo=45.0, deadline=165.0, priority=590.0),
        "batch": Intent(name="batch", tier=Tier.PREVIEW, slo=600.0, deadline=720.0),
    },
    qualities={},
    fallback=Fallback(attempts=8, timeouts=8, better_tier=True, recurs=0.0),
    breaker=BreakerTerms(failures=3, timeout_counts=3, at_most=20.0, misconfigured_for=30.0),
    crowding=Crowding(last_slot=0),
    max_wait=1e6,
    punctuality=3.0,
)


class PixelgatePolicy(Driver):
    """A `bench.routing.api.Policy`."""

    policy = POLICY
    errors: Mapping[str, str] = {
        "error": "unavailable",
        "throttled": "overloaded",
        "timeout": "unavailable",
        "no_credit": "overloaded",
    }

    def start(self, endpoints: Sequence[Any], accounts: Sequence[Any], seed: int) -> None:  # noqa: ARG002 - no draws
        """Make the offers and the engine."""
        capacities = [capacity for account in accounts for capacity in _capacities(account)]
        offers = [_offer(each, accounts[each.account], capacities) for each in endpoints]
        by_id = {offer.id: offer for offer in offers}
        engine = CostEngine(self.policy, {each.id: each for each in capacities}, by_id, thorough=False)
        index = {account.name: account.index for account in accounts}
        self.begin(engine, self.policy, offers, index, nano=NANO)
        self._drafts = frozenset(each.model for each in endpoints if each.quality < 3)
        self._requests: dict[tuple[float, int], ImageRequest] = {}
        self._worths: dict[tuple[float, float], Worth] = {}
        self._asks: dict[int, Ask] = {}

    def machines(self, capacity: str) -> Machines | None:  # noqa: ARG002 - there is one pool
        """The own pool; only how many GPUs are up is known, and those that are down are not used for long.

        What is answered follows the snapshot: it is read before the simulator goes on.
        """
        snapshot = self._snapshot
        known = snapshot.gpu_state
        if snapshot.gpus_up < len(known):
            known = sorted(known, key=_until, reverse=True)[: snapshot.gpus_up]
        queued: dict[str, float] = {}
        if snapshot.pool_backlog + snapshot.pool_batch_backlog > _NO_WORK_S:
            for (model, _), seconds in snapshot.pool_queue.items():
                queued[model] = queued.get(model, 0.0) + seconds
        return Machines(known, queued, self._machine_lines)

    def ask_of(self, request: Any, tried: tuple[Tried, ...], live: tuple[Live, ...]) -> Ask:
        """What a request of the harness asks for: the same each time, but for what became of it."""
        ask = self._asks.get(request.id)
        if ask is None:
            if len(self._asks) >= _ASKS_KEPT:
                self._asks.clear()
            ask = self._asks[request.id] = self._first_ask(request)
        return replace(ask, tried=tried, live=live) if tried or live else ask

    def _first_ask(self, request: Any) -> Ask:
        shape = (request.mp, request.n)
        wish = self._requests.get(shape)
        if wish is None:
            wish = ImageRequest(prompt="-", width=1024, height=round(request.mp * 1024), count=request.n)
            self._requests[shape] = wish
        stakes = (request.miss_penalty, request.fail_penalty)
        worth = self._worths.get(stakes)
        if worth is None:
            late, failure = stakes
            worth = Worth(late=round(late * NANO), late_second=0, failure=round(failure * NANO))
            self._worths[stakes] = worth
        slo = request.deadline - request.arrival
        return Ask(
            call_id=str(request.id),
            part=0,
            request=wish,
            constraints=Constraints(
                tier=TIERS[request.tier],
                models=self._drafts if request.tier < 2 else None,
                slo=slo,
                deadline=slo + (120.0 if request.tier > 1 else 60.0),
            ),
            intent="batch" if request.batch else INTENTS[request.tier],
            worth=worth,
            arrived=request.arrival,
        )


def _capacities(account: Any) -> list[Capacity]:
    name = account.name
    found = [Capacity(id=name, slots=max(account.concurrency, 1), machines=account.kind == "pool")]
    if account.rpm:
        found.append(Capacity(id=f"{name}/rate", rate=account.rpm / 60.0, burst=round(account.burst)))
    renews = account.period_end or None
    if account.credit != float("inf"):
        found.append(Capacity(id=f"{name}/credit", credit=round(account.credit * NANO), renews=renews))
    if account.free_images:
        found.append(Capacity(id=f"{name}/free", free=account.free_images, renews=renews))
    return found


def _offer(endpoint: Any, account: Any, capacities: Sequence[Capacity]) -> Offer:
    plain = SizeRule(min_side=1, max_side=1 << 15, multiple=1)
    sizes = replace(plain, max_pixels=round(endpoint.max_mp * MP))
    return Offer(
        id=f"{account.name}:{endpoint.name}",
        model=endpoint.model,
        account=account.name,
        kind=account.kind,
        endpoint=endpoint.name,
        tier=Tier(min(endpoint.quality, 3)),
        tariff=_tariff(endpoint),
        abilities=Abilities(sizes=sizes, max_count=100, default_steps=endpoint.default_steps),
        capacities=tuple(each.id for each in capacities if each.id.partition("/")[0] == account.name),
        typical_s=endpoint.typical_s,
    )


def _tariff(endpoint: Any) -> Tariff:
    price = round(endpoint.price * NANO)
    match endpoint.unit:
        case "mp":
            return PerMegapixel(price, rounding="exact")
        case "mp_ceil":
            return PerMegapixel(price)
        case "mp_step":
            return PerMegapixel(price, rounding="exact", default_steps=endpoint.default_steps)
        case "table":
            rows = tuple((round(upper * MP), round(cost * NANO)) for upper, cost in endpoint.table)
            return ResolutionTable(rows, beyond=rows[-1][1])
        case "image":
            return PerImage(price)
        case _:  # free, or our own: nothing is billed
            return PerImage(0)
