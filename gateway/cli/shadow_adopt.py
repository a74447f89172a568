"""`pixelgate shadow adopt`: the policy that a verdict asks for, played over recorded calls, ready to review."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import unified_diff
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from msgspec import Struct

from gateway.cli.policy_test import outcomes_in
from gateway.cli.policy_text import flow, with_item, with_revision
from gateway.cli.recorded import read_lines
from gateway.cli.replay import Replayed, compared, summary
from gateway.cli.shadow_report import WORDS, Told, look, money_of, reason
from gateway.cli.shadow_shared import Days, experiment_of
from gateway.cli.shadow_strata import condition_of_stratum, entangled, in_both, strata_of
from gateway.cli.shell import COMMAND, HERE, Json, Stop, Where, print_json, run_async, say, write_file
from gateway.cli.simulate import usd
from gateway.cli.simulating import World, revision_of
from gateway.cli.trace_file import traces_of
from gateway.revisions import PolicyText, Revision, load_revision
from gateway.settings import Settings
from gateway.yaml_files import read_bytes
from policies.eligibility import barred
from policies.experiments.definition import Challenger, fields_of
from policies.experiments.pairs import Pair
from policies.experiments.verdicts import MONTH_DAYS, Money, Stratum, Verdict, pairs_of
from policies.offline.comparison import Group
from policies.policy_file.experiments import CallsFile, ExperimentFile
from policies.policy_file.rules import ConditionFile
from policies.policy_file.schema import PolicyFile
from policies.types import Preference

_DAY_S = 86_400.0
_BECAUSE = 280
"""Characters of a rule's reason."""


class Part(Struct, frozen=True, kw_only=True):
    """The recorded calls of one stratum that is adopted, under both policies."""

    stratum: str
    calls: int
    month: float
    promised: tuple[float, float] | None


class Backtest(Struct, frozen=True, kw_only=True):
    """The adopted policy over recorded calls. Money is nano-dollars; less than 0 is saved."""

    calls: int
    moved: int
    days: float
    month: float
    """Change of cost, over a month at the same pace."""
    promised: tuple[float, float] | None
    """Where the report puts it, at least and at most; None: nowhere, or for each stratum by itself."""
    parts: tuple[Part, ...]
    """Each stratum by itself; empty where the verdict is adopted for all calls."""
    told: str


class Move(Struct, frozen=True, kw_only=True):
    """What is adopted for some calls."""

    params: Sequence[Mapping[str, object]]
    """How the challenger's offers are asked, as a rule says it."""

    stratum: Stratum | None
    """None: for all."""
    when: Mapping[str, object]
    preferred: Sequence[Preference]
    because: str


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
    stratum: Annotated[tuple[str, ...], Parameter(show_default=False)] = (),
    by_stratum: Annotated[bool, Parameter(negative=())] = False,
    anyway: Annotated[bool, Parameter(negative=())] = False,
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
    stratum
        Only for calls like `intent=preview`; said several times, all must hold. Each stratum needs a switch of its own.
    by_stratum
        For every stratum whose own verdict is *switch*, and for no other.
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
    if stratum and by_stratum:
        raise Stop("--stratum and --by-stratum say different things; say one of them")
    strata = strata_of(told.experiment, verdict, stratum, every=by_stratum) if stratum or by_stratum else None
    if not anyway:
        _refuse_doubt(name, verdict, strata)
    adopted = adopted_policy(settings, revision, told, verdict, pairs, days, strata)
    if output is not None:
        write_file(output, adopted.text)
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


def _refuse_doubt(name: str, verdict: Verdict, strata: Sequence[Stratum] | None) -> None:
    """Stop where a verdict is not `switch`."""
    about = f"{name}, {verdict.challenger}"
    if strata is not None and not strata:
        raise Stop(f"{about}: no stratum is a switch by itself; `shadow report {name}` says what each is", code=1)
    for each in [verdict] if strata is None else strata:
        if each.verdict != "switch":
            whose = f"{about}, {each.name}" if isinstance(each, Stratum) else about
            better = [part.name for part in verdict.strata if part.verdict == "switch"] if strata is None else []
            hint = f" `--by-stratum` adopts it for {', '.join(better)} alone." if better else ""
            said = f"{WORDS[each.verdict].lower()}. {reason(each)}{hint}"
            raise Stop(f"{whose}: {said} `--anyway` adopts all the same", code=1)


def verdict_on(told: Told, challenger: str | None) -> Verdict:
    """The verdict on one challenger; stops where it is not clear which is meant."""
    names = [each.challenger for each in told.verdicts]
    if challenger is None and len(names) > 1:
        raise Stop(f"{told.experiment.name} has several challengers: say --challenger {' or '.join(names)}")
    found = next((each for each in told.verdicts if each.challenger == (challenger or names[0])), None)
    if found is None:
        raise Stop(f"{told.experiment.name} has no challenger {challenger!r}; there are: {', '.join(names)}")
    return found


def adopted_policy(  # noqa: PLR0917 - all that a policy is made of
    settings: Settings,
    revision: Revision,
    told: Told,
    verdict: Verdict,
    pairs: Sequence[Pair],
    days: float,
    strata: Sequence[Stratum] | None = None,
) -> Adopted:
    """Write the policy, check it, and play recorded calls under it. `strata`: for these alone; None: for all calls."""
    old = revision.written.content.decode()
    document = read_bytes(revision.written.content, revision.written.path).parse(PolicyFile)
    chosen = next(each for each in told.experiment.challengers if each.name == verdict.challenger)
    _refuse_fields(chosen, pairs, revision)
    ours = pairs_of(told.experiment, chosen, pairs)
    moves = _moves(told, verdict, chosen, ours, strata, document)
    preferred = list(dict.fromkeys(each for move in moves for each in move.preferred))
    if not any(move.preferred or move.params for move in moves):
        raise Stop(f"no copy of {told.experiment.name} was drawn otherwise than its call: there is nothing to prefer")
    file = next(each for each in document.experiments if each.experiment == told.experiment.name)
    text = with_revision(old, revision.policy.revision + 1)
    text, rules, remarks = _with_rules(text, file, document, moves)
    new = load_revision(settings, every_account=True, policy=PolicyText(revision.written.path, text.encode()))
    remarks += _said_before(revision, preferred)
    remarks += _stopped(new, preferred)
    remarks += _examples_broken(settings, revision, new)
    before, after = (each.splitlines(keepends=True) for each in (old, text))
    diff = "".join(unified_diff(before, after, revision.policy.label, new.policy.label))
    backtest = _backtest(settings, (revision, new), verdict, rules, days)
    if backtest is None:
        remarks.append(f"no call was recorded in the last {days:g} days, so nothing could be played")
    elif not backtest.moved:
        remarks.append(
            "no recorded call moves: their callers name who draws, or the policy has them drawn there already"
        )
    return Adopted(text=text, label=new.policy.label, diff=diff, remarks=tuple(remarks), backtest=backtest)


def _refuse_fields(challenger: Challenger, pairs: Sequence[Pair], revision: Revision) -> None:
    """Stop where copies were drawn with fields of the seller's own that its calls would not be sent with."""
    for name in _offers_of(challenger, pairs):
        offer = revision.catalog.offers.get(name)
        fixed = {} if offer is None else offer.abilities.fixed
        other = {field: value for field, value in fields_of(challenger).items() if fixed.get(field) != value}
        if other:
            raise Stop(
                f"copies were drawn with {flow(other)}, fields of the seller's own that no rule sets: write "
                f"`fixed: {flow(other)}` under {name} in the catalogue, then adopt",
                code=1,
            )


def _offers_of(challenger: Challenger, pairs: Sequence[Pair]) -> list[str]:
    return list(dict.fromkeys(each.challenger_side.offer for each in pairs if each.challenger == challenger.name))


def _moves(
    told: Told,
    verdict: Verdict,
    challenger: Challenger,
    pairs: Sequence[Pair],
    strata: Sequence[Stratum] | None,
    policy: PolicyFile,
) -> list[Move]:
    """What is to be adopted for whom; stops where that cannot be written."""
    experiment = told.experiment
    given = {name: value for name, value in challenger.params.items() if name not in fields_of(challenger)}
    params = [{"offer": name, **given} for name in _offers_of(challenger, pairs)] if given else []
    if strata is None:
        because = _because(experiment.name, verdict)
        return [Move(stratum=None, when={}, preferred=preferences(pairs), params=params, because=because)]
    both = entangled(experiment, strata, [pair.stratum for pair in pairs])
    if both is not None:
        raise Stop(f"stratum {both[0]}: a rule tells sizes by their area, and would be about {both[1]} as well", code=1)
    return [
        Move(
            stratum=each,
            when=condition_of_stratum(experiment, each.name, policy),
            preferred=preferences([pair for pair in pairs if pair.stratum == each.name]),
            params=params,
            because=_because(f"{experiment.name}, {each.name}", each),
        )
        for each in strata
    ]


def preferences(pairs: Sequence[Pair]) -> list[Preference]:
    """What was compared with what, as preferences, in their order of first coming."""
    found = [
        Preference(offer=pair.challenger_side.offer, over=pair.champion.offer)
        for pair in pairs
        if pair.challenger_side.offer != pair.champion.offer
    ]
    return list(dict.fromkeys(found))


def _with_rules(
    text: str, file: ExperimentFile, policy: PolicyFile, moves: Sequence[Move]
) -> tuple[str, Mapping[str, Stratum | None], list[str]]:
    """The text with a rule for every kind of call that was copied; whom each is for; and what a rule cannot say."""
    sample, remarks = file.sample, list[str]()
    unless = condition_of(sample.never[0], policy) if len(sample.never) == 1 else None
    if len(sample.never) > 1:
        remarks.append("calls under `sample.never` were not compared, and move as well; narrow the rule with `unless`")
    taken = {rule.rule for rule in policy.rules}
    rules: dict[str, Stratum | None] = {}
    for move, when in [(each, when) for each in moves for when in _whens(file, policy, each)]:
        name = _free(f"adopt-{file.experiment}"[:60], taken)
        taken.add(name)
        rules[name] = move.stratum
        lines = [f"rule: {name}", f"because: {flow(move.because)}"]
        lines += [f"when: {flow(when)}"] if when else []
        lines += [] if unless is None else [f"unless: {flow(unless)}"]
        prefer = [{"offer": each.offer, "over": each.over} for each in move.preferred]
        lines += ["prefer:", *[f"  - {flow(each)}" for each in prefer]] if prefer else []
        lines += ["params:", *[f"  - {flow(each)}" for each in move.params]] if move.params else []
        text = with_item(text, "rules", lines)
        remarks += _unseen(name, when, unless or {})
    return text, rules, remarks


def _whens(file: ExperimentFile, policy: PolicyFile, move: Move) -> Iterator[Mapping[str, object]]:
    """The calls that a move is for, as conditions; nothing said: all."""
    sample = file.sample
    kinds = [] if sample.share else [*(each for each in sample.by if each.share), *sample.always]
    if not (move.preferred or move.params):
        return
    for each in (condition_of(calls, policy) for calls in kinds) if kinds else [{}]:
        when = in_both(each, move.when)
        if when is not None and when.get("intent") != []:  # else no intent asks for its tiers
            yield when


def _unseen(rule: str, when: Mapping[str, object], unless: Mapping[str, object]) -> Iterator[str]:
    """What recorded calls do not tell of themselves."""
    for said, word, comes in ((when, "asks for", "moves nothing"), (unless, "leaves out", "moves those calls as well")):
        missing = [name for name in ("key", "tags") if name in said]
        if missing:
            yield f"rule '{rule}' {word} {' and '.join(missing)}, which records do not keep: when played, it {comes}"


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


def _because(about: str, found: Verdict | Stratum) -> str:
    words = f"experiment {about}, {found.pairs:,} pairs: {reason(found)}"
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


def _backtest(
    settings: Settings,
    sides: tuple[Revision, Revision],
    verdict: Verdict,
    rules: Mapping[str, Stratum | None],
    days: float,
) -> Backtest | None:
    """Both policies over the calls of the last days; None where nothing is recorded."""
    lines = run_async(read_lines(settings, sides[0].policy, days))
    if not lines:
        return None
    traces = traces_of(f"{days:g} days of records", enumerate(lines, 1), sides)
    strata = {each.name: each for each in rules.values() if each is not None}
    of = {name: [rule for rule, each in rules.items() if each is stratum] for name, stratum in strata.items()}
    return backtest_of(compared(sides, traces, World(), under=of), verdict.money, strata)


def backtest_of(replayed: Replayed, money: Money | None, strata: Mapping[str, Stratum]) -> Backtest:
    """What a replay says, beside what the report promised: for all calls, or for each of the strata."""
    total = replayed.comparison.total
    lasted = max(replayed.trace.seconds / _DAY_S, 1 / 24)
    told = [f"Recorded calls played again: {summary(replayed)}"]
    parts = []
    for group in replayed.comparison.under:
        promise = strata[group.name].money
        part = Part(stratum=group.name, calls=group.old.calls, month=_month(group, lasted), promised=_promised(promise))
        parts.append(part)
        told += [f"{part.stratum}, {part.calls:,} calls", *_told(promise, part.month, indent="  ")]
    told += _told(None if parts else money, _month(total, lasted))
    return Backtest(
        calls=total.old.calls,
        moved=replayed.comparison.moved,
        days=lasted,
        month=_month(total, lasted),
        promised=None if parts else _promised(money),
        parts=tuple(parts),
        told="\n".join(told),
    )


def _told(promise: Money | None, month: float, indent: str = "") -> list[str]:
    played = f"Played: {'saves' if month <= 0 else 'costs'} ${usd(round(abs(month)))} in {MONTH_DAYS:.0f} days."
    promised = [] if promise is None else [f"{indent}Promised: {money_of(promise)}"]
    return [*promised, f"{indent}{played}"]


def _month(group: Group, days: float) -> float:
    return (group.new.cost - group.old.cost) * MONTH_DAYS / days


def _promised(money: Money | None) -> tuple[float, float] | None:
    return None if money is None else (money.low, money.high)
