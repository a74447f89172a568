"""Every nano-dollar is accounted for although everything fails and the gateway is killed: `bench money`, shortened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.money import judge
from bench.money.driver import Answer
from bench.money.judge import Books, SandboxBooks
from bench.money.traffic import plan_calls
from bench.report import Figure

CHECKOUT = Path(__file__).resolve().parents[2]

BOOKS = Books(
    cost={"fal": 300},
    charge={"call_1": 300},
    assets={"call_1": 300},
    held={"cost fal": 0},
    states={"settled": 1},
    orders={"fal": 1},
    tickets=["fal/a"],
)
SANDBOX = SandboxBooks(invoice={"fal": 300}, submissions={"fal": 1}, repeats=0, limit_violations={})
CALL = plan_calls(1, seed=0)[0]


def answer(told: int) -> Answer:
    return Answer(call=CALL, end="answered", status=200, decision="dec_1", nano_usd=told, pictures=1)


@pytest.mark.slow
def test_ledger_equals_invoice_after_faults_and_a_kill(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "bench.money", "--orders", "200", "--kills", "1", "--json", str(figures)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {name: figure["value"] for name, figure in json.loads(figures.read_text())["figures"].items()}
    assert found["orders"] >= 200
    assert found["sigkills"] == 1
    assert found["drift_nano_usd"] == found["suspended"] == found["duplicate_submissions"] == 0


def test_the_judge_finds_nothing_in_books_that_agree() -> None:
    assert not any(judge.drift(BOOKS, SANDBOX).values())
    assert judge.repeated(BOOKS, SANDBOX) == 0
    assert list(judge.objections(BOOKS, [answer(300)], kills=0)) == []


def test_the_judge_sees_a_nano_dollar_too_much_on_an_invoice() -> None:
    billed = SandboxBooks(invoice={"fal": 301}, submissions={"fal": 1}, repeats=0, limit_violations={})
    assert judge.drift(BOOKS, billed) == {"fal": -1}


def test_the_judge_sees_an_account_only_the_sandbox_knows() -> None:
    billed = SandboxBooks(invoice={"fal": 300, "other": 7}, submissions={"fal": 1}, repeats=0, limit_violations={})
    assert judge.drift(BOOKS, billed)["other"] == -7


def test_the_judge_sees_an_order_sent_twice() -> None:
    billed = SandboxBooks(invoice={"fal": 300}, submissions={"fal": 2}, repeats=0, limit_violations={})
    assert judge.repeated(BOOKS, billed) == 1


def test_the_judge_sees_a_caller_told_another_price_than_the_team_owes() -> None:
    (objection,) = judge.objections(BOOKS, [answer(299)], kills=0)
    assert "told 299" in objection


def test_the_judge_sees_a_charge_nobody_asked_for() -> None:
    (objection,) = judge.objections(BOOKS, [], kills=0)
    assert "charged without an answer" in objection


def test_the_same_seed_plans_the_same_calls() -> None:
    assert plan_calls(50, seed=7) == plan_calls(50, seed=7) != plan_calls(50, seed=8)


def test_a_figure_that_was_not_measured_fails_its_must() -> None:
    assert not Figure(name="x", value=None, unit="", must=1.0).ok
    assert Figure(name="x", value=None, unit="").ok


def test_a_floor_and_a_ceiling_are_told_apart() -> None:
    assert Figure(name="x", value=2, unit="", must=1, at_least=True).ok
    assert not Figure(name="x", value=2, unit="", must=1).ok
