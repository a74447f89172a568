"""Whether anybody waits for a call: an order asks before it charges for a picture."""

from __future__ import annotations

import asyncio


class Listeners:
    """Which calls nobody listens to just now although somebody may come back for them."""

    def __init__(self) -> None:
        self._absent: dict[str, asyncio.Future[bool]] = {}

    def __repr__(self) -> str:
        return f"<Listeners, {len(self._absent)} calls without>"

    def listening(self, call_id: str) -> bool:
        """Whether somebody waits for a call; so it is with every call that was not said to be left."""
        return call_id not in self._absent

    async def returns(self, call_id: str) -> bool:
        """Wait until somebody comes back for a call (True) or it is over (False)."""
        absent = self._absent.get(call_id)
        return True if absent is None else await asyncio.shield(absent)

    def leave(self, call_id: str) -> None:
        """Nobody listens from now on."""
        self._absent.setdefault(call_id, asyncio.get_running_loop().create_future())

    def enter(self, call_id: str, *, back: bool = True) -> None:
        """Somebody listens again, or (not `back`) nobody ever will."""
        absent = self._absent.pop(call_id, None)
        if absent is not None:
            absent.set_result(back)
