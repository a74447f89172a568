"""Copies a share of delivered calls to other sellers and keeps what came of both, for the experiments of the policy.

A copy is made after the answer has left, and nobody waits for it. It goes through the request path like any call, on
the caller's terms about data and rights, but nobody is charged: what it costs is the experiment's, under a budget of
its own that is checked in the commit that sets the money aside. Whatever becomes of a copy, live calls do not notice:
it takes only room to spare (`policies.experiments.spare`), and more than `MOST` at once are not made.

A pair is kept once both sides are known. One that a crash cuts short is not kept; its order is settled like any other.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import TypeVar

import structlog
from msgspec import Struct
from msgspec.structs import replace

from gateway.assets import Assets
from gateway.clock import Clock
from gateway.errors import BudgetSpent, GatewayError, NoCapacity, NoOffer, NotReady
from gateway.ids import new_id, sibling
from gateway.requests.call import Call, Caller, Delivered, Delivery, Ended
from gateway.requests.orders import RunningOrder, Spawn
from gateway.requests.pipeline import Pipeline
from gateway.requests.regime import Regime
from gateway.requests.terms import about, under_rules
from gateway.storage.budgets import window_at
from gateway.storage.database import Database
from gateway.storage.rows import AssetRow, BudgetRow
from gateway.storage.shadows import SENTINEL, ShadowRow, party
from policies.experiments.definition import Challenger, Experiment, Facts, Param, copied, fields_of
from policies.experiments.pairs import Outcome, Pair, Side
from policies.experiments.sampling import challengers_of, rolled, room, share_of, stratum_of
from policies.experiments.spare import SpareEngine, Usage
from policies.offer_prices import quote_at
from policies.policy import Policy
from policies.rules import About
from policies.tariffs import Unpriced
from policies.types import Constraints, Engine, Offer
from providers.contract import ImageRequest

T = TypeVar("T")

log = structlog.get_logger("gateway.shadowing")

MOST = 16
"""Copies under way at once, of all experiments together; a call picked beyond that is left out."""
AFTER_S = 0.5
"""Seconds after a call is served until its copies are thought of, at least half of it: its answer has left by then.
Those of a while begin together, for what is written together costs a fraction of what is written one by one."""
PATIENCE_S = 60.0
"""Seconds for which copies without live calls wait for room."""
NOTED_EVERY_S = 60.0
"""Seconds between two notes of what was left out."""
KEY = "shadow"
"""The key that the books name for copies; nobody has it."""
_UNTOLD = frozenset({"cancelled", "overloaded", "abandoned"})
"""Ends of an order that say nothing of its seller: we called it off, or sent too many."""
_SIZE = re.compile(r"^(\d+)x(\d+) (came|instead)")
_OUTCOMES: Mapping[str, Outcome] = {"content_refused": "refused", "timed_out": "timeout"}


class LeftOut(Exception):
    """A copy was not made, or came to nothing that says anything of its seller; the message is the reason."""

    def __init__(self, why: str, *, passing: bool = False) -> None:
        """`passing`: a moment later it may be possible."""
        super().__init__(why)
        self.passing = passing


class Copying(Struct, frozen=True, kw_only=True, eq=False):
    """An experiment as it is carried out."""

    experiment: Experiment
    most: float
    """The largest share of any calls that it copies."""
    paths: Mapping[str, Pipeline]
    """Challenger -> the request path of its copies."""


class Spending(Struct, kw_only=True):
    """What an experiment spent, as far as this process knows; the commit of each order decides."""

    day: date
    today: dict[str, int]
    """Stratum -> nano-dollars, orders under way included."""
    total: int
    stopped_until: datetime | None = None
    """Its budget refused an order; not before this is it worth asking again."""

    def turn(self, day: date) -> None:
        """Begin a day, if it is another."""
        if day != self.day:
            self.day, self.today = day, dict.fromkeys(self.today, 0)

    def add(self, stratum: str, amount: int) -> None:
        """Count money in, or out again."""
        self.today[stratum] = self.today.get(stratum, 0) + amount
        self.total += amount


class Served(Struct, frozen=True, kw_only=True):
    """A live call that was picked, and what its champion made of it."""

    call: Call
    """On the terms that the policy's rules left it."""
    facts: Facts
    picture: Delivered | None
    """What the champion delivered."""
    order: Ended
    """The champion's order."""
    delivered: bool
    """Whether the caller got a picture, be it from somebody else."""


class Finished(Struct, frozen=True, kw_only=True):
    """A copy that is drawn, and not kept yet."""

    experiment: Experiment
    challenger: Challenger
    served: Served
    copy: Call
    side: Side


class Shadowing:
    """Carries the policy's experiments out."""

    def __init__(
        self, *, db: Database, clock: Clock, assets: Assets, spawn: Spawn, running: Collection[RunningOrder]
    ) -> None:
        """`running`: the orders under way in this process."""
        self._db = db
        self._clock = clock
        self._assets = assets
        self._spawn = spawn
        self._orders = running
        self._usage = Usage(clock.now())
        self._copyings: tuple[Copying, ...] = ()
        self._regime: Regime | None = None
        self._beside: Callable[[Mapping[str, Param]], Pipeline] | None = None
        """A request path of copies that sends these fields."""
        self._offers: Mapping[str, Offer] = {}
        self._spent: dict[str, Spending] = {}
        self._budgeted = False
        """Whether the budgets of the experiments in force are written."""
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
            return path(SpareEngine(engine, catalog.capacities, catalog.offers, self._usage, fields), unruled)

        self._beside = beside
        self._copyings = tuple(
            Copying(
                experiment=each,
                most=_most(each),
                paths={challenger.name: beside(fields_of(challenger)) for challenger in each.challengers},
            )
            for each in policy.experiments
        )
        self._budgeted = False

    def path(self, fields: Mapping[str, Param] | None = None) -> Pipeline:
        """A request path for orders of ours: from room to spare, and with these fields beside the request."""
        assert self._beside is not None, "a policy was adopted"
        return self._beside(fields or {})

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
        if not self._budgeted and (self._copyings or self._spent):
            await self._budget()
        if self._finished:
            await self.keep_finished()
        if self._left_out and self._clock.now() - self._noted >= NOTED_EVERY_S:
            await self.note_left_out()

    async def keep_finished(self) -> None:
        """Keep the pairs whose copies are drawn."""
        finished, self._finished = self._finished, []
        for done, kept in zip(
            finished, await asyncio.gather(*map(self._keep, finished), return_exceptions=True), strict=True
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
                self._usage.served(name.partition(":")[0], now)
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
        if not self._budgeted:
            await self._budget()
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
            done = await self._draw(experiment, challenger, path, served)
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
            if row.part == part and row.outcome is not None and row.outcome.error not in _UNTOLD:
                return row.offer_id, Ended(row.cost, row.count, row.outcome)
        return None

    # -- one copy -------------------------------------------------------------------------------

    async def _draw(self, experiment: Experiment, challenger: Challenger, path: Pipeline, served: Served) -> Finished:
        """Have one copy drawn; raises `LeftOut` where it came to nothing."""
        call, facts = served.call, served.facts
        offer = self._offer(challenger, facts.champion)
        stratum = stratum_of(experiment.sample, facts)
        spending = self._spending(experiment)
        left = room(experiment, stratum, spending.today, spending.total)
        now = self._clock.utc()
        if offer is None:
            raise LeftOut(f"{challenger.account} does not sell it")
        if call.request.transparent and not offer.abilities.transparent:
            raise LeftOut(f"{offer.id} paints no transparent background")
        if spending.stopped_until is not None and now < spending.stopped_until:
            raise LeftOut("its budget is spent")
        copy = self._call(experiment, challenger, offer, served, left)
        estimate = _quoted(offer, copy.request)
        spending.add(stratum, estimate)
        billed = 0
        try:
            order, picture = await self._drawn(copy, path)
            billed = order.cost
        except BudgetSpent:
            spending.stopped_until = _midnight_after(now)
            raise LeftOut("its budget is spent") from None
        finally:
            spending.add(stratum, billed - estimate)
        side = side_of(order, offer, copy.request, picture.asset if picture is not None else None)
        return Finished(experiment=experiment, challenger=challenger, served=served, copy=copy, side=side)

    def _call(self, experiment: Experiment, challenger: Challenger, offer: Offer, served: Served, left: int) -> Call:
        """The copy: the same prompt, seed and size, on the caller's terms, for our own account."""
        call, policy = served.call, self._policy
        seed = served.picture.asset.seed if served.picture is not None else call.request.seed
        request = replace(call.request, count=1, seed=seed if offer.abilities.seed else None)
        terms = call.constraints
        keep = experiment.keep
        of_team = policy.team_keep_assets.get(call.caller.team)
        kept = keep if of_team is None else min(keep, of_team)
        return Call(
            id=new_id("call"),
            caller=Caller(key_id=KEY, team=party(experiment.name)),
            request=copied(request, challenger),
            constraints=Constraints(
                models=frozenset({offer.model}),
                slo=terms.deadline,
                deadline=terms.deadline,
                ceiling=left,
                only=frozenset({offer.account}),
                require=terms.require,
                bars=terms.bars,
            ),
            inputs=call.inputs,
            mask=call.mask,
            intent=call.intent,
            compression=call.compression,
            purpose="shadow",
            kept_until=self._clock.utc() + timedelta(seconds=kept),
            arrived=self._clock.now(),
        )

    async def _drawn(self, copy: Call, path: Pipeline) -> tuple[Ended, Delivered | None]:
        """Have the copy drawn; how its order ended, once that is in the books, and the picture.

        Raises `LeftOut` where that says nothing of the challenger, and `BudgetSpent`.
        """
        try:
            picture = (await path.serve(copy)).images[0]
        except BudgetSpent:
            raise
        except (NoCapacity, NoOffer) as error:
            raise LeftOut(_reason(error), passing=isinstance(error, NoCapacity)) from error
        except GatewayError:
            picture = None
        if picture is not None and picture.order is not None:
            return picture.order, picture
        late = [order.task for order in self._orders if order.call.id == copy.id and order.task is not None]
        if late:  # nobody waits for it any more, but it is billed
            await asyncio.wait(late)
        attempts = await self._db.attempts(copy.id)
        told = attempts[0].outcome if attempts else None
        if told is None:
            raise LeftOut("it could not be ordered")
        if told.error in _UNTOLD:
            raise LeftOut(f"{attempts[0].account} had no room for it", passing=True)
        return Ended(attempts[0].cost, attempts[0].count, told), None

    async def _keep(self, done: Finished) -> Pair:
        """Keep a pair; raises `LeftOut` where its call was erased."""
        experiment, challenger, served, copy, side = done.experiment, done.challenger, done.served, done.copy, done.side
        call, facts = served.call, served.facts
        mine_drawn = served.picture.asset if served.picture is not None else None
        mine = side_of(served.order, facts.champion, replace(call.request, count=served.order.count), mine_drawn)
        kept: list[AssetRow] = []
        if served.picture is not None and copy.kept_until is not None:
            kept.append(await self._again(served.picture, copy))
            mine = replace(mine, asset=kept[0].id)
        pair = Pair(
            id=sibling(copy.id, "pair"),
            experiment=experiment.name,
            challenger=challenger.name,
            call_id=call.id,
            at=facts.at,
            stratum=stratum_of(experiment.sample, facts),
            share=share_of(experiment.sample, facts),
            champion=mine,
            challenger_side=side,
            expires=self._clock.utc().timestamp() + experiment.keep,
        )
        row = ShadowRow(
            pair=pair,
            shadow_call=copy.id,
            delivered=served.delivered,
            team=call.caller.team,
            user=call.user,
            measured=mine.asset is None or side.asset is None,
        )
        if not await self._db.keep_pair(row, kept):
            await self._forget(copy, kept)
            raise LeftOut("the call was erased")
        log.info(
            "pair_kept",
            experiment=experiment.name,
            challenger=challenger.name,
            call=call.id,
            outcome=side.outcome,
            nano_usd=side.billed,
        )
        return pair

    async def _forget(self, copy: Call, kept: Sequence[AssetRow]) -> None:
        """Erase the pictures of a pair whose call is erased."""
        drawn = await self._db.call_assets(copy.id)
        await self._assets.forget([picture.path for picture in (*drawn, *kept)])
        for picture in drawn:
            await self._db.drop_asset(picture.id)

    async def _again(self, picture: Delivered, copy: Call) -> AssetRow:
        """The champion's picture, kept for the pair: the delivered one goes when its own time is over."""
        name = f"{sibling(copy.id, 'img')}c"
        path = await self._assets.store(picture.data, f"{name}.{picture.asset.path.rpartition('.')[2]}")
        return replace(
            picture.asset,
            id=name,
            call_id=copy.id,
            team=copy.caller.team,
            index=1,
            path=path,
            cost=0,
            parent_id=None,
            created=self._clock.utc(),
            expires=copy.kept_until,
        )

    def _offer(self, challenger: Challenger, champion: Offer) -> Offer | None:
        return None if self._regime is None else self._regime.catalog.offers.get(challenger.offer_of(champion))

    @property
    def _policy(self) -> Policy:
        assert self._regime is not None, "experiments come with a policy"
        return self._regime.policy

    # -- without live calls ---------------------------------------------------------------------

    async def alone(self, experiment: Experiment, request: ImageRequest, champion: Offer) -> Sequence[Pair | LeftOut]:
        """Have one picture drawn by the champion and by every challenger, all for the experiment's money.

        Each waits for room, at most `PATIENCE_S`. Raises `LeftOut` where the champion's came to nothing.
        """
        self._usage.assume_quiet()
        if not self._budgeted:
            await self._budget()
        spending, policy = self._spending(experiment), self._policy
        intent = policy.intents[policy.default_intent]
        path = self.path()
        asked = Call(
            id=new_id("call"),
            caller=Caller(key_id=KEY, team=party(experiment.name)),
            request=request,
            constraints=Constraints(
                models=frozenset({champion.model}),
                slo=intent.deadline,
                deadline=intent.deadline,
                ceiling=room(experiment, "", spending.today, spending.total),
                only=frozenset({champion.account}),
                require=policy.require,
            ),
            intent=intent.name,
            purpose="shadow",
            kept_until=self._clock.utc() + timedelta(seconds=experiment.keep),
            arrived=self._clock.now(),
        )
        try:
            order, picture = await self._patiently(lambda: self._drawn(replace(asked, arrived=self._clock.now()), path))
        except BudgetSpent:
            raise LeftOut("its budget is spent") from None
        spending.add("", order.cost)
        facts = Facts(
            call_id=asked.id,
            about=About(intent=intent.name, operation=request.operation, pixels=request.width * request.height),
            tier=champion.tier,
            width=request.width,
            height=request.height,
            champion=champion,
            at=self._clock.utc().timestamp(),
        )
        served = Served(call=asked, facts=facts, picture=picture, order=order, delivered=False)
        found: list[Pair | LeftOut] = []
        for challenger in experiment.challengers:
            draw = partial(self._draw, experiment, challenger, self.path(fields_of(challenger)), served)
            try:
                found.append(await self._keep(await self._patiently(draw)))
            except LeftOut as left_out:
                found.append(left_out)
        return found

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something again and again that found no room."""
        until = self._clock.now() + PATIENCE_S
        while True:
            try:
                return await work()
            except LeftOut as left_out:
                if not left_out.passing or self._clock.now() > until:
                    raise
            await asyncio.sleep(0.25)

    # -- budgets --------------------------------------------------------------------------------

    def _spending(self, experiment: Experiment) -> Spending:
        spending = self._spent[experiment.name]
        spending.turn(self._clock.utc().date())
        return spending

    async def _budget(self) -> None:
        """Write the budgets of the experiments in force, take others out, and read what was spent."""
        now = self._clock.utc()
        wanted = {row.id: row for each in self._copyings for row in budgets_of(each.experiment, now)}
        known = {row.id: row for row in await self._db.budgets() if row.of == "shadow" and row.name != SENTINEL}
        for row in wanted.values():
            before = known.get(row.id)
            if before is None or before.limit != row.limit:
                await self._db.set_budget(row)
        for row in known.values():
            if row.id not in wanted:
                await self._db.set_budget(replace(row, removed=now))
        for each in self._copyings:
            self._spent[each.experiment.name] = await self._read_spent(each.experiment, now)
        self._budgeted = True

    async def _read_spent(self, experiment: Experiment, now: datetime) -> Spending:
        day, total = budgets_of(experiment, now)
        counted = [
            sum(
                each.held + each.posted
                for each in (await self._db.counters(row.id, [window_at(row, now).name])).values()
            )
            for row in (day, total)
        ]
        strata: Counter[str] = Counter()
        if experiment.sample.stratify:
            midnight = now.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
            for pair in await self._db.shadow_pairs(experiment.name):
                strata[pair.stratum] += pair.challenger_side.billed if pair.at >= midnight else 0
        elif counted[0]:
            strata[""] = counted[0]
        return Spending(day=now.date(), today=dict(strata), total=counted[1])


def budgets_of(experiment: Experiment, now: datetime) -> tuple[BudgetRow, BudgetRow]:
    """What copies of an experiment may cost in a day, and in all."""
    name = experiment.name
    day = BudgetRow(
        id=f"bud_shadow_{name}_day",
        of="shadow",
        name=name,
        limit=experiment.budget.day,
        window="day",
        zone="UTC",
        created=now,
    )
    return day, replace(day, id=f"bud_shadow_{name}_total", limit=experiment.budget.total, window="total")


def side_of(order: Ended, offer: Offer, request: ImageRequest, picture: AssetRow | None) -> Side:
    """One side of a pair, from the order that it took. Money is for one picture."""
    told = order.outcome
    outcome: Outcome = "delivered"
    if told.error is not None:
        blank = told.error == "bad_delivery" and "black" in told.detail
        outcome = "blank" if blank else _OUTCOMES.get(told.error, "failed")
    came = _SIZE.match(told.detail) if picture is None else None
    width, height = (int(came[1]), int(came[2])) if came else (0, 0)
    return Side(
        offer=offer.id,
        account=offer.account,
        quoted=_quoted(offer, request) // request.count,
        billed=order.cost // order.count,
        latency_s=told.latency_s,
        queue_s=told.queue_s,
        outcome=outcome,
        error=told.error,
        width=width if picture is None else picture.width,
        height=height if picture is None else picture.height,
        asset=None if picture is None else picture.id,
    )


def _quoted(offer: Offer, request: ImageRequest) -> int:
    try:
        return quote_at(offer, request).amount
    except Unpriced:
        return 0


def _most(experiment: Experiment) -> float:
    sample = experiment.sample
    shares: Iterable[float] = (sample.share, *(share for _, share in sample.by))
    return 1.0 if sample.always else max(shares)


def _reason(why: GatewayError) -> str:
    reasons = why.extra.get("reasons")
    if isinstance(reasons, list) and reasons and isinstance(reasons[0], dict):
        code, offer = reasons[0].get("code"), reasons[0].get("offer")
        said = {"headroom": "no room to spare", "ceiling": "its budget is nearly spent"}.get(str(code), str(code))
        return f"{said} ({offer})"
    return "it could not be ordered"


def _midnight_after(now: datetime) -> datetime:
    return (now + timedelta(days=1)).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
