"""`pixelgate doctor --spend`: one cheapest picture at each account, ordered and paid for like any other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from gateway.app import App, build
from gateway.errors import GatewayError
from gateway.ids import new_id
from gateway.requests.call import Call, Caller
from gateway.settings import Settings
from policies.offer_prices import quote_at
from policies.tariffs import Unpriced
from policies.types import Constraints, Offer
from providers.contract import ImageRequest, SizeRule

_TEAM = "doctor"
"""Who owes what the pictures cost; its own name keeps them out of every team's bill."""
_PROMPT = "a lighthouse"


class Drawn(Struct, frozen=True, kw_only=True):
    """What came of one account's picture."""

    account: str
    offer: str | None
    """None: nothing of this account is drawn from words, or nobody delivered."""
    nano_usd: int
    """What the ledger says the account is owed for it, whether or not a picture came."""
    ordered: bool = True
    fault: str | None = None


async def draw_one_each(settings: Settings) -> AsyncIterator[Drawn]:
    """Draw a picture at each account that is on; the gateway's own records say what it cost."""
    app = await build(settings)
    await app.start()
    try:
        for account in app.revision.accounts:
            yield await _draw(app, account)
    finally:
        await app.stop()


def cheapest(offers: Sequence[Offer]) -> tuple[Offer, ImageRequest] | None:
    """Find what draws a picture from words alone for the least, and the smallest such picture."""
    best: tuple[int, Offer, ImageRequest] | None = None
    for offer in offers:
        if "generate" not in offer.abilities.operations or offer.abilities.references[0]:
            continue
        width, height = smallest(offer.abilities.sizes)
        request = ImageRequest(prompt=_PROMPT, width=width, height=height)
        try:
            amount = quote_at(offer, request).amount
        except Unpriced:
            continue
        if best is None or amount < best[0]:
            best = amount, offer, request
    return None if best is None else best[1:]


def smallest(rule: SizeRule) -> tuple[int, int]:
    """The smallest picture a rule allows."""
    if rule.named:
        return min(rule.named.values(), key=lambda size: size[0] * size[1])
    side = -(-rule.min_side // rule.multiple) * rule.multiple
    return side, side


async def _draw(app: App, account: str) -> Drawn:
    found = cheapest([offer for offer in app.revision.catalog.for_sale() if offer.account == account])
    if found is None:
        why = "nothing of it is drawn from words, so no picture was ordered"
        return Drawn(account=account, offer=None, nano_usd=0, ordered=False, fault=why)
    offer, request = found
    call = Call(
        id=new_id("call"),
        caller=Caller(key_id=_TEAM, team=offer.team or _TEAM),
        request=request,
        constraints=Constraints(models=frozenset({offer.model}), only=frozenset({account})),
        arrived=app.clock.now(),
    )
    fault: str | None = None
    try:
        await app.pipeline.serve(replace(call, model=offer.model))
    except GatewayError as error:
        fault = str(error)
    await app.idle()
    attempts = await app.db.attempts(call.id)
    ends = [attempt.outcome for attempt in attempts if attempt.outcome is not None]
    if fault is not None and ends:
        fault = "; ".join(dict.fromkeys(f"{end.error}: {end.detail}" for end in ends))
    return Drawn(
        account=account,
        offer=offer.id if fault is None else None,
        nano_usd=sum(attempt.cost or 0 for attempt in attempts),
        fault=fault,
    )
