"""What is learned from a refusal that does not say which limit it was, by an account that has both kinds."""

from __future__ import annotations

import pytest

from policies.types import Capacity, Submit
from tests.support.sellers import Town, ask, offer

AGREED = (Capacity(id="a", slots=10), Capacity(id="a/rate", rate=20.0, burst=20))
ORDER_S = 0.1


class FallenAccount:
    """An account that takes less than agreed; calls come thirty a second, and orders take a tenth of one."""

    def __init__(self, *, rate: float, slots: int, tells: bool) -> None:
        self.town = Town(offer("a:m", capacities=("a", "a/rate"), typical_s=ORDER_S), capacities=AGREED)
        self.rate, self.slots, self.tells = rate, slots, tells
        self.out: list[tuple[float, int]] = []
        self.tokens, self.at = 2.0, 0.0
        self.served = 0
        self.refused_at: list[float] = []

    def live(self, seconds: int) -> None:
        for tenth in range(seconds * 30):
            now = tenth / 30
            if tenth % 30 == 0:
                self.town.engine.tick(self.town.market, now)
            self.end_orders(now)
            if isinstance(self.town.decide(ask(), now).move, Submit):
                self.order(now)

    def end_orders(self, now: float) -> None:
        for sent, beside in [order for order in self.out if order[0] + ORDER_S <= now]:
            self.out.remove((sent, beside))
            self.town.tell("ok", "a:m", now, in_flight=beside, latency=now - sent)
            self.served += 1
        self.town.market.busy["a"] = len(self.out)

    def order(self, now: float) -> None:
        self.town.tell("submitted", "a:m", now)
        self.tokens, self.at = min(2.0, self.tokens + (now - self.at) * self.rate), now
        beside = len(self.out) + 1
        if self.tokens < 1.0 or beside > self.slots:
            told = {"retry_after": 1.0} if self.tells else {}
            self.town.tell("throttled", "a:m", now, in_flight=beside, **told)
            self.refused_at.append(now)
            return
        self.tokens -= 1.0
        self.out.append((now, beside))
        self.town.market.busy["a"] = len(self.out)


@pytest.mark.parametrize("tells", [True, False], ids=["with Retry-After", "without a word"])
@pytest.mark.parametrize(("rate", "slots"), [(2.0, 10), (1e9, 2)], ids=["its rate fell", "its slots fell"])
def test_whichever_limit_fell_the_account_is_soon_left_in_peace_and_still_used(
    rate: float, slots: int, *, tells: bool
) -> None:
    account = FallenAccount(rate=rate, slots=slots, tells=tells)
    account.live(90)
    assert len(account.refused_at) <= 6
    assert account.refused_at[-1] < 45
    possible = 90 * min(rate, slots / ORDER_S, 20.0)
    assert account.served > 0.4 * possible
