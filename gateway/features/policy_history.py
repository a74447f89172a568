"""The history of the policy in force: who wrote what, when it came into force, and how to put another in its place.

The file on disk is the one truth about what is in force; the history remembers. A command keeps its text first and then
writes the file, and a text that was saved by hand is kept when a gateway finds it. So going back is writing an old text
into the file again, and a file from version control counts like any other.

A number means one thing: `default@8` that says something else than the `default@8` in the history is refused. So of two
people who save over the same policy the second one is told, whether they save by hand or by command.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

from gateway.features.files import alone, exchange
from gateway.revisions import PolicyText, Revision, fault_in, load_revision, policy_path
from gateway.settings import Settings
from gateway.storage.database import Database
from gateway.storage.policies import PolicyEvent, PolicyRevision, Source
from gateway.yaml_files import BadFile, Fault

IN_FORCE = "in force"


class Moved(Exception):
    """Somebody else changed the policy in between."""

    def __init__(self, last: PolicyRevision | None, expected: int) -> None:
        what = "there is no revision yet" if last is None else f"the last one is {last.seq}, {told(last)}"
        more = "" if last is None else f". Take in what changed there, raise `revision`, and expect {last.seq}"
        super().__init__(f"Revision {expected} is not the last one: {what}{more}.")


class Change(Struct, frozen=True, kw_only=True):
    """A policy to be put in force, and why."""

    text: PolicyText
    author: str
    source: Source = "applied"
    message: str = ""
    expect: int | None = None
    """The revision it was made from; None: whatever is last."""


class History:
    """What was ever in force here, or meant to be."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._rows: Sequence[PolicyRevision] = ()
        self._in_force = 0

    def __repr__(self) -> str:
        return f"<History of {len(self._rows)} revisions>"

    async def refresh(self) -> None:
        """Read what others have added."""
        self._rows = await self._db.policy_revisions()

    def last(self, policy: str) -> PolicyRevision | None:
        """The last revision of a policy, candidates of canaries left out."""
        return next((row for row in reversed(self._rows) if row.policy == policy and row.source != "canary"), None)

    def revision(self, seq: int) -> PolicyRevision | None:
        """One revision."""
        return next((row for row in self._rows if row.seq == seq), None)

    def of(self, policy: str) -> Sequence[PolicyRevision]:
        """The revisions of a policy, oldest first."""
        return [row for row in self._rows if row.policy == policy]

    def clash(self, revision: Revision) -> Fault | None:
        """The fault of a policy whose number already means something else."""
        same = [row for row in self._rows if row.label == revision.policy.label]
        if not same or any(row.meaning == revision.meaning for row in same):
            return None
        name, other = revision.policy.name, same[-1]
        free = 1 + max(int(row.label.rpartition("@")[2]) for row in self._rows if row.policy == name)
        message = f"{other.label} is something else already: revision {other.seq}, {told(other)}"
        hint = f"take in what changed there (`policy show {other.seq}`), and write revision: {free}"
        return fault_in(revision.written, ("revision",), message, hint=hint)

    async def in_force(self, revision: Revision) -> None:
        """Keep that a gateway has put this in force, and its text, where it was only saved."""
        await self.refresh()
        row = await self._kept(revision)
        if row.seq == self._in_force:
            return
        self._in_force = row.seq
        actor = f"gateway {os.getpid()}"
        event = PolicyEvent(at=datetime.now(UTC), actor=actor, action=IN_FORCE, revision=row.seq, detail=row.label)
        await self._db.add_policy_event(event)

    async def change(self, settings: Settings, change: Change) -> PolicyRevision:
        """Check a policy, keep it, and write it over the file in force.

        Raises `BadFile`, and `Moved` when another revision than the expected one is the last.
        """
        revision = await asyncio.to_thread(load_revision, settings, every_account=True, policy=change.text)
        path = settings.config / "policies" / f"{settings.policy}.yaml"
        path.parent.mkdir(exist_ok=True)
        async with alone(path.parent):
            await self._keep_what_is_there(settings)
            last = self.last(revision.policy.name)
            if last is not None and last.content == change.text.content:
                return last
            if (clash := self.clash(revision)) is not None and not self._moved(revision, change):
                raise BadFile([clash])
            row = row_of(revision, author=change.author, source=change.source, message=change.message)
            seq = await self._db.add_policy_revision(row, change.expect)
            if seq is None:
                assert change.expect is not None
                raise Moved(self.last(revision.policy.name), change.expect)
            exchange(path, change.text.content)
        await self.refresh()
        kept = self.revision(seq)
        assert kept is not None
        return kept

    async def keep(self, revision: Revision, *, author: str, source: Source, message: str) -> PolicyRevision:
        """Keep a policy without putting it in force."""
        await self.refresh()
        if (clash := self.clash(revision)) is not None:
            raise BadFile([clash])
        seq = await self._db.add_policy_revision(row_of(revision, author=author, source=source, message=message))
        await self.refresh()
        kept = self.revision(seq or 0)
        assert kept is not None
        return kept

    def _moved(self, revision: Revision, change: Change) -> bool:
        last = self.last(revision.policy.name)
        return change.expect is not None and (last is None or last.seq != change.expect)

    async def _keep_what_is_there(self, settings: Settings) -> None:
        """A text that somebody saved while no gateway ran would be lost under the next one."""
        await self.refresh()
        path = policy_path(settings)
        if path is None:
            return
        with contextlib.suppress(BadFile):  # what is broken was never in force
            await self._kept(await asyncio.to_thread(load_revision, settings, every_account=True))
        await self.refresh()

    async def _kept(self, revision: Revision) -> PolicyRevision:
        """The row of a text in force; a new one where the last is another."""
        last = self.last(revision.policy.name)
        if last is not None and last.content == revision.written.content:
            return last
        author = await asyncio.to_thread(author_of, Path(revision.written.path))
        await self._db.add_policy_revision(row_of(revision, author=author, source="saved"))
        await self.refresh()
        last = self.last(revision.policy.name)
        assert last is not None
        return last


def row_of(revision: Revision, *, author: str, source: Source, message: str = "") -> PolicyRevision:
    """A revision as it is kept."""
    return PolicyRevision(
        at=datetime.now(UTC),
        policy=revision.policy.name,
        label=revision.policy.label,
        content=revision.written.content,
        digest=sha256(revision.written.content).hexdigest(),
        meaning=revision.meaning,
        author=author,
        source=source,
        message=message,
    )


def told(row: PolicyRevision) -> str:
    """Who made a revision, and when."""
    return f"{row.source} by {row.author} at {row.at:%Y-%m-%d %H:%M:%S} UTC"


def author_of(path: Path) -> str:
    """Who last changed a file: the author of its commit where it is as committed, else its owner on this machine."""
    git = shutil.which("git")
    if git is not None and not _said(git, path, "status", "--porcelain"):
        committed = _said(git, path, "log", "-1", "--format=%an")
        if committed:
            return committed
    try:
        return path.owner()
    except (KeyError, OSError):
        return "unknown"


def _said(git: str, path: Path, *command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - git, about a file of ours
            [git, "-C", str(path.parent), *command, "--", path.name],
            capture_output=True,
            text=True,
            check=False,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
