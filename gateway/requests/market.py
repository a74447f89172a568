"""The live facts the engine sees: what is for sale and what is in flight. Kept, never rebuilt for a call."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.requests.admission import Admission
from policies.catalog import Catalog
from policies.types import CapacityId, Machines, Offer


class Market:
    """A `policies.types.View` over the catalogue in force and the leases taken."""

    def __init__(self, catalog: Catalog, admission: Admission) -> None:
        self._catalog = catalog
        self._admission = admission
        self._all = tuple(catalog.offers.values())
        self._by_models: dict[frozenset[str], tuple[Offer, ...]] = {}
        self.prices = catalog.revision

    def offers(self, models: frozenset[str] | None) -> Sequence[Offer]:
        """Offers of some models, or all; the answer for a set of models is made once."""
        if models is None:
            return self._all
        found = self._by_models.get(models)
        if found is None:
            found = tuple(offer for offer in self._all if offer.model in models)
            if len(self._by_models) < 1_000:  # a caller could name any set; a catalogue has few that recur
                self._by_models[models] = found
        return found

    def in_flight(self, capacity: CapacityId) -> int:
        """Orders in flight against a capacity."""
        return self._admission.in_flight(capacity)

    def waiting(self, capacity: CapacityId) -> int:
        """Parts in line for a capacity that go before the one that asks."""
        return self._admission.ahead(capacity)

    def machines(self, capacity: CapacityId) -> Machines | None:  # noqa: ARG002 - servers of ours say nothing of theirs
        """None: an inference server of our own is known by its slots alone."""
        return None
