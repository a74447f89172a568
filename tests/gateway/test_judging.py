"""A judge over a vision endpoint: blind, in both orders, within its money, and never in anybody's way."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace
from openai import AsyncOpenAI
from PIL import Image, PngImagePlugin
from pydantic import SecretStr, ValidationError

from gateway.assets import Assets, FolderBlobs, blob_key
from gateway.cli import run
from gateway.clock import SystemClock
from gateway.features.judging import AGAIN, Judging, Silent, opinion
from gateway.features.learned import LearnedMeasures
from gateway.features.measuring import Measuring
from gateway.settings import JudgeSettings, load_settings
from gateway.storage.database import Database, open_database
from gateway.storage.rows import RecipeRow
from gateway.storage.shadows import Judged, ShadowRow, party
from gateway.yaml_files import BadFile
from policies.experiments.definition import Challenger
from policies.experiments.pairs import Pair, Side
from policies.types import Requirements
from providers.sandbox import start
from providers.transport import Http
from tests.gateway.test_assets import BOMBS
from tests.gateway.test_shadow_run import home_of, keys
from tests.support.books import asset
from tests.support.judge import KEY, JudgeTwin, judge_twin, pictures
from tests.support.town import TIME_SCALE, settings
from tests.support.trials import experiment, open_trial

__all__ = ["keys"]  # a fixture

NAME = "judged"
RED, GREY = (240, 20, 20), (60, 90, 90)
PRICE = 2_000_000
ANYBODY = Requirements()
COMPARED = [experiment(name=NAME)]


class Later(SystemClock):
    """A clock that can be put forward."""

    ahead = timedelta()

    def utc(self) -> datetime:
        return super().utc() + self.ahead


class Bench:
    """Pairs whose pictures are kept, and somebody who asks about them."""

    def __init__(self, db: Database, folder: Path, http: Http, twin: JudgeTwin, **terms: object) -> None:
        self.db, self.twin, self.clock = db, twin, Later()
        self.blobs = FolderBlobs(folder / "assets")
        told: dict[str, object] = {
            "url": twin.url,
            "model": "sees-well",
            "key": KEY,
            "price": "$0.002",
            "timeout": "20s",
        }
        self.terms = JudgeSettings.model_validate(told | terms)
        assets = Assets(self.blobs, self.clock, None)
        self.judging = Judging(db=db, assets=assets, http=http, clock=self.clock, terms=lambda: self.terms)

    def offers(self, terms: Mapping[str, object]) -> None:
        """Have the judge work on other terms."""
        usual = {"url": self.twin.url, "model": "sees-well", "key": KEY, "price": "$0.002", "timeout": "20s"}
        self.terms = JudgeSettings.model_validate({**usual, **terms})

    async def keep(
        self,
        at: int,
        champion: tuple[int, int, int],
        challenger: tuple[int, int, int],
        require: Requirements = ANYBODY,
    ) -> None:
        """A measured pair of two pictures, each of one colour, and what its call asked for."""
        side = Side(offer="fal:a", account="fal", quoted=1, billed=1, latency_s=1.0)
        kept = [asset(f"att_s{at}_{name}", team=party(NAME)) for name in ("ours", "theirs")]
        kept = [replace(each, call_id=f"call_s{at}") for each in kept]
        for picture, colour in zip(kept, (champion, challenger), strict=True):
            await self.blobs.put(blob_key(picture.path), drawn(colour))
        pair = Pair(
            id=f"pair_{at}",
            experiment=NAME,
            challenger="together",
            call_id=f"call_{at}",
            at=1.79e9 + at,
            require=require,
            champion=replace(side, asset=kept[0].id),
            challenger_side=replace(side, offer="together:a", asset=kept[1].id),
            measures={"score": 0.0},
            expires=2e9,
        )
        recipe = RecipeRow(
            call_id=pair.call_id, team="acme", user=None, request={"prompt": "a red wall"}, created=datetime.now(UTC)
        )
        await self.db.save_recipe(recipe)
        assert await self.db.keep_pair(
            ShadowRow(pair=pair, shadow_call=f"call_s{at}", team="acme", measured=True), kept
        )

    async def judged(self) -> list[float | None]:
        """What was said of each pair, oldest first."""
        return [pair.measures.get("judge") for pair in await self.db.shadow_pairs(NAME)]


def drawn(colour: tuple[int, int, int]) -> bytes:
    out, told = io.BytesIO(), PngImagePlugin.PngInfo()
    told.add_text("Software", "a seller that signs its work")
    Image.new("RGB", (1600, 800), colour).save(out, "PNG", pnginfo=told)
    return out.getvalue()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with judge_twin() as twin:
        db, http = open_database(f"sqlite:///{tmp_path}/judged.db", "process"), Http()
        try:
            yield Bench(db, tmp_path, http, twin)
        finally:
            await http.aclose()
            await db.aclose()


async def test_the_better_picture_wins_whichever_is_shown_first(bench: Bench) -> None:
    await bench.keep(1, GREY, RED)
    await bench.keep(2, RED, GREY)
    await bench.keep(3, RED, RED)
    assert await bench.judging.some(9, COMPARED) == {"better": 1, "worse": 1, "tie": 1}
    assert await bench.judged() == [1, -1, 0]
    assert len(bench.twin.questions) == 5  # a tie is none the other way round
    assert await bench.db.judged(NAME) == Judged(judgements={1: 1, -1: 1, 0: 1}, cost=5 * PRICE)
    assert await bench.judging.some(9, COMPARED) == {}  # nobody is asked twice


async def test_a_judge_that_always_takes_the_first_decides_nothing(bench: Bench) -> None:
    bench.twin.answers = lambda _: '{"better": "A"}'
    await bench.keep(1, GREY, RED)
    assert await bench.judging.some(9, COMPARED) == {"tie": 1}
    assert await bench.judged() == [0]


async def test_a_question_has_the_shape_of_the_official_client_and_names_nobody(bench: Bench) -> None:
    await bench.keep(1, GREY, RED)
    await bench.judging.some(1, COMPARED)
    ours, turned = bench.twin.questions
    client = AsyncOpenAI(base_url=bench.twin.url, api_key=KEY, max_retries=0)
    answered = await client.chat.completions.create(**ours)
    await client.close()
    assert json.loads(answered.choices[0].message.content or "") == {"better": "B"}
    assert bench.twin.questions[2] == ours
    assert set(bench.twin.keys) == {f"Bearer {KEY}"}
    assert "a red wall" in json.dumps(ours)
    assert not any(word in json.dumps(ours) for word in ("fal:", "together:", "champion", "challenger", "a seller"))
    assert [each.size for each in pictures(ours)] == [(1024, 512)] * 2
    assert not any(each.getexif() or each.info.get("comment") for each in pictures(ours))
    urls = [[part["image_url"]["url"] for part in asked["messages"][1]["content"] if "image_url" in part]
            for asked in (ours, turned)]  # fmt: skip
    assert urls[1] == urls[0][::-1]


async def test_without_leave_it_is_not_told_the_prompt(bench: Bench) -> None:
    bench.terms = bench.terms.model_copy(update={"prompts": False})
    await bench.keep(1, GREY, RED)
    await bench.judging.some(1, COMPARED)
    assert "a red wall" not in json.dumps(bench.twin.questions)


@pytest.mark.parametrize(
    ("require", "enough"),
    [
        (Requirements(region="eu"), {"region": "eu"}),
        (Requirements(training="never"), {"training": "never"}),
        (Requirements(retention_days=1), {"retention": "24h"}),
    ],
)
async def test_a_call_that_minds_its_data_is_shown_only_to_a_judge_that_promises_as_much(
    bench: Bench, require: Requirements, enough: dict[str, str]
) -> None:
    await bench.keep(1, GREY, RED, require)
    for terms in ({}, {"region": "us", "retention": "25h", "training": "allowed"}):
        bench.offers(terms)
        assert await bench.judging.some(9, COMPARED) == {}
    assert bench.twin.questions == []
    bench.offers(enough)
    assert await bench.judging.some(9, COMPARED) == {"better": 1}


@pytest.mark.parametrize(
    ("behaves", "why"),
    [
        ({"answers": lambda _: '```json\n{"better": "A"}\n```'}, "answer not as asked for"),
        ({"answers": lambda _: '{"better": "A", "because": "red"}'}, "answer not as asked for"),
        ({"answers": lambda _: '{"better": "C"}'}, "answer not as asked for"),
        ({"answers": lambda _: ""}, "answer not as asked for"),
        ({"refuses": "I cannot look at that"}, "refused"),
        ({"status": 400}, "status 400"),
        ({"status": 413}, "status 413"),
    ],
)
async def test_what_is_no_answer_is_counted_and_asked_for_again_three_times(
    bench: Bench, behaves: dict[str, Any], why: str
) -> None:
    for name, value in behaves.items():
        setattr(bench.twin, name, value)
    await bench.keep(1, GREY, RED)
    for _ in range(5):
        await bench.judging.some(9, COMPARED)
        assert await bench.judging.some(9, COMPARED) == {}  # not again at once
        bench.clock.ahead += AGAIN + timedelta(seconds=1)
    assert await bench.judged() == [None]
    assert await bench.db.judged(NAME) == Judged(failures={why: 3}, cost=3 * PRICE)


@pytest.mark.parametrize("status", [401, 429, 503])
async def test_a_judge_that_answers_nobody_is_left_alone_for_a_while(bench: Bench, status: int) -> None:
    bench.twin.status = status
    await bench.keep(1, GREY, RED)
    await bench.keep(2, GREY, RED)
    assert await bench.judging.some(9, COMPARED) == {f"status {status}": 1}
    assert await bench.judging.some(9, COMPARED) == {}
    bench.twin.status = 200
    bench.clock.ahead = AGAIN + timedelta(seconds=1)
    assert await bench.judging.some(9, COMPARED) == {"better": 2}


async def test_an_outage_of_the_judge_is_no_try_and_a_pair_that_meets_one_comes_last(bench: Bench) -> None:
    await bench.keep(1, GREY, RED)
    bench.twin.status = 503
    for _ in range(4):
        assert await bench.judging.some(1, COMPARED) == {"status 503": 1}
        bench.clock.ahead += AGAIN + timedelta(seconds=1)
    bench.twin.status = 200
    await bench.keep(2, GREY, GREY)
    assert await bench.judging.some(1, COMPARED) == {"tie": 1}
    assert await bench.judging.some(1, COMPARED) == {"better": 1}
    assert await bench.judged() == [1.0, 0.0]


async def test_a_question_that_never_left_costs_nothing_and_a_late_answer_does(bench: Bench) -> None:
    await bench.keep(1, GREY, RED)
    bench.terms = bench.terms.model_copy(update={"url": "http://127.0.0.1:9/v1"})
    assert await bench.judging.some(9, COMPARED) == {"not reached": 1}
    assert (await bench.db.judged(NAME)).cost == 0
    bench.clock.ahead = AGAIN + timedelta(seconds=1)
    bench.twin.slow = 30
    bench.terms = bench.terms.model_copy(update={"url": bench.twin.url, "timeout": 0.2})
    assert await bench.judging.some(9, COMPARED) == {"no answer in time": 1}
    assert (await bench.db.judged(NAME)).cost == PRICE


async def test_a_day_costs_no_more_than_its_budget_however_many_ask(bench: Bench, tmp_path: Path) -> None:
    bench.terms = bench.terms.model_copy(update={"budget": 5 * PRICE})
    for at in range(6):
        await bench.keep(at, GREY, RED)
    http = Http()
    others = [Bench(bench.db, tmp_path, http, bench.twin, budget="$0.01") for _ in range(2)]
    await asyncio.gather(*(each.judging.some(9, COMPARED) for each in (bench, *others)))
    await http.aclose()
    assert (await bench.db.judged(NAME)).cost == 4 * PRICE
    assert await bench.judged() == [1, 1, None, None, None, None]
    bench.clock.ahead = timedelta(days=1)
    await bench.judging.some(9, COMPARED)
    assert await bench.judged() == [1, 1, 1, 1, None, None]


async def test_a_pair_whose_picture_is_gone_is_not_asked_about(bench: Bench) -> None:
    await bench.keep(1, GREY, RED)
    (pair,) = await bench.db.shadow_pairs(NAME)
    await bench.db.drop_asset(pair.champion.asset or "")
    assert await bench.judging.some(9, COMPARED) == {}
    assert bench.twin.questions == []


@pytest.mark.parametrize("name", ["a second head of 900 megapixels", "a text that unpacks to 200 MB"])
async def test_a_picture_that_no_decoder_takes_keeps_no_other_pair_from_being_looked_at(
    bench: Bench, tmp_path: Path, name: str
) -> None:
    await bench.keep(1, GREY, RED)
    await bench.keep(2, GREY, RED)
    bomb, _ = await bench.db.call_assets("call_s1")
    await bench.blobs.delete(blob_key(bomb.path))
    await bench.blobs.put(blob_key(bomb.path), BOMBS[name])
    assert await bench.judging.some(9, COMPARED) == {"picture unreadable": 1, "better": 1}
    measuring = Measuring(bench.db, Assets(bench.blobs, bench.clock, None), LearnedMeasures(tmp_path))
    await measuring.again(NAME)
    assert [await measuring.some(1) for _ in range(3)] == [1, 1, 0]
    broken, whole = await bench.db.shadow_pairs(NAME)
    assert "score" in whole.measures
    assert "score" not in broken.measures


async def test_pairs_that_no_report_counts_cost_no_question(bench: Bench) -> None:
    await bench.keep(1, GREY, RED)
    await bench.keep(2, GREY, RED)
    other, _ = await bench.db.shadow_pairs(NAME)
    await bench.db.measure_pair(replace(other, terms="another champion"))
    assert await bench.judging.some(9, COMPARED) == {"better": 1}
    assert await bench.judged() == [None, 1]
    assert await bench.judging.some(9, [experiment(Challenger(name="d", account="together"), name=NAME)]) == {}


async def test_a_pair_from_before_requirements_were_kept_is_shown_to_nobody(bench: Bench, tmp_path: Path) -> None:
    await bench.keep(1, GREY, RED)
    with closing(sqlite3.connect(tmp_path / "judged.db")) as books, books:
        books.execute("UPDATE shadow_pairs SET body = CAST(json_remove(CAST(body AS TEXT), '$.require') AS BLOB)")
    assert await bench.judging.some(9, COMPARED) == {}


def test_a_strange_body_is_no_completion() -> None:
    for body in (b"", b"[]", b'{"choices": 3}', b"\xff", b'{"because": ' + b"[" * 1_000_000):
        with pytest.raises(Silent, match="no chat completion"):
            opinion(body)
    with pytest.raises(Silent, match="not as asked for"):
        opinion(b'{"choices": []}')


def test_a_judge_says_its_model_and_its_price(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="name the model"):
        JudgeSettings.model_validate({"url": "https://judge.example/v1", "price": "$0"})
    with pytest.raises(ValidationError, match="what one question costs"):
        JudgeSettings(url="https://judge.example/v1", model="m")
    with pytest.raises(ValidationError, match="does not hold the two questions of one pair"):
        JudgeSettings.model_validate({"url": "https://j.example/v1", "model": "m", "price": "$0.6", "budget": "$1"})
    file = tmp_path / "gateway.yaml"
    file.write_text("shadow: {judge: {url: https://judge.example/v1, model: m, price: $0.01, key_env: JUDGE_KEY}}\n")
    assert load_settings(tmp_path, environ={}).shadow.judge.why_off == "JUDGE_KEY is not set"
    judge = load_settings(tmp_path, environ={"JUDGE_KEY": "k"}).shadow.judge
    assert (judge.why_off, judge.key) == (None, SecretStr("k"))
    file.write_text("shadow: {judge: {key: sk-1}}\n")
    with pytest.raises(BadFile, match="a key may not stand in a file"):
        load_settings(tmp_path, environ={})


async def test_the_gateway_asks_by_itself_about_experiments_that_compare_it(tmp_path: Path) -> None:
    async with judge_twin() as twin, await start(time_scale=TIME_SCALE, pictures="plain") as sandbox:
        judge = {"url": twin.url, "model": "m", "price": "$0.002"}
        terms = settings(tmp_path, sandbox.url, shadow={"judge": judge})
        again = Challenger(name="again", account="fal")
        t = await open_trial(tmp_path, sandbox, experiment(again, compare=frozenset({"judge"})), terms=terms)
        try:
            await t.asks(require=Requirements(commercial=True))
            await t.pairs()
            while await t.app.measuring.some(10):
                pass
            await t.app._judge()
            await t.app.idle()
            (pair,) = await t.pairs()
        finally:
            await t.app.stop()
    assert pair.require == Requirements(commercial=True)
    assert pair.measures["judge"] == 0  # the sandbox draws the same for the same words and seed
    assert len(twin.questions) == 1


async def test_a_command_asks_about_the_rest_and_the_report_says_what_was_said_and_paid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], keys: None
) -> None:
    async with judge_twin() as twin:
        home = home_of(tmp_path, "http://127.0.0.1:9", experiment=NAME, compare=["cost", "judge"])
        home.state.mkdir()
        db, http = open_database(f"sqlite:///{home.state}/pixelgate.db", "process"), Http()
        bench = Bench(db, home.state, http, twin)
        for at in range(3):
            await bench.keep(at, GREY, RED)
        await http.aclose()
        await db.aclose()

        async def types(*words: str) -> tuple[int, str]:
            code = await asyncio.to_thread(run, [*words, "--config", str(home.folder)])
            out, err = capsys.readouterr()
            return code, (out + err).strip()

        code, told = await types("shadow", "judge", NAME)
        assert (code, "there is no judge: shadow.judge.url is not set" in told) == (2, True)
        code, told = await types("policy", "lint")
        assert "nothing here measures judge: shadow.judge.url is not set" in told
        file = home.folder / "gateway.yaml"
        judge = {"url": twin.url, "model": "m", "price": "$0.002"}
        file.write_text(json.dumps({**yaml.safe_load(file.read_text()), "shadow": {"judge": judge}}))
        assert await types("shadow", "judge", NAME, "--limit", "2") == (0, "2 pairs judged: better 2, worse 0, tie 0")
        twin.status = 503
        code, told = await types("shadow", "judge", NAME, "--json")
        assert (code, json.loads(told)["failures"]) == (1, {"status 503": 1})
        _, told = await types("shadow", "report", NAME)
        assert "Judge: better 2, worse 0, tie 0; 1 times status 503. $0.01 by the price in the settings" in told
        _, told = await types("shadow", "report", NAME, "--json")
        assert json.loads(told)["judge"] == {
            "better": 2, "worse": 0, "tie": 0, "failures": {"status 503": 1}, "nano_usd": 5 * PRICE,
        }  # fmt: skip
        assert "nothing here measures judge" not in (await types("policy", "lint"))[1]
