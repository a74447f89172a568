"""What serving a part of a call at one offer would cost in all, one aspect a file, each in nano-dollars.

To add a scorer: a module with `score(seen, worth, policy) -> int`, its name in `policies.types.SCORED`, and its line
below. The decision shows it by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from policies.picture import Seen
from policies.policy import Policy
from policies.scorers import latency, load, machine, prepaid, price, rate, reliability, slots
from policies.types import SCORED, Worth

Scorer: TypeAlias = Callable[[Seen, Worth, Policy], int]

_PRICE, _LATENCY, _RELIABILITY, _LOAD = price.score, latency.score, reliability.score, load.score
_SCARCE = (slots.score, rate.score, prepaid.score, machine.score)
"""They charge what is scarce, and nothing where nothing is: most offers, most of the time."""
SCORERS: Mapping[str, Scorer] = dict(zip(SCORED, (_PRICE, _LATENCY, _RELIABILITY, _LOAD, *_SCARCE), strict=True))


def scores(seen: Seen, worth: Worth, policy: Policy) -> tuple[int, ...]:
    """What every scorer says, in the order of `SCORED`; only those are asked that have something to say."""
    price_ = _PRICE(seen, worth, policy)
    late = _LATENCY(seen, worth, policy) if seen.late or seen.wait_s else 0
    risk = _RELIABILITY(seen, worth, policy) if seen.error_rate or seen.too_late else 0
    crowd = _LOAD(seen, worth, policy) if seen.share_left < 1.0 - policy.crowding.begins else 0
    if seen.slot_price or seen.order_price or seen.premium or seen.machine_s or seen.free_price >= 0.0:
        return price_, late, risk, crowd, *[score(seen, worth, policy) for score in _SCARCE]
    return price_, late, risk, crowd, 0, 0, 0, 0
