"""Hard objections: why an offer may not serve an ask, each with a sentence that names the value in the way.

The gates stand in the order in which people would want to hear of them: what can never be (model, size, tier) before
what may pass (breaker, headroom). An offer is rejected by the first gate it fails. Gates marked `lasting` cannot be
cured by waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import log, sqrt
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from policies.money import to_usd
from policies.offer_prices import quote_at
from policies.policy import Fallback
from policies.tariffs import Quote, Unpriced
from policies.types import Ask, Bar, Constraints, Offer, Rejection, Tried, View
from providers.contract import ImageRequest, SizeRule

_SHAPES_ALIKE = 0.1
"""Difference of two shapes, as the logarithm of their ratio, below which nobody minds."""
Objection: TypeAlias = Callable[[Offer, Ask], str | None]
"""A reason why an offer may not serve an ask, or None."""


def model(offer: Offer, ask: Ask) -> str | None:
    """Only the models that were named."""
    models = ask.constraints.models
    if models is None or offer.model in models:
        return None
    return f"{offer.model} was not asked for"


def retired(offer: Offer, _: Ask) -> str | None:
    """Nothing that its seller has stopped selling."""
    return offer.retired or None


def provider(offer: Offer, ask: Ask) -> str | None:
    """Only the accounts or kinds of seller that were allowed."""
    only, ignore = ask.constraints.only, ask.constraints.ignore
    if only is None and not ignore:
        return None
    names = {offer.account, offer.kind}
    if only is not None and not names & only:
        return f"{offer.account} is not among the allowed providers: {', '.join(sorted(only))}"
    if names & ignore:
        return f"{offer.account} is to be ignored"
    return None


def rule(offer: Offer, ask: Ask) -> str | None:
    """What the policy's rules leave for a call like this."""
    return next((why for bar in ask.constraints.bars if (why := barred(offer, bar)) is not None), None)


def barred(offer: Offer, bar: Bar) -> str | None:
    """Why one rule leaves an offer out, or None."""
    hits = [
        bool(names & here)
        for names, here in (
            (bar.providers, {offer.account, offer.kind}),
            (bar.models, {offer.model}),
            (bar.offers, {offer.id}),
        )
        if names is not None
    ]
    if all(hits) if bar.only else not any(hits):
        return None
    why = f": {bar.because}" if bar.because else ""
    return f"{offer.id} is ruled out by the policy's rule '{bar.rule}'{why}"


def team(offer: Offer, ask: Ask) -> str | None:
    """A team's own account serves nobody else, and a team that has one does not buy elsewhere what it sells."""
    if ask.team in offer.kept_from:
        return f"team {ask.team} buys {offer.model} at accounts of its own alone"
    if offer.team is None or offer.team == ask.team:
        return None
    return f"the account {offer.account} belongs to another team"


def ability(offer: Offer, ask: Ask) -> str | None:
    """What was asked for by name must be understood; nothing is dropped in silence."""
    able, request = offer.abilities, ask.request
    if request.count > able.max_count:
        return f"{offer.id} draws at most {able.max_count} pictures an order, not {request.count}"
    return _unable(offer, request)


def _unable(offer: Offer, request: ImageRequest) -> str | None:
    able = offer.abilities
    if request.operation not in able.operations:
        return f"{offer.id} does not {request.operation.replace('_', ' ')}"
    if request.seed is not None and not able.seed:
        return f"{offer.id} takes no seed"
    if request.transparent and not able.transparent:
        return f"{offer.id} paints no transparent background"
    if request.negative_prompt and not able.negative_prompt:
        return f"{offer.id} takes no negative prompt"
    if len(request.loras) > able.loras:
        return f"{offer.id} takes {able.loras or 'no'} LoRAs, not {len(request.loras)}"
    return (
        _wrong_inputs(offer, request)
        or _out_of_range(offer, "steps", request.steps, able.steps)
        or _out_of_range(offer, "guidance", request.guidance, able.guidance)
        or _out_of_range(offer, "strength", request.strength, able.strength)
    )


def _wrong_inputs(offer: Offer, request: ImageRequest) -> str | None:
    """More or fewer input pictures than an endpoint takes, or a mask it does not know."""
    (fewest, most), given = offer.abilities.references, len(request.references)
    if given > most:
        return f"{offer.id} takes {f'at most {most}' if most else 'no'} input pictures, not {given}"
    if given < fewest:
        return f"{offer.id} works from at least {fewest} input pictures, not from {given or 'none'}"
    if request.fidelity == "high" and offer.abilities.fidelity is None and offer.abilities.strength is None:
        return f"{offer.id} cannot be told to keep closely to its input pictures (input_fidelity)"
    if request.mask and not offer.abilities.mask:
        return f"{offer.id} takes no mask"
    return f"{offer.id} works only under a mask" if offer.abilities.needs_mask and not request.mask else None


def size(offer: Offer, ask: Ask) -> str | None:
    """Exactly the pixels that were asked for."""
    width, height = ask.request.width, ask.request.height
    given = _size_of_input(offer, ask.request)
    if given is not None and given != (width, height):
        return f"{offer.id} draws as large as its input, {given[0]}x{given[1]}, not {width}x{height}"
    if offer.abilities.sizes.allows(width, height):
        return None
    return f"{offer.id} does not draw exactly {width}x{height}"


def _size_of_input(offer: Offer, request: ImageRequest) -> tuple[int, int] | None:
    """The only size that an endpoint draws which is told none, where the input is known."""
    return request.references[0] if offer.abilities.size_dialect == "input" and request.references else None


def tier(offer: Offer, ask: Ask) -> str | None:
    """At least the asked tier, unless the model was chosen by name."""
    if ask.constraints.models is not None or offer.tier >= ask.constraints.tier:
        return None
    return f"{offer.model} is of tier {offer.tier.word}, below {ask.constraints.tier.word}"


def licence(offer: Offer, ask: Ask) -> str | None:
    """Rights that cover the use."""
    if not ask.constraints.require.commercial or offer.licence.commercial:
        return None
    return f"{offer.id} is licensed as {offer.licence.name}, not for commercial use"


def to_store_nothing(offer: Offer, terms: Constraints) -> bool:
    """Whether a seller is to be told to store nothing of an order: it can be, and keeps things too long otherwise."""
    longest, usual = terms.require.retention_days, offer.data.retention_days
    return longest is not None and offer.data.unstored_days is not None and (usual is None or usual > longest)


def data(offer: Offer, ask: Ask) -> str | None:
    """Terms about prompts and pictures."""
    required, terms = ask.constraints.require, offer.data
    if required.region is not None and terms.region != required.region:
        return f"{offer.account} processes data in {terms.region or 'an unnamed region'}, not in {required.region}"
    if required.training == "never" and terms.trains:
        return f"{offer.account} may train on prompts and pictures"
    longest = required.retention_days
    kept = terms.unstored_days if to_store_nothing(offer, ask.constraints) else terms.retention_days
    if longest is not None and (kept is None or kept > longest):
        held = "for an unnamed time" if kept is None else f"for {kept:g} days"
        return f"{offer.account} keeps prompts and pictures {held}, longer than {longest:g} days"
    return None


GATES: tuple[tuple[str, Objection], ...] = (
    ("model", model),
    ("retired", retired),
    ("provider", provider),
    ("rule", rule),
    ("team", team),
    ("ability", ability),
    ("size", size),
    ("tier", tier),
    ("licence", licence),
    ("data", data),
)
"""Gates that look at offer and ask alone, under the code their rejections carry."""

CODES = (
    "deadline", *(code for code, _ in GATES), "steps", "tried", "price", "ceiling", "budget", "latency", "breaker",
    "headroom",
)  # fmt: skip
"""Every code a rejection can carry, in the order in which an offer meets the gates."""


def objection(offer: Offer, ask: Ask) -> Rejection | None:
    """The first gate of `GATES` that an offer fails."""
    for code, gate in GATES:
        reason = gate(offer, ask)
        if reason is not None:
            return Rejection(offer=offer.id, code=code, reason=reason)
    return None


def price_objection(offer: Offer, ask: Ask, price: Quote) -> Rejection | None:
    """A ceiling or a budget below the price."""
    ceiling, left = ask.constraints.ceiling, ask.budget_left
    if ceiling is not None and price.amount > ceiling * ask.request.count:
        each = to_usd(-(-price.amount // ask.request.count))
        return Rejection(
            offer=offer.id, code="ceiling", reason=f"{offer.id} costs ${each} a picture, above ${to_usd(ceiling)}"
        )
    if left is not None and price.hold > left:
        reason = f"{offer.id} costs ${to_usd(price.hold)}, and ${to_usd(left)} of the budget is left"
        return Rejection(offer=offer.id, code="budget", reason=reason)
    return None


def steps_objection(offer: Offer, request: ImageRequest, floors: Mapping[str, int]) -> Rejection | None:
    """Fewer steps than the policy lets this model draw with."""
    floor = floors.get(offer.model)
    steps = offer.abilities.default_steps if request.steps is None else request.steps
    if floor is None or steps is None or steps >= floor:
        return None
    return Rejection(
        offer=offer.id, code="steps", reason=f"{offer.id} draws with at least {floor} steps here, not {steps}"
    )


def latency_objection(offer: Offer, ceiling: float, p95: float) -> Rejection | None:
    """An answer that would probably take longer than the policy allows."""
    if p95 <= ceiling:
        return None
    why = f"{offer.id} takes up to {p95:.1f} s (p95), above {ceiling:g} s"
    return Rejection(offer=offer.id, code="latency", reason=why, lasting=False)


def tried_objection(offer: Offer, ask: Ask, fallback: Fallback) -> Rejection | None:
    """An offer that failed this part before; one that was only full or out of reach may be asked again."""
    if not ask.tried and not ask.live:
        return None
    failures = [tried for tried in ask.tried if tried.offer == offer.id]
    if any(live.offer == offer.id for live in ask.live):
        return Rejection(offer=offer.id, code="tried", reason=f"{offer.id} is drawing this already")
    final = next((tried for tried in failures if tried.error not in ("overloaded", "unavailable")), None)
    if final is not None:
        return Rejection(offer=offer.id, code="tried", reason=f"{offer.id} failed: {final.error.replace('_', ' ')}")
    if sum(tried.error == "unavailable" for tried in failures) >= fallback.attempts - 1:
        return Rejection(offer=offer.id, code="tried", reason=f"{offer.id} could not be reached")
    return None


def exhausted(tried: tuple[Tried, ...], fallback: Fallback) -> str | None:
    """Why no further order may be placed for a part at all, or None."""
    refused = next((t for t in tried if not t.elsewhere), None)
    if refused is not None and not (refused.error == "content_refused" and fallback.refused_elsewhere):
        return f"{refused.offer}: {refused.error.replace('_', ' ')}, and that is not taken elsewhere"
    orders = sum(t.error != "overloaded" for t in tried)
    if orders >= fallback.attempts:
        return f"{orders} orders failed, as many as the policy allows"
    if sum(t.error in ("timed_out", "outcome_unknown") for t in tried) > fallback.timeouts:
        return "too many orders may still be billed: they timed out or broke off"
    return None


def nearest_feasible(ask: Ask, view: View) -> tuple[Offer, str] | None:
    """The offer that comes closest, and what would have to change for it: an offer that fails just one wish.

    Sizes first, since a size is most easily changed; then the ceiling, then the wish that blocks it; the cheapest of
    each.
    """
    near = [found for offer in view.offers(None) if (found := _near(offer, ask)) is not None]
    best = min(near, key=lambda each: each.rank, default=None)
    return None if best is None else (best.offer, best.change)


def nearest_drawn(ask: Ask, offers: Iterable[Offer]) -> tuple[int, int] | None:
    """The asked size where an offer without other objections draws it; else the cheapest in nearly the asked shape."""
    found = [sized for offer in offers if (sized := _sized(offer, ask)) is not None]
    best = min(found, key=lambda sized: sized.rank, default=None)
    return None if best is None else best.size


class _Sized(Struct, frozen=True):
    """The nearest size of an offer that nothing but a size stands in the way of."""

    rank: tuple[bool, int, int, tuple[int, int]]
    size: tuple[int, int]


def _sized(offer: Offer, ask: Ask) -> _Sized | None:
    if any(code != "size" and gate(offer, ask) is not None for code, gate in GATES):
        return None
    wish = ask.request
    request = wish if size(offer, ask) is None else _resized(offer, wish)
    price = _price_or_none(offer, request)
    if price is None:
        return None
    shape = abs(log(request.width / request.height) - log(wish.width / wish.height))
    return _Sized((request.size != wish.size, round(shape / _SHAPES_ALIKE), price, request.size), request.size)


class _Near(Struct, frozen=True):
    """An offer that would serve if one thing changed."""

    rank: tuple[int, float, int]
    offer: Offer
    change: str


def _near(offer: Offer, ask: Ask) -> _Near | None:
    failed = [code for code, gate in GATES if gate(offer, ask) is not None]
    if len(failed) > 1 or failed in (["team"], ["rule"]):  # neither is the caller's to give up
        return None
    if failed == ["model"] and offer.tier < ask.constraints.tier:  # naming a model set the tier aside
        return None
    request = _resized(offer, ask.request) if failed == ["size"] else ask.request
    price = _price_or_none(offer, request)
    each, ceiling = -(-(price or 0) // request.count), ask.constraints.ceiling
    dear = ceiling is not None and each > ceiling
    if price is None or dear == bool(failed):  # a second wish to give up, or none at all
        return None
    if dear:
        return _Near((1, 0.0, price), offer, f"at ${to_usd(each)} a picture")
    if failed == ["size"]:
        unlike = _unlike((request.width, request.height), ask.request)
        return _Near((0, unlike, price), offer, f"at {request.width}x{request.height}")
    return _Near((2, 0.0, price), offer, f"without the wish that blocks it ({failed[0]})")


def _resized(offer: Offer, request: ImageRequest) -> ImageRequest:
    width, height = nearest_size(offer, request)
    return replace(request, width=width, height=height)


def _unlike(size: tuple[int, int], wish: ImageRequest) -> float:
    """How far a size is from the asked one: a wrong shape is twice as bad as a wrong area."""
    wider, higher = log(size[0] / wish.width), log(size[1] / wish.height)
    return 2 * abs(wider - higher) + abs(wider + higher)


def nearest_size(offer: Offer, request: ImageRequest) -> tuple[int, int]:
    """The exact size of an offer that is closest to the asked one; what is too large is made smaller in its shape."""
    rule = offer.abilities.sizes
    given = _size_of_input(offer, request)
    if given is not None:
        return given
    if rule.named:
        return min(rule.named.values(), key=lambda size: _unlike(size, request))
    shrink = min(1.0, rule.max_side / max(request.width, request.height))
    if rule.max_pixels is not None:
        shrink = min(shrink, sqrt(rule.max_pixels / (request.width * request.height)))
    width, height = (_fit(side * shrink, rule) for side in (request.width, request.height))
    while not rule.allows(width, height) and max(width, height) - rule.multiple >= rule.min_side:
        # Rounding to the multiple led past `max_pixels`.
        width, height = (width - rule.multiple, height) if width >= height else (width, height - rule.multiple)
    return width, height


def _fit(side: float, rule: SizeRule) -> int:
    """The side a rule allows that is closest to `side`."""
    low, high = -(-rule.min_side // rule.multiple) * rule.multiple, rule.max_side // rule.multiple * rule.multiple
    return min(max(round(side / rule.multiple) * rule.multiple, low), high)


def _price_or_none(offer: Offer, request: ImageRequest) -> int | None:
    try:
        return quote_at(offer, request).amount
    except Unpriced:
        return None


def _out_of_range(offer: Offer, name: str, value: float | None, allowed: tuple[float, float] | None) -> str | None:
    if value is None:
        return None
    if allowed is None:
        return f"{offer.id} takes no {name}"
    low, high = allowed
    return None if low <= value <= high else f"{offer.id} takes {name} from {low:g} to {high:g}, not {value:g}"
