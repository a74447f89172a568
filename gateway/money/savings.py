"""What the delivered orders of a period would have cost under simpler rules, at the tariffs in force."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec import Struct

from gateway.storage.activity import Activity, Drawn, Spent
from policies.catalog import Catalog
from policies.offline.elsewhere import Elsewhere, at_account, cheapest
from policies.types import Offer, Tier
from providers.contract import ImageRequest

Rule: TypeAlias = Callable[[Drawn], "Elsewhere | None"]


class Baseline(Struct, frozen=True, kw_only=True):
    """A rule without a gateway, and its price for the same pictures. Money is nano-dollars."""

    name: str
    about: str
    saves_by: str
    """What saves against it: `promotion` or `routing`."""
    cost: int
    """What the rule would have cost."""
    actual: int
    """What the same orders did cost."""
    orders: int
    not_served: int
    """Orders the rule's sellers cannot draw, and edits; they count at what they did cost."""
    certain: bool
    """Whether every price is exact; those by time are estimates."""

    @property
    def saved(self) -> int:
        """Less than the rule, in nano-dollars; negative where the rule would have been cheaper."""
        return self.cost - self.actual


NOTHING = Elsewhere(amount=0, certain=True, offer="")


def request_of(drawn: Drawn) -> ImageRequest:
    """The order that would have drawn the same."""
    return ImageRequest(width=drawn.width, height=drawn.height, count=drawn.images, steps=drawn.steps)


def baselines(activity: Activity, catalog: Catalog) -> Sequence[Baseline]:
    """Always-Pro, always each account, and the cheapest single one of them."""
    offers = tuple(catalog.offers.values())
    accounts = sorted({offer.account for offer in offers})
    single = [_at(account, activity, catalog, offers) for account in accounts]
    found = [_always_pro(activity, offers), *single]
    if single and activity.drawn:
        best = min(single, key=lambda each: (each.not_served, each.cost, each.name))
        found.append(
            Baseline(
                name="cheapest-single",
                about=f"everything at {best.name.removeprefix('always-')}, the cheapest account for all of it",
                saves_by="routing",
                cost=best.cost,
                actual=best.actual,
                orders=best.orders,
                not_served=best.not_served,
                certain=best.certain,
            )
        )
    return found


def _always_pro(activity: Activity, offers: Sequence[Offer]) -> Baseline:
    """Every picture at the cheapest export tier; nothing is then left to promote."""
    pro = [offer for offer in offers if offer.tier is Tier.EXPORT]

    def price(drawn: Drawn) -> Elsewhere | None:
        if drawn.promoted:
            return NOTHING
        return cheapest(pro, request_of(drawn), drawn.offer_id.partition(":")[2])

    about = "every picture at the cheapest export tier from the start, and none drawn again to be promoted"
    return _priced("always-pro", about, "promotion", activity, price)


def _at(account: str, activity: Activity, catalog: Catalog, offers: Sequence[Offer]) -> Baseline:
    def price(drawn: Drawn) -> Elsewhere | None:
        offer = catalog.offers.get(drawn.offer_id)
        return None if offer is None else at_account(offers, request_of(drawn), offer, account)

    about = f"every order at {account}: the same model, or its cheapest that is as good"
    return _priced(f"always-{account}", about, "routing", activity, price)


def _priced(name: str, about: str, saves_by: str, activity: Activity, rule: Rule) -> Baseline:
    cost, not_served, certain, total = 0, 0, True, Spent()
    for drawn, spent in activity.drawn.items():
        total.add(spent)
        price = rule(drawn) if drawn.operation == "generate" else None
        if price is None:
            cost, not_served = cost + spent.cost, not_served + spent.orders
        else:
            cost, certain = cost + price.amount * spent.orders, certain and price.certain
    return Baseline(
        name=name,
        about=about,
        saves_by=saves_by,
        cost=cost,
        actual=total.cost,
        orders=total.orders,
        not_served=not_served,
        certain=certain,
    )
