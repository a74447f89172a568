"""What the ledger keeps balances of, and how a command moves them."""

from __future__ import annotations

from typing import Literal, TypeAlias

Account: TypeAlias = tuple[Literal["cost", "charge", "key", "budget cost", "budget charge"], str]
"""A balance: what we owe a provider account, what a team owes us, which part of that one key caused, and what counts in
one window of a budget."""

Change: TypeAlias = tuple[Account, int, int]
"""What is added to an account's held and posted."""
