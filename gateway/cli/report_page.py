"""A report as one HTML file: charts drawn as SVG inside it, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from gateway.money.currency import Currency
from gateway.money.reports import Line, Report

_BARS = 12
"""Lines of a view that are drawn; the table below has them all."""

_WIDTH, _ROW, _LABEL = 720, 24, 190
_CHART_HEIGHT = 180

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #667085; --line: #d9dee7; --bar: #2f6fdd; --back: #ffffff }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ecf3; --soft: #98a2b3; --line: #333c4a; --bar: #6ea0ff; --back: #12161d } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 760px;
  margin: 2.5rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem } p { margin: .3rem 0 }
.soft { color: var(--soft) } .big { font-size: 1.9rem; font-weight: 600 }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .25rem .5rem; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere } th { color: var(--soft); font-weight: 500 }
svg { width: 100%; height: auto } svg text { fill: var(--ink); font-size: 12px } svg .soft { fill: var(--soft) }
svg rect { fill: var(--bar) } svg line { stroke: var(--line) }
"""


def page(found: Report, money: Currency) -> str:
    """The whole document."""
    period = found.period
    title = f"pixelgate, {period.kind} report, {period.first} to {period.last}"
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
            *_body(found, money),
            "</body></html>\n",
        )
    )


def _body(found: Report, money: Currency) -> Iterator[str]:
    period, total = found.period, found.total
    yield f"<h1>{period.kind.capitalize()} report</h1>"
    so_far = "" if period.over else ", so far"
    yield f'<p class="soft">{period.first} to {period.last}, {escape(period.zone.key)}{so_far}</p>'
    yield f'<p class="big">{money.shown(total.cost)}</p>'
    yield (
        f"<p>for {total.images:,} pictures in {total.orders:,} orders; {money.shown(total.charge)} charged to teams. "
        f'<span class="soft">Exactly {escape(money.exact(total.cost))} {money.code}.</span></p>'
    )
    if len(found.days) > 1:
        yield "<h2>By day</h2>"
        yield _columns(found.days, money)
    for name, lines in (*found.by.items(), *((f"tag {tag}", lines) for tag, lines in found.tags.items())):
        yield f"<h2>By {escape(name)}</h2>"
        yield _bars([(line.name, line.cost) for line in lines[:_BARS]], money)
        yield _table(lines, money)
    yield from _savings(found, money)
    yield from _advice(found, money)


def _columns(days: Sequence[Line], money: Currency) -> str:
    """One column for each day."""
    most = max((day.cost for day in days), default=0)
    step = _WIDTH / len(days)
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_CHART_HEIGHT + 30}" role="img" aria-label="cost by day">']
    for number, day in enumerate(days):
        height = _share(day.cost, most) * (_CHART_HEIGHT - 10)
        parts.append(
            f'<rect x="{number * step + 2:.1f}" y="{_CHART_HEIGHT - height:.1f}" width="{max(step - 4, 1):.1f}" '
            f'height="{height:.1f}" rx="2"><title>{day.name}: {escape(money.shown(day.cost))}</title></rect>'
        )
        if len(days) <= 7 or number % 5 == 0:
            parts.append(
                f'<text x="{number * step + 2:.1f}" y="{_CHART_HEIGHT + 18}" class="soft">{day.name[5:]}</text>'
            )
    parts.append(f'<line x1="0" y1="{_CHART_HEIGHT}" x2="{_WIDTH}" y2="{_CHART_HEIGHT}"/></svg>')
    return "".join(parts)


def _bars(named: Sequence[tuple[str, int]], money: Currency) -> str:
    """One bar for each line."""
    most = max((amount for _, amount in named), default=0)
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_ROW * max(len(named), 1)}" role="img" aria-label="cost">']
    for number, (name, amount) in enumerate(named):
        width = _share(amount, most) * (_WIDTH - _LABEL - 110)
        y = number * _ROW
        parts.append(
            f'<text x="0" y="{y + 16}">{escape(_short(name))}</text>'
            f'<rect x="{_LABEL}" y="{y + 4}" width="{width:.1f}" height="{_ROW - 8}" rx="2"/>'
            f'<text x="{_LABEL + width + 6:.1f}" y="{y + 16}" class="soft">{escape(money.shown(amount))}</text>'
        )
    return "".join((*parts, "</svg>"))


def _table(lines: Sequence[Line], money: Currency) -> str:
    rows = "".join(
        f"<tr><td>{escape(line.name)}</td><td>{money.shown(line.cost)}</td><td>{money.shown(line.charge)}</td>"
        f"<td>{line.orders:,}</td><td>{line.images:,}</td></tr>"
        for line in lines
    )
    head = "<tr><th></th><th>cost</th><th>charged</th><th>orders</th><th>pictures</th></tr>"
    return f"<table>{head}{rows}</table>"


def _savings(found: Report, money: Currency) -> Iterator[str]:
    yield "<h2>The same pictures elsewhere</h2>"
    yield _bars([("as it was", found.total.cost), *((each.name, each.cost) for each in found.baselines)], money)
    rows = "".join(
        f"<tr><td>{escape(each.name)}: {escape(each.about)}</td><td>{'' if each.certain else 'about '}"
        f"{money.shown(each.cost)}</td><td>{money.shown(each.actual)}</td><td>{money.shown(each.saved)}</td>"
        f"<td>{each.not_served:,}</td></tr>"
        for each in found.baselines
    )
    head = "<tr><th></th><th>would cost</th><th>did cost</th><th>saved</th><th>not served</th></tr>"
    yield f"<table>{head}{rows}</table>"
    yield f'<p class="soft">Delivered orders only, at the tariffs of catalogue {found.prices}.</p>'


def _advice(found: Report, money: Currency) -> Iterator[str]:
    yield "<h2>What to change</h2>"
    if not found.suggestions:
        yield "<p>Nothing to suggest.</p>"
    for each in found.suggestions:
        worth = "" if each.nano_usd is None else f"<strong>{money.shown(each.nano_usd)}</strong> "
        monthly = "" if each.per_month is None else f" ({money.shown(each.per_month)} a month)"
        yield f'<p>{worth}{escape(each.do)}{monthly}<br><span class="soft">{escape(each.evidence)}</span></p>'


def _share(amount: int, most: int) -> float:
    return max(amount, 0) / most if most > 0 else 0.0


def _short(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:24]}..."
