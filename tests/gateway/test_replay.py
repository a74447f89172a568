from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from gateway.app import cost_engine
from gateway.cli import run as run_command
from gateway.cli.pieces import pieces
from gateway.cli.recorded import read_lines
from gateway.cli.replay import Replayed, as_markdown, compared, shape, text
from gateway.cli.replay_page import page
from gateway.cli.simulating import World
from gateway.cli.trace_file import read_traces, traces_of
from gateway.revisions import PolicyText, Revision, load_revision
from gateway.settings import load_settings
from policies.offline.trace import DELIVERED
from tests.support.town import town

POLICY = Path("config/policies/default.yaml").read_text(encoding="utf-8")


def revision_of(policy: str = POLICY, catalog: Path | None = None) -> Revision:
    text = PolicyText("default.yaml", policy.encode())
    return load_revision(load_settings(None, flags={}), every_account=True, policy=text, catalog_dir=catalog)


@pytest.fixture(scope="module")
def revision() -> Revision:
    return revision_of()


def calls(tmp_path: Path, count: int = 240, every: float = 3.0, **ask: object) -> Path:
    path = tmp_path / "calls.jsonl"
    lines = [
        {
            "at": 1_795_000_000 + every * number,
            "team": ("acme", "studio")[number % 2],
            "ask": {"intent": ("preview", "preview", "export")[number % 3], "size": "1024x1024", **ask},
            "done": {"offer": "fal:flux-schnell", "nano_usd": 3_000_000, "seconds": 1.0},
        }
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def replayed(path: Path, old: Revision, new: Revision, sample: float = 1.0) -> Replayed:
    return compared((old, new), read_traces(path, (old, new)), World(), sample)


def dearer(tmp_path: Path, model: str, old: str, new: str) -> Path:
    folder = tmp_path / "prices"
    folder.mkdir()
    for path in Path("config/catalog").glob("*.yaml"):
        told = path.read_text(encoding="utf-8")
        (folder / path.name).write_text(told.replace(old, new) if path.stem == model else told, encoding="utf-8")
    return folder


def test_a_policy_against_itself_changes_nothing_at_all(revision: Revision, tmp_path: Path) -> None:
    found = replayed(calls(tmp_path), revision, revision).comparison
    assert found.moved == 0
    assert found.total.old == found.total.new
    assert found.total.cost_pct == (0.0, 0.0, 0.0)
    assert found.total.on_time_points == (0.0, 0.0, 0.0)


def test_a_dearer_price_book_moves_calls_away_from_who_became_dear(revision: Revision, tmp_path: Path) -> None:
    before = replayed(calls(tmp_path), revision, revision).comparison
    dear = dearer(tmp_path, "flux-schnell", "per_image: $0.003", "per_image: $0.3")
    found = replayed(calls(tmp_path), revision, revision_of(catalog=dear))
    assert found.comparison.old != found.comparison.new
    assert not any(move.new == "replicate:flux-schnell" for move in found.comparison.moves)
    assert sum(group.old.cost for group in found.comparison.teams) == found.comparison.total.old.cost
    assert found.comparison.total.old.cost == before.total.old.cost


def test_steps_that_a_rule_asks_for_cost_and_take_what_they_do(revision: Revision, tmp_path: Path) -> None:
    rule = "\nrules:\n  - {rule: twice, params: [{offer: 'together:flux-schnell', steps: 8}]}\n"
    here = {"model": "flux-schnell", "providers": {"only": ["together"]}}
    ruled = revision_of(POLICY + rule)
    found = replayed(calls(tmp_path, 60, 20.0, **here), revision, ruled).comparison.total
    assert found.new.cost == 2 * found.old.cost > 0
    assert found.new.p50 > found.old.p50
    named = replayed(calls(tmp_path, 60, 20.0, steps=4, **here), revision, ruled).comparison.total
    assert named.new == named.old


def test_both_sides_are_judged_by_the_terms_of_the_old_one(revision: Revision, tmp_path: Path) -> None:
    lax = revision_of(POLICY.replace("latency_slo: 3s ", "latency_slo: 50s "))
    path = calls(tmp_path, every=0.4)
    strict = replayed(path, revision, lax).comparison.total
    assert strict.old.late > 0
    assert strict.new.late > 0
    assert replayed(path, lax, revision).comparison.total.new.late == 0


def test_an_intent_that_only_the_new_policy_lacks_fails_there_and_is_told(revision: Revision, tmp_path: Path) -> None:
    old = revision_of(
        POLICY.replace(
            "  export:                       #",
            "  poster: {tier: export, latency_slo: 60s, deadline: 180s}\n  export: #",
        )
    )
    path = calls(tmp_path, count=30, intent="poster")
    found = replayed(path, old, revision)
    assert found.comparison.total.old.failed == 0
    assert found.comparison.total.new.failed == 30
    assert "30 calls fail, first calls.jsonl:1: default@1 refuses it" in found.remarks[0]


def test_what_was_recorded_stands_beside_the_simulation(revision: Revision, tmp_path: Path) -> None:
    found = replayed(calls(tmp_path, count=60), revision, revision)
    assert found.recorded is not None
    assert found.recorded.cost == 60 * 3_000_000
    assert found.recorded.simulated == found.comparison.total.old.cost
    assert found.recorded.on_time_pct == 100.0
    assert "Recorded: $0.1800 for 60 calls" in text(found)


def test_pieces_hold_every_call_once_and_each_is_warmed_up(revision: Revision, tmp_path: Path) -> None:
    trace = read_traces(calls(tmp_path, count=50_000, every=0.5), (revision,))[0]
    cut = pieces(trace, 1.0)
    assert len(cut) > 1
    assert np.concatenate([np.arange(each.first, each.last) for each in cut]).tolist() == list(range(50_000))
    assert all(each.first - each.warm == 1_200 for each in cut[1:])
    assert pieces(trace.between(0, 100), 1.0) == [pieces(trace.between(0, 100), 1.0)[0]]


@pytest.mark.slow
def test_a_trace_played_in_pieces_on_several_cores_comes_to_what_it_comes_to_in_one(
    revision: Revision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = calls(tmp_path, count=600, every=5.0)
    whole = replayed(path, revision, revision).comparison.total.old
    monkeypatch.setattr("gateway.cli.pieces._WHOLE", 100)
    monkeypatch.setattr("gateway.cli.pieces._PIECE", 300)
    cut = replayed(path, revision, revision).comparison
    assert cut.moved == 0
    assert cut.total.old.calls == whole.calls == 600
    assert cut.total.old.cost == pytest.approx(whole.cost, rel=0.03)


def test_a_sample_is_spread_over_the_trace_and_named_as_one(revision: Revision, tmp_path: Path) -> None:
    path = calls(tmp_path, count=400, every=90.0)  # ten hours
    found = replayed(path, revision, revision, sample=0.2)
    assert 60 <= found.trace.size <= 100
    assert "a sample: 80 of 400 calls, in 4 stretches of 30 minutes" in found.remarks[0]


def test_markdown_json_and_page_tell_the_same(revision: Revision, tmp_path: Path) -> None:
    found = replayed(calls(tmp_path, count=60), revision, revision)
    told = msgspec.json.decode(msgspec.json.encode(shape(found)))
    assert told["total"]["old"]["cost_nano_usd"] == found.comparison.total.old.cost
    assert {team["name"] for team in told["teams"]} == {"acme", "studio"}
    lines = [line for line in as_markdown(found).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    html = page(found)
    assert "<svg" in html
    assert "http" not in html


def test_intervals_hold_what_is_estimated_and_shrink_with_more_calls(revision: Revision, tmp_path: Path) -> None:
    hurried = revision_of(POLICY.replace("late_second: $0.002 ", "late_second: $0.2 "))
    widths = []
    for count in (240, 1_600):
        found = replayed(calls(tmp_path, count=count), revision, hurried).comparison.total.cost_pct
        assert found is not None
        assert found.low <= found.value <= found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0]


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (["replay", "--markdown", "--json"], "choose one", 2),
        (["replay", "--policy", "nowhere.yaml"], "neither a policy file nor the name of a policy", 2),
        (["diff", "default", "nowhere"], "neither a policy file nor the name of a policy", 2),
        (["replay", "--limit", "fal=0", "--limit", "together=0", "--limit", "replicate=0"], "no account is left", 2),
    ],
)
def test_bad_options_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], says: str, code: int
) -> None:
    assert run_command(["policy", *words, "--trace", str(calls(tmp_path, count=3))]) == code
    assert says in capsys.readouterr().err


def test_two_policies_are_compared_from_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    candidate = tmp_path / "candidate.yaml"
    candidate.write_text(POLICY.replace("revision: 1 ", "revision: 2 "), encoding="utf-8")
    words = ["policy", "diff", "default", str(candidate), "--trace", str(calls(tmp_path, count=30)), "--markdown"]
    assert run_command(words) == 0
    assert capsys.readouterr().out.startswith("### Policy: default@1 -> default@2\n")


async def test_what_a_gateway_served_becomes_a_trace_with_what_became_of_it(tmp_path: Path) -> None:
    async with town(tmp_path, cost_engine) as t:
        policy = t.app.revision.policy
        ids = []
        for count in (1, 2):
            call = t.call(count=count)
            ids.append(call.id)
            await t.app.pipeline.serve(call)
        await t.settled()
        settings = t.app.settings
        cost = sum((await t.costs()).values())
    lines = await read_lines(settings, policy, 1.0)
    trace = traces_of("records", enumerate(lines, 1), (t.app.revision,))[0]
    assert trace.size == 2
    assert [trace.kinds[kind].request.count for kind in trace.kind] == [1, 2]
    assert {kind.request.size for kind in trace.kinds} == {(512, 512)}
    assert trace.done is not None
    assert trace.done.state.tolist() == [DELIVERED, DELIVERED]
    assert int(trace.done.cost.sum()) == cost
    assert (trace.done.seconds > 0).all()
    assert b"lighthouse" not in b"".join(msgspec.json.encode(line) for line in lines)


def test_nothing_recorded_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["policy", "trace", "--state", str(tmp_path)]) == 2
    assert "there are no records" in capsys.readouterr().err


def test_a_sample_of_few_stretches_has_intervals_from_shorter_blocks(revision: Revision, tmp_path: Path) -> None:
    found = replayed(calls(tmp_path, count=1_200, every=30.0), revision, revision, sample=0.1)  # ten hours
    assert found.comparison.blocks == "60 minutes"
    assert found.comparison.total.cost_pct == (0.0, 0.0, 0.0)
