"""What is kept of experiments: their pairs, and by whom the calls were asked for, so that it can be erased."""

from __future__ import annotations

from msgspec import Struct

from policies.experiments.pairs import Pair

PARTY = "shadow:"
"""What the party of an experiment is called by in the books, before its name: no team may be."""


SENTINEL = "_sentinel"
"""Stands where the name of an experiment does for what is drawn to watch offers; no experiment is called so."""


def party(experiment: str) -> str:
    """Under which name the books keep what copies of an experiment cost."""
    return f"{PARTY}{experiment}"


class ShadowRow(Struct, frozen=True, kw_only=True):
    """A pair as it is kept, with what is not for reports."""

    pair: Pair
    shadow_call: str
    """The copy's call; the pictures of both sides are kept under it."""
    delivered: bool = True
    """Whether the live call's caller got a picture."""
    team: str
    """Who asked for the live call."""
    user: str | None = None
    """The end user it was for."""
    measured: bool = False
    """Whether its pictures were looked at, or there is nothing to look at."""
