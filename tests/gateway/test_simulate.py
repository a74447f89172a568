from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gateway.cli import run as run_command
from gateway.cli import simulate
from gateway.cli.shell import Stop
from gateway.cli.simulating import World
from gateway.cli.simulation_page import page
from gateway.cli.trace_file import made_up, read_trace
from gateway.revisions import Revision, load_revision
from gateway.settings import load_settings
from policies.eligibility import objection
from policies.offline.baselines import baselines
from policies.offline.catalog_bound import lower_bound
from policies.offline.catalog_world import CatalogWorld, Trouble
from policies.offline.simulation import EnginePolicy, Outcome, play
from policies.offline.trace import Trace
from policies.offline.traffic import CROWDS, make_up
from policies.types import Ask


@pytest.fixture(scope="module")
def revision() -> Revision:
    return load_revision(load_settings(None, flags={}), every_account=True)


def traffic(revision: Revision, name: str = "steady", hours: float = 0.05, rate: float = 1.0, seed: int = 1) -> Trace:
    return made_up(make_up(name, hours=hours, rate=rate, seed=seed), name, revision)


def world_of(revision: Revision, trace: Trace, **terms: object) -> CatalogWorld:
    return CatalogWorld(revision.catalog, trace, per_order=1, **terms)  # type: ignore[arg-type]


def engine(revision: Revision, world: CatalogWorld) -> Outcome:
    return play(world, EnginePolicy(world, revision.policy, revision.catalog.capacities))


def written(tmp_path: Path, *lines: object) -> Path:
    path = tmp_path / "calls.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_the_same_seed_makes_the_same_calls_and_the_same_decisions(revision: Revision) -> None:
    one, two = (engine(revision, world_of(revision, traffic(revision))) for _ in range(2))
    assert one.figures() == two.figures()
    assert (one.offer == two.offer).all()
    other = engine(revision, world_of(revision, traffic(revision, seed=2)))
    assert other.figures() != one.figures()


@pytest.mark.parametrize("name", sorted(CROWDS))
def test_nobody_is_below_the_bound(revision: Revision, name: str) -> None:
    world = world_of(revision, traffic(revision, name, hours=0.05, rate=2.0))
    bound = lower_bound(world, 60)
    assert bound is not None
    assert bound > 0
    totals = {name: play(world, make()).figures().total for name, make in baselines(world).items()}
    totals["engine"] = engine(revision, world).figures().total
    assert {name: total for name, total in totals.items() if total < bound} == {}


def test_the_bound_is_reached_where_nothing_is_scarce(revision: Revision) -> None:
    free = dict.fromkeys(("fal", "replicate"), 100_000)
    world = world_of(revision, traffic(revision, rate=0.1), limits={**free, "together": 0})
    bound = lower_bound(world, 10)
    assert bound is not None
    best = min(play(world, make()).figures().total for make in baselines(world).values())
    assert bound <= best <= 1.25 * bound


def test_an_offer_sells_what_its_gates_let_through_and_nothing_else(revision: Revision, tmp_path: Path) -> None:
    sizes = ("512x512", "1024x1024", "1344x768", "1000x1000", "2048x2048")
    path = written(tmp_path, *({"at": 0, "ask": {"size": size}} for size in sizes))
    world = world_of(revision, read_trace(path, revision))
    for number, kind in enumerate(world.kinds):
        ask = Ask(call_id="", part=0, request=kind.request, constraints=kind.constraints, arrived=0.0)
        for e, offer in enumerate(world.offers):
            if objection(offer, ask) is not None:
                assert not world.row(number).serves[e]
    # Together draws no side above 1440.
    large = next(n for n, kind in enumerate(world.kinds) if kind.request.size == (2048, 2048))
    sellers = {world.offers[e].account for e, serves in enumerate(world.row(large).serves) if serves}
    assert "fal" in sellers
    assert "together" not in sellers


def test_calls_of_several_pictures_become_orders_of_one_each(revision: Revision, tmp_path: Path) -> None:
    lines = [{"at": 0, "ask": {"n": 4}}, {"at": 1, "ask": {"n": 1}}]
    world = world_of(revision, read_trace(written(tmp_path, *lines), revision))
    assert world.call.tolist() == [0, 0, 0, 0, 1]
    outcome = engine(revision, world)
    assert outcome.images.tolist() == [4, 1]


def test_what_was_asked_during_a_failure_of_everybody_fails_and_what_comes_after_is_served(revision: Revision) -> None:
    trouble = Trouble(account="all", what="refuses", begins=50.0, ends=100.0)
    trace = traffic(revision, hours=0.05, rate=2.0)
    outcome = engine(revision, world_of(revision, trace, troubles=[trouble]))
    during, after = (trace.at > 50) & (trace.at < 80), trace.at > 115
    assert outcome.failed[during].any()
    assert not outcome.failed[after].any()
    assert outcome.late[after].mean() < 0.1


def test_an_account_of_no_slots_sells_nothing(revision: Revision) -> None:
    outcome = engine(revision, world_of(revision, traffic(revision), limits={"fal": 0}))
    assert not any(name.startswith("fal:") for name in outcome.shares())
    with pytest.raises(Stop, match="no account is left"):
        simulate.run(revision, traffic(revision), World(limit=("fal=0", "together=0", "replicate=0")), alone=True)


def test_slots_that_are_gone_for_a_while_hold_calls_up_and_come_back(revision: Revision) -> None:
    trouble = Trouble(account="all", what="slots", begins=20.0, ends=60.0, value=0.0)
    trace = traffic(revision, hours=0.05)
    outcome = engine(revision, world_of(revision, trace, troubles=[trouble]))
    assert not outcome.failed[trace.at > 90].any()


def test_a_silence_of_a_month_is_told_and_costs_nothing_to_simulate(revision: Revision, tmp_path: Path) -> None:
    path = written(tmp_path, {"at": 0}, {"at": 30 * 86_400})
    trace = read_trace(path, revision)
    assert [remark for remark in trace.remarks if "720.0 h" in remark]
    assert engine(revision, world_of(revision, trace)).figures().failed == 0


def test_lines_out_of_order_are_sorted_and_told(revision: Revision, tmp_path: Path) -> None:
    path = written(
        tmp_path, {"at": "2026-11-24T10:00:00Z"}, {"at": "2026-11-24T09:59:58Z"}, {"at": "2026-11-24T10:01:00Z"}
    )
    trace = read_trace(path, revision)
    assert trace.at.tolist() == [0.0, 2.0, 62.0]
    assert trace.begins == 1_795_514_398.0
    assert "1 lines stood after a later one" in trace.remarks[0]


def test_models_nobody_knows_are_left_out_and_named_with_the_nearest(revision: Revision, tmp_path: Path) -> None:
    path = written(
        tmp_path, {"at": 0, "ask": {"model": "flux-devv"}}, {"at": 1}, {"at": 2, "ask": {"model": "flux-devv"}}
    )
    trace = read_trace(path, revision)
    assert trace.size == 1
    (remark,) = trace.remarks
    assert remark.startswith("2 calls left out, first calls.jsonl:1:")
    assert "flux-dev" in remark


def test_intents_that_the_policy_lacks_are_left_out_and_named(revision: Revision, tmp_path: Path) -> None:
    path = written(tmp_path, {"at": 0, "ask": {"intent": "draft"}}, {"at": 1})
    assert "draft" in read_trace(path, revision).remarks[0]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"at": 1', "calls.jsonl:2: "),
        ('{"ask": {}}', "calls.jsonl:2: Object missing required field `at`"),
        ('{"at": 1, "when": 2}', "calls.jsonl:2: Object contains unknown field `when`"),
        ('{"at": "yesterday"}', "calls.jsonl:2: at 'yesterday' is no moment; write 2026-"),
        ('{"at": -5}', "calls.jsonl:2: at -5 is no moment"),
        ('{"at": 1, "done": {"nano_usd": -1}}', "calls.jsonl:2: done.nano_usd -1: a cost is 0 or more"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_with_the_fix(
    revision: Revision, tmp_path: Path, line: str, says: str
) -> None:
    with pytest.raises(Stop) as stopped:
        read_trace(written(tmp_path, {"at": 0}, line), revision)
    assert str(stopped.value).startswith(says)


def test_a_trace_of_nothing_that_could_be_simulated_says_why(revision: Revision, tmp_path: Path) -> None:
    with pytest.raises(Stop, match=r"no call in it that could be simulated\n1 call left out"):
        read_trace(written(tmp_path, {"at": 0, "ask": {"size": "7x7"}}), revision)


def test_a_recorded_cost_that_is_missing_stays_unknown(revision: Revision, tmp_path: Path) -> None:
    path = written(tmp_path, {"at": 0, "done": {"offer": "fal:flux-schnell"}}, {"at": 1, "done": {"nano_usd": 0}})
    done = read_trace(path, revision).done
    assert done is not None
    assert done.cost.tolist() == [-1, 0]
    assert np.isnan(done.seconds).all()


def test_what_nobody_sells_is_told(revision: Revision, tmp_path: Path) -> None:
    path = written(tmp_path, {"at": 0, "ask": {"model": "flux-2-pro", "size": "512x512", "max_cost": 0.000001}})
    found = simulate.run(revision, read_trace(path, revision), World(), alone=True)
    assert found.outcomes[0].figures().failed == 1
    assert "nobody can serve 1 orders" in found.remarks[0]


def test_text_json_and_page_tell_the_same(revision: Revision) -> None:
    found = simulate.run(revision, traffic(revision, hours=0.02), World())
    told = simulate.shape(found)
    assert told["policy"] == "default@1"
    first = told["outcomes"][0]  # type: ignore[index]
    assert first["cost_nano_usd"] == int(found.outcomes[0].cost.sum())
    assert "default@1" in simulate.text(found)
    html = page(found)
    assert html.count("<circle") == len(found.outcomes)
    assert "http://" not in html
    assert "https://" not in html


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--traffic", "dey"], "there is no such traffic; there are: day"),
        (["--limit", "fal"], "write ACCOUNT=SLOTS"),
        (["--limit", "fall=3"], "there is no account of that name; there are: fal, together, replicate"),
        (["--trouble", "fal:sulks:1-2"], "write ACCOUNT:WHAT:FROM-TO"),
        (["--trouble", "fal:slow:1-2"], "write ACCOUNT:WHAT:FROM-TO"),
        (["--trouble", "fal:refuses:5-2"], "it ends before it begins"),
        (["--errors", "3"], "a share from 0 to 1"),
        (["--policy", "nowhere.yaml"], "neither a policy file nor the name of a policy; there are: default"),
        (["--catalog", "/nowhere"], "no folder with a catalogue"),
        (["--trace", "/nowhere/calls.jsonl"], "No such file"),
        (["--rate", "0.000001"], "no call came"),
    ],
)
def test_bad_options_are_named_with_the_fix(capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert run_command(["policy", "simulate", "--hours", "0.01", *words]) == 2
    assert says in capsys.readouterr().err


def test_another_policy_file_is_tried_without_being_in_force(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shipped = Path("config/policies/default.yaml").read_text(encoding="utf-8")
    candidate = tmp_path / "candidate.yaml"
    candidate.write_text(shipped.replace("revision: 1 ", "revision: 7 "), encoding="utf-8")
    assert run_command(["policy", "simulate", "--hours", "0.01", "--alone", "--json", "--policy", str(candidate)]) == 0
    assert json.loads(capsys.readouterr().out)["policy"] == "default@7"


def test_prices_of_nothing_in_another_catalogue_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for path in Path("config/catalog").glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    schnell = tmp_path / "flux-schnell.yaml"
    schnell.write_text(
        schnell.read_text(encoding="utf-8").replace("per_image: $0.003", "per_image: $0"), encoding="utf-8"
    )
    assert run_command(["policy", "simulate", "--hours", "0.01", "--catalog", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "flux-schnell.yaml:" in error
    assert "a price of $0 is refused" in error
