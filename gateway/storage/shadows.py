"""What is kept of experiments: their pairs, and by whom the calls were asked for, so that it can be erased."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from msgspec import Struct

from policies.experiments.pairs import Pair
from policies.money import NanoUsd

PARTY = "shadow:"
"""What the party of an experiment is called by in the books, before its name: no team may be."""


SENTINEL = "_sentinel"
"""Stands where the name of an experiment does for what is drawn to watch offers; no experiment is called so."""


def party(experiment: str) -> str:
    """Under which name the books keep what copies of an experiment cost."""
    return f"{PARTY}{experiment}"


class Compared(NamedTuple):
    """What some pairs compare."""

    experiment: str
    challenger: str
    terms: str
    """As `definition.terms_of` writes it; empty where that was not kept."""


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


class Judged(Struct, frozen=True, kw_only=True):
    """What a judge was asked about an experiment."""

    judgements: Mapping[int, int] = {}
    """1: the challenger is better, -1: the champion, 0: neither -> pairs."""
    failures: Mapping[str, int] = {}
    """Why it did not say -> times."""
    cost: NanoUsd = 0
    """By the price in the settings; on no ledger."""


class VoteRow(Struct, frozen=True, kw_only=True):
    """What somebody said of a pair."""

    experiment: str
    pair: str
    voter: str
    choice: int
    """1: the challenger's picture is better, -1: the champion's, 0: neither."""
    at: datetime
    """When they chose."""
    imported: datetime
    """When it came in first."""
