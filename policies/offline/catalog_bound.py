"""The least J that anybody could have had in a catalogue's world, had it known everything beforehand.

Lagrangian relaxation, as in the routing bench: for any prices of slots and rates that are not negative, every request
served where it costs least, prices included, less what all capacity is worth at them, is at most the J of every policy.
Sub-gradient steps only tighten it.

What is relaxed (each point can only lower the bound): work is divisible and may lie anywhere between arrival and the
end of its window; nothing fails, is cold, or travels; an answer in a late window is as late as the window begins, or as
its own length makes it; within an account, a late answer costs what its cheapest offer does and takes what its
quickest does; capacity that ends lingers for three minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

import numpy as np

from policies.offline.catalog_world import CatalogWorld
from policies.offline.world import OK, SLOT, Floats, Ints
from policies.tariffs import by_time

MOST = 60_000
"""Requests above which it is not computed: it would take minutes."""
_RATE_S = 600.0
_LINGER = 18  # slots
_LATE = (0.0, 5.0, 20.0, 60.0, inf)
"""Windows end so many seconds after the objective; the first is in time, the last ends at the deadline."""


class RangeMin:
    """Least value, and where it stands, over a range of slots for each request, by sparse table."""

    def __init__(self, first: Ints, last: Ints) -> None:
        self.first, length = first, last - first + 1
        self.level = np.floor(np.log2(length)).astype(int)
        self.second = last - (1 << self.level) + 1
        self.top = int(self.level.max()) if len(first) else 0

    def __call__(self, values: Floats) -> tuple[Floats, Ints]:
        """The least of each range."""
        least, where = [values], [np.arange(len(values))]
        for level in range(1, self.top + 1):
            half = 1 << (level - 1)
            m, a = least[-1], where[-1]
            later = np.concatenate([m[half:], np.full(half, np.inf)])
            at = np.concatenate([a[half:], a[-1:].repeat(half)])
            least.append(np.where(later < m, later, m))
            where.append(np.where(later < m, at, a))
        values_of, places = np.stack(least), np.stack(where)
        va, vb = values_of[self.level, self.first], values_of[self.level, self.second]
        pa, pb = places[self.level, self.first], places[self.level, self.second]
        return np.where(vb < va, vb, va), np.where(vb < va, pb, pa)


class Options(NamedTuple):
    """N requests by C ways to serve them."""

    cost: Floats
    """[N, C] nano-dollars; inf where that is no way."""
    use: Floats
    """[N, C] seconds of a slot."""
    account: Ints
    """[C]"""
    window: Ints
    """[C] index into `_LATE`."""
    nothing: Floats
    """[N] nano-dollars of no answer."""


def lower_bound(world: CatalogWorld, iterations: int = 200) -> float | None:
    """Nano-dollars below which no policy can be; None when there are more than `MOST` requests."""
    if not 0 < world.size <= MOST:
        return None
    options = _options(world)
    return max(_climb(world, options, iterations), 0.0)


def _options(world: CatalogWorld) -> Options:
    kinds, n = world.kind, world.size
    rows = [world.row(kind) for kind in range(len(world.kinds))]
    serves = np.array([row.serves for row in rows], bool)
    sold = np.nonzero(serves.any(axis=0))[0]
    luck = world.luck(np.arange(n))[:, sold]
    seconds = np.array([row.seconds for row in rows])[:, sold][kinds] * luck * world.mult.min(axis=1)[sold][None, :]
    price = np.array([row.price for row in rows], np.float64)[:, sold][kinds]
    timed = np.array([by_time(world.offers[e].tariff) for e in sold], bool)
    price[:, timed] = np.maximum(price[:, timed] * luck[:, timed] - 1.0, 0.0)
    price *= world.pricemul.min(axis=1)[sold][None, :]
    price[~serves[:, sold][kinds]] = inf
    slo, deadline, flat, second, failure = _terms(world)
    account = np.array([world.endpoints[e].account for e in sold])
    cost, use, owner, window = (
        [np.where(seconds <= slo[:, None], price, inf)],
        [seconds],
        [account],
        [np.zeros(len(sold), np.int64)],
    )
    over = np.maximum(seconds - slo[:, None], 0.0)
    for number in range(1, len(_LATE)):
        at_least = np.maximum(over, _LATE[number - 1])
        ends = np.minimum(slo + _LATE[number], deadline)
        late = np.where(seconds <= ends[:, None], price + flat[:, None] + second[:, None] * at_least, inf)
        for a in range(len(world.accounts)):
            mine = account == a
            if not mine.any():
                continue
            able = np.where(np.isfinite(late[:, mine]), seconds[:, mine], inf).min(axis=1)
            cost.append(late[:, mine].min(axis=1)[:, None])
            use.append(np.where(np.isfinite(able), able, 0.0)[:, None])
            owner.append(np.array([a]))
            window.append(np.array([number]))
    return Options(
        np.concatenate(cost, axis=1),
        np.concatenate(use, axis=1),
        np.concatenate(owner),
        np.concatenate(window),
        failure,
    )


def _terms(world: CatalogWorld) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    found = []
    for kind in world.kinds:
        terms, worth = kind.constraints, kind.worth
        found.append((terms.slo, terms.deadline, worth.late, worth.late_second, worth.failure))
    table = np.array(found, np.float64)[world.kind]
    return table[:, 0], table[:, 1], table[:, 2], table[:, 3], table[:, 4]


def _capacity(world: CatalogWorld, slots: int) -> Floats:
    """[A, slots] slot-seconds, capacity that ends lingering on."""
    caps = np.zeros((len(world.accounts), slots))
    for account in world.accounts:
        limit = np.where(world.outage[account.index] != OK, 0.0, world.limit[account.index])
        limit = np.concatenate([limit, np.full(slots, limit[-1])])[:slots]
        pad = np.concatenate([np.full(_LINGER, limit[0]), limit])
        caps[account.index] = np.max([pad[j : j + slots] for j in range(_LINGER + 1)], axis=0) * SLOT
    return caps


def _windows(at: Floats, ends: Sequence[Floats], width: float) -> tuple[list[RangeMin], int]:
    first = (at // width).astype(int)
    last = [((at + end) // width).astype(int) for end in ends]
    slots = max(int(each.max()) for each in last) + 1
    return [RangeMin(first, each) for each in last], slots


def _climb(world: CatalogWorld, options: Options, iterations: int) -> float:
    at = np.asarray(world.arrivals())
    at = at - at[0] if world.outage.shape[1] == 1 else at
    slo, deadline = _terms(world)[:2]
    ends = [np.minimum(slo + late, np.maximum(deadline, slo)) for late in _LATE]
    windows, slots = _windows(at, ends, SLOT)
    rate_windows, rate_slots = _windows(at, ends, _RATE_S)
    caps = _capacity(world, slots)
    rate = {a.index: a.burst + a.rpm / 60.0 * _RATE_S for a in world.accounts if a.rpm}
    lam, tau = np.zeros((len(world.accounts), slots)), np.zeros((len(world.accounts), rate_slots))
    lines, best = np.arange(world.size), -inf
    for step in range(iterations):
        cost = options.cost.copy()
        places: dict[tuple[int, int], tuple[Ints, Ints | None]] = {}
        for a, w in sorted(set(zip(options.account.tolist(), options.window.tolist(), strict=True))):
            mine = np.nonzero((options.account == a) & (options.window == w))[0]
            least, where = windows[w](lam[a])
            cost[:, mine] += options.use[:, mine] * least[:, None]
            order_at = None
            if a in rate:
                least, order_at = rate_windows[w](tau[a])
                cost[:, mine] += least[:, None]
            places[a, w] = where, order_at
        pick = cost.argmin(axis=1)
        found = cost[lines, pick]
        served = found < options.nothing
        value = float(np.where(served, found, options.nothing).sum() - (lam * caps).sum())
        value -= sum(float(tau[a].sum()) * cap for a, cap in rate.items())
        best = max(best, value)
        eta = 2e6 / (1 + step / 25.0)
        used, orders = np.zeros_like(lam), np.zeros_like(tau)
        account, window = options.account[pick], options.window[pick]
        for (a, w), (where, order_at) in places.items():
            here = served & (account == a) & (window == w)
            used[a] += np.bincount(where[here], weights=options.use[lines[here], pick[here]], minlength=slots)
            if order_at is not None:
                orders[a] += np.bincount(order_at[here], minlength=rate_slots)
        lam = np.maximum(0.0, lam + eta * np.clip((used - caps) / np.maximum(caps, 30.0), -1, 3))
        for a, cap in rate.items():
            tau[a] = np.maximum(0.0, tau[a] + eta * np.clip((orders[a] - cap) / cap, -1, 3))
    return best
