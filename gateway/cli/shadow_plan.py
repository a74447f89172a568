"""`pixelgate shadow plan`: what an experiment will cost and when it can say something, before a copy is drawn."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from gateway.cli.shadow_shared import Days, Traffic, experiment_of, invented, traffic_of
from gateway.cli.shell import COMMAND, HERE, Json, Stop, Where, dollars, print_json, say, table
from gateway.cli.simulate import usd
from gateway.cli.simulating import revision_of
from gateway.features.measuring import unmeasurable
from gateway.revisions import Revision
from policies.experiments.definition import OF_PICTURES, Experiment
from policies.experiments.planning import ChallengerPlan, Past, Plan
from policies.experiments.planning import plan as planned

_HEAD = ("measure", "margin", "pairs", "days", "")


def plan(
    name: str | None = None,
    /,
    *,
    all: bool = False,  # noqa: A002 - its name
    policy: str | None = None,
    days: Days = 7.0,
    a_day: Annotated[float | None, Parameter(validator=Number(gt=0))] = None,
    json: Json = False,
    where: Where = HERE,
) -> int:
    """Price experiments before they start, and size them: pairs for each measure, days until a verdict.

    Exit code 1: a measure cannot be decided with this traffic and this money.

    Parameters
    ----------
    name
        The experiment.
    all
        Every experiment of the policy.
    policy
        A policy file, or the name of a policy; the one in force when left out.
    days
        How far back this gateway's records are read for its traffic.
    a_day
        So many calls a day at the champion, of the usual size, instead of what was recorded.
    """
    settings = where.settings()
    revision = revision_of(settings, policy, None)
    experiments = _chosen(revision, name, everything=all)
    if a_day is None:
        traffic = traffic_of(settings, revision, experiments, days)
    else:
        volumes = [each for experiment in experiments for each in invented(revision, experiment, a_day)]
        traffic = Traffic(volumes, {}, {}, 1.0)
    plans = [
        planned(each, traffic.volumes, revision.catalog, past=traffic.past.get(each.name, Past()),
                at=datetime.now(UTC).timestamp(), spent=traffic.spent.get(each.name, 0))
        for each in experiments
    ]  # fmt: skip
    on = settings.accounts_on()
    for off in sorted({each.account for experiment in experiments for each in experiment.challengers} - on.keys()):
        say(f"remark: the account {off} is off, so nothing would be copied to it; `{COMMAND} doctor` says why")
    missing = unmeasurable(settings)
    for measure in sorted({each for experiment in experiments for each in experiment.compare} & missing.keys()):
        say(f"remark: nothing here measures {measure}, so it would never be decided: {missing[measure]}")
    if any("votes" in experiment.compare for experiment in experiments):
        say(f"remark: its days are counted as if every pair were voted on; `{COMMAND} shadow vote` writes the page")
    if json:
        print_json({"plans": plans})
    else:
        print("\n\n".join(text(each, experiment) for each, experiment in zip(plans, experiments, strict=True)))
        source = f"{a_day:g} calls a day, as given" if a_day else f"calls of the last {traffic.days:.1f} days"
        say(f"traffic: {source}")
    return 1 if any(each.hopeless for each in plans) else 0


def _chosen(revision: Revision, name: str | None, *, everything: bool) -> list[Experiment]:
    if everything == (name is not None):
        raise Stop("name an experiment, or say --all")
    if name is not None:
        return [experiment_of(revision, name)]
    if not revision.policy.experiments:
        raise Stop(f"{revision.policy.label} has no experiments; write one under `experiments:`")
    return list(revision.policy.experiments)


def text(found: Plan, experiment: Experiment) -> str:
    """For people."""
    money = (
        f"{found.calls_a_day:,.0f} calls a day, {found.copied_a_day:,.1f} of them copied: ${usd(found.a_day)} a day"
        f" (budget {dollars(experiment.budget.day)}), ${usd(found.in_all)} in {days_of(found.ends)}"
        f" (budget {dollars(experiment.budget.total)})"
    )
    challengers = ", ".join(each.name for each in experiment.challengers)
    parts = [f"{found.experiment}: {experiment.champion} against {challengers}", money]
    if found.wanted > experiment.budget.day:
        share = 100 * found.a_day / found.wanted
        parts.append(f"Without a limit a day would cost ${usd(found.wanted)}: {share:.0f} % of the copies are drawn.")
    if not found.calls_a_day:
        parts.append("Nothing is known of such calls: nobody was served by the champion in that time.")
    for each in found.challengers:
        parts += ["", *_of_challenger(each, experiment)]
    end = found.decided_in
    if found.ends == 0:
        return "\n".join([*parts, "", "No copy is drawn any more: it has ended, or its money is spent"])
    parts += ["", "A verdict " + (f"in about {days_of(end)}." if end is not None else "is out of reach: " + _advice())]
    return "\n".join(parts)


def _of_challenger(found: ChallengerPlan, experiment: Experiment) -> list[str]:
    prices = f"${usd(found.each)}, where the champion takes ${usd(found.champion_each)}"
    parts = [f"{found.challenger}: {found.copies_a_day:,.1f} copies a day at {prices}"]
    parts += [f"  not drawn: {copies:,.1f} a day, {why}" for why, copies in found.unable.items()]
    rows = [_HEAD]
    for each in found.measures:
        remarks = [word for word, said in (("undecidable", each.hopeless), ("spread assumed", each.assumed)) if said]
        margin = margin_of(each.measure, experiment.decide.margins[each.measure])
        days = f"{each.days:,.1f}" if isfinite(each.days) else "-"
        rows.append((each.measure, margin, f"{each.pairs:,}", days, ", ".join(remarks)))
    return [*parts, table(rows, right=frozenset({1, 2, 3}))]


def margin_of(measure: str, margin: float) -> str:
    """A margin as people type it."""
    if measure in OF_PICTURES:
        return f"{margin:g}"
    return f"{margin:g} s" if measure == "queue" else f"{100 * margin:g} %"


def days_of(days: float | None) -> str:
    """Days in words."""
    if days is None:
        return "no time"
    return f"{days:,.1f} days" if days >= 2 else f"{24 * days:,.1f} hours"


def _advice() -> str:
    return "copy a larger share, allow more money, keep pairs for longer, mind larger differences, or compare less"
