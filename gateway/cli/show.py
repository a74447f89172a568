"""A decision in words: who was chosen, what each candidate would have cost in all, and who may not serve and why."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from gateway.cli.shell import table
from gateway.http.decisions import Explanation
from gateway.requests.journal import CandidateNote
from policies.money import USD
from policies.types import Rejection

_SHOWN_REJECTIONS = 40


def explained(story: Explanation, *, candidates: int = 10, rejections: int = _SHOWN_REJECTIONS) -> str:
    """The whole story of a decision, for people."""
    parts = [f"decision {story.id}   policy {story.policy}   prices {story.prices}"]
    parts.append(f"chosen: {story.chosen or 'nobody'}")
    if story.candidates:
        parts += ["", candidate_table(story.candidates[:candidates])]
    if story.rejections:
        parts += ["", "may not serve:", rejection_table(story.rejections[:rejections])]
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


def candidate_table(candidates: Sequence[CandidateNote]) -> str:
    """Candidates with their costs by part, the cheapest in all first. All in dollars."""
    scorers = list(dict.fromkeys(name for candidate in candidates for name in candidate.costs))
    rows = [("  offer", "in all", *scorers, "p50 / p95", "free slots")]
    for candidate in candidates:
        costs = [cents(candidate.costs.get(name, 0)) for name in scorers]
        latency = f"{candidate.latency_p50:.1f} / {candidate.latency_p95:.1f} s"
        total = cents(sum(candidate.costs.values()))
        rows.append((f"  {candidate.offer}", total, *costs, latency, str(candidate.headroom)))
    return table(rows, right=frozenset(range(1, len(rows[0]))))


def rejection_table(rejections: Sequence[Rejection]) -> str:
    """Who may not serve, by which gate, and why."""
    return table([(f"  {rejection.offer}", rejection.code, rejection.reason) for rejection in rejections])


def cents(nano: int) -> str:
    """Dollars to six places, for columns that are compared; `-` for nothing."""
    return f"{Decimal(nano) / USD:.6f}" if nano else "-"
