"""Copies a share of delivered calls to other sellers, for the experiments of the policy: which calls, and when.

A copy is made after the answer has left, and nobody waits for it (`gateway.features.copying`). Whatever becomes of it,
live calls do not notice: it takes only room to spare (`policies.experiments.spare`), and more than `MOST` at once are
not made.

A pair is kept once both sides are known. One that a crash cuts short is not kept; its order is settled like any other.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta

import structlog
from msgspec import Struct
from msgspec.structs import replace

from gateway.assets import Assets
from gateway.clock import Clock
from gateway.errors import GatewayError, NotReady
from gateway.features.copying import UNTOLD, Copier, Finished, LeftOut, Served
from gateway.features.shadow_budgets import ShadowBudgets
from gateway.requests.call import Call, Delivered, Delivery, Ended
from gateway.requests.orders import RunningOrder, Spawn
from gateway.requests.pipeline import Pipeline
from gateway.requests.regime import Regime
from gateway.requests.terms import about, under_rules
from gateway.storage.database import Database
from policies.experiments.definition import Challenger, Experiment, Facts, Param, fields_of
from policies.experiments.sampling import challengers_of, rolled
from policies.experiments.spare import SpareEngine, Usage
from policies.policy import Policy
from policies.types import Engine, Offer

log = structlog.get_logger("gateway.shadowing")

MOST = 16
"""Copies under way at once, of all experiments together; a call picked beyond that is left out."""
AFTER_S = 0.5
"""Seconds after a call is served until its copies are thought of, at least half of it: its answer has left by then.
Those of a while begin together, for what is written together costs a fraction of what is written one by one."""
NOTED_EVERY_S = 60.0
"""Seconds between two notes of what was left out."""


class Copying(Struct, frozen=True, kw_only=True, eq=False):
    """An experiment as it is carried out."""

    experiment: Experiment
    most: float
    """The largest share of any calls that it copies."""
    paths: Mapping[str, Pipeline]
    """Challenger -> the request path of its copies."""


class Shadowing:
    """Carries the policy's experiments out."""

    def __init__(
        self, *, db: Database, clock: Clock, assets: Assets, spawn: Spawn, running: Collection[RunningOrder]
    ) -> None:
        """`running`: the orders under way in this process."""
        self._db = db
        self._clock = clock
        self._spawn = spawn
        self.budgets = ShadowBudgets(db, clock)
        self.copier = Copier(db=db, clock=clock, assets=assets, running=running, budgets=self.budgets)
        self.usage = Usage(clock.now())
        self._copyings: tuple[Copying, ...] = ()
        self._regime: Regime | None = None
        self._beside: Callable[[Mapping[str, Param]], Pipeline] | None = None
        """A request path of copies that sends these fields."""
        self._offers: Mapping[str, Offer] = {}
        self._under_way = 0
        self._fresh: list[tuple[Call, Delivery | None, Sequence[Copying]]] = []
        self._ripe: list[tuple[Call, Delivery | None, Sequence[Copying]]] = []
        """Calls whose copies begin at the next turn; those of `_fresh` at the one after it."""
        self._ripening = False
        self._finished: list[Finished] = []
        """Pairs to be kept, all that come within a second in one commit."""
        self._left_out: Counter[tuple[str, str]] = Counter()
        self._noted = clock.now()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Shadowing {[each.experiment.name for each in self._copyings]}, {self._under_way} under way>"

    @property
    def idle(self) -> bool:
        """Whether there is no experiment at all."""
        return not self._copyings

    def adopt(
        self, regime: Regime, engine: Engine, offers: Mapping[str, Offer], path: Callable[[Engine, Policy], Pipeline]
    ) -> None:
        """Carry out the experiments of another policy, or over another catalogue.

        `offers` are all there ever were; `path` makes a request path that decides by an engine.
        """
        policy, catalog = regime.policy, regime.catalog
        self._regime, self._offers = regime, offers
        unruled = replace(policy, rules=type(policy.rules)(), images_per_order=1)

        def beside(fields: Mapping[str, Param]) -> Pipeline:
            return path(SpareEngine(engine, catalog.capacities, catalog.offers, self.usage, fields), unruled)

        self._beside = beside
        self._copyings = tuple(
            Copying(
                experiment=each,
                most=_most(each),
                paths={challenger.name: beside(fields_of(challenger)) for challenger in each.challengers},
            )
            for each in policy.experiments
        )
        self.budgets.adopt(policy.experiments)

    def path(self, fields: Mapping[str, Param] | None = None) -> Pipeline:
        """A request path for orders of ours: from room to spare, and with these fields beside the request."""
        assert self._beside is not None, "a policy was adopted"
        return self._beside(fields or {})

    @property
    def regime(self) -> Regime:
        """The policy and catalogue in force."""
        assert self._regime is not None, "a policy was adopted"
        return self._regime

    def close(self) -> None:
        """Make no more copies."""
        self._closed = True

    async def followed(self, serving: Awaitable[Delivery], call: Call) -> Delivery:
        """Serve a call, and think of copies once that is over."""
        try:
            delivery = await serving
        except GatewayError:
            self._note(call, None)
            raise
        self._note(call, delivery)
        return delivery

    async def look(self) -> None:
        """Write budgets that changed, and what was left out."""
        await self.budgets.write()
        if self._finished:
            await self.keep_finished()
        if self._left_out and self._clock.now() - self._noted >= NOTED_EVERY_S:
            await self.note_left_out()

    async def keep_finished(self) -> None:
        """Keep the pairs whose copies are drawn."""
        finished, self._finished = self._finished, []
        for done, kept in zip(
            finished, await asyncio.gather(*map(self.copier.keep, finished), return_exceptions=True), strict=True
        ):
            if isinstance(kept, LeftOut):
                self._left_out[done.experiment.name, str(kept)] += 1
            elif isinstance(kept, BaseException):
                log.error("pair_not_kept", experiment=done.experiment.name, exc_info=kept)

    async def note_left_out(self) -> None:
        """Write how many copies were not made, and why."""
        self._noted, left_out = self._clock.now(), self._left_out
        self._left_out = Counter()
        for (experiment, reason), calls in left_out.items():
            await self._db.count_left_out(experiment, reason, self._clock.utc(), calls)

    # -- which calls ----------------------------------------------------------------------------

    def _note(self, call: Call, delivery: Delivery | None) -> None:
        """The part of it that every live call pays for: two hashes at most."""
        if call.is_ours or self._closed:
            return
        if delivery is not None:
            now = self._clock.now()
            for name in delivery.offers:
                self.usage.served(name.partition(":")[0], now)
        if not call.shadow:
            return
        picked = [each for each in self._copyings if rolled(call.id, each.experiment.name) < each.most]
        if not picked:
            return
        if self._under_way >= MOST:
            for each in picked:
                self._left_out[each.experiment.name, "as many copies as there may be were under way"] += 1
            return
        self._under_way += 1
        self._fresh.append((call, delivery, picked))
        if not self._ripening:
            self._ripening = True
            asyncio.get_running_loop().call_later(AFTER_S / 2, self._ripen)

    def _ripen(self) -> None:
        """Begin those that were here before; the others come after as long again."""
        ripe, self._ripe, self._fresh = self._ripe, self._fresh, []
        for call, delivery, picked in ripe:
            if self._closed:
                self._under_way -= 1
            else:
                self._spawn(self._copy(call, delivery, picked)).add_done_callback(self._over)
        self._ripening = bool(self._ripe)
        if self._ripening:
            asyncio.get_running_loop().call_later(AFTER_S / 2, self._ripen)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._under_way -= 1
        error = None if task.cancelled() else task.exception()
        if isinstance(error, NotReady):
            log.warning("copy_not_made", reason=error.message)
        elif error is not None:
            log.error("copy_broke", exc_info=error)

    async def _copy(self, call: Call, delivery: Delivery | None, picked: Sequence[Copying]) -> None:
        """Make the copies of one call."""
        await self.budgets.write()
        served = await self._served(call, delivery)
        if served is None:
            return
        by_name = {each.experiment.name: each for each in picked}
        pairs = [
            self._try(experiment, challenger, by_name[experiment.name].paths[challenger.name], served)
            for experiment, challenger in challengers_of([each.experiment for each in picked], served.facts)
        ]
        await asyncio.gather(*pairs)

    async def _try(self, experiment: Experiment, challenger: Challenger, path: Pipeline, served: Served) -> None:
        """Have one copy drawn, or count why it was not."""
        try:
            done = await self.copier.draw(experiment, challenger, path, served, self.regime)
            self._finished.append(done)  # not in one line: `keep_finished` puts another list there meanwhile
        except LeftOut as left_out:
            self._left_out[experiment.name, str(left_out)] += 1

    async def _served(self, call: Call, delivery: Delivery | None) -> Served | None:
        """What became of a live call at the seller that it went to first; None where it went to nobody."""
        picture = delivery.images[0] if delivery is not None else None
        first: tuple[str, Ended] | None
        if delivery is not None and picture is not None and picture.order and delivery.attempts == len(delivery.images):
            first = picture.asset.offer_id, picture.order  # as nearly always: an order for each picture
        else:
            first = await self._first_order(call, picture)
            picture = picture if first is not None and picture and picture.asset.offer_id == first[0] else None
        regime = call.regime or self._regime
        offer = self._offers.get(first[0]) if first is not None else None
        if first is None or offer is None or regime is None:
            return None
        arrived = self._clock.utc() - timedelta(seconds=self._clock.now() - call.arrived)
        call = under_rules(call, regime.policy, regime.catalog.resolve, arrived)
        facts = Facts(
            call_id=call.id,
            about=about(call, regime.catalog.resolve, arrived),
            tier=call.constraints.tier,
            width=call.request.width,
            height=call.request.height,
            champion=offer,
            at=arrived.timestamp(),
            minute=regime.policy.rules.minute(arrived),
        )
        mine = picture if first[1].outcome.error is None else None
        return Served(call=call, facts=facts, picture=mine, order=first[1], delivered=delivery is not None)

    async def _first_order(self, call: Call, picture: Delivered | None) -> tuple[str, Ended] | None:
        """The order that went out first for a call's first picture, and its offer; but none that says nothing."""
        attempts = await self._db.attempts(call.id)
        part = next((row.part for row in attempts if picture and row.id == picture.asset.attempt_id), 0)
        for row in attempts:
            if row.part == part and row.outcome is not None and row.outcome.error not in UNTOLD:
                return row.offer_id, Ended(row.cost, row.count, row.outcome)
        return None


def _most(experiment: Experiment) -> float:
    sample = experiment.sample
    shares: Iterable[float] = (sample.share, *(share for _, share in sample.by))
    return 1.0 if sample.always else max(shares)
