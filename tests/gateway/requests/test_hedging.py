"""A second order beside one that takes long, as the engine in force places it: one picture, one charge, two bills."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.app import build, cost_engine
from gateway.keys import make_key
from gateway.requests.call import Call, Caller
from gateway.requests.coalescing import Repeat
from gateway.requests.orders import RunningOrder
from policies.types import Candidate, Decision, Submit, Worth
from providers.contract import Image
from providers.sandbox import Sandbox, start
from tests.gateway.requests.test_recovery import crash
from tests.support.town import TIME_SCALE, ScriptedEngine, Step, Town, settings, town

PATIENT = {"timeout": "15s", "least_patience": "10s", "linger": "200ms", "drain": "5s"}
"""Orders are given up late: on a busy machine an SDK alone takes seconds to load."""
IN_A_HURRY = Worth(late=100_000_000, failure=300_000_000)


def hurried(t: Town, **wishes: object) -> Call:
    """A preview that is worth a dime in time, and is late after 1.3 s: time for a second order, by the forecasts."""
    call = t.call(**{"slo": 1.3, "deadline": 20.0, "models": frozenset({"flux-schnell"}), **wishes})  # type: ignore[arg-type]
    return replace(call, worth=IN_A_HURRY)


def hangs(sandbox: Sandbox, *sellers: str, seconds: float = 2.0) -> None:
    """These sellers take so long from now on."""
    args = {"seconds": seconds}
    sandbox.script([{"provider": each, "do": "slow", "when": {"share": 1}, "args": args} for each in sellers])


@asynccontextmanager
async def opened(folder: Path, *sellers: str) -> AsyncIterator[Town]:
    """A town with the engine in force, where each seller has been asked before and has room for the next order."""
    async with town(folder, cost_engine, sellers, orders=PATIENT) as t:
        await asyncio.gather(*(t.app.pipeline.serve(t.call(only=frozenset({seller}))) for seller in sellers))
        for capacity in t.app.revision.catalog.capacities:
            while (seconds := t.app.engine.room(capacity, 0, t.app.clock.now())) > 0:  # noqa: ASYNC110 - it is known when
                await asyncio.sleep(seconds)
        yield t


async def paid(t: Town, call: Call) -> dict[str, tuple[int, int]]:
    """Account -> what we owe it for a call, and what the team is charged."""
    return {row.account: (row.cost, row.charge) for row in await t.attempts(call)}


async def test_a_slow_order_is_overtaken_and_both_are_booked_while_the_team_pays_once(tmp_path: Path) -> None:
    """Together answers in one request, so an order there cannot be called off: it ends, and we pay for it."""
    async with opened(tmp_path, "fal", "together") as t:
        hangs(t.sandbox, "together")
        call = hurried(t)
        delivery = await t.app.pipeline.serve(call)
        assert delivery.offers == ("fal:flux-schnell",)
        await t.assert_books_agree()
        assert await paid(t, call) == {"together": (707_789, 0), "fal": (3_000_000, 3_000_000)}
        assert delivery.charge == 3_000_000


async def test_a_loser_that_can_be_called_off_costs_nobody_anything(tmp_path: Path) -> None:
    async with opened(tmp_path, "replicate", "together") as t:
        hangs(t.sandbox, "replicate", seconds=30.0)
        call = hurried(t, order=("replicate",))
        delivery = await t.app.pipeline.serve(call)
        assert delivery.offers == ("together:flux-schnell",)
        await t.assert_books_agree()
        assert await paid(t, call) == {"replicate": (0, 0), "together": (707_789, 707_789)}


async def test_in_a_storm_of_slow_and_failing_orders_every_call_is_charged_for_one_picture(tmp_path: Path) -> None:
    async with opened(tmp_path, "fal", "together") as t:
        before = await t.charged()
        t.sandbox.script(
            [
                {"provider": "together", "do": "slow", "when": {"share": 0.4}, "args": {"seconds": 2}},
                {"provider": "fal", "do": "black", "when": {"share": 0.2}},
                {"provider": "fal", "do": "reset", "when": {"share": 0.1}},
            ]
        )
        calls = [hurried(t) for _ in range(30)]
        ends = await asyncio.gather(*(t.app.pipeline.serve(call) for call in calls), return_exceptions=True)
        deliveries = [end for end in ends if not isinstance(end, BaseException)]
        assert sum(delivery.attempts > 1 for delivery in deliveries) > 0
        assert all(len(delivery.images) == 1 for delivery in deliveries)
        await t.settled()
        await asyncio.sleep(1.2)
        await t.app.recovery.sweep()  # what was cut off is looked up
        await t.assert_books_agree()
        assert await t.charged() - before == sum(delivery.charge for delivery in deliveries)


async def killed_while_hedging(folder: Path, sandbox: Sandbox, repeat: Repeat) -> Town:
    """A second gateway on the state of one that died with an order at fal and one at together for the same picture."""
    first = await build(settings(folder, sandbox.url))
    await first.start()
    dead = Town(first, sandbox)
    call = replace(hurried(dead), fingerprint=b"a lighthouse")
    serving = asyncio.create_task(first.coalescing.serve(call, repeat))
    async with asyncio.timeout(10):
        while not {"fal", "together"} <= sandbox.stats().keys():  # noqa: ASYNC110 - the sandbox tells nobody
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
    await crash(first)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    orders = {"timeout": "5s", "least_patience": "1s", "linger": "200ms", "drain": "5s", "regain": "3s"}
    second = await build(settings(folder, sandbox.url, orders=orders))
    await second.start()
    return Town(second, sandbox)


async def test_a_kill_between_the_second_order_and_the_end_loses_neither(tmp_path: Path) -> None:
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        hangs(sandbox, "fal", "together", seconds=2.0)
        t = await killed_while_hedging(tmp_path, sandbox, Repeat())
        await t.settled()
        await asyncio.sleep(1.0)
        await t.app.recovery.sweep()
        await t.assert_books_agree()
        assert t.invoiced() == {"fal": 3_000_000, "together": 707_789}
        assert await t.charged() == 0
        await t.app.stop()


async def test_a_repeat_after_such_a_kill_gets_one_picture_and_is_charged_once(tmp_path: Path) -> None:
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        hangs(sandbox, "fal", "together", seconds=2.0)
        t = await killed_while_hedging(tmp_path, sandbox, Repeat(key="order-66"))
        again = replace(hurried(t), fingerprint=b"a lighthouse")
        served = await t.app.coalescing.serve(again, Repeat(key="order-66"))
        assert len(served.delivery.images) == 1
        await t.settled()
        await asyncio.sleep(1.0)
        await t.app.recovery.sweep()
        await t.assert_books_agree()
        assert await t.charged() == served.delivery.charge == 3_000_000
        await t.app.stop()


async def test_a_budget_that_has_no_room_for_a_second_order_leaves_the_first_alone(tmp_path: Path) -> None:
    ranked: list[Candidate] = []

    def first(decision: Decision, now: float) -> Decision:
        ranked.extend(decision.ranked)
        return replace(decision, move=Submit(decision.ranked[0], now))

    def second(decision: Decision, now: float) -> Decision:
        return replace(decision, move=Submit(ranked[1]))

    engine = ScriptedEngine([first, second])
    async with town(tmp_path, engine.over, orders=PATIENT) as t:
        hangs(t.sandbox, "together", seconds=0.4)
        row, _ = make_key(b"", team="acme", name="poor", created=datetime.now(UTC), budget=1_000_000)
        await t.app.db.add_key(row)
        delivery = await t.app.pipeline.serve(t.call(caller=Caller(key_id=row.id, team="acme")))
        assert engine.reasons[:2] == ["new", "wake"]
        assert delivery.offers == ("together:flux-schnell",)
        await t.assert_books_agree()
        assert await t.charged() == delivery.charge == 707_789


@pytest.mark.parametrize("loser", ["fal", "together"])
async def test_whichever_order_comes_second_is_not_charged(tmp_path: Path, loser: str) -> None:
    def both(decision: Decision, now: float) -> Decision:
        return replace(decision, move=Submit(decision.ranked[0], now))

    def beside(decision: Decision, now: float) -> Decision:
        elsewhere = next(each for each in decision.ranked if each.offer.account == "fal")
        return replace(decision, move=Submit(elsewhere))

    async with town(tmp_path, ScriptedEngine([both, beside]).over, orders=PATIENT) as t:
        hangs(t.sandbox, loser, seconds=4.0)
        call = t.call()
        delivery = await t.app.pipeline.serve(call)
        assert not delivery.offers[0].startswith(loser)
        await t.assert_books_agree()
        cost, charge = (await paid(t, call))[loser]
        assert cost > charge == 0
        assert await t.charged() == delivery.charge


def at(account: str, *, wakes: bool = False) -> Step:
    """Order there, and look again at once."""

    def move(decision: Decision, now: float) -> Decision:
        best = next(each for each in decision.ranked if each.offer.account == account)
        return replace(decision, move=Submit(best, now if wakes else None))

    return move


async def test_a_second_order_is_not_sent_when_the_first_was_good_while_its_money_was_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ScriptedEngine([at("together", wakes=True), at("replicate"), at("fal")])
    async with town(tmp_path, engine.over, ("fal", "together", "replicate"), orders=PATIENT) as t:
        hangs(t.sandbox, "replicate", seconds=3.0)  # the call goes on for its second picture
        call = t.call(count=2)
        hold = t.app.ledger.hold

        async def slow(*wanted: object) -> object:
            while engine.reasons[:3] == ["new", "new", "wake"] and not any(  # noqa: ASYNC110 - the books tell no event
                row.state == "settled" for row in await t.attempts(call)
            ):
                await asyncio.sleep(0.01)
            return await hold(*wanted)  # type: ignore[arg-type]

        monkeypatch.setattr(t.app.ledger, "hold", slow)
        delivery = await t.app.pipeline.serve(call)
        assert len(delivery.images) == 2
        await t.assert_books_agree()
        ends = {row.account: (row.state, row.ticket is not None) for row in await t.attempts(call)}
        assert ends == {"together": ("settled", True), "replicate": ("settled", True), "fal": ("released", False)}
        assert await t.charged() == delivery.charge


async def test_an_order_that_brings_too_few_leaves_no_rival_to_bring_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rival was to draw all three, and ends before the order for what is missing; nobody wants it any more."""

    async def shown(order: RunningOrder, _: Image) -> bool:
        unseen = order.candidate.offer.account != "together" or order.plan.request.count < 3 or order in once
        once.append(order)
        return unseen

    once: list[RunningOrder] = []
    monkeypatch.setattr(RunningOrder, "_may_be_shown", shown)
    engine = ScriptedEngine([at("fal", wakes=True), at("together"), at("together")])
    async with town(tmp_path, engine.over, orders=PATIENT) as t:
        policy = replace(t.app.revision.policy, images_per_order=3)
        t.app.adopt(t.app.settings, replace(t.app.revision, policy=policy))
        t.sandbox.script(
            [
                {"provider": "fal", "do": "slow", "when": {"share": 1}, "args": {"seconds": 1.5}},
                {"provider": "together", "do": "slow", "when": {"first": 1}, "args": {"seconds": 0.1}},
                {"provider": "together", "do": "slow", "when": {"share": 1}, "args": {"seconds": 4.0}},
            ]
        )
        call = t.call(count=3)
        delivery = await t.app.pipeline.serve(call)
        assert len(delivery.images) == 3
        assert set(delivery.offers) == {"together:flux-schnell"}
        await t.assert_books_agree()
        assert await t.charged() == delivery.charge
