"""Which of our orders a provider's usage report is about: pure functions from rows and lines to what is to be posted.

What a report says is never guessed at: either an order takes its line, or several orders together explain a total to
the nano-dollar, or the difference is posted as a correction under its own name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from gateway.money.differences import Difference, UnitPrice, difference, unpriced
from gateway.storage.rows import AttemptRow
from policies.money import half_even
from providers.contract import ListedOrder, Ticket, UsageRecord

OVER = ("settled", "released")
SKEW = timedelta(minutes=1)
"""How far a provider's clock may be from ours."""

LONGEST = timedelta(minutes=15)
"""How long after its start an order may still turn up on the bill."""

DAY = timedelta(days=1)
MICROSECOND = timedelta(microseconds=1)

OVERRUN = 2
"""How many times what was held a bill may be and still be taken for that order's: prices rise without notice."""

MOST_SUMS = 200_000
"""Distinct sums tried before a total counts as unexplained."""


class Settle(Struct, frozen=True):
    """A suspended order turned out to cost this much (nano-dollars)."""

    attempt: AttemptRow
    cost: int
    pictures: int | None = None
    """How many were made; None: as many as were ordered, for all anybody knows."""
    told: bool = True
    """Whether its seller said what it cost; else that is its list price."""


class Release(Struct, frozen=True):
    """A suspended order turned out to cost nothing."""

    attempt: AttemptRow


class Mend(Struct, frozen=True):
    """What was posted differs from the report by `amount` (nano-dollars)."""

    endpoint: str
    amount: int
    note: str
    attempt: AttemptRow | None = None
    pictures: int | None = None
    """How many were made; None: as many as were ordered, for all anybody knows."""
    at: datetime | None = None
    """The period it belongs to, when that is not told by an attempt."""
    why: Difference | None = None
    """Where it is about one order."""


Action: TypeAlias = Settle | Release | Mend


class Plan(Struct, frozen=True):
    """What a report asks us to post, and what of it we cannot place."""

    actions: tuple[Action, ...] = ()
    strangers: tuple[UsageRecord, ...] = ()
    """Lines of no order of ours: somebody else uses the account, or an order whose receipt is still on its way."""


def by_request(
    lines: Sequence[UsageRecord],
    attempts: Sequence[AttemptRow],
    since: datetime,
    settled_before: datetime,
    unit_price: UnitPrice = unpriced,
) -> Plan:
    """Place lines that name a request.

    Orders started from `since` and ended before `settled_before` would be on the report if they had been billed; about
    others its silence says nothing. `attempts` are all orders the lines can be about, read after the report was. By
    `unit_price` corrections say whether it is units or their price that differ.
    """

    def silent(row: AttemptRow) -> bool:
        return row.started >= since and _end(row) < settled_before

    bill = one_line_each(lines)
    latest = max(line.at for line in lines)
    by_attempt = {row.id: row for row in attempts if row.id in bill}
    tickets = {row.ticket.id: row for row in attempts if row.ticket is not None and row.id not in bill}
    actions: list[Action] = []
    for request, row in (tickets | by_attempt).items():
        judged = _judge(row, request, bill.get(request), silent=silent(row), reached=latest)
        actions += (_explained(action, bill.get(request), unit_price) for action in judged)
    nameless = [row for row in attempts if row.ticket is None and row.id not in bill]
    unplaced = [line for request, line in bill.items() if request not in tickets and request not in by_attempt]
    # A report that names our attempts leaves nothing to guess.
    placed, strangers = ([], unplaced) if by_attempt else _place(unplaced, nameless)
    found = {action.attempt.id for action in placed if action.attempt is not None}
    actions += placed
    actions += (Release(row) for row in nameless if row.state == "suspended" and silent(row) and row.id not in found)
    return Plan(tuple(actions), tuple(strangers))


def claims(listed: Sequence[ListedOrder], nameless: Sequence[AttemptRow], near: timedelta) -> Mapping[str, Ticket]:
    """Attempt id -> the order it became, for attempts without a receipt: as many as can be.

    An order can be an attempt's that was under way when it was taken, give or take `near`. Where several were, nobody
    can tell them apart, and all that is owed is the same: the one that ended first takes it.
    """
    free = sorted(nameless, key=_end)
    claimed: dict[str, Ticket] = {}
    for order in sorted(listed, key=lambda order: order.at):
        row = next((row for row in free if row.started - near <= order.at <= _end(row) + near), None)
        if row is not None:
            free.remove(row)
            claimed[row.id] = order.ticket
    return claimed


def unmeasured(suspended: Sequence[AttemptRow], settled_before: datetime) -> Plan:
    """Give back what was set aside for orders at machines of our own that nobody measured, once they are surely over.

    Nobody bills them one by one: their time is part of what the machine costs idle or busy, and stays there.
    """
    return Plan(tuple(Release(row) for row in suspended if _end(row) < settled_before))


def by_total(
    endpoint: str, reported: int, posted: int, suspended: Sequence[AttemptRow], span: tuple[datetime, datetime]
) -> tuple[Action, ...]:
    """Explain an endpoint's total: settle the suspended orders whose quotes add up to what we have not posted.

    The sum is exact; among orders of equal price nobody can tell which one was billed, so the oldest are taken.
    Where no choice adds up, none was billed as quoted: all are released and the difference is a correction, which
    counts at the end of the compared span.
    """
    missing = reported - posted
    chosen = adding_up_to(missing, [row.hold_cost for row in suspended])
    if chosen is None:
        start, end = span
        note = f"usage report of {endpoint} from {start:%Y-%m-%d}: {reported} reported, {posted} posted"
        return (*map(Release, suspended), Mend(endpoint, missing, note, at=end - MICROSECOND))
    return tuple(Settle(row, row.hold_cost) if index in chosen else Release(row) for index, row in enumerate(suspended))


def adding_up_to(total: int, amounts: Sequence[int]) -> frozenset[int] | None:
    """Positions of amounts whose sum is exactly `total`, or None; earlier ones are preferred."""
    reached: dict[int, tuple[int, int]] = {0: (0, -1)}
    for position, amount in enumerate(amounts):
        if total in reached or len(reached) > MOST_SUMS:
            break
        if amount > 0:
            for before in tuple(reached):
                if before + amount <= total:
                    reached.setdefault(before + amount, (before, position))
    if total not in reached:
        return None
    chosen = []
    while total:
        total, position = reached[total]
        chosen.append(position)
    return frozenset(chosen)


def quiet_spans(
    attempts: Sequence[AttemptRow], since: datetime, settled_before: datetime
) -> Sequence[tuple[datetime, datetime]]:
    """The spans of time in which an endpoint's total can be compared: no order straddles their ends.

    Totals come by day, so spans end at midnights (UTC); the last one ends at `settled_before` when nothing happened
    since. They cover what they can from the midnight before `since`, and their ends never move, as history does not.
    """
    midnight = _midnight(since)
    ends = []
    while midnight <= settled_before:
        if not any(row.started < midnight and (_open(row) or _end(row) >= midnight) for row in attempts):
            ends.append(midnight)
        midnight += DAY
    if not any(_open(row) or _end(row) >= settled_before for row in attempts):
        ends.append(settled_before)
    return list(pairwise(ends))


def by_endpoint(attempts: Iterable[AttemptRow]) -> Mapping[str, Sequence[AttemptRow]]:
    """Attempts grouped by endpoint, in their order."""
    groups: defaultdict[str, list[AttemptRow]] = defaultdict(list)
    for row in attempts:
        groups[row.endpoint].append(row)
    return groups


def one_line_each(lines: Iterable[UsageRecord]) -> dict[str, UsageRecord]:
    """Request -> one line with the sum of its lines, oldest first."""
    merged: dict[str, UsageRecord] = {}
    for line in sorted(lines, key=lambda line: line.at):
        if line.request_id is None:
            continue
        first = merged.get(line.request_id)
        amount = line.nano_usd + (first.nano_usd if first else 0)
        units = line.units if first is None or line.units is None or first.units is None else first.units + line.units
        merged[line.request_id] = replace(first or line, nano_usd=amount, units=units)
    return merged


def _explained(action: Action, line: UsageRecord | None, unit_price: UnitPrice) -> Action:
    """A correction of an order, with the reason why its line differs."""
    row = action.attempt
    if not isinstance(action, Mend) or row is None or line is None or row.state == "suspended":
        return action
    why = difference(row, line, row.cost if row.listed is None else row.listed, unit_price(row))
    return replace(action, why=why)


def _judge(
    row: AttemptRow, request: str, line: UsageRecord | None, *, silent: bool, reached: datetime
) -> Iterable[Action]:
    """What the report means for an order whose receipt we have; `reached` is how far the report demonstrably goes."""
    if line is not None and row.state == "suspended":
        yield from _as_told(row, request, line)
    elif line is None and row.state == "suspended" and silent:
        yield Release(row)
    elif row.state in OVER:
        billed = line.nano_usd if line else 0
        if row.cost != billed and (line or (silent and row.started < reached)):
            note = f"usage report of request {request}: {billed} reported, {row.cost} posted"
            yield Mend(row.endpoint, billed - row.cost, note, row, line.pictures if line else None)


def _as_told(row: AttemptRow, request: str, line: UsageRecord) -> Iterator[Settle | Mend]:
    """Settle an order at what its seller reports; less than nothing where it brought a rebate for those before it."""
    billed = line.nano_usd
    yield Settle(row, max(billed, 0), line.pictures)
    if billed < 0:
        yield Mend(row.endpoint, billed, f"usage report of request {request}: {billed} reported, 0 posted", row)


def _place(
    strangers: Sequence[UsageRecord], nameless: Sequence[AttemptRow]
) -> tuple[list[Settle | Mend], list[UsageRecord]]:
    """Give lines without an order to orders without a receipt, by endpoint, amount and time."""
    free = {row.id: row for row in nameless}
    placed: list[Settle | Mend] = []
    left: list[UsageRecord] = []
    for line in strangers:
        row = min((row for row in free.values() if _may_be(row, line)), key=lambda row: _far(row, line), default=None)
        if row is None or row.state not in ("suspended", "released"):
            left.append(line)  # nobody's, or perhaps that of an order whose receipt is still on its way
            continue
        del free[row.id]
        if row.state == "suspended":
            placed += _as_told(row, line.request_id or "", line)
        else:
            note = f"usage report of request {line.request_id}: {line.nano_usd} reported for an order believed refused"
            placed.append(Mend(row.endpoint, line.nano_usd, note, row))
    return placed, left


def _may_be(row: AttemptRow, line: UsageRecord) -> bool:
    """Whether a line can be that of an order; one already given back must match to the nano-dollar, and once."""
    fits = line.nano_usd <= OVERRUN * row.hold_cost
    if row.state == "released":
        fits = line.nano_usd == _discounted(row.hold_cost, line) and row.cost == 0
    return fits and row.endpoint == line.endpoint and row.started - SKEW <= line.at <= row.started + LONGEST


def _far(row: AttemptRow, line: UsageRecord) -> tuple[bool, bool, timedelta]:
    """How far an order is from a line: suspended before the rest, its exact amount before less, then by time."""
    return row.state == "released", line.nano_usd != _discounted(row.hold_cost, line), abs(line.at - row.started)


def _discounted(listed: int, line: UsageRecord) -> int:
    """What a line of this list price would say."""
    return half_even(Fraction(listed) * (100 - Fraction(line.discount)) / 100)


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def _end(row: AttemptRow) -> datetime:
    return row.ended or row.started


def _open(row: AttemptRow) -> bool:
    return row.state not in (*OVER, "suspended")
