"""Plans: every few seconds the arrivals of all kinds are folded in, and every bid price is moved (`scarcity.py`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import inf
from typing import NamedTuple

from policies import pool, scarcity
from policies.concurrency import Limit
from policies.latency_forecast import SURELY
from policies.policy import Policy, Scarcity
from policies.prepaid import Purse
from policies.scarcity import Bid, Demand, Kind
from policies.sellers import Seller, Shared
from policies.slates import Row, Slate
from policies.types import CapacityId, Machines, View

_SMALL = 0.02
"""A kind that brings a smaller share of all arrivals is small: two thirds of all kinds, with a fifth of the calls."""
_TURNS = 4
"""Small kinds are looked at anew in turn, one in so many at each plan, for looking takes longest. Where every other of
those that bring more was looked at as well, an outage cost two percent more, and a crowd that came at once."""
_FAR = 1.4
"""A bid that a plan has moved by more than so many times has not found its price yet..."""
_HASTE = 0.1
"""...and the next plan comes after this share of the usual time: a crowd that comes at once cannot wait for it."""
_ENOUGH = 30
"""Fewer calls than these since the last plan tell little..."""
_LEISURE = 2.0
"""...and it is so many times as long to the next one, if no more come."""


class Planned(NamedTuple):
    """A kind of call as a plan has it, and the offer behind each of its uses."""

    slate: Slate
    rows: Sequence[Row]
    kind: Kind


class Planner:
    """What is scarce, and what a unit of it is worth."""

    __slots__ = ("_closed", "_planned", "_seeking", "_turn", "bids", "calls", "lanes", "least_bias", "limits", "purses")

    def __init__(self) -> None:
        self.limits: dict[CapacityId, Limit] = {}
        self.purses: dict[CapacityId, Purse] = {}
        self.bids: dict[CapacityId, Bid] = {}
        self.lanes: dict[CapacityId, dict[str, int]] = {}
        """Own machines -> model -> how many of them it should have."""
        self.calls = 0
        """That have come since the last plan."""
        self.least_bias = 1.0
        """No seller bills less than this share of what it quotes."""
        self._planned: dict[Demand, Planned] = {}
        self._turn = 0
        self._seeking = False
        """Whether the last plan left prices that have not been found."""
        self._closed: Sequence[bool] = ()

    def pause(self, every: float) -> float:
        """Seconds from the last plan to the next, where there is usually one `every` so often."""
        if self._seeking:
            return _HASTE * every
        return every if self.calls >= _ENOUGH else _LEISURE * every

    def plan(
        self,
        slates: Iterable[Slate],
        sellers: Collection[Seller],
        view: View,
        policy: Policy,
        *,
        elapsed: float,
        age: float,
        now: float,
    ) -> None:
        """Move every bid. `elapsed`: seconds since the last plan; `age`: since anything has been counted."""
        self.calls = 0
        terms, sharing = policy.scarcity, list(dict.fromkeys([seller.shared for seller in sellers]))
        places = {name: place for place, name in enumerate(self.bids)}
        used = {shared: _used(shared, places) for shared in sharing}
        pools = {shared.machines: view.machines(shared.machines) for shared in sharing if shared.machines is not None}
        self._set_rooms(pools, policy)
        self.least_bias = min([seller.bias for seller in sellers], default=1.0)
        for purse in self.purses.values():
            purse.plan(elapsed, now)
        self._note_closed(sellers, now)
        demands = self._average(slates, terms, elapsed, age)
        kinds, settled = self._kinds_of(demands, used, now)
        rounds = scarcity.ROUNDS if self._seeking else scarcity.CALM_ROUNDS
        self._seeking = scarcity.plan(kinds, list(self.bids.values()), settled, rounds=rounds) > _FAR
        for capacity, machines in pools.items():
            if machines is not None:
                self._share_machines(capacity, places[capacity], machines)
        for shared in sharing:
            if shared.machines is None:
                shared.bid_slot = self.bids[shared.slots[0]].value if shared.slots else 0.0
            shared.bid_order = sum([self.bids[name].value for name, _ in shared.rates])

    def _average(
        self, slates: Iterable[Slate], terms: Scarcity, elapsed: float, age: float
    ) -> Sequence[tuple[Slate, Demand]]:
        """Fold in the calls since the last plan; answers what is asked for often enough to be planned."""
        slowly, quickly = scarcity.averaging(elapsed, terms.memory, age)
        found = []
        for slate in slates:
            for demand in (slate.hurried, slate.patient):
                if demand.new or demand.rate:  # else it was never asked for
                    demand.average(elapsed, slowly, quickly)
                    if demand.rate > scarcity.RARE:
                        found.append((slate, demand))
        return found

    def _set_rooms(self, pools: Mapping[CapacityId, Machines | None], policy: Policy) -> None:
        for name, limit in self.limits.items():
            machines = pools.get(name)
            if machines is not None:
                self.bids[name].room = len(machines.up) * policy.pool.fullness
            else:
                self.bids[name].room = limit.value * policy.scarcity.fullness

    def _note_closed(self, sellers: Iterable[Seller], now: float) -> None:
        """Look at all offers anew where some are left alone that were not, or are no longer."""
        closed = [seller.account.open_until > now or seller.breaker.open_until > now for seller in sellers]
        closed += [bid.room <= 0.0 for bid in self.bids.values()]
        if closed != self._closed:
            self._planned, self._closed = {}, closed

    def _kinds_of(
        self, demands: Sequence[tuple[Slate, Demand]], used: Mapping[Shared, tuple[int, int]], now: float
    ) -> tuple[Sequence[Kind], Sequence[Kind]]:
        """The kinds of call that follow the bids; and the small ones, which stay where they are until their turn comes.

        While nothing is scarce there is nothing to follow, and all are small.
        """
        before, self._planned = self._planned, {}
        self._turn += 1
        scarce = any(bid.value for bid in self.bids.values())
        few = _SMALL * sum([demand.rate for _, demand in demands]) if scarce else inf
        highest = scarcity.highest(self.bids.values())
        moving: list[Kind] = []
        settled: list[Kind] = []
        for place, (slate, demand) in enumerate(demands):
            is_small, planned = demand.rate < few, before.get(demand)
            has_turn = not is_small or (self._turn + place) % _TURNS == 0
            if planned is None or planned.slate is not slate or has_turn:
                planned = self._look(slate, demand, used, highest, now)
            (settled if is_small and not planned.kind.is_new else moving).append(planned.kind)
            planned.kind.rate = demand.rate
            self._planned[demand] = planned
        return moving, settled

    def _look(
        self,
        slate: Slate,
        demand: Demand,
        used: Mapping[Shared, tuple[int, int]],
        highest: Sequence[float],
        now: float,
    ) -> Planned:
        """A kind of call for the plan, and the offer behind each of its uses: those that are not left alone.

        Offers that cost more than another whatever the plan makes of the bids, which can be `highest`, are left out.
        """
        uses: list[scarcity.Use] = []
        rows: list[Row] = []
        slack, late = demand.slack, demand.worth_late
        least = most = inf
        least_bias = self.least_bias
        for each in (slate.others, slate.steady):
            for row in each:
                seller, shared = row.seller, row.shared
                if seller.account.open_until > now or seller.breaker.open_until > now:
                    continue
                if shared.machines is not None and self.bids[shared.machines].room <= 0.0:
                    continue
                cost = row.price * seller.bias
                if shared.purses:
                    premium, free_price = shared.prepaid(1)
                    cost = free_price if free_price >= 0.0 else cost * (1.0 + premium)
                if cost >= most:
                    if row.steady and row.price * least_bias >= most:
                        break  # as do all that follow
                    continue
                forecast = seller.forecast
                expected = row.expected if row.version == forecast.version else row.forecast()
                if slack < SURELY * expected:
                    cost += late * forecast.above(expected, slack)
                resource, rate = used[shared]
                uses.append((cost, resource, expected, rate))
                rows.append(row)
                dearest = cost + highest[resource] * expected + highest[rate]
                if dearest < least:
                    least, most = dearest, scarcity.beside(dearest)
        # Not to serve is the alternative only where every offer has become far dearer than it is by itself.
        alone = min([cost for cost, *_ in uses], default=0.0)
        return Planned(slate, rows, Kind(demand.rate, max(demand.worth_failure, 2.0 * alone, 1.0), uses))

    def _share_machines(self, capacity: CapacityId, place: int, machines: Machines) -> None:
        """How many machines of a pool each model should have, by what the plan places there."""
        loads: dict[str, float] = {}
        for _, rows, kind in self._planned.values():
            if place not in kind.indices:
                continue
            each = kind.rate / kind.whole
            for weight, at in kind.placed:
                _, resource, seconds, _ = kind.uses[at]
                if resource == place:
                    model = rows[at].offer.model
                    loads[model] = loads.get(model, 0.0) + each * weight * seconds
        loaded = Counter([model for model, _ in machines.up if model is not None])
        self.lanes[capacity] = pool.lanes(loads, loaded, len(machines.up))


def _used(shared: Shared, places: Mapping[CapacityId, int]) -> tuple[int, int]:
    """Which bids an order there depends on: that of a second, and that of one order; -1 where nothing is scarce."""
    name = shared.machines or (shared.slots[0] if shared.slots else None)
    return -1 if name is None else places[name], places[shared.rates[0][0]] if shared.rates else -1
