"""`pixelgate shadow adopt`: the policy that a verdict asks for, played over recorded calls, ready to review."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import unified_diff
from pathlib import Path

from msgspec import Struct

from gateway.cli.policy_test import outcomes_in
from gateway.cli.policy_text import flow, with_item, with_revision
from gateway.cli.recorded import read_lines
from gateway.cli.replay import Replayed, compared, summary
from gateway.cli.shadow_report import WORDS, Told, look, money_of, reason
from gateway.cli.shadow_shared import Days, experiment_of
from gateway.cli.shell import COMMAND, HERE, Json, Stop, Where, print_json, run_async, say
from gateway.cli.simulate import usd
from gateway.cli.simulating import World, revision_of
from gateway.cli.trace_file import traces_of
from gateway.revisions import PolicyText, Revision, load_revision
from gateway.settings import Settings
from gateway.yaml_files import read_bytes
from policies.eligibility import barred
from policies.experiments.pairs import Pair
from policies.experiments.verdicts import MONTH_DAYS, Verdict
from policies.policy_file.experiments import CallsFile, ExperimentFile
from policies.policy_file.rules import ConditionFile
from policies.policy_file.schema import PolicyFile
from policies.types import Preference

_DAY_S = 86_400.0
_BECAUSE = 280
"""Characters of a rule's reason."""


class Backtest(Struct, frozen=True, kw_only=True):
    """The adopted policy over recorded calls. Money is nano-dollars; less than 0 is saved."""

    calls: int
    moved: int
    days: float
    month: float
    """Change of cost, over a month at the same pace."""
    promised: tuple[float, float] | None
    """Where the report puts it, at least and at most."""
    told: str


class Adopted(Struct, frozen=True, kw_only=True):
    """A policy made of a verdict."""

    text: str
    label: str
    diff: str
    remarks: tuple[str, ...]
    backtest: Backtest | None


def adopt(  # noqa: PLR0913 - what may be said of it
    name: str,
    /,
    *,
    challenger: str | None = None,
    anyway: bool = False,
    policy: str | None = None,
    days: Days = 7.0,
    output: Path | None = None,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Write the policy that puts a challenger right before its champion, and say what recorded calls come to under it.

    Nothing is put in force: review what is written, then `policy apply` it. Exit code 1: the verdict is not `switch`.

    Parameters
    ----------
    name
        The experiment.
    challenger
        Which of its challengers; needed where there are several.
    anyway
        Whatever the verdict.
    policy
        A policy file, or the name of a policy; the one in force when left out.
    days
        How far back recorded calls are played.
    output
        The file for the whole policy; the changes alone go to standard output when left out.
    """
    settings = where.settings()
    revision = revision_of(settings, policy, None)
    told, pairs = look(settings, revision, experiment_of(revision, name))
    verdict = verdict_on(told, challenger)
    if verdict.verdict != "switch" and not anyway:
        raise Stop(
            f"{name}, {verdict.challenger}: {WORDS[verdict.verdict].lower()}. {reason(verdict)} `--anyway` adopts all "
            "the same",
            code=1,
        )
    adopted = adopted_policy(settings, revision, told, verdict, pairs, days)
    if output is not None:
        output.write_text(adopted.text, encoding="utf-8")
    if json:
        print_json({"policy": adopted.label, "diff": adopted.diff, "remarks": adopted.remarks,
                    "backtest": adopted.backtest})  # fmt: skip
    elif output is None:
        print(adopted.diff, end="")
    for remark in adopted.remarks:
        say(f"remark: {remark}")
    if adopted.backtest is not None:
        say(adopted.backtest.told)
    if output is not None:
        say(f"wrote {output}; review it, then `{COMMAND} policy apply {output}`")


def verdict_on(told: Told, challenger: str | None) -> Verdict:
    """The verdict on one challenger; stops where it is not clear which is meant."""
    names = [each.challenger for each in told.verdicts]
    if challenger is None and len(names) > 1:
        raise Stop(f"{told.experiment.name} has several challengers: say --challenger {' or '.join(names)}")
    found = next((each for each in told.verdicts if each.challenger == (challenger or names[0])), None)
    if found is None:
        raise Stop(f"{told.experiment.name} has no challenger {challenger!r}; there are: {', '.join(names)}")
    return found


def adopted_policy(
    settings: Settings, revision: Revision, told: Told, verdict: Verdict, pairs: Sequence[Pair], days: float
) -> Adopted:
    """Write the policy, check it, and play recorded calls under it."""
    old = revision.written.content.decode()
    moves = preferences(pairs, verdict.challenger)
    if not moves:
        raise Stop(f"no copy of {told.experiment.name} was drawn elsewhere than its call: there is nothing to prefer")
    document = read_bytes(revision.written.content, revision.written.path).parse(PolicyFile)
    file = next(each for each in document.experiments if each.experiment == told.experiment.name)
    text = with_revision(old, revision.policy.revision + 1)
    text, remarks = _with_rules(text, file, document, moves, _because(told, verdict))
    new = load_revision(settings, every_account=True, policy=PolicyText(revision.written.path, text.encode()))
    chosen = told.experiment.challenger(verdict.challenger)
    if chosen is not None and chosen.params:
        given = ", ".join(f"{name} {value}" for name, value in chosen.params.items())
        remarks.append(f"copies were drawn with {given}; a policy does not set that, the catalogue does")
    remarks += _said_before(revision, moves)
    remarks += _stopped(new, moves)
    remarks += _examples_broken(settings, revision, new)
    before, after = (each.splitlines(keepends=True) for each in (old, text))
    diff = "".join(unified_diff(before, after, revision.policy.label, new.policy.label))
    backtest = _backtest(settings, revision, new, verdict, days)
    if backtest is None:
        remarks.append(f"no call was recorded in the last {days:g} days, so nothing could be played")
    elif not backtest.moved:
        remarks.append(
            "no recorded call moves: their callers name who draws, or the policy has them drawn there already"
        )
    return Adopted(text=text, label=new.policy.label, diff=diff, remarks=tuple(remarks), backtest=backtest)


def preferences(pairs: Sequence[Pair], challenger: str) -> list[Preference]:
    """What was compared with what, as preferences, in their order of first coming."""
    found = [
        Preference(offer=pair.challenger_side.offer, over=pair.champion.offer)
        for pair in pairs
        if pair.challenger == challenger and pair.challenger_side.offer != pair.champion.offer
    ]
    return list(dict.fromkeys(found))


def _with_rules(
    text: str, file: ExperimentFile, policy: PolicyFile, moves: Sequence[Preference], because: str
) -> tuple[str, list[str]]:
    """The text with a rule for every kind of call that was copied; and what a rule cannot say."""
    sample, remarks = file.sample, list[str]()
    kinds: list[CallsFile | None] = [None]
    if not sample.share:
        kinds = [*(each for each in sample.by if each.share), *sample.always]
    unless = condition_of(sample.never[0], policy) if len(sample.never) == 1 else None
    if len(sample.never) > 1:
        remarks.append("calls under `sample.never` were not compared, and move as well; narrow the rule with `unless`")
    taken = {rule.rule for rule in policy.rules}
    for calls in kinds:
        when = None if calls is None else condition_of(calls, policy)
        if when is not None and when.get("intent") == []:
            continue  # no intent asks for its tiers
        name = _free(f"adopt-{file.experiment}"[:60], taken)
        taken.add(name)
        lines = [f"rule: {name}", f"because: {flow(because)}"]
        lines += [] if when is None else [f"when: {flow(when)}"]
        lines += [] if unless is None else [f"unless: {flow(unless)}"]
        lines += ["prefer:", *[f"  - {flow({'offer': each.offer, 'over': each.over})}" for each in moves]]
        text = with_item(text, "rules", lines)
    return text, remarks


def condition_of(calls: ConditionFile, policy: PolicyFile) -> Mapping[str, object]:
    """Some calls as a rule would name them; a tier is the intents that ask for it."""
    said: dict[str, object] = {}
    for name in ("team", "key", "tags", "model", "intent", "operation", "days"):
        value = getattr(calls, name)
        if value is not None:
            said[name] = value
    tiers = calls.tier if isinstance(calls, CallsFile) else None
    if tiers is not None:
        named = [name for name, intent in policy.intents.items() if intent.tier in tiers]
        said["intent"] = [name for name in named if calls.intent is None or name in calls.intent]
    if calls.size is not None:
        both = {"over": calls.size.over, "up_to": calls.size.up_to}
        said["size"] = {name: f"{size[0]}x{size[1]}" for name, size in both.items() if size is not None}
    if calls.hours is not None:
        said["hours"] = "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in calls.hours)
    return said


def _because(told: Told, verdict: Verdict) -> str:
    words = f"experiment {told.experiment.name}, {verdict.pairs:,} pairs: {reason(verdict)}"
    return words if len(words) <= _BECAUSE else f"{words[: _BECAUSE - 3]}..."


def _free(name: str, taken: set[str]) -> str:
    number = 2
    found = name
    while found in taken:
        found, number = f"{name}-{number}", number + 1
    return found


def _said_before(revision: Revision, moves: Sequence[Preference]) -> list[str]:
    """Rules that prefer the same already, or the opposite."""
    opposite = {Preference(offer=each.over, over=each.offer) for each in moves}
    found = []
    for rule in revision.policy.rules.rules:
        if set(moves) & set(rule.preferred):
            found.append(f"rule '{rule.name}' prefers the same already")
        if opposite & set(rule.preferred):
            found.append(f"rule '{rule.name}' prefers the opposite; the later rule counts, so take that one out")
    return found


def _stopped(revision: Revision, moves: Sequence[Preference]) -> list[str]:
    """Rules that keep calls from the challenger, whatever is preferred."""
    found = []
    for rule in revision.policy.rules.rules:
        names = sorted({each.offer for each in moves if each.offer in revision.catalog.offers})
        shut = [
            name for name in names if any(barred(revision.catalog.offers[name], bar) is not None for bar in rule.bars)
        ]
        if shut:
            found.append(f"rule '{rule.name}' shuts {', '.join(shut)} out of its calls; they stay where they are")
    return found


def _examples_broken(settings: Settings, old: Revision, new: Revision) -> list[str]:
    """Examples of the policy that held and do not any more: whoever reviews it wants to know."""
    before, after = (
        outcomes_in(read_bytes(each.written.content, each.written.path), settings, each) for each in (old, new)
    )
    return [
        f"the example '{now.example}' (line {now.line}) holds no longer: {'; '.join(now.faults)}"
        for was, now in zip(before, after, strict=True)
        if was.ok and not now.ok
    ]


def _backtest(settings: Settings, old: Revision, new: Revision, verdict: Verdict, days: float) -> Backtest | None:
    """Both policies over the calls of the last days; None where nothing is recorded."""
    lines = run_async(read_lines(settings, old.policy, days))
    if not lines:
        return None
    sides = (old, new)
    traces = traces_of(f"{days:g} days of records", enumerate(lines, 1), sides)
    return backtest_of(compared(sides, traces, World()), verdict)


def backtest_of(replayed: Replayed, verdict: Verdict) -> Backtest:
    """What a replay says, beside what the report promised."""
    total = replayed.comparison.total
    lasted = max(replayed.trace.seconds / _DAY_S, 1 / 24)
    month = (total.new.cost - total.old.cost) * MONTH_DAYS / lasted
    promised = None if verdict.money is None else (verdict.money.low, verdict.money.high)
    told = [f"Recorded calls played again: {summary(replayed)}"]
    if verdict.money is not None:
        told.append(f"Promised: {money_of(verdict.money)}")
    told.append(f"Played: {'saves' if month <= 0 else 'costs'} ${usd(round(abs(month)))} in {MONTH_DAYS:.0f} days.")
    return Backtest(
        calls=total.old.calls,
        moved=replayed.comparison.moved,
        days=lasted,
        month=month,
        promised=promised,
        told="\n".join(told),
    )
