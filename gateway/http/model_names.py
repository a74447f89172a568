"""What a model name of a request means: `flux-dev`, an alias, `auto`, a foreign name, and suffixes (`:cheapest`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from gateway.errors import Forbidden, NotFound
from gateway.http.fields import hint
from gateway.requests.call import Caller
from gateway.requests.regime import Regime
from policies.catalog import Catalog
from policies.policy import Policy
from policies.types import Tier

AUTO = "auto"
PREFERENCES: Mapping[str, Literal["cheapest", "fastest"]] = {"cheapest": "cheapest", "fastest": "fastest"}
SELLER_KINDS = frozenset({"fal", "together", "replicate", "openai", "selfhosted"})
"""Kinds of seller that may be named although no account of theirs is on."""


class Meaning(Struct, frozen=True, kw_only=True):
    """What a model name asks for."""

    models: frozenset[str] | None
    """None: any."""
    prefer: Literal["value", "cheapest", "fastest"] = "value"
    seller: str | None = None
    """The provider account or kind it names."""


class Names(Struct, frozen=True, kw_only=True):
    """Every name in force; made once for each revision of catalogue and policy."""

    policy: Policy
    catalog: Catalog
    sellers: frozenset[str]
    """Provider accounts and their kinds."""
    regime: Regime | None = None
    """What calls that are read by them are served under; None: whatever is in force then."""

    def meaning(self, name: str) -> Meaning:
        """What `name` asks for; raises `NotFound`."""
        base, colon, suffix = name.partition(":")  # names of the catalogue hold no colon
        found = self._base(base)
        if found is None:
            known = [AUTO, *self.catalog.models, *self.catalog.aliases]
            raise _unknown(name, f"{hint(base, known)} GET /v1/models lists what this gateway offers.")
        if not colon:
            return found
        if suffix in PREFERENCES:
            return Meaning(models=found.models, prefer=PREFERENCES[suffix])
        if suffix in self.sellers:
            return Meaning(models=found.models, seller=suffix)
        raise _unknown(name, f" After ':' comes one of: {', '.join((*PREFERENCES, *sorted(self.sellers)))}.")

    def knows(self, name: str) -> bool:
        """Whether `name` asks for anything here."""
        try:
            self.meaning(name)
        except NotFound:
            return False
        return True

    def _base(self, name: str) -> Meaning | None:
        target = AUTO if name == AUTO else self.catalog.resolve(name) or self.policy.model_behind(name)
        if target is None:
            return None
        model = None if target == AUTO else self.catalog.resolve(target)
        return Meaning(models=None if model is None else frozenset({model}))


def names_of(policy: Policy, catalog: Catalog, regime: Regime | None = None) -> Names:
    """The names of one revision."""
    offers = catalog.offers.values()
    sellers = SELLER_KINDS | {offer.account for offer in offers} | {offer.kind for offer in offers}
    return Names(policy=policy, catalog=catalog, sellers=sellers, regime=regime)


def lowered(names: Names) -> Names:
    """The same names, under a policy that draws at the lowest tier whatever says no tier of its own."""
    policy = names.policy
    lowest = min(policy.intents.values(), key=lambda intent: intent.tier).name
    qualities = {**policy.qualities, "auto": lowest}
    return replace(names, policy=replace(policy, default_intent=lowest, qualities=qualities))


def usable_models(caller: Caller, catalog: Catalog) -> frozenset[str] | None:
    """The models that a caller's key may use: those it names, of the tiers it names; None is all."""
    tiers = None if caller.limits is None else caller.limits.tiers
    if tiers is None:
        return caller.models
    models = catalog.models.keys() if caller.models is None else caller.models & catalog.models.keys()
    return frozenset(model for model in models if catalog.models[model].tier in tiers)


def allowed_models(meaning: Meaning, caller: Caller, catalog: Catalog, tier: Tier) -> frozenset[str] | None:
    """The models a caller's key leaves of what was asked for, none below `tier` when the choice is ours.

    Raises `Forbidden` when nothing is left.
    """
    usable = usable_models(caller, catalog)
    if usable is None:
        return meaning.models
    if meaning.models is not None:
        left = meaning.models & usable
    else:
        left = frozenset(m for m in usable if m in catalog.models and catalog.models[m].tier >= tier)
    if not left:
        raise _not_allowed(meaning, caller, usable, tier)
    return left


def _not_allowed(meaning: Meaning, caller: Caller, usable: frozenset[str], tier: Tier) -> Forbidden:
    """Which limit of the key leaves nothing of what was asked for, and what may be asked for instead."""
    tiers = None if caller.limits is None else caller.limits.tiers
    fix = f"have it changed (pixelgate keys limit {caller.key_id}"
    named = meaning.models is not None
    if tiers is not None and (caller.models is None or (meaning.models or caller.models) & caller.models):
        words = ", ".join(each.word for each in sorted(tiers)) or "none"
        asks = f"'{min(meaning.models)}' is of another" if meaning.models else f"this asks for {tier.word}"
        return Forbidden(
            f"This API key may only draw with models of tier {words}, and {asks}. "
            f"Ask for {'another model' if named else 'another intent or quality'}, or {fix} --tiers ...).",
            param="model" if named else "intent",
        )
    return Forbidden(
        f"This API key may only use: {', '.join(sorted(usable)) or 'no model'}"
        + (". " if named else f"; none of these is of tier {tier.word}. ")
        + f"Ask for one of these, or {fix} --models ...).",
        param="model",
    )


def _unknown(name: str, more: str) -> NotFound:
    return NotFound(f"The model '{name[:80]}' does not exist.{more}", param="model", code="model_not_found")
