"""What goes into the request path and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from msgspec import Struct
from msgspec.structs import replace

from gateway.keys import USUAL_SCOPES
from gateway.storage.rows import AssetRow, Outcome
from policies.types import Constraints, Tier, Worth
from providers.contract import ImageRequest, Input

if TYPE_CHECKING:
    from gateway.requests.regime import Regime

Purpose = Literal["live", "promotion", "quote", "shadow", "sentinel"]
"""shadow: a copy for an experiment, which goes to another seller. sentinel: drawn to see whether an offer changed."""


class Limits(Struct, frozen=True, kw_only=True):
    """What no single call of a key may go beyond; None is not limited. Money is nano-dollars."""

    tiers: frozenset[Tier] | None = None
    """Tiers of the models it may draw with."""
    price: int | None = None
    """Of one picture."""
    call_price: int | None = None
    """Of all pictures of one call together; shared evenly by them."""
    pixels: int | None = None
    """Width x height of one picture."""


class Caller(Struct, frozen=True, kw_only=True):
    """Who asks: the key that was shown, and the team that pays."""

    key_id: str
    team: str
    scopes: frozenset[str] = frozenset(USUAL_SCOPES)
    models: frozenset[str] | None = None
    """Models this key may use; None is all."""
    limits: Limits | None = None
    """None where it has none, so that calls of such keys cost nothing more."""


class Call(Struct, frozen=True, kw_only=True):
    """One authorised ask: who, what, on what terms, by when."""

    id: str
    caller: Caller
    request: ImageRequest
    """What to draw; `count` is all pictures of the call, `seed` the caller's own or None."""
    constraints: Constraints
    inputs: tuple[Input, ...] = ()
    """The pictures to work from, as many as `request.references`; in memory only, never recorded."""
    mask: Input | None = None
    removal: Constraints | None = None
    """The terms of the order that removes the background, where the picture takes two; None: the same, of any model."""
    worth: Worth = Worth()
    intent: str = "preview"
    model: str = "auto"
    """As the caller named it."""
    compression: int | None = None
    """0-100, for jpeg and webp: quality to re-encode with; None keeps the provider's bytes."""
    user: str | None = None
    tags: Mapping[str, str] = {}
    parent: str | None = None
    """The image this call promotes."""
    purpose: Purpose = "live"
    shadow: bool = True
    """Whether it may be copied for an experiment; callers may forbid it."""
    kept_until: datetime | None = None
    """Until when its pictures are kept, where that is not for the policy to say."""
    fingerprint: bytes | None = None
    """What the request asked for, when its client may ask again; see `gateway.requests.coalescing`."""
    arrived: float
    """Clock.now() when the request came in."""
    regime: Regime | None = None
    """Policy and catalogue it was read by, and is served under; None: those in force."""
    batch: bool = False
    """Whether it stands behind all others in line, and nothing is paid to have it sooner."""
    soft_limit: str = ""
    """What the soft limit of a budget made of it, in words."""
    like: bytes = b""
    """What it asks for, apart from who asks and in which words, while a canary is compared with its like."""

    @property
    def is_ours(self) -> bool:
        """Whether nobody asked for it but we ourselves: nobody is charged, and no words of it are kept."""
        return self.purpose in {"shadow", "sentinel"}


def terms_of_removal(call: Call) -> Constraints:
    """The terms of the order that removes the background of what a call draws."""
    return call.removal or replace(call.constraints, models=call.caller.models)


def in_batch(call: Call) -> Call:
    """The call as one that nobody waits for: any moment before its deadline will do."""
    constraints = replace(call.constraints, slo=call.constraints.deadline)
    return replace(call, batch=True, constraints=constraints, worth=replace(call.worth, late=0, late_second=0))


class Ended(Struct, frozen=True):
    """How an order ended, as it is in the books."""

    cost: int
    """Nano-dollars that its account bills."""
    count: int
    """Pictures it was to draw."""
    outcome: Outcome


class Delivered(Struct, frozen=True, kw_only=True):
    """One kept picture with its bytes at hand."""

    asset: AssetRow
    data: bytes
    order: Ended | None = None
    """Of the order that drew it; None where it is read from what was kept."""


class Delivery(Struct, frozen=True, kw_only=True):
    """What the caller gets."""

    call_id: str
    decision_id: str
    images: tuple[Delivered, ...]
    charge: int
    """Nano-dollars the team owes for this call."""
    policy: str
    attempts: int
    offers: tuple[str, ...]
    """Distinct offers that delivered, in order of the pictures; behind them those that finished what these drew."""


def offers_of(pictures: Sequence[Delivered], charged: Sequence[str]) -> tuple[str, ...]:
    """The offers of a delivery: who drew its pictures, and who else was `charged` for them."""
    return tuple(dict.fromkeys([*[picture.asset.offer_id for picture in pictures], *charged]))
