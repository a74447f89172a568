"""People's votes: a page that tells nothing, a file with a contract, and a measure with an interval."""

from __future__ import annotations

import asyncio
import io
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pybase64
import pytest
from msgspec.structs import replace
from PIL import Image

from gateway.assets import FolderBlobs, blob_key
from gateway.cli.vote_page import Ballot, Shown, champion_is_left, page
from gateway.settings import load_settings
from gateway.storage.database import Database, open_database
from gateway.storage.rows import AssetRow, RecipeRow
from gateway.storage.shadows import ShadowRow, VoteRow, party
from policies.experiments.pairs import Pair
from policies.experiments.readings import read
from tests.gateway.test_shadow_commands import COMPARED, NAME, Desk, desk, pairs
from tests.support.books import asset
from tests.support.homes import edit

__all__ = ["desk"]  # a fixture

RED, GREY = (240, 20, 20), (60, 90, 90)


def kept(desk: Desk, found: Sequence[Pair], *, seen: bool = True) -> list[Pair]:
    """Pairs in the books; with `seen` the champion's picture is grey, the challenger's red, and both are there."""
    settings = load_settings(desk.home, flags={"state": desk.state})
    whole: list[Pair] = []

    async def keep() -> None:
        db, blobs = open_database(settings.database_url, "process"), FolderBlobs(settings.assets_folder)
        for at, pair in enumerate(found):
            pictures: list[AssetRow] = []
            for side, colour in (("a", GREY), ("b", RED)) if seen else ():
                picture = replace(asset(f"att_s{at}{side}", team=party(NAME)), call_id=f"call_s{at}")
                await blobs.put(blob_key(picture.path), drawn(colour))
                pictures.append(picture)
            ids: list[str | None] = [each.id for each in pictures] or [None, None]
            both = replace(
                pair,
                champion=replace(pair.champion, asset=ids[0]),
                challenger_side=replace(pair.challenger_side, asset=ids[1]),
            )
            recipe = {"prompt": "a </script> wall"}
            await db.save_recipe(
                RecipeRow(call_id=pair.call_id, team="acme", user=None, request=recipe, created=datetime.now(UTC))
            )
            row = ShadowRow(pair=both, shadow_call=f"call_s{at}", team="acme", measured=True)
            assert await db.keep_pair(row, pictures)
            whole.append(both)
        await db.aclose()

    asyncio.run(keep())
    return whole


def drawn(colour: tuple[int, int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (320, 200), colour).save(out, "PNG")
    return out.getvalue()


def ballot_of(file: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="ballot">(.*?)</script>', file.read_text(), re.DOTALL)
    assert found is not None
    told: dict[str, Any] = json.loads(found[1])
    return told


def saved(ballot: dict[str, Any], voter: str, choose: Any, at: str = "2026-11-26T07:00:00.000Z") -> str:
    """What the page saves where somebody chooses so."""
    votes = [{"pair": each["id"], "choice": choose(each), "at": at} for each in ballot["pairs"]]
    return json.dumps({**{k: v for k, v in ballot.items() if k != "pairs"}, "voter": voter, "votes": votes})


def redder(pair: dict[str, Any]) -> str:
    def red(side: str) -> float:
        data = pybase64.b64decode(pair[side].partition(",")[2])
        return float(np.asarray(Image.open(io.BytesIO(data)))[..., 0].mean())

    return "left" if red("left") > red("right") else "right"


def test_votes_find_their_way_back_to_whoever_drew_what_was_chosen(desk: Desk, tmp_path: Path) -> None:
    kept(desk, pairs(12))
    html, file = tmp_path / "vote.html", tmp_path / "ann.json"
    desk.types("vote", NAME, "--output", str(html), "--seed", "7", "--voter", "ann")
    ballot = ballot_of(html)
    assert {redder(each) for each in ballot["pairs"]} == {"left", "right"}  # no side is the challenger's
    file.write_text(saved(ballot, "ann", redder))
    out, _ = desk.types("votes", NAME, str(file))
    assert out == "12 votes, 12 of them new\n"
    (found,) = desk.reads("report", NAME)["challengers"]
    assert found["pictures"]["votes"] == 1
    assert desk.reads("report", NAME)["votes"] == {"people": 1, "better": 12, "worse": 0, "tie": 0}
    assert "Votes: better 12, worse 0, tie 0; by 1 person." in desk.types("report", NAME)[0]


def test_what_is_taken_in_twice_counts_once_and_a_later_choice_takes_the_place_of_an_earlier(
    desk: Desk, tmp_path: Path
) -> None:
    kept(desk, pairs(4))
    html, ann, ben = tmp_path / "vote.html", tmp_path / "ann.json", tmp_path / "ben.json"
    desk.types("vote", NAME, "--output", str(html))
    ballot = ballot_of(html)
    ann.write_text(saved(ballot, "ann", redder))
    ben.write_text(saved(ballot, "ben", lambda _: "tie"))
    assert desk.types("votes", NAME, str(ann), str(ben))[0] == "8 votes, 8 of them new\n"
    assert desk.reads("votes", NAME, str(ann), str(ben)) == {"experiment": NAME, "votes": 8, "new": 0, "unknown": []}
    assert desk.reads("report", NAME)["challengers"][0]["pictures"]["votes"] == 0.5
    ann.write_text(saved(ballot, "ANN", lambda _: "tie", at="2026-11-26T08:00:00Z"))
    desk.types("votes", NAME, str(ann))
    ann.write_text(saved(ballot, "ann", redder, at="2026-11-26T07:30:00Z"))
    desk.types("votes", NAME, str(ann))
    assert desk.reads("report", NAME)["challengers"][0]["pictures"]["votes"] == 0


def test_votes_on_pairs_that_are_not_here_are_named_and_the_others_count(desk: Desk, tmp_path: Path) -> None:
    kept(desk, pairs(2))
    html, file = tmp_path / "vote.html", tmp_path / "ann.json"
    desk.types("vote", NAME, "--output", str(html))
    ballot = ballot_of(html)
    ballot["pairs"].append({**ballot["pairs"][0], "id": "pair_elsewhere"})
    file.write_text(saved(ballot, "ann", redder))
    out, _ = desk.types("votes", NAME, str(file), code=1)
    assert "3 votes, 2 of them new" in out
    assert f"no such pair here: {file}: pair_elsewhere" in out


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda told: told | {"experiment": "another"}, "these are votes on 'another', not on"),
        (lambda told: told | {"voter": "  "}, "$.voter"),
        (lambda told: told | {"format": "pixelgate-votes/9"}, "$.format"),
        (lambda told: told | {"votes": [{"pair": "p", "choice": "both", "at": "2026-11-26T07:00:00Z"}]}, "$.votes[0]"),
        (lambda told: told | {"votes": [{"pair": "p", "choice": "tie", "at": "2026-11-26T07:00:00"}]}, "$.votes[0].at"),
        (lambda _: "no object", "this is no file that a page"),
    ],
)
def test_a_file_that_is_none_is_named_with_what_is_wrong(desk: Desk, tmp_path: Path, spoil: Any, said: str) -> None:
    kept(desk, pairs(1))
    file = tmp_path / "ann.json"
    whole = {"format": "pixelgate-votes/1", "experiment": NAME, "seed": 1, "voter": "ann", "votes": []}
    file.write_text(json.dumps(spoil(whole)))
    _, err = desk.types("votes", NAME, str(file), code=2)
    assert str(file) in err
    assert said in err


def test_the_page_tells_nothing_and_fetches_nothing(desk: Desk, tmp_path: Path) -> None:
    kept(desk, pairs(3))
    html = tmp_path / "vote.html"
    desk.types("vote", NAME, "--output", str(html), "--prompts")
    text = html.read_text()
    assert not any(word in text for word in ("fal:", "replicate", "champion", "challenger", "http:", "https:"))
    assert [each["prompt"] for each in ballot_of(html)["pairs"]] == ["a </script> wall"] * 3
    desk.types("vote", NAME, "--output", str(html))
    assert "wall" not in html.read_text()


def test_those_that_fewest_voted_on_come_first_and_nobody_sees_a_pair_twice(desk: Desk, tmp_path: Path) -> None:
    kept(desk, pairs(6))
    html, file = tmp_path / "vote.html", tmp_path / "ann.json"

    def shown(*words: str) -> set[str]:
        desk.types("vote", NAME, "--output", str(html), *words)
        return {each["id"] for each in ballot_of(html)["pairs"]}

    first = shown("--pairs", "4")
    file.write_text(saved(ballot_of(html), "ann", redder))
    desk.types("votes", NAME, str(file))
    assert shown("--voter", "ann").isdisjoint(first)
    assert shown("--voter", "Ann").isdisjoint(first)
    assert len(shown("--pairs", "2") - first) == 2
    assert len(shown()) == 6


def test_nobody_votes_on_pairs_that_no_report_counts(desk: Desk, tmp_path: Path) -> None:
    of_another, counted = pairs(2)
    kept(desk, [replace(of_another, terms="another champion"), counted])
    html = tmp_path / "vote.html"
    desk.types("vote", NAME, "--output", str(html))
    assert [each["id"] for each in ballot_of(html)["pairs"]] == [counted.id]


def test_a_voter_whose_votes_could_not_be_taken_in_gets_no_page(desk: Desk, tmp_path: Path) -> None:
    kept(desk, pairs(1))
    html = tmp_path / "vote.html"
    _, err = desk.types("vote", NAME, "--output", str(html), "--voter", "a" * 101, code=2)
    assert "--voter: 101 characters; a name has at most 100" in err
    assert not html.exists()


def test_a_page_that_cannot_be_written_is_said_in_a_line(desk: Desk, tmp_path: Path) -> None:
    kept(desk, pairs(1))
    html = tmp_path / "nowhere" / "vote.html"
    _, err = desk.types("vote", NAME, "--output", str(html), code=2)
    assert f"{html}: cannot be written (No such file or directory)" in err


def test_without_pictures_there_is_nothing_to_vote_on(desk: Desk, tmp_path: Path) -> None:
    kept(desk, pairs(2), seen=False)
    _, err = desk.types("vote", NAME, "--output", str(tmp_path / "vote.html"), code=2)
    assert "has no pairs to vote on" in err


def test_votes_decide_as_other_measures_do(desk: Desk) -> None:
    edit(desk.policy, COMPARED, f"compare: [cost, votes]\n    {COMPARED}")
    found = kept(desk, pairs(1_500), seen=False)
    draw, now = Random(5), datetime.now(UTC)
    rows = [
        VoteRow(
            experiment=NAME, pair=pair.id, voter="ann", choice=draw.choice((-1, -1, -1, 0, 1)), at=now, imported=now
        )
        for pair in found
    ]
    in_books(desk, lambda db: db.keep_votes(rows))
    (said,) = desk.reads("report", NAME)["challengers"]
    readings = {each["measure"]: each for each in said["readings"]}
    assert (said["verdict"], readings["votes"]["said"]) == ("stay", "worse")
    assert readings["votes"]["low"] < -0.4 < readings["votes"]["high"] < 0
    assert "votes " in desk.types("report", NAME)[0]


def test_pairs_keep_the_place_in_which_votes_came_in(desk: Desk) -> None:
    first, second = kept(desk, pairs(2), seen=False)
    now = datetime.now(UTC)
    vote = VoteRow(experiment=NAME, pair=second.id, voter="ann", choice=1, at=now, imported=now)
    later = replace(vote, pair=first.id, imported=now + timedelta(days=1))
    in_books(desk, lambda db: db.keep_votes([vote, later, replace(vote, voter="ben", imported=later.imported)]))
    one, two = in_books(desk, lambda db: db.shadow_pairs(NAME))
    assert two.voted == pytest.approx(now.timestamp())
    assert one.voted == pytest.approx(later.imported.timestamp())


def test_a_look_before_the_older_pairs_are_voted_on_plans_as_the_look_after_it() -> None:
    """The first pairs voted on size the comparison; pairs of older calls that come later do not change that."""
    draw = Random(2)
    early, late = pairs(300)[150:], pairs(300)[:150]
    early = [
        replace(each, measures={"votes": draw.choice((-1.0, 0.0, 1.0))}, voted=1.0 + at)
        for at, each in enumerate(early)
    ]
    late = [replace(each, measures={"votes": 0.0}, voted=1e6 + at) for at, each in enumerate(late)]
    before = read("votes", early, alpha=0.05, margin=0.1, days=3)
    after = read("votes", [*late, *early], alpha=0.05, margin=0.1, days=3)
    assert before.planned == after.planned
    assert after.pairs == 2 * before.pairs


def test_votes_go_with_their_pairs(desk: Desk) -> None:
    (pair,) = kept(desk, pairs(1), seen=False)
    now = datetime.now(UTC)
    vote = VoteRow(experiment=NAME, pair=pair.id, voter="ann", choice=1, at=now, imported=now)
    in_books(desk, lambda db: db.keep_votes([vote]))
    in_books(desk, lambda db: db.drop_pairs(datetime.fromtimestamp(pair.expires - 1, UTC)))
    assert in_books(desk, lambda db: db.votes(NAME)) == [vote]
    in_books(desk, lambda db: db.drop_pairs(datetime.fromtimestamp(pair.expires, UTC)))
    assert in_books(desk, lambda db: db.votes(NAME)) == []


@pytest.mark.skipif(shutil.which("node") is None, reason="runs the page's script, and there is no node here")
def test_the_script_of_the_page_saves_what_was_chosen(tmp_path: Path) -> None:
    shown = [Shown(id=f"pair_{at}", left=f"data:{at}l", right=f"data:{at}r") for at in range(3)]
    text = page(Ballot(experiment=NAME, seed=4, pairs=shown), "ann o'hara")
    ballot, script = re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL)
    program = tmp_path / "page.js"
    program.write_text(_BROWSER.replace("BALLOT", json.dumps(ballot)) + script + _PRESSED)
    done = subprocess.run([shutil.which("node") or "", program], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert told["name"] == f"votes-{NAME}-ann-o-hara.json"
    file = json.loads(told["file"])
    assert {name: file[name] for name in ("format", "experiment", "seed", "voter")} == {
        "format": "pixelgate-votes/1", "experiment": NAME, "seed": 4, "voter": "ann o'hara",
    }  # fmt: skip
    assert [(each["pair"], each["choice"]) for each in file["votes"]] == [("pair_0", "tie"), ("pair_1", "right")]
    assert told["shown"] == ["data:2l", "data:2r", "3 of 3"]


_BROWSER = """
const elements = {}, listeners = [], saved = {};
const element = (id) => (elements[id] ??= { id, value: "", listeners: {}, focus() {},
  addEventListener(name, does) { this.listeners[name] = does; } });
element("ballot").textContent = BALLOT;
globalThis.document = {
  getElementById: element,
  addEventListener: (_, does) => listeners.push(does),
  createElement: () => ({ click() { saved.name = this.download; } }),
};
globalThis.Blob = class { constructor(parts) { saved.file = parts[0]; } };
globalThis.URL = { createObjectURL: () => "blob:" };
"""
_PRESSED = """
const press = (key) => listeners.forEach((does) => does({ key, target: null, preventDefault() {} }));
press("ArrowLeft"); press("Backspace"); press("ArrowDown"); elements["choose-right"].listeners.click();
press("x");
elements.save.listeners.click();
if (saved.file) throw new Error("saved without a name");
elements.voter.value = "ann o'hara";
elements.save.listeners.click();
saved.shown = [elements.left.src, elements.right.src, elements.where.textContent];
console.log(JSON.stringify(saved));
"""


def test_both_sides_are_as_likely_and_stay_where_they_are() -> None:
    sides = [champion_is_left(3, f"pair_{at}") for at in range(2_000)]
    assert 900 < sum(sides) < 1_100
    assert sides == [champion_is_left(3, f"pair_{at}") for at in range(2_000)]
    assert sides != [champion_is_left(4, f"pair_{at}") for at in range(2_000)]


def in_books(desk: Desk, work: Any) -> Any:
    """Do something with a gateway's records."""
    settings = load_settings(desk.home, flags={"state": desk.state})

    async def done() -> Any:
        db: Database = open_database(settings.database_url, "process")
        try:
            return await work(db)
        finally:
            await db.aclose()

    return asyncio.run(done())
