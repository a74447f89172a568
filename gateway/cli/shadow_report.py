"""`pixelgate shadow list` and `report`: what experiments say so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import isfinite
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from gateway.cli.shadow_plan import days_of, margin_of
from gateway.cli.shadow_shared import calls_a_day, experiment_of, spent_on
from gateway.cli.shell import (
    COMMAND,
    HERE,
    Json,
    Where,
    dollars,
    open_records,
    print_json,
    run_async,
    say,
    table,
    write_file,
)
from gateway.cli.simulate import usd
from gateway.cli.simulating import revision_of
from gateway.revisions import Revision
from gateway.settings import Settings
from gateway.storage.database import Database
from gateway.storage.shadows import Judged, VoteRow
from policies.experiments.definition import OF_PICTURES, Experiment, Measure
from policies.experiments.pairs import Pair
from policies.experiments.quantiles import Quantile
from policies.experiments.readings import Reading
from policies.experiments.verdicts import MONTH_DAYS, Money, Opinion, Tally, Verdict, judge, pairs_of

SEEN_DAYS = 7.0
"""How far back the traffic is read that money is told for."""
WORDS: Mapping[str, str] = {"switch": "SWITCH", "stay": "STAY", "open": "NOT YET DECIDED"}
_BEYOND = 100.0
"""Shares from which nobody reads per cent: a champion that costs next to nothing."""
_HEAD = ("measure", "challenger", "surely between", "margin", "pairs", "plan", "says")


class Told(Struct, frozen=True, kw_only=True):
    """An experiment as it stands."""

    experiment: Experiment
    verdicts: tuple[Verdict, ...]
    spent: int
    """Nano-dollars of its copies, those under way included."""
    left_out: Mapping[str, int]
    """Why copies were not made -> how many."""
    calls_a_day: float | None
    """At the champion, lately; None: nobody was served by it."""
    judged: Judged = Judged()
    votes: Sequence[VoteRow] = ()


def list_experiments(*, policy: str | None = None, json: Json = False, where: Where = HERE) -> None:
    """List the experiments of a policy: whether they run, what they spent, and what they say so far.

    Parameters
    ----------
    policy
        A policy file, or the name of a policy; the one in force when left out.
    """
    settings = where.settings()
    revision = revision_of(settings, policy, None)
    found = [told for each in revision.policy.experiments for told in [look(settings, revision, each)[0]]]
    if json:
        print_json({"experiments": [shape(each) for each in found]})
    elif not found:
        say(f"{revision.policy.label} has no experiments; write one under `experiments:`")
    else:
        rows = [("experiment", "champion", "challenger", "state", "pairs", "spent", "verdict")]
        rows += [
            (told.experiment.name, str(told.experiment.champion), each.challenger, state_of(told), f"{each.pairs:,}",
             f"{dollars(told.spent)} of {dollars(told.experiment.budget.total)}", WORDS[each.verdict].lower())
            for told in found for each in told.verdicts
        ]  # fmt: skip
        print(table(rows, right=frozenset({4})))


def report(
    name: str,
    /,
    *,
    policy: str | None = None,
    html: Path | None = None,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Say what an experiment's pairs add up to: switch, stay or not yet decided, and what a switch is worth.

    Parameters
    ----------
    name
        The experiment.
    policy
        A policy file, or the name of a policy; the one in force when left out.
    html
        Write one page with plots and pictures side by side, which needs nothing beside it.
    """
    settings = where.settings()
    revision = revision_of(settings, policy, None)
    told, pairs = look(settings, revision, experiment_of(revision, name))
    if html is not None:
        from gateway.cli.shadow_page import page, pictures_of

        counted = [pair for each in told.experiment.challengers for pair in pairs_of(told.experiment, each, pairs)]
        write_file(html, page(told, pictures_of(settings, told.experiment, counted)))
        say(f"wrote {html}")
    if json:
        print_json(shape(told))
    elif html is None:
        print(text(told))


def look(settings: Settings, revision: Revision, experiment: Experiment) -> tuple[Told, Sequence[Pair]]:
    """Judge an experiment by what is recorded of it; stops where there are no records."""
    return run_async(_look(settings, revision, experiment))


async def _look(settings: Settings, revision: Revision, experiment: Experiment) -> tuple[Told, Sequence[Pair]]:
    db = open_records(settings)
    try:
        return await judged(db, revision, experiment)
    finally:
        await db.aclose()


async def judged(db: Database, revision: Revision, experiment: Experiment) -> tuple[Told, Sequence[Pair]]:
    """An experiment as it stands by some records, and its pairs."""
    pairs = await db.shadow_pairs(experiment.name)
    a_day = await calls_a_day(db, experiment, revision, datetime.now(UTC) - timedelta(days=SEEN_DAYS))
    spent, verdicts = await spent_on(db, experiment), judge(experiment, pairs, calls_a_day=a_day)
    goes_on = spent < experiment.budget.total and experiment.stop_is_ahead(datetime.now(UTC).timestamp())
    told = Told(
        experiment=experiment,
        verdicts=verdicts if goes_on else tuple([replace(each, days_left=None) for each in verdicts]),
        spent=spent,
        left_out=await db.left_out(experiment.name),
        calls_a_day=a_day,
        judged=await db.judged(experiment.name),
        votes=await db.votes(experiment.name),
    )
    return told, pairs


def state_of(told: Told) -> str:
    """Whether copies are made now, and why not."""
    experiment, now = told.experiment, datetime.now(UTC).timestamp()
    if told.spent >= experiment.budget.total:
        return "budget spent"
    if experiment.start is not None and now < experiment.start:
        return f"starts {day_of(experiment.start)}"
    if experiment.stop is not None and now >= experiment.stop:
        return f"ended {day_of(experiment.stop)}"
    return "running"


def day_of(at: float) -> str:
    """A moment as a day, in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


def text(told: Told) -> str:
    """For people."""
    experiment = told.experiment
    head = (
        f"{experiment.name}: {experiment.champion}, {state_of(told)}; "
        f"{dollars(told.spent)} of {dollars(experiment.budget.total)} spent"
    )
    return "\n".join(
        [
            head,
            *[line for each in told.verdicts for line in ("", *_of_challenger(each))],
            *left_out(told),
            *of_judge(told),
            *of_people(told),
        ]
    )


def _of_challenger(found: Verdict) -> Iterable[str]:
    yield f"{found.challenger}: {WORDS[found.verdict]}. {reason(found)}"
    if not found.pairs:
        yield from warnings(found)
        return
    yield f"{found.pairs:,} pairs in {days_of(found.days)}"
    yield ""
    yield table([_HEAD, *(cells(each) for each in found.readings)], right=frozenset({1, 3, 4, 5}))
    if found.tails:
        yield ""
        yield table(tail_rows(found), right=frozenset({1, 2}))
    yield ""
    yield table(outcome_rows(found), right=frozenset({1, 2}))
    if found.pictures:
        yield ""
        yield "Between the pictures of a pair, on average: " + pictures_of_pairs(found)
    if found.strata:
        yield ""
        yield table(stratum_rows(found), right=frozenset(range(1, 2 + len(found.readings))))
    yield from warnings(found)
    if found.money is not None:
        yield money_of(found.money)


def reason(found: Opinion) -> str:
    """Why the verdict is what it is, in a sentence."""
    by_name = {each.measure: each for each in found.readings}
    said = ", ".join(
        "the slowest twentieth takes longer" if name == "tail" else phrase(by_name[name]) for name in found.why
    )
    if found.verdict == "switch":
        return f"Nothing is worse by more than its margin, and {said}."
    if found.verdict == "stay":
        same = all(each.said == "equivalent" for each in found.readings)
        return "They are the same in all that is compared." if same else f"{said[:1].upper()}{said[1:]}."
    if not found.pairs:
        return "There are no pairs yet."
    if found.hopeless:
        return f"At today's traffic and budget nobody will ever know about {', '.join(found.hopeless)}."
    wait = "" if found.days_left is None else f"; about {days_of(found.days_left)} more"
    return f"Open: {', '.join(found.why)}{wait}."


def phrase(reading: Reading) -> str:
    """A measure in words: `cost is 12.0 % lower`."""
    word = "lower" if reading.estimate < 0 else "higher"
    if reading.said == "equivalent":
        return f"{reading.measure} is the same"
    return f"{reading.measure} {'are' if reading.measure == 'failures' else 'is'} {_size(reading)} {word}"


def _size(reading: Reading) -> str:
    amount = abs(reading.estimate)
    if reading.measure in OF_PICTURES:
        return f"{amount:.3f}"
    if reading.measure == "queue":
        return f"{amount:.2f} s"
    return f"{100 * amount:.2f} points" if reading.measure == "failures" else f"{100 * amount:.1f} %"


def amount(measure: Measure, value: float) -> str:
    """A difference with its sign and unit."""
    if not isfinite(value):
        return "?"
    if measure in OF_PICTURES:
        return f"{value:+.3f}"
    if measure == "queue":
        return f"{value:+.2f} s"
    if measure == "failures":
        return f"{100 * value:+.2f} pt"
    return f"{100 * value:+.1f} %" if abs(value) < _BEYOND else f"{value:+,.0f} times"


def cells(reading: Reading) -> tuple[str, ...]:
    """A reading as cells under the head."""
    measure = reading.measure
    return (
        measure,
        amount(measure, reading.estimate),
        between(reading),
        margin_of(measure, reading.margin),
        f"{reading.pairs:,}",
        f"{reading.planned:,}",
        "undecidable" if reading.hopeless else reading.said,
    )


def between(reading: Reading) -> str:
    """Where a difference surely is."""
    if not isfinite(reading.low) and not isfinite(reading.high):
        return "-"
    return f"{amount(reading.measure, reading.low)} to {amount(reading.measure, reading.high)}"


def tail_rows(found: Verdict) -> list[tuple[str, ...]]:
    """How long the slowest take, with a head."""
    rows: list[tuple[str, ...]] = [("seconds", "champion", "challenger", "challenger over champion")]
    for each in found.tails:
        low, high = each.ratio
        top = f"{high:.2f}" if isfinite(high) else "?"
        rows.append(
            (f"p{100 * each.share:.0f}", _seconds(each.champion), _seconds(each.challenger), f"{low:.2f} to {top}")
        )
    return rows


def _seconds(quantile: Quantile) -> str:
    high = f"{quantile.high:.2f}" if isfinite(quantile.high) else "?"
    return f"{quantile.value:.2f} ({quantile.low:.2f} to {high})"


def outcome_rows(found: Verdict) -> list[tuple[str, ...]]:
    """What came on either side, with a head."""
    one, other = found.champion, found.challenger_side
    names = list(dict.fromkeys([*one.outcomes, *other.outcomes]))
    rows: list[tuple[str, ...]] = [("", "champion", "challenger")]
    rows += [(name, _count(one.outcomes, name), _count(other.outcomes, name)) for name in names]
    if found.other_sizes:
        rows.append(("of another size", "", f"{found.other_sizes:,}"))
    errors = list(dict.fromkeys([*one.errors, *other.errors]))
    rows += [(f"  {name}", _count(one.errors, name), _count(other.errors, name)) for name in errors]
    rows += [("quoted", *(f"${usd(each.quoted)}" for each in (one, other)))]
    return [*rows, ("billed", *(_billed(each) for each in (one, other)))]


def _count(counts: Mapping[str, int], name: str) -> str:
    return f"{counts.get(name, 0):,}"


def _billed(side: Tally) -> str:
    off = f" ({100 * (side.billed / side.quoted - 1):+.1f} %)" if side.quoted else ""
    return f"${usd(side.billed)}{off}"


def pictures_of_pairs(found: Verdict) -> str:
    """What was measured between pictures, in a line; likeness is no quality."""
    return ", ".join(f"{name} {value:.3f}" for name, value in found.pictures.items())


def stratum_rows(found: Verdict) -> list[tuple[str, ...]]:
    """Every stratum by itself, with a head."""
    rows: list[tuple[str, ...]] = [("stratum", "pairs", *(each.measure for each in found.readings), "by itself")]
    rows += [
        (stratum.name or "-", f"{stratum.pairs:,}", *(_short(each) for each in stratum.readings),
         WORDS[stratum.verdict].lower())
        for stratum in found.strata
    ]  # fmt: skip
    return rows


def _short(reading: Reading) -> str:
    mark = {"better": " better", "worse": " WORSE", "equivalent": " same"}.get(reading.said, "")
    return f"{amount(reading.measure, reading.estimate)}{mark}"


def warnings(found: Verdict) -> list[str]:
    """What a single verdict hides."""
    told = [
        f"warning: {measure} is lower in {low} and higher in {high}; decide for each by itself: "
        f"`{COMMAND} shadow adopt --by-stratum`"
        for measure, (low, high) in found.disagree.items()
    ]
    if found.set_aside:
        told.append(
            f"warning: {found.set_aside:,} pairs of this name do not count: they are from before the experiment was "
            "changed, and compare something else"
        )
    return told


def money_of(money: Money) -> str:
    """What a switch is worth, in a sentence."""
    sign, word = (-1.0, "saves") if money.month <= 0 else (1.0, "costs")
    low, high = sorted((sign * money.low, sign * money.high))
    span = f" (95 %: {_signed(low)} to {_signed(high)}, over {money.blocks})" if isfinite(money.low) else ""
    return (
        f"A switch {word} ${usd(round(abs(money.month)))} in {MONTH_DAYS:.0f} days{span}: {money.calls_a_month:,.0f} "
        f"pictures at ${usd(round(money.challenger))} instead of ${usd(round(money.champion))}."
    )


def _signed(nano: float) -> str:
    return f"{'-' if nano < 0 else ''}${usd(round(abs(nano)))}"


def left_out(told: Told) -> list[str]:
    """Copies that were not made."""
    if not told.left_out:
        return []
    counted = sorted(told.left_out.items(), key=lambda each: -each[1])
    return ["", "Not copied: " + "; ".join(f"{count:,} because {reason}" for reason, count in counted) + "."]


def of_judge(told: Told) -> list[str]:
    """What the judge was asked, and what that cost."""
    said, failures = told.judged.judgements, told.judged.failures
    if not said and not failures:
        return []
    counted = f"better {said.get(1, 0):,}, worse {said.get(-1, 0):,}, tie {said.get(0, 0):,}"
    silent = "".join(f"; {times:,} times {why}" for why, times in failures.items())
    return [
        "",
        f"Judge: {counted}{silent}. {dollars(told.judged.cost)} by the price in the settings, beside the budget.",
    ]


def of_people(told: Told) -> list[str]:
    """How people voted."""
    if not told.votes:
        return []
    said = Counter(each.choice for each in told.votes)
    people = len({each.voter for each in told.votes})
    counted = f"better {said[1]:,}, worse {said[-1]:,}, tie {said[0]:,}"
    return ["", f"Votes: {counted}; by {people:,} {'people' if people > 1 else 'person'}."]


def shape(told: Told) -> dict[str, object]:
    """As `--json` prints it. Money is nano-dollars; a null is an end that is not known."""
    experiment = told.experiment
    return {
        "experiment": experiment.name,
        "champion": str(experiment.champion),
        "state": state_of(told),
        "spent_nano_usd": told.spent,
        "budget_nano_usd": experiment.budget.total,
        "calls_a_day": told.calls_a_day,
        "left_out": told.left_out,
        "judge": {
            "better": told.judged.judgements.get(1, 0),
            "worse": told.judged.judgements.get(-1, 0),
            "tie": told.judged.judgements.get(0, 0),
            "failures": told.judged.failures,
            "nano_usd": told.judged.cost,
        },
        "votes": {
            "people": len({each.voter for each in told.votes}),
            "better": sum(each.choice == 1 for each in told.votes),
            "worse": sum(each.choice == -1 for each in told.votes),
            "tie": sum(each.choice == 0 for each in told.votes),
        },
        "challengers": [{"reason": reason(each), "warnings": warnings(each), **_plain(each)} for each in told.verdicts],
    }


def _plain(value: object) -> dict[str, object]:
    """A structure as plain values; infinite ends become null, which JSON has."""
    import msgspec

    found = _finite(msgspec.to_builtins(value))
    assert isinstance(found, dict)
    return found


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value
