"""The engine that serves, as a policy of the simulator: names are mapped, nothing is decided here.

A driver keeps what the live gateway keeps around the engine: what is in flight, who waits and who stands in line for
what (`policies/waiting.py`), and how the orders of each request ended. Whoever derives from it says what a request asks
for (`ask_of`).

A simulator that asks who is `due` has those in line woken in their order as room comes free. In one that does not, they
are woken when room is expected, see for themselves whether it is their turn, and only then is the engine asked; whoever
has to leave the crowd learns it then.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from msgspec import Struct

from policies.engine import CostEngine
from policies.offline.contract import Decision
from policies.policy import Policy
from policies.pool import Held
from policies.types import (
    Ask,
    Event,
    EventKind,
    InLine,
    Live,
    Machine,
    Machines,
    Offer,
    Reason,
    Submit,
    Tried,
    Wait,
)
from policies.waiting import Crowd, Line, Place, Spot, rank

_SOONEST_S = 0.1
_NEXT_S = 0.005
_PATIENCE = 0.005
"""Of the time it has to spare, within which a part that nobody wakes need not see a machine come free."""
_NEAR_S = 1.5
_PART_WAY = 0.75
"""When room is expected within the former, who waits for it looks then; else after this share of the time, for others
may come before, or leave."""

EVENTS: Mapping[str, EventKind] = {
    "ok": "ok",
    "error": "error",
    "throttled": "throttled",
    "timeout": "timeout",
    "no_credit": "misconfigured",
    "cancelled": "cancelled",
}


class Out(Struct, frozen=True, gc=False):
    """An order under way, as it was when it went out."""

    in_flight: int
    quoted: int
    p95: float
    pixels: int
    pictures: int
    steps: int | None


class Standing(Place):
    """One request that waits, and where it stands in line."""

    __slots__ = ("asked_at", "deadline", "part", "request", "spot", "until")

    def __init__(self, request: Any, ask: Ask) -> None:
        super().__init__(ask.team, ask.worth.failure, ask.arrived)
        self.request = request
        self.deadline = ask.arrived + ask.constraints.deadline
        self.asked_at = -inf
        self.until = -inf
        """When it is asked again, room or not."""
        self.spot: tuple[str, Spot] | None = None
        """The capacity it stands in line for, and its place there."""
        self.part: InLine | None = None
        """What it stands in line for a machine with."""


class Driver(ABC):
    """A `policies.offline.contract.Policy`, and the engine's `View` of the market."""

    name = "pixelgate"
    engine: CostEngine
    errors: Mapping[str, str] = {
        "error": "unavailable",
        "throttled": "overloaded",
        "timeout": "timed_out",
        "no_credit": "overloaded",
    }
    """How an order ended in the simulator -> the `kind` of the `ProviderError` that the gateway would see."""

    def begin(
        self, engine: CostEngine, policy: Policy, offers: Sequence[Offer], accounts: Mapping[str, int], *, nano: float
    ) -> None:
        """Start over. `offers` stand in the order of the world's endpoints; `nano` nano-dollars are its unit of money.

        `accounts`: capacity of an account's slots -> its index in the world.
        """
        self.engine = engine
        self._priorities = {name: intent.priority for name, intent in policy.intents.items()}
        self.prices = 1
        self._offers = offers
        self._nano = nano
        self._index = {offer.id: index for index, offer in enumerate(offers)}
        self._accounts = accounts
        self._account_of = [accounts[offer.account] for offer in offers]
        self._by_models: dict[frozenset[str], list[Offer]] = {}
        self._out: dict[tuple[int, int, float], Out] = {}
        self._tried: dict[int, tuple[Tried, ...]] = {}
        self._crowd: Crowd[Standing] = Crowd(policy.max_waiting)
        self._standing: dict[int, Standing] = {}
        self._expires = inf
        """When the first of those who wait will want nothing any more."""
        self._sent_away: dict[int, Any] = {}
        self._leaving: Any = None
        self._lines: dict[str, Line[Standing]] = {}
        self._machine_lines: dict[str, Held[Standing]] = {}
        """By model."""
        self._machines: dict[str, str] = {}
        """Model -> the capacity that its machines are of."""
        self._asking = 0.0
        self._stirred: dict[str, None] = {}
        """Capacities of which something may have come free."""
        self._stirred_machines = False
        """Whether a machine may have come free, or who stands first in line for one has changed."""
        self._offered: dict[str, tuple[Standing, Sequence[Machine]]] = {}
        """Model -> who was asked last, and about which machines that were idle then: it does not want these."""
        self._is_asked = False
        """Whether the simulator asks who is due."""

    @abstractmethod
    def ask_of(self, request: Any, tried: tuple[Tried, ...], live: tuple[Live, ...]) -> Ask:
        """What a request asks of the engine."""

    def decide(self, r: Any, s: Any, now: float, reason: Reason) -> Decision:
        """Ask the engine and say its answer in the simulator's words."""
        self._snapshot = s
        if self._sent_away.pop(r.id, None) is not None or r is self._leaving:
            return Decision(drop=True)
        standing = self._standing.get(r.id)
        if standing is not None:
            if not self._is_asked and reason == "wake" and (later := self._not_yet(standing, now)) is not None:
                return Decision(-1, later)
            standing.asked_at = now
            if reason == "room" and standing.part is not None:
                reason = "wake"  # a machine is to be had; that says nothing of other accounts
            self._step_out(standing)
        tried = self._tried.get(r.id, ()) if reason != "new" else ()
        live = tuple([Live(self._offers[e].id, self._offers[e].account, at) for e, at in r.live]) if r.live else ()
        ask = self.ask_of(r, tried, live)
        priority = self._priorities.get(ask.intent, 0.0)
        self._asking = rank(ask.arrived, priority)
        move = self.engine.decide(ask, self, now, reason).move
        if isinstance(move, Wait) and not live:
            behind = rank(ask.arrived, priority, lost=True) if move.lost else self._asking
            return self._stand(standing or Standing(r, ask), behind, move, now)
        self._leave(r.id)
        if isinstance(move, Submit):
            return self._submit(r, ask, move, now)
        if isinstance(move, Wait):
            return Decision(-1, max(move.until, now + 1e-3))
        return Decision(drop=True)

    def feedback(self, event: Any, now: float) -> None:
        """Pass on what happened to an order."""
        kind = EVENTS.get(event.kind)
        if kind is None:
            return
        offer = self._offers[event.endpoint]
        for name in offer.capacities:
            if name in self._machines.values():
                self._stirred_machines = True
            elif self._lines.get(name):
                self._stirred[name] = None
        out = self._out.pop((event.request, event.endpoint, event.submitted))
        if event.kind in self.errors:
            tried = Tried(offer.id, offer.account, self.errors[event.kind], elsewhere=True)
            self._tried[event.request] = (*self._tried.get(event.request, ()), tried)
        elif kind == "ok":
            self._tried.pop(event.request, None)
            self._leave(event.request)
            self.note_latency(event, out.p95)
        self.engine.observe(
            Event(
                kind=kind,
                offer=offer.id,
                pixels=out.pixels,
                count=out.pictures,
                steps=out.steps,
                in_flight=out.in_flight,
                latency=event.latency,
                queue_s=event.queue_s if event.queue_s >= 0 else None,
                retry_after=event.retry_after or None,
                cost=round(event.billed * self._nano),
                quoted=out.quoted,
            ),
            now,
        )

    def tick(self, snapshot: Any, now: float) -> None:
        """Once a virtual second."""
        self._snapshot = snapshot
        self.engine.tick(self, now)
        if now >= self._expires:
            for standing in self._crowd:
                if standing.deadline <= now:
                    self._leave(standing.request.id)
            self._expires = min([standing.deadline for standing in self._crowd], default=inf)
        for name, line in self._lines.items():
            if line:
                self._stirred[name] = None  # tokens and pauses end
        self._stirred_machines = True  # they come and go

    def due(self, snapshot: Any, now: float) -> Any | None:
        """The next that waits and is to be asked at once: it has to leave, or there is room and it is its turn."""
        self._snapshot = snapshot
        self._is_asked = True
        if self._sent_away:
            self._leaving = self._sent_away.popitem()[1]
            return self._leaving
        if not self._standing:
            self._stirred.clear()
            self._stirred_machines = False
            return None
        while self._stirred:
            capacity = next(iter(self._stirred))
            head = self._first_in_line(capacity, now)
            if head is None:
                del self._stirred[capacity]
            elif self._is_next(head, now):
                return head.request
            elif head.request.id in self._standing:  # it has been asked, and does not want it
                del self._stirred[capacity]
        return self._due_for_machines(now)

    def _due_for_machines(self, now: float) -> Any | None:
        """The first of those who wait for machines of a model, once there is one to be had."""
        if not self._stirred_machines:
            return None
        for capacity in dict.fromkeys(self._machines.values()):
            known = self.machines(capacity)
            if known is None or not (idle := _idle(known, now)):
                continue
            for model, held in self._machine_lines.items():
                if held and self._machines.get(model) == capacity:
                    first = self._next_for(held, capacity, model, known, idle, now)
                    if first is not None:
                        return first.request
        self._stirred_machines = False
        return None

    def _next_for(
        self, held: Held[Standing], capacity: str, model: str, known: Machines, idle: Sequence[Machine], now: float
    ) -> Standing | None:
        """Who of a line is to be asked about the machines that are idle now."""
        while (first := held.first(self.engine.bids()[capacity].value)) is not None and first.part is not None:
            if self._offered.get(model) == (first, idle):
                return None
            look = self.engine.outlook(capacity, first.part, known, now)
            if look is None or not look.place:
                return None
            self._offered[model] = (first, idle)
            if self._is_next(first, now):
                return first
        return None

    def _first_in_line(self, capacity: str, now: float) -> Standing | None:
        """Who is next of those for whom a capacity has room."""
        line = self._lines.get(capacity)
        if not line:
            return None
        busy = self.in_flight(capacity)
        found = line.next(lambda spare: self.engine.room(capacity, busy, now, spare) <= 0.0)
        return None if found is None else found[1]

    def _is_next(self, standing: Standing, now: float) -> bool:
        """Whether one who stands first is to be asked; who waits no longer leaves."""
        if standing.deadline <= now:
            self._leave(standing.request.id)
            return False
        asked, standing.asked_at = standing.asked_at, now
        return asked < now

    def note_latency(self, event: Any, p95: float) -> None:  # noqa: B027 - only the bench wants to know
        """For those who want to know how good forecasts are."""

    # -- the engine's view of the market ----------------------------------------------------------

    def offers(self, models: frozenset[str] | None) -> Sequence[Offer]:
        """Offers of some models, or all."""
        if models is None:
            return self._offers
        found = self._by_models.get(models)
        if found is None:
            found = self._by_models[models] = [offer for offer in self._offers if offer.model in models]
        return found

    def in_flight(self, capacity: str) -> int:
        """Orders in flight."""
        index = self._accounts.get(capacity)
        busy: int = 0 if index is None else self._snapshot.inflight[index]
        return busy

    def waiting(self, capacity: str) -> int:
        """Requests held for want of a capacity that go before the one that is decided about."""
        line = self._lines.get(capacity)
        return line.ahead(self._asking) if line else 0

    def machines(self, capacity: str) -> Machines | None:  # noqa: ARG002 - servers of ours say nothing of theirs
        """None: an inference server of our own is known by its slots alone."""
        return None

    # -- what is under way, and who waits ---------------------------------------------------------

    def _submit(self, request: Any, ask: Ask, move: Submit, now: float) -> Decision:
        chosen = move.candidate
        wish = ask.constraints.asked(chosen.offer.id, ask.request)
        index = self._index[chosen.offer.id]
        pixels = wish.width * wish.height
        in_flight = int(self._snapshot.inflight[self._account_of[index]]) + 1
        self._out[request.id, index, now] = Out(
            in_flight, chosen.quote.amount, chosen.latency_p95, pixels, wish.count, wish.steps
        )
        self.engine.observe(
            Event(kind="submitted", offer=chosen.offer.id, pixels=pixels, count=wish.count, steps=wish.steps), now
        )
        return Decision(index, move.wake_at or 0.0)

    def _stand(self, standing: Standing, behind: float, move: Wait, now: float) -> Decision:
        """Have a request wait, behind all of less rank."""
        request = standing.request
        if request.id not in self._standing:
            self._standing[request.id] = standing
            self._expires = min(self._expires, standing.deadline)
            for least in self._crowd.enter(standing):
                self._leave(least.request.id)
                if least is standing:
                    return Decision(drop=True)
                self._sent_away[least.request.id] = least.request
        standing.asked_at = now
        standing.until = now + self._line_up(standing, behind, move, now)
        later = None if self._is_asked else self._not_yet(standing, now)
        return Decision(-1, standing.until if later is None else later)

    def _line_up(self, standing: Standing, behind: float, move: Wait, now: float) -> float:
        """Have one stand in the line for what it lacks; answers the seconds until it is asked again, room or not."""
        wanted = max(move.until - now, 1e-3)
        if move.line is not None:  # the first of these is asked once a machine is to be had
            standing.part, model = move.line, move.line.model
            if move.capacity is not None:
                self._machines[model] = move.capacity
            held = self._machine_lines.get(model)
            if held is None:
                held = self._machine_lines[model] = Held()
            held.join(move.line, standing)
            return wanted
        if move.capacity is not None and move.best is not None:
            line = self._lines.get(move.capacity)
            if line is None:
                line = self._lines[move.capacity] = Line()
            standing.spot = (move.capacity, line.join(behind, standing, move.spare))
            if len(line) == 1 and (room := self.engine.room(move.capacity, self.in_flight(move.capacity), now)) > 0.0:
                wanted = min(wanted, room)  # a token of a rate, or the end of a pause: nothing else tells of them
        return self._crowd.pause(standing, wanted)

    # -- where a simulator asks nobody who waits ---------------------------------------------------

    def _not_yet(self, standing: Standing, now: float) -> float | None:
        """When to see again whether there is room for one that waits; None: there is, or it has waited long enough."""
        if now >= standing.until:
            return None
        if standing.part is not None:
            wait_s = self._until_machine(standing, standing.part, now)
            soonest = max(_NEXT_S, _PATIENCE * (standing.part.due - now))
        else:
            wait_s = self._until_room(standing, now)
            soonest = _SOONEST_S
        if wait_s <= 0.0:
            return None
        return min(standing.until, now + max(wait_s if wait_s < _NEAR_S else _PART_WAY * wait_s, soonest))

    def _until_machine(self, standing: Standing, part: InLine, now: float) -> float:
        """Seconds until a machine may be had; 0: one is to be had."""
        capacity = self._machines.get(part.model)
        known = None if capacity is None else self.machines(capacity)
        if capacity is None or known is None:
            return 0.0
        look = self.engine.outlook(capacity, part, known, now)
        if look is None or not look.place:
            return inf if look is None else look.wait_s
        idle = _idle(known, now)
        if self._offered.get(part.model) == (standing, idle):
            return _NEAR_S
        self._offered[part.model] = (standing, idle)
        return 0.0

    def _until_room(self, standing: Standing, now: float) -> float:
        """Seconds until a capacity may have room for all in line up to this one; 0: it has."""
        if standing.spot is None:
            return inf
        capacity, spot = standing.spot
        ahead = self._lines[capacity].ahead(spot.rank)
        wait_s = self.engine.room(capacity, self.in_flight(capacity) + ahead, now, spot.spare)
        return min(wait_s, _SOONEST_S * (1 + ahead)) if wait_s > 0.0 else 0.0

    def _step_out(self, standing: Standing) -> None:
        """Whoever is asked stands in no line meanwhile."""
        if standing.spot is not None:
            (capacity, spot), standing.spot = standing.spot, None
            self._lines[capacity].leave(spot)
        if standing.part is not None:
            part, standing.part = standing.part, None
            self._stirred_machines = True
            self._machine_lines[part.model].leave(part, standing)

    def _leave(self, request: int) -> None:
        """A request waits no longer."""
        standing = self._standing.get(request)
        if standing is not None:
            self._step_out(standing)
            del self._standing[request]
            self._crowd.leave(standing)


def _idle(known: Machines, now: float) -> Sequence[Machine]:
    """The machines that have nothing to do; the study's harness gives plain pairs."""
    return [machine for machine in known.up if machine[1] <= now]
