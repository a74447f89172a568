"""A policy on trial: served to its share of callers, ended as soon as it is surely worse, promoted when it is not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.app import build
from gateway.cli import run
from gateway.http.arms import Split
from gateway.keys import make_key
from gateway.requests.call import Caller
from gateway.requests.journal import DecisionNote, noted
from gateway.revisions import Shelf
from gateway.settings import read_pepper
from tests.gateway.test_reloading import Edited, edited
from tests.support.homes import edit, small_home

ASKS = {"prompt": "a lighthouse", "size": "512x512"}


class Trial:
    """A town whose callers come through the door, and somebody who types commands beside it."""

    def __init__(self, town: Edited, http: httpx.AsyncClient) -> None:
        self.town = town
        self._http = http
        self._callers = 0

    async def asks(self, **fields: object) -> httpx.Response:
        """One call of an end user nobody has seen before."""
        self._callers += 1
        body = {**ASKS, "user": f"user {self._callers}", **fields}
        return await self._http.post("/v1/images/generations", json=body)

    async def many(self, calls: int, until: Callable[[], bool], at_once: int = 8) -> Counter[tuple[int, str]]:
        """Calls until something is so: how often each status came, under which policy."""
        seen: Counter[tuple[int, str]] = Counter()

        async def keep_asking() -> None:
            while not until() and seen.total() < calls:
                answer = await self.asks()
                seen[answer.status_code, answer.headers.get("x-pixelgate-policy", "")] += 1

        await asyncio.gather(*(keep_asking() for _ in range(at_once)))
        return seen

    async def types(self, *words: str, code: int = 0) -> None:
        """A command, in a thread because it has a loop of its own."""
        told = await asyncio.to_thread(run, ["policy", *words, "--config", str(self.town.home)])
        assert told == code

    async def status(self, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
        """What `policy canary status` says."""
        capsys.readouterr()
        await self.types("canary", "status", "--json")
        out = capsys.readouterr().out  # log lines of the town stand before and after it
        said: dict[str, Any] = json.loads(out[out.index("{\n") : out.rindex("\n}") + 2])
        return said

    def draft(self, old: str, new: str, revision: int = 2) -> Path:
        """A file that says one thing otherwise."""
        text = self.town.policy_file.read_text()
        assert old in text
        number = next(line for line in text.splitlines() if line.startswith("revision:"))
        draft = self.town.home / f"draft-{revision}.yml"
        draft.write_text(text.replace(old, new, 1).replace(number, f"revision: {revision}"))
        return draft


@contextlib.asynccontextmanager
async def trial(folder: Path, calls: int = 2_000) -> AsyncIterator[Trial]:
    home = small_home(folder)
    edit(home / "policies" / "default.yaml", "  calls: 2000\n", f"  calls: {calls}\n")
    async with edited(folder, home) as town:
        await kept(town)
        accounts = "{fal: {kind: fal, key_env: NO_FAL}, together: {kind: together, key_env: NO_TOGETHER}}"
        (town.home / "gateway.yaml").write_text(f"state: {folder}\naccounts: {accounts}\n")
        pepper = read_pepper(town.app.settings)
        row, shown = make_key(pepper, team="acme", name="t", created=datetime.now(UTC))
        await town.app.db.add_key(row)
        await town.app.keys.refresh()
        transport = httpx.ASGITransport(app=town.app.asgi)  # type: ignore[arg-type]  # litestar's word for the same
        headers = {"authorization": f"Bearer {shown}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://door", headers=headers, timeout=30) as http:
            yield Trial(town, http)


def test_whoever_is_on_one_side_stays_there_and_sides_are_as_large_as_was_said() -> None:
    split = Split(canary=7, share=0.1, teams=frozenset())
    callers = [(Caller(key_id=f"key_{n % 40}", team="acme"), f"user {n}") for n in range(4_000)]
    taken = [split.takes(*each) for each in callers]
    assert taken == [split.takes(*each) for each in callers]
    assert 320 <= sum(taken) <= 480
    other = Split(canary=8, share=0.1, teams=frozenset())
    assert [other.takes(*each) for each in callers] != taken  # not always the same ones are tried upon


def test_a_canary_of_teams_takes_all_their_calls_and_no_others() -> None:
    split = Split(canary=7, share=0.05, teams=frozenset({"acme"}))
    assert split.takes(Caller(key_id="key_1", team="acme"), None)
    assert not split.takes(Caller(key_id="key_1", team="zeta"), None)


async def test_a_dear_canary_is_sent_back_and_decisions_say_which_side_they_were_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with trial(tmp_path) as t:
        draft = t.draft("default_intent: preview", "default_intent: export")
        await t.types("canary", "start", str(draft), "--share", "50%", "--author", "ann")
        services = t.town.app._services
        await t.town.until(lambda: services.arms is not None)
        seen = await t.many(400, until=lambda: services.arms is None)
        assert seen[200, "default@1"]
        assert seen[200, "default@2"] >= 20
        assert seen.total() == seen[200, "default@1"] + seen[200, "default@2"]
        after = await t.many(10, until=lambda: False)
        assert set(after) == {(200, "default@1")}
        await t.town.settled()
        told = await t.status(capsys)
        assert told["state"] == "rolled back"
        assert told["reason"].startswith("cost: a picture costs ")
        assert told["revision"]["author"] == "ann"
        assert told["report"]["canary"]["mean_nano_usd"] > 10 * told["report"]["control"]["mean_nano_usd"]
        assert {note.arm for note in await notes(t) if note.policy == "default@2"} == {"canary"}
        assert {note.arm for note in await notes(t) if note.policy == "default@1"} == {"control", ""}
        await t.town.assert_books_agree()


async def test_a_good_canary_is_put_in_force_after_the_planned_calls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with trial(tmp_path, calls=100) as t:
        draft = t.draft("late_second: $0.002 ", "late_second: $0.0021 ")
        await t.types("canary", "start", str(draft), "--share", "50%")
        services = t.town.app._services
        await t.town.until(lambda: services.arms is not None)
        await t.many(2_000, until=lambda: t.town.condition.policy == "default@2")
        assert t.town.policy_file.read_bytes() == draft.read_bytes()
        assert services.arms is None
        assert (await t.status(capsys))["state"] == "promoted"
        rows = await t.town.app.db.policy_revisions()
        assert [(row.label, row.source) for row in rows] == [
            ("default@1", "saved"), ("default@2", "canary"), ("default@2", "promoted"),
        ]  # fmt: skip


async def test_gateways_on_one_database_begin_and_end_a_canary_together(tmp_path: Path) -> None:
    async with trial(tmp_path) as t:
        app = t.town.app
        other = await build(app.settings, app.revision)
        other.follow_files(lambda: app.settings, Shelf())
        await other.start()
        try:
            draft = t.draft("default_intent: preview", "default_intent: export")
            await t.types("canary", "start", str(draft), "--share", "50%")
            await t.town.until(lambda: app.condition().canary == other.condition().canary == "default@2")
            await t.many(400, until=lambda: not app.condition().canary)  # the other has no callers of its own
            await t.town.until(lambda: not other.condition().canary)
        finally:
            await other.stop()


async def test_a_canary_ends_by_command_and_there_is_one_at_a_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with trial(tmp_path) as t:
        first = t.draft("late_second: $0.002 ", "late_second: $0.0021 ")
        await t.types("canary", "start", str(first), "--team", "acme")
        services = t.town.app._services
        await t.town.until(lambda: services.arms is not None)
        assert (await t.asks()).headers["x-pixelgate-policy"] == "default@2"
        await t.types("canary", "start", str(t.draft("$0.05", "$0.06", 3)), code=1)
        await t.types("canary", "abort", "--author", "bob")
        await t.town.until(lambda: services.arms is None)
        assert (await t.asks()).headers["x-pixelgate-policy"] == "default@1"
        assert (await t.status(capsys))["reason"] == "by bob"
        await t.types("canary", "abort", code=1)
        await t.types("canary", "promote", code=1)


async def test_a_canary_can_be_promoted_by_command(tmp_path: Path) -> None:
    async with trial(tmp_path) as t:
        await t.types("canary", "start", str(t.draft("late_second: $0.002 ", "late_second: $0.0021 ")))
        await t.types("canary", "promote")
        await t.town.until(lambda: t.town.condition.policy == "default@2")
        await t.town.until(lambda: t.town.app._services.arms is None)


async def test_a_canary_ends_when_another_policy_comes_into_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with trial(tmp_path) as t:
        await t.types("canary", "start", str(t.draft("late_second: $0.002 ", "late_second: $0.0021 ")))
        services = t.town.app._services
        await t.town.until(lambda: services.arms is not None)
        t.town.policy_file.write_text(t.draft("$0.05", "$0.06", 3).read_text())
        await t.town.until(lambda: t.town.condition.policy == "default@3")
        assert services.arms is None
        await t.town.settled()
        assert (await t.status(capsys))["state"] == "superseded"


async def test_a_canary_goes_on_when_only_prices_change(tmp_path: Path) -> None:
    async with trial(tmp_path) as t:
        await t.types(
            "canary", "start", str(t.draft("late_second: $0.002 ", "late_second: $0.0021 ")), "--team", "acme"
        )
        services = t.town.app._services
        await t.town.until(lambda: services.arms is not None)
        (t.town.home / "catalog" / "flux-2-pro.yaml").unlink()
        await t.town.until(lambda: len(t.town.app.regime.catalog.models) == 2)
        assert (await t.asks()).headers["x-pixelgate-policy"] == "default@2"
        assert (await t.asks(intent="export")).status_code == 400


async def test_what_cannot_be_tried_is_refused(tmp_path: Path) -> None:
    async with trial(tmp_path) as t:
        await t.types("canary", "start", str(t.draft("# ", "# remark: ", 1)), code=2)  # says the same
        await t.types("canary", "start", str(t.draft("training: allowed", "region: eu")), code=2)  # leaves nobody
        await t.types("canary", "start", str(t.draft("$0.05", "$0.06")), "--share", "0%", code=2)
        await t.types("canary", "start", code=2)
        await t.types("canary", "status", code=1)


async def kept(town: Edited) -> None:
    """Wait until the policy in force is in the history."""
    while not await town.app.db.policy_events():  # noqa: ASYNC110 - the records tell nobody
        await asyncio.sleep(0.02)


async def notes(t: Trial) -> list[DecisionNote]:
    """Every decision that was stored."""
    rows = await t.town.app.db._all(lambda row: bytes(row[0]), "SELECT body FROM decisions")  # type: ignore[attr-defined]
    return [noted(row) for row in rows]
