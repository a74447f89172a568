from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from gateway.errors import ContentPolicy, NotReady
from providers.contract import Head, Input
from tests.support.town import Town, town

PATIENT = {"timeout": "60s", "least_patience": "60s", "linger": "200ms", "drain": "5s"}
Answers = Callable[[dict[str, str]], web.Response]


def allow(_: dict[str, str]) -> web.Response:
    return web.json_response({"allow": True})


def refuse(_: dict[str, str]) -> web.Response:
    return web.json_response({"allow": False, "reason": "no lighthouses"})


class Hook:
    """A content check whose answers a test decides."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answer: Answers = allow
        self.delay = 0.0

    async def take(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json())
        await asyncio.sleep(self.delay)
        return self.answer(self.asked[-1])


@asynccontextmanager
async def hooked(folder: Path, **terms: object) -> AsyncIterator[tuple[Town, Hook]]:
    hook, app = Hook(), web.Application()
    app.router.add_post("/check", hook.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/check"
    try:
        async with town(folder, orders=PATIENT, content_hook={"url": url, "timeout": "500ms", **terms}) as found:
            yield found, hook
    finally:
        await runner.cleanup()


async def test_an_allowed_prompt_is_drawn_and_the_hook_knows_for_whom(tmp_path: Path) -> None:
    async with hooked(tmp_path) as (found, hook):
        call = found.call(prompt="a lighthouse")
        await found.app.pipeline.serve(call)
        (asked,) = hook.asked
        assert (asked["stage"], asked["prompt"], asked["team"]) == ("before", "a lighthouse", "acme")
        assert (asked["call"], asked["operation"]) == (call.id, "generate")


async def test_a_refused_prompt_is_never_ordered(tmp_path: Path) -> None:
    async with hooked(tmp_path) as (found, hook):
        hook.answer = refuse
        with pytest.raises(ContentPolicy, match="refuses this prompt: no lighthouses"):
            await found.app.pipeline.serve(found.call())
        assert found.invoiced() == {}
        await found.assert_books_agree()


@pytest.mark.parametrize("shown", [True, False])
async def test_the_hook_sees_what_is_to_be_edited_before_it_is_ordered(tmp_path: Path, *, shown: bool) -> None:
    async with hooked(tmp_path, inputs=shown) as (found, hook):
        hook.answer = refuse
        given = Input(b"a picture", Head("png", 8, 8))
        with pytest.raises(ContentPolicy):
            await found.app.pipeline.serve(replace(found.call(), inputs=(given,), mask=given))
        picture = {"media_type": "image/png", "b64_json": base64.b64encode(given.data).decode()}
        assert hook.asked[0].get("inputs") == ([picture, picture] if shown else None)
        assert found.invoiced() == {}


async def test_a_refused_picture_is_ours_to_pay_and_not_drawn_elsewhere(tmp_path: Path) -> None:
    async with hooked(tmp_path, before=False, after=True) as (found, hook):
        hook.answer = refuse
        with pytest.raises(ContentPolicy):
            await found.app.pipeline.serve(found.call())
        assert [each["stage"] for each in hook.asked] == ["after"]
        assert hook.asked[0]["media_type"] in {"image/png", "image/jpeg"}
        await found.assert_books_agree()
        assert sum(found.invoiced().values()) > 0
        assert await found.charged() == 0
        assert list((tmp_path / "assets").rglob("*.*")) == []


FAILURES: dict[str, Answers] = {
    "status": lambda _: web.Response(status=500),
    "no verdict": lambda _: web.json_response({"allowed": True}),
    "no JSON": lambda _: web.Response(text="yes"),
}


@pytest.mark.parametrize("failure", [*FAILURES, "late"])
@pytest.mark.parametrize("stage", ["before", "after"])
async def test_a_hook_that_fails_closes_or_opens_the_door_as_it_is_told(
    tmp_path: Path, failure: str, stage: str
) -> None:
    for on_failure in ("refuse", "allow"):
        terms = {"before": stage == "before", "after": stage == "after", "on_failure": on_failure}
        async with hooked(tmp_path / on_failure, **terms) as (found, hook):
            hook.answer, hook.delay = FAILURES.get(failure, allow), 1.5 if failure == "late" else 0.0
            if on_failure == "allow":
                await found.app.pipeline.serve(found.call())
            else:
                with pytest.raises(NotReady, match="content check"):
                    await found.app.pipeline.serve(found.call())
                assert await found.charged() == 0
            await found.assert_books_agree()
