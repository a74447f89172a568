"""Everything under way for one call: its parts, their orders, and what each part waits for.

A part is one or a few pictures of a call, drawn by one order. It is *due* when the engine has to be asked about it
(new, failed, wake, room), else it is parked, running, done or given up.

A part of a chained call (`policies.chaining`) takes two orders, one after the other. Before the first goes out, a
reservation sets aside what the team will owe for both; the second order takes it over, and its end charges for both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Self

import msgspec
import structlog
from msgspec import Struct

from gateway.errors import (
    BudgetSpent,
    ContentPolicy,
    DeadlinePassed,
    Forbidden,
    GatewayError,
    NoCapacity,
    NoOffer,
    Undeliverable,
    sentences,
)
from gateway.ids import sibling
from gateway.money.ledger import Hold, Ledger
from gateway.requests.admission import Admission
from gateway.requests.call import Call, Delivered, Delivery, offers_of, terms_of_removal
from gateway.requests.journal import decision_row
from gateway.requests.orders import Drawn, FoundOrder, Halfway, Plan, RunningOrder, Salvage, Workshop, fit_to_offer
from gateway.requests.parts import SEEDS, Part, Start, split
from gateway.requests.waiting_room import Place, WaitingRoom
from gateway.storage.rows import DecisionRow, NewHold
from policies.chaining import drawing_terms, is_chained, removal, removal_terms
from policies.eligibility import CODES, nearest_feasible
from policies.money import to_usd
from policies.tariffs import Quote
from policies.types import (
    Ask,
    Candidate,
    Constraints,
    Decision,
    Event,
    Live,
    Offer,
    Reason,
    Rejection,
    Shed,
    Submit,
    Tried,
    View,
    Wait,
)
from policies.waiting import rank
from providers.contract import ImageRequest
from providers.errors import ProviderError

log = structlog.get_logger("gateway.attempts")

LOOK_FOR_CALLER_S = 0.25
"""Between two looks whether a caller who hung up has come back, while there is something to decide for it."""

TOLD = 3
"""Objections an error message names; its `reasons` hold all."""


class House(Struct, frozen=True, kw_only=True):
    """What the request path works with."""

    shop: Workshop
    ledger: Ledger
    admission: Admission
    market: View
    waiting: WaitingRoom
    priorities: Mapping[str, float]
    """Intent -> seconds by which its calls count as having come earlier, in line for room."""
    patience: float
    """An order is given up for another after this many times its predicted p95."""
    least_patience: float
    """Seconds; never sooner than this."""
    running: set[RunningOrder]
    """Orders under way in this process, wanted or not."""


class Attempts:
    """The orders of one call. On leaving, whatever still runs is called off."""

    def __init__(self, house: House, call: Call, per_order: int, salvage: Salvage | None = None) -> None:
        self._house = house
        self._call = call
        self._chained = call.request.transparent and is_chained(
            _wanted(call), house.market.offers(call.constraints.models)
        )
        per_order = 1 if self._chained else per_order
        self._parts = split(call.request, per_order)
        for part in self._parts if self._chained else ():
            part.draw()
        self._due: dict[int, Reason] = {part.index: "new" for part in self._parts}
        self._starts: list[Start] = []
        self._reserve: list[tuple[Part, Candidate]] = []
        self._decisions: list[DecisionRow] = []
        self._first_round = True
        self._decided = 0
        self._numbered = 0
        self._orders = 0
        self._left: int | None = None
        """What an order may cost, once a budget refused one."""
        self._broke: BudgetSpent | None = None
        self._wake: asyncio.Future[None] | None = None
        """Set while `due` waits; done when there is something to look at."""
        self._policy = ""
        self._after: Candidate | None = None
        self._unfinished: Shed | None = None
        self._finishers: list[str] = []
        self._salvage = salvage
        self._per_order = per_order
        self._place: Place | None = None
        self._priority = house.priorities.get(call.intent, 0.0)
        if call.batch:  # behind whoever comes while it waits
            self._priority -= call.constraints.deadline
        house.admission.asking = rank(call.arrived, self._priority)

    async def __aenter__(self) -> Self:
        if self._salvage is not None:
            self._go_on_from(self._salvage)
        left = self._call.arrived + self._call.constraints.deadline - self._house.shop.clock.now()
        self._alarm = asyncio.get_running_loop().call_later(max(left, 0.0), self._time_is_up)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._alarm.cancel()
        self._give_place_up()
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
        for part in self._parts:  # noqa: SIM110 - asked three times a call, and `all` costs twice as much
            if not part.over:
                return False
        return True

    def afterwards(self) -> Ask | None:
        """What a chained call will ask for once it is drawn: known before anything is ordered, to set aside for it."""
        if not self._chained or self.complete:
            return None
        part = self._parts[0]
        asked = msgspec.structs.replace(part.asked, count=1)
        return msgspec.structs.replace(self._ask(part), request=removal(asked), constraints=self._removal_terms(0))

    def expect(self, ask: Ask, decision: Decision) -> None:
        """Take in what the engine said to `afterwards`: who would finish the drawings; nobody ends the call here."""
        self._note_decision(ask, decision)
        match decision.move:
            case Submit(candidate) | Wait(best=Candidate() as candidate):
                self._after = candidate
            case _:
                shed = decision.move if isinstance(decision.move, Shed) else Shed(decision.rejected)
                self._unfinished = shed
                for part in self._parts:
                    self._leave_undrawn(part, shed)

    def _leave_undrawn(self, part: Part, shed: Shed) -> None:
        """Nobody would finish it, so it is not drawn."""
        if not part.over and not part.live:
            part.finish()
            part.shed = shed
            self._awake()

    async def due(self) -> list[tuple[Ask, Reason]]:
        """Wait until the engine has to be asked, and for what; nothing at all when the call is over."""
        if not self._due:
            # A future of each wait: an Event would cost twice as much, once per picture.
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        due, self._due = self._due, {}
        asks: list[tuple[Ask, Reason]] = []
        for index, reason in due.items():
            part = self._parts[index]
            if part.over:
                continue
            if not self._house.shop.listeners.listening(self._call.id):
                # Nothing is ordered for a caller who is away; whoever comes back has kept the rank.
                part.unpark()
                self._park(part, Wait(self._house.shop.clock.now() + LOOK_FOR_CALLER_S), 0.0)
                continue
            part.take_turn()
            asks.append((self._ask(part), reason))
        self._house.admission.asking = rank(self._call.arrived, self._priority)
        return asks

    def follow(self, ask: Ask, decision: Decision) -> None:
        """Do what the engine said for one part; its hold is taken in `place`, with those of the others."""
        part = self._parts[ask.part]
        self._note_decision(ask, decision)
        part.unpark()
        match decision.move:
            case Submit(candidate, wake_at):
                self._start(part, candidate, wake_at)
            case Wait(best=best) as move:
                self._park(part, move, 0.0 if best is None else best.wait_s)
                if best is not None and part.reserved is None and not part.live and not part.over:
                    self._reserve.append((part, best))
            case Shed():
                if not part.live:
                    part.shed = decision.move
        if self._place is not None and not any(each.waits for each in self._parts):
            self._give_place_up()

    def _note_decision(self, ask: Ask, decision: Decision) -> None:
        self._policy = decision.policy
        if not self._call.is_ours:  # of those nobody asks why
            at = self._house.shop.clock.utc()
            self._decisions.append(decision_row(self._call, ask, self._decided, decision, at))
        self._decided += 1

    async def place(self) -> None:
        """Set money aside for everything just decided, in one commit, and send the orders.

        Raises `BudgetSpent` when the first holds of a call do not fit; nothing is ordered or held then.
        """
        if not self._decisions and not self._starts:
            return
        self._pass_turns_on()
        first, self._first_round = self._first_round, False
        starts, self._starts = self._starts, []
        reserve, self._reserve = self._reserve, []
        decisions, self._decisions = self._decisions, []
        if first and (over := [part for part in self._parts if part.over]):
            # One part that cannot be served sinks the call before anything is spent on the others.
            starts, reserve = self._withdraw(starts), []
            for part in self._parts:
                part.shed, part.error = part.shed or over[0].shed, part.error or over[0].error
                part.unpark()
        holds = [self._hold(s.part, s.candidate, s.plan.attempt_id, s.plan.request) for s in starts]
        drawing = [start for start in starts if start.part.stage == "drawing"]
        holds += [self._for_both(start) for start in drawing]
        holds += [
            self._hold(part, best, self._next_id(), self._asked(part, best.offer), reserve=True)
            for part, best in reserve
        ]
        try:
            taken = await self._set_aside(holds, decisions, starts)
        except GatewayError as error:
            # A second order that cannot be paid for is no reason to lose the first.
            stuck = {part for part in (*(s.part for s in starts), *(part for part, _ in reserve)) if not part.live}
            if first and isinstance(error, BudgetSpent) and self._may_be_cheaper(error, starts, len(holds)):
                self._decisions = decisions + self._decisions
                return
            if stuck and (first or not isinstance(error, BudgetSpent)):
                raise
            for part in stuck:
                self._give_up(part, error)
            return
        for start, hold in zip(starts, taken, strict=False):
            self._send(start, hold)
        reserved = [*(start.part for start in drawing), *(part for part, _ in reserve)]
        for part, hold in zip(reserved, taken[len(starts) :], strict=True):
            part.reserved = hold

    def _may_be_cheaper(self, error: BudgetSpent, starts: Sequence[Start], holds: int) -> bool:
        """Have the engine asked again, with what the commit knows of the budget; False when that is nothing new.

        What the engine is told at first is a look at the balances, which others move; the commit decides.
        """
        if error.left is None:
            return False
        if error.of_offer:
            for start in starts:
                offer = start.candidate.offer
                start.part.tried.append(Tried(offer.id, offer.account, error.code, elsewhere=True))
        else:
            left = error.left // max(holds, 1)
            if self._left is not None and left >= self._left:
                return False
            self._left = left
        self._broke, self._first_round = error, True
        self._due |= dict.fromkeys((part.index for part in self._parts if not part.over), "failed")
        return True

    async def _set_aside(
        self, holds: Sequence[NewHold], decisions: Sequence[DecisionRow], starts: Sequence[Start]
    ) -> tuple[Hold, ...]:
        try:
            return await self._house.ledger.hold(holds, decisions)
        except BaseException:  # it could not be written, or whoever asked has left
            self._withdraw(starts)
            raise

    def delivery(self) -> Delivery:
        """What came; raises the `GatewayError` that fits when nothing did."""
        pictures = [picture for part in self._parts for picture in part.pictures]
        if not pictures:
            raise self._failure()
        return Delivery(
            call_id=self._call.id,
            decision_id=sibling(self._call.id, "dec"),
            images=tuple(sorted(pictures, key=_place_in_answer)),
            charge=sum([part.charge for part in self._parts]),
            policy=self._policy,
            attempts=self._orders,
            offers=offers_of(pictures, self._finishers),
        )

    def _ask(self, part: Part) -> Ask:
        call = self._call
        return Ask(
            call_id=call.id,
            part=part.index,
            request=part.wish,
            constraints=self._terms(part),
            worth=call.worth,
            intent=call.intent,
            team=call.caller.team,
            arrived=call.arrived,
            budget_left=self._budget_left(part),
            tried=tuple(part.tried),
            live=tuple(
                [Live(order.candidate.offer.id, order.candidate.offer.account, order.started) for order in part.live]
            ),
        )

    def _terms(self, part: Part) -> Constraints:
        """The caller's terms for the order that a part takes now."""
        terms = self._call.constraints
        if part.stage == "drawing" and self._after is not None:
            return drawing_terms(terms, self._after)
        if part.stage == "finishing":
            return self._removal_terms(part.halfway.charge if part.halfway is not None else 0)
        return terms

    def _asked(self, part: Part, offer: Offer) -> ImageRequest:
        """What an offer is asked for, as the policy's rules have it."""
        return self._terms(part).asked(offer.id, part.wish)

    def _removal_terms(self, spent: int) -> Constraints:
        return removal_terms(self._call.constraints, terms_of_removal(self._call), spent)

    def _budget_left(self, part: Part) -> int | None:
        """What the order that a part takes now may cost: also what is set aside for it, less what is owed beside it."""
        call = self._call
        left = self._house.ledger.budget_left(call.caller.key_id, call.caller.team)
        if self._left is not None:
            left = self._left if left is None else min(left, self._left)
        if left is None:
            return None
        beside = 0
        if part.stage == "drawing" and self._after is not None:
            beside = self._after.quote.hold
        elif part.halfway is not None:
            beside = part.halfway.charge
        return max(left + (part.reserved.charge if part.reserved is not None else 0) - beside, 0)

    def _go_on_from(self, salvage: Salvage) -> None:
        """Take in what an earlier try left: its pictures are done, its orders run on, the rest is still due."""
        self._first_round = not (salvage.pictures or salvage.orders)
        self._policy = salvage.policy
        self._orders = len(salvage.attempts)
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
        if self._chained and "remove_background" in offer.abilities.operations:
            part.finish(self._drawn_before(part, found))
        price = Quote(amount=attempt.hold_cost, hold=attempt.hold_cost, certain=False, unit="", revision=attempt.prices)
        candidate = Candidate(
            offer=offer, quote=price, latency_p50=offer.typical_s, latency_p95=2 * offer.typical_s, headroom=0
        )
        request = msgspec.structs.replace(part.wish, steps=attempt.steps, seed=None)
        plan = self._plan(part, attempt.id, request, 1)
        order = RunningOrder(house.shop, self._call, candidate, plan, found.lease, found.hold, found=found)
        order.wanted = not part.over
        self._run(part, order)

    def _drawn_before(self, part: Part, found: FoundOrder) -> Halfway:
        """What an order that a restart found is to finish: the picture is gone, its price is in the order's hold."""
        offers = {offer.id: offer for offer in self._house.market.offers(None)}
        assert self._salvage is not None
        drawn = [
            offers[row.offer_id]
            for row in self._salvage.attempts
            if row.part == found.attempt.part
            and row.state == "settled"
            and row.offer_id in offers
            and "remove_background" not in offers[row.offer_id].abilities.operations
        ]
        return Halfway(
            source=None,
            offer=drawn[-1] if drawn else found.offer,
            seed=part.asked.seed,
            charge=found.attempt.hold_charge - found.attempt.hold_cost,
        )

    def _plan(self, part: Part, attempt_id: str, request: ImageRequest, in_flight: int) -> Plan:
        call, halfway = self._call, part.halfway
        source = halfway.source if halfway is not None else None
        return Plan(
            attempt_id=attempt_id,
            first=part.first,
            wish=part.wish,
            request=request,
            in_flight=in_flight,
            inputs=call.inputs if halfway is None else () if source is None else (source,),
            mask=call.mask if halfway is None else None,
            passes_on=part.stage == "drawing",
            halfway=halfway,
        )

    def _start(self, part: Part, candidate: Candidate, wake_at: float | None) -> None:
        house, offer = self._house, candidate.offer
        lease = house.admission.lease(offer.capacities)
        if lease is None:  # the engine saw room that a part of this very round has taken
            self._park(part, Wait(house.shop.clock.now() + 0.05, next(iter(offer.capacities), None)), 0.05)
            return
        request = fit_to_offer(self._asked(part, offer), offer, part.seed, self._call.compression)
        in_flight = max([house.admission.in_flight(capacity) for capacity in offer.capacities], default=1)
        plan = self._plan(part, self._next_id(), request, in_flight)
        if part.live:
            log.info("order_hedged", call=self._call.id, attempt=plan.attempt_id, offer=offer.id)
        house.shop.engine.observe(
            Event(
                kind="leased",
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
        drawing = part.stage == "drawing"
        before = part.halfway.charge if part.halfway is not None else 0
        charge = self._both(candidate) if drawing and reserve else 0 if drawing or call.is_ours else before + quote.hold
        replaced = None if part.reserved is None or (drawing and not reserve) else part.reserved.attempt_id
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
            charge=charge,
            width=request.width,
            height=request.height,
            count=request.count,
            steps=request.steps,
            inputs=request.references,
            prices=quote.revision,
            policy=self._policy,
            reserve=reserve,
            replaces=replaced,
            fingerprint=call.fingerprint,
            model=offer.model,
            user=call.user,
            tags=call.tags,
        )

    def _for_both(self, start: Start) -> NewHold:
        """The reservation beside a drawing's order: for the order that is to finish it, and for both charges."""
        part, after = start.part, self._after
        assert after is not None
        before = part.reserved.charge if part.reserved is not None else 0
        reservation = self._hold(part, after, f"{start.plan.attempt_id}r", part.asked, reserve=True)
        return msgspec.structs.replace(reservation, charge=max(before, self._both(start.candidate)))

    def _both(self, candidate: Candidate) -> int:
        """What the team may owe at most for a drawing and what finishes it."""
        return candidate.quote.hold + (self._after.quote.hold if self._after is not None else 0)

    def _send(self, start: Start, hold: Hold) -> None:
        house = self._house
        start.part.reserved = None
        if start.part.over:  # its first order was good while the money for this one was set aside
            start.lease.release()
            house.shop.spawn(hold.release())
            return
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
        elif error is not None:
            self._note(part, order, error)
        elif order.wanted:  # else another was good before it, and its pictures are not kept
            self._take(part, task.result())

    def _note(self, part: Part, order: RunningOrder, error: BaseException) -> None:
        """Remember how an order failed, and have the engine asked what to do about it."""
        if isinstance(error, ProviderError):
            offer = order.candidate.offer
            part.error = error
            part.tried.append(Tried(offer.id, offer.account, error.kind, error.elsewhere))
            self._fall_back(part)
            return
        if not isinstance(error, GatewayError):
            log.error("order_broke", attempt=order.plan.attempt_id, exc_info=error)
            error = Undeliverable("The picture was drawn, but the gateway failed while taking it in.")
        self._give_up(part, error)

    def _fall_back(self, part: Part) -> None:
        """Have the engine asked what to do after a failure; without the drawing, it starts with another."""
        if part.halfway is not None and part.halfway.source is None:
            part.draw()
        self._mark(part, "failed")

    def _take(self, part: Part, drawn: Drawn) -> None:
        if drawn.halfway is not None:
            self._call_off_rivals(part)
            part.finish(drawn.halfway)
            self._mark(part, "wake")
            return
        if part.halfway is not None:
            self._finishers.append(drawn.offer.id)
        part.pictures.extend(drawn.pictures)
        part.charge += drawn.charge
        came = len(drawn.pictures)
        part.first += came
        part.wish = msgspec.structs.replace(part.wish, count=part.wish.count - came)
        self._call_off_rivals(part)  # they were to draw all of it, and would bring more than is missing
        if not part.done:  # fewer than ordered: only the missing ones are asked for again
            part.seed = (part.seed + came) % SEEDS
            self._mark(part, "failed")
            return
        self._awake()

    def _call_off_rivals(self, part: Part) -> None:
        rivals, part.live = part.live, []
        for rival in rivals:
            self._house.shop.spawn(rival.call_off())

    def _lose_patience(self, part: Part, order: RunningOrder) -> None:
        if order not in part.live or order.sealed:
            return
        part.live.remove(order)
        order.wanted = False
        offer = order.candidate.offer
        part.tried.append(Tried(offer.id, offer.account, "timed_out", elsewhere=True))
        order.tell_late()
        self._house.shop.spawn(order.call_off())
        self._fall_back(part)

    def _park(self, part: Part, move: Wait, expects: float) -> None:
        """Look again when the engine said so, or when there is room, which is expected in so many seconds."""
        house, call = self._house, self._call
        delay = max(move.until - house.shop.clock.now(), 0.0)
        place = None
        if not part.live:
            place = self._place or Place(call.caller.team, call.worth.failure, call.arrived, self._sent_away)
            place.expects = expects
            delay = house.waiting.pause(place, delay)
        part.timer = asyncio.get_running_loop().call_later(delay, self._look_again, part)
        if move.capacity is not None:
            spot = rank(call.arrived, self._priority, lost=move.lost)
            part.waiter = house.admission.wait(move.capacity, lambda: self._mark(part, "room"), spot, move.spare)
        if place is not None and self._place is None:
            self._place = place
            house.waiting.enter(place)

    def _sent_away(self, error: GatewayError) -> None:
        """There is no place to wait in: what is under way goes on, the rest is given up."""
        self._place = None
        for part in self._parts:
            if part.waits and not part.over:
                self._give_up(part, error)

    def _give_place_up(self) -> None:
        if self._place is not None:
            place, self._place = self._place, None
            self._house.waiting.leave(place)

    def _pass_turns_on(self) -> None:
        """Room that was kept for a part which does not want it any more goes to the next in line."""
        for part in self._parts:
            turn, part.turn = part.turn, None
            if turn is not None and (part.waiter is None or part.waiter.capacity != turn):
                self._house.admission.stir(turn)

    def _look_again(self, part: Part) -> None:
        if part.waiter is not None and part.waiter.woken:
            return  # it is due already
        part.unpark()  # whoever asks does not stand in line
        self._mark(part, "wake")

    def _awake(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _mark(self, part: Part, reason: Reason) -> None:
        if part.over:
            return
        if part.stage == "drawing" and self._unfinished is not None:
            self._leave_undrawn(part, self._unfinished)
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
        return [
            {"offer": tried.offer, "error": tried.error}
            for part in self._parts
            for tried in (*part.before, *part.tried)
        ]

    def _failure(self) -> GatewayError:
        errors = [part.error for part in self._parts if part.error is not None]
        ours = next((error for error in errors if isinstance(error, GatewayError)), None)
        if ours is None and not self._orders:
            ours = self._broke
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
            soonest = max(shed.retry_after or 1.0, 1.0)
            return NoCapacity(f"Nothing is free in time ({said}).", retry_after=soonest, extra={"reasons": reasons})
        if broke is not None:
            return self._broke or BudgetSpent(
                f"The budget of this key or team is spent ({broke.reason}).", extra={"reasons": reasons}
            )
        ours = self._call.is_ours  # nobody reads what else would have been possible
        nearest = None if ours else nearest_feasible(self._ask(self._parts[0]), self._house.market)
        blocked = blocking(shed.reasons)
        if (dear := _above_limit(self._call, shed.reasons)) is not None:
            return Forbidden(dear, param="model", extra={"reasons": reasons})
        hint = {} if nearest is None else {"nearest": {"offer": nearest[0].id, "change": nearest[1]}}
        near = "" if nearest is None else f" Nearest: {nearest[0].id}, {nearest[1]}."
        what = "remove the background of this" if self._parts[0].stage == "finishing" else "serve this"
        return NoOffer(f"Nothing in the catalogue can {what}: {blocked}.{near}", extra={"reasons": reasons, **hint})


def _above_limit(call: Call, reasons: Sequence[Rejection]) -> str | None:
    """Why a call is not served whose key may not pay what it costs; None where that is not what stands in the way."""
    limits, ceiling = call.caller.limits, call.constraints.ceiling
    dear = [reason for reason in reasons if reason.code == "ceiling"]
    if limits is None or ceiling is None or not dear:
        return None
    if limits.price == ceiling:
        whose, option = f"{to_usd(ceiling)} USD a picture", "--max-price"
    elif limits.call_price is not None and limits.call_price // call.request.count == ceiling:
        whose, option = f"{to_usd(limits.call_price)} USD a call", "--max-call-price"
    else:
        return None
    return (
        f"This API key may have a call cost at most {whose}: {blocking(dear)}. Ask for a cheaper model, a smaller size "
        f"or fewer steps, or have the limit raised (pixelgate keys limit {call.caller.key_id} {option} ...)."
    )


def _place_in_answer(picture: Delivered) -> int:
    return picture.asset.index


def _wanted(call: Call) -> Ask:
    """A call as it came, to see which offers could serve it in one order."""
    return Ask(
        call_id=call.id,
        part=0,
        request=msgspec.structs.replace(call.request, count=1),
        constraints=call.constraints,
        team=call.caller.team,
        arrived=call.arrived,
    )


def blocking(reasons: Sequence[Rejection]) -> str:
    """The objections in one line: those of the offers that came furthest through the gates, and how many more."""
    order = {code: place for place, code in enumerate(CODES)}
    furthest = sorted(reasons, key=lambda reason: -order.get(reason.code, len(order)))
    told = [reason.reason for reason in furthest[:TOLD]]
    more = f"; and {len(reasons) - TOLD} more offers" if len(reasons) > TOLD else ""
    return (sentences(told) or "no offer is configured") + more
