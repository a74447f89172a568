"""A team's own provider account: for its calls alone, and instead of the shared ones; its key is nowhere to be read."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import structlog
from pydantic import SecretStr

from gateway import telemetry
from gateway.app import build
from gateway.errors import GatewayError
from gateway.keys import make_key
from gateway.requests.call import Caller
from gateway.revisions import load_revision
from gateway.settings import Account, read_pepper
from providers.sandbox import start
from tests.support.town import TIME_SCALE, Town, settings, single_minded

ACME, ZETA = Caller(key_id="key_1", team="acme"), Caller(key_id="key_2", team="zeta")
SECRET = "sandbox-acme-fal"
KEY = SecretStr(SECRET)
SCHNELL, DEV = frozenset({"flux-schnell"}), frozenset({"flux-dev"})


@asynccontextmanager
async def shared_and_own(folder: Path, **own: object) -> AsyncIterator[Town]:
    """A town where acme has an account of its own at fal, which sells one model to it."""
    async with await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        terms = settings(folder, sandbox.url)
        fal = terms.accounts["fal"].model_copy(
            update={"key": None, "key_env": None, "team": "acme", "models": ("flux-schnell",), **own}
        )
        terms = terms.model_copy(update={"accounts": {**terms.accounts, "acme-fal": fal}})
        revision = load_revision(terms)
        app = await build(terms, revision, engine=single_minded)
        await app.start()
        try:
            yield Town(app, sandbox)
        finally:
            await app.stop()


async def served_by(t: Town, caller: Caller, models: frozenset[str]) -> str:
    """The account that drew a call; why not, where none may."""
    try:
        delivery = await t.app.pipeline.serve(t.call(caller=caller, models=models))
    except GatewayError as error:
        return error.message
    return delivery.offers[0].partition(":")[0]


async def test_a_teams_calls_buy_at_its_own_account_what_that_sells_and_nobody_elses_do(tmp_path: Path) -> None:
    async with shared_and_own(tmp_path, key=KEY) as t:
        assert {await served_by(t, ACME, SCHNELL) for _ in range(3)} == {"acme-fal"}
        assert await served_by(t, ACME, DEV) in ("fal", "together")
        assert await served_by(t, ZETA, SCHNELL) in ("fal", "together")
        await t.assert_books_agree()


async def test_a_team_that_buys_nothing_elsewhere_is_refused_what_its_account_does_not_sell(tmp_path: Path) -> None:
    async with shared_and_own(tmp_path, key=KEY, team_calls="all") as t:
        assert await served_by(t, ACME, SCHNELL) == "acme-fal"
        assert "team acme buys flux-dev at accounts of its own alone" in await served_by(t, ACME, DEV)
        assert await served_by(t, ZETA, DEV) in ("fal", "together")


async def test_a_team_whose_key_is_missing_is_not_sent_to_the_shared_accounts(tmp_path: Path) -> None:
    async with shared_and_own(tmp_path, key_env="ACME_FAL_KEY") as t:
        assert "team acme buys flux-schnell at accounts of its own alone" in await served_by(t, ACME, SCHNELL)
        assert await served_by(t, ACME, DEV) in ("fal", "together")


async def test_an_account_that_is_one_among_others_leaves_the_choice_to_the_engine(tmp_path: Path) -> None:
    async with shared_and_own(tmp_path, key=KEY, team_calls="also") as t:
        call = t.call(caller=ACME, models=SCHNELL)
        accounts = {quote.offer.partition(":")[0] for quote in await t.app.pipeline.quote(call) if quote.feasible}
        assert accounts == {"acme-fal", "fal", "together"}


def test_what_a_teams_calls_may_use_takes_a_team() -> None:
    with pytest.raises(ValueError, match="name the team, too"):
        Account.model_validate({"kind": "fal", "team_calls": "all"})


@pytest.fixture
def lines() -> Iterator[io.BytesIO]:
    """What is logged."""
    logged = io.BytesIO()
    telemetry.configure(logged, "debug")
    yield logged
    structlog.reset_defaults()


def files_with(secret: str, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


async def test_a_teams_key_is_in_no_log_line_no_decision_no_record_and_no_answer(
    tmp_path: Path, lines: io.BytesIO
) -> None:
    async with shared_and_own(tmp_path, key=KEY) as t:
        key, shown = make_key(read_pepper(t.app.settings), team="acme", name="t", created=t.app.clock.utc())
        await t.app.db.add_key(key)
        await t.app.keys.refresh()
        headers = {"authorization": f"Bearer {shown}"}
        door = httpx.ASGITransport(t.app.asgi)  # type: ignore[arg-type]  # httpx knows ASGI by other names
        client = httpx.AsyncClient(transport=door, base_url="http://t", headers=headers)
        said = []
        async with client:
            for fault in (None, "401", "500", "refuse", "429"):
                t.sandbox.script([] if fault is None else [{"provider": "fal", "do": fault, "when": {"share": 1}}])
                body = {"prompt": "a", "size": "256x256", "model": "flux-schnell"}
                answer = await client.post("/v1/images/generations", json=body)
                said += [answer.text, repr(answer.headers)]
                story = await client.get(f"/v1/decisions/{answer.headers['x-pixelgate-decision']}")
                said += [story.text]
        await t.app.idle()
        said += [repr(t.app.settings), repr(t.app.condition())]
    telemetry.flush()
    assert files_with(SECRET, tmp_path) == []
    assert lines.getvalue()
    assert SECRET not in "".join(said) + lines.getvalue().decode()
