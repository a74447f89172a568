"""`pixelgate policy rollback`: puts an earlier revision in force again."""

from __future__ import annotations

from gateway.cli.policy_shared import change, found, say_changed, with_records
from gateway.cli.shell import COMMAND, HERE, Json, Stop, Where, me, open_records
from gateway.features.policy_history import Change, History
from gateway.revisions import PolicyText
from gateway.storage.database import Database
from gateway.storage.policies import PolicyRevision


def rollback(
    revision: int | None = None,
    /,
    *,
    author: str | None = None,
    message: str = "",
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Write an earlier revision over the file of the policy in force; what stood there stays in the history.

    Parameters
    ----------
    revision
        REV, as `policy history` shows it; the last one that says something else, when left out.
    author
        Who goes back; the name of whoever types this when left out.
    message
        Why.
    """
    settings = where.settings()

    async def read(_: Database, history: History) -> tuple[PolicyRevision, int]:
        last = history.last(settings.policy)
        if last is None:
            raise Stop(f"there is nothing to go back to; `{COMMAND} policy history` lists what there is", code=1)
        return (_before(history, last) if revision is None else found(history, revision)), last.seq

    row, last = with_records(open_records(settings), read)
    changed = Change(
        text=PolicyText(f"revision {row.seq}", row.content),
        author=author or me(),
        source="rolled back",
        message=message or f"back to revision {row.seq}",
        expect=last,
    )
    say_changed(settings, change(settings, changed), json=json)


def _before(history: History, last: PolicyRevision) -> PolicyRevision:
    row = last
    while row.meaning == last.meaning:
        parent = None if row.parent is None else history.revision(row.parent)
        if parent is None:
            raise Stop(
                f"no revision before {last.seq} says anything else; `{COMMAND} policy history` lists them", code=1
            )
        row = parent
    return row
