from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

if TYPE_CHECKING:
    from providers.contract import Safety
    from tests.gateway.http.conftest import Door


def policy(door: Door, **changes: object) -> None:
    door.services.adopt(door.services.catalog, replace(door.services.policy, **changes))


@pytest.mark.parametrize(
    ("team", "scopes", "moderation", "level"),
    [
        ("acme", ("images:write",), "auto", "standard"),
        ("acme", ("images:write", "moderation"), "low", "relaxed"),
        ("kids", ("images:write",), "auto", "strict"),
        ("kids", ("images:write", "moderation"), "low", "standard"),
        ("artists", ("images:write",), "low", "relaxed"),
    ],
)
async def test_the_level_of_checks_is_the_teams_and_only_a_scope_lowers_it(
    door: Door, team: str, scopes: tuple[str, ...], moderation: str, level: Safety
) -> None:
    policy(door, team_safety={"kids": "strict", "artists": "relaxed"})
    key = await door.add_key(team=team, scopes=scopes)
    answer = await door.generate({"authorization": f"Bearer {key}"}, moderation=moderation)
    assert door.painter.calls[0].request.safety == level
    assert "x-pixelgate-warning" not in answer.headers


async def test_a_key_without_the_scope_hears_that_the_level_stays(door: Door) -> None:
    answer = await door.generate(moderation="low")
    assert door.painter.calls[0].request.safety == "standard"
    assert answer.headers["x-pixelgate-warning"] == "moderation: this key may not lower it, so it stays standard"


async def test_unknown_fields_are_left_out_and_named_where_the_policy_says_so(door: Door) -> None:
    assert (await door.generate(qualitty="high")).json()["error"]["code"] == "unknown_parameter"
    policy(door, ignore_unknown=True)
    body = {"prompt": "a", "qualitty": "high", "z\u00fcrich\n": 1}
    answer = await door.post("/v1/images/generations", body)
    assert answer.status_code == 200
    assert answer.headers["x-pixelgate-warning"] == "ignored: qualitty, z?rich?"
    quoted = await door.post("/v1/quotes", {"qualitty": "high"})
    assert quoted.headers["x-pixelgate-warning"] == "ignored: qualitty"
    streamed = await door.generate(qualitty="high", stream=True)
    assert streamed.headers["x-pixelgate-warning"] == "ignored: qualitty"
    assert (await door.generate(n=0)).status_code == 400
