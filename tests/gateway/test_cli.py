from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import run
from gateway.settings import CHECKOUT, default_config
from policies.scorers import SCORERS

BARE = {name: value for name, value in os.environ.items() if not name.startswith(("PIXELGATE_", "FAL_", "TOGETHER_"))}


@contextmanager
def started(*words: str, cwd: Path, environ: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, ended with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", *words],
        cwd=cwd,
        env={**BARE, "PYTHONPATH": str(CHECKOUT), **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def answer(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - our own server
        body: bytes = response.read()
        return body


def read_when_there(path: Path, process: subprocess.Popen[str]) -> dict[str, Any]:
    for _ in range(600):
        if path.exists():
            found: dict[str, Any] = json.loads(path.read_text())
            return found
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    raise AssertionError(f"{path} never came")


def test_help_is_shown_without_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "serve" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "groups"),
    [
        (["keys", "create"], ("What it may do, and spend", "Where")),
        (["advise", "selfhost"], ("The machine", "Each month", "Where")),
        (["budgets", "set"], ("Whose it is", "Where")),
    ],
)
def test_help_shows_many_options_by_what_they_are_about(
    words: list[str], groups: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    assert [group for group in groups if f"─ {group} ─" not in shown] == []


@pytest.mark.parametrize(
    "words",
    [
        ["srve"],
        ["keys", "create", "--bugdet", "3"],
        ["serve", "--port", "many"],
        ["serve", "--port", "70000"],
        ["sandbox", "--port", "70000"],
        ["demo", "--port", "-1"],
        ["sandbox", "--time-scale", "0"],
        ["demo", "--time-scale", "-1"],
        ["demo", "--once", "--compare"],
        ["ledger", "reconcile", "--days", "0"],
    ],
)
def test_bad_usage_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    assert capsys.readouterr().err


def test_a_bad_file_is_shown_with_its_place_and_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gateway.yaml").write_text("prot: 1\n")
    assert run(["quote", "--config", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "gateway.yaml:1:1: unknown key 'prot'" in said
    assert "1 fault; nothing was started" in said


def test_quotes_need_no_keys_and_come_cheapest_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quote", "--model", "flux-schnell", "--json"]) == 0
    offers = json.loads(capsys.readouterr().out)["offers"]
    assert [(offer["offer"], offer["nano_usd"]) for offer in offers] == [
        ("together:flux-schnell", 2_831_155),
        ("fal:flux-schnell", 3_000_000),
        ("replicate:flux-schnell", 3_000_000),
    ]
    assert all(offer["feasible"] for offer in offers)


def test_quotes_name_the_tier_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quote", "--tier", "export", "--size", "1024x1024"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(("fal:flux-2-pro", "together:flux-2-pro"))


def test_an_edit_is_quoted_with_the_pictures_that_go_in(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "quote",
        "--model",
        "flux-2-pro",
        "--operation",
        "edit",
        "--references",
        "2",
        "--size",
        "square_hd",
        "--json",
    ]
    assert run(words) == 0
    best, second, *others = json.loads(capsys.readouterr().out)["offers"]
    assert (best["offer"], best["nano_usd"], best["feasible"]) == ("fal:flux-2-pro/edit", 60_000_000, True)
    assert (second["offer"], second["nano_usd"], second["feasible"]) == ("replicate:flux-2-pro", 60_000_000, True)
    assert all("does not edit" in other["reason"] for other in others)


def test_what_is_sold_beside_pictures_is_quoted_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quote", "--model", "f5-tts", "--seconds", "45", "--n", "2", "--json"]) == 0
    (quoted,) = json.loads(capsys.readouterr().out)["offers"]
    assert (quoted["offer"], quoted["nano_usd"], quoted["feasible"]) == ("fal:f5-tts", 60_000_000, False)
    assert run(["quote", "--model", "f5-tts"]) == 1
    assert "say how many seconds" in capsys.readouterr().out
    assert run(["quote", "--model", "recraft-v3-style"]) == 0
    assert "$0.1" in capsys.readouterr().out


def test_a_size_that_nobody_draws_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quote", "--model", "flux-schnell", "--size", "1031x1024"]) == 1
    assert "1031x1024" in capsys.readouterr().out


def test_an_unknown_model_ends_with_2_and_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quote", "--model", "flux-schnel"]) == 2
    assert "flux-schnell" in capsys.readouterr().err


def test_a_hypothetical_decision_is_explained_offline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = tmp_path / "request.json"
    request.write_text('{"prompt": "a cat", "size": "1024x1024"}')
    assert run(["explain", "--request", str(request)]) == 0
    assert "chosen: together:flux-schnell" in capsys.readouterr().out
    assert run(["explain", "--request", str(request), "--json"]) == 0
    story = json.loads(capsys.readouterr().out)
    assert story["chosen"] == "together:flux-schnell"
    assert set(story["candidates"][0]["costs"]) == set(SCORERS)
    assert story["rejections"][0].keys() >= {"offer", "reason"}


@pytest.mark.parametrize(("text", "says"), [("[1]", "not a JSON object"), ('{"n": 99}', "'n'")])
def test_a_bad_request_file_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    (tmp_path / "r.json").write_text(text)
    assert run(["explain", "--request", str(tmp_path / "r.json")]) == 2
    assert says in capsys.readouterr().err


def test_keys_are_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--state", str(tmp_path)]
    assert run(["keys", "create", "--team", "design", "--budget", "$2.5", "--rpm", "60", "--json", *where]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["team"], made["budget_nano_usd"], made["rpm"]) == ("design", 2_500_000_000, 60)
    assert made["key"].startswith(f"pg_{made['id']}_")
    assert run(["keys", "revoke", made["key"], *where]) == 0
    assert run(["keys", "revoke", made["id"], *where]) == 1
    assert run(["keys", "list", *where]) == 0
    listed = capsys.readouterr().out
    assert "revoked" in listed
    assert made["key"] not in listed


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--rpm", "0"], "--rpm 0"),
        (["--budget", "lots"], "--budget: 'lots' is not an amount"),
        (["--expires", "3"], "--expires: '3' is not a duration"),
        (["--models", "flux-scnell"], "did you mean 'flux-schnell'?"),
        (["--team", ""], "--team"),
        (["--team", "shadow:it"], "experiments"),
    ],
)
def test_terms_of_a_key_that_make_no_sense_make_no_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert run(["keys", "create", *words, "--state", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert "pg_" not in said.out


def test_a_fresh_ledger_holds_every_promise_and_exports_its_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--state", str(tmp_path)]
    assert run(["ledger", "audit", *where]) == 2
    assert "there are no records" in capsys.readouterr().err
    run(["keys", "create", *where])
    capsys.readouterr()
    assert run(["ledger", "audit", *where]) == 0
    capsys.readouterr()
    assert run(["ledger", "export", *where]) == 0
    assert next(csv.reader(io.StringIO(capsys.readouterr().out)))[:3] == ["seq", "at", "book"]


def test_the_doctor_misses_a_provider(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gateway.yaml").write_text("accounts: {fal: {kind: fal, key_env: NO_SUCH_KEY}}\n")
    assert run(["doctor", "--offline", "--config", str(tmp_path), "--state", str(tmp_path / "state")]) == 1
    assert "NO_SUCH_KEY is not set" in capsys.readouterr().out


def test_serving_without_a_provider_says_how_to_get_one(tmp_path: Path) -> None:
    with started("serve", "--config", str(default_config()), "--state", str(tmp_path), cwd=tmp_path) as process:
        _, said = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "FAL_KEY is not set" in said
    assert "export FAL_KEY=" in said


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
def test_serving_shows_a_first_key_with_its_limits_answers_and_ends_well(
    tmp_path: Path, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gateway.yaml").write_text(
        f"accounts: {{own: {{kind: fal, key_env: OWN_KEY}}}}\nstate: {tmp_path}\nport: 0\n"
        "limits: {budget: $5, requests_per_minute: 7}\n"
    )
    words = ("serve", "--config", str(tmp_path), "--server", server)
    with started(*words, cwd=tmp_path, environ={"OWN_KEY": "k"}) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        key = process.stdout.readline()
        said = ""
        while "listening on" not in said:
            said = process.stderr.readline()
            assert said, "ended before it was ready"
        base = said.split()[2].removesuffix("/v1")
        assert key.startswith("pg_")
        assert answer(f"{base}/health/live")
        process.send_signal(signal.SIGHUP)  # reads the files again
        while "configuration_adopted" not in said:
            said = process.stderr.readline()
            assert said, "ended by SIGHUP"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert run(["keys", "list", "--json", "--config", str(tmp_path)]) == 0
    (first,) = json.loads(capsys.readouterr().out)["keys"]
    assert (first["budget_nano_usd"], first["rpm"]) == (5_000_000_000, 7)


def test_the_demo_does_the_main_job(tmp_path: Path) -> None:
    with started("demo", "--once", "--state", str(tmp_path / "state"), cwd=tmp_path) as process:
        said, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, complaints
    assert "preview: flux-schnell" in said
    assert "all as promised" in said
    assert (tmp_path / "demo-output" / "preview.png").stat().st_size > 10_000
    assert (tmp_path / "demo-output" / "export.png").stat().st_size > 10_000


def test_a_comparison_that_saw_too_little_says_so(tmp_path: Path) -> None:
    hasty = (
        "import sys; from gateway.cli import demo_compare, run; demo_compare.SECONDS = 2.0; sys.exit(run(sys.argv[1:]))"
    )
    words = ["demo", "--compare", "--state", str(tmp_path / "state")]
    done = subprocess.run(
        [sys.executable, "-c", hasty, *words], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "fal-or-together: fal:flux-schnell, running" in done.stdout
    assert "NOT YET DECIDED" in done.stdout
    assert "were not told apart" in done.stderr


def test_the_demo_tells_test_suites_what_they_need(tmp_path: Path) -> None:
    told = tmp_path / "fixtures.json"
    words = ("demo", "--port", "0", "--fixtures", str(told), "--state", str(tmp_path / "state"))
    with started(*words, cwd=tmp_path) as process:
        fixtures = read_when_there(told, process)
        assert answer(fixtures["base_url"].removesuffix("/v1") + "/health/ready")
        assert json.loads(answer(fixtures["sandbox_url"] + "/_sandbox/invoice"))["lines"] == []
        names = ("key", "admin_key", "key_limited", "key_broke", "model_fail", "model_slow", "unsafe_prompt")
        assert all(fixtures[name] for name in names)
        assert fixtures["pid"] == process.pid
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_a_demo_does_not_wipe_a_folder_that_is_not_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert run(["demo", "--state", str(tmp_path)]) == 2
    assert "is not wiped" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("does", "heavy"),
    [
        (
            "from gateway.cli import run; run(['--help'])",
            {"litestar", "aiohttp", "fal_client", "together", "openai", "granian", "uvicorn", "PIL"},
        ),
        (
            "import gateway.cli.serve",
            {"numpy", "PIL", "onnxruntime", "pyarrow", "fal_client", "together", "openai", "replicate"},
        ),
    ],
    ids=["help", "a start"],
)
def test_what_is_needed_later_is_loaded_later(does: str, heavy: set[str]) -> None:
    script = f"import sys; {does}; sys.exit(str({heavy} & sys.modules.keys()) if {heavy} & sys.modules.keys() else 0)"
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--tier", "soak"], "not in this release"), (["--tier=sauk"], "no tier 'sauk'"), (["--tier"], "needs a name")],
)
def test_a_tier_that_is_not_there_is_not_passed_over_in_silence(words: list[str], says: str) -> None:
    done = subprocess.run([CHECKOUT / "run", "test", *words], capture_output=True, text=True, check=False)
    assert (done.returncode, says in done.stderr) == (2, True)


def test_run_says_what_to_install_where_there_is_no_python(tmp_path: Path) -> None:
    checkout, tools = tmp_path / "a checkout", tmp_path / "tools"
    checkout.mkdir()
    tools.mkdir()
    for name in ("run", "requirements.lock"):
        shutil.copy(CHECKOUT / name, checkout / name)
    for name in ("sh", "dirname", "cmp", "mkdir", "cat", "rm", "date"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    done = subprocess.run(
        [checkout / "run", "demo"], env={"PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "needs Python 3.11 to 3.14" in done.stderr
    assert "apt install" in done.stderr
    assert not (checkout / ".pixelgate" / "preparing").exists()
