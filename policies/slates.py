"""Slates: the offers for one kind of request. Gates and prices are the same for all of its like, and found once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from operator import itemgetter

from msgspec import Struct
from msgspec.structs import replace

from policies.eligibility import barred, objection, steps_objection
from policies.offer_prices import quote_at
from policies.policy import Policy
from policies.scarcity import Demand
from policies.sellers import Seller
from policies.tariffs import Quote, Unpriced, by_time, by_tokens
from policies.types import Ask, Bar, Offer, OfferId, Rejection, View

_KEPT = 4096
_NOBODY: frozenset[OfferId] = frozenset()
_CLOSED = -inf
_seconds: Callable[[tuple[str, float]], float] = itemgetter(1)
_FASTEST_FOR_S = 10.0
"""Two accounts stay the quickest for so long, for all it matters to second orders."""
_PATIENT_S = 60.0
"""Calls with more seconds to spare are counted apart."""


class Row:
    """One offer of a slate, with what does not change between two decisions."""

    __slots__ = (
        "account",
        "amount",
        "counted",
        "expected",
        "kept",
        "name",
        "offer",
        "plain",
        "price",
        "quote",
        "seller",
        "shared",
        "steady",
        "timed",
        "version",
    )

    def __init__(self, seller: Seller, amount: float, quote: Quote, kept: float = 0.0) -> None:
        self.seller = seller
        self.offer, self.shared = seller.offer, seller.shared
        self.name, self.account, self.counted = seller.offer.id, seller.offer.account, seller.offer.counted
        self.amount = amount
        self.quote = quote
        self.price = quote.amount * self.counted
        self.timed = by_time(seller.offer.tariff) or by_tokens(seller.offer.tariff)
        """Priced by its time or its words, which differ from call to call."""
        self.kept = kept
        """Share of the account's slots that is reserved for other calls."""
        self.plain = not (self.timed or kept or self.shared.purses or self.shared.machines)
        """Nothing but its account's room and breakers can keep it from serving now, at its quote."""
        self.steady = not self.timed and all(purse.is_credit for purse in self.shared.purses)
        """Never costs less than `price`, but for what the seller bills over its quotes."""
        self.version = -1
        """The forecast that `expected` was read from; that of another version has to be read again."""
        self.expected = 0.0

    def forecast(self) -> float:
        """Seconds that the middle of the forecast stands for."""
        forecast = self.seller.forecast
        if self.version != forecast.version:
            self.expected = forecast.expected(self.amount)
            self.version = forecast.version
        return self.expected


class Slate:
    """The offers for one kind of request."""

    __slots__ = ("_fastest", "_fastest_at", "_sold", "hurried", "others", "patient", "rejected", "steady")

    def __init__(self, rows: Sequence[Row], rejected: tuple[Rejection, ...]) -> None:
        self.rejected = rejected
        by_price = sorted(rows, key=lambda row: (row.steady, row.price))
        self._sold = [row for row in by_price if row.shared.machines is None]
        self.steady = [row for row in self._sold if row.steady]
        """What is sold at prices that stand, cheapest first."""
        self.others = [row for row in self._sold if not row.steady]
        """What is not; and own machines behind it, for what one is worth to a call shows by all others."""
        self.others += [row for row in by_price if row.shared.machines is not None]
        self.hurried = Demand()
        self.patient = Demand()
        self._fastest: tuple[tuple[str, float], ...] = ()
        self._fastest_at = -inf

    def count(self, ask: Ask, now: float) -> None:
        """Count a call that has just come; plans read it, decisions do not."""
        slack = ask.arrived + ask.constraints.slo - now
        demand = self.patient if slack > _PATIENT_S else self.hurried
        demand.came(slack, float(ask.worth.late), float(ask.worth.failure))

    def fastest(self, now: float) -> tuple[tuple[str, float], ...]:
        """The two accounts that would be quickest, and their seconds; looked up every few seconds."""
        if now - self._fastest_at >= _FASTEST_FOR_S:
            quickest: dict[str, float] = {}
            for row in self._sold:
                seller = row.seller
                if seller.account.open_until == _CLOSED and seller.breaker.open_until == _CLOSED:
                    seconds = row.expected if row.version == seller.forecast.version else row.forecast()
                    if seconds < quickest.get(row.account, inf):
                        quickest[row.account] = seconds
            self._fastest = tuple(sorted(quickest.items(), key=_seconds)[:2])
            self._fastest_at = now
        return self._fastest


class Barred(Struct, frozen=True, gc=False):
    """What rules of the policy leave out for some calls."""

    offers: frozenset[OfferId]
    rejections: tuple[Rejection, ...]


class Slates:
    """Every kind of request that was asked for at the prices in force."""

    __slots__ = (
        "_barred",
        "_champion",
        "_demands",
        "_offers",
        "_policy",
        "_prices",
        "_sellers",
        "_special",
        "_stopped",
        "kinds",
    )

    def __init__(
        self,
        policy: Policy,
        offers: Mapping[OfferId, Offer],
        sellers: Mapping[OfferId, Seller],
        *,
        champion: Slates | None = None,
        demands: Mapping[object, tuple[Demand, Demand]] | None = None,
    ) -> None:
        """`champion`: those of the engine that plans, where this is another; `demands`: what was asked for before."""
        self._policy, self._offers, self._sellers, self._champion = policy, offers, sellers, champion
        owners = {offer.team for offer in offers.values() if offer.team is not None}
        self._special = frozenset(owners.union(*(offer.kept_from for offer in offers.values())))
        """Teams with accounts of their own."""
        self._demands = dict(demands or {})
        """What was asked for under the revision before, until it is asked for again."""
        self.kinds: dict[object, Slate] = {}
        self._prices = -1
        self._barred: dict[object, Barred] = {}
        self._stopped: dict[Bar, tuple[Rejection, ...]] = {}

    def beside(self, policy: Policy) -> Slates:
        """The same under another policy; what is asked for is counted here."""
        return Slates(policy, self._offers, self._sellers, champion=self)

    def demands(self) -> Mapping[object, tuple[Demand, Demand]]:
        """What is asked for, by kind: in a hurry, and with time to spare."""
        older = self._demands if len(self._demands) < _KEPT else {}
        return older | {key: (slate.hurried, slate.patient) for key, slate in self.kinds.items()}

    def of(self, ask: Ask, view: View) -> Slate:
        """The slate for all asks like this one."""
        request, wishes = ask.request, ask.constraints
        if self._prices != view.prices:
            self.kinds.clear()
            self._barred.clear()
            self._prices = view.prices
        left_out = self.barred(ask).offers if wishes.bars else _NOBODY
        # Teams that nothing is special about share what is known of their calls.
        team = ask.team if ask.team in self._special or self._policy.reservations else ""
        key = (
            request.width, request.height, request.count, request.steps, request.operation, request.seed is None,
            request.transparent, bool(request.negative_prompt), len(request.loras), request.guidance,
            request.strength, request.fidelity, request.references, request.mask, request.safety, wishes.tier,
            wishes.models, wishes.only, wishes.ignore, wishes.require, wishes.params, left_out, team,
        )  # fmt: skip
        slate = self.kinds.get(key)
        if slate is None:
            if len(self.kinds) >= _KEPT:
                self.kinds.clear()
            slate = self.kinds[key] = self._new(ask, view, left_out)
            self._go_on_counting(slate, key, ask, view)
        return slate

    def barred(self, ask: Ask) -> Barred:
        """The offers that rules leave out for calls like this one."""
        wishes = ask.constraints
        key = (wishes.bars, wishes.models)
        found = self._barred.get(key)
        if found is None:
            if len(self._barred) >= _KEPT:
                self._barred.clear()
            rejections: dict[OfferId, Rejection] = {}
            for bar in wishes.bars:
                for each in self._stopped_by(bar):
                    if wishes.models is None or self._offers[each.offer].model in wishes.models:
                        rejections.setdefault(each.offer, each)
            found = self._barred[key] = Barred(frozenset(rejections), tuple(rejections.values()))
        return found

    def _stopped_by(self, bar: Bar) -> tuple[Rejection, ...]:
        """Every offer that one rule leaves out."""
        found = self._stopped.get(bar)
        if found is None:
            reasons = [(offer.id, barred(offer, bar)) for offer in self._offers.values()]
            found = tuple([Rejection(offer=name, code="rule", reason=why) for name, why in reasons if why])
            self._stopped[bar] = found
        return found

    def _go_on_counting(self, slate: Slate, key: object, ask: Ask, view: View) -> None:
        """Count arrivals where they were counted before, or where the engine that plans counts them."""
        if self._champion is not None:
            planned = self._champion.of(ask, view)
            slate.hurried, slate.patient = planned.hurried, planned.patient
        elif self._demands and (demands := self._demands.pop(key, None)) is not None:
            slate.hurried, slate.patient = demands

    def _new(self, ask: Ask, view: View, left_out: frozenset[OfferId]) -> Slate:
        rows, rejected, plain = [], [], ask
        for offer in view.offers(ask.constraints.models):
            if offer.id in left_out:
                continue  # each call says by which rule
            seller = self._sellers[offer.id]
            request = plain.constraints.asked(offer.id, plain.request)
            ask = plain if request is plain.request else replace(plain, request=request)
            objected = objection(offer, ask) or steps_objection(offer, request, self._policy.least_steps)
            if objected is not None:
                rejected.append(objected)
                continue
            amount = seller.work_of(request.width * request.height, request.count, request.steps)
            try:
                expected = seller.forecast.expected(amount)
                price = quote_at(offer, request, revision=view.prices, expected_s=expected)
            except Unpriced as error:
                rejected.append(Rejection(offer=offer.id, code="price", reason=f"{offer.id}: {error}"))
                continue
            rows.append(Row(seller, amount, price, self._kept(offer, ask)))
        return Slate(rows, tuple(rejected))

    def _kept(self, offer: Offer, ask: Ask) -> float:
        """The share of an account's slots that is reserved for calls of another tier or team."""
        return sum([each.share for each in self._policy.reservations if each.is_kept_from(offer, ask)])
