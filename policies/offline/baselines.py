"""Baselines: simple ways in which teams and other gateways route by, to compare the engine with.

Each of them knows who can serve a picture and what it costs there, retries elsewhere, and leaves an offer alone for
half a minute after more than three failures within a minute. None of them knows objectives, queues or what is coming.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from policies.offline.catalog_world import CatalogWorld, Site
from policies.offline.contract import Account, Decision, Event, Reason, Request, Snapshot

_FAILS, _WINDOW_S, _COOLDOWN_S = 3, 60.0, 30.0
_BACK_OFF_S = 0.5
_LONGEST_S = 8.0


class Baseline(ABC):
    """Feasibility, cooldown and back-off; `pick` is how it chooses."""

    name = "baseline"
    about = ""

    def __init__(self, world: CatalogWorld) -> None:
        self.world = world
        self._tiers = [int(offer.tier) for offer in world.offers]

    def start(self, endpoints: Sequence[Site], accounts: Sequence[Account], seed: int) -> None:
        """Begin."""
        self.account_of = [site.account for site in endpoints]
        self.accounts = accounts
        self._seed = seed
        self._drawn = 0
        self._fails: list[list[float]] = [[] for _ in endpoints]
        self._until = [0.0] * len(endpoints)
        self._menus: dict[int, list[int]] = {}
        self.held: set[tuple[int, int]] = set()

    def menu(self, r: Request) -> list[int]:
        """Offers of the least tier that can serve at all."""
        kind = self.world.kind_of(r.id)
        menu = self._menus.get(kind)
        if menu is None:
            able = [e for e, serves in enumerate(self.world.row(kind).serves) if serves]
            least = min([self._tiers[e] for e in able], default=0)
            menu = self._menus[kind] = [e for e in able if self._tiers[e] == least]
        return menu

    def decide(self, r: Request, s: Snapshot, now: float, reason: Reason) -> Decision:
        """Pick among those that may serve; later retries wait."""
        if reason == "wake" and r.live:
            return Decision()
        menu = self.menu(r)
        if not menu:
            return Decision(drop=True)
        if reason == "failed" and r.attempts >= _FAILS and not r.live and (r.id, r.attempts) not in self.held:
            self.held.add((r.id, r.attempts))
            return Decision(wake_at=now + min(_LONGEST_S, _BACK_OFF_S * 2.0 ** (r.attempts - _FAILS)))
        able = [e for e in menu if self._until[e] <= now and e not in r.tried] or menu
        return Decision(self.pick(r, able, s))

    @abstractmethod
    def pick(self, r: Request, able: list[int], s: Snapshot) -> int:
        """One of `able`."""

    def feedback(self, event: Event, now: float) -> None:
        """Leave offers alone that keep failing."""
        if event.kind in {"ok", "started", "cancelled"}:
            return
        e = event.endpoint
        recent = self._fails[e] = [t for t in self._fails[e] if t > now - _WINDOW_S] + [now]
        if len(recent) > _FAILS:
            self._until[e] = now + _COOLDOWN_S
            self._fails[e] = []

    def tick(self, snapshot: Snapshot, now: float) -> None:  # noqa: B027 - most have nothing to plan
        """Nothing to plan."""

    def due(self, snapshot: Snapshot, now: float) -> None:  # noqa: B027 - they keep no lines
        """Nobody: they keep no lines."""

    def price(self, r: Request, e: int) -> int:
        """Nano-dollars of a request at an offer."""
        return self.world.row(self.world.kind_of(r.id)).price[e]

    def chance(self) -> float:
        """The next draw, uniform in 0..1, from the seed alone."""
        self._drawn += 1
        x = (self._drawn * 0x9E3779B1 ^ self._seed) & 0xFFFFFFFF
        x = (x ^ (x >> 15)) * 0x2C1B3C6D & 0xFFFFFFFF
        x = (x ^ (x >> 12)) * 0x297A2D39 & 0xFFFFFFFF
        return (x ^ (x >> 15)) / 4_294_967_296.0


class Cheapest(Baseline):
    """The least price, whatever the line there."""

    name = "cheapest"
    about = "the least price"

    def pick(self, r: Request, able: list[int], s: Snapshot) -> int:  # noqa: ARG002 - knows no load
        """The cheapest."""
        return min(able, key=lambda e: (self.price(r, e), e))


class CheapestFree(Cheapest):
    """The least price among accounts with a free slot, of any tier that will do: the best simple way we know."""

    name = "cheapest with room"
    about = "the least price at an account with a free slot"

    def menu(self, r: Request) -> list[int]:
        """Every offer that can serve, of whatever tier."""
        kind = self.world.kind_of(r.id)
        menu = self._menus.get(kind)
        if menu is None:
            menu = self._menus[kind] = [e for e, serves in enumerate(self.world.row(kind).serves) if serves]
        return menu

    def pick(self, r: Request, able: list[int], s: Snapshot) -> int:
        """The cheapest with room."""
        free = [e for e in able if s.inflight[self.account_of[e]] < self.accounts[self.account_of[e]].concurrency]
        return super().pick(r, free or able, s)


class Fastest(Baseline):
    """The least typical seconds."""

    name = "fastest"
    about = "the least seconds, by the catalogue"

    def pick(self, r: Request, able: list[int], s: Snapshot) -> int:  # noqa: ARG002 - knows no load
        """The quickest."""
        seconds = self.world.row(self.world.kind_of(r.id)).seconds
        return min(able, key=lambda e: (seconds[e], self.price(r, e), e))


class RoundRobin(Baseline):
    """One after the other."""

    name = "round robin"
    about = "one after the other"
    turn = 0

    def pick(self, r: Request, able: list[int], s: Snapshot) -> int:  # noqa: ARG002 - knows no load
        """The next."""
        self.turn += 1
        return able[self.turn % len(able)]


class Weighted(Baseline):
    """A draw by the slots of the accounts."""

    name = "weighted"
    about = "a draw, weighted by the slots of each account"

    def pick(self, r: Request, able: list[int], s: Snapshot) -> int:  # noqa: ARG002 - knows no load
        """A draw."""
        weights = [min(self.accounts[self.account_of[e]].concurrency, 100) for e in able]
        left = self.chance() * sum(weights)
        for e, weight in zip(able, weights, strict=True):
            left -= weight
            if left < 0:
                return e
        return able[-1]


class FallbackList(Baseline):
    """Accounts in the order of gateway.yaml, the next only after a failure; the cheapest offer of each."""

    name = "fallback list"
    about = "accounts in the order of gateway.yaml, the next after a failure"

    def pick(self, r: Request, able: list[int], s: Snapshot) -> int:  # noqa: ARG002 - knows no load
        """The first account that can."""
        return min(able, key=lambda e: (self.account_of[e], self.price(r, e), e))


class Always(Cheapest):
    """One account for everything it can draw; the cheapest elsewhere for the rest."""

    def __init__(self, world: CatalogWorld, account: str) -> None:
        super().__init__(world)
        self.name = f"always {account}"
        self.about = f"{account} for all it can draw"
        self._account = world.index[account]

    def pick(self, r: Request, able: list[int], s: Snapshot) -> int:
        """Its own offers, if any."""
        return super().pick(r, [e for e in able if self.account_of[e] == self._account] or able, s)


def baselines(world: CatalogWorld) -> Mapping[str, Callable[[], Baseline]]:
    """Every baseline by name, each to be made anew for a run."""
    plain: list[type[Baseline]] = [CheapestFree, Cheapest, Fastest, RoundRobin, Weighted, FallbackList]
    found: dict[str, Callable[[], Baseline]] = {}
    for each in plain:
        found[each.name] = _maker(each, world)
    for account in world.accounts:
        found[f"always {account.name}"] = _always(world, account.name)
    return found


def _maker(kind: type[Baseline], world: CatalogWorld) -> Callable[[], Baseline]:
    return lambda: kind(world)


def _always(world: CatalogWorld, account: str) -> Callable[[], Baseline]:
    return lambda: Always(world, account)
