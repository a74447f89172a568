"""Budgets past their soft limit: what they do to calls, and to which."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from gateway.storage.rows import BudgetRow
from policies.types import Tier

if TYPE_CHECKING:
    from tests.gateway.http.conftest import Door

PICTURE = 2_700_000
"""What the painter charges, in nano-dollars."""


@pytest.fixture
async def standard(door: Door) -> Door:
    """A door whose policy draws at standard what says nothing of its tier."""
    door.services.adopt(door.services.catalog, replace(door.services.policy, default_intent="standard"))
    return door


async def spend(door: Door, **terms: Any) -> BudgetRow:
    """A budget of ten pictures that acts from the first on, with one drawn; and the gateway has looked."""
    fields: dict[str, Any] = {"id": "bud_1", "of": "team", "name": "acme", "window": "total", "zone": "UTC"}
    row = BudgetRow(created=datetime.now(UTC), limit=10 * PICTURE, soft=10, **fields | terms)
    await door.services.db.set_budget(row)
    await look(door)
    assert not door.services.soft_limits.past
    await door.generate(user="ann")
    await look(door)
    return row


async def look(door: Door) -> None:
    await door.services.soft_limits.look(door.services.db, door.painter.clock.utc())


async def test_past_a_soft_limit_what_says_no_tier_goes_down_to_the_lowest_and_is_told_so(standard: Door) -> None:
    await spend(standard, then="preview")
    answer = await standard.generate()
    assert standard.painter.calls[-1].intent == "preview"
    assert standard.painter.calls[-1].constraints.tier == Tier.PREVIEW
    said = "the budget of team acme in all is past its soft limit of 10 %"
    said += ", so this is drawn as preview instead of standard"
    assert answer.headers["x-pixelgate-warning"] == f"budget: {said}"
    assert standard.painter.calls[-1].soft_limit == f"budget: {said}"
    assert (await standard.generate(quality="auto", model="gpt-image-1")).json()["pixelgate"]["intent"] == "preview"


@pytest.mark.parametrize("own", [{"intent": "standard"}, {"quality": "high"}, {"model": "flux-dev"}])
async def test_a_tier_of_its_own_stays(standard: Door, own: dict[str, Any]) -> None:
    await spend(standard, then="preview")
    before = (await standard.generate(**own)).json()["pixelgate"]["intent"]
    assert before == ("export" if "quality" in own else "standard")
    assert "x-pixelgate-warning" not in (await standard.generate(**own)).headers


async def test_other_doors_draw_at_the_lowest_too_and_a_quote_prices_it_so(standard: Door) -> None:
    await spend(standard, then="preview")
    quote = await standard.post("/v1/quotes", {})
    assert standard.painter.calls[-1].intent == "preview"
    assert "soft limit" in quote.headers["x-pixelgate-warning"]
    image = (await standard.generate()).json()["data"][0]["id"]
    await standard.post(f"/v1/images/{image}/promote", {})
    assert standard.painter.calls[-1].intent == "export"


async def test_past_a_soft_limit_that_queues_a_call_stands_behind_others_and_pays_nothing_for_time(door: Door) -> None:
    await spend(door, then="queue")
    await door.generate(quality="high")
    call = door.painter.calls[-1]
    assert call.batch
    assert (call.worth.late, call.worth.late_second) == (0, 0)
    assert call.constraints.slo == call.constraints.deadline
    assert "waits behind others" in call.soft_limit


async def test_notify_touches_no_call(standard: Door) -> None:
    await spend(standard, then="notify")
    assert "x-pixelgate-warning" not in (await standard.generate()).headers
    assert not standard.painter.calls[-1].batch


@pytest.mark.parametrize(
    ("whose", "asked", "lower"),
    [
        ({"of": "team", "name": "zeta"}, {}, False),
        ({"of": "gateway", "name": ""}, {}, True),
        ({"of": "user", "name": "*"}, {"user": "ann"}, True),
        ({"of": "user", "name": "*"}, {"user": "bob"}, False),
        ({"of": "user", "name": "*"}, {}, False),
    ],
)
async def test_only_calls_that_count_in_the_budget_are_touched(
    standard: Door, whose: dict[str, str], asked: dict[str, Any], *, lower: bool
) -> None:
    if whose["name"] == "zeta":
        theirs = await standard.add_key(team="zeta")
        await spend(standard, then="preview", **whose)
        await standard.generate({"authorization": f"Bearer {theirs}"})
        await look(standard)
        assert standard.services.soft_limits.past
    else:
        await spend(standard, then="preview", **whose)
    await standard.generate(**asked)
    assert (standard.painter.calls[-1].intent == "preview") is lower


async def test_more_money_brings_the_tier_back(standard: Door) -> None:
    row = await spend(standard, then="preview")
    await standard.services.db.set_budget(replace(row, limit=100 * PICTURE))
    await look(standard)
    await standard.generate()
    assert standard.painter.calls[-1].intent == "standard"
