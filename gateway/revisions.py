"""Which catalogue and policy are in force: read from the config folder, checked as a whole, and numbered.

    revision = load_revision(settings)          the accounts that are on
    revision = load_revision(settings, every_account=True)      also those that are off: for quotes without keys

`catalog/` and `policies/` of the config folder count where they exist; what it lacks comes from the shipped defaults.
The number is made from what the files and account terms say, so equal configurations have equal numbers everywhere.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.settings import ACCOUNTS, Account, Settings, account_path, default_config
from gateway.yaml_files import BadFile, Document, Fault, Loc, bytes_of, dotted, load, nearest, read, read_bytes
from policies.billing import Billing
from policies.catalog import AccountTerms, BadCatalog, Catalog, CatalogFault, KnownPrices, compile_offers, jumps
from policies.catalog_file import ModelFile, SyncedFile, SyncedRow
from policies.listed_prices import Synced
from policies.policy import Policy
from policies.policy_file.findings import Finding
from policies.policy_file.lint import Linter
from policies.policy_file.names import Known, names_in
from policies.policy_file.schema import PolicyFile, compile_policy
from policies.policy_file.secrets import HINT as SECRET_HINT
from policies.policy_file.secrets import MESSAGE as SECRET
from policies.policy_file.secrets import secrets_in
from policies.price_book import LONG_AGO, next_change
from policies.services import ServiceEntry, ServicesFile
from policies.types import DataTerms
from providers import registry

SYNCED = "synced-prices.yaml"
"""In the state folder: what was applied of sellers' own price lists, over the catalogue."""

M = TypeVar("M", bound=BaseModel)
_DAY_S = 86_400.0

Stamp: TypeAlias = "frozenset[tuple[str, int, int, int]]"
"""Path, size, time of change and inode of every file a configuration is made of."""


class PolicyText(Struct, frozen=True):
    """A policy as it is written."""

    path: str
    """What messages call it."""
    content: bytes


class Revision(Struct, frozen=True, kw_only=True):
    """One configuration, whole and checked."""

    number: int
    """Of catalogue and account terms; the policy carries its own."""
    catalog: Catalog
    policy: Policy
    accounts: Mapping[str, Account]
    """The provider accounts whose offers are in the catalogue."""
    written: PolicyText
    meaning: str
    """SHA-256 of what the policy says, in hex, without remarks and spacing."""


class Shelf:
    """Files read before: one that did not change is not parsed again. A whole catalogue takes a tenth of a second."""

    def __init__(self) -> None:
        self.stamp: Stamp = frozenset()
        """The files as they were just before they were last read."""
        self._kept: dict[Path, tuple[bytes, Document, BaseModel]] = {}

    def read(self, path: Path, model: type[M]) -> tuple[Document, M]:
        """A file as a document and as `model`; raises `BadFile`."""
        raw = bytes_of(path)
        kept = self._kept.get(path)
        if kept is not None and kept[0] == raw and isinstance(kept[2], model):
            return kept[1], kept[2]
        document = read_bytes(raw, str(path))
        value = document.parse(model)
        self._kept[path] = raw, document, value
        return document, value

    def text(self, path: Path) -> PolicyText:
        """A file that was read, as it is written."""
        return PolicyText(str(path), self._kept[path][0])


def stamp_of(settings: Settings) -> Stamp:
    """What the files of a configuration look like from outside; files that cannot be looked at are left out."""
    found = set()
    folders = {settings.config, settings.config / ACCOUNTS, catalog_folder(settings), *_policy_folders(settings)}
    for folder in folders:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".yaml"):
                    status = entry.stat()
                    found.add((entry.path, status.st_size, status.st_mtime_ns, status.st_ino))
    with contextlib.suppress(OSError):
        path = settings.state / SYNCED
        status = path.stat()
        found.add((str(path), status.st_size, status.st_mtime_ns, status.st_ino))
    return frozenset(found)


def load_revision(  # noqa: PLR0913 - what may stand in place of a file, each by its name
    settings: Settings,
    *,
    every_account: bool = False,
    shelf: Shelf | None = None,
    at: datetime | None = None,
    policy: PolicyText | None = None,
    catalog_dir: Path | None = None,
    synced: bytes | None = None,
    after: KnownPrices | None = None,
) -> Revision:
    """The configuration on disk, with the prices in force at a moment; raises `BadFile` with every fault of every file.

    With a `policy` that text counts instead of the policy's file; with a `catalog_dir` its files, not the catalogue's;
    with `synced` that text instead of what was applied of sellers' own lists.

    Prices far from those that it comes `after` are refused, unless somebody confirms them.

    With a `shelf` files that did not change since they were put there are not parsed again.
    """
    accounts = settings.accounts if every_account else settings.accounts_on()
    shelf = shelf or Shelf()
    shelf.stamp = stamp_of(settings)
    faults: list[Fault] = []
    models = _read_catalog(catalog_dir or catalog_folder(settings), shelf, faults)
    found = _read_policy(settings, shelf, faults) if policy is None else _parse_policy(settings, policy, faults)
    faults += _faults_of_accounts(settings)
    over = _read_synced(settings, synced, shelf, faults)
    if faults or found is None:
        raise BadFile(faults)
    document, file, written = found
    terms = [with_synced(account_terms(name, account), over) for name, account in accounts.items()]
    try:
        catalog = compile_offers(
            [file for _, file in models], terms, 0, at or datetime.now(UTC), _absent(settings, accounts)
        )
    except BadCatalog as error:
        raise BadFile([_placed(fault, models, settings) for fault in error.faults]) from None
    if after is not None:
        found_far = jumps([file for _, file in models], terms, after, at or datetime.now(UTC))
        faults += [_placed(fault, models, settings) for fault in found_far]
    compiled = compile_policy(file)
    faults += faults_of_policy(document, file, settings, catalog)
    if catalog.offers and not faults:
        faults += [placed(document, finding) for finding in Linter(file, compiled, catalog).removed()]
    if faults:
        raise BadFile(faults)
    number = _number_of([document for document, _ in models], terms, catalog)
    catalog = replace(catalog, revision=number)
    return Revision(
        number=number,
        catalog=catalog,
        policy=compiled,
        accounts=accounts,
        written=written,
        meaning=sha256(msgspec.json.encode(document.data, order="sorted")).hexdigest(),
    )


def fault_in(text: PolicyText, loc: Loc, message: str, *, hint: str | None = None, at_key: bool = False) -> Fault:
    """A fault in a policy that was read before."""
    return read_bytes(text.content, text.path).fault(loc, message, hint=hint, at_key=at_key)


def _absent(settings: Settings, here: Mapping[str, Account]) -> list[AccountTerms]:
    """Accounts that a team has and cannot use just now; those that were set aside are none."""
    return [
        account_terms(name, account)
        for name, account in settings.accounts.items()
        if name not in here and not account.off and account.team is not None
    ]


def account_terms(name: str, account: Account) -> AccountTerms:
    """What an account's settings mean for choosing."""
    retention, unstored = account.retention, account.unstored
    return AccountTerms(
        name=name,
        kind=account.kind,
        slots=account.slots,
        rate=account.rate,
        burst=account.burst,
        data=DataTerms(
            region=account.region,
            retention_days=None if retention is None else retention / _DAY_S,
            unstored_days=None if unstored is None else unstored / _DAY_S,
            trains=account.training != "never",
        ),
        team=account.team,
        team_calls=account.team_calls,
        prices={model: price.row(name) for model, price in account.prices.items()},
        billing=Billing() if account.billing is None else account.billing.billing(),
        models=None if account.models is None else frozenset(account.models),
        machine_hour=account.machine_hour,
        marginal_hour=account.marginal_hour,
    )


def with_synced(terms: AccountTerms, rows: Sequence[SyncedRow]) -> AccountTerms:
    """The terms of an account, with what its seller's list was found to say."""
    prices: dict[str, tuple[Synced, ...]] = {}
    retires: dict[str, datetime] = {}
    for row in sorted(rows, key=lambda row: row.valid_from):
        account, _, name = row.offer.partition(":")
        if account != terms.name:
            continue
        if (price := row.synced()) is not None:
            prices[name] = (*prices.get(name, ()), price)
        elif row.retires is not None:
            retires[name] = row.retires
    return replace(terms, synced=prices, retires=retires)


def load_services(settings: Settings) -> Mapping[str, ServiceEntry]:
    """What is priced beside pictures, by name; raises `BadFile`."""
    own = settings.config / "services.yaml"
    file = load(own if own.is_file() else default_config() / "services.yaml", ServicesFile)
    return {entry.name: entry for entry in file.services}


def policy_names(settings: Settings) -> list[str]:
    """The policies that can be put in force."""
    return sorted({path.stem for folder in _policy_folders(settings) for path in folder.glob("*.yaml")})


def catalog_folder(settings: Settings) -> Path:
    """Where the catalogue in force is read from."""
    own = settings.config / "catalog"
    return own if own.is_dir() else default_config() / "catalog"


def policy_path(settings: Settings) -> Path | None:
    """The file of the policy in force, or None when there is none of that name."""
    paths = (folder / f"{settings.policy}.yaml" for folder in _policy_folders(settings))
    return next((path for path in paths if path.is_file()), None)


def _policy_folders(settings: Settings) -> tuple[Path, Path]:
    return settings.config / "policies", default_config() / "policies"


def _read_catalog(folder: Path, shelf: Shelf, faults: list[Fault]) -> list[tuple[Document, ModelFile]]:
    models: list[tuple[Document, ModelFile]] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            models.append(shelf.read(path, ModelFile))
        except BadFile as error:
            faults += error.faults
    if not models and not faults:
        faults.append(Fault(path=str(folder), message="holds no model", hint="add one `<model>.yaml` per model"))
    return models


def _read_policy(
    settings: Settings, shelf: Shelf, faults: list[Fault]
) -> tuple[Document, PolicyFile, PolicyText] | None:
    path = policy_path(settings)
    if path is None:
        names = policy_names(settings)
        message = f"policy: there is no policy called {settings.policy!r}; there are: {', '.join(names) or 'none'}"
        faults.append(_gateway_yaml(settings).fault(("policy",), message, hint=nearest(settings.policy, names)))
        return None
    try:
        document, file = shelf.read(path, PolicyFile)
    except BadFile as error:
        faults += error.faults
        return None
    if file.policy != path.stem:
        hint = f"name the file {file.policy}.yaml, or the policy {path.stem}"
        faults.append(document.fault(("policy",), f"a policy called {file.policy!r} in {path.name}", hint=hint))
    return document, file, shelf.text(path)


def _read_synced(settings: Settings, content: bytes | None, shelf: Shelf, faults: list[Fault]) -> Sequence[SyncedRow]:
    path = settings.state / SYNCED
    try:
        if content is not None:
            return read_bytes(content, str(path)).parse(SyncedFile).synced
        return shelf.read(path, SyncedFile)[1].synced if path.is_file() else ()
    except BadFile as error:
        faults += error.faults
        return ()


def _parse_policy(
    settings: Settings, text: PolicyText, faults: list[Fault]
) -> tuple[Document, PolicyFile, PolicyText] | None:
    """A policy that stands elsewhere, and is meant for the place of the one in force."""
    try:
        document = read_bytes(text.content, text.path)
        file = document.parse(PolicyFile)
    except BadFile as error:
        faults += error.faults
        return None
    if file.policy != settings.policy:
        hint = f"write `policy: {settings.policy}`, or name another in gateway.yaml"
        faults.append(
            document.fault(("policy",), f"this is {file.policy!r}; in force is {settings.policy!r}", hint=hint)
        )
    return document, file, text


def _faults_of_accounts(settings: Settings) -> Iterator[Fault]:
    """Kinds nobody has an adapter for, and what the adapters themselves will not have."""
    for name, account in settings.accounts.items():
        document, at = _written(settings, name)
        try:
            adapter = registry.settings_of(account.kind)
            if account.why_off is None:
                adapter.model_validate(account.adapter_settings())
        except registry.UnknownKind as error:
            yield document.fault((*at, "kind"), str(error))
        except ValidationError as error:
            options = document.faults(error, adapter, (*at, "options"))
            own = document.faults(error, adapter, at)
            for detail, *fault in zip(error.errors(include_url=False), options, own, strict=True):
                known = not detail["loc"] or detail["loc"][0] in Account.model_fields
                yield _of_setting(document, at, name, detail) or fault[known]


def _of_setting(document: Document, at: Loc, account: str, detail: ErrorDetails) -> Fault | None:
    """An adapter's fault about the key, which never stands in the file."""
    field = str(detail["loc"][0]) if detail["loc"] else ""
    if field == "key":
        hint = "write `key_env: NAME_OF_THE_VARIABLE`"
        return document.fault(at, f"{account} needs a key", hint=hint, at_key=bool(at))
    return None


def faults_of_policy(document: Document, file: PolicyFile, settings: Settings, catalog: Catalog) -> Iterator[Fault]:
    """Names that nothing has, which in a rule would deny nothing, in silence; and secrets."""
    known = known_names(settings, catalog)
    for named in names_in(file):
        if named.name not in known[named.kind]:
            message = f"{dotted(named.loc)}: there is no {named.word} called {named.name!r}"
            hint = nearest(named.name, sorted(known[named.kind]))
            yield document.fault(named.loc, message, hint=hint, code="name")
    for loc in secrets_in(document.data):
        yield document.fault(loc, f"{dotted(loc)} {SECRET}", hint=SECRET_HINT, code="secret")


def placed(document: Document, finding: Finding) -> Fault:
    """A finding, put at its line and column."""
    return document.fault(
        finding.loc, finding.message, hint=finding.hint, at_key=finding.at_key, code=finding.code, level=finding.level
    )


def known_names(settings: Settings, catalog: Catalog) -> Known:
    """What a policy may name: models of the catalogue; provider accounts, on or off, and kinds."""
    models, accounts = frozenset(catalog.models), frozenset(settings.accounts)
    return {
        "model": models,
        "answering model": models | catalog.aliases.keys() | {"auto"},
        "chosen model": models | {"auto"},
        "provider": accounts | frozenset(registry.kinds()),
        "account": accounts,
    }


def _placed(fault: CatalogFault, models: Sequence[tuple[Document, ModelFile]], settings: Settings) -> Fault:
    if fault.document is not None:
        return models[fault.document][0].fault(fault.loc, fault.message)
    document, at = _written(settings, str(fault.loc[1]))
    return document.fault((*at, *fault.loc[2:]), fault.message)


def _written(settings: Settings, account: str) -> tuple[Document, Loc]:
    """The file that an account stands in, and where in it."""
    own = account_path(settings.config, account)
    return (read(own), ()) if own.is_file() else (_gateway_yaml(settings), ("accounts", account))


def _gateway_yaml(settings: Settings) -> Document:
    path = settings.config / "gateway.yaml"
    return read(path) if path.exists() else read_bytes(b"", str(path))


def _number_of(documents: Sequence[Document], terms: Sequence[AccountTerms], catalog: Catalog) -> int:
    """31 bits of a digest: what the documents mean, without comments, the account terms, and which prices hold."""
    digest = sha256()
    for document in documents:
        digest.update(msgspec.json.encode(document.data, order="sorted"))
    digest.update(msgspec.json.encode(sorted(terms, key=lambda term: term.name), order="sorted"))
    dated = {offer.id: offer.tariff for offer in catalog.offers.values() if next_change(offer.book, LONG_AGO)}
    if dated:
        digest.update(msgspec.json.encode(dated, order="sorted"))
    return int.from_bytes(digest.digest()[:4]) & 0x7FFF_FFFF
