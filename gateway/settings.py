"""What the gateway is told before it starts: `config/gateway.yaml`, then the environment, then the command line.

    flag  >  PIXELGATE_... variable  >  gateway.yaml  >  the defaults below

A variable is the setting's path in capitals, its levels joined by two underscores: `PIXELGATE_DATABASE__DURABILITY`.
Keys of providers never stand in the file: an account names the variable that holds its key (`key_env: FAL_KEY`),
or a file of that name in the secrets folder. An account whose key is not there is off, and says so.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, cast

from msgspec.structs import replace
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from gateway import sealing
from gateway.yaml_files import BadFile, Document, Fault, dotted, fields_at, nearest, read, read_bytes, sentence
from policies.billing_file import BillingEntry
from policies.catalog import TeamCalls
from policies.catalog_file import AgreedPrice
from policies.money import USD
from policies.policy_file.values import Dollars, Duration
from policies.types import DataTerms

PREFIX = "PIXELGATE_"
MASTER = "PIXELGATE_MASTER_KEY"
ACCOUNTS = "accounts"
"""Folder beside gateway.yaml with one account a file, named by it."""
LEVEL = "__"
CHECKOUT = Path(__file__).resolve().parent.parent
_LINE_OF_KEY = re.compile(r"\b(key|key_env|key_sealed|master_key|pepper|secret)\b", re.IGNORECASE)
NAME = r"^[a-z][a-z0-9_-]{0,31}$"


Values: TypeAlias = dict[str, object]
AccountName: TypeAlias = Annotated[str, Field(pattern=NAME)]


def default_config() -> Path:
    """`config/` of the checkout, or what the wheel brought along."""
    here = CHECKOUT / "config"
    return here if (here / "gateway.yaml").is_file() else Path(__file__).resolve().parent / "defaults"


def default_state() -> Path:
    """`.pixelgate` in the checkout; for an installed wheel the user's state folder, else the current one."""
    if (CHECKOUT / "pyproject.toml").is_file():
        return CHECKOUT / ".pixelgate"
    if base := os.environ.get("XDG_STATE_HOME"):
        return Path(base) / "pixelgate"
    home = os.environ.get("HOME")
    return Path(home) / ".local" / "state" / "pixelgate" if home else Path(".pixelgate").absolute()


class _Typed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=False)


_STORES_ANYWAY = frozenset({"together", "replicate", "openai", "selfhosted"})
"""Shipped kinds of seller that cannot be told, order by order, to store nothing."""


class Account(_Typed):
    """Our contract with one seller: where it is, with which key, and what it allows."""

    kind: str = Field(description="Which adapter speaks to it: fal, together, replicate, openai, selfhosted.")
    key_env: str | None = Field(
        default=None,
        pattern=r"^[A-Z][A-Z0-9_]*$",
        description="Variable, or file in the secrets folder, that holds the key. Without it no key is sent.",
    )
    key_sealed: str | None = Field(
        default=None,
        pattern=sealing.PATTERN,
        description="The key, encrypted under `master_key`, as `accounts seal` and `accounts add --sealed` write it.",
    )
    key: SecretStr | None = Field(default=None, description="The key itself; only from PIXELGATE_ACCOUNTS__NAME__KEY.")
    base_url: str | None = Field(
        default=None, pattern=r"^https?://", description="Where the seller answers, when not at its usual place."
    )
    concurrency: int | None = Field(
        default=None, ge=1, description="Orders in flight at once that the contract allows."
    )
    rate: float | None = Field(default=None, gt=0, description="Orders per second that the contract allows.")
    burst: int = Field(default=1, ge=1, description="Orders that may start at once before `rate` counts.")
    region: str | None = Field(
        default=None, description="Where prompts and pictures are processed, if the contract says."
    )
    retention: Duration | None = Field(
        default=None,
        description="How long the seller keeps them, if the contract says: 30d. Held against `require.retention`.",
    )
    unstored: Duration | None = Field(
        default=None,
        description="How long the seller keeps anything of an order that it is told to store nothing of: 1h. Only fal "
        "can be told; it is, where a policy requires less than `retention`.",
    )
    training: Literal["never", "allowed"] = Field(
        default="allowed", description="Whether the seller may train on them. Unless the contract forbids it: allowed."
    )
    team: str | None = Field(default=None, description="The one team that may use this account; anyone when left out.")
    team_calls: TeamCalls = Field(
        default="models",
        description="With `team`, what else its calls may use. `models`: what this account sells they buy here alone; "
        "`all`: nothing anywhere else; `also`: this is one account among the others.",
    )
    models: tuple[str, ...] | None = Field(
        default=None, description="Sell only these models through it; all when left out."
    )
    prices: Mapping[str, AgreedPrice] = Field(
        default_factory=dict,
        description="Prices agreed with the seller, by model (`flux-dev`, `flux-dev/edit`), typed as in the catalogue; "
        "`valid_from` and `valid_to` say for how long.",
    )
    billing: BillingEntry | None = Field(
        default=None,
        description="What the seller's invoice makes of its prices: `volume` discounts, what is `free`, prepaid "
        "`credit`, `licences` of weights; see [tariffs](tariffs.md).",
    )
    nodes: tuple[Mapping[str, object], ...] | None = Field(
        default=None, description="Our own GPU servers behind this account, for the kind selfhosted: see own GPUs."
    )
    machine_hour: Dollars | None = Field(
        default=None, gt=0, description="What an hour of one of its machines costs, instead of the catalogue's price."
    )
    marginal_hour: Dollars | None = Field(
        default=None,
        description="Of that, what an hour of work adds while the machines are on anyway: weighs in the choice alone.",
    )
    options: Mapping[str, object] = Field(
        default_factory=dict, description="Passed on to the adapter, which checks it."
    )
    off: bool = Field(default=False, description="Set aside: the account is known but not used.")

    @model_validator(mode="after")
    def _has_one_key(self) -> Account:
        if self.key_env is not None and self.key_sealed is not None:
            raise ValueError("key_sealed: the account has a `key_env`, too; one of them says where its key is")
        return self

    @model_validator(mode="after")
    def _has_a_team(self) -> Account:
        if "team_calls" in self.model_fields_set and self.team is None:
            raise ValueError("team_calls: says what calls of a `team` may use; name the team, too")
        return self

    @model_validator(mode="after")
    def _can_be_told(self) -> Account:
        if self.unstored is not None and self.kind in _STORES_ANYWAY:
            raise ValueError(f"unstored: {self.kind} cannot be told to store nothing of an order; only fal can")
        return self

    @model_validator(mode="after")
    def _slots_beyond_some(self) -> Account:
        if self.concurrency is None and self.billing is not None and any(lot.slots for lot in self.billing.credit):
            raise ValueError("slots of credit also need `concurrency`: what the account allows without it")
        return self

    @property
    def why_off(self) -> str | None:
        """Why this account is not used, or None when it is."""
        if self.off:
            return "`off: true` in gateway.yaml"
        if self.key_env and self.key is None:
            return f"{self.key_env} is not set"
        if self.key_sealed and self.key is None:
            return f"its sealed key does not open: {MASTER} is not set, is another, or the line was altered"
        return None

    @property
    def key_from(self) -> str:
        """Where its key comes from, in words."""
        if self.key_env is not None:
            return self.key_env
        return "sealed" if self.key_sealed is not None else "none" if self.key is None else "set"

    @property
    def slots(self) -> int | None:
        """Orders in flight at once: what the contract says, else the slots of its nodes together."""
        if self.concurrency is not None or self.nodes is None:
            return self.concurrency
        return sum(slots if isinstance(slots := node.get("slots", 1), int) else 1 for node in self.nodes)

    def adapter_settings(self) -> Mapping[str, object]:
        """What the adapter is connected with; its own `Settings` checks it."""
        given = {"key": self.key, "base_url": self.base_url, "nodes": self.nodes, "machine_hour": self.machine_hour}
        return {**self.options, **{name: value for name, value in given.items() if value is not None}}


class DatabaseSettings(_Typed):
    """Where money and history are remembered."""

    url: str | None = Field(
        default=None,
        description="sqlite:///PATH; `pixelgate.db` in the state folder when left out.",
    )
    durability: Literal["power", "process"] = Field(
        default="power",
        description="What a commit survives: `power` loss (one fsync per group), or the death of this `process` only.",
    )


class AssetSettings(_Typed):
    """Where pictures are kept."""

    folder: Path | None = Field(default=None, description="`assets` in the state folder when left out.")


class Inputs(_Typed):
    """Pictures that callers hand in by their address."""

    origins: tuple[str, ...] = Field(
        default_factory=tuple,
        description="Origins such as http://images.internal:9000 that may be fetched from wherever they lie; "
        "any other address must be public.",
    )
    fetch_timeout: Duration = Field(default=15.0, gt=0, description="A picture that has not come by then is refused.")


class Orders(_Typed):
    """How long an order may take, and what happens to one that takes longer."""

    timeout: Duration = Field(default=300.0, description="An order is given up after this, even when nobody waits.")
    patience: float = Field(
        default=4.0, ge=1, description="Times its predicted p95 after which an order is given up for another."
    )
    least_patience: Duration = Field(default=20.0, description="Never given up for another sooner than this.")
    linger: Duration = Field(
        default=30.0, description="How long the slot of an order stays taken after we lost sight of it."
    )
    regain: Duration = Field(
        default=30.0,
        description="How long a call goes on for a client that repeats by itself, after it left or we restarted.",
    )
    drain: Duration = Field(default=30.0, description="How long running orders may take to end when we stop.")


class Recovery(_Typed):
    """How orders that a crash or a lost answer left open are brought to an end."""

    every: Duration = Field(default=10.0, gt=0, description="How often open and suspended orders are looked at.")
    stale_after: Duration = Field(default=15.0, description="A process that gave no sign of life so long is dead.")
    reconcile: Duration = Field(
        default=3600.0,
        gt=0,
        description="How often our books are compared with what providers say they bill, and corrected.",
    )
    bills: Duration = Field(
        default=30.0, gt=0, description="How often the latest bills are looked at, of providers that bill by the order."
    )
    price_lists: Duration = Field(
        default=3600.0,
        gt=0,
        description="How often sellers are asked what they sell, and at what price; what differs is proposed.",
    )
    unknown_after: Duration = Field(
        default=600.0,
        description="Age from which an order that its provider does not list counts as never billed.",
    )


class C2paSettings(_Typed):
    """Signing pictures as made by a model, with the extra `c2pa`."""

    certificate: Path | None = Field(
        default=None, description="PEM file of the certificate and those that vouch for it; nothing is signed without."
    )
    key: Path | None = Field(default=None, description="PEM file of the certificate's private key.")
    algorithm: Literal["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"] = Field(
        default="es256", description="What the key signs with."
    )
    timestamps: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="A timestamp authority (RFC 3161) that is asked for each picture; none when left out.",
    )

    @model_validator(mode="after")
    def _both_or_neither(self) -> C2paSettings:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("`certificate` and `key` go together")
        return self


class ContentHookSettings(_Typed):
    """A service of your own that is asked about prompts and pictures."""

    url: str | None = Field(
        default=None, pattern=r"^https?://", description="Where it answers; nobody is asked when left out."
    )
    before: bool = Field(default=True, description="Whether it is asked about every prompt before it is ordered.")
    inputs: bool = Field(default=True, description="Whether it is shown the pictures of an edit with the prompt.")
    after: bool = Field(default=False, description="Whether it is asked about every picture before it is kept.")
    timeout: Duration = Field(default=2.0, gt=0, description="An answer later than this is a failure.")
    on_failure: Literal["allow", "refuse"] = Field(
        default="refuse", description="What a failure means: go on, or answer 503."
    )


class AlertHook(_Typed):
    """Somewhere alerts are posted to."""

    url_env: str = Field(
        pattern=r"^[A-Z][A-Z0-9_]*$", description="Variable, or file in the secrets folder, that holds the address."
    )
    form: Literal["slack", "json"] = Field(
        default="json", description="What is posted: Slack's `text` alone, or id, kind, time, text and facts."
    )
    secret_env: str | None = Field(
        default=None,
        pattern=r"^[A-Z][A-Z0-9_]*$",
        description="Variable, or file, that holds the secret which signs what is posted; unsigned when left out.",
    )
    url: SecretStr | None = Field(default=None, description="The address itself; only from the variable above.")
    secret: SecretStr | None = Field(default=None, description="The secret itself; only from the variable above.")


AlertKind: TypeAlias = Literal[
    "budget",
    "budget_soft",
    "budget_forecast",
    "unusual_spend",
    "key_paused",
    "rate_pressure",
    "bill_drift",
    "strange_bill",
    "listed_price",
    "offer_changed",
    "stale_prices",
]


class Silenced(_Typed):
    """Alerts that nobody wants to hear."""

    kind: AlertKind = Field(description="What they tell; see [alerts](../how-to/alerts.md).")
    account: AccountName | None = Field(default=None, description="Of this provider account alone; else of all.")


class AlertSettings(_Typed):
    """What is told about money, and to whom; alerts stand in the log in any case."""

    hooks: tuple[AlertHook, ...] = Field(
        default_factory=tuple, description="Where alerts are posted; see [alerts](../how-to/alerts.md)."
    )
    levels: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field(
        default_factory=lambda: (50, 80, 100),
        description="Percentages of a budget that are told, each once a window: 50, 80 and 100 when left out.",
    )
    silenced: tuple[Silenced, ...] = Field(
        default_factory=tuple,
        description="Alerts that are posted nowhere, by kind and perhaps account; the log and `alerts list` have them.",
    )
    stale_prices: Duration = Field(
        default=7_776_000.0, gt=0, description="Age of a price, since somebody looked, from which it is told, monthly."
    )


class BrakeSettings(_Typed):
    """When a key spends so fast that it is paused."""

    factor: float = Field(default=10.0, ge=2, description="How many times its usual hour a key may spend in an hour.")
    floor: Dollars = Field(default=25 * USD, gt=0, description="What it may spend in an hour in any case.")
    hours: int = Field(
        default=24,
        ge=1,
        le=168,
        description="Hours of the last seven days in which it must have spent anything before an hour is usual.",
    )
    pause: Duration = Field(default=3600.0, ge=60, description="For how long it is paused.")
    off: bool = Field(default=False, description="Pause no key.")


class SentinelSettings(_Typed):
    """Pictures drawn from fixed prompts and seeds, to see whether offers have changed."""

    budget: Dollars | None = Field(
        default=None, gt=0, description="What they may cost in a day (UTC): $0.50; none are drawn when left out."
    )
    every: Duration = Field(default=86_400.0, ge=60, description="How often each offer is drawn, while money lasts.")


class JudgeSettings(_Typed):
    """A vision model of yours that is asked which picture of a pair is better."""

    url: str | None = Field(
        default=None,
        pattern=r"^https?://[^/]+(/.*[^/])?$",
        description="Where an OpenAI-style API answers, up to `/chat/completions`: https://HOST/v1. Nobody is asked "
        "when left out.",
    )
    model: str | None = Field(default=None, description="The model that is asked; one that sees pictures.")
    key_env: str | None = Field(
        default=None,
        pattern=r"^[A-Z][A-Z0-9_]*$",
        description="Variable, or file in the secrets folder, that holds its key. Without it no key is sent.",
    )
    key: SecretStr | None = Field(default=None, description="The key itself; only from the variable above.")
    price: Dollars = Field(
        default=0,
        description="What one question costs, by your reckoning; a pair takes up to two. $0 for one of your own.",
    )
    budget: Dollars = Field(default=USD, gt=0, description="Most that questions may cost in a day (UTC).")
    timeout: Duration = Field(default=60.0, gt=0, description="An answer later than this is a failure.")
    region: str | None = Field(default=None, description="Where it processes what it is shown, if the contract says.")
    retention: Duration | None = Field(
        default=None, description="How long it keeps that, if the contract says: 30d; 0s where it keeps nothing."
    )
    training: Literal["never", "allowed"] = Field(
        default="allowed", description="Whether it may train on that. Unless the contract forbids it: allowed."
    )
    prompts: bool = Field(default=True, description="Whether it is told the prompt, and not shown the pictures alone.")

    @model_validator(mode="after")
    def _is_whole(self) -> JudgeSettings:
        if self.url is not None and self.model is None:
            raise ValueError("model: name the model that is asked at `url`")
        if self.url is not None and "price" not in self.model_fields_set:
            raise ValueError("price: say what one question costs, $0 where it costs nothing, so that `budget` holds")
        if self.budget < 2 * self.price:
            raise ValueError("budget: it does not hold the two questions of one pair, so none would ever be asked")
        return self

    @property
    def data(self) -> DataTerms:
        """What it does with prompts and pictures."""
        kept = None if self.retention is None else self.retention / 86_400
        return DataTerms(region=self.region, retention_days=kept, trains=self.training == "allowed")

    @property
    def why_off(self) -> str | None:
        """Why nobody is asked, or None where somebody is."""
        if self.url is None:
            return "shadow.judge.url is not set"
        if self.key_env is not None and self.key is None:
            return f"{self.key_env} is not set"
        return None


class ShadowSettings(_Typed):
    """What pictures of experiments are measured with, beside arithmetic."""

    models: Path | None = Field(
        default=None, description="Folder of the learned measures' models; `models` in the state folder when left out."
    )
    judge: JudgeSettings = JudgeSettings()


class Limits(_Typed):
    """What a new key may do unless `keys create` says otherwise."""

    requests_per_minute: int | None = Field(default=None, ge=1, description="Unlimited when left out.")
    images_per_minute: int | None = Field(default=None, ge=1, description="Unlimited when left out.")
    budget: Dollars | None = Field(default=None, gt=0, description="Over the key's life: $25; unlimited when left out.")


class Settings(_Typed):
    """Everything that can be set. Nothing has to be: the defaults make a working gateway without providers."""

    accounts: Mapping[AccountName, Account] = Field(default_factory=dict, description="Provider accounts by name.")
    database: DatabaseSettings = DatabaseSettings()
    assets: AssetSettings = AssetSettings()
    c2pa: C2paSettings = C2paSettings()
    content_hook: ContentHookSettings = ContentHookSettings()
    limits: Limits = Limits()
    brake: BrakeSettings = BrakeSettings()
    sentinel: SentinelSettings = SentinelSettings()
    shadow: ShadowSettings = ShadowSettings()
    alerts: AlertSettings = AlertSettings()
    inputs: Inputs = Inputs()
    orders: Orders = Orders()
    recovery: Recovery = Recovery()
    policy: str = Field(default="default", pattern=NAME, description="Which file of config/policies is in force.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    public_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^/]+(/.*[^/])?$",
        description="How callers and providers reach us, without a slash at the end; http://host:port when left out.",
    )
    callbacks: bool = Field(default=False, description="Let providers report by webhook to `public_url`.")
    state: Path = Field(
        default_factory=default_state,
        description="Folder for database, pictures and pepper; .pixelgate in a checkout when left out.",
    )
    secrets: Path = Field(
        default=Path("/run/secrets"), description="Folder with one file per secret, named as its variable."
    )
    pepper: SecretStr | None = Field(
        default=None,
        description="Secret mixed into the hashes of API keys; made and kept in the state folder when left out.",
    )
    master_key: SecretStr | None = Field(
        default=None,
        description="Opens sealed provider keys: from PIXELGATE_MASTER_KEY, or that file in the secrets folder.",
    )
    config: Path = Field(
        default_factory=default_config, description="Folder that was read; set by --config or PIXELGATE_CONFIG."
    )

    @model_validator(mode="after")
    def _callbacks_need_a_door(self) -> Settings:
        if self.callbacks and self.public_url is None:
            raise ValueError("`callbacks` needs `public_url`: providers must know where to call")
        return self

    @model_validator(mode="after")
    def _silenced_accounts_exist(self) -> Settings:
        for each in self.alerts.silenced:
            if each.account is not None and each.account not in self.accounts:
                hint = nearest(each.account, list(self.accounts)) or f"known here: {', '.join(self.accounts)}"
                raise ValueError(f"`alerts.silenced`: there is no account {each.account!r}; {hint}")
        return self

    @property
    def database_url(self) -> str:
        """Where the database is."""
        return self.database.url or f"sqlite:///{self.state / 'pixelgate.db'}"

    @property
    def assets_folder(self) -> Path:
        """Where pictures are."""
        return self.assets.folder or self.state / "assets"

    @property
    def models_folder(self) -> Path:
        """Where the models of learned measures are."""
        return self.shadow.models or self.state / "models"

    @property
    def public_base(self) -> str:
        """How callers reach us, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.public_url or f"http://{'127.0.0.1' if host in ('0.0.0.0', '[::]') else host}:{self.port}"  # noqa: S104 - compared, not bound

    def accounts_on(self) -> Mapping[str, Account]:
        """The accounts we can sell through."""
        return {name: account for name, account in self.accounts.items() if account.why_off is None}

    def accounts_off(self) -> Mapping[str, str]:
        """The others, and why not."""
        return {name: account.why_off for name, account in self.accounts.items() if account.why_off is not None}


def load_settings(
    config: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Settings:
    """The settings in force; raises `BadFile` with every fault of file, environment and flags.

    `config` is the folder that holds gateway.yaml; `flags` are settings from the command line, None for not given.
    """
    environ = os.environ if environ is None else environ
    folder = config or Path(environ.get("PIXELGATE_CONFIG") or default_config())
    try:
        return _loaded(folder, environ, flags or {})
    except BadFile as error:
        raise BadFile([_without_keys(fault) for fault in error.faults]) from None


def _loaded(folder: Path, environ: Mapping[str, str], flags: Mapping[str, object]) -> Settings:
    document = _file_of(folder)
    named = _named_by_environment(environ)
    own = _account_files(folder, document)
    if faults := list(_unknown_variables(named, document, own)):
        raise BadFile(faults)
    merged: Values = dict(document.data) if isinstance(document.data, dict) else {}
    if own:
        merged = _merge(merged, {"accounts": own})
    for path, value in named.items():
        merged = _merge(merged, _nested(path, value))
    given = {name: value for name, value in flags.items() if value is not None}
    merged |= given | {"config": folder}
    causes = {path: variable_of(path) for path in named} | {(name,): f"--{name}" for name in given}
    settings = _validated(document, merged, causes)
    return _with_keys(settings, environ)


def read_pepper(settings: Settings) -> bytes:
    """The pepper: the one set, else the one in the state folder, made on first use and readable by us alone."""
    if settings.pepper is not None:
        return settings.pepper.get_secret_value().encode()
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = settings.state / "pepper"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes().strip()
    with os.fdopen(descriptor, "wb") as file:
        pepper = secrets.token_urlsafe(32).encode()
        file.write(pepper)
    return pepper


def setting_paths() -> Mapping[str, str]:
    """Every setting as people write it (`accounts.<name>.rate`), and what it is for."""
    return dict(_paths(Settings, ""))


def _paths(model: type[BaseModel], before: str) -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        path = before + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _paths(field.annotation, f"{path}.")
        else:
            yield path, field.description or ""
            if name == "accounts":
                yield from _paths(Account, f"{path}.<name>.")


def _file_of(folder: Path) -> Document:
    path = folder / "gateway.yaml"
    if not folder.is_dir():
        raise BadFile(
            [Fault(path=str(folder), message="there is no such folder", hint="give the folder, not the file")]
        )
    document = read(path) if path.exists() else read_bytes(b"", str(path))
    if not isinstance(document.data, dict | None):
        raise BadFile([document.fault((), "must be a mapping of settings, such as `port: 8080`")])
    return document


def account_path(folder: Path, name: str) -> Path:
    """The file of an account that has one of its own."""
    return folder / ACCOUNTS / f"{name}.yaml"


def _account_files(folder: Path, document: Document) -> Values:
    """Accounts that have a file each, by name; raises `BadFile`."""
    found: Values = {}
    faults: list[Fault] = []
    for path in sorted((folder / ACCOUNTS).glob("*.yaml")):
        try:
            own = read(path)
            faults += _faults_of_account(path.stem, own, document)
            own.parse(Account)
            found[path.stem] = own.data
        except BadFile as error:
            faults += error.faults
    if faults:
        raise BadFile(faults)
    return found


def _faults_of_account(name: str, own: Document, document: Document) -> Iterator[Fault]:
    if re.fullmatch(NAME, name) is None:
        hint = "begin with a letter; lower case, digits, - and _, at most 32 characters"
        yield own.fault((), f"{name!r} is no name of an account, and the file is named by it", hint=hint)
    if isinstance(own.data, dict) and "key" in own.data:
        yield _key_in(own, ("key",), name)
    if document.has(("accounts", name)):
        yield own.fault((), f"gateway.yaml has an account {name}, too", hint="keep one of them")


def _named_by_environment(environ: Mapping[str, str]) -> dict[tuple[str, ...], object]:
    """Path of each setting that a variable names, with its value; JSON where the value is a list or mapping."""
    return {
        tuple(name[len(PREFIX) :].lower().split(LEVEL)): _value_of(text)
        for name, text in environ.items()
        if name.startswith(PREFIX)
    }


def _value_of(text: str) -> object:
    if not text.startswith(("[", "{")):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _unknown_variables(
    named: Mapping[tuple[str, ...], object], document: Document, own: Mapping[str, object]
) -> Iterator[Fault]:
    accounts = document.data.get("accounts") if isinstance(document.data, dict) else None
    known = sorted(_known_variables((*(accounts if isinstance(accounts, dict) else ()), *own)))
    for path in named:
        if path[-1] not in fields_at(Settings, path[:-1]) and not _is_free(path):
            name = variable_of(path)
            yield Fault(path=name, message="no setting has this name", hint=nearest(name, known))


def _is_free(path: tuple[str, ...]) -> bool:
    """Whether `path` leads into a mapping whose keys are the user's own: an account, its options, its prices."""
    return path[0] == "accounts" and (len(path) == 2 or (len(path) > 3 and path[2] in ("options", "prices", "billing")))


def _known_variables(accounts: tuple[object, ...]) -> Iterator[str]:
    for path in setting_paths():
        for account in accounts or ("name",):
            yield variable_of(tuple(path.replace("<name>", str(account)).split(".")))


def variable_of(path: tuple[str, ...]) -> str:
    """The variable that sets `path`."""
    return PREFIX + LEVEL.join(path).upper()


def _nested(path: tuple[str, ...], value: object) -> Values:
    nested = value
    for part in reversed(path):
        nested = {part: nested}
    return cast("Values", nested)


def _merge(below: Values, above: Values) -> Values:
    """`above` laid over `below`, level by level."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _validated(document: Document, merged: Values, causes: Mapping[tuple[str, ...], str]) -> Settings:
    faults = list(_keys_in(document))
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        in_file = document.faults(error, Settings)
        faults += [
            _moved_to_cause(fault, detail, causes, document)
            for fault, detail in zip(in_file, error.errors(include_url=False), strict=True)
        ]
    if faults:
        raise BadFile(faults)
    return settings


def _moved_to_cause(
    fault: Fault, detail: ErrorDetails, causes: Mapping[tuple[str, ...], str], document: Document
) -> Fault:
    """The fault at the option or variable that caused it, where the file did not."""
    loc = tuple(map(str, detail["loc"]))
    asked = loc[:-1] if detail["type"] == "missing" and not document.has(loc[:-1]) else loc
    cause = next((path for path in causes if path == loc[: len(path)] or (asked and path[: len(asked)] == asked)), None)
    if cause is None:
        return fault
    message = fault.message if detail["type"] == "missing" else f"{dotted(loc)}: {sentence(detail)}"
    return Fault(path=causes[cause], message=message, hint=fault.hint)


def _keys_in(document: Document) -> Iterator[Fault]:
    """A fault for each provider key that stands in the file."""
    accounts = document.data.get("accounts") if isinstance(document.data, dict) else None
    for name, account in accounts.items() if isinstance(accounts, dict) else ():
        if isinstance(account, dict) and "key" in account:
            yield _key_in(document, ("accounts", name, "key"), name)
    if document.has(("shadow", "judge", "key")):
        hint = "put it into the variable JUDGE_KEY and write `key_env: JUDGE_KEY` here"
        yield document.fault(("shadow", "judge", "key"), "a key may not stand in a file", hint=hint, at_key=True)
    if document.has(("master_key",)):
        hint = f"put it into the variable {MASTER}, or a file of that name in the secrets folder"
        yield document.fault(("master_key",), "a key may not stand in a file", hint=hint, at_key=True)


def _without_keys(fault: Fault) -> Fault:
    """The fault without the line it is in, where that may hold a key."""
    return replace(fault, text="") if _LINE_OF_KEY.search(fault.text) else fault


def _key_in(document: Document, loc: tuple[str, ...], account: str) -> Fault:
    """That a provider's key stands in a file, and where it should be."""
    variable = f"{account}_KEY".upper().replace("-", "_")
    hint = f"put it into the variable {variable} and write `key_env: {variable}` here"
    return document.fault(loc, "a key may not stand in a file", hint=hint, at_key=True)


def _with_keys(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """The settings with each account's key in place, where there is one."""
    master = _master(settings)
    accounts = {
        name: account if account.key is not None else account.model_copy(update={"key": key})
        for name, account in settings.accounts.items()
        for key in (_key_of(name, account, environ, settings.secrets, master),)
    }
    hooks = tuple(
        hook.model_copy(
            update={
                "url": _secret(hook.url_env, environ, settings.secrets),
                "secret": hook.secret_env and _secret(hook.secret_env, environ, settings.secrets),
            }
        )
        for hook in settings.alerts.hooks
    )
    alerts = settings.alerts.model_copy(update={"hooks": hooks})
    judge = settings.shadow.judge
    if judge.key_env is not None:
        judge = judge.model_copy(update={"key": _secret(judge.key_env, environ, settings.secrets)})
    shadow = settings.shadow.model_copy(update={"judge": judge})
    pepper = settings.pepper or _secret("PIXELGATE_PEPPER", {}, settings.secrets)
    changed = {"accounts": accounts, "alerts": alerts, "shadow": shadow, "pepper": pepper, "master_key": master}
    return settings.model_copy(update=changed)


def _master(settings: Settings) -> SecretStr | None:
    """The master key, where there is one; raises `BadFile` for one that is none."""
    master = settings.master_key or _secret(MASTER, {}, settings.secrets)
    if master is not None:
        try:
            sealing.check_master(master.get_secret_value())
        except sealing.BadMaster as error:
            hint = "`pixelgate accounts master-key` makes one"
            raise BadFile([Fault(path=MASTER, message=str(error), hint=hint)]) from None
    return master


def _key_of(
    name: str, account: Account, environ: Mapping[str, str], folder: Path, master: SecretStr | None
) -> SecretStr | None:
    """The key that an account says where to find, if it is there."""
    if account.key_env:
        return _secret(account.key_env, environ, folder)
    if account.key_sealed is None or master is None:
        return None
    key = sealing.unseal(master.get_secret_value(), name, account.key_sealed)
    return None if key is None else SecretStr(key)


def _secret(name: str, environ: Mapping[str, str], folder: Path) -> SecretStr | None:
    value = environ.get(name, "").strip()
    if not value:
        try:
            value = (folder / name).read_text(encoding="utf-8").strip()
        except OSError:
            return None
    return SecretStr(value) if value else None
