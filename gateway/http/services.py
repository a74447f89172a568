"""What the HTTP door needs from the rest of the house, handed in once when the application is built.

A handler takes `names` once, and works with those until it answers: they may be others a moment later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.clock import Clock
from gateway.features.fetches import Fetches
from gateway.features.privacy import Eraser
from gateway.features.reloading import Condition
from gateway.features.soft_limits import SoftLimits
from gateway.http.arms import Arms, Split
from gateway.http.auth import KeyRing
from gateway.http.model_names import Names, names_of
from gateway.http.repeated_terms import RepeatedTerms
from gateway.requests.call import Call, Caller, Delivery
from gateway.requests.coalescing import Coalescing
from gateway.requests.quoting import QuotedOffer
from gateway.requests.regime import Regime
from gateway.storage.database import Database
from policies.catalog import Catalog
from policies.policy import Policy
from providers.contract import Provider


class Blobs(Protocol):
    """Where the bytes of pictures lie; `gateway.assets.Assets` is one."""

    async def read(self, path: str) -> bytes | None:
        """The bytes at `path` (`AssetRow.path`), or None when they are gone."""


@dataclass(kw_only=True, slots=True)
class Services:
    """One per application; `adopt` swaps catalogue and policy when a new revision comes into force."""

    serve: Callable[[Call], Awaitable[Delivery]]
    """`Pipeline.serve`."""
    coalescing: Coalescing
    """Serves calls that may be asked for again."""
    quote: Callable[[Call], Awaitable[Sequence[QuotedOffer]]]
    """`Pipeline.quote`."""
    db: Database
    catalog: Catalog
    policy: Policy
    keys: KeyRing
    clock: Clock
    public_base: str
    """Where clients reach us, without a trailing slash: "http://127.0.0.1:8080"; asset URLs start with it."""
    blobs: Blobs
    fetch: Callable[[str], Awaitable[bytes]]
    """The picture behind a URL that a caller names; raises a `providers.transport.WireError` or `TimeoutError`."""
    eraser: Eraser
    """Deletes pictures."""
    providers: Mapping[str, Provider]
    """Provider account -> its connection, for sellers that call back."""
    ready: Callable[[], Mapping[str, str]]
    """Part -> "ok", or why it is not."""
    configuration: Callable[[], Condition] = Condition
    """What is in force, and what is wrong with the files on disk."""
    soft_limits: SoftLimits = field(default_factory=SoftLimits)
    """The budgets that act on calls now."""
    fetches: Fetches = field(default_factory=Fetches)
    """Counts the pictures that are fetched."""
    names: Names = field(init=False)
    terms: RepeatedTerms = field(init=False)
    """Reads generation bodies under these names."""
    arms: Arms | None = None
    """Both sides of a canary, while one runs."""

    def __post_init__(self) -> None:
        self.adopt(self.catalog, self.policy)

    def adopt(self, catalog: Catalog, policy: Policy, regime: Regime | None = None) -> None:
        """Read requests by these from now on, and have them served under that regime."""
        self.catalog, self.policy = catalog, policy
        self.names = names_of(policy, catalog, regime)
        self.terms = RepeatedTerms(self.names)

    def terms_for(self, caller: Caller, fields: Mapping[str, object]) -> RepeatedTerms:
        """What reads this request."""
        return self.terms if self.arms is None else self.arms.terms(caller, fields)

    def try_beside(self, split: Split, control: Regime, canary: Regime) -> None:
        """Read requests by two policies from now on, each caller's by one of them."""
        read = [RepeatedTerms(names_of(side.policy, side.catalog, side)) for side in (control, canary)]
        self.arms = Arms(split, *read)

    def asset_url(self, path: str) -> str:
        """Where a picture can be fetched, from its `AssetRow.path`."""
        return f"{self.public_base}/assets/{path}"
