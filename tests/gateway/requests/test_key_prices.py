from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import Forbidden, NoOffer
from gateway.requests.call import Caller, Limits
from tests.support.town import Town, town

CHEAP = 100_000
"""Nano-dollars; below every offer."""


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Town]:
    async with town(tmp_path) as built:
        yield built


@pytest.mark.parametrize(
    ("limits", "count", "says"),
    [
        (Limits(price=CHEAP), 1, "at most 0.0001 USD a picture"),
        (Limits(call_price=4 * CHEAP), 4, "at most 0.0004 USD a call"),
    ],
)
async def test_what_a_key_may_not_pay_is_refused_by_name_before_money_is_held(
    place: Town, limits: Limits, count: int, says: str
) -> None:
    caller = Caller(key_id="key_test", team="acme", limits=limits)
    call = place.call(count=count, caller=caller, ceiling=CHEAP)
    with pytest.raises(Forbidden, match=says) as refused:
        await place.app.pipeline.serve(call)
    assert "keys limit key_test --max-" in refused.value.message
    assert "costs $" in refused.value.message
    assert await place.attempts(call) == []


async def test_a_ceiling_of_the_callers_own_is_not_blamed_on_its_key(place: Town) -> None:
    caller = Caller(key_id="key_test", team="acme", limits=Limits(price=10 * CHEAP))
    with pytest.raises(NoOffer):
        await place.app.pipeline.serve(place.call(caller=caller, ceiling=CHEAP))
