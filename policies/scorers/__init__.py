"""What serving a part of a call at one offer would cost in all, one aspect a file, each in nano-dollars.

A scorer is made for what an ask is worth under a policy, so that what these say is worked out once for all offers. To
add one: a module with `scorer(worth, policy)`, its name in `policies.types.SCORED`, and its lines below. The decision
shows it by name.

None is ever less than nothing, so `floor` cuts off what is less than a nano-dollar; `int` takes three times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import floor
from typing import TypeAlias

from policies.picture import Seen
from policies.policy import Policy
from policies.scorers import latency, load, machine, prepaid, price, rate, reliability, slots
from policies.types import SCORED, Worth

Score: TypeAlias = Callable[[Seen], int]
Scorer: TypeAlias = Callable[[Worth, Policy], Score]
Scales: TypeAlias = Callable[[Seen], tuple[int, tuple[int, ...]]]

_MODULES = (price, latency, reliability, load, slots, rate, prepaid, machine)
SCORERS: Mapping[str, Scorer] = {name: module.scorer for name, module in zip(SCORED, _MODULES, strict=True)}


def scales(worth: Worth, policy: Policy) -> Scales:
    """Weigh an offer: its total, and what every scorer says, in the order of `SCORED`.

    Only those are asked that have something to say. Lateness and crowding are written out here once more: where every
    account is nearly full both speak of every offer, and calls to them were a twentieth of the dearest decision.
    """
    of_price, _, of_reliability, _, of_slots, of_rate, of_prepaid, of_machine = [
        make(worth, policy) for make in SCORERS.values()
    ]
    of_late, of_second = latency.terms(worth, policy)
    scarce_below, last_slot = load.terms(policy)

    def weights(seen: Seen) -> tuple[int, tuple[int, ...]]:
        paid, risk = of_price(seen), of_reliability(seen)
        late = crowd = slots = rate = prepaid = machine = 0
        total = paid + risk
        if seen.late or seen.wait_s:
            late = floor(of_late * seen.late + of_second * (seen.late_s + seen.wait_s))
            total += late
        if seen.share_left < scarce_below:
            crowd = floor((1.0 - seen.share_left / scarce_below) * last_slot)
            total += crowd
        if seen.slot_price:
            slots = of_slots(seen)
            total += slots
        if seen.order_price:
            rate = of_rate(seen)
            total += rate
        if seen.premium or seen.free_price >= 0.0:
            prepaid = of_prepaid(seen)
            total += prepaid
        if seen.machine_s:
            machine = of_machine(seen)
            total += machine
        return total, (paid, late, risk, crowd, slots, rate, prepaid, machine)

    return weights
