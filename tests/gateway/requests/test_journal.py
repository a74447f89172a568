from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.ids import new_id
from gateway.requests.call import Call
from gateway.requests.journal import CandidateNote, DecisionNote, DecisionRecord, decision_row, noted, said
from policies.picture import Picture
from policies.types import Ask, Candidate, Decision, Event, Live, Reason, Worth
from tests.support.books import NOON
from tests.support.pasts import ASKS, EVENTS, MARKETS, REASONS, lived
from tests.support.town import CALLER


def told(candidate: Candidate) -> CandidateNote:
    """A candidate of a decision as people are shown it."""
    return CandidateNote(
        offer=candidate.offer.id,
        costs=candidate.costs,
        quote_nano_usd=candidate.quote.amount,
        unit=candidate.quote.unit,
        latency_p50=round(candidate.latency_p50, 3),
        latency_p95=round(candidate.latency_p95, 3),
        headroom=candidate.headroom,
        wait_s=round(candidate.wait_s, 3),
        late=round(candidate.late, 4),
    )


def stored(wish: Ask, decision: Decision) -> bytes:
    call = Call(
        id=new_id("call"), caller=CALLER, request=wish.request, constraints=wish.constraints, arrived=wish.arrived
    )
    return decision_row(call, wish, 0, decision, NOON).body


@settings(max_examples=100, deadline=None)
@given(EVENTS, MARKETS, ASKS, REASONS, st.booleans())
def test_a_stored_decision_is_told_with_exactly_the_candidates_it_had(
    events: list[Event], busy: dict[str, int], wish: Ask, reason: Reason, hedged: bool
) -> None:
    if hedged:
        wish = replace(wish, live=(Live("a:m", "a", -2.0),), worth=Worth(late=10**9))
    decision = lived(events, busy).decide(wish, 0.0, reason)
    note = noted(stored(wish, decision))
    assert note.candidates == tuple(map(told, decision.ranked))
    assert note.waiting == tuple(map(told, decision.waiting))
    assert [sum(each.costs.values()) for each in note.candidates] == [each.total for each in decision.ranked]
    assert (note.rejections, (note.move, note.chosen)) == (decision.rejected, said(decision))


@settings(max_examples=50, deadline=None)
@given(EVENTS, MARKETS, ASKS, REASONS)
def test_a_row_that_has_its_candidates_ready_made_is_told_as_it_is(
    events: list[Event], busy: dict[str, int], wish: Ask, reason: Reason
) -> None:
    decision = lived(events, busy).decide(wish, 0.0, reason)
    note = noted(stored(wish, decision))
    assert isinstance(decision.picture, Picture)
    fields = {name: getattr(note, name) for name in DecisionNote.__struct_fields__}
    older = DecisionRecord(**fields, picture=decision.picture.without_words())
    assert noted(msgspec.json.encode(older)) == noted(msgspec.json.encode(note)) == note
