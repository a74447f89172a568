"""Experiments without live calls: a prompt drawn by champion and challengers, for the experiment's money."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeVar

from msgspec.structs import replace

from gateway.clock import Clock
from gateway.errors import BudgetSpent
from gateway.features.copying import KEY, LeftOut, Served
from gateway.features.shadowing import Shadowing
from gateway.ids import new_id
from gateway.requests.call import Call, Caller
from gateway.storage.shadows import party
from policies.experiments.definition import Experiment, Facts, fields_of
from policies.experiments.pairs import Pair
from policies.rules import About
from policies.types import Constraints, Offer
from providers.contract import ImageRequest

T = TypeVar("T")

PATIENCE_S = 60.0
"""Seconds for which an order waits for room."""


async def drawn_by_both(
    shadowing: Shadowing, clock: Clock, experiment: Experiment, request: ImageRequest, champion: Offer
) -> Sequence[Pair | LeftOut]:
    """Have one picture drawn by the champion and by every challenger.

    Each waits for room, at most `PATIENCE_S`. Raises `LeftOut` where the champion's came to nothing.
    """
    budgets, copier, regime = shadowing.budgets, shadowing.copier, shadowing.regime
    shadowing.usage.assume_quiet()
    await budgets.write()
    intent = regime.policy.intents[regime.policy.default_intent]
    path = shadowing.path()
    asked = Call(
        id=new_id("call"),
        caller=Caller(key_id=KEY, team=party(experiment.name)),
        request=request,
        constraints=Constraints(
            models=frozenset({champion.model}),
            slo=intent.deadline,
            deadline=intent.deadline,
            ceiling=budgets.left(experiment, ""),
            only=frozenset({champion.account}),
            require=regime.policy.require,
        ),
        intent=intent.name,
        purpose="shadow",
        kept_until=clock.utc() + timedelta(seconds=experiment.keep),
        arrived=clock.now(),
    )
    try:
        order, picture = await _patiently(clock, lambda: copier.drawn(replace(asked, arrived=clock.now()), path))
    except BudgetSpent:
        raise LeftOut("its budget is spent") from None
    budgets.add(experiment, "", order.cost)
    facts = Facts(
        call_id=asked.id,
        about=About(intent=intent.name, operation=request.operation, pixels=request.width * request.height),
        tier=champion.tier,
        width=request.width,
        height=request.height,
        champion=champion,
        at=clock.utc().timestamp(),
    )
    served = Served(call=asked, facts=facts, picture=picture, order=order, delivered=False)
    found: list[Pair | LeftOut] = []
    for challenger in experiment.challengers:
        path = shadowing.path(fields_of(challenger))
        try:
            done = await _patiently(clock, partial(copier.draw, experiment, challenger, path, served, regime))
            found.append(await copier.keep(done))
        except LeftOut as left_out:
            found.append(left_out)
    return found


async def _patiently(clock: Clock, work: Callable[[], Awaitable[T]]) -> T:
    """Do something again and again that found no room."""
    until = clock.now() + PATIENCE_S
    while True:
        try:
            return await work()
        except LeftOut as left_out:
            if not left_out.passing or clock.now() > until:
                raise
        await asyncio.sleep(0.25)
