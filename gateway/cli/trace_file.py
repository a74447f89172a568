"""Traces on disk: one JSON object a line, each a call. Also what makes calls of made-up traffic.

    {"at": "2026-11-24T09:00:00.125Z", "team": "acme", "ask": {"intent": "preview", "size": "1024x1024", "n": 2}}
    {"at": 12.5, "ask": {"model": "flux-dev"}, "done": {"state": "delivered", "offer": "fal:flux-dev",
     "nano_usd": 25000000, "seconds": 3.6}}

`at` is a moment, or seconds since the first call; rules that ask for the time see noon of a Wednesday then. `ask` is a
body of `POST /v1/images/generations`; its prompt may be left out, for nothing depends on it. `operation` and `inputs`
(sizes of input pictures) stand beside it where something else is done than drawing from words. `done` is what became of
a recorded call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from gateway.cli.shell import Stop
from gateway.errors import GatewayError
from gateway.http.generations import call_of
from gateway.http.model_names import Names, names_of
from gateway.http.request_parsing import parse_generation
from gateway.requests.call import Caller
from gateway.requests.terms import under_rules
from gateway.revisions import Revision
from policies.offline.trace import DELIVERED, NOT_DELIVERED, UNKNOWN, Done, Kind, Trace, gaps, in_order
from policies.offline.traffic import Pattern
from policies.policy import Policy
from policies.types import Tier
from providers.contract import Operation

_TOLD = 3
_REAL = 1e9
"""Seconds above which a number is a moment since 1970, and not seconds since the first call."""
_NO_TIME = datetime(2026, 1, 7, 12, tzinfo=UTC)
"""Noon of a Wednesday: where calls have no date, for rules that ask for the time."""
_STATES = {"delivered": DELIVERED, "failed": NOT_DELIVERED, "unknown": UNKNOWN}
State = Literal["delivered", "failed", "unknown"]


class DoneLine(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What became of a call."""

    state: State = "delivered"
    offer: str | None = None
    nano_usd: int | None = None
    """None: it is not known."""
    seconds: float | None = None


class Line(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One call of a trace."""

    at: float | str
    ask: msgspec.Raw = msgspec.Raw(b"{}")
    team: str = "default"
    key: str = ""
    """Id of the key it came with, for policies that have rules by key."""
    operation: Operation = "generate"
    inputs: tuple[str, ...] = ()
    """Sizes of the input pictures: 1024x1024."""
    done: DoneLine | None = None


class Refusals:
    """Calls that the gateway would refuse before choosing: how many, and why."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._counts: Counter[str] = Counter()
        self._first: dict[str, int] = {}

    def add(self, why: str, line: int) -> None:
        """One more."""
        self._counts[why] += 1
        self._first.setdefault(why, line)

    def remarks(self) -> list[str]:
        """Each reason once, the most frequent first."""
        told = [
            f"{count:,} call{'s' * (count != 1)} left out, first {self._name}:{self._first[why]}: {why}"
            for why, count in self._counts.most_common(_TOLD)
        ]
        rest = sum(self._counts.values()) - sum(count for _, count in self._counts.most_common(_TOLD))
        return [*told, f"{rest:,} more calls left out for other reasons"] if rest else told


class Kinds:
    """Calls of a trace as the gateway would read them, one `Kind` for all that ask for the same."""

    def __init__(self, revision: Revision) -> None:
        self.kinds: list[Kind] = []
        self._policy, self._catalog = revision.policy, revision.catalog
        self.label = revision.policy.label
        self._names: Names = names_of(revision.policy, revision.catalog)
        conditions = [each for rule in revision.policy.rules.rules for each in (rule.when, rule.unless)]
        self._timed = any(each is not None and each.timed for each in conditions)
        self._found: dict[object, int | str] = {}

    def place(self, line: Line, at: float) -> int | str:
        """The index of a call's kind; or why the gateway would refuse it."""
        minute = self._minute(at)
        key = (bytes(line.ask), line.team, line.key, line.operation, line.inputs, minute)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._new(line, at)
        return found

    def refused(self, instead: Kind) -> int:
        """The index of a kind that nobody serves, for a call that another configuration takes and this one does not."""
        found = self._found.get(instead)
        if found is None:
            found = self._found[instead] = len(self.kinds)
            self.kinds.append(replace(instead, constraints=replace(instead.constraints, models=frozenset())))
        assert isinstance(found, int)
        return found

    def _minute(self, at: float) -> int | None:
        """The minute of the week, where a rule of the policy asks for the time."""
        return self._policy.rules.minute(_utc(at)) if self._timed and at > _REAL else None

    def _new(self, line: Line, at: float) -> int | str:
        try:
            fields = msgspec.json.decode(line.ask, type=dict[str, object])
            self.kinds.append(self.kind(fields, line, at))
        except msgspec.DecodeError as error:
            return f"`ask` is no JSON object: {error}"
        except GatewayError as error:
            return error.message
        except ValueError as error:
            return str(error)
        return len(self.kinds) - 1

    def kind(self, fields: Mapping[str, object], line: Line, at: float = 0.0) -> Kind:
        """What a generation body asks for, under the rules of the policy; raises `GatewayError`."""
        caller, operation, inputs = Caller(key_id=line.key, team=line.team), line.operation, line.inputs
        wish = parse_generation({**fields, "prompt": fields.get("prompt") or "-"}, self._names, caller)
        call = call_of(wish, "call", caller, 0.0)
        request = replace(call.request, prompt="", seed=None)
        if operation != "generate" or inputs:
            sizes = tuple(_size(text) for text in inputs) or (request.size,)
            request = replace(request, operation=operation, references=sizes)
        moment = _utc(at) if at > _REAL else _NO_TIME
        call = under_rules(replace(call, request=request), self._policy, self._catalog.resolve, moment)
        return Kind(
            request=call.request, constraints=call.constraints, worth=call.worth, intent=call.intent, team=line.team
        )


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _size(text: str) -> tuple[int, int]:
    width, by, height = text.lower().partition("x")
    if not (by and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ValueError(f"`inputs`: {text!r} is no size; write WIDTHxHEIGHT, as in 1024x1024")
    return int(width), int(height)


def read_trace(path: Path, revision: Revision) -> Trace:
    """The calls of a file under one configuration; see `read_traces`."""
    return read_traces(path, (revision,))[0]


def read_traces(path: Path, revisions: Sequence[Revision]) -> list[Trace]:
    """The calls of a file; stops with the line and the fix where it cannot be read.

    Calls that the gateway would refuse (a model nobody knows, a bad size) are left out and told. Lines may stand in
    any order; those that stand before an earlier one are told. Under each of several configurations it is the same
    calls: those the first one takes.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise Stop(f"{path}: {error.strerror}") from None
    decode = msgspec.json.Decoder(Line).decode
    return traces_of(path.name, _decoded(path.name, lines, decode), revisions)


def _checked(name: str, number: int, line: Line) -> Line:
    done = line.done
    if done is not None and done.nano_usd is not None and done.nano_usd < 0:
        raise Stop(f"{name}:{number}: done.nano_usd {done.nano_usd}: a cost is 0 or more; leave it out if nobody knows")
    return line


def _decoded(name: str, lines: list[bytes], decode: object) -> Iterable[tuple[int, Line]]:
    assert callable(decode)
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            yield number, _checked(name, number, decode(text))
        except msgspec.DecodeError as error:
            raise Stop(
                f"{name}:{number}: {error}; a line is {{'at': seconds or a moment, 'ask': {{...}}}} with perhaps "
                "team, operation, inputs and done"
            ) from None


def traces_of(name: str, lines: Iterable[tuple[int, Line]], revisions: Sequence[Revision]) -> list[Trace]:
    """A trace of numbered lines for each configuration; stops when no line is left."""
    kinds, *others = [Kinds(revision) for revision in revisions]
    refusals, later = Refusals(name), Refusals(name)
    at: list[float] = []
    places: list[list[int]] = [[] for _ in revisions]
    done: list[DoneLine | None] = []
    for number, line in lines:
        moment = _moment(name, number, line.at)
        place = kinds.place(line, moment)
        if isinstance(place, str):
            refusals.add(place, number)
            continue
        at.append(moment)
        places[0].append(place)
        for row, other in zip(places[1:], others, strict=True):
            found = other.place(line, moment)
            if isinstance(found, str):
                later.add(f"{other.label} refuses it: {found}", number)
                found = other.refused(kinds.kinds[place])
            row.append(found)
        done.append(line.done)
    remarks = [*refusals.remarks(), *(remark.replace("left out", "fail", 1) for remark in later.remarks())]
    if not at:
        raise Stop("\n".join([f"{name}: there is no call in it that could be simulated", *remarks]))
    times = np.array(at, np.float64)
    order, back = in_order(times)
    times = times[order]
    if back:
        remarks.append(f"{back:,} lines stood after a later one: clocks that went back, or several writers; sorted")
    silences, longest = gaps(times)
    if silences:
        remarks.append(
            f"{silences:,} silence{'s' * (silences != 1)} of more than an hour, the longest {longest / 3600:.1f} h: "
            "simulated as silence"
        )
    begins = float(times[0])
    found_done = _done(done, order)
    return [
        Trace(
            name=name,
            kinds=each.kinds,
            at=times - begins,
            kind=np.array(row, np.int64)[order],
            begins=begins if begins > _REAL else 0.0,
            done=found_done,
            remarks=tuple(remarks),
        )
        for each, row in zip((kinds, *others), places, strict=True)
    ]


def _moment(name: str, number: int, at: float | str) -> float:
    if isinstance(at, str):
        try:
            moment = datetime.fromisoformat(at)
        except ValueError:
            raise Stop(f"{name}:{number}: at {at!r} is no moment; write 2026-11-24T09:00:00.125Z, or seconds") from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not 0 <= at < 1e11:
        raise Stop(f"{name}:{number}: at {at:g} is no moment; write seconds from the first call, or a date and time")
    return at


def _done(found: list[DoneLine | None], order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Done | None:
    if not any(each is not None for each in found):
        return None
    nothing = DoneLine(state="unknown")
    lines = [found[i] or nothing for i in order.tolist()]
    offers = {name: place for place, name in enumerate(dict.fromkeys(each.offer for each in lines if each.offer))}
    return Done(
        state=np.array([_STATES[each.state] for each in lines], np.int64),
        offer=np.array([offers.get(each.offer or "", -1) for each in lines], np.int64),
        offers=tuple(offers),
        cost=np.array([-1 if each.nano_usd is None else each.nano_usd for each in lines], np.int64),
        seconds=np.array([np.nan if each.seconds is None else each.seconds for each in lines], np.float64),
    )


def made_up(pattern: Pattern, name: str, revision: Revision) -> Trace:
    """Traffic that was made up, in the terms of the policy: each tier stands for the intent that asks for it."""
    kinds = Kinds(revision)
    intents = _intents(revision.policy)
    return Trace(
        name=name,
        kinds=[kinds.kind({"intent": intents[shape.tier], **shape.ask}, Line(at=0.0)) for shape in pattern.shapes],
        at=pattern.at,
        kind=pattern.shape,
    )


def _intents(policy: Policy) -> dict[Tier, str]:
    """For each tier the first intent that asks for just that tier; else the default one."""
    found = dict.fromkeys(Tier, policy.default_intent)
    for intent in reversed(list(policy.intents.values())):
        found[intent.tier] = intent.name
    default = policy.intents[policy.default_intent]
    found[default.tier] = default.name
    return found
