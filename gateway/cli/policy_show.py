"""`pixelgate policy show`: one revision of the policy, or what it changed."""

from __future__ import annotations

import difflib

from gateway.cli.policy_shared import found, public, with_records
from gateway.cli.shell import HERE, Json, Where, open_records, print_json, say
from gateway.features.policy_history import History, told
from gateway.storage.database import Database
from gateway.storage.policies import PolicyRevision


def show(revision: int, /, *, diff: bool = False, json: Json = False, where: Where = HERE) -> None:
    """Print a revision as it was written.

    Parameters
    ----------
    revision
        REV, as `policy history` shows it.
    diff
        What it changed in the one before, instead.
    """

    async def read(_: Database, history: History) -> tuple[PolicyRevision, PolicyRevision | None]:
        row = found(history, revision)
        return row, None if row.parent is None else history.revision(row.parent)

    row, parent = with_records(open_records(where.settings()), read)
    changed = difference(parent, row)
    if json:
        print_json({**public(row), "content": row.content.decode(errors="replace"), "diff": changed})
        return
    say(f"# revision {row.seq}: {row.label}, {told(row)}{f': {row.message}' if row.message else ''}")
    print(changed if diff else row.content.decode(errors="replace"), end="")


def difference(before: PolicyRevision | None, after: PolicyRevision) -> str:
    """What changed from one revision to another, as a unified diff."""
    old = [] if before is None else before.content.decode(errors="replace").splitlines(keepends=True)
    name = "nothing" if before is None else f"revision {before.seq}"
    new = after.content.decode(errors="replace").splitlines(keepends=True)
    return "".join(difflib.unified_diff(old, new, name, f"revision {after.seq}"))
