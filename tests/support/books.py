"""Orders, pictures and clocks for tests of the ledger."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

from gateway.ids import sibling
from gateway.storage.rows import AssetRow, AttemptRow, AttemptState, NewHold, Outcome
from providers.contract import Ticket

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
_numbers = itertools.count(1)


class HandClock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.at = NOON

    def now(self) -> float:
        return (self.at - NOON).total_seconds()

    def utc(self) -> datetime:
        return self.at

    def forward(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def new_hold(
    charge: int = 1000,
    *,
    cost: int | None = None,
    attempt_id: str = "",
    key_id: str = "key_1",
    team: str = "acme",
    account: str = "fal",
    reserve: bool = False,
    replaces: str | None = None,
) -> NewHold:
    number = next(_numbers)
    return NewHold(
        attempt_id=attempt_id or f"att_{number}",
        call_id=f"call_{number}",
        part=0,
        team=team,
        key_id=key_id,
        account=account,
        offer_id=f"{account}:flux-schnell",
        endpoint="flux/schnell",
        cost=charge if cost is None else cost,
        charge=charge,
        width=1024,
        height=1024,
        count=1,
        reserve=reserve,
        replaces=replaces,
    )


def attempt(
    state: AttemptState = "suspended",
    *,
    hold: int = 1000,
    cost: int = 0,
    ticket: str | None = None,
    started: float = 0.0,
    ended: float | None = 5.0,
    endpoint: str = "flux/schnell",
) -> AttemptRow:
    """An order as the database gives it back; times are seconds from noon."""
    number = next(_numbers)
    return AttemptRow(
        id=f"att_{number}",
        call_id=f"call_{number}",
        part=0,
        team="acme",
        key_id="key_1",
        account="fal",
        offer_id="fal:flux-schnell",
        endpoint=endpoint,
        state=state,
        hold_cost=hold,
        hold_charge=hold,
        cost=cost,
        charge=cost,
        width=1024,
        height=1024,
        count=1,
        steps=None,
        owner="own_1",
        started=NOON + timedelta(seconds=started),
        ended=None if ended is None else NOON + timedelta(seconds=ended),
        ticket=None if ticket is None else Ticket(ticket),
        outcome=Outcome(),
        prices=1,
        policy="default@1",
    )


def asset(attempt_id: str, *, team: str = "acme", index: int = 0, parent: str | None = None) -> AssetRow:
    number = next(_numbers)
    return AssetRow(
        id=f"{sibling(attempt_id, 'img')}_{number}",
        call_id=sibling(attempt_id, "call"),
        attempt_id=attempt_id,
        team=team,
        index=index,
        path=f"{number}/{sibling(attempt_id, 'img')}_{number}.png",
        media_type="image/png",
        width=64,
        height=64,
        bytes=10,
        sha256="0" * 64,
        seed=2**64 - 1,
        model="flux-schnell",
        offer_id="fal:flux-schnell",
        tier="preview",
        intent="preview",
        cost=1000,
        parent_id=parent,
        created=NOON,
        expires=None,
    )
