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
from typing import TypeAlias

ROUNDS, CALM_ROUNDS = 4, 3
"""How often a plan moves the bids, at most; and where the plan before has found them."""
_STEP = 0.5
"""How far the logarithm of a bid moves in a round where twice as much is used as there is. It is halved each time that
turns from too much to too little, or back: a bid would leap to and fro about its price otherwise, in every round."""
_ALIKE = 0.015
"""A bid that has moved by a smaller share moves no call, for no price is known better. A plan ends once none has."""
_FLOOR = 30_000.0
"""Nano-dollars; a bid below this is none."""
_CEILING = 50_000_000.0
_TEMPERATURE = 0.06
"""Of the least cost: how evenly a plan spreads a kind over offers that cost almost the same."""
_NARROWEST = 1_000.0
"""Nano-dollars; the least that comes of it."""
_NEAR = 4.0
"""So many times that: what costs as much more gets nothing."""
RARE = 1e-3
"""Calls a second; kinds that come less often are not planned."""
_CROWD = 2.0
"""Times the usual rate that make a crowd."""


class Demand:
    """Calls of one kind, as they come."""

    __slots__ = ("_quick", "_slow", "new", "rate", "slack", "worth_failure", "worth_late")

    def __init__(self) -> None:
        self.new = 0
        """Calls since the last plan."""
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
        self.new += 1
        step = 0.1 if self.slack else 1.0
        self.slack += step * (slack - self.slack)
        self.worth_late += step * (late - self.worth_late)
        self.worth_failure += step * (failure - self.worth_failure)

    def average(self, elapsed: float, slowly: float, quickly: float) -> None:
        """Fold the calls of the last `elapsed` seconds into the rate, by the steps of `averaging`."""
        now = self.new / elapsed
        self.new = 0
        self._slow += slowly * (now - self._slow)
        self._quick += quickly * (now - self._quick)
        self.rate = self._quick if self._quick > _CROWD * self._slow else self._slow


def averaging(elapsed: float, memory: float, age: float) -> tuple[float, float]:
    """How far averages over the memory, and over an eighth of it, move in `elapsed` seconds.

    `age` is how long anything has been counted. A crowd is believed as soon as it has come for that eighth.
    """
    return elapsed / max(min(memory, age), elapsed), elapsed / max(min(memory / 8.0, age), elapsed)


Use: TypeAlias = tuple[float, int, float, int]
"""Where a kind of call may go: what it costs there without any bid; the index of what it uses by the second, and for
how many seconds; the index of what it uses one of. An index of -1 stands for nothing that is scarce."""


class Kind:
    """A kind of call, and where the bids have it go."""

    __slots__ = ("indices", "is_new", "outside", "placed", "rate", "uses", "whole")

    def __init__(self, rate: float, outside: float, uses: Sequence[Use]) -> None:
        """`outside`: nano-dollars of not serving it at all."""
        self.rate, self.outside, self.uses = rate, outside, uses
        self.indices = {use[1] for use in uses} | {use[3] for use in uses}
        """The bids it depends on."""
        self.is_new = bool(uses)
        """Whether it was never spread."""
        self.placed: Sequence[tuple[float, int]] = ()
        """Weight -> the index of the use to which so much of the calls goes..."""
        self.whole = 1.0
        """...of this in all."""

    def __repr__(self) -> str:
        return f"<Kind {self.rate:.2f}/s over {len(self.uses)} uses>"

    def spread(self, values: Sequence[float]) -> None:
        """Spread the calls anew, where a unit of each scarce thing is worth so much."""
        uses = self.uses
        costs = [cost + values[resource] * seconds + values[rate] for cost, resource, seconds, rate in uses]
        least, self.is_new = min(costs), False
        if least >= self.outside:
            self.placed = ()
            return
        width = max(_TEMPERATURE * least, _NARROWEST)
        most = least + _NEAR * width
        near = [(exp((least - cost) / width), at) for at, cost in enumerate(costs) if cost < most]
        self.placed, self.whole = near, sum([weight for weight, _ in near])

    def load(self, loads: list[float]) -> None:
        """Add what it uses of each scarce thing, in units a second."""
        uses = self.uses
        each = self.rate / self.whole
        for weight, at in self.placed:
            _, resource, seconds, order = uses[at]
            rate = each * weight
            loads[resource] += rate * seconds
            loads[order] += rate


class Bid:
    """The price of one scarce thing."""

    __slots__ = ("load", "room", "told", "value")

    def __init__(self) -> None:
        self.value = 0.0
        """Nano-dollars a unit: a second of a slot or of a machine, or one order."""
        self.told = 0.0
        """The value by which calls were spread last."""
        self.room = 1.0
        """Units a second there are."""
        self.load = 0.0
        """Units a second the last plan uses."""

    def __repr__(self) -> str:
        return f"<Bid {self.value / 1e9:.6f} $, load {self.load:.2f} of {self.room:.2f}>"

    @property
    def has_moved(self) -> bool:
        """Whether calls would go elsewhere by now for all that is known."""
        return abs(self.value - self.told) > _ALIKE * self.told

    def move(self, step: float) -> None:
        """Move its logarithm a step."""
        value = min(max(self.value, _FLOOR) * exp(step), _CEILING)
        self.value = value if value > _FLOOR else 0.0


def plan(kinds: Iterable[Kind], bids: Sequence[Bid], settled: Iterable[Kind] = (), *, rounds: int = ROUNDS) -> float:
    """Move every bid towards the price at which the arrivals fit.

    Kinds that are `settled` stay where the plan before sent them. Answers how far the bids are from where they were:
    how many times more, or less, the one is that has moved furthest.
    """
    before = [max(bid.value, _FLOOR) for bid in bids]
    taken = [0.0] * (len(bids) + 1)  # the last takes what has no limit
    for kind in settled:
        kind.load(taken)
    steps, overs = [_STEP] * len(bids), [0.0] * len(bids)
    for turn in range(rounds):
        moved = {at for at, bid in enumerate(bids) if bid.has_moved}
        if turn and not moved:
            break
        for at in moved:
            bids[at].told = bids[at].value
        loads, values = taken.copy(), [*[bid.told for bid in bids], 0.0]
        for kind in kinds:
            if kind.is_new or not moved.isdisjoint(kind.indices):
                kind.spread(values)
            kind.load(loads)
        for at, bid in enumerate(bids):
            bid.load = loads[at]
            over = min(max(bid.load / bid.room - 1.0, -1.0), 1.0) if bid.room > 0.0 else 1.0
            if over * overs[at] < 0.0:
                steps[at] /= 2.0
            overs[at] = over
            bid.move(steps[at] * over)
    times = [max(bid.value, _FLOOR) / was for bid, was in zip(bids, before, strict=True)]
    return max([max(each, 1.0 / each) for each in times], default=1.0)


def highest(bids: Iterable[Bid]) -> list[float]:
    """What the bids can be at most once a plan has moved them, and the 0 of what is not scarce."""
    most = exp(_STEP * ROUNDS)
    return [*[min(max(bid.value, _FLOOR) * most, _CEILING) for bid in bids], 0.0]


def beside(least: float) -> float:
    """From which cost on a plan sends nothing to an offer, where another costs so much in all."""
    return least + _NEAR * max(_TEMPERATURE * least, _NARROWEST)
