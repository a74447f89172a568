"""The request path. Every picture, whoever asks for it and through whatever door, goes through `Pipeline.serve`."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.requests.attempts import Attempts, House
from gateway.requests.call import Call, Delivery
from gateway.requests.orders import Salvage
from gateway.requests.quoting import QuotedOffer, invoices_of, quoted, weigh
from gateway.requests.terms import under_rules
from policies.catalog import Catalog
from policies.policy import Policy


class Pipeline:
    """Answers calls. It has no policy of its own: it asks the engine, does what it says, and keeps the books."""

    def __init__(self, house: House, policy: Policy, catalog: Catalog) -> None:
        self._house = house
        self._policy = policy
        self._catalog = catalog
        self._images_per_order = policy.images_per_order

    async def serve(self, call: Call, salvage: Salvage | None = None) -> Delivery:
        """Answer one call: let the engine move until the pictures are there or cannot be.

        With `salvage` it goes on from what an earlier try at the same call left.

        Falling back, waiting for room, hedging and shedding are all the engine's answers to *new*, *failed*, *wake*
        and *room*. Raises the `GatewayError` that fits when no picture came.
        """
        house, call = self._house, self._under_rules(call)
        if house.shop.content is not None:
            await house.shop.content.check_prompt(call)
        async with Attempts(house, call, self._images_per_order, salvage) as attempts:
            if (ask := attempts.afterwards()) is not None:
                decision = house.shop.engine.decide(ask, house.market, house.shop.clock.now(), "new")
                attempts.expect(ask, decision)  # a picture that takes two orders is begun when both can be had
            while not attempts.complete:
                for ask, reason in await attempts.due():
                    decision = house.shop.engine.decide(ask, house.market, house.shop.clock.now(), reason)
                    attempts.follow(ask, decision)  # takes the lease
                await attempts.place()  # takes the holds, all in one commit, and sends the orders
            await attempts.place()  # decisions that ordered nothing are kept, too
            return attempts.delivery()

    async def quote(self, call: Call) -> Sequence[QuotedOffer]:
        """What every offer would charge for a call, cheapest feasible first; orders nothing."""
        house, call = self._house, self._under_rules(call)
        budget_left = house.ledger.budget_left(call.caller.key_id, call.caller.team)
        weighed = weigh(
            call,
            self._images_per_order,
            budget_left,
            house.market,
            lambda ask: house.shop.engine.decide(ask, house.market, house.shop.clock.now(), "new"),
        )
        invoices = await invoices_of(house.ledger.db, self._catalog.billings, house.shop.clock.utc())
        return quoted(call.request.count, weighed, house.market, invoices)

    def _under_rules(self, call: Call) -> Call:
        if not self._policy.rules.rules:
            return call
        return under_rules(call, self._policy, self._catalog.resolve, self._house.shop.clock.utc())
