"""A second order beside one that takes long: only where it is worth more than it costs.

An order is looked at again when most of its like would be done. What is at stake then is the caller's loss if it is
late (or never comes), times how likely that is given that it has not come yet; a second order on another account saves
that share of it which it will probably still make. It is placed when that is more than all it costs.
"""

from __future__ import annotations

from collections.abc import Sequence

from policies.latency_forecast import LatencyForecast
from policies.picture import Running, Seen
from policies.types import Worth

_HUNG = 6.0
"""Times its forecast after which an order that is late is taken for hung..."""
_HUNG_S = 2.0
"""...though not before this many seconds: a forecast may still be a guess."""
_SILENT = 0.9
"""Probability that an order does not come whose account answers nobody."""


def running(
    account: str,
    forecast: LatencyForecast,
    expected: float,
    elapsed: float,
    slack: float,
    left: float,
    *,
    silent: bool = False,
) -> Running:
    """What is to be feared for an order that has been out for `elapsed` seconds.

    `slack` and `left` are the seconds until objective and deadline; `silent`: its account answers nobody.
    """
    alive = max(forecast.above(expected, elapsed), 1e-4)
    stuck = 1.0 if slack <= 0.0 else min(forecast.above(expected, elapsed + slack) / alive, 1.0)
    lost = 1.0 if left <= 0.0 else min(forecast.above(expected, elapsed + left) / alive, 1.0)
    if silent or (slack <= 0.0 and elapsed > max(_HUNG * expected, _HUNG_S)):
        stuck, lost = max(stuck, _SILENT), max(lost, _SILENT)
    over_s = forecast.lateness(expected, elapsed + max(slack, 0.0)) / alive
    return Running(account, stuck, lost, over_s, max(0.3 * elapsed, 0.25))


def at_stake(running: Sequence[Running], worth: Worth, slack: float, punctuality: float) -> float:
    """Nano-dollars that will probably be lost if nothing is done about the orders under way."""
    stuck = lost = 1.0
    for each in running:
        stuck *= each.stuck
        lost *= each.lost
    late = 0.0 if slack <= 0.0 else stuck * worth.late * punctuality
    late += worth.late_second * min([each.over_s for each in running])
    return late + lost * max(worth.failure - worth.late, 0.0)


def already_lost(worth: Worth, slack: float) -> int:
    """Nano-dollars that the seconds beyond the objective have cost already, whoever draws."""
    return int(worth.late_second * max(-slack, 0.0))


def saved(seen: Seen, stake: float, slack: float) -> float:
    """Nano-dollars of the stake that one more order here would probably save."""
    miss = seen.late if slack > 0.0 else seen.too_late
    return stake * (1.0 - miss) * (1.0 - seen.error_rate)
