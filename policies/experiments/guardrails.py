"""Whether a canary may go on: what its calls cost, how long they take and how often they fail, beside calls like them.

A canary and the policy in force serve different callers, who ask for different things. So calls are compared in pairs
of the same kind: a call under the canary with the call most like it that ended last under the policy in force. Pairs
may be looked at after each one (`policies/experiments/significance.py`), so a bad canary ends as soon as it is sure,
and a good one is ended by chance in `CanaryTerms.risk` of all cases at most, however long it runs.

    cost      the mean of the logarithm of (canary / control), above what `cost` allows
    p95       who is beyond the 95th percentile of the control more often; the canary's is stretched by `p95`
    failures  who fails more often

An outcome of no kind that the other side has is judged by nobody; `pairs` says how many were.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Hashable
from math import exp, inf, log
from typing import Literal, TypeAlias

from msgspec import Struct

from policies.experiments.significance import Failures, Means, Planned
from policies.policy import CanaryTerms

Side: TypeAlias = Literal["control", "canary"]
Guardrail: TypeAlias = Literal["cost", "p95", "failures"]

KINDS = 2_000
"""Kinds of call that are remembered; the one unseen for longest is forgotten first."""
WAITING = 64
"""Outcomes of a kind that wait for one of the other side; later ones take the place of earlier ones."""
LATENCIES = 200
"""Latencies of a kind from which its 95th percentile is read..."""
FEWEST = 40
"""...once there are this many."""
SHOWN = 1_000
"""Latencies of each side that a report reads its percentiles from."""


class Outcome(Struct, frozen=True, kw_only=True):
    """How a call ended."""

    seconds: float
    """From its arrival."""
    nano_usd: float = 0.0
    """What one picture cost."""
    failed: bool = False
    """Whether nothing came, for a reason that a policy can do something about."""


class Crossing(Struct, frozen=True, kw_only=True):
    """A guardrail that was surely crossed."""

    guardrail: Guardrail
    why: str


class SideReport(Struct, frozen=True, kw_only=True):
    """One side in figures: seconds from arrival, nano-dollars a picture."""

    calls: int
    failed: int
    mean_nano_usd: float
    p50_s: float
    p95_s: float


class Report(Struct, frozen=True, kw_only=True):
    """How a canary stands."""

    control: SideReport
    canary: SideReport
    pairs: int
    planned: int
    cost_ratio: tuple[float, float] | None
    """What the canary costs over the control, at least and at most; None while nothing can be said."""
    slow: tuple[int, int]
    """Pairs in which only the control, only the canary was slow."""
    failed: tuple[int, int]
    """Pairs in which only the control, only the canary failed."""
    crossed: Crossing | None = None


class Guardrails:
    """Takes in outcomes of both sides."""

    def __init__(self, terms: CanaryTerms) -> None:
        self.terms = terms
        planned = Planned(pairs=terms.calls, alpha=terms.risk / 3)
        self._cost = Means(planned)
        self._slow = Failures(planned)
        self._failed = Failures(planned)
        self._most = log(1.0 + terms.cost)
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self._sides = {"control": _Side(), "canary": _Side()}
        self.pairs = 0
        self.crossed: Crossing | None = None
        """The first guardrail that was crossed; a canary ends there."""

    def __repr__(self) -> str:
        return f"<Guardrails {self.pairs} of {self.terms.calls} pairs, crossed: {self.crossed}>"

    @property
    def passed(self) -> bool:
        """Whether the planned sample is there and no guardrail was crossed."""
        return self.crossed is None and self.pairs >= self.terms.calls

    def add(self, side: Side, kind: Hashable, outcome: Outcome) -> None:
        """Take in how a call ended; `kind` is what was asked for, apart from who asked and in which words."""
        self._sides[side].add(outcome)
        found = self._kinds.get(kind)
        if found is None:
            found = self._kinds[kind] = _Kind()
            if len(self._kinds) > KINDS:
                self._kinds.popitem(last=False)
        else:
            self._kinds.move_to_end(kind)
        pair = found.pair(side, outcome)
        if pair is not None and self.crossed is None:
            self._judge(*pair)

    def report(self) -> Report:
        """How it stands."""
        interval = self._cost.interval()
        known = interval.low > -inf
        return Report(
            control=self._sides["control"].report(),
            canary=self._sides["canary"].report(),
            pairs=self.pairs,
            planned=self.terms.calls,
            cost_ratio=(_ratio(interval.low), _ratio(interval.high)) if known else None,
            slow=(self._slow.champion, self._slow.challenger),
            failed=(self._failed.champion, self._failed.challenger),
            crossed=self.crossed,
        )

    def _judge(self, control: Outcome, slow_from: float, canary: Outcome) -> None:
        self.pairs += 1
        self._failed.add(champion=control.failed, challenger=canary.failed)
        if control.failed != canary.failed and self._failed.verdict() == "higher":
            one, other = self._failed.champion, self._failed.challenger
            self._cross(
                "failures", f"of the calls like each other {other} failed under the canary alone, {one} without"
            )
        if control.failed or canary.failed:
            return
        self._judge_cost(control, canary)
        slow = control.seconds > slow_from, canary.seconds > slow_from * (1.0 + self.terms.p95)
        self._slow.add(champion=slow[0], challenger=slow[1])
        if slow[0] != slow[1] and self._slow.verdict() == "higher":
            one, other = self._slow.champion, self._slow.challenger
            self._cross(
                "p95", f"beyond the p95 of calls like them, and {self.terms.p95:.0%} more, {other} against {one}"
            )

    def _judge_cost(self, control: Outcome, canary: Outcome) -> None:
        self._cost.add(log((canary.nano_usd + 1.0) / (control.nano_usd + 1.0)))
        interval = self._cost.interval()
        if interval.low > self._most:
            least, most = _ratio(interval.low), _ratio(interval.high)
            self._cross(
                "cost", f"a picture costs {least:.2f} to {most:.2f} times as much; allowed is {1 + self.terms.cost:g}"
            )

    def _cross(self, guardrail: Guardrail, why: str) -> None:
        self.crossed = self.crossed or Crossing(guardrail=guardrail, why=f"{why} ({self.pairs} pairs)")


class _Kind:
    """Calls that ask for the same: those that wait for one of the other side, and how long the control's take."""

    __slots__ = ("_latencies", "_ordered", "_waiting")

    def __init__(self) -> None:
        self._waiting: dict[Side, deque[tuple[Outcome, float]]] = {
            "control": deque(maxlen=WAITING),
            "canary": deque(maxlen=WAITING),
        }
        self._latencies: deque[float] = deque()
        self._ordered: list[float] = []

    def pair(self, side: Side, outcome: Outcome) -> tuple[Outcome, float, Outcome] | None:
        """The control, what counts as slow for it, and the canary; None where nobody waits on the other side."""
        if side == "control":
            slow_from = self._p95()
            if not outcome.failed:
                self._took(outcome.seconds)
            waiting = self._waiting["canary"]
            if waiting:
                return outcome, slow_from, waiting.popleft()[0]
            self._waiting["control"].append((outcome, slow_from))
            return None
        waiting = self._waiting["control"]
        if not waiting:
            self._waiting["canary"].append((outcome, inf))
            return None
        control, slow_from = waiting.pop()  # the one that ended last: the hour is the same
        return control, slow_from, outcome

    def _p95(self) -> float:
        """Of what was seen before, so that an outcome is not judged by itself; nothing is slow at first."""
        return self._ordered[int(0.95 * len(self._ordered))] if len(self._ordered) >= FEWEST else inf

    def _took(self, seconds: float) -> None:
        self._latencies.append(seconds)
        insort(self._ordered, seconds)
        if len(self._latencies) > LATENCIES:
            self._ordered.remove(self._latencies.popleft())


class _Side:
    """What a report says of one side."""

    __slots__ = ("_calls", "_failed", "_latencies", "_nano_usd")

    def __init__(self) -> None:
        self._calls = self._failed = 0
        self._nano_usd = 0.0
        self._latencies: deque[float] = deque(maxlen=SHOWN)

    def add(self, outcome: Outcome) -> None:
        self._calls += 1
        self._failed += outcome.failed
        if not outcome.failed:
            self._nano_usd += outcome.nano_usd
            self._latencies.append(outcome.seconds)

    def report(self) -> SideReport:
        ordered = sorted(self._latencies)
        last = len(ordered) - 1
        return SideReport(
            calls=self._calls,
            failed=self._failed,
            mean_nano_usd=self._nano_usd / max(self._calls - self._failed, 1),
            p50_s=ordered[last // 2] if ordered else 0.0,
            p95_s=ordered[int(0.95 * last)] if ordered else 0.0,
        )


def _ratio(logarithm: float) -> float:
    """A ratio from its logarithm, where that may be anything."""
    return exp(max(min(logarithm, 50.0), -50.0))
