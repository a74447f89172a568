"""An experiment as one HTML page: verdicts, plots, and pictures side by side. Nothing beside it is needed."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Iterator, Sequence
from html import escape
from math import isfinite

from msgspec import Struct

from gateway.assets import MAX_PIXELS, FolderBlobs, Unfit, blob_key, opened
from gateway.cli.charts import Pair as Bars
from gateway.cli.charts import Whisker, document, pairs, rows, whiskers
from gateway.cli.shadow_plan import days_of
from gateway.cli.shadow_report import (
    WORDS,
    Told,
    between,
    cells,
    day_of,
    left_out,
    money_of,
    of_judge,
    of_people,
    outcome_rows,
    pictures_of_pairs,
    reason,
    state_of,
    stratum_rows,
    tail_rows,
    warnings,
)
from gateway.cli.shell import dollars, open_records, run_async
from gateway.settings import Settings
from gateway.storage.shadows import party
from policies.experiments.definition import Experiment
from policies.experiments.pairs import Pair, Side
from policies.experiments.readings import HIGHER_IS_BETTER, Reading
from policies.experiments.verdicts import Verdict

SHOWN = 24
"""Pairs whose pictures are shown, of all challengers together."""
_APART = 8
"""Of these, so many that differ most in score; the others are the last ones."""
SIDE_PX = 360
"""Pixels of the longer side of a shown picture."""
_HEAD = ("measure", "challenger", "surely between", "margin", "pairs", "plan", "says")


class Exhibit(Struct, frozen=True, kw_only=True):
    """One pair with its pictures, as data URIs."""

    pair: Pair
    champion: str
    challenger: str


def chosen(found: Sequence[Pair]) -> list[Pair]:
    """The pairs to show: those furthest apart in score, then the last ones; each has both pictures."""
    whole = [pair for pair in found if pair.champion.asset and pair.challenger_side.asset]
    scored = sorted(whole, key=lambda pair: -abs(pair.measures.get("score", 0.0)))[:_APART]
    apart = [pair for pair in scored if "score" in pair.measures]
    known = {pair.id for pair in apart}
    last = [pair for pair in sorted(whole, key=lambda pair: -pair.at) if pair.id not in known]
    return [*apart, *last][:SHOWN]


def pictures_of(settings: Settings, experiment: Experiment, found: Sequence[Pair]) -> list[Exhibit]:
    """The pictures of some pairs, small; those that are gone meanwhile are left out."""
    return run_async(_pictures(settings, experiment, chosen(found)))


async def _pictures(settings: Settings, experiment: Experiment, found: Sequence[Pair]) -> list[Exhibit]:
    db, blobs = open_records(settings), FolderBlobs(settings.assets_folder)

    async def small(side: Side) -> str | None:
        asset = await db.asset(side.asset or "", party(experiment.name))
        data = None if asset is None else await blobs.get(blob_key(asset.path))
        return None if data is None else thumbnail(data)

    exhibits = []
    try:
        for pair in found:
            champion, challenger = await small(pair.champion), await small(pair.challenger_side)
            if champion and challenger:
                exhibits.append(Exhibit(pair=pair, champion=champion, challenger=challenger))
    finally:
        await db.aclose()
    return exhibits


def thumbnail(data: bytes) -> str | None:
    """A small copy as a data URI; None of what is no picture, or too large a one to decode."""
    try:
        with opened(data) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                return None
            small = picture.convert("RGB")
            small.thumbnail((SIDE_PX, SIDE_PX))
    except Unfit:
        return None
    out = io.BytesIO()
    small.save(out, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(out.getvalue()).decode()}"


def page(told: Told, exhibits: Sequence[Exhibit]) -> str:
    """The whole document."""
    return document(f"pixelgate, experiment {told.experiment.name}", _body(told, exhibits))


def _body(told: Told, exhibits: Sequence[Exhibit]) -> Iterator[str]:
    experiment = told.experiment
    yield f"<h1>{escape(experiment.name)}</h1>"
    yield (
        f'<p class="soft">Champion {escape(str(experiment.champion))}; {escape(state_of(told))}; '
        f"{dollars(told.spent)} of {dollars(experiment.budget.total)} spent</p>"
    )
    for found in told.verdicts:
        yield from _challenger(found, [each for each in exhibits if each.pair.challenger == found.challenger])
    yield from (
        f'<p class="soft">{escape(line)}</p>' for line in (*left_out(told), *of_judge(told), *of_people(told)) if line
    )
    error = f"{100 * experiment.decide.error:g} %"
    yield (
        f'<p class="soft">Intervals hold at every look: at most {error} of experiments between equals are ever told '
        "apart in anything. Better and worse: surely, and by more than the margin as far as one can tell. The band is "
        "the margin.</p>"
    )


def _challenger(found: Verdict, exhibits: Sequence[Exhibit]) -> Iterator[str]:
    yield f"<h2>{escape(found.challenger)}</h2>"
    yield f'<p class="big">{escape(WORDS[found.verdict])}</p><p>{escape(reason(found))}</p>'
    if found.money is not None:
        yield f"<p>{escape(money_of(found.money))}</p>"
    if not found.pairs:
        return
    yield f'<p class="soft">{found.pairs:,} pairs in {days_of(found.days)}</p>'
    yield whiskers([_whisker(each) for each in found.readings], "challenger lower", "challenger higher")
    yield rows(_HEAD, [cells(each) for each in found.readings])
    if found.tails:
        yield "<h2>How long it takes</h2>"
        yield '<p class="soft">Orange: champion. Blue: challenger.</p>'
        bars = [
            Bars(f"p{100 * each.share:.0f}", each.champion.value, each.challenger.value,
                 f"{each.champion.value:.2f} s, {each.challenger.value:.2f} s")
            for each in found.tails
        ]  # fmt: skip
        yield pairs(bars, "champion", "challenger")
        head, *lines = tail_rows(found)
        yield rows(head, lines)
    yield "<h2>What came</h2>"
    head, *lines = outcome_rows(found)
    yield rows(head, lines)
    if found.pictures:
        told = escape(pictures_of_pairs(found))
        yield f'<p class="soft">Between the pictures of a pair, on average: {told}. Likeness is no quality.</p>'
    if found.strata:
        yield "<h2>By kind of call</h2>"
        yield from (f"<p><strong>{escape(line)}</strong></p>" for line in warnings(found))
        head, *lines = stratum_rows(found)
        yield rows(head, lines)
    yield from _gallery(exhibits)


def _whisker(reading: Reading) -> Whisker:
    good = {"better": True, "worse": False}.get(reading.said)
    shown = between(reading) if isfinite(reading.low) else reading.said
    unit = reading.margin
    name = f"{reading.measure} *" if reading.measure in HIGHER_IS_BETTER else reading.measure
    return Whisker(name, reading.estimate / unit, reading.low / unit, reading.high / unit, shown, good)


def _gallery(exhibits: Sequence[Exhibit]) -> Iterator[str]:
    if not exhibits:
        return
    yield "<h2>Side by side</h2>"
    yield '<p class="soft">Left: champion. Right: challenger. First those furthest apart in score, then the last.</p>'
    yield '<div class="gallery">'
    for each in exhibits:
        pair = each.pair
        score = pair.measures.get("score")
        told = "" if score is None else f", score {score:+.3f}"
        yield _figure(each.champion, pair.champion, f"{pair.stratum or pair.call_id}, {day_of(pair.at)}")
        yield _figure(each.challenger, pair.challenger_side, f"{pair.stratum or pair.call_id}{told}")
    yield "</div>"


def _figure(source: str, side: Side, about: str) -> str:
    caption = f"{side.offer}, {dollars(side.billed)}, {side.latency_s:.1f} s; {about}"
    return (
        f'<figure><img src="{source}" alt="{escape(caption)}" loading="lazy">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
