"""What our own machines cost: busy by the books, owned by the hour, idle in between."""

from __future__ import annotations

from msgspec.structs import replace

from gateway.cli.machines import UNTOLD, costs
from gateway.storage.rows import AttemptRow, Outcome
from tests.support.books import attempt

HOUR = 340_000_000


def drawn(machine: str, cost: int) -> AttemptRow:
    return replace(attempt("settled", cost=cost), outcome=Outcome(machine=machine))


def test_busy_and_idle_are_what_a_machine_costs_and_each_machine_is_told_apart() -> None:
    rows = [drawn("a", 94_444), drawn("a", 94_445), drawn("b", 1_000)]
    a, b, c = costs(rows, "own", ["a", "b", "c"], HOUR, 24.0)
    assert (a.machine, a.orders, a.busy_nano_usd, a.owned_nano_usd) == ("a", 2, 188_889, 8_160_000_000)
    assert a.idle_nano_usd == 8_160_000_000 - 188_889
    assert round(a.busy_s, 4) == 2.0
    assert (b.orders, c.orders, c.idle_nano_usd) == (1, 0, 8_160_000_000)


def test_orders_that_no_machine_told_of_are_a_line_of_their_own_and_what_was_never_taken_is_none() -> None:
    lost = replace(attempt("released"), outcome=Outcome(error="outcome_unknown"))
    full = replace(attempt("released"), outcome=Outcome(error="overloaded"))
    settled_by_log = drawn("", 500)
    waiting = replace(attempt("suspended"), outcome=Outcome(error="timed_out"))
    _, untold = costs([lost, full, settled_by_log, waiting], "own", ["a"], HOUR, 1.0)
    assert (untold.machine, untold.orders, untold.busy_nano_usd, untold.owned_nano_usd) == (UNTOLD, 2, 500, 0)
