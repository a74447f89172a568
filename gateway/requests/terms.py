"""A call's terms under the rules of a policy: where they come into force, whatever door the call came through."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from msgspec.structs import replace

from gateway.requests.call import Call, terms_of_removal
from policies.chaining import may_chain, removal
from policies.policy import Policy
from policies.rules import About, applied, stricter
from policies.types import Constraints


def under_rules(call: Call, policy: Policy, resolve: Callable[[str], str | None], at: datetime) -> Call:
    """The call, on the terms that the rules which match it leave.

    `resolve` finds the model behind a name (`Catalog.resolve`); `at` is the moment of arrival, with its zone. Where a
    picture may take two orders, the second is under the rules for what it does.
    """
    if not policy.rules.rules:
        return call
    ruled = _under(call, policy, resolve, at)
    if not may_chain(call.request):
        return ruled
    second = replace(call, model="auto", request=removal(call.request), constraints=terms_of_removal(call))
    return replace(ruled, removal=_under(second, policy, resolve, at).constraints)


def _under(call: Call, policy: Policy, resolve: Callable[[str], str | None], at: datetime) -> Call:
    effects = policy.rules.effects(about(call, resolve, at))
    if effects is None:
        return call
    intent = policy.intents[call.intent]
    constraints, worth = applied(effects, call.constraints, call.worth, (intent.slo, intent.deadline))
    safety = stricter(call.request.safety, effects.safety)
    return replace(call, constraints=constraints, worth=worth, request=replace(call.request, safety=safety))


def narrowed(constraints: Constraints, about: About, policy: Policy) -> Constraints:
    """What rules leave of constraints, before there is a call."""
    effects = policy.rules.effects(about)
    if effects is None:
        return constraints
    intent = policy.intents[about.intent]
    return applied(effects, constraints, intent.worth, (intent.slo, intent.deadline))[0]


def about(call: Call, resolve: Callable[[str], str | None], at: datetime) -> About:
    """What rules may look at of a call."""
    base = call.model.partition(":")[0]
    return About(
        team=call.caller.team,
        key=call.caller.key_id,
        tags=call.tags,
        model="auto" if call.constraints.models is None else resolve(base) or base,
        intent=call.intent,
        operation=call.request.operation,
        pixels=call.request.width * call.request.height,
        at=at,
    )
