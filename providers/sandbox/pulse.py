"""How far behind its work a busy sandbox is, so that nobody is blamed for orders that it was late to count."""

from __future__ import annotations

import asyncio

_BEAT_S = 0.02
_REMEMBERED_S = 1.0


class Pulse:
    """Beats on the running event loop; a beat that comes late tells by how much everything else did."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time()
        self._worst, self._worst_at = 0.0, self._due
        self._beat()

    def behind(self) -> float:
        """Seconds by which what is looked at now may have waited: at this moment, or within the last second."""
        return max(self._loop.time() - self._due, self._worst)

    def stop(self) -> None:
        """Beat no more."""
        self._timer.cancel()

    def _beat(self) -> None:
        now = self._loop.time()
        late = now - self._due
        if late >= self._worst or now - self._worst_at > _REMEMBERED_S:
            self._worst, self._worst_at = late, now
        self._due = now + _BEAT_S
        self._timer = self._loop.call_at(self._due, self._beat)
