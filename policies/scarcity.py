"""Bid prices: what a slot, an order of a rate, or a second of a GPU is worth to the calls that will come.

Network revenue management in small. Calls come in kinds (what is asked for, and how urgently); how many of each come
a second is averaged over the last minutes. A plan spreads these arrivals over the offers, each kind where it costs
least, the bid prices of what is used included; where more is used than there is, the bid rises, else it falls. After a
few rounds the bids are those at which demand fits. Nothing here decides about a call: scorers charge the bids, and a
call goes where that leaves the least total.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp

from msgspec import Struct

from policies.policy import Scarcity

_ROUNDS = 8
_STEP = 0.25
_FLOOR = 30_000.0
"""Nano-dollars; a bid below this is none."""
_CEILING = 50_000_000.0
_TEMPERATURE = 0.06
"""Of the least cost: how evenly a plan spreads a kind over offers that cost almost the same."""
_NARROWEST = 1_000.0
"""Nano-dollars; the least that comes of it."""
_NEAR = 4.0
"""So many times that: what costs as much more gets nothing."""
_RARE = 1e-3
_CROWD = 2.0
"""Times the usual rate that make a crowd."""


class Demand:
    """Calls of one kind, as they come."""

    __slots__ = ("_new", "_quick", "_slow", "rate", "slack", "worth_failure", "worth_late")

    def __init__(self) -> None:
        self._new = 0
        self._slow = self._quick = 0.0
        self.rate = 0.0
        """Calls a second."""
        self.slack = 0.0
        """Seconds they leave, on average."""
        self.worth_late = 0.0
        self.worth_failure = 0.0

    def __repr__(self) -> str:
        return f"<Demand {self.rate:.2f}/s, {self.slack:.1f} s each>"

    def came(self, slack: float, late: float, failure: float) -> None:
        """Count a call."""
        self._new += 1
        step = 0.1 if self.slack else 1.0
        self.slack += step * (slack - self.slack)
        self.worth_late += step * (late - self.worth_late)
        self.worth_failure += step * (failure - self.worth_failure)

    def average(self, elapsed: float, memory: float, age: float) -> None:
        """Fold the calls of the last `elapsed` seconds into the rate; `age` is how long anything has been counted.

        A crowd is believed as soon as it has come for an eighth of the memory.
        """
        now = self._new / elapsed
        self._new = 0
        self._slow += elapsed / max(min(memory, age), elapsed) * (now - self._slow)
        self._quick += elapsed / max(min(memory / 8.0, age), elapsed) * (now - self._quick)
        self.rate = self._quick if self._quick > _CROWD * self._slow else self._slow


class Use(Struct, frozen=True, gc=False):
    """Where a kind of call may go: what it costs there without any bid, and what it uses."""

    cost: float
    resource: int
    """Index of what it uses by the second; -1: nothing that is scarce."""
    seconds: float
    rate: int = -1
    """Index of what it uses one of; -1: nothing."""

    def total(self, values: Sequence[float]) -> float:
        """What it costs with the bids, of which `values` are the worth of a unit each; the last, of nothing, is 0."""
        return self.cost + values[self.resource] * self.seconds + values[self.rate]


class Kind(Struct, frozen=True, gc=False):
    """A kind of call, ready to be planned."""

    rate: float
    outside: float
    """Nano-dollars of not serving it at all."""
    uses: Sequence[Use]


class Bid:
    """The price of one scarce thing."""

    __slots__ = ("load", "room", "value")

    def __init__(self) -> None:
        self.value = 0.0
        """Nano-dollars a unit: a second of a slot or of a machine, or one order."""
        self.room = 1.0
        """Units a second there are."""
        self.load = 0.0
        """Units a second the last plan uses."""

    def __repr__(self) -> str:
        return f"<Bid {self.value / 1e9:.6f} $, load {self.load:.2f} of {self.room:.2f}>"


def plan(kinds: Iterable[Kind], bids: Sequence[Bid], terms: Scarcity, rounds: int = _ROUNDS) -> None:
    """Move every bid towards the price at which the arrivals fit."""
    del terms
    common = [_Spread(kind) for kind in kinds if kind.rate > _RARE and kind.uses]
    last: Sequence[float] = ()
    for _ in range(rounds):
        loads = [0.0] * (len(bids) + 1)  # the last takes what has no limit
        values = worths(bids)
        moved = {at for at, value in enumerate(last) if value != values[at]}
        for spread in common:
            if not last or not moved.isdisjoint(spread.indices):
                spread.over(values)
            for index, load in spread.loads:
                loads[index] += load
        last = values
        calm = True
        for bid, load in zip(bids, loads, strict=False):
            bid.load = load
            over = load / bid.room - 1.0 if bid.room > 0.0 else 1.0
            before = bid.value
            bid.value = min(max(bid.value, _FLOOR) * exp(_STEP * min(max(over, -1.0), 1.0)), _CEILING)
            if bid.value <= _FLOOR:
                bid.value = 0.0
            calm = calm and bid.value == before
        if calm:
            return


def highest(bids: Iterable[Bid], rounds: int = _ROUNDS) -> list[float]:
    """What `worths` can be at most while a plan moves them."""
    most = exp(_STEP * rounds)
    return [*[min(max(bid.value, _FLOOR) * most, _CEILING) for bid in bids], 0.0]


def beside(least: float) -> float:
    """From which cost on a plan sends nothing to an offer, where another costs so much in all."""
    return least + _NEAR * max(_TEMPERATURE * least, _NARROWEST)


def worths(bids: Iterable[Bid]) -> list[float]:
    """Nano-dollars of a unit of each scarce thing, and 0 for what is not scarce at the end."""
    return [*[bid.value for bid in bids], 0.0]


class _Spread:
    """A kind of call, and where the bids of a round would have it go."""

    __slots__ = ("indices", "kind", "loads", "uses")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.uses = [(use.cost, use.resource, use.seconds, use.rate) for use in kind.uses]
        self.indices = {use[1] for use in self.uses} | {use[3] for use in self.uses}
        """The bids it depends on."""
        self.loads: list[tuple[int, float]] = []
        """Index of a bid -> units a second that are used of it."""

    def over(self, values: Sequence[float]) -> None:
        """Spread the calls anew."""
        uses, kind = self.uses, self.kind
        costs = [cost + values[resource] * seconds + values[rate] for cost, resource, seconds, rate in uses]
        least = min(costs)
        if least >= kind.outside:
            self.loads = []
            return
        most = beside(least)
        near = [at for at, cost in enumerate(costs) if cost < most]
        if len(near) == 1:
            _, resource, seconds, rate = uses[near[0]]
            self.loads = [(resource, kind.rate * seconds), (rate, kind.rate)]
            return
        width = max(_TEMPERATURE * least, _NARROWEST)
        weights = [exp((least - costs[at]) / width) for at in near]
        whole = kind.rate / sum(weights)
        self.loads = loads = []
        for at, weight in zip(near, weights, strict=True):
            _, resource, seconds, rate = uses[at]
            share = whole * weight
            loads.append((resource, share * seconds))
            loads.append((rate, share))
