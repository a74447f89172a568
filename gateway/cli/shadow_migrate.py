"""`pixelgate shadow migrate`: the experiment that tests a move from one provider account to another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from msgspec.structs import replace

from gateway.cli.policy_lint import faults_of_text
from gateway.cli.policy_text import flow, with_item, with_revision
from gateway.cli.shadow_plan import text as plan_text
from gateway.cli.shadow_shared import Traffic, invented, traffic_of
from gateway.cli.shell import COMMAND, HERE, Stop, Where, say, write_file
from gateway.cli.simulating import revision_of
from gateway.revisions import PolicyText, Revision, load_revision
from gateway.settings import Settings
from gateway.yaml_files import BadFile
from policies.experiments.definition import LONGEST_KEPT, Allowance, Arm, Challenger, Experiment, Sample
from policies.experiments.planning import Past, Plan, plan
from policies.money import USD, to_usd

_LEAST_SHARE = 0.001
_CENT = USD // 100
_DAY_S = 86_400.0
_SLACK = 1.25
"""Copies beyond those planned, for those that are not drawn for want of room."""
_READ_AFTER = 7
"""Days after its end for which its pairs are still there to be read."""
_LEAST_KEPT = 30
_MOST_SHARE = 0.25
"""A larger share is not proposed: room to spare and money run out before."""


def migrate(  # noqa: PLR0913 - what may be said of a move
    *,
    from_: Annotated[str, Parameter(name="--from")],
    to: str,
    days: Annotated[int, Parameter(validator=Number(gte=1, lte=365))] = 30,
    model: str | None = None,
    a_day: Annotated[float | None, Parameter(validator=Number(gt=0))] = None,
    policy: str | None = None,
    output: Path | None = None,
    where: Where = HERE,
) -> int:
    """Write the experiment that tests a move between provider accounts: sized, priced and checked.

    The share is as large as the verdict needs within the days, a quarter at most. Exit code 1: that is not enough.

    Parameters
    ----------
    from_
        The provider account (or kind) that draws now.
    to
        The provider account that would.
    days
        How long the test may take.
    model
        Only calls drawn with this model; of all that both sell when left out.
    a_day
        So many calls a day, instead of what was recorded.
    policy
        A policy file, or the name of a policy; the one in force when left out.
    output
        The file for the whole policy with the experiment in it; the experiment alone goes to standard output when
        left out.
    """
    settings = where.settings()
    revision = revision_of(settings, policy, None)
    _check_names(settings, revision, from_, to, model)
    draft = experiment_for(revision, from_, to, model, days)
    traffic = (
        traffic_of(settings, revision, [draft], float(days))
        if a_day is None
        else Traffic(invented(revision, draft, a_day), {}, {}, 1.0)
    )
    fitted, found = sized(draft, traffic, revision, days)
    lines = lines_of(fitted, days)
    renumbered = with_revision(revision.written.content.decode(), revision.policy.revision + 1)
    text = with_item(renumbered, "experiments", lines)
    faults = faults_of_text(PolicyText(revision.written.path, text.encode()), settings)
    if faults:
        raise BadFile(faults)
    load_revision(settings, every_account=True, policy=PolicyText(revision.written.path, text.encode()))
    if output is None:
        print("\n".join([f"  - {lines[0]}", *[f"    {line}" for line in lines[1:]]]))
    else:
        write_file(output, text)
        say(f"wrote {output}; review it, then `{COMMAND} policy apply {output}`")
    say(plan_text(found, fitted))
    return 1 if found.hopeless else 0


def _check_names(settings: Settings, revision: Revision, from_: str, to: str, model: str | None) -> None:
    offers = revision.catalog.offers.values()
    for option, name, known in (
        ("--from", from_, {each.account for each in offers} | {each.kind for each in offers}),
        ("--to", to, set(settings.accounts)),
        ("--model", model, set(revision.catalog.models)),
    ):
        if name is not None and name not in known:
            raise Stop(f"{option} {name}: there is none of that name; there are: {', '.join(sorted(known))}")
    ours = {each.model for each in offers if from_ in {each.account, each.kind}}
    theirs = {each.model for each in offers if each.account == to}
    wanted = ours if model is None else ours & {model}
    if from_ == to:
        raise Stop(f"--to {to}: that is where calls are drawn now")
    if not wanted & theirs:
        raise Stop(f"{to} sells nothing of what {from_} sells{f' of {model}' if model else ''}", code=1)
    if wanted - theirs:
        say(f"remark: {to} does not sell {', '.join(sorted(wanted - theirs))}; those calls are not copied")


def experiment_for(revision: Revision, from_: str, to: str, model: str | None, days: int) -> Experiment:
    """The test of a move, before it is known how many copies it takes."""
    taken = {each.name for each in revision.policy.experiments}
    name = plain = f"migrate-{from_}-to-{to}"[:56].lower()
    number = 2
    while name in taken:
        name, number = f"{plain}-{number}", number + 1
    start = datetime.now(UTC).date() + timedelta(days=1)
    begins = datetime(start.year, start.month, start.day, tzinfo=revision.policy.rules.zone)
    return Experiment(
        name=name,
        champion=Arm(provider=from_, model=model),
        challengers=(Challenger(name=to, account=to, model=None),),
        sample=Sample(share=_MOST_SHARE, stratify=("tier", "size")),
        budget=Allowance(day=10**6 * USD, total=10**9 * USD),
        start=begins.timestamp(),
        stop=begins.timestamp() + days * _DAY_S,
        keep=min(max(days + _READ_AFTER, _LEAST_KEPT) * _DAY_S, LONGEST_KEPT),
    )


def sized(draft: Experiment, traffic: Traffic, revision: Revision, days: int) -> tuple[Experiment, Plan]:
    """The experiment at the share its verdict needs, with the money for it; and its plan."""
    past = traffic.past.get(draft.name, Past())
    most = plan(draft, traffic.volumes, revision.catalog, past=past, at=draft.start or 0.0)
    if not most.calls_a_day:
        raise Stop(
            f"{draft.champion} served nobody in that time, so there is nothing to copy; --a-day tells how many calls "
            "will come",
            code=1,
        )
    needed = max(measure.days for each in most.challengers for measure in each.measures) / days
    share = min(max(_MOST_SHARE * needed * _SLACK, _LEAST_SHARE), _MOST_SHARE)
    share = ceil(share * 1000) / 1000
    fitted = replace(draft, sample=replace(draft.sample, share=share))
    unlimited = plan(fitted, traffic.volumes, revision.catalog, past=past, at=draft.start or 0.0)
    a_day = max(ceil(unlimited.wanted * _SLACK / _CENT) * _CENT, _CENT)
    fitted = replace(fitted, budget=Allowance(day=a_day, total=a_day * days))
    return fitted, plan(fitted, traffic.volumes, revision.catalog, past=past, at=draft.start or 0.0)


def lines_of(experiment: Experiment, days: int) -> list[str]:
    """As a policy says it."""
    champion = {"provider": experiment.champion.provider}
    if experiment.champion.model is not None:
        champion["model"] = experiment.champion.model
    challengers = [{"name": each.name.lower(), "account": each.account} for each in experiment.challengers]
    budget = {"day": f"${to_usd(experiment.budget.day)}", "total": f"${to_usd(experiment.budget.total)}"}
    start = datetime.fromtimestamp(experiment.start or 0.0, UTC).date()
    because = f"may we move from {experiment.champion} to {experiment.challengers[0].account}?"
    return [
        f"experiment: {experiment.name}",
        f"because: {flow(because)}",
        f"champion: {flow(champion)}",
        f"challengers: {flow(challengers)}",
        f"sample: {{share: {100 * experiment.sample.share:g}%, stratify: {flow(experiment.sample.stratify)}}}",
        f"budget: {flow(budget)}",
        f"start: {start}",
        f"stop: {start + timedelta(days=days)}",
        f"keep: {experiment.keep / _DAY_S:.0f}d",
    ]
