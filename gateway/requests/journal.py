"""What was decided and why, as it is stored: the engine's answer with every number it weighed, and no prompt."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TypeAlias

import msgspec
from msgspec import Struct

from gateway.ids import sibling
from gateway.requests.call import Call
from gateway.storage.rows import DecisionRow
from policies.judgement import judge
from policies.picture import Picture, Seen
from policies.policy import Policy
from policies.types import SCORED, Ask, Decision, Offer, OfferId, Params, Rejection, Shed, Submit, Wait
from providers.contract import Operation

encode = msgspec.json.Encoder().encode


class CandidateNote(Struct, frozen=True):
    """A candidate as `GET /v1/decisions/{id}` shows it; money in nano-dollars, latency in seconds."""

    offer: str
    costs: Mapping[str, int]
    quote_nano_usd: int
    unit: str
    latency_p50: float
    latency_p95: float
    headroom: int
    wait_s: float = 0.0
    """Seconds until it has room; 0 where it has."""
    late: float = 0.0
    """Probability that the answer comes after the objective."""


class DecisionNote(Struct, frozen=True):
    """One decision as it is stored."""

    id: str
    part: int
    reason: str
    """Why the engine was asked: new, failed, wake, room."""
    move: str
    """submit, wait or shed."""
    chosen: str | None
    policy: str
    prices: int
    candidates: tuple[CandidateNote, ...]
    rejections: tuple[Rejection, ...]
    waiting: tuple[CandidateNote, ...] = ()
    """Candidates without room for now; the objection stands among `rejections`."""
    arm: str = ""
    """Which side of a canary the call was on: control or canary; empty without one."""
    rules: tuple[str, ...] = ()
    """The rules of the policy that were about the call, in their order."""
    params: tuple[Params, ...] = ()
    """How they have offers asked, where the caller does not say."""
    operation: Operation = "generate"
    """What was to be ordered; a picture that takes two orders has decisions for each."""
    soft_limit: str = ""
    """What the soft limit of a budget made of the call, in words; empty where none did."""
    panic: bool = False
    """Whether every offer that could serve was failing, so that these were asked all the same."""


Weight: TypeAlias = tuple[OfferId, tuple[int, ...]]
"""An offer, and its total by scorer in the order of `SCORED`, to which new ones are added at the end."""


class DecisionRecord(DecisionNote, frozen=True, omit_defaults=True):
    """One decision with what it was taken from, so that it can be taken again; only the database has this.

    What it weighed stands in the picture already, so candidates and rejections are put together when somebody asks for
    them; rows of older versions have them ready made.
    """

    picture: Picture | None = None
    ready: tuple[Weight, ...] = ()
    lined_up: tuple[Weight, ...] = ()


def noted(body: bytes) -> DecisionNote:
    """A stored decision as people are shown it."""
    return _told(msgspec.json.decode(body, type=DecisionRecord))


def _told(record: DecisionRecord) -> DecisionNote:
    fields = {name: getattr(record, name) for name in DecisionNote.__struct_fields__}
    picture = record.picture
    if picture is None:
        return DecisionNote(**fields)
    seen = {each.offer: each for each in picture.seen}
    if record.ready or record.lined_up:
        fields["candidates"] = tuple([_note(seen[name], scores) for name, scores in record.ready])
        fields["waiting"] = tuple([_note(seen[name], scores) for name, scores in record.lined_up])
    if not record.rejections:
        lasting = picture.rejected if picture.over is None else (picture.over,)
        objections = [seen[name].objection for name, _ in record.lined_up]
        fields["rejections"] = (*lasting, *[why for why in objections if why is not None])
    return DecisionNote(**fields)


def decided_again(body: bytes, policy: Policy, offers: Mapping[OfferId, Offer]) -> tuple[DecisionNote, Decision] | None:
    """Judge a stored picture again: what was decided, and what the same picture gives; None where none was stored."""
    record = msgspec.json.decode(body, type=DecisionRecord)
    return None if record.picture is None else (_told(record), judge(record.picture, policy, offers))


def decision_row(call: Call, ask: Ask, number: int, decision: Decision, at: datetime) -> DecisionRow:
    """The record of one decision; the id it goes by is the call's under the prefix `dec`."""
    word, chosen = said(decision)
    picture = decision.picture
    note = DecisionRecord(
        id=sibling(call.id, "dec"),
        part=ask.part,
        reason=decision.reason,
        move=word,
        chosen=chosen,
        policy=decision.policy,
        prices=decision.prices,
        candidates=(),
        rejections=(),
        arm="" if call.regime is None else call.regime.arm,
        picture=picture.without_words() if isinstance(picture, Picture) else None,
        rules=ask.constraints.rules,
        params=ask.constraints.params,
        operation=ask.request.operation,
        soft_limit=call.soft_limit,
        panic=isinstance(picture, Picture) and picture.panic,
        ready=tuple([(each.name, each.scores) for each in decision.ready]),
        lined_up=tuple([(each.name, each.scores) for each in decision.lined_up]),
    )
    return DecisionRow(call_id=call.id, part=ask.part, number=number, at=at, team=call.caller.team, body=encode(note))


def said(decision: Decision) -> tuple[str, str | None]:
    """A move in a word, and whom it chose."""
    match decision.move:
        case Submit(candidate):
            return "submit", candidate.offer.id
        case Wait(best=best):
            return "wait", best.offer.id if best else None
        case Shed():
            return "shed", None


def _note(seen: Seen, scores: tuple[int, ...]) -> CandidateNote:
    return CandidateNote(
        seen.offer,
        dict(zip(SCORED, scores, strict=False)),
        seen.quote.amount,
        seen.quote.unit,
        round(seen.p50, 3),
        round(seen.p95, 3),
        seen.left,
        round(seen.wait_s, 3),
        round(seen.late, 4),
    )
