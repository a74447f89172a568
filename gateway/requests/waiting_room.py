"""The calls that wait at the gateway, and what those are told that have to leave.

How many may wait, who leaves when one more comes and how often they look again is `policies/waiting.py`'s affair, which
the simulator goes by as well.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.errors import GatewayError, NoCapacity, NotReady
from policies import waiting
from policies.waiting import Crowd


class Place(waiting.Place):
    """One call that waits."""

    __slots__ = ("expects", "send_away")

    def __init__(self, team: str, worth: int, arrived: float, send_away: Callable[[GatewayError], None]) -> None:
        """`worth`: nano-dollars that its failure costs; `send_away` ends its waiting with an error."""
        super().__init__(team, worth, arrived)
        self.send_away = send_away
        self.expects = 0.0
        """Seconds until room is expected for it, as the engine said last."""


class WaitingRoom:
    """The calls that wait, for room or for anything else, with nothing under way."""

    def __init__(self, places: int) -> None:
        self._crowd: Crowd[Place] = Crowd(places)
        self._closed = False

    def __repr__(self) -> str:
        return f"<WaitingRoom, {len(self._crowd)} of {self._crowd.places} places taken>"

    def adopt(self, places: int) -> None:
        """Go by another policy from the next call on."""
        self._crowd.places = places

    def __len__(self) -> int:
        return len(self._crowd)

    def enter(self, place: Place) -> None:
        """Let a call wait; with all places taken, the call of least worth is sent away, be it this one."""
        if self._closed:
            place.send_away(_stopping())
            return
        for least in self._crowd.enter(place):
            least.send_away(self._full(least))

    def pause(self, place: Place, wanted: float) -> float:
        """Seconds until a call looks again that wants to in `wanted` seconds: longer, and spread, in a crowd."""
        return self._crowd.pause(place, wanted)

    def leave(self, place: Place) -> None:
        """A call waits no longer; leaving twice does nothing."""
        self._crowd.leave(place)

    def close(self) -> None:
        """The gateway stops: whoever waits, or would from now on, is told so."""
        self._closed = True
        for place in self._crowd:
            self._crowd.leave(place)
            place.send_away(_stopping())

    def _full(self, place: Place) -> NoCapacity:
        others = self._crowd.places
        why = f"{others} calls wait for room already, and the pictures of this one are worth no more than theirs."
        return NoCapacity(why, retry_after=max(place.expects, 1.0))


def _stopping() -> NotReady:
    return NotReady("The gateway is stopping and orders nothing more; ask again in a moment.", retry_after=1.0)
