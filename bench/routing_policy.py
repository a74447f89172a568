"""The gateway's engine as a policy of the routing harness: names are mapped, nothing is decided here.

Importable by any harness with the interface of `bench/routing/api.py`: `PixelgatePolicy` has `start`, `decide`,
`feedback` and `tick`, and reads nothing but the attributes named there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from policies.engine import CostEngine
from policies.policy import BreakerTerms, Crowding, Fallback, Intent, Policy
from policies.tariffs import PerImage, PerMegapixel, ResolutionTable, Tariff
from policies.types import (
    Ask,
    Capacity,
    Constraints,
    Event,
    EventKind,
    InLine,
    Live,
    Machine,
    Machines,
    Offer,
    Reason,
    Submit,
    Tier,
    Tried,
    Wait,
    Worth,
)
from providers.contract import Abilities, ImageRequest, SizeRule

NANO = 1e9
MP = 1 << 20
EVENTS: Mapping[str, EventKind] = {
    "ok": "ok",
    "error": "error",
    "throttled": "throttled",
    "timeout": "timeout",
    "no_credit": "misconfigured",
    "cancelled": "cancelled",
}
TRIED = {"error": "unavailable", "throttled": "overloaded", "timeout": "unavailable", "no_credit": "overloaded"}
POLICY = Policy(
    name="bench",
    revision=1,
    default_intent="draft",
    intents={"draft": Intent(name="draft", tier=Tier.PREVIEW, slo=4.0, deadline=64.0)},
    qualities={},
    fallback=Fallback(attempts=9, timeouts=9, better_tier=True, recurs=0.0),
    breaker=BreakerTerms(failures=3, timeout_counts=3, at_most=20.0, misconfigured_for=30.0),
    crowding=Crowding(last_slot=0),
    max_wait=1e6,
    punctuality=1.4,
)


class Decision(NamedTuple):
    """What the harness reads of a decision."""

    endpoint: int = -1
    wake_at: float = 0.0
    drop: bool = False


class PixelgatePolicy:
    """A `bench.routing.api.Policy`."""

    name = "pixelgate"
    policy = POLICY

    def start(self, endpoints: Sequence[Any], accounts: Sequence[Any], seed: int) -> None:  # noqa: ARG002 - no draws
        """Make the offers and the engine."""
        capacities = [capacity for account in accounts for capacity in _capacities(account)]
        self._offers = [_offer(each, accounts[each.account], capacities) for each in endpoints]
        self._index = {offer.id: index for index, offer in enumerate(self._offers)}
        self._accounts = {account.name: account.index for account in accounts}
        self._drafts = frozenset(each.model for each in endpoints if each.quality < 3)
        by_id = {offer.id: offer for offer in self._offers}
        self.engine = CostEngine(self.policy, {each.id: each for each in capacities}, by_id, thorough=False)
        self._requests: dict[tuple[float, int], ImageRequest] = {}
        self._out: dict[tuple[int, int, float], tuple[int, int, float]] = {}
        self._tried: dict[int, tuple[Tried, ...]] = {}
        self._line: dict[str, tuple[InLine, ...]] = {}
        self._stood: dict[int, tuple[str, InLine | None]] = {}
        self._waiting: Counter[str] = Counter()
        self.prices = 1

    def decide(self, request: Any, snapshot: Any, now: float, reason: Reason) -> Decision:
        """Ask the engine and say its answer in the harness's words."""
        self._snapshot = snapshot
        self._leave(request.id)
        move = self.engine.decide(self._ask(request, reason), self, now, reason).move
        if isinstance(move, Submit):
            return self._submit(request, move, now)
        if isinstance(move, Wait):
            self._stand(request, move)
            return Decision(-1, max(move.until, now + 1e-3))
        return Decision(drop=True)

    def feedback(self, event: Any, now: float) -> None:
        """Pass on what happened to an order."""
        kind = EVENTS.get(event.kind)
        if kind is None:
            return
        offer = self._offers[event.endpoint]
        in_flight, quoted, p95 = self._out.pop((event.request, event.endpoint, event.submitted), (1, 0, 0.0))
        if event.kind in TRIED:
            tried = Tried(offer.id, offer.account, TRIED[event.kind], elsewhere=True)
            self._tried[event.request] = (*self._tried.get(event.request, ()), tried)
        elif kind == "ok":
            self._tried.pop(event.request, None)
            self._leave(event.request)
            self.note_latency(event, p95)
        self.engine.observe(
            Event(
                kind=kind,
                offer=offer.id,
                pixels=round(event.mp * MP),
                count=event.n,
                in_flight=in_flight,
                latency=event.latency,
                queue_s=event.queue_s if event.queue_s >= 0 else None,
                retry_after=event.retry_after or None,
                cost=round(event.billed * NANO),
                quoted=quoted,
            ),
            now,
        )

    def tick(self, snapshot: Any, now: float) -> None:
        """Once a virtual second."""
        self._snapshot = snapshot
        self.engine.tick(self, now)

    def note_latency(self, event: Any, p95: float) -> None:
        """For those who want to know how good forecasts are."""

    # -- the engine's view of the market ----------------------------------------------------------

    def offers(self, models: frozenset[str] | None) -> Sequence[Offer]:
        """Offers of some models, or all."""
        return [offer for offer in self._offers if models is None or offer.model in models]

    def in_flight(self, capacity: str) -> int:
        """Orders in flight."""
        index = self._accounts.get(capacity)
        return 0 if index is None else int(self._snapshot.inflight[index])

    def waiting(self, capacity: str) -> int:
        """Requests held for want of a capacity."""
        return self._waiting[capacity]

    def machines(self, capacity: str) -> Machines | None:  # noqa: ARG002 - there is one pool
        """The own pool; only how many GPUs are up is known, and those that are down are not used for long."""
        snapshot = self._snapshot
        known = sorted(snapshot.gpu_state, key=lambda gpu: -gpu[1])[: snapshot.gpus_up]
        queued: dict[str, float] = {}
        for (model, _), seconds in snapshot.pool_queue.items():
            queued[model] = queued.get(model, 0.0) + seconds
        return Machines([Machine(model, until) for model, until in known], queued, self._line)

    # -- names ------------------------------------------------------------------------------------

    def _ask(self, request: Any, reason: Reason) -> Ask:
        shape = (request.mp, request.n)
        wish = self._requests.get(shape)
        if wish is None:
            wish = ImageRequest(prompt="-", width=1024, height=round(request.mp * 1024), count=request.n)
            self._requests[shape] = wish
        slo = request.deadline - request.arrival
        live = tuple([Live(self._offers[e].id, self._offers[e].account, at) for e, at in request.live])
        return Ask(
            call_id=str(request.id),
            part=0,
            request=wish,
            constraints=Constraints(
                tier=Tier(min(request.tier, 3)),
                models=self._drafts if request.tier < 2 else None,
                slo=slo,
                deadline=slo + (120.0 if request.tier > 1 else 60.0),
            ),
            worth=Worth(
                late=round(request.miss_penalty * NANO), late_second=0, failure=round(request.fail_penalty * NANO)
            ),
            arrived=request.arrival,
            tried=self._tried.get(request.id, ()) if reason != "new" else (),
            live=live,
        )

    def _submit(self, request: Any, move: Submit, now: float) -> Decision:
        chosen = move.candidate
        index = self._index[chosen.offer.id]
        in_flight = int(self._snapshot.inflight[self._accounts[chosen.offer.account]]) + 1
        self._out[(request.id, index, now)] = (in_flight, chosen.quote.amount, chosen.latency_p95)
        self.engine.observe(
            Event(kind="submitted", offer=chosen.offer.id, pixels=round(request.mp * MP), count=request.n), now
        )
        return Decision(index, move.wake_at or 0.0)

    def _stand(self, request: Any, move: Wait) -> None:
        if move.capacity is None or move.best is None or request.live:
            return
        self._waiting[move.capacity] += 1
        self._stood[request.id] = (move.capacity, move.line)
        if move.line is not None:
            self._line[move.line.model] = (*self._line.get(move.line.model, ()), move.line)

    def _leave(self, request: int) -> None:
        stood = self._stood.pop(request, None)
        if stood is None:
            return
        capacity, line = stood
        self._waiting[capacity] -= 1
        if line is not None:
            self._line[line.model] = tuple([each for each in self._line[line.model] if each is not line])


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
