"""What a decision costs in a catalogue of 10 and of 1,000 offers, of which a call's model has ten."""

from __future__ import annotations

import time
from collections.abc import Sequence

from policies.engine import CostEngine
from policies.policy import Intent, Policy
from policies.tariffs import PerImage
from policies.types import Ask, Capacity, Constraints, Machines, Offer, Tier
from providers.contract import Abilities, ImageRequest, SizeRule

ROUNDS = 7
DECISIONS = 300
POLICY = Policy(
    name="bench",
    revision=1,
    default_intent="preview",
    intents={"preview": Intent(name="preview", tier=Tier.PREVIEW, slo=15.0, deadline=120.0)},
    qualities={},
)


class Market:
    """A view of idle accounts."""

    prices = 1

    def __init__(self, offers: Sequence[Offer]) -> None:
        self._by_model: dict[str, list[Offer]] = {}
        for offer in offers:
            self._by_model.setdefault(offer.model, []).append(offer)

    def offers(self, models: frozenset[str] | None) -> Sequence[Offer]:
        """Offers of some models, or all."""
        wanted = self._by_model if models is None else models
        return [offer for model in wanted for offer in self._by_model.get(model, ())]

    def in_flight(self, capacity: str) -> int:  # noqa: ARG002 - idle
        """Nothing."""
        return 0

    def waiting(self, capacity: str) -> int:  # noqa: ARG002 - idle
        """Nobody."""
        return 0

    def machines(self, capacity: str) -> Machines | None:  # noqa: ARG002 - none of our own
        """None."""
        return None


def _offer(number: int) -> Offer:
    account = f"a{number % 4}"
    return Offer(
        id=f"{account}:{number}",
        model=f"m{number // 10}",
        account=account,
        kind=account,
        endpoint=str(number),
        tier=Tier.STANDARD,
        tariff=PerImage(10_000_000 + 10_000 * number),
        abilities=Abilities(sizes=SizeRule(min_side=256, max_side=2048, multiple=32)),
        capacities=(account,),
        typical_s=1.0,
    )


def decision_us(offers: int) -> float:
    """Microseconds of CPU a decision takes, the best of several rounds."""
    made = [_offer(number) for number in range(offers)]
    capacities = {f"a{n}": Capacity(id=f"a{n}", slots=50) for n in range(4)}
    engine, market = CostEngine(POLICY, capacities, {each.id: each for each in made}), Market(made)
    wish = Ask(
        call_id="call",
        part=0,
        request=ImageRequest(prompt="-"),
        constraints=Constraints(models=frozenset({"m0"})),
        arrived=0.0,
    )
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(DECISIONS):
            engine.decide(wish, market, 0.0, "new")
        best = min(best, time.process_time() - began)
    return best / DECISIONS * 1e6


def cost_by_offers() -> list[tuple[str, float, float | None]]:
    """(figure, value, must) for small and large catalogues."""
    small, large = decision_us(10), decision_us(1000)
    return [
        ("decision_10_offers_us", small, None),
        ("decision_1000_offers_us", large, None),
        ("decision_growth_10_to_1000_pct", 100 * (large / small - 1), 10.0),
    ]
