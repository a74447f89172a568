"""Budgets by window, inside the writer's transaction: which counters an order moves, and whether they have room."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import msgspec
from msgspec import Struct

from gateway.errors import BudgetSpent
from gateway.storage.budgets import (
    OF_COSTS,
    Window,
    about,
    counted_windows,
    counter,
    limit_at,
    spender,
    window_at,
)
from gateway.storage.database.sqlite.accounts import Account, Change
from gateway.storage.rows import Book, BudgetRow, NewHold
from policies.money import to_usd


class Counters(Struct, frozen=True):
    """Names of the counters that an order's cost and its charge move; kept with the order, for the day it is closed."""

    cost: tuple[str, ...] = ()
    charge: tuple[str, ...] = ()

    def changes(self, held_cost: int, held_charge: int, cost: int = 0, charge: int = 0) -> Iterator[Change]:
        """What holding or closing the order does to them."""
        for name in self.cost:
            yield ("budget cost", name), held_cost, cost
        for name in self.charge:
            yield ("budget charge", name), held_charge, charge

    def posted(self, book: Book, amount: int) -> Iterator[Change]:
        """What a correction in one book does to them."""
        return self.changes(0, 0, amount, 0) if book == "cost" else self.changes(0, 0, 0, amount)


decode_counters = msgspec.json.Decoder(Counters).decode


class Windowed:
    """The budgets in force."""

    def __init__(self, budgets: Sequence[BudgetRow]) -> None:
        self._budgets = {budget.id: budget for budget in budgets if budget.removed is None}
        self._windows: dict[str, Window] = {}

    def counters(self, hold: NewHold, at: datetime) -> Counters | None:
        """The counters an order moves; None when no budget is about it."""
        if not self._budgets:
            return None
        cost: list[str] = []
        charge: list[str] = []
        for budget in self._budgets.values():
            word = spender(budget, hold)
            if word is not None:
                names = cost if budget.of in OF_COSTS else charge
                names.append(counter(budget, self._window(budget, at), word))
        return Counters(tuple(cost), tuple(charge)) if cost or charge else None

    def check(self, changes: Sequence[Change], at: datetime, balance: Callable[[Account], Sequence[int]]) -> None:
        """Refuse when more is asked for, in all, than a window has left. Raises `BudgetSpent`."""
        if not self._budgets:
            return
        asked: dict[Account, int] = {}
        for account, held, _ in changes:
            if account[0] in ("budget cost", "budget charge"):
                asked[account] = asked.get(account, 0) + held
        for account, amount in asked.items():
            budget_id, _, word = account[1].split("/")
            budget = self._budgets.get(budget_id)
            if budget is None or amount <= 0:
                continue
            names = [counter(budget, window, word) for window in counted_windows(budget, at)]
            held, posted = (sum(each) for each in zip(*(balance((account[0], name)) for name in names), strict=True))
            if held + posted + amount > limit_at(budget, at):
                raise _spent(budget, at, posted, held, amount)

    def _window(self, budget: BudgetRow, at: datetime) -> str:
        """The current window's name; reckoned anew only when the last one is over."""
        known = self._windows.get(budget.id)
        if known is None or (known.start is not None and known.end is not None and not known.start <= at < known.end):
            known = self._windows[budget.id] = window_at(budget, at)
        return known.name


def _spent(budget: BudgetRow, at: datetime, posted: int, held: int, asked: int) -> BudgetSpent:
    limit, end = limit_at(budget, at), window_at(budget, at).end
    renews = "" if end is None else f" It renews at {end:%Y-%m-%d %H:%M} UTC."
    figures = {"budget": limit, "posted": posted, "held": held, "asked": asked}
    error = BudgetSpent(
        f"The budget of {about(budget)} is {to_usd(limit)} USD: {to_usd(posted)} spent, {to_usd(held)} set aside, "
        f"and this asks for {to_usd(asked)}.{renews} More for a while: pixelgate budgets raise {budget.id}.",
        extra={
            "budget": {
                "id": budget.id,
                "of": about(budget),
                **{f"{name}_nano_usd": value for name, value in figures.items()},
                "renews": end,
            }
        },
    )
    error.left, error.of_offer = max(limit - posted - held, 0), budget.of in ("account", "model")
    error.budget = budget.id
    return error
