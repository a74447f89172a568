from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from aiohttp import ClientSession
from hypothesis import given
from hypothesis import strategies as st

from providers.sandbox import Sandbox, fal, selfhosted, start, together
from providers.sandbox.endpoints import TOGETHER as SOLD
from providers.sandbox.endpoints import Endpoint
from providers.sandbox.endpoints import selfhosted as own_server
from providers.sandbox.fal_endpoints import FAL as FAL_SOLD
from providers.sandbox.faults import NO_FAULT
from providers.sandbox.fields import Invalid
from providers.sandbox.jobs import Failure

FAL = {"Authorization": "Key sandbox-a"}
TOGETHER = {"Authorization": "Bearer sandbox-a"}
TOGETHER_SCHNELL = SOLD["black-forest-labs/FLUX.1-schnell"]
SCHNELL = {"model": "black-forest-labs/FLUX.1-schnell", "prompt": "x", "width": 256, "height": 256}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with await start(time_scale=0.01, pictures="plain") as running:
        yield running


@pytest.fixture
async def web(sandbox: Sandbox) -> AsyncIterator[ClientSession]:
    async with ClientSession(base_url=sandbox.url) as session:
        yield session


async def submit(web: ClientSession, endpoint: str = "fal-ai/flux/schnell", **fields: object) -> dict[str, str]:
    async with web.post(f"/fal/queue/{endpoint}", json={"prompt": "x", **fields}, headers=FAL) as taken:
        assert taken.status == 200
        body: dict[str, str] = await taken.json()
        return body


async def test_foreign_keys_and_schemes_are_refused_in_each_sellers_words(web: ClientSession) -> None:
    for path, scheme in (("/fal/queue/fal-ai/flux/dev", "Bearer sandbox-a"), ("/fal/run/fal-ai/flux/dev", "Key x")):
        async with web.post(path, json={"prompt": "x"}, headers={"Authorization": scheme}) as taken:
            assert (taken.status, "Authentication" in (await taken.json())["detail"]) == (401, True)
    async with web.post("/together/v1/images/generations", json=SCHNELL, headers=FAL) as taken:
        assert (taken.status, (await taken.json())["error"]["code"]) == (401, "invalid_api_key")


async def test_together_without_credit_and_with_a_doubled_version(web: ClientSession) -> None:
    broke = {"Authorization": "Bearer sandbox-a-broke"}
    async with web.post("/together/v1/images/generations", json=SCHNELL, headers=broke) as taken:
        assert taken.status == 402
    async with web.post("/together/v1/v1/images/generations", json=SCHNELL, headers=TOGETHER) as taken:
        assert taken.status == 404


async def test_fal_answers_202_until_completed_and_knows_the_short_path_only(
    web: ClientSession, sandbox: Sandbox
) -> None:
    sandbox.script({"latency_scale": 100})
    order = await submit(web)
    async with web.get(order["status_url"], headers=FAL) as taken:
        assert (taken.status, "/fal-ai/flux/requests/" in order["status_url"]) == (202, True)
    long_way = order["status_url"].replace("fal-ai/flux", "fal-ai/flux/schnell")
    async with web.get(long_way, headers=FAL) as taken:
        assert taken.status == 405
    async with web.get(order["response_url"], headers=FAL) as taken:
        assert taken.status == 400
    async with web.get(order["status_url"], headers={"Authorization": "Key sandbox-b"}) as taken:
        assert taken.status == 404


async def test_fal_direct_runs_are_turned_away_at_the_limit_and_the_queue_is_not(
    web: ClientSession, sandbox: Sandbox
) -> None:
    sandbox.script({"limits": {"fal": {"concurrency": 1}}, "latency_scale": 100})
    await submit(web)
    await submit(web)
    async with web.post("/fal/run/fal-ai/flux/schnell", json={"prompt": "x"}, headers=FAL) as taken:
        assert (taken.status, "Retry-After" in taken.headers) == (429, False)
    full = "/fal/queue/fal-ai/flux/schnell?fal_max_queue_length=1"
    async with web.post(full, json={"prompt": "x"}, headers=FAL) as taken:
        assert taken.status == 429


async def test_fal_shows_validation_faults_only_as_the_result(web: ClientSession, sandbox: Sandbox) -> None:
    order = await submit(web, num_inference_steps=13)
    for _ in range(200):
        async with web.get(order["status_url"], headers=FAL) as taken:
            told = await taken.json()
        if told["status"] == "COMPLETED":
            break
        await asyncio.sleep(0.01)
    assert (told["error_type"], taken.status) == ("less_than_equal", 200)
    async with web.get(order["response_url"], headers=FAL) as taken:
        assert (taken.status, (await taken.json())["detail"][0]["loc"]) == (422, ["body", "num_inference_steps"])
    assert sandbox.invoice()["lines"] == []


@pytest.mark.parametrize(
    ("endpoint", "asked", "drawn"),
    [
        ("fal-ai/flux/dev", {"image_size": {"width": 1001, "height": 90}}, (1008, 256)),
        ("fal-ai/flux-pro/v1.1", {"image_size": {"width": 2048, "height": 1000}}, (1440, 992)),
        ("fal-ai/flux-2-pro", {"image_size": "square"}, (512, 512)),
        ("fal-ai/flux-pro/v1.1-ultra", {"image_size": {"width": 1024, "height": 1024}}, (2752, 1536)),
    ],
)
async def test_sizes_nobody_draws_are_snapped_without_a_word(
    web: ClientSession, endpoint: str, asked: dict[str, object], drawn: tuple[int, int]
) -> None:
    async with web.post(f"/fal/run/{endpoint}", json={"prompt": "x", **asked}, headers=FAL) as taken:
        (image,) = (await taken.json())["images"]
    assert (image["width"], image["height"]) == drawn


BODIES = st.dictionaries(
    st.sampled_from(["prompt", "image_size", "aspect_ratio", "num_images", "seed", "n", "steps", "size", "width"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["width", "height"]), inner),
        max_leaves=4,
    ),
)


@given(body=BODIES, endpoint=st.sampled_from([*FAL_SOLD.values()]))
def test_fal_finds_a_wish_or_a_fault_in_anything_it_is_sent(body: dict[str, object], endpoint: Endpoint) -> None:
    found = fal.understand(msgspec.json.encode({"prompt": "x"} | body), endpoint, NO_FAULT, 1)
    assert isinstance(found, Failure) or endpoint.sizes.snap(found.size) == found.size


@given(body=BODIES)
def test_the_others_name_the_field_they_do_not_understand(body: dict[str, object]) -> None:
    for reader, endpoint in ((together.read_wish, TOGETHER_SCHNELL), (selfhosted.read_wish, own_server("flux-dev"))):
        named = ""
        try:
            count = reader({"prompt": "x"} | body, endpoint, 1).count
        except Invalid as fault:
            named, count = fault.field, 0
        assert count >= 1 or named in body


async def test_recraft_declares_no_size_and_no_seed(web: ClientSession) -> None:
    async with web.post("/fal/run/fal-ai/recraft/v3/text-to-image", json={"prompt": "x"}, headers=FAL) as taken:
        body = await taken.json()
    assert (set(body), set(body["images"][0])) == ({"images"}, {"url", "content_type"})


async def test_together_says_429_above_the_rate_and_503_when_full_below_it(
    web: ClientSession, sandbox: Sandbox
) -> None:
    sandbox.script({"limits": {"together": {"rate": 0.5, "burst": 2}}})
    seen = []
    for _ in range(3):
        async with web.post("/together/v1/images/generations", json=SCHNELL, headers=TOGETHER) as taken:
            seen.append((taken.status, await taken.json(), taken.headers))
    assert [status for status, _, _ in seen] == [200, 200, 429]
    assert seen[2][1]["error"]["type"] == "dynamic_request_limited"
    assert 0 < float(seen[2][2]["x-ratelimit-reset"]) <= 2
    sandbox.script({"limits": {"together": {"rate": 100, "burst": 100, "capacity": 0}}})
    async with web.post("/together/v1/images/generations", json=SCHNELL, headers=TOGETHER) as taken:
        assert taken.status == 503


async def test_together_items_come_with_and_without_type_and_index(web: ClientSession) -> None:
    keys = []
    for _ in range(2):
        async with web.post("/together/v1/images/generations", json=SCHNELL, headers=TOGETHER) as taken:
            keys.append(set((await taken.json())["data"][0]))
    assert keys == [{"timings", "url"}, {"timings", "url", "type", "index"}]


async def test_together_files_are_closed_to_clients_without_a_name(web: ClientSession) -> None:
    async with web.post("/together/v1/images/generations", json=SCHNELL, headers=TOGETHER) as taken:
        url = (await taken.json())["data"][0]["url"]
    async with web.get(url, headers={"User-Agent": ""}) as taken:
        assert taken.status == 403
    async with web.get(url) as taken:
        assert taken.content_type == "image/jpeg"


async def test_own_server_speaks_openai_and_costs_what_a_script_says(web: ClientSession, sandbox: Sandbox) -> None:
    sandbox.script({"prices": {"selfhosted": {"*": "0.0005"}}})
    wish = {"model": "flux-schnell", "prompt": "x", "size": "256x128", "n": 2}
    async with web.post("/selfhosted/v1/images/generations", json=wish) as taken:
        body = await taken.json()
    assert [set(item) for item in body["data"]] == [{"b64_json", "seed"}] * 2
    assert sandbox.invoice()["by_account"] == {"selfhosted": {"default": 1_000_000}}
    async with web.get("/selfhosted/health") as taken:
        assert (await taken.json())["status"] == "ok"


async def test_billing_events_page_through_the_same_money_as_the_invoice(web: ClientSession, sandbox: Sandbox) -> None:
    for number in range(3):
        async with web.post("/fal/run/fal-ai/flux-2-pro", json={"prompt": f"{number}"}, headers=FAL) as taken:
            assert taken.status == 200
    sandbox.script([{"provider": "fal", "do": "cut_billing"}])
    async with web.post("/fal/run/fal-ai/flux-2-pro", json={"prompt": "hidden"}, headers=FAL) as taken:
        assert taken.status == 200
    events: list[dict[str, object]] = []
    cursor = "0"
    while cursor:
        query = {"limit": "2", "cursor": cursor, "endpoint_id": "fal-ai/flux-2-pro"}
        async with web.get("/fal/api/v1/models/billing-events", params=query, headers=FAL) as taken:
            page = await taken.json()
        events += page["billing_events"]
        cursor = page["next_cursor"] or ""
    assert [event["cost_estimate_nano_usd"] for event in events] == [30_000_000] * 3
    assert sandbox.invoice()["total_nano_usd"] == {"fal": 120_000_000}


async def test_usage_sums_a_day_by_endpoint_and_price_to_the_invoice(web: ClientSession, sandbox: Sandbox) -> None:
    for endpoint in ("fal-ai/flux-2-pro", "fal-ai/flux-2-pro", "fal-ai/flux/schnell"):
        async with web.post(f"/fal/run/{endpoint}", json={"prompt": "x"}, headers=FAL) as taken:
            assert taken.status == 200
    sandbox.script({"prices": {"fal": {"fal-ai/flux/schnell": "0.004"}}})
    async with web.post("/fal/run/fal-ai/flux/schnell", json={"prompt": "x"}, headers=FAL) as taken:
        assert taken.status == 200
    async with web.get("/fal/api/v1/models/usage", params={"timeframe": "day"}, headers=FAL) as taken:
        page = await taken.json()
    used = [each for day in page["time_series"] for each in day["results"]]
    assert sorted((each["endpoint_id"], each["quantity"], each["cost_total"]) for each in used) == [
        ("fal-ai/flux-2-pro", 2.0, 0.06), ("fal-ai/flux/schnell", 1.0, 0.003), ("fal-ai/flux/schnell", 1.0, 0.004),
    ]  # fmt: skip
    assert sandbox.invoice()["total_nano_usd"] == {"fal": 67_000_000}


@pytest.mark.parametrize(
    ("body", "status", "usd"),
    [
        ({"estimate_type": "unit_price", "endpoints": {"fal-ai/flux/dev": {"unit_quantity": 50}}}, 200, 1.25),
        ({"estimate_type": "historical_api_price", "endpoints": {"fal-ai/flux/dev": {"call_quantity": 4}}}, 200, 0.2),
        ({"estimate_type": "historical_api_price", "endpoints": {"fal-ai/flux-2": {"call_quantity": 2}}}, 200, 0.024),
        ({"estimate_type": "unit_price", "endpoints": {"fal-ai/flux/dev": {"call_quantity": 4}}}, 422, None),
        ({"estimate_type": "unit_price", "endpoints": {"fal-ai/nothing": {"unit_quantity": 1}}}, 404, None),
        ({"estimate_type": "guess", "endpoints": {}}, 422, None),
    ],
)
async def test_estimates_are_of_units_or_of_calls_as_they_were(
    web: ClientSession, body: dict[str, object], status: int, usd: float | None
) -> None:
    two_megapixels = {"prompt": "x", "image_size": {"width": 1536, "height": 1024}}
    async with web.post("/fal/run/fal-ai/flux/dev", json=two_megapixels, headers=FAL) as taken:
        assert taken.status == 200
    async with web.post("/fal/api/v1/models/pricing/estimate", json=body, headers=FAL) as taken:
        assert (taken.status, (await taken.json()).get("total_cost")) == (status, usd)


async def test_price_list_follows_a_change_without_notice(web: ClientSession, sandbox: Sandbox) -> None:
    sandbox.script({"prices": {"fal": {"fal-ai/flux/dev": "0.03"}}})
    query = {"endpoint_id": "fal-ai/flux/dev,fal-ai/flux-2"}
    async with web.get("/fal/api/v1/models/pricing", params=query, headers=FAL) as taken:
        prices = (await taken.json())["prices"]
    assert [(price["unit_price"], price["unit"]) for price in prices] == [(0.03, "image"), (0.012, "megapixels")]


async def test_control_refuses_a_script_it_does_not_understand(web: ClientSession) -> None:
    async with web.post("/_sandbox/script", json={"rules": [{"do": "explode"}]}) as taken:
        assert (taken.status, "explode" in (await taken.json())["error"]) == (400, True)
    async with web.post("/_sandbox/script", json={"limit": {}}) as taken:
        assert taken.status == 400


async def test_control_forgets_everything_on_reset_and_remembers_requests_without_keys(
    web: ClientSession, sandbox: Sandbox
) -> None:
    async with web.post("/fal/run/fal-ai/flux/schnell", json={"prompt": "hello"}, headers=FAL) as taken:
        assert taken.status == 200
    async with web.get("/_sandbox/requests?provider=fal") as taken:
        (seen,) = (await taken.json())["requests"]
    assert (seen["body"], "sandbox-a" in str(seen)) == ({"prompt": "hello"}, False)
    async with web.post("/_sandbox/reset") as taken:
        assert taken.status == 200
    assert (sandbox.invoice()["lines"], sandbox.requests(), sandbox.stats()) == ([], (), {})
