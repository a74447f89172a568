"""Pages of one file: their style, and charts drawn as SVG. No script, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 720, 360
_LEFT, _BOTTOM, _TOP, _RIGHT = 64, 44, 18, 130

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #667085; --line: #d9dee7; --bar: #2f6fdd; --back: #ffffff;
  --other: #c2410c }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ecf3; --soft: #98a2b3; --line: #333c4a; --bar: #6ea0ff; --back: #12161d; --other: #fb923c } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 820px;
  margin: 2.5rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem } p { margin: .3rem 0 }
.soft { color: var(--soft) } .big { font-size: 1.9rem; font-weight: 600 }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .25rem .5rem; border-bottom: 1px solid var(--line); white-space: nowrap }
th:first-child, td:first-child { text-align: left } th { color: var(--soft); font-weight: 500 }
svg { width: 100%; height: auto } svg text { fill: var(--ink); font-size: 12px } svg .soft { fill: var(--soft) }
svg rect, svg circle { fill: var(--bar) } svg .other { fill: var(--other) } svg line { stroke: var(--line) }
svg .bound { stroke: var(--other); stroke-dasharray: 5 4 } svg circle.faint { fill: var(--soft) }
svg .whisker { stroke: var(--ink) } svg circle.other { fill: var(--other) } svg .band { fill: var(--line); opacity: .5 }
.gallery { display: grid; grid-template-columns: 1fr 1fr; gap: .4rem 1rem } .gallery img { width: 100%; height: auto }
.gallery figure { margin: 0 } .gallery figcaption { color: var(--soft); font-size: .85rem }
"""


class Dot(NamedTuple):
    """One point of a picture."""

    name: str
    x: float
    y: float
    ours: bool = False


class Pair(NamedTuple):
    """Two bars under one name."""

    name: str
    old: float
    new: float
    shown: str


def document(title: str, body: Iterable[str]) -> str:
    """A whole page."""
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
            *body,
            "</body></html>\n",
        )
    )


def rows(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table."""
    parts = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    parts += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines]
    return f'<div class="scroll"><table>{"".join(parts)}</table></div>'


def scatter(dots: Sequence[Dot], x_name: str, y_name: str, bound: tuple[float, str] | None = None) -> str:
    """Points with their names; `bound` is an upright line and what it says."""
    xs = [dot.x for dot in dots] + ([bound[0]] if bound else [])
    low_y = min([dot.y for dot in dots], default=0.0)
    x0, x1 = 0.0, max(xs, default=1.0) * 1.05 or 1.0
    y0, y1 = max(0.0, low_y - max(0.05 * (100 - low_y), 0.2)), 100.0
    wide, high = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def across(x: float) -> float:
        return _LEFT + wide * (x - x0) / (x1 - x0)

    def down(y: float) -> float:
        return _TOP + high * (1 - (y - y0) / (y1 - y0))

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_name)} against {escape(x_name)}">']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = x0 + share * (x1 - x0), y0 + share * (y1 - y0)
        parts.append(f'<line x1="{_LEFT}" x2="{_LEFT + wide}" y1="{down(y):.1f}" y2="{down(y):.1f}"/>')
        parts.append(f'<text class="soft" x="{_LEFT - 6}" y="{down(y) + 4:.1f}" text-anchor="end">{y:.4g}</text>')
        parts.append(
            f'<text class="soft" x="{across(x):.1f}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">{x:.3g}</text>'
        )
    parts.append(
        f'<text class="soft" x="{_LEFT + wide / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_name)}</text>'
    )
    parts.append(f'<text class="soft" x="4" y="12">{escape(y_name)}</text>')
    if bound is not None:
        x = across(bound[0])
        parts.append(f'<line class="bound" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text class="soft" x="{x + 4:.1f}" y="{HEIGHT - _BOTTOM - 6}">{escape(bound[1])}</text>')
    taken: list[tuple[float, float]] = []
    for dot in sorted(dots, key=lambda each: not each.ours):
        x, y = across(dot.x), down(dot.y)
        label_y = y + 4
        while any(abs(label_y - other) < 13 and abs(x - at) < 150 for at, other in taken):
            label_y += 13
        taken.append((x, label_y))
        look = "" if dot.ours else ' class="faint"'
        parts.append(
            f'<circle{look} cx="{x:.1f}" cy="{y:.1f}" r="{6 if dot.ours else 4}">'
            f"<title>{escape(dot.name)}: {dot.x:.4g}, {dot.y:.4g}</title></circle>"
            f'<text x="{x + 9:.1f}" y="{label_y:.1f}">{escape(dot.name)}</text>'
        )
    return "".join((*parts, "</svg>"))


def pairs(bars: Sequence[Pair], old: str, new: str) -> str:
    """Two bars for each name, one under the other."""
    most = max([max(bar.old, bar.new) for bar in bars], default=0.0) or 1.0
    row, label = 40, 210
    wide = WIDTH - label - 150
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {row * max(len(bars), 1)}" role="img" aria-label="{escape(old)}, {escape(new)}">'
    ]
    for number, bar in enumerate(bars):
        y = number * row
        parts.append(f'<text x="0" y="{y + 22}">{escape(bar.name[:30])}</text>')
        for place, (value, look) in enumerate(((bar.old, ' class="other"'), (bar.new, ""))):
            width = wide * max(value, 0.0) / most
            parts.append(f'<rect{look} x="{label}" y="{y + 5 + 15 * place}" width="{width:.1f}" height="12" rx="2"/>')
        ends = label + wide * max(bar.old, bar.new, 0.0) / most
        parts.append(f'<text class="soft" x="{ends + 8:.1f}" y="{y + 22}">{escape(bar.shown)}</text>')
    return "".join((*parts, "</svg>"))


class Whisker(NamedTuple):
    """A difference with its interval, in units of the margin below which nobody minds."""

    name: str
    value: float
    low: float
    high: float
    shown: str
    good: bool | None
    """Whether it is surely to the good; None: not sure."""


def whiskers(lines: Sequence[Whisker], below: str, above: str, most: float = 4.0) -> str:
    """Differences one under the other, beside the band in which nobody minds; what lies further out is cut off."""
    row, label, right, top = 34, 110, 190, 22
    wide = WIDTH - label - right
    height = top + row * max(len(lines), 1) + 8

    def across(value: float) -> float:
        return label + wide * (max(-most, min(most, value)) + most) / (2 * most)

    band = f'x="{across(-1):.1f}" y="{top}" width="{across(1) - across(-1):.1f}" height="{height - top}"'
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(below)}, {escape(above)}">',
        f'<rect class="band" {band}/>',
        f'<line x1="{across(0):.1f}" x2="{across(0):.1f}" y1="{top}" y2="{height}"/>',
        f'<text class="soft" x="{label}" y="12">{escape(below)}</text>',
        f'<text class="soft" x="{label + wide}" y="12" text-anchor="end">{escape(above)}</text>',
    ]
    for number, line in enumerate(lines):
        y = top + row * number + row / 2
        look = {True: "", False: ' class="other"', None: ' class="faint"'}[line.good]
        parts.append(f'<text x="0" y="{y + 4:.1f}">{escape(line.name)}</text>')
        parts.append(
            f'<line class="whisker" x1="{across(line.low):.1f}" x2="{across(line.high):.1f}" '
            f'y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(
            f'<circle{look} cx="{across(line.value):.1f}" cy="{y:.1f}" r="5">'
            f"<title>{escape(line.shown)}</title></circle>"
        )
        parts.append(f'<text class="soft" x="{label + wide + 8}" y="{y + 4:.1f}">{escape(line.shown)}</text>')
    return "".join((*parts, "</svg>"))
