"""schemathesis reads our own document and asks for everything in it, rightly and wrongly, of a whole gateway."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self, TypeAlias

import msgspec
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from gateway.http.openapi import document
from gateway.keys import make_key
from gateway.settings import read_pepper
from tests.support.town import town

CAREFULLY = settings(
    max_examples=15, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
"""The same cases on every run."""


class Place:
    """A gateway on a port, in a thread of its own: schemathesis calls it as any client would, and waits."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._loop: asyncio.AbstractEventLoop
        self._down: asyncio.Event
        self.base = ""
        self.key = ""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._down.set)
        self._thread.join(30)

    async def _run(self) -> None:
        self._loop, self._down = asyncio.get_running_loop(), asyncio.Event()
        async with AsyncExitStack() as stack:
            place = await stack.enter_async_context(town(self._folder))
            row, self.key = make_key(
                read_pepper(place.app.settings), team="acme", name="fuzz", created=place.app.clock.utc()
            )
            await place.app.db.add_key(row)
            await place.app.keys.refresh()
            config = uvicorn.Config(place.app.asgi, port=0, lifespan="off", ws="none", log_config=None)
            server = uvicorn.Server(config)
            config.load()
            server.lifespan = config.lifespan_class(config)
            await server.startup()
            self.base = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
            self._up.set()
            await self._down.wait()
            await server.shutdown()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with Place(tmp_path_factory.mktemp("fuzzed")) as built:
        yield built


SURFACE = schemathesis.openapi.from_dict(msgspec.json.decode(document()))
OPERATIONS = {found.ok().label: found.ok() for found in SURFACE.get_all_operations() if isinstance(found, Ok)}
READING = [label for label, operation in OPERATIONS.items() if operation.body]
"""They read a body, so they can be asked wrongly."""
HURRY = ("deadline_ms",)
"""A call may end in 504 by right when it is told to be ready within a millisecond."""
BEYOND_SCHEMAS = ("model", "intent", "providers", "parent", "size", "width", "height", "loras", "stream", "background")
"""Fields whose values depend on the catalogue, the policy or each other."""

AnyCase: TypeAlias = Case[Any]


def without(case: AnyCase, names: Sequence[str], **instead: str) -> AnyCase:
    """The case without some fields, in either place where they may be sent."""
    if isinstance(case.body, dict):
        kept = {name: value for name, value in case.body.items() if name not in names}
        case.body = {**kept, **instead}
    for name in names:
        case.headers.pop(f"x-pixelgate-{name.replace('_', '-')}", None)
    return case


def sensible(case: AnyCase) -> AnyCase:
    """The case without what no schema can say, so that most of them are drawn."""
    return without(case, BEYOND_SCHEMAS, size="256x256")


def ask(case: AnyCase, place: Place) -> None:
    case = without(case, HURRY)
    # A right body may still be refused: what is sold, to whom and until when is no matter of form.
    case.call_and_validate(
        base_url=place.base,
        headers={"Authorization": f"Bearer {place.key}"},
        timeout=20,
        excluded_checks=[positive_data_acceptance],
    )


@pytest.mark.parametrize("label", OPERATIONS)
def test_whatever_is_asked_rightly_the_answer_is_a_documented_one(label: str, place: Place) -> None:
    @CAREFULLY
    @given(case=OPERATIONS[label].as_strategy(generation_mode=GenerationMode.POSITIVE))
    def asked(case: AnyCase) -> None:
        ask(case, place)

    asked()


@pytest.mark.parametrize("label", READING)
def test_whatever_is_asked_wrongly_is_refused_in_a_documented_way(label: str, place: Place) -> None:
    @CAREFULLY
    @given(case=OPERATIONS[label].as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def asked(case: AnyCase) -> None:
        ask(case, place)

    asked()


@pytest.mark.parametrize("label", ["POST /v1/images/generations", "POST /v1/quotes"])
def test_whatever_makes_sense_is_answered_as_documented(label: str, place: Place) -> None:
    @CAREFULLY
    @given(case=OPERATIONS[label].as_strategy(generation_mode=GenerationMode.POSITIVE).map(sensible))
    def asked(case: AnyCase) -> None:
        ask(case, place)

    asked()
