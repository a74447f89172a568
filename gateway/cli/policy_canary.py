"""`pixelgate policy canary`: tries a policy on a part of the calls before it is put in force."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
from pydantic_core import PydanticCustomError

from gateway.cli.policy_shared import change, found, public, with_records
from gateway.cli.shell import COMMAND, HERE, Json, Stop, Where, dollars, me, open_records, print_json, table
from gateway.features.policy_history import Change, History
from gateway.revisions import PolicyText, Revision, load_revision
from gateway.settings import Settings
from gateway.storage.database import Database
from gateway.storage.policies import CanaryRow, CanaryState, PolicyEvent, PolicyRevision
from gateway.yaml_files import bytes_of
from policies.experiments.guardrails import Report, SideReport
from policies.policy_file.values import parse_share


def canary(
    action: Literal["start", "status", "promote", "abort"],
    file: Path | None = None,
    /,
    *,
    share: str | None = None,
    team: list[str] | None = None,
    author: str | None = None,
    json: Json = False,
    where: Where = HERE,
) -> int:
    """Try a policy beside the one in force; one that is surely worse ends by itself, one that is not is promoted.

    Parameters
    ----------
    action
        `start FILE`; `status` of the one that runs, or of the last; `promote` it now; `abort` it.
    file
        The policy to try.
    share
        Of keys and end users that it serves: 5%. `canary.share` of the policy in force when left out.
    team
        Serve these teams instead, all of their calls. Repeat the option for several.
    author
        Whose it is; the name of whoever types this when left out.
    """
    settings = where.settings()
    if action == "start":
        if file is None:
            raise Stop("say which: `policy canary start FILE`")
        part = None if share is None else _share(share)
        row, revision = _start(settings, PolicyText(str(file), bytes_of(file)), part, tuple(team or ()), author or me())
        _say(row, revision, json=json)
        return 0
    if file is not None or share is not None or team is not None:
        raise Stop(f"`policy canary {action}` takes no file, --share or --team: it is about the one that runs")
    if action == "status":
        _say(*_last(settings), json=json)
        return 0
    row, revision = _ended(settings, action, author or me())
    _say(row, revision, json=json)
    return 0


def _share(text: str) -> float:
    try:
        share = parse_share(text)
    except PydanticCustomError as error:
        raise Stop(f"--share: {error.message()}") from None
    if not share:
        raise Stop("--share 0%: nobody would be served; `policy canary abort` ends one")
    return share


def _start(
    settings: Settings, text: PolicyText, share: float | None, teams: tuple[str, ...], author: str
) -> tuple[CanaryRow, PolicyRevision]:
    in_force = load_revision(settings, every_account=True)
    revision = load_revision(settings, every_account=True, policy=text)
    if revision.meaning == in_force.meaning:
        raise Stop(f"{text.path} says what the policy in force says; there is nothing to try")

    async def begin(db: Database, history: History) -> tuple[CanaryRow, PolicyRevision]:
        running = next((row for row in await db.canaries() if row.state == "running"), None)
        if running is not None:
            raise Stop(_already(running), code=1)
        base = _base(history, in_force)
        kept = await history.keep(revision, author=author, source="canary", message="")
        row = CanaryRow(
            revision=kept.seq,
            base=base.seq,
            share=in_force.policy.canary.share if share is None else share,
            teams=teams,
            started=datetime.now(UTC),
            author=author,
        )
        if await db.start_canary(row) is None:
            raise Stop("another canary was started at the same moment", code=1)
        await db.add_policy_event(_event(row, "started", author))
        return row, kept

    return with_records(open_records(settings), begin)


def _base(history: History, in_force: Revision) -> PolicyRevision:
    base = history.last(in_force.policy.name)
    if base is None or base.meaning != in_force.meaning:
        raise Stop("no running gateway has put the policy's file in force as it is now; is one running?", code=1)
    return base


def _already(row: CanaryRow) -> str:
    return (
        f"revision {row.revision} is being tried since {row.started:%Y-%m-%d %H:%M:%S} UTC, by {row.author}; "
        f"one at a time: `{COMMAND} policy canary abort` ends it"
    )


def _last(settings: Settings) -> tuple[CanaryRow, PolicyRevision]:
    async def read(db: Database, history: History) -> tuple[CanaryRow, PolicyRevision]:
        rows = await db.canaries()
        if not rows:
            raise Stop(f"no canary was ever started; `{COMMAND} policy canary start FILE` does", code=1)
        return rows[-1], found(history, rows[-1].revision)

    return with_records(open_records(settings), read)


def _ended(settings: Settings, action: str, author: str) -> tuple[CanaryRow, PolicyRevision]:
    """The last canary, after it was promoted or aborted."""
    row, revision = _last(settings)
    over = action == "abort" or row.state not in ("running", "passed")
    if row.state != "running" and over:
        raise Stop(f"no canary runs; the last one, of revision {row.revision}, is {row.state}", code=1)
    state: CanaryState = "aborted" if action == "abort" else "promoted"
    why = f"by {author}"
    if state == "promoted":
        text = PolicyText(f"revision {revision.seq}", revision.content)
        message = f"canary of revision {revision.seq}, promoted {why}"
        change(settings, Change(text=text, author=author, source="promoted", message=message))

    async def end(db: Database, _: History) -> bool:
        done = await db.end_canary(row, state, why, datetime.now(UTC))
        if done:
            await db.add_policy_event(_event(row, state, author))
        return done

    if not with_records(open_records(settings), end) and state == "aborted":
        raise Stop("it ended by itself meanwhile; `policy canary status` says how", code=1)
    return _last(settings)


def _event(row: CanaryRow, what: str, actor: str) -> PolicyEvent:
    return PolicyEvent(at=datetime.now(UTC), actor=actor, action=f"canary {what}", revision=row.revision)


def _say(row: CanaryRow, revision: PolicyRevision, *, json: bool) -> None:
    report = None if row.report is None else msgspec.json.decode(row.report, type=Report)
    if json:
        told = {
            "state": row.state,
            "reason": row.reason,
            "share": row.share,
            "teams": list(row.teams),
            "started": row.started,
            "ended": row.ended,
            "report": report,
        }
        print_json({**told, "revision": public(revision)})
        return
    whom = f"the teams {', '.join(row.teams)}" if row.teams else f"{row.share:.1%} of keys and end users"
    print(
        f"revision {row.revision} ({revision.label}) for {whom}: {row.state}{f' ({row.reason})' if row.reason else ''}"
    )
    if report is not None:
        print(_table(report))


def _table(report: Report) -> str:
    head = ("", "calls", "failed", "a picture", "p50", "p95")
    lines = [head, _line("in force", report.control), _line("canary", report.canary)]
    ratio = "not known yet" if report.cost_ratio is None else "{:.3f} to {:.3f}".format(*report.cost_ratio)
    return (
        f"{table(lines, right=frozenset({1, 2, 3, 4, 5}))}\n"
        f"{report.pairs} of {report.planned} calls compared with one like them; cost, canary over in force: {ratio}\n"
        f"alone slow: {report.slow[1]} canary, {report.slow[0]} in force; "
        f"alone failed: {report.failed[1]} canary, {report.failed[0]} in force"
    )


def _line(name: str, side: SideReport) -> tuple[str, ...]:
    cost = dollars(round(side.mean_nano_usd))
    return name, str(side.calls), str(side.failed), cost, f"{side.p50_s:.2f} s", f"{side.p95_s:.2f} s"
