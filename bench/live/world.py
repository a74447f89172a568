"""The sandbox as the simulator sees it: a catalogue's world whose orders take what the sandbox makes them take."""

from __future__ import annotations

from policies.offline.catalog_world import Assumptions, CatalogWorld, Row
from policies.offline.trace import Kind
from providers.sandbox.latency import SPREAD, median_s

SLOW, SLOW_TIMES, ERRORS = 0.01, 4.0, 0.003
"""Share of orders that take so many times as long, and of those that fail; the sandbox is told the same."""
RULES = (
    {"do": "slow", "when": {"share": SLOW}, "args": {"factor": SLOW_TIMES}},
    {"do": "503", "when": {"share": ERRORS}},
)
ASSUMED = Assumptions(spread=SPREAD, slow=SLOW, slow_times=(SLOW_TIMES, SLOW_TIMES), errors=ERRORS)


class SandboxWorld(CatalogWorld):
    """As the catalogue's world, with the sandbox's arithmetic of how long pictures take."""

    def _new_row(self, kind: Kind) -> Row:
        row = super()._new_row(kind)
        wish = kind.request
        seconds = [
            median_s(
                offer.typical_s,
                (wish.width, wish.height),
                wish.count,
                (wish.steps or offer.abilities.default_steps or 1) / (offer.abilities.default_steps or 1),
            )
            for offer in self.offers
        ]
        return Row(row.serves, row.price, seconds)
