"""Identifiers: a prefix that says what it names and 128 random bits, so that none can be guessed."""

from __future__ import annotations

import secrets


def new_id(prefix: str) -> str:
    """A fresh identifier such as `call_3f9c...` (32 hexadecimal digits)."""
    return f"{prefix}_{secrets.token_hex(16)}"


def sibling(identifier: str, prefix: str) -> str:
    """The identifier that shares its random bits under another prefix: `call_3f` -> `dec_3f`."""
    return f"{prefix}_{identifier.partition('_')[2]}"
