"""Budgets that act before they are spent: which of them are past their soft limit, and so what is done with a call.

The database is looked at once a second, and only where a budget acts; a call looks at what was found. So a soft limit
is passed by what a second spends, and costs calls nothing while none is passed. The hard limit is in the commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import structlog
from msgspec import Struct

from gateway.requests.call import Caller
from gateway.storage.budgets import about, by_word, counted_windows, soft_limit_at, spender
from gateway.storage.database import Database
from gateway.storage.rows import BudgetRow

log = structlog.get_logger("gateway.soft_limits")


class Past(Struct, frozen=True):
    """A budget that is past its soft limit, and for whom."""

    budget: BudgetRow
    words: frozenset[str]
    """Of a budget for each: whose counters are past it (`gateway.storage.budgets.spender`)."""


class Spends(Struct, frozen=True, kw_only=True):
    """Who would spend, before it is known on what: what `spender` looks at."""

    team: str
    key_id: str
    user: str | None
    tags: Mapping[str, str]
    model: str = ""
    account: str = ""


class SoftLimits:
    """The budgets that act now."""

    def __init__(self) -> None:
        self.past: tuple[Past, ...] = ()

    def __repr__(self) -> str:
        return f"<SoftLimits, {len(self.past)} past>"

    async def look(self, db: Database, now: datetime) -> None:
        """See which budgets are past their soft limit."""
        found = []
        for budget in await db.budgets():
            if budget.soft is None or budget.then == "notify":
                continue
            counters = by_word(await db.counters(budget.id, counted_windows(budget, now)))
            soft = soft_limit_at(budget, now)
            if words := frozenset(word for word, each in counters.items() if each.held + each.posted >= soft):
                found.append(Past(budget, words))
        before, self.past = {each.budget.id for each in self.past}, tuple(found)
        for each in found:
            if each.budget.id not in before:
                log.warning("soft_limit_passed", budget=each.budget.id, detail=in_words(each.budget))

    def on(self, caller: Caller, user: str | None, tags: Mapping[str, str]) -> tuple[BudgetRow, ...]:
        """The budgets past their soft limit that a call counts in."""
        who = Spends(team=caller.team, key_id=caller.key_id, user=user, tags=tags)
        return tuple(each.budget for each in self.past if spender(each.budget, who) in each.words)


def in_words(budget: BudgetRow) -> str:
    """`the budget of team acme per month is past its soft limit of 80 %`."""
    return f"the budget of {about(budget)} is past its soft limit of {budget.soft} %"
