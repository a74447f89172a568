"""A world built from the catalogue: every offer with its tariff, sizes, limits and typical seconds.

What is true there: an order takes `typical seconds x work` (model, steps, megapixels, pictures: the same arithmetic as
`policies/latency_forecast.py`), times a draw that is fixed for each (picture, offer), so that policies are compared on
the same luck. A seller that is full queues or refuses, as its kind does; what it bills is its tariff. What is assumed,
for want of anybody's figures, stands in `Assumptions`. A server of our own draws one order in each of its slots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple
from zlib import crc32

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from policies.catalog import Catalog
from policies.eligibility import objection, price_objection
from policies.latency_forecast import work
from policies.offer_prices import quote_at
from policies.offline.contract import Account, Request
from policies.offline.trace import Kind, Trace
from policies.offline.world import FAST_ERROR, HANG, OK, SLOT, Floats, Ints
from policies.tariffs import Unpriced, by_time
from policies.types import Ask, Offer

REFUSE_WHEN_FULL = frozenset({"together", "openai"})
"""Kinds of seller that answer 429 to an order above their limits; the others queue it."""
_UNLIMITED = 1_000_000
_LUCK = 1 << 16


class Assumptions(Struct, frozen=True, kw_only=True):
    """What a catalogue does not say."""

    spread: float = 0.25
    """Standard deviation of the natural logarithm of what an order takes."""
    slow: float = 0.01
    """Share of orders that take `slow_times` as long."""
    slow_times: tuple[float, float] = (1.5, 8.0)
    errors: float = 0.003
    """Share of orders that fail; none is billed."""
    cold_after: float = 600.0
    """Seconds of idling after which an offer of a seller is cold. A server of our own stays warm."""
    cold_s: float = 8.0
    """Seconds that a cold order takes longer."""


class Trouble(Struct, frozen=True, kw_only=True):
    """Something that happens to accounts for a while."""

    account: str
    """`all` is every account."""
    what: Literal["refuses", "hangs", "slow", "slots"]
    begins: float
    ends: float
    """Seconds from the beginning of the trace."""
    value: float = 0.0
    """`slow`: times as long; `slots`: how many are left."""


class Site(NamedTuple):
    """An offer as the simulator sees it."""

    name: str
    account: int
    model: str


class Row(NamedTuple):
    """What E offers make of one kind of picture."""

    serves: list[bool]
    price: list[int]
    """Nano-dollars; of offers charged by time, for the seconds they typically take."""
    seconds: list[float]


class CatalogWorld:
    """A `policies.offline.world.World` whose requests are the orders' worth of pictures of a trace's calls.

    A call of more pictures than `per_order` becomes several requests, as in the gateway.
    """

    def __init__(
        self,
        catalog: Catalog,
        trace: Trace,
        *,
        per_order: int = 1,
        seed: int = 1,
        assumed: Assumptions | None = None,
        troubles: Sequence[Trouble] = (),
        limits: Mapping[str, int] | None = None,
    ) -> None:
        """`limits`: account -> slots, instead of what it has; 0 sells nothing."""
        self.assumed = assumed or Assumptions()
        self.name, self.seed, self.trace = trace.name, seed, trace
        self.horizon = float(trace.at[-1]) if trace.size else 0.0
        self.limits = dict(limits or {})
        self.offers: list[Offer] = [each for each in catalog.offers.values() if self.limits.get(each.account) != 0]
        sell = dict.fromkeys(offer.account for offer in self.offers)
        known = dict.fromkeys(name.partition("/")[0] for name in catalog.capacities)
        names = list(dict.fromkeys([*(name for name in known if name in sell), *sell]))  # as in gateway.yaml
        self.index = {name: place for place, name in enumerate(names)}
        self.accounts = [self._account(catalog, name) for name in names]
        self.endpoints = [Site(offer.id, self.index[offer.account], offer.model) for offer in self.offers]
        self.pool, self.gpus, self.warm = -1, 0, True
        self._divide(per_order)
        self._conditions(troubles)
        self._draw_luck()
        self._rows: dict[int, Row] = {}
        # By name, so that an offer has the same luck in every catalogue.
        names = [*(offer.id for offer in self.offers), *(f"attempt {number}" for number in range(8))]
        self._salt = [crc32(f"{seed} {name}".encode()) for name in names]

    def _account(self, catalog: Catalog, name: str) -> Account:
        kind = next(offer.kind for offer in self.offers if offer.account == name)
        slots, rate = catalog.capacities.get(name), catalog.capacities.get(f"{name}/rate")
        held = self.limits.get(name, slots.slots if slots and slots.slots is not None else _UNLIMITED)
        return Account(
            self.index[name],
            name,
            "reject" if kind in REFUSE_WHEN_FULL else "queue",
            held,
            rpm=rate.rate * 60.0 if rate and rate.rate is not None else 0.0,
            burst=float(rate.burst) if rate else 0.0,
        )

    def _divide(self, per_order: int) -> None:
        """Calls into requests: `kinds` [P] of one order each, and per request its call, kind and arrival."""
        self.kinds: list[Kind] = []
        shares: list[list[int]] = []
        known: dict[tuple[int, int], int] = {}
        for number, kind in enumerate(self.trace.kinds):
            left, parts = kind.request.count, []
            while left > 0:
                count = min(per_order, left)
                left -= count
                place = known.get((number, count))
                if place is None:
                    place = known[number, count] = len(self.kinds)
                    self.kinds.append(replace(kind, request=replace(kind.request, count=count)))
                parts.append(place)
            shares.append(parts)
        sizes = np.array([len(parts) for parts in shares] or [0])
        counts = sizes[self.trace.kind] if self.trace.size else np.empty(0, np.int64)
        self.call: Ints = np.repeat(np.arange(self.trace.size), counts)
        flat = np.array([place for parts in shares for place in parts] or [0])
        begins = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        within = np.arange(len(self.call)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.kind: Ints = flat[np.repeat(begins[self.trace.kind], counts) + within] if len(self.call) else self.call
        self._kind: list[int] = self.kind.tolist()
        self._at: list[float] = np.repeat(self.trace.at, counts).tolist()

    def _conditions(self, troubles: Sequence[Trouble]) -> None:
        offers, accounts = len(self.offers), len(self.accounts)
        slots = int(max((each.ends for each in troubles), default=0.0) // SLOT) + 2 if troubles else 1
        self.mult: Floats = np.ones((offers, slots))
        self.perr: Floats = np.full((accounts, slots), self.assumed.errors)
        self.outage: Ints = np.full((accounts, slots), OK)
        held = np.array([float(each.concurrency) for each in self.accounts])
        self.limit: Floats = np.repeat(held.reshape(accounts, 1), slots, axis=1)
        self.pricemul: Floats = np.ones((offers, slots))
        own = np.array([offer.kind == "selfhosted" for offer in self.offers], bool)
        self.cold_idle: Floats = np.where(own, np.inf, self.assumed.cold_after)
        self.cold_s: Floats = np.full(offers, self.assumed.cold_s)
        for each in troubles:
            self._strike(each)

    def _strike(self, trouble: Trouble) -> None:
        when = slice(int(trouble.begins // SLOT), int(np.ceil(trouble.ends / SLOT)))
        for account in self.accounts:
            if trouble.account not in {"all", account.name}:
                continue
            match trouble.what:
                case "refuses":
                    self.outage[account.index, when] = FAST_ERROR
                case "hangs":
                    self.outage[account.index, when] = HANG
                case "slots":
                    self.limit[account.index, when] = trouble.value
                case "slow":
                    for e, offer in enumerate(self.offers):
                        if offer.account == account.name:
                            self.mult[e, when] *= trouble.value

    def _draw_luck(self) -> None:
        """A table of draws that are looked up by request and offer: the same for the same pair, whoever asks."""
        rng, assumed = np.random.default_rng([self.seed, 77]), self.assumed
        luck = np.exp(assumed.spread * rng.standard_normal(_LUCK))
        slow = rng.random(_LUCK) < assumed.slow
        luck[slow] *= rng.uniform(*assumed.slow_times, int(slow.sum()))
        self._luck: list[float] = luck.tolist()
        self._chances: list[float] = rng.random(_LUCK).tolist()

    def _dice(self, r: int, salt: int) -> int:
        x = (r * 0x9E3779B1 ^ salt) & 0xFFFFFFFF
        x = (x ^ (x >> 15)) * 0x2C1B3C6D & 0xFFFFFFFF
        return x >> 16

    # -- what the simulator asks -------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Requests."""
        return len(self._kind)

    def arrivals(self) -> Sequence[float]:
        """When each request comes."""
        return self._at

    def request(self, r: int) -> Request:
        """One of them, fresh."""
        kind, at = self.kinds[self._kind[r]], self._at[r]
        wish, terms, worth = kind.request, kind.constraints, kind.worth
        return Request(
            id=r,
            arrival=at,
            deadline=at + terms.slo,
            tier=int(terms.tier),
            mp=wish.width * wish.height / 1_048_576,
            n=wish.count,
            batch=False,
            miss_penalty=float(worth.late),
            fail_penalty=float(worth.failure),
            expires=at + terms.deadline,
        )

    def keys(self) -> None:
        """Nothing is cached."""

    def kind_of(self, r: int) -> int:
        """What a request asks for: index into `kinds`."""
        return self._kind[r]

    def row(self, kind: int) -> Row:
        """What the offers make of a kind of picture."""
        row = self._rows.get(kind)
        if row is None:
            row = self._rows[kind] = self._new_row(self.kinds[kind])
        return row

    def _new_row(self, kind: Kind) -> Row:
        plain = Ask(
            call_id="", part=0, request=kind.request, constraints=kind.constraints, worth=kind.worth,
            intent=kind.intent, team=kind.team, arrived=0.0,
        )  # fmt: skip
        row = Row([], [], [])
        for offer in self.offers:
            wish = kind.constraints.asked(offer.id, kind.request)
            ask = replace(plain, request=wish)
            amount = work(wish.width * wish.height, wish.count, wish.steps, offer.abilities.default_steps)
            seconds = offer.typical_s * amount
            price, serves = 0, objection(offer, ask) is None
            if serves:
                try:
                    quote = quote_at(offer, wish, expected_s=seconds)
                    price, serves = quote.amount, price_objection(offer, ask, quote) is None
                except Unpriced:
                    serves = False
            row.serves.append(serves)
            row.price.append(price)
            row.seconds.append(seconds)
        return row

    def seconds(self, r: int, e: int) -> float:
        """How long a request takes at multiplier 1."""
        return self.row(self._kind[r]).seconds[e] * self._luck[self._dice(r, self._salt[e])]

    def serves(self, r: int, e: int) -> bool:
        """Whether an offer can serve it."""
        return self.row(self._kind[r]).serves[e]

    def bill(self, r: int, e: int, seconds: float) -> float:
        """What is billed, in nano-dollars."""
        kind, offer = self._kind[r], self.offers[e]
        if by_time(offer.tariff):
            return float(quote_at(offer, self.kinds[kind].request, expected_s=seconds).amount)
        return float(self.row(kind).price[e])

    def chance(self, r: int, attempt: int) -> float:
        """The draw against the error rate."""
        return self._chances[self._dice(r, self._salt[-1 - (attempt & 7)])]

    def unit_s(self, e: int, mp: float) -> float:  # noqa: ARG002 - no pool of ours says what its machines do
        """Nothing: there is no pool."""
        return 0.0

    # -- the same as arrays, for the bound ----------------------------------------------------------

    def luck(self, requests: Ints) -> Floats:
        """[N, E] the draws of these requests at every offer."""
        table = np.array(self._luck)
        salts = np.array(self._salt[: len(self.offers)], np.uint64)
        x = (requests.astype(np.uint64)[:, None] * np.uint64(0x9E3779B1) ^ salts[None, :]) & np.uint64(0xFFFFFFFF)
        x = (x ^ (x >> np.uint64(15))) * np.uint64(0x2C1B3C6D) & np.uint64(0xFFFFFFFF)
        return np.asarray(table[(x >> np.uint64(16)).astype(np.int64)], np.float64)
