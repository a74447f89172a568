"""What becomes of a call whose budget is past its soft limit: a lower tier, a place behind all others, or nothing."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from gateway.features.soft_limits import in_words
from gateway.http.model_names import Names
from gateway.http.repeated_terms import RepeatedTerms
from gateway.http.request_parsing import Wish
from gateway.http.services import Services
from gateway.requests.call import Call, Caller, in_batch


def lower(
    services: Services, terms: RepeatedTerms, caller: Caller, wish: Wish, read: Callable[[RepeatedTerms], Wish]
) -> Wish:
    """The wish at the lowest tier, where a budget says so and the call has no tier of its own; `read` reads it anew.

    A call has a tier of its own when it names an intent, a quality other than `auto` or a model of ours.
    """
    passed = services.soft_limits.on(caller, wish.user, wish.tags)
    budget = next((each for each in passed if each.then == "preview"), None)
    if budget is None or _names_a_model(terms.names, wish):
        return wish
    lowered = read(terms.lowered)
    if lowered.intent == wish.intent:
        return wish
    said = f"budget: {in_words(budget)}, so this is drawn as {lowered.intent} instead of {wish.intent}"
    return replace(lowered, warnings=(*lowered.warnings, said), soft_limit=said)


def put_back(services: Services, call: Call) -> Call:
    """The call behind all others in line, where a budget says so."""
    passed = services.soft_limits.on(call.caller, call.user, call.tags)
    budget = next((each for each in passed if each.then == "queue"), None)
    if budget is None:
        return call
    said = f"budget: {in_words(budget)}, so this waits behind others"
    return replace(in_batch(call), soft_limit="; ".join(filter(None, (call.soft_limit, said))))


def _names_a_model(names: Names, wish: Wish) -> bool:
    return names.meaning(wish.model).models is not None
