"""What a seller's invoice makes of list prices: volume discounts, free allowances, prepaid credit, licences of weights.

A month's invoice depends on the order in which it is written, so an account has counters, and each order moves them:

    billed = settle(billing, counters, order)       the order's cost in money, and how the counters move

Counters are integers by name, kept by whoever settles; a month's begin with it: `2026-11/requests`. What is free comes
off first, then the discount, then free money; what is left is owed, and prepaid credit pays of that what it can. The
order's list price is rounded already; each step rounds once more, half to even, as the invoice's lines do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from itertools import pairwise
from typing import Literal, TypeAlias
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace

from policies.money import NanoUsd, to_usd

WHOLE = 10_000
"""Parts that discounts are typed in: hundredths of a percent."""

_QUARTER_S = 900
_NEVER = datetime.max.replace(tzinfo=UTC)

Applies: TypeAlias = Literal["marginal", "whole"]
Counted: TypeAlias = Callable[[str], int]
"""What a counter stands at; 0 for one that never moved."""


class VolumeTier(Struct, frozen=True):
    """A discount, and the request of a month from which it holds."""

    first: int
    """1 is the month's first request."""
    parts: int
    """Of `WHOLE`: 500 is 5 %."""


class Allowance(Struct, frozen=True, kw_only=True):
    """Pictures or money for nothing, once or every month."""

    name: str
    images: int | None = None
    amount: NanoUsd | None = None
    """Of discounted prices. One of `images` and `amount` is set."""
    monthly: bool = True
    since: datetime | None = None
    until: datetime | None = None
    """The first moment at which it is over."""


class Lot(Struct, frozen=True, kw_only=True):
    """Credit that was paid for ahead."""

    name: str
    amount: NanoUsd
    since: datetime | None = None
    expires: datetime | None = None
    """The first moment at which the rest of it is lost; None: never."""
    slots: int | None = None
    """Orders in flight that the account allows while some of it is left."""


class WeightsLicence(Struct, frozen=True, kw_only=True):
    """What the owner of a model's weights asks for pictures drawn with them."""

    model: str
    fee: NanoUsd = 0
    """A month, owed with its first picture."""
    included: int = 0
    """Pictures a month that the fee covers."""
    overage: NanoUsd = 0
    """For each further one."""


class Billing(Struct, frozen=True, kw_only=True, cache_hash=True):
    """How an account's invoice is made from list prices."""

    zone: str = "UTC"
    """Where the seller's months begin."""
    tiers: tuple[VolumeTier, ...] = ()
    """Ascending by their first request."""
    applies: Applies = "marginal"
    """`marginal`: to the requests from the tier's first on. `whole`: to those before it in the month, too."""
    certain_to: int | None = None
    """The month's last request whose discount was published; those beyond keep the last tier's, uncertain."""
    allowances: tuple[Allowance, ...] = ()
    lots: tuple[Lot, ...] = ()
    licences: tuple[WeightsLicence, ...] = ()

    def licence(self, model: str) -> WeightsLicence | None:
        """The licence of a model's weights."""
        return next((licence for licence in self.licences if licence.model == model), None)


class Billable(Struct, frozen=True, kw_only=True):
    """An order that came to its end, as an invoice sees it."""

    listed: NanoUsd
    """Its price by the list."""
    pictures: int
    at: datetime
    """When it is billed."""
    model: str = ""
    told: NanoUsd | None = None
    """What the seller itself said it costs; outranks what we make of it."""


class Billed(Struct, frozen=True, kw_only=True):
    """What an order costs, and what it moves."""

    amount: NanoUsd
    """Of the order itself."""
    rebate: NanoUsd = 0
    """Given back for earlier requests of the month, to which its discount now applies, too."""
    fee: NanoUsd = 0
    """The month's licence of the weights, where it is the first to need it."""
    moves: Mapping[str, int] = {}
    """Counter -> what is added to it."""
    month: str = ""
    request: int = 0
    """The order's number in the month; 0: it does not count."""
    discount: int = 0
    """Parts of `WHOLE`."""
    free: NanoUsd = 0
    """What allowances took off."""
    credit: NanoUsd = 0
    """What of the amount was paid ahead."""
    overage: NanoUsd = 0
    """What is owed to the owner of the weights beside it, for pictures beyond the month's licence."""
    certain: bool = True


def month_of(billing: Billing, at: datetime) -> str:
    """The invoice's month at a moment: `2026-11`."""
    return _month_in(billing.zone, int(at.timestamp()) // _QUARTER_S)


def settle(billing: Billing, counted: Counted, order: Billable) -> Billed:
    """Bill an order as the next one of its account."""
    terms, moves, listed = _terms(billing, order.at), _Moves(counted), order.listed
    charged = listed
    if listed and terms.pictures and (free := _take(moves, terms.pictures, order.pictures)):
        charged = _share(listed, order.pictures - free, order.pictures)
    request, discount, rebate = _discount(billing, terms, moves, charged) if listed else (0, 0, 0)
    if order.told is not None:
        rebate = 0  # the seller's word has it in, or in that of another order
    discounted = _share(charged, WHOLE - discount, WHOLE) if discount else charged
    free_money = _take(moves, terms.money, discounted)
    owed = discounted - free_money if order.told is None else order.told
    if rebate:
        rebate = _money_back(terms, moves, rebate, owed)
    credit = _take(moves, terms.credit, owed)
    if rebate:
        credit -= _give_back(moves, terms.credit, rebate)
    if billing.applies == "whole":
        moves.add(terms.owed, owed - rebate)
    moves.add(terms.due, owed - rebate - credit)
    overage, fee = _licence(billing, moves, terms.month, order) if billing.licences else (0, 0)
    return Billed(
        amount=owed,
        rebate=rebate,
        fee=fee,
        moves=moves.made,
        month=terms.month,
        request=request,
        discount=discount,
        free=listed - charged + free_money,
        credit=credit,
        overage=overage,
        certain=billing.certain_to is None or request <= billing.certain_to,
    )


class Expected(Struct, frozen=True, kw_only=True):
    """What orders will cost if the next ones of their account are they."""

    amount: NanoUsd
    """Of the orders themselves, with what their weights cost."""
    certain: bool
    """Whether every discount in it is published."""
    unlisted: tuple[tuple[Billed, Billable], ...]
    """The orders that do not simply cost their list price."""
    billing: Billing

    @property
    def why(self) -> tuple[str, ...]:
        """Why it is not their list price, a sentence each; empty where it is. Made when read: few are."""
        said = (sentence for billed, order in self.unlisted for sentence in reasons(self.billing, billed, order))
        return tuple(dict.fromkeys(said))


def expect(billing: Billing, counted: Counted, orders: Sequence[Billable]) -> Expected:
    """Forecast what orders will cost, one after the other; nothing is counted."""
    amount, certain = 0, True
    unlisted: list[tuple[Billed, Billable]] = []
    standing = _Moves(counted) if len(orders) > 1 else None
    for order in orders:
        billed = settle(billing, counted if standing is None else standing.at, order)
        if standing is not None:
            for name, move in billed.moves.items():
                standing.add(name, move)
        amount += billed.amount + billed.overage
        certain = certain and billed.certain
        if billed.amount != order.listed or billed.credit or billed.overage or billed.fee or billed.rebate:
            unlisted.append((billed, order))
    return Expected(amount=amount, certain=certain, unlisted=tuple(unlisted), billing=billing)


def mend(billing: Billing, counted: Counted, amount: NanoUsd, at: datetime) -> Mapping[str, int]:
    """How the counters move when the seller changes what it billed by `amount`; a refund is negative.

    What is given back goes to credit that has not expired, that which lasts longest first; no request is taken back.
    """
    terms, moves = _terms(billing, at), _Moves(counted)
    credit = _take(moves, terms.credit, amount) if amount > 0 else -_give_back(moves, terms.credit, -amount)
    moves.add(terms.due, amount - credit)
    return moves.made


def costs(billing: Billing, order: Billable, count: int, months: Sequence[datetime]) -> Sequence[NanoUsd]:
    """What `count` orders like one cost in each of some months, with rebates and licences.

    A month is given by a moment in it, at which all its orders are billed. Nothing was counted before the first.
    """
    counters: dict[str, int] = {}
    return [_month(billing, counters, replace(order, at=month), count) for month in months]


def _month(billing: Billing, counters: dict[str, int], order: Billable, count: int) -> NanoUsd:
    """One of them: order by order where they differ, at once where they are alike."""
    total, made = 0, 0
    while made < count:
        billed = settle(billing, lambda name: counters.get(name, 0), order)
        single = (
            billed.fee or (billed.free and billed.amount) or any(billed.request == each.first for each in billing.tiers)
        )
        times = 1 if single else _alike(billing, counters, billed, order, count - made)
        for name, move in billed.moves.items():
            counters[name] = counters.get(name, 0) + move * times
        total += (billed.amount + billed.overage) * times - billed.rebate + billed.fee
        made += times
    return total


def discount_of(billing: Billing, request: int) -> int:
    """Parts of `WHOLE` that are taken off a request of the month."""
    parts = 0
    for tier in billing.tiers:
        if tier.first > request:
            break
        parts = tier.parts
    return parts


def allowances_left(billing: Billing, counted: Counted, at: datetime) -> Sequence[tuple[Allowance, int]]:
    """Each allowance that counts at a moment, and what is left of it: pictures, or nano-dollars."""
    month = month_of(billing, at)
    return [
        (each, (each.images or each.amount or 0) - counted(_counter(each, month)))
        for each in _allowances_at(billing, at)
    ]


def credit_left(billing: Billing, counted: Counted, at: datetime) -> Sequence[tuple[Lot, NanoUsd]]:
    """Each lot that counts at a moment, in the order they are drawn from, and what is left of it."""
    return [(lot, lot.amount - counted(f"credit/{lot.name}")) for lot in _lots_at(billing, at)]


def slots_bought(billing: Billing, counted: Counted, at: datetime) -> int | None:
    """Orders in flight that the credit left allows; None where none of it says."""
    bought = [lot.slots for lot, left in credit_left(billing, counted, at) if left > 0 and lot.slots is not None]
    return max(bought, default=None)


def reasons(billing: Billing, billed: Billed, order: Billable) -> Iterator[str]:
    """Why an order costs what it does, where that is not its list price; a sentence each."""
    if billed.free:
        yield f"${to_usd(billed.free)} of it is free"
    if billed.discount and billed.request:
        kept = (
            "" if billed.certain else f"; beyond request {billing.certain_to:,} this is not certain without a contract"
        )
        yield f"request {billed.request:,} of {billed.month}: {percent(billed.discount)} off{kept}"
    if billed.rebate:
        yield f"${to_usd(billed.rebate)} comes back for the {billed.request - 1:,} requests before it"
    if billed.credit > 0:
        yield f"${to_usd(billed.credit)} is paid from credit"
    if billed.overage:
        yield f"${to_usd(billed.overage)} for pictures of {order.model} beyond the month's licence"
    if billed.fee:
        yield f"the month's licence of {order.model} is due with it: ${to_usd(billed.fee)}"


def percent(parts: int) -> str:
    """Hundredths of a percent as people read them: `7.5 %`."""
    return f"{parts / 100:g} %"


def misplaced(billing: Billing) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Tiers that overlap, sink or come too late, each with its place in `billing:` of the account."""
    for at, (before, tier) in enumerate(pairwise(billing.tiers), start=1):
        if tier.first <= before.first:
            message = (
                f"request {tier.first:,} overlaps the tier above it, from request {before.first:,}: "
                "list them ascending, each once"
            )
            yield ("volume", at, "from_request"), message
        elif tier.parts <= before.parts:
            yield (
                ("volume", at, "discount"),
                f"{percent(tier.parts)} is not above the {percent(before.parts)} before it",
            )
    if billing.tiers and billing.certain_to is not None and billing.certain_to < billing.tiers[-1].first:
        message = f"{billing.certain_to:,} lies before the last tier, which begins at {billing.tiers[-1].first:,}"
        yield ("certain_to",), message


class _Terms(Struct, frozen=True, gc=False, kw_only=True):
    """What of a billing holds at a moment, and what its counters are called: reckoned once a quarter of an hour."""

    month: str
    requests: str
    listed: str
    owed: str
    due: str
    pictures: _Stores
    money: _Stores
    credit: _Stores
    """What expires first is in front."""


_Stores: TypeAlias = tuple[tuple[int, str], ...]
"""What there was of each thing that is used up, and the counter of what was taken from it."""


def _terms(billing: Billing, at: datetime) -> _Terms:
    """The terms at a moment."""
    return _lasting_terms(billing, int(at.timestamp()) // _QUARTER_S) or _terms_at(billing, at)


@lru_cache(maxsize=256)
def _lasting_terms(billing: Billing, quarter: int) -> _Terms | None:
    """Those of a quarter of an hour; None where something begins or ends within it."""
    start, end = (datetime.fromtimestamp(each * _QUARTER_S, UTC) for each in (quarter, quarter + 1))
    edges = [edge for each in billing.allowances for edge in (each.since, each.until)]
    edges += [edge for lot in billing.lots for edge in (lot.since, lot.expires)]
    within = any(edge is not None and start < edge < end for edge in edges)
    return None if within else _terms_at(billing, start)


def _terms_at(billing: Billing, at: datetime) -> _Terms:
    month = month_of(billing, at)
    allowances = list(_allowances_at(billing, at))
    counters = [_counter(each, month) for each in allowances]
    named = list(zip(allowances, counters, strict=True))
    return _Terms(
        month=month,
        requests=f"{month}/requests",
        listed=f"{month}/listed",
        owed=f"{month}/owed",
        due=f"{month}/due",
        pictures=tuple((each.images, name) for each, name in named if each.images is not None),
        money=tuple((each.amount, name) for each, name in named if each.amount is not None),
        credit=tuple((lot.amount, f"credit/{lot.name}") for lot in _lots_at(billing, at)),
    )


class _Moves:
    """Counters as they stand with what was moved so far."""

    __slots__ = ("_counted", "made")

    def __init__(self, counted: Counted) -> None:
        self._counted = counted
        self.made: dict[str, int] = {}

    def at(self, name: str) -> int:
        return self._counted(name) + self.made.get(name, 0)

    def add(self, name: str, amount: int) -> None:
        if amount:
            self.made[name] = self.made.get(name, 0) + amount


def _take(moves: _Moves, stores: _Stores, wanted: int) -> int:
    """What is left in stores of what is wanted; from the one in front first."""
    taken = 0
    for store, name in stores:
        if taken == wanted:
            break
        left = store - moves.at(name)
        if left > 0:
            took = min(left, wanted - taken)
            moves.add(name, took)
            taken += took
    return taken


def _give_back(moves: _Moves, stores: _Stores, amount: int) -> int:
    """What of an amount goes back to stores that were drawn from; to the last one first."""
    returned = 0
    for _, name in reversed(stores):
        back = min(moves.at(name), amount - returned)
        moves.add(name, -back)
        returned += back
    return returned


def _discount(billing: Billing, terms: _Terms, moves: _Moves, charged: NanoUsd) -> tuple[int, int, NanoUsd]:
    """The request's number, its discount in parts of `WHOLE`, and what comes back for those before it."""
    request = moves.at(terms.requests) + 1
    moves.add(terms.requests, 1)
    parts, rebate = discount_of(billing, request), 0
    if billing.applies == "whole" and parts != (earlier := discount_of(billing, request - 1)):
        rebate = _parts_of(moves.at(terms.listed), parts - earlier)
    moves.add(terms.listed, charged)
    return request, parts, rebate


def _money_back(terms: _Terms, moves: _Moves, rebate: NanoUsd, owed: NanoUsd) -> NanoUsd:
    """What of a rebate is money: no more than the month has cost; the rest fills the free money that paid for it."""
    money = min(rebate, moves.at(terms.owed) + owed)
    _give_back(moves, terms.money, rebate - money)
    return money


def _licence(billing: Billing, moves: _Moves, month: str, order: Billable) -> tuple[NanoUsd, NanoUsd]:
    """What the owner of the weights is owed for the pictures, and the month's fee where they are its first."""
    licence = billing.licence(order.model)
    if licence is None or not order.pictures:
        return 0, 0
    name = f"{month}/licence/{licence.model}"
    before = moves.at(name)
    moves.add(name, order.pictures)
    beyond = before + order.pictures - max(before, licence.included)
    return licence.overage * max(beyond, 0), licence.fee if before == 0 else 0


def _alike(billing: Billing, counters: Mapping[str, int], billed: Billed, order: Billable, left: int) -> int:
    """How many orders from here on cost the same, at least one."""
    edges = [tier.first - billed.request for tier in billing.tiers if tier.first > billed.request]
    licence = billing.licence(order.model)
    if licence is not None and order.pictures and licence.overage:
        unused = licence.included - counters.get(f"{billed.month}/licence/{licence.model}", 0)
        if unused > 0:
            edges.append(unused // order.pictures)
    for allowance in _allowances_at(billing, order.at) if billed.free else ():
        name = _counter(allowance, billed.month)
        move = billed.moves.get(name, 0)
        if move:
            edges.append(((allowance.images or allowance.amount or 0) - counters.get(name, 0)) // move)
    return max(min([left, *edges]), 1)


def _allowances_at(billing: Billing, at: datetime) -> Iterator[Allowance]:
    return (each for each in billing.allowances if _holds(each.since, each.until, at))


def _lots_at(billing: Billing, at: datetime) -> list[Lot]:
    """The lots that count at a moment, those that expire first in front; sorting keeps the order of equals."""
    if not billing.lots:
        return []
    held = [lot for lot in billing.lots if _holds(lot.since, lot.expires, at)]
    return sorted(held, key=_end) if len(held) > 1 else held


def _end(lot: Lot) -> datetime:
    return lot.expires or _NEVER


def _holds(since: datetime | None, until: datetime | None, at: datetime) -> bool:
    return (since is None or since <= at) and (until is None or at < until)


def _counter(allowance: Allowance, month: str) -> str:
    return f"{month}/free/{allowance.name}" if allowance.monthly else f"free/{allowance.name}"


def _parts_of(amount: NanoUsd, parts: int) -> NanoUsd:
    return _share(amount, parts, WHOLE)


def _share(amount: NanoUsd, part: int, whole: int) -> NanoUsd:
    """A part of an amount, rounded half to even."""
    quotient, rest = divmod(amount * part, whole)
    return quotient + 1 if 2 * rest > whole or (2 * rest == whole and quotient & 1) else quotient


@lru_cache(maxsize=1024)
def _month_in(zone: str, quarter: int) -> str:
    """The month of a quarter of an hour since 1970: no zone of today parts months within one."""
    return f"{datetime.fromtimestamp(quarter * _QUARTER_S, _zone(zone)):%Y-%m}"


@lru_cache
def _zone(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)  # not every machine has a file on UTC
