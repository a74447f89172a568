"""Sellers made of values: offers, asks and a market in which what is in flight is whatever a test says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from msgspec.structs import replace

from gateway.yaml_files import read
from policies.catalog import AccountTerms, Catalog, compile_offers
from policies.catalog_file import ModelFile
from policies.engine import CostEngine
from policies.policy import Fallback, Intent, Policy
from policies.tariffs import PerImage
from policies.types import (
    Ask,
    Capacity,
    CapacityId,
    Constraints,
    Decision,
    Event,
    EventKind,
    Machines,
    Offer,
    OfferId,
    Reason,
    Tier,
    Tried,
)
from providers.contract import Abilities, ImageRequest, SizeRule

CENT = 10_000_000
SQUARE = 1024 * 1024
CONFIG = Path(__file__).parents[2] / "config"
POLICY = Policy(
    name="test",
    revision=3,
    default_intent="preview",
    intents={"preview": Intent(name="preview", tier=Tier.PREVIEW, slo=15.0, deadline=120.0)},
    qualities={},
    fallback=Fallback(),
)


class Market:
    """A `policies.types.View` that a test fills in."""

    prices = 7

    def __init__(self, offers: Iterable[Offer]) -> None:
        self._offers = tuple(offers)
        self.busy: dict[CapacityId, int] = {}
        self.line: dict[CapacityId, int] = {}
        self.gpus: dict[CapacityId, Machines] = {}

    def offers(self, models: frozenset[str] | None) -> Sequence[Offer]:
        return [offer for offer in self._offers if models is None or offer.model in models]

    def in_flight(self, capacity: CapacityId) -> int:
        return self.busy.get(capacity, 0)

    def waiting(self, capacity: CapacityId) -> int:
        return self.line.get(capacity, 0)

    def machines(self, capacity: CapacityId) -> Machines | None:
        return self.gpus.get(capacity)


class Town:
    """An engine beside its market."""

    def __init__(self, *offers: Offer, capacities: Iterable[Capacity] = (), policy: Policy = POLICY) -> None:
        self.market = Market(offers)
        by_id = {each.id: each for each in offers}
        self.engine = CostEngine(policy, {each.id: each for each in capacities}, by_id)

    def decide(self, wish: Ask, now: float = 0.0, reason: Reason = "new") -> Decision:
        return self.engine.decide(wish, self.market, now, reason)

    def tell(self, kind: EventKind, where: OfferId, now: float = 0.0, **facts: object) -> None:
        self.engine.observe(replace(Event(kind=kind, offer=where, pixels=SQUARE, in_flight=1), **facts), now)


def offer(name: str, cents: float = 1.0, **changes: object) -> Offer:
    """An offer `account:model` at a price per picture; by default it takes 1 s and knows no limits."""
    account, _, model = name.partition(":")
    plain = Offer(
        id=name,
        model=model,
        account=account,
        kind=account,
        endpoint=f"{account}/{model}",
        tier=Tier.STANDARD,
        tariff=PerImage(round(cents * CENT)),
        abilities=Abilities(sizes=SizeRule(min_side=256, max_side=2048, multiple=32)),
        capacities=(),
        typical_s=1.0,
    )
    return replace(plain, **changes)


def ask(*tried: Tried, request: ImageRequest | None = None, budget_left: int | None = None, **wishes: object) -> Ask:
    """An ask that arrived at 0; `wishes` are constraints."""
    return Ask(
        call_id="call_1",
        part=0,
        request=request or ImageRequest(prompt="a lighthouse"),
        constraints=replace(Constraints(), **wishes),
        arrived=0.0,
        budget_left=budget_left,
        tried=tried,
    )


def failed(name: OfferId, error: str, *, elsewhere: bool = True) -> Tried:
    """An order that came to nothing."""
    return Tried(name, name.partition(":")[0], error, elsewhere)


@cache
def read_catalog() -> tuple[ModelFile, ...]:
    """The documents of the catalogue as shipped."""
    return tuple(read(path).parse(ModelFile) for path in sorted((CONFIG / "catalog").glob("*.yaml")))


@cache
def shipped(fal_slots: int = 2, together_slots: int = 32) -> Catalog:
    """The catalogue as shipped, sold by the two accounts as shipped."""
    accounts = (
        AccountTerms(name="fal", kind="fal", slots=fal_slots),
        AccountTerms(name="together", kind="together", slots=together_slots, rate=1.0, burst=2),
    )
    return compile_offers(read_catalog(), accounts, revision=7)
