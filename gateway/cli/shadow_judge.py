"""`pixelgate shadow judge`: a vision model's opinion of the pairs that the gateway has not come to."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.progress import Progress

from gateway.assets import Assets, FolderBlobs
from gateway.cli.shadow_shared import experiment_of
from gateway.cli.shell import HERE, Json, Stop, Where, open_records, print_json, run_async
from gateway.clock import SystemClock
from gateway.features.judging import Judging
from gateway.revisions import load_revision
from gateway.settings import Settings
from policies.experiments.definition import Experiment
from providers.transport import Http


def judge(
    name: str,
    /,
    *,
    limit: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    json: Json = False,
    where: Where = HERE,
) -> int:
    """Ask the judge about pairs that count and that it was not asked about yet, while money lasts; measured ones alone.

    Exit code 1: it did not say anything about some.

    Parameters
    ----------
    name
        The experiment.
    limit
        Only about so many of them.
    """
    settings = where.settings()
    experiment = experiment_of(load_revision(settings), name)
    if (why := settings.shadow.judge.why_off) is not None:
        raise Stop(f"there is no judge: {why}; see `shadow.judge` in gateway.yaml")
    ended = run_async(_judge(settings, experiment, limit))
    said = {word: ended.pop(word, 0) for word in ("better", "worse", "tie")}
    if json:
        print_json({"experiment": name, **said, "failures": dict(ended)})
    else:
        print(f"{sum(said.values())} pairs judged: " + ", ".join(f"{word} {pairs}" for word, pairs in said.items()))
        for why, times in ended.most_common():
            print(f"not judged: {times}, {why}")
    return 1 if ended else 0


async def _judge(settings: Settings, experiment: Experiment, limit: int | None) -> Counter[str]:
    db, http, ended = open_records(settings), Http(), Counter[str]()
    clock = SystemClock()
    assets = Assets(FolderBlobs(settings.assets_folder), clock, None)
    judging = Judging(db=db, assets=assets, http=http, clock=clock, terms=lambda: settings.shadow.judge)
    try:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("judging", total=limit)
            while limit is None or ended.total() < limit:
                some = await judging.some(1, [experiment])
                if not some:
                    break
                ended += some
                progress.advance(task, some.total())
    finally:
        await http.aclose()
        await db.aclose()
    return ended
