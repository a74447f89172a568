"""Who waits for room: in which order it goes to them, how many may wait, and how often they look again.

The live gateway (`gateway/requests/`) and the simulator (`policies/offline/driver.py`) keep the same lines and the same
crowd, so that what is simulated is what is served.

A line stands before each capacity, by rank: the moment a call came, less its policy's `priority`. So nobody waits for
others that come later by more than their priority; but whoever will be late whatever happens, and loses little more by
waiting, stands behind all who may still be in time. Otherwise a crowd once late makes everybody late who comes after.
Those who have to leave some slots for others are passed while no more than these are free.

Beyond `queue.max_waiting` calls the one whose picture is worth least, by the policy's `failure`, has to leave: the
newcomer or one that waits already. Among equals it is one of the team that has most of them waiting, and of these the
one that came last.

Room that comes free wakes whoever it is for. Beside that each call looks again from time to time, whether another offer
has become better; a thousand that did so every second would leave no time for anything else, so the more looks are
wanted, the longer each of them is put off: twice as long where twice as many are wanted as there is time for.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

LOOKS_PER_S = 200
"""Calls that look again in a second, all together; each costs a decision, up to a millisecond on a slow machine."""
_SOONEST_S = 0.05
_GOLDEN = 0.6180339887
"""Multiples of it, less their whole part, lie evenly between 0 and 1 however many there are."""

_BEHIND = 1e9

WhoT = TypeVar("WhoT")


def rank(arrived: float, priority: float, *, lost: bool = False) -> float:
    """Where a call stands in line: the least goes first. `lost`: late whatever happens (`policies.types.Wait`)."""
    return arrived - priority + (_BEHIND if lost else 0.0)


class Spot(NamedTuple):
    """A place in a line: those of less rank go first, and of equals those that came first."""

    rank: float
    number: int
    spare: float = 0.0
    """Share of the slots that has to be left for others."""


class Line(Generic[WhoT]):
    """Those who wait for one capacity; in it, a line of those who have to leave the same share for others."""

    __slots__ = ("_number", "_standing")

    def __init__(self) -> None:
        self._standing: dict[float, list[tuple[Spot, WhoT]]] = {}
        self._number = 0

    def __repr__(self) -> str:
        return f"<Line of {len(self)}>"

    def __len__(self) -> int:
        return sum([len(standing) for standing in self._standing.values()])

    def join(self, rank: float, who: WhoT, spare: float = 0.0) -> Spot:
        """Stand in line; equals stand behind those that came before."""
        self._number += 1
        spot = Spot(rank, self._number, spare)
        insort(self._standing.setdefault(spare, []), (spot, who), key=_spot)
        return spot

    def leave(self, spot: Spot) -> None:
        """Whoever has this spot waits no longer."""
        standing = self._standing[spot.spare]
        del standing[bisect_left(standing, spot, key=_spot)]
        if not standing:
            del self._standing[spot.spare]

    def next(self, has_room: Callable[[float], bool]) -> tuple[Spot, WhoT] | None:
        """Who goes next of those for whom there is room; `has_room` tells it by the share left for others."""
        heads = [standing[0] for spare, standing in self._standing.items() if has_room(spare)]
        return min(heads, key=_spot, default=None)

    def ahead(self, rank: float) -> int:
        """How many go before somebody of this rank who has not joined."""
        return sum([bisect_left(each, Spot(rank, 0), key=_spot) for each in self._standing.values()])


def _spot(standing: tuple[Spot, object]) -> Spot:
    return standing[0]


class Place:
    """One call that waits."""

    __slots__ = ("arrived", "looks", "team", "worth")

    def __init__(self, team: str, worth: int, arrived: float) -> None:
        """`worth`: nano-dollars that its failure costs."""
        self.team = team
        self.worth = worth
        self.arrived = arrived
        self.looks = 0.0
        """How often in a second it wants to look again."""


PlaceT = TypeVar("PlaceT", bound=Place)


class Crowd(Generic[PlaceT]):
    """All calls that wait, for room or for anything else, with nothing under way."""

    __slots__ = ("_looks", "_paused", "_teams", "_waiting", "places")

    def __init__(self, places: int) -> None:
        self.places = places
        """Most calls that may wait at once."""
        self._waiting: dict[PlaceT, None] = {}
        self._teams: Counter[str] = Counter()
        self._looks = 0.0
        self._paused = 0

    def __repr__(self) -> str:
        return f"<Crowd, {len(self._waiting)} of {self.places} places taken>"

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[PlaceT]:
        """In the order of entering."""
        return iter(tuple(self._waiting))

    def enter(self, place: PlaceT) -> list[PlaceT]:
        """Let a call wait; answers those that have to leave for it, itself perhaps, and wait no longer."""
        if place in self._waiting:
            return []
        self._waiting[place] = None
        self._teams[place.team] += 1
        out = []
        while len(self._waiting) > self.places:
            least = min(self._waiting, key=self._value)
            self.leave(least)
            out.append(least)
        return out

    def leave(self, place: PlaceT) -> None:
        """A call waits no longer; leaving twice does nothing."""
        if place not in self._waiting:
            return
        del self._waiting[place]
        self._want(place, 0.0)
        self._teams[place.team] -= 1
        if not self._teams[place.team]:
            del self._teams[place.team]

    def pause(self, place: PlaceT, wanted: float) -> float:
        """Seconds until a waiting call looks again which wants to in `wanted`: longer, and spread, in a crowd."""
        wanted = max(wanted, _SOONEST_S)
        self._want(place, 1.0 / wanted)
        if self._looks <= LOOKS_PER_S:
            return wanted
        self._paused += 1
        spread = 0.5 + self._paused * _GOLDEN % 1.0
        return wanted * max(spread * self._looks / LOOKS_PER_S, 1.0)

    def _want(self, place: PlaceT, looks: float) -> None:
        self._looks = max(self._looks + looks - place.looks, 0.0)
        place.looks = looks

    def _value(self, place: Place) -> tuple[int, int, float]:
        return place.worth, -self._teams[place.team], -place.arrived
