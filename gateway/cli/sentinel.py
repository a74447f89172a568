"""`pixelgate sentinel`: pictures drawn again from fixed prompts and seeds, to see whether offers have changed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import to_builtins
from rich.console import Console
from rich.progress import Progress

from gateway.app import build
from gateway.cli.shell import HERE, Json, Stop, Where, dollars, open_records, print_json, run_async, say, table
from gateway.settings import Settings
from policies.experiments.constancy import Draw, reproducible


def run(*, account: str | None = None, json: Json = False, where: Where = HERE) -> None:
    """Draw once at every offer now, whatever was drawn lately, and tell what has changed. 1: something has.

    Parameters
    ----------
    account
        Only at this provider account.
    """
    settings = where.settings()
    if settings.sentinel.budget is None:
        raise Stop("no `sentinel.budget` is set, and without one nothing is drawn; `budget: $0.50` is for a day")
    if account is not None and account not in settings.accounts_on():
        raise Stop(f"--account {account}: no such account is on; there are: {', '.join(settings.accounts_on())}")
    drawn, left = run_async(_run(settings, account))
    changed = [each for each in drawn if each.changed]
    if json:
        print_json({"draws": [to_builtins(each) for each in drawn], "not_drawn": left})
    else:
        for draw in drawn:
            print(_line(draw))
        cost = sum(each.billed for each in drawn)
        print(f"{len(drawn)} drawn for {dollars(cost)}, {left} not for lack of room or money, {len(changed)} changed")
    if changed:
        raise Stop("offers have changed; see above", code=1)


def list_draws(*, json: Json = False, where: Where = HERE) -> None:
    """List the offers that were drawn, with their last draw and what was told of them."""
    draws = run_async(_read(where.settings()))
    by_offer: dict[tuple[str, str], list[Draw]] = {}
    for draw in draws:
        by_offer.setdefault((draw.offer, draw.prompt), []).append(draw)
    if json:
        print_json({"offers": [_shape(each) for each in by_offer.values()]})
        return
    if not by_offer:
        say("nothing was drawn yet; `sentinel.budget` says what may be spent on it in a day")
        return
    head = ("offer", "prompt", "draws", "last (UTC)", "took", "billed", "pixels", "told last")
    rows = [(name, prompt, *_columns(each)) for (name, prompt), each in sorted(by_offer.items())]
    print(table([head, *rows], right=frozenset({2, 4, 5})))


async def _run(settings: Settings, account: str | None) -> tuple[list[Draw], int]:
    app = await build(settings)
    await app.start()
    drawn, left = [], 0
    try:
        due = [each for each in await app.sentinel.due(float("inf")) if account in {None, each[0].account}]
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("drawing", total=len(due))
            for offer, prompt in due:
                draw = await app.sentinel.draw(offer, prompt)
                progress.advance(task)
                if draw is None:
                    left += 1
                else:
                    drawn.append(draw)
        await app.idle()
    finally:
        await app.stop()
    return drawn, left


async def _read(settings: Settings) -> Sequence[Draw]:
    db = open_records(settings)
    try:
        return await db.draws()
    finally:
        await db.aclose()


def _line(draw: Draw) -> str:
    end = f"{draw.width}x{draw.height} in {draw.latency_s:.1f} s" if draw.error is None else draw.error
    told = f"  CHANGED: {', '.join(draw.changed)}" if draw.changed else ""
    return f"{draw.offer}  {end}  {dollars(draw.billed)}{told}"


def _columns(draws: Sequence[Draw]) -> tuple[str, ...]:
    last = draws[-1]
    told = next((each for each in reversed(draws) if each.changed), None)
    return (
        f"{len(draws):,}",
        f"{datetime.fromtimestamp(last.at, UTC):%Y-%m-%d %H:%M}",
        f"{last.latency_s:.1f} s" if last.error is None else last.error,
        dollars(last.billed),
        _watched(draws),
        "-" if told is None else f"{', '.join(told.changed)} on {datetime.fromtimestamp(told.at, UTC):%Y-%m-%d}",
    )


def _watched(draws: Sequence[Draw]) -> str:
    known = [each for each in draws if each.error is None][:3]
    if len(known) < 3:
        return "not known yet"
    return "watched" if reproducible(known) else "differ each time"


def _shape(draws: Sequence[Draw]) -> dict[str, object]:
    return {
        "offer": draws[-1].offer,
        "prompt": draws[-1].prompt,
        "draws": len(draws),
        "pixels": _watched(draws),
        "last": to_builtins(draws[-1]),
        "changed": [to_builtins(each) for each in draws if each.changed],
    }
