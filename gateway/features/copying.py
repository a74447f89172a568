"""Has one copy of a call drawn by a challenger, and keeps what came of both sides as a pair.

It goes through the request path like any call, on the caller's terms about data and rights, but nobody is charged: what
it costs is the experiment's, under a budget of its own that is checked in the commit that sets the money aside.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

import structlog
from msgspec import Struct
from msgspec.structs import replace

from gateway.assets import Assets
from gateway.clock import Clock
from gateway.errors import BudgetSpent, GatewayError, NoCapacity, NoOffer
from gateway.features.shadow_budgets import ShadowBudgets
from gateway.ids import new_id, sibling
from gateway.requests.call import Call, Caller, Delivered, Ended
from gateway.requests.orders import RunningOrder
from gateway.requests.pipeline import Pipeline
from gateway.requests.regime import Regime
from gateway.storage.database import Database
from gateway.storage.rows import AssetRow
from gateway.storage.shadows import ShadowRow, party
from policies.experiments.definition import Challenger, Experiment, Facts, copied, terms_of
from policies.experiments.pairs import Outcome, Pair, Side
from policies.experiments.sampling import share_of, stratum_of
from policies.offer_prices import quote_at
from policies.tariffs import Unpriced
from policies.types import Constraints, Offer
from providers.contract import ImageRequest

log = structlog.get_logger("gateway.copying")

KEY = "shadow"
"""The key that the books name for copies; nobody has it."""
UNTOLD = frozenset({"cancelled", "overloaded", "abandoned"})
"""Ends of an order that say nothing of its seller: we called it off, or sent too many."""
_SIZE = re.compile(r"^(\d+)x(\d+) (came|instead)")
_OUTCOMES: Mapping[str, Outcome] = {"content_refused": "refused", "timed_out": "timeout"}


class LeftOut(Exception):
    """A copy was not made, or came to nothing that says anything of its seller; the message is the reason."""

    def __init__(self, why: str, *, passing: bool = False) -> None:
        """`passing`: a moment later it may be possible."""
        super().__init__(why)
        self.passing = passing


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


class Copier:
    """Draws copies and keeps pairs."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        assets: Assets,
        running: Collection[RunningOrder],
        budgets: ShadowBudgets,
    ) -> None:
        """`running`: the orders under way in this process."""
        self._db = db
        self._clock = clock
        self._assets = assets
        self._orders = running
        self._budgets = budgets

    def __repr__(self) -> str:
        return f"<Copier, {len(self._orders)} orders under way>"

    async def draw(
        self, experiment: Experiment, challenger: Challenger, path: Pipeline, served: Served, regime: Regime
    ) -> Finished:
        """Have one copy drawn under the policy and catalogue in force; raises `LeftOut` where it came to nothing."""
        call, facts, budgets = served.call, served.facts, self._budgets
        offer = regime.catalog.offers.get(challenger.offer_of(facts.champion))
        stratum = stratum_of(experiment.sample, facts)
        if not budgets.holds(experiment):
            raise LeftOut("the experiment was taken out of the policy")
        if offer is None:
            raise LeftOut(f"{challenger.account} does not sell it")
        if call.request.transparent and not offer.abilities.transparent:
            raise LeftOut(f"{offer.id} paints no transparent background")
        left = budgets.left(experiment, stratum)
        if not left:
            raise LeftOut("its budget is spent")
        copy = self._call(experiment, challenger, offer, served, left, regime)
        asked = copy.constraints.asked(offer.id, copy.request)
        estimate = _quoted(offer, asked)
        budgets.add(experiment, stratum, estimate)
        billed = 0
        try:
            with budgets.drawing(experiment):
                order, picture = await self.drawn(copy, path)
            billed = order.cost
        except BudgetSpent:
            budgets.refused(experiment)
            raise LeftOut("its budget is spent") from None
        finally:
            budgets.add(experiment, stratum, billed - estimate)
        side = side_of(order, offer, asked, picture.asset if picture is not None else None)
        return Finished(experiment=experiment, challenger=challenger, served=served, copy=copy, side=side)

    def _call(
        self, experiment: Experiment, challenger: Challenger, offer: Offer, served: Served, left: int,
        regime: Regime,
    ) -> Call:  # fmt: skip
        """The copy: the same prompt, seed and size, on the caller's terms, for our own account."""
        call = served.call
        seed = served.picture.asset.seed if served.picture is not None else call.request.seed
        request = replace(call.request, count=1, seed=seed if offer.abilities.seed else None)
        terms = call.constraints
        keep = experiment.keep
        of_team = regime.policy.team_keep_assets.get(call.caller.team)
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
                params=terms.params,
            ),
            inputs=call.inputs,
            mask=call.mask,
            intent=call.intent,
            compression=call.compression,
            purpose="shadow",
            kept_until=self._clock.utc() + timedelta(seconds=kept),
            arrived=self._clock.now(),
        )

    async def drawn(self, copy: Call, path: Pipeline) -> tuple[Ended, Delivered | None]:
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
        if told.error in UNTOLD:
            raise LeftOut(f"{attempts[0].account} had no room for it", passing=True)
        return Ended(attempts[0].cost, attempts[0].count, told), None

    async def keep(self, done: Finished) -> Pair:
        """Keep a pair; raises `LeftOut` where its call was erased."""
        experiment, challenger, served, copy, side = done.experiment, done.challenger, done.served, done.copy, done.side
        call, facts = served.call, served.facts
        mine_drawn = served.picture.asset if served.picture is not None else None
        asked = call.constraints.asked(facts.champion.id, replace(call.request, count=served.order.count))
        mine = side_of(served.order, facts.champion, asked, mine_drawn)
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
            terms=terms_of(experiment, challenger),
            require=call.constraints.require,
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


def _reason(why: GatewayError) -> str:
    reasons = why.extra.get("reasons")
    if isinstance(reasons, list) and reasons and isinstance(reasons[0], dict):
        code, offer = reasons[0].get("code"), reasons[0].get("offer")
        said = {"headroom": "no room to spare", "ceiling": "its budget is nearly spent"}.get(str(code), str(code))
        return f"{said} ({offer})"
    return "it could not be ordered"
