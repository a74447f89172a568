"""Calls that wait at the gateway for sellers with few slots: who goes first, who is sent away, who pays."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from msgspec.structs import replace

from gateway.app import build
from gateway.cli import listening
from gateway.errors import DeadlinePassed, NoCapacity, NotReady
from gateway.keys import make_key
from gateway.requests.call import Call, Delivery, in_batch
from gateway.requests.coalescing import Repeat
from gateway.revisions import load_revision
from gateway.settings import read_pepper
from policies.types import Worth
from providers.sandbox import start
from tests.support.town import TIME_SCALE, Town, settings

WORTH = {"preview": Worth(failure=10_000_000), "export": Worth(failure=50_000_000)}
ORDERS = {"timeout": "20s", "least_patience": "20s", "linger": "200ms", "drain": "5s"}


@asynccontextmanager
async def short_of_room(
    folder: Path,
    *,
    slots: int = 1,
    accounts: tuple[str, ...] = ("fal",),
    priority: float | None = None,
    max_waiting: int = 1_000,
    max_wait: float = 30.0,
    regain: str = "30s",
) -> AsyncIterator[Town]:
    """A town whose sellers are fal alone, each account with so few slots, and no second orders.

    `priority`: of every intent, instead of the shipped ones.
    """
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        sandbox.script({"limits": {"fal": {"concurrency": slots}}, "rules": []})
        terms = settings(folder, sandbox.url, ("fal",), orders={**ORDERS, "regain": regain})
        fal = terms.accounts["fal"]
        sold = {name: fal.model_copy(update={"concurrency": slots, "key": f"sandbox-{name}"}) for name in accounts}
        terms = terms.model_copy(update={"accounts": sold})
        revision = load_revision(terms)
        policy = revision.policy
        intents = {
            name: intent if priority is None else replace(intent, priority=priority)
            for name, intent in policy.intents.items()
        }
        quiet = replace(policy.hedging, enabled=False)
        policy = replace(policy, hedging=quiet, intents=intents, max_waiting=max_waiting, max_wait=max_wait)
        app = await build(terms, replace(revision, policy=policy))
        await app.start()
        try:
            yield Town(app, sandbox)
        finally:
            await app.stop()


def wish(t: Town, intent: str = "preview") -> Call:
    call = t.call(models=frozenset({"flux-schnell"}))
    return replace(call, intent=intent, worth=WORTH[intent])


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - whatever it is, it has no event for a test to await
            await asyncio.sleep(0.005)


class Line:
    """The slot taken by an order of a second and a half, and calls that come after it."""

    def __init__(self, t: Town) -> None:
        self.t = t
        self.tasks: dict[str, asyncio.Task[Delivery]] = {}
        self.calls: dict[str, Call] = {}

    async def begin(self) -> None:
        """Take the slot."""
        self.t.sandbox.script([{"provider": "fal", "do": "slow", "when": {"first": 1}, "args": {"seconds": 1.5}}])
        self._send("first", wish(self.t))
        await until(lambda: self.t.app.admission.in_flight("fal") == 1)

    async def comes(self, name: str, intent: str = "preview", *, batch: bool = False) -> asyncio.Task[Delivery]:
        """One more call; back when it waits or is over."""
        before = len(self.t.app.waiting)
        call = wish(self.t, intent)
        task = self._send(name, in_batch(call) if batch else call)
        await until(lambda: len(self.t.app.waiting) > before or task.done() or any(self._failed()))
        return task

    def _failed(self) -> list[bool]:
        return [task.done() and task.exception() is not None for task in self.tasks.values()]

    def _send(self, name: str, call: Call) -> asyncio.Task[Delivery]:
        self.calls[name] = call
        task = self.tasks[name] = asyncio.create_task(self.t.app.pipeline.serve(call))
        return task

    async def ordered(self) -> list[str]:
        """Whoever got the slot, by when: what is delivered first may have been drawn second."""
        started = {name: await self.t.attempts(call) for name, call in self.calls.items()}
        began = {name: min(row.started for row in rows) for name, rows in started.items() if rows}
        return sorted(began, key=began.__getitem__)

    async def end(self) -> int:
        """Wait for everybody; what the delivered were charged."""
        ends = await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        return sum(each.charge for each in ends if isinstance(each, Delivery))


async def test_room_goes_to_calls_of_higher_priority_first_and_among_equals_to_the_first_that_came(
    tmp_path: Path,
) -> None:
    async with short_of_room(tmp_path) as t:
        line = Line(t)
        await line.begin()
        for name, intent in (("export 1", "export"), ("export 2", "export"), ("preview 1", "preview")):
            await line.comes(name, intent)
        await line.comes("preview 2")
        charged = await line.end()
        assert await line.ordered() == ["first", "preview 1", "preview 2", "export 1", "export 2"]
        assert t.limits_broken("fal") == 0
        await t.assert_books_agree()
        assert await t.charged() == charged


async def test_a_call_of_higher_priority_is_not_turned_away_because_of_a_long_line_it_passes(tmp_path: Path) -> None:
    async with short_of_room(tmp_path, max_wait=6.0) as t:
        line = Line(t)
        await line.begin()
        for number in range(30):
            await line.comes(f"export {number}", "export")
        preview = await line.comes("preview")
        assert (await preview).images
        for task in line.tasks.values():
            task.cancel()
        await line.end()
        assert (await line.ordered())[:2] == ["first", "preview"]
        await t.assert_books_agree()


async def test_a_call_that_a_budget_put_back_goes_after_those_that_come_later(tmp_path: Path) -> None:
    async with short_of_room(tmp_path, priority=0.0) as t:
        line = Line(t)
        await line.begin()
        await line.comes("put back", batch=True)
        await line.comes("later")
        await line.comes("later still")
        await line.end()
        assert await line.ordered() == ["first", "later", "later still", "put back"]
        await t.assert_books_agree()


async def test_a_policy_without_priorities_serves_in_the_order_of_coming(tmp_path: Path) -> None:
    async with short_of_room(tmp_path, priority=0.0) as t:
        line = Line(t)
        await line.begin()
        for name, intent in (("export", "export"), ("preview", "preview"), ("another export", "export")):
            await line.comes(name, intent)
        await line.end()
        assert await line.ordered() == ["first", "export", "preview", "another export"]


async def test_with_all_places_taken_the_call_of_least_worth_is_told_when_to_come_back(tmp_path: Path) -> None:
    async with short_of_room(tmp_path, max_waiting=2) as t:
        line = Line(t)
        await line.begin()
        await line.comes("export", "export")
        preview = await line.comes("preview")
        await line.comes("another export", "export")
        with pytest.raises(NoCapacity, match="2 calls wait for room already") as caught:
            await preview
        assert caught.value.retry_after is not None
        assert 1.0 <= caught.value.retry_after <= 60.0
        late = await line.comes("a late preview")
        with pytest.raises(NoCapacity):
            await late
        charged = await line.end()
        assert await line.ordered() == ["first", "export", "another export"]
        await t.assert_books_agree()
        assert await t.charged() == charged == 3 * 3_000_000


async def test_a_caller_who_leaves_the_line_is_neither_drawn_for_nor_billed(tmp_path: Path) -> None:
    async with short_of_room(tmp_path) as t:
        line = Line(t)
        await line.begin()
        leaver = await line.comes("leaver")
        await line.comes("stayer")
        leaver.cancel()
        await until(lambda: len(t.app.waiting) == 1)
        assert t.app.admission.waiting("fal") == 1
        charged = await line.end()
        assert await line.ordered() == ["first", "stayer"]
        await t.assert_books_agree()
        assert await t.charged() == charged == 2 * 3_000_000


async def forsaken_in_line(t: Town) -> tuple[Line, Call]:
    """A call whose client, of the kind that repeats, hung up while it waited; the slot is free again."""
    line = Line(t)
    await line.begin()
    call = replace(wish(t), fingerprint=b"a lighthouse")
    task = asyncio.create_task(t.app.coalescing.serve(call, Repeat()))
    await until(lambda: len(t.app.waiting) == 1)
    t.app.coalescing.hang_up(task)
    await line.end()
    await asyncio.sleep(0.6)
    assert len(t.sandbox.invoice()["lines"]) == 1, "nothing is ordered for a caller who is away"
    return line, call


async def test_a_caller_who_hung_up_in_line_and_comes_back_is_drawn_for_then(tmp_path: Path) -> None:
    async with short_of_room(tmp_path) as t:
        _, call = await forsaken_in_line(t)
        served = await t.app.coalescing.serve(call, Repeat(count=1))
        assert served.cache == "joined"
        await t.assert_books_agree()
        assert await t.charged() == 2 * 3_000_000


async def test_a_caller_who_hung_up_in_line_and_stays_away_costs_nobody_anything(tmp_path: Path) -> None:
    async with short_of_room(tmp_path, regain="3s") as t:
        await forsaken_in_line(t)
        await until(lambda: len(t.app.waiting) == 0)
        await t.assert_books_agree()
        assert t.invoiced() == {"fal": 3_000_000}
        assert await t.charged() == 3_000_000


async def test_a_caller_who_leaves_while_money_is_set_aside_leaves_no_slot_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with short_of_room(tmp_path) as t:
        asked = asyncio.Event()

        async def never(*_: object) -> None:
            asked.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(t.app.ledger, "hold", never)
        task = asyncio.create_task(t.app.pipeline.serve(wish(t)))
        await asked.wait()
        assert t.app.admission.in_flight("fal") == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert t.app.admission.in_flight("fal") == 0


async def test_who_waits_when_the_gateway_stops_is_told_so_and_what_is_under_way_is_delivered(tmp_path: Path) -> None:
    async with short_of_room(tmp_path) as t:
        line = Line(t)
        await line.begin()
        waits = await line.comes("waits")
        t.app.leaving()
        with pytest.raises(NotReady, match="stopping") as caught:
            await waits
        assert caught.value.retry_after == 1.0
        await line.end()
        assert await line.ordered() == ["first"]
        await t.assert_books_agree()


async def test_at_the_door_who_waits_hears_of_the_end_at_once_and_who_is_drawn_for_gets_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_tolerate_signals", lambda: None)  # the signals are those of the tests
    async with short_of_room(tmp_path) as t:
        row, key = make_key(read_pepper(t.app.settings), team="acme", name="door", created=datetime.now(UTC))
        await t.app.db.add_key(row)
        await t.app.keys.refresh()
        t.sandbox.script([{"provider": "fal", "do": "slow", "when": {"first": 1}, "args": {"seconds": 1.5}}])
        socket = listening.bind("127.0.0.1", 0)
        base = f"http://127.0.0.1:{socket.getsockname()[1]}"
        answers: list[asyncio.Task[tuple[int, Mapping[str, str], bytes]]] = []

        async def ask(session: aiohttp.ClientSession) -> tuple[int, Mapping[str, str], bytes]:
            body = {"model": "flux-schnell", "prompt": "a lighthouse", "size": "512x512"}
            async with session.post("/v1/images/generations", json=body) as answer:
                return answer.status, answer.headers, await answer.read()

        async def work() -> bool:
            answers.append(asyncio.create_task(ask(session)))
            await until(lambda: t.app.admission.in_flight("fal") == 1)
            answers.append(asyncio.create_task(ask(session)))
            await until(lambda: len(t.app.waiting) == 1)
            return True

        async with aiohttp.ClientSession(base, headers={"authorization": f"Bearer {key}"}) as session:
            await listening.serve_uvicorn(t.app.asgi, socket, 5.0, work, t.app.leaving)
            drawn, waited = await asyncio.gather(*answers)
        assert drawn[0] == 200
        assert (waited[0], waited[1]["retry-after"], waited[1]["retry-after-ms"]) == (503, "1", "1000")
        assert json.loads(waited[2])["error"]["code"] == "not_ready"


async def test_a_call_of_several_pictures_keeps_what_it_has_when_the_rest_is_sent_away(tmp_path: Path) -> None:
    async with short_of_room(tmp_path, max_waiting=1) as t:
        t.sandbox.script([{"provider": "fal", "do": "slow", "when": {"first": 1}, "args": {"seconds": 1.5}}])
        several = t.call(models=frozenset({"flux-schnell"}), count=3)
        task = asyncio.create_task(t.app.pipeline.serve(replace(several, worth=WORTH["preview"])))
        await until(lambda: len(t.app.waiting) == 1)
        export = asyncio.create_task(t.app.pipeline.serve(wish(t, "export")))
        delivery = await task
        assert len(delivery.images) == 1
        assert await t.charged() in {delivery.charge, delivery.charge + (await export).charge}
        await t.assert_books_agree()
        assert await t.charged() == delivery.charge + export.result().charge


async def test_two_hundred_calls_at_once_on_four_slots_each_break_no_limit_and_no_book(tmp_path: Path) -> None:
    async with short_of_room(tmp_path, slots=4, accounts=("fal", "eu"), max_waiting=150) as t:
        calls = [wish(t, "export" if number % 4 == 0 else "preview") for number in range(200)]
        ends = await asyncio.gather(*(t.app.pipeline.serve(call) for call in calls), return_exceptions=True)
        kinds = Counter(type(end) for end in ends)
        assert kinds.keys() <= {Delivery, NoCapacity, DeadlinePassed}, kinds
        assert kinds[Delivery] >= 50
        sent_away = [end for end in ends if isinstance(end, NoCapacity)]
        assert len(sent_away) >= 40, "there are 150 places and 8 slots"
        assert all(1.0 <= (error.retry_after or 0.0) <= 60.0 for error in sent_away)
        assert t.limits_broken("fal") == t.limits_broken("eu", "fal") == 0
        await t.assert_books_agree()
        assert await t.charged() == sum(end.charge for end in ends if isinstance(end, Delivery))
        assert len(t.app.waiting) == 0
