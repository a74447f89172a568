"""Draws fixed prompts from fixed seeds at every offer, for a small budget, and tells people when something has changed.

It goes through the request path as copies for experiments do: from room to spare, charged to nobody, under a budget of
its own that is checked in the commit of each order. Offers take turns, the one that was drawn longest ago first, so a
budget too small for all of them a day still comes to each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta

import structlog
from msgspec.structs import replace

from gateway.assets import Assets, Unfit
from gateway.clock import Clock
from gateway.errors import BudgetSpent, GatewayError
from gateway.features.alerts import Alerts
from gateway.features.copying import KEY, side_of
from gateway.features.shadow_budgets import budget_row
from gateway.ids import new_id, sibling
from gateway.requests.call import Call, Caller, Delivered, Ended
from gateway.requests.pipeline import Pipeline
from gateway.settings import SentinelSettings
from gateway.storage.database import Database
from gateway.storage.shadows import SENTINEL, party
from policies.catalog import Catalog
from policies.eligibility import nearest_size
from policies.experiments.constancy import Change, Draw, changes
from policies.types import Constraints, Offer
from providers.contract import ImageRequest

log = structlog.get_logger("gateway.sentinel")

LOOK_S = 30.0
"""Seconds between two looks whether a draw is due; each look draws one at most."""
KEEP = timedelta(days=90)
"""For how long its pictures are kept."""
DEADLINE_S = 300.0
SIDE = 512
PROMPTS: Mapping[str, tuple[str, int]] = {
    "still-life": ("A red apple and a blue ceramic jug on a white table, daylight, plain grey background", 20261126),
}
"""Name -> words and seed. To change one, give it another name: its pictures are held against those of that name."""


class Sentinel:
    """Watches offers."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        assets: Assets,
        alerts: Alerts,
        terms: Callable[[], SentinelSettings],
        catalog: Callable[[], Catalog],
        path: Callable[[], Pipeline],
    ) -> None:
        """`terms`, `catalog` and `path` answer for what is in force at the moment."""
        self._db = db
        self._clock = clock
        self._assets = assets
        self._alerts = alerts
        self._terms = terms
        self._catalog = catalog
        self._path = path
        self._asked: dict[tuple[str, str], float] = {}
        """Offer and prompt -> when it was last tried, in unix seconds, whatever came of it."""
        self._read = False
        """Whether what was drawn before this process began is among them."""

    async def work(self) -> None:
        """Draw what is due, one picture at most; nothing without a budget."""
        terms = self._terms()
        if terms.budget is None:
            return
        due = await self.due(self._clock.utc().timestamp() - terms.every)
        if due:
            await self.draw(*due[0])

    async def due(self, before: float) -> list[tuple[Offer, str]]:
        """Offers and prompts last drawn before a moment (unix seconds), the longest ago first."""
        if not self._read:
            self._asked |= {(each.offer, each.prompt): each.at for each in await self._db.draws()}
            self._read = True
        waiting = [
            (self._asked.get((offer.id, prompt), 0.0), offer, prompt)
            for offer in self._catalog().for_sale()
            if "generate" in offer.abilities.operations and not offer.abilities.references[0]
            for prompt in PROMPTS
        ]
        waiting.sort(key=lambda each: (each[0], each[1].id))
        return [(offer, prompt) for at, offer, prompt in waiting if at <= before]

    async def draw(self, offer: Offer, prompt: str) -> Draw | None:
        """Draw a prompt at an offer, hold it against earlier draws, and tell what is new.

        None where there was no room, or the day's money is spent.
        """
        terms = self._terms()
        if terms.budget is None:
            return None
        now = self._clock.utc()
        self._asked[offer.id, prompt] = now.timestamp()
        await self._set_budget(terms.budget)
        call = self._call(offer, prompt)
        drawn = await self._drawn(call)
        if drawn is None:
            return None
        order, picture = drawn
        asset = picture.asset if picture is not None else None
        side = side_of(order, offer, call.request, asset)
        digits = "" if picture is None else await asyncio.to_thread(_print, picture.data)
        draw = Draw(
            id=sibling(call.id, "draw"),
            at=now.timestamp(),
            offer=offer.id,
            prompt=prompt,
            quoted=side.quoted,
            billed=side.billed,
            latency_s=side.latency_s,
            error=side.error,
            width=side.width,
            height=side.height,
            print=digits,
            asset=side.asset,
        )
        before = [each for each in await self._db.draws(offer.id) if each.prompt == prompt]
        found = changes(before, draw)
        draw = replace(draw, changed=tuple(each.what for each in found))
        await self._db.keep_draw(draw)
        for change in found:
            await self._tell(draw, change)
        return draw

    async def _tell(self, draw: Draw, change: Change) -> None:
        text = (
            f"{draw.offer} is not as it was: {change.says}. Has the seller changed the model behind it, or its price?"
        )
        facts = {
            "offer": draw.offer,
            "prompt": draw.prompt,
            "changed": change.what,
            "draw": draw.id,
            "billed_nano_usd": draw.billed,
            "quoted_nano_usd": draw.quoted,
            "seconds": draw.latency_s,
            "size": f"{draw.width}x{draw.height}",
        }
        await self._alerts.changed((draw.offer, draw.id, change.what), text, facts)

    async def _drawn(self, call: Call) -> tuple[Ended, Delivered | None] | None:
        try:
            picture = (await self._path().serve(call)).images[0]
        except BudgetSpent:
            log.info("sentinel_paused", reason="its budget is spent")
            return None
        except GatewayError:
            picture = None
        if picture is not None and picture.order is not None:
            return picture.order, picture
        attempts = [row for row in await self._db.attempts(call.id) if row.outcome is not None]
        told = attempts[0].outcome if attempts else None
        if told is None or told.error in {"cancelled", "overloaded"}:
            return None
        return Ended(attempts[0].cost, attempts[0].count, told), None

    def _call(self, offer: Offer, prompt: str) -> Call:
        words, seed = PROMPTS[prompt]
        width, height = nearest_size(offer, ImageRequest(prompt=words, width=SIDE, height=SIDE))
        request = ImageRequest(prompt=words, width=width, height=height, seed=seed if offer.abilities.seed else None)
        return Call(
            id=new_id("call"),
            caller=Caller(key_id=KEY, team=party(SENTINEL)),
            request=request,
            constraints=Constraints(
                models=frozenset({offer.model}), only=frozenset({offer.account}), slo=DEADLINE_S, deadline=DEADLINE_S
            ),
            purpose="sentinel",
            kept_until=self._clock.utc() + KEEP,
            arrived=self._clock.now(),
        )

    async def _set_budget(self, limit: int) -> None:
        now = self._clock.utc()
        wanted = budget_row(SENTINEL, limit, now)
        known = [row for row in await self._db.budgets() if row.of == "shadow" and row.name == SENTINEL]
        if not any(row.id == wanted.id and row.limit == limit for row in known):
            await self._db.set_budget(wanted)
        for row in known:
            if row.id != wanted.id:  # as earlier versions called it
                await self._db.set_budget(replace(row, removed=now))


def _print(data: bytes) -> str:
    """The perceptual hash of a picture, in hexadecimal digits; empty where no decoder here takes it."""
    # With numpy, which a start has no time for.
    from gateway.features.measuring import pixels_of
    from policies.experiments.picture_measures import luminance, phash

    try:
        bits = phash(luminance(pixels_of(data)))
    except Unfit as unfit:
        log.warning("draw_not_measured", detail=unfit.why)
        return ""
    return f"{int(''.join('1' if bit else '0' for bit in bits), 2):016x}"
