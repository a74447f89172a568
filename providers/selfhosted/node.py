"""One node of a pool: whether it is fit to draw, what it has to do, and when it would be done. No I/O and no clock.

A slot is free when the *worker* is done, not when we stop listening: most servers draw an order to its end after its
caller has left. So an order that we lost sight of keeps its slot until the node says that it is idle, comes back from
the dead, or `linger` seconds have passed.
"""

from __future__ import annotations

from typing import Final

from providers.contract import Load, Order
from providers.picture import steps_of
from providers.selfhosted.adapter import Selfhosted, Status
from providers.selfhosted.dialects import objection

_PIXELS: Final = 1_048_576
_NEWS: Final = 0.2
"""Weight of the latest order in a node's pace."""


class Work:
    """An order at a node."""

    __slots__ = ("amount", "expected_s", "since")

    def __init__(self, amount: float, expected_s: float, since: float) -> None:
        self.amount = amount
        self.expected_s = expected_s
        self.since = since

    def __repr__(self) -> str:
        return f"<Work {self.expected_s:.2f} s since {self.since:.2f}>"

    def left(self, now: float) -> float:
        """Seconds it will probably still take; one that is overdue is expected to take as long again."""
        return abs(self.expected_s - (now - self.since))


class Node:
    """A server, and what we know of it. Times are seconds on the pool's clock."""

    def __init__(
        self, name: str, server: Selfhosted, *, slots: int, steps: int | None, failures: int, linger: float
    ) -> None:
        """`steps`: what it was started with, if it takes none; `failures`: in a row, until it is left alone."""
        self.name = name
        self.server = server
        self.slots = slots
        self.trouble = "has not been asked yet how it is"
        """Why it is left alone; empty when it is fit."""
        self.status = Status()
        self._steps = steps
        self._failures = failures
        self._linger = linger
        self._failed = 0
        self._rests_until = 0.0
        self._rests_for = ""
        self._running: set[Work] = set()
        self._lost: dict[Work, float] = {}
        self._pace: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Node {self.name}: {len(self._running)}+{len(self._lost)} of {self.slots}, {self.trouble or 'fit'}>"

    def objection(self, order: Order) -> str | None:
        """Why it could not draw an order however fit it is."""
        if self.server.models is not None and order.endpoint not in self.server.models:
            return f"does not serve {order.endpoint}"
        return objection(self.server.dialect, order, self._steps)

    def unfit(self, endpoint: str, now: float) -> str:
        """Why it may not be given an order just now; empty when it may."""
        if self.trouble:
            return self.trouble
        if now < self._rests_until:
            return f"is left alone for {self._rests_until - now:.1f} s: {self._rests_for}"
        return self.server.lacks(endpoint, self.status)

    def free(self, now: float) -> int:
        """Slots that are free."""
        for work in [work for work, until in self._lost.items() if until <= now]:
            del self._lost[work]
        return self.slots - len(self._running) - len(self._lost)

    def finish(self, order: Order, now: float) -> float:
        """Seconds until one more order would be done here."""
        waiting = sum(work.left(now) for work in (*self._running, *self._lost))
        return waiting / self.slots + self.expected(order)

    def expected(self, order: Order) -> float:
        """Seconds an order takes here, by what was seen; as many as its amount of work before anything was."""
        return amount(order) * self._pace.get(order.endpoint, 1.0)

    def take(self, order: Order, now: float) -> Work:
        """Give a slot to an order; it ends with `done` or `lose`."""
        work = Work(amount(order), self.expected(order), now)
        self._running.add(work)
        return work

    def done(self, work: Work) -> None:
        """The worker has finished, one way or another."""
        self._running.discard(work)

    def lose(self, work: Work, now: float) -> None:
        """We no longer listen, but the worker may well be drawing: the slot stays taken."""
        self._running.discard(work)
        self._lost[work] = now + self._linger

    def served(self, order: Order, seconds: float) -> None:
        """Learn from an order that took `seconds` of work."""
        self._failed = 0
        seen, known = seconds / amount(order), self._pace.get(order.endpoint)
        self._pace[order.endpoint] = seen if known is None else known + _NEWS * (seen - known)

    def failed(self, why: str) -> None:
        """It failed an order; after several in a row it is left alone until a probe finds it well."""
        self._failed += 1
        if self._failed >= self._failures:
            self.trouble = f"failed {self._failed} orders in a row, the last: {why}"

    def gone(self, why: str, *, dead: bool) -> None:
        """It cannot be reached; `dead`: there is no process any more, so nothing is being drawn either."""
        self.trouble = why
        if dead:
            self._lost.clear()

    def rest(self, until: float, why: str) -> None:
        """Give it no order before `until`, whatever a probe says: it said so itself, or it lied."""
        if until > self._rests_until:
            self._rests_until, self._rests_for = until, why

    def running(self) -> frozenset[Work]:
        """What we are listening for, to be handed to `probed`."""
        return frozenset(self._running)

    def probed(self, status: Status, before: frozenset[Work]) -> None:
        """Take in what it says of itself; `before` is what was running when it was asked.

        Its queue is trusted in one point only: when it has no more to do than what we are still listening for, then
        what we had lost sight of is over.
        """
        if status.silent and before & self._running and not self.trouble:
            return  # too busy with what it draws; whether it hangs, the orders themselves will tell
        self.status = status
        self.trouble = status.trouble
        if status.trouble:
            return
        self._failed = 0
        if status.busy is not None and status.busy <= len(before & self._running):
            self._lost.clear()

    def load(self, now: float) -> Load:
        """How busy it is, by our own count."""
        taken = self.slots - self.free(now)
        return Load(running=taken, queued=0, slots=self.slots)


def amount(order: Order) -> float:
    """How much work an order is: its megapixels times its steps."""
    asked = order.request
    return asked.width * asked.height / _PIXELS * asked.count * (steps_of(order) or 1)
