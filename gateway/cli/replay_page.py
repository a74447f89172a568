"""A replay as one HTML page: cost by team and intent under both sides, and what is drawn elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from gateway.cli.charts import Dot, Pair, document, pairs, rows, scatter
from gateway.cli.replay import HEAD, Replayed, beside, groups_of, intervals, lines_of, signed, summary


def page(found: Replayed) -> str:
    """The whole document."""
    comparison = found.comparison
    return document(f"pixelgate, {comparison.old} against {comparison.new}", _body(found))


def _body(found: Replayed) -> Iterator[str]:
    comparison = found.comparison
    total = comparison.total
    yield f"<h1>{escape(comparison.old)} against {escape(comparison.new)}</h1>"
    yield f'<p class="soft">{escape(found.trace.name)}, {found.trace.seconds / 3600:.1f} h</p>'
    yield f"<p>{escape(summary(found))}</p>"
    yield f'<p class="soft">{escape(beside(found))}</p>'
    yield "<h2>Cost against punctuality</h2>"
    dots = [
        Dot(comparison.old, total.old.cost / 1e9, total.old.on_time_pct),
        Dot(comparison.new, total.new.cost / 1e9, total.new.on_time_pct, ours=True),
    ]
    yield scatter(dots, "dollars spent", "percent on time")
    for name, groups in (("team", comparison.teams), ("intent", comparison.intents)):
        yield f"<h2>Cost by {name}</h2>"
        yield '<p class="soft">Orange: old. Blue: new.</p>'
        bars = [
            Pair(each.name, each.old.cost / 1e9, each.new.cost / 1e9, lines_of(each)[4] or "no cost") for each in groups
        ]
        yield pairs(bars, comparison.old, comparison.new)
    yield "<h2>All figures</h2>"
    yield rows(HEAD, [lines_of(group) for group in groups_of(comparison)])
    yield f'<p class="soft">{escape(intervals(found))}</p>'
    yield "<h2>Drawn elsewhere</h2>"
    if comparison.moves:
        lines = [(f"{m.old} -> {m.new}", f"{m.calls:,}", signed(m.cost)) for m in comparison.moves]
        yield rows(("from -> to", "calls", "cost $"), lines)
    else:
        yield "<p>Nothing.</p>"
    yield from (f'<p class="soft">{escape(remark)}</p>' for remark in found.remarks)
