"""How many calls may wait at the gateway, and which of them has to leave when one more comes.

The engine says whether a call waits and for what; here only their number is bounded. Beyond it the call whose picture
is worth least, by the policy's `failure`, is told to come back: the newcomer or one that waits already. Among equals it
is one of the team that has most of them waiting, and of these the one that came last.

Room that comes free wakes whoever it is for. Beside that each call looks again from time to time, whether another offer
has become better; a thousand that did so every second would leave no time for anything else, so a crowd looks seldom.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from gateway.errors import GatewayError, NoCapacity, NotReady

LOOKS_PER_S = 100
"""Calls that look again in a second, all together; each costs a decision, up to a millisecond on a slow machine."""
_GOLDEN = 0.6180339887
"""Multiples of it, less their whole part, lie evenly between 0 and 1 however many there are."""


class Place:
    """One call that waits."""

    __slots__ = ("arrived", "expects", "send_away", "team", "worth")

    def __init__(self, team: str, worth: int, arrived: float, send_away: Callable[[GatewayError], None]) -> None:
        """`worth`: nano-dollars that its failure costs; `send_away` ends its waiting with an error."""
        self.team = team
        self.worth = worth
        self.arrived = arrived
        self.send_away = send_away
        self.expects = 0.0
        """Seconds until room is expected for it, as the engine said last."""


class WaitingRoom:
    """The calls that wait, for room or for anything else, with nothing under way."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._waiting: dict[Place, None] = {}
        self._teams: Counter[str] = Counter()
        self._closed = False
        self._looks = 0

    def __repr__(self) -> str:
        return f"<WaitingRoom, {len(self._waiting)} of {self._places} places taken>"

    def adopt(self, places: int) -> None:
        """Go by another policy from the next call on."""
        self._places = places

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, place: Place) -> None:
        """Let a call wait; with all places taken, the call of least worth is sent away, be it this one."""
        if self._closed:
            place.send_away(_stopping())
            return
        self._waiting[place] = None
        self._teams[place.team] += 1
        while len(self._waiting) > self._places:
            least = min(self._waiting, key=self._value)
            self.leave(least)
            least.send_away(self._full(least))

    def pause(self, wanted: float) -> float:
        """Seconds until a call looks again that wants to in `wanted` seconds: longer, and spread, in a crowd."""
        self._looks += 1
        spread = 0.5 + self._looks * _GOLDEN % 1.0
        return max(wanted, spread * len(self._waiting) / LOOKS_PER_S)

    def leave(self, place: Place) -> None:
        """A call waits no longer; leaving twice does nothing."""
        if place not in self._waiting:
            return
        del self._waiting[place]
        self._teams[place.team] -= 1
        if not self._teams[place.team]:
            del self._teams[place.team]

    def close(self) -> None:
        """The gateway stops: whoever waits, or would from now on, is told so."""
        self._closed = True
        for place in tuple(self._waiting):
            self.leave(place)
            place.send_away(_stopping())

    def _value(self, place: Place) -> tuple[int, int, float]:
        return place.worth, -self._teams[place.team], -place.arrived

    def _full(self, place: Place) -> NoCapacity:
        why = f"{self._places} calls wait for room already, and the pictures of this one are worth no more than theirs."
        return NoCapacity(why, retry_after=max(place.expects, 1.0))


def _stopping() -> NotReady:
    return NotReady("The gateway is stopping and orders nothing more; ask again in a moment.", retry_after=1.0)
