"""What room a copy may take."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from gateway.revisions import load_revision
from gateway.settings import load_settings
from policies.engine import CostEngine
from policies.experiments.spare import QUIET_S, SpareEngine, Usage
from policies.types import Ask, CapacityId, Constraints, Event, Machines, Offer, Shed, Submit
from providers.contract import ImageRequest

REVISION = load_revision(load_settings(None, flags={}), every_account=True)
CATALOG = replace(
    REVISION.catalog,
    capacities={**REVISION.catalog.capacities, "fal": replace(REVISION.catalog.capacities["fal"], slots=10)},
)


class Sight(Struct):
    """A market with so many orders in flight at each capacity, and so many in line."""

    busy: int = 0
    line: int = 0
    prices: int = 1

    def offers(self, models: frozenset[str] | None) -> Sequence[Offer]:
        return [offer for offer in CATALOG.offers.values() if models is None or offer.model in models]

    def in_flight(self, capacity: CapacityId) -> int:  # noqa: ARG002 - as `View` has it
        return self.busy

    def waiting(self, capacity: CapacityId) -> int:  # noqa: ARG002 - as `View` has it
        return self.line

    def machines(self, capacity: CapacityId) -> Machines | None:  # noqa: ARG002 - as `View` has it
        return None


def spare(usage: Usage | None = None) -> tuple[SpareEngine, CostEngine]:
    live = CostEngine(REVISION.policy, CATALOG.capacities, CATALOG.offers)
    live.tick(Sight(), 0.0)
    return SpareEngine(live, CATALOG.capacities, CATALOG.offers, usage or Usage(0.0)), live


def ask(account: str, **terms: object) -> Ask:
    constraints = Constraints(models=frozenset({"flux-schnell"}), only=frozenset({account}), **terms)  # type: ignore[arg-type]
    return Ask(
        call_id="call_1", part=0, request=ImageRequest(width=512, height=512), constraints=constraints, arrived=0.0
    )


def test_half_of_an_accounts_slots_stay_free_of_copies() -> None:
    engine, _ = spare()
    taken = [busy for busy in range(11) if isinstance(engine.decide(ask("fal"), Sight(busy), 1.0, "new").move, Submit)]
    assert taken == [0, 1, 2, 3, 4]


def test_nobody_who_stands_in_line_is_passed_by_a_copy() -> None:
    engine, _ = spare()
    assert isinstance(engine.decide(ask("fal"), Sight(0, line=1), 1.0, "new").move, Shed)


def test_a_copy_is_ordered_once_and_costs_no_more_than_is_left() -> None:
    engine, _ = spare()
    assert isinstance(engine.decide(ask("fal"), Sight(), 1.0, "failed").move, Shed)
    assert isinstance(engine.decide(ask("fal", ceiling=1), Sight(), 1.0, "new").move, Shed)


def test_a_rate_without_a_burst_is_shared_only_where_no_live_call_went_for_a_while() -> None:
    usage = Usage(0.0)
    engine, live = spare(usage)
    now = QUIET_S + 1.0
    live.tick(Sight(), now)
    assert isinstance(engine.decide(ask("together"), Sight(), now, "new").move, Submit)
    engine.observe(Event(kind="submitted", offer="together:flux-schnell", pixels=1), now)
    assert isinstance(engine.decide(ask("together"), Sight(), now + 1.5, "new").move, Shed)  # half of the rate at most
    assert isinstance(engine.decide(ask("together"), Sight(), now + 3.0, "new").move, Submit)
    usage.served("together", now + 3.0)
    assert isinstance(engine.decide(ask("together"), Sight(), now + 6.0, "new").move, Shed)


def test_what_becomes_of_copies_teaches_the_live_engine_nothing_but_what_they_spend() -> None:
    engine, live = spare()
    before = live.room("together/rate", 0, 100.0)
    for kind in ("error", "timeout", "refused", "misconfigured", "ok"):
        engine.observe(Event(kind=kind, offer="together:flux-schnell", pixels=1, latency=9.0), 100.0)
    assert live.room("together/rate", 0, 100.0) == before
    decision = live.decide(ask("together"), Sight(), 100.0, "new")
    assert isinstance(decision.move, Submit)
    engine.observe(Event(kind="submitted", offer="together:flux-schnell", pixels=1), 100.0)
    assert live.room("together/rate", 0, 100.0) > before
