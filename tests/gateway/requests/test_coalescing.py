"""Requests that come again, against a gateway and a sandbox: one job, one bill, the same answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.app import App, build
from gateway.errors import IdempotencyKeyReused, NoOffer
from gateway.requests.call import Call
from gateway.requests.coalescing import Coalescing, Repeat, Served, fingerprint
from providers.sandbox import Sandbox, start
from tests.gateway.requests.test_recovery import crash
from tests.support.town import TIME_SCALE, Town, settings, town

FIRST, AGAIN = Repeat(), Repeat(count=1)
KEYED = Repeat(key="order-66")
FAL = frozenset({"fal"})


@pytest.fixture
async def slow(tmp_path: Path) -> AsyncIterator[Town]:
    """A town where fal takes 0.4 s for every picture; whoever leaves has 0.3 s to come back."""
    async with town(tmp_path, orders={"regain": "300ms", "drain": "5s", "timeout": "5s"}) as found:
        draws_slowly(found.sandbox)
        yield found


def draws_slowly(sandbox: Sandbox, seconds: float = 0.4) -> None:
    sandbox.script([{"provider": "fal", "do": "slow", "when": {"share": 1}, "args": {"seconds": seconds}}])


def call(found: Town, body: bytes = b"a lighthouse", *, count: int = 1) -> Call:
    return replace(found.call(only=FAL, count=count), fingerprint=body)


def request(coalescing: Coalescing, wish: Call, repeat: Repeat) -> asyncio.Task[Served]:
    return asyncio.create_task(coalescing.serve(wish, repeat))


async def forsaken(found: Town, repeat: Repeat = FIRST, *, after: float = 0.1) -> asyncio.Task[Served]:
    """A request whose client hung up while its picture was being drawn."""
    task = request(found.app.coalescing, call(found), repeat)
    await asyncio.sleep(after)
    found.app.coalescing.hang_up(task)
    return task


def jobs(found: Town) -> int:
    return len(found.sandbox.invoice()["lines"])


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.floats(allow_nan=False) | st.text(), max_size=5))
def test_equal_bodies_have_equal_fingerprints_in_whatever_order_they_came(body: dict[str, object]) -> None:
    turned = dict(reversed(body.items()))
    assert fingerprint("/v1/images/generations", body) == fingerprint("/v1/images/generations/", turned)
    assert fingerprint("/v1/images/generations", {**body, "more": 1}) != fingerprint("/v1/images/generations", body)
    assert fingerprint("/v1/images/edits", body, b"one") != fingerprint("/v1/images/edits", body, b"two")


async def test_fifty_clients_that_timed_out_and_ask_again_get_the_one_running_order(slow: Town) -> None:
    await forsaken(slow)
    served = await asyncio.gather(*(request(slow.app.coalescing, call(slow), AGAIN) for _ in range(50)))
    assert {each.cache for each in served} == {"joined"}
    assert len({each.delivery.images[0].asset.id for each in served}) == 1
    assert jobs(slow) == 1
    await slow.assert_books_agree()
    assert await slow.charged() == served[0].delivery.charge > 0


async def test_two_equal_first_attempts_are_two_pictures(slow: Town) -> None:
    both = await asyncio.gather(*(request(slow.app.coalescing, call(slow), FIRST) for _ in range(2)))
    assert [each.cache for each in both] == ["miss", "miss"]
    assert jobs(slow) == 2


async def test_each_of_several_equal_calls_is_found_again_by_its_own_repeat(slow: Town) -> None:
    await forsaken(slow, after=0.05)
    await forsaken(slow, after=0.05)
    both = await asyncio.gather(*(request(slow.app.coalescing, call(slow), AGAIN) for _ in range(2)))
    assert len({each.delivery.call_id for each in both}) == 2
    assert jobs(slow) == 2


async def test_a_repeat_with_another_body_or_key_is_another_call(slow: Town) -> None:
    await forsaken(slow)
    other = replace(call(slow).caller, key_id="key_other")
    stranger = replace(call(slow), caller=other)
    served = await asyncio.gather(
        request(slow.app.coalescing, call(slow, b"a heron"), AGAIN), request(slow.app.coalescing, stranger, AGAIN)
    )
    assert [each.cache for each in served] == ["miss", "miss"]


async def test_a_picture_nobody_comes_back_for_is_not_charged(slow: Town) -> None:
    task = await forsaken(slow)
    with pytest.raises(asyncio.CancelledError):
        await task
    await slow.assert_books_agree()
    assert jobs(slow) == 1
    assert await slow.charged() == 0


async def test_a_picture_that_is_ready_while_its_caller_is_away_waits_without_a_slot(tmp_path: Path) -> None:
    async with town(tmp_path, orders={"regain": "20s", "drain": "5s", "timeout": "5s"}) as found:
        draws_slowly(found.sandbox, 0.2)
        await forsaken(found, after=0.1)
        async with asyncio.timeout(10):
            while found.app.admission.in_flight("fal"):  # noqa: ASYNC110 - the gateway has no event for a test to await
                await asyncio.sleep(0.01)
        assert await found.charged() == 0
        served = await request(found.app.coalescing, call(found), AGAIN)
        assert served.cache == "joined"
        await found.assert_books_agree()
        assert await found.charged() == served.delivery.charge > 0


async def test_what_fails_fails_for_all_who_joined(slow: Town) -> None:
    wish = replace(call(slow), constraints=replace(call(slow).constraints, only=frozenset({"nobody"})))
    first = request(slow.app.coalescing, wish, FIRST)
    again = request(slow.app.coalescing, wish, AGAIN)
    for task in (first, again):
        with pytest.raises(NoOffer):
            await task


async def test_one_idempotency_key_is_one_call_however_often_it_is_sent(slow: Town) -> None:
    wish = call(slow, count=2)
    served = await asyncio.gather(*(request(slow.app.coalescing, wish, KEYED) for _ in range(50)))
    later = await slow.app.coalescing.serve(call(slow, count=2), KEYED)
    assert sorted({each.cache for each in served}) == ["joined", "miss"]
    assert later.cache == "hit"
    assert [p.asset.id for p in later.delivery.images] == [p.asset.id for p in served[0].delivery.images]
    assert later.delivery.images[0].data == served[0].delivery.images[0].data
    assert (later.delivery.charge, later.delivery.policy) == (served[0].delivery.charge, served[0].delivery.policy)
    assert jobs(slow) == 2
    await slow.assert_books_agree()


async def test_an_idempotency_key_with_another_body_is_refused_while_it_runs_and_afterwards(slow: Town) -> None:
    running = request(slow.app.coalescing, call(slow), KEYED)
    await asyncio.sleep(0.05)
    for _ in range(2):
        with pytest.raises(IdempotencyKeyReused, match="'order-66' was first used with another body"):
            await slow.app.coalescing.serve(call(slow, b"a heron"), KEYED)
        await running
    assert jobs(slow) == 1


async def test_the_call_of_an_idempotency_key_goes_on_without_its_caller_and_is_charged(slow: Town) -> None:
    served = await (await forsaken(slow, KEYED))
    assert (await slow.app.coalescing.serve(call(slow), KEYED)).delivery.call_id == served.delivery.call_id
    assert await slow.charged() == served.delivery.charge > 0


async def test_teams_do_not_share_idempotency_keys(slow: Town) -> None:
    await slow.app.coalescing.serve(call(slow), KEYED)
    theirs = replace(call(slow, b"a heron"), caller=replace(call(slow).caller, team="other"))
    assert (await slow.app.coalescing.serve(theirs, KEYED)).cache == "miss"


async def test_a_key_whose_call_came_to_nothing_is_free_again(slow: Town) -> None:
    nobody = replace(call(slow, b"x"), constraints=replace(call(slow).constraints, only=frozenset({"nobody"})))
    with pytest.raises(NoOffer):
        await slow.app.coalescing.serve(nobody, KEYED)
    assert (await slow.app.coalescing.serve(call(slow), KEYED)).cache == "miss"


async def test_a_key_is_forgotten_after_a_day(slow: Town) -> None:
    await slow.app.coalescing.serve(call(slow), KEYED)
    await slow.app.db.drop_idempotency(slow.app.clock.utc() - timedelta(seconds=1))
    assert (await slow.app.coalescing.serve(call(slow), KEYED)).cache == "hit"
    await slow.app.db.drop_idempotency(slow.app.clock.utc() + timedelta(seconds=1))
    assert (await slow.app.coalescing.serve(call(slow, b"a heron"), KEYED)).cache == "miss"


async def restarted(
    folder: Path, sandbox: Sandbox, repeat: Repeat, *, after: float = 0.15, count: int = 1, regain: str = "20s"
) -> Town:
    """A gateway on the state of one that was killed while a call was under way."""
    first = await build(settings(folder, sandbox.url))
    await first.start()
    dead = Town(first, sandbox)
    serving = request(first.coalescing, call(dead, count=count), repeat)
    await asyncio.sleep(after)
    await crash(first)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    return Town(await revive(folder, sandbox, regain), sandbox)


async def revive(folder: Path, sandbox: Sandbox, regain: str = "20s") -> App:
    orders = {"timeout": "5s", "least_patience": "1s", "linger": "200ms", "drain": "5s", "regain": regain}
    app = await build(settings(folder, sandbox.url, orders=orders))
    await app.start()
    return app


@pytest.mark.parametrize("repeats", [(FIRST, AGAIN), (KEYED, KEYED)], ids=["numbered", "keyed"])
async def test_after_a_kill_fifty_repeats_get_the_order_that_was_found_under_way(
    tmp_path: Path, repeats: tuple[Repeat, Repeat]
) -> None:
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        draws_slowly(sandbox, 0.6)
        found = await restarted(tmp_path, sandbox, repeats[0])
        tasks = [request(found.app.coalescing, call(found), repeats[1]) for _ in range(50)]
        served = await asyncio.gather(*tasks)
        assert len({each.delivery.images[0].asset.id for each in served}) == 1
        assert jobs(found) == 1
        await found.assert_books_agree()
        assert await found.charged() == served[0].delivery.charge > 0
        await found.app.stop()


@pytest.mark.parametrize("repeats", [(FIRST, AGAIN), (KEYED, KEYED)], ids=["numbered", "keyed"])
async def test_a_picture_that_was_charged_before_the_kill_is_not_drawn_again_after_it(
    tmp_path: Path, repeats: tuple[Repeat, Repeat]
) -> None:
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        first = await build(settings(tmp_path, sandbox.url))
        await first.start()
        before = await first.coalescing.serve(call(Town(first, sandbox)), repeats[0])
        await crash(first)
        found = Town(await revive(tmp_path, sandbox), sandbox)
        after = await found.app.coalescing.serve(call(found), repeats[1])
        assert after.cache == "hit"
        assert after.delivery.images[0].data == before.delivery.images[0].data
        assert jobs(found) == 1
        await found.assert_books_agree()
        await found.app.stop()


async def test_after_a_kill_what_is_ready_is_kept_and_only_the_rest_is_drawn(tmp_path: Path) -> None:
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        sandbox.script([{"provider": "fal", "do": "slow", "when": {"every": 2}, "args": {"seconds": 0.6}}])
        found = await restarted(tmp_path, sandbox, FIRST, after=0.3, count=3)
        served = await found.app.coalescing.serve(call(found, count=3), AGAIN)
        assert [picture.asset.index for picture in served.delivery.images] == [0, 1, 2]
        assert jobs(found) == 3
        await found.assert_books_agree()
        assert await found.charged() == served.delivery.charge
        await found.app.stop()


async def test_an_order_found_under_way_that_nobody_asks_for_costs_its_team_nothing(tmp_path: Path) -> None:
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        draws_slowly(sandbox, 0.3)
        found = await restarted(tmp_path, sandbox, FIRST, regain="500ms")
        await found.assert_books_agree()
        assert jobs(found) == 1
        assert await found.charged() == 0
        await found.app.stop()
