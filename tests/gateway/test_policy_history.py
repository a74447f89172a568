"""Who changed the policy, when and why; and what becomes of two who change it at once."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import run
from gateway.features.policy_history import author_of
from tests.gateway.test_reloading import edited
from tests.support.homes import edit, small_home


class Desk:
    """Somebody who types commands about the policy of a configuration."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = small_home(folder)
        (self.home / "gateway.yaml").write_text(
            f"state: {folder}/state\naccounts: {{fal: {{kind: fal, key_env: FAL_KEY}}}}\n"
        )
        self.file = self.home / "policies" / "default.yaml"
        self.draft = folder / "draft.yaml"
        self._capsys = capsys

    def write(self, number: int, slo: str = "3s") -> Path:
        """A policy of another number, with another objective."""
        shutil.copy(self.file, self.draft)
        text = self.draft.read_text()
        old = next(line for line in text.splitlines() if line.startswith("revision:"))
        text = text.replace(old, f"revision: {number}")
        at = text.index("latency_slo:")
        self.draft.write_text(text[:at] + f"latency_slo: {slo}" + text[text.index("\n", at) :])
        return self.draft

    def types(self, *words: str, code: int = 0) -> str:
        """What a command prints, on either stream."""
        self._capsys.readouterr()
        assert run(["policy", *words, "--config", str(self.home)]) == code, self._capsys.readouterr()
        said = self._capsys.readouterr()
        return said.out + said.err

    def history(self) -> list[dict[str, Any]]:
        """The revisions, oldest first."""
        revisions: list[dict[str, Any]] = json.loads(self.types("history", "--json"))["revisions"]
        return revisions


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def test_what_is_applied_is_kept_with_its_author_and_reason_and_written(desk: Desk) -> None:
    draft = desk.write(2, "4s")
    desk.types("apply", str(draft), "--author", "ann", "--message", "previews may take a second more")
    assert desk.file.read_bytes() == draft.read_bytes()
    before, after = desk.history()
    assert (before["policy"], before["source"]) == ("default@1", "saved")
    assert (after["policy"], after["author"], after["source"]) == ("default@2", "ann", "applied")
    assert after["message"] == "previews may take a second more"
    assert after["parent"] == before["revision"]
    diff = desk.types("show", "2", "--diff")
    assert "-    latency_slo: 3s" in diff
    assert "+    latency_slo: 4s" in diff
    assert "policy: default" in desk.types("show", "1")


def test_going_back_writes_the_earlier_text_and_keeps_the_later_one(desk: Desk) -> None:
    first = desk.file.read_bytes()
    desk.types("apply", str(desk.write(2, "4s")))
    desk.types("rollback", "--author", "bob")
    assert desk.file.read_bytes() == first
    assert [(row["policy"], row["source"]) for row in desk.history()] == [
        ("default@1", "saved"),
        ("default@2", "applied"),
        ("default@1", "rolled back"),
    ]
    desk.types("rollback", "2", "--message", "it was not that")
    assert desk.history()[-1]["message"] == "it was not that"
    assert b"latency_slo: 4s" in desk.file.read_bytes()


def test_of_two_who_start_from_the_same_revision_the_second_is_told_whose_is_there(desk: Desk) -> None:
    desk.types("apply", str(desk.write(2, "4s")), "--author", "ann")
    mine = desk.write(3, "5s")
    desk.types("apply", str(mine), "--author", "ann", "--expect", "2")
    before = desk.file.read_bytes()
    told = desk.types("apply", str(desk.write(4, "6s")), "--author", "bob", "--expect", "2", code=1)
    assert "the last one is 3, applied by ann" in told
    assert desk.file.read_bytes() == before
    assert len(desk.history()) == 3


def test_what_was_saved_by_hand_in_between_is_not_lost_either(desk: Desk) -> None:
    desk.types("apply", str(desk.write(2, "4s")))
    shutil.copy(desk.write(3, "9s"), desk.file)  # saved in an editor, while no gateway runs
    told = desk.types("apply", str(desk.write(4, "5s")), "--expect", "2", code=1)
    assert "the last one is 3, saved by" in told
    desk.types("apply", str(desk.draft), "--expect", "3")
    assert [row["policy"] for row in desk.history()] == ["default@1", "default@2", "default@3", "default@4"]


def test_a_number_that_means_something_else_already_is_refused_at_its_line(desk: Desk) -> None:
    desk.types("apply", str(desk.write(2, "4s")), "--author", "ann")
    told = desk.types("apply", str(desk.write(2, "5s")), code=2)
    assert ":11: default@2 is something else already: revision 2, applied by ann" in told
    assert "write revision: 3" in told


def test_remarks_may_change_under_the_same_number(desk: Desk) -> None:
    desk.types("apply", str(desk.write(2, "4s")))
    desk.draft.write_text(desk.draft.read_text() + "# reviewed\n")
    desk.types("apply", str(desk.draft))
    assert [row["policy"] for row in desk.history()] == ["default@1", "default@2", "default@2"]


def test_a_faulty_file_is_not_applied(desk: Desk) -> None:
    before = desk.file.read_bytes()
    told = desk.types("apply", str(desk.write(2, "4")), code=2)
    assert ":18: intents.preview.latency_slo: 4 is not a duration" in told
    assert desk.file.read_bytes() == before


def test_a_policy_of_another_name_is_not_put_in_its_place(desk: Desk) -> None:
    draft = desk.write(2)
    edit(draft, "policy: default", "policy: other")
    assert "this is 'other'; in force is 'default'" in desk.types("apply", str(draft), code=2)


def test_the_history_cannot_be_changed(desk: Desk, tmp_path: Path) -> None:
    desk.types("apply", str(desk.write(2, "4s")))
    with sqlite3.connect(tmp_path / "state" / "pixelgate.db") as records:
        for change in ("UPDATE policy_revisions SET author = 'eve'", "DELETE FROM policy_revisions"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                records.execute(change)
    records.close()


def test_there_is_nothing_to_show_or_go_back_to_at_first(desk: Desk) -> None:
    assert "no records" in desk.types("history", code=2)
    desk.types("apply", str(desk.write(2, "4s")))
    assert "no revision 9" in desk.types("show", "9", code=1)
    desk.types("rollback", "1")
    assert "revision 2" in desk.types("show", "2")


def test_the_author_of_a_saved_file_is_who_committed_it_or_who_owns_it(tmp_path: Path) -> None:
    file = tmp_path / "default.yaml"
    file.write_text("policy: default\n")
    owner = file.owner()
    assert author_of(file) == owner
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
    for words in (("init", "-q"), ("add", "default.yaml"), (*who, "commit", "-qm", "first")):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)  # noqa: S607 - whichever git there is
    assert author_of(file) == "Ann"
    file.write_text("policy: other\n")
    assert author_of(file) == owner


async def test_a_number_used_twice_over_a_restart_is_served_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = small_home(tmp_path)
    async with edited(tmp_path, home) as t:
        while not await t.app.db.policy_events():  # noqa: ASYNC110 - the records tell nobody
            await asyncio.sleep(0.02)
    edit(home / "policies" / "default.yaml", "late_second: $0.002 ", "late_second: $0.003 ")
    async with edited(tmp_path, home) as t:
        while len(rows := await t.app.db.policy_revisions()) < 2:  # noqa: ASYNC110 - the same
            await asyncio.sleep(0.02)
        assert [row.label for row in rows] == ["default@1", "default@1"]
        assert rows[0].meaning != rows[1].meaning
    assert "policy_number_used_twice" in capsys.readouterr().out


async def test_a_running_gateway_keeps_what_was_saved_and_refuses_a_number_that_is_taken(tmp_path: Path) -> None:
    async with edited(tmp_path) as t:
        edit(t.policy_file, "revision: 1 ", "revision: 2 ")
        await t.until(lambda: t.condition.policy == "default@2")
        edit(t.policy_file, "late_second: $0.002 ", "late_second: $0.003 ")  # bob has not seen that 2 is taken
        await t.until(lambda: bool(t.condition.faults))
        assert "default@2 is something else already" in t.condition.faults[0].message
        edit(t.policy_file, "revision: 2 ", "revision: 3 ")
        await t.until(lambda: t.condition.policy == "default@3")
        while len(events := await t.app.db.policy_events()) < 3:  # noqa: ASYNC110 - the records tell nobody
            await asyncio.sleep(0.02)
        assert [row.label for row in await t.app.db.policy_revisions()] == ["default@1", "default@2", "default@3"]
        assert [event.detail for event in events] == ["default@1", "default@2", "default@3"]
