"""Prices as a gateway was last served with them, so that a slip of the pen is noticed at the next start as well."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
import structlog

from gateway.features.files import exchange
from gateway.settings import Settings
from gateway.yaml_files import BadFile, Fault, bytes_of
from policies.catalog import Catalog, KnownPrices, known_prices
from policies.tariffs import Tariff

log = structlog.get_logger("gateway.prices")

FILE: Final = "known-prices.json"
_decode = msgspec.json.Decoder(dict[str, tuple[Tariff, ...]]).decode


def remember(settings: Settings, catalog: Catalog) -> None:
    """Keep what offers cost in the state folder; those of accounts that are off stay as they were."""
    path = settings.state / FILE
    try:
        before = _read(path)
        known = {**before, **{name: tuple(tariffs) for name, tariffs in known_prices(catalog).items()}}
        if known != before:
            exchange(path, msgspec.json.format(msgspec.json.encode(known), indent=1))
    except (OSError, BadFile) as error:
        log.warning("prices_not_remembered", detail=str(error))


def remembered(settings: Settings) -> KnownPrices:
    """What offers cost when a gateway last served here; raises `BadFile` for a file that cannot be read."""
    return _read(settings.state / FILE)


def _read(path: Path) -> KnownPrices:
    if not path.is_file():
        return {}
    try:
        return _decode(bytes_of(path))
    except msgspec.MsgspecError as error:
        hint = "remove it: prices are then taken as they stand in the catalogue"
        raise BadFile([Fault(path=str(path), message=f"cannot be read: {error}", hint=hint)]) from None
