"""What happened to money within a period, gathered in one look so that every view of it has the same total.

Money is nano-dollars. Every posted entry of the period is in `posted` once, and again in each of the other views it
belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TypeAlias

from msgspec import Struct, field

Tags: TypeAlias = tuple[tuple[str, str], ...]
"""The tags of a call, by name."""


class Spent(Struct):
    """A sum over posted entries."""

    cost: int = 0
    """What we owe provider accounts."""
    charge: int = 0
    """What teams owe us."""
    orders: int = 0
    """Orders that were settled."""
    images: int = 0
    """Pictures they delivered."""

    def add(self, other: Spent) -> None:
        """Take another sum in."""
        self.cost += other.cost
        self.charge += other.charge
        self.orders += other.orders
        self.images += other.images


class Source(Struct, frozen=True):
    """What a posting is about. Empty where nobody knows: a correction of an endpoint names no order."""

    day: date
    account: str
    offer_id: str
    endpoint: str
    team: str
    key_id: str


class Drawn(Struct, frozen=True):
    """A kind of order that delivered: where, how large, how many pictures."""

    offer_id: str
    width: int
    height: int
    images: int
    steps: int | None
    promoted: bool
    """Whether it drew a kept picture again at a higher tier."""
    operation: str = "generate"
    """What was done; only drawing from words is priced elsewhere, for the sizes of input pictures are not kept."""


class Repeats(Struct):
    """Orders that drew what an earlier one of the period had drawn: same team, model, prompt, size and terms."""

    orders: int = 0
    """Beyond the first of each."""
    cost: int = 0
    distinct: int = 0
    """How many things were drawn more than once."""
    example: str = ""
    """The call of the most repeated one."""
    most: int = 0
    """How often that was drawn."""


class Fetched(Struct):
    """Pictures of one team and tier that were drawn in a period and are kept here. Money is nano-dollars."""

    kept: int
    fetched: int
    """Of these, how many somebody fetched by their address."""
    wasted: int
    """What the others were charged."""


class Open(Struct):
    """Money that is still set aside."""

    orders: int = 0
    held: int = 0


class Activity(Struct, kw_only=True):
    """Everything posted within a period."""

    posted: dict[Source, Spent] = field(default_factory=dict)
    tags: dict[Tags, Spent] = field(default_factory=dict)
    """Orders whose recipe is gone, and postings without an order, count as untagged."""
    drawn: dict[Drawn, Spent] = field(default_factory=dict)
    hours: dict[tuple[int, str], int] = field(default_factory=dict)
    """(hour since 1970, offer) -> pictures delivered in it."""
    failed: dict[str, Spent] = field(default_factory=dict)
    """Provider account -> orders that were billed and delivered nothing."""
    repeats: Repeats = field(default_factory=Repeats)
    promoted_from: int = 0
    """Pictures of any age that were promoted within the period."""
    fetched: Mapping[tuple[str, str], Fetched] = {}
    """(team, tier) -> the pictures of the period that are still kept."""
    suspended: Mapping[str, Open] = {}
    """Provider account -> orders whose cost nobody knows yet, whenever they were placed."""
    keys: Mapping[str, str] = {}
    """Id of a key -> the name it was given."""
    last_seq: int = 0
    """The last entry there was."""


class SpentHour(Struct, frozen=True):
    """What one party's book took up within an hour. Money is nano-dollars."""

    hour: int
    """Since 1970, in UTC."""
    book: str
    """cost: what we owe an account; charge: what a team owes us."""
    party: str
    amount: int


class SpentHours(Struct, frozen=True):
    """Part of the posted entries, added up by the hour."""

    hours: Sequence[SpentHour]
    last_seq: int
    """The last entry looked at; the same as before when there is none after it."""


class RecordedPart(Struct):
    """One part of a recorded call: what was asked of the engine, and what came of it."""

    ask: bytes
    """`policies.types.Ask` in JSON, without words."""
    delivered: int = 0
    """Pictures."""
    offer: str = ""
    """Who delivered."""
    ended: datetime | None = None
    """When the pictures were there, in UTC."""


class RecordedCall(Struct, kw_only=True):
    """A call as it was recorded by the decisions about it and the orders placed for it."""

    call_id: str
    at: datetime
    """When it was decided about first, in UTC."""
    team: str
    parts: dict[int, RecordedPart] = field(default_factory=dict)
    cost: int = 0
    """Nano-dollars of all its orders so far."""
    open: int = 0
    """Orders whose cost is not known yet."""


class PostedCost(Struct, frozen=True, kw_only=True):
    """One posted entry of a cost book with all that is known of its order. Money is nano-dollars, times are UTC."""

    seq: int
    at: datetime
    kind: str
    """settle or correction."""
    amount: int
    note: str
    account: str
    endpoint: str
    attempt_id: str
    """Empty for a correction of an endpoint as a whole; so is what follows."""
    call_id: str = ""
    team: str = ""
    key_id: str = ""
    offer_id: str = ""
    width: int = 0
    height: int = 0
    delivered: int = 0
    """Pictures; none for what is posted beside the order's bill: overruns and corrections."""
    listed: int | None = None
    """What its bill would be by the list, where the account's billing made another of it."""
    started: datetime | None = None
    tags: Mapping[str, str] = {}
