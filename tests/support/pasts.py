"""Arbitrary pasts of an engine and arbitrary asks, for properties that hold whatever happened."""

from __future__ import annotations

from hypothesis import strategies as st

from policies.types import Capacity, Event, EventKind, Reason, Tier
from tests.support.sellers import CENT, SQUARE, Town, ask, failed, offer

ACCOUNTS = ("a", "b", "c")
CAPACITIES = [
    *(Capacity(id=name, slots=slots) for name, slots in zip(ACCOUNTS, (1, 2, 4), strict=True)),
    *(Capacity(id=f"{name}/rate", rate=rate, burst=4) for name, rate in zip(ACCOUNTS, (0.5, 3.0, 20.0), strict=True)),
]
KINDS: tuple[EventKind, ...] = (
    "submitted",
    "ok",
    "error",
    "throttled",
    "timeout",
    "refused",
    "cancelled",
    "misconfigured",
    "retired",
)
OFFERS = [
    offer(
        f"{name}:{model}",
        cents,
        tier=tier,
        typical_s=typical,
        capacities=(name, f"{name}/rate") if name != "c" else (name,),
    )
    for name, cents in zip(ACCOUNTS, (1.0, 1.3, 0.2), strict=True)
    for model, tier, typical in (("m", Tier.PREVIEW, 0.5), ("n", Tier.EXPORT, 9.0))
]
EVENTS = st.lists(
    st.builds(
        Event,
        kind=st.sampled_from(KINDS),
        offer=st.sampled_from([each.id for each in OFFERS]),
        pixels=st.just(SQUARE),
        in_flight=st.integers(1, 6),
        latency=st.floats(0.01, 30.0),
        queue_s=st.none() | st.just(0.01),
        retry_after=st.none() | st.floats(0.1, 60.0),
    ),
    max_size=40,
)
ASKS = st.builds(
    lambda tried, tier, slo, prefer, order, ceiling, budget: ask(
        *tried, tier=tier, slo=slo, prefer=prefer, order=order, ceiling=ceiling, budget_left=budget
    ),
    st.lists(
        st.builds(
            failed, st.sampled_from([each.id for each in OFFERS]), st.sampled_from(["overloaded", "unavailable"])
        ),
        max_size=2,
    ),
    st.sampled_from(Tier),
    st.floats(0.1, 30.0),
    st.sampled_from(["value", "cheapest", "fastest"]),
    st.sampled_from([(), ("b",), ("c", "a")]),
    st.none() | st.integers(CENT // 10, 2 * CENT),
    st.none() | st.integers(0, 2 * CENT),
)
MARKETS = st.dictionaries(st.sampled_from(ACCOUNTS), st.integers(0, 5))
REASONS: st.SearchStrategy[Reason] = st.sampled_from(("new", "failed", "wake", "room"))


def lived(events: list[Event], busy: dict[str, int]) -> Town:
    """A town in which these events happened, half a second apart, before 0."""
    town = Town(*OFFERS, capacities=CAPACITIES)
    town.market.busy = dict(busy)
    for n, event in enumerate(events):
        now = (n - len(events)) / 2
        town.engine.observe(event, now)
        town.engine.tick(town.market, now)
    return town
