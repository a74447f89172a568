"""The names a policy file uses of things that stand elsewhere: models, providers, offers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias

from msgspec import Struct

from policies.policy_file.experiments import ExperimentFile
from policies.policy_file.rules import ConditionFile, OffersFile
from policies.policy_file.schema import PolicyFile
from policies.policy_file.values import Loc

Kind: TypeAlias = Literal["model", "answering model", "chosen model", "provider", "account"]
"""`answering`: a model, an alias or auto; `chosen`: a model or auto."""
Known: TypeAlias = Mapping[Kind, frozenset[str]]


class Named(Struct, frozen=True):
    """A name, where it stands and what must be called so."""

    loc: Loc
    kind: Kind
    name: str

    @property
    def word(self) -> str:
        """What to call it in a sentence."""
        return self.kind.rpartition(" ")[2]


def names_in(file: PolicyFile) -> Iterator[Named]:
    """Every such name of a policy, in reading order."""
    for prefix, model in file.models.aliases.items():
        yield Named(("models", "aliases", prefix), "answering model", model)
    for at, model in enumerate(file.models.edits):
        yield Named(("models", "edits", at), "model", model)
    for model in file.models.least_steps:
        yield Named(("models", "least_steps", model), "model", model)
    for at, rule in enumerate(file.rules):
        here: Loc = ("rules", at)
        yield from _in_condition((*here, "when"), rule.when)
        yield from _in_condition((*here, "unless"), rule.unless)
        yield from _in_offers((*here, "allow"), rule.allow)
        yield from _in_offers((*here, "deny"), rule.deny)
        for place, each in enumerate(rule.prefer or ()):
            yield from _of_offer((*here, "prefer", place, "offer"), each.offer)
            yield from _of_offer((*here, "prefer", place, "over"), each.over)
        for place, given in enumerate(rule.params or ()):
            yield from _of_offer((*here, "params", place, "offer"), given.offer)
    for at, reservation in enumerate(file.reservations):
        yield from _each(("reservations", at, "providers"), "provider", reservation.providers)
    for at, experiment in enumerate(file.experiments):
        yield from _in_experiment(("experiments", at), experiment)


def _in_experiment(here: Loc, file: ExperimentFile) -> Iterator[Named]:
    if file.champion.provider is not None:
        yield Named((*here, "champion", "provider"), "provider", file.champion.provider)
    if file.champion.model is not None:
        yield Named((*here, "champion", "model"), "model", file.champion.model)
    for at, challenger in enumerate(file.challengers):
        yield Named((*here, "challengers", at, "account"), "account", challenger.account)
        if challenger.model is not None:
            yield Named((*here, "challengers", at, "model"), "model", challenger.model)
    sampled = {"by": file.sample.by, "always": file.sample.always, "never": file.sample.never}
    for word, all_calls in sampled.items():
        for at, calls in enumerate(all_calls):
            yield from _in_condition((*here, "sample", word, at), calls)


def _in_condition(here: Loc, condition: ConditionFile | None) -> Iterator[Named]:
    if condition is not None:
        yield from _each((*here, "model"), "chosen model", condition.model)


def _in_offers(here: Loc, offers: OffersFile | None) -> Iterator[Named]:
    if offers is None:
        return
    yield from _each((*here, "providers"), "provider", offers.providers)
    yield from _each((*here, "models"), "model", offers.models)
    for at, offer in enumerate(offers.offers or ()):
        yield from _of_offer((*here, "offers", at), offer)


def _of_offer(here: Loc, offer: str) -> Iterator[Named]:
    account, _, model = offer.partition(":")
    yield Named(here, "account", account)
    yield Named(here, "model", model.partition("/")[0])


def _each(here: Loc, kind: Kind, names: tuple[str, ...] | None) -> Iterator[Named]:
    for at, name in enumerate(names or ()):
        yield Named((*here, at), kind, name)
