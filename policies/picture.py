"""What the engine saw of the world when it decided: a value, so that a decision can be stored and taken again.

`policies/engine.py` draws it from everything it has learned; `policies/judgement.py` decides from it and from nothing
else. Seconds, probabilities and nano-dollars throughout; moments are on the driver's clock.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from policies.tariffs import Quote
from policies.types import Ask, CapacityId, InLine, OfferId, Reason, Rejection

Lack: TypeAlias = Literal["full", "hurried", "reserved", "machine"]
"""Why an order finds no room: the capacity is full; its last slots are for calls in a hurry; the policy reserves them
for others; or every machine of our own is busy. `Seen.objection` puts it in words."""


class Seen(Struct, frozen=True, gc=False, array_like=True):
    """One offer that may serve, now or once there is room. Positional, because a decision makes one per offer."""

    offer: OfferId
    account: str
    quote: Quote
    bias: float
    """What the seller really bills, over its quote, as the last invoices show."""
    counted: float
    """Share of the quote that weighs in the choice (`Offer.counted`)."""
    expected_s: float
    """Middle of the forecast."""
    p50: float
    p95: float
    wait_s: float
    """Seconds until the order can go out; 0 where there is room now."""
    late: float
    """Probability that the answer comes after the objective."""
    late_s: float
    """Mean seconds it comes after the objective."""
    too_late: float
    """Probability that it comes after the deadline."""
    late_again: float
    """Probability that the answer is late if this order fails and another like it follows."""
    error_rate: float
    """Probability that the order fails."""
    left: int
    """Orders that could start at once on its tightest capacity."""
    share_left: float
    """Unused share, 0 to 1, of that capacity once this order is placed."""
    slot_price: float
    """Nano-dollars for each second in one of its slots."""
    order_price: float
    """Nano-dollars for one order of its rate."""
    premium: float
    """Nano-dollars that a nano-dollar of its prepaid credit is worth beyond itself."""
    free_price: float
    """Nano-dollars that the free pictures this order would use up are worth; -1 where it uses none."""
    machine_s: float
    """Seconds of a GPU of our own; 0 where it is not ours."""
    machine_price: float
    """Nano-dollars for each of them."""
    hedge_s: float
    """Seconds by which most of its like would be done: when to look at it again."""
    line: InLine | None = None
    """How this order would stand in line for a machine."""
    capacity: CapacityId | None = None
    """For want of which capacity it may not go out yet."""
    blocked: Rejection | Lack | None = None
    """What stands in the way until then; None when it may go out now. Pictures from before have sentences for all."""
    spare: float = 0.0
    """Share of the slots of that capacity which has to be left for others once this order is placed."""

    @property
    def objection(self) -> Rejection | None:
        """What stands in the way, in words. Made when asked for: words are a third of what a decision costs."""
        if self.blocked is None or isinstance(self.blocked, Rejection):
            return self.blocked
        return Rejection(offer=self.offer, code="headroom", reason=self._lack(self.blocked), lasting=False)

    def _lack(self, lack: Lack) -> str:
        match lack:
            case "full":
                return f"{self.capacity} is full; room is expected in {self.wait_s:.1f} s"
            case "machine":
                return f"{self.capacity} is busy; a machine is expected in {self.wait_s:.1f} s"
            case "hurried":
                kept = f"the last slots of {self.capacity} are kept for calls in a hurry"
            case "reserved":
                kept = f"{self.spare:.0%} of the slots of {self.capacity} are reserved for others"
        return f"{kept}; more are expected in {self.wait_s:.1f} s"


class Running(Struct, frozen=True, gc=False, array_like=True):
    """An order of this part that is under way."""

    account: str
    stuck: float
    """Probability that it ends after the objective, given that it has not ended yet."""
    lost: float
    """Probability that it will not end before the deadline, given that it has not ended yet."""
    over_s: float
    """Mean seconds it will end after the objective, or after now where that has passed."""
    look_again: float
    """Seconds from now after which it is worth looking at it again, once no other order could be in time any more."""


class Picture(Struct, frozen=True, gc=False, omit_defaults=True):
    """Everything a decision depends on, beside the policy."""

    ask: Ask
    now: float
    reason: Reason
    prices: int
    seen: tuple[Seen, ...]
    rejected: tuple[Rejection, ...]
    """Offers that may not serve at all."""
    running: tuple[Running, ...] = ()
    over: Rejection | None = None
    """Why nothing more can be ordered for this part at all."""
    panic: bool = False
    """Whether failing breakers are overlooked, because nobody else is left."""
    fastest: tuple[tuple[str, float], ...] = ()
    """The two accounts that would be quickest, and their seconds."""
    hedge_budget: bool = True
    """Whether the share of orders that may be second ones is not used up."""

    def without_words(self) -> Picture:
        """The same without what was asked to be drawn: decisions depend on its size, not on its words."""
        request = replace(self.ask.request, prompt="", negative_prompt=None)
        return replace(self, ask=replace(self.ask, request=request))
