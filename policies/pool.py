"""GPUs of our own: when an order for one should go out, and how long it waits until then.

A GPU draws one step at a time, which nothing interrupts, and loads one model at a time. So orders are held at the
gateway, where they can still go elsewhere, and placed just before a machine that has their model is free: first those
whose objective passes first. What a second of a machine costs is its bid price (`policies/scarcity.py`), less while
others stand idle.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from heapq import heapify, heapreplace
from typing import Generic, TypeVar

from msgspec import Struct

from policies.policy import Pool
from policies.types import InLine, Machines

_IDLE_S = 1e-3
_FAR_S = 600.0
_LEFT_OVER_S = 1.0
"""Until a machine that is idle, but worth more to others, may be left over; nobody knows when."""
_MANY = 4
"""So many times as many as there are machines even out: nobody has to go through them one by one."""
_CROWD = 64
"""Behind a longer line, who waits for what is left over does not ask for each how long it takes."""
_HYSTERESIS = 0.75
_WORTH_ONE = 0.3


WhoT = TypeVar("WhoT")


class Held(Generic[WhoT]):
    """Those held at the gateway for machines of one model, in the order in which they go.

    Those for whom a second of a machine is worth its bid come before those who only take what is left over; among
    equals, the one whose objective passes first. Where a bid has moved, those change sides for whom it is another case.
    """

    __slots__ = ("_bid", "_filling", "_worthy")

    def __init__(self) -> None:
        self._worthy: _ByDue[WhoT] = _ByDue()
        self._filling: _ByDue[WhoT] = _ByDue()
        self._bid = 0.0

    def __repr__(self) -> str:
        return f"<Held, {len(self._worthy.standing)} worth the bid, {len(self._filling.standing)} not>"

    def __len__(self) -> int:
        return len(self._worthy.standing) + len(self._filling.standing)

    def join(self, part: InLine, who: WhoT) -> None:
        """Stand in line."""
        self._of(part).add(part, who)

    def leave(self, part: InLine, who: WhoT) -> None:
        """Whoever stands there with this part waits no longer."""
        self._of(part).remove(part, who)

    def first(self, bid: float) -> WhoT | None:
        """Who is next."""
        self._part_by(bid)
        return (self._worthy if self._worthy.standing else self._filling).first()

    def ahead(self, wish: InLine, bid: float) -> Sequence[float]:
        """Seconds that each of those takes who go before a part that does not stand in line."""
        self._part_by(bid)
        if wish.worth < bid:
            return [*self._worthy.seconds, *self._filling.before(wish.due)]
        return self._worthy.before(wish.due)

    def _of(self, part: InLine) -> _ByDue[WhoT]:
        return self._filling if part.worth < self._bid else self._worthy

    def _part_by(self, bid: float) -> None:
        if bid == self._bid:
            return
        if bid > self._bid:
            source, target = self._worthy, self._filling
            moving = [each for each in source.standing if each[0].worth < bid]
        else:
            source, target = self._filling, self._worthy
            moving = [each for each in source.standing if each[0].worth >= bid]
        self._bid = bid
        for part, who in moving:
            source.remove(part, who)
            target.add(part, who)


class _ByDue(Generic[WhoT]):
    """Some of those in line, by when their objective passes; in columns, of which a part can be had without a loop."""

    __slots__ = ("_due", "seconds", "standing")

    def __init__(self) -> None:
        self.standing: list[tuple[InLine, WhoT]] = []
        self.seconds: list[float] = []
        self._due: list[float] = []

    def add(self, part: InLine, who: WhoT) -> None:
        at = bisect_right(self._due, part.due)
        self._due.insert(at, part.due)
        self.seconds.insert(at, part.seconds)
        self.standing.insert(at, (part, who))

    def remove(self, part: InLine, who: WhoT) -> None:
        at = self.standing.index((part, who), bisect_left(self._due, part.due))
        del self._due[at], self.seconds[at], self.standing[at]

    def first(self) -> WhoT | None:
        return self.standing[0][1] if self.standing else None

    def before(self, due: float) -> Sequence[float]:
        return self.seconds[: bisect_left(self._due, due)]


class Outlook(Struct, frozen=True, gc=False):
    """What an order for a machine has before it."""

    wait_s: float
    """Seconds until its step begins."""
    place: bool
    """Whether to place it now."""
    price: float
    """Nano-dollars that a second of the machine costs: now, or in line for it, which takes nothing from anybody."""


def outlook(
    machines: Machines, wish: InLine, now: float, bid: float, terms: Pool, lanes: Mapping[str, int]
) -> Outlook | None:
    """Say when an order would begin, and what a second then costs; None where no machine is up.

    `lanes` is how many machines each model should have; a model with fewer may take one over, for the time of a swap.
    """
    found = _begins(machines, wish, now, bid, terms, lanes)
    if found is None:
        return None
    wait_s, idle = found
    if idle is not None:
        price = bid * share_of_bid(idle, wish.seconds, terms)
        if bid <= wish.worth or price <= wish.worth:
            return Outlook(wait_s, place=True, price=price)
        # Others miss it more: this one takes what is left over, and such a moment may still come.
        wait_s = max(wait_s, _LEFT_OVER_S) if idle else wait_s
    return Outlook(wait_s, place=False, price=bid * terms.left_over)


def _begins(
    machines: Machines, wish: InLine, now: float, bid: float, terms: Pool, lanes: Mapping[str, int]
) -> tuple[float, int | None] | None:
    """Seconds until a step would begin, and how many machines are idle then, or None where it is not to be placed."""
    model = wish.model
    own: list[float] = []
    others: list[float] = []
    for loaded, free_at in machines.up:
        left = free_at - now if free_at > now else 0.0
        if loaded == model or loaded is None:
            own.append(left)
        else:
            others.append(left)
    if len(own) > 1 and len(own) > lanes.get(model, 0) and _owes_one(machines, model, lanes):
        own.remove(min(own))  # the next machine free is for a model that has too few
    swapping = not own
    if swapping:
        if not others:
            return None
        own = [min(others) + terms.swap]
    queued = machines.queued.get(model, 0.0)
    line = machines.line.get(model)
    held = 0 if line is None else len(line)
    if held > _CROWD and wish.worth < bid and min(own) > _IDLE_S:
        return min(own) + (queued + held * wish.seconds) / len(own), None
    before = line.ahead(wish, bid) if line is not None and held else ()
    wait, idle = _behind(own, queued, before)
    if swapping:
        return wait, 0 if min(others) <= terms.lead else None
    if wait > terms.lead and others and len(own) < lanes.get(model, 0):
        taken_over = _take_over(others, queued, len(own), wish.due - now - wish.seconds, terms)
        if taken_over is not None:
            return min(wait, taken_over), 0
    return wait, idle if wait <= terms.lead else None


def _owes_one(machines: Machines, model: str, lanes: Mapping[str, int]) -> bool:
    """Whether a model has more machines than it should, and another fewer."""
    loaded = [each for each, _ in machines.up]
    if loaded.count(model) <= lanes.get(model, 0):
        return False
    return any(wanted > loaded.count(other) for other, wanted in lanes.items() if other != model)


def _take_over(others: list[float], queued: float, own: int, spare: float, terms: Pool) -> float | None:
    """Seconds until a machine of another model could begin with this order, if it should load our model for it.

    A pool loads another model for an order that would just be late otherwise, and where work has piled up.
    """
    soonest = min(others)
    if soonest <= _IDLE_S and terms.swap + 0.05 <= spare < terms.swap + 0.95:
        return terms.swap
    if spare > 4.0 * terms.swap and queued <= 2.0 * terms.swap * own:
        return soonest + terms.swap + queued / (own + 1)
    return None


def _behind(own: list[float], queued: float, before: Sequence[float]) -> tuple[float, int]:
    """Seconds until a machine is free for one who comes behind others, and how many are idle then still."""
    if queued <= 0.0 and not before:
        return min(own), sum([left <= _IDLE_S for left in own])
    if len(before) > _MANY * len(own):  # a step on each of the other machines is half done then, on average
        work = sum(before)
        return (sum(own) + queued + work - 0.5 * (len(own) - 1) * work / len(before)) / len(own), 0
    heapify(own)
    if queued > 0.0:
        heapreplace(own, own[0] + queued)
    for seconds in before:
        if own[0] > _FAR_S:
            break
        heapreplace(own, own[0] + seconds)
    return own[0], sum([left <= _IDLE_S for left in own])


def share_of_bid(idle: int, seconds: float, terms: Pool) -> float:
    """What a second of a machine costs now, as a share of its bid price: less where machines stand idle.

    A long step takes the machine from calls that come meanwhile, idle or not.
    """
    if not idle:
        return 1.0
    share = terms.idle if idle == 1 else terms.left_over
    return share + (1.0 - share) * seconds / (seconds + terms.blocks)


def lanes(loads: Mapping[str, float], loaded: Mapping[str, int], up: int) -> dict[str, int]:
    """How many machines each model should have, from the machine time a plan gives it; few changes, for swaps cost."""
    whole = sum(loads.values())
    if whole <= 0.0 or up <= 0:
        return dict(loaded)
    scale = up / max(whole, up * 0.5)
    wish = {model: load * scale for model, load in loads.items()}
    out = {}
    for model, wanted in wish.items():
        have = loaded.get(model, 0)
        least = 1 if wanted > _WORTH_ONE else 0
        out[model] = max(have if abs(wanted - have) < _HYSTERESIS else round(wanted), least)
    return out
