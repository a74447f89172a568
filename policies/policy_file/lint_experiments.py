"""What is suspicious in experiments, held against a catalogue: sellers that sell it not, sizes, words, money."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil

from msgspec import Struct

from policies.catalog import Catalog
from policies.eligibility import objection, steps_objection
from policies.experiments.definition import LONGEST_KEPT, Calls, Challenger, Experiment, Param, copied, fields_of
from policies.experiments.sampling import on_itself
from policies.money import NanoUsd, to_usd
from policies.offer_prices import quote_at
from policies.policy import Policy
from policies.policy_file.findings import Finding
from policies.policy_file.values import Loc
from policies.tariffs import Unpriced
from policies.types import Ask, Constraints, Offer
from providers.contract import ImageRequest, Operation

SELLERS_WORDS: Mapping[str, frozenset[str]] = {
    "fal": frozenset({"acceleration"}),
    "replicate": frozenset({"go_fast", "output_quality"}),
    "together": frozenset({"guidance_scale", "prompt_upsampling"}),
}
"""Kind of seller -> fields that change pixels or speed and that its API reference has, beside those the catalogue fixes
for an offer."""
_DAY_S = 86_400.0
_REQUEST_WORDS = ("steps", "guidance")


class Match(Struct, frozen=True):
    """An offer whose calls are copied, and the one that a challenger draws the copies with."""

    champion: Offer
    challenger: Offer | None
    """None: its account does not sell it."""


def champions(experiment: Experiment, catalog: Catalog) -> list[Offer]:
    """The offers whose calls an experiment is about."""
    return [offer for offer in catalog.offers.values() if experiment.champion.served(offer) and not offer.retired]


def matches(experiment: Experiment, challenger: Challenger, catalog: Catalog) -> list[Match]:
    """Where copies of each offer's calls go."""
    return [Match(each, catalog.offers.get(challenger.offer_of(each))) for each in champions(experiment, catalog)]


def findings_in(policy: Policy, catalog: Catalog) -> Iterator[Finding]:
    """Everything suspicious in the experiments of a policy."""
    for at, experiment in enumerate(policy.experiments):
        here: Loc = ("experiments", at)
        ours = champions(experiment, catalog)
        if not ours:
            yield Finding(
                loc=(*here, "champion"),
                code="champion",
                message=f"no offer of the catalogue is {experiment.champion}: there are no calls to copy",
                hint=_sold(catalog, experiment.champion.model),
                at_key=True,
            )
            continue
        costs: list[NanoUsd] = []
        for place, challenger in enumerate(experiment.challengers):
            there: Loc = (*here, "challengers", place)
            found = list(_of_challenger(there, experiment, challenger, policy, catalog))
            yield from found
            costs += [] if found else _costs(experiment, challenger, policy, catalog)
        if costs and experiment.budget.day < min(costs):
            yield Finding(
                loc=(*here, "budget", "day"),
                code="budget",
                message=f"${to_usd(experiment.budget.day)} a day does not pay for one copy: "
                f"the cheapest is ${to_usd(min(costs))}",
                hint=f"write at least ${to_usd(min(costs))}",
            )
        yield from _forgotten(here, experiment)
        yield from _paid_twice(here, experiment, policy.experiments[:at])


def _of_challenger(
    here: Loc, experiment: Experiment, challenger: Challenger, policy: Policy, catalog: Catalog
) -> Iterator[Finding]:
    """Why a challenger cannot draw the copies, or those of some sizes."""
    pairs = matches(experiment, challenger, catalog)
    able = [(each.champion, each.challenger) for each in pairs if each.challenger is not None]
    if not able:
        named = challenger.model or experiment.champion.model
        yield Finding(
            loc=(*here, "model" if challenger.model else "account"),
            code="challenger",
            message=f"{challenger.account} does not sell {named or 'what the champion sells'}",
            hint=_sold(catalog, named),
        )
        return
    if not on_itself(experiment, challenger) and all(ours.id == theirs.id for ours, theirs in able):
        yield Finding(
            loc=(*here, "account"),
            code="challenger",
            message=f"{challenger.account} draws all these calls already, so nothing is ever copied to it",
            hint=f"name another, or test it on itself: `champion: {{provider: {challenger.account}, ...}}`",
        )
        return
    wrong = list(_wrong_params(here, challenger, [offer for _, offer in able]))
    yield from wrong
    for width, height in [] if wrong else _sizes(experiment, policy):
        drawn = [
            each for each in able if _refusal(each[0], _plain(each[0], (width, height)), policy, each[0].team) is None
        ]
        copies = [(theirs, copied(_plain(ours, (width, height)), challenger)) for ours, theirs in drawn]
        refused = [why for theirs, request in copies if (why := _refusal(theirs, request, policy)) is not None]
        if drawn and len(refused) == len(drawn):
            yield Finding(
                loc=(*here, "account"),
                code="challenger",
                message=f"cannot draw what the champion draws at {width}x{height}: {refused[0]}",
                hint="name another challenger, or leave these calls out under `sample.never`",
            )
            return


def _plain(offer: Offer, size: tuple[int, int]) -> ImageRequest:
    """The least that an offer can be asked for at a size."""
    able = offer.abilities
    operation: Operation = able.operations[0]
    return ImageRequest(
        prompt="-", width=size[0], height=size[1], operation=operation, references=(size,) * able.references[0],
        transparent=operation == "remove_background", mask=able.needs_mask,
    )  # fmt: skip


def _refusal(offer: Offer, request: ImageRequest, policy: Policy, team: str | None = None) -> str | None:
    """Why an offer may not draw a request under a policy, for a team; without one for nobody's, as copies are."""
    terms = Constraints(models=frozenset({offer.model}), require=policy.require)
    ask = Ask(call_id="", part=0, request=request, constraints=terms, team=team or "", arrived=0.0)
    found = objection(offer, ask) or steps_objection(offer, request, policy.least_steps)
    return None if found is None else found.reason


def _wrong_params(here: Loc, challenger: Challenger, offers: Sequence[Offer]) -> Iterator[Finding]:
    """Words that no offer of the challenger takes, or values out of range."""
    ranges: Mapping[str, Sequence[tuple[float, float] | None]] = {
        "steps": [offer.abilities.steps for offer in offers],
        "guidance": [offer.abilities.guidance for offer in offers],
    }
    for name in _REQUEST_WORDS:
        value = challenger.params.get(name)
        if value is None:
            continue
        taken = [each for each in ranges[name] if each is not None]
        if not (_is_number(value, name) and any(low <= float(value) <= high for low, high in taken)):
            accepted = " or ".join(dict.fromkeys(f"{low:g} to {high:g}" for low, high in taken))
            yield Finding(
                loc=(*here, "params", name),
                code="challenger",
                message=f"{offers[0].id} takes {f'{name} of {accepted}, not {value}' if taken else f'no {name}'}",
                hint=f"write {accepted}" if taken else "leave it out",
            )
    fixed = sorted({name for offer in offers for name in offer.abilities.fixed}
                   | {name for offer in offers for name in SELLERS_WORDS.get(offer.kind, ())})  # fmt: skip
    for name in fields_of(challenger):
        if name not in fixed:
            known = ", ".join([*(word for word in _REQUEST_WORDS if any(ranges[word])), *fixed])
            yield Finding(
                loc=(*here, "params", name),
                code="challenger",
                message=f"{offers[0].id} takes no {name!r} that we know of",
                hint=f"write one of {known}" if known else "leave it out, or add it under `fixed` of the offer",
                at_key=True,
            )


def _is_number(value: Param, name: str) -> bool:
    """Whether it may be the value of a parameter of the request; steps are whole."""
    return isinstance(value, int if name == "steps" else int | float) and not isinstance(value, bool)


def _costs(experiment: Experiment, challenger: Challenger, policy: Policy, catalog: Catalog) -> list[NanoUsd]:
    """What one copy costs at each offer, at the usual size."""
    found = []
    width, height = policy.auto_size
    for match in matches(experiment, challenger, catalog):
        if match.challenger is not None:
            request = copied(ImageRequest(prompt="-", width=width, height=height), challenger)
            try:
                found.append(quote_at(match.challenger, request).amount)
            except Unpriced:
                continue  # not at this size; plans say what others cost
    return found


def _sizes(experiment: Experiment, policy: Policy) -> list[tuple[int, int]]:
    """Sizes that are surely asked for: the usual one, and those that shares and lists speak of, as squares."""
    sample = experiment.sample
    spoken = [calls for calls, share in sample.by if share > 0] + list(sample.always)
    usual = [] if _left_out(policy.auto_size, sample.never) else [policy.auto_size]
    return list(dict.fromkeys([*usual, *(size for calls in spoken if (size := _square(calls)) is not None)]))


def _left_out(size: tuple[int, int], never: Iterable[Calls]) -> bool:
    """Whether calls of a size are never copied, whatever else they are like."""
    pixels = size[0] * size[1]
    for calls in never:
        like = calls.like
        others = (like.teams, like.keys, like.models, like.intents, like.operations, like.hours, like.days, calls.tiers)
        bound = like.over is not None or like.up_to is not None
        fits = (like.over is None or pixels > like.over) and (like.up_to is None or pixels <= like.up_to)
        if bound and fits and not like.tags and all(each is None for each in others):
            return True
    return False


def _square(calls: Calls) -> tuple[int, int] | None:
    """The largest square, of sides in steps of 32, that calls with an upper bound may ask for."""
    if calls.like.up_to is None:
        return None
    side = int(calls.like.up_to**0.5) // 32 * 32
    return (side, side) if side and (calls.like.over is None or side * side > calls.like.over) else None


def _forgotten(here: Loc, experiment: Experiment) -> Iterator[Finding]:
    """Pairs that are gone before the experiment ends: a verdict would rest on the last of them alone."""
    if experiment.start is None or experiment.stop is None:
        return
    lasts = experiment.stop - experiment.start
    if experiment.keep < min(lasts, LONGEST_KEPT):
        yield Finding(
            loc=(*here, "stop"),
            code="keep",
            level="warning",
            message=f"it lasts {lasts / _DAY_S:.0f} days, but pairs are forgotten after {experiment.keep / _DAY_S:g}",
            hint=f"write `keep: {min(ceil(lasts / _DAY_S), 365)}d`, or end it sooner",
        )


def _paid_twice(here: Loc, experiment: Experiment, before: Iterable[Experiment]) -> Iterator[Finding]:
    """The same copies ordered by two experiments, or by two challengers of one."""
    seen: dict[object, str] = {}
    for other in before:
        if other.champion == experiment.champion:
            said = f"experiment '{other.name}' has the same champion and challenger"
            seen |= {_asked(each): said for each in other.challengers}
    for place, each in enumerate(experiment.challengers):
        twice = seen.setdefault(_asked(each), f"challenger '{each.name}' is asked for the same")
        if twice != f"challenger '{each.name}' is asked for the same":
            yield Finding(
                loc=(*here, "challengers", place, "name"),
                code="challenger",
                level="warning",
                message=f"{twice}: copies are paid twice",
                hint="leave one of them out",
            )


def _asked(challenger: Challenger) -> object:
    """What its copies are asked for."""
    return challenger.account, challenger.model, tuple(sorted(challenger.params.items()))


def _sold(catalog: Catalog, model: str | None) -> str | None:
    offers = catalog.by_model.get(model or "", ())
    return f"{model} is sold by {', '.join(dict.fromkeys(offer.account for offer in offers))}" if offers else None
