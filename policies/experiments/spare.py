"""The engine of copies: one offer, one order, and only from room that nobody else is likely to need.

A copy is the first thing to be given up. It never waits in line and is never ordered twice. It takes room of an account
only while nobody waits there, and
  - of slots and rates, while twice as many orders as are under way, itself included, would still find room: so at least
    half of the slots, and of a burst, stay free for live calls;
  - or of a rate alone, where no live order went to the account for `QUIET_S`, and then half of it at most.
An account with one slot is never copied to.

What becomes of copies teaches the engine of live calls nothing: a challenger that fails closes no breaker, and one that
is slow moves no forecast. It is only told of what they spend of an account's rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from msgspec.structs import replace

from policies.eligibility import objection, price_objection
from policies.experiments.definition import Param
from policies.offer_prices import quote_at
from policies.policy import Policy
from policies.tariffs import Unpriced
from policies.types import (
    Ask,
    Candidate,
    Capacity,
    CapacityId,
    Decision,
    Engine,
    Event,
    Offer,
    OfferId,
    Reason,
    Rejection,
    Shed,
    Submit,
    View,
)

PAUSE_S = 1.0
"""Seconds for which an account gets no copies after it refused one; doubled up to `PAUSE_AT_MOST_S`."""
PAUSE_AT_MOST_S = 300.0
QUIET_S = 60.0
"""Seconds without a live order after which nobody is likely to need an account's rate the next moment."""


class Usage:
    """Who used accounts lately, and which of them said that a copy was too much; shared by all experiments."""

    def __init__(self, began: float) -> None:
        """`began`: since when live orders are noted; before that, any may have been placed."""
        self._began = began
        self._until: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._live: dict[str, float] = {}
        self._copies: dict[CapacityId, float] = {}

    def assume_quiet(self) -> None:
        """No live calls are served here."""
        self._began = -inf

    def served(self, account: str, now: float) -> None:
        """A live call was served there."""
        self._live[account] = now

    def is_quiet(self, account: str, now: float) -> bool:
        """Whether no live order went there for a while."""
        return now - self._live.get(account, self._began) >= QUIET_S

    def copied(self, capacities: tuple[CapacityId, ...], now: float) -> None:
        """A copy went out against these."""
        self._copies |= dict.fromkeys(capacities, now)

    def since_copy(self, capacity: CapacityId, now: float) -> float:
        """Seconds since a copy last went out against a capacity."""
        return now - self._copies.get(capacity, -inf)

    def until(self, account: str) -> float:
        """When an account may get copies again; a moment in the past where it may now."""
        return self._until.get(account, -inf)

    def refused(self, account: str, retry_after: float | None, now: float) -> None:
        """Leave an account alone for as long as it asked, or ever longer."""
        seconds = min(2.0 * self._seconds.get(account, PAUSE_S / 2.0), PAUSE_AT_MOST_S)
        self._seconds[account] = seconds
        self._until[account] = now + max(seconds, retry_after or 0.0)

    def took(self, account: str) -> None:
        """It took one."""
        self._seconds.pop(account, None)


class SpareEngine:
    """Places a copy where it is to go, or not at all."""

    def __init__(
        self,
        live: Engine,
        capacities: Mapping[CapacityId, Capacity],
        offers: Mapping[OfferId, Offer],
        usage: Usage,
        fields: Mapping[str, Param] | None = None,
    ) -> None:
        """`live` knows the limits; `fields` are sent with every order, in the seller's own words."""
        self._live = live
        self._capacities = capacities
        self._offers = offers
        self._usage = usage
        self._fields = fields or {}

    def __repr__(self) -> str:
        return f"<SpareEngine beside {self._live!r}>"

    def decide(self, ask: Ask, view: View, now: float, reason: Reason) -> Decision:
        """Submit to the one offer that the ask names, if there is room to spare; else give the copy up."""
        move, price_revision = self._move(ask, view, now, reason), view.prices
        return Decision(move=move, policy="", prices=price_revision, reason=reason)

    def _move(self, ask: Ask, view: View, now: float, reason: Reason) -> Submit | Shed:
        if reason != "new":
            return _shed("", "tried", "a copy is ordered once")
        found: Rejection | None = None
        for offer in view.offers(ask.constraints.models):
            if ask.constraints.only is not None and offer.account not in ask.constraints.only:
                continue
            asked = replace(ask, request=ask.constraints.asked(offer.id, ask.request))
            found = self._objection(offer, asked, view, now)
            if found is None:
                return self._submit(offer, asked, view)
        return Shed((found or Rejection(offer="", code="model", reason="nobody sells it"),))

    def _submit(self, offer: Offer, ask: Ask, view: View) -> Submit | Shed:
        try:
            price = quote_at(offer, ask.request, revision=view.prices)
        except Unpriced as error:
            return _shed(offer.id, "price", f"{offer.id}: {error}")
        dear = price_objection(offer, ask, price)
        if dear is not None:
            return Shed((dear,))
        if self._fields:
            able = replace(offer.abilities, fixed={**offer.abilities.fixed, **self._fields})
            offer = replace(offer, abilities=able)
        # Nobody gives a copy up before its deadline: how long it takes is what we want to know.
        patient = ask.constraints.deadline
        return Submit(Candidate(offer=offer, quote=price, latency_p50=patient, latency_p95=patient, headroom=1))

    def _objection(self, offer: Offer, ask: Ask, view: View, now: float) -> Rejection | None:
        objected = objection(offer, ask)
        if objected is not None:
            return objected
        left = self._usage.until(offer.account) - now
        if left > 0:
            why = f"{offer.account} refused a copy; it gets none for {left:.0f} s"
            return Rejection(offer=offer.id, code="headroom", reason=why, lasting=False)
        for capacity in offer.capacities:
            if not self._is_spare(capacity, offer.account, view, now):
                why = f"{capacity} has no room that live calls may not need"
                return Rejection(offer=offer.id, code="headroom", reason=why, lasting=False)
        return None

    def _is_spare(self, capacity: CapacityId, account: str, view: View, now: float) -> bool:
        if view.waiting(capacity):
            return False
        busy = view.in_flight(capacity)
        if self._live.room(capacity, 2 * busy + 1, now) <= 0:
            return True
        known = self._capacities.get(capacity)
        if known is None or known.rate is None or not self._usage.is_quiet(account, now):
            return False
        seldom = self._usage.since_copy(capacity, now) >= 2.0 / known.rate
        return seldom and self._live.room(capacity, busy, now) <= 0

    def observe(self, event: Event, now: float) -> None:
        """Tell the engine of live calls what is spent; keep what happened to copies to ourselves."""
        if event.kind == "submitted":
            self._usage.copied(self._offers[event.offer].capacities, now)
            self._live.observe(replace(event, kind="beside"), now)
        elif event.kind == "throttled":
            self._usage.refused(self._offers[event.offer].account, event.retry_after, now)
        elif event.kind == "ok":
            self._usage.took(self._offers[event.offer].account)

    def tick(self, view: View, now: float) -> None:
        """Nothing is planned for copies."""

    def room(self, capacity: CapacityId, in_flight: int, now: float, spare: float = 0.0) -> float:
        """As the engine of live calls says."""
        return self._live.room(capacity, in_flight, now, spare)

    def under(
        self,
        policy: Policy,  # noqa: ARG002 - as `Engine` has it
        capacities: Mapping[CapacityId, Capacity],
        offers: Mapping[OfferId, Offer],
    ) -> Engine:
        """The engine of copies over other offers."""
        return SpareEngine(self._live, capacities, offers, self._usage, self._fields)

    def beside(self, policy: Policy) -> Engine:  # noqa: ARG002 - as `Engine` has it
        """Itself: a policy has no say in it."""
        return self


def _shed(offer: OfferId, code: str, reason: str) -> Shed:
    return Shed((Rejection(offer=offer, code=code, reason=reason),))
