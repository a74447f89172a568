"""A simulation as one HTML page: cost against punctuality, a dot for the policy and each baseline."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from gateway.cli.charts import Dot, document, rows, scatter
from gateway.cli.simulate import Simulated, usd


def page(found: Simulated) -> str:
    """The whole document."""
    return document(f"pixelgate, policy {found.policy} simulated", _body(found))


def _body(found: Simulated) -> Iterator[str]:
    trace, first = found.trace, found.outcomes[0].figures()
    yield f"<h1>{escape(found.policy)} over {trace.size:,} calls</h1>"
    yield (
        f'<p class="soft">{escape(trace.name)}, {trace.seconds / 3600:.2f} h of virtual time, prices {found.prices}</p>'
    )
    yield f'<p class="big">${usd(first.cost)}, {first.on_time_pct:.2f} % on time</p>'
    yield "<h2>Cost against punctuality</h2>"
    yield "<p>Upwards is more punctual, to the left is cheaper.</p>"
    dots = []
    for number, outcome in enumerate(found.outcomes):
        each = outcome.figures()
        dots.append(Dot(outcome.name, each.cost / 1e9, each.on_time_pct, ours=not number))
    bound = None if found.bound is None else (found.bound / 1e9, "bound")
    yield scatter(dots, "dollars spent", "percent on time", bound)
    yield _table(found)
    if found.bound is not None:
        yield f"<p>Nobody could have been below ${usd(round(found.bound))} in all.</p>"
    yield f"<h2>Where {escape(found.outcomes[0].name)} had pictures drawn</h2>"
    shares = list(found.outcomes[0].shares().items())
    yield rows(("offer", "calls", "share"), [(n, f"{c:,}", f"{100 * c / trace.size:.1f} %") for n, c in shares])
    if found.remarks:
        yield "<h2>Remarks</h2>"
        yield from (f"<p>{escape(remark)}</p>" for remark in found.remarks)


def _table(found: Simulated) -> str:
    head = ("by", "cost $", "penalty $", "in all $", "over bound", "on time", "failed", "p50", "p95")
    lines = []
    for outcome in found.outcomes:
        each = outcome.figures()
        over = f"{100 * (each.total / found.bound - 1):.1f} %" if found.bound else ""
        lines.append(
            (
                outcome.name,
                usd(each.cost),
                usd(each.penalty),
                usd(each.total),
                over,
                f"{each.on_time_pct:.2f} %",
                f"{each.failed_pct:.2f} %",
                f"{each.p50:.1f} s",
                f"{each.p95:.1f} s",
            )
        )
    return rows(head, lines)
