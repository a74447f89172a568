"""What can be bought: catalogue documents and provider accounts become the offers the engine weighs.

`compile_offers` joins `ModelFile`s (`policies/catalog_file.py`) with the accounts that are on, and refuses what has
the right shape but makes no sense: `BadCatalog` names every fault and the place it stands at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from difflib import get_close_matches
from itertools import pairwise
from typing import Literal, TypeAlias, TypedDict

from msgspec import Struct
from msgspec.structs import replace

from policies import billing
from policies.billing import Billing
from policies.catalog_file import ModelFile, OfferEntry
from policies.listed_prices import Synced, synced_over
from policies.money import NanoUsd
from policies.price_book import LONG_AGO, Book, PriceRow, in_force, misplaced, next_change, under_contract
from policies.price_jumps import JUMP, apart
from policies.tariffs import MachineSecond, PerMegapixel, PerToken, ResolutionTable, Tariff
from policies.types import Capacity, CapacityId, DataTerms, Licence, Offer, OfferId, Tier
from providers.contract import Abilities, SizeRule

_FAR = (
    f"more than {JUMP} times higher or lower than {{}}: mind the unit; if it is right, write `confirm: true` beside it"
)
Loc: TypeAlias = tuple[str | int, ...]
"""Where something stands in a document: ("offers", 0, "price")."""


TeamCalls: TypeAlias = Literal["also", "models", "all"]
"""How far an account of a team's own stands in the place of others, for calls of that team. also: it is one among them.
models: what it sells is bought there and nowhere else. all: nothing is bought elsewhere."""


KnownPrices: TypeAlias = Mapping[str, Sequence[Tariff]]
"""Offer -> its tariff in force, and those that its book announced."""


class AccountTerms(Struct, frozen=True, kw_only=True):
    """A provider account that is on: what limits it, who may use it, what it pays, what it does with data."""

    name: str
    kind: str
    slots: int | None = None
    """Orders in flight at once; None where the seller names no limit."""
    rate: float | None = None
    """Orders per second."""
    burst: int = 1
    data: DataTerms = DataTerms()
    team: str | None = None
    team_calls: TeamCalls = "models"
    """With a team: what else its calls may use."""
    prices: Mapping[str, PriceRow] = {}
    """Model, or `model/operation` as in an offer's id -> what this account pays instead of the listed price."""
    synced: Mapping[str, tuple[Synced, ...]] = {}
    """Model, or `model/operation` -> what its seller's list says, over the catalogue; in the order of time."""
    retires: Mapping[str, datetime] = {}
    """The same names -> when its seller stopped selling it, where the catalogue does not say."""
    billing: Billing = Billing()
    """What its seller's invoice makes of these prices."""
    models: frozenset[str] | None = None
    """The models this account sells to us; None: every model that has an offer of its kind."""
    machine_hour: NanoUsd | None = None
    """What an hour of its machines costs, instead of the listed hour; None: as listed."""
    marginal_hour: NanoUsd | None = None
    """What an hour of work adds to that while its machines are on anyway; None: all of it."""

    def book(self, name: str, listed: Book) -> Book:
        """What this account pays at an offer, of a model or of `model/operation`, in time."""
        if self.machine_hour is not None:
            ours = MachineSecond(self.machine_hour)
            listed = tuple([replace(row, tariff=_unless_hourly(row.tariff, ours)) for row in listed])
        listed = synced_over(listed, self.synced.get(name, ()))
        agreed = self.prices.get(name)
        return listed if agreed is None else under_contract(listed, (agreed,))

    def counted(self, tariff: Tariff) -> float:
        """Share of a quote that weighs in the choice."""
        if self.marginal_hour is None or not isinstance(tariff, MachineSecond):
            return 1.0
        return self.marginal_hour / tariff.nano_usd_per_hour

    def capacities(self) -> tuple[Capacity, ...]:
        """Name the limits every offer of this account shares."""
        limits = []
        if self.slots is not None:
            limits.append(Capacity(id=self.name, slots=self.slots))
        if self.rate is not None:
            limits.append(Capacity(id=f"{self.name}/rate", rate=self.rate, burst=self.burst))
        return tuple(limits)


def _unless_hourly(listed: Tariff, ours: MachineSecond) -> Tariff:
    return ours if isinstance(listed, MachineSecond) else listed


class ModelInfo(Struct, frozen=True, kw_only=True):
    """What may be said about a model in public."""

    name: str
    title: str
    tier: Tier
    licence: Licence
    aliases: tuple[str, ...] = ()
    offers: tuple[OfferId, ...] = ()
    """Empty when no account that is on sells it: known, but not to be had."""


class Catalog(Struct, frozen=True, kw_only=True):
    """Everything that can be bought, under one revision. Built once, then only read."""

    revision: int
    offers: Mapping[OfferId, Offer]
    by_model: Mapping[str, tuple[Offer, ...]]
    """Every known model; empty where no account that is on sells it."""
    models: Mapping[str, ModelInfo]
    aliases: Mapping[str, str]
    """Other name -> model."""
    capacities: Mapping[CapacityId, Capacity]
    billings: Mapping[str, Billing] = {}
    """Account -> what its invoice makes of list prices; only those where that is anything."""
    changes_at: datetime | None = None
    """When the next price comes into force, or goes; the catalogue is to be compiled again then."""

    def for_sale(self) -> tuple[Offer, ...]:
        """The offers that their sellers have not retired."""
        return tuple(offer for offer in self.offers.values() if not offer.retired)

    def rates(self) -> frozenset[CapacityId]:
        """Name the capacities that limit how fast orders go out, not how many are under way."""
        return frozenset(name for name, each in self.capacities.items() if each.rate is not None)

    def resolve(self, name: str) -> str | None:
        """Find the model behind a name or an alias; None when nobody knows it."""
        return name if name in self.models else self.aliases.get(name)


class CatalogFault(Struct, frozen=True, kw_only=True):
    """Something of the right shape that makes no sense."""

    document: int | None
    """Index into the documents given to `compile_offers`; None when it stands in an account's settings."""
    loc: Loc
    """Where in that document; for an account: ("accounts", its name, field, ...)."""
    message: str


class BadCatalog(ValueError):
    """The catalogue makes no sense, so it is not put in force."""

    def __init__(self, faults: Sequence[CatalogFault]) -> None:
        """`faults` is everything found, in reading order."""
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{'.'.join(map(str, fault.loc))}: {fault.message}" for fault in faults))


_Found: TypeAlias = Iterator[tuple[Loc, str]]


def compile_offers(
    models: Sequence[ModelFile],
    accounts: Sequence[AccountTerms],
    revision: int,
    at: datetime = LONG_AGO,
    absent: Sequence[AccountTerms] = (),
) -> Catalog:
    """Join documents and accounts into offers, in the order both are given, with the prices in force at a moment.

    Accounts that are `absent` sell nothing just now, for want of a key; that does not send their teams elsewhere.
    An offer that draws from words is `account:model`; any other adds its first operation, `account:model/edit`.
    Raises `BadCatalog` with every fault of sense: names used twice, an account that names a model nobody sells,
    a table that ends below the largest size sold, a size rule its dialect cannot express.
    """
    faults = [*_names_used_twice(models), *_faults_of_offers(models), *_faults_of_accounts(models, accounts)]
    if faults:
        raise BadCatalog(faults)
    by_model = {file.model: tuple(_offers_of(file, accounts, at)) for file in models}
    by_model = _kept_apart(models, by_model, [*accounts, *absent])
    changes = [next_change(book, at) for file in models for _, _, book in _books_of(file, accounts)]
    changes += [each.retires for some in by_model.values() for each in some if each.retires and each.retires > at]
    return Catalog(
        revision=revision,
        offers={offer.id: offer for offers in by_model.values() for offer in offers},
        by_model=by_model,
        models={file.model: _info(file, by_model[file.model]) for file in models},
        aliases={alias: file.model for file in models for alias in file.aliases},
        capacities={capacity.id: capacity for account in accounts for capacity in account.capacities()},
        billings={account.name: account.billing for account in accounts if account.billing != Billing()},
        changes_at=min((change for change in changes if change is not None), default=None),
    )


def _kept_apart(
    models: Sequence[ModelFile], by_model: Mapping[str, tuple[Offer, ...]], accounts: Sequence[AccountTerms]
) -> dict[str, tuple[Offer, ...]]:
    """The offers, each kept from the teams that buy it through an account of their own."""
    owners = [account for account in accounts if account.team is not None and account.team_calls != "also"]
    if not owners:
        return dict(by_model)
    whole = {account.team for account in owners if account.team_calls == "all"}
    return {file.model: tuple(_kept(by_model[file.model], file, owners, whole)) for file in models}


def _kept(
    offers: Sequence[Offer], file: ModelFile, owners: Sequence[AccountTerms], whole: AbstractSet[str | None]
) -> Iterator[Offer]:
    sold = [
        (account.team, operation)
        for entry, account, _ in _books_of(file, owners)
        for operation in entry.abilities.operations
    ]
    for offer in offers:
        if offer.team is not None:
            yield offer
            continue
        teams = whole | {team for team, operation in sold if operation in offer.abilities.operations}
        yield replace(offer, kept_from=frozenset(team for team in teams if team is not None)) if teams else offer


def _books_of(file: ModelFile, accounts: Sequence[AccountTerms]) -> Iterator[tuple[OfferEntry, AccountTerms, Book]]:
    """Each entry, each account that sells it, and what that account pays in time."""
    for entry in file.offers:
        name, listed = _name(file, entry), entry.book()
        for account in accounts:
            if account.kind == entry.provider and (account.models is None or file.model in account.models):
                yield entry, account, account.book(name, listed)


def _offers_of(file: ModelFile, accounts: Sequence[AccountTerms], at: datetime) -> Iterator[Offer]:
    """One offer for each entry and each account that sells it at a moment; what has no price then is not sold."""
    for entry, account, book in _books_of(file, accounts):
        row = in_force(book, at)
        if row is None:
            continue
        yield Offer(
            id=f"{account.name}:{_name(file, entry)}",
            model=file.model,
            account=account.name,
            kind=account.kind,
            endpoint=entry.endpoint,
            tier=Tier[file.tier.upper()],
            tariff=row.tariff,
            counted=account.counted(row.tariff),
            abilities=entry.abilities.abilities(),
            capacities=tuple(capacity.id for capacity in account.capacities()),
            typical_s=entry.typical_seconds,
            licence=(entry.licence or file.licence).licence(),
            data=account.data,
            team=account.team,
            source=row.source,
            checked_on=row.checked_on or entry.checked_on.isoformat(),
            book=book,
            **_end_of(file, entry, account, at),
        )


class _End(TypedDict):
    retires: datetime | None
    successor: str | None
    retired: str


def _end_of(file: ModelFile, entry: OfferEntry, account: AccountTerms, at: datetime) -> _End:
    """When a seller stops selling an offer, and the sentence that says so once it has."""
    said = (entry.retires, account.retires.get(_name(file, entry)))
    retires = min((moment for moment in said if moment is not None), default=None)
    why = ""
    if retires is not None and retires <= at:
        instead = f"; use {entry.successor}" if entry.successor else ""
        why = f"{account.name} no longer sells {file.model} since {retires:%Y-%m-%d}{instead}"
    return {"retires": retires, "successor": entry.successor, "retired": why}


def _name(file: ModelFile, entry: OfferEntry) -> str:
    """What an offer is called at every account; it does not change when others come or go."""
    operations = entry.abilities.operations
    return file.model if "generate" in operations else f"{file.model}/{operations[0]}"


def _info(file: ModelFile, offers: Sequence[Offer]) -> ModelInfo:
    """Say what the public may know of a model."""
    return ModelInfo(
        name=file.model,
        title=file.title,
        tier=Tier[file.tier.upper()],
        licence=file.licence.licence(),
        aliases=file.aliases,
        offers=tuple(offer.id for offer in offers if not offer.retired),
    )


def _names_used_twice(models: Sequence[ModelFile]) -> Iterator[CatalogFault]:
    """Every model and alias is one name in one place; `auto` belongs to the gateway."""
    taken = {"auto": "the gateway, which chooses by itself when a caller says auto"}
    for index, file in enumerate(models):
        names: list[tuple[Loc, str]] = [(("model",), file.model)]
        names += [(("aliases", at), alias) for at, alias in enumerate(file.aliases)]
        for loc, name in names:
            if name in taken:
                yield CatalogFault(document=index, loc=loc, message=f"{name!r} is already the name of {taken[name]}")
            taken.setdefault(name, f"model {file.model}")


def _faults_of_offers(models: Sequence[ModelFile]) -> Iterator[CatalogFault]:
    """Faults of each offer by itself, and of two of one provider."""
    known = {file.model for file in models}
    for index, file in enumerate(models):
        sold: set[tuple[str, str]] = set()
        for at, entry in enumerate(file.offers):
            operations = {(entry.provider, operation) for operation in entry.abilities.operations}
            if twice := sorted(operation for _, operation in sold & operations):
                message = (
                    f"{entry.provider} already sells {file.model} for {' and '.join(twice)} above; "
                    "one offer for each operation"
                )
                yield CatalogFault(document=index, loc=("offers", at, "provider"), message=message)
            sold |= operations
            if entry.successor is not None and entry.successor not in known:
                message = f"there is no model {entry.successor!r} to follow it{_nearest(entry.successor, known)}"
                yield CatalogFault(document=index, loc=("offers", at, "successor"), message=message)
            for loc, message in _faults_of_entry(entry):
                yield CatalogFault(document=index, loc=("offers", at, *loc), message=message)


def _faults_of_entry(entry: OfferEntry) -> _Found:
    """Price, sizes and steps of one offer must fit each other."""
    abilities = entry.abilities.abilities()
    if abilities.size_dialect == "aspect_ratio" and entry.abilities.sizes.named is None:
        yield ("abilities", "sizes"), "size_dialect aspect_ratio needs named sizes, each under its ratio"
    for at, row in enumerate(entry.book()):
        for message in _misfits(row.tariff, abilities):
            yield (*_row_at(at), "price"), message
    for at, (before, row) in enumerate(pairwise(entry.book()), start=1):
        if not row.confirmed and apart(before.tariff, row.tariff):
            yield (*_row_at(at), "price"), _FAR.format("the one before it")
    for at, message in misplaced(entry.book()):
        yield (*_row_at(at), "valid_from" if at else "valid_to"), message


def known_prices(catalog: Catalog) -> KnownPrices:
    """What a catalogue's offers cost: to hold the next one against, when this one is gone."""
    return {name: (offer.tariff, *(row.tariff for row in offer.book)) for name, offer in catalog.offers.items()}


def jumps(
    models: Sequence[ModelFile], accounts: Sequence[AccountTerms], before: KnownPrices, at: datetime
) -> Iterator[CatalogFault]:
    """Prices far from those in force that nobody announced, confirmed or took from a seller's own list."""
    for index, file in enumerate(models):
        for entry, account, book in _books_of(file, accounts):
            name, row = _name(file, entry), in_force(book, at)
            old = before.get(f"{account.name}:{name}", ())
            if row is None or row.confirmed or row.tariff in old or not (old and apart(old[0], row.tariff)):
                continue
            message = _FAR.format("the one in force")
            listed = next((place for place, own in enumerate(entry.book()) if own.tariff == row.tariff), None)
            if listed is not None:
                yield CatalogFault(
                    document=index, loc=("offers", _place(file, entry), *_row_at(listed), "price"), message=message
                )
            elif name in account.prices and account.prices[name].tariff == row.tariff:
                yield CatalogFault(document=None, loc=("accounts", account.name, "prices", name), message=message)


def _place(file: ModelFile, entry: OfferEntry) -> int:
    return next(at for at, each in enumerate(file.offers) if each is entry)


def _row_at(place: int) -> Loc:
    """Where a row of an offer's book stands: the first is the offer's own price."""
    return ("changes", place - 1) if place else ()


def _misfits(tariff: Tariff, abilities: Abilities) -> Iterator[str]:
    """Find what a tariff leaves open or misjudges about the pictures it is to price."""
    if isinstance(tariff, ResolutionTable) and tariff.beyond is None:
        largest, end = _largest_area(abilities.sizes), tariff.rows[-1][0]
        if largest > end:
            yield (
                f"the table ends at {end:,} px but pictures of {largest:,} px are sold; "
                "add a row or beyond_per_megapixel"
            )
    if isinstance(tariff, PerToken):
        yield from _untold_tokens(tariff, abilities)
    if isinstance(tariff, PerMegapixel) and tariff.default_steps is not None:
        default = abilities.default_steps
        if default is None:
            yield f"default_steps {tariff.default_steps} prices steps, but abilities.steps says none can be asked for"
        elif default != tariff.default_steps:
            yield f"default_steps {tariff.default_steps} differs from abilities.steps.default {default}"


def _untold_tokens(tariff: PerToken, abilities: Abilities) -> Iterator[str]:
    """Sizes sold of which nobody said how many tokens they are, and inputs likewise."""
    told = {(width, height) for width, height, _ in tariff.made}
    if not abilities.sizes.named:
        yield "tokens.made names sizes one by one, so abilities.sizes must do so, too: `only` or `named`"
    if untold := sorted({size for size in abilities.sizes.named.values() if size not in told}):
        width, height = untold[0]
        yield f"tokens.made says nothing of {width}x{height}, which is sold"
    if abilities.references[1] and not tariff.per_input:
        yield "input pictures are taken, so tokens needs given and given_at_most"


def _largest_area(rule: SizeRule) -> int:
    """Pixels of the largest picture a rule allows."""
    if rule.named:
        return max(width * height for width, height in rule.named.values())
    side = rule.max_side - rule.max_side % rule.multiple
    return min(side * side, rule.max_pixels or side * side)


def _faults_of_accounts(models: Sequence[ModelFile], accounts: Sequence[AccountTerms]) -> Iterator[CatalogFault]:
    """Check that what accounts name exists, and that their own prices fit as listed ones do."""
    names: set[str] = set()
    for account in accounts:
        if account.name in names:
            message = f"two accounts are called {account.name!r}"
            yield CatalogFault(document=None, loc=("accounts", account.name), message=message)
        names.add(account.name)
        for loc, message in _faults_of_account(models, account):
            yield CatalogFault(document=None, loc=("accounts", account.name, *loc), message=message)


def _faults_of_account(models: Sequence[ModelFile], account: AccountTerms) -> _Found:
    """Faults in what one account says of models."""
    entries = [(file, entry) for file in models for entry in file.offers if entry.provider == account.kind]
    known = {file.model for file, _ in entries}
    for model in sorted(account.models or ()):
        if model not in known:
            yield ("models",), f"no {account.kind} offer of {model!r} in the catalogue{_nearest(model, known)}"
    yield from _faults_of_billing(account, known)
    sold = {_name(file, entry): entry for file, entry in entries}
    for name, agreed in account.prices.items():
        if name not in sold:
            yield ("prices", name), f"no {account.kind} offer of {name!r} in the catalogue{_nearest(name, sold)}"
            continue
        if not agreed.confirmed and any(apart(row.tariff, agreed.tariff) for row in sold[name].book()[:1]):
            yield ("prices", name), _FAR.format("the listed one")
        for message in _misfits(agreed.tariff, sold[name].abilities.abilities()):
            yield ("prices", name), message
        for _, message in misplaced((agreed,)):
            yield ("prices", name, "valid_to"), message


def _faults_of_billing(account: AccountTerms, known: AbstractSet[str]) -> _Found:
    """Faults in what an account says of its invoices; `known` are the models that its seller has offers of."""
    for loc, message in billing.misplaced(account.billing):
        yield ("billing", *loc), message
    for at, licence in enumerate(account.billing.licences):
        if licence.model not in known:
            message = f"no {account.kind} offer of {licence.model!r} in the catalogue{_nearest(licence.model, known)}"
            yield ("billing", "licences", at, "model"), message


def _nearest(word: str, words: Iterable[str]) -> str:
    """Ask "did you mean", where something is near enough to ask."""
    near = get_close_matches(word, list(words), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
