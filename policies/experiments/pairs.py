"""A pair: one live call, and the copy of it that a challenger drew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from msgspec import Struct

from policies.money import NanoUsd
from policies.types import OfferId, Requirements

Outcome: TypeAlias = Literal["delivered", "refused", "failed", "timeout", "blank"]
"""`refused`: the prompt was; `blank`: a picture came, and nothing is on it."""


class Side(Struct, frozen=True, kw_only=True):
    """How one of the two ended."""

    offer: OfferId
    account: str
    quoted: NanoUsd
    billed: NanoUsd
    latency_s: float
    """From the order to the picture, or to the failure."""
    queue_s: float | None = None
    """Of that, in the seller's queue; None where it does not say."""
    outcome: Outcome = "delivered"
    error: str | None = None
    """The class of the error."""
    width: int = 0
    """Of the picture that came, in pixels; 0 where none did."""
    height: int = 0
    asset: str | None = None
    """The kept picture; None where none is kept."""

    @property
    def delivered(self) -> bool:
        """Whether a picture came that shows something."""
        return self.outcome == "delivered"


class Pair(Struct, frozen=True, kw_only=True):
    """Both sides of one call, and what was measured between their pictures."""

    id: str
    experiment: str
    challenger: str
    call_id: str
    at: float
    """When the call came (unix seconds)."""
    stratum: str = ""
    """What it is told apart by (`sampling.stratum_of`)."""
    share: float = 1.0
    """The share of calls like it that are copied; it stands for 1 / share of them."""
    terms: str = ""
    """What was compared with what (`definition.terms_of`); empty where that was not kept."""
    require: Requirements = Requirements()
    """What the call asked of whoever handles its data; who else is shown its pictures must keep to it, too."""
    champion: Side
    challenger_side: Side
    measures: Mapping[str, float] = {}
    """Those of `picture_measures.measures`, and what models and people said; `definition.OF_PICTURES` are challenger
    minus champion, and more is better. Empty until somebody has measured the pictures, or where there are none."""
    voted: float | None = None
    """When the first vote on it came in (unix seconds), which is its place among the pairs voted on; None: none did."""
    expires: float
    """Unix seconds after which it is erased."""
