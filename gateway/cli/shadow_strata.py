"""Strata as rules of a policy see them: which calls a verdict on a part of them is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gateway.cli.shell import Stop
from policies.experiments.definition import Experiment
from policies.experiments.sampling import NOTHING, values_of
from policies.experiments.verdicts import Stratum, Verdict
from policies.policy_file.schema import PolicyFile
from policies.policy_file.values import parse_size

_AS_IN_RULES = ("team", "intent", "operation")
"""What results are told apart by that rules name alike. A model is one of the offers of `prefer`."""


def strata_of(experiment: Experiment, verdict: Verdict, wanted: Sequence[str], *, every: bool) -> list[Stratum]:
    """The strata that are meant by `tier=export`, `size=1024x1024` ... (all of which hold), or all with a switch."""
    names = experiment.sample.stratify
    if not names:
        raise Stop(f"{experiment.name} tells no strata apart; `sample.stratify` says by what results are")
    if not verdict.strata:
        raise Stop(f"all calls of {experiment.name} are of one kind so far; adopt it for all")
    if every:
        return [each for each in verdict.strata if each.verdict == "switch"]
    asked = dict(_asked(each, names) for each in wanted)
    found = [
        each
        for each in verdict.strata
        if (values := values_of(experiment.sample, each.name)) is not None and asked.items() <= values.items()
    ]
    if not found:
        known = ", ".join(each.name for each in verdict.strata)
        raise Stop(f"--stratum {' --stratum '.join(wanted)}: there are no such pairs; there are those of: {known}")
    return found


def _asked(text: str, names: Sequence[str]) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not value or name not in names:
        told = " or ".join(f"{each}=..." for each in names)
        raise Stop(f"--stratum {text}: the experiment tells results apart by {', '.join(names)}; write {told}")
    return name, value


def condition_of_stratum(experiment: Experiment, stratum: str, policy: PolicyFile) -> Mapping[str, object]:
    """A stratum as a rule would name its calls; stops where no rule can."""
    values = values_of(experiment.sample, stratum)
    if values is None:
        told = ", ".join(experiment.sample.stratify)
        raise Stop(
            f"stratum {stratum}: it is from before results were told apart by {told}; no rule is written", code=1
        )
    said: dict[str, object] = {}
    tags: dict[str, str] = {}
    for name, value in values.items():
        if value == NOTHING:
            raise Stop(
                f"stratum {stratum}: no rule can name calls without {name}; adopt the others by --stratum", code=1
            )
        if name.startswith("tag:"):
            tags[name.removeprefix("tag:")] = value
        elif name == "size":
            said["size"] = _band(value)
        elif name == "tier":
            said["intent"] = _narrowed([each for each, of in policy.intents.items() if of.tier.word == value], said)
        elif name in _AS_IN_RULES:
            said[name] = _narrowed([value], said) if name == "intent" else [value]
    if said.get("intent") == []:
        raise Stop(f"stratum {stratum}: no intent of the policy asks for its tier, so no rule can name it", code=1)
    return {**said, "tags": tags} if tags else said


def _narrowed(intents: list[str], said: Mapping[str, object]) -> list[str]:
    """Intents that are also among those named before; rules know tiers by them."""
    before = said.get("intent")
    return [each for each in intents if not isinstance(before, list) or each in before]


def _band(size: str) -> Mapping[str, str]:
    """Rules tell sizes by their area: this one, and the fewest others that can be written."""
    width, height = parse_size(size)
    less = (width - 1, height) if width >= height else (width, height - 1)
    return {"over": f"{less[0]}x{less[1]}", "up_to": size}


def entangled(experiment: Experiment, chosen: Sequence[Stratum], seen: Iterable[str]) -> tuple[str, str] | None:
    """A stratum that is chosen and one that is not, whose calls a rule cannot tell apart: sizes of nearly one area."""
    names = {each.name for each in chosen}
    others = [(name, values_of(experiment.sample, name)) for name in dict.fromkeys(seen) if name not in names]
    for each in chosen:
        mine = values_of(experiment.sample, each.name) or {}
        for name, values in others:
            if values is not None and all(_alike(word, value, values[word]) for word, value in mine.items()):
                return each.name, name
    return None


def _alike(word: str, one: str, other: str) -> bool:
    if one == other or word != "size":
        return one == other
    (low, high), (floor, top) = (areas(_band(size)) for size in (one, other))
    return low < top and floor < high


def areas(size: Mapping[str, str]) -> tuple[int, int]:
    """Pixels that a size is over, and those that it goes up to."""
    over, up_to = (parse_size(size[name]) if name in size else None for name in ("over", "up_to"))
    return over[0] * over[1] if over else 0, up_to[0] * up_to[1] if up_to else 2**62


def in_both(one: Mapping[str, object], stratum: Mapping[str, object]) -> Mapping[str, object] | None:
    """The calls of some kind that are of a stratum, too; None where there are none."""
    found = {**one, **stratum}
    for name in one.keys() & stratum.keys():
        if name == "tags":
            tags, more = _tags(one["tags"]), _tags(stratum["tags"])
            if any(value not in tags.get(tag, value) for tag, (value,) in more.items()):
                return None
            found["tags"] = {**tags, **more}
        elif name == "size":
            (low, high), (floor, top) = areas(_sizes(one["size"])), areas(_sizes(stratum["size"]))
            if floor < low or high < top:
                return None
        else:
            accepted = _words(one[name])
            found[name] = [each for each in _words(stratum[name]) if each in accepted]
            if not found[name]:
                return None
    return found


def _words(value: object) -> tuple[str, ...]:
    return tuple(str(each) for each in value) if isinstance(value, list | tuple) else (str(value),)


def _tags(value: object) -> dict[str, tuple[str, ...]]:
    return {str(tag): _words(each) for tag, each in value.items()} if isinstance(value, Mapping) else {}


def _sizes(value: object) -> dict[str, str]:
    return {str(name): str(each) for name, each in value.items()} if isinstance(value, Mapping) else {}
