"""What experiments cost, what they say, and what becomes of it: the commands `pixelgate shadow`."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace
from PIL import Image

from gateway.assets import FolderBlobs, blob_key
from gateway.cli import run
from gateway.cli.policy_text import flow, with_item, with_revision
from gateway.cli.shell import Stop
from gateway.settings import default_config, load_settings
from gateway.storage.database import open_database
from gateway.storage.rows import AssetRow
from gateway.storage.shadows import ShadowRow, party
from gateway.yaml_files import read
from policies.experiments.pairs import Pair
from policies.policy_file.schema import PolicyFile
from tests.support import models
from tests.support.books import asset
from tests.support.homes import edit, small_home
from tests.support.pairs import Sellers

NAME = "dev-elsewhere"
EXPERIMENT = f"""
experiments:
  - experiment: {NAME}            # asked by finance
    champion: {{provider: fal, model: flux-dev}}
    challengers: [{{name: rep, account: replicate}}]
    sample: {{share: 10%, never: [{{tags: {{privacy: strict}}}}]}}
    budget: {{day: $5, total: $200}}
"""


class Desk:
    """Somebody who types commands over a gateway's records."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = small_home(folder)
        shutil.copy(default_config() / "gateway.yaml", self.home)
        self.state = folder / "state"
        self.state.mkdir()
        self.policy = self.home / "policies/default.yaml"
        self.policy.write_text(self.policy.read_text() + EXPERIMENT)
        self._capsys = capsys

    def types(self, *words: str, code: int = 0) -> tuple[str, str]:
        """A command about experiments: what it answers, and what it remarks."""
        self._capsys.readouterr()
        told = run(["shadow", *words, "--config", str(self.home), "--state", str(self.state)])
        out, err = self._capsys.readouterr()
        assert told == code, err
        return out, err

    def reads(self, *words: str) -> dict[str, Any]:
        """The same, as JSON."""
        said: dict[str, Any] = json.loads(self.types(*words, "--json")[0])
        return said

    def recorded(self, pairs: Sequence[Pair], pictures: Sequence[AssetRow] = ()) -> None:
        """Keep pairs as a gateway would."""
        settings = load_settings(self.home, flags={"state": self.state})

        async def keep() -> None:
            db = open_database(settings.database_url, "process")
            blobs = FolderBlobs(settings.assets_folder)
            for picture in pictures:
                await blobs.put(blob_key(picture.path), drawn())
            rows = [
                ShadowRow(pair=pair, shadow_call=f"call_s{at}", delivered=False, team="acme", measured=True)
                for at, pair in enumerate(pairs)
            ]
            if rows:
                await db.keep_pair(rows[0], pictures)
            await asyncio.gather(*(db.keep_pair(row) for row in rows[1:]))
            await db.aclose()

        asyncio.run(keep())


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def drawn() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(out, "PNG")
    return out.getvalue()


def pairs(count: int, seed: int = 1, **differ: float) -> list[Pair]:
    """Pairs of the experiment, fal against Replicate."""
    found = []
    for pair in Sellers(seed, **differ).pairs(count, challenger="rep"):
        sides = replace(pair.challenger_side, offer="replicate:flux-dev", account="replicate")
        found.append(replace(pair, experiment=NAME, challenger_side=sides, at=1.79e9 + pair.at))
    return found


def test_a_plan_prices_an_experiment_and_says_when_it_can_be_decided(desk: Desk) -> None:
    out, _ = desk.types("plan", NAME, "--a-day", "4000")
    assert "4,000 calls a day, 400.0 of them copied: $5.0000 a day (budget $5)" in out
    assert "50 % of the copies are drawn" in out
    (plan,) = desk.reads("plan", "--all", "--a-day", "1800")["plans"]
    assert plan["copied_a_day"] == 180
    assert plan["a_day"] == 180 * 25_000_000
    measures = {each["measure"]: each for each in plan["challengers"][0]["measures"]}
    assert measures["latency"]["days"] == pytest.approx(measures["latency"]["pairs"] / 180)


def test_a_dry_run_of_a_policy_prices_its_experiments_and_changes_nothing(desk: Desk, tmp_path: Path) -> None:
    desk.recorded([])
    draft = tmp_path / "draft.yaml"
    draft.write_text(desk.policy.read_text().replace("share: 10%", "share: 20%"))
    before = desk.policy.read_text()
    where = ["--config", str(desk.home), "--state", str(desk.state)]
    assert run(["policy", "apply", str(draft), "--dry-run", *where]) == 1  # without calls nothing is decided
    out, err = desk._capsys.readouterr()
    assert f"{NAME}: fal:flux-dev against rep" in out
    assert "has no faults; nothing is changed" in err
    assert desk.policy.read_text() == before
    draft.write_text(draft.read_text().replace("share: 20%", "share: -20%"))
    assert run(["policy", "apply", str(draft), "--dry-run", *where]) == 2


def test_a_plan_says_that_an_account_without_a_key_draws_no_copies(desk: Desk) -> None:
    _, err = desk.types("plan", NAME, "--a-day", "4000")
    assert "the account replicate is off" in err


def test_what_traffic_cannot_decide_is_said_before_it_is_paid_for(desk: Desk) -> None:
    out, _ = desk.types("plan", NAME, "--a-day", "20", code=1)
    assert "undecidable" in out
    assert "out of reach" in out


def test_a_misspelt_experiment_is_told_from_those_there_are(desk: Desk) -> None:
    _, err = desk.types("plan", "dev-elsewere", "--a-day", "9", code=2)
    assert f"did you mean '{NAME}'?" in err


def test_a_report_says_what_pairs_add_up_to(desk: Desk) -> None:
    desk.recorded(pairs(4_000, dearer=0.8))
    out, _ = desk.types("report", NAME)
    assert "rep: SWITCH. Nothing is worse by more than its margin, and cost is " in out
    assert "A switch saves $" in out
    said = desk.reads("report", NAME)
    (challenger,) = said["challengers"]
    assert (challenger["verdict"], challenger["pairs"], said["champion"]) == ("switch", 4_000, "fal:flux-dev")
    listed, _ = desk.types("list")
    assert "switch" in listed
    assert "running" in listed


def test_a_switch_is_among_the_suggestions_of_the_reports_on_spending(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.recorded(pairs(4_000, dearer=0.8))
    promised = desk.reads("report", NAME)["challengers"][0]["money"]["month"]
    assert run(["report", "monthly", "--json", "--config", str(desk.home), "--state", str(desk.state)]) == 0
    (found,) = json.loads(capsys.readouterr().out)["suggestions"]
    assert found["name"] == "switch-seller"
    assert f"shadow adopt {NAME} --challenger rep" in found["do"]
    assert found["nano_usd_per_month"] == pytest.approx(-promised, abs=1)


def test_an_experiment_that_is_over_promises_nothing_more(desk: Desk) -> None:
    desk.recorded(pairs(200))
    assert "more." in desk.reads("report", NAME)["challengers"][0]["reason"]
    edit(desk.policy, "budget: {day: $5", "stop: 2025-02-01\n    budget: {day: $5")
    told = desk.reads("report", NAME)
    assert told["state"] == "ended 2025-02-01"
    assert told["challengers"][0]["reason"] == "Open: cost, latency, failures."
    assert "No copy is drawn any more" in desk.types("plan", NAME, "--a-day", "4000", code=1)[0]


def test_a_report_without_pairs_is_no_fault(desk: Desk) -> None:
    desk.recorded([])
    out, _ = desk.types("report", NAME)
    assert "NOT YET DECIDED. There are no pairs yet." in out


def test_the_page_shows_pictures_side_by_side_and_fetches_nothing(desk: Desk, tmp_path: Path) -> None:
    team = party(NAME)
    ours, theirs = asset("att_1", team=team), asset("att_2", team=team)
    first, *others = pairs(200)
    whole = replace(
        first,
        champion=replace(first.champion, asset=ours.id),
        challenger_side=replace(first.challenger_side, asset=theirs.id),
        measures={"score": 0.25},
    )
    desk.recorded([whole, *others], [ours, theirs])
    page = tmp_path / "report.html"
    desk.types("report", NAME, "--html", str(page))
    text = page.read_text()
    assert text.count('<img src="data:image/jpeg;base64,') == 2
    assert "score +0.250" in text
    assert "NOT YET DECIDED" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text
    assert "<script" not in text


COMPARED = "budget: {day: $5, total: $200}"


def test_what_nothing_here_measures_is_found_before_it_is_waited_for(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(desk.policy, COMPARED, f"compare: [cost, clip]\n    {COMPARED}")
    command = ["policy", "lint", "--config", str(desk.home), "--state", str(desk.state)]
    assert run(command) == 1
    out = capsys.readouterr().out
    assert "nothing here measures clip: clip_image.onnx and clip_text.onnx and tokenizer.json are not in" in out
    assert "[measure]" in out
    _, err = desk.types("plan", NAME, "--a-day", "4000")
    assert "remark: nothing here measures clip, so it would never be decided" in err
    models.all_of_them(desk.state / "models")
    assert run(command) == 0
    assert "nothing here measures" not in desk.types("plan", NAME, "--a-day", "4000")[1]


def test_learned_measures_decide_as_others_do_where_they_are_compared(desk: Desk, tmp_path: Path) -> None:
    edit(desk.policy, COMPARED, f"compare: [cost, clip, aesthetic]\n    {COMPARED}")
    draw = Random(3)
    desk.recorded(
        [
            replace(pair, measures={"clip": draw.gauss(-2, 2), "aesthetic": draw.gauss(0, 0.3), "lpips": 0.4})
            for pair in pairs(2_000)
        ]
    )
    (said,) = desk.reads("report", NAME)["challengers"]
    readings = {each["measure"]: each["said"] for each in said["readings"]}
    assert (said["verdict"], said["why"]) == ("stay", ["clip"])
    assert readings == {"cost": "equivalent", "clip": "worse", "aesthetic": "equivalent"}
    out, _ = desk.types("report", NAME)
    assert "Clip is 2.0" in out
    assert "lpips 0.400" in out
    page = tmp_path / "report.html"
    desk.types("report", NAME, "--html", str(page))
    assert "clip *" in page.read_text()


def test_measuring_says_which_learned_measures_there_are(desk: Desk) -> None:
    desk.recorded([])
    models.lpips(desk.state)
    (desk.state / "models").mkdir()
    (desk.state / "lpips.onnx").rename(desk.state / "models/lpips.onnx")
    said = desk.reads("measure", NAME, "--again")
    assert said["measured"] == 0
    assert said["learned"]["lpips"] is None
    assert said["learned"]["aesthetic"].startswith("clip_image.onnx and aesthetic.onnx are not in")
    _, err = desk.types("measure", NAME)
    assert "learned measures: lpips\n" in err


def test_adopting_writes_a_rule_and_leaves_the_rest_of_the_policy_as_it_is(desk: Desk, tmp_path: Path) -> None:
    desk.recorded(pairs(4_000, dearer=0.8))
    before = desk.policy.read_text()
    out, err = desk.types("adopt", NAME)
    assert "+      - {offer: replicate:flux-dev, over: fal:flux-dev}" in out
    assert "+    unless: {tags: {privacy: [strict]}}" in out
    assert "no call was recorded" in err
    written = tmp_path / "adopted.yaml"
    desk.types("adopt", NAME, "--output", str(written))
    after = written.read_text()
    assert desk.policy.read_text() == before
    kept = [line for line in before.splitlines() if not line.startswith("revision:")]
    assert [line for line in after.splitlines() if line in kept][: len(kept)] == kept
    assert run(["policy", "lint", str(written), "--config", str(desk.home)]) == 0
    assert run(["policy", "apply", str(written), "--config", str(desk.home), "--state", str(desk.state)]) == 0


def test_examples_that_hold_no_longer_under_the_adopted_policy_are_named(desk: Desk) -> None:
    edit(
        desk.policy,
        "examples:\n",
        "examples:\n  - example: fal draws flux-dev\n    given: {model: flux-dev}\n    expect: {provider: fal}\n",
    )
    desk.recorded(pairs(300))
    _, err = desk.types("adopt", NAME, "--anyway")
    assert "the example 'fal draws flux-dev' (line " in err
    assert "expected provider fal, but replicate:flux-dev draws" in err


def test_where_only_some_calls_were_copied_only_those_are_adopted(desk: Desk, tmp_path: Path) -> None:
    edit(
        desk.policy,
        "share: 10%, never: [{tags: {privacy: strict}}]",
        "share: 0%, by: [{tier: export, share: 50%}, {size: {over: 512x512}, hours: 22:00-06:00, share: 9%}]",
    )
    desk.recorded(pairs(300))
    written = tmp_path / "adopted.yaml"
    desk.types("adopt", NAME, "--anyway", "--output", str(written))
    file = read(written).parse(PolicyFile)
    exports, large = file.rules
    assert (exports.rule, large.rule) == ("adopt-dev-elsewhere", "adopt-dev-elsewhere-2")
    assert exports.when is not None
    assert exports.when.intent == ("export",)
    assert large.when is not None
    assert large.when.size is not None
    assert (large.when.size.over, large.when.hours) == ((512, 512), (22 * 60, 6 * 60))
    assert run(["policy", "lint", str(written), "--config", str(desk.home)]) == 0


def test_without_a_switch_nothing_is_adopted_unless_it_is_meant(desk: Desk) -> None:
    desk.recorded(pairs(2_000, dearer=1.3))
    _, err = desk.types("adopt", NAME, code=1)
    assert f"{NAME}, rep: stay. Cost is" in err
    out, _ = desk.types("adopt", NAME, "--anyway")
    assert "rule: adopt-dev-elsewhere" in out


def strata(**dearer: float) -> list[Pair]:
    """Pairs of the experiment by stratum: how many times the champion's price the challenger takes in each."""
    return [
        replace(pair, id=f"{pair.id}-{name}", stratum=name, call_id=f"call_{seed}_{pair.call_id}")
        for seed, (name, price) in enumerate(dearer.items(), 1)
        for pair in pairs(1_500, seed, dearer=price)
    ]


def told_apart_by(desk: Desk, what: str) -> None:
    edit(desk.policy, "sample: {share: 10%, never", f"sample: {{share: 10%, stratify: [{what}], never")
    edit(desk.policy, "budget: {day: $5, total: $200}", "budget: {day: $5, total: $200}\n    compare: [cost]")


def test_where_strata_disagree_those_with_a_switch_of_their_own_are_adopted(desk: Desk, tmp_path: Path) -> None:
    told_apart_by(desk, "tier, size")
    desk.recorded(strata(**{"export 1024x1024": 0.7, "preview 512x768": 1.4, "preview 1024x1024": 1.4}))
    report, _ = desk.types("report", NAME)
    assert "warning: cost is lower in export 1024x1024 and higher in preview" in report
    _, err = desk.types("adopt", NAME, code=1)
    assert "`--by-stratum` adopts it for export 1024x1024 alone" in err
    written = tmp_path / "adopted.yaml"
    desk.types("adopt", NAME, "--by-stratum", "--output", str(written))
    (rule,) = read(written).parse(PolicyFile).rules
    assert rule.when is not None
    assert rule.when.intent == ("export",)
    assert rule.when.size is not None
    assert (rule.when.size.over, rule.when.size.up_to) == ((1023, 1024), (1024, 1024))
    assert rule.unless is not None
    assert rule.because is not None
    assert "dev-elsewhere, export 1024x1024, 1,500 pairs" in rule.because
    assert run(["policy", "lint", str(written), "--config", str(desk.home)]) == 0


def test_a_stratum_that_is_named_is_adopted_on_its_own_verdict_only(desk: Desk) -> None:
    told_apart_by(desk, "tag:app, intent")
    desk.recorded(strata(**{'"web shop" preview': 0.7, "poster preview": 1.4, "- export": 0.7}))
    out, err = desk.types("adopt", NAME, "--stratum", "tag:app=web shop", "--stratum", "intent=preview")
    assert '+    when: {intent: [preview], tags: {app: "web shop"}}' in out
    assert "rule 'adopt-dev-elsewhere' asks for tags, which records do not keep: when played, it moves nothing" in err
    assert "rule 'adopt-dev-elsewhere' leaves out tags, which" in err
    _, err = desk.types("adopt", NAME, "--stratum", "tag:app=poster", code=1)
    assert f"{NAME}, rep, poster preview: stay. Cost is" in err


@pytest.mark.parametrize(
    ("told_by", "names", "words", "said"),
    [
        ("tag:app", ("-", "web"), ("--by-stratum",), "stratum -: no rule can name calls without tag:app"),
        ("size", ("512x2048", "1024x1024"), ("--stratum", "size=512x2048"), "would be about 1024x1024 as well"),
        ("tier, intent", ("export preview", "export export"), ("--stratum", "intent=preview"), "no intent"),
        ("intent", ("export 512x512", "preview"), ("--stratum", "tier=export"), "results apart by intent; write"),
        ("intent", ("export", "preview"), ("--stratum", "intent=poster"), "there are those of: export, preview"),
        ("intent", ("export", "preview"), ("--stratum", "intent=export", "--by-stratum"), "say one of them"),
        ("intent", ("export",), ("--by-stratum",), "are of one kind so far"),
    ],
)
def test_a_stratum_that_no_rule_can_name_is_refused_by_name(
    desk: Desk, told_by: str, names: tuple[str, ...], words: tuple[str, ...], said: str
) -> None:
    told_apart_by(desk, told_by)
    desk.recorded(strata(**dict.fromkeys(names, 0.7)))
    found = run(["shadow", "adopt", NAME, *words, "--anyway", "--config", str(desk.home), "--state", str(desk.state)])
    assert found != 0
    assert said in desk._capsys.readouterr().err


def test_a_challenger_is_adopted_with_the_parameters_it_was_asked_with(desk: Desk, tmp_path: Path) -> None:
    edit(desk.policy, "account: replicate}", "account: replicate, params: {steps: 20, guidance: 3.5}}")
    desk.recorded(pairs(300))
    written = tmp_path / "adopted.yaml"
    desk.types("adopt", NAME, "--anyway", "--output", str(written))
    assert "    params:\n      - {offer: replicate:flux-dev, steps: 20, guidance: 3.5}\n" in written.read_text()
    assert run(["policy", "lint", str(written), "--config", str(desk.home)]) == 0


def test_the_champion_asked_in_another_way_is_adopted_by_its_parameters_alone(desk: Desk) -> None:
    edit(desk.policy, "account: replicate}", "account: fal, params: {steps: 20}}")
    same = [replace(pair, challenger_side=replace(pair.challenger_side, offer="fal:flux-dev")) for pair in pairs(300)]
    desk.recorded(same)
    out, _ = desk.types("adopt", NAME, "--anyway")
    assert "+    params:\n+      - {offer: fal:flux-dev, steps: 20}\n" in out
    assert "prefer" not in out


def test_a_field_of_the_sellers_own_is_not_adopted_unless_the_catalogue_fixes_it(desk: Desk) -> None:
    edit(desk.policy, "account: replicate}", "account: replicate, params: {go_fast: true}}")
    desk.recorded(pairs(300))
    _, err = desk.types("adopt", NAME, "--anyway", code=1)
    assert "write `fixed: {go_fast: true}` under replicate:flux-dev in the catalogue, then adopt" in err


def test_a_stratum_is_adopted_within_the_calls_that_were_copied(desk: Desk, tmp_path: Path) -> None:
    told_apart_by(desk, "intent")
    edit(
        desk.policy,
        "share: 10%, stratify",
        "share: 0%, by: [{tier: export, share: 9%}, {tags: {app: a}, share: 9%}], stratify",
    )
    desk.recorded(strata(preview=0.7, export=1.4))
    written = tmp_path / "adopted.yaml"
    desk.types("adopt", NAME, "--by-stratum", "--output", str(written))
    (rule,) = read(written).parse(PolicyFile).rules  # no call is both a preview and of tier export
    assert rule.when is not None
    assert (rule.when.intent, rule.when.tags) == (("preview",), {"app": ("a",)})


def test_a_migration_is_sized_priced_and_ready_to_paste(desk: Desk, tmp_path: Path) -> None:
    written = tmp_path / "migrating.yaml"
    out, err = desk.types("migrate", "--from", "fal", "--to", "replicate", "--days", "60", "--a-day", "2000")
    assert out.startswith("  - experiment: migrate-fal-to-replicate\n")
    assert "A verdict in about" in err
    desk.types(
        "migrate", "--from", "fal", "--to", "replicate", "--days", "60", "--a-day", "2000", "--output", str(written)
    )
    assert run(["policy", "lint", str(written), "--config", str(desk.home)]) == 0
    assert desk.policy.read_text().splitlines()[-1] in written.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--from", "fal", "--to", "fal"), "that is where calls are drawn now"),
        (("--from", "fal", "--to", "nobody"), "--to nobody: there is none of that name"),
        (("--from", "fal", "--to", "together", "--model", "flux-dev"), "together sells nothing of what fal sells"),
    ],
)
def test_a_migration_that_cannot_be_is_refused_in_words(desk: Desk, words: tuple[str, ...], said: str) -> None:
    code = 1 if "sells nothing" in said else 2
    assert said in desk.types("migrate", *words, "--a-day", "9", code=code)[1]


def test_an_item_goes_to_the_end_of_its_list_and_remarks_stay() -> None:
    text = "policy: a\nrevision: 3   # ours\nrules:\n  - rule: one   # first\n    deny: {}\n\n# below\nexamples: []\n"
    changed = with_item(with_revision(text, 4), "rules", ["rule: two", "deny: {}"])
    assert changed == (
        "policy: a\nrevision: 4   # ours\nrules:\n  - rule: one   # first\n    deny: {}\n"
        "  - rule: two\n    deny: {}\n\n# below\nexamples: []\n"
    )
    assert with_item(text, "examples", ["example: x"]).endswith("examples:\n  - example: x\n")
    assert with_item("policy: a\n", "rules", ["rule: two"]) == "policy: a\n\nrules:\n  - rule: two\n"


def test_a_list_between_brackets_is_not_guessed_at() -> None:
    with pytest.raises(Stop, match="line 1: `rules` is written between brackets"):
        with_item("rules: [{rule: a}]\n", "rules", ["rule: two"])


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("fal:flux-dev", "fal:flux-dev"),
        ("no", '"no"'),
        ("two: words", '"two: words"'),
        ({"size": "1024x1024", "share": "5%"}, "{size: 1024x1024, share: 5%}"),
        (["$5", 3, True], "[$5, 3, true]"),
        ("22:00-06:00", '"22:00-06:00"'),
    ],
)
def test_values_are_written_as_yaml_reads_them(value: object, written: str) -> None:
    assert flow(value) == written
