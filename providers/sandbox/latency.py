"""How long work takes: lognormal around what is typical for model, steps and size, with cold starts after idling."""

from __future__ import annotations

import math
import random

from providers.sandbox.endpoints import Endpoint, Size

SPREAD = 0.25
"""Standard deviation of the natural logarithm of what work takes."""
_MORE_IMAGES = 0.35
_IDLE_S = 600.0
_COLD_START_S = 8.0


def median_s(typical_s: float, size: Size, count: int, pace: float = 1.0) -> float:
    """Seconds that half of such orders take; `typical_s` is for one megapixel, `pace` steps over default steps."""
    megapixels = max(0.25, size[0] * size[1] / 1_048_576)
    return typical_s * pace * megapixels * (1 + _MORE_IMAGES * (count - 1))


class Latency:
    """Seconds of work for each order, the same for the same seed and order number; multiplied by `scale`."""

    def __init__(self, seed: int, scale: float) -> None:
        self._seed = seed
        self._time_scale = scale
        self._last_asked: dict[tuple[str, str], float] = {}
        self.factor = 1.0

    @property
    def scale(self) -> float:
        """Real seconds per second of the imitated seller."""
        return self._time_scale * self.factor

    def run_s(self, endpoint: Endpoint, size: Size, count: int, steps: int | None, draw: str) -> float:
        """Seconds of work; `draw` names the order, so that asking twice answers the same."""
        pace = (steps or endpoint.default_steps) / endpoint.default_steps
        median = median_s(endpoint.typical_s, size, count, pace)
        spread = random.Random(f"{self._seed}/drawing/{draw}").lognormvariate(math.log(median), SPREAD)
        return spread * self.scale

    def cold_start_s(self, endpoint: Endpoint, draw: str, now: float) -> float:
        """Extra seconds when nobody asked for this endpoint for ten (scaled) minutes; everything starts warm."""
        key = (endpoint.seller, endpoint.id)
        before = self._last_asked.get(key, now)
        self._last_asked[key] = now
        if now - before <= _IDLE_S * self.scale:
            return 0.0
        return random.Random(f"{self._seed}/cold/{draw}").lognormvariate(math.log(_COLD_START_S), SPREAD) * self.scale
