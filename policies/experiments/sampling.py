"""Which calls an experiment copies: a matter of the call and the experiment's name alone, so it can be told again.

Each experiment throws dice of its own (a hash of call and name), so several at once choose independently, and neither
their order nor how many there are changes what one of them takes. All challengers of an experiment get the same calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import TypeAlias

from policies.experiments.definition import Challenger, Experiment, Facts, Sample
from policies.money import NanoUsd

Dice: TypeAlias = Callable[[str, str], float]
"""Call id, name of the experiment -> a number in [0, 1)."""
STRATA: tuple[str, ...] = ("tier", "size", "intent", "team", "model", "operation")
"""What results may be told apart by, beside `tag:NAME`."""
NOTHING = "-"
"""Stands for a value that a call does not have."""
_PLAIN = re.compile(r'[^\s"]+')
_WRITTEN = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s"]+')


def rolled(call_id: str, experiment: str) -> float:
    """Dice that fall the same way each time."""
    digest = blake2b(f"{experiment}\0{call_id}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / (1 << 53)  # as many bits as a float holds, so that it is never 1


def challengers_of(
    experiments: Iterable[Experiment], facts: Facts, dice: Dice = rolled
) -> list[tuple[Experiment, Challenger]]:
    """To whom copies of a call that has ended go."""
    return [
        (experiment, challenger)
        for experiment in experiments
        if experiment.runs(facts.at)
        and experiment.champion.served(facts.champion)
        and dice(facts.call_id, experiment.name) < share_of(experiment.sample, facts)
        for challenger in experiment.challengers
        if not _same(experiment, challenger, facts)
    ]


def share_of(sample: Sample, facts: Facts) -> float:
    """The share of calls like this one that are copied."""
    if any(calls.include(facts) for calls in sample.never):
        return 0.0
    if any(calls.include(facts) for calls in sample.always):
        return 1.0
    return next((share for calls, share in sample.by if calls.include(facts)), sample.share)


def stratum_of(sample: Sample, facts: Facts) -> str:
    """What a pair is told apart by, as in `export 1024x1024`; empty where nothing is."""
    values = [_value(name, facts) for name in sample.stratify]
    return " ".join([each if _PLAIN.fullmatch(each) else json.dumps(each, ensure_ascii=False) for each in values])


def values_of(sample: Sample, stratum: str) -> Mapping[str, str] | None:
    """What `stratum_of` said of each thing that results are told apart by; None where it was about other things."""
    written = _WRITTEN.findall(stratum)
    if len(written) != len(sample.stratify) or " ".join(written) != stratum:
        return None
    return dict(zip(sample.stratify, [json.loads(each) if each[0] == '"' else each for each in written], strict=True))


def room(experiment: Experiment, stratum: str, today: Mapping[str, NanoUsd], spent: NanoUsd) -> NanoUsd:
    """What a copy may still cost: the least of what is left in all, for the day, and of the stratum's part of the day.

    `today` is what was spent since midnight (UTC) by stratum, holds included, with a 0 for each stratum seen before.
    With `stratify` a day's budget is divided evenly among the strata, so that the commonest does not take it all.
    """
    left = min(experiment.budget.total - spent, experiment.budget.day - sum(today.values()))
    if not experiment.sample.stratify:
        return max(left, 0)
    part = experiment.budget.day // len(today.keys() | {stratum})
    return max(min(left, part - today.get(stratum, 0)), 0)


def on_itself(experiment: Experiment, challenger: Challenger) -> bool:
    """Whether copies may go to the very offer that served: for an A/A test, or asked for in another way."""
    return experiment.champion.provider == challenger.account or bool(challenger.params)


def _same(experiment: Experiment, challenger: Challenger, facts: Facts) -> bool:
    """Whether a copy would go to the very offer that served, though nobody says that it should."""
    return not on_itself(experiment, challenger) and challenger.offer_of(facts.champion) == facts.champion.id


def _value(name: str, facts: Facts) -> str:
    if name == "size":
        return f"{facts.width}x{facts.height}"
    if name == "tier":
        return facts.tier.word
    if name == "model":
        return facts.champion.model
    tag = name.removeprefix("tag:")
    return (facts.about.tags.get(tag, NOTHING) if tag != name else str(getattr(facts.about, name))) or NOTHING
