"""`pixelgate shadow run` and `measure`: an experiment over stored prompts, and what its pictures say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number
from msgspec import Struct
from msgspec.structs import replace
from pydantic_core import PydanticCustomError
from rich.console import Console
from rich.progress import Progress

from gateway.app import App, build
from gateway.assets import Assets, FolderBlobs
from gateway.cli.shadow_shared import experiment_of, spent_on
from gateway.cli.shell import COMMAND, HERE, Json, Stop, Where, dollars, open_records, print_json, run_async, say
from gateway.clock import SystemClock
from gateway.features.copying import LeftOut
from gateway.features.learned import FILES, LearnedMeasures
from gateway.features.measuring import Measuring
from gateway.features.stored_prompts import drawn_by_both
from gateway.requests.parts import SEEDS
from gateway.revisions import load_revision
from gateway.settings import Settings
from policies.eligibility import objection
from policies.experiments.definition import Challenger, Experiment
from policies.experiments.pairs import Pair
from policies.experiments.verdicts import Verdict, judge
from policies.offer_prices import quote_at
from policies.policy_file.values import parse_size
from policies.tariffs import Unpriced
from policies.types import Ask, Constraints, Offer
from providers.contract import ImageRequest

AA = "a-a"
"""The challenger that is the champion itself."""


class Prompt(Struct, frozen=True, forbid_unknown_fields=True):
    """A line of the file, where it is JSON."""

    prompt: str
    seed: int | None = None
    size: str | None = None
    steps: int | None = None


class Ran(Struct, kw_only=True):
    """What a run came to."""

    pairs: list[Pair] = []
    left_out: Counter[str] = msgspec.field(default_factory=Counter)
    spent: int = 0
    """Nano-dollars, of both sides."""


def run(
    name: str,
    /,
    *,
    prompts: Path,
    aa: Annotated[bool, Parameter(name="--aa")] = False,
    limit: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Have stored prompts drawn by an experiment's champion and challengers, for the experiment's money.

    Parameters
    ----------
    name
        The experiment; its sample has no say here, its budget does.
    prompts
        A file with a prompt in each line, or a JSON object: {"prompt": "...", "seed": 7, "size": "1024x1024"}.
    aa
        Compare the champion with itself instead: whatever is then found different is chance, or the champion's mood.
    limit
        Only so many of them.
    """
    settings = where.settings()
    revision = load_revision(settings)
    experiment = experiment_of(revision, name)
    requests = read_prompts(prompts, revision.policy.auto_size)[:limit]
    ran, verdicts = run_async(_run(settings, experiment, requests, aa=aa))
    if json:
        print_json(
            {
                "experiment": name,
                "aa": aa,
                "prompts": len(requests),
                "pairs": len(ran.pairs),
                "left_out": dict(ran.left_out),
                "spent_nano_usd": ran.spent,
                "verdicts": [_shape(each) for each in verdicts],
            }
        )
        return
    print(f"{len(ran.pairs)} pairs of {len(requests)} prompts, {dollars(ran.spent)} for both sides")
    for reason, calls in ran.left_out.most_common():
        print(f"left out: {calls}, {reason}")
    for verdict in verdicts:
        print(f"{verdict.challenger}: {_said(verdict)}")
    if not aa:
        say(f"all pairs, with those of live calls: `{COMMAND} shadow report {name}`")


def measure(name: str, /, *, again: bool = False, json: Json = False, where: Where = HERE) -> None:
    """Measure the pictures of an experiment's pairs that nobody has measured yet.

    Parameters
    ----------
    name
        The experiment.
    again
        Measure the others anew, too, as far as their pictures are kept: there is a new model.
    """
    settings = where.settings()
    experiment_of(load_revision(settings), name)
    learned = LearnedMeasures(settings.models_folder)
    measured = run_async(_measure(settings, name, learned, again=again))
    missing = learned.missing
    if json:
        print_json({"experiment": name, "measured": measured, "learned": {each: missing.get(each) for each in FILES}})
        return
    print(f"{measured} pairs measured")
    there = [each for each in FILES if each not in missing]
    say(f"learned measures: {', '.join(there) or 'none'}")
    for each, why in missing.items():
        say(f"  not {each}: {why}")


def read_prompts(file: Path, size: tuple[int, int]) -> list[ImageRequest]:
    """The requests of a file; those without a seed get one each, so that both sides have the same."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Stop(f"--prompts {file}: cannot be read ({type(error).__name__})") from error
    found = [_request(file, number, line.strip(), size) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise Stop(f"--prompts {file}: there is no prompt in it; write one in each line")
    return found


def _request(file: Path, number: int, line: str, size: tuple[int, int]) -> ImageRequest:
    place = f"--prompts {file}, line {number}"
    try:
        told = msgspec.json.decode(line, type=Prompt) if line.startswith("{") else Prompt(line)
        width, height = size if told.size is None else parse_size(told.size)
    except (msgspec.MsgspecError, PydanticCustomError) as error:
        message = error.message() if isinstance(error, PydanticCustomError) else str(error)
        raise Stop(f"{place}: {message}") from error
    if not told.prompt.strip():
        raise Stop(f"{place}: the prompt is blank; say what to draw")
    seed = number if told.seed is None else told.seed
    if not 0 <= seed < SEEDS:
        raise Stop(f"{place}: seed {seed} is not from 0 to {SEEDS - 1}")
    return ImageRequest(prompt=told.prompt, width=width, height=height, seed=seed, steps=told.steps)


async def _run(
    settings: Settings, experiment: Experiment, requests: Sequence[ImageRequest], *, aa: bool
) -> tuple[Ran, tuple[Verdict, ...]]:
    app = await build(settings)
    ran = Ran()
    await app.start()
    try:
        before = await spent_on(app.db, experiment)
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("drawing", total=len(requests))
            for request in requests:
                await _one(app, experiment, request, ran, aa=aa)
                progress.advance(task)
        await app.idle()
        ran.spent = await spent_on(app.db, experiment) - before
        while await app.measuring.some(20, experiment.name):
            pass
        ids = {pair.id for pair in ran.pairs}
        ran.pairs = [pair for pair in await app.db.shadow_pairs(experiment.name) if pair.id in ids]
    finally:
        await app.stop()
    compared = replace(experiment, challengers=(Challenger(name=AA, account=""),)) if aa else experiment
    return ran, judge(compared, [replace(pair, terms="") for pair in ran.pairs])


async def _one(app: App, experiment: Experiment, request: ImageRequest, ran: Ran, *, aa: bool) -> None:
    """One prompt at both."""
    champion = champion_of(app.revision.catalog.for_sale(), experiment, request)
    if champion is None:
        ran.left_out["no offer of the champion draws it"] += 1
        return
    request = request if champion.abilities.seed else replace(request, seed=None)
    both = experiment
    if aa:
        itself = Challenger(name=AA, account=champion.account, model=champion.model)
        both = replace(experiment, challengers=(itself,))
    try:
        found: Sequence[Pair | LeftOut] = await drawn_by_both(app.shadowing, app.clock, both, request, champion)
    except LeftOut as left_out:
        found = (left_out,)
    pairs = [each for each in found if isinstance(each, Pair)]
    app.measuring.prompts.update({each.call_id: request.prompt for each in pairs})
    ran.pairs += pairs
    ran.left_out.update(str(each) for each in found if isinstance(each, LeftOut))


def champion_of(offers: Sequence[Offer], experiment: Experiment, request: ImageRequest) -> Offer | None:
    """The cheapest offer of an experiment's champion that can draw a request."""
    ask = Ask(call_id="", part=0, request=replace(request, seed=None), constraints=Constraints(), arrived=0.0)
    best: tuple[int, Offer] | None = None
    for offer in offers:
        if not experiment.champion.served(offer) or objection(offer, ask) is not None:
            continue
        try:
            amount = quote_at(offer, request).amount
        except Unpriced:
            continue
        if best is None or amount < best[0]:
            best = amount, offer
    return None if best is None else best[1]


async def _measure(settings: Settings, name: str, learned: LearnedMeasures, *, again: bool) -> int:
    db = open_records(settings)
    measured = 0
    try:
        measuring = Measuring(db, Assets(FolderBlobs(settings.assets_folder), SystemClock(), None), learned)
        if again:
            await measuring.again(name)
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("measuring", total=None)
            while some := await measuring.some(20, name):
                measured += some
                progress.update(task, completed=measured)
    finally:
        await db.aclose()
    return measured


def _said(verdict: Verdict) -> str:
    readings = ", ".join(f"{each.measure} {each.said}" for each in verdict.readings)
    pictures = ", ".join(f"{name} {value:.3f}" for name, value in verdict.pictures.items())
    return "; ".join(part for part in (readings, pictures) if part)


def _shape(verdict: Verdict) -> dict[str, object]:
    return {
        "challenger": verdict.challenger,
        "verdict": verdict.verdict,
        "readings": {each.measure: each.said for each in verdict.readings},
        "pictures": dict(verdict.pictures),
    }
