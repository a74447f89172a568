"""Which kinds of seller there are, and how to speak to one: `fal`, `selfhosted`, and so on, or a dotted path.

A seller's module holds `Settings` (pydantic: what people type), `connect(name, settings, http)` and a class.
It is imported on first use, so that an SDK nobody uses costs nothing. A module put beside this one is found by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Final, Protocol, cast

from pydantic import BaseModel

import providers
from providers.contract import Provider
from providers.transport import Http

_NOT_SELLERS: Final = frozenset(
    {
        "callbacks",
        "conformance",
        "contract",
        "errors",
        "masks",
        "picture",
        "plain_http",
        "registry",
        "sandbox",
        "transport",
    },
)


class UnknownKind(LookupError):
    """No seller of this kind is known."""


class _Seller(Protocol):
    """A seller's module."""

    Settings: type[BaseModel]

    def connect(self, name: str, settings: BaseModel, http: Http) -> Provider:
        """Speak to the seller for one provider account."""


@lru_cache
def kinds() -> tuple[str, ...]:
    """List the kinds that are shipped, by name, without importing any."""
    return tuple(sorted(found.name for found in iter_modules(providers.__path__) if found.name not in _NOT_SELLERS))


def settings_of(kind: str) -> type[BaseModel]:
    """Tell what an account of this kind is configured with; raises `UnknownKind`."""
    return _seller(kind).Settings


def connect(kind: str, name: str, settings: Mapping[str, object], http: Http) -> Provider:
    """Speak to a seller of `kind` for the provider account `name`. Needs a running loop.

    Raises `UnknownKind`, or pydantic's `ValidationError` with every fault of `settings` at once.
    """
    seller = _seller(kind)
    return seller.connect(name, seller.Settings.model_validate(settings), http)


def _seller(kind: str) -> _Seller:
    if "." not in kind and kind not in kinds():
        near = get_close_matches(kind, kinds(), n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(kinds())}, or a module's dotted path."
        raise UnknownKind(f"There is no provider kind `{kind}`: {hint}")
    path = kind if "." in kind else f"providers.{kind}"
    try:
        module = import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise
        raise UnknownKind(f"Provider kind `{kind}` names a module that is not installed.") from error
    if not (hasattr(module, "Settings") and hasattr(module, "connect")):
        raise UnknownKind(f"Module `{path}` is no provider: it needs `Settings` and `connect`.")
    return cast("_Seller", module)
