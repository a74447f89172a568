"""`GET /v1/decisions/{id}`: why a call was served as it was, with every candidate, cost, rejection and attempt."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from litestar import route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from msgspec import Struct

from gateway.errors import NotFound
from gateway.http.health import READ
from gateway.http.operations import USUAL_HEADERS, Content, Operation, text_part
from gateway.http.resources import HttpRequest, caller_of
from gateway.http.services import Services
from gateway.ids import sibling
from gateway.requests.journal import CandidateNote, DecisionNote, noted
from gateway.storage.rows import AttemptRow
from policies.types import Rejection


class AttemptFacts(Struct, frozen=True, kw_only=True):
    """One order of a call. Money is nano-dollars, durations are seconds."""

    id: str
    part: int
    offer: str
    state: str
    error: str | None
    charge_nano_usd: int
    latency_s: float | None
    started: datetime
    ended: datetime | None


class Explanation(Struct, frozen=True, kw_only=True):
    """The decision that chose, all decisions of the call, and what came of them."""

    id: str
    policy: str
    arm: str
    """Which side of a canary the call was on: control or canary; empty without one."""
    prices: int
    chosen: str | None
    candidates: tuple[CandidateNote, ...]
    rejections: tuple[Rejection, ...]
    waiting: tuple[CandidateNote, ...]
    attempts: tuple[AttemptFacts, ...]
    decisions: tuple[DecisionNote, ...]


OPERATIONS = (
    Operation(
        method="get",
        path="/v1/decisions/{decision_id}",
        id="getDecision",
        tag="Decisions",
        summary="Why a call was served as it was",
        parameters=(text_part("decision_id", "The id in `x-pixelgate-decision`."),),
        answers={200: Content(about="The whole story of the call.", schema=Explanation, headers=USUAL_HEADERS)},
        errors=(NotFound,),
        scope="decisions:read",
        head=True,
    ),
)


def decisions(services: Services) -> HTTPRouteHandler:
    """The route."""

    @route("/v1/decisions/{decision_id:str}", http_method=READ)
    async def get_decision(request: HttpRequest, decision_id: FromPath[str]) -> Explanation:
        caller = await caller_of(request, services, "decisions:read")
        call_id = sibling(decision_id[:80], "call")
        rows = await services.db.decisions(call_id)
        if not rows or any(row.team != caller.team for row in rows):
            raise NotFound(f"There is no decision '{decision_id[:80]}'.", param="id")
        notes = tuple(noted(row.body) for row in rows)
        return explain(notes, await services.db.attempts(call_id))

    return get_decision


def explain(notes: Sequence[DecisionNote], attempts: Sequence[AttemptRow]) -> Explanation:
    """The whole story of a call; the last decision that ordered something speaks for it.

    Where a picture took two orders, that is the last one that had it drawn.
    """
    drawing = [note for note in notes if note.operation != "remove_background"] or notes
    spoken = next((note for note in reversed(drawing) if note.move == "submit"), drawing[-1])
    return Explanation(
        id=spoken.id,
        policy=spoken.policy,
        arm=spoken.arm,
        prices=spoken.prices,
        chosen=spoken.chosen,
        candidates=spoken.candidates,
        rejections=spoken.rejections,
        waiting=spoken.waiting,
        attempts=tuple(_attempt(row) for row in attempts),
        decisions=tuple(notes),
    )


def _attempt(row: AttemptRow) -> AttemptFacts:
    outcome = row.outcome
    return AttemptFacts(
        id=row.id,
        part=row.part,
        offer=row.offer_id,
        state=row.state,
        error=outcome.error if outcome else None,
        charge_nano_usd=row.charge,
        latency_s=outcome.latency_s if outcome else None,
        started=row.started,
        ended=row.ended,
    )
