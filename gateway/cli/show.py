"""A decision in words: who was chosen, what each candidate would have cost in all, and who may not serve and why."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from gateway.cli.shell import table
from gateway.http.decisions import Explanation
from gateway.requests.journal import CandidateNote, DecisionNote
from policies.money import USD
from policies.types import Rejection

_SHOWN_REJECTIONS = 40
_MEANINGS = {
    "price": "what the seller bills",
    "latency": "what a late answer would cost you, by how likely it is",
    "reliability": "what an error would cost you, by how likely it is",
    "load": "taking the last room of the account",
    "slots": "what the account's slot is worth to the calls that come meanwhile",
    "rate": "what one order of the account's rate is worth to the calls to come",
    "prepaid": "what credit or free pictures that run out are worth to the calls to come",
    "machine": "what the seconds of your own GPU would save other calls",
}


def asked_by_rules(story: Explanation) -> list[str]:
    """How rules have offers asked, in words."""
    told = []
    for given in dict.fromkeys(each for note in story.decisions for each in note.params):
        words = [f"{name} {value:g}" for name in ("steps", "guidance") if (value := getattr(given, name)) is not None]
        told.append(f"they ask {given.offer} for {', '.join(words)} where the caller does not say")
    return told


def explained(story: Explanation, *, candidates: int = 10, rejections: int = _SHOWN_REJECTIONS) -> str:
    """The whole story of a decision, for people."""
    parts = [f"decision {story.id}   policy {story.policy}   prices {story.prices}"]
    parts.append(f"chosen: {story.chosen or 'nobody'}")
    if rules := sorted({rule for note in story.decisions for rule in note.rules}):
        parts.append(f"rules: {', '.join(rules)}")
    parts += asked_by_rules(story)
    parts += sorted({note.soft_limit for note in story.decisions} - {""})
    if any(note.panic and note.move == "submit" for note in story.decisions):
        parts.append(
            "every offer that could serve kept failing: asked all the same, since a bad chance is better than none"
        )
    if story.candidates:
        parts += ["", candidate_table(story.candidates[:candidates])]
    if story.waiting:
        parts += ["", "cheaper or not, without room for now:", candidate_table(story.waiting[:candidates])]
    if story.candidates or story.waiting:
        parts += ["", meanings(story)]
    if story.rejections:
        parts += ["", "may not serve:", rejection_table(story.rejections[:rejections])]
    second = second_stage(story)
    if second is not None:
        parts += ["", f"then, to remove the background: {second.chosen or 'nobody'}"]
        parts += [candidate_table(second.candidates[:candidates])] if second.candidates else []
        parts += [rejection_table(second.rejections[:rejections])] if second.chosen is None else []
    if len(story.decisions) > 1:
        parts += ["", "decisions of this call, in order:"]
        parts += [f"  {n.reason}: {n.move} {n.chosen or ''}".rstrip() for n in story.decisions]
    if story.attempts:
        rows = [
            (f"  {a.offer}", a.state, a.error or "delivered", "" if a.latency_s is None else f"{a.latency_s:.2f} s")
            for a in story.attempts
        ]
        parts += ["", "attempts:", table(rows)]
    return "\n".join(parts)


def second_stage(story: Explanation) -> DecisionNote | None:
    """The last decision about the order that finished the drawings, where a picture takes two."""
    operations = {note.operation for note in story.decisions}
    if len(operations) == 1:
        return None
    return next((note for note in reversed(story.decisions) if note.operation == "remove_background"), None)


def candidate_table(candidates: Sequence[CandidateNote]) -> str:
    """Candidates with their costs by part, the cheapest in all first. All in dollars."""
    scorers = _scorers(candidates)
    rows = [("  offer", "in all", *scorers, "p50 / p95", "late", "line", "free slots")]
    for candidate in candidates:
        costs = [cents(candidate.costs.get(name, 0)) for name in scorers]
        latency = f"{candidate.latency_p50:.1f} / {candidate.latency_p95:.1f} s"
        total = cents(sum(candidate.costs.values()))
        late, line = f"{candidate.late:.1%}", f"{candidate.wait_s:.1f} s" if candidate.wait_s else "-"
        rows.append((f"  {candidate.offer}", total, *costs, latency, late, line, str(candidate.headroom)))
    return table(rows, right=frozenset(range(1, len(rows[0]))))


def meanings(story: Explanation) -> str:
    """What each column of costs stands for."""
    shown = _scorers([*story.candidates, *story.waiting])
    return "\n".join(f"  {name}: {_MEANINGS[name]}" for name in shown if name in _MEANINGS)


def _scorers(candidates: Sequence[CandidateNote]) -> list[str]:
    """The scorers that cost anybody anything, and always the price."""
    names = dict.fromkeys(name for candidate in candidates for name in candidate.costs)
    return [name for name in names if name == "price" or any(each.costs.get(name) for each in candidates)]


def rejection_table(rejections: Sequence[Rejection]) -> str:
    """Who may not serve, by which gate, and why."""
    return table([(f"  {rejection.offer}", rejection.code, rejection.reason) for rejection in rejections])


def cents(nano: int) -> str:
    """Dollars to six places, for columns that are compared; `-` for nothing."""
    return f"{Decimal(nano) / USD:.6f}" if nano else "-"
