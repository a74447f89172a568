"""One order at one provider: submit, check, keep, settle. The only place that touches a provider or its money.

An order, once sent, is never cut short by us: a caller who leaves or a deadline that passes makes it *unwanted*. An
unwanted order is cancelled where the seller confirms that it costs nothing, and otherwise runs on by itself until its
seller has said what is owed. So its slot is given back when it is really free, and its money is known, not guessed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

import msgspec
import structlog
from msgspec import Struct

from gateway.assets import Assets, Kept, Unfit, inspect
from gateway.clock import Clock
from gateway.errors import NotReady
from gateway.ids import sibling
from gateway.money.ledger import Hold
from gateway.requests.admission import Lease
from gateway.requests.call import Call, Delivered, Ended
from gateway.requests.content_hook import ContentHook
from gateway.requests.listeners import Listeners
from gateway.storage.rows import AssetRow, AttemptRow, Outcome, RecipeRow
from policies.eligibility import to_store_nothing
from policies.tariffs import Unpriced, bill
from policies.types import Candidate, Engine, Event, EventKind, Offer
from providers.contract import (
    Cancels,
    Format,
    Generation,
    Image,
    ImageRequest,
    Input,
    LoadsFirst,
    Order,
    Provider,
    Ticket,
    Usage,
)
from providers.errors import BadDelivery, ContentRefused, OutcomeUnknown, Owed, ProviderError

T = TypeVar("T")

log = structlog.get_logger("gateway.orders")

CLOSE = 0.35
"""Strength of an order that is to keep closely to its input: things and faces stay, surfaces may change."""
EVENTS: Mapping[str, EventKind] = {
    "overloaded": "throttled",
    "timed_out": "timeout",
    "content_refused": "refused",
    "misconfigured": "misconfigured",
    "retired": "retired",
}
"""What the engine hears of a ProviderError; any other kind is an `error`."""


class Spawn(Protocol):
    """Starts a task and keeps hold of it."""

    def __call__(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """The task that does `work`."""


class Workshop(Struct, frozen=True, kw_only=True):
    """What placing an order takes, shared by all of them."""

    engine: Engine
    providers: Mapping[str, Provider]
    loading: dict[str, LoadsFirst]
    """Those of them whose SDK nobody has waited for yet."""
    assets: Assets
    clock: Clock
    order_timeout: float
    """Seconds after which an order is given up even when nobody waits for it any more."""
    callbacks: str | None
    """Public URL under which providers reach us, without a slash at its end; None: we poll."""
    linger: float
    """Seconds a slot stays taken after we lost sight of an order that may still run."""
    content: ContentHook | None
    """The operator's own check of prompts and pictures, where there is one."""
    listeners: Listeners
    """Asked before a picture is charged: whether anybody waits for it."""
    spawn: Spawn
    """Starts work that outlives the request it came from; the application waits for it when it stops."""


class Halfway(Struct, frozen=True, kw_only=True):
    """A picture that was drawn, and that another order is to finish (`policies.chaining`)."""

    source: Input | None
    """None: lost with the process that had it drawn, while the other order was under way already."""
    offer: Offer
    """Who drew it."""
    seed: int | None
    charge: int
    """Nano-dollars that the team will owe for the drawing once the finished picture is delivered."""


class Drawn(Struct, frozen=True, kw_only=True):
    """What an order brought home."""

    pictures: tuple[Delivered, ...]
    charge: int
    offer: Offer
    halfway: Halfway | None = None
    """Set, without pictures and charge, when another order is to finish it."""


class FoundOrder(Struct, frozen=True, kw_only=True):
    """An order that an earlier process left under way, and what it will bring."""

    attempt: AttemptRow
    offer: Offer
    lease: Lease
    hold: Hold
    generation: asyncio.Task[Generation]


class Salvage(Struct, frozen=True, kw_only=True):
    """What an earlier try at a call left: pictures that were charged, orders under way, and how far it had counted."""

    pictures: tuple[Delivered, ...]
    orders: tuple[FoundOrder, ...]
    attempts: Sequence[AttemptRow]
    """All its orders, also those that are over."""
    decided: int
    policy: str


class RunningOrder:
    """An order on its way. Made with its lease and its hold already taken; `run` gives both back."""

    def __init__(
        self,
        shop: Workshop,
        call: Call,
        candidate: Candidate,
        plan: Plan,
        lease: Lease,
        hold: Hold,
        *,
        found: FoundOrder | None = None,
    ) -> None:
        """`found`: it is under way already, and only waited for."""
        self.shop = shop
        self.call = call
        self.candidate = candidate
        self.plan = plan
        self.lease = lease
        self.hold = hold
        self.wanted = True
        self.sealed = False
        """Its pictures are good and being charged: they will be delivered within one commit, so nobody gives up now."""
        self.on_good: Callable[[], None] | None = None
        """Called once the pictures are good and wanted, before they are charged: from here on rivals come too late."""
        self.timers: list[asyncio.TimerHandle] = []
        """What happens if it takes long; stopped when it ends."""
        self.started = shop.clock.now()
        self.task: asyncio.Task[Drawn] | None = None
        self._found = found
        self._ticket: Ticket | None = found.attempt.ticket if found else None
        self._called_off = False

    def __repr__(self) -> str:
        return f"<RunningOrder {self.plan.attempt_id} at {self.candidate.offer.id}, wanted={self.wanted}>"

    async def run(self) -> Drawn:
        """Bring the pictures home; raises `ProviderError`. Whatever happens, lease and hold are seen to."""
        lost = False
        try:
            generation = await self._generate()
            return await self._take_in(generation)
        except ProviderError as error:
            lost = error.owed == "unknown"
            await self._book(error)
            raise
        except asyncio.CancelledError:
            if self._called_off:
                await self.hold.release(self._outcome(error="cancelled"))
                self._observe("cancelled")
            raise
        except Exception:
            # A fault of ours after the provider's answer: what is owed is looked up, the team pays nothing.
            if not self.hold.closed:
                lost = True
                await self.hold.suspend(self._outcome(error="outcome_unknown", detail="the gateway failed"))
            raise
        finally:
            if lost:
                self.lease.linger(self.shop.linger)
            else:
                self.lease.release()

    async def call_off(self) -> None:
        """Nobody wants the pictures any more: cancel where that is free, else let the order end by itself."""
        self.wanted = False
        provider = self.shop.providers[self.candidate.offer.account]
        if self._ticket is None or self.task is None or not isinstance(provider, Cancels):
            return
        try:
            outcome = await provider.cancel(self._ticket)
        except ProviderError as error:
            log.warning("cancel_failed", attempt=self.plan.attempt_id, error=error.kind)
            return
        log.info("order_called_off", attempt=self.plan.attempt_id, outcome=outcome)
        if outcome == "unbilled" and not self.task.done():
            self._called_off = True
            self.task.cancel()

    def let_go(self) -> None:
        """It is over: stop its timers and break the circles that would keep it in memory until a collection."""
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()
        self.on_good = None
        self.task = None

    def tell_late(self) -> None:
        """The engine hears of an order that is given up before its provider has said anything."""
        self._observe("timeout")

    async def _generate(self) -> Generation:
        if self._found is not None:
            return await self._found.generation
        provider = self.shop.providers[self.candidate.offer.account]
        order = Order(
            attempt_id=self.plan.attempt_id,
            endpoint=self.candidate.offer.endpoint,
            abilities=self.candidate.offer.abilities,
            request=self.plan.request,
            timeout=self.shop.order_timeout,
            inputs=self.plan.inputs,
            mask=self.plan.mask,
            unstored=to_store_nothing(self.candidate.offer, self.call.constraints),
            callback_url=self._callback_url(),
        )
        loading = self.shop.loading.get(self.candidate.offer.account)
        if loading is not None:
            # Orders that wait for an SDK would all go out at once when it is there, and break the account's rate.
            await loading.loaded()
            self.shop.loading.pop(self.candidate.offer.account, None)
        self._observe("submitted")
        self.lease.sent()
        try:
            return await provider.generate(order, self._accepted)
        except ProviderError:
            raise
        except Exception as error:
            # A fault in an adapter or its SDK: the order may have gone out, so its money stays aside.
            log.exception("adapter_failed", attempt=self.plan.attempt_id, offer=self.candidate.offer.id)
            raise OutcomeUnknown(f"the adapter failed with {type(error).__name__}", ticket=self._ticket) from error

    def _callback_url(self) -> str | None:
        base = self.shop.callbacks
        return base and f"{base}/hooks/{self.candidate.offer.account}/{self.plan.attempt_id}"

    async def _accepted(self, ticket: Ticket) -> None:
        self._ticket = ticket
        await self.hold.accept(ticket)

    async def _take_in(self, generation: Generation) -> Drawn:
        """Check and keep what came, then settle: the account's cost for all of it, the team's charge for the good."""
        cost = self._price(generation.usage)
        if self.plan.passes_on:
            return await self._pass_on(generation, cost)
        try:
            good, faults = await self._good(generation, self._keep)
        except NotReady:
            # Drawn and billed, but we cannot keep it: the cost is ours, the team owes nothing.
            outcome = self._outcome(generation, error="not_kept")
            await self.hold.settle(cost=cost, charge=0, outcome=outcome, pictures=len(generation.usage.images))
            raise
        if not good:
            raise self._unfit(generation, faults)
        await self._seal()
        charged = self.wanted and not self.call.is_ours
        charge = self._charge_for_both(len(good), generation.usage, cost) if charged else 0
        rows = self._rows(good, charge)
        outcome = self._outcome(generation, delivered=len(good))
        await self.hold.settle(
            cost=cost,
            charge=charge,
            outcome=outcome,
            pictures=len(generation.usage.images),
            assets=rows if self.wanted else (),
            recipe=recipe(self.call, self.shop.clock.utc()) if self.wanted and not self.call.is_ours else None,
        )
        if not self.wanted:
            await self.shop.assets.forget([kept.path for kept, _ in good])
        self._observe("ok", generation, cost=cost, quoted=self._comparable(generation.usage))
        ended = Ended(cost, self.plan.request.count, outcome)
        pictures = tuple(
            [Delivered(asset=row, data=kept.data, order=ended) for row, (kept, _) in zip(rows, good, strict=True)]
        )
        return Drawn(pictures=pictures, charge=charge, offer=self.candidate.offer)

    async def _pass_on(self, generation: Generation, cost: int) -> Drawn:
        """Check what another order will finish, and settle it without a charge: the finished one has it."""
        good, faults = await self._good(generation, self._look)
        if not good:
            raise self._unfit(generation, faults)
        await self._seal()
        source, seed = good[0]
        halfway = Halfway(
            source=source, offer=self.candidate.offer, seed=seed, charge=self._charge(1, generation.usage, cost)
        )
        outcome = self._outcome(generation, passed_on=1)
        await self.hold.settle(cost=cost, charge=0, outcome=outcome, pictures=len(generation.usage.images))
        self._observe("ok", generation, cost=cost, quoted=self._comparable(generation.usage))
        return Drawn(pictures=(), charge=0, offer=self.candidate.offer, halfway=halfway)

    async def _seal(self) -> None:
        """The pictures are good: unless nobody wants them any more, rivals come too late from here on."""
        self.wanted = self.wanted and await self._awaited()
        if self.wanted:
            self.sealed = True
            if self.on_good is not None:
                self.on_good()

    def _charge_for_both(self, delivered: int, usage: Usage, cost: int) -> int:
        """What the team owes for the good pictures, with what the order before this one cost."""
        before = self.plan.halfway.charge if self.plan.halfway is not None else 0
        return before + self._charge(delivered, usage, cost)

    async def _awaited(self) -> bool:
        """Whether anybody listens; while nobody does, but may come back, this waits, and keeps no slot for it."""
        listeners = self.shop.listeners
        if listeners.listening(self.call.id):
            return True
        self.lease.release()
        return await listeners.returns(self.call.id) and self.wanted

    async def _good(
        self, generation: Generation, take: Callable[[Image, int], Awaitable[T]]
    ) -> tuple[list[tuple[T, int | None]], list[str]]:
        """The pictures that are what was ordered, at most as many as were asked for; and what is wrong with others.

        `take` makes something of one of them and of its place; each comes with its seed.
        """
        good: list[tuple[T, int | None]] = []
        faults: list[str] = []
        for number, image in enumerate(generation.images):
            if len(good) == self.plan.request.count:
                break
            if image.flagged or not await self._may_be_shown(image):
                faults.append("flagged")
                continue
            try:
                taken = await take(image, number)
            except Unfit as unfit:
                faults.append("black" if unfit.black else unfit.why)
                continue
            good.append((taken, image.seed if image.seed is not None else self.plan.request.seed))
        return good, faults

    async def _keep(self, image: Image, number: int) -> Kept:
        """Check a picture and store it."""
        name = f"{sibling(self.plan.attempt_id, 'img')}{number:x}"
        return await self.shop.assets.keep(image, name, self.plan.wish, self.call.compression, self.call.caller.team)

    async def _look(self, image: Image, _: int) -> Input:
        """Check a picture that is not stored."""
        return Input(image.data, await inspect(image, self.plan.wish))

    async def _may_be_shown(self, image: Image) -> bool:
        return self.shop.content is None or await self.shop.content.allows(self.call, image)

    def _unfit(self, generation: Generation, faults: list[str]) -> ProviderError:
        if faults and set(faults) == {"flagged"}:
            return ContentRefused("the provider's safety check marked the picture", owed=generation.usage)
        return BadDelivery("; ".join(dict.fromkeys(faults)) or "no pictures came", owed=generation.usage)

    def _price(self, usage: Usage) -> int:
        """What the account will bill; a size without a price falls back on what was quoted."""
        try:
            return bill(
                self.candidate.offer.tariff,
                usage if usage.steps is not None else msgspec.structs.replace(usage, steps=self.plan.request.steps),
                default_steps=self.candidate.offer.abilities.default_steps,
            )
        except Unpriced:
            log.error("size_without_price", attempt=self.plan.attempt_id, sizes=usage.images)
            return self.candidate.quote.hold

    def _charge(self, delivered: int, usage: Usage, cost: int) -> int:
        """What the team pays of `cost`: no more than the good pictures alone, in the size asked for, would cost."""
        size = (self.plan.wish.width, self.plan.wish.height)
        if usage.nano_usd is None and usage.images == (size,) * delivered:
            return cost
        return min(self._price_of(delivered, usage), cost)

    def _price_of(self, delivered: int, usage: Usage) -> int:
        """What the good pictures alone would have cost."""
        size = (self.plan.wish.width, self.plan.wish.height)
        machine_ns = usage.machine_ns * delivered // max(delivered, len(usage.images))
        good = msgspec.structs.replace(usage, images=(size,) * delivered, machine_ns=machine_ns, nano_usd=None)
        return self._price(good)

    def _rows(self, good: list[tuple[Kept, int | None]], charge: int) -> tuple[AssetRow, ...]:
        halfway, call = self.plan.halfway, self.call
        offer = self.candidate.offer if halfway is None else halfway.offer
        share, rest = divmod(charge, len(good))
        return tuple(
            [
                AssetRow(
                    id=kept.path.partition("/")[2].partition(".")[0],
                    call_id=call.id,
                    attempt_id=self.plan.attempt_id,
                    team=call.caller.team,
                    index=self.plan.first + position,
                    path=kept.path,
                    media_type=f"image/{kept.format}",
                    width=kept.width,
                    height=kept.height,
                    bytes=len(kept.data),
                    sha256=kept.sha256,
                    seed=seed if halfway is None else halfway.seed,
                    model=offer.model,
                    offer_id=offer.id,
                    tier=offer.tier.word,
                    intent=call.intent,
                    cost=share + (rest if position == 0 else 0),
                    parent_id=call.parent,
                    created=self.shop.clock.utc(),
                    expires=call.kept_until or kept.expires,
                )
                for position, (kept, seed) in enumerate(good)
            ]
        )

    async def _book(self, error: ProviderError) -> None:
        """Settle, release or suspend, as the error says what is owed; the team never pays for a failure."""
        outcome = self._outcome(error=error.kind, detail=error.detail, owed=error.owed)
        if isinstance(error.owed, Usage):
            cost = self._price(error.owed)
            await self.hold.settle(cost=cost, charge=0, outcome=outcome, pictures=len(error.owed.images))
        elif error.owed == "nothing":
            await self.hold.release(outcome)
        else:
            if error.ticket is not None and self._ticket is None:
                await self._accepted(error.ticket)
            await self.hold.suspend(outcome)
        log.info(
            "order_failed",
            attempt=self.plan.attempt_id,
            offer=self.candidate.offer.id,
            error=error.kind,
            detail=error.detail,
        )
        if error.kind != "unsupported":  # that is the catalogue's fault, not the provider's
            self._observe(EVENTS.get(error.kind, "error"), retry_after=error.retry_after)

    def _outcome(
        self,
        generation: Generation | None = None,
        *,
        error: str | None = None,
        detail: str = "",
        delivered: int = 0,
        passed_on: int = 0,
        owed: Owed = "nothing",
    ) -> Outcome:
        usage = generation.usage if generation else owed if isinstance(owed, Usage) else None
        return Outcome(
            error=error,
            detail=detail,
            delivered=delivered,
            passed_on=passed_on,
            latency_s=self.shop.clock.now() - self.started,
            queue_s=generation.queue_s if generation else None,
            run_s=generation.run_s if generation else None,
            machine=usage.machine if usage else "",
        )

    def _observe(
        self,
        kind: EventKind,
        generation: Generation | None = None,
        *,
        retry_after: float | None = None,
        cost: int = 0,
        quoted: int | None = None,
    ) -> None:
        now = self.shop.clock.now()
        request = self.plan.request
        event = Event(
            kind=kind,
            offer=self.candidate.offer.id,
            pixels=request.width * request.height,
            count=request.count,
            steps=request.steps,
            in_flight=self.plan.in_flight,
            latency=now - self.started,
            queue_s=generation.queue_s if generation else None,
            retry_after=retry_after,
            cost=cost,
            quoted=quoted,
        )
        self.shop.engine.observe(event, now)

    def _comparable(self, usage: Usage) -> int | None:
        """The quote, where the seller's own word about the price can be held against it."""
        quote = self.candidate.quote
        whole = len(usage.images) == self.plan.request.count
        return quote.amount if quote.certain and whole and usage.nano_usd is not None else None


class Plan(Struct, frozen=True, kw_only=True):
    """What exactly is ordered for one part of a call."""

    attempt_id: str
    first: int
    """Position of the order's first picture in the call's answer."""
    wish: ImageRequest
    """What the caller asked of this part."""
    request: ImageRequest
    """The same in what the offer can do: its formats, our seed."""
    in_flight: int
    """Orders in flight on the tightest capacity when this one started, itself included."""
    inputs: tuple[Input, ...] = ()
    """The pictures to work from."""
    mask: Input | None = None
    passes_on: bool = False
    """What comes is for another order to finish: it is neither stored nor charged."""
    halfway: Halfway | None = None
    """What this order finishes."""


def fit_to_offer(wish: ImageRequest, offer: Offer, seed: int, compression: int | None) -> ImageRequest:
    """The order for an offer: a format it sells (the gateway converts), and a seed where it takes one.

    High fidelity is a low strength where the endpoint knows no other word for it.
    """
    able = offer.abilities
    closely = wish.fidelity == "high" and wish.strength is None and able.fidelity is None and able.strength is not None
    return msgspec.structs.replace(
        wish,
        strength=max(CLOSE, able.strength[0]) if closely and able.strength is not None else wish.strength,
        format=_format(wish.format, offer.abilities.formats, compression),
        seed=seed if offer.abilities.seed else None,
    )


def _format(wanted: Format, sold: tuple[Format, ...], compression: int | None) -> Format:
    if wanted in sold and (compression is None or wanted == "png"):
        return wanted
    # Lossless where we must encode anyway.
    return "png" if "png" in sold else wanted if wanted in sold else sold[0]


def recipe(call: Call, created: datetime) -> RecipeRow:
    """What a call asked for, kept apart from money and decisions so that it can be erased."""
    return RecipeRow(
        call_id=call.id,
        team=call.caller.team,
        user=call.user,
        request={
            **msgspec.to_builtins(call.request),
            "model": call.model,
            "intent": call.intent,
            "tags": dict(call.tags),
            "compression": call.compression,
            **({} if call.shadow else {"shadow": False}),
        },
        created=created,
    )
