"""`pixelgate policy history`: who changed the policy in force, when and why."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.cli.policy_shared import public, with_records
from gateway.cli.shell import HERE, Json, Where, open_records, print_json, table
from gateway.features.policy_history import IN_FORCE, History
from gateway.storage.database import Database
from gateway.storage.policies import PolicyEvent, PolicyRevision


def history(*, events: bool = False, json: Json = False, where: Where = HERE) -> None:
    """List the revisions of the policy in force, the newest first.

    Parameters
    ----------
    events
        Also what was done with them: when which gateway put one in force, and what became of canaries.
    """
    settings = where.settings()

    async def read(db: Database, kept: History) -> tuple[Sequence[PolicyRevision], Sequence[PolicyEvent]]:
        return kept.of(settings.policy), await db.policy_events()

    rows, done = with_records(open_records(settings), read)
    now = next((event.revision for event in reversed(done) if event.action == IN_FORCE), 0)
    if json:
        told: dict[str, object] = {"in_force": now or None, "revisions": [public(row) for row in rows]}
        if events:
            told["events"] = [dict(zip(event.__struct_fields__, _of(event), strict=True)) for event in done]
        print_json(told)
        return
    head = ("rev", "policy", "at (UTC)", "author", "how", "message")
    print(table([head, *(_line(row, now) for row in reversed(rows))], right=frozenset({0})))
    if events:
        print()
        lines = [(f"{event.at:%Y-%m-%d %H:%M:%S}", event.actor, event.action, str(event.revision), event.detail)
                 for event in reversed(done)]  # fmt: skip
        print(table([("at (UTC)", "who", "what", "rev", ""), *lines], right=frozenset({3})))


def _of(event: PolicyEvent) -> tuple[object, ...]:
    return event.at, event.actor, event.action, event.revision, event.detail


def _line(row: PolicyRevision, now: int) -> tuple[str, ...]:
    mark = "  <- in force" if row.seq == now else ""
    return str(row.seq), row.label, f"{row.at:%Y-%m-%d %H:%M:%S}", row.author, row.source, row.message + mark
