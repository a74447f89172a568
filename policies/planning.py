"""Plans: every few seconds the arrivals of all kinds are folded in, and every bid price is moved (`scarcity.py`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import inf

from policies import pool, scarcity
from policies.concurrency import Limit
from policies.latency_forecast import SURELY
from policies.policy import Policy
from policies.prepaid import Purse
from policies.scarcity import Bid, Demand, Kind, Use
from policies.sellers import Shared
from policies.slates import Row, Slate
from policies.types import CapacityId, View


class Planner:
    """What is scarce, and what a unit of it is worth."""

    __slots__ = ("bids", "lanes", "limits", "purses")

    def __init__(self) -> None:
        self.limits: dict[CapacityId, Limit] = {}
        self.purses: dict[CapacityId, Purse] = {}
        self.bids: dict[CapacityId, Bid] = {}
        self.lanes: dict[CapacityId, dict[str, int]] = {}
        """Own machines -> model -> how many of them it should have."""

    def plan(
        self,
        slates: Iterable[Slate],
        sharing: Collection[Shared],
        view: View,
        policy: Policy,
        *,
        elapsed: float,
        age: float,
        now: float,
    ) -> None:
        """Move every bid. `elapsed`: seconds since the last plan; `age`: since anything has been counted."""
        terms = policy.scarcity
        places = {name: place for place, name in enumerate(self.bids)}
        used = {shared: _used(shared, places) for shared in sharing}
        self._set_rooms(sharing, view, policy)
        for purse in self.purses.values():
            purse.plan(elapsed, now)
        kinds, sources, highest = [], [], scarcity.highest(self.bids.values())
        for slate in slates:
            for demand in (slate.hurried, slate.patient):
                demand.average(elapsed, terms.memory, age)
                if demand.rate > 1e-3:
                    kind, rows = self._kind(slate, demand, used, highest, now)
                    kinds.append(kind)
                    sources.append(rows)
        for capacity in {shared.machines for shared in sharing if shared.machines is not None}:
            self._share_machines(capacity, places[capacity], kinds, sources, view)
        scarcity.plan(kinds, list(self.bids.values()), terms)
        for shared in sharing:
            if shared.machines is None:
                shared.bid_slot = self.bids[shared.slots[0]].value if shared.slots else 0.0
            shared.bid_order = sum([self.bids[name].value for name, _ in shared.rates])

    def _set_rooms(self, sharing: Iterable[Shared], view: View, policy: Policy) -> None:
        machines = {shared.machines for shared in sharing}
        for name, limit in self.limits.items():
            known = view.machines(name) if name in machines else None
            if known is not None:
                self.bids[name].room = len(known.up) * policy.pool.fullness
            else:
                self.bids[name].room = limit.value * policy.scarcity.fullness

    def _kind(
        self,
        slate: Slate,
        demand: Demand,
        used: Mapping[Shared, tuple[int, int]],
        highest: Sequence[float],
        now: float,
    ) -> tuple[Kind, Sequence[Row]]:
        """A kind of call for the plan, and the offer behind each of its uses.

        Offers that cost more than another whatever the plan makes of the bids, which can be `highest`, are left out.
        """
        uses, rows = [], []
        slack, late = demand.slack, demand.worth_late
        least = most = inf
        for row in slate.rows:
            seller, shared = row.seller, row.shared
            if seller.account.open_until > now or seller.breaker.open_until > now:
                continue
            if shared.machines is not None and self.bids[shared.machines].room <= 0.0:
                continue
            cost = row.floor * seller.bias * row.counted
            if shared.purses:
                premium, free_price = shared.prepaid(1)
                cost = free_price if free_price >= 0.0 else cost * (1.0 + premium)
            if cost >= most:
                continue
            expected = row.seconds[0] if row.version == seller.forecast.version else row.forecast()[0]
            if slack < SURELY * expected:
                cost += late * seller.forecast.above(expected, slack)
            resource, rate = used[shared]
            use = Use(cost, resource, expected, rate)
            uses.append(use)
            rows.append(row)
            dearest = use.total(highest)
            if dearest < least:
                least, most = dearest, scarcity.beside(dearest)
        # Not to serve is the alternative only where every offer has become far dearer than it is by itself.
        alone = min([use.cost for use in uses], default=0.0)
        return Kind(demand.rate, max(demand.worth_failure, 2.0 * alone, 1.0), uses), rows

    def _share_machines(
        self, capacity: CapacityId, place: int, kinds: Sequence[Kind], sources: Sequence[Sequence[Row]], view: View
    ) -> None:
        """How many machines of a pool each model should have, by what the bids in force would place there."""
        known = view.machines(capacity)
        if known is None:
            return
        loads: dict[str, float] = {}
        values = scarcity.worths(self.bids.values())
        for kind, rows in zip(kinds, sources, strict=True):
            if not kind.uses:
                continue
            costs = [use.total(values) for use in kind.uses]
            best = costs.index(min(costs))
            use, model = kind.uses[best], rows[best].seller.offer.model
            if use.resource == place:
                loads[model] = loads.get(model, 0.0) + kind.rate * use.seconds
        loaded = Counter(machine.model for machine in known.up if machine.model is not None)
        self.lanes[capacity] = pool.lanes(loads, loaded, len(known.up))


def _used(shared: Shared, places: Mapping[CapacityId, int]) -> tuple[int, int]:
    """Which bids an order there depends on: that of a second, and that of one order; -1 where nothing is scarce."""
    name = shared.machines or (shared.slots[0] if shared.slots else None)
    return -1 if name is None else places[name], places[shared.rates[0][0]] if shared.rates else -1
