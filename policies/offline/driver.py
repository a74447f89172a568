"""The engine that serves, as a policy of the simulator: names are mapped, nothing is decided here.

A driver keeps what the live gateway keeps around the engine: what is in flight, who stands in line for what, and how
the orders of each request ended. Whoever derives from it says what a request asks for (`ask_of`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from policies.offline.contract import Decision
from policies.types import (
    Ask,
    Engine,
    Event,
    EventKind,
    InLine,
    Live,
    Machines,
    Offer,
    Reason,
    Submit,
    Tried,
    Wait,
)

EVENTS: Mapping[str, EventKind] = {
    "ok": "ok",
    "error": "error",
    "throttled": "throttled",
    "timeout": "timeout",
    "no_credit": "misconfigured",
    "cancelled": "cancelled",
}


class Out(NamedTuple):
    """An order under way, as it was when it went out."""

    in_flight: int
    quoted: int
    p95: float
    pixels: int
    pictures: int
    steps: int | None


class Driver(ABC):
    """A `policies.offline.contract.Policy`, and the engine's `View` of the market."""

    name = "pixelgate"
    engine: Engine
    errors: Mapping[str, str] = {
        "error": "unavailable",
        "throttled": "overloaded",
        "timeout": "timed_out",
        "no_credit": "overloaded",
    }
    """How an order ended in the simulator -> the `kind` of the `ProviderError` that the gateway would see."""

    def begin(self, engine: Engine, offers: Sequence[Offer], accounts: Mapping[str, int], *, nano: float) -> None:
        """Start over. `offers` stand in the order of the world's endpoints; `nano` nano-dollars are its unit of money.

        `accounts`: capacity of an account's slots -> its index in the world.
        """
        self.engine = engine
        self.prices = 1
        self._offers = offers
        self._nano = nano
        self._index = {offer.id: index for index, offer in enumerate(offers)}
        self._accounts = accounts
        self._account_of = [accounts[offer.account] for offer in offers]
        self._by_models: dict[frozenset[str], list[Offer]] = {}
        self._out: dict[tuple[int, int, float], Out] = {}
        self._tried: dict[int, tuple[Tried, ...]] = {}
        self._line: dict[str, dict[int, InLine]] = {}
        self._stood: dict[int, tuple[str, InLine | None]] = {}
        self._waiting: Counter[str] = Counter()

    @abstractmethod
    def ask_of(self, request: Any, tried: tuple[Tried, ...], live: tuple[Live, ...]) -> Ask:
        """What a request asks of the engine."""

    def decide(self, r: Any, s: Any, now: float, reason: Reason) -> Decision:
        """Ask the engine and say its answer in the simulator's words."""
        self._snapshot = s
        self._leave(r.id)
        tried = self._tried.get(r.id, ()) if reason != "new" else ()
        live = tuple([Live(self._offers[e].id, self._offers[e].account, at) for e, at in r.live])
        ask = self.ask_of(r, tried, live)
        move = self.engine.decide(ask, self, now, reason).move
        if isinstance(move, Submit):
            return self._submit(r, ask, move, now)
        if isinstance(move, Wait):
            self._stand(r, move)
            return Decision(-1, max(move.until, now + 1e-3))
        return Decision(drop=True)

    def feedback(self, event: Any, now: float) -> None:
        """Pass on what happened to an order."""
        kind = EVENTS.get(event.kind)
        if kind is None:
            return
        offer = self._offers[event.endpoint]
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
        return 0 if index is None else int(self._snapshot.inflight[index])

    def waiting(self, capacity: str) -> int:
        """Requests held for want of a capacity."""
        return self._waiting[capacity]

    def machines(self, capacity: str) -> Machines | None:  # noqa: ARG002 - servers of ours say nothing of theirs
        """None: an inference server of our own is known by its slots alone."""
        return None

    # -- what is under way, and who waits ---------------------------------------------------------

    def _submit(self, request: Any, ask: Ask, move: Submit, now: float) -> Decision:
        chosen, wish = move.candidate, ask.request
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

    def _stand(self, request: Any, move: Wait) -> None:
        if move.capacity is None or move.best is None or request.live:
            return
        self._waiting[move.capacity] += 1
        self._stood[request.id] = (move.capacity, move.line)
        if move.line is not None:
            self._line.setdefault(move.line.model, {})[request.id] = move.line

    def _leave(self, request: int) -> None:
        stood = self._stood.pop(request, None)
        if stood is None:
            return
        capacity, line = stood
        self._waiting[capacity] -= 1
        if line is not None:
            del self._line[line.model][request]
