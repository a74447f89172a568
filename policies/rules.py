"""Rules: which calls they are about, and what they change of a call's terms.

    rules = Rules([Rule(...), ...], "Europe/Berlin")      compiled once, when a policy is loaded
    effects = rules.effects(about)                        what the rules that match a call add up to; None: nothing
    constraints, worth = applied(effects, ...)            the terms the engine then decides under

Every rule that matches counts. What limits a choice adds up: a call must satisfy all of it, so the order of rules does
not matter there. What sets a value does not: of several rules the last one counts.

A rule is one bit. For each value a condition may have there is a number whose bits are the rules that accept it; the
rules that match a call are the bits that all of its values have in common. So a thousand rules cost what ten do.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import reduce
from operator import add, or_
from typing import Any, TypeAlias, TypeVar
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace

from policies.money import NanoUsd
from policies.types import Bar, Constraints, Params, Preference, Requirements, Tier, Worth
from providers.contract import Safety

DAY = 1_440
WEEK = 7 * DAY
_FOLDED_KEPT = 1_024
_STRICTNESS: Mapping[Safety, int] = {"relaxed": 0, "standard": 1, "strict": 2}
V = TypeVar("V")
_Said: TypeAlias = tuple[tuple[str, Any], ...]


class About(Struct, frozen=True, kw_only=True):
    """What rules may look at of a call."""

    team: str = ""
    key: str = ""
    tags: Mapping[str, str] = {}
    model: str = "auto"
    """As the catalogue names it; `auto` where the choice is ours."""
    intent: str = ""
    operation: str = "generate"
    pixels: int = 0
    """Width x height of one picture."""
    at: datetime | None = None
    """When the call came in, with its zone; None: at no time that a rule could name."""


class Condition(Struct, frozen=True, kw_only=True):
    """What a call must be like; everything that is set must hold. None and () ask nothing."""

    teams: frozenset[str] | None = None
    keys: frozenset[str] | None = None
    models: frozenset[str] | None = None
    intents: frozenset[str] | None = None
    operations: frozenset[str] | None = None
    tags: tuple[tuple[str, frozenset[str]], ...] = ()
    """Name -> the values it may have."""
    over: int | None = None
    """Only pictures of more pixels than this."""
    up_to: int | None = None
    """Only pictures of at most so many pixels."""
    hours: tuple[int, int] | None = None
    """Minutes of the day: from, and up to but not including; over midnight where `from` is the later."""
    days: frozenset[int] | None = None
    """Days of the week on which `hours` begin; Monday is 0."""

    def holds(self, about: About, minute: int | None) -> bool:
        """Whether a call is like that; `minute` is that of the week, in the policy's zone."""
        plain = (
            (self.teams, about.team),
            (self.keys, about.key),
            (self.models, about.model),
            (self.intents, about.intent),
            (self.operations, about.operation),
        )
        return (
            all(accepted is None or value in accepted for accepted, value in plain)
            and all(about.tags.get(name) in values for name, values in self.tags)
            and (self.over is None or about.pixels > self.over)
            and (self.up_to is None or about.pixels <= self.up_to)
            and (not self.timed or (minute is not None and any(a <= minute < b for a, b in self.minutes())))
        )

    @property
    def timed(self) -> bool:
        """Whether it asks for a time."""
        return self.hours is not None or self.days is not None

    def minutes(self) -> list[tuple[int, int]]:
        """The stretches of the week in which it holds, in minutes from Monday 0:00."""
        begin, end = self.hours or (0, DAY)
        length = end - begin if end > begin else end - begin + DAY
        found = []
        for day in sorted(range(7) if self.days is None else self.days):
            first = day * DAY + begin
            last = first + length
            found += [(first, min(last, WEEK))]
            if last > WEEK:
                found += [(0, last - WEEK)]
        return found


class Terms(Struct, frozen=True, kw_only=True):
    """What a rule sets, or several together; None leaves a term as the intent and the caller have it."""

    bars: tuple[Bar, ...] = ()
    preferred: tuple[Preference, ...] = ()
    params: tuple[Params, ...] = ()
    ceiling: NanoUsd | None = None
    latency_ceiling: float | None = None
    require: Requirements | None = None
    safety: Safety | None = None
    tier: Tier | None = None
    slo: float | None = None
    deadline: float | None = None
    late: NanoUsd | None = None
    late_second: NanoUsd | None = None
    failure: NanoUsd | None = None


class Rule(Terms, frozen=True, kw_only=True):
    """What is to hold for some calls."""

    name: str
    when: Condition | None = None
    """None: for every call."""
    unless: Condition | None = None

    def holds(self, about: About, minute: int | None) -> bool:
        """Whether it is about a call."""
        met = self.when is None or self.when.holds(about, minute)
        return met and not (self.unless is not None and self.unless.holds(about, minute))


class Effects(Terms, frozen=True, kw_only=True):
    """What the rules that match a call add up to."""

    rules: tuple[str, ...] = ()


class Rules:
    """All rules of a policy, compiled."""

    def __init__(self, rules: Sequence[Rule] = (), timezone: str = "UTC") -> None:
        self.rules = tuple(rules)
        self._timezone = timezone
        self.zone = UTC if timezone == "UTC" else ZoneInfo(timezone)  # not every machine has a file on UTC
        self._when = _Masks({1 << at: rule.when or Condition() for at, rule in enumerate(rules)})
        self._unless = _Masks({1 << at: rule.unless for at, rule in enumerate(rules) if rule.unless is not None})
        self._timed = self._when.timed or self._unless.timed
        self._names = [rule.name for rule in rules]
        self._said = [_said(rule) for rule in rules]
        self._folded: dict[int, Effects] = {}

    def __repr__(self) -> str:
        return f"<Rules {', '.join(rule.name for rule in self.rules) or 'none'}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rules) and (self.rules, self._timezone) == (other.rules, other._timezone)

    def __hash__(self) -> int:
        return hash((self.rules, self._timezone))

    def minute(self, at: datetime | None) -> int | None:
        """The minute of the week that a moment is, where the policy counts its hours."""
        if at is None:
            return None
        local = at.astimezone(self.zone)
        return local.weekday() * DAY + local.hour * 60 + local.minute

    def effects(self, about: About) -> Effects | None:
        """What the rules that match a call add up to; None where none does."""
        if not self.rules:
            return None
        minute = self.minute(about.at) if self._timed else None
        matching = self._when.accept(about, minute)
        if matching and self._unless.all:
            matching &= ~self._unless.accept(about, minute)
        if not matching:
            return None
        effects = self._folded.get(matching)
        if effects is None:
            if len(self._folded) >= _FOLDED_KEPT:
                self._folded.clear()
            places = _bits(matching)
            effects = _summed([self._names[at] for at in places], [self._said[at] for at in places])
            self._folded[matching] = effects
        return effects


class _Masks:
    """Conditions as bits: which of them accept a value."""

    def __init__(self, conditions: Mapping[int, Condition]) -> None:
        self.all = sum(conditions)
        self._plain = [
            (field, masks)
            for field, masks in (
                ("team", _by_value(conditions, lambda each: each.teams)),
                ("key", _by_value(conditions, lambda each: each.keys)),
                ("model", _by_value(conditions, lambda each: each.models)),
                ("intent", _by_value(conditions, lambda each: each.intents)),
                ("operation", _by_value(conditions, lambda each: each.operations)),
            )
            if masks[1]
        ]
        tagged = {bit: each.tags for bit, each in conditions.items() if each.tags}
        self._untagged = self.all - sum(tagged)
        self._tags: dict[tuple[str, str], int] = {}
        for bit, tags in tagged.items():
            name, values = tags[0]
            for value in values:
                self._tags[name, value] = self._tags.get((name, value), 0) | bit
        self._more_tags = {bit: tags[1:] for bit, tags in tagged.items() if len(tags) > 1}
        over = sorted((each.over, bit) for bit, each in conditions.items() if each.over is not None)
        up_to = sorted((each.up_to, bit) for bit, each in conditions.items() if each.up_to is not None)
        # Of the sorted sizes, those below the picture's are exceeded; those from it on are kept.
        self._over = [size for size, _ in over]
        self._exceeded = _running(bit for _, bit in over)
        self._any_over = self.all - self._exceeded[-1]
        self._up_to = [size for size, _ in up_to]
        self._kept = _running(bit for _, bit in reversed(up_to))
        self._any_up_to = self.all - self._kept[-1]
        timed = {bit: each.minutes() for bit, each in conditions.items() if each.timed}
        self._untimed = self.all - sum(timed)
        self.timed = bool(timed)
        self._moments, self._at = _timetable(timed)

    def accept(self, about: About, minute: int | None) -> int:
        """The conditions that a call meets."""
        found = self.all
        for field, (whatever, by_value) in self._plain:
            found &= whatever | by_value.get(getattr(about, field), 0)
            if not found:
                return 0
        if self._tags:
            found &= self._untagged | reduce(or_, [self._tags.get(tag, 0) for tag in about.tags.items()], 0)
            if found and self._more_tags:
                found = self._with_all_tags(found, about.tags)
        if self._over:
            found &= self._any_over | self._exceeded[bisect_left(self._over, about.pixels)]
        if self._up_to:
            found &= self._any_up_to | self._kept[len(self._up_to) - bisect_left(self._up_to, about.pixels)]
        if self.timed:
            hour = 0 if minute is None else self._at[bisect_right(self._moments, minute) - 1]
            found &= self._untimed | hour
        return found

    def _with_all_tags(self, found: int, tags: Mapping[str, str]) -> int:
        for bit, more in self._more_tags.items():
            if found & bit and not all(tags.get(name) in values for name, values in more):
                found &= ~bit
        return found


def _by_value(
    conditions: Mapping[int, Condition], accepted: Callable[[Condition], frozenset[str] | None]
) -> tuple[int, dict[str, int]]:
    """The conditions that accept any value, and those that accept each of the values they name."""
    whatever, by_value = 0, dict[str, int]()
    for bit, condition in conditions.items():
        values = accepted(condition)
        if values is None:
            whatever |= bit
            continue
        for value in values:
            by_value[value] = by_value.get(value, 0) | bit
    return whatever, by_value


def _running(bits: Iterable[int]) -> list[int]:
    """The bits so far: none, the first, the first two, ..."""
    found = [0]
    for bit in bits:
        found.append(found[-1] | bit)
    return found


def _timetable(timed: Mapping[int, Sequence[tuple[int, int]]]) -> tuple[list[int], list[int]]:
    """The minutes of the week at which anything changes, and the conditions that hold from each on."""
    begins: dict[int, int] = {0: 0}
    ends: dict[int, int] = {}
    for bit, stretches in timed.items():
        for begin, end in stretches:
            begins[begin] = begins.get(begin, 0) | bit
            ends[end] = ends.get(end, 0) | bit
    moments = sorted(begins.keys() | {end for end in ends if end < WEEK})
    held, at = 0, []
    for moment in moments:
        held = (held & ~ends.get(moment, 0)) | begins.get(moment, 0)
        at.append(held)
    return moments, at


def folded(rules: Sequence[Rule]) -> Effects:
    """What rules add up to: of limits the narrowest, of values the last."""
    return _summed([rule.name for rule in rules], [_said(rule) for rule in rules])


def _said(rule: Rule) -> _Said:
    """What a rule says, without what it leaves out."""
    fields = ((name, getattr(rule, name)) for name in _TOGETHER)
    return tuple((name, value) for name, value in fields if value is not None and value != ())


def _summed(names: Sequence[str], said: Iterable[_Said]) -> Effects:
    found: dict[str, Any] = {}
    for each in said:
        for name, value in each:
            before = found.get(name)
            found[name] = value if before is None else _TOGETHER[name](before, value)
    return Effects(rules=tuple(names), **found)


def _bits(mask: int) -> list[int]:
    """The places of the bits that are set, lowest first."""
    found = []
    while mask:
        lowest = mask & -mask
        found.append(lowest.bit_length() - 1)
        mask ^= lowest
    return found


def applied(
    effects: Effects, constraints: Constraints, worth: Worth, usual: tuple[float, float]
) -> tuple[Constraints, Worth]:
    """A call's terms under rules. `usual`: objective and deadline of its intent; what a caller asked for stays below.

    A caller may always ask for less: of two ceilings, and of a caller's own deadline and a rule's, the smaller counts.
    """
    slo = _time(constraints.slo, usual[0], effects.slo)
    deadline = _time(constraints.deadline, usual[1], effects.deadline)
    ceilings = [each for each in (constraints.ceiling, effects.ceiling) if each is not None]
    latencies = [each for each in (constraints.latency_ceiling, effects.latency_ceiling) if each is not None]
    under = replace(
        constraints,
        tier=constraints.tier if effects.tier is None else effects.tier,
        slo=min(slo, deadline),
        deadline=deadline,
        ceiling=min(ceilings, default=None),
        latency_ceiling=min(latencies, default=None),
        require=constraints.require if effects.require is None else both(constraints.require, effects.require),
        bars=constraints.bars + effects.bars,
        preferred=constraints.preferred + effects.preferred,
        params=constraints.params + effects.params,
        rules=effects.rules,
    )
    return under, Worth(
        late=worth.late if effects.late is None else effects.late,
        late_second=worth.late_second if effects.late_second is None else effects.late_second,
        failure=worth.failure if effects.failure is None else effects.failure,
    )


def stricter(one: Safety, other: Safety | None) -> Safety:
    """The stricter of two levels."""
    return one if other is None or _STRICTNESS[one] >= _STRICTNESS[other] else other


def both(one: Requirements, other: Requirements) -> Requirements:
    """What must hold where two requirements must; two regions at once are a region that nobody is in."""
    kept = [each for each in (one.retention_days, other.retention_days) if each is not None]
    regions = sorted({each for each in (one.region, other.region) if each is not None})
    return Requirements(
        region=" and ".join(regions) or None,
        training="never" if "never" in (one.training, other.training) else "allowed",
        retention_days=min(kept, default=None),
        commercial=one.commercial or other.commercial,
    )


def _time(asked: float, usual: float, ruled: float | None) -> float:
    """Seconds: a rule's where the caller left the intent's; else the caller's, which no rule makes longer."""
    if ruled is None:
        return asked
    return ruled if asked == usual else min(asked, ruled)


def _last(_: object, later: V) -> V:
    return later


_TOGETHER: Mapping[str, Callable[[Any, Any], Any]] = {
    "bars": add,
    "preferred": add,
    "params": add,
    "ceiling": min,
    "latency_ceiling": min,
    "require": both,
    "safety": stricter,
    "tier": _last,
    "slo": _last,
    "deadline": _last,
    "late": _last,
    "late_second": _last,
    "failure": _last,
}
"""What a rule may say -> what two that say it come to, the later one second."""
