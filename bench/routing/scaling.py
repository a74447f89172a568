"""What a decision costs: among 12 candidates of 4 accounts, and in catalogues of 10 and of 1,000 offers.

The figures are CPU time of this thread. A machine that is slow, or shared, is so for the reference operation as well,
which is a loop of a thousand rounds: about 30 us on the machine that the musts are meant for. So the must of 50 us is
one of 50/30 times the reference.

The same 1,000 decisions are taken several times, each followed by the reference, and the best time of each counts. What
makes the dearest hundredth dear is then what was to be decided, not what else the machine did: taken once, on a busy
machine, the dearest hundredth of the loop itself is twice to three times its middle, and the ratio says little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from bench.report import Figure
from policies.engine import CostEngine
from policies.policy import Intent, Policy
from policies.tariffs import PerImage
from policies.types import Ask, Capacity, Constraints, Event, Machines, Offer, Tier
from providers.contract import Abilities, ImageRequest, SizeRule

ROUNDS = 32
DECISIONS = 100
TIMED = 1000
TIMED_ROUNDS = 32
LOOP = 1000
LOOP_US = 30.0
"""What the reference takes on the machine that the musts are meant for."""
MUST_US = 50.0
AIM_US = 30.0
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
        self.busy = 0
        self._by_model: dict[str, list[Offer]] = {}
        for offer in offers:
            self._by_model.setdefault(offer.model, []).append(offer)

    def offers(self, models: frozenset[str] | None) -> Sequence[Offer]:
        """Offers of some models, or all."""
        wanted = self._by_model if models is None else models
        return [offer for model in wanted for offer in self._by_model.get(model, ())]

    def in_flight(self, capacity: str) -> int:  # noqa: ARG002 - all alike
        """As many as are said to be busy."""
        return self.busy

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


class Timed(Struct, frozen=True):
    """Microseconds of CPU: half took no longer, and all but one in a hundred."""

    p50: float
    p99: float


def _timed(took: Sequence[float]) -> Timed:
    ordered = sorted(took)
    return Timed(ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100])


class Rounds(Struct, frozen=True):
    """Decisions and the reference, timed in turns, the same several times."""

    decisions: Sequence[Sequence[float]]
    reference: Sequence[Sequence[float]]

    @property
    def best(self) -> tuple[Timed, Timed]:
        """Of the best time of each: what it takes when nothing else disturbs it."""
        return _timed([min(each) for each in zip(*self.decisions, strict=True)]), _timed(
            [min(each) for each in zip(*self.reference, strict=True)]
        )

    @property
    def once(self) -> Timed:
        """Decisions as they came, in the best round."""
        return min([_timed(took) for took in self.decisions], key=lambda timed: timed.p99)


def twelve_of_four() -> Rounds:
    """A decision among 12 candidates of 4 accounts, as the gateway takes it while orders end; and the reference."""
    both = [_round() for _ in range(TIMED_ROUNDS)]
    return Rounds([took for took, _ in both], [reference for _, reference in both])


def _round() -> tuple[list[float], list[float]]:
    made = [replace(_offer(number), model="m0") for number in range(12)]
    capacities = {f"a{n}": Capacity(id=f"a{n}", slots=50) for n in range(4)}
    engine, market = CostEngine(POLICY, capacities, {each.id: each for each in made}), Market(made)
    wish = Ask(
        call_id="call",
        part=0,
        request=ImageRequest(prompt="-"),
        constraints=Constraints(models=frozenset({"m0"})),
        arrived=0.0,
    )

    def happen(n: int) -> None:
        offer, now = made[n % 12].id, n / 100.0
        market.busy = n % 45
        engine.observe(Event(kind="submitted", offer=offer, pixels=1 << 20), now)
        engine.observe(Event(kind="ok", offer=offer, pixels=1 << 20, in_flight=3, latency=1.0), now + 1.0)

    def decide(n: int) -> None:
        engine.decide(replace(wish, arrived=n / 100.0), market, n / 100.0, "new")

    took: list[float] = []
    reference: list[float] = []
    for n in range(TIMED):
        happen(n)
        for act, times in ((decide, took), (reference_loop, reference)):
            began = time.thread_time_ns()
            act(n)
            times.append((time.thread_time_ns() - began) / 1000.0)
    return took, reference


def reference_loop(start: int) -> int:
    """The reference operation: about 30 us on the machine that the musts are meant for."""
    for n in range(LOOP):
        start += n
    return start


def _few_and_many(few: int, many: int) -> tuple[float, float]:
    """Microseconds of CPU a decision takes in catalogues of so many offers: the best of several rounds in turns."""
    markets = [_deciding(few), _deciding(many)]
    rounds = [[_mean_us(decide) for decide in markets] for _ in range(ROUNDS)]
    small, large = (min(each) for each in zip(*rounds, strict=True))
    return small, large


def _deciding(offers: int) -> Callable[[], object]:
    """Decides about one model of a catalogue."""
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
    return lambda: engine.decide(wish, market, 0.0, "new")


def _mean_us(decide: Callable[[], object]) -> float:
    began = time.thread_time_ns()
    for _ in range(DECISIONS):
        decide()
    return (time.thread_time_ns() - began) / DECISIONS / 1000.0


def cost_by_offers() -> list[Figure]:
    """Figures of one decision, and of decisions in small and large catalogues."""
    small, large = _few_and_many(10, 1000)
    rounds = twelve_of_four()
    decision, reference = rounds.best
    return [
        Figure(
            name="decision_p99_of_reference",
            value=decision.p99 / reference.p99,
            unit="x",
            must=MUST_US / LOOP_US,
            aim=AIM_US / LOOP_US,
        ),
        Figure(name="decision_p50_us", value=decision.p50, unit="us"),
        Figure(name="decision_p99_us", value=decision.p99, unit="us"),
        Figure(name="decision_p99_once_us", value=rounds.once.p99, unit="us"),
        Figure(name="reference_p99_us", value=reference.p99, unit="us"),
        Figure(name="decision_10_offers_us", value=small, unit="us"),
        Figure(name="decision_1000_offers_us", value=large, unit="us"),
        Figure(name="decision_growth_10_to_1000_pct", value=100 * (large / small - 1), unit="%", must=10.0),
    ]
