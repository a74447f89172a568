"""Between the records of `rows.py` and SQLite's columns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import msgspec

from gateway.ids import sibling
from gateway.storage.changes import ChangeRow
from gateway.storage.database import Correction, Heartbeat, Spending
from gateway.storage.rows import (
    AlertRow,
    AssetRow,
    AttemptRow,
    BalanceRow,
    BudgetRow,
    DecisionRow,
    EntryRow,
    ErasureRow,
    IdempotencyRow,
    KeyHour,
    KeyRow,
    Outcome,
    RecipeRow,
)
from providers.contract import ListedPrice, Ticket

Columns: TypeAlias = Sequence[Any]
"""One row as sqlite3 gives it."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def first_id(prefix: str, since: datetime) -> str:
    """The least id that `gateway.ids.new_id` can have made since a moment."""
    return f"{prefix}_{int(since.timestamp() * 1000):012x}"


def ids_of(call_id: str, prefix: str) -> tuple[str, str]:
    """Where the ids of what belongs to a call begin and end: they share its digits (`gateway.ids.sibling`)."""
    first = sibling(call_id, prefix)
    return first, first + "~"


ATTEMPT = ", ".join(AttemptRow.__struct_fields__)
ASSET = ", ".join("position" if name == "index" else name for name in AssetRow.__struct_fields__)
KEY = ", ".join(KeyRow.__struct_fields__)
_WORDS_OF_SQL = {"limit": "amount", "then": "soft_then"}
BUDGET = ", ".join(_WORDS_OF_SQL.get(name, name) for name in BudgetRow.__struct_fields__)
IDEMPOTENCY = ", ".join(IdempotencyRow.__struct_fields__)

encode = msgspec.json.Encoder().encode
_decode_ticket = msgspec.json.Decoder(Ticket).decode
_decode_outcome = msgspec.json.Decoder(Outcome).decode
_decode_sizes = msgspec.json.Decoder(tuple[tuple[int, int], ...]).decode
_decode_words = msgspec.json.Decoder(tuple[str, ...]).decode
_decode_request = msgspec.json.Decoder(dict[str, object]).decode


def micros(at: datetime) -> int:
    """Microseconds since 1970, exactly; refuses a time without a zone."""
    return (at - EPOCH) // MICROSECOND


def moment(stamp: int) -> datetime:
    """The time of a stamp, in UTC."""
    return EPOCH + stamp * MICROSECOND


def _maybe(stamp: int | None) -> datetime | None:
    return None if stamp is None else moment(stamp)


def _stamp(at: datetime | None) -> int | None:
    return None if at is None else micros(at)


def _words(words: Sequence[str] | None) -> str | None:
    return None if words is None else encode(words).decode()


def attempt(row: Columns) -> AttemptRow:
    """From the columns of `ATTEMPT`."""
    fields = dict(zip(AttemptRow.__struct_fields__, row, strict=True))
    fields["started"] = moment(fields["started"])
    fields["ended"] = _maybe(fields["ended"])
    fields["ticket"] = fields["ticket"] and _decode_ticket(fields["ticket"])
    fields["outcome"] = fields["outcome"] and _decode_outcome(fields["outcome"])
    fields["inputs"] = _decode_sizes(fields["inputs"]) if fields["inputs"] else ()
    return AttemptRow(**fields)


def owned_attempt(row: Columns) -> tuple[AttemptRow, Heartbeat | None]:
    """From the columns of `ATTEMPT`, then the pid, host and time of its owner's heartbeat, if it ever beat."""
    *columns, pid, host, at = row
    owned = attempt(columns)
    return owned, None if at is None else Heartbeat(owner=owned.owner, pid=pid, host=host, at=moment(at))


def asset(row: Columns) -> AssetRow:
    """From the columns of `ASSET`."""
    fields = dict(zip(AssetRow.__struct_fields__, row, strict=True))
    fields["seed"] = None if fields["seed"] is None else int(fields["seed"])
    fields["created"] = moment(fields["created"])
    fields["expires"] = _maybe(fields["expires"])
    return AssetRow(**fields)


def asset_columns(asset: AssetRow) -> tuple[object, ...]:
    """In the order of `ASSET`."""
    return (
        asset.id,
        asset.call_id,
        asset.attempt_id,
        asset.team,
        asset.index,
        asset.path,
        asset.media_type,
        asset.width,
        asset.height,
        asset.bytes,
        asset.sha256,
        None if asset.seed is None else str(asset.seed),
        asset.model,
        asset.offer_id,
        asset.tier,
        asset.intent,
        asset.cost,
        asset.parent_id,
        micros(asset.created),
        _stamp(asset.expires),
    )


def idempotency(row: Columns) -> IdempotencyRow:
    """From the columns of `IDEMPOTENCY`."""
    fields = dict(zip(IdempotencyRow.__struct_fields__, row, strict=True))
    fields["created"], fields["answered"] = moment(fields["created"]), bool(fields["answered"])
    return IdempotencyRow(**fields)


def idempotency_columns(row: IdempotencyRow) -> tuple[object, ...]:
    """In the order of `IDEMPOTENCY`."""
    return row.team, row.key, row.fingerprint, row.call_id, row.user, micros(row.created), row.answered


def erasure(row: Columns) -> ErasureRow:
    """From at, actor, subject, images, recipes, keys, payloads."""
    at, *rest = row
    return ErasureRow(**dict(zip(ErasureRow.__struct_fields__, (moment(at), *rest), strict=True)))


def key(row: Columns) -> KeyRow:
    """From the columns of `KEY`."""
    fields = dict(zip(KeyRow.__struct_fields__, row, strict=True))
    fields["scopes"] = _decode_words(fields["scopes"])
    fields["models"] = None if fields["models"] is None else _decode_words(fields["models"])
    fields["tiers"] = None if fields["tiers"] is None else _decode_words(fields["tiers"])
    fields["created"] = moment(fields["created"])
    fields["expires"] = _maybe(fields["expires"])
    fields["revoked"] = _maybe(fields["revoked"])
    for until in ("former_until", "paused_until", "unbraked_until"):
        fields[until] = _maybe(fields[until])
    return KeyRow(**fields)


def key_columns(key: KeyRow) -> tuple[object, ...]:
    """In the order of `KEY`."""
    return (
        key.id,
        key.hash,
        key.team,
        key.name,
        encode(key.scopes).decode(),
        _words(key.models),
        key.budget,
        key.rpm,
        micros(key.created),
        _stamp(key.expires),
        _stamp(key.revoked),
        key.ipm,
        _words(key.tiers),
        key.max_price,
        key.max_call_price,
        key.max_pixels,
        key.concurrency,
        key.former,
        _stamp(key.former_until),
        _stamp(key.paused_until),
        _stamp(key.unbraked_until),
    )


def key_hour(row: Columns) -> KeyHour:
    """From key_id, hour, opened."""
    return KeyHour(**dict(zip(KeyHour.__struct_fields__, row, strict=True)))


def change(row: Columns) -> ChangeRow:
    """From seq, at, actor, of, name, action, detail."""
    fields = dict(zip(ChangeRow.__struct_fields__, row, strict=True))
    fields["at"], fields["detail"] = moment(fields["at"]), _decode_request(fields["detail"])
    return ChangeRow(**fields)


def change_columns(row: ChangeRow) -> tuple[object, ...]:
    """In the order `change` reads, but for the number."""
    return micros(row.at), row.actor, row.of, row.name, row.action, encode(row.detail)


def budget(row: Columns) -> BudgetRow:
    """From the columns of `BUDGET`."""
    fields = dict(zip(BudgetRow.__struct_fields__, row, strict=True))
    fields["created"] = moment(fields["created"])
    fields["extra_until"], fields["removed"] = _maybe(fields["extra_until"]), _maybe(fields["removed"])
    return BudgetRow(**fields)


def budget_columns(row: BudgetRow) -> tuple[object, ...]:
    """In the order of `BUDGET`."""
    return (
        row.id,
        row.of,
        row.name,
        row.limit,
        row.window,
        row.zone,
        micros(row.created),
        row.extra,
        _stamp(row.extra_until),
        _stamp(row.removed),
        row.soft,
        row.then,
    )


def alert(row: Columns) -> AlertRow:
    """From id, at, kind, text, facts."""
    name, at, kind, text, facts = row
    return AlertRow(id=name, at=moment(at), kind=kind, text=text, facts=_decode_request(facts))


def alert_columns(row: AlertRow) -> tuple[object, ...]:
    """In the order `alert` reads."""
    return row.id, micros(row.at), row.kind, row.text, encode(row.facts)


def listed_price(row: Columns) -> ListedPrice:
    """From endpoint, unit, nano_usd."""
    endpoint, unit, nano_usd = row
    return ListedPrice(endpoint=endpoint, unit=unit, nano_usd=nano_usd)


def entry(row: Columns) -> EntryRow:
    """From seq, at, book, party, kind, amount, attempt_id, call_id, offer_id, note."""
    seq, at, *rest = row
    return EntryRow(**dict(zip(EntryRow.__struct_fields__, (seq, moment(at), *rest), strict=True)))


def correction(row: Columns) -> Correction:
    """From book, party, amount, note, at, attempt_id, endpoint."""
    fields = dict(zip(Correction.__struct_fields__, row, strict=False))  # its pictures were counted, and are not kept
    fields["at"] = moment(fields["at"])
    return Correction(**fields)


def balance(row: Columns) -> BalanceRow:
    """From book, party, held, posted."""
    return BalanceRow(**dict(zip(BalanceRow.__struct_fields__, row, strict=True)))


def spending(row: Columns) -> tuple[str, Spending]:
    """From the name of a key or team, held, posted, budget."""
    name, held, posted, budget = row
    return name, Spending(held=held, posted=posted, budget=budget)


def decision(row: Columns) -> DecisionRow:
    """From call_id, part, number, at, team, body."""
    call_id, part, number, at, team, body = row
    return DecisionRow(call_id=call_id, part=part, number=number, at=moment(at), team=team, body=body)


def decision_columns(decision: DecisionRow) -> tuple[object, ...]:
    """In the order `decision` reads."""
    return (
        decision.call_id,
        decision.part,
        decision.number,
        micros(decision.at),
        decision.team,
        decision.body,
    )


def recipe(row: Columns) -> RecipeRow:
    """From call_id, team, user, request, created."""
    call_id, team, user, request, created = row
    return RecipeRow(call_id=call_id, team=team, user=user, request=_decode_request(request), created=moment(created))


def recipe_columns(recipe: RecipeRow) -> tuple[object, ...]:
    """In the order `recipe` reads."""
    return (recipe.call_id, recipe.team, recipe.user, encode(recipe.request), micros(recipe.created))
