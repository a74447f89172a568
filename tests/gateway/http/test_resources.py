from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import openai
import pytest
from msgspec.structs import replace

from tests.gateway.http.conftest import PIXEL, policy

if TYPE_CHECKING:
    from tests.gateway.http.conftest import Door


async def test_the_official_client_lists_every_name_that_may_be_sent(door: Door) -> None:
    async with door.openai as client:
        names = [model.id async for model in client.models.list()]
    assert names[:4] == ["auto", "flux-schnell", "flux-dev", "flux-1.1-pro"]
    assert {"black-forest-labs/FLUX.1-schnell", "dall-e-3", "gpt-image-1", "chatgpt-image-latest"} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "name", ["auto", "flux-dev", "black-forest-labs/FLUX.1-schnell", "dall-e-3", "gpt-image-2-2026-04-21"]
)
async def test_the_official_client_reads_one_model(door: Door, name: str) -> None:
    async with door.openai as client:
        model = await client.models.retrieve(name)
    assert (model.id, model.object) == (name, "model")


@pytest.mark.parametrize(
    "path", ["black-forest-labs/FLUX.1-schnell", "black-forest-labs%2FFLUX.1-schnell", "flux-dev/"]
)
async def test_slashes_in_model_names_may_be_encoded_or_not(door: Door, path: str) -> None:
    assert (await door.http.get(f"/v1/models/{path}")).status_code == 200


async def test_an_unknown_model_is_not_found(door: Door) -> None:
    async with door.openai as client:
        with pytest.raises(openai.NotFoundError) as raised:
            await client.models.retrieve("flux-9")
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


async def test_a_key_sees_only_the_models_it_may_use(door: Door) -> None:
    key = await door.add_key(models=("flux-dev",))
    headers = {"authorization": f"Bearer {key}"}
    listed = (await door.http.get("/v1/models", headers=headers)).json()["data"]
    assert {"flux-schnell", "flux-1.1-pro"}.isdisjoint(model["id"] for model in listed)
    assert "flux-dev" in [model["id"] for model in listed]
    assert (await door.http.get("/v1/models/flux-schnell", headers=headers)).status_code == 404


async def test_a_picture_is_served_without_a_key_and_with_lasting_headers(door: Door) -> None:
    url = (await door.generate()).json()["data"][0]["url"].removeprefix("http://pictures.test")
    del door.http.headers["authorization"]
    answer = await door.http.get(url)
    assert (answer.status_code, answer.content) == (200, PIXEL)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"].startswith("public, max-age=35")
    head = await door.http.head(url)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(PIXEL)))
    again = await door.http.get(url, headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_a_key_sent_along_with_an_asset_request_does_no_harm(door: Door) -> None:
    url = (await door.generate()).json()["data"][0]["url"].removeprefix("http://pictures.test")
    assert (await door.http.get(url, headers={"authorization": "Bearer nonsense"})).status_code == 200


async def test_an_expired_or_erased_picture_is_gone(door: Door) -> None:
    data = (await door.generate(n=2)).json()["data"]
    erased, expired = (picture["url"].removeprefix("http://pictures.test") for picture in data)
    del door.painter.pictures[erased.removeprefix("/assets/")]
    assert (await door.http.get(erased)).status_code == 404
    assert (await door.http.get(expired)).status_code == 200
    door.painter.clock.ahead = 3601
    assert (await door.http.get(expired)).status_code == 404


@pytest.mark.parametrize(
    "path",
    ["../../../etc/passwd", "..%2f..%2fetc%2fpasswd/a.png", "aaaaaaaaaaaaaaaaaaaaaaaa/../../x.png", "a/b.png",
     "t_0123456789abcdef0123456789abcdef/x.png", "t_0123456789abcdef%00/x.png", "%2e%2e/%2e%2e"],
)  # fmt: skip
async def test_a_path_that_is_not_ours_finds_nothing(door: Door, path: str) -> None:
    raw = await door.raw(f"GET /assets/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert raw.startswith(b"HTTP/1.1 404")
    assert b'"not_found"' in raw


async def test_an_image_record_tells_what_it_was_and_where_it_comes_from(door: Door) -> None:
    made = (await door.generate(seed=5, size="512x512")).json()
    image = made["data"][0]["id"]
    record = (await door.http.get(f"/v1/images/{image}")).json()
    assert (record["prompt"], record["seed"], record["width"]) == ("a red lighthouse", 5, 512)
    assert (record["offer"], record["provider"], record["tier"]) == ("together:flux-schnell", "together", "preview")
    assert (record["nano_usd"], record["usd"]) == (2_700_000, "0.0027")
    assert record["decision"] == made["pixelgate"]["decision"]
    assert (record["parent"], record["children"]) == (None, [])
    assert record["url"] == made["data"][0]["url"]


async def test_another_teams_image_and_decision_do_not_exist(door: Door) -> None:
    made = (await door.generate()).json()
    headers = {"authorization": f"Bearer {await door.add_key(team='other')}"}
    for path in (f"/v1/images/{made['data'][0]['id']}", f"/v1/decisions/{made['pixelgate']['decision']}"):
        assert (await door.http.get(path)).status_code == 200
        answer = await door.http.get(path, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_a_promotion_draws_the_same_picture_again_at_export_tier(door: Door) -> None:
    preview = (await door.generate(size="768x512", steps=4, tags={"a": "b"})).json()["data"][0]
    answer = await door.post(f"/v1/images/{preview['id']}/promote", {"intent": "export"})
    export = answer.json()
    assert answer.status_code == 200
    assert export["data"][0]["parent"] == preview["id"]
    assert export["data"][0]["seed"] == preview["seed"]
    assert (export["size"], export["quality"]) == ("768x512", "high")
    call = door.painter.calls[1]
    assert (call.purpose, call.request.prompt, call.request.steps) == ("promotion", "a red lighthouse", None)
    assert call.tags == {"a": "b"}
    assert (await door.http.get(f"/v1/images/{preview['id']}")).json()["children"] == [export["data"][0]["id"]]


async def test_a_promotion_takes_its_own_terms(door: Door) -> None:
    preview = (await door.generate(n=2, model="gpt-image-1")).json()["data"][1]
    body = {
        "strategy": "regenerate",
        "size": "2048x2048",
        "max_cost": 0.1,
        "deadline_ms": 5000,
        "response_format": "url",
    }
    answer = await door.post(f"/v1/images/{preview['id']}/promote/", body)
    assert answer.json()["data"][0]["url"]
    call = door.painter.calls[1]
    assert (call.request.width, call.request.count, call.request.seed) == (2048, 1, preview["seed"])
    assert (call.constraints.ceiling, call.constraints.deadline) == (100_000_000, 5.0)


async def test_a_promotion_answers_in_the_form_its_preview_did(door: Door) -> None:
    preview = (await door.generate(model="gpt-image-1")).json()["data"][0]
    assert "b64_json" in (await door.post(f"/v1/images/{preview['id']}/promote", {})).json()["data"][0]


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"strategy": "refine"}, "strategy", "unsupported_value"),
        ({"strategy": "upscale"}, "strategy", "unsupported_value"),
        ({"strategy": "magic"}, "strategy", "invalid_value"),
        ({"intent": "preview"}, "intent", "invalid_value"),
        ({"intent": "final"}, "intent", "invalid_value"),
        ({"prompt": "another"}, "prompt", "unknown_parameter"),
        ({"size": "big"}, "size", "invalid_value"),
    ],
)
async def test_a_bad_promotion_is_refused_by_name(door: Door, body: dict[str, object], param: str, code: str) -> None:
    preview = (await door.generate()).json()["data"][0]
    answer = await door.post(f"/v1/images/{preview['id']}/promote", body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
    assert len(door.painter.calls) == 1


async def test_a_double_click_on_promote_is_one_picture_and_later_or_otherwise_it_is_another(door: Door) -> None:
    preview = (await door.generate()).json()["data"][0]
    path, before = f"/v1/images/{preview['id']}/promote", len(door.painter.calls)
    door.painter.waits_for = asyncio.Event()
    clicks = [asyncio.create_task(door.post(path, body)) for body in ({}, {}, {"size": "512x512"})]
    for _ in range(500):
        if len(door.painter.calls) == before + 2:
            break
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)  # a third call would be there by now
    assert len(door.painter.calls) == before + 2
    door.painter.waits_for.set()
    first, second, other = [(await click).json() for click in clicks]
    assert first["data"] == second["data"] != other["data"]
    assert sorted([first["pixelgate"]["cache"], second["pixelgate"]["cache"]]) == ["joined", "miss"]
    later = (await door.post(path, {})).json()
    assert (later["pixelgate"]["cache"], len(door.painter.calls)) == ("miss", before + 3)


async def test_what_is_not_there_cannot_be_promoted(door: Door) -> None:
    answer = await door.post("/v1/images/img_0/promote", {})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_a_decision_explains_what_was_chosen_and_what_was_not(door: Door) -> None:
    made = (await door.generate()).json()["pixelgate"]
    decision = (await door.http.get(f"/v1/decisions/{made['decision']}")).json()
    assert (decision["id"], decision["policy"], decision["prices"]) == (made["decision"], "default@7", 3)
    assert decision["chosen"] == "together:flux-schnell"
    assert decision["candidates"][0] == {
        "offer": "together:flux-schnell",
        "costs": {"price": 2_700_000},
        "quote_nano_usd": 2_700_000,
        "unit": "1 MP",
        "latency_p50": 0.8,
        "latency_p95": 1.4,
        "headroom": 9,
        "wait_s": 0.0,
        "late": 0.0,
    }
    assert decision["rejections"][0]["reason"] == "costs $0.025, above $0.01"
    assert [attempt["offer"] for attempt in decision["attempts"]] == ["together:flux-schnell"]
    assert (await door.http.get("/v1/decisions/dec_0")).status_code == 404


async def test_a_quote_lists_offers_and_orders_nothing(door: Door) -> None:
    answer = await door.post("/v1/quotes", {"model": "flux-schnell", "size": "512x512", "n": 2})
    assert answer.status_code == 200
    row = answer.json()["offers"][0]
    assert set(row) == {
        "offer", "provider", "model", "nano_usd", "usd", "certain", "unit", "tariff", "source", "feasible", "reason",
        "then", "expected_nano_usd", "hold_nano_usd", "revision", "why",
    }  # fmt: skip
    assert (door.painter.calls[0].purpose, door.painter.calls[0].request.count) == ("quote", 2)
    refused = await door.post("/v1/quotes", {"n": 0})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "n")


async def test_quotes_count_against_the_rate_of_their_key_and_say_so(door: Door) -> None:
    key = {"authorization": f"Bearer {await door.add_key(rpm=2)}"}
    answers = [await door.post("/v1/quotes", body, key) for body in ({}, {"n": 0}, {})]
    assert [answer.status_code for answer in answers] == [200, 400, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
    assert 0 < int(answers[2].headers["retry-after"]) <= 60
    assert answers[2].json()["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input_sizes": []}, "input_sizes"),
        ({"input_sizes": ["64x64"] * 17}, "input_sizes"),
        ({"input_sizes": ["large"]}, "input_sizes[0]"),
        ({"input_sizes": ["30000x30000"]}, "input_sizes[0]"),
        ({"input_sizes": ["64x64"], "images": [{"image_url": "data:,x"}]}, "images"),
        ({"masked": True}, "masked"),
        ({"operation": "edit"}, "input_sizes"),
        ({"images": []}, "image"),
        ({"input_size": ["64x64"]}, "input_size"),
    ],
)
async def test_what_cannot_be_priced_is_refused_by_name(door: Door, body: dict[str, object], param: str) -> None:
    refused = await door.post("/v1/quotes", body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param), refused.text


@pytest.mark.parametrize(
    "path", ["/health/live", "/health/liveliness", "/health/liveness", "/health/ready", "/health/live/"]
)
async def test_health_needs_no_key(door: Door, path: str) -> None:
    del door.http.headers["authorization"]
    assert (await door.http.get(path)).status_code == 200
    assert (await door.http.head(path)).status_code == 200


async def test_a_gateway_that_is_not_ready_says_what_is_missing(door: Door) -> None:
    door.services.ready = lambda: {"database": "the disk is full", "providers": "ok"}
    answer = await door.http.get("/health/ready")
    assert (answer.status_code, answer.json()["parts"]["database"]) == (503, "the disk is full")


async def test_a_new_revision_is_answered_from_at_once(door: Door) -> None:
    assert (await door.generate(model="imagen-4")).status_code == 404
    door.services.adopt(door.services.catalog, replace(policy(), model_prefixes={"imagen-": "flux-dev"}))
    assert (await door.generate(model="imagen-4")).status_code == 200
    assert door.painter.calls[0].constraints.models == frozenset({"flux-dev"})


async def test_a_promotion_is_late_once_its_client_has_stopped_listening(door: Door) -> None:
    image = (await door.generate()).json()["data"][0]["id"]
    await door.post(f"/v1/images/{image}/promote", {}, {"x-stainless-read-timeout": "2"})
    assert (door.painter.calls[-1].intent, door.painter.calls[-1].constraints.slo) == ("export", 2.0)
