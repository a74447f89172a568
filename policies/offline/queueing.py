"""How many slots a peak needs: Erlang's C formula for orders that come at random and wait in one line."""

from __future__ import annotations

from math import ceil, exp

from msgspec import Struct

MOST_SLOTS = 100_000


class Slots(Struct, frozen=True, kw_only=True):
    """Slots for a peak, and what callers will see with them."""

    slots: int
    load: float
    """Orders in flight on average."""
    busy: float
    """Share of the slots in use on average."""
    waits: float
    """Share of orders that wait at all."""
    late: float
    """Share of orders that wait longer than was allowed."""


def erlang_c(slots: int, load: float) -> float:
    """Share of orders that wait, with `load` orders in flight on average; 1 when the slots cannot keep up."""
    if load >= slots:
        return 1.0
    blocked = 1.0
    for busy in range(1, slots + 1):  # Erlang B, by its recursion: stable for any number of slots
        blocked = load * blocked / (busy + load * blocked)
    return blocked / (1 - load / slots * (1 - blocked))


def late(slots: int, load: float, seconds: float, wait: float) -> float:
    """Share of orders that wait longer than `wait`, each taking `seconds` on average once it runs."""
    return erlang_c(slots, load) * exp(-max(slots - load, 0.0) * wait / seconds)


def slots_for(per_second: float, seconds: float, wait: float, on_time: float) -> Slots:
    """The fewest slots with which a share `on_time` of orders starts within `wait` seconds.

    `per_second` orders come at random. Raises `ValueError` when that is beyond reason.
    """
    load = per_second * seconds
    low, high = ceil(load + 1e-9), ceil(load + 1e-9)
    while late(high, load, seconds, wait) > 1 - on_time:
        low, high = high + 1, high * 2
        if high > MOST_SLOTS:
            raise ValueError(f"more than {MOST_SLOTS:,} slots")
    while low < high:
        middle = (low + high) // 2
        if late(middle, load, seconds, wait) > 1 - on_time:
            low = middle + 1
        else:
            high = middle
    return Slots(
        slots=high,
        load=load,
        busy=load / high,
        waits=erlang_c(high, load),
        late=late(high, load, seconds, wait),
    )
