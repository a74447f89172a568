"""Everything under way for one call: its parts, their orders, and what each part waits for.

A part is one or a few pictures of a call, drawn by one order. It is *due* when the engine has to be asked about it
(new, failed, wake, room), else it is parked, running, done or given up.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Self

import msgspec
import structlog
from msgspec import Struct

from gateway.errors import (
    BudgetSpent,
    ContentPolicy,
    DeadlinePassed,
    GatewayError,
    NoCapacity,
    NoOffer,
    Undeliverable,
    sentences,
)
from gateway.ids import sibling
from gateway.money.ledger import Hold, Ledger
from gateway.requests.admission import Admission, Lease, Waiter
from gateway.requests.call import Call, Delivered, Delivery
from gateway.requests.journal import decision_row
from gateway.requests.orders import Drawn, FoundOrder, Plan, RunningOrder, Salvage, Workshop, fit_to_offer
from gateway.storage.rows import DecisionRow, NewHold
from policies.eligibility import CODES, nearest_feasible
from policies.tariffs import Quote
from policies.types import Ask, Candidate, Decision, Event, Live, Reason, Rejection, Shed, Submit, Tried, View, Wait
from providers.contract import ImageRequest
from providers.errors import ProviderError

log = structlog.get_logger("gateway.attempts")

SEED_BITS = 31
SEEDS = 2**SEED_BITS
"""Seeds are below this: the smallest range among the sellers (signed 32 bits)."""


TOLD = 3
"""Objections an error message names; its `reasons` hold all."""


class House(Struct, frozen=True, kw_only=True):
    """What the request path works with."""

    shop: Workshop
    ledger: Ledger
    admission: Admission
    market: View
    patience: float
    """An order is given up for another after this many times its predicted p95."""
    least_patience: float
    """Seconds; never sooner than this."""
    running: set[RunningOrder]
    """Orders under way in this process, wanted or not."""


class Part:
    """One or a few pictures of a call, and how far they are."""

    def __init__(self, index: int, first: int, wish: ImageRequest, seed: int) -> None:
        self.index = index
        self.first = first
        self.wish = wish
        self.seed = seed
        self.tried: list[Tried] = []
        self.live: list[RunningOrder] = []
        self.pictures: list[Delivered] = []
        self.charge = 0
        self.offer = ""
        self.error: ProviderError | GatewayError | None = None
        self.shed: Shed | None = None
        self.reserved: Hold | None = None
        self.waiter: Waiter | None = None
        self.timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "done" if self.done else "given up" if self.shed else f"{len(self.live)} live"
        return f"<Part {self.index} {state}, {len(self.tried)} tried>"

    @property
    def done(self) -> bool:
        """Whether all its pictures are there."""
        return self.wish.count == 0

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.done or self.shed is not None or isinstance(self.error, GatewayError)

    def won_by(self, winner: RunningOrder) -> None:
        """Make every other order for this part unwanted, before anything is charged."""
        for order in self.live:
            order.wanted = order is winner

    def unpark(self) -> None:
        """Stop waiting for room or time."""
        if self.waiter is not None:
            self.waiter.cancel()
        if self.timer is not None:
            self.timer.cancel()
        self.waiter = self.timer = None


class Start(Struct, frozen=True):
    """A part about to be ordered: its lease is taken, its hold is not."""

    part: Part
    candidate: Candidate
    plan: Plan
    lease: Lease
    wake_at: float | None


def split(request: ImageRequest, per_order: int, draw: bool = True) -> list[Part]:
    """Cut a call into orders of at most `per_order` pictures.

    Seeds: the caller's own for the first picture and the next numbers for those after it, else one drawn per order.
    """
    parts = []
    for index, first in enumerate(range(0, request.count, per_order)):
        seed = secrets.randbits(SEED_BITS) if request.seed is None else (request.seed + first) % SEEDS
        count = min(per_order, request.count - first)
        explicit = None if request.seed is None or not draw else seed
        parts.append(Part(index, first, msgspec.structs.replace(request, count=count, seed=explicit), seed))
    return parts


class Attempts:
    """The orders of one call. On leaving, whatever still runs is called off."""

    def __init__(self, house: House, call: Call, per_order: int, salvage: Salvage | None = None) -> None:
        self._house = house
        self._call = call
        self._parts = split(call.request, per_order)
        self._due: dict[int, Reason] = {part.index: "new" for part in self._parts}
        self._starts: list[Start] = []
        self._reserve: list[tuple[Part, Candidate]] = []
        self._decisions: list[DecisionRow] = []
        self._first_round = True
        self._decided = 0
        self._numbered = 0
        self._orders = 0
        self._wake: asyncio.Future[None] | None = None
        """Set while `due` waits; done when there is something to look at."""
        self._policy = ""
        self._salvage = salvage
        self._per_order = per_order

    async def __aenter__(self) -> Self:
        if self._salvage is not None:
            self._go_on_from(self._salvage)
        left = self._call.arrived + self._call.constraints.deadline - self._house.shop.clock.now()
        self._alarm = asyncio.get_running_loop().call_later(max(left, 0.0), self._time_is_up)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._alarm.cancel()
        for start in self._starts:
            start.lease.release()
        for part in self._parts:
            part.unpark()
            for order in part.live:
                order.wanted = False
                self._house.shop.spawn(order.call_off())
            if part.reserved is not None:
                await part.reserved.release()

    @property
    def complete(self) -> bool:
        """Whether every part is over."""
        return all(part.over for part in self._parts)

    async def due(self) -> list[tuple[Ask, Reason]]:
        """Wait until the engine has to be asked, and for what; nothing at all when the call is over."""
        if not self._due:
            # A future of each wait: an Event would cost twice as much, once per picture.
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        due, self._due = self._due, {}
        return [(self._ask(self._parts[index]), reason) for index, reason in due.items() if not self._parts[index].over]

    def follow(self, ask: Ask, decision: Decision) -> None:
        """Do what the engine said for one part; its hold is taken in `place`, with those of the others."""
        part = self._parts[ask.part]
        self._policy = decision.policy
        self._decisions.append(
            decision_row(self._call, part.index, self._decided, decision, self._house.shop.clock.utc())
        )
        self._decided += 1
        part.unpark()
        match decision.move:
            case Submit(candidate, wake_at):
                self._start(part, candidate, wake_at)
            case Wait(until, capacity, best):
                self._park(part, until, capacity)
                if best is not None and part.reserved is None and not part.live:
                    self._reserve.append((part, best))
            case Shed():
                if not part.live:
                    part.shed = decision.move

    async def place(self) -> None:
        """Set money aside for everything just decided, in one commit, and send the orders.

        Raises `BudgetSpent` when the first holds of a call do not fit; nothing is ordered or held then.
        """
        if not self._decisions:
            return
        first, self._first_round = self._first_round, False
        starts, self._starts = self._starts, []
        reserve, self._reserve = self._reserve, []
        decisions, self._decisions = self._decisions, []
        if first and (shed := next((part.shed for part in self._parts if part.shed), None)):
            # One part that cannot be served sinks the call before anything is spent on the others.
            starts, reserve = self._withdraw(starts), []
            for part in self._parts:
                part.shed = part.shed or shed
        holds = [self._hold(s.part, s.candidate, s.plan.attempt_id, s.plan.request) for s in starts]
        holds += [self._hold(part, best, self._next_id(), part.wish, reserve=True) for part, best in reserve]
        try:
            taken = await self._house.ledger.hold(holds, decisions)
        except GatewayError as error:
            self._withdraw(starts)
            # A second order that cannot be paid for is no reason to lose the first.
            stuck = {part for part in (*(s.part for s in starts), *(part for part, _ in reserve)) if not part.live}
            if stuck and (first or not isinstance(error, BudgetSpent)):
                raise
            for part in stuck:
                self._give_up(part, error)
            return
        for start, hold in zip(starts, taken, strict=False):
            start.part.reserved = None
            self._send(start, hold)
        for (part, _), hold in zip(reserve, taken[len(starts) :], strict=True):
            part.reserved = hold

    def delivery(self) -> Delivery:
        """What came; raises the `GatewayError` that fits when nothing did."""
        pictures = [picture for part in self._parts for picture in part.pictures]
        if not pictures:
            raise self._failure()
        return Delivery(
            call_id=self._call.id,
            decision_id=sibling(self._call.id, "dec"),
            images=tuple(sorted(pictures, key=lambda picture: picture.asset.index)),
            charge=sum(part.charge for part in self._parts),
            policy=self._policy,
            attempts=self._orders,
            offers=tuple(dict.fromkeys(picture.asset.offer_id for picture in pictures)),
        )

    def _ask(self, part: Part) -> Ask:
        call = self._call
        return Ask(
            call_id=call.id,
            part=part.index,
            request=part.wish,
            constraints=call.constraints,
            worth=call.worth,
            intent=call.intent,
            team=call.caller.team,
            arrived=call.arrived,
            budget_left=self._house.ledger.budget_left(call.caller.key_id, call.caller.team),
            tried=tuple(part.tried),
            live=tuple(
                Live(order.candidate.offer.id, order.candidate.offer.account, order.started) for order in part.live
            ),
        )

    def _go_on_from(self, salvage: Salvage) -> None:
        """Take in what an earlier try left: its pictures are done, its orders run on, the rest is still due."""
        self._first_round = not (salvage.pictures or salvage.orders)
        self._policy = salvage.policy
        self._orders = salvage.placed
        self._decided = self._numbered = salvage.decided
        for picture in salvage.pictures:
            part = self._parts[min(picture.asset.index // self._per_order, len(self._parts) - 1)]
            part.pictures.append(picture)
            part.charge += picture.asset.cost
            part.first += 1
            part.wish = msgspec.structs.replace(part.wish, count=part.wish.count - 1)
        for found in salvage.orders:
            self._take_over(found)
        for part in self._parts:
            if part.over or part.live:
                del self._due[part.index]

    def _take_over(self, found: FoundOrder) -> None:
        """Follow an order that is under way already."""
        attempt, offer, house = found.attempt, found.offer, self._house
        part = self._parts[min(attempt.part, len(self._parts) - 1)]
        price = Quote(amount=attempt.hold_cost, hold=attempt.hold_cost, certain=False, unit="", revision=attempt.prices)
        candidate = Candidate(
            offer=offer, quote=price, latency_p50=offer.typical_s, latency_p95=2 * offer.typical_s, headroom=0, costs={}
        )
        request = msgspec.structs.replace(part.wish, steps=attempt.steps, seed=None)
        plan = Plan(attempt_id=attempt.id, first=part.first, wish=part.wish, request=request, in_flight=1)
        order = RunningOrder(house.shop, self._call, candidate, plan, found.lease, found.hold, found=found)
        order.wanted = not part.over
        self._run(part, order)

    def _start(self, part: Part, candidate: Candidate, wake_at: float | None) -> None:
        house, offer = self._house, candidate.offer
        lease = house.admission.lease(offer.capacities)
        if lease is None:  # the engine saw room that a part of this very round has taken
            self._park(part, house.shop.clock.now() + 0.05, offer.capacities[0] if offer.capacities else None)
            return
        request = fit_to_offer(part.wish, offer, part.seed, self._call.compression)
        in_flight = max((house.admission.in_flight(capacity) for capacity in offer.capacities), default=1)
        plan = Plan(attempt_id=self._next_id(), first=part.first, wish=part.wish, request=request, in_flight=in_flight)
        if part.live:
            log.info("order_hedged", call=self._call.id, attempt=plan.attempt_id, offer=offer.id)
        house.shop.engine.observe(
            Event(
                kind="submitted",
                offer=offer.id,
                pixels=request.width * request.height,
                count=request.count,
                steps=request.steps,
                in_flight=in_flight,
            ),
            house.shop.clock.now(),
        )
        self._starts.append(Start(part, candidate, plan, lease, wake_at))

    def _next_id(self) -> str:
        """An attempt's id: the call's digits and a number, so that the rows of a call lie together."""
        self._numbered += 1
        return f"{sibling(self._call.id, 'att')}{self._numbered:02x}"

    def _hold(
        self, part: Part, candidate: Candidate, attempt_id: str, request: ImageRequest, *, reserve: bool = False
    ) -> NewHold:
        call, offer, quote = self._call, candidate.offer, candidate.quote
        return NewHold(
            attempt_id=attempt_id,
            call_id=call.id,
            part=part.index,
            team=call.caller.team,
            key_id=call.caller.key_id,
            account=offer.account,
            offer_id=offer.id,
            endpoint=offer.endpoint,
            cost=quote.hold,
            charge=quote.hold,
            width=request.width,
            height=request.height,
            count=request.count,
            steps=request.steps,
            inputs=request.references,
            prices=quote.revision,
            policy=self._policy,
            reserve=reserve,
            replaces=None if part.reserved is None else part.reserved.attempt_id,
            fingerprint=call.fingerprint,
        )

    def _send(self, start: Start, hold: Hold) -> None:
        house = self._house
        order = RunningOrder(house.shop, self._call, start.candidate, start.plan, start.lease, hold)
        self._orders += 1
        self._run(start.part, order)
        if start.wake_at is not None:
            delay = max(start.wake_at - house.shop.clock.now(), 0.0)
            order.timers.append(asyncio.get_running_loop().call_later(delay, self._mark, start.part, "wake"))

    def _run(self, part: Part, order: RunningOrder) -> None:
        """Set an order going for a part, and see to it that its end is heard."""
        house = self._house
        order.on_good = lambda: part.won_by(order)
        if order.wanted:
            part.live.append(order)
        house.running.add(order)
        order.task = house.shop.spawn(order.run())
        order.task.add_done_callback(lambda task: self._ended(part, order, task))
        patience = max(house.least_patience, house.patience * order.candidate.latency_p95)
        loop = asyncio.get_running_loop()
        order.timers.append(loop.call_later(patience, self._lose_patience, part, order))

    def _ended(self, part: Part, order: RunningOrder, task: asyncio.Task[Drawn]) -> None:
        self._house.running.discard(order)
        order.let_go()
        error = None if task.cancelled() else task.exception()
        if order not in part.live:  # given up before; its end is the books' affair alone
            return
        part.live.remove(order)
        if task.cancelled():
            self._mark(part, "failed")
        elif error is None:
            self._take(part, task.result())
        else:
            self._note(part, order, error)

    def _note(self, part: Part, order: RunningOrder, error: BaseException) -> None:
        """Remember how an order failed, and have the engine asked what to do about it."""
        if isinstance(error, ProviderError):
            offer = order.candidate.offer
            part.error = error
            part.tried.append(Tried(offer.id, offer.account, error.kind, error.elsewhere))
            self._mark(part, "failed")
            return
        if not isinstance(error, GatewayError):
            log.error("order_broke", attempt=order.plan.attempt_id, exc_info=error)
            error = Undeliverable("The picture was drawn, but the gateway failed while taking it in.")
        self._give_up(part, error)

    def _take(self, part: Part, drawn: Drawn) -> None:
        part.pictures.extend(drawn.pictures)
        part.charge += drawn.charge
        came = len(drawn.pictures)
        part.first += came
        part.wish = msgspec.structs.replace(part.wish, count=part.wish.count - came)
        if not part.done:  # fewer than ordered: only the missing ones are asked for again
            part.seed = (part.seed + came) % SEEDS
            self._mark(part, "failed")
            return
        rivals, part.live = part.live, []
        for rival in rivals:
            self._house.shop.spawn(rival.call_off())
        self._awake()

    def _lose_patience(self, part: Part, order: RunningOrder) -> None:
        if order not in part.live or order.sealed:
            return
        part.live.remove(order)
        order.wanted = False
        offer = order.candidate.offer
        part.tried.append(Tried(offer.id, offer.account, "timed_out", elsewhere=True))
        order.tell_late()
        self._house.shop.spawn(order.call_off())
        self._mark(part, "failed")

    def _park(self, part: Part, until: float, capacity: str | None) -> None:
        loop = asyncio.get_running_loop()
        delay = max(until - self._house.shop.clock.now(), 0.0)
        part.timer = loop.call_later(delay, self._look_again, part)
        if capacity is not None:
            part.waiter = self._house.admission.wait(capacity, lambda: self._mark(part, "room"))

    def _look_again(self, part: Part) -> None:
        part.unpark()  # whoever asks does not stand in line
        self._mark(part, "wake")

    def _awake(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _mark(self, part: Part, reason: Reason) -> None:
        if part.over:
            return
        self._due[part.index] = reason
        self._awake()

    def _give_up(self, part: Part, error: GatewayError) -> None:
        part.error = error
        part.unpark()
        self._awake()

    def _withdraw(self, starts: Sequence[Start]) -> list[Start]:
        for start in starts:
            start.lease.release()
        return []

    def _time_is_up(self) -> None:
        late = self._late()
        for part in self._parts:
            if part.over or any(order.sealed for order in part.live):
                continue
            for order in part.live:
                order.wanted = False
                order.tell_late()
            self._give_up(part, late)

    def _late(self) -> DeadlinePassed:
        within = self._call.constraints.deadline
        return DeadlinePassed(f"No picture was ready within {within:g} s.", extra={"attempts": self._told()})

    def _told(self) -> list[dict[str, object]]:
        """The failed attempts, for the body of an error."""
        return [{"offer": tried.offer, "error": tried.error} for part in self._parts for tried in part.tried]

    def _failure(self) -> GatewayError:
        errors = [part.error for part in self._parts if part.error is not None]
        ours = next((error for error in errors if isinstance(error, GatewayError)), None)
        if ours is not None:
            return ours
        tried = [tried for part in self._parts for tried in part.tried if tried.error != "overloaded"]
        if tried and all(t.error == "content_refused" for t in tried):
            return ContentPolicy(extra={"attempts": self._told()})
        if tried:
            said = sentences([f"{t.offer}: {t.error.replace('_', ' ')}" for t in tried])
            return Undeliverable(f"Every attempt failed ({said}).", extra={"attempts": self._told()})
        sheds = [part.shed for part in self._parts if part.shed is not None]
        return self._unserved(sheds[0])

    def _unserved(self, shed: Shed) -> GatewayError:
        """Nothing was ordered at all: why."""
        reasons = [{"offer": r.offer, "code": r.code, "reason": r.reason} for r in shed.reasons]
        broke = next((r for r in shed.reasons if r.code == "budget"), None)
        if any(reason.code == "deadline" for reason in shed.reasons):
            return self._late()
        waiting = [r for r in shed.reasons if not r.lasting]
        if waiting:
            said = sentences([f"{r.offer}: {r.reason}" for r in waiting])
            return NoCapacity(
                f"Nothing is free in time ({said}).", retry_after=shed.retry_after or 1.0, extra={"reasons": reasons}
            )
        if broke is not None:
            return BudgetSpent(f"The budget of this key or team is spent ({broke.reason}).", extra={"reasons": reasons})
        nearest = nearest_feasible(self._ask(self._parts[0]), self._house.market)
        blocked = blocking(shed.reasons)
        hint = {} if nearest is None else {"nearest": {"offer": nearest[0].id, "change": nearest[1]}}
        near = "" if nearest is None else f" Nearest: {nearest[0].id}, {nearest[1]}."
        return NoOffer(f"Nothing in the catalogue can serve this: {blocked}.{near}", extra={"reasons": reasons, **hint})


def blocking(reasons: Sequence[Rejection]) -> str:
    """The objections in one line: those of the offers that came furthest through the gates, and how many more."""
    order = {code: place for place, code in enumerate(CODES)}
    furthest = sorted(reasons, key=lambda reason: -order.get(reason.code, len(order)))
    told = [reason.reason for reason in furthest[:TOLD]]
    more = f"; and {len(reasons) - TOLD} more offers" if len(reasons) > TOLD else ""
    return (sentences(told) or "no offer is configured") + more
