"""Counts how often pictures are fetched by their address; kept now and then, all together."""

from __future__ import annotations

from collections import Counter

from gateway.storage.database import Database


class Fetches:
    """What was fetched since it was last kept."""

    def __init__(self) -> None:
        self._times: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Fetches of {len(self._times)} pictures, not kept yet>"

    def note(self, asset_id: str) -> None:
        """Somebody fetched a picture."""
        self._times[asset_id] += 1

    async def keep(self, db: Database) -> None:
        """Have the database add what was counted; what it cannot take is counted still."""
        if not self._times:
            return
        times, self._times = self._times, Counter()
        try:
            await db.count_fetches(times)
        except BaseException:
            self._times.update(times)
            raise
