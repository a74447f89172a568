"""Identifiers: a prefix that says what it names, the time in milliseconds, and 88 random bits that nobody can guess.

The time comes first because a database keeps its indexes in order: new rows then land side by side instead of each on
a page of its own, which halves the cost of a commit.
"""

from __future__ import annotations

import os
import time


def new_id(prefix: str) -> str:
    """A fresh identifier: `call_019a...` (12 hexadecimal digits of time, 22 of chance)."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{os.urandom(11).hex()}"


def sibling(identifier: str, prefix: str) -> str:
    """The identifier that shares its digits under another prefix: `call_3f` -> `dec_3f`."""
    return f"{prefix}_{identifier.partition('_')[2]}"
