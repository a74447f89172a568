"""Pairs of two sellers with given differences; seeded."""

from __future__ import annotations

import random

from policies.experiments.pairs import Outcome, Pair, Side

CENT = 10_000_000


class Sellers:
    """Pairs of two sellers with given differences."""

    def __init__(self, seed: int, *, dearer: float = 1.0, slower: float = 1.0, fails: float = 0.0) -> None:
        self._rng = random.Random(seed)
        self.dearer, self.slower, self.fails = dearer, slower, fails

    def pairs(self, count: int, *, challenger: str = "t", stratum: str = "", share: float = 1.0) -> list[Pair]:
        return [self.pair(at, challenger, stratum, share) for at in range(count)]

    def pair(self, at: int, challenger: str, stratum: str, share: float) -> Pair:
        size = self._rng.choice((512, 1024))
        price = CENT * size * size / 1024**2
        return Pair(
            id=f"{challenger}{stratum}{at}",
            experiment="one",
            challenger=challenger,
            call_id=f"call_{at}",
            at=at * 60.0,
            stratum=stratum,
            share=share,
            champion=self.side("fal", size, price, 1.0, 0.0),
            challenger_side=self.side("together", size, price * self.dearer, self.slower, self.fails),
            expires=4e9,
        )

    def side(self, account: str, size: int, price: float, slower: float, fails: float) -> Side:
        outcome: Outcome = "failed" if self._rng.random() < fails else "delivered"
        return Side(
            offer=f"{account}:flux-dev",
            account=account,
            quoted=round(price),
            billed=round(price * self._rng.lognormvariate(0, 0.05)) if outcome == "delivered" else 0,
            latency_s=3.0 * slower * self._rng.lognormvariate(0, 0.3),
            outcome=outcome,
            error=None if outcome == "delivered" else "unavailable",
            width=size if outcome == "delivered" else 0,
            height=size if outcome == "delivered" else 0,
        )
