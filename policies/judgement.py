"""Decides from a picture and nothing else: the same picture gives the same decision, today or replayed.

submit   the offer of the least total has room
wait     it has none, but what it costs with the time in line is still the least, and that time is to be had
submit   beside an order that takes long, where a second one saves more than it costs
shed     nobody can serve this, or not in time
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

from msgspec import Struct

from policies import hedging
from policies.picture import Picture, Seen
from policies.policy import Policy
from policies.scorers import Scales, scales
from policies.types import (
    Ask,
    Candidate,
    Constraints,
    Decision,
    Offer,
    OfferId,
    Preference,
    Rejection,
    Shed,
    Submit,
    Wait,
)

LOOK_AGAIN_S = 1.0
"""A part for which nothing has room looks again after this long: another may have some before the one it waits for."""
_PATIENCE = 0.75
"""Of the time it has to spare, after which a part in line looks again, room or not: going elsewhere may be better.
An order under way is looked at again after as much of the time in which a second one could still be of use."""
_PATIENT_AT_MOST_S = 10.0
_PATIENT_FOR_MACHINES_S = 400.0
"""The same for machines of our own: what they draw costs nothing, so little comes between."""
_ANXIOUS_S = 0.1
_TOO_LATE_S = 0.15
"""Between two looks of a part that nobody would serve in time for certain."""
_MARGIN = 1.1
"""So many times the p95 of the best of the others have to be left to go there: it may fail, or fill up meanwhile."""
_LAST_S = 2.0
"""With no more to spare, who waits for a machine looks again at the last moment to go elsewhere, and not before."""
_SOONEST_S = 0.1
_NEAR_S = 1.5
_LONGEST_S = 15.0
_YIELD_S = 3.0
_HOPELESS = 0.9
_LOOK_AT_LEAST_S = 0.25
"""Sooner a second order would not be worth the look: the way to a seller and back takes as long."""
_CLOSELY_S = 0.1
_QUICK_MARGIN = 1.35
"""An order nearly always ends within this many times its forecast."""
_EARLIEST = 1.3
"""Times its median, before which nobody worries about an order."""


def least(a: float, b: float) -> float:
    """The lesser: `min` takes three times as long, and four times where a decision has not called it lately."""
    return a if a < b else b  # noqa: FURB136 - see above


def most(a: float, b: float) -> float:
    """The greater, as above."""
    return a if a > b else b  # noqa: FURB136


class Weighed(Struct, frozen=True, gc=False, order=True):
    """An offer and what it would cost in all; the least is the best."""

    place: int
    """Where it stands in the caller's own order."""
    first: float
    """What the caller asked to have least of, if anything."""
    total: int
    name: OfferId
    scores: tuple[int, ...]
    """The total by scorer, in the order of `SCORED`."""
    seen: Seen
    offer: Offer

    def candidate(self) -> Candidate:
        """What a decision says of it."""
        seen = self.seen
        return Candidate(
            self.offer, seen.quote, seen.p50, seen.p95, seen.left, seen.wait_s, seen.late, self.total, self.scores
        )


def weigh(seen: Seen, wishes: Constraints, weights: Scales, offer: Offer) -> Weighed:
    """Add up what an offer costs."""
    total, scores = weights(seen)
    place = _place(offer, wishes.order) if wishes.order else 0
    first = 0.0 if wishes.prefer == "value" else _wished_first(seen, wishes)
    return Weighed(place, first, total, seen.offer, scores, seen, offer)


def judge(
    picture: Picture,
    policy: Policy,
    offers: Mapping[OfferId, Offer],
    *,
    weighed: Sequence[Weighed] | None = None,
) -> Decision:
    """Decide. `weighed`: what is seen, weighed already; else it is weighed here."""
    if picture.over is not None:
        return _decision(Shed((picture.over,)), picture, policy, barred=(picture.over,))
    ask = picture.ask
    if weighed is None:
        weights = scales(ask.worth, policy)
        weighed = [weigh(seen, ask.constraints, weights, offers[seen.offer]) for seen in picture.seen]
    ready = [each for each in weighed if each.seen.blocked is None]
    ready.sort()
    waiting: list[Weighed] = []
    if len(ready) < len(weighed):
        waiting = sorted([each for each in weighed if each.seen.blocked is not None] if ready else weighed)
    lined_up = waiting
    if ask.constraints.preferred and ready and _is_ours_to_choose(ask):
        ready = _by_preference(ready, ask.constraints.preferred)
        first = {each.over for each in ask.constraints.preferred if each.offer == ready[0].name}
        waiting = [each for each in waiting if each.name not in first]  # whoever is preferred waits for nobody else
    move = _second(picture, policy, ready) if ask.live else _first(picture, policy, ready, waiting)
    return _decision(move, picture, policy, ready, lined_up, picture.rejected)


def _first(picture: Picture, policy: Policy, ready: list[Weighed], waiting: list[Weighed]) -> Submit | Wait | Shed:
    """What to do for a part with nothing under way."""
    ask, now = picture.ask, picture.now
    if ready:
        for each in waiting:
            if _worth_waiting(each, ready[0], picture, policy):
                return _wait(picture, policy, each, other=ready[0].seen)
        best = ready[0].seen
        scarcity = best.slot_price * best.expected_s + best.order_price + best.machine_price * best.machine_s
        if scarcity > max(ask.worth.failure - ask.worth.late * best.late, 0.0) and (
            now + LOOK_AGAIN_S < _latest(ask, policy)
        ):
            # Others will miss the room more than this call misses its picture.
            return _wait(picture, policy, ready[0], soonest=_YIELD_S)
        return Submit(ready[0].candidate(), _wake_at(picture, best, policy))
    latest = _latest(ask, policy)
    soonest = _soonest(waiting)
    if soonest is None or now + soonest > latest or now >= latest:
        return Shed(_objections(picture, waiting), soonest)
    return _wait(picture, policy, waiting[0], soonest)


def _second(picture: Picture, policy: Policy, ready: list[Weighed]) -> Submit | Wait:
    """What to do for a part with orders under way: place one more beside them, or look again later."""
    ask, now = picture.ask, picture.now
    still = _hedge_by(picture, [each.account for each in ask.live])
    if still > 0.0:  # how likely it is to be late is known best at the last moment that something can be done
        again = most(_PATIENCE * still, _CLOSELY_S)
    else:
        again = min([each.look_again for each in picture.running], default=LOOK_AGAIN_S)
    deadline = ask.arrived + ask.constraints.deadline
    until = min(now + again, deadline)
    if len(ask.live) < 2 and policy.hedging.enabled and picture.hedge_budget and picture.running:
        slack = ask.arrived + ask.constraints.slo - now
        stake = hedging.at_stake(picture.running, ask.worth, slack, policy.punctuality)
        accounts = {each.account for each in ask.live} | {each.account for each in ask.tried}
        used = 1.0 - policy.hedging.below
        lost = hedging.already_lost(ask.worth, slack)
        for each in ready:
            seen = each.seen
            if seen.account in accounts or seen.share_left < used:
                continue
            lateness = int(policy.punctuality * ask.worth.late * seen.late)  # that is in what it saves
            if hedging.saved(seen, stake, slack) > each.total - lateness - lost:
                return Submit(each.candidate(), _wake_at(picture, seen, policy))
    return Wait(until)


def _wake_at(picture: Picture, seen: Seen, policy: Policy) -> float | None:
    """When to look at an order again."""
    if not policy.hedging.enabled:
        return None
    ask, now = picture.ask, picture.now
    slack = ask.arrived + ask.constraints.slo - now
    after = seen.hedge_s + seen.wait_s
    if slack > 0.0:
        # No later than when a second order could still be in time, but not before it is likely to be of use.
        after = least(after, most(_hedge_by(picture, (seen.account,)), seen.wait_s + _EARLIEST * seen.p50))
    return now + most(after, _LOOK_AT_LEAST_S)


def _worth_waiting(each: Weighed, ready: Weighed, picture: Picture, policy: Policy) -> bool:
    """Whether an offer without room is worth its line: it is cheaper all the same, and comes in time.

    Not for a seller that fails: nobody knows when it will be back.
    """
    seen, ask = each.seen, picture.ask
    begins = picture.now + seen.wait_s
    if seen.line is not None and seen.wait_s > _NEAR_S and _spare(picture, ready.seen) <= 0.05:
        return False  # the last moment to go elsewhere; a machine may come later than it looks
    return (
        seen.capacity is not None
        and begins < _latest(ask, policy)
        and begins + seen.p95 <= ask.arrived + ask.constraints.deadline
        and each.place <= ready.place
        and (each.first, each.total, each.name) < (ready.first, ready.total, ready.name)
    )


def _latest(ask: Ask, policy: Policy) -> float:
    """Until when a part may stand in line."""
    return ask.arrived + least(ask.constraints.deadline, policy.max_wait)


def _wait(
    picture: Picture, policy: Policy, each: Weighed, soonest: float | None = None, other: Seen | None = None
) -> Wait:
    """Stand in line for an offer; `other` is the best that has room now."""
    seen, ask = each.seen, picture.ask
    if soonest is not None:
        wait_s = most(soonest, least(seen.wait_s, LOOK_AGAIN_S))
        again = least(most(wait_s, _SOONEST_S), most(LOOK_AGAIN_S, 0.25 * wait_s))
    else:
        again = _patience(picture, policy, seen, other)
    lost = _is_lost(seen, ask)
    if seen.late > _HOPELESS and (lost or seen.wait_s > LOOK_AGAIN_S):
        # Late whatever happens: those who may still be in time go first, and a crowd is not asked every second.
        again = max(again, min(_YIELD_S + 0.25 * seen.wait_s, _LONGEST_S))
    until = least(picture.now + again, _latest(ask, policy))
    # Room that is there already, but that others miss more, wakes nobody: `capacity` is none then.
    return Wait(until, seen.capacity, each.candidate(), seen.line, lost, seen.spare)


def _patience(picture: Picture, policy: Policy, seen: Seen, other: Seen | None) -> float:
    """Seconds after which one in line looks again, though nothing has woken it: going elsewhere may be better by then.

    Whoever has room for it wakes it in turn, so this is a share of the time it has to spare.
    """
    ask = picture.ask
    slack = ask.arrived + ask.constraints.slo - picture.now
    spare = _spare(picture, other)
    if seen.line is None:
        spare = min(spare, slack - seen.wait_s - seen.p95)
    if spare <= 0.0:
        again = _TOO_LATE_S
    elif seen.line is None:
        again = min(max(_PATIENCE * spare, _ANXIOUS_S), _PATIENT_AT_MOST_S)
    else:
        again = min(max(_PATIENCE * spare if spare > _LAST_S else spare, 0.05), _PATIENT_FOR_MACHINES_S)
    hurried = slack - seen.expected_s - policy.scarcity.patient
    if seen.spare and hurried > 0.0:
        again = min(again, hurried)  # from then on it may take the last slots
    return again


def _is_lost(seen: Seen, ask: Ask) -> bool:
    """Whether a part will be late whatever happens, and loses little more by waiting: others should go before it."""
    return seen.late > _HOPELESS and ask.worth.late > ask.worth.late_second * most(seen.wait_s, LOOK_AGAIN_S)


def _soonest(waiting: Sequence[Weighed]) -> float | None:
    """Seconds until the first of them has room."""
    soonest = inf
    for each in waiting:
        wait_s = each.seen.wait_s
        if wait_s < soonest:  # noqa: PLR1730 - see `least`
            soonest = wait_s
    return soonest if waiting else None


def _spare(picture: Picture, other: Seen | None) -> float:
    """Seconds until the best of the others would probably be late as well."""
    ask = picture.ask
    slack = ask.arrived + ask.constraints.slo - picture.now
    return slack if other is None else slack - _MARGIN * other.p95


def _hedge_by(picture: Picture, accounts: Sequence[str]) -> float:
    """Seconds until only the quickest of the other accounts could still be in time."""
    ask = picture.ask
    slack = ask.arrived + ask.constraints.slo - picture.now
    for name, seconds in picture.fastest:
        if name not in accounts:
            return slack - _QUICK_MARGIN * seconds
    return slack


def _objections(picture: Picture, waiting: list[Weighed]) -> tuple[Rejection, ...]:
    return (*picture.rejected, *[why for each in waiting if (why := each.seen.objection) is not None])


def _decision(
    move: Submit | Wait | Shed,
    picture: Picture,
    policy: Policy,
    ready: Sequence[Weighed] = (),
    lined_up: Sequence[Weighed] = (),
    barred: tuple[Rejection, ...] = (),
) -> Decision:
    return Decision(
        move=move,
        ready=ready,
        lined_up=lined_up,
        barred=barred,
        policy=policy.label,
        prices=picture.prices,
        reason=picture.reason,
        picture=picture,
    )


def _is_ours_to_choose(ask: Ask) -> bool:
    """Whether the caller left it to us who goes first."""
    return ask.constraints.prefer == "value" and not ask.constraints.order


def _by_preference(ready: list[Weighed], preferred: tuple[Preference, ...]) -> list[Weighed]:
    """Offers in their order, but what is preferred to another stands right before it, and not behind."""
    found = list(ready)
    for each in preferred:
        names = [weighed.name for weighed in found]
        if each.offer in names and each.over in names and names.index(each.offer) > names.index(each.over):
            found.insert(names.index(each.over), found.pop(names.index(each.offer)))
    return found


def _wished_first(seen: Seen, wishes: Constraints) -> float:
    """What a caller asked to have least of: dollars, or seconds."""
    return float(seen.quote.amount) if wishes.prefer == "cheapest" else seen.wait_s + seen.p50


def _place(offer: Offer, order: tuple[str, ...]) -> int:
    """Where an account or its kind stands in the caller's own order; those not named come last."""
    return next((i for i, name in enumerate(order) if name in (offer.account, offer.kind)), len(order))
