"""`pixelgate explain`: a decision that was taken, or the one that would be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from gateway.cli.shell import HERE, Json, Stop, Where, open_records, print_json, run_async
from gateway.ids import sibling
from gateway.revisions import load_revision
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.http.decisions import Explanation


def explain(
    decision_id: Annotated[str | None, Parameter(name="ID")] = None,
    /,
    *,
    request: Path | None = None,
    replay: bool = False,
    json: Json = False,
    where: Where = HERE,
) -> int:
    """Say why a call was, or would be, served as it was: candidates, costs by part, rejections with reasons.

    Exit code 1: nobody can serve the request.

    Parameters
    ----------
    decision_id
        `pixelgate.decision` of an answer, or the header x-pixelgate-decision: dec_...
    request
        A file with the JSON body of a generation request: what would be decided, were the gateway idle. No keys needed.
    replay
        Take the decisions of ID again from what was stored with them, under the policy in force, and compare.
    """
    from gateway.cli.show import explained

    if (decision_id is None) == (request is None):
        raise Stop("give either the ID of a decision or --request FILE")
    settings = where.settings()
    if replay:
        if decision_id is None:
            raise Stop("--replay takes the ID of a decision")
        return run_async(_replayed(settings, decision_id))
    story = _hypothetical(settings, request) if request else run_async(_taken(settings, decision_id or ""))
    if json:
        print_json(story)
    else:
        print(explained(story))
    return 0 if story.chosen else 1


def _hypothetical(settings: Settings, request: Path) -> Explanation:
    from gateway.cli.offline import weigh

    try:
        fields = msgspec.json.decode(request.read_bytes(), type=dict[str, object])
    except OSError as error:
        raise Stop(f"{request}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise Stop(f"{request}: not a JSON object: {error}") from None
    return weigh(load_revision(settings, every_account=True), fields).explanation()


async def _replayed(settings: Settings, decision_id: str) -> int:
    """Print each decision of a call beside what its picture gives now; 1 when any differs."""
    from gateway.requests.journal import decided_again, said

    revision = load_revision(settings, every_account=True)
    offers = {**revision.catalog.offers}
    db = open_records(settings)
    try:
        rows = await db.decisions(sibling(decision_id, "call"))
    finally:
        await db.aclose()
    if not rows:
        raise Stop(f"there is no decision {decision_id} in {settings.database_url}", code=1)
    differing = 0
    for row in rows:
        again = decided_again(row.body, revision.policy, offers)
        if again is None:
            print(f"part {row.part}, decision {row.number}: no picture was stored")
            continue
        note, decision = again
        move, chosen = said(decision)
        same = (note.move, note.chosen) == (move, chosen)
        differing += not same
        now = "the same" if same else f"now {move} {chosen or 'nobody'} under {decision.policy}"
        print(
            f"part {row.part}, decision {row.number}: {note.move} {note.chosen or 'nobody'} under {note.policy}; {now}"
        )
    return 1 if differing else 0


async def _taken(settings: Settings, decision_id: str) -> Explanation:
    from gateway.http.decisions import explain as explain_rows
    from gateway.requests.journal import noted

    call_id = sibling(decision_id, "call")
    db = open_records(settings)
    try:
        rows = await db.decisions(call_id)
        if not rows:
            raise Stop(f"there is no decision {decision_id} in {settings.database_url}", code=1)
        notes = [noted(row.body) for row in rows]
        return explain_rows(notes, await db.attempts(call_id))
    finally:
        await db.aclose()
