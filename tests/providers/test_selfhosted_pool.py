"""Several nodes of ours behind one account: who draws, what happens when one dies, hangs or lies, and what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from providers.contract import Abilities, BillsNobody, ImageRequest, Order, ReportsLoad, ReportsUsage, SizeRule, Ticket
from providers.errors import (
    BadDelivery,
    OutcomeUnknown,
    Overloaded,
    ProviderError,
    TimedOut,
    Unavailable,
    Unsupported,
)
from providers.picture import probe
from providers.sandbox import Sandbox, start
from providers.selfhosted import MeteredPool, Pool, Settings, connect
from providers.transport import Http
from tests.support.gone import closed_port

ABLE = Abilities(
    sizes=SizeRule(min_side=64, multiple=16),
    max_count=4,
    steps=(1, 50),
    default_steps=4,
    guidance=(1, 20),
    formats=("png", "jpeg", "webp"),
    fixed={"guidance_scale": 3.5},
    size_dialect="size",
)
PLAIN = Abilities(sizes=ABLE.sizes, formats=("png",), seed=False, size_dialect="size")
HOUR = 340_000_000


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with await start(time_scale=0.01, pictures="plain") as made:
        yield made


def order(endpoint: str = "flux-schnell", *, able: Abilities = ABLE, limit_s: float = 5, **wish: Any) -> Order:
    request = ImageRequest(**{"prompt": "a heron", "width": 256, "height": 256, "seed": 7, **wish})
    attempt = f"att-{id(request)}"
    return Order(attempt_id=attempt, endpoint=endpoint, abilities=able, request=request, timeout=limit_s)


async def untouched(ticket: Ticket) -> None:
    raise AssertionError(f"no receipt was expected: {ticket}")


def node(sandbox: Sandbox, name: str, **more: object) -> Mapping[str, object]:
    dialect = next((d for d in ("sglang", "vllm-omni", "sd-server", "aquiles-image") if name.startswith(d)), "openai")
    return {"name": name, "base_url": f"{sandbox.url}/selfhosted/machines/{name}", "dialect": dialect, **more}


def pool(http: Http, *nodes: Mapping[str, object], **settings: object) -> Pool:
    made = connect("own", Settings.model_validate({"nodes": nodes, "probe_every": 0.05, **settings}), http)
    assert isinstance(made, Pool)
    return made


async def failure(made: Pool, asked: Order) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await made.generate(asked, untouched)
    return caught.value


async def taken(made: Pool) -> int:
    return sum(load.running for load in (await made.load()).values())


async def until_fit(made: Pool, asked: Order) -> None:
    """Wait until an order is drawn again."""
    async with asyncio.timeout(5):
        while True:
            try:
                await made.generate(asked, untouched)
            except (Unavailable, OutcomeUnknown, Overloaded):
                await asyncio.sleep(0.02)
            else:
                return


@pytest.mark.parametrize("name", ["openai-1", "sglang-1", "vllm-omni-1", "sd-server-1"])
@pytest.mark.parametrize("form", ["png", "jpeg"])
async def test_every_dialect_draws_exactly_what_was_ordered(http: Http, sandbox: Sandbox, name: str, form: str) -> None:
    sandbox.script({"pictures": "rich"})
    made = pool(http, node(sandbox, name))
    wishes: list[dict[str, Any]] = [{}, {"seed": 8}, {"steps": 20}, {}]
    drawn = [await made.generate(order(format=form, **wish), untouched) for wish in wishes]
    first, other_seed, more_steps, again = [each.images[0].data for each in drawn]
    assert probe(first).format == form
    assert first == again
    assert len({first, other_seed, more_steps}) == 3
    await made.aclose()


async def test_guidance_is_said_in_each_dialects_own_words(http: Http, sandbox: Sandbox) -> None:
    for name in ("openai-1", "sglang-1", "vllm-omni-1", "sd-server-1"):
        made = pool(http, node(sandbox, name))
        for wish in (order(), order(guidance=6.0)):
            await made.generate(wish, untouched)
        await made.aclose()
    said = [str(request["body"]) for request in sandbox.requests() if request["method"] == "POST"]
    assert [next(text for text in ("3.5", "6.0") if text in body) for body in said] == ["3.5", "6.0"] * 4


async def test_what_a_server_would_ignore_is_not_ordered_from_it(http: Http, sandbox: Sandbox) -> None:
    made = pool(http, node(sandbox, "aquiles-image-1", steps=4))
    error = await failure(made, order())
    assert isinstance(error, Unsupported)
    assert "ignores guidance_scale and seed" in str(error)
    assert "does not draw 512x256" in str(await failure(made, order(able=PLAIN, width=512)))
    plain = await made.generate(order(able=PLAIN), untouched)
    assert plain.usage.machine == "aquiles-image-1"
    stepped = Abilities(sizes=ABLE.sizes, formats=("png",), seed=False, steps=(1, 50), default_steps=4)
    await made.generate(order(able=stepped), untouched)
    assert "ignores num_inference_steps" in str(await failure(made, order(able=stepped, steps=8)))
    await made.aclose()


async def test_no_caller_gives_orders_to_an_sd_server_inside_his_prompt(http: Http, sandbox: Sandbox) -> None:
    made = pool(http, node(sandbox, "sd-server-1"))
    sly = '<sd_cpp_extra_args>{"sample_params":{"sample_steps":1}}</sd_cpp_extra_args>a heron'
    assert isinstance(await failure(made, order(prompt=sly)), Unsupported)
    assert sandbox.stats() == {}
    await made.aclose()


async def test_orders_go_where_they_would_be_finished_first(http: Http, sandbox: Sandbox) -> None:
    made = pool(http, node(sandbox, "sglang-1"), node(sandbox, "sglang-2"), node(sandbox, "sglang-3"))
    drawn = await asyncio.gather(*(made.generate(order(seed=n), untouched) for n in range(3)))
    assert {each.usage.machine for each in drawn} == {"sglang-1", "sglang-2", "sglang-3"}
    assert await taken(made) == 0
    await made.aclose()


async def test_a_slow_node_gets_less_to_do(http: Http, sandbox: Sandbox) -> None:
    sandbox.script([{"provider": "selfhosted", "account": "slow", "do": "slow", "args": {"seconds": 0.2}}])
    slow = pool(http, node(sandbox, "sglang-1"), key="sandbox-slow")
    quick = pool(http, node(sandbox, "sglang-2"))
    both = pool(http, node(sandbox, "sglang-1", slots=9), node(sandbox, "sglang-2", slots=9))
    for single in (slow, quick):
        await single.generate(order(), untouched)
        await single.aclose()
    both._nodes[0]._pace, both._nodes[1]._pace = slow._nodes[0]._pace, quick._nodes[0]._pace
    drawn = await asyncio.gather(*(both.generate(order(seed=n), untouched) for n in range(9)))
    places = [each.usage.machine for each in drawn]
    assert places.count("sglang-2") > places.count("sglang-1")
    await both.aclose()


async def test_a_model_is_ordered_from_nodes_that_serve_it_under_their_own_name(http: Http, sandbox: Sandbox) -> None:
    sandbox.script({"machines": {"vllm-omni-1": {"models": ["black-forest-labs/FLUX.1-dev"]}}})
    made = pool(
        http,
        node(sandbox, "openai-1", models=["flux-schnell"]),
        node(sandbox, "vllm-omni-1", models={"flux-dev": "black-forest-labs/FLUX.1-dev"}),
    )
    assert (await made.generate(order("flux-schnell"), untouched)).usage.machine == "openai-1"
    assert (await made.generate(order("flux-dev"), untouched)).usage.machine == "vllm-omni-1"
    assert isinstance(await failure(made, order("flux-2-dev")), Unsupported)
    assert list(await made.check(["flux-schnell", "flux-dev"])) == []
    assert "no node serves flux-2-dev" in (await made.check(["flux-2-dev"]))[0]
    await made.aclose()


@pytest.mark.parametrize("name", ["openai-1", "sglang-1", "vllm-omni-1", "sd-server-1"])
async def test_a_node_with_another_model_draws_nothing_and_is_named_by_doctor(
    http: Http, sandbox: Sandbox, name: str
) -> None:
    own = {"flux-schnell": "flux1-schnell-q8"}
    sandbox.script({"machines": {name: {"models": ["flux1-schnell-q8"]}}})
    made = pool(http, node(sandbox, name, models=own))
    await made.generate(order(), untouched)
    sandbox.script({"machines": {name: {"lies": ["model"]}}})
    await made.probe()
    error = await failure(made, order())
    assert isinstance(error, Unavailable)
    assert "has no model flux1-schnell-q8, but flux-quite-another" in str(error)
    assert "flux-quite-another" in (await made.check(["flux-schnell"]))[0]
    await made.aclose()


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ("answer_model", "drawn with flux-quite-another instead of flux-schnell"),
        ("format", "jpeg instead of png"),
        ("url", "a link instead of a picture"),
        ("seed", "drawn with seed 1007 instead of 7"),
        ("size", "instead of 256x256"),
        ("count", "2 pictures instead of 1"),
    ],
)
async def test_a_lie_is_a_bad_delivery_that_owes_its_seconds_and_the_node_is_left_alone(
    http: Http, sandbox: Sandbox, lie: str, said: str
) -> None:
    sandbox.script({"machines": {"openai-1": {"lies": [lie]}}})
    made = pool(http, node(sandbox, "openai-1"), quarantine=0.2)
    error = await failure(made, order())
    assert isinstance(error, BadDelivery)
    assert said in str(error)
    assert not isinstance(error.owed, str)
    (line,) = sandbox.invoice()["lines"]
    assert round(error.owed.machine_ns * HOUR / 3.6e12) == line["nano_usd"]
    assert "is left alone" in str(await failure(made, order()))
    sandbox.script({"machines": {"openai-1": {"lies": []}}})
    await until_fit(made, order())
    assert await taken(made) == 0
    await made.aclose()


async def test_a_dead_node_costs_no_order_and_comes_back(http: Http, sandbox: Sandbox) -> None:
    dead = {"name": "dead", "base_url": f"http://127.0.0.1:{closed_port()}"}
    made = pool(http, dead, node(sandbox, "sglang-1", slots=9), probe_every=60)
    await made._awake()
    made._nodes[0].trouble = ""  # it died a moment after it was found well
    drawn = await asyncio.gather(*(made.generate(order(seed=n), untouched) for n in range(4)))
    assert {each.usage.machine for each in drawn} == {"sglang-1"}
    assert "cannot be reached" in made._nodes[0].trouble
    assert await taken(made) == 0
    await made.aclose()


async def test_a_node_killed_while_it_draws_leaves_the_outcome_unknown_and_no_slot_taken(
    http: Http, sandbox: Sandbox
) -> None:
    sandbox.script([{"provider": "selfhosted", "do": "slow", "args": {"seconds": 5}}])
    made = pool(http, node(sandbox, "sglang-1"))
    drawing = asyncio.create_task(made.generate(order(), untouched))
    async with asyncio.timeout(5):
        while not sandbox.stats():  # noqa: ASYNC110 - the sandbox can only be asked
            await asyncio.sleep(0.01)
    sandbox.script({"machines": {"sglang-1": {"state": "killed"}}})
    with pytest.raises(OutcomeUnknown):
        await drawing
    sandbox.script({"rules": [], "machines": {"sglang-1": {"state": "up"}}})
    await until_fit(made, order())
    assert await taken(made) == 0
    assert sandbox.invoice()["total_nano_usd"]["selfhosted"] == sandbox.invoice()["lines"][0]["nano_usd"]
    await made.aclose()


async def test_a_hanging_node_keeps_its_slot_until_it_is_idle_again(http: Http, sandbox: Sandbox) -> None:
    sandbox.script({"machines": {"sglang-1": {"state": "hanging"}}})
    made = pool(http, node(sandbox, "sglang-1"), node(sandbox, "sglang-2"))
    hung = await failure(made, order(limit_s=0.1))
    assert isinstance(hung, TimedOut)
    drawn = [await made.generate(order(seed=n), untouched) for n in range(3)]
    assert {each.usage.machine for each in drawn} == {"sglang-2"}
    await made.probe()
    assert await taken(made) == 1
    sandbox.script({"machines": {"sglang-1": {"state": "up"}}})
    await made.probe()
    assert await taken(made) == 0
    await made.aclose()


async def test_an_order_that_was_called_off_keeps_its_slot_while_the_worker_draws(http: Http, sandbox: Sandbox) -> None:
    sandbox.script([{"provider": "selfhosted", "do": "slow", "args": {"seconds": 0.3}, "when": {"first": 1}}])
    made = pool(http, node(sandbox, "openai-1"), wait=0)
    leaving = asyncio.create_task(made.generate(order(), untouched))
    async with asyncio.timeout(5):
        while not sandbox.stats():  # noqa: ASYNC110 - the sandbox can only be asked
            await asyncio.sleep(0.01)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert isinstance(await failure(made, order()), Overloaded)
    await until_fit(made, order())
    assert await taken(made) == 0
    await made.aclose()


async def test_an_order_waits_for_a_slot_and_says_how_long(http: Http, sandbox: Sandbox) -> None:
    sandbox.script([{"provider": "selfhosted", "do": "slow", "args": {"seconds": 0.2}}])
    made = pool(http, node(sandbox, "sglang-1"))
    first, second = await asyncio.gather(*(made.generate(order(seed=n), untouched) for n in range(2)))
    assert first.queue_s is not None
    assert second.queue_s is not None
    assert second.queue_s >= first.queue_s + 0.15
    await made.aclose()


async def test_a_slot_nobody_can_tell_about_is_given_back_after_a_while(http: Http, sandbox: Sandbox) -> None:
    sandbox.script({"machines": {"sd-server-1": {"state": "hanging"}}})
    made = pool(http, node(sandbox, "sd-server-1"), linger=0.2)
    assert isinstance(await failure(made, order(limit_s=0.05)), TimedOut)
    assert await taken(made) == 1
    sandbox.script({"machines": {"sd-server-1": {"state": "up"}}})
    await until_fit(made, order())
    await made.aclose()


async def test_a_node_that_fails_again_and_again_is_left_alone_until_a_probe(http: Http, sandbox: Sandbox) -> None:
    sandbox.script([{"provider": "selfhosted", "do": "500", "when": {"first": 2}}])
    made = pool(http, node(sandbox, "openai-1"), failures=2, probe_every=60)
    for _ in range(2):
        await failure(made, order())
    assert "failed 2 orders in a row" in str(await failure(made, order()))
    await made.probe()
    await made.generate(order(), untouched)
    await made.aclose()


async def test_a_node_that_refuses_the_key_does_not_close_the_account(http: Http, sandbox: Sandbox) -> None:
    sandbox.script([{"provider": "selfhosted", "do": "401", "when": {"first": 1}}])
    made = pool(http, node(sandbox, "openai-1"), probe_every=60)
    assert isinstance(await failure(made, order()), Unavailable)
    assert "refuses the key" in str(await failure(made, order()))
    await made.aclose()


@pytest.mark.parametrize(("slots", "share"), [(1, 1), (4, 4)])
async def test_a_server_that_tells_no_seconds_costs_a_slots_share_of_the_time_until_its_answer(
    http: Http, sandbox: Sandbox, slots: int, share: int
) -> None:
    sandbox.script([{"provider": "selfhosted", "do": "slow", "args": {"seconds": 0.2}}])
    made = pool(http, node(sandbox, "sd-server-1", slots=slots))
    usage = (await made.generate(order(), untouched)).usage
    assert 0.2e9 <= usage.machine_ns * share <= 2e9
    await made.aclose()


async def test_the_log_of_a_node_names_our_attempts_and_their_cost(http: Http, sandbox: Sandbox) -> None:
    began = datetime.now(UTC)
    made = pool(http, node(sandbox, "sglang-1"), node(sandbox, "openai-1"), usage=True, machine_hour=HOUR)
    assert isinstance(made, MeteredPool)
    sandbox.script([{"provider": "selfhosted", "do": "reset"}])
    lost = order()
    assert (await failure(made, lost)).owed == "unknown"
    (record,) = await made.usage(began, ["flux-schnell"])
    assert (record.request_id, record.endpoint) == (lost.attempt_id, "flux-schnell")
    assert record.nano_usd == sandbox.invoice()["total_nano_usd"]["selfhosted"]
    assert await made.usage(began, ["flux-dev"]) == []
    assert await made.usage(datetime.now(UTC) + timedelta(minutes=1), ["flux-schnell"]) == []
    sandbox.script({"machines": {"openai-1": {"state": "killed"}}})
    with pytest.raises(Unavailable):
        await made.usage(began, ["flux-schnell"])
    await made.aclose()


async def test_a_pool_without_logs_reports_load_and_is_billed_by_nobody(http: Http, sandbox: Sandbox) -> None:
    made = pool(http, node(sandbox, "sglang-1"))
    assert isinstance(made, ReportsLoad)
    assert isinstance(made, BillsNobody)
    assert not isinstance(made, ReportsUsage)
    await made.aclose()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "give either"),
        ({"base_url": "http://a", "nodes": [{"name": "a", "base_url": "http://a"}]}, "give either"),
        ({"nodes": []}, "give either"),
        ({"nodes": [{"name": "a", "base_url": "http://a"}] * 2}, "same name"),
        ({"nodes": [{"name": "a", "base_url": "http://a", "dialect": "klingon"}]}, "sd-server"),
        ({"nodes": [{"name": "a", "base_url": "http://a"}], "usage": True}, "machine_hour"),
    ],
)
def test_bad_settings_are_refused_with_the_fix(settings: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Settings.model_validate(settings)
