"""Orders whose receipt or end was lost at a seller that lists orders but no money."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.money.matching import claims
from providers.contract import ListedOrder, Ticket
from tests.support.books import NOON, attempt
from tests.support.town import Town, town

ONLY = frozenset({"replicate"})
NEAR = timedelta(seconds=1)


async def undelivered(t: Town, rules: Sequence[Mapping[str, object]]) -> None:
    """Ask for a picture that Replicate does not deliver, and let the time pass in which its list may be late."""
    t.sandbox.script(rules)
    with pytest.raises(GatewayError):
        await t.app.pipeline.serve(t.call(only=ONLY, models=frozenset({"flux-schnell"})))
    await t.settled()
    assert await t.held() > 0
    t.sandbox.script([])
    await asyncio.sleep(0.6)


async def test_an_order_whose_receipt_was_lost_is_found_and_paid(tmp_path: Path) -> None:
    async with town(tmp_path, sellers=["replicate"]) as t:
        await undelivered(t, [{"do": "late_accept"}])
        await t.app.recovery.sweep()  # finds it
        await t.app.recovery.sweep()  # follows it
        await t.assert_books_agree()
        costs = t.invoiced()
        assert set(costs) == {"replicate"}
        assert costs["replicate"] % 3_000_000 == 0
        assert await t.charged() == 0


async def test_an_order_that_never_arrived_is_given_back(tmp_path: Path) -> None:
    async with town(tmp_path, sellers=["replicate"]) as t:
        await undelivered(t, [{"do": "reset", "args": {"at": "submit"}}])
        await t.app.recovery.sweep()
        await t.assert_books_agree()
        assert t.invoiced() == {}


async def test_an_order_whose_end_was_hidden_is_followed_by_its_receipt(tmp_path: Path) -> None:
    async with town(tmp_path, sellers=["replicate"]) as t:
        await undelivered(t, [{"do": "reset", "args": {"times": 12}}])
        await t.app.recovery.sweep()
        await t.assert_books_agree()
        assert t.invoiced()["replicate"] >= 3_000_000


def listed(at: float, name: str) -> ListedOrder:
    return ListedOrder(ticket=Ticket(name), at=NOON + timedelta(seconds=at))


def test_an_order_is_claimed_by_an_attempt_that_was_under_way_when_it_was_taken() -> None:
    early, late = attempt(started=0, ended=5), attempt(started=100, ended=105)
    found = claims([listed(103, "b"), listed(2, "a"), listed(50, "stranger")], [late, early], NEAR)
    assert found == {early.id: Ticket("a"), late.id: Ticket("b")}


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=8))
def test_every_attempt_finds_its_order_however_they_overlap(spans: list[tuple[int, int]]) -> None:
    rows = [attempt(started=start_, ended=start_ + length) for start_, length in spans]
    found = claims([listed(start_, f"o{n}") for n, (start_, _) in enumerate(spans)], rows, NEAR)
    assert len(found) == len({ticket.id for ticket in found.values()}) == len(rows)
